"""Tests of the grid hierarchy against the output of custom_rasterizer and a slow reference implementation."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import reference_hierarchy as reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_rasterizer.hierarchy import build_hierarchy, build_hierarchy_with_feat

HERE = Path(__file__).resolve().parent
CASES = sorted((HERE / "golden").glob("hierarchy_*.npz"))


def tensors(arrays):
    return [torch.from_numpy(array) for array in arrays]


def differing(result, expected):
    """Return the first difference of two results, or None if all values, dtypes and shapes are equal."""
    if [len(group) for group in result] != [len(group) for group in expected]:
        return f"groups of {[len(g) for g in result]} and {[len(g) for g in expected]}"
    for group, (result_group, expected_group) in enumerate(zip(result, expected, strict=True)):
        for index, (one, other) in enumerate(zip(result_group, expected_group, strict=True)):
            if one.numpy().dtype != other.dtype or one.shape != other.shape:
                return f"{group} {index}: {one.dtype} {tuple(one.shape)}, {other.dtype} {other.shape}"
            if not np.array_equal(one.numpy(), other):
                return f"{group} {index}: {int((one.numpy() != other).sum())} values differ"
    return None


def scene(seed, resolution, *, reach=1.0, grid=None, layers=None, fill=None):
    """Return positions, normals and features of three random views."""
    random = np.random.default_rng(seed)
    positions, normals, feats = [], [], []
    fill = random.choice([0.05, 0.5, 0.9, 1.0]) if fill is None else fill
    for _ in range(3):
        shape = (random.integers(0, 4) if layers is None else layers, *random.integers(0, 2 * resolution, 2))
        position = random.uniform(-reach, reach, (*shape, 4)).astype(np.float32)
        if grid:
            position = (np.round(position * grid) / grid).astype(np.float32)
        position[..., 3] = random.random(shape) < fill
        positions.append(position)
        normals.append(np.round(2 * random.normal(size=(*shape, 3))).astype(np.float32))
        feats.append(random.random((*shape, 2)).astype(np.float32))
    return positions, normals, feats


def spheres(size):
    """Return depth-peeled views of two nested spheres, in which many cells share views, layers and parents."""
    line = ((np.arange(size) + 0.5) / size * 2 - 1).astype(np.float32)
    positions, normals = [], []
    for view, (row_axis, sign, column_axis) in enumerate([(1, 1, 0), (1, 1, 2), (2, -1, 0)]):
        depth_axis = (2, 0, 1)[view]
        rows, columns = np.meshgrid(sign * line, line, indexing="ij")
        image = np.zeros((4, size, size, 4), np.float32)
        for layer, (radius, side) in enumerate([(0.9, 1), (0.5, 1), (0.5, -1), (0.9, -1)]):
            inside = radius**2 - rows**2 - columns**2
            image[layer, ..., row_axis], image[layer, ..., column_axis] = rows, columns
            image[layer, ..., depth_axis] = side * np.sqrt(np.maximum(inside, 0))
            image[layer, ..., 3] = inside > 0
        order = np.argsort(1 - image[..., 3], axis=0, kind="stable")[..., None]
        image = np.take_along_axis(image, order, axis=0)
        positions.append(image)
        normals.append(image[..., :3].copy())
    return positions, normals


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_equals_custom_rasterizer(case):
    data = np.load(case)
    positions, normals = ([data[f"{name}{view}"] for view in range(3)] for name in ("pos", "nrm"))
    result = build_hierarchy(tensors(positions), tensors(normals), int(data["num_level"]), int(data["resolution"]))
    expected = [[data[f"out_{group}_{index}"] for index in range(len(part))] for group, part in enumerate(result)]
    assert sum(name.startswith("out_") for name in data) == sum(map(len, expected))
    assert differing(result, expected) is None
    assert (
        differing(result, reference.build(positions, normals, int(data["num_level"]), int(data["resolution"]))) is None
    )


@pytest.mark.parametrize(("size", "levels"), [(8, 1), (16, 3), (32, 4), (24, 3), (19, 3), (40, 5)])
def test_equals_reference_for_nested_spheres(size, levels):
    positions, normals = spheres(size)
    result = build_hierarchy(tensors(positions), tensors(normals), levels, size)
    assert differing(result, reference.build(positions, normals, levels, size)) is None


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    resolution=st.integers(1, 21),
    reach=st.sampled_from([0.4, 1.0, 1.3, 3.0]),
    grid=st.sampled_from([None, 2, 4]),
    data=st.data(),
)
def test_equals_reference_for_random_views(seed, resolution, reach, grid, data):
    """The views have odd resolutions, points on cell borders, at 1 and beyond, empty views and holes between layers."""
    levels = data.draw(st.integers(1, resolution.bit_length()))
    positions, normals, feats = scene(seed, resolution, reach=reach, grid=grid)
    result = build_hierarchy_with_feat(tensors(positions), tensors(normals), tensors(feats), levels, resolution)
    assert differing(result, reference.build(positions, normals, levels, resolution, feats)) is None


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), resolution=st.sampled_from([2, 4, 8, 16]), levels=st.integers(1, 5))
def test_equals_reference_inside_a_regular_grid(seed, resolution, levels):
    """Evenly halving resolutions with all points inside take the fast path, and are what users have."""
    levels = min(levels, resolution.bit_length())
    positions, normals, _ = scene(seed, resolution, reach=0.99, layers=3)
    result = build_hierarchy(tensors(positions), tensors(normals), levels, resolution)
    assert differing(result, reference.build(positions, normals, levels, resolution)) is None


def test_equals_reference_with_keys_beyond_32_bits():
    """At a resolution of 1500 keys wrap around, and some are negative."""
    positions, normals, _ = scene(7, 6, fill=0.7, layers=2)
    result = build_hierarchy(tensors(positions), tensors(normals), 3, 1500)
    assert differing(result, reference.build(positions, normals, 3, 1500)) is None


@pytest.mark.parametrize("shift", [-0.6, 0.6])
def test_equals_reference_with_points_outside_the_grid(shift):
    positions, normals, _ = scene(11, 8, fill=0.9, layers=2)
    for position in positions:
        position[..., :3] = 0.9 * position[..., :3] + np.float32(shift)
    result = build_hierarchy(tensors(positions), tensors(normals), 3, 8)
    assert differing(result, reference.build(positions, normals, 3, 8)) is None


def test_equals_reference_with_points_at_one():
    """A point at 1 has the key of the next row: its cell is not the parent of its pixel's cell, and keys are absent."""
    positions, normals, _ = scene(3, 8, grid=1, fill=1.0, layers=2)
    assert any((position == 1).any() for position in positions)
    result = build_hierarchy(tensors(positions), tensors(normals), 3, 8)
    assert differing(result, reference.build(positions, normals, 3, 8)) is None


