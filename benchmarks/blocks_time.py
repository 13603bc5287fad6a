"""Measure the block renderer on one CPU thread: mesh, training step, cold frame, and a plain loop for comparison.

It needs torch and the packages on the path: `nox -s benchmark_packages -- blocks`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from nv_diff_render import DifferentiableBlockWorld, build_block_mesh, capture, get_material_palette, worlds
from nv_diff_render.grid import Grid
from nv_diff_render.mesh_builder import CORNERS, SLOTS, TRIANGLES, block_faces
from nv_diff_render.shading import NORMALS

_SIZE = (64, 48, 64)


@dataclass(frozen=True)
class Row:
    """A row of the table: the milliseconds of every round, and the target for the median."""

    name: str
    times: list[float]
    target: float | None

    def __str__(self) -> str:
        target = "" if self.target is None else f"{self.target:g}"
        return f"| {self.name} | {statistics.median(self.times):.2f} | {min(self.times):.2f} | {target} |"


def measure_milliseconds(action: Callable[[], object], rounds: int) -> list[float]:
    """Return the milliseconds of every round, after one round of warm-up."""
    action()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        action()
        times.append((time.perf_counter() - start) * 1e3)
    return times


def build_mesh(positions: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Check the positions, find the exposed faces, and compute their corners."""
    return block_faces(grid.positions(positions), grid).corners()


def build_mesh_with_loops(positions: list[tuple[int, int, int]], logits: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Return the result of build_block_mesh, computed by simple loops over blocks, sides and vertices."""
    filled, palette = set(positions), get_material_palette()
    vertices: list[torch.Tensor] = []
    attributes: list[torch.Tensor] = []
    for row, (x, y, z) in enumerate(positions):
        weights = torch.softmax(logits[row], dim=0)
        for side, (nx, ny, nz) in enumerate(NORMALS):
            if (x + int(nx), y + int(ny), z + int(nz)) in filled:
                continue
            for corner in TRIANGLES:
                place = [
                    at + bit + first
                    for at, bit, first in zip((x, y, z), CORNERS[side][corner], grid.origin, strict=True)
                ]
                vertices.append(torch.tensor(place) * grid.world_scale)
                attributes.append(weights @ palette[:, SLOTS[side]])
    return torch.cat([torch.stack(vertices), torch.stack(attributes)], dim=1)


def measure_all(rounds: int) -> list[Row]:
    """Return all rows of the table."""
    grid = Grid(_SIZE)
    cells = torch.cartesian_prod(*map(torch.arange, _SIZE))
    order = torch.randperm(len(cells), generator=torch.Generator().manual_seed(0))
    thousand, many = cells[order[:1000]], cells[order[:100_000]]
    solid = torch.cartesian_prod(*[torch.arange(100)] * 3)
    plain = [(x, y, z) for x, y, z in thousand.tolist()]
    logits = torch.zeros(1000, 8)
    found = [
        Row("mesh, 1k random blocks", measure_milliseconds(lambda: build_mesh(thousand, grid), rounds), 2),
        Row(
            "mesh with attributes, 1k random blocks",
            measure_milliseconds(lambda: build_block_mesh(thousand, logits), rounds),
            None,
        ),
        Row(
            "the same, vertex by vertex",
            measure_milliseconds(lambda: build_mesh_with_loops(plain, logits, grid), 3),
            None,
        ),
        Row("mesh, 100k random blocks", measure_milliseconds(lambda: build_mesh(many, grid), rounds), 60),
        Row(
            "mesh, 1M blocks, solid",
            measure_milliseconds(lambda: build_mesh(solid, Grid((100, 100, 100))), rounds),
            100,
        ),
    ]
    return found + _measure_pictures(rounds)


def _measure_pictures(rounds: int) -> list[Row]:
    generated = capture.generate("terrain", _SIZE, 1)
    world = DifferentiableBlockWorld(_SIZE)
    world.place_blocks(generated.positions[-59_000:], torch.tensor(generated.materials[-59_000:]))
    camera = capture.camera(worlds.around(_SIZE, 2.0, 1)[0])
    weights = torch.rand(1, 4, 512, 512)

    def step() -> None:
        world.logits.grad = None
        (world.render(camera.view, camera.projection, 512, 512) * weights).sum().backward()

    def cold() -> None:
        world._scene = None
        world.renderer._scenes.clear()
        with torch.no_grad():
            world.render(camera.view, camera.projection, 512, 512)

    faces = len(world.scene.faces)
    return [
        Row("training step, 59k blocks, 512 x 512, forward and backward", measure_milliseconds(step, rounds), 40),
        Row(f"cold frame, {faces} faces, 512 x 512", measure_milliseconds(cold, rounds), 200),
    ]


def main() -> None:
    """Run ``python -m benchmarks.blocks_time [--rounds N]``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=11)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| workload | median ms | minimum | target |\n|---|---|---|---|")
    for row in measure_all(options.rounds):
        print(row)


if __name__ == "__main__":
    main()
