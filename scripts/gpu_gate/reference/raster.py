"""rasterize() and the depth peeler: ids, barycentrics, depth, and their screen derivatives.

Pixel X, Y samples at x = (2X+1)/W - 1, y = (2Y+1)/H - 1. With p' = (x_i - x*w_i, y_i - y*w_i) the areas are
a0 = p1' x p2', a1 = p2' x p0', a2 = p0' x p1', and u = a0/(a0+a1+a2), v = a1/(a0+a1+a2) from unsnapped positions.
Depth is 32-bit fixed point; of equal depths the later triangle stays. u and v are limited to [0,1] and z/w to [-1,1];
the further limit u+v <= 1 of 0.3.5 is not applied: it acts only where the centre lies outside the unsnapped triangle.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .arrays import STEP, Array, clip, derivative, numbers
from .coverage import Fragments, draws, fragments

# Ids above this one are kept in the bits of the float: its bits are _BASE + id.
LARGEST_PLAIN_ID = 1 << 24
_BASE = 0x4A800000

Resolution = tuple[int, int]


def rasterize(pos: Any, tri: Any, resolution: Resolution, ranges: Any = None) -> tuple[Array, Array]:
    """(u, v, z/w, triangle id + 1) and (du/dX, du/dY, dv/dX, dv/dY), both <N,H,W,4>; zero where nothing is drawn."""
    return next(iter(peel(pos, tri, resolution, 1, ranges)))


def peel(pos: Any, tri: Any, resolution: Resolution, layers: int, ranges: Any = None) -> list[tuple[Array, Array]]:
    """The nearest surface, then the nearest strictly behind it, and so on; each as rasterize() gives it."""
    pos, tri = numbers(pos), np.asarray(tri, np.int64)
    images = len(pos) if pos.ndim == 3 else len(ranges)
    found = fragments(pos, tri, resolution, ranges)
    depths = fixed_point(found.depth)
    floor = np.full((images, *resolution), -1, np.int64)
    result = []
    for _ in range(layers):
        ids, floor = _nearest(found, depths, floor)
        result.append(shade(pos, tri, ids, ranges))
    return result


def fixed_point(depth: Array) -> Array:
    """z/w as the depth buffer holds it: 32 bits over [-1,1], rounded down."""
    return np.floor((clip(depth, -1.0, 1.0) + 1.0) * 0.5 * (2**32 - 1)).astype(np.int64)


def _nearest(found: Fragments, depths: Array, floor: Array) -> tuple[Array, Array]:
    """Ids (from 1; 0 = none) of the nearest fragments deeper than `floor`, and their depths."""
    ids = np.zeros(floor.shape, np.int64)
    reached = np.full(floor.shape, np.iinfo(np.int64).max)
    place = (found.image, found.row, found.column)
    # Farthest first and, of equal depths, the earlier first: what is written last is what stays.
    order = np.lexsort((found.triangle, -depths))
    order = order[depths[order] > floor[tuple(axis[order] for axis in place)]]
    where = tuple(axis[order] for axis in place)
    ids[where] = found.triangle[order] + 1
    reached[where] = depths[order]
    return ids, reached


def shade(pos: Any, tri: Any, ids: Array, ranges: Any = None) -> tuple[Array, Array]:
    """rasterize()'s two outputs for given ids <N,H,W>: no visibility is decided here, so derivatives pass through."""
    pos, tri = numbers(pos), np.asarray(tri, np.int64)
    rast = np.zeros((*ids.shape, 4), pos.dtype)
    slopes = np.zeros((*ids.shape, 4), pos.dtype)
    for image, vertices, _ in draws(pos, tri, ranges):
        row, column = np.nonzero(ids[image])
        if len(row):
            triangle = ids[image, row, column] - 1
            corners = vertices[tri[triangle]]
            bary, slope = barycentrics(corners, row, column, ids.shape[1:])
            weights = np.stack([bary[:, 0], bary[:, 1], 1 - bary[:, 0] - bary[:, 1]], axis=1)
            depth = _dot(weights, corners[:, :, 2]) / _dot(weights, corners[:, :, 3])
            limited = clip(bary, 0.0, 1.0)
            rast[image, row, column] = np.concatenate(
                [limited, clip(depth, -1.0, 1.0)[:, None], id_to_float(triangle + 1)[:, None]], axis=1
            )
            slopes[image, row, column] = slope
    return rast, slopes


