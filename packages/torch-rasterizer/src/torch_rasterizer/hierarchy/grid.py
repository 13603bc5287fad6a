"""Points, cells of the grid, their keys, and the pixels of the three views they fall on.

The arithmetic is the original's to the bit: points are float32, what is computed from them is float64 and truncated
towards zero, and a key is what a 32-bit integer of C holds.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.integer]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.floating]

CENTRE = (0.5, 0.5, 0.5)
# The corner of a cell of twice the size where a child with both flags is put.
CORNER = (0.75, 0.25, 0.75)

# The axis along which each view looks.
DEPTH_AXIS = (2, 0, 1)
# Of each view: the axis and the direction of its rows, the axis of its columns.
ROWS = ((1, 1.0), (1, 1.0), (2, -1.0))
COLUMNS = (0, 2, 0)


def keys_of(points: Floats, resolution: int) -> Ints:
    """Keys int32 <n> of the cells that points <n,3> in [-1,1] lie in; points outside have keys too."""
    x, y, z = (((points[:, axis].astype(np.float64) * 0.5 + 0.5) * resolution).astype(np.int64) for axis in range(3))
    return ((x * resolution + y) * resolution + z).astype(np.int32)


def cells_of(keys: Ints, resolution: int) -> tuple[Ints, Ints, Ints]:
    """The cells (x, y, z) of keys: the inverse of keys_of for cells inside the grid, C's division for the others."""
    rest = _quotient(keys, resolution)
    x = _quotient(rest, resolution)
    return x, rest - x * resolution, keys - rest * resolution


def _quotient(keys: Ints, divisor: int) -> Ints:
    if keys.size == 0 or keys.min() >= 0:
        whole: Ints = keys // keys.dtype.type(divisor)
        return whole
    wide = keys.astype(np.int64)
    quotient: Ints = np.sign(wide) * (np.abs(wide) // divisor)
    return quotient


def points_in(keys: Ints, resolution: int, offset: tuple[float, float, float] = CENTRE) -> Floats:
    """Points float32 <n,3> in the cells of keys, `offset` of a cell from its lowest corner."""
    points = np.empty((keys.size, 3), np.float32)
    for axis, cell in enumerate(cells_of(keys, resolution)):
        points[:, axis] = coordinate(cell, resolution, offset[axis])
    return points


def coordinate(cell: Ints, resolution: int, offset: float = 0.5) -> Floats:
    """The coordinate float32 in [-1,1] that is `offset` into each cell along one axis."""
    values = (cell + offset) / resolution
    values -= 0.5
    values *= 2
    return values.astype(np.float32)


def pixels_of(points: Floats, view: int, height: int, width: int) -> tuple[Ints, Ints]:
    """The rows and columns int64 of one view that points <n,3> fall on; they may lie outside the view."""
    axis, sign = ROWS[view]
    rows = (points[:, axis].astype(np.float64) * (sign / 2) + 0.5) * height
    columns = (points[:, COLUMNS[view]].astype(np.float64) / 2 + 0.5) * width
    return rows.astype(np.int64), columns.astype(np.int64)
