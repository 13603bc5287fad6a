"""What decides which triangle a pixel shows: our own rasterizer, which equals WebGPU's, or nvdiffrast."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol

import torch
from torch_rasterizer import core
from torch_rasterizer.convention import SWIFTSHADER, WEBGPU

NAMES = ("auto", "torch", "nvdiffrast")


class Backend(Protocol):
    """A rasterizer of triangles that face the camera, with WebGPU's viewport, clipping and depth test."""

    name: str

    def rasterize(
        self, clip: torch.Tensor, triangles: torch.Tensor, size: tuple[int, int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The triangle that each pixel shows.

        Args:
            clip: positions <B,N,4>, drawn where 0 <= z <= w.
            triangles: int32 <M,3>, counter-clockwise is the front; clockwise ones are not drawn.
            size: height and width; row 0 is the top.

        Returns:
            The triangles' numbers + 1, int <B,H,W>, 0 for none, and z/w float32 <B,H,W>, 1 for none.
        """
        ...


class TorchBackend:
    """Our own, in plain torch, on any device.

    ``subpixel_bits``: of the grid that corners are snapped to; 8 is what GPUs and lavapipe have, 4 SwiftShader.
    """

    name = "torch"

    def __init__(self, subpixel_bits: int = 8) -> None:
        # SwiftShader has no guard band: it cuts triangles at the sides of the view, too.
        named = SWIFTSHADER if subpixel_bits == SWIFTSHADER.subpixel_bits else WEBGPU
        self.convention = replace(named, subpixel_bits=subpixel_bits)

    def rasterize(
        self, clip: torch.Tensor, triangles: torch.Tensor, size: tuple[int, int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See Backend."""
        ids, _, depth = core.rasterize(clip, triangles, size, self.convention)
        return ids, torch.where(ids > 0, depth, 1.0)


class NvdiffrastBackend:
    """nvdiffrast's CUDA rasterizer: fast, but it snaps corners to 1/16 pixel, so some edges differ by a pixel."""

    name = "nvdiffrast"

    def __init__(self, device: torch.device) -> None:
        self.dr = _nvdiffrast()
        self.context = self.dr.RasterizeCudaContext(device=device)

    def rasterize(
        self, clip: torch.Tensor, triangles: torch.Tensor, size: tuple[int, int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See Backend. nvdiffrast draws both sides, so the clockwise triangles are taken out here."""
        results = [self._one(each, triangles, size) for each in clip]
        return torch.stack([ids for ids, _ in results]), torch.stack([depth for _, depth in results])

    def _one(
        self, clip: torch.Tensor, triangles: torch.Tensor, size: tuple[int, int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        # The determinant of (x, y, w) tells the winding even where w is negative.
        corners = clip[:, [0, 1, 3]].double()[triangles.long()]
        front = (torch.linalg.det(corners) > 0).nonzero().squeeze(1)
        if not len(front):
            return clip.new_zeros(size, dtype=torch.int64), clip.new_ones(size)
        x, y, z, w = clip.unbind(-1)
        # Its depths are in [-1, 1], its row 0 is the bottom.
        moved = torch.stack([x, y, 2 * z - w, w], dim=-1).contiguous()
        out, _ = self.dr.rasterize(self.context, moved[None], triangles[front].contiguous(), size, grad_db=False)
        out = out[0].flip(0)
        drawn = _triangle_ids(out[..., 3])
        ids = torch.where(drawn > 0, front[(drawn - 1).clamp(min=0)] + 1, 0)
        return ids, torch.where(drawn > 0, (out[..., 2] + 1) / 2, 1.0)


def create(name: str, device: torch.device) -> Backend:
    """The backend of that name; "auto" is "torch", which is exact.

    Raises:
        ValueError: there is no backend of that name, or it cannot run on the device.
        ImportError: nvdiffrast is asked for and not installed, or does not load.
    """
    if name not in NAMES:
        raise ValueError(f"backend is {name!r}: expected one of {', '.join(NAMES)}")
    if name != "nvdiffrast":
        return TorchBackend()
    if device.type != "cuda":
        raise ValueError(f"backend nvdiffrast needs a CUDA device, found {device}: use backend='torch'")
    return NvdiffrastBackend(device)


def _nvdiffrast() -> Any:
    import nvdiffrast.torch as dr  # noqa: PLC0415 - only where it is asked for

    return dr


def _triangle_ids(values: torch.Tensor) -> torch.Tensor:
    """The numbers that nvdiffrast wrote as floats; above 2^24 the float has the bits 0x4A800000 + number."""
    bits = values.contiguous().view(torch.int32) - 0x4A800000
    return torch.where(values <= 2.0**24, values.long(), bits.long())
