"""Pictures against a real WebGPU implementation, drawn now; and against what it drew for the repository."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from nv_diff_render import capture, create_look_at_matrix, dataset, metrics, pictures, test_render
from nv_diff_render.grid import Grid
from nv_diff_render.maps import Map
from nv_diff_render.scene import Materials
from nv_diff_render.webgpu import WebGpuRenderer
from worlds_seen import SIGHTS, Sight, placed

GOLDEN = Path(__file__).parent / "golden"
_HARD = Materials(hard=True)


def _possible() -> str | None:
    """Why nothing can be drawn here, None if it can."""
    try:
        WebGpuRenderer(torch.zeros(0, 3), {"normals": torch.zeros(0, 3), "colors": torch.zeros(0, 3)})
    except ImportError as error:
        return str(error)
    return None


_WHY_NOT = _possible()
live = pytest.mark.skipif(_WHY_NOT is not None, reason=f"needs WebGPU: {_WHY_NOT}")


@pytest.mark.integration
@live
@pytest.mark.parametrize("sight", SIGHTS, ids=lambda sight: f"{sight.world}-{sight.cameras}")
def test_equals_webgpu(sight: Sight) -> None:
    found = sight.map
    cameras, world = sight.views(), placed(found)
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
def test_capture_and_validate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The two commands, one after the other, as a user runs them."""
    folders = ["--datasets", str(tmp_path / "datasets"), "--maps", str(tmp_path / "maps")]
    made = ["--dataset_id", "7", "--world", "sparse", "--grid", "20", "16", "20", "--views", "3", "--size", "200"]
    assert capture.main([*folders, *made]) == 0
    assert "Drew 3 views of" in capsys.readouterr().out
    validate = [*folders, "--dataset_id", "7", "--all_views", "--compare", "--out", str(tmp_path / "out")]
    assert test_render.main(validate) == 0
    assert "Every view reaches the bars" in capsys.readouterr().out


@pytest.mark.integration
@live
def test_six_lights_are_the_shaders() -> None:
    """The formula in WGSL and the one in torch give the same eight bits for every material and side."""
    for materials in range(1, 8):
        found = Map(Grid((1, 1, 1)), [(0, 0, 0)], [materials])
        world = placed(found)
        for eye in ((3.0, 4.0, 5.0), (-3.0, -4.0, -5.0)):
            camera = capture.camera(create_look_at_matrix(eye, (0.0, 1.0, 0.0)))
            drawn, _ = capture.draw(found, [camera], 64)
            ours = world.render(camera.view, camera.projection, 64, 64, hard_materials=True)
            assert (pictures.to_uint8(ours[0, :3]) == drawn[0][..., :3]).all()


@pytest.mark.parametrize("folder", sorted(GOLDEN.glob("*/")), ids=lambda folder: folder.name)
def test_equals_what_webgpu_drew(folder: Path) -> None:
    data = dataset.read(folder)
    name, grid = data.capture_id.split(" ")[0], tuple(map(int, data.capture_id.split(" ")[1].split("x")))
    assert len(grid) == 3
    world = placed(capture.generate(name, grid, 1))
    for index in range(len(data.views)):
        frame = world.render_frame(*data.matrices(index), *data.size, _HARD)
        assert metrics.compare(pictures.to_uint8(frame.rgba[0, :3]), data.picture(index)).different <= 1


def test_goldens_are_there() -> None:
    assert len(list(GOLDEN.glob("*/metadata.json"))) == 4
