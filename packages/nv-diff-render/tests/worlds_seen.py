"""The worlds and cameras that pictures are compared in."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from nv_diff_render import DifferentiableBlockWorld, worlds
from nv_diff_render.capture import camera, generate
from nv_diff_render.dataset import Camera
from nv_diff_render.maps import Map

GRID = (64, 48, 64)
SCALE = 2.0


@dataclass(frozen=True)
class Sight:
    """A world and how its cameras stand."""

    world: str
    cameras: str

    @property
    def map(self) -> Map:
        return generate(self.world, GRID, seed=1)

    def views(self, count: int = 4) -> list[Camera]:
        return [camera(view) for view in getattr(worlds, self.cameras)(GRID, SCALE, count)]


SIGHTS = (Sight("flat", "around"), Sight("terrain", "around"), Sight("sparse", "around"), Sight("terrain", "inside"))


def placed(found: Map) -> DifferentiableBlockWorld:
    """The world of a map."""
    world = DifferentiableBlockWorld(found.grid.size, found.grid.world_scale)
    world.place_blocks(found.positions, torch.tensor(found.materials, dtype=torch.int64))
    return world
