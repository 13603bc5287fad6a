"""Cube maps: the face and face coordinates of a direction, and texels across the edges of the cube.

Faces are +x, -x, +y, -y, +z, -z. The major coordinate m of a direction is the one with the largest magnitude; of equal
ones, x comes before y and y before z. On its face, s = sc/(2|m|) + 1/2 and t = tc/(2|m|) + 1/2, with sc and tc from the
tables below, which are those of OpenGL.

A bilinear footprint that crosses an edge of the cube continues on the neighboring face, with the texel that shares the
edge. At a corner of the cube there is no fourth texel; the average of the other three replaces it. Upstream documents
both in words. Neither the tables nor the edges were verified against a device.
"""

from __future__ import annotations

import numpy as np

from .arrays import Array, magnitude

# For each face, the axis and the sign of m, sc and tc.
_MAJOR = ((0, 1), (0, -1), (1, 1), (1, -1), (2, 1), (2, -1))
_SC = ((2, -1), (2, 1), (0, 1), (0, 1), (0, 1), (0, -1))
_TC = ((1, -1), (1, -1), (2, 1), (2, -1), (1, -1), (1, -1))


def face_index(direction: Array) -> Array:
    """Return the face indices [K] of directions [K, 3]; -1 for zero vectors and for vectors that are not finite."""
    size = np.abs(direction.real)
    x, y, z = size[:, 0], size[:, 1], size[:, 2]
    axis = np.where(z > np.maximum(x, y), 2, np.where(y > x, 1, 0))
    major = direction.real[np.arange(len(direction)), axis]
    valid = np.all(np.isfinite(direction.real), axis=1) & (major != 0)
    return np.where(valid, 2 * axis + (major < 0), -1)


def face_coordinates(face: Array, direction: Array) -> Array:
    """Return (s, t) [K, 2], in [0, 1], of directions [K, 3] on the given faces [K]; 0 for face -1."""
    axes = _face_axes(face, direction)
    with np.errstate(divide="ignore", invalid="ignore"):
        st = np.stack([axes[1], axes[2]], axis=1) / (2 * magnitude(axes[0]))[:, None] + 0.5
    return np.where(face[:, None] >= 0, st, 0)


def face_derivatives(face: Array, direction: Array, direction_da: Array) -> Array:
    """Return (ds/dX, ds/dY, dt/dX, dt/dY) [K, 4] of directions [K, 3] on the given faces [K].

    ``direction_da`` [K, 6] contains the derivatives of the direction, (dx/dX, dx/dY, dy/dX, ...).
    """
    major, sc, tc = _face_axes(face, direction)
    size = magnitude(major)
    columns = []
    for coordinate, numerator in ((1, sc), (2, tc)):
        for pixel_axis in range(2):
            derivatives = _face_axes(face, direction_da[:, pixel_axis::2])
            size_derivative = np.where(major.real < 0, -derivatives[0], derivatives[0])
            with np.errstate(divide="ignore", invalid="ignore"):
                columns.append((derivatives[coordinate] * size - numerator * size_derivative) / (2 * size * size))
    return np.where(face[:, None] >= 0, np.stack(columns, axis=1), 0)


def wrap_texel(face: Array, column: Array, row: Array, size: int) -> tuple[Array, Array, Array]:
    """Return the texel (face, column, row) for texel coordinates that may be one step outside a face.

    Returns face -1 outside a corner. The center of an outside texel lies in the plane of the face. Folding this plane
    over the edge of the cube moves it onto the center of the neighboring face's texel.
    """
    sc, tc = (2 * column + 1) / size - 1, (2 * row + 1) / size - 1
    outside_s, outside_t = np.maximum(np.abs(sc) - 1, 0), np.maximum(np.abs(tc) - 1, 0)
    outside = (outside_s > 0) | (outside_t > 0)
    point = _direction(face, 1 - outside_s - outside_t, np.clip(sc, -1, 1), np.clip(tc, -1, 1))
    neighbor = np.where(outside, face_index(point), face)
    st = face_coordinates(neighbor, point)
    texel = np.clip(np.floor(st * size), 0, size - 1).astype(np.int64)
    missing = (outside_s > 0) & (outside_t > 0)
    return (
        np.where(missing, -1, neighbor),
        np.where(outside, texel[:, 0], column),
        np.where(outside, texel[:, 1], row),
    )


def _direction(face: Array, major: Array, sc: Array, tc: Array) -> Array:
    """Return the directions [K, 3] with the given m, sc and tc; the inverse of _face_axes()."""
    point = np.zeros((len(face), 3))
    rows = np.arange(len(face))
    for table, value in ((_MAJOR, major), (_SC, sc), (_TC, tc)):
        pairs = np.array(table)[face]
        point[rows, pairs[:, 0]] = pairs[:, 1] * value
    return point


def _face_axes(face: Array, direction: Array) -> tuple[Array, Array, Array]:
    """Return m (with its sign), sc and tc, each [K], of directions [K, 3] on the given faces."""
    rows = np.arange(len(face))
    known_face = np.where(face >= 0, face, 0)
    major = direction[rows, np.array(_MAJOR)[known_face, 0]]
    rest = []
    for table in (_SC, _TC):
        pairs = np.array(table)[known_face]
        rest.append(pairs[:, 1] * direction[rows, pairs[:, 0]])
    return major, rest[0], rest[1]
