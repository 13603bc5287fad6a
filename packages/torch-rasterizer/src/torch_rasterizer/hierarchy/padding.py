"""Padding: every coarse cell gets a child with the even flag and a child with the odd flag."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from torch_rasterizer.hierarchy.grid import CORNER, Bools, Floats, Ints, keys_of, points_in
from torch_rasterizer.hierarchy.levels import Level, number_keys
from torch_rasterizer.hierarchy.neighbours import Links, link_points


@dataclass(frozen=True)
class Padded:
    """A padded level: new cells come last and lie at ``corners`` float32 [n, 3]; parents int32 [N] of all cells."""

    level: Level
    links: Links
    parents: Ints
    corners: Floats


def pad(coarse: Level, fine: Level, links: Links, parents: Ints) -> Padded:
    """Give every cell of ``coarse`` children with the missing flags; add a child at the corner if none exists there.

    links and parents belong to the fine level. The keys of all pixels were looked up when the level was linked. New
    cells are therefore never neighbours of each other, and their order does not matter.
    """
    no_even = _lacks_flag(coarse.keys.size, parents, links.even)
    no_odd = _lacks_flag(coarse.keys.size, parents, links.odd)
    lacking = np.flatnonzero(no_even | no_odd)
    corners = points_in(coarse.keys[lacking], coarse.resolution, CORNER)
    keys = keys_of(corners, fine.resolution)
    children, new = _find_children(fine, links.unmatched_keys, keys)
    added, blank = lacking[new], np.zeros(new.size, np.bool_)
    even, odd = np.concatenate([links.even, blank]), np.concatenate([links.odd, blank])
    even[children[no_even[lacking]]] = True
    odd[children[no_odd[lacking]]] = True
    views = coarse.views[added]
    nearest = link_points(corners[new], views, links.images, fine.keys.size)
    neighbours = np.concatenate([links.neighbours, nearest])
    return Padded(
        level=replace(fine, keys=np.concatenate([fine.keys, keys[new]]), views=np.concatenate([fine.views, views])),
        links=replace(links, neighbours=neighbours, even=even, odd=odd),
        parents=np.concatenate([parents, added.astype(np.int32)]),
        corners=corners[new],
    )


def _lacks_flag(count: int, parents: Ints, flags: Bools) -> Bools:
    """Return which of ``count`` coarse cells have no child with the flag."""
    without = np.ones(count, np.bool_)
    without[parents[flags]] = False
    return without


def _find_children(fine: Level, unmatched_keys: Ints, keys: Ints) -> tuple[Ints, Ints]:
    """Return the cells int64 [n] of keys, with new numbers for absent cells, and the indices of the new cells.

    Keys in unmatched_keys count as present: looking them up made them names of cell 0.
    """
    cells, present = fine.find(keys)
    if unmatched_keys.size:
        present |= np.isin(keys, unmatched_keys)
    absent = np.flatnonzero(~present)
    numbering = number_keys(keys[absent])
    children = cells.astype(np.int64)
    children[absent] = fine.keys.size + numbering.ids
    return children, absent[numbering.first]
