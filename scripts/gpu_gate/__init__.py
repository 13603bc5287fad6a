"""GPU gate: tests an installed wheel on the machine where it is installed.

The gate runs in an environment that contains only the standard library, NumPy, torch and the wheel. It imports nothing
else from `scripts`, so that it can be zipped into one file and run on another machine.
"""
