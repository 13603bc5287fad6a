"""Run the doctor in any Python 3.9 or newer: that of its installed nvdiffrast, else that of the overlay.

Arguments: the overlay's folder, the file for the JSON report, then the doctor's own arguments.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
import types
from pathlib import Path


def _use_overlay(folder: str) -> None:
    """Define the package nvdiffrast with only the modules of that folder."""
    package = types.ModuleType("nvdiffrast")
    package.__path__ = [folder]
    sys.modules["nvdiffrast"] = package


def main() -> int:
    """Write the report, and return 0 if the doctor made one, else 2."""
    folder, output, *arguments = sys.argv[1:]
    # Modules beside this file must not be imported in place of installed ones.
    here = Path(__file__).resolve().parent
    sys.path[:] = [entry for entry in sys.path if not entry or Path(entry).resolve() != here]
    if importlib.util.find_spec("nvdiffrast") is None or importlib.util.find_spec("nvdiffrast.doctor") is None:
        _use_overlay(folder)
    doctor = importlib.import_module("nvdiffrast.doctor")
    with Path(output).open("w", encoding="utf-8") as file, contextlib.redirect_stdout(file):
        return 0 if doctor.main([*arguments, "--json"]) in (0, 1) else 2


if __name__ == "__main__":
    sys.exit(main())
