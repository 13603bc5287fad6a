"""rasterize and interpolate with the signatures of the original."""

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
    """Return the face of each pixel and its barycentrics.

    Args:
        pos: clip-space positions float32 [1, N, 4].
        tri: faces int32 [M, 3].
        resolution: height and width.
        clamp_depth: depth prior float32 [H*W] or [H, W]; with use_depth_prior only samples behind it are drawn.
        use_depth_prior: 0 or 1.

    Returns:
        face + 1 int32 [H, W], 0 for background, and perspective-correct barycentrics float32 [H, W, 3].

    Raises:
        TypeError, ValueError: if an argument does not match the description above.
    """
    check_tensor("pos", pos, "[1, N, 4]", (torch.float32,))
    return PyTorchRasterizer(device=pos.device).rasterize(pos, tri, resolution, clamp_depth, use_depth_prior)


def interpolate(
    col: torch.Tensor, findices: torch.Tensor, barycentric: torch.Tensor, tri: torch.Tensor
) -> torch.Tensor:
    """Return attributes [1, N, C] at every pixel, [1, H, W, C], 0 in the background; findices may be float32.

    Raises:
        TypeError, ValueError: if an argument does not match the arguments or results of rasterize.
    """
    return PyTorchRasterizer(device=col.device).interpolate(col, findices, barycentric, tri)