def test_empty_views_give_empty_levels():
    empty = [torch.zeros(2, 4, 4, 4)] * 3, [torch.zeros(2, 4, 4, 3)] * 3
    cloud, neighbours, down, even, odd = build_hierarchy(*empty, 3, 8)
    assert [tuple(t.shape) for t in cloud] == [(0, 3), (0,)]
    assert [tuple(t.shape) for t in neighbours] == [(0, 9)] * 3
    assert [tuple(t.shape) for t in down] == [(0,)] * 2
    assert [tuple(t.shape) for t in even + odd] == [(0,)] * 6
    assert all(t.dtype == torch.int64 for t in neighbours + down + even + odd)


def test_accepts_any_strides_and_ignores_gradients():
    positions, normals = spheres(16)
    expected = build_hierarchy(tensors(positions), tensors(normals), 3, 16)
    turned = [torch.from_numpy(p).permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0) for p in positions]
    leaves = [torch.from_numpy(n).requires_grad_() for n in normals]
    assert not turned[0].is_contiguous()
    result = build_hierarchy(turned, leaves, 3, 16)
    assert differing(result, [[tensor.numpy() for tensor in group] for group in expected]) is None


def test_every_coarse_cell_has_both_flags():
    positions, normals = spheres(32)
    _, _, down, even, odd = build_hierarchy(tensors(positions), tensors(normals), 4, 32)
    for level, parents in enumerate(down):
        for flags in (even[level], odd[level]):
            assert set(parents[flags == 1].tolist()) == set(range(len(even[level + 1])))


