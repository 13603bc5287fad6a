"""antialias(): blends pairs of neighboring pixels across silhouette edges.

A pair is two horizontal or vertical neighbors with different triangle ids. Its triangle is the nearer one or, if the
depths are equal, that of the right or upper pixel. Of the edges of this triangle that cross the line through both pixel
centers, the one that crosses it farthest towards the other pixel is used. The pair is blended if this edge

- is a silhouette: there is no triangle on its other side, or that triangle lies on the same side of it in the image,
- and is at least as close to perpendicular to the pair as to parallel.

Let d be the distance in pixels from the center of the triangle's own pixel to the crossing. d must be at most 1/16
outside [0, 1] and is clamped to [0, 1]. Then alpha = 1/2 - d, with the opposite sign if the triangle is the one of the
second pixel. alpha * (second - first) is added to the first pixel if alpha > 0, else to the second.

Upstream documents this in words. Not verified against a device: ties, and edges with more than two triangles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .arrays import STEP, Array, as_float, clip, derivative
from .raster import float_to_id

MAX_DISTANCE_OUTSIDE = 1 / 16


@dataclass(frozen=True)
class Blends:
    """Blended pixel pairs, one entry per pair.

    Attributes:
        first: The flat index [K] of the first pixel.
        second: The flat index [K] of the second pixel.
        alpha: The blend factor [K].
        vertices: The flat vertex indices [K, 2] of the edge.
    """

    first: Array
    second: Array
    alpha: Array
    vertices: Array

    @property
    def target(self) -> Array:
        """The flat index [K] of the pixel that changes."""
        changed: Array = np.where(self.alpha.real > 0, self.first, self.second)
        return changed


def antialias(color: Any, rast: Any, pos: Any, tri: Any) -> Array:
    """Return the image [N, H, W, C] with antialiased silhouette edges."""
    color = as_float(color)
    found = blends(rast, pos, tri)
    flat = color.reshape(-1, color.shape[-1])
    result: Array = flat.astype(np.result_type(flat, found.alpha))
    np.add.at(result, found.target, found.alpha[:, None] * (flat[found.second] - flat[found.first]))
    image: Array = result.reshape(color.shape)
    return image


def gradients(color: Any, rast: Any, pos: Any, tri: Any, grad_out: Any) -> tuple[Array, Array]:
    """Return the gradients by color and by pos (0 for z); the selection of pairs is fixed."""
    color, pos, grad_out = as_float(color), as_float(pos), as_float(grad_out)
    found = blends(rast, pos, tri)
    flat, grad_flat = color.reshape(-1, color.shape[-1]), grad_out.reshape(-1, color.shape[-1])
    grad_color = grad_flat.copy()
    contribution = found.alpha[:, None] * grad_flat[found.target]
    np.add.at(grad_color, found.second, contribution)
    np.add.at(grad_color, found.first, -contribution)
    grad_alpha = np.sum(grad_flat[found.target] * (flat[found.second] - flat[found.first]), axis=1)
    grad_pos = np.zeros(pos.shape).reshape(-1, 4)
    for end in range(2):
        for axis in (0, 1, 3):
            vertices = found.vertices[:, end]
            contribution = _alpha_derivative(rast, pos, tri, vertices, axis) * grad_alpha
            np.add.at(grad_pos, (vertices, np.full(len(vertices), axis)), contribution)
    return grad_color.reshape(color.shape), grad_pos.reshape(pos.shape)


def _alpha_derivative(rast: Any, pos: Array, tri: Any, vertices: Array, axis: int) -> Array:
    """Return the derivative [K] of each pair's alpha by one coordinate of its vertex; ``vertices`` is [K]."""
    result = np.zeros(len(vertices))
    for vertex in np.unique(vertices):
        moved = pos.astype(np.complex128).reshape(-1, 4)
        moved[vertex, axis] += 1j * STEP
        alpha = derivative(blends(rast, moved.reshape(pos.shape), tri).alpha)
        result = np.where(vertices == vertex, alpha, result)
    return result


