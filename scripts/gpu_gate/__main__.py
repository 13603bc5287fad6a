"""Entry point of the bundle: checks that torch and NumPy are installed, then runs the command line.

`scripts.smoke` writes this file to the root of the bundle, beside the package `gpu_gate`.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path


def main(program: Path) -> int:
    """Run the command line of the bundle ``program`` and return its exit status; 2 if torch or NumPy is missing."""
    missing = [name for name in ("torch", "numpy") if importlib.util.find_spec(name) is None]
    if missing:
        print(f"error: {sys.executable} has no {' and no '.join(missing)}", file=sys.stderr)
        print("next:  run this file with a Python that has the torch version the wheel was built for", file=sys.stderr)
        return 2
    # The command line imports NumPy.
    code: int = importlib.import_module("gpu_gate.command").main(program)
    return code


if __name__ == "__main__":
    # The bundle is a zip file, so the parent of this file is the bundle itself.
    sys.exit(main(Path(__file__).parent.absolute()))
