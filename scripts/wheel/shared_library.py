"""What the audit knows about a shared library, whatever its format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Binary:
    """One ELF or PE file.

    ``needed`` are the libraries that the system's loader looks for, ``run_paths`` where it is told to look,
    ``versions`` the symbol versions required (``{"GLIBC": {"2.2.5"}}``), ``symbols`` the undefined symbols by required
    version (``{"GLIBC_2.2.5": {"memcpy"}}``), ``debug`` the names of what holds debug information, ``fatbin`` the bytes
    of `.nv_fatbin` (empty: no CUDA code).
    """

    needed: frozenset[str]
    run_paths: tuple[str, ...] = ()
    versions: Mapping[str, frozenset[str]] = field(default_factory=dict)
    symbols: Mapping[str, frozenset[str]] = field(default_factory=dict)
    debug: tuple[str, ...] = ()
    fatbin: bytes = b""