def blends(rast: Any, pos: Any, tri: Any) -> Blends:
    """Return the pairs that antialias() blends."""
    rast, pos, tri = as_float(rast).real, as_float(pos), np.asarray(tri, np.int64)
    opposite = _opposite_vertices(tri)
    flat = pos.reshape(-1, 4)
    offsets = np.arange(len(rast)) * (pos.shape[1] if pos.ndim == 3 else 0)
    parts = [_find_pairs(rast, flat, (tri, opposite, offsets), vertical) for vertical in (False, True)]
    return Blends(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def _find_pairs(
    rast: Array, flat: Array, mesh: tuple[Array, Array, Array], vertical: bool
) -> tuple[Array, Array, Array, Array]:
    """Return the fields of Blends for horizontal or vertical pairs.

    ``mesh`` is tri, its opposite vertices (see _opposite_vertices), and the first flat vertex index of each image.
    """
    tri, opposite, offsets = mesh
    height, width = rast.shape[1:3]
    ids, depth = float_to_id(rast[..., 3]), rast[..., 2]
    first = (slice(None), slice(0, height - vertical), slice(0, width - (not vertical)))
    second = (slice(None), slice(int(vertical), None), slice(int(not vertical), None))
    image, row, column = np.nonzero(ids[first] != ids[second])
    first_ids, second_ids = ids[first][image, row, column], ids[second][image, row, column]
    first_is_nearer = depth[first][image, row, column] < depth[second][image, row, column]
    own_is_first = (second_ids == 0) | ((first_ids > 0) & first_is_nearer)
    triangle = np.where(own_is_first, first_ids, second_ids) - 1
    offset = offsets[image]
    vertices = tri[triangle] + offset[:, None]
    # Without an opposite vertex, the triangle's own one makes the edge a silhouette.
    neighbors = np.where(opposite[triangle] >= 0, opposite[triangle] + offset[:, None], vertices)
    center = np.stack([column + (~own_is_first & (not vertical)), row + (~own_is_first & vertical)], axis=1)
    corners = _to_pixels(flat[vertices], center, (height, width))
    neighbor_corners = _to_pixels(flat[neighbors], center, (height, width))
    sign = np.where(own_is_first, 1.0, -1.0)
    edge, distance = _find_crossing(corners, neighbor_corners, vertical, sign)
    kept = edge >= 0
    first_index = (image * height + row) * width + column
    alpha = sign * (0.5 - clip(distance, 0.0, 1.0))
    ends = vertices[np.arange(len(edge))[:, None], (edge[:, None] + [1, 2]) % 3]
    return first_index[kept], (first_index + (width if vertical else 1))[kept], alpha[kept], ends[kept]


def _to_pixels(corners: Array, center: Array, resolution: tuple[int, int]) -> Array:
    """Return window positions [K, 3, 2] of corners [K, 3, 4], in pixels, relative to a pixel center [K, 2]."""
    half = np.array([resolution[1], resolution[0]]) / 2
    return corners[..., :2] / corners[..., 3:] * half + half - 0.5 - center[:, None, :]


def _find_crossing(corners: Array, neighbor_corners: Array, vertical: bool, sign: Array) -> tuple[Array, Array]:
    """Return the edge [K] that separates each pair (-1 if the pair is not blended) and its distance [K] in pixels."""
    silhouettes = _silhouettes(corners.real, neighbor_corners.real)
    # The axes parallel and perpendicular to the line through both pixel centers.
    parallel, perpendicular = (1, 0) if vertical else (0, 1)
    distances, usable = [], []
    for edge in range(3):
        start, end = corners[:, (edge + 1) % 3], corners[:, (edge + 2) % 3]
        run, rise = end[:, parallel] - start[:, parallel], end[:, perpendicular] - start[:, perpendicular]
        crosses = np.signbit(start[:, perpendicular].real) != np.signbit(end[:, perpendicular].real)
        with np.errstate(divide="ignore", invalid="ignore"):
            distance = sign * (start[:, parallel] * rise - start[:, perpendicular] * run) / rise
        distances.append(np.where(crosses, distance, -np.inf))
        steep = np.abs(rise.real) >= np.abs(run.real)
        near = (distance.real > -MAX_DISTANCE_OUTSIDE) & (distance.real < 1 + MAX_DISTANCE_OUTSIDE)
        usable.append(crosses & silhouettes[:, edge] & steep & near)
    stacked = np.stack(distances, axis=1)
    edge = np.argmax(stacked.real, axis=1)
    pairs = np.arange(len(edge))
    return np.where(np.stack(usable, axis=1)[pairs, edge], edge, -1), stacked[pairs, edge]


def _silhouettes(corners: Array, neighbor_corners: Array) -> Array:
    """Return which edges [K, 3] have no other triangle, or one that lies on the same side of the edge."""
    area = _signed_area(corners[:, 0], corners[:, 1], corners[:, 2])
    columns = []
    for edge in range(3):
        start, end = corners[:, (edge + 1) % 3], corners[:, (edge + 2) % 3]
        columns.append(np.signbit(_signed_area(neighbor_corners[:, edge], start, end)) == np.signbit(area))
    return np.stack(columns, axis=1)


def _signed_area(apex: Array, start: Array, end: Array) -> Array:
    """Return twice the signed area [K] of the triangle of three points [K, 2]."""
    a, b = start - apex, end - apex
    area: Array = a[:, 0] * b[:, 1] - b[:, 0] * a[:, 1]
    return area


def _opposite_vertices(tri: Array) -> Array:
    """Return, for each edge, the vertex of the other triangle that is not on the edge, as [T, 3]; -1 without one.

    Edge k of a triangle is the one opposite its vertex k.
    """
    apexes: dict[tuple[int, int], list[int]] = {}
    for corners in tri.tolist():
        if len(set(corners)) == 3:
            for k in range(3):
                found = apexes.setdefault(_edge_key(corners, k), [])
                if corners[k] not in found and len(found) < 2:
                    found.append(corners[k])
    rows = [[_other(apexes.get(_edge_key(corners, k), []), corners[k]) for k in range(3)] for corners in tri.tolist()]
    return np.array(rows, np.int64).reshape(-1, 3)


def _edge_key(corners: list[int], k: int) -> tuple[int, int]:
    """Return the vertices of edge k in ascending order."""
    first, second = corners[(k + 1) % 3], corners[(k + 2) % 3]
    return min(first, second), max(first, second)


def _other(apexes: list[int], own: int) -> int:
    """Return the vertex in ``apexes`` that is not ``own``; -1 if no such vertex exists or ``own`` is not in it."""
    rest = [vertex for vertex in apexes if vertex != own]
    return rest[0] if rest and own in apexes else -1
