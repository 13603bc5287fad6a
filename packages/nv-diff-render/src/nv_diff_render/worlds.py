"""Generated worlds and cameras for tests and comparisons: material indices int64 [X, Y, Z], 0 is Air."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from nv_diff_render.camera import create_look_at_matrix, create_orbit_views
from nv_diff_render.grid import Position
from nv_diff_render.materials import material_name_to_index as index

Size = Position


def flat(size: Size, seed: int) -> torch.Tensor:
    """Return a meadow of three layers with a few huts of planks."""
    world = torch.zeros(size, dtype=torch.int64)
    world[:, 0], world[:, 1], world[:, 2] = index("Stone"), index("Dirt"), index("Grass")
    random = torch.Generator().manual_seed(seed)
    for _ in range(6):
        x, z = (int(torch.randint(2, max(3, end - 8), (1,), generator=random)) for end in (size[0], size[2]))
        world[x : x + 5, 3:7, z : z + 5] = index("Plank")
        world[x + 1 : x + 4, 3:6, z + 1 : z + 4] = index("Air")
        world[x + 2, 3:5, z + 4] = index("Air")
    return world


def terrain(size: Size, seed: int) -> torch.Tensor:
    """Return hills of stone, dirt and grass with sand at the shore, snow on top and water in the valleys."""
    random = torch.Generator().manual_seed(seed)
    x, z = torch.meshgrid(torch.arange(size[0]), torch.arange(size[2]), indexing="ij")
    height = torch.zeros(size[0], size[2])
    for octave in range(1, 5):
        phase = torch.rand(3, generator=random) * 2 * math.pi
        along = x * torch.cos(phase[0]) + z * torch.sin(phase[0])
        height += torch.sin(along * 0.09 * octave + phase[1]) * torch.cos(z * 0.07 * octave + phase[2]) / octave
    top = (size[1] * (0.4 + 0.2 * height)).long().clamp(1, size[1] - 1)[:, None]
    sea = int(size[1] * 0.35)
    y = torch.arange(size[1])[None, :, None]
    world = torch.where(y < top - 3, index("Stone"), torch.where(y < top, index("Dirt"), index("Grass")))
    world = torch.where((y == top) & (top <= sea + 1), index("Sand"), world)
    world = torch.where((y == top) & (top > size[1] * 0.55), index("Snow"), world)
    world = torch.where(y > top, torch.where(y <= sea, index("Water"), index("Air")), world)
    return world


def sparse(size: Size, seed: int) -> torch.Tensor:
    """Return a world with a block of a random material in every fiftieth cell, at random places."""
    random = torch.Generator().manual_seed(seed)
    materials = torch.randint(1, 8, size, generator=random)
    return torch.where(torch.rand(size, generator=random) < 0.02, materials, index("Air"))


WORLDS: dict[str, Callable[[Size, int], torch.Tensor]] = {"flat": flat, "terrain": terrain, "sparse": sparse}


def around(size: Size, world_scale: float, count: int) -> torch.Tensor:
    """Return view matrices [count, 4, 4] on a circle over a world of this size."""
    extent = max(size[0], size[2]) * world_scale
    center = (0.0, size[1] * world_scale * 0.3, 0.0)
    return create_orbit_views(center, 0.75 * extent, 0.35 * extent, count, start_rad=0.3)


def inside(size: Size, world_scale: float, count: int) -> torch.Tensor:
    """Return view matrices [count, 4, 4] from inside a world of this size, near the ground and next to blocks."""
    height = size[1] * world_scale * 0.36
    turns = (2 * math.pi * turn / count + 0.2 for turn in range(count))
    eye = (0.3, height, 0.4)
    ends = ((eye[0] + math.sin(turn), height - 0.15, eye[2] + math.cos(turn)) for turn in turns)
    return torch.stack([create_look_at_matrix(eye, end) for end in ends])
