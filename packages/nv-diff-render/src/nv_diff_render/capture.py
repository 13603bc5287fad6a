"""Create a dataset with WebGPU: python -m nv_diff_render.capture --dataset_id 1 --world terrain.

Writes datasets/ID (metadata.json and pictures) and maps/ID/map.json, the reference for test_render.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import sys
from datetime import UTC, datetime
from pathlib import Path

import torch

from nv_diff_render import dataset, worlds
from nv_diff_render.camera import create_perspective_matrix
from nv_diff_render.grid import Grid
from nv_diff_render.maps import Map, load_map, save_map
from nv_diff_render.materials import MATERIALS
from nv_diff_render.mesh_builder import build_block_mesh
from nv_diff_render.webgpu import WebGpuRenderer

_FOV, _NEAR, _FAR = 60.0, 0.1, 500.0


def main(arguments: list[str] | None = None) -> int:
    """Run the command line. Return 0 on success, 2 for bad input, 3 if WebGPU is not available."""
    options = _parser().parse_args(arguments)
    try:
        world = load_map(options.map) if options.map else generate(options.world, options.grid, options.seed)
        cameras = [camera(view) for view in _views(world.grid, options)]
        pictures = _draw_views(world, cameras, options.size)
        _write(world, cameras, pictures, options)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ImportError as error:
        print(f"error: {error}", file=sys.stderr)
        return 3
    return 0


def generate(name: str, size: tuple[int, int, int], seed: int) -> Map:
    """Return a generated world as a map."""
    materials = worlds.WORLDS[name](size, seed)
    positions = materials.nonzero()
    chosen = materials[tuple(positions.unbind(1))]
    capture_id = f"{name} {'x'.join(map(str, size))} seed {seed}"
    return Map(Grid(size), [(x, y, z) for x, y, z in positions.tolist()], chosen.tolist(), capture_id)


def draw(world: Map, cameras: list[dataset.Camera], size: int) -> tuple[list[dataset.Picture], str]:
    """Draw a map with WebGPU. Return the pictures uint8 [size, size, 4] and the name of the adapter."""
    logits = torch.nn.functional.one_hot(torch.tensor(world.materials, dtype=torch.int64), len(MATERIALS)).float()
    grid = world.grid
    vertices, _, attributes = build_block_mesh(
        world.positions, logits * 10, grid.size, grid.world_scale, hard_assignment=True
    )
    renderer = WebGpuRenderer(vertices, attributes)
    return [renderer.draw(each.view, each.projection, size, size) for each in cameras], renderer.adapter


def _draw_views(world: Map, cameras: list[dataset.Camera], size: int) -> list[dataset.Picture]:
    pictures, adapter = draw(world, cameras, size)
    print(f"Drew {len(pictures)} views of {len(world.positions)} blocks at {size}x{size} with {adapter}")
    return pictures


def _write(
    world: Map, cameras: list[dataset.Camera], pictures: list[dataset.Picture], options: argparse.Namespace
) -> None:
    capture_id = world.capture_id or hashlib.sha256(f"{world}".encode()).hexdigest()[:16]
    now = datetime.now(UTC).isoformat(timespec="seconds")
    path = options.maps / str(options.dataset_id) / "map.json"
    save_map(path, Map(world.grid, world.positions, world.materials, capture_id))
    folder = options.datasets / str(options.dataset_id)
    dataset.write(folder, cameras, pictures, capture_id=capture_id, captured_at=now)
    print(f"Saved: {folder / dataset.METADATA}\nSaved: {path}")


def _views(grid: Grid, options: argparse.Namespace) -> torch.Tensor:
    place = worlds.inside if options.inside else worlds.around
    return place(grid.size, grid.world_scale, options.views)


def camera(view: torch.Tensor) -> dataset.Camera:
    """Return a camera with this view matrix [4, 4] and a vertical field of view of 60 degrees."""
    projection = create_perspective_matrix(math.radians(_FOV), 1.0, _NEAR, _FAR)
    return dataset.Camera(view, projection, _FOV, _NEAR, _FAR)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m nv_diff_render.capture", description=__doc__)
    parser.add_argument("--dataset_id", type=int, required=True, help="number of the dataset")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--map", type=Path, help="map.json of the world to draw")
    source.add_argument(
        "--world", choices=sorted(worlds.WORLDS), default="terrain", help="generated world to draw (terrain)"
    )
    parser.add_argument("--seed", type=int, default=1, help="seed of the generated world (1)")
    parser.add_argument(
        "--grid",
        type=int,
        nargs=3,
        action=_GridSize,
        default=(64, 48, 64),
        metavar=("X", "Y", "Z"),
        help="size of the generated world in cells",
    )
    parser.add_argument("--views", type=_positive, default=4, help="number of cameras (4)")
    parser.add_argument("--inside", action="store_true", help="place the cameras inside the world instead of around it")
    parser.add_argument("--size", type=_positive, default=512, help="width and height in pixels (512)")
    parser.add_argument("--datasets", type=Path, default=Path("datasets"), help="folder for datasets (datasets)")
    parser.add_argument("--maps", type=Path, default=Path("maps"), help="folder for maps (maps)")
    return parser


class _GridSize(argparse.Action):
    def __call__(self, _parser: object, namespace: argparse.Namespace, values: object, _option: object = None) -> None:
        assert isinstance(values, list)
        namespace.grid = tuple(values)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected an integer >= 1")
    return value


if __name__ == "__main__":
    sys.exit(main())
