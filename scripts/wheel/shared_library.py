"""The properties of a shared library that the audit checks, independent of the file format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class SharedLibrary:
    """An ELF or PE shared library.

    ``needed`` contains the names of the libraries that it depends on, ``run_paths`` its RPATH and RUNPATH entries,
    ``versions`` the required symbol versions (``{"GLIBC": {"2.2.5"}}``), ``symbols`` the undefined symbols by required
    version (``{"GLIBC_2.2.5": {"memcpy"}}``), ``debug`` the names of sections with debug information, and ``fatbin``
    the contents of `.nv_fatbin`, which is empty if the library contains no CUDA code.
    """

    needed: frozenset[str]
    run_paths: tuple[str, ...] = ()
    versions: Mapping[str, frozenset[str]] = field(default_factory=dict)
    symbols: Mapping[str, frozenset[str]] = field(default_factory=dict)
    debug: tuple[str, ...] = ()
    fatbin: bytes = b""
