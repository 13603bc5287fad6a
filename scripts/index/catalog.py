"""The catalog of an index: one entry for each wheel.

A store is one folder:

    pool/<sha256>/<wheel>              each wheel that was ever staged; never changed or deleted
    pool/<sha256>/<wheel>.metadata     METADATA of this wheel (PEP 658)
    records/<sha256>.<kind>.json       records about it; <kind> is audit, gpu, waiver or package
    ledger.jsonl                       the log of all operations, one JSON object per line
    generations/<name>/                complete static indexes (scripts/index/writer.py)
    staged -> generations/<name>       the index that `nox -s prove` tests
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

CPU = "cpu"
"""The channel that lists only the wheels without compiled code, for users without CUDA."""


@dataclass(frozen=True)
class File:
    """The fields of a wheel that every page lists.

    ``uploaded`` is UTC in ISO 8601 ("2026-11-21T10:00:00Z"), ``size`` in bytes; ``yanked`` is the reason, None if
    the wheel is not yanked.
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
    """A wheel of nvdiffrast.

    ``sass`` and ``ptx`` are compute capabilities ("9.0"). ``waiver`` is the reason for publishing without a GPU run,
    None without a waiver. ``partial`` means that the wheel was built for fewer architectures than its toolkit's policy
    requires; only a store for rehearsals has such wheels.
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
        """The channels that list the wheel: for its CUDA, and for its CUDA and torch ("cu130", "cu130-torch2.14")."""
        return self.cuda, f"{self.cuda}-torch{self.torch}"


@dataclass(frozen=True)
class PureWheel(File):
    """A wheel without compiled code, made from a package below packages/; every channel lists it.

    ``requires`` are its requirements as in METADATA, without those of extras: "numpy", "torch>=2.1".
    """

    requires: tuple[str, ...]

    @property
    def project(self) -> str:
        """The normalized name of its project: "torch-rasterizer"."""
        return canonicalize_name(self.name.partition("-")[0])

    @property
    def version(self) -> str:
        """Its version: "0.1.0"."""
        return self.name.split("-", 2)[1]


@dataclass(frozen=True)
class Catalog:
    """The wheels of nvdiffrast and the wheels without compiled code, each ordered by file name without duplicates."""

    entries: tuple[Entry, ...] = field(default=())
    packages: tuple[PureWheel, ...] = field(default=())

    @property
    def files(self) -> tuple[Entry | PureWheel, ...]:
        """All wheels of both kinds."""
        return *self.entries, *self.packages

    @property
    def channels(self) -> frozenset[str]:
        """The names of all channels."""
        by_channel = {(entry.cuda, entry.torch): entry for entry in self.entries}
        names = {channel for entry in by_channel.values() for channel in entry.channels}
        return frozenset(names | ({CPU} if self.packages else set()))

    def named(self, name: str) -> Entry | None:
        """Return the wheel of nvdiffrast with this file name, None if there is no such wheel."""
        return next((entry for entry in self.entries if entry.name == name), None)

    def file(self, name: str) -> Entry | PureWheel | None:
        """Return the wheel with this file name, None if there is no such wheel."""
        return next((file for file in self.files if file.name == name), None)

    def with_entry(self, entry: Entry | PureWheel) -> Self:
        """Return a catalog with ``entry`` added, or replaced if it has an entry of this name."""
        if isinstance(entry, PureWheel):
            return replace(self, packages=_with(self.packages, entry))
        return replace(self, entries=_with(self.entries, entry))


def _with(files: Iterable[_File], file: _File) -> tuple[_File, ...]:
    others = [other for other in files if other.name != file.name]
    return tuple(sorted([*others, file], key=lambda one: one.name))


def dump(catalog: Catalog) -> str:
    """Return the catalog as JSON with one line per wheel; the same catalog always gives the same text."""
    packages = f'"packages": [\n{_lines(catalog.packages)}], ' if catalog.packages else ""
    return f'{{"schema": 1, {packages}"entries": [\n{_lines(catalog.entries)}]}}\n'


def _lines(files: Sequence[File]) -> str:
    return ",\n".join(json.dumps(vars(file), sort_keys=True) for file in files) + ("\n" if files else "")


def parse(text: str, place: str) -> Catalog:
    """Return the catalog that :func:`dump` gave ``text`` for; errors name ``place``.

    Raises:
        CatalogError: if the text is not a catalog.
    """
    try:
        data: dict[str, Any] = json.loads(text)
        if data.pop("schema", None) != 1:
            raise CatalogError(f"{place}: not a catalog of schema 1")
        return _ADAPTER.validate_python(data)
    except (ValueError, AttributeError, TypeError, ValidationError) as error:
        raise CatalogError(f"{place}: not a catalog: {error}") from error


def read(generation: Path) -> Catalog:
    """Return the catalog of a generation; an empty one if the generation does not exist yet."""
    path = generation / CATALOG
    if not path.exists():
        return Catalog()
    status = path.stat()
    return _read(path.resolve(), (status.st_ino, status.st_mtime_ns, status.st_size))


@lru_cache(maxsize=4)
def _read(path: Path, state: tuple[int, ...]) -> Catalog:
    """Read a file once while its ``state`` is the same: publishing reads the same generation many times."""
    return parse(path.read_text(encoding="utf-8"), str(path))


_ADAPTER = TypeAdapter(Catalog)
