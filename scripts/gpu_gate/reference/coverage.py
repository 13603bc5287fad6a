"""Coverage: which triangles cover which pixel centers, and their depth there.

Written from upstream's documented behavior. Vertices are snapped to 1/16 pixel. Triangles of both windings are drawn;
triangles whose snapped area is 0 are not. A pixel center on an edge belongs to the triangle, except if the edge,
directed so that the triangle is on its left, goes up, or is horizontal and goes left (row 0 is at the bottom).

Not verified against a device: the direction of this fill rule, the rounding of ties in snapping (here to even), and how
far outside the view a triangle may reach before it is clipped to the view (here 2048 pixels from the center). They only
matter within 1/16 pixel of an edge.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .arrays import Array, as_float

SUBPIXELS = 16
# Snapped coordinates are relative to the center of the image and have 16 bits.
GUARD_BAND = 32767


@dataclass(frozen=True)
class Fragments:
    """Fragments: one entry [K] per triangle and covered pixel center.

    Attributes:
        image: The index of the image.
        row: The row of the pixel.
        column: The column of the pixel.
        triangle: The index of the triangle, from 0.
        depth: z/w at the pixel center.
        slope: |d(z/w)/dX| + |d(z/w)/dY|, per pixel.
    """

    image: Array
    row: Array
    column: Array
    triangle: Array
    depth: Array
    slope: Array


def fragments(pos: Array, tri: Array, resolution: tuple[int, int], ranges: Array | None = None) -> Fragments:
    """Return all fragments of a draw, without a depth test.

    pos is [N, V, 4], or [V, 4] with ranges [N, 2] of (first triangle, count); tri is [T, 3].
    """
    found: list[tuple[Array, ...]] = []
    for image, vertices, triangles in iterate_images(as_float(pos).real, np.asarray(tri), ranges):
        for triangle in triangles:
            for row, column, depth, slope in _rasterize_triangle(vertices[tri[triangle]], resolution):
                ones = np.ones(len(row), np.int64)
                found.append((ones * image, row, column, ones * triangle, depth, ones * slope))
    if not found:
        empty = np.zeros(0, np.int64)
        return Fragments(empty, empty, empty, empty, np.zeros(0), np.zeros(0))
    return Fragments(*(np.concatenate(part) for part in zip(*found, strict=True)))


def visible_polygons(
    pos: Array, tri: Array, resolution: tuple[int, int], ranges: Array | None = None
) -> Iterator[tuple[int, Array]]:
    """Yield the image index and the clipped polygon [K, 2] (x, y), in pixels, of each visible triangle."""
    for image, vertices, triangles in iterate_images(as_float(pos).real, np.asarray(tri), ranges):
        for triangle in triangles:
            polygon = _clip_triangle(vertices[tri[triangle]], resolution)
            size = np.array([resolution[1], resolution[0]])
            if len(polygon):
                yield image, (polygon[:, :2] / polygon[:, 3:] + 1) * size / 2


def iterate_images(pos: Array, tri: Array, ranges: Array | None) -> Iterator[tuple[int, Array, range]]:
    """Yield the index, the vertices [V, 4] and the range of triangle indices of each image."""
    if pos.ndim == 3:
        for image, vertices in enumerate(pos):
            yield image, vertices, range(len(tri))
    elif ranges is None:
        raise ValueError("positions of shape [V, 4] need ranges of shape [N, 2]")
    else:
        for image, (first, count) in enumerate(np.asarray(ranges).tolist()):
            yield image, pos, range(max(first, 0), min(first + count, len(tri)))


def _rasterize_triangle(corners: Array, resolution: tuple[int, int]) -> Iterator[tuple[Array, Array, Array, float]]:
    """Clip a triangle [3, 4] and yield the rows, columns, depths and depth slope of each resulting triangle."""
    polygon = _clip_triangle(corners, resolution)
    for last in range(2, len(polygon)):
        part = polygon[[0, last - 1, last]]
        yield _covered_pixels(_snap(part, resolution), part[:, 2] / part[:, 3], resolution)


def _snap(corners: Array, resolution: tuple[int, int]) -> Array:
    """Return window positions [3, 2] (x, y) in 1/16 pixel, relative to the center of the image."""
    height, width = resolution
    half = np.array([width, height]) * (SUBPIXELS / 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.rint(corners[:, :2] / corners[:, 3:] * half)


def _clip_triangle(corners: Array, resolution: tuple[int, int]) -> Array:
    """Clip a triangle to |z| <= w, and also to |x|, |y| <= w if it is outside the guard band.

    Returns a polygon [K, 4]; K is 0 if nothing is visible.
    """
    depths_inside = np.all(np.abs(corners[:, 2]) <= corners[:, 3])
    if depths_inside:
        snapped = _snap(corners, resolution)
        if np.all(np.abs(snapped) <= GUARD_BAND) and np.ptp(snapped) <= GUARD_BAND:
            return corners
    polygon = corners
    for axis in range(3):
        for sign in (1.0, -1.0):
            polygon = _clip_polygon(polygon, polygon[:, 3] + sign * polygon[:, axis])
    return polygon


def _clip_polygon(polygon: Array, distance: Array) -> Array:
    """Return the part of a convex polygon where the distance from a plane is not negative."""
    kept: list[Array] = []
    for index in range(len(polygon)):
        start, end = distance[index - 1], distance[index]
        if (start < 0) != (end < 0):
            fraction = start / (start - end)
            kept.append(polygon[index - 1] + fraction * (polygon[index] - polygon[index - 1]))
        if end >= 0:
            kept.append(polygon[index])
    return np.array(kept).reshape(-1, 4)


def _covered_pixels(snapped: Array, depths: Array, resolution: tuple[int, int]) -> tuple[Array, Array, Array, float]:
    """Return rows, columns and depths of the pixel centers inside a snapped triangle, and the depth slope."""
    height, width = resolution
    corners = snapped.astype(np.int64) + np.array([width, height]) * (SUBPIXELS // 2)
    area = _cross(corners[1] - corners[0], corners[2] - corners[0])
    if area < 0:
        corners, depths, area = corners[[0, 2, 1]], depths[[0, 2, 1]], -area
    low = np.clip((corners.min(axis=0) - SUBPIXELS // 2) // SUBPIXELS, 0, [width, height])
    high = np.clip((corners.max(axis=0) - SUBPIXELS // 2) // SUBPIXELS + 1, 0, [width, height])
    row, column = np.mgrid[low[1] : high[1], low[0] : high[0]]
    if area == 0:
        row, column = row[:0], column[:0]
    center = np.stack([column, row], axis=-1) * SUBPIXELS + SUBPIXELS // 2
    weights = [_edge_function(corners[(k + 1) % 3], corners[(k + 2) % 3], center) for k in range(3)]
    inside = np.logical_and.reduce([is_inside for _, is_inside in weights])
    depth = sum(weight[inside] * depths[k] for k, (weight, _) in enumerate(weights)) / max(int(area), 1)
    sides = corners[[2, 0, 1]] - corners[[1, 2, 0]]
    slope = float(np.sum(np.abs(depths @ sides))) * SUBPIXELS / max(int(area), 1)
    return row[inside], column[inside], np.asarray(depth, np.float64), slope


def _edge_function(start: Array, end: Array, center: Array) -> tuple[Array, Array]:
    """Return twice the signed area of the edge with each center, and whether the center is inside by the fill rule."""
    edge = end - start
    area = _cross(edge, center - start)
    exclusive = edge[1] > 0 or (edge[1] == 0 and edge[0] <= 0)
    return area, area > 0 if exclusive else area >= 0


def _cross(left: Array, right: Array) -> Array:
    product: Array = left[..., 0] * right[..., 1] - left[..., 1] * right[..., 0]
    return product
