"""texture_construct_mip(): each mip level is the 2x2 box average of the previous one."""

from __future__ import annotations

from typing import Any

from .arrays import Array, as_float


def construct_mip(tex: Any, max_mip_level: int | None = None) -> list[Array]:
    """Return the texture [..., H, W, C] and its mip levels, down to 1x1 or to max_mip_level.

    Raises:
        ValueError: if the height or width of a level is odd and greater than 1.
    """
    levels = [as_float(tex)]
    while max(levels[-1].shape[-3:-1]) > 1 and (max_mip_level is None or len(levels) <= max_mip_level):
        levels.append(_halve(levels[-1]))
    return levels


def _halve(level: Array) -> Array:
    height, width = level.shape[-3:-1]
    if any(extent > 1 and extent % 2 for extent in (height, width)):
        raise ValueError(f"a mip level of {height}x{width} texels cannot be halved: an odd size greater than 1")
    if height > 1:
        level = (level[..., 0::2, :, :] + level[..., 1::2, :, :]) / 2
    if width > 1:
        level = (level[..., 0::2, :] + level[..., 1::2, :]) / 2
    return level


def sum_levels(grad_levels: list[Array]) -> Array:
    """Return the gradient by the texture from the gradients by each of its levels; the transpose of construct_mip()."""
    total = grad_levels[-1]
    for larger in reversed(grad_levels[:-1]):
        for axis in (-3, -2):
            if larger.shape[axis] > 1:
                total = total.repeat(2, axis=axis) / 2
        total = larger + total
    return total
