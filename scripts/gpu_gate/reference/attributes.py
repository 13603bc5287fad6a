"""interpolate(): vertex attributes at every pixel, and their derivatives with respect to pixel coordinates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .arrays import Array, as_float
from .raster import float_to_id

DiffAttrs = Sequence[int] | str | None


def interpolate(
    attr: Any, rast: Any, tri: Any, rast_db: Any = None, diff_attrs: DiffAttrs = None
) -> tuple[Array, Array]:
    """Return attributes [N, H, W, A] and attr_da [N, H, W, 2k], both 0 in the background.

    attr_da contains (dA/dX, dA/dY) for each of the k selected attributes.

    Args:
        attr: [V, A], [1, V, A] or [N, V, A].
        rast: [N, H, W, 4].
        tri: [T, 3].
        rast_db: [N, H, W, 4]; necessary if attributes are selected.
        diff_attrs: The selected attributes: "all", a list of indices (negative ones count from the end), or None.
    """
    attr, rast = as_float(attr), as_float(rast)
    corners, drawn = _corners(attr, rast, tri)
    u, v = rast[..., :1], rast[..., 1:2]
    values = u * corners[..., 0, :] + v * corners[..., 1, :] + (1 - u - v) * corners[..., 2, :]
    selected = _selected(diff_attrs, attr.shape[-1])
    if not selected:
        return np.where(drawn, values, 0), np.zeros((*rast.shape[:3], 0))
    rast_db = as_float(rast_db)
    da_du = (corners[..., 0, :] - corners[..., 2, :])[..., selected]
    da_dv = (corners[..., 1, :] - corners[..., 2, :])[..., selected]
    da_dx = da_du * rast_db[..., 0:1] + da_dv * rast_db[..., 2:3]
    da_dy = da_du * rast_db[..., 1:2] + da_dv * rast_db[..., 3:4]
    attr_da = np.stack([da_dx, da_dy], axis=-1).reshape(*rast.shape[:3], -1)
    return np.where(drawn, values, 0), np.where(drawn, attr_da, 0)


def gradients(
    attr: Any,
    rast: Any,
    tri: Any,
    grad_out: Any,
    *,
    rast_db: Any = None,
    diff_attrs: DiffAttrs = None,
    grad_attr_da: Any = None,
) -> tuple[Array, Array, Array]:
    """Return the gradients of the loss by attr, rast (only u and v) and rast_db.

    ``grad_out`` and ``grad_attr_da`` are the gradients by the two outputs of interpolate().
    """
    attr, rast, grad_out = as_float(attr), as_float(rast), as_float(grad_out)
    corners, drawn = _corners(attr, rast, tri)
    grad_out = np.where(drawn, grad_out, 0)
    selected = _selected(diff_attrs, attr.shape[-1])
    rast_db = as_float(rast_db) if selected else np.zeros((*rast.shape[:3], 4))
    grad_attr_da = np.where(drawn, as_float(grad_attr_da), 0) if selected else np.zeros((*rast.shape[:3], 0))
    grad_attr_da = grad_attr_da.reshape(*rast.shape[:3], len(selected), 2)
    u, v = rast[..., :1], rast[..., 1:2]
    per_corner = [u * grad_out, v * grad_out, (1 - u - v) * grad_out]
    # The gradients by dA/du and dA/dv.
    grad_du = grad_attr_da[..., 0] * rast_db[..., 0:1] + grad_attr_da[..., 1] * rast_db[..., 1:2]
    grad_dv = grad_attr_da[..., 0] * rast_db[..., 2:3] + grad_attr_da[..., 1] * rast_db[..., 3:4]
    for column, attribute in enumerate(selected):
        per_corner[0][..., attribute] += grad_du[..., column]
        per_corner[1][..., attribute] += grad_dv[..., column]
        per_corner[2][..., attribute] -= grad_du[..., column] + grad_dv[..., column]
    grad_attr = _sum_per_vertex(attr.shape, rast, tri, np.stack(per_corner, axis=-2))
    da_du, da_dv = corners[..., 0, :] - corners[..., 2, :], corners[..., 1, :] - corners[..., 2, :]
    grad_rast = np.zeros((*rast.shape[:3], 4))
    grad_rast[..., 0] = np.sum(grad_out * da_du, axis=-1)
    grad_rast[..., 1] = np.sum(grad_out * da_dv, axis=-1)
    grad_rast_db = [
        np.sum(grad_attr_da[..., axis] * derivative[..., selected], axis=-1)
        for derivative in (da_du, da_dv)
        for axis in range(2)
    ]
    return grad_attr, grad_rast, np.stack(grad_rast_db, axis=-1)


def _selected(diff_attrs: DiffAttrs, count: int) -> list[int]:
    """Return the indices of the selected attributes, none of them negative."""
    if diff_attrs is None:
        return []
    return list(range(count)) if isinstance(diff_attrs, str) else [index % count for index in diff_attrs]


def _corners(attr: Array, rast: Array, tri: Any) -> tuple[Array, Array]:
    """Return the attributes of the three vertices at every pixel [N, H, W, 3, A], and the drawn pixels [N, H, W, 1]."""
    image, vertices, drawn = _vertices(attr, rast, tri)
    corners = attr[vertices] if attr.ndim == 2 else attr[image, vertices]
    return corners, drawn[..., None]


def _vertices(attr: Array, rast: Array, tri: Any) -> tuple[Array, Array, Array]:
    """Return the indices of image and vertices in attr at every pixel, [N, H, W, 3], and the drawn pixels [N, H, W]."""
    ids = float_to_id(rast[..., 3])
    drawn = ids > 0
    vertices = np.asarray(tri, np.int64)[np.where(drawn, ids - 1, 0)]
    images = np.arange(len(ids)) % (len(attr) if attr.ndim == 3 else 1)
    return np.broadcast_to(images[:, None, None, None], vertices.shape), vertices, drawn


def _sum_per_vertex(shape: tuple[int, ...], rast: Array, tri: Any, per_corner: Array) -> Array:
    """Add up values given per pixel and corner [N, H, W, 3, A] for each vertex; ``shape`` is that of attr."""
    total = np.zeros(shape)
    image, vertices, drawn = _vertices(total, rast, tri)
    index = (image[drawn], vertices[drawn]) if len(shape) == 3 else (vertices[drawn],)
    np.add.at(total, index, per_corner[drawn])
    return total
