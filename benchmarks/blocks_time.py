"""Time the block renderer on one CPU thread: mesh, a step of learning, a cold frame, and a plain loop beside it.

Needs torch and the packages on the path: `nox -s benchmark -- blocks`.
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
    """One line of the table: milliseconds of every round, and the number to stay under."""

    name: str
    times: list[float]
    bar: float | None

    def __str__(self) -> str:
        bar = "" if self.bar is None else f"{self.bar:g}"
        return f"| {self.name} | {statistics.median(self.times):.2f} | {min(self.times):.2f} | {bar} |"


def timed(action: Callable[[], object], rounds: int) -> list[float]:
    """Milliseconds of every round; one more before them does not count."""
    action()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        action()
        times.append((time.perf_counter() - start) * 1e3)
    return times


def mesh(positions: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Check the positions, find the faces in sight of the air, and place their corners."""
    return block_faces(grid.positions(positions), grid).corners()


def loop(positions: list[tuple[int, int, int]], logits: torch.Tensor, grid: Grid) -> torch.Tensor:
    """What build_block_mesh returns, vertex by vertex: how such meshes are made without much thought."""
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


def rows(rounds: int) -> list[Row]:
    """Everything that is measured."""
    grid = Grid(_SIZE)
    cells = torch.cartesian_prod(*map(torch.arange, _SIZE))
    order = torch.randperm(len(cells), generator=torch.Generator().manual_seed(0))
    thousand, many = cells[order[:1000]], cells[order[:100_000]]
    solid = torch.cartesian_prod(*[torch.arange(100)] * 3)
    plain = [(x, y, z) for x, y, z in thousand.tolist()]
    logits = torch.zeros(1000, 8)
    found = [
        Row("mesh, 1k random blocks", timed(lambda: mesh(thousand, grid), rounds), 2),
        Row("mesh with attributes, 1k random blocks", timed(lambda: build_block_mesh(thousand, logits), rounds), None),
        Row("the same, vertex by vertex", timed(lambda: loop(plain, logits, grid), 3), None),
        Row("mesh, 100k random blocks", timed(lambda: mesh(many, grid), rounds), 60),
        Row("mesh, 1M blocks, solid", timed(lambda: mesh(solid, Grid((100, 100, 100))), rounds), 100),
    ]
    return found + _pictures(rounds)


def _pictures(rounds: int) -> list[Row]:
    made = capture.generate("terrain", _SIZE, 1)
    world = DifferentiableBlockWorld(_SIZE)
    world.place_blocks(made.positions[-59_000:], torch.tensor(made.materials[-59_000:]))
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
        Row("training step, 59k blocks, 512 x 512, forward and backward", timed(step, rounds), 40),
        Row(f"cold frame, {faces} faces, 512 x 512", timed(cold, rounds), 200),
    ]


def main() -> None:
    """``python -m benchmarks.blocks_time [--rounds N]``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=11)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| what | median ms | minimum | bar |\n|---|---|---|---|")
    for row in rows(options.rounds):
        print(row)


if __name__ == "__main__":
    main()
