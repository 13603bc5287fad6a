"""Points, grid cells, their keys, and the pixels of the three views.

The arithmetic equals that of custom_rasterizer bit for bit: points are float32, derived values are float64 and
truncated towards zero, and a key wraps around as a 32-bit integer in C.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.integer]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.floating]

CENTRE = (0.5, 0.5, 0.5)
# Where padding places a child inside a parent cell.
CORNER = (0.75, 0.25, 0.75)

# The axis along which each view looks.
DEPTH_AXIS = (2, 0, 1)
# For each view: axis and direction of the rows, then axis of the columns.
ROWS = ((1, 1.0), (1, 1.0), (2, -1.0))
COLUMNS = (0, 2, 0)


def keys_of(points: Floats, resolution: int) -> Ints:
    """Return the keys int32 [n] of the cells of points [n, 3]; points outside [-1, 1] have keys as well."""
    x, y, z = (((points[:, axis].astype(np.float64) * 0.5 + 0.5) * resolution).astype(np.int64) for axis in range(3))
    return ((x * resolution + y) * resolution + z).astype(np.int32)


def cells_of(keys: Ints, resolution: int) -> tuple[Ints, Ints, Ints]:
    """Return the cells (x, y, z) of keys: the inverse of keys_of inside the grid, C's integer division outside."""
    rest = _divide_towards_zero(keys, resolution)
    x = _divide_towards_zero(rest, resolution)
    return x, rest - x * resolution, keys - rest * resolution


def _divide_towards_zero(keys: Ints, divisor: int) -> Ints:
    if keys.size == 0 or keys.min() >= 0:
        whole: Ints = keys // keys.dtype.type(divisor)
        return whole
    wide = keys.astype(np.int64)
    quotient: Ints = np.sign(wide) * (np.abs(wide) // divisor)
    return quotient


def points_in(keys: Ints, resolution: int, offset: tuple[float, float, float] = CENTRE) -> Floats:
    """Return points float32 [n, 3] in the cells of keys, ``offset`` (in cells) from the lowest corner."""
    points = np.empty((keys.size, 3), np.float32)
    for axis, cell in enumerate(cells_of(keys, resolution)):
        points[:, axis] = coordinate(cell, resolution, offset[axis])
    return points


def coordinate(cell: Ints, resolution: int, offset: float = 0.5) -> Floats:
    """Return the coordinate float32 in [-1, 1] at ``offset`` inside each cell along one axis."""
    values = (cell + offset) / resolution
    values -= 0.5
    values *= 2
    return values.astype(np.float32)


def pixels_of(points: Floats, view: int, height: int, width: int) -> tuple[Ints, Ints]:
    """Return the rows and columns int64 of one view at points [n, 3]; they may lie outside the view."""
    axis, sign = ROWS[view]
    rows = (points[:, axis].astype(np.float64) * (sign / 2) + 0.5) * height
    columns = (points[:, COLUMNS[view]].astype(np.float64) / 2 + 0.5) * width
    return rows.astype(np.int64), columns.astype(np.int64)
