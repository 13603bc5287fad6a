"""Rasterizer backends: torch_rasterizer, whose pixels equal those of WebGPU, or nvdiffrast."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol

import torch
from torch_rasterizer import core
from torch_rasterizer.convention import SWIFTSHADER, WEBGPU

NAMES = ("auto", "torch", "nvdiffrast")


class Backend(Protocol):
    """A rasterizer of front faces with the viewport, clipping and depth test of WebGPU."""

    name: str

    def rasterize(
        self, clip: torch.Tensor, triangles: torch.Tensor, size: tuple[int, int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the triangle that each pixel shows.

        Args:
            clip: positions [B, N, 4], visible where 0 <= z <= w.
            triangles: int32 [M, 3]; counter-clockwise triangles are drawn, clockwise ones are culled.
            size: height and width; row 0 is the top.

        Returns:
            Triangle + 1, int [B, H, W], 0 for background, and z/w float32 [B, H, W], 1 for background.
        """
        ...


class TorchBackend:
    """The rasterizer of torch_rasterizer, in plain torch, on any device.

    ``subpixel_bits``: vertices are snapped to 1/2**subpixel_bits pixel; GPUs and lavapipe use 8, SwiftShader uses 4.
    """

    name = "torch"

    def __init__(self, subpixel_bits: int = 8) -> None:
        # SwiftShader has no guard band: it also clips triangles at the sides of the view.
        base = SWIFTSHADER if subpixel_bits == SWIFTSHADER.subpixel_bits else WEBGPU
        self.convention = replace(base, subpixel_bits=subpixel_bits)

    def rasterize(
        self, clip: torch.Tensor, triangles: torch.Tensor, size: tuple[int, int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Implement Backend.rasterize."""
        ids, _, depth = core.rasterize(clip, triangles, size, self.convention)
        return ids, torch.where(ids > 0, depth, 1.0)


class NvdiffrastBackend:
    """nvdiffrast's CUDA rasterizer: faster, but it snaps vertices to 1/16 pixel, which changes pixels on some edges."""

    name = "nvdiffrast"

    def __init__(self, device: torch.device) -> None:
        self.dr = _import_nvdiffrast()
        self.context = self.dr.RasterizeCudaContext(device=device)

    def rasterize(
        self, clip: torch.Tensor, triangles: torch.Tensor, size: tuple[int, int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Implement Backend.rasterize. nvdiffrast draws both sides, so clockwise triangles are removed first."""
        results = [self._rasterize_one(each, triangles, size) for each in clip]
        return torch.stack([ids for ids, _ in results]), torch.stack([depth for _, depth in results])

    def _rasterize_one(
        self, clip: torch.Tensor, triangles: torch.Tensor, size: tuple[int, int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        # The sign of the determinant of (x, y, w) is the winding, also for negative w.
        corners = clip[:, [0, 1, 3]].double()[triangles.long()]
        front = (torch.linalg.det(corners) > 0).nonzero().squeeze(1)
        if not len(front):
            return clip.new_zeros(size, dtype=torch.int64), clip.new_ones(size)
        x, y, z, w = clip.unbind(-1)
        # nvdiffrast uses depths in [-1, 1] and has row 0 at the bottom.
        moved = torch.stack([x, y, 2 * z - w, w], dim=-1).contiguous()
        out, _ = self.dr.rasterize(self.context, moved[None], triangles[front].contiguous(), size, grad_db=False)
        out = out[0].flip(0)
        drawn = _triangle_ids(out[..., 3])
        ids = torch.where(drawn > 0, front[(drawn - 1).clamp(min=0)] + 1, 0)
        return ids, torch.where(drawn > 0, (out[..., 2] + 1) / 2, 1.0)


def create(name: str, device: torch.device) -> Backend:
    """Return the backend with this name; "auto" is "torch", which is exact.

    Raises:
        ValueError: if no backend has this name, or it does not run on the device.
        ImportError: if nvdiffrast is selected but is not installed or fails to load.
    """
    if name not in NAMES:
        raise ValueError(f"backend is {name!r}: expected one of {', '.join(NAMES)}")
    if name != "nvdiffrast":
        return TorchBackend()
    if device.type != "cuda":
        raise ValueError(f"backend nvdiffrast needs a CUDA device, found {device}: use backend='torch'")
    return NvdiffrastBackend(device)


def _import_nvdiffrast() -> Any:
    import nvdiffrast.torch as dr  # noqa: PLC0415 - nvdiffrast is optional

    return dr


def _triangle_ids(values: torch.Tensor) -> torch.Tensor:
    """Decode triangle numbers from nvdiffrast's floats; above 2^24 the float has the bits 0x4A800000 + number."""
    bits = values.contiguous().view(torch.int32) - 0x4A800000
    return torch.where(values <= 2.0**24, values.long(), bits.long())
