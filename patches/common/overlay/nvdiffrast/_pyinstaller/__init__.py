"""Registers the PyInstaller hook that adds nvdiffrast's compiled modules to a frozen program."""

from __future__ import annotations

from pathlib import Path


def get_hook_dirs() -> list[str]:
    """Return the folder of the hook. PyInstaller calls this function through the wheel's entry point."""
    return [str(Path(__file__).parent)]
