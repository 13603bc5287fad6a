"""Tests of PyTorchRasterizer: arguments, gradients, memory, and vertices with arbitrary bits."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch_rasterizer import PyTorchRasterizer, create_optimized_rasterizer, memory, meshes

VERTICES, FACES = meshes.sphere(60)
NONE = torch.zeros(0)
GOOD: dict[str, Any] = {"V": VERTICES, "F": FACES, "D": NONE, "width": 8, "height": 6, "use_depth_prior": 0}
BAD = [
    ("V", VERTICES.half(), TypeError, "V: expected torch.float32 or torch.float64, found torch.float16"),
    ("V", VERTICES.tolist(), TypeError, "V: expected a torch.float32 or torch.float64 tensor [N, 4], found list"),
    ("V", VERTICES[:, :3], ValueError, f"V: expected shape [N, 4], found [{len(VERTICES)}, 3]"),
    ("V", VERTICES[None], ValueError, f"V: expected shape [N, 4], found [1, {len(VERTICES)}, 4]"),
    ("F", FACES.long(), TypeError, "F: expected torch.int32, found torch.int64"),
    ("F", FACES[:, :2], ValueError, f"F: expected shape [M, 3], found [{len(FACES)}, 2]"),
    ("F", FACES.to("meta"), ValueError, "F: expected a tensor on cpu, found one on meta"),
    ("F", FACES + 3, ValueError, f"F: expected indices 0 to {len(VERTICES) - 1}, found {int(FACES.max()) + 3}"),
    ("F", FACES - 1, ValueError, "found -1; the first invalid face is 0"),
    ("V", VERTICES[:0], ValueError, "F: expected no faces, because there are no vertices"),
    ("width", 0, ValueError, "width: expected at least 1 pixel, found 0"),
    ("height", -3, ValueError, "height: expected at least 1 pixel, found -3"),
    ("width", 8.0, TypeError, "width: expected an integer, found float 8.0"),
    ("D", [0.0], TypeError, "D: expected a float32 tensor [H*W], found list"),
    ("D", torch.zeros(48, dtype=torch.int32), TypeError, "D: expected torch.float32, found torch.int32"),
]


@pytest.mark.parametrize(("name", "value", "kind", "message"), BAD, ids=[f"{b[0]}-{k}" for k, b in enumerate(BAD)])
def test_rejects_bad_arguments(name: str, value: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=re.escape(message)):
        PyTorchRasterizer("cpu").rasterize_image(**{**GOOD, name: value})


def test_rejects_depth_prior_of_wrong_size() -> None:
    with pytest.raises(ValueError, match=re.escape("D: expected 48 depths, found shape [47]")):
        PyTorchRasterizer("cpu").rasterize_image(**{**GOOD, "D": torch.zeros(47), "use_depth_prior": 1})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "fast"}, "mode: expected one of 'auto', 'tiled', 'batched', found 'fast'"),
        ({"mode": "tiled", "tile_size": 0}, "tile_size: expected at least 1, found 0"),
        ({"mode": "tiled", "batch_size": 5}, "batch_size: expected None with mode='tiled'"),
        ({"device": "gpu"}, "device: expected a torch.device or its name, found 'gpu'"),
    ],
)
def test_rejects_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        create_optimized_rasterizer(**options)


def test_rejects_bad_interpolation_arguments() -> None:
    rasterizer = PyTorchRasterizer("cpu")
    ids, weights = rasterizer.rasterize(VERTICES[None], FACES, (6, 8))
    colors = torch.rand(1, len(VERTICES), 3)
    for arguments, message in (
        ((colors[0], ids, weights, FACES), "col: expected shape [B, N, C]"),
        ((colors, ids, weights[:5], FACES), "barycentric: expected shape [1, 6, 8, 3], found [1, 5, 8, 3]"),
        ((colors, ids + 1000, weights, FACES), f"findices: expected 0 to {len(FACES)}"),
        ((colors[:, :9], ids, weights, FACES), "tri: expected indices 0 to 8"),
        ((colors.expand(3, -1, -1), ids, weights, FACES), "col: expected 1 or 1 sets of attributes, found 3"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            rasterizer.interpolate(*arguments)


def test_rejects_bad_resolution() -> None:
    with pytest.raises(ValueError, match=re.escape("resolution: expected height and width, found (6,)")):
        PyTorchRasterizer("cpu").rasterize(VERTICES[None], FACES, (6,))


def test_interpolated_positions_match_their_pixels() -> None:
    """Interpolated clip positions lie at their pixels; ids may be float32, as in Hunyuan3D."""
    rasterizer = PyTorchRasterizer("cpu")
    ids, weights = rasterizer.rasterize(VERTICES[None], FACES, (60, 80))
    found = rasterizer.interpolate(VERTICES[None], ids.float(), weights, FACES)[0]
    assert not found[ids == 0].any()
    row, column = (ids > 0).nonzero().unbind(1)
    seen = found[row, column]
    torch.testing.assert_close(seen[:, 0] / seen[:, 3], column / 79 * 2 - 1, atol=2e-5, rtol=0)
    torch.testing.assert_close(seen[:, 1] / seen[:, 3], row / 59 * 2 - 1, atol=2e-5, rtol=0)


def test_gradients_pass_gradcheck() -> None:
    """Barycentrics have gradients by positions, interpolated values by attributes and barycentrics."""
    rasterizer = PyTorchRasterizer("cpu", tile_size=4)
    vertices = torch.tensor([[-0.9, -0.8, 0.1, 1], [1.7, -1.1, 0.3, 2], [0.1, 1.1, -0.2, 1.3]], dtype=torch.float64)
    faces = torch.tensor([[0, 1, 2]], dtype=torch.int32)
    colors = torch.rand(1, 3, 2, dtype=torch.float64, requires_grad=True)

    def picture(positions: torch.Tensor, attributes: torch.Tensor) -> torch.Tensor:
        ids, weights = rasterizer.rasterize(positions[None], faces, (7, 6))
        return rasterizer.interpolate(attributes, ids, weights, faces)

    assert int((rasterizer.rasterize(vertices[None], faces, (7, 6))[0] > 0).sum()) > 5
    assert torch.autograd.gradcheck(picture, (vertices.requires_grad_(), colors))


def test_gradient_descent_moves_a_triangle() -> None:
    """A loss on the point shown at a pixel moves the triangle until the wanted point is there."""
    offset = torch.zeros(2, requires_grad=True)
    base = torch.tensor([[-1.5, -1.5, 0, 1], [1.5, -1.5, 0, 1], [0, 1.8, 0, 1]])
    faces = torch.tensor([[0, 1, 2]], dtype=torch.int32)
    rasterizer = PyTorchRasterizer("cpu")
    for _ in range(60):
        moved = base + torch.cat([offset, torch.zeros(2)])
        ids, weights = rasterizer.rasterize(moved[None], faces, (9, 9))
        # The centre of the picture should show the point (0.2, 0.1) of the original triangle.
        seen = rasterizer.interpolate(base[None, :, :2], ids, weights, faces)[0, 4, 4]
        loss = ((seen - torch.tensor([0.2, 0.1])) ** 2).sum()
        (gradient,) = torch.autograd.grad(loss, offset)
        offset = (offset - 0.2 * gradient).detach().requires_grad_()
    torch.testing.assert_close(offset.detach(), torch.tensor([-0.2, -0.1]), atol=1e-3, rtol=0)


ANY_BITS = """
import torch
from torch_rasterizer import PyTorchRasterizer
random = torch.Generator().manual_seed({seed})
for turn in range(60):
    bits = torch.randint(-(2**31), 2**31, (30, 4), generator=random).to(torch.int32)
    V = bits.view(torch.float32)
    if turn % 3 == 1:
        V[:, 3] = 1
    if turn % 3 == 2:
        V[torch.rand(30, 4, generator=random) < 0.8] = 0.5
        V[torch.rand(30, 4, generator=random) < 0.1] = [0.0, torch.inf, torch.nan, 3e38, 1e-45][turn % 5]
    F = torch.randint(0, 30, (40, 3), generator=random).to(torch.int32)
    for options in ({{}}, {{"emulate_mps": True}}):
        ids, weights = PyTorchRasterizer("cpu", **options).rasterize_image(V, F, None, 33, 20)
        assert 0 <= int(ids.min()) <= int(ids.max()) <= 40
