"""Starts the gate where NumPy and torch are, and says so where they are not."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path


def main(program: Path) -> int:
    """Run the command line; ``program`` is the file that holds the gate and its wheel."""
    lacking = [name for name in ("torch", "numpy") if importlib.util.find_spec(name) is None]
    if lacking:
        print(f"error: {sys.executable} has no {' and no '.join(lacking)}", file=sys.stderr)
        print("next:  run this with the Python that has the torch that the wheel is for", file=sys.stderr)
        return 2
    code: int = importlib.import_module(".command", __package__).main(program)
    return code
