"""Which triangles cover which pixel centres, and how deep.

Written from upstream's documented behaviour: vertices snap to 1/16 pixel, both windings are drawn, a triangle of zero
snapped area is not; a centre on an edge belongs to the triangle unless the edge, seen with the triangle to its left,
goes up, or is level and goes left (row 0 is the bottom). Not verified against a device: that fill rule's sign, the
rounding of ties when snapping (to even here), and how far outside the view a triangle may reach before it is clipped
by the sides (2048 pixels from the centre here). They matter only within 1/16 pixel of an edge.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .arrays import Array, numbers

SUBPIXELS = 16
# Snapped coordinates, counted from the middle of the image, are 16 bits wide.
GUARD_BAND = 32767


@dataclass(frozen=True)
class Fragments:
    """Covered pixel centres, one entry each: image, row and column, triangle (from 0), z/w there, and its slope.

    The slope is what z/w changes by across a pixel, in both directions together.
    """

    image: Array
    row: Array
    column: Array
    triangle: Array
    depth: Array
    slope: Array


def fragments(pos: Array, tri: Array, resolution: tuple[int, int], ranges: Array | None = None) -> Fragments:
    """All fragments of a draw, before any depth test.

    pos is <N,V,4>, or <V,4> with ranges <N,2> of (first triangle, count); tri is <T,3>.
    """
    found: list[tuple[Array, ...]] = []
    for image, vertices, triangles in draws(numbers(pos).real, np.asarray(tri), ranges):
        for triangle in triangles:
            for row, column, depth, slope in _pieces(vertices[tri[triangle]], resolution):
                every = np.ones(len(row), np.int64)
                found.append((every * image, row, column, every * triangle, depth, every * slope))
    if not found:
        none = np.zeros(0, np.int64)
        return Fragments(none, none, none, none, np.zeros(0), np.zeros(0))
    return Fragments(*(np.concatenate(part) for part in zip(*found, strict=True)))


def outlines(
    pos: Array, tri: Array, resolution: tuple[int, int], ranges: Array | None = None
) -> Iterator[tuple[int, Array]]:
    """For each triangle and image: the image's number and the visible polygon's corners <K,2> (x, y) in pixels."""
    for image, vertices, triangles in draws(numbers(pos).real, np.asarray(tri), ranges):
        for triangle in triangles:
            polygon = _clipped(vertices[tri[triangle]], resolution)
            size = np.array([resolution[1], resolution[0]])
            if len(polygon):
                yield image, (polygon[:, :2] / polygon[:, 3:] + 1) * size / 2


def draws(pos: Array, tri: Array, ranges: Array | None) -> Iterator[tuple[int, Array, range]]:
    """For each image: its number, its vertices <V,4>, and the numbers of its triangles within the whole tri."""
    if pos.ndim == 3:
        for image, vertices in enumerate(pos):
            yield image, vertices, range(len(tri))
    elif ranges is None:
        raise ValueError("positions of shape <V,4> need ranges <N,2>")
    else:
        for image, (first, count) in enumerate(np.asarray(ranges).tolist()):
            yield image, pos, range(max(first, 0), min(first + count, len(tri)))


def _pieces(corners: Array, resolution: tuple[int, int]) -> Iterator[tuple[Array, Array, Array, float]]:
    """Rows, columns, depths and their slope, covered by one triangle <3,4>, in as many pieces as clipping leaves."""
    polygon = _clipped(corners, resolution)
    for last in range(2, len(polygon)):
        piece = polygon[[0, last - 1, last]]
        yield _covered(_snapped(piece, resolution), piece[:, 2] / piece[:, 3], resolution)


def _snapped(corners: Array, resolution: tuple[int, int]) -> Array:
    """Window positions <3,2> (x, y) in 1/16 pixel, counted from the middle of the image."""
    height, width = resolution
    half = np.array([width, height]) * (SUBPIXELS / 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.rint(corners[:, :2] / corners[:, 3:] * half)


def _clipped(corners: Array, resolution: tuple[int, int]) -> Array:
    """The triangle cut by |z| <= w, and by |x|, |y| <= w if it reaches too far; <K,4>, K = 0 if nothing is left."""
    depths_inside = np.all(np.abs(corners[:, 2]) <= corners[:, 3])
    if depths_inside:
        snapped = _snapped(corners, resolution)
        if np.all(np.abs(snapped) <= GUARD_BAND) and np.ptp(snapped) <= GUARD_BAND:
            return corners
    polygon = corners
    for axis in range(3):
        for sign in (1.0, -1.0):
            polygon = _cut(polygon, polygon[:, 3] + sign * polygon[:, axis])
    return polygon


def _cut(polygon: Array, distance: Array) -> Array:
    """The part of a convex polygon where the distance from a plane is not negative."""
    kept: list[Array] = []
    for index in range(len(polygon)):
        here, there = distance[index - 1], distance[index]
        if (here < 0) != (there < 0):
            share = here / (here - there)
            kept.append(polygon[index - 1] + share * (polygon[index] - polygon[index - 1]))
        if there >= 0:
            kept.append(polygon[index])
    return np.array(kept).reshape(-1, 4)


def _covered(snapped: Array, depths: Array, resolution: tuple[int, int]) -> tuple[Array, Array, Array, float]:
    """Rows, columns and depths of the pixel centres inside a snapped triangle, and the depths' slope."""
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
    centre = np.stack([column, row], axis=-1) * SUBPIXELS + SUBPIXELS // 2
    weights = [_edge(corners[(k + 1) % 3], corners[(k + 2) % 3], centre) for k in range(3)]
    inside = np.logical_and.reduce([held for _, held in weights])
    depth = sum(weight[inside] * depths[k] for k, (weight, _) in enumerate(weights)) / max(int(area), 1)
    sides = corners[[2, 0, 1]] - corners[[1, 2, 0]]
    slope = float(np.sum(np.abs(depths @ sides))) * SUBPIXELS / max(int(area), 1)
    return row[inside], column[inside], np.asarray(depth, np.float64), slope


def _edge(start: Array, end: Array, centre: Array) -> tuple[Array, Array]:
    """Twice the signed area with each centre, and whether the centre is on the inner side or on an edge that counts."""
    along = end - start
    weight = _cross(along, centre - start)
    exclusive = along[1] > 0 or (along[1] == 0 and along[0] <= 0)
    return weight, weight > 0 if exclusive else weight >= 0


def _cross(left: Array, right: Array) -> Array:
    product: Array = left[..., 0] * right[..., 1] - left[..., 1] * right[..., 0]
    return product
