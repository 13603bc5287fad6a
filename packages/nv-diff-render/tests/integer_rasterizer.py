"""A reference rasterizer with integer arithmetic, one triangle at a time, written from the rules of WebGPU."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def rasterize(
    clip: Array, triangles: npt.NDArray[np.int64], size: tuple[int, int], bits: int = 8
) -> tuple[npt.NDArray[np.int64], Array]:
    """Return the triangle + 1 that each pixel shows, 0 for background, [H, W], and its depth, 1 for background.

    ``clip`` [N, 4]; visible where 0 <= z <= w; counter-clockwise triangles are drawn. Corners are rounded to 1/2^bits
    pixel. A pixel belongs to a triangle if its centre is inside or on a top or left edge. The nearest triangle wins,
    the first one on ties.
    """
    ids, depth = np.zeros(size, np.int64), np.ones(size)
    for number, triangle in enumerate(triangles):
        polygon = _clipped(_clipped(clip[triangle], lambda p: p[:, 2]), lambda p: p[:, 3] - p[:, 2])
        for last in range(2, len(polygon)):
            _draw(polygon[[0, last - 1, last]], number + 1, ids, depth, 1 << bits)
    return ids, depth


def _clipped(polygon: Array, inside) -> Array:  # type: ignore[no-untyped-def]
    """Return the part of a convex polygon where ``inside`` is >= 0."""
    if not len(polygon):
        return polygon
    distance, kept = inside(polygon), []
    for here, (point, d) in enumerate(zip(polygon, distance, strict=True)):
        follows, e = polygon[here - len(polygon) + 1], distance[here - len(polygon) + 1]
        if d >= 0:
            kept.append(point)
        if (d >= 0) != (e >= 0):
            kept.append(point + (follows - point) * (d / (d - e)))
    return np.array(kept).reshape(-1, 4)


def _draw(corners: Array, number: int, ids: npt.NDArray[np.int64], depth: Array, grid: int) -> None:
    height, width = ids.shape
    if (corners[:, 3] <= 0).any():
        return
    ndc = corners[:, :3] / corners[:, 3:]
    screen = np.stack([(0.5 + 0.5 * ndc[:, 0]) * width, (0.5 - 0.5 * ndc[:, 1]) * height], axis=1)
    fixed = np.rint(screen.astype(np.float32).astype(np.float64) * grid).astype(np.int64)
    (ax, ay), (bx, by), (cx, cy) = (map(int, corner) for corner in fixed)
    # With y down, a counter-clockwise triangle has a negative area.
    area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
    if area >= 0:
        return
    left, top = np.maximum(fixed.min(axis=0) // grid - 1, 0)
    right, bottom = np.minimum(fixed.max(axis=0) // grid + 2, (width, height))
    if left >= right or top >= bottom:
        return
    px = (np.arange(left, right) * grid + grid // 2)[None]
    py = (np.arange(top, bottom) * grid + grid // 2)[:, None]
    weights = []
    for (x0, y0), (x1, y1) in (((bx, by), (cx, cy)), ((cx, cy), (ax, ay)), ((ax, ay), (bx, by))):
        edge = (y1 - y0) * (px - x0) - (x1 - x0) * (py - y0)
        # In counter-clockwise order, a left edge points down the screen and a top edge points to the left.
        owned = y1 > y0 or (y1 == y0 and x1 < x0)
        weights.append((edge, edge >= 0 if owned else edge > 0))
    covered = weights[0][1] & weights[1][1] & weights[2][1]
    z = sum(edge * value for (edge, _), value in zip(weights, ndc[:, 2], strict=True)) / -area
    here = np.s_[top:bottom, left:right]
    nearer = covered & (z < depth[here])
    depth[here][nearer] = z[nearer]
    ids[here][nearer] = number
