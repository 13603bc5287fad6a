"""Tests of custom_rasterizer's pixels against its recorded output, a reference loop, and among the modes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import reference_rasterizer as reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_rasterizer import PyTorchRasterizer, create_optimized_rasterizer, meshes, rasterize_large_mesh
from torch_rasterizer.depth import KeyBuffer

CASES = sorted((Path(__file__).parent / "golden").glob("raster_*.npz"))
RASTERIZERS = {
    "auto": PyTorchRasterizer("cpu"),
    "tiled": create_optimized_rasterizer("tiled", tile_size=37),
    "batched": create_optimized_rasterizer("batched", batch_size=17),
    "MPS code path": PyTorchRasterizer("cpu", emulate_mps=True),
}


def mesh(seed: int, kind: str, count: int, width: int, height: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return random triangles; each kind is difficult in a different way."""
    random = np.random.default_rng(seed)
    vertices = random.uniform(-1.2, 1.2, (3 * count, 4))
    vertices[:, 3] = random.uniform(0.2, 3, 3 * count)
    if kind == "grid":
        vertices = np.round(vertices * 8) / 8
        vertices[:, 3] = 1
    elif kind == "pixel centres":
        size = np.array([width, height]) - 1
        vertices[:, :2] = np.round((vertices[:, :2] * 0.5 + 0.5) * size) / np.maximum(size, 1) * 2 - 1
        vertices[:, 3] = 1
    elif kind == "all sizes":
        vertices[:, :2] *= 10.0 ** random.uniform(-4, 3)
    elif kind == "slivers":
        vertices[1::3, :2] = vertices[::3, :2] + random.normal(0, 10.0 ** random.uniform(-8, -1), (count, 2))
    elif kind == "negative w":
        vertices[:, 3] = random.normal(0, 1, 3 * count) + 1e-3
    faces = np.arange(3 * count, dtype=np.int32).reshape(-1, 3)
    return torch.from_numpy(vertices.astype(np.float32)), torch.from_numpy(faces)


def drawn(
    rasterizer: PyTorchRasterizer, vertices: torch.Tensor, faces: torch.Tensor, size: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    width, height = size
    return rasterizer.rasterize_image(vertices, faces, torch.zeros(0), width, height, 1e-6, 0)


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.equal(one.contiguous().view(torch.int32), other.contiguous().view(torch.int32))


def test_all_recorded_cases_exist() -> None:
    assert len(CASES) == 7


@pytest.mark.parametrize("mode", RASTERIZERS)
@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_equals_custom_rasterizer(case: Path, mode: str) -> None:
    data = np.load(case)
    width, height = int(data["width"]), int(data["height"])
    arrays = (torch.from_numpy(data[name]) for name in "VFD")
    options = width, height, float(data["occlusion_truncation"]), int(data["use_depth_prior"])
    ids, barycentric = RASTERIZERS[mode].rasterize_image(*arrays, *options)
    assert int((ids != torch.from_numpy(data["findices"])).sum()) == 0
    assert same_bits(barycentric, torch.from_numpy(data["barycentric"]))


KINDS = ("plain", "grid", "pixel centres", "all sizes", "slivers", "negative w")


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(KINDS),
    count=st.integers(1, 40),
    size=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    prior=st.booleans(),
)
def test_equals_reference_loop(seed: int, kind: str, count: int, size: tuple[int, int], prior: bool) -> None:
    width, height = size
    vertices, faces = mesh(seed, kind, count, width, height)
    depth = np.random.default_rng(seed).uniform(-1, 1, width * height).astype(np.float32) if prior else None
    expected, weights, _ = reference.rasterize(vertices.numpy(), faces.numpy(), width, height, depth)
    prior_tensor = None if depth is None else torch.from_numpy(depth)
    results = [
        each.rasterize_image(vertices, faces, prior_tensor, width, height, 1e-6, int(prior))
        for each in RASTERIZERS.values()
    ]
    for ids, barycentric in results[:3]:
        assert np.array_equal(ids.numpy(), expected)
        assert np.array_equal(barycentric.numpy(), weights, equal_nan=True)
    # Without float64 the last bit of alpha may differ, which can change pixels on edges.
    assert int((results[3][0] != results[0][0]).sum()) <= 0.01 * width * height + 1


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    tile=st.integers(9, 60),
    batch=st.integers(7, 50),
)
def test_all_modes_give_the_same_pixels(seed: int, tile: int, batch: int) -> None:
    vertices, faces = mesh(seed, "plain", 40, 90, 50)
    whole = drawn(RASTERIZERS["auto"], vertices, faces, (90, 50))
    other = PyTorchRasterizer("cpu", tile_size=tile, batch_size=batch)
    assert all(map(torch.equal, whole, drawn(other, vertices, faces, (90, 50))))
    large = rasterize_large_mesh(vertices, faces, 90, 50, chunk_size=batch)
    assert all(map(torch.equal, whole, large))


