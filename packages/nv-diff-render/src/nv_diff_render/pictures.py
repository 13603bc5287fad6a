"""Picture files: PNG, comparison pictures, and animated GIF."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from nv_diff_render.files import write_atomic

Picture = npt.NDArray[np.uint8]


def to_uint8(rgb: torch.Tensor) -> Picture:
    """Return colours [3, H, W] or [4, H, W] in [0, 1] as uint8 [H, W, 3] or [H, W, 4], rounded."""
    rounded = (rgb.detach().clamp(0, 1) * 255).round().to(torch.uint8)
    array: Picture = rounded.permute(1, 2, 0).cpu().numpy()
    return array


def depth_picture(depth: torch.Tensor) -> Picture:
    """Return depths [1, H, W] as grey uint8 [H, W, 3]; near is white, the farthest block and the sky are black."""
    values = depth[0].detach().cpu().double()
    blocks = values[values < 1]
    if not blocks.numel():
        return np.zeros((*values.shape, 3), np.uint8)
    near, far = float(blocks.min()), float(blocks.max())
    grey = torch.where(values < 1, 1 - (values - near) / max(far - near, 1e-12), 0.0)
    return to_uint8(grey.expand(3, -1, -1))


def normal_picture(normals: torch.Tensor) -> Picture:
    """Return normals [3, H, W] as colours uint8 [H, W, 3], mapping [-1, 1] to [0, 255]."""
    return to_uint8(normals * 0.5 + 0.5)


def side_by_side(picture: Picture, truth: Picture) -> Picture:
    """Return the picture, the truth, and a map of the different pixels (white), uint8 [H, 3W, 3]."""
    different = (picture != truth).any(axis=2, keepdims=True)
    return np.concatenate([picture, truth, np.where(different, np.uint8(255), truth // 4)], axis=1)


def save_png(path: Path | str, rgb: torch.Tensor) -> None:
    """Write colours [3, H, W], [4, H, W] or [1, C, H, W] in [0, 1] as PNG, atomically."""
    picture = to_uint8(rgb[0] if rgb.ndim == 4 else rgb)
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", optimize=True)
    write_atomic(Path(path), buffer.getvalue())


def save_gif(path: Path | str, frames: Iterable[torch.Tensor], milliseconds: int = 80) -> None:
    """Write frames of colours [3, H, W] as a GIF that repeats, atomically.

    Raises:
        ValueError: if there are no frames.
    """
    images = [Image.fromarray(to_uint8(frame[:3])) for frame in frames]
    if not images:
        raise ValueError("frames: expected at least one")
    buffer = io.BytesIO()
    images[0].save(buffer, "GIF", save_all=True, append_images=images[1:], duration=milliseconds, loop=0)
    write_atomic(Path(path), buffer.getvalue())
