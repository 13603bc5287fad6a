"""The pixels of the three views as a walk over them meets them: by row, column, and layers until the first invalid."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from torch_rasterizer.hierarchy.grid import DEPTH_AXIS, Floats, Ints, cells_of, coordinate, keys_of
from torch_rasterizer.hierarchy.levels import Level

# How a cell's neighbours are chosen among the layers of a pixel, by the pixel its first visit came from.
NEAREST, FIRST, LAST = 0, 1, 2
# A rank is the view, when a pixel is visited, and its place: the latter two of so many bits.
_BITS = 30
MOST_PIXELS = 2**_BITS


@dataclass(frozen=True)
class View:
    """The pixels <n> of one view that a walk visits, and what they see.

    shape: layers, height, width; layers, pixels, rows int64 <n>: a pixel is row*width+column; points float32 <n,3>;
    choice int8 <n>: how a cell of this very view that is first visited here chooses its neighbours; cells int64 <n>: of
    the level the view is at; keys int32 <n>: of the points at that level's resolution (the cells' own, but for points
    that no cell holds); ranks int64 <n>: when each pixel is visited, with its place in the lower bits.
    """

    shape: tuple[int, int, int]
    layers: Ints
    pixels: Ints
    rows: Ints
    points: Floats
    choice: Ints
    cells: Ints
    keys: Ints
    ranks: Ints


def view_of(positions: Floats, places: Ints, cells: Ints, level: Level) -> View:
    """The view of positions <L,H,W,4>, whose valid pixels, flat, are `places` int64 <n>, in `cells` int32 <n>."""
    depth, height, width = positions.shape[:3]
    seen = np.zeros((depth + 1, height * width), np.bool_)
    seen.reshape(-1)[places] = True
    for layer in range(1, depth):
        seen[layer] &= seen[layer - 1]
    if depth and (kept := seen.reshape(-1)[places]).sum() < places.size:
        places, cells = places[kept], cells[kept]
    counts = np.searchsorted(places, np.arange(1, depth + 1) * height * width)
    layers = np.repeat(np.arange(depth), np.diff(counts, prepend=0))
    goes_on = seen.reshape(-1)[places + height * width]
    pixels = places - layers * (height * width)
    return View(
        shape=(depth, height, width),
        layers=layers,
        pixels=pixels,
        rows=pixels // max(width, 1),
        points=positions.reshape(-1, 4)[places, :3],
        choice=np.where(goes_on, NEAREST, np.where(layers == 0, FIRST, LAST)).astype(np.int8),
        cells=cells.astype(np.int64),
        keys=level.keys[cells],
        ranks=((pixels * depth + layers) << _BITS) + np.arange(pixels.size),
    )


def look_up(view: View, level: Level) -> View:
    """The view at a level, every pixel's point looked up."""
    keys = keys_of(view.points, level.resolution)
    cells, _ = level.find(keys)
    return replace(view, cells=cells.astype(np.int64), keys=keys)


def descend(view: View, level: Level, parents: Ints) -> View:
    """The view at the next coarser level, where every point lies in the parent of the cell it lay in."""
    cells = parents[view.cells].astype(np.int64)
    return replace(view, cells=cells, keys=level.keys[cells])


@dataclass(frozen=True)
class Visits:
    """Of each cell its first visit: views int8 <N>, -1 for never; places int64 <N> among the pixels of that view."""

    views: Ints
    places: Ints


def first_visits(views: list[View], count: int) -> Visits:
    """The first visits of `count` cells."""
    never = np.iinfo(np.int64).max
    ranks = [view.ranks + (index << 2 * _BITS) for index, view in enumerate(views)]
    cells = np.concatenate([view.cells for view in views])
    earliest = torch.full((count,), never, dtype=torch.int64)
    earliest.scatter_reduce_(0, torch.from_numpy(cells), torch.from_numpy(np.concatenate(ranks)), "amin")
    first = earliest.numpy()
    return Visits(np.where(first == never, -1, first >> 2 * _BITS).astype(np.int8), first & ((1 << _BITS) - 1))


@dataclass(frozen=True)
class Images:
    """What one view's own cells look at, padded all around so that a neighbour outside reads as nothing.

    row: pixels in a padded row; cells int32 <L,rows*row>: the cell of each layer's pixel, -1 for none; depths float32
    <L,rows*row>: the cell's centre along the view, inf for none; last int32 <rows*row>: the cell of the last layer.
    """

    height: int
    width: int
    stride: int
    pad: int
    row: int
    cells: Ints
    depths: Floats
    last: Ints

    def places(self, rows: Ints, columns: Ints) -> Ints:
        """Where pixels are; those too far outside to have neighbours stay in the border."""
        rows = np.clip(rows, -self.stride - 1, self.height + self.stride) + self.pad
        rows *= self.row
        rows += np.clip(columns, -self.stride - 1, self.width + self.stride) + self.pad
        return rows


def images_of(view: View, axis: int, level: Level) -> Images:
    """The images of a view that looks along `axis`, at a level."""
    depth, height, width = view.shape
    pad = 2 * level.stride + 1
    row = width + 2 * pad
    size = (height + 2 * pad) * row
    cells = np.full((max(depth, 1), size), -1, np.int32)
    depths = np.full((max(depth, 1), size), np.inf, np.float32)
    flat = view.rows * (2 * pad)
    flat += view.pixels
    flat += pad * row + pad
    last = cells[0]
    if depth > 1:
        last = np.full(size, -1, np.int32)
        ends = np.flatnonzero(view.choice != NEAREST)
        last[flat[ends]] = view.cells[ends]
        flat += view.layers * size
        depths.reshape(-1)[flat] = coordinate(cells_of(view.keys, level.resolution)[axis], level.resolution)
    cells.reshape(-1)[flat] = view.cells
    return Images(height, width, level.stride, pad, row, cells, depths, last)


def all_images(views: list[View], level: Level) -> list[Images]:
    """The images of the three views at a level."""
    return [images_of(view, DEPTH_AXIS[index], level) for index, view in enumerate(views)]
