"""The nine neighbours of cells in the image of their own view, and the checkerboard flags."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from torch_rasterizer.hierarchy.grid import DEPTH_AXIS, Bools, Floats, Ints, pixels_of, points_in
from torch_rasterizer.hierarchy.levels import Level
from torch_rasterizer.hierarchy.views import FIRST, LAST, NEAREST, Images, View, all_images, first_visits

_STEPS = [(down, across) for down in (1, 0, -1) for across in (-1, 0, 1)]


@dataclass(frozen=True)
class Links:
    """Of each cell of a level: neighbours int32 <N,9>, even and odd flags bool <N>.

    To go on with: images, what more cells are linked with, and strangers int32, the keys of points that no cell holds.
    """

    neighbours: Ints
    even: Bools
    odd: Bools
    images: list[Images]
    strangers: Ints


def link(level: Level, views: list[View]) -> Links:
    """Visit all pixels at a level and link its cells."""
    images = all_images(views, level)
    keys, choice = _first_seen(level, views)
    centres = points_in(keys, level.resolution)
    neighbours = np.full((keys.size, 9), -1, np.int32)
    even, odd = np.zeros(keys.size, np.bool_), np.zeros(keys.size, np.bool_)
    for index, image in enumerate(images):
        for kind in (NEAREST, FIRST, LAST):
            cells = np.flatnonzero((level.views == index) & (choice == kind))
            points = centres[cells]
            rows, columns = pixels_of(points, index, image.height, image.width)
            even[cells] = _even(rows, columns, level.stride)
            odd[cells] = _even(columns, rows, level.stride)
            targets = Targets(image.places(rows, columns), points[:, DEPTH_AXIS[index]], cells)
            neighbours[cells] = _nine(image, targets, kind)
    _flag_first_cell(level, views, even, odd)
    strangers = [view.keys[view.keys != level.keys[view.cells]] for view in views]
    return Links(neighbours, even, odd, images, np.concatenate(strangers))


def _first_seen(level: Level, views: list[View]) -> tuple[Ints, Ints]:
    """Of each cell the key int32 <N> and the choice int8 <N> of its first visit; -1 where it is never visited."""
    visits = first_visits(views, level.keys.size)
    keys, choice = level.keys.copy(), np.full(level.keys.size, -1, np.int8)
    for index, view in enumerate(views):
        here = np.flatnonzero(visits.views == index)
        choice[here] = np.where(level.views[here] == index, view.choice[visits.places[here]], NEAREST)
    if keys.size and visits.views[0] >= 0:
        # Only this cell is met under other keys than its own.
        keys[0] = views[visits.views[0]].keys[visits.places[0]]
    return keys, choice


def _even(rows: Ints, columns: Ints, stride: int) -> Bools:
    """Which pixels lie on the even squares; a remainder has the sign of its dividend, as in C."""
    return _low(rows, stride) & ~_low(columns, stride)


def _low(values: Ints, stride: int) -> Bools:
    low: Bools = (values < 0) | (values & stride == 0)
    return low


def _flag_first_cell(level: Level, views: list[View], even: Bools, odd: Bools) -> None:
    """Points that no cell holds count as visits of cell 0, wherever they are: it is flagged by each."""
    if not level.keys.size:
        return
    index = level.views[0]
    height, width = views[index].shape[1:]
    for view in views:
        keys = np.unique(view.keys[view.cells == 0])
        rows, columns = pixels_of(points_in(keys, level.resolution), index, height, width)
        even[0] |= _even(rows, columns, level.stride).any()
        odd[0] |= _even(columns, rows, level.stride).any()


@dataclass(frozen=True)
class Targets:
    """Cells int64 <n> to be linked: places int64 <n> in the image of their view, depths float32 <n> along it."""

    places: Ints
    depths: Floats
    cells: Ints


def _nine(image: Images, targets: Targets, kind: int) -> Ints:
    """The neighbours int32 <n,9>; the fifth is the cell itself."""
    found = np.empty((targets.cells.size, 9), np.int32)
    for column, (down, across) in enumerate(_STEPS):
        if column == 4:
            found[:, column] = targets.cells
            continue
        places = targets.places + (down * image.row + across) * image.stride
        if kind == NEAREST:
            found[:, column] = _nearest(image, places, targets.depths)
        else:
            found[:, column] = (image.last if kind == LAST else image.cells[0])[places]
    return found


def _nearest(image: Images, places: Ints, depths: Floats) -> Ints:
    """The cells whose centre is nearest in depth, the first of equals; -1 where there is none."""
    best: Ints = image.cells[0][places]
    if len(image.cells) == 1:
        return best
    gap = np.abs(image.depths[0][places] - depths)
    for layer in range(1, len(image.cells)):
        other = np.abs(image.depths[layer][places] - depths)
        closer = other < gap
        np.copyto(best, image.cells[layer][places], where=closer)
        np.minimum(gap, other, out=gap)
    return best


def link_points(points: Floats, views: Ints, images: list[Images], first: int) -> Ints:
    """The nearest neighbours int32 <n,9> of new cells, numbered from `first`, at points <n,3> in their views <n>."""
    found = np.full((views.size, 9), -1, np.int32)
    for index, image in enumerate(images):
        mine = np.flatnonzero(views == index)
        rows, columns = pixels_of(points[mine], index, image.height, image.width)
        targets = Targets(image.places(rows, columns), points[mine, DEPTH_AXIS[index]], first + mine)
        found[mine] = _nine(image, targets, NEAREST)
    return found
