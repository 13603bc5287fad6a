"""antialias(): blends pixel pairs across silhouette edges.

For every pair of horizontal or vertical neighbours with different ids, the nearer triangle (of equal depths that of the
right or upper pixel) is looked at. Of its edges that cross the line through both centres, the one that crosses farthest
in the neighbour's direction counts, if it is a silhouette (no triangle beyond it, or one on the same side of it) and
steeper across the pair than along it. With d the crossing's distance from the triangle's own centre in pixels, within
1/16 of [0,1] and then limited to it, alpha = 1/2 - d, with opposite sign if the triangle is the second pixel's, and
alpha * (second - first) is added to the first pixel if alpha > 0, else to the second. Upstream documents this in words;
ties, and edges of more than two triangles, are not verified against a device.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .arrays import STEP, Array, clip, derivative, numbers
from .raster import float_to_id

SLACK = 1 / 16


@dataclass(frozen=True)
class Blends:
    """Per blended pair: flat numbers of the two pixels, alpha, and the vertices of the edge in the flat positions."""

    first: Array
    second: Array
    alpha: Array
    vertices: Array

    @property
    def target(self) -> Array:
        """The pixel that changes."""
        changed: Array = np.where(self.alpha.real > 0, self.first, self.second)
        return changed


def antialias(color: Any, rast: Any, pos: Any, tri: Any) -> Array:
    """The image <N,H,W,C> with silhouette edges smoothed."""
    color = numbers(color)
    found = blends(rast, pos, tri)
    flat = color.reshape(-1, color.shape[-1])
    result: Array = flat.astype(np.result_type(flat, found.alpha))
    np.add.at(result, found.target, found.alpha[:, None] * (flat[found.second] - flat[found.first]))
    smooth: Array = result.reshape(color.shape)
    return smooth


def gradients(color: Any, rast: Any, pos: Any, tri: Any, d_out: Any) -> tuple[Array, Array]:
    """d loss by color, and by pos (z's is 0); which pairs blend is fixed."""
    color, pos, d_out = numbers(color), numbers(pos), numbers(d_out)
    found = blends(rast, pos, tri)
    flat, d_flat = color.reshape(-1, color.shape[-1]), d_out.reshape(-1, color.shape[-1])
    d_color = d_flat.copy()
    share = found.alpha[:, None] * d_flat[found.target]
    np.add.at(d_color, found.second, share)
    np.add.at(d_color, found.first, -share)
    weight = np.sum(d_flat[found.target] * (flat[found.second] - flat[found.first]), axis=1)
    d_pos = np.zeros(pos.shape).reshape(-1, 4)
    for end in range(2):
        for axis in (0, 1, 3):
            slope = _slope(rast, pos, tri, found.vertices[:, end], axis)
            np.add.at(d_pos, (found.vertices[:, end], np.full(len(weight), axis)), slope * weight)
    return d_color.reshape(color.shape), d_pos.reshape(pos.shape)


def _slope(rast: Any, pos: Array, tri: Any, vertices: Array, axis: int) -> Array:
    """d alpha of every pair by one coordinate of the pair's own vertex."""
    result = np.zeros(len(vertices))
    for vertex in np.unique(vertices):
        moved = pos.astype(np.complex128).reshape(-1, 4)
        moved[vertex, axis] += 1j * STEP
        alpha = derivative(blends(rast, moved.reshape(pos.shape), tri).alpha)
        result = np.where(vertices == vertex, alpha, result)
    return result


def blends(rast: Any, pos: Any, tri: Any) -> Blends:
    """The pairs that antialias() blends."""
    rast, pos, tri = numbers(rast).real, numbers(pos), np.asarray(tri, np.int64)
    opposite = _opposite(tri)
    flat = pos.reshape(-1, 4)
    offsets = np.arange(len(rast)) * (pos.shape[1] if pos.ndim == 3 else 0)
    parts = [_of_pairs(rast, flat, (tri, opposite, offsets), vertical) for vertical in (False, True)]
    return Blends(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def _of_pairs(
    rast: Array, flat: Array, mesh: tuple[Array, Array, Array], vertical: bool
) -> tuple[Array, Array, Array, Array]:
    """The Blends of one direction; mesh is tri, the vertices opposite, and each image's first vertex."""
    tri, opposite, offsets = mesh
    height, width = rast.shape[1:3]
    ids, depth = float_to_id(rast[..., 3]), rast[..., 2]
    here = (slice(None), slice(0, height - vertical), slice(0, width - (not vertical)))
    there = (slice(None), slice(int(vertical), None), slice(int(not vertical), None))
    image, row, column = np.nonzero(ids[here] != ids[there])
    ids_here, ids_there = ids[here][image, row, column], ids[there][image, row, column]
    nearer = depth[here][image, row, column] < depth[there][image, row, column]
    own_first = (ids_there == 0) | ((ids_here > 0) & nearer)
    triangle = np.where(own_first, ids_here, ids_there) - 1
    base = offsets[image]
    vertices = tri[triangle] + base[:, None]
    across = np.where(opposite[triangle] >= 0, opposite[triangle] + base[:, None], vertices)
    centre = np.stack([column + (~own_first & (not vertical)), row + (~own_first & vertical)], axis=1)
    corners = _window(flat[vertices], centre, (height, width))
    wings = _window(flat[across], centre, (height, width))
    edge, crossing = _crossing(corners, wings, vertical, np.where(own_first, 1.0, -1.0))
    kept = edge >= 0
    first = (image * height + row) * width + column
    alpha = np.where(own_first, 1.0, -1.0) * (0.5 - clip(crossing, 0.0, 1.0))
    pairs = np.arange(len(edge))[:, None]
    ends = vertices[pairs, (edge[:, None] + [1, 2]) % 3]
    return first[kept], (first + (width if vertical else 1))[kept], alpha[kept], ends[kept]


def _window(corners: Array, centre: Array, resolution: tuple[int, int]) -> Array:
    """Positions <K,3,2> in pixels from a pixel's centre <K,2>."""
    half = np.array([resolution[1], resolution[0]]) / 2
    return corners[..., :2] / corners[..., 3:] * half + half - 0.5 - centre[:, None, :]


def _crossing(corners: Array, wings: Array, vertical: bool, direction: Array) -> tuple[Array, Array]:
    """The number of the edge that separates each pair (-1: none), and how far from the centre it crosses."""
    outlines = _outlines(corners.real, wings.real)
    along, side = (1, 0) if vertical else (0, 1)
    distances, usable = [], []
    for edge in range(3):
        start, end = corners[:, (edge + 1) % 3], corners[:, (edge + 2) % 3]
        run, rise = end[:, along] - start[:, along], end[:, side] - start[:, side]
        crosses = np.signbit(start[:, side].real) != np.signbit(end[:, side].real)
        with np.errstate(divide="ignore", invalid="ignore"):
            distance = direction * (start[:, along] * rise - start[:, side] * run) / rise
        distances.append(np.where(crosses, distance, -np.inf))
        steep = np.abs(rise.real) >= np.abs(run.real)
        usable.append(crosses & outlines[:, edge] & steep & (distance.real > -SLACK) & (distance.real < 1 + SLACK))
    stacked = np.stack(distances, axis=1)
    edge = np.argmax(stacked.real, axis=1)
    pairs = np.arange(len(edge))
    return np.where(np.stack(usable, axis=1)[pairs, edge], edge, -1), stacked[pairs, edge]


def _outlines(corners: Array, wings: Array) -> Array:
    """Per triangle's edge: whether the triangle beyond it lies on the same side of it (or there is none)."""
    turn = _turn(corners[:, 0], corners[:, 1], corners[:, 2])
    columns = [
        np.signbit(_turn(wings[:, edge], corners[:, (edge + 1) % 3], corners[:, (edge + 2) % 3])) == np.signbit(turn)
        for edge in range(3)
    ]
    return np.stack(columns, axis=1)


def _turn(apex: Array, start: Array, end: Array) -> Array:
    a, b = start - apex, end - apex
    result: Array = a[:, 0] * b[:, 1] - b[:, 0] * a[:, 1]
    return result


def _opposite(tri: Array) -> Array:
    """Per triangle and edge (edge k is opposite vertex k): the vertex across it <T,3>, -1 where there is none."""
    beyond: dict[tuple[int, int], list[int]] = {}
    for corners in tri.tolist():
        if len(set(corners)) == 3:
            for k in range(3):
                found = beyond.setdefault(_key(corners, k), [])
                if corners[k] not in found and len(found) < 2:
                    found.append(corners[k])
    rows = [[_other(beyond.get(_key(corners, k), []), corners[k]) for k in range(3)] for corners in tri.tolist()]
    return np.array(rows, np.int64).reshape(-1, 3)


def _key(corners: list[int], k: int) -> tuple[int, int]:
    first, second = corners[(k + 1) % 3], corners[(k + 2) % 3]
    return min(first, second), max(first, second)


def _other(found: list[int], own: int) -> int:
    rest = [vertex for vertex in found if vertex != own]
    return rest[0] if rest and own in found else -1
