"""map.json: the blocks of a world in the format of the editor."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nv_diff_render.files import read_json, write_atomic
from nv_diff_render.grid import Grid, Position
from nv_diff_render.materials import AIR, material_index, material_index_to_name


@dataclass(frozen=True)
class Map:
    """A world: its grid, the positions and material indices of its blocks, and the id of its capture."""

    grid: Grid
    positions: list[Position]
    materials: list[int]
    capture_id: str = ""


def load_map(path: Path | str) -> Map:
    """Read a map.json; blocks of Air are skipped.

    Raises:
        ValueError: if the file is malformed; the message names the place.
        OSError: if the file cannot be read.
    """
    data = read_json(Path(path))
    place = str(path)
    config = _get(data, "worldConfig", Mapping, place)
    sizes = _get(config, "dimensions", Mapping, f"{place}: worldConfig")
    x, y, z = (_integer(sizes.get(axis), f"{place}: worldConfig.dimensions.{axis}") for axis in "xyz")
    scale = data.get("worldScale", 2.0)
    if isinstance(scale, bool) or not isinstance(scale, (int, float)):
        raise ValueError(f"{place}: worldScale: expected a number, found {scale!r}")
    try:
        grid = Grid((x, y, z), float(scale))
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error
    blocks = [
        _parse_block(block, grid, f"{place}: blocks[{at}]")
        for at, block in enumerate(_get(data, "blocks", list, place))
    ]
    return _make_map(grid, blocks, str(data.get("captureId", "")), place)


def save_map(path: Path | str, found: Map) -> None:
    """Write a map.json atomically."""
    x, y, z = found.grid.size
    blocks = [
        {"position": list(position), "blockType": material_index_to_name(material)}
        for position, material in zip(found.positions, found.materials, strict=True)
    ]
    content = {
        "sequence": 1,
        "captureId": found.capture_id,
        "worldScale": found.grid.world_scale,
        "worldConfig": {"dimensions": {"x": x, "y": y, "z": z}},
        "blocks": blocks,
        "customBlocks": [],
    }
    write_atomic(Path(path), (json.dumps(content) + "\n").encode())


def _parse_block(block: object, grid: Grid, place: str) -> tuple[Position, int]:
    if not isinstance(block, Mapping):
        raise ValueError(f"{place}: expected an object, found {type(block).__name__}")
    position = block.get("position")
    if isinstance(position, Mapping):
        position = [position.get(axis) for axis in "xyz"]
    if not isinstance(position, list) or len(position) != 3:
        raise ValueError(f"{place}.position: expected [x, y, z], found {position!r}")
    x, y, z = (_integer(at, f"{place}.position") for at in position)
    if not grid.is_in_bounds((x, y, z)):
        raise ValueError(f"{place}.position: {(x, y, z)} is outside the world of {grid.size} cells")
    kind = block.get("blockType")
    if isinstance(kind, bool) or not isinstance(kind, (str, int)):
        raise ValueError(f"{place}.blockType: expected a material's name or index, found {kind!r}")
    try:
        return (x, y, z), material_index(kind)
    except ValueError as error:
        raise ValueError(f"{place}.blockType: {error}") from error


def _make_map(grid: Grid, blocks: list[tuple[Position, int]], capture_id: str, place: str) -> Map:
    seen: dict[Position, int] = {}
    for at, (position, _) in enumerate(blocks):
        if position in seen:
            raise ValueError(
                f"{place}: blocks[{at}].position: {position} is also the position of blocks[{seen[position]}]"
            )
        seen[position] = at
    kept = [block for block in blocks if block[1] != AIR]
    return Map(grid, [position for position, _ in kept], [material for _, material in kept], capture_id)


def _get(data: Mapping[str, Any], key: str, kind: type, place: str) -> Any:
    if not isinstance(data.get(key), kind):
        found = type(data[key]).__name__ if key in data else "nothing"
        raise ValueError(f"{place}: {key}: expected {kind.__name__.lower()}, found {found}")
    return data[key]


def _integer(value: object, place: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{place}: expected an integer, found {value!r}")
    return value
