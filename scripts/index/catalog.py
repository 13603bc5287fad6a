"""What an index holds, as data: one entry a wheel of nvdiffrast, one a wheel without compiled code, and where they lie.

A store is one folder:

    pool/<sha256>/<wheel>              the bytes of every wheel ever staged, never changed, never deleted
    pool/<sha256>/<wheel>.metadata     its METADATA (PEP 658)
    records/<sha256>.<kind>.json       evidence: audit, gpu, waiver; package, of a wheel without compiled code
    ledger.jsonl                       what was done, in order, one JSON object a line, appended
    generations/<name>/                whole static indexes: catalog.json, index.html, whl/..., files -> ../../pool
    staged -> generations/<name>       the index that is proven
    current -> generations/<name>      the index that readers see
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from packaging.utils import canonicalize_name
from pydantic import TypeAdapter, ValidationError

from scripts.errors import CatalogError

CATALOG = "catalog.json"
# The file's frame; what is between is one line an entry.
FOOT = "]}\n"

CPU = "cpu"
"""The channel for who has no CUDA: it lists the wheels without compiled code alone."""


@dataclass(frozen=True)
class File:
    """One wheel of an index, as every page lists it.

    ``uploaded`` is UTC in ISO 8601 ("2026-11-21T10:00:00Z"), ``size`` in bytes; ``yanked`` is a reason, None for not.
    """

    name: str
    sha256: str
    size: int
    uploaded: str
    metadata_sha256: str
    requires_python: str | None
    yanked: str | None = field(default=None, kw_only=True)


_File = TypeVar("_File", bound=File)


@dataclass(frozen=True)
class Entry(File):
    """One wheel of nvdiffrast.

    ``sass`` and ``ptx`` are compute capabilities ("9.0"). ``waiver`` is a reason, None for none. ``partial``: built for
    fewer architectures than its toolkit's policy; only a store for rehearsals holds such a wheel.
    """

    cell: str
    release: str
    python: str
    cuda: str
    torch: str
    platform: str
    sass: tuple[str, ...]
    ptx: tuple[str, ...]
    gpu: Literal["passed", "waived", "untested"] = "untested"
    waiver: str | None = None
    partial: bool = False

    @property
    def channels(self) -> tuple[str, str]:
        """The folders under /whl/ that list it: of its CUDA, and of its CUDA and torch ("cu130", "cu130-torch2.14")."""
        return self.cuda, f"{self.cuda}-torch{self.torch}"


@dataclass(frozen=True)
class PureWheel(File):
    """One wheel without compiled code, of a package below packages/: every channel lists it.

    ``requires`` is what it needs, extras aside, as METADATA says it: "numpy", "torch>=2.1".
    """

    requires: tuple[str, ...]

    @property
    def project(self) -> str:
        """Its project as installers name it: "torch-rasterizer"."""
        return canonicalize_name(self.name.partition("-")[0])

    @property
    def version(self) -> str:
        """Its version: "0.1.0"."""
        return self.name.split("-", 2)[1]


@dataclass(frozen=True)
class Catalog:
    """All entries, and all wheels without compiled code, each ordered by file name; no name twice."""

    entries: tuple[Entry, ...] = field(default=())
    packages: tuple[PureWheel, ...] = field(default=())

    @property
    def files(self) -> tuple[Entry | PureWheel, ...]:
        """All wheels."""
        return *self.entries, *self.packages

    @property
    def channels(self) -> frozenset[str]:
        """The folders under /whl/."""
        alike = {(entry.cuda, entry.torch): entry for entry in self.entries}
        found = {channel for entry in alike.values() for channel in entry.channels}
        return frozenset(found | ({CPU} if self.packages else set()))

    def named(self, name: str) -> Entry | None:
        """The entry of that file name, or None."""
        return next((entry for entry in self.entries if entry.name == name), None)

    def file(self, name: str) -> Entry | PureWheel | None:
        """The wheel of that file name, with compiled code or without, or None."""
        return next((file for file in self.files if file.name == name), None)

    def with_entry(self, entry: Entry | PureWheel) -> Self:
        """A catalog that also holds ``entry``, in place of one of its name."""
        if isinstance(entry, PureWheel):
            return replace(self, packages=_with(self.packages, entry))
        return replace(self, entries=_with(self.entries, entry))


def _with(files: Iterable[_File], file: _File) -> tuple[_File, ...]:
    others = [other for other in files if other.name != file.name]
    return tuple(sorted([*others, file], key=lambda one: one.name))


def dump(catalog: Catalog) -> str:
    """The catalog as JSON, one line an entry; the same catalog gives the same text."""
    body = ",\n".join(map(line, catalog.entries))
    return f"{head(catalog.packages)}{body}\n{FOOT}" if body else f"{head(catalog.packages)}{FOOT}"


def head(packages: Sequence[PureWheel]) -> str:
    """What a catalog's file begins with."""
    if not packages:
        return '{"schema": 1, "entries": [\n'
    body = ",\n".join(map(line, packages))
    return f'{{"schema": 1, "packages": [\n{body}\n], "entries": [\n'


def line(file: File) -> str:
    """A wheel's line in a catalog's file, without what is between two lines."""
    return json.dumps(vars(file), sort_keys=True)


def parse(text: str, place: str) -> Catalog:
    """Read what :func:`dump` wrote; ``place`` names it in errors.

    Raises:
        CatalogError: it is not a catalog.
    """
    try:
        data: dict[str, Any] = json.loads(text)
        if data.pop("schema", None) != 1:
            raise CatalogError(f"{place}: not a catalog of schema 1")
        return _ADAPTER.validate_python(data)
    except (ValueError, AttributeError, TypeError, ValidationError) as error:
        raise CatalogError(f"{place}: not a catalog: {error}") from error


def read(generation: Path) -> Catalog:
    """The catalog of a generation's folder; an index that is not there yet holds nothing."""
    path = generation / CATALOG
    if not path.exists():
        return Catalog()
    found = path.stat()
    return _read(path.resolve(), (found.st_ino, found.st_mtime_ns, found.st_size))


@lru_cache(maxsize=4)
def _read(path: Path, state: tuple[int, ...]) -> Catalog:
    """One publishing reads the same generation many times; ``state`` tells whether the file is still the same one."""
    return parse(path.read_text(encoding="utf-8"), str(path))


_ADAPTER = TypeAdapter(Catalog)
