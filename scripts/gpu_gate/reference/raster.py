"""rasterize() and depth peeling: triangle ids, barycentrics, depth, and derivatives with respect to pixel coordinates.

The center of pixel (X, Y) is x = (2X+1)/W - 1, y = (2Y+1)/H - 1. With p_i = (x_i - x*w_i, y_i - y*w_i), the areas are
a0 = p1 x p2, a1 = p2 x p0, a2 = p0 x p1, and u = a0/(a0+a1+a2), v = a1/(a0+a1+a2). They use positions that are not
snapped. Depth is 32-bit fixed point; of equal depths the later triangle is kept. u and v are clamped to [0, 1], and z/w
to [-1, 1]. The additional limit u+v <= 1 of release 0.3.5 is not applied here: it only matters if the pixel center is
outside the triangle before snapping.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .arrays import STEP, Array, as_float, clip, derivative
from .coverage import Fragments, fragments, iterate_images

# Larger ids are stored in the bits of the float, as _BASE + id.
LARGEST_PLAIN_ID = 1 << 24
_BASE = 0x4A800000

Resolution = tuple[int, int]


def rasterize(pos: Any, tri: Any, resolution: Resolution, ranges: Any = None) -> tuple[Array, Array]:
    """Return (u, v, z/w, id) and (du/dX, du/dY, dv/dX, dv/dY), [N, H, W, 4] each; 0 in the background.

    The id is the index of the triangle plus 1.
    """
    return next(iter(peel(pos, tri, resolution, 1, ranges)))


def peel(pos: Any, tri: Any, resolution: Resolution, layers: int, ranges: Any = None) -> list[tuple[Array, Array]]:
    """Return the outputs of rasterize() for the nearest surface, for the nearest surface behind it, and so on."""
    pos, tri = as_float(pos), np.asarray(tri, np.int64)
    images = len(pos) if pos.ndim == 3 else len(ranges)
    found = fragments(pos, tri, resolution, ranges)
    depths = fixed_point(found.depth)
    previous = np.full((images, *resolution), -1, np.int64)
    result = []
    for _ in range(layers):
        ids, previous = _nearest_fragments(found, depths, previous)
        result.append(rasterize_ids(pos, tri, ids, ranges))
    return result


def fixed_point(depth: Array) -> Array:
    """Convert z/w in [-1, 1] to the 32-bit values of the depth buffer, rounded down."""
    return np.floor((clip(depth, -1.0, 1.0) + 1.0) * 0.5 * (2**32 - 1)).astype(np.int64)


def _nearest_fragments(found: Fragments, depths: Array, previous: Array) -> tuple[Array, Array]:
    """Return ids and depths [N, H, W] of the nearest fragments behind the depths ``previous``.

    Ids start at 1; 0 is the background, whose depth is the largest integer.
    """
    ids = np.zeros(previous.shape, np.int64)
    nearest = np.full(previous.shape, np.iinfo(np.int64).max)
    pixel = (found.image, found.row, found.column)
    # Farthest first and, of equal depths, the earlier triangle first: later assignments overwrite earlier ones.
    order = np.lexsort((found.triangle, -depths))
    order = order[depths[order] > previous[tuple(axis[order] for axis in pixel)]]
    index = tuple(axis[order] for axis in pixel)
    ids[index] = found.triangle[order] + 1
    nearest[index] = depths[order]
    return ids, nearest


def rasterize_ids(pos: Any, tri: Any, ids: Array, ranges: Any = None) -> tuple[Array, Array]:
    """Return the outputs of rasterize() for given ids [N, H, W], which keep visibility fixed for derivatives."""
    pos, tri = as_float(pos), np.asarray(tri, np.int64)
    rast = np.zeros((*ids.shape, 4), pos.dtype)
    rast_db = np.zeros((*ids.shape, 4), pos.dtype)
    for image, vertices, _ in iterate_images(pos, tri, ranges):
        row, column = np.nonzero(ids[image])
        if len(row):
            triangle = ids[image, row, column] - 1
            corners = vertices[tri[triangle]]
            uv, uv_db = barycentrics(corners, row, column, ids.shape[1:])
            weights = np.stack([uv[:, 0], uv[:, 1], 1 - uv[:, 0] - uv[:, 1]], axis=1)
            depth = _dot(weights, corners[:, :, 2]) / _dot(weights, corners[:, :, 3])
            clamped = clip(uv, 0.0, 1.0)
            rast[image, row, column] = np.concatenate(
                [clamped, clip(depth, -1.0, 1.0)[:, None], id_to_float(triangle + 1)[:, None]], axis=1
            )
            rast_db[image, row, column] = uv_db
    return rast, rast_db


def barycentrics(corners: Array, row: Array, column: Array, resolution: Resolution) -> tuple[Array, Array]:
    """Return (u, v) [K, 2], not clamped, and (du/dX, du/dY, dv/dX, dv/dY) [K, 4].

    ``corners`` is [K, 3, 4], and ``row`` and ``column`` of the pixels are [K].
    """
    height, width = resolution
    x = (2 * column + 1) / width - 1
    y = (2 * row + 1) / height - 1
    w = corners[:, :, 3]
    px, py = corners[:, :, 0] - x[:, None] * w, corners[:, :, 1] - y[:, None] * w
    areas, areas_dx, areas_dy = [], [], []
    for k in range(3):
        i, j = (k + 1) % 3, (k + 2) % 3
        areas.append(px[:, i] * py[:, j] - py[:, i] * px[:, j])
        areas_dx.append(py[:, i] * w[:, j] - w[:, i] * py[:, j])
        areas_dy.append(px[:, j] * w[:, i] - w[:, j] * px[:, i])
    total = sum(areas)
    total_dx, total_dy = sum(areas_dx), sum(areas_dy)
    uv = np.stack([areas[0] / total, areas[1] / total], axis=1)
    uv_db = [
        (2 / size) * (area_derivatives[k] - uv[:, k] * total_derivative) / total
        for k in range(2)
        for size, area_derivatives, total_derivative in ((width, areas_dx, total_dx), (height, areas_dy, total_dy))
    ]
    return uv, np.stack(uv_db, axis=1)


def gradient(pos: Any, tri: Any, ids: Array, grad_rast: Any, grad_rast_db: Any = None) -> Array:
    """Return the gradient of the loss by pos; the gradient by z is 0.

    ``grad_rast`` (only u and v are used) and ``grad_rast_db`` are the gradients by the two outputs. Visibility is
    fixed, and the clamping of u and v is ignored.
    """
    pos, tri = as_float(pos), np.asarray(tri, np.int64)
    result = np.zeros(pos.shape)
    image, row, column = np.nonzero(ids)
    vertices = tri[ids[image, row, column] - 1]
    corners = pos[image[:, None], vertices] if pos.ndim == 3 else pos[vertices]
    grad_uv = as_float(grad_rast)[image, row, column, :2]
    grad_uv_db = as_float(grad_rast_db)[image, row, column] if grad_rast_db is not None else np.zeros((len(row), 4))
    for corner in range(3):
        for axis in (0, 1, 3):
            moved = corners.astype(np.complex128)
            moved[:, corner, axis] += 1j * STEP
            uv, uv_db = barycentrics(moved, row, column, ids.shape[1:])
            contribution = _dot(derivative(uv), grad_uv) + _dot(derivative(uv_db), grad_uv_db)
            index = (image, vertices[:, corner]) if pos.ndim == 3 else (vertices[:, corner],)
            np.add.at(result, (*index, np.full(len(row), axis)), contribution)
    return result


def id_to_float(ids: Array) -> Array:
    """Return ids as rasterize() does: as numbers up to 2^24, above that as floats with the bits 0x4A800000 + id."""
    bits = (np.asarray(ids, np.int64) + _BASE).astype(np.int32).view(np.float32)
    return np.where(ids <= LARGEST_PLAIN_ID, ids, bits.astype(np.float64))


def float_to_id(values: Any) -> Array:
    """Return the ids of id_to_float()'s result."""
    floats = np.asarray(values).real.astype(np.float32)
    bits = floats.view(np.int32).astype(np.int64) - _BASE
    return np.where(floats <= LARGEST_PLAIN_ID, np.minimum(floats, LARGEST_PLAIN_ID).astype(np.int64), bits)


def _dot(left: Array, right: Array) -> Array:
    product: Array = np.sum(left * right, axis=-1)
    return product
