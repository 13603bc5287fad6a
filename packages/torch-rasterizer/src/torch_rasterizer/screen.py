"""Projection from clip space to the screen: viewport, subpixel grid and depth of vertices."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from torch_rasterizer.convention import Convention


@dataclass(frozen=True)
class Screen:
    """Vertices on the screen: x, y in pixels (samples at index + 0.5), z the depth, w as in clip space; each [N]."""

    x: torch.Tensor
    y: torch.Tensor
    z: torch.Tensor
    w: torch.Tensor

    def detach(self) -> Screen:
        """Return a copy without gradients."""
        return Screen(self.x.detach(), self.y.detach(), self.z.detach(), self.w.detach())


def project(positions: torch.Tensor, height: int, width: int, convention: Convention) -> Screen:
    """Project positions [N, 4] float to the screen, with every operation rounded in the order of custom_rasterizer.

    With a subpixel grid x and y are float64, in which edge functions of up to 2**17 pixels are exact.
    """
    x, y, z, w = positions.unbind(-1)
    depth = (z / w) * convention.depth_scale + convention.depth_offset
    if convention.viewport == "pixel_centres":
        return Screen(((x / w) * 0.5 + 0.5) * (width - 1) + 0.5, _down(y, w, height, convention), depth, w)
    across, down = ((x / w) * 0.5 + 0.5) * width, (0.5 - convention.row_zero * 0.5 * (y / w)) * height
    if convention.subpixel_bits is None:
        return Screen(across, down, depth, w)
    grid = float(1 << convention.subpixel_bits)
    return Screen(_snap(across, grid), _snap(down, grid), depth.double(), w.double())


def _down(y: torch.Tensor, w: torch.Tensor, height: int, convention: Convention) -> torch.Tensor:
    up = y if convention.row_zero == -1 else -y
    return (0.5 + (0.5 * up) / w) * (height - 1) + 0.5


def _snap(value: torch.Tensor, grid: float) -> torch.Tensor:
    """Round to the nearest multiple of 1/grid, as float64; the gradient is that of the identity."""
    value = value.double()
    return value + (torch.round(value.detach() * grid) / grid - value.detach())
