"""Interpolation of vertex attributes at the pixels."""

from __future__ import annotations

import torch


def interpolate(
    attributes: torch.Tensor, ids: torch.Tensor, barycentrics: torch.Tensor, faces: torch.Tensor
) -> torch.Tensor:
    """Return the interpolated attributes [H, W, C] of a picture, 0 in the background.

    Args:
        attributes: float [N, C], one row per vertex.
        ids: [H, W], face + 1, 0 for background.
        barycentrics: float [H, W, 3].
        faces: int [M, 3].

    The result is differentiable with respect to attributes and barycentrics.
    """
    pixel = (ids.reshape(-1) != 0).nonzero().squeeze(1)
    face = ids.reshape(-1).index_select(0, pixel).to(torch.int64).sub_(1)
    corner = faces.index_select(0, face).to(torch.int64)
    weights = barycentrics.reshape(-1, 3).index_select(0, pixel)
    total = sum(attributes.index_select(0, corner[:, k]) * weights[:, k, None] for k in range(3))
    whole = attributes.new_zeros(ids.numel(), attributes.shape[1])
    return whole.index_copy(0, pixel, torch.as_tensor(total)).reshape(*ids.shape, -1)
