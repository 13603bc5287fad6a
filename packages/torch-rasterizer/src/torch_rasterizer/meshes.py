"""Generated meshes for tests and benchmarks: clip positions float32 [N, 4], faces int32 [M, 3]."""

from __future__ import annotations

import math

import torch

Mesh = tuple[torch.Tensor, torch.Tensor]


def sphere(faces: int, *, perspective: bool = True, radius: float = 0.9) -> Mesh:
    """Return a sphere of about ``faces`` triangles that fills most of the picture.

    With perspective, w is 2 to 4 and the near half appears larger; without perspective, w is 1. x increases with the
    column, y with the row.
    """
    rings = max(3, round(math.sqrt(faces / 4)))
    around = 2 * rings
    # Rings of points replace the poles, so that no triangle is degenerate.
    polar = torch.linspace(0.5 / rings, 1 - 0.5 / rings, rings + 1, dtype=torch.float64) * math.pi
    turn = torch.arange(around, dtype=torch.float64) * (2 * math.pi / around)
    theta, phi = (axis.reshape(-1) for axis in torch.meshgrid(polar, turn, indexing="ij"))
    points = torch.stack([theta.sin() * phi.cos(), theta.cos(), theta.sin() * phi.sin()], dim=1)
    return _to_clip(points * radius, perspective=perspective), _grid(rings, around)


def torus(faces: int, *, perspective: bool = True) -> Mesh:
    """Return a torus of about ``faces`` triangles, tilted towards the viewer."""
    around = max(3, round(math.sqrt(faces)))
    rings = max(3, round(faces / (2 * around)))
    big = torch.arange(rings + 1, dtype=torch.float64) * (2 * math.pi / rings)
    small = torch.arange(around, dtype=torch.float64) * (2 * math.pi / around)
    u, v = (axis.reshape(-1) for axis in torch.meshgrid(big, small, indexing="ij"))
    radius = 0.6 + 0.27 * v.cos()
    x, y, z = radius * u.cos(), radius * u.sin(), 0.27 * v.sin()
    tilt = math.radians(50)
    points = torch.stack([x, y * math.cos(tilt) - z * math.sin(tilt), y * math.sin(tilt) + z * math.cos(tilt)], dim=1)
    return _to_clip(points, perspective=perspective), _grid(rings, around)


def random_triangles(faces: int, size: float, resolution: int, seed: int = 0) -> Mesh:
    """Return triangles about ``size`` pixels wide at random places and depths, for a square picture."""
    random = torch.Generator().manual_seed(seed)
    center = torch.rand((faces, 1, 2), generator=random) * 2 - 1
    corners = center + (torch.rand((faces, 3, 2), generator=random) * 2 - 1) * (size / resolution)
    depth = (torch.rand((faces, 1, 1), generator=random) * 2 - 1).expand(-1, 3, -1)
    clip = torch.cat([corners, depth, torch.ones(faces, 3, 1)], dim=2)
    return clip.reshape(-1, 4), torch.arange(3 * faces, dtype=torch.int32).reshape(-1, 3)


def _grid(rings: int, around: int) -> torch.Tensor:
    """Return the triangles between consecutive rings of ``around`` points."""
    ring, at = torch.meshgrid(torch.arange(rings), torch.arange(around), indexing="ij")
    here, beside = ring * around + at, ring * around + (at + 1) % around
    below, across = here + around, beside + around
    pairs = torch.stack([torch.stack([here, below, across], -1), torch.stack([here, across, beside], -1)], -2)
    return pairs.reshape(-1, 3).to(torch.int32)


def _to_clip(points: torch.Tensor, *, perspective: bool) -> torch.Tensor:
    """Return clip positions of points in [-1, 1] seen along +z; small z is near. The perspective distance is 3."""
    x, y, z = points.unbind(1)
    w = 3 + z if perspective else torch.ones_like(z)
    scale = 3.0 if perspective else 1.0
    return torch.stack([x * scale, y * scale, z * w if perspective else z, w], dim=1).float()
