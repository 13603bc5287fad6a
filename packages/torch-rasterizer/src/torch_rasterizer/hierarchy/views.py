"""The pixels of the three views in visiting order: by row, column, and layer up to the first invalid layer."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from torch_rasterizer.hierarchy.grid import DEPTH_AXIS, Floats, Ints, cells_of, coordinate, keys_of
from torch_rasterizer.hierarchy.levels import Level

# How neighbours of a cell are chosen among the layers of a pixel; the first visit of the cell decides.
NEAREST, FIRST, LAST = 0, 1, 2
# A rank packs the view, the time of the visit and the index of the pixel; the latter two have this many bits.
_BITS = 30
MOST_PIXELS = 2**_BITS


@dataclass(frozen=True)
class View:
    """The visited pixels [n] of one view.

    shape: layers, height, width. layers, pixels (row * width + column), rows: int64 [n]. points: float32 [n, 3].
    choice int8 [n]: how a cell of this view that is first visited here chooses its neighbours. cells int64 [n]: cells
    of the current level. keys int32 [n]: the keys of the points at the current level; they are the keys of the cells,
    except for points that belong to no cell. ranks int64 [n]: the order of the visits, with the pixel index in the
    lower bits.
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


def make_view(positions: Floats, places: Ints, cells: Ints, level: Level) -> View:
    """Return the view of positions [L, H, W, 4] with valid flat pixels ``places`` int64 [n] in ``cells`` int32 [n]."""
    depth, height, width = positions.shape[:3]
    visible = np.zeros((depth + 1, height * width), np.bool_)
    visible.reshape(-1)[places] = True
    for layer in range(1, depth):
        visible[layer] &= visible[layer - 1]
    if depth and (kept := visible.reshape(-1)[places]).sum() < places.size:
        places, cells = places[kept], cells[kept]
    counts = np.searchsorted(places, np.arange(1, depth + 1) * height * width)
    layers = np.repeat(np.arange(depth), np.diff(counts, prepend=0))
    goes_on = visible.reshape(-1)[places + height * width]
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
    """Return the view at another level, looking up the point of every pixel."""
    keys = keys_of(view.points, level.resolution)
    cells, _ = level.find(keys)
    return replace(view, cells=cells.astype(np.int64), keys=keys)


def descend(view: View, level: Level, parents: Ints) -> View:
    """Return the view at the next coarser level, if every point lies in the parent of its cell."""
    cells = parents[view.cells].astype(np.int64)
    return replace(view, cells=cells, keys=level.keys[cells])


@dataclass(frozen=True)
class Visits:
    """The first visit of each cell: views int8 [N], -1 if never visited; places int64 [N], indices of the view's
    pixels.
    """

    views: Ints
    places: Ints


def first_visits(views: list[View], count: int) -> Visits:
    """Return the first visits of ``count`` cells."""
    never = np.iinfo(np.int64).max
    ranks = [view.ranks + (index << 2 * _BITS) for index, view in enumerate(views)]
    cells = np.concatenate([view.cells for view in views])
    earliest = torch.full((count,), never, dtype=torch.int64)
    earliest.scatter_reduce_(0, torch.from_numpy(cells), torch.from_numpy(np.concatenate(ranks)), "amin")
    first = earliest.numpy()
    return Visits(np.where(first == never, -1, first >> 2 * _BITS).astype(np.int8), first & ((1 << _BITS) - 1))


@dataclass(frozen=True)
class Images:
    """The images of one view's own cells, padded on all sides so that neighbours outside read as -1.

    row: pixels in a padded row. cells int32 [L, rows*row]: the cell of each layer's pixel, -1 if no cell. depths
    float32 [L, rows*row]: the cell's centre along the view, inf if no cell. last int32 [rows*row]: the cell of the last
    layer.
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
        """Return flat indices of pixels; pixels too far outside to have neighbours are clamped to the border."""
        rows = np.clip(rows, -self.stride - 1, self.height + self.stride) + self.pad
        rows *= self.row
        rows += np.clip(columns, -self.stride - 1, self.width + self.stride) + self.pad
        return rows


def make_images(view: View, axis: int, level: Level) -> Images:
    """Return the images at a level of a view that looks along ``axis``."""
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
    """Return the images of the three views at a level."""
    return [make_images(view, DEPTH_AXIS[index], level) for index, view in enumerate(views)]
