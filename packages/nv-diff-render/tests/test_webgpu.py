"""Tests against a WebGPU implementation on this machine, and against its recorded pictures."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from comparison_scenes import SCENES, ComparisonScene, create_world
from nv_diff_render import capture, create_look_at_matrix, dataset, metrics, pictures, test_render
from nv_diff_render.grid import Grid
from nv_diff_render.maps import Map
from nv_diff_render.scene import Materials
from nv_diff_render.webgpu import WebGpuRenderer

GOLDEN = Path(__file__).parent / "golden"
_HARD = Materials(hard=True)


def _missing_webgpu() -> str | None:
    """Return why WebGPU cannot draw on this machine, or None if it can."""
    try:
        WebGpuRenderer(torch.zeros(0, 3), {"normals": torch.zeros(0, 3), "colors": torch.zeros(0, 3)})
    except ImportError as error:
        return str(error)
    return None


_MISSING = _missing_webgpu()
live = pytest.mark.skipif(_MISSING is not None, reason=f"needs WebGPU: {_MISSING}")


@pytest.mark.integration
@live
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: f"{scene.world}-{scene.cameras}")
def test_pixels_equal_webgpu(scene: ComparisonScene) -> None:
    found = scene.map
    cameras, world = scene.views(), create_world(found)
    drawn, _ = capture.draw(found, cameras, 512)
    for camera, truth in zip(cameras, drawn, strict=True):
        frame = world.render_frame(camera.view, camera.projection, 512, 512, _HARD)
        result = metrics.compare(
            pictures.to_uint8(frame.rgba[0, :3]), truth[..., :3], frame.coverage[0, 0].bool().numpy()
        )
        assert result.different <= 4
        assert result.psnr >= 50
        assert result.geometry_match >= 0.9999


@pytest.mark.integration
@live
def test_captured_dataset_passes_validation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Run capture, then the validation of its dataset, as a user does."""
    folders = ["--datasets", str(tmp_path / "datasets"), "--maps", str(tmp_path / "maps")]
    capture_options = [
        "--dataset_id",
        "7",
        "--world",
        "sparse",
        "--grid",
        "20",
        "16",
        "20",
        "--views",
        "3",
        "--size",
        "200",
    ]
    assert capture.main([*folders, *capture_options]) == 0
    assert "Drew 3 views of" in capsys.readouterr().out
    validate = [*folders, "--dataset_id", "7", "--all_views", "--compare", "--out", str(tmp_path / "out")]
    assert test_render.main(validate) == 0
    assert "All views are within the limits" in capsys.readouterr().out


@pytest.mark.integration
@live
def test_colours_equal_the_shader_for_all_materials_and_sides() -> None:
    """The formulas in WGSL and in torch give the same eight bits for every material and side."""
    for materials in range(1, 8):
        found = Map(Grid((1, 1, 1)), [(0, 0, 0)], [materials])
        world = create_world(found)
        for eye in ((3.0, 4.0, 5.0), (-3.0, -4.0, -5.0)):
            camera = capture.camera(create_look_at_matrix(eye, (0.0, 1.0, 0.0)))
            drawn, _ = capture.draw(found, [camera], 64)
            rendered = world.render(camera.view, camera.projection, 64, 64, hard_materials=True)
            assert (pictures.to_uint8(rendered[0, :3]) == drawn[0][..., :3]).all()


@pytest.mark.parametrize("folder", sorted(GOLDEN.glob("*/")), ids=lambda folder: folder.name)
def test_pixels_equal_recorded_webgpu_pictures(folder: Path) -> None:
    data = dataset.read(folder)
    name, grid = data.capture_id.split(" ")[0], tuple(map(int, data.capture_id.split(" ")[1].split("x")))
    assert len(grid) == 3
    world = create_world(capture.generate(name, grid, 1))
    for index in range(len(data.views)):
        frame = world.render_frame(*data.matrices(index), *data.size, _HARD)
        assert metrics.compare(pictures.to_uint8(frame.rgba[0, :3]), data.picture(index)).different <= 1


def test_all_recorded_pictures_exist() -> None:
    assert len(list(GOLDEN.glob("*/metadata.json"))) == 4
