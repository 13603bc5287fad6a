"""Catalogs of wheels that need not exist: entries for cells of the matrix, with hashes made of their names."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from scripts.index.catalog import Catalog, Entry
from scripts.model import Cell


def entry(cell: Cell, **changes: Any) -> Entry:
    """The entry of the cell's wheel, run on a GPU unless ``changes`` say otherwise."""
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
    """A catalog of the cells' wheels, each changed by what ``changes`` says of its cell."""
    return Catalog(tuple(sorted((entry(cell, **changes(cell)) for cell in cells), key=lambda one: one.name)))


def many(cells: Iterable[Cell], number: int) -> Catalog:
    """``number`` entries: the cells, then those of further releases that never were."""
    known = list(cells)
    found: list[Cell] = []
    for later in range(-(-number // len(known))):
        found += [
            cell
            if not later
            else replace(cell, release=replace(cell.release, version=f"{cell.release.version}.{later}0"))
            for cell in known
        ]
    return catalog(found[:number])
