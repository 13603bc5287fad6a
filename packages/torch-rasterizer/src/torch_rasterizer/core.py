"""The rasterizer core: clip, project, split into spans, take the depth minimum, resolve barycentrics."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from torch_rasterizer import clipping, fragments, resolve, screen, triangles
from torch_rasterizer.convention import Convention
from torch_rasterizer.depth import FLOAT32_EXACT, DepthBuffer, KeyBuffer, PairBuffer
from torch_rasterizer.triangles import Window


@dataclass(frozen=True)
class Limits:
    """Limits of the memory in use; they do not change the result.

    tile_size: side of a screen tile in pixels. batch_size: triangles that are set up at a time. None: no limit.
    without_float64: use a depth buffer of two float32 per pixel and no float64, for devices without float64; None
    decides by the device.
    """

    tile_size: int | None = None
    batch_size: int | None = None
    without_float64: bool | None = None


@dataclass(frozen=True)
class Picture:
    """Ids int32 [H, W] (face + 1, 0 for background), barycentrics [H, W, 3], depth [H, W] or None; 0 in the
    background.
    """

    ids: torch.Tensor
    barycentrics: torch.Tensor
    depth: torch.Tensor | None


def rasterize(
    positions: torch.Tensor,
    faces: torch.Tensor,
    size: tuple[int, int],
    convention: Convention,
    limits: Limits = Limits(),
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Draw a batch of meshes that share their faces.

    Args:
        positions: clip-space positions float [B, N, 4].
        faces: int32 [M, 3], every index in 0 <= index < N.
        size: height and width.
        convention: the rules of coverage and depth.
        limits: limits of the memory in use.

    Returns:
        Face + 1 int32 [B, H, W], 0 for background; barycentrics [B, H, W, 3], differentiable with respect to positions;
        depth [B, H, W].
    """
    pictures = [draw(each, faces, size, convention, limits, with_depth=True) for each in positions]
    depths = [picture.depth for picture in pictures if picture.depth is not None]
    return (
        torch.stack([picture.ids for picture in pictures]),
        torch.stack([picture.barycentrics for picture in pictures]),
        torch.stack(depths),
    )


def draw(
    positions: torch.Tensor,
    faces: torch.Tensor,
    size: tuple[int, int],
    convention: Convention,
    limits: Limits = Limits(),
    threshold: torch.Tensor | None = None,
    *,
    with_depth: bool = False,
) -> Picture:
    """Draw one mesh with positions [N, 4]; otherwise as rasterize.

    threshold: float [H*W]; samples with a smaller depth are not drawn. None stands for 0.
    """
    if positions.device.type == "mps" and convention.exact:
        # Exact coverage needs float64, which MPS lacks.
        least = None if threshold is None else threshold.cpu()
        picture = draw(positions.cpu(), faces.cpu(), size, convention, limits, least, with_depth=with_depth)
        depth = None if picture.depth is None else picture.depth.to(positions.device)
        return Picture(picture.ids.to(positions.device), picture.barycentrics.to(positions.device), depth)
    height, width = size
    without_float64 = positions.device.type == "mps" if limits.without_float64 is None else limits.without_float64
    mesh = clipping.clip(positions, faces, convention)
    if without_float64 and len(mesh.faces) >= FLOAT32_EXACT:
        raise ValueError(
            f"faces: expected fewer than {FLOAT32_EXACT} on a device without int64 minima, found {len(mesh.faces)}"
        )
    projected = screen.project(mesh.positions, height, width, convention)
    flat = not projected.w.requires_grad and bool((projected.w == 1).all())
    surface = resolve.Surface(mesh, projected, convention, not without_float64, flat)
    canvas = _Canvas(positions, height, width, with_depth=with_depth)
    for window in _windows(height, width, limits.tile_size):
        with torch.no_grad():
            chosen = (
                None
                if limits.tile_size is None
                else triangles.find_touching(surface.screen.detach(), mesh.faces, window)
            )
            ids = _find_nearest(surface, chosen, window, _crop(threshold, window, width), limits)
        canvas.put_ids(ids, window, None if mesh.unchanged else mesh.owner)
        for shown in resolve.resolve(ids, surface, window, with_depth=with_depth):
            canvas.put(shown, window)
    return canvas.picture()


