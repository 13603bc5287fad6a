from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nv_diff_render import (
    clip_to_ndc,
    create_look_at_matrix,
    create_orbit_views,
    create_orthographic_matrix,
    create_perspective_matrix,
    load_camera_matrices_from_metadata,
    ndc_to_screen,
    world_to_clip,
)
from nv_diff_render.utils import view_projection

_coordinates = st.floats(-50, 50, width=32)
_points = st.tuples(_coordinates, _coordinates, _coordinates)


def test_perspective_matrix_is_that_of_opengl() -> None:
    matrix = create_perspective_matrix(math.radians(60), 2.0, 0.1, 500.0)
    near, far = (world_to_clip(torch.tensor([[0.0, 0.0, -z]]), matrix)[0] for z in (0.1, 500.0))
    assert near[2] / near[3] == pytest.approx(-1, abs=1e-5)
    assert far[2] / far[3] == pytest.approx(1, abs=1e-5)
    top = world_to_clip(torch.tensor([[2 * math.tan(math.radians(30)), math.tan(math.radians(30)), -1.0]]), matrix)
    assert clip_to_ndc(top)[0, :2].tolist() == pytest.approx([1, 1])


@settings(deadline=None)
@given(_points, _points)
def test_look_at_matrix_is_a_rotation_towards_the_center(
    eye: tuple[float, float, float], center: tuple[float, float, float]
) -> None:
    back = torch.tensor(eye, dtype=torch.float64) - torch.tensor(center, dtype=torch.float64)
    if back.norm() < 1e-2 or back[[0, 2]].norm() < 1e-2 * back.norm():
        return
    view = create_look_at_matrix(eye, center).double()
    torch.testing.assert_close(view[:3, :3] @ view[:3, :3].T, torch.eye(3, dtype=torch.float64), atol=1e-5, rtol=0)
    seen = view @ torch.tensor([*center, 1.0], dtype=torch.float64)
    torch.testing.assert_close(seen[:3], torch.tensor([0, 0, -back.norm()]).double(), atol=1e-3, rtol=1e-4)
    assert view[1, 1] > 0


def test_creates_orbit_views_and_orthographic_matrix() -> None:
    views = create_orbit_views((0, 1, 0), 5.0, 2.0, 3)
    assert views.shape == (3, 4, 4)
    assert len({tuple(view.reshape(-1).tolist()) for view in views}) == 3
    box = create_orthographic_matrix(4.0, 1.0, 0.0, 10.0)
    clip = world_to_clip(torch.tensor([[2.0, -2.0, -10.0]]), box)
    assert clip[0].tolist() == pytest.approx([1, -1, 1, 1])
    assert ndc_to_screen(clip, 100, 200)[0].tolist() == pytest.approx([200, 100])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: create_perspective_matrix(0.0, 1.0), "fov_y_rad is 0.0"),
        (lambda: create_perspective_matrix(1.0, 0.0), "aspect is 0.0"),
        (lambda: create_perspective_matrix(1.0, 1.0, 2.0, 1.0), "expected 0 < near < far"),
        (lambda: create_perspective_matrix(math.nan, 1.0), "fov_y_rad is nan"),
        (lambda: create_look_at_matrix((1, 2, 3), (1, 2, 3)), "same point"),
        (lambda: create_look_at_matrix((0, 5, 0), (0, 0, 0)), "parallel"),
        (lambda: create_look_at_matrix((0, 5), (0, 0, 0)), "eye is .* expected three finite"),
        (lambda: create_look_at_matrix((0, 5, math.inf), (0, 0, 0)), "eye is"),
        (lambda: create_orthographic_matrix(0, 1), "height, aspect"),
        (lambda: create_orbit_views((0, 0, 0), 1, 1, 0), "count"),
        (lambda: view_projection(torch.zeros(4, 4), torch.eye(4)), "camera_view: expected an invertible matrix"),
        (lambda: view_projection(torch.eye(4), torch.eye(3)), r"camera_proj: expected \[4, 4\]"),
        (lambda: view_projection(torch.eye(4) * math.nan, torch.eye(4)), "camera_view: expected finite"),
        (lambda: view_projection(torch.eye(4).expand(2, 4, 4), torch.eye(4).expand(3, 4, 4)), "2 views but 3"),
    ],
)
def test_rejects_bad_cameras(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_reads_matrices_from_metadata(tmp_path: Path) -> None:
    view, projection = create_look_at_matrix((1, 2, 3), (0, 0, 0)), create_perspective_matrix(1.0, 1.5)
    entry = {"viewMatrix": view.T.reshape(-1).tolist(), "projectionMatrix": projection.T.reshape(-1).tolist()}
    path = tmp_path / "metadata.json"
    path.write_text(json.dumps({"views": [{}, entry]}))
    for found in (load_camera_matrices_from_metadata(path, 1), load_camera_matrices_from_metadata(entry)):
        assert torch.equal(found[0], view)
        assert torch.equal(found[1], projection)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"views": [', r"metadata.json:1:12: not JSON"),
        ("[]", "expected an object, found list"),
        ('{"views": 3}', "views: expected a list, found int"),
        ('{"views": []}', "expected view_index < 0, found 0"),
        ('{"views": [3]}', r"views\[0\]: expected an object"),
        ('{"views": [{"viewMatrix": [1, 2]}]}', r"views\[0\].viewMatrix: expected 16 finite numbers"),
        ('{"views": [{"viewMatrix": [NaN' + ", 1" * 15 + "]}]}", r"viewMatrix: expected 16 finite"),
        ('{"views": [{"viewMatrix": [true' + ", 1" * 15 + "]}]}", r"viewMatrix: expected 16 finite"),
    ],
)
def test_rejects_bad_metadata(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "metadata.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_camera_matrices_from_metadata(path)