def wrong(**changes):
    positions, normals, feats = (tensors(part) for part in scene(1, 4, layers=1, fill=1.0))
    arguments = {"view_layer_positions": positions, "view_layer_normals": normals, "view_layer_feats": feats}
    arguments |= {"num_level": 2, "resolution": 4}
    for name, change in changes.items():
        arguments[name] = change(arguments[name]) if callable(change) else change
    return arguments


FLAT = torch.zeros(1, 2, 2)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"view_layer_positions": lambda p: p[:2]}, ValueError, "view_layer_positions: expected three views, found 2"),
        ({"view_layer_positions": lambda p: torch.stack([FLAT] * 3)}, TypeError, "a list of three tensors, found Tens"),
        ({"view_layer_positions": lambda p: [FLAT.numpy()] * 3}, TypeError, r"positions\[0\].*found ndarray"),
        ({"view_layer_positions": lambda p: [x.double() for x in p]}, TypeError, r"\[0\].*float32.*float64"),
        (
            {"view_layer_positions": lambda p: [FLAT, *p[1:]]},
            ValueError,
            r"\[0\]: expected shape \[L, H, W, 4\].*\[1, 2",
        ),
        (
            {"view_layer_normals": lambda n: [*n[:2], torch.zeros(1, 2, 2, 4)]},
            ValueError,
            r"normals\[2\].*[L, H, W, 3]",
        ),
        ({"view_layer_normals": lambda n: [torch.zeros(9, 2, 2, 3), *n[1:]]}, ValueError, r"normals\[0\].*\[9, 2, 2"),
        (
            {"view_layer_feats": lambda f: [*f[:2], f[2][..., :1]]},
            ValueError,
            "view_layer_feats: expected the same number of features",
        ),
        ({"num_level": 0}, ValueError, "num_level: expected at least 1, found 0"),
        ({"num_level": 4}, ValueError, r"resolution: expected at least 2\*\*\(num_level-1\) for 4 levels.*found 4"),
        ({"num_level": 2.0}, TypeError, "num_level: expected an int, found float"),
        ({"resolution": -3}, ValueError, "resolution: expected at least 1, found -3"),
        ({"resolution": True}, TypeError, "resolution: expected an int, found bool"),
    ],
)
def test_rejects_wrong_arguments(changes, error, words):
    with pytest.raises(error, match=words):
        build_hierarchy_with_feat(**wrong(**changes))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e30])
def test_rejects_points_far_outside(value):
    position = torch.full((1, 1, 1, 4), 0.5)
    position[..., 1] = value
    views = [torch.zeros(1, 1, 1, 4), position, torch.zeros(1, 1, 1, 4)]
    normals = [torch.ones(1, 1, 1, 3)] * 3
    with pytest.raises(ValueError, match=r"view_layer_positions\[1\]: expected finite coordinates"):
        build_hierarchy(views, normals, 2, 4)
    views[1][..., 3] = 0
    assert len(build_hierarchy(views, normals, 2, 4)[0][0]) == 0


def test_benchmark_reference_gives_equal_results():
    """The C++ loop of the benchmark is a third implementation with equal results, and the benchmark runs."""
    script = HERE.parents[2] / "benchmarks" / "hierarchy_time.py"
    if not script.is_file():
        pytest.skip("needs benchmarks/, which is not beside the package here: run in a checkout of the repository")
    command = [sys.executable, str(script), "--size", "32", "--rounds", "1"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if "FileNotFoundError" in done.stderr:
        pytest.skip("needs a C++ compiler: apt-get install g++, or set CXX")
    assert "results are equal" in done.stdout, done.stdout + done.stderr
