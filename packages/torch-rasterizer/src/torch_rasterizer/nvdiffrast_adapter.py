"""nvdiffrast with the interface of custom_rasterizer: the same sample points, face ids and barycentrics.

Differences remain: nvdiffrast clips at the near plane, the far plane and w = 0, assigns a pixel on a shared edge to one
triangle (top-left rule), compares depth with a higher resolution, and has no depth prior.
"""

from __future__ import annotations

from typing import Any

import torch

from torch_rasterizer.rasterizer import PyTorchRasterizer
from torch_rasterizer.validation import check_rasterize

# Ids above 2^24 are not exact in float32: nvdiffrast 0.3.2 and later returns the float with the bits _BASE + id.
_PLAIN = 2**24
_BASE = 0x4A800000


def face_ids(channel: torch.Tensor) -> torch.Tensor:
    """Return the face ids int32 in the fourth channel float32 of nvdiffrast's output; any shape, 0 is background."""
    channel = channel.detach().contiguous()
    encoded = channel.view(torch.int32) - _BASE
    return torch.where(channel > _PLAIN, encoded, channel.clamp(max=_PLAIN).to(torch.int32))


def onto_samples(pos: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Scale clip coordinates [..., 4] of custom_rasterizer for nvdiffrast.

    NDC -1 and +1 are the centres of the border pixels in custom_rasterizer and their outer edges in nvdiffrast.
    Therefore x is scaled by (width-1)/width and y by (height-1)/height.
    """
    scale = [(width - 1) / width, (height - 1) / height, 1.0, 1.0]
    return pos * pos.new_tensor(scale)


class NvdiffrastRasterizer:
    """rasterize and interpolate with the interface of custom_rasterizer, drawn by nvdiffrast.

    dr: the module nvdiffrast.torch. device: the device of the tensors.
    If nvdiffrast cannot create a context, its exception is raised unchanged.
    """

    def __init__(self, dr: Any, device: torch.device) -> None:
        self._dr = dr
        self._context = dr.RasterizeCudaContext(device=device)
        self._device = device
        self._torch = PyTorchRasterizer(device)

    def rasterize(
        self,
        pos: torch.Tensor,
        tri: torch.Tensor,
        resolution: tuple[int, int],
        clamp_depth: torch.Tensor,
        use_depth_prior: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return face ids int32 [H, W] (face + 1, 0 for background) and barycentrics [H, W, 3].

        pos: float32 [1, N, 4]. tri: int32 [M, 3]. resolution: (H, W). The barycentrics are differentiable with respect
        to pos. Raise ValueError for an active depth prior.
        """
        check_rasterize(pos, tri, resolution, self._device)
        if use_depth_prior and clamp_depth.numel():
            raise ValueError(
                "use_depth_prior: nvdiffrast has no depth prior: expected 0 or an empty clamp_depth, "
                f"found {use_depth_prior} and {clamp_depth.numel()} depths; use backend='pytorch'"
            )
        height, width = resolution
        if not tri.shape[0]:
            ids = torch.zeros(height, width, dtype=torch.int32, device=pos.device)
            return ids, torch.zeros(height, width, 3, device=pos.device)
        clip = onto_samples(pos[:1], height, width).contiguous()
        drawn, _ = self._dr.rasterize(self._context, clip, tri.contiguous(), (height, width), grad_db=False)
        ids = face_ids(drawn[0, ..., 3])
        u, v = drawn[0, ..., 0], drawn[0, ..., 1]
        barycentric = torch.stack([u, v, 1 - u - v], dim=-1)
        return ids, barycentric * (ids > 0)[..., None]

    def interpolate(
        self, col: torch.Tensor, findices: torch.Tensor, barycentric: torch.Tensor, tri: torch.Tensor
    ) -> torch.Tensor:
        """Return attributes [1, N, C] at the pixels, [1, H, W, C]; see PyTorchRasterizer.interpolate."""
        return self._torch.interpolate(col, findices, barycentric, tri)