class _Canvas:
    """Assembles the picture from its windows."""

    def __init__(self, positions: torch.Tensor, height: int, width: int, *, with_depth: bool) -> None:
        self.size = height, width
        self.ids = torch.empty(height, width, dtype=torch.int32, device=positions.device)
        self.barycentrics = positions.new_zeros(height * width * 3)
        self.depth = positions.new_zeros(height * width) if with_depth else None

    def put_ids(self, ids: torch.Tensor, window: Window, owner: torch.Tensor | None) -> None:
        """Store the ids [pixels] of a window.

        owner: the input face that each triangle is a part of; None if the triangles are the input faces.
        """
        if owner is not None:
            ids = torch.cat([owner.new_zeros(1), owner + 1]).to(torch.int32).index_select(0, ids)
        if ids.numel() == self.ids.numel():
            self.ids = ids.view(self.size)
            return
        part = self.ids[window.top : window.bottom, window.left : window.right]
        part.copy_(ids.view(window.height, window.width))

    def put(self, shown: resolve.ShownPixels, window: Window) -> None:
        """Store the barycentrics and depths of some pixels of a window."""
        pixel, width = shown.pixel, self.size[1]
        if window.width != width:
            row = torch.div(pixel, window.width, rounding_mode="floor")
            pixel = (row + window.top) * width + (pixel - row * window.width + window.left)
        elif window.top:
            pixel = pixel + window.top * width
        place = pixel * 3
        for values in shown.barycentrics:
            self.barycentrics.scatter_(0, place, values)
            place = place + 1
        if self.depth is not None and shown.depth is not None:
            self.depth.scatter_(0, pixel, shown.depth)

    def picture(self) -> Picture:
        """Return the finished picture."""
        depth = None if self.depth is None else self.depth.view(self.size)
        return Picture(self.ids, self.barycentrics.view(*self.size, 3), depth)


def _windows(height: int, width: int, tile: int | None) -> Iterator[Window]:
    across, down = tile or width, tile or height
    for top in range(0, height, down):
        for left in range(0, width, across):
            yield Window(top, left, min(top + down, height), min(left + across, width))


def _crop(values: torch.Tensor | None, window: Window, width: int) -> torch.Tensor | None:
    """Return the values [H*W] inside the window as [pixels]."""
    if values is None:
        return None
    return values.view(-1, width)[window.top : window.bottom, window.left : window.right].reshape(-1)


def _find_nearest(
    surface: resolve.Surface,
    chosen: torch.Tensor | None,
    window: Window,
    threshold: torch.Tensor | None,
    limits: Limits,
) -> torch.Tensor:
    """Return the triangle + 1 of each pixel of a window, int32 [pixels].

    chosen: int64 [C], the triangles to draw; None draws all.
    """
    faces = surface.mesh.faces
    cpu = faces.device.type == "cpu"
    budget = fragments.CPU_BUDGET if cpu else fragments.GPU_BUDGET
    count = len(faces) if chosen is None else len(chosen)
    batch = limits.batch_size or budget.triangles
    make: type[PairBuffer | KeyBuffer] = KeyBuffer if surface.has_float64 else PairBuffer
    buffer: DepthBuffer = make(window.height * window.width, faces.device)
    target = fragments.Target(buffer, window, threshold, surface.has_float64)
    for first in range(0, count, batch):
        end = min(first + batch, count)
        if chosen is None:
            part, numbers = faces[first:end], torch.arange(first + 1, end + 1, device=faces.device)
        else:
            part, numbers = faces.index_select(0, chosen[first:end]), chosen[first:end] + 1
        ready = triangles.prepare(surface.screen.detach(), part, window, surface.convention)
        fragments.draw(ready, numbers, target, surface.convention, budget)
    return buffer.ids()
