"""From the face that each pixel shows to the barycentrics and the depth there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from torch_rasterizer import clipping, coverage, spans, triangles
from torch_rasterizer.convention import Convention
from torch_rasterizer.screen import Screen
from torch_rasterizer.triangles import Window

#: Pixels at a time on a CPU: what its cache holds.
CHUNK = 1 << 15
#: Pixels that are searched at a time for covered ones.
BAND = 1 << 18


@dataclass(frozen=True)
class Shown:
    """What some covered pixels show: pixel <P> and triangle <P> int64, three barycentrics <P>, depth <P>."""

    pixel: torch.Tensor
    triangle: torch.Tensor
    barycentrics: list[torch.Tensor]
    depth: torch.Tensor | None


@dataclass(frozen=True)
class Surface:
    """What of a mesh can be seen: its triangles on the screen.

    doubles: whether the device has float64; flat: whether every w is 1 and has no gradient, as of orthographic cameras.
    """

    mesh: clipping.Mesh
    screen: Screen
    convention: Convention
    doubles: bool
    flat: bool


def resolve(ids: torch.Tensor, surface: Surface, window: Window, *, with_depth: bool) -> Iterator[Shown]:
    """Perspective-correct barycentrics and the depth where ids <pixels> (triangle + 1) are not 0, part by part.

    The barycentrics of a cut triangle's pixels are those in the face it is a part of. Differentiable by the screen.
    """
    # Per triangle what every pixel of it needs, unless there are more triangles than pixels.
    table = _table(surface, surface.mesh.faces, with_depth=with_depth) if len(surface.mesh.faces) <= len(ids) else None
    rows = max(1, BAND // window.width) if ids.device.type == "cpu" else window.height
    for top in range(0, window.height, rows):
        first, end = top * window.width, min(top + rows, window.height) * window.width
        pixel = spans.nonzero(ids[first:end] != 0).add_(first)
        if len(pixel):
            yield from _resolve(ids, pixel, table, surface, window, with_depth=with_depth)


def _resolve(
    ids: torch.Tensor,
    pixel: torch.Tensor,
    table: torch.Tensor | None,
    surface: Surface,
    window: Window,
    *,
    with_depth: bool,
) -> Iterator[Shown]:
    """Of the pixels <P> int64, ascending."""
    size = CHUNK if ids.device.type == "cpu" else len(pixel)
    for here, down in zip(pixel.split(size), _rows(pixel, window).split(size), strict=True):
        triangle = ids.index_select(0, here).sub_(1)
        if table is None:
            values = _table(surface, surface.mesh.faces.index_select(0, triangle), with_depth=with_depth)
        else:
            values = table.index_select(1, triangle)
        across = here - (down - window.top) * window.width + window.left
        yield _shown(here, triangle, (down, across), values.unbind(0), surface, with_depth=with_depth)


def _rows(pixel: torch.Tensor, window: Window) -> torch.Tensor:
    """The rows of pixels <P> in ascending order; dividing integers takes longer."""
    ends = torch.arange(1, window.height + 1, device=pixel.device).mul_(window.width)
    count = torch.searchsorted(pixel, ends).diff(prepend=ends.new_zeros(1))
    return spans.repeat(torch.arange(window.top, window.bottom, device=pixel.device), count, len(pixel))


def _table(surface: Surface, faces: torch.Tensor, *, with_depth: bool) -> torch.Tensor:
    """What the pixels of a triangle need, <R,T>: x0, y0, five values of the edges, then what is asked for.

    That is the area on a grid, three depths, and three w unless they are 1: dividing by 1 changes nothing.
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


def _shown(
    pixel: torch.Tensor,
    triangle: torch.Tensor,
    at: tuple[torch.Tensor, torch.Tensor],
    values: tuple[torch.Tensor, ...],
    surface: Surface,
    *,
    with_depth: bool,
) -> Shown:
    """At rows and columns int64 <P>."""
    x0, y0, *rest = values
    shape, rest = (rest[:6], rest[6:]) if surface.convention.exact else (rest[:5], rest[5:])
    dx, dy = at[1].to(x0.dtype).add_(0.5).sub(x0), at[0].to(y0.dtype).add_(0.5).sub(y0)
    if surface.convention.exact:
        found = list(coverage.exact_barycentrics(dx, dy, *shape))
    else:
        found = list(coverage.rounded_barycentrics(dx, dy, *shape, doubles=surface.doubles))
    dtype, depth = surface.mesh.positions.dtype, None
    if with_depth:
        depth = (found[0] * rest[0] + found[1] * rest[1] + found[2] * rest[2]).to(dtype)
        rest = rest[3:]
    # Each divided by its w, times one over their sum.
    if rest:
        found = [value / w for value, w in zip(found, rest, strict=True)]
    scale = 1.0 / (found[0] + found[1] + found[2])
    found = [value * scale for value in found]
    if surface.mesh.weights is not None:
        weights = surface.mesh.weights.index_select(0, triangle)
        found = list((torch.stack(found, dim=1)[:, :, None] * weights).sum(dim=1).unbind(1))
    return Shown(pixel, triangle, [value.to(dtype) for value in found], depth)
