from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from nv_diff_render import DifferentiableBlockWorld
from nv_diff_render.maps import Map, load_map, save_map

_SIZE = (6, 5, 4)


def _world() -> DifferentiableBlockWorld:
    return DifferentiableBlockWorld(_SIZE)


def test_places_and_changes_blocks() -> None:
    world = _world()
    stone = world.place_block((1, 2, 3), material="Stone")
    assert isinstance(stone, torch.nn.Parameter)
    assert stone.tolist() == [0, 0, 0, 10, 0, 0, 0, 0]
    assert world.place_block((1, 2, 3), material=1, bias_strength=3.0) is stone
    assert stone.tolist() == [0, 3, 0, 0, 0, 0, 0, 0]
    given = torch.arange(8.0)
    assert world.place_block((0, 0, 0), logits=given).tolist() == given.tolist()
    drawn = torch.stack([world.place_block((x, 1, 0)).detach() for x in range(6)])
    assert 0.02 < drawn.std() < 0.3
    assert world.get_positions()[:2] == [(1, 2, 3), (0, 0, 0)]
    assert world.get_material_logits().shape == (8, 8)
    assert [position for position, _ in world.blocks] == world.get_positions()
    assert (1, 2, 3) in world
    assert world.get_block((1, 2, 3)) is stone
    assert world.get_block((5, 0, 0)) is None


def test_blocks_share_memory_and_gradient_with_the_table() -> None:
    world = _world()
    first = world.place_block((0, 0, 0), material="Stone")
    others = [world.place_block((x, y, 1), material="Sand") for x in range(6) for y in range(5)]
    assert first.tolist()[3] == 10
    (world.logits * torch.arange(31.0)[:, None]).sum().backward()
    assert first.grad is not None
    assert first.grad.tolist() == [0.0] * 8
    assert others[4].grad is not None
    assert others[4].grad.tolist() == [5.0] * 8
    torch.optim.SGD([others[4]], lr=1.0).step()
    assert world.logits[5].tolist() == [-5, -5, -5, -5, -5, -5, 5, -5]
    others[4].grad = None
    assert world.logits.grad is not None
    assert not world.logits.grad[5].any()
    assert len(list(world.parameters())) == 1


def test_any_sequence_of_changes_equals_a_dictionary() -> None:
    """Random placements and removals leave the content of a dictionary, in its order."""
    for seed in range(20):
        choose, world, kept = random.Random(seed), _world(), dict[Any, Any]()
        views: dict[Any, Any] = {}
        for _ in range(60):
            place = tuple(choose.randrange(end) for end in _SIZE)
            if choose.random() < 0.35:
                assert world.remove_block(place) == (kept.pop(place, None) is not None)  # type: ignore[arg-type]
                views.pop(place, None)
            else:
                material = choose.randrange(8)
                views[place] = world.place_block(place, material)  # type: ignore[arg-type]
                kept[place] = material
            assert world.get_positions() == list(kept)
            assert world.logits.argmax(1).tolist() == list(kept.values())
            assert all(int(view.argmax()) == kept[at] for at, view in views.items())


def test_fills_and_converts_to_dense_grids() -> None:
    world = _world()
    world.fill((0, 0, 0), (5, 1, 3), "Dirt")
    world.place_blocks([(0, 2, 0), (1, 2, 0)], torch.tensor([5, 6]))
    grid = world.to_grid()
    assert grid.shape == _SIZE
    assert (grid == 2).sum() == 48
    assert grid[0, 2, 0] == 5
    other = _world()
    other.from_grid(grid)
    assert torch.equal(other.to_grid(), grid)
    world.clear()
    assert len(world) == 0
    assert not world.to_grid().any()


