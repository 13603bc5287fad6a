"""Draw the pieces of triangle rows into a depth buffer."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from torch_rasterizer import coverage, spans
from torch_rasterizer.convention import Convention
from torch_rasterizer.depth import NOT_DRAWN, DepthBuffer
from torch_rasterizer.triangles import Triangles, Window


@dataclass(frozen=True)
class Budget:
    """The amount of work per step: triangles, rows of triangles, fragments.

    A CPU step fits into its cache; a step on other devices is large enough to occupy them.
    """

    triangles: int
    rows: int
    fragments: int


#: The smallest float32 above 0.
_SMALLEST = 2.0**-149

CPU_BUDGET = Budget(1 << 15, 1 << 17, 1 << 16)
GPU_BUDGET = Budget(1 << 20, 1 << 21, 1 << 23)


@dataclass(frozen=True)
class Target:
    """A depth buffer and its window.

    threshold: float [pixels]; samples with a smaller depth are not drawn, None stands for 0.
    has_float64: whether the device supports float64.
    """

    buffer: DepthBuffer
    window: Window
    threshold: torch.Tensor | None
    has_float64: bool


def draw(triangles: Triangles, numbers: torch.Tensor, target: Target, convention: Convention, budget: Budget) -> None:
    """Draw all triangles; numbers int64 [T] are the values that the depth buffer stores for them."""
    chosen = spans.nonzero(triangles.rows > 0)
    if not len(chosen):
        return
    rows = triangles.rows.index_select(0, chosen)
    ends = torch.cumsum(rows, 0)
    total, start, before = int(ends[-1]), 0, 0
    while before < total:
        # Take triangles until they have budget.rows rows together, but at least one.
        end = max(int(torch.searchsorted(ends, before + budget.rows, right=True)), start + 1)
        after = int(ends[end - 1])
        pieces = spans.cut_into_pieces(triangles, chosen[start:end], rows[start:end], after - before)
        _draw_pieces(pieces, triangles, numbers, target, convention, budget)
        start, before = end, after


def _draw_pieces(
    pieces: spans.Pieces,
    triangles: Triangles,
    numbers: torch.Tensor,
    target: Target,
    convention: Convention,
    budget: Budget,
) -> None:
    start = 0
    for width, count in enumerate(pieces.counts):
        size = max(1, budget.fragments // max(width, 1))
        for first in range(start, start + count, size):
            last = min(first + size, start + count)
            _draw_block(pieces, slice(first, last), width, triangles, numbers, target, convention)
        start += count


def _draw_block(
    pieces: spans.Pieces,
    part: slice,
    width: int,
    triangles: Triangles,
    numbers: torch.Tensor,
    target: Target,
    convention: Convention,
) -> None:
    """Draw pieces of one width; their fragments have the shape [width, n]."""
    triangle, row, column = pieces.triangle[part], pieces.row[part], pieces.column[part]
    window = target.window
    base = (row - window.top).to(torch.int64).mul_(window.width).add_(column.to(torch.int64)).sub_(window.left)
    pixel = base + torch.arange(width, device=row.device)[:, None]
    threshold = None if target.threshold is None else target.threshold.take(pixel)
    depth = _shade(triangles.values.index_select(1, triangle), row, column, width, threshold, target, convention)
    target.buffer.draw(pixel, depth, numbers.index_select(0, triangle))


def _shade(
    values: torch.Tensor,
    row: torch.Tensor,
    column: torch.Tensor,
    width: int,
    threshold: torch.Tensor | None,
    target: Target,
    convention: Convention,
) -> torch.Tensor:
    """Return the quantized depths [width, n] of samples from (row, column) [n] on, for triangle values [R, n]."""
    x0, y0, z0, z1, z2, *shape = values.unbind(0)
    step = torch.arange(width, device=column.device)[:, None]
    dx = (column + (step + 0.5)).sub_(x0)
    dy = row.to(dx.dtype).add_(0.5).sub_(y0)
    if convention.exact:
        found = coverage.sample_exact(dx, dy, shape)
    else:
        found = coverage.sample_rounded(dx, dy, shape, has_float64=target.has_float64)
    depth = found.alpha.mul_(z0).add_(found.beta.mul_(z1)).add_(found.gamma.mul_(z2))
    inside = torch.minimum(found.inside, depth if threshold is None else depth - threshold)
    return _quantize(depth, inside, convention.depth_bits)


def _quantize(depth: torch.Tensor, inside: torch.Tensor, bits: int) -> torch.Tensor:
    """Return depth * 2**bits where inside >= 0, and NOT_DRAWN elsewhere, for depths that are too large, and for NaN.

    This uses arithmetic because masks are not vectorized on CPUs: it adds 0 inside and more than 2 * NOT_DRAWN outside.
    """
    outside = torch.nn.functional.threshold(inside, -_SMALLEST, -4 * NOT_DRAWN).clamp_(max=0.0)
    fixed = depth.mul_(float(1 << bits)).clamp_(min=-NOT_DRAWN).sub_(outside)
    return fixed.nan_to_num_(nan=NOT_DRAWN).clamp_(max=NOT_DRAWN)
