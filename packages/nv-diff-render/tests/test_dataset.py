"""Tests of datasets, metrics and the validation command, with pictures drawn by this package."""

from __future__ import annotations

import base64
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from comparison_scenes import create_world
from nv_diff_render import DifferentiableBlockWorld, capture, dataset, metrics, pictures, test_render, worlds
from nv_diff_render.maps import save_map
from nv_diff_render.scene import Materials
from PIL import Image

_GRID = (12, 10, 12)
_SIZE = 64
_TIME = "2026-11-21T10:00:00+00:00"


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """Return a folder with dataset 1, two views drawn by this package."""
    found = capture.generate("terrain", _GRID, 1)
    cameras = [capture.camera(view) for view in worlds.around(_GRID, 2.0, 2)]
    world = create_world(found)
    drawn = [
        pictures.to_uint8(world.render(each.view, each.projection, _SIZE, _SIZE, hard_materials=True)[0, :3])
        for each in cameras
    ]
    dataset.write(tmp_path / "datasets" / "1", cameras, drawn, capture_id="an id", captured_at=_TIME)
    save_map(tmp_path / "maps" / "1" / "map.json", found)
    return tmp_path


def _run(workspace: Path, *arguments: str) -> int:
    folders = (
        "--datasets",
        str(workspace / "datasets"),
        "--maps",
        str(workspace / "maps"),
        "--out",
        str(workspace / "out"),
    )
    return test_render.main([*folders, *arguments])


def _edit(workspace: Path, change: Any) -> None:
    path = workspace / "datasets" / "1" / "metadata.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def test_reads_what_was_written(workspace: Path) -> None:
    data = dataset.read(workspace / "datasets" / "1")
    assert data.size == (_SIZE, _SIZE)
    assert data.capture_id == "an id"
    view, projection = data.matrices(1)
    expected = capture.camera(worlds.around(_GRID, 2.0, 2)[1])
    assert torch.equal(view, expected.view)
    assert torch.equal(projection, expected.projection)
    assert data.picture(0).shape == (_SIZE, _SIZE, 3)
    entry = data.views[0]
    assert torch.tensor(entry["position"]).norm() > 10
    assert sum(a * b for a, b in zip(entry["forward"], entry["up"], strict=True)) == pytest.approx(0, abs=1e-6)


