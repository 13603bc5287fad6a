"""The nine neighbours of cells in the image of their view, and the checkerboard flags."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from torch_rasterizer.hierarchy.grid import DEPTH_AXIS, Bools, Floats, Ints, pixels_of, points_in
from torch_rasterizer.hierarchy.levels import Level
from torch_rasterizer.hierarchy.views import FIRST, LAST, NEAREST, Images, View, all_images, first_visits

_STEPS = [(down, across) for down in (1, 0, -1) for across in (-1, 0, 1)]


@dataclass(frozen=True)
class Links:
    """The links of the cells of one level: neighbours int32 [N, 9], even and odd flags bool [N].

    images: the images in which further cells are linked. unmatched_keys int32: the keys of points that belong to no
    cell.
    """

    neighbours: Ints
    even: Bools
    odd: Bools
    images: list[Images]
    unmatched_keys: Ints


def link_cells(level: Level, views: list[View]) -> Links:
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
            even[cells] = _on_even_square(rows, columns, level.stride)
            odd[cells] = _on_even_square(columns, rows, level.stride)
            targets = Targets(image.places(rows, columns), points[:, DEPTH_AXIS[index]], cells)
            neighbours[cells] = _find_neighbours(image, targets, kind)
    _flag_first_cell(level, views, even, odd)
    unmatched_keys = [view.keys[view.keys != level.keys[view.cells]] for view in views]
    return Links(neighbours, even, odd, images, np.concatenate(unmatched_keys))


def _first_seen(level: Level, views: list[View]) -> tuple[Ints, Ints]:
    """Return for each cell the key int32 [N] and the choice int8 [N] of its first visit; -1 if it is never visited."""
    visits = first_visits(views, level.keys.size)
    keys, choice = level.keys.copy(), np.full(level.keys.size, -1, np.int8)
    for index, view in enumerate(views):
        here = np.flatnonzero(visits.views == index)
        choice[here] = np.where(level.views[here] == index, view.choice[visits.places[here]], NEAREST)
    if keys.size and visits.views[0] >= 0:
        # Absent keys are found as cell 0, so that only cell 0 may be visited with another key.
        keys[0] = views[visits.views[0]].keys[visits.places[0]]
    return keys, choice


def _on_even_square(rows: Ints, columns: Ints, stride: int) -> Bools:
    """Return which pixels lie on even squares; as in C, a remainder has the sign of the dividend."""
    return _in_lower_half(rows, stride) & ~_in_lower_half(columns, stride)


def _in_lower_half(values: Ints, stride: int) -> Bools:
    low: Bools = (values < 0) | (values & stride == 0)
    return low


def _flag_first_cell(level: Level, views: list[View], even: Bools, odd: Bools) -> None:
    """Set the flags of cell 0 for every point that belongs to no cell: such a point counts as a visit of cell 0."""
    if not level.keys.size:
        return
    index = level.views[0]
    height, width = views[index].shape[1:]
    for view in views:
        keys = np.unique(view.keys[view.cells == 0])
        rows, columns = pixels_of(points_in(keys, level.resolution), index, height, width)
        even[0] |= _on_even_square(rows, columns, level.stride).any()
        odd[0] |= _on_even_square(columns, rows, level.stride).any()


@dataclass(frozen=True)
class Targets:
    """Cells int64 [n] to link; places int64 [n]: indices in the image of their view; depths float32 [n]."""

    places: Ints
    depths: Floats
    cells: Ints


def _find_neighbours(image: Images, targets: Targets, kind: int) -> Ints:
    """Return the neighbours int32 [n, 9]; the fifth is the cell itself."""
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
    """Return the cells with the nearest centre in depth, the first one on ties; -1 where no cell exists."""
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
    """Return the nearest neighbours int32 [n, 9] of cells with numbers from ``first`` at points [n, 3] in views [n]."""
    found = np.full((views.size, 9), -1, np.int32)
    for index, image in enumerate(images):
        mine = np.flatnonzero(views == index)
        rows, columns = pixels_of(points[mine], index, image.height, image.width)
        targets = Targets(image.places(rows, columns), points[mine, DEPTH_AXIS[index]], first + mine)
        found[mine] = _find_neighbours(image, targets, NEAREST)
    return found
