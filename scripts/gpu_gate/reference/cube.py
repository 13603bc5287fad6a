"""Cube maps: from a direction to a face and a place on it, and across the seams.

Faces are +x, -x, +y, -y, +z, -z. On each, s = sc/(2|m|) + 1/2 and t = tc/(2|m|) + 1/2 with m the coordinate of
greatest magnitude (of equal ones x before y before z) and (sc, tc) as in the table, which is OpenGL's. A bilinear
footprint that leaves a face continues on the neighbouring face, on the texel that shares the edge; where it leaves at a
corner no texel exists, and the average of the other three stands for it. Both are what upstream documents in words;
neither the table nor the seams were verified against a device.
"""

from __future__ import annotations

import numpy as np

from .arrays import Array, magnitude

# Per face: the axis and sign of m, of sc and of tc.
_MAJOR = ((0, 1), (0, -1), (1, 1), (1, -1), (2, 1), (2, -1))
_SC = ((2, -1), (2, 1), (0, 1), (0, 1), (0, 1), (0, -1))
_TC = ((1, -1), (1, -1), (2, 1), (2, -1), (1, -1), (1, -1))


def face_of(direction: Array) -> Array:
    """Face numbers <K> of directions <K,3>; -1 for the zero vector and for what is not finite."""
    size = np.abs(direction.real)
    x, y, z = size[:, 0], size[:, 1], size[:, 2]
    axis = np.where(z > np.maximum(x, y), 2, np.where(y > x, 1, 0))
    major = direction.real[np.arange(len(direction)), axis]
    valid = np.all(np.isfinite(direction.real), axis=1) & (major != 0)
    return np.where(valid, 2 * axis + (major < 0), -1)


def place_on(face: Array, direction: Array) -> Array:
    """(s, t) in [0,1] <K,2> of directions <K,3> seen on the given faces (face -1: 0)."""
    axes = _columns(face, direction)
    with np.errstate(divide="ignore", invalid="ignore"):
        st = np.stack([axes[1], axes[2]], axis=1) / (2 * magnitude(axes[0]))[:, None] + 0.5
    return np.where(face[:, None] >= 0, st, 0)


def slopes_on(face: Array, direction: Array, by_pixel: Array) -> Array:
    """(ds/dX, ds/dY, dt/dX, dt/dY) <K,4> from the direction's own derivatives <K,6>, (dx/dX, dx/dY, dy/dX, ...)."""
    major, sc, tc = _columns(face, direction)
    size = magnitude(major)
    columns = []
    for coordinate, numerator in ((1, sc), (2, tc)):
        for pixel_axis in range(2):
            moved = _columns(face, by_pixel[:, pixel_axis::2])
            growth = np.where(major.real < 0, -moved[0], moved[0])
            with np.errstate(divide="ignore", invalid="ignore"):
                columns.append((moved[coordinate] * size - numerator * growth) / (2 * size * size))
    return np.where(face[:, None] >= 0, np.stack(columns, axis=1), 0)


def across(face: Array, column: Array, row: Array, size: int) -> tuple[Array, Array, Array]:
    """The texel (face, column, row) that stands for one at most one step outside a face; face -1 beyond a corner.

    The centre of an outside texel lies on the face's plane, outside the cube's side; folding that strip down over the
    edge puts it on the centre of the neighbour's texel.
    """
    sc, tc = (2 * column + 1) / size - 1, (2 * row + 1) / size - 1
    over_s, over_t = np.maximum(np.abs(sc) - 1, 0), np.maximum(np.abs(tc) - 1, 0)
    outside = (over_s > 0) | (over_t > 0)
    point = _direction(face, 1 - over_s - over_t, np.clip(sc, -1, 1), np.clip(tc, -1, 1))
    neighbour = np.where(outside, face_of(point), face)
    st = place_on(neighbour, point)
    texel = np.clip(np.floor(st * size), 0, size - 1).astype(np.int64)
    missing = (over_s > 0) & (over_t > 0)
    return (
        np.where(missing, -1, neighbour),
        np.where(outside, texel[:, 0], column),
        np.where(outside, texel[:, 1], row),
    )


def _direction(face: Array, major: Array, sc: Array, tc: Array) -> Array:
    """The point with these face coordinates, as a direction <K,3>; the inverse of _columns."""
    point = np.zeros((len(face), 3))
    rows = np.arange(len(face))
    for table, value in ((_MAJOR, major), (_SC, sc), (_TC, tc)):
        pairs = np.array(table)[face]
        point[rows, pairs[:, 0]] = pairs[:, 1] * value
    return point


def _columns(face: Array, direction: Array) -> tuple[Array, Array, Array]:
    """m, sc and tc of directions <K,3> on the given faces; m keeps its own sign."""
    rows = np.arange(len(face))
    chosen = np.where(face >= 0, face, 0)
    major = direction[rows, np.array(_MAJOR)[chosen, 0]]
    rest = []
    for table in (_SC, _TC):
        pairs = np.array(table)[chosen]
        rest.append(pairs[:, 1] * direction[rows, pairs[:, 0]])
    return major, rest[0], rest[1]
