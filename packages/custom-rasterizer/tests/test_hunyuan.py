"""Tests that make the calls of Hunyuan3D-2's mesh_render and texture pipeline, in their order, dtypes and shapes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import custom_rasterizer as cr
import custom_rasterizer_kernel
import pytest
import torch
from torch_rasterizer import meshes

SIZE = 2048


@pytest.fixture(scope="module")
def mesh() -> tuple[torch.Tensor, torch.Tensor]:
    """Return positions [1, N, 4] of an orthographic camera, and at most 40 thousand faces."""
    clip, faces = meshes.sphere(39_000, perspective=False)
    assert len(faces) <= 40_000
    return clip[None], faces


@pytest.fixture(scope="module")
def rasterized(mesh: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Return barycentrics and ids together in float32 [1, H, W, 4], as mesh_render stores them."""
    findices, barycentric = cr.rasterize(*mesh, (SIZE, SIZE))
    assert findices.dtype == torch.int32
    assert findices.shape == (SIZE, SIZE)
    assert barycentric.shape == (SIZE, SIZE, 3)
    return torch.cat((barycentric, findices.unsqueeze(-1)), dim=-1).unsqueeze(0)


def interpolate(attributes: torch.Tensor, rasterized: torch.Tensor, faces: torch.Tensor) -> torch.Tensor:
    """Interpolate from barycentrics and ids in one tensor, as mesh_render does."""
    return cr.interpolate(attributes, rasterized[0, :, :, -1], rasterized[0, :, :, :-1], faces)


def test_renders_mask_normals_positions_and_depth(
    mesh: tuple[torch.Tensor, torch.Tensor], rasterized: torch.Tensor
) -> None:
    clip, faces = mesh
    mask = torch.clamp(rasterized[..., -1:], 0, 1)[0]
    assert mask.shape == (SIZE, SIZE, 1)
    assert float(mask.mean()) == pytest.approx(torch.pi * 0.81 / 4, abs=0.01)
    points = clip[..., :3]
    normal = interpolate(points / points.norm(dim=-1, keepdim=True), rasterized, faces)
    depth = interpolate(clip[..., 2:3] / clip[..., 3:], rasterized, faces)
    place = interpolate(clip, rasterized, faces)
    assert normal.shape == (1, SIZE, SIZE, 3)
    seen = mask[..., 0] > 0
    # Small z is near: the front of the sphere is visible, and its normals point to the camera.
    assert float(depth[0][seen].max()) < 0.02
    assert float(normal[0][seen][:, 2].max()) < 0.02
    row, column = seen.nonzero().unbind(1)
    expected = torch.stack([column, row], dim=1) / (SIZE - 1) * 2 - 1
    assert float((place[0, row, column, :2] - expected).abs().max()) < 1e-4
    assert not normal[0][~seen].any()


def test_bakes_a_view_into_a_texture(mesh: tuple[torch.Tensor, torch.Tensor], rasterized: torch.Tensor) -> None:
    """The mesh is drawn in texture space, then the positions are sampled there."""
    clip, faces = mesh
    turn = torch.atan2(clip[0, :, 0], clip[0, :, 2]) / torch.pi
    flat = torch.stack([turn, clip[0, :, 1], torch.zeros_like(turn), torch.ones_like(turn)], dim=1)[None]
    findices, barycentric = cr.rasterize(flat, faces, (SIZE, SIZE))
    texture = cr.interpolate(clip, findices, barycentric, faces)
    assert texture.shape == (1, SIZE, SIZE, 4)
    assert float((findices > 0).float().mean()) > 0.5


def test_depth_prior_shows_the_back_of_the_sphere(
    mesh: tuple[torch.Tensor, torch.Tensor], rasterized: torch.Tensor
) -> None:
    clip, faces = mesh
    first = interpolate(clip[..., 2:3], rasterized, faces)[0, ..., 0]
    prior = torch.where(rasterized[0, ..., -1] > 0, first + 1e-3, 1.0).reshape(-1).contiguous()
    findices, barycentric = cr.rasterize(clip, faces, (SIZE, SIZE), prior, 1)
    depth = cr.interpolate(clip[..., 2:3], findices, barycentric, faces)[0, ..., 0]
    assert float(depth[findices > 0].min()) > -0.02


def test_kernel_functions_take_positional_arguments(
    mesh: tuple[torch.Tensor, torch.Tensor], rasterized: torch.Tensor
) -> None:
    clip, faces = mesh
    findices, _ = custom_rasterizer_kernel.rasterize_image(clip[0], faces, torch.zeros(0), SIZE, SIZE, 1e-6, 0)
    assert torch.equal(findices.float(), rasterized[0, ..., -1])
    views = [torch.zeros(1, 4, 4, 4) for _ in range(3)]
    normals = [torch.ones(1, 4, 4, 3) for _ in range(3)]
    for view in views:
        view[0, 1, 1] = torch.tensor([0.1, 0.2, 0.3, 1])
    built = custom_rasterizer_kernel.build_hierarchy(views, normals, 2, 8)
    assert [len(group) for group in built] == [2, 2, 1, 2, 2]
    features = [torch.ones(1, 4, 4, 5) for _ in range(3)]
    assert len(custom_rasterizer_kernel.build_hierarchy_with_feat(views, normals, features, 2, 8)[0]) == 3


def test_rejects_float64_positions() -> None:
    """The original accepts float32 only."""
    faces = torch.tensor([[0, 1, 2]]).int()
    with pytest.raises(TypeError, match=r"V: expected torch.float32, found torch.float64"):
        custom_rasterizer_kernel.rasterize_image(torch.rand(3, 4).double(), faces, torch.zeros(0), 8, 8, 1e-6, 0)
    with pytest.raises(TypeError, match=r"pos: expected torch.float32, found torch.float64"):
        cr.rasterize(torch.rand(1, 3, 4).double(), faces, (8, 8))


@pytest.mark.parametrize("requested", [False, True])
@pytest.mark.parametrize("module", ["custom_rasterizer", "custom_rasterizer_kernel"])
def test_shadows_a_compiled_original_only_on_request(tmp_path: Path, module: str, requested: bool) -> None:
    """Importing fails without the request and warns with it."""
    original = tmp_path / "custom_rasterizer_kernel.abi3.so"
    original.write_bytes(b"")
    # The compiled module is later on the path, like site-packages after the folder of a checkout.
    path = os.pathsep.join([*sys.path, str(tmp_path)])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    environment.pop("TORCH_RASTERIZER_SHADOW", None)
    if requested:
        environment["TORCH_RASTERIZER_SHADOW"] = "1"
    command = [sys.executable, "-c", f"import {module}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) is requested
    assert str(original) in done.stderr
    assert ("using the plain PyTorch package" if requested else "set TORCH_RASTERIZER_SHADOW=1") in done.stderr
