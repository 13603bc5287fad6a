"""Shared libraries of either format: which files are some, what is in them."""

from __future__ import annotations

import re
from pathlib import Path

from scripts.errors import AuditError
from scripts.wheel import elf, pe
from scripts.wheel.shared_library import Binary

_SHARED_LIBRARY = re.compile(r"\.(?:pyd|dll|so(?:\.\d+)*)$")
_BUILD_PATH = re.compile(rb"(?:/(?:tmp|home|root|var/tmp|Users)/|[A-Z]:\\Users\\)[\x21-\x7e]{2,}")


def is_shared_library(name: str) -> bool:
    """Whether a file is a shared library by its name."""
    return _SHARED_LIBRARY.search(name) is not None


def read(path: Path) -> Binary:
    """Read an ELF or PE file.

    Raises:
        AuditError: it is neither, or damaged.
    """
    with path.open("rb") as file:
        magic = file.read(4)
    if magic == b"\x7fELF":
        return elf.read(path)
    if magic[:2] == b"MZ":
        return pe.read(path)
    raise AuditError(f"{path.name}: neither an ELF nor a PE file")


def build_paths(content: bytes) -> list[str]:
    """The paths below a builder's own folders (/tmp, /home, /root, Users) among a file's bytes, sorted, each once."""
    return sorted({match.decode("ascii") for match in _BUILD_PATH.findall(content)})
