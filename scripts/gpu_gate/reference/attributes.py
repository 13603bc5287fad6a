"""interpolate(): vertex attributes at every pixel, and their screen derivatives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .arrays import Array, numbers
from .raster import float_to_id

Chosen = Sequence[int] | str | None


def interpolate(attr: Any, rast: Any, tri: Any, slopes: Any = None, chosen: Chosen = None) -> tuple[Array, Array]:
    """Attributes <N,H,W,A> and, of the chosen ones, (dA/dX, dA/dY) side by side <N,H,W,2k>; zero in the background.

    attr is <V,A>, <1,V,A> or <N,V,A>; chosen is "all", a list of attribute numbers (negative from the end), or None.
    """
    attr, rast = numbers(attr), numbers(rast)
    corners, drawn = _corners(attr, rast, tri)
    u, v = rast[..., :1], rast[..., 1:2]
    values = u * corners[..., 0, :] + v * corners[..., 1, :] + (1 - u - v) * corners[..., 2, :]
    picked = _picked(chosen, attr.shape[-1])
    if not picked:
        return np.where(drawn, values, 0), np.zeros((*rast.shape[:3], 0))
    slopes = numbers(slopes)
    by_u = (corners[..., 0, :] - corners[..., 2, :])[..., picked]
    by_v = (corners[..., 1, :] - corners[..., 2, :])[..., picked]
    by_x = by_u * slopes[..., 0:1] + by_v * slopes[..., 2:3]
    by_y = by_u * slopes[..., 1:2] + by_v * slopes[..., 3:4]
    pairs = np.stack([by_x, by_y], axis=-1).reshape(*rast.shape[:3], -1)
    return np.where(drawn, values, 0), np.where(drawn, pairs, 0)


def gradients(
    attr: Any, rast: Any, tri: Any, d_values: Any, *, slopes: Any = None, chosen: Chosen = None, d_pairs: Any = None
) -> tuple[Array, Array, Array]:
    """d loss by attr, by rast (u and v), and by slopes, from d loss by interpolate()'s two outputs."""
    attr, rast, d_values = numbers(attr), numbers(rast), numbers(d_values)
    corners, drawn = _corners(attr, rast, tri)
    d_values = np.where(drawn, d_values, 0)
    picked = _picked(chosen, attr.shape[-1])
    slopes = numbers(slopes) if picked else np.zeros((*rast.shape[:3], 4))
    d_pairs = np.where(drawn, numbers(d_pairs), 0) if picked else np.zeros((*rast.shape[:3], 0))
    d_pairs = d_pairs.reshape(*rast.shape[:3], len(picked), 2)
    u, v = rast[..., :1], rast[..., 1:2]
    per_corner = [u * d_values, v * d_values, (1 - u - v) * d_values]
    # d loss by dA/du and by dA/dv
    by_u = d_pairs[..., 0] * slopes[..., 0:1] + d_pairs[..., 1] * slopes[..., 1:2]
    by_v = d_pairs[..., 0] * slopes[..., 2:3] + d_pairs[..., 1] * slopes[..., 3:4]
    for column, number in enumerate(picked):
        per_corner[0][..., number] += by_u[..., column]
        per_corner[1][..., number] += by_v[..., column]
        per_corner[2][..., number] -= by_u[..., column] + by_v[..., column]
    d_attr = _scattered(attr.shape, rast, tri, np.stack(per_corner, axis=-2))
    edge_u, edge_v = corners[..., 0, :] - corners[..., 2, :], corners[..., 1, :] - corners[..., 2, :]
    d_rast = np.zeros((*rast.shape[:3], 4))
    d_rast[..., 0] = np.sum(d_values * edge_u, axis=-1)
    d_rast[..., 1] = np.sum(d_values * edge_v, axis=-1)
    sides = [np.sum(d_pairs[..., axis] * edge[..., picked], axis=-1) for edge in (edge_u, edge_v) for axis in range(2)]
    return d_attr, d_rast, np.stack(sides, axis=-1)


def _picked(chosen: Chosen, count: int) -> list[int]:
    if chosen is None:
        return []
    return list(range(count)) if isinstance(chosen, str) else [number % count for number in chosen]


def _corners(attr: Array, rast: Array, tri: Any) -> tuple[Array, Array]:
    """Attributes of the three vertices at every pixel <N,H,W,3,A>, and where anything is drawn <N,H,W,1>."""
    image, vertices, drawn = _places(attr, rast, tri)
    found = attr[vertices] if attr.ndim == 2 else attr[image, vertices]
    return found, drawn[..., None]


def _places(attr: Array, rast: Array, tri: Any) -> tuple[Array, Array, Array]:
    ids = float_to_id(rast[..., 3])
    drawn = ids > 0
    vertices = np.asarray(tri, np.int64)[np.where(drawn, ids - 1, 0)]
    images = np.arange(len(ids)) % (len(attr) if attr.ndim == 3 else 1)
    return np.broadcast_to(images[:, None, None, None], vertices.shape), vertices, drawn


def _scattered(shape: tuple[int, ...], rast: Array, tri: Any, shares: Array) -> Array:
    total = np.zeros(shape)
    image, vertices, drawn = _places(total, rast, tri)
    where = (image[drawn], vertices[drawn]) if len(shape) == 3 else (vertices[drawn],)
    np.add.at(total, where, shares[drawn])
    return total
