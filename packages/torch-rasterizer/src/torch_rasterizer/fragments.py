"""Draws the pieces of triangles' rows into a depth buffer."""

from __future__ import annotations

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

CACHE = Budget(1 << 15, 1 << 16, 1 << 16)
DEVICE = Budget(1 << 20, 1 << 21, 1 << 23)


@dataclass(frozen=True)
class Target:
    """A depth buffer and its window; threshold <pixels>: samples of less depth are not drawn (None: less than 0).

    doubles: whether the device has float64.
    """

    buffer: DepthBuffer
    window: Window
    threshold: torch.Tensor | None
    doubles: bool


def draw(
    triangles: Triangles, numbers: torch.Tensor, target: Target, convention: Convention, budget: Budget
) -> None:
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
    x0, y0, *values = triangles.values.index_select(1, triangle)
    z, values = values[:3], values[3:]
    step = torch.arange(width, device=column.device)[:, None]
    dx = (column + (step + 0.5)).sub_(x0)
    dy = row.to(dx.dtype).add_(0.5).sub_(y0)
    if convention.exact:
        found = coverage.exact(dx, dy, values)
    else:
        found = coverage.rounded(dx, dy, values, doubles=target.doubles)
    depth = found.alpha.mul_(z[0]).add_(found.beta.mul_(z[1])).add_(found.gamma.mul_(z[2]))
    pixel = (row - window.top).to(torch.int64).mul_(window.width).add_(column.to(torch.int64)).sub_(window.left) + step
    above = depth if target.threshold is None else depth - target.threshold.take(pixel)
    inside = torch.minimum(found.inside, above, out=found.inside)
    target.buffer.draw(pixel, _fixed(depth, inside, convention.depth_bits), numbers.index_select(0, triangle))


def _fixed(depth: torch.Tensor, inside: torch.Tensor, bits: int) -> torch.Tensor:
    """depth * 2**bits where inside is not negative, else NOTHING, as for depths that are too large, and NaN.

    Arithmetic, since masks are not vectorized on CPUs: 0 is added inside, more than twice NOTHING outside.
    """
    outside = torch.nn.functional.threshold(inside, -_SMALLEST, -4 * NOTHING).clamp_(max=0.0)
    fixed = depth.mul_(float(1 << bits)).clamp_(min=-NOTHING).sub_(outside)
    return fixed.nan_to_num_(nan=NOTHING).clamp_(max=NOTHING)
