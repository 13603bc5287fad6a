"""The self-test of `python -m torch_rasterizer`: rasterize a mesh, check the result, measure and draw it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from torch_rasterizer import meshes
from torch_rasterizer.rasterizer import PyTorchRasterizer, create_optimized_rasterizer

MODES = ("auto", "tiled", "batched")
Rasterized = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Scene:
    """A mesh on a device: positions [N, 4], faces [M, 3], and the side of the square picture in pixels."""

    positions: torch.Tensor
    faces: torch.Tensor
    size: int

    @property
    def depth(self) -> torch.Tensor:
        """Return z / w of every vertex, [1, N, 1]."""
        return (self.positions[:, 2:3] / self.positions[:, 3:])[None]


def make_scene(faces: int, size: int, device: torch.device) -> Scene:
    """Return a torus of about ``faces`` faces."""
    positions, triangles = meshes.torus(faces)
    return Scene(positions.to(device), triangles.to(device), size)


def rasterize(scene: Scene, rasterizer: PyTorchRasterizer) -> Rasterized:
    """Return the face ids and barycentrics of the scene."""
    none = torch.zeros(0, device=scene.positions.device)
    return rasterizer.rasterize_image(scene.positions, scene.faces, none, scene.size, scene.size, 1e-6, 0)


def median_milliseconds(action: Callable[[], object], device: torch.device, rounds: int) -> float:
    """Return the median duration of ``action`` in milliseconds, after one round of warm-up."""
    times = []
    for turn in range(rounds + 1):
        start = time.perf_counter()
        action()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        elif device.type == "mps":
            torch.mps.synchronize()
        if turn:
            times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def find_problems(scene: Scene, result: Rasterized) -> Iterator[str]:
    """Yield one message per error in a result; no message means that the result is correct."""
    ids, barycentric = result
    covered = ids > 0
    if not bool(covered.any()):
        yield "nothing is drawn"
        return
    if int(ids.max()) > len(scene.faces) or int(ids.min()) < 0:
        yield f"face ids range from {int(ids.min())} to {int(ids.max())}, but there are {len(scene.faces)} faces"
    sums = barycentric.sum(dim=-1)
    if float((sums[covered] - 1).abs().max()) > 1e-5:
        yield "barycentrics do not sum to 1"
    if bool(barycentric[~covered].any()):
        yield "barycentrics of the background are not 0"
    # The screen position interpolated at a pixel must be the position of this pixel.
    screen = scene.positions / scene.positions[:, 3:]
    corners = scene.positions[scene.faces.long()[ids[covered].long() - 1]]
    weighted = (barycentric[covered][..., None] * corners).sum(dim=1)
    found = weighted[:, :2] / weighted[:, 3:]
    row, column = covered.nonzero().unbind(1)
    expected = torch.stack([column, row], dim=1).to(found) / (scene.size - 1) * 2 - 1
    if float((found - expected).abs().max()) > 1e-3:
        yield "interpolated positions do not match their pixels"
    if float(screen[:, :2].abs().max()) < 1 and bool((covered[0] | covered[-1]).any()):
        yield "pixels outside the mesh are covered"


def draw_panels(scene: Scene, result: Rasterized, rasterizer: PyTorchRasterizer) -> torch.Tensor:
    """Return depth, face ids and barycentrics side by side, uint8 [H, 3W, 3]."""
    ids, barycentric = result
    covered = (ids > 0)[..., None]
    depth = rasterizer.interpolate(scene.depth, ids, barycentric, scene.faces)[0]
    seen = depth[covered]
    near, far = (float(seen.min()), float(seen.max())) if seen.numel() else (0.0, 1.0)
    grey = (1 - 0.85 * (depth - near) / max(far - near, 1e-9)).expand(-1, -1, 3)
    # Adjacent faces get different colours.
    hues = torch.stack([(ids * step % 97) / 97 for step in (29, 53, 71)], dim=-1) * 0.8 + 0.2
    panels = torch.cat([torch.where(covered, panel, 0.06) for panel in (grey, hues, barycentric)], dim=1)
    return (panels.clamp(0, 1) * 255).round().to(torch.uint8).cpu()


def save_png(pixels: torch.Tensor, path: Path) -> None:
    """Write uint8 [H, W, 3] as PNG.

    Raises:
        ImportError: if Pillow is not installed.
    """
    try:
        from PIL import Image  # noqa: PLC0415 - Pillow is optional
    except ImportError as error:
        raise ImportError("saving a picture needs Pillow: pip install pillow") from error
    Image.fromarray(pixels.numpy()).save(path, "PNG", optimize=True)


def benchmark(scene: Scene, rounds: int) -> list[tuple[str, float, bool]]:
    """Return for every mode its name, the median milliseconds, and whether its result equals that of the first mode."""
    device = scene.positions.device
    rows, first = [], None
    for mode in MODES:
        rasterizer = create_optimized_rasterizer(mode=mode, device=device)
        milliseconds = median_milliseconds(lambda chosen=rasterizer: rasterize(scene, chosen), device, rounds)  # type: ignore[misc]
        result = rasterize(scene, rasterizer)
        first = first or result
        rows.append((mode, milliseconds, all(map(torch.equal, result, first))))
    return rows
