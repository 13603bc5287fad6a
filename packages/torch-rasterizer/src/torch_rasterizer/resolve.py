"""Compute barycentrics and depth from the face that each pixel shows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from torch_rasterizer import clipping, coverage, spans, triangles
from torch_rasterizer.convention import Convention
from torch_rasterizer.screen import Screen
from torch_rasterizer.triangles import Window

#: Pixels per step on a CPU, so that they fit into its cache.
CHUNK = 1 << 15
#: Pixels per search for covered pixels.
BAND = 1 << 18


@dataclass(frozen=True)
class ShownPixels:
    """Some covered pixels: pixel [P] and triangle [P] int64, three barycentrics [P], depth [P] or None."""

    pixel: torch.Tensor
    triangle: torch.Tensor
    barycentrics: list[torch.Tensor]
    depth: torch.Tensor | None


@dataclass(frozen=True)
class Surface:
    """A mesh and its projection to the screen.

    has_float64: whether the device supports float64. flat: whether every w is 1 and has no gradient, as with
    orthographic cameras.
    """

    mesh: clipping.Mesh
    screen: Screen
    convention: Convention
    has_float64: bool
    flat: bool


def resolve(ids: torch.Tensor, surface: Surface, window: Window, *, with_depth: bool) -> Iterator[ShownPixels]:
    """Yield perspective-correct barycentrics and depths where ids [pixels] (triangle + 1) are not 0, in parts.

    Barycentrics refer to the input face, also where the face was clipped. They are differentiable with respect to the
    screen positions.
    """
    # Precompute per triangle, unless there are more triangles than pixels.
    table = _table(surface, surface.mesh.faces, with_depth=with_depth) if len(surface.mesh.faces) <= len(ids) else None
    rows = max(1, BAND // window.width) if ids.device.type == "cpu" else window.height
    for top in range(0, window.height, rows):
        first, end = top * window.width, min(top + rows, window.height) * window.width
        pixel = spans.nonzero(ids[first:end] != 0).add_(first)
        if len(pixel):
            yield from _resolve_band(ids, pixel, table, surface, window, with_depth=with_depth)


def _resolve_band(
    ids: torch.Tensor,
    pixel: torch.Tensor,
    table: torch.Tensor | None,
    surface: Surface,
    window: Window,
    *,
    with_depth: bool,
) -> Iterator[ShownPixels]:
    """Resolve the pixels int64 [P], in ascending order."""
    size = CHUNK if ids.device.type == "cpu" else len(pixel)
    for here, down in zip(pixel.split(size), _rows(pixel, window).split(size), strict=True):
        triangle = ids.index_select(0, here).sub_(1)
        if table is None:
            values = _table(surface, surface.mesh.faces.index_select(0, triangle), with_depth=with_depth)
        else:
            values = table.index_select(1, triangle)
        across = here - (down - window.top) * window.width + window.left
        yield _resolve_pixels(here, triangle, (down, across), values.unbind(0), surface, with_depth=with_depth)


def _rows(pixel: torch.Tensor, window: Window) -> torch.Tensor:
    """Return the rows of pixels [P] in ascending order, without the slow integer division."""
    ends = torch.arange(1, window.height + 1, device=pixel.device).mul_(window.width)
    count = torch.searchsorted(pixel, ends).diff(prepend=ends.new_zeros(1))
    return spans.repeat(torch.arange(window.top, window.bottom, device=pixel.device), count, len(pixel))


def _table(surface: Surface, faces: torch.Tensor, *, with_depth: bool) -> torch.Tensor:
    """Return the values of each triangle that its pixels need, [R, T].

    The rows are x0, y0, five edge values, the area if coverage is exact, three depths if with_depth, and three w unless
    all w are 1.
    """
    index = faces.T.contiguous()
    screen = surface.screen
    x, y = ([values.index_select(0, i) for i in index] for values in (screen.x, screen.y))
    edges = triangles.edges_of(x, y)
    rows = [edges.x0, edges.y0, edges.e1x, edges.e1y, edges.e2x, edges.e2y, edges.inverse]
    if surface.convention.exact:
        rows.append(edges.area)
    if with_depth:
        rows += [screen.z.index_select(0, i) for i in index]
    if not surface.flat:
        rows += [screen.w.index_select(0, i) for i in index]
    return torch.stack(rows)


def _resolve_pixels(
    pixel: torch.Tensor,
    triangle: torch.Tensor,
    at: tuple[torch.Tensor, torch.Tensor],
    values: tuple[torch.Tensor, ...],
    surface: Surface,
    *,
    with_depth: bool,
) -> ShownPixels:
    """Resolve pixels at the rows and columns ``at``, int64 [P]."""
    x0, y0, *rest = values
    shape, rest = (rest[:6], rest[6:]) if surface.convention.exact else (rest[:5], rest[5:])
    dx, dy = at[1].to(x0.dtype).add_(0.5).sub(x0), at[0].to(y0.dtype).add_(0.5).sub(y0)
    if surface.convention.exact:
        found = list(coverage.exact_barycentrics(dx, dy, *shape))
    else:
        found = list(coverage.rounded_barycentrics(dx, dy, *shape, has_float64=surface.has_float64))
    dtype, depth = surface.mesh.positions.dtype, None
    if with_depth:
        depth = (found[0] * rest[0] + found[1] * rest[1] + found[2] * rest[2]).to(dtype)
        rest = rest[3:]
    # Divide each by its w, then normalize the sum to 1.
    if rest:
        found = [value / w for value, w in zip(found, rest, strict=True)]
    scale = 1.0 / (found[0] + found[1] + found[2])
    found = [value * scale for value in found]
    if surface.mesh.weights is not None:
        weights = surface.mesh.weights.index_select(0, triangle)
        found = list((torch.stack(found, dim=1)[:, :, None] * weights).sum(dim=1).unbind(1))
    return ShownPixels(pixel, triangle, [value.to(dtype) for value in found], depth)
