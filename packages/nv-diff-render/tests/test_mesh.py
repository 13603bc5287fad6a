from __future__ import annotations

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nv_diff_render import (
    block_to_world,
    build_block_mesh,
    build_mesh_from_grid,
    get_face_vertex_world,
    get_material_palette,
    is_in_bounds,
)
from nv_diff_render.grid import Grid
from nv_diff_render.mesh_builder import block_faces, material_weights
from nv_diff_render.shading import NORMALS

_sizes = st.tuples(*[st.integers(1, 5)] * 3)


@st.composite
def _blocks(draw: st.DrawFn) -> tuple[tuple[int, int, int], list[tuple[int, int, int]]]:
    size = draw(_sizes)
    cells = list(product(*map(range, size)))
    return size, draw(st.lists(st.sampled_from(cells), unique=True, max_size=40))


@settings(max_examples=200, deadline=None)
@given(_blocks(), st.booleans())
def test_faces_equal_a_loop_over_cells_and_sides(
    world: tuple[tuple[int, int, int], list[tuple[int, int, int]]], check: bool
) -> None:
    """The loop runs over y, z, x and sides, in the order of the engine's mesh."""
    size, positions = world
    filled = set(positions)
    expected = []
    for y, z, x in product(range(size[1]), range(size[2]), range(size[0])):
        if (x, y, z) in filled:
            for side, (nx, ny, nz) in enumerate(NORMALS):
                if not check or (x + int(nx), y + int(ny), z + int(nz)) not in filled:
                    expected.append((positions.index((x, y, z)), side))
    grid = Grid(size)
    found = block_faces(grid.positions(positions), grid, neighbor_check=check)
    assert list(zip(found.block.tolist(), found.side.tolist(), strict=True)) == expected


def test_builds_the_mesh_of_one_block() -> None:
    vertices, faces, attributes = build_block_mesh([(32, 5, 32)], torch.eye(8)[3:4] * 100, (64, 48, 64), 2.0)
    assert vertices.shape == (36, 3)
    assert faces.dtype == torch.int32
    assert faces.tolist() == torch.arange(36).reshape(12, 3).tolist()
    # East: corners 100, 110, 111, 101 of the block whose smallest corner is (0, 10, 0).
    assert block_to_world((32, 5, 32)) == (0, 10, 0)
    corners = [[2, 10, 0], [2, 12, 0], [2, 12, 2], [2, 10, 2]]
    assert vertices[:6].tolist() == [corners[at] for at in (0, 1, 2, 0, 2, 3)]
    assert attributes["uvs"][:6].tolist() == [[0, 1], [0, 0], [1, 0], [0, 1], [1, 0], [1, 1]]
    torch.testing.assert_close(attributes["colors"][12], get_material_palette()[3, 0])
    torch.testing.assert_close(attributes["colors"][18], get_material_palette()[3, 1])
    torch.testing.assert_close(attributes["colors"][0], get_material_palette()[3, 2])
    assert attributes["material_weights"].shape == (36, 8)


def test_triangles_are_counter_clockwise_from_outside() -> None:
    vertices, faces, attributes = build_block_mesh([(0, 0, 0)], torch.zeros(1, 8), (1, 1, 1))
    a, b, c = (vertices[faces[:, corner].long()] for corner in range(3))
    normals = torch.linalg.cross(b - a, c - a)
    torch.testing.assert_close(normals / normals.norm(dim=1, keepdim=True), attributes["normals"][::3])


def test_builds_the_mesh_of_a_dense_grid() -> None:
    materials = torch.zeros(3, 4, 5, dtype=torch.int64)
    materials[1, 2, 3], materials[1, 2, 4] = 7, 6
    vertices, _, attributes = build_mesh_from_grid(materials)
    assert len(vertices) == 10 * 6
    assert set(attributes["material_weights"].argmax(1).tolist()) == {6, 7}
    empty, faces, _ = build_mesh_from_grid(torch.zeros(3, 4, 5, dtype=torch.int64))
    assert empty.shape == (0, 3)
    assert faces.shape == (0, 3)


