"""Locates the files of this installation, and decides which compiled modules this Python can import."""

from __future__ import annotations

import importlib.machinery
from pathlib import Path

# absolute() instead of resolve(): Wine cannot resolve a path of more than 260 characters.
PACKAGE = Path(__file__).absolute().parent
SITE_PACKAGES = PACKAGE.parent
BUNDLED_LIBRARIES = SITE_PACKAGES / "nvdiffrast.libs"
BUILD_INFO = PACKAGE / "build_info.json"


def is_importable(file: Path) -> bool:
    """Return whether this Python imports a compiled module from a file with that name."""
    return file.name[file.name.index(".") :] in importlib.machinery.EXTENSION_SUFFIXES


def is_file(path: Path) -> bool:
    """Return whether ``path`` is a file; False if this user may not look it up."""
    try:
        return path.is_file()
    except OSError:
        return False


def is_folder(path: Path) -> bool:
    """Return whether ``path`` is a folder; False if this user may not look it up."""
    try:
        return path.is_dir()
    except OSError:
        return False
