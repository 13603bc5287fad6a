"""The rasterizer: clip, project, cut into spans, take the depth minimum, resolve."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial

import torch

from torch_rasterizer import clipping, fragments, resolve, screen, triangles
from torch_rasterizer.convention import Convention
from torch_rasterizer.depth import EXACT, DepthBuffer, KeyBuffer, PairBuffer
from torch_rasterizer.triangles import Window


@dataclass(frozen=True)
class Limits:
    """What bounds memory: the side of a tile of the screen in pixels, and how many triangles are set up at a time.

    pairs: whether the depth buffer is of two float32 a pixel, and no float64 is used, as on devices that have none;
    None: by the device. compile: whether torch.compile is used.
    """

    tile: int | None = None
    batch: int | None = None
    pairs: bool | None = None
    compile: bool = False


@dataclass(frozen=True)
class Picture:
    """Faces + 1 int32 <H,W>, 0 for none; barycentrics <H,W,3> and depth <H,W> (if asked for), 0 where there is none."""

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
    """Draw each of a batch of meshes that share their faces.

    Args:
        positions: clip-space positions float <B,N,4>.
        faces: int32 <M,3>, all within 0 <= index < N.
        size: height and width.
        convention: whose pixels.
        limits: what bounds memory; the result does not depend on it.

    Returns:
        Faces + 1 int32 <B,H,W>, 0 for none; barycentrics <B,H,W,3>, differentiable by positions; depth <B,H,W>.
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
    """As rasterize, for one mesh <N,4>.

    threshold: float <H*W>: samples of less depth are not drawn; None: less than 0.
    """
    if positions.device.type == "mps" and convention.exact:
        # Exact coverage takes float64, which MPS does not have.
        least = None if threshold is None else threshold.cpu()
        picture = draw(positions.cpu(), faces.cpu(), size, convention, limits, least, with_depth=with_depth)
        depth = None if picture.depth is None else picture.depth.to(positions.device)
        return Picture(picture.ids.to(positions.device), picture.barycentrics.to(positions.device), depth)
    height, width = size
    pairs = positions.device.type == "mps" if limits.pairs is None else limits.pairs
    mesh = clipping.clip(positions, faces, convention)
    if pairs and len(mesh.faces) >= EXACT:
        raise ValueError(f"faces: without int64 minima expected fewer than {EXACT}, found {len(mesh.faces)}")
    seen = screen.project(mesh.positions, height, width, convention)
    flat = not seen.w.requires_grad and bool((seen.w == 1).all())
    surface = resolve.Surface(mesh, seen, convention, not pairs, flat)
    canvas = _Canvas(positions, height, width, with_depth=with_depth)
    for window in _windows(height, width, limits.tile):
        with torch.no_grad():
            chosen = None if limits.tile is None else triangles.touching(surface.screen.detach(), mesh.faces, window)
            ids = _nearest(surface, chosen, window, _part(threshold, window, width), limits)
        canvas.put_ids(ids, window, None if mesh.whole else mesh.owner)
        for shown in resolve.resolve(ids, surface, window, with_depth=with_depth):
            canvas.put(shown, window)
    return canvas.picture()


class _Canvas:
    """Collects windows."""

    def __init__(self, positions: torch.Tensor, height: int, width: int, *, with_depth: bool) -> None:
        self.size = height, width
        self.ids = torch.empty(height, width, dtype=torch.int32, device=positions.device)
        self.barycentrics = positions.new_zeros(height * width * 3)
        self.depth = positions.new_zeros(height * width) if with_depth else None

    def put_ids(self, ids: torch.Tensor, window: Window, owner: torch.Tensor | None) -> None:
        """Take ids <pixels> of a window; owner: the face that each triangle is a part of, None if it is that itself."""
        if owner is not None:
            ids = torch.cat([owner.new_zeros(1), owner + 1]).to(torch.int32).index_select(0, ids)
        if ids.numel() == self.ids.numel():
            self.ids = ids.view(self.size)
            return
        part = self.ids[window.top : window.bottom, window.left : window.right]
        part.copy_(ids.view(window.height, window.width))

    def put(self, shown: resolve.Shown, window: Window) -> None:
        """Take what some pixels of a window show."""
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
        """All windows together."""
        depth = None if self.depth is None else self.depth.view(self.size)
        return Picture(self.ids, self.barycentrics.view(*self.size, 3), depth)


def _windows(height: int, width: int, tile: int | None) -> Iterator[Window]:
    across, down = tile or width, tile or height
    for top in range(0, height, down):
        for left in range(0, width, across):
            yield Window(top, left, min(top + down, height), min(left + across, width))


def _part(values: torch.Tensor | None, window: Window, width: int) -> torch.Tensor | None:
    """Values <H*W> in the window, <pixels>."""
    if values is None:
        return None
    return values.view(-1, width)[window.top : window.bottom, window.left : window.right].reshape(-1)


def _nearest(
    surface: resolve.Surface,
    chosen: torch.Tensor | None,
    window: Window,
    threshold: torch.Tensor | None,
    limits: Limits,
) -> torch.Tensor:
    """The triangle + 1 of each pixel of a window, int32 <pixels>; chosen <C> int64: those to draw, None for all."""
    faces = surface.mesh.faces
    cpu = faces.device.type == "cpu"
    budget = fragments.CACHE if cpu else fragments.DEVICE
    count = len(faces) if chosen is None else len(chosen)
    batch = limits.batch or budget.triangles
    make: type[PairBuffer | KeyBuffer] = KeyBuffer if surface.doubles else PairBuffer
    buffer: DepthBuffer = make(window.height * window.width, faces.device)
    target = fragments.Target(buffer, window, threshold, partial(_shade(limits), doubles=surface.doubles))
    for first in range(0, count, batch):
        end = min(first + batch, count)
        if chosen is None:
            part, numbers = faces[first:end], torch.arange(first + 1, end + 1, device=faces.device)
        else:
            part, numbers = faces.index_select(0, chosen[first:end]), chosen[first:end] + 1
        ready = triangles.prepare(surface.screen.detach(), part, window, surface.convention)
        fragments.draw(ready, numbers, target, surface.convention, budget)
    return buffer.ids()


def _shade(limits: Limits) -> Callable[..., torch.Tensor]:
    return _compiled() if limits.compile else fragments.shade


@cache
def _compiled() -> Callable[..., torch.Tensor]:
    made: Callable[..., torch.Tensor] = torch.compile(fragments.shade, dynamic=True)
    return made