def test_saves_and_loads_the_state(tmp_path: Path) -> None:
    world = _world()
    for x in range(6):
        world.place_block((x, 0, 0))
    torch.save(world.state_dict_blocks(), tmp_path / "world.pt")
    other = _world()
    other.place_block((0, 4, 0))
    other.load_state_dict_blocks(torch.load(tmp_path / "world.pt"))
    assert other.get_positions() == world.get_positions()
    assert torch.equal(other.logits, world.logits)
    with pytest.raises(ValueError, match="the state has grid size and scale"):
        DifferentiableBlockWorld((9, 9, 9)).load_state_dict_blocks(world.state_dict_blocks())
    with pytest.raises(ValueError, match="the state lacks logits"):
        other.load_state_dict_blocks({"positions": [], "grid_size": _SIZE, "world_scale": 2.0})
    assert other.get_positions() == world.get_positions()


def test_saves_and_loads_maps(tmp_path: Path) -> None:
    world = _world()
    world.fill((0, 0, 0), (1, 1, 1), "Water")
    found = Map(world.renderer.grid, world.get_positions(), world.logits.argmax(1).tolist(), "id")
    save_map(tmp_path / "maps" / "map.json", found)
    assert load_map(tmp_path / "maps" / "map.json") == found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda world: world.place_block((6, 0, 0)), r"\(6, 0, 0\): outside the grid"),
        (lambda world: world.place_block((0, 0, 0), material="Stoen"), "did you mean 'Stone'"),
        (lambda world: world.place_block((0, 0, 0), material=9), "unknown material index 9"),
        (lambda world: world.place_block((0, 0, 0), logits=torch.zeros(7)), r"logits: expected \[8\]"),
        (lambda world: world.place_block((0, 0, 0), "Stone", torch.zeros(8)), "found both"),
        (lambda world: world.place_blocks([(0, 0, 0)], torch.tensor([1, 2])), r"material: expected \[1\]"),
        (lambda world: world.place_blocks([(0, 0, 0), (9, 0, 0)]), r"positions\[1\]"),
        (lambda world: world.fill((2, 0, 0), (1, 0, 0)), "is below"),
        (lambda world: world.from_grid(torch.zeros(1, 1, 1, dtype=torch.int64)), r"expected \[6, 5, 4\]"),
    ],
)
def test_rejected_changes_leave_the_world_unchanged(change: Any, message: str) -> None:
    world = _world()
    world.place_block((0, 0, 0), material="Snow")
    with pytest.raises((ValueError, TypeError), match=message):
        change(world)
    assert world.get_positions() == [(0, 0, 0)]
    assert world.logits.argmax(1).tolist() == [5]


_GOOD = '{"worldScale": 2, "worldConfig": {"dimensions": {"x": 4, "y": 4, "z": 4}}, "blocks": [%s]}'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"map.json:1:2: not JSON"),
        ("3", "expected an object, found int"),
        ('{"blocks": []}', "worldConfig: expected mapping, found nothing"),
        (_GOOD.replace('"y": 4', '"y": 0') % "", "grid_size is"),
        (_GOOD.replace('"y": 4', '"y": "4"') % "", "worldConfig.dimensions.y: expected an integer, found '4'"),
        (_GOOD.replace('"worldScale": 2', '"worldScale": "2"') % "", "worldScale: expected a number"),
        (_GOOD % "3", r"blocks\[0\]: expected an object"),
        (_GOOD % '{"position": [0, 0], "blockType": "Sand"}', r"blocks\[0\].position: expected \[x, y, z\]"),
        (_GOOD % '{"position": [0, 9, 0], "blockType": "Sand"}', r"blocks\[0\].position: \(0, 9, 0\) is outside"),
        (_GOOD % '{"position": [0, 0, 0], "blockType": "Sandd"}', r"blocks\[0\].blockType: .*did you mean 'Sand'"),
        (_GOOD % '{"position": [0, 0, 0]}', r"blocks\[0\].blockType: expected a material's name or index"),
        (
            _GOOD % '{"position": [0, 0, 0], "blockType": 1}, {"position": {"x": 0, "y": 0, "z": 0}, "blockType": 2}',
            r"blocks\[1\].position: \(0, 0, 0\) is also the position of blocks\[0\]",
        ),
    ],
)
def test_rejects_bad_maps(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_map(path)
