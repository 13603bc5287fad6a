"""The worlds and cameras in which pictures are compared."""

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
class ComparisonScene:
    """A generated world and the placement of its cameras."""

    world: str
    cameras: str

    @property
    def map(self) -> Map:
        """The blocks of the world."""
        return generate(self.world, GRID, seed=1)

    def views(self, count: int = 4) -> list[Camera]:
        """Return ``count`` cameras."""
        return [camera(view) for view in getattr(worlds, self.cameras)(GRID, SCALE, count)]


SCENES = (
    ComparisonScene("flat", "around"),
    ComparisonScene("terrain", "around"),
    ComparisonScene("sparse", "around"),
    ComparisonScene("terrain", "inside"),
)


def create_world(found: Map) -> DifferentiableBlockWorld:
    """Return the world of a map."""
    world = DifferentiableBlockWorld(found.grid.size, found.grid.world_scale)
    world.place_blocks(found.positions, torch.tensor(found.materials, dtype=torch.int64))
    return world
