"""Reads which files the installed wheel lists; read only after a failure, or where a compiled module is absent."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from . import _loader


def distributions() -> list[Path]:
    """Return the .dist-info folders beside this package."""
    return sorted(_loader.PACKAGE.parent.glob("nvdiffrast-*.dist-info"))


def files(distribution: Path) -> dict[str, str]:
    """Return the files that a .dist-info folder's RECORD lists, with their SHA-256 or ""; empty if it has no RECORD."""
    try:
        rows = list(csv.reader((distribution / "RECORD").read_text(encoding="utf-8").splitlines()))
    except (OSError, ValueError, csv.Error):
        return {}
    return {row[0]: row[1][7:] if row[1].startswith("sha256=") else "" for row in rows if len(row) == 3}


def listed() -> dict[str, str]:
    """Return the files that the RECORDs of this installation list, with their SHA-256; empty if there is no RECORD."""
    return {name: digest for folder in distributions() for name, digest in files(folder).items()}


def lists_file(file: Path) -> bool:
    """Return whether a file belongs to this installation; without a RECORD every file does."""
    names = listed()
    return not names or file.relative_to(_loader.PACKAGE.parent).as_posix() in names


def lists_module(name: str) -> bool:
    """Return whether RECORD or build_info.json says that this installation has the compiled module ``name``.

    Only a compiled wheel has a build_info.json: one that does not say which modules it describes is damaged, and the
    answer is then yes.
    """
    if modules(name):
        return True
    try:
        plugins = json.loads((_loader.PACKAGE / "build_info.json").read_text(encoding="utf-8"))["plugins"]
    except FileNotFoundError:
        return False
    except (OSError, ValueError, KeyError, TypeError):
        return True
    return name in plugins if isinstance(plugins, list) else True


def modules(name: str) -> list[Path]:
    """Return the files of the compiled module ``name`` that RECORD lists, whether or not they are there."""
    found = [Path(entry) for entry in listed() if Path(entry).name.startswith(f"{name}.")]
    return [_loader.PACKAGE.parent / file for file in found if file.suffix in (".so", ".pyd")]
