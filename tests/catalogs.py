"""Make catalogs of cells of the matrix; the wheels do not exist, their hashes are made from their names."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from scripts.index.catalog import Catalog, Entry
from scripts.model import Cell


def entry(cell: Cell, **changes: Any) -> Entry:
    """Return an entry for the cell's wheel that passed on a GPU, with ``changes`` to its fields."""
    digest = hashlib.sha256(cell.wheel.encode()).hexdigest()
    made = Entry(
        name=cell.wheel,
        sha256=digest,
        size=10_000_000 + int(digest[:5], 16),
        uploaded="2026-11-21T10:00:00Z",
        metadata_sha256=hashlib.sha256(digest.encode()).hexdigest(),
        requires_python=f"=={cell.python}.*",
        cell=cell.id,
        release=cell.release.version,
        python=cell.python,
        cuda=cell.toolkit.tag,
        torch=cell.torch.line,
        platform=cell.platform.name,
        sass=cell.toolkit.architectures,
        ptx=(cell.toolkit.ptx,),
        gpu="passed",
    )
    return replace(made, **changes)


def catalog(cells: Iterable[Cell], changes: Callable[[Cell], dict[str, Any]] = lambda _: {}) -> Catalog:
    """Return a catalog of the cells' wheels; ``changes`` returns the changes to the fields for a cell."""
    return Catalog(tuple(sorted((entry(cell, **changes(cell)) for cell in cells), key=lambda one: one.name)))


def many(cells: Iterable[Cell], number: int) -> Catalog:
    """Return a catalog with ``number`` entries: the cells, then the same cells for invented releases."""
    known = list(cells)
    found: list[Cell] = []
    for repetition in range(-(-number // len(known))):
        found += [
            cell
            if not repetition
            else replace(cell, release=replace(cell.release, version=f"{cell.release.version}.{repetition}0"))
            for cell in known
        ]
    return catalog(found[:number])
