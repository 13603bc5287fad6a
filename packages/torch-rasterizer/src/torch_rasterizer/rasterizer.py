"""PyTorchRasterizer: the functions and pixels of custom_rasterizer without compiled code."""

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
#: Defaults of the modes 'tiled' (side of a tile in pixels) and 'batched' (triangles).
_TILE, _BATCH = 1024, 1 << 15


class PyTorchRasterizer:
    """Rasterizes with the pixels of Hunyuan3D's custom_rasterizer, on any torch device.

    device: the required device of the tensors. None accepts tensors on any device; the attribute ``device`` is then the
    best available device: CUDA or ROCm, else MPS, else the CPU.
    mode: 'tiled' limits memory with tiles of tile_size x tile_size pixels, 'batched' with batch_size triangles at a
    time. 'auto' draws everything at once, or in tiles if the free memory requires it. All modes produce the same
    pixels. emulate_mps: use the code path of MPS, which has neither float64 nor int64 minima, on any device.

    Raises:
        ValueError: if the mode or device is unknown, a size is below 1, or the mode does not use the given size.
    """

    def __init__(
        self,
        device: torch.device | str | None = None,
        *,
        mode: str = "auto",
        tile_size: int | None = None,
        batch_size: int | None = None,
        emulate_mps: bool = False,
    ) -> None:
        if mode not in MODES:
            raise ValueError(f"mode: expected one of {', '.join(map(repr, MODES))}, found {mode!r}")
        for name, value, user in (("tile_size", tile_size, "tiled"), ("batch_size", batch_size, "batched")):
            check_count(name, value)
            if value is not None and mode not in (user, "auto"):
                raise ValueError(
                    f"{name}: expected None with mode={mode!r}, because only {user!r} uses it, found {value}"
                )
        self._given = None if device is None else as_device(device)
        self.device = self._given or best_device()
        self.mode, self.tile_size, self.batch_size = mode, tile_size, batch_size
        self.emulate_mps = emulate_mps

    def __repr__(self) -> str:
        return f"PyTorchRasterizer(device={str(self.device)!r}, mode={self.mode!r})"

    def rasterize_image(
        self,
        V: torch.Tensor,  # noqa: N803 - the keyword names of custom_rasterizer
        F: torch.Tensor,  # noqa: N803
        D: torch.Tensor | None,  # noqa: N803
        width: int,
        height: int,
        occlusion_truncation: float = 1e-6,
        use_depth_prior: int = 0,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw triangles.

        Triangles with a vertex that has a NaN, an infinity or w = 0 are not drawn. A triangle with a negative w is
        drawn and wraps around, because custom_rasterizer does not clip. Samples with z / w above 16383 are not drawn.

        Args:
            V: clip-space positions [N, 4], float32; float64 computes in float64.
            F: faces int32 [M, 3].
            D: depth prior z / w, float [H*W] or [H, W]. With use_depth_prior only samples behind it are drawn; None or
            an
                empty tensor disables it.
            width: pixels per row.
            height: number of rows.
            occlusion_truncation: minimum distance behind D, in units of depth * 0.49999 + 0.5.
            use_depth_prior: whether D is used.

        Returns:
            Face + 1 int32 [H, W], 0 for background; perspective-correct barycentrics [H, W, 3], 0 in the background,
            differentiable with respect to V.

        Raises:
            TypeError, ValueError: if an argument does not match the description above.
        """
        check_tensor("V", V, "[N, 4]", FLOATS)
        check_tensor("F", F, "[M, 3]", (torch.int32,))
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
        """Draw one or more meshes as rasterize_image does, with an occlusion_truncation of 1e-6.

        Args:
            pos: clip-space positions [B, N, 4].
            tri: faces int32 [M, 3].
            resolution: height and width.
            clamp_depth: the depth prior, see D of rasterize_image.
            use_depth_prior: whether clamp_depth is used.

        Returns:
            Face + 1 int32 [H, W] and barycentrics [H, W, 3]; [B, H, W] and [B, H, W, 3] if B is not 1.

        Raises:
            TypeError, ValueError: if an argument does not match the description above.
        """
        check_tensor("pos", pos, "[B, N, 4]", FLOATS)
        height, width = check_resolution(resolution)
        drawn = [self.rasterize_image(each, tri, clamp_depth, width, height, 1e-6, use_depth_prior) for each in pos]
        if len(drawn) == 1:
            return drawn[0]
        if not drawn:
            raise ValueError("pos: expected at least one mesh [B, N, 4], found B = 0")
        return torch.stack([ids for ids, _ in drawn]), torch.stack([barycentric for _, barycentric in drawn])

    def interpolate(
        self, col: torch.Tensor, findices: torch.Tensor, barycentric: torch.Tensor, tri: torch.Tensor
    ) -> torch.Tensor:
        """Interpolate vertex attributes at every pixel.

        Args:
            col: attributes float [B, N, C].
            findices: face + 1, [H, W] or [B, H, W], any dtype.
            barycentric: float [H, W, 3] or [B, H, W, 3].
            tri: faces int32 [M, 3].

        Returns:
            [B, H, W, C], 0 in the background; differentiable with respect to col and barycentric.

        Raises:
            TypeError, ValueError: if an argument does not match the description above.
        """
        check_tensor("col", col, "[B, N, C]", (torch.float16, torch.bfloat16, *FLOATS))
        check_tensor("tri", tri, "[M, 3]", (torch.int32, torch.int64))
        ids = _batched("findices", findices, 2)
        weights = _batched("barycentric", barycentric, 3)
        if weights.shape != (*ids.shape, 3):
            raise ValueError(f"barycentric: expected shape {shape_of(ids)[:-1]}, 3], found {shape_of(weights)}")
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
        without_float64 = True if self.emulate_mps else None
        if self.mode == "tiled":
            return core.Limits(self.tile_size or _TILE, None, without_float64)
        if self.mode == "batched":
            return core.Limits(None, self.batch_size or _BATCH, without_float64)
        return core.Limits(self.tile_size or memory.tile_size(*size, device), self.batch_size, without_float64)

    @staticmethod
    def _threshold(
        prior: torch.Tensor | None, positions: torch.Tensor, size: tuple[int, int], truncation: float, use: int
    ) -> torch.Tensor | None:
        """Return the minimum depth to draw, [H*W], or None if the depth prior is not used."""
        if prior is None or not isinstance(prior, torch.Tensor):
            if prior is None and not use:
                return None
            raise TypeError(f"D: expected a float32 tensor [H*W], found {type(prior).__name__}")
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
    """Return a PyTorchRasterizer with this mode; ``options`` are its other keyword arguments."""
    return PyTorchRasterizer(device, mode=mode, tile_size=tile_size, batch_size=batch_size, **options)


def rasterize_large_mesh(
    vertices: torch.Tensor, faces: torch.Tensor, width: int, height: int, chunk_size: int = 1 << 15
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw without a depth prior, chunk_size triangles at a time; see PyTorchRasterizer.rasterize_image."""
    rasterizer = PyTorchRasterizer(mode="batched", batch_size=chunk_size)
    return rasterizer.rasterize_image(vertices, faces, None, width, height)


def _batched(name: str, value: torch.Tensor, dimensions: int) -> torch.Tensor:
    """Return the value with a leading batch dimension."""
    shape = "[H, W]" if dimensions == 2 else "[H, W, 3]"
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{name}: expected a tensor {shape}, found {type(value).__name__}")
    if value.dim() == dimensions:
        return value[None]
    if value.dim() != dimensions + 1:
        raise ValueError(
            f"{name}: expected shape {shape} with or without a leading batch dimension, found {shape_of(value)}"
        )
    return value