def test_accepts_tiles_of_one_pixel() -> None:
    vertices, faces = mesh(0, "plain", 5, 6, 4)
    whole = drawn(RASTERIZERS["auto"], vertices, faces, (6, 4))
    assert all(
        map(torch.equal, whole, drawn(PyTorchRasterizer("cpu", tile_size=1, batch_size=1), vertices, faces, (6, 4)))
    )


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), kind=st.sampled_from(KINDS[:3]))
def test_order_of_faces_only_breaks_ties(seed: int, kind: str) -> None:
    vertices, faces = mesh(seed, kind, 40, 64, 64)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(faces)))
    ids, _ = drawn(RASTERIZERS["auto"], vertices, faces, (64, 64))
    moved, _ = drawn(RASTERIZERS["auto"], vertices, faces[order], (64, 64))
    named = torch.where(moved > 0, order[(moved.long() - 1).clamp(min=0)] + 1, 0)
    for row, column in (named != ids).nonzero().tolist():
        pair = faces[[int(ids[row, column]) - 1, int(named[row, column]) - 1]].numpy()
        depths = [reference.rasterize(vertices.numpy(), face[None], 64, 64)[2][row, column] for face in pair]
        assert depths[0] == depths[1]
        # The lowest index wins a tie, so that no tied face has a lower index in the first order.
        assert ids[row, column] < named[row, column]


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), right=st.integers(-9, 9), down=st.integers(-9, 9))
def test_translation_by_pixels_moves_the_picture(seed: int, right: int, down: int) -> None:
    """Samples that are not next to an edge keep their coverage and their face, except for ties."""
    vertices, faces = mesh(seed, "plain", 1, 65, 65)
    vertices[:, 3] = 1
    vertices[:, :2] *= 0.5
    there = vertices.clone()
    there[:, 0] += right / 32
    there[:, 1] += down / 32
    before, _ = drawn(RASTERIZERS["auto"], vertices, faces, (65, 65))
    after, _ = drawn(RASTERIZERS["auto"], there, faces, (65, 65))
    expected = torch.roll(before, (down, right), (0, 1))
    corners = reference.project(there.numpy(), 65, 65)[:, :2].astype(np.float64)
    for row, column in (after != expected).nonzero().tolist():
        sample = np.array([column + 0.5, row + 0.5])
        edges = [(corners[i], corners[(i + 1) % 3] - corners[i]) for i in range(3)]
        aside = [(sample - start) @ (-side[1], side[0]) / max(np.hypot(*side), 1e-9) for start, side in edges]
        assert min(map(abs, aside)) < 1e-3