def test_compares_all_views(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(workspace, "--dataset_id", "1", "--all_views", "--compare") == 0
    out = capsys.readouterr().out
    assert "=== Rendering view 1 (2 of 2) ===" in out
    assert "PSNR:           inf dB" in out
    assert "Geometry Match: 1.0000" in out
    assert out.rstrip().endswith("at most 0 pixels of a view differ.")
    names = {path.name for path in (workspace / "out").iterdir()}
    assert names == {f"{kind}dataset_1_view_{view}.png" for kind in ("", "compare_") for view in (0, 1)}


def test_fails_for_a_wrong_picture(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (path,) = (workspace / "datasets" / "1" / "images").glob("001*")
    wrong = dataset.read(workspace / "datasets" / "1").picture(1).copy()
    wrong[::2] = 0
    path.write_bytes(dataset.png(wrong))
    assert _run(workspace, "--all_views", "--compare") == 1
    assert "FAILED: views 1 are outside the limits" in capsys.readouterr().out
    assert _run(workspace, "--view_index", "0", "--compare") == 0


def test_reads_embedded_pictures(workspace: Path) -> None:
    """Embedded pictures may be data URLs or plain base64."""
    content = base64.b64encode(next((workspace / "datasets" / "1" / "images").glob("000*")).read_bytes()).decode()
    for text in (content, f"data:image/png;base64,{content}"):
        _edit(workspace, lambda data, text=text: data["views"][0].update(rgbBase64=text, rgbPath=None))
        assert _run(workspace, "--compare") == 0


def test_checks_gradients_without_pictures(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(workspace, "--test_gradients") == 0
    out = capsys.readouterr().out
    assert "Gradients reach exactly the visible blocks." in out
    assert "Rendering view" not in out


@pytest.mark.parametrize(("reached", "equal"), [(True, True), (True, False), (False, True)])
def test_checks_gradients_before_pictures(
    reached: bool, equal: bool, workspace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are checked, gradients first; the status is 1 if either fails."""
    if not reached:
        render = DifferentiableBlockWorld.render
        monkeypatch.setattr(DifferentiableBlockWorld, "render", lambda *given: 0 * render(*given))
    if not equal:
        (path,) = (workspace / "datasets" / "1" / "images").glob("000*")
        path.write_bytes(dataset.png(np.zeros((_SIZE, _SIZE, 3), np.uint8)))
    assert _run(workspace, "--test_gradients", "--compare") == (0 if reached and equal else 1)
    out = capsys.readouterr().out
    gradients = "Gradients reach exactly" if reached else "FAILED: gradients do not reach exactly"
    verdict = "All views are within the limits" if equal else "FAILED: views 0 are outside the limits"
    assert 0 <= out.index(gradients) < out.index("=== Rendering view 0 ===") < out.index(verdict)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.pop("imageSize"), "metadata.json: imageSize: expected an object"),
        (lambda data: data["imageSize"].update(width=0), "imageSize.width: expected an integer >= 1, found 0"),
        (lambda data: data.update(views=[]), "views: expected a list of views"),
        (lambda data: data["views"][0].pop("viewMatrix"), "views[0].viewMatrix: expected 16 finite numbers"),
        (lambda data: data["views"][0].update(rgbPath="../../../etc/passwd"), "is outside the folder of the dataset"),
        (lambda data: data["views"][0].update(rgbPath="images/none.png"), "cannot read the picture"),
        (lambda data: data["views"][0].update(rgbPath=None), "expected rgbPath or rgbBase64, found neither"),
        (lambda data: data["views"][0].update(rgbBase64="%%%"), "rgbBase64: not base64"),
        (
            lambda data: data["imageSize"].update(width=32),
            "the picture has the size (64, 64) (height, width), expected (64, 32)",
        ),
    ],
)
def test_rejects_bad_datasets(change: Any, message: str, workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _edit(workspace, change)
    assert _run(workspace, "--compare") == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset_id", "9"], "No such file"),
        (["--view_index", "7"], "expected view_index < 2, found 7"),
        (["--backend", "nvdiffrast"], "needs a CUDA device"),
        (["--map", "nowhere.json"], "nowhere.json"),
    ],
)
def test_rejects_bad_arguments(
    arguments: list[str], message: str, workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(workspace, *arguments) == 2
    assert message in capsys.readouterr().err


def test_computes_metrics() -> None:
    truth = np.full((2, 4, 3), (135, 207, 235), np.uint8)
    assert metrics.compare(truth, truth) == metrics.Metrics(0.0, math.inf, 0.0, 1.0, 0)
    other = truth.copy()
    other[0, 0] = (135 + 51, 207, 235)
    found = metrics.compare(other, truth)
    assert found.mse == pytest.approx(0.04 / 24)
    assert found.psnr == pytest.approx(10 * math.log10(600))
    assert found.max_error == pytest.approx(0.2)
    assert (found.geometry_match, found.different) == (7 / 8, 1)
    assert metrics.compare(other, truth, np.zeros((2, 4), np.bool_)).geometry_match == 1
    with pytest.raises(ValueError, match="expected pictures of the same shape"):
        metrics.compare(truth, truth[:1])


def test_writes_pictures(workspace: Path) -> None:
    data = dataset.read(workspace / "datasets" / "1")
    world = create_world(capture.generate("terrain", _GRID, 1))
    frame = world.render_frame(*data.matrices(0), _SIZE, _SIZE, Materials(hard=True))
    grey = pictures.depth_picture(frame.depth[0])
    assert grey.max() == 255
    assert (grey[frame.coverage[0, 0].numpy() == 0] == 0).all()
    assert set(np.unique(pictures.normal_picture(frame.normals[0]))) <= {0, 128, 255}
    pictures.save_png(workspace / "a.png", frame.rgba)
    pictures.save_gif(workspace / "turn.gif", [frame.rgba[0], frame.rgba[0].flip(2)])
    with Image.open(workspace / "a.png") as png, Image.open(workspace / "turn.gif") as gif:
        assert (png.mode, png.size) == ("RGBA", (_SIZE, _SIZE))
        assert gif.n_frames == 2
    with pytest.raises(ValueError, match="at least one"):
        pictures.save_gif(workspace / "none.gif", [])
    assert not (workspace / "none.gif").exists()
