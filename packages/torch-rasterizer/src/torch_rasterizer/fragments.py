"""Draws the pieces of triangles' rows into a depth buffer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from torch_rasterizer import coverage, spans
from torch_rasterizer.convention import Convention
from torch_rasterizer.depth import NOTHING, DepthBuffer
from torch_rasterizer.triangles import Triangles, Window


@dataclass(frozen=True)
class Budget:
    """How much is worked on at a time: triangles, rows of triangles, fragments.

    On a CPU as much as its cache holds, on other devices enough to fill them.
    """

    triangles: int
    rows: int
    fragments: int


#: The least number above 0 in float32.
_SMALLEST = 2.0**-149

CACHE = Budget(1 << 15, 1 << 17, 1 << 16)
DEVICE = Budget(1 << 20, 1 << 21, 1 << 23)


@dataclass(frozen=True)
class Target:
    """A depth buffer and its window; threshold <pixels>: samples of less depth are not drawn (None: less than 0).

    shade: the function of that name, or what torch.compile made of it.
    """

    buffer: DepthBuffer
    window: Window
    threshold: torch.Tensor | None
    shade: Callable[..., torch.Tensor]


def draw(triangles: Triangles, numbers: torch.Tensor, target: Target, convention: Convention, budget: Budget) -> None:
    """Draw all triangles; numbers <T> int64: what the depth buffer calls them."""
    chosen = spans.nonzero(triangles.rows > 0)
    if not len(chosen):
        return
    rows = triangles.rows.index_select(0, chosen)
    ends = torch.cumsum(rows, 0)
    total, start, before = int(ends[-1]), 0, 0
    while before < total:
        # As many triangles as have budget.rows rows together, one at the least.
        end = max(int(torch.searchsorted(ends, before + budget.rows, right=True)), start + 1)
        after = int(ends[end - 1])
        pieces = spans.cut(triangles, chosen[start:end], rows[start:end], after - before)
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
    """Pieces of one width: their fragments are <width,n>."""
    triangle, row, column = pieces.triangle[part], pieces.row[part], pieces.column[part]
    window = target.window
    base = (row - window.top).to(torch.int64).mul_(window.width).add_(column.to(torch.int64)).sub_(window.left)
    pixel = base + torch.arange(width, device=row.device)[:, None]
    threshold = None if target.threshold is None else target.threshold.take(pixel)
    depth = target.shade(triangles.values.index_select(1, triangle), row, column, width, threshold, convention)
    target.buffer.draw(pixel, depth, numbers.index_select(0, triangle))


def shade(
    values: torch.Tensor,
    row: torch.Tensor,
    column: torch.Tensor,
    width: int,
    threshold: torch.Tensor | None,
    convention: Convention,
    *,
    doubles: bool,
) -> torch.Tensor:
    """Depths to compare <width,n> of the samples from (row, column) <n> on, of triangles with the values <R,n>."""
    x0, y0, z0, z1, z2, *shape = values.unbind(0)
    step = torch.arange(width, device=column.device)[:, None]
    dx = (column + (step + 0.5)).sub_(x0)
    dy = row.to(dx.dtype).add_(0.5).sub_(y0)
    found = coverage.exact(dx, dy, shape) if convention.exact else coverage.rounded(dx, dy, shape, doubles=doubles)
    depth = found.alpha.mul_(z0).add_(found.beta.mul_(z1)).add_(found.gamma.mul_(z2))
    inside = torch.minimum(found.inside, depth if threshold is None else depth - threshold)
    return _fixed(depth, inside, convention.depth_bits)


def _fixed(depth: torch.Tensor, inside: torch.Tensor, bits: int) -> torch.Tensor:
    """depth * 2**bits where inside is not negative, else NOTHING, as for depths that are too large, and NaN.

    Arithmetic, since masks are not vectorized on CPUs: 0 is added inside, more than twice NOTHING outside.
    """
    outside = torch.nn.functional.threshold(inside, -_SMALLEST, -4 * NOTHING).clamp_(max=0.0)
    fixed = depth.mul_(float(1 << bits)).clamp_(min=-NOTHING).sub_(outside)
    return fixed.nan_to_num_(nan=NOTHING).clamp_(max=NOTHING)
