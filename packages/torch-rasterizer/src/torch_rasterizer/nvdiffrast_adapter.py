"""nvdiffrast behind custom_rasterizer's calls: the same sample points, face ids and barycentrics.

Not the same everywhere: nvdiffrast clips at the near and the far plane and at w = 0, gives a pixel on an edge to one of
its two triangles by the top-left rule, and decides depth more finely; it has no depth prior.
"""

from __future__ import annotations

from typing import Any

import torch

from torch_rasterizer.foreign_arguments import check_rasterize
from torch_rasterizer.rasterizer import PyTorchRasterizer

# Ids above 2^24 are no longer exact as float32: nvdiffrast (0.3.2 and later) returns the float with the bits BASE + id.
_PLAIN = 2**24
_BASE = 0x4A800000


def face_ids(channel: torch.Tensor) -> torch.Tensor:
    """The face ids int32 of the fourth channel float32 of nvdiffrast's rasterize, any shape; 0 is background."""
    channel = channel.detach().contiguous()
    encoded = channel.view(torch.int32) - _BASE
    return torch.where(channel > _PLAIN, encoded, channel.clamp(max=_PLAIN).to(torch.int32))


def onto_samples(pos: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Clip coordinates <...,4> for nvdiffrast, whose -1 and +1 are the outer edges of the border pixels.

    custom_rasterizer's are the centres of those pixels: so x shrinks by (width-1)/width, y by (height-1)/height.
    """
    scale = [(width - 1) / width, (height - 1) / height, 1.0, 1.0]
    return pos * pos.new_tensor(scale)


class NvdiffrastRasterizer:
    """rasterize and interpolate as custom_rasterizer has them, drawn by nvdiffrast.

    dr: nvdiffrast.torch; device: where its tensors are. Raises what nvdiffrast raises where it has no context.
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
        """pos float32 <1,N,4>, tri int32 <M,3>, resolution (H, W): face ids int32 <H,W> and barycentrics <H,W,3>.

        Barycentrics have gradients with respect to pos. Raises ValueError for an active depth prior.
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
        """As PyTorchRasterizer.interpolate: attributes <1,N,C> at the pixels, <1,H,W,C>."""
        return self._torch.interpolate(col, findices, barycentric, tri)
