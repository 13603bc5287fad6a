"""Tests of pictures against a reference rasterizer, and of the arguments and gradients of the renderer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from integer_rasterizer import rasterize
from nv_diff_render import (
    DifferentiableBlockRenderer,
    DifferentiableBlockWorld,
    Materials,
    TerrainShader,
    create_look_at_matrix,
    create_orthographic_matrix,
    create_perspective_matrix,
    worlds,
)
from nv_diff_render.mesh_builder import build_mesh_from_grid
from nv_diff_render.shading import as_unorm8
from nv_diff_render.utils import view_projection, world_to_clip

_SIZE = (16, 12, 16)
_HARD = Materials(hard=True)
_PROJECTION = create_perspective_matrix(1.0, 1.0)
_VIEW = create_look_at_matrix((9.0, 14.0, 22.0), (0.0, 4.0, 0.0))


def _world(name: str = "terrain") -> DifferentiableBlockWorld:
    world = DifferentiableBlockWorld(_SIZE)
    world.from_grid(worlds.WORLDS[name](_SIZE, 3))
    return world


def _eyes() -> list[tuple[str, torch.Tensor]]:
    ends = {
        "above": ((9.0, 14.0, 22.0), (0.0, 4.0, 0.0)),
        "far": ((200.0, 180.0, -250.0), (0.0, 4.0, 0.0)),
        "within": ((0.3, 9.0, 0.4), (4.0, 8.0, 3.0)),
        "within a block": ((1.0, 1.0, 1.0), (9.0, 2.0, 4.0)),
        "at the edge": ((16.0, 8.0, 0.0), (0.0, 8.0, 0.0)),
        "away": ((30.0, 10.0, 0.0), (60.0, 10.0, 0.0)),
        "below": ((1.0, -20.0, 2.0), (0.0, 0.0, 0.0)),
    }
    return [(name, create_look_at_matrix(*end)) for name, end in ends.items()]


@pytest.mark.parametrize("name", ["terrain", "sparse"])
@pytest.mark.parametrize(("eye", "view"), _eyes(), ids=[name for name, _ in _eyes()])
def test_pixels_equal_the_reference_rasterizer(eye: str, view: torch.Tensor, name: str) -> None:
    world = _world(name)
    vertices, faces, attributes = build_mesh_from_grid(world.to_grid())
    clip = world_to_clip(vertices, view_projection(view, _PROJECTION)[0])
    ids, depth = map(torch.from_numpy, rasterize(clip.double().numpy(), faces.long().numpy(), (96, 128)))
    frame = world.render_frame(view, _PROJECTION, 96, 128, _HARD)
    triangle = (ids - 1).clamp(min=0)
    lit = as_unorm8(_lit(attributes)[triangle * 3])
    expected = torch.where((ids > 0)[..., None], lit, torch.tensor([135, 207, 235]) / 255)
    different = (frame.rgba[0, :3].permute(1, 2, 0) != expected).any(-1) | (frame.coverage[0, 0] != (ids > 0))
    # On the common edge of two faces with equal depth, rounding decides.
    assert int(different.sum()) <= 2
    torch.testing.assert_close(frame.depth[0, 0][~different].double(), depth[~different], atol=1e-5, rtol=0)
    assert torch.equal(
        frame.normals[0].permute(1, 2, 0)[(ids > 0) & ~different],
        attributes["normals"][triangle * 3][(ids > 0) & ~different],
    )
    assert ((frame.block_ids[0] >= 0) == (frame.coverage[0, 0] > 0)).all()


def _lit(attributes: dict[str, torch.Tensor]) -> torch.Tensor:
    return attributes["colors"] * TerrainShader().light(attributes["normals"])


def test_effective_near_plane_is_that_of_webgpu() -> None:
    """With z/w of OpenGL, WebGPU draws from a distance of 2nf/(n+f) = 0.19996."""
    world = DifferentiableBlockWorld((1, 1, 1))
    world.place_block((0, 0, 0), material="Stone")
    for distance, drawn in ((0.1999, False), (0.2000, True)):
        view = create_look_at_matrix((0.0, 1.0, 1.0 + distance), (0.0, 1.0, 0.0))
        picture = world.render(view, _PROJECTION, 9, 9)
        assert bool(picture[0, 3, 4, 4]) is drawn


def test_batch_of_cameras_equals_single_cameras() -> None:
    world = _world()
    views = torch.stack([view for _, view in _eyes()])
    together = world.render(views, _PROJECTION, 40, 50)
    assert together.shape == (len(views), 4, 40, 50)
    for at, view in enumerate(views):
        assert torch.equal(together[at], world.render(view, _PROJECTION, 40, 50)[0])


def test_renders_with_an_orthographic_camera() -> None:
    world = DifferentiableBlockWorld((2, 1, 2), 1.0)
    world.place_block((0, 0, 0), material="Stone")
    down = create_look_at_matrix((0.0, 5.0, 0.0), (0.0, 0.0, 0.0), up=(0.0, 0.0, -1.0))
    frame = world.render_frame(down, create_orthographic_matrix(2.0, 1.0, 1.0, 9.0), 8, 8, _HARD)
    assert frame.coverage[0, 0].int().tolist() == [[1] * 4 + [0] * 4] * 4 + [[0] * 8] * 4
    assert frame.normals[0, :, 0, 0].tolist() == [0, 1, 0]
    # The top is 4 below the camera, near is 1 and far is 9: the depth is 3/8.
    assert frame.depth[0, 0, 0, 0] == pytest.approx(3 / 8)


def test_renderer_and_world_agree() -> None:
    world = _world()
    renderer = DifferentiableBlockRenderer(_SIZE)
    expected = world.render(_VIEW, _PROJECTION, 32, 48, hard_materials=True)
    given = world.get_positions(), world.logits
    assert torch.equal(renderer.render(*given, _VIEW, _PROJECTION, 32, 48, hard_materials=True), expected)
    assert torch.equal(renderer.render_from_grid(world.to_grid(), _VIEW, _PROJECTION, 32, 48), expected)
    rgba, extra = renderer.render(*given, _VIEW, _PROJECTION, 32, 48, return_depth=True, return_normals=True)
    assert rgba.shape == (1, 4, 32, 48)
    assert {name: value.shape for name, value in extra.items()} == {
        "depth": (1, 1, 32, 48),
        "normals": (1, 3, 32, 48),
    }
    assert renderer.backend == "torch"


def test_placed_and_removed_blocks_change_the_picture() -> None:
    world = DifferentiableBlockWorld(_SIZE)
    empty = world.render(_VIEW, _PROJECTION, 16, 16)
    assert not empty[0, 3].any()
    assert torch.equal(empty[0, :3], (torch.tensor([135, 207, 235]) / 255)[:, None, None].expand(3, 16, 16))
    world.place_block((8, 2, 8), material="Sand")
    assert world.render(_VIEW, _PROJECTION, 16, 16)[0, 3].any()
    world.remove_block((8, 2, 8))
    assert torch.equal(world.render(_VIEW, _PROJECTION, 16, 16), empty)


def test_gradients_pass_gradcheck() -> None:
    torch.manual_seed(0)
    renderer = DifferentiableBlockRenderer((3, 3, 3))
    positions = [(0, 0, 0), (1, 0, 1), (2, 1, 2), (1, 1, 0)]
    logits = torch.randn(4, 8, dtype=torch.float64, requires_grad=True)
    view = create_look_at_matrix((5.0, 6.0, 7.0), (0.0, 2.0, 0.0))

    def picture(values: torch.Tensor, **options: Any) -> Any:
        rgba: Any = renderer.render(positions, values, view, _PROJECTION, 6, 8, quantize=False, **options)
        return rgba[:, :3]

    assert torch.autograd.gradcheck(picture, logits)
    assert torch.autograd.gradcheck(lambda values: picture(values, temperature=2.0, exclude_air=True), logits)
    hard = torch.autograd.grad(picture(logits, hard_materials=True).sum(), logits)[0]
    assert hard.abs().sum() > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"img_h": 0}, "img_h is 0"),
        ({"img_w": 2.5}, "img_w is 2.5"),
        ({"material_logits": torch.zeros(2, 8)}, r"material_logits: expected \[1, 8\]"),
        ({"material_logits": torch.zeros(1, 5)}, r"material_logits: expected \[N, 8\]"),
        ({"camera_view": torch.zeros(4, 4)}, "camera_view: expected an invertible matrix"),
        ({"camera_proj": torch.eye(3)}, r"camera_proj: expected \[4, 4\]"),
        ({"positions": [(99, 0, 0)]}, r"positions\[0\] is \(99, 0, 0\)"),
        ({"temperature": -1.0}, "temperature is -1.0"),
    ],
)
def test_rejects_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {
        "positions": [(0, 0, 0)],
        "material_logits": torch.zeros(1, 8),
        "camera_view": _VIEW,
        "camera_proj": _PROJECTION,
        "img_h": 4,
        "img_w": 4,
    }
    with pytest.raises(ValueError, match=message):
        DifferentiableBlockRenderer(_SIZE).render(**good | arguments)


def test_rejects_bad_backends() -> None:
    with pytest.raises(ValueError, match="backend is 'metal': expected one of auto, torch, nvdiffrast"):
        DifferentiableBlockRenderer(backend="metal")
    with pytest.raises(ValueError, match="nvdiffrast needs a CUDA device, found cpu"):
        DifferentiableBlockRenderer(backend="nvdiffrast")
