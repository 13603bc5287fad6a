"""Tests of the core with the rules of nvdiffrast and WebGPU: snapping, top-left rule, culling, clipping."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_rasterizer import clipping, core, meshes
from torch_rasterizer.convention import CUSTOM_RASTERIZER, NVDIFFRAST, SWIFTSHADER, WEBGPU, Convention

EXACT = [NVDIFFRAST, WEBGPU, SWIFTSHADER]
BY_NAME = pytest.mark.parametrize("convention", EXACT, ids=lambda each: each.name)


def clip(points: list[tuple[float, float]], size: tuple[int, int], convention: Convention) -> torch.Tensor:
    """Return clip positions [1, N, 4] at x, y in pixels, where y increases from the row of y = row_zero."""
    height, width = size
    across = torch.tensor([x / width * 2 - 1 for x, _ in points])
    down = torch.tensor([(y / height * 2 - 1) * -convention.row_zero for _, y in points])
    return torch.stack([across, down, torch.full_like(across, 0.5), torch.ones_like(across)], dim=1)[None]


def covered(points: list[tuple[float, float]], faces: list[list[int]], size: tuple[int, int], convention: Convention):  # type: ignore[no-untyped-def]
    """Return how many of the faces, drawn one by one, cover each pixel."""
    either = replace(convention, cull="none")
    return sum(
        (core.rasterize(clip(points, size, convention), torch.tensor([face]).int(), size, either)[0][0] > 0).int()
        for face in faces
    )


@BY_NAME
@pytest.mark.parametrize("other", [[[0, 1, 2], [0, 2, 3]], [[0, 1, 3], [1, 2, 3]], [[2, 1, 0], [0, 2, 3]]])
def test_quad_covers_each_pixel_once(convention: Convention, other: list[list[int]]) -> None:
    """The diagonal and the outline run through samples."""
    corners = [(1.5, 1.5), (9.5, 1.5), (9.5, 9.5), (1.5, 9.5)]
    found = covered(corners, other, (12, 12), convention)
    expected = torch.zeros(12, 12, dtype=torch.int32)
    # Samples on the left and top edges are covered, samples on the right and bottom edges are not.
    expected[1:9, 1:9] = 1
    assert torch.equal(found, expected)


@BY_NAME
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), step=st.sampled_from([0.5, 0.25, 0.01]))
def test_fans_cover_each_pixel_once(convention: Convention, seed: int, step: float) -> None:
    """Triangles around a point, on and off the grid, neither overlap nor leave gaps."""
    random = np.random.default_rng(seed)
    outline = [(0.5, 0.5), (8.0, 0.25), (15.5, 0.5), (15.5, 15.5), (6.0, 15.75), (0.5, 15.5)]
    middle = tuple(np.round(random.uniform(4, 12, 2) / step) * step)
    faces = [[6, k, (k + 1) % 6] for k in range(6)]
    found = covered([*outline, middle], faces, (16, 16), convention)
    assert int(found.max()) == 1
    assert bool((found[1:15, 1:15] == 1).all())


@BY_NAME
def test_vertices_are_snapped_to_the_subpixel_grid(convention: Convention) -> None:
    """An edge just above a row of samples covers the row only if it is rounded to the row."""
    grid = 2.0 ** (convention.subpixel_bits or 0)
    for off, expected in ((0.4 / grid, True), (0.6 / grid, False)):
        corners = [(1.0, 4.5 + off), (11.0, 4.5 + off), (11.0, 8.0), (1.0, 8.0)]
        found = covered(corners, [[0, 1, 2], [0, 2, 3]], (12, 12), convention)
        assert bool((found[4, 2:10] == 1).all()) is expected
        assert bool((found[5, 2:10] == 1).all())


@pytest.mark.parametrize("convention", [WEBGPU, SWIFTSHADER], ids=lambda each: each.name)
def test_back_faces_are_not_drawn(convention: Convention) -> None:
    corners = clip([(1, 1), (1, 9), (9, 9)], (10, 10), convention)
    for face, drawn in (([0, 1, 2], True), ([0, 2, 1], False)):
        ids, _, _ = core.rasterize(corners, torch.tensor([face]).int(), (10, 10), convention)
        assert bool(ids.any()) is drawn


def test_nearest_face_wins_and_lowest_index_breaks_ties() -> None:
    big = [(-3.0, -3.0), (-3.0, 30.0), (30.0, -3.0)]
    vertices = torch.cat([clip(big, (8, 8), WEBGPU)] * 3, dim=1)
    vertices[0, 3:6, 2] = 0.25
    vertices[0, 6:9, 2] = 0.25
    faces = torch.arange(9).int().reshape(3, 3)
    ids, _, depth = core.rasterize(vertices, faces, (8, 8), WEBGPU)
    assert ids.unique().tolist() == [2]
    assert float(depth[0, 3, 3]) == pytest.approx(0.25)


@BY_NAME
def test_clipped_faces_keep_their_barycentrics(convention: Convention) -> None:
    """The barycentrics of a floor that crosses the near plane and the eye plane give the positions of the pixels."""
    convention = replace(convention, cull="none")
    floor = torch.tensor([[-30.0, -1, 20, 20], [30, -1, 20, 20], [0, -1, -25, -20]])[None]
    faces = torch.tensor([[0, 1, 2]]).int()
    size = (40, 50)
    ids, weights, depth = core.rasterize(floor, faces, size, convention)
    assert 0.2 < float((ids > 0).float().mean()) < 0.8
    row, column = (ids[0] > 0).nonzero().unbind(1)
    seen = weights[0, row, column] @ floor[0]
    across, down = (column + 0.5) / 50 * 2 - 1, ((row + 0.5) / 40 * 2 - 1) * -convention.row_zero
    # Snapping moves corners by up to half a grid step: a large distance in space at the horizon, a small one on screen.
    step = 4 / 40 / 2.0 ** (convention.subpixel_bits or 0)
    assert float((seen[:, 0] / seen[:, 3] - across).abs().max()) < 2 * step
    assert float((seen[:, 1] / seen[:, 3] - down).abs().max()) < 2 * step
    assert float(depth.min()) >= 0
    assert float(depth.max()) <= 1
    torch.testing.assert_close(weights[0, row, column].sum(dim=1), torch.ones(len(row)))


@BY_NAME
def test_clipped_faces_keep_their_order_and_barycentrics(convention: Convention) -> None:
    """The order of the faces breaks depth ties, and each face keeps its own barycentrics."""
    convention = replace(convention, cull="none")
    floor = [[-30.0, -1, 20, 20], [30, -1, 20, 20], [0, -1, -25, -20]]
    aside = [[-0.9, 0.5, 0.4, 1], [-0.5, 0.5, 0.4, 1], [-0.9, 0.9, 0.4, 1]]
    vertices = torch.tensor([*floor, *aside])
    faces = torch.arange(6).int().reshape(2, 3)
    owner = clipping.clip(vertices, faces, convention).owner
    assert len(owner) > 2
    assert torch.equal(owner, owner.sort().values)
    ids, weights, _ = core.rasterize(vertices[None], faces, (32, 32), convention)
    assert ids.unique().tolist() == [0, 1, 2]
    row, column = (ids[0] > 0).nonzero().unbind(1)
    corners = vertices[faces.long()[ids[0, row, column].long() - 1]]
    seen = (weights[0, row, column][:, :, None] * corners).sum(dim=1)
    step = 4 / 32 / 2.0 ** (convention.subpixel_bits or 0)
    assert float((seen[:, 0] / seen[:, 3] - ((column + 0.5) / 16 - 1)).abs().max()) < 2 * step
    assert float((seen[:, 1] / seen[:, 3] - ((row + 0.5) / 16 - 1) * -convention.row_zero).abs().max()) < 2 * step


@BY_NAME
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_clipped_meshes_have_no_seams(convention: Convention, seed: int) -> None:
    """A plane of many triangles that crosses the near plane covers each pixel below the horizon once."""
    convention = replace(convention, cull="none")
    random = np.random.default_rng(seed)
    x, z = (axis.ravel() for axis in np.meshgrid(np.linspace(-40, 40, 6), np.linspace(-8, 30, 7)))
    x, z = x + random.uniform(-2, 2, len(x)), z + random.uniform(-2, 2, len(z))
    near, far = 0.5, 100.0
    depth = (z * (far + near) - 2 * far * near) / (far - near)
    if convention.depth_offset == 0:
        depth = (z * far - far * near) / (far - near)
    vertices = torch.from_numpy(np.stack([x, np.full_like(x, -1.0), depth, z], axis=1)).float()[None]
    at = np.arange(42).reshape(7, 6)
    quads = np.stack([at[:-1, :-1], at[:-1, 1:], at[1:, 1:], at[1:, :-1]], axis=-1).reshape(-1, 4)
    faces = torch.from_numpy(np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])).int()
    size = (24, 24)
    count = sum((core.rasterize(vertices, face[None], size, convention)[0][0] > 0).int() for face in faces)
    together = core.rasterize(vertices, faces, size, convention)[0][0] > 0
    assert int(count.max()) == 1
    assert torch.equal(count > 0, together)
    below = slice(16, 24) if convention.row_zero == 1 else slice(0, 8)
    assert bool(together[below].all())


def test_custom_rasterizer_does_not_clip() -> None:
    vertices, faces = meshes.sphere(40)
    mesh = clipping.clip(vertices * torch.tensor([1.0, 1, 9, 1]), faces, CUSTOM_RASTERIZER)
    assert mesh.unchanged
    assert mesh.faces is faces


@pytest.mark.parametrize(
    "change", [{"fill": "top_left"}, {"subpixel_bits": 4}, {"depth_bits": 25}, {"depth_bits": 0}], ids=str
)
def test_rejects_invalid_conventions(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="Convention: "):
        replace(CUSTOM_RASTERIZER, **change)  # type: ignore[arg-type]
