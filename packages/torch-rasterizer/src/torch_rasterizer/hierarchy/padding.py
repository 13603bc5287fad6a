"""Padding: every coarse cell gets a child with the even flag and one with the odd flag."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from torch_rasterizer.hierarchy.grid import CORNER, Bools, Floats, Ints, keys_of, points_in
from torch_rasterizer.hierarchy.levels import Level, number
from torch_rasterizer.hierarchy.neighbours import Links, link_points


@dataclass(frozen=True)
class Padded:
    """A level with its padding: the new cells come last, at `corners` float32 <n,3>; parents int32 <N> of all."""

    level: Level
    links: Links
    parents: Ints
    corners: Floats


def pad(coarse: Level, fine: Level, links: Links, parents: Ints) -> Padded:
    """Give the cells of `coarse` children with the flags they lack, new ones where there is none at the corner.

    links and parents are those of the fine level. A new cell's neighbours are all pixels, and every pixel's key was
    looked up when the level was linked: so new cells find each other nowhere, and their order does not matter.
    """
    no_even = _without(coarse.keys.size, parents, links.even)
    no_odd = _without(coarse.keys.size, parents, links.odd)
    lacking = np.flatnonzero(no_even | no_odd)
    corners = points_in(coarse.keys[lacking], coarse.resolution, CORNER)
    keys = keys_of(corners, fine.resolution)
    children, new = _children(fine, links.strangers, keys)
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


def _without(count: int, parents: Ints, flags: Bools) -> Bools:
    """Which of `count` coarse cells have no child with the flag."""
    without = np.ones(count, np.bool_)
    without[parents[flags]] = False
    return without


def _children(fine: Level, strangers: Ints, keys: Ints) -> tuple[Ints, Ints]:
    """The cells int64 <n> of keys, absent ones numbered on from the last, and the places of those that are new.

    Strangers are present: looking one up made it a name of cell 0.
    """
    cells, present = fine.find(keys)
    if strangers.size:
        present |= np.isin(keys, strangers)
    absent = np.flatnonzero(~present)
    numbering = number(keys[absent])
    children = cells.astype(np.int64)
    children[absent] = fine.keys.size + numbering.ids
    return children, absent[numbering.first]
