"""texture_construct_mip(): each level is the 2x2 box average of the one above it."""

from __future__ import annotations

from typing import Any

from .arrays import Array, numbers


def construct_mip(tex: Any, max_mip_level: int | None = None) -> list[Array]:
    """The levels, the texture itself first, down to 1x1 or max_mip_level; <...,H,W,C>, cube maps too.

    Raises ValueError for a level that cannot be halved: an odd extent greater than 1.
    """
    levels = [numbers(tex)]
    while max(levels[-1].shape[-3:-1]) > 1 and (max_mip_level is None or len(levels) <= max_mip_level):
        levels.append(_halved(levels[-1]))
    return levels


def _halved(level: Array) -> Array:
    height, width = level.shape[-3:-1]
    if any(extent > 1 and extent % 2 for extent in (height, width)):
        raise ValueError(f"a mip level of {height}x{width} texels cannot be halved: an odd extent greater than 1")
    if height > 1:
        level = (level[..., 0::2, :, :] + level[..., 1::2, :, :]) / 2
    if width > 1:
        level = (level[..., 0::2, :] + level[..., 1::2, :]) / 2
    return level


def spread(by_level: list[Array]) -> Array:
    """d loss by the texture from d loss by each of its levels: the transpose of construct_mip()."""
    total = by_level[-1]
    for above in reversed(by_level[:-1]):
        for axis in (-3, -2):
            if above.shape[axis] > 1:
                total = total.repeat(2, axis=axis) / 2
        total = above + total
    return total
