"""Split triangles into spans: runs of pixels in one row that the triangle can cover."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from torch_rasterizer.triangles import Triangles

#: Maximum width of a piece of a span in pixels. Pieces of equal width are drawn together.
PIECE_WIDTH = 16


@dataclass(frozen=True)
class Pieces:
    """Runs of at most PIECE_WIDTH pixels in one row: triangle, row int32 and column float, each [P], ordered by width.

    counts[w]: the number of pieces of width w.
    """

    triangle: torch.Tensor
    row: torch.Tensor
    column: torch.Tensor
    counts: list[int]


def repeat(values: torch.Tensor, counts: torch.Tensor, total: int) -> torch.Tensor:
    """Return values[i] repeated counts[i] times; total is the sum of counts."""
    if values.device.type == "cpu":
        return torch.from_numpy(np.repeat(values.numpy(), counts.numpy()))
    return torch.repeat_interleave(values, counts, output_size=total)


def nonzero(mask: torch.Tensor) -> torch.Tensor:
    """Return the indices where the mask [n] is set; on the CPU NumPy is several times faster than torch."""
    if mask.device.type == "cpu":
        return torch.from_numpy(np.flatnonzero(mask.numpy()))
    return mask.nonzero().squeeze(1)


def _argsort(keys: torch.Tensor) -> torch.Tensor:
    """Return the indices that sort uint8 [n], with a stable sort."""
    if keys.device.type == "cpu":
        return torch.from_numpy(np.argsort(keys.numpy(), kind="stable"))
    return torch.argsort(keys, stable=True)


def cut_into_pieces(triangles: Triangles, chosen: torch.Tensor, rows: torch.Tensor, total: int) -> Pieces:
    """Split the chosen triangles [C], which have rows [C] rows each and total rows together, into pieces."""
    owner = repeat(chosen.to(torch.int32), rows, total)
    offset = torch.cumsum(rows, 0).sub_(rows).sub_(triangles.first_row.index_select(0, chosen)).to(torch.int32)
    row = torch.arange(total, dtype=torch.int32, device=rows.device).sub_(repeat(offset, rows, total))
    bounds = triangles.bounds
    y0, slope1, below1, slope2, above2, slope3, below3, above3, low, high = bounds.index_select(1, owner)
    dy = row.to(bounds.dtype).add_(0.5).sub_(y0)
    left = below1.addcmul_(slope1, dy)
    right = above2.addcmul_(slope2, dy)
    both = slope3.mul_(dy)
    left = torch.maximum(left, below3.add_(both))
    right = torch.minimum(right, above3.add_(both))
    first = torch.maximum(left.ceil_(), low)
    length = torch.minimum(right.floor_(), high).sub_(first).add_(1).clamp_(min=0).to(torch.int32)
    return _make_pieces(owner, row, first, length)


def _make_pieces(owner: torch.Tensor, row: torch.Tensor, column: torch.Tensor, length: torch.Tensor) -> Pieces:
    """Split spans into pieces ordered by width."""
    if len(length) and int(length.max()) > PIECE_WIDTH:
        long, short = nonzero(length > PIECE_WIDTH), nonzero(length <= PIECE_WIDTH)
        parts = _split(*(t.index_select(0, long) for t in (owner, row, column, length)))
        kept = (t.index_select(0, short) for t in (owner, row, column, length))
        owner, row, column, length = (torch.cat(pair) for pair in zip(kept, parts, strict=True))
    narrow = length.to(torch.uint8)
    counts = torch.bincount(narrow, minlength=PIECE_WIDTH + 1).tolist()
    by_width = _argsort(narrow)[counts[0] :]
    owner, row, column = (t.index_select(0, by_width) for t in (owner, row, column))
    return Pieces(owner, row, column, [0, *counts[1:]])


def _split(
    owner: torch.Tensor, row: torch.Tensor, column: torch.Tensor, length: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """Split spans into pieces of equal width.

    Pieces of one span may overlap by a few pixels, which does not change the depth minimum.
    """
    number = (length + (PIECE_WIDTH - 1)) // PIECE_WIDTH
    total = int(number.sum())
    width = (length + number - 1) // number
    start = torch.cumsum(number, 0).sub_(number).to(torch.int32)
    step = torch.arange(total, dtype=torch.int32, device=length.device).sub_(repeat(start, number, total))
    owner, row, column, length, width = (repeat(t, number, total) for t in (owner, row, column, length, width))
    return owner, row, column + torch.minimum(step * width, length - width), width
