"""Judges an installed wheel on the machine it is installed on.

It runs beside the wheel, in an environment that holds nothing of this repository: standard library, numpy and torch
only, and nothing else of `scripts` is imported, so that it can be zipped into one file for another machine.
"""
