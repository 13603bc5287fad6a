"""Cuts triangles into spans: runs of pixels of one row that the triangle can cover."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from torch_rasterizer.triangles import Triangles

#: Spans are cut into pieces of at most this many pixels; those of one width are drawn together.
PIECE = 16


@dataclass(frozen=True)
class Pieces:
    """Runs of at most PIECE pixels of one row: triangle, row int32 and column float <P>, ordered by width.

    counts[w]: how many are of width w.
    """

    triangle: torch.Tensor
    row: torch.Tensor
    column: torch.Tensor
    counts: list[int]


def repeat(values: torch.Tensor, counts: torch.Tensor, total: int) -> torch.Tensor:
    """values[i], counts[i] times; total is the sum of counts."""
    if values.device.type == "cpu":
        return torch.from_numpy(np.repeat(values.numpy(), counts.numpy()))
    return torch.repeat_interleave(values, counts, output_size=total)


def nonzero(mask: torch.Tensor) -> torch.Tensor:
    """Indices where the mask <n> is set; NumPy's is several times as fast on the CPU."""
    if mask.device.type == "cpu":
        return torch.from_numpy(np.flatnonzero(mask.numpy()))
    return mask.nonzero().squeeze(1)


def _order(keys: torch.Tensor) -> torch.Tensor:
    """Indices that sort uint8 <n>."""
    if keys.device.type == "cpu":
        return torch.from_numpy(np.argsort(keys.numpy(), kind="stable"))
    return torch.argsort(keys, stable=True)


def cut(triangles: Triangles, chosen: torch.Tensor, rows: torch.Tensor, total: int) -> Pieces:
    """Cut the chosen triangles <C> with rows <C> each, total together, into pieces."""
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
    return _pieces(owner, row, first, length)


def _pieces(owner: torch.Tensor, row: torch.Tensor, column: torch.Tensor, length: torch.Tensor) -> Pieces:
    """Spans into pieces, ordered by width."""
    if len(length) and int(length.max()) > PIECE:
        long, short = nonzero(length > PIECE), nonzero(length <= PIECE)
        parts = _split(*(t.index_select(0, long) for t in (owner, row, column, length)))
        kept = (t.index_select(0, short) for t in (owner, row, column, length))
        owner, row, column, length = (torch.cat(pair) for pair in zip(kept, parts, strict=True))
    narrow = length.to(torch.uint8)
    counts = torch.bincount(narrow, minlength=PIECE + 1).tolist()
    by_width = _order(narrow)[counts[0] :]
    owner, row, column = (t.index_select(0, by_width) for t in (owner, row, column))
    return Pieces(owner, row, column, [0, *counts[1:]])


def _split(
    owner: torch.Tensor, row: torch.Tensor, column: torch.Tensor, length: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """Spans into pieces of equal width; those of one span may overlap by a few pixels, which changes no minimum."""
    number = (length + (PIECE - 1)) // PIECE
    total = int(number.sum())
    width = (length + number - 1) // number
    start = torch.cumsum(number, 0).sub_(number).to(torch.int32)
    step = torch.arange(total, dtype=torch.int32, device=length.device).sub_(repeat(start, number, total))
    owner, row, column, length, width = (repeat(t, number, total) for t in (owner, row, column, length, width))
    return owner, row, column + torch.minimum(step * width, length - width), width
