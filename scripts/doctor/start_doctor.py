"""Runs the doctor in any Python 3.9 or newer: its own nvdiffrast's, else the one of the overlay.

Arguments: the overlay's folder, the file for the JSON, then the doctor's own.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
import types
from pathlib import Path


def _use_overlay(folder: str) -> None:
    """A package of that folder's modules alone, in which nothing is installed."""
    package = types.ModuleType("nvdiffrast")
    package.__path__ = [folder]
    sys.modules["nvdiffrast"] = package


def main() -> int:
    """Write the report; its own exit code says whether there is one."""
    folder, output, *arguments = sys.argv[1:]
    # What lies beside this file is not what is installed.
    here = Path(__file__).resolve().parent
    sys.path[:] = [entry for entry in sys.path if not entry or Path(entry).resolve() != here]
    if importlib.util.find_spec("nvdiffrast") is None or importlib.util.find_spec("nvdiffrast.doctor") is None:
        _use_overlay(folder)
    doctor = importlib.import_module("nvdiffrast.doctor")
    with Path(output).open("w", encoding="utf-8") as file, contextlib.redirect_stdout(file):
        return 0 if doctor.main([*arguments, "--json"]) in (0, 1) else 2


if __name__ == "__main__":
    sys.exit(main())
