"""The cells of each level, in the order of their first occurrence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from torch_rasterizer.hierarchy.grid import Bools, Floats, Ints, keys_of, points_in

_LOW = np.int64(0xFFFFFFFF)


@dataclass(frozen=True)
class Numbering:
    """Keys numbered by first occurrence.

    ids int32 [n]: the number of each key. first int64 [m]: where each number first occurs, ascending. sorted_keys and
    sorted_ids [m]: the distinct keys in ascending order and their numbers.
    """

    ids: Ints
    first: Ints
    sorted_keys: Ints
    sorted_ids: Ints


def number_keys(keys: Ints) -> Numbering:
    """Number int32 keys [n] by first occurrence, with one sort of (key, index) packed into 64 bits."""
    packed = keys.astype(np.int64)
    packed <<= 32
    packed |= np.arange(keys.size, dtype=np.int64)
    packed.sort()
    places = packed & _LOW
    packed >>= 32
    starts = np.flatnonzero(np.diff(packed, prepend=packed[:1] - 1))
    is_first = np.zeros(keys.size, np.bool_)
    is_first[places[starts]] = True
    number_at = np.cumsum(is_first, dtype=np.int32)
    number_at -= 1
    sorted_ids = number_at[places[starts]]
    ids = np.empty(keys.size, np.int32)
    ids[places] = np.repeat(sorted_ids, np.diff(starts, append=keys.size))
    return Numbering(ids, np.flatnonzero(is_first), packed[starts].astype(np.int32), sorted_ids)


@dataclass(frozen=True)
class Level:
    """One level of cells, in their order.

    stride: distance of adjacent cells in pixels of a view. keys int32 [N]. views int8 [N]: the view that faces each
    cell best. sorted_keys, sorted_ids [N]: the keys in ascending order and their cells, for lookups.
    """

    resolution: int
    stride: int
    keys: Ints
    views: Ints
    sorted_keys: Ints
    sorted_ids: Ints

    def find(self, keys: Ints) -> tuple[Ints, Bools]:
        """Return the cells int32 [n] of keys, and whether each cell exists; an absent key yields cell 0."""
        if not self.keys.size:
            return np.zeros(keys.shape, np.int32), np.zeros(keys.shape, np.bool_)
        places = np.searchsorted(self.sorted_keys, keys)
        np.minimum(places, self.keys.size - 1, out=places)
        present = self.sorted_keys[places] == keys
        return np.where(present, self.sorted_ids[places], np.int32(0)), present


def finest_level(points: Floats, numbering: Numbering, normals: Floats, resolution: int) -> Level:
    """Return the level of points [n, 3] with numbered keys; normals [N, 3] belong to the first point of each cell."""
    keys = keys_of(points[numbering.first], resolution)
    return Level(resolution, 1, keys, dominant_views(normals), numbering.sorted_keys, numbering.sorted_ids)


def dominant_views(normals: Floats) -> Ints:
    """Return the view int8 [n] along the largest component of each normal [n, 3], the lowest axis on ties."""
    x, y, z = (np.abs(normals[:, axis]) for axis in range(3))
    axis = np.where(z > np.maximum(x, y), 2, (y > x).astype(np.int8))
    return ((axis + 1) % 3).astype(np.int8)


def coarser_level(fine: Level) -> tuple[Level, Ints]:
    """Return the level with cells twice as large, and the parent int32 [N] of each fine cell."""
    resolution = fine.resolution // 2
    keys = keys_of(points_in(fine.keys, fine.resolution), resolution)
    numbering = number_keys(keys)
    count = numbering.first.size
    votes = np.bincount(numbering.ids * 3 + fine.views, minlength=3 * count).reshape(count, 3)
    views = votes.argmax(axis=1).astype(np.int8)
    chosen = keys[numbering.first]
    level = Level(resolution, 2 * fine.stride, chosen, views, numbering.sorted_keys, numbering.sorted_ids)
    return level, numbering.ids