def barycentrics(corners: Array, row: Array, column: Array, resolution: Resolution) -> tuple[Array, Array]:
    """(u, v) without any limit <K,2>, and (du/dX, du/dY, dv/dX, dv/dY) <K,4>, of corners <K,3,4> at pixels <K>."""
    height, width = resolution
    x = (2 * column + 1) / width - 1
    y = (2 * row + 1) / height - 1
    w = corners[:, :, 3]
    px, py = corners[:, :, 0] - x[:, None] * w, corners[:, :, 1] - y[:, None] * w
    areas, by_x, by_y = [], [], []
    for k in range(3):
        i, j = (k + 1) % 3, (k + 2) % 3
        areas.append(px[:, i] * py[:, j] - py[:, i] * px[:, j])
        by_x.append(py[:, i] * w[:, j] - w[:, i] * py[:, j])
        by_y.append(px[:, j] * w[:, i] - w[:, j] * px[:, i])
    total = sum(areas)
    slope_x, slope_y = sum(by_x), sum(by_y)
    uv = np.stack([areas[0] / total, areas[1] / total], axis=1)
    slopes = [
        (2 / extent) * (part[k] - uv[:, k] * whole) / total
        for k in range(2)
        for extent, part, whole in ((width, by_x, slope_x), (height, by_y, slope_y))
    ]
    return uv, np.stack(slopes, axis=1)


def gradient(pos: Any, tri: Any, ids: Array, d_rast: Any, d_slopes: Any = None) -> Array:
    """d loss by pos (z's is 0), from d loss by rast, of which u and v count, and d loss by the slopes.

    Visibility is fixed, and u and v count as not limited.
    """
    pos, tri = numbers(pos), np.asarray(tri, np.int64)
    result = np.zeros(pos.shape)
    image, row, column = np.nonzero(ids)
    vertices = tri[ids[image, row, column] - 1]
    corners = pos[image[:, None], vertices] if pos.ndim == 3 else pos[vertices]
    d_uv = numbers(d_rast)[image, row, column, :2]
    d_slope = numbers(d_slopes)[image, row, column] if d_slopes is not None else np.zeros((len(row), 4))
    for corner in range(3):
        for axis in (0, 1, 3):
            moved = corners.astype(np.complex128)
            moved[:, corner, axis] += 1j * STEP
            uv, slope = barycentrics(moved, row, column, ids.shape[1:])
            share = _dot(derivative(uv), d_uv) + _dot(derivative(slope), d_slope)
            where = (image, vertices[:, corner]) if pos.ndim == 3 else (vertices[:, corner],)
            np.add.at(result, (*where, np.full(len(row), axis)), share)
    return result


def id_to_float(ids: Array) -> Array:
    """Ids as rasterize() returns them: plain up to 2^24, then the float whose bits are 0x4A800000 + id."""
    bits = (np.asarray(ids, np.int64) + _BASE).astype(np.int32).view(np.float32)
    return np.where(ids <= LARGEST_PLAIN_ID, ids, bits.astype(np.float64))


def float_to_id(values: Any) -> Array:
    """The inverse of id_to_float."""
    plain = np.asarray(values).real.astype(np.float32)
    bits = plain.view(np.int32).astype(np.int64) - _BASE
    return np.where(plain <= LARGEST_PLAIN_ID, np.minimum(plain, LARGEST_PLAIN_ID).astype(np.int64), bits)


def _dot(left: Array, right: Array) -> Array:
    product: Array = np.sum(left * right, axis=-1)
    return product