def test_converts_positions_to_world() -> None:
    assert get_face_vertex_world((0, 0, 0), (2, 1), (2, 2, 2), 1.0) == (-1, 1, 0)
    assert get_face_vertex_world((0, 0, 0), (1, 1, 1), (3, 2, 2), 1.0) == (-0.5, 1, 0)
    assert is_in_bounds((63, 47, 63))
    assert not is_in_bounds((64, 0, 0))
    assert not is_in_bounds((0, -1, 0))
    with pytest.raises(ValueError, match="outside the grid"):
        block_to_world((64, 0, 0))


@pytest.mark.parametrize(
    ("positions", "kind", "message"),
    [
        ([(0, 0, 0), (4, 0, 0)], ValueError, r"positions\[1\] is \(4, 0, 0\): outside the grid of \(4, 4, 4\) cells"),
        ([(0, -1, 0)], ValueError, r"positions\[0\] is \(0, -1, 0\)"),
        ([(1, 1, 1), (0, 0, 0), (1, 1, 1)], ValueError, r"positions\[0\] and positions\[2\] are both \(1, 1, 1\)"),
        ([(0.5, 0, 0)], TypeError, "expected integers, found torch.float32"),
        ([(0, 0)], ValueError, r"expected \[N, 3\], found \[1, 2\]"),
        ([(0, 0, 0), (0, 0)], TypeError, r"expected integers \[N, 3\], found list"),
        (["abc"], TypeError, r"expected integers \[N, 3\]"),
    ],
)
def test_rejects_bad_positions(positions: list[tuple[int, int, int]], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        build_block_mesh(positions, torch.zeros(len(positions), 8), (4, 4, 4))


def test_rejects_bad_arguments() -> None:
    with pytest.raises(ValueError, match="grid_size is"):
        build_block_mesh([], torch.zeros(0, 8), (0, 4, 4))
    with pytest.raises(ValueError, match="world_scale is"):
        build_block_mesh([], torch.zeros(0, 8), (4, 4, 4), world_scale=0)
    with pytest.raises(ValueError, match=r"material_logits: expected \[1, 8\], found \[2, 8\]"):
        build_block_mesh([(0, 0, 0)], torch.zeros(2, 8), (4, 4, 4))
    with pytest.raises(ValueError, match=r"material_logits: expected \[N, 8\], found \[1, 7\]"):
        build_block_mesh([(0, 0, 0)], torch.zeros(1, 7), (4, 4, 4))
    with pytest.raises(ValueError, match=r"materials\[0, 1, 0\] is 8"):
        build_mesh_from_grid(torch.tensor([[[0], [8]]]))
    with pytest.raises(TypeError, match="expected material indices"):
        build_mesh_from_grid(torch.zeros(1, 1, 1))
    with pytest.raises(ValueError, match="temperature is 0"):
        material_weights(torch.zeros(1, 8), temperature=0)


def test_hard_weights_have_the_gradient_of_soft_weights() -> None:
    torch.manual_seed(0)
    logits = torch.randn(200, 8, dtype=torch.float64, requires_grad=True)
    factors = torch.randn(200, 8, dtype=torch.float64)
    hard = material_weights(logits, temperature=0.7, hard=True)
    assert torch.equal(hard.argmax(1), logits.argmax(1))
    torch.testing.assert_close(hard.detach(), torch.nn.functional.one_hot(logits.argmax(1), 8).double())
    gradient = torch.autograd.grad((hard * factors).sum(), logits)[0]
    soft = torch.autograd.grad((material_weights(logits, temperature=0.7) * factors).sum(), logits)[0]
    torch.testing.assert_close(gradient, soft)


def test_exclude_air_gives_air_no_weight() -> None:
    weights = material_weights(torch.tensor([[9.0, 0, 0, 0, 0, 0, 0, 0]]), exclude_air=True)
    torch.testing.assert_close(weights, torch.tensor([[0.0, *[1 / 7] * 7]]))


def test_gumbel_samples_have_the_softmax_distribution() -> None:
    logits = torch.log(torch.tensor([0.5, 0.2, 0.1, 0.1, 0.05, 0.05, 1e-9, 1e-9])).expand(20000, 8)
    random = torch.Generator().manual_seed(3)
    drawn = material_weights(logits, hard=True, gumbel=random).mean(0)
    torch.testing.assert_close(drawn, torch.softmax(logits[0], 0), atol=0.015, rtol=0)
    again = material_weights(logits, hard=True, gumbel=torch.Generator().manual_seed(3)).mean(0)
    assert torch.equal(drawn, again)
