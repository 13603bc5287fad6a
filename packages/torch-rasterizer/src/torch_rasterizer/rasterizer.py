"""PyTorchRasterizer: custom_rasterizer's functions and pixels, without anything compiled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from torch_rasterizer import core, interpolation, memory
from torch_rasterizer.convention import CUSTOM_RASTERIZER
from torch_rasterizer.devices import as_device, best_device
from torch_rasterizer.validation import (
    FLOATS,
    check_count,
    check_device,
    check_faces,
    check_resolution,
    check_size,
    check_tensor,
    shape_of,
)

MODES = ("auto", "tiled", "batched")
#: Where modes are asked for by name and no size is given: pixels a side, triangles.
_TILE, _BATCH = 1024, 1 << 15


class PyTorchRasterizer:
    """Rasterizes as Hunyuan3D's custom_rasterizer does, pixel for pixel, on any device that torch has.

    device: where tensors must be; None takes them where they are, and ``device`` is then the best there is: CUDA or
    ROCm, else MPS, else the CPU.
    mode: 'tiled' bounds memory by tiles of tile_size pixels a side, 'batched' by batch_size triangles at a time, 'auto'
    draws everything at once, in tiles if the free memory calls for it. The pixels are the same in all of them.
    compile: let torch.compile fuse the arithmetic; it takes a C++ compiler and half a minute at the first call.
    emulate_mps: on any device the way that MPS takes, which has neither float64 nor int64 minima.

    Raises:
        ValueError: an unknown mode, a size below 1, a size that the mode has no use for, or an unknown device.
    """

    def __init__(
        self,
        device: torch.device | str | None = None,
        *,
        mode: str = "auto",
        tile_size: int | None = None,
        batch_size: int | None = None,
        compile: bool = False,
        emulate_mps: bool = False,
    ) -> None:
        if mode not in MODES:
            raise ValueError(f"mode: expected one of {', '.join(map(repr, MODES))}, found {mode!r}")
        for name, value, user in (("tile_size", tile_size, "tiled"), ("batch_size", batch_size, "batched")):
            check_count(name, value)
            if value is not None and mode not in (user, "auto"):
                raise ValueError(
                    f"{name}: expected None with mode={mode!r}, since only {user!r} has one, found {value}"
                )
        self._given = None if device is None else as_device(device)
        self.device = self._given or best_device()
        self.mode, self.tile_size, self.batch_size = mode, tile_size, batch_size
        self.compile, self.emulate_mps = compile, emulate_mps

    def __repr__(self) -> str:
        return f"PyTorchRasterizer(device={str(self.device)!r}, mode={self.mode!r})"

    def rasterize_image(
        self,
        V: torch.Tensor,  # noqa: N803 - the original's names, which callers may use
        F: torch.Tensor,  # noqa: N803
        D: torch.Tensor | None,  # noqa: N803
        width: int,
        height: int,
        occlusion_truncation: float = 1e-6,
        use_depth_prior: int = 0,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw triangles.

        A vertex with a NaN, an infinity or w = 0 keeps its triangles from being drawn; a negative w does not: such a
        triangle wraps around, as in the original, which clips nothing. z / w above 16383 is not drawn.

        Args:
            V: clip-space positions <N,4>, float32; float64 computes in float64.
            F: faces int32 <M,3>.
            D: depths z / w, float <H*W> or <H,W>: with use_depth_prior only what lies behind them is drawn; None or
                empty is none.
            width: pixels across.
            height: pixels down.
            occlusion_truncation: how far behind D counts as behind it, in units of depth * 0.49999 + 0.5.
            use_depth_prior: whether D is used.

        Returns:
            Faces + 1 int32 <H,W>, 0 for none; perspective-correct barycentrics <H,W,3>, 0 where there is no face,
            differentiable by V.

        Raises:
            TypeError, ValueError: an argument is not what is said here.
        """
        check_tensor("V", V, "<N,4>", FLOATS)
        check_tensor("F", F, "<M,3>", (torch.int32,))
        size = check_size(width, height)
        device = self._given or V.device
        check_device(device, V=V, F=F)
        check_faces("F", F, len(V))
        threshold = self._threshold(D, V, size, occlusion_truncation, use_depth_prior)
        picture = core.draw(V, F, size, CUSTOM_RASTERIZER, self._limits(size, V.device), threshold)
        return picture.ids, picture.barycentrics

    def rasterize(
        self,
        pos: torch.Tensor,
        tri: torch.Tensor,
        resolution: Sequence[int],
        clamp_depth: torch.Tensor | None = None,
        use_depth_prior: int = 0,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As rasterize_image with an occlusion_truncation of 1e-6.

        Args:
            pos: clip-space positions <B,N,4>.
            tri: faces int32 <M,3>.
            resolution: height and width.
            clamp_depth: D.
            use_depth_prior: whether clamp_depth is used.

        Returns:
            Faces + 1 int32 <H,W> and barycentrics <H,W,3>; <B,H,W> and <B,H,W,3> if B is not 1.

        Raises:
            TypeError, ValueError: an argument is not what is said here.
        """
        check_tensor("pos", pos, "<B,N,4>", FLOATS)
        height, width = check_resolution(resolution)
        drawn = [self.rasterize_image(each, tri, clamp_depth, width, height, 1e-6, use_depth_prior) for each in pos]
        if len(drawn) == 1:
            return drawn[0]
        if not drawn:
            raise ValueError("pos: expected at least one mesh <B,N,4>, found B = 0")
        return torch.stack([ids for ids, _ in drawn]), torch.stack([barycentric for _, barycentric in drawn])

    def interpolate(
        self, col: torch.Tensor, findices: torch.Tensor, barycentric: torch.Tensor, tri: torch.Tensor
    ) -> torch.Tensor:
        """Attributes of vertices at every pixel.

        Args:
            col: attributes float <B,N,C>.
            findices: faces + 1, <H,W> or <B,H,W>, of any dtype.
            barycentric: float <H,W,3> or <B,H,W,3>.
            tri: faces int32 <M,3>.

        Returns:
            <B,H,W,C>, 0 where there is no face; differentiable by col and barycentric.

        Raises:
            TypeError, ValueError: an argument is not what is said here.
        """
        check_tensor("col", col, "<B,N,C>", (torch.float16, torch.bfloat16, *FLOATS))
        check_tensor("tri", tri, "<M,3>", (torch.int32, torch.int64))
        ids = _batched("findices", findices, 2)
        weights = _batched("barycentric", barycentric, 3)
        if weights.shape != (*ids.shape, 3):
            raise ValueError(f"barycentric: expected shape {shape_of(ids)[:-1]},3>, found {shape_of(weights)}")
        if len(col) not in (1, len(ids)):
            raise ValueError(f"col: expected 1 or {len(ids)} sets of attributes, found {len(col)}")
        check_device(self._given or col.device, col=col, findices=findices, barycentric=barycentric, tri=tri)
        check_faces("tri", tri, col.shape[1])
        ids = ids.to(torch.int32)
        if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) <= len(tri):
            raise ValueError(f"findices: expected 0 to {len(tri)}, found {int(ids.min())} to {int(ids.max())}")
        shared = col.expand(len(ids), -1, -1)
        return torch.stack([interpolation.interpolate(*each, tri) for each in zip(shared, ids, weights, strict=True)])

    def _limits(self, size: tuple[int, int], device: torch.device) -> core.Limits:
        pairs = True if self.emulate_mps else None
        if self.mode == "tiled":
            return core.Limits(self.tile_size or _TILE, None, pairs, self.compile)
        if self.mode == "batched":
            return core.Limits(None, self.batch_size or _BATCH, pairs, self.compile)
        return core.Limits(self.tile_size or memory.tile(*size, device), self.batch_size, pairs, self.compile)

    @staticmethod
    def _threshold(
        prior: torch.Tensor | None, positions: torch.Tensor, size: tuple[int, int], truncation: float, use: int
    ) -> torch.Tensor | None:
        """The least depth to draw, <H*W>."""
        if prior is None or not isinstance(prior, torch.Tensor):
            if prior is None and not use:
                return None
            raise TypeError(f"D: expected a float32 tensor <H*W>, found {type(prior).__name__}")
        if prior.dtype not in FLOATS:
            raise TypeError(f"D: expected torch.float32, found {prior.dtype}")
        if not use or not prior.numel():
            return None
        if prior.numel() != size[0] * size[1]:
            raise ValueError(f"D: expected {size[0] * size[1]} depths, found shape {shape_of(prior)}")
        check_device(positions.device, D=prior)
        return prior.detach().reshape(-1).to(positions.dtype) * 0.49999 + 0.5 + truncation


def create_optimized_rasterizer(
    mode: str = "auto",
    tile_size: int | None = None,
    batch_size: int | None = None,
    device: torch.device | str | None = None,
    **options: Any,
) -> PyTorchRasterizer:
    """A PyTorchRasterizer of that mode; its other options by name."""
    return PyTorchRasterizer(device, mode=mode, tile_size=tile_size, batch_size=batch_size, **options)


def rasterize_large_mesh(
    vertices: torch.Tensor, faces: torch.Tensor, width: int, height: int, chunk_size: int = 1 << 15
) -> tuple[torch.Tensor, torch.Tensor]:
    """As PyTorchRasterizer.rasterize_image without a prior, with chunk_size triangles at a time."""
    rasterizer = PyTorchRasterizer(mode="batched", batch_size=chunk_size)
    return rasterizer.rasterize_image(vertices, faces, None, width, height)


def _batched(name: str, value: torch.Tensor, dimensions: int) -> torch.Tensor:
    """With a first dimension for the batch."""
    shape = "<H,W>" if dimensions == 2 else "<H,W,3>"
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{name}: expected a tensor {shape}, found {type(value).__name__}")
    if value.dim() == dimensions:
        return value[None]
    if value.dim() != dimensions + 1:
        raise ValueError(f"{name}: expected shape {shape} or with a batch before it, found {shape_of(value)}")
    return value
