"""Reads which files the installed wheel lists; used only after a failure or if a compiled module is absent."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from . import _paths


def distributions() -> list[Path]:
    """Return the .dist-info folders of nvdiffrast beside this package."""
    return sorted(_paths.SITE_PACKAGES.glob("nvdiffrast-*.dist-info"))


def files(distribution: Path) -> dict[str, str]:
    """Return the files that a .dist-info folder's RECORD lists, with their SHA-256 or ""; empty if RECORD is absent."""
    try:
        rows = list(csv.reader((distribution / "RECORD").read_text(encoding="utf-8").splitlines()))
    except (OSError, ValueError, csv.Error):
        return {}
    return {row[0]: row[1][7:] if row[1].startswith("sha256=") else "" for row in rows if len(row) == 3}


def installed_files() -> dict[str, str]:
    """Return the files that all RECORDs of this installation list, with their SHA-256; empty if RECORD is absent."""
    return {name: digest for folder in distributions() for name, digest in files(folder).items()}


def lists_file(file: Path) -> bool:
    """Return whether a file belongs to this installation; True for every file if RECORD is absent."""
    names = installed_files()
    return not names or file.relative_to(_paths.SITE_PACKAGES).as_posix() in names


def lists_module(name: str) -> bool:
    """Return whether RECORD or build_info.json lists the compiled module ``name``.

    Only compiled wheels have a build_info.json. If it does not list the modules it is damaged, and the result is True.
    """
    if module_files(name):
        return True
    try:
        plugins = json.loads(_paths.BUILD_INFO.read_text(encoding="utf-8"))["plugins"]
    except FileNotFoundError:
        return False
    except (OSError, ValueError, KeyError, TypeError):
        return True
    return name in plugins if isinstance(plugins, list) else True


def module_files(name: str) -> list[Path]:
    """Return the files of the compiled module ``name`` that RECORD lists, including deleted ones."""
    found = [Path(entry) for entry in installed_files() if Path(entry).name.startswith(f"{name}.")]
    return [_paths.SITE_PACKAGES / file for file in found if file.suffix in (".so", ".pyd")]
