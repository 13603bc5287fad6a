"""Cameras: view and projection matrices [4, 4] float32, column vectors (clip = projection @ view @ world), y up.

The perspective projection is that of OpenGL with z/w in [-1, 1], as in the engine. WebGPU draws only z/w in [0, 1], so
the effective near plane is at 2nf/(n+f), nearly twice ``near``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from nv_diff_render.files import read_json

Vector = Sequence[float]


def create_perspective_matrix(fov_y_rad: float, aspect: float, near: float = 0.1, far: float = 500.0) -> torch.Tensor:
    """Return a perspective projection [4, 4].

    ``fov_y_rad`` is the vertical field of view in radians, ``aspect`` is width / height.

    Raises:
        ValueError: if the angle is not in (0, pi), the aspect is not positive, or 0 < near < far does not hold.
    """
    if not 0 < fov_y_rad < math.pi:
        raise ValueError(f"fov_y_rad is {fov_y_rad}: expected radians between 0 and pi")
    if not aspect > 0:
        raise ValueError(f"aspect is {aspect}: expected width / height > 0")
    if not 0 < near < far:
        raise ValueError(f"near, far are {near}, {far}: expected 0 < near < far")
    scale = 1.0 / math.tan(fov_y_rad / 2)
    depth = (far + near) / (near - far), 2 * far * near / (near - far)
    return torch.tensor(
        [[scale / aspect, 0, 0, 0], [0, scale, 0, 0], [0, 0, *depth], [0, 0, -1, 0]], dtype=torch.float32
    )


def create_orthographic_matrix(height: float, aspect: float, near: float = 0.1, far: float = 500.0) -> torch.Tensor:
    """Return an orthographic projection [4, 4] of a box ``height`` world units high; z/w is 0 at near and 1 at far.

    Raises:
        ValueError: if height or aspect is not positive, or near is not less than far.
    """
    if not (height > 0 and aspect > 0):
        raise ValueError(f"height, aspect are {height}, {aspect}: expected both > 0")
    if not near < far:
        raise ValueError(f"near, far are {near}, {far}: expected near < far")
    depth = 1 / (near - far), near / (near - far)
    half = height / 2
    return torch.tensor(
        [[1 / (half * aspect), 0, 0, 0], [0, 1 / half, 0, 0], [0, 0, *depth], [0, 0, 0, 1]], dtype=torch.float32
    )


def create_look_at_matrix(eye: Vector, center: Vector, up: Vector = (0.0, 1.0, 0.0)) -> torch.Tensor:
    """Return the view matrix [4, 4] of a camera at ``eye`` that looks at ``center``.

    Raises:
        ValueError: if a vector does not have three numbers, eye equals center, or up is parallel to the view direction.
    """
    where, target, upward = (_as_vector(name, value) for name, value in (("eye", eye), ("center", center), ("up", up)))
    back = where - target
    if not back.norm() > 0:
        raise ValueError(f"eye and center are the same point {tuple(eye)}: expected two different points")
    z = back / back.norm()
    x = torch.linalg.cross(upward, z)
    if not x.norm() > 1e-9 * max(float(upward.norm()), 1e-30):
        raise ValueError(f"up {tuple(up)} is parallel to the view direction or zero: expected another direction")
    x = x / x.norm()
    rotation = torch.stack([x, torch.linalg.cross(z, x), z])
    view = torch.eye(4, dtype=torch.float64)
    view[:3, :3] = rotation
    view[:3, 3] = -rotation @ where
    return view.float()


def create_orbit_views(
    center: Vector, radius: float, height: float, count: int, start_rad: float = 0.0
) -> torch.Tensor:
    """Return view matrices [count, 4, 4] on a circle around ``center``, ``height`` above it, all looking at it.

    Raises:
        ValueError: if the count or the radius is not positive.
    """
    if count < 1 or not radius > 0:
        raise ValueError(f"count, radius are {count}, {radius}: expected count >= 1 and radius > 0")
    x, y, z = center
    angles = (start_rad + 2 * math.pi * turn / count for turn in range(count))
    eyes = ((x + radius * math.sin(angle), y + height, z + radius * math.cos(angle)) for angle in angles)
    return torch.stack([create_look_at_matrix(eye, center) for eye in eyes])


def load_camera_matrices_from_metadata(
    metadata: Mapping[str, Any] | str | Path, view_index: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the view and projection matrix [4, 4] of one view of a dataset.

    Args:
        metadata: the parsed metadata.json, its path, or the metadata of a single view.
        view_index: index of the view.

    Raises:
        ValueError: if the view does not exist or its matrices are malformed; the message names the place.
    """
    place = "metadata"
    if isinstance(metadata, (str, Path)):
        place = str(metadata)
        metadata = read_json(Path(metadata))
    if "viewMatrix" in metadata:
        return _read_matrix(metadata, "viewMatrix", place), _read_matrix(metadata, "projectionMatrix", place)
    views = metadata.get("views")
    if not isinstance(views, list):
        raise ValueError(f"{place}: views: expected a list, found {type(views).__name__}")
    if not 0 <= view_index < len(views):
        raise ValueError(f"{place}: views: expected view_index < {len(views)}, found {view_index}")
    place = f"{place}: views[{view_index}]"
    if not isinstance(views[view_index], Mapping):
        raise ValueError(f"{place}: expected an object, found {type(views[view_index]).__name__}")
    return _read_matrix(views[view_index], "viewMatrix", place), _read_matrix(
        views[view_index], "projectionMatrix", place
    )


def _read_matrix(view: Mapping[str, Any], key: str, place: str) -> torch.Tensor:
    """Return a matrix of the metadata, which stores it column by column."""
    numbers = view.get(key)
    valid = isinstance(numbers, list) and len(numbers) == 16 and all(map(_is_finite, numbers))
    if not valid:
        raise ValueError(f"{place}.{key}: expected 16 finite numbers, found {str(numbers)[:60]}")
    return torch.tensor(numbers, dtype=torch.float32).reshape(4, 4).T.contiguous()


def _is_finite(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _as_vector(name: str, value: Vector) -> torch.Tensor:
    found = torch.as_tensor(value, dtype=torch.float64).reshape(-1)
    if found.shape != (3,) or not bool(found.isfinite().all()):
        raise ValueError(f"{name} is {value!r}: expected three finite numbers")
    return found