def test_depth_prior_peels_layers() -> None:
    """Each layer used as depth prior yields the next layer."""
    layers = []
    for z in (-0.5, 0.2, 0.7):
        layers += [[-1, -1, z, 1], [1, -1, z, 1], [1, 1, z, 1], [-1, 1, z, 1]]
    vertices = torch.tensor(layers)
    faces = torch.tensor([[4 * k + a, 4 * k + b, 4 * k + c] for k in range(3) for a, b, c in ((0, 1, 2), (0, 2, 3))])
    faces = faces.to(torch.int32)
    seen = []
    for depth in (-1.0, -0.5, 0.2, 0.7):
        prior = torch.full((8, 8), depth)
        ids, _ = PyTorchRasterizer("cpu").rasterize_image(vertices, faces, prior, 8, 8, 1e-6, 1)
        seen.append(sorted({(int(value) + 1) // 2 for value in ids.unique()}))
    assert seen == [[1], [2], [3], [0]]


def test_draws_only_within_the_depth_bounds() -> None:
    """z / w = -1.00001 is drawn and -1.00003 is not; large depths are drawn up to about 16383."""
    faces = torch.tensor([[0, 1, 2]], dtype=torch.int32)
    for z, covered in ((-1.00001, True), (-1.00003, False), (100.0, True), (16382.0, True), (20000.0, False)):
        vertices = torch.tensor([[-1, -1, z, 1], [3, -1, z, 1], [-1, 3, z, 1]])
        ids, _ = drawn(RASTERIZERS["auto"], vertices, faces, (4, 4))
        assert bool((ids == 1).all()) is covered, z


@pytest.mark.parametrize(
    "kind", ["no faces", "no vertices", "before the near plane", "beside the screen", "without area"]
)
def test_draws_only_background(kind: str) -> None:
    vertices = torch.tensor([[-0.5, -0.5, 0, 1], [0.5, -0.5, 0, 1], [0, 0.5, 0, 1]])
    faces = torch.tensor([[0, 1, 2]], dtype=torch.int32)
    if kind in ("no faces", "no vertices"):
        faces = faces[:0]
        vertices = vertices[: 0 if kind == "no vertices" else None]
    elif kind == "before the near plane":
        vertices[:, 2] = -2
    elif kind == "beside the screen":
        vertices[:, 0] += 5
    else:
        faces = torch.tensor([[0, 1, 1]], dtype=torch.int32)
    for rasterizer in RASTERIZERS.values():
        ids, barycentric = drawn(rasterizer, vertices, faces, (9, 7))
        assert ids.shape == (7, 9)
        assert not ids.any()
        assert not barycentric.any()


def test_accepts_any_strides() -> None:
    vertices, faces = meshes.sphere(500)
    straight = drawn(RASTERIZERS["auto"], vertices, faces, (40, 30))
    wide = torch.zeros(len(vertices), 8)
    wide[:, ::2] = vertices
    turned = faces.T.contiguous().T
    assert all(map(torch.equal, straight, drawn(RASTERIZERS["auto"], wide[:, ::2], turned, (40, 30))))


def test_batch_equals_single_meshes() -> None:
    vertices, faces = meshes.torus(300)
    pair = torch.stack([vertices, vertices * torch.tensor([0.5, 0.5, 1, 1])])
    ids, barycentric = PyTorchRasterizer("cpu").rasterize(pair, faces, (20, 30))
    assert ids.shape == (2, 20, 30)
    for one in range(2):
        alone = PyTorchRasterizer("cpu").rasterize(pair[one : one + 1], faces, (20, 30))
        assert torch.equal(ids[one], alone[0])
        assert torch.equal(barycentric[one], alone[1])


def test_face_ids_above_2_to_the_24_are_exact() -> None:
    buffer = KeyBuffer(2, torch.device("cpu"))
    face = torch.tensor([2**31 - 1, 2**24 + 1])
    buffer.draw(torch.tensor([[0, 1]]), torch.tensor([[7.9, 3.0]]), face)
    buffer.draw(torch.tensor([[0, 1]]), torch.tensor([[7.1, 2.5]]), face - 1)
    assert buffer.ids().tolist() == [2**31 - 2, 2**24]
