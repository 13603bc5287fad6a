"""rasterize and interpolate, as callers of the original call them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch_rasterizer import PyTorchRasterizer
from torch_rasterizer.validation import check_tensor

_NO_PRIOR = torch.zeros(0)


def rasterize(
    pos: torch.Tensor,
    tri: torch.Tensor,
    resolution: Sequence[int],
    clamp_depth: torch.Tensor = _NO_PRIOR,
    use_depth_prior: int = 0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Which face each pixel shows, and where on it.

    Args:
        pos: clip-space positions float32 <1,N,4>.
        tri: faces int32 <M,3>.
        resolution: height and width.
        clamp_depth: a depth a pixel, float32 <H*W> or <H,W>; only what lies behind it is drawn, if use_depth_prior.
        use_depth_prior: 0 or 1.

    Returns:
        faces + 1 int32 <H,W>, 0 for none, and perspective-correct barycentrics float32 <H,W,3>.

    Raises:
        TypeError, ValueError: an argument is not what is said here.
    """
    check_tensor("pos", pos, "<1,N,4>", (torch.float32,))
    return PyTorchRasterizer(device=pos.device).rasterize(pos, tri, resolution, clamp_depth, use_depth_prior)


def interpolate(
    col: torch.Tensor, findices: torch.Tensor, barycentric: torch.Tensor, tri: torch.Tensor
) -> torch.Tensor:
    """Attributes <1,N,C> at every pixel, <1,H,W,C>; 0 where there is no face. findices may be float32.

    Raises:
        TypeError, ValueError: an argument is not what rasterize gave or was given.
    """
    return PyTorchRasterizer(device=col.device).interpolate(col, findices, barycentric, tri)
