"""The light on a block's face, as the WebGPU shader computes it: a sun, and a sky that is brighter above than below.

light = 0.55 mix(horizon, sky, clamp(n.y / 2 + 1/2, 0, 1)) + max(n . L, 0) sun. A pixel is colour * light, clamped to
[0, 1] and rounded to eight bits. Normals are parallel to the axes, so there are only six different lights.
"""

from __future__ import annotations

from typing import Any

import torch

# Normals of the faces east, west, top, bottom, south, north.
NORMALS = ((1.0, 0.0, 0.0), (-1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, 1.0), (0.0, 0.0, -1.0))
SUN_DIRECTION = (0.4, 0.85, 0.5)
SUN = (1.0, 0.97, 0.9)
SKY = (0.53, 0.81, 0.92)
HORIZON = (0.18, 0.16, 0.12)
AMBIENT = 0.55


class TerrainShader:
    """Shades colours according to normals.

    Args:
        device: the device of the constants.
        dtype: the dtype of the constants and of the results.
    """

    def __init__(self, device: torch.device | str | None = None, dtype: torch.dtype = torch.float32) -> None:
        self.device, self.dtype = device, dtype

    def light(self, normals: torch.Tensor) -> torch.Tensor:
        """Return the light [..., 3] on surfaces with unit normals [..., 3]."""
        n = normals.double()
        toward = torch.tensor(SUN_DIRECTION, dtype=torch.float64, device=n.device)
        up = (0.5 * n[..., 1:2] + 0.5).clamp(0, 1)
        horizon, sky, sun = (torch.tensor(rgb, dtype=torch.float64, device=n.device) for rgb in (HORIZON, SKY, SUN))
        ambient = AMBIENT * (horizon * (1 - up) + sky * up)
        direct = (n @ (toward / toward.norm())).clamp(min=0)[..., None] * sun
        return (ambient + direct).to(device=self.device, dtype=self.dtype)

    def side_lights(self) -> torch.Tensor:
        """Return the light [6, 3] on the six sides of a block."""
        return self.light(torch.tensor(NORMALS, dtype=torch.float64, device=self.device))

    def shade(self, colors: torch.Tensor, normals: torch.Tensor, *, quantize: bool = True) -> torch.Tensor:
        """Return lit colours [..., 3] in [0, 1]; the gradient passes through clamping and rounding unchanged."""
        return as_unorm8(colors * self.light(normals), quantize=quantize)

    def sky(self) -> torch.Tensor:
        """Return the colour [3] of the sky."""
        return as_unorm8(torch.tensor(SKY, device=self.device, dtype=self.dtype))


def composite_over_sky(rgb: torch.Tensor, coverage: torch.Tensor, sky: torch.Tensor) -> torch.Tensor:
    """Blend ``rgb`` [..., 3, H, W] over the colour ``sky`` [3]; ``coverage`` [..., 1, H, W] is the weight of rgb."""
    return rgb * coverage + sky[:, None, None] * (1 - coverage)


def as_unorm8(values: torch.Tensor, *, quantize: bool = True) -> torch.Tensor:
    """Return ``values`` clamped to [0, 1] and, with ``quantize``, rounded to k/255 as a target with eight bits does.

    The gradient is that of the identity, so that clamped colours can still be learned. Multiplying a result by 255 and
    truncating it, as many picture writers do, gives k.
    """
    result: torch.Tensor = _Unorm8.apply(values, quantize)
    return result


class _Unorm8(torch.autograd.Function):
    @staticmethod
    def forward(_context: Any, values: torch.Tensor, quantize: bool) -> torch.Tensor:
        clamped = values.clamp(0, 1)
        return (clamped * 255).round_().div_(255) if quantize else clamped

    @staticmethod
    def backward(_context: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradients[0], None
