"""Recognizes and reads shared libraries in ELF and PE format."""

from __future__ import annotations

import re
from pathlib import Path

from scripts.errors import AuditError
from scripts.wheel import elf, pe
from scripts.wheel.shared_library import SharedLibrary

_SHARED_LIBRARY = re.compile(r"\.(?:pyd|dll|so(?:\.\d+)*)$")
_BUILD_PATH = re.compile(rb"(?:/(?:tmp|home|root|var/tmp|Users)/|[A-Z]:\\Users\\)[\x21-\x7e]{2,}")


def is_shared_library(name: str) -> bool:
    """Return whether ``name`` is the name of a shared library."""
    return _SHARED_LIBRARY.search(name) is not None


def read(path: Path) -> SharedLibrary:
    """Read an ELF or PE file.

    Raises:
        AuditError: if the file has neither format, or is damaged.
    """
    with path.open("rb") as file:
        magic = file.read(4)
    if magic == b"\x7fELF":
        return elf.read(path)
    if magic[:2] == b"MZ":
        return pe.read(path)
    raise AuditError(f"{path.name}: the file is neither an ELF nor a PE file")


def build_paths(content: bytes) -> list[str]:
    """Return the paths in ``content`` that are below /tmp, /home, /root or Users, sorted and without duplicates."""
    return sorted({match.decode("ascii") for match in _BUILD_PATH.findall(content)})
