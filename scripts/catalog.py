"""What an index holds, as data: one entry a wheel, and where everything lies in a store.

A store is one folder:

    pool/<sha256>/<wheel>              the bytes of every wheel ever staged, never changed, never deleted
    pool/<sha256>/<wheel>.metadata     its METADATA (PEP 658)
    records/<sha256>.<kind>.json       evidence: audit, gpu, waiver
    ledger.jsonl                       what was done, in order, one JSON object a line, appended
    generations/<name>/                whole static indexes: catalog.json, index.html, whl/..., files -> ../../pool
    staged -> generations/<name>       the index that is proven
    current -> generations/<name>      the index that readers see
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import TypeAdapter, ValidationError

from scripts.errors import CatalogError

CATALOG = "catalog.json"
# The file's frame; what is between is one line an entry.
HEAD = '{"schema": 1, "entries": [\n'
FOOT = "]}\n"


@dataclass(frozen=True)
class Entry:
    """One wheel of an index.

    ``uploaded`` is UTC in ISO 8601 ("2026-11-21T10:00:00Z"), ``size`` in bytes; ``sass`` and ``ptx`` are compute
    capabilities ("9.0"). ``yanked`` and ``waiver`` are reasons, None for neither. ``partial``: built for fewer
    architectures than its toolkit's policy; only a store for rehearsals holds such a wheel.
    """

    name: str
    sha256: str
    size: int
    uploaded: str
    metadata_sha256: str
    requires_python: str | None
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
    yanked: str | None = None
    partial: bool = False

    @property
    def channels(self) -> tuple[str, str]:
        """The folders under /whl/ that list it: of its CUDA, and of its CUDA and torch ("cu130", "cu130-torch2.14")."""
        return self.cuda, f"{self.cuda}-torch{self.torch}"


@dataclass(frozen=True)
class Catalog:
    """All entries, ordered by file name; no name twice."""

    entries: tuple[Entry, ...] = field(default=())

    def named(self, name: str) -> Entry | None:
        """The entry of that file name, or None."""
        return next((entry for entry in self.entries if entry.name == name), None)

    def with_entry(self, entry: Entry) -> Self:
        """A catalog that also holds ``entry``, in place of one of its name."""
        others = [other for other in self.entries if other.name != entry.name]
        return replace(self, entries=tuple(sorted([*others, entry], key=lambda one: one.name)))


def dump(catalog: Catalog) -> str:
    """The catalog as JSON, one line an entry; the same catalog gives the same text."""
    body = ",\n".join(map(line, catalog.entries))
    return f"{HEAD}{body}\n{FOOT}" if body else f"{HEAD}{FOOT}"


def line(entry: Entry) -> str:
    """An entry's line in a catalog's file, without what is between two lines."""
    return json.dumps(vars(entry), sort_keys=True)


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