"""


@pytest.mark.parametrize("seed", range(3))
def test_arbitrary_vertex_bits_neither_hang_nor_crash(seed: int) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", ANY_BITS.format(seed=seed)]
    done = subprocess.run(command, env=environment, timeout=120, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("component", [0, 1, 3])
def test_vertices_without_a_position_are_not_drawn(value: float, component: int) -> None:
    vertices = torch.tensor([[-0.9, -0.9, 0, 1], [0.9, -0.9, 0, 1], [0.1, 0.9, 0, 1]])
    vertices[0, component] = value
    ids, _ = PyTorchRasterizer("cpu").rasterize_image(vertices, torch.tensor([[0, 1, 2]]).int(), None, 16, 16)
    nothing = component == 3 or value != 0
    if value in (float("inf"), -float("inf")) and component == 3:
        # x / inf is 0, so that the vertex lies at the centre.
        nothing = False
    assert bool((ids == 0).all()) is nothing


PEAK = """
import resource, sys, torch
from torch_rasterizer import PyTorchRasterizer, meshes
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
torch.set_num_threads(1)
rasterizer = PyTorchRasterizer("cpu")
V, F = meshes.sphere(100)
rasterizer.rasterize_image(V, F, None, 64, 64)
V, F = meshes.random_triangles({faces}, {size}, {resolution})
before = peak()
ids, weights = rasterizer.rasterize_image(V, F, None, {resolution}, {resolution})
assert int((ids > 0).sum()) > 0
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs getrusage: run on Linux or macOS")
@pytest.mark.parametrize(("faces", "size", "resolution"), [(300_000, 4, 1024), (300, 900, 1024), (40_000, 20, 2048)])
def test_peak_memory_is_bounded(faces: int, size: int, resolution: int) -> None:
    """Memory beyond outputs and depth buffer is at most twice their size plus 64 MiB."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PEAK.format(faces=faces, size=size, resolution=resolution)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    outputs = 24 * resolution**2 / 2**20
    assert float(done.stdout) - outputs <= 2 * outputs + 64


def test_tile_size_depends_on_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda _: 24 << 30)
    assert memory.tile_size(2048, 2048, torch.device("cuda")) is None
    assert memory.tile_size(16384, 16384, torch.device("cuda")) == 4096
    monkeypatch.setattr(memory, "free_bytes", lambda _: None)
    assert memory.tile_size(16384, 16384, torch.device("mps")) is None
    monkeypatch.setattr(memory, "free_bytes", lambda _: 1 << 20)
    whole = PyTorchRasterizer("cpu").rasterize(VERTICES[None], FACES, (300, 310))
    assert memory.tile_size(300, 310, torch.device("cpu")) == 256
    monkeypatch.undo()
    assert all(map(torch.equal, whole, PyTorchRasterizer("cpu").rasterize(VERTICES[None], FACES, (300, 310))))
