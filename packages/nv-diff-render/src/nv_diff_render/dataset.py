"""Datasets of views: datasets/ID/metadata.json with cameras, and the pictures that WebGPU drew from them."""

from __future__ import annotations

import base64
import binascii
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, UnidentifiedImageError

from nv_diff_render.camera import load_camera_matrices_from_metadata
from nv_diff_render.files import read_json, write_atomic

METADATA = "metadata.json"
VERSION = "1.0"

Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Camera:
    """The camera of a view: matrices [4, 4] and the parameters of the projection."""

    view: torch.Tensor
    projection: torch.Tensor
    fov_y_degrees: float
    near: float
    far: float


@dataclass(frozen=True)
class Dataset:
    """A dataset; ``size`` is height and width, ``views`` the metadata of each view."""

    folder: Path
    size: tuple[int, int]
    views: Sequence[Mapping[str, Any]]
    capture_id: str

    def matrices(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return view and projection [4, 4].

        Raises:
            ValueError: if the view does not exist or its matrices are malformed.
        """
        return _matrices(self.folder / METADATA, self.views, index)

    def picture(self, index: int) -> Picture:
        """Return the picture uint8 [H, W, 3] that WebGPU drew.

        Raises:
            ValueError: if the picture is missing or does not have the size of the dataset.
        """
        view = self.views[index]
        place = f"{self.folder / METADATA}: views[{index}]"
        source = _decode_embedded(view, place) if view.get("rgbBase64") else self._picture_path(view, place)
        try:
            with Image.open(source) as image:
                found = np.asarray(image.convert("RGB"))
        except (OSError, UnidentifiedImageError) as error:
            raise ValueError(f"{place}: cannot read the picture: {error}") from error
        if found.shape[:2] != self.size:
            raise ValueError(
                f"{place}: the picture has the size {found.shape[:2]} (height, width), expected {self.size}"
            )
        return found

    def _picture_path(self, view: Mapping[str, Any], place: str) -> Path:
        path = view.get("rgbPath")
        if not isinstance(path, str) or not path:
            raise ValueError(f"{place}: expected rgbPath or rgbBase64, found neither")
        found = (self.folder / path).resolve()
        if not found.is_relative_to(self.folder.resolve()):
            raise ValueError(f"{place}.rgbPath: {path!r} is outside the folder of the dataset")
        return found


def read(folder: Path) -> Dataset:
    """Read the metadata of a dataset.

    Raises:
        ValueError: if the metadata is malformed; the message names the place.
        OSError: if the file is missing.
    """
    path = folder / METADATA
    data = read_json(path)
    size = data.get("imageSize")
    if not isinstance(size, Mapping):
        raise ValueError(f"{path}: imageSize: expected an object with width and height, found {size!r}")
    for side in ("height", "width"):
        if not isinstance(size.get(side), int) or size[side] < 1:
            raise ValueError(f"{path}: imageSize.{side}: expected an integer >= 1, found {size.get(side)!r}")
    views = data.get("views")
    if not isinstance(views, list) or not views:
        raise ValueError(f"{path}: views: expected a list of views, found {str(views)[:40]}")
    for index in range(len(views)):
        _matrices(path, views, index)
    return Dataset(folder, (size["height"], size["width"]), views, str(data.get("captureId", "")))


def write(
    folder: Path, cameras: Sequence[Camera], pictures: Sequence[Picture], *, capture_id: str, captured_at: str
) -> None:
    """Write a dataset. The metadata is written last, so that a dataset with metadata is complete.

    Args:
        folder: datasets/ID.
        cameras: one camera per view.
        pictures: uint8 [H, W, 4] or [H, W, 3], one picture per view.
        capture_id: links the dataset to its map.
        captured_at: time in ISO 8601.
    """
    views = []
    for index, (camera, picture) in enumerate(zip(cameras, pictures, strict=True)):
        name = f"images/{index:03}_view_{index + 1:03}.png"
        write_atomic(folder / name, png(picture[..., :3]))
        views.append(_view_metadata(camera, index, name, picture.shape[:2], captured_at))
    height, width = pictures[0].shape[:2]
    content = {
        "formatVersion": VERSION,
        "exportedAt": captured_at,
        "imageSize": {"width": width, "height": height},
        "viewCount": len(views),
        "captureId": capture_id,
        "views": views,
    }
    write_atomic(folder / METADATA, (json.dumps(content, indent=1) + "\n").encode())


def png(picture: Picture) -> bytes:
    """Return a picture uint8 [H, W, 3] as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _view_metadata(camera: Camera, index: int, name: str, size: tuple[int, ...], captured_at: str) -> dict[str, Any]:
    rotation = camera.view[:3, :3].double()
    right, up, back = rotation
    product = (camera.projection.double() @ camera.view.double()).float()
    return {
        "id": f"view_{index + 1:03}",
        "index": index,
        "capturedAt": captured_at,
        "position": (-rotation.T @ camera.view[:3, 3].double()).tolist(),
        "forward": (-back).tolist(),
        "up": up.tolist(),
        "right": right.tolist(),
        "intrinsics": {
            "fovYDegrees": camera.fov_y_degrees,
            "aspect": size[1] / size[0],
            "near": camera.near,
            "far": camera.far,
        },
        "viewMatrix": _columns(camera.view),
        "projectionMatrix": _columns(camera.projection),
        "viewProjectionMatrix": _columns(product),
        "rgbPath": name,
        "depthPath": None,
        "normalPath": None,
    }


def _columns(matrix: torch.Tensor) -> list[float]:
    return [float(value) for value in matrix.T.reshape(-1)]


def _matrices(path: Path, views: Sequence[Mapping[str, Any]], index: int) -> tuple[torch.Tensor, torch.Tensor]:
    try:
        return load_camera_matrices_from_metadata({"views": list(views)}, index)
    except ValueError as error:
        raise ValueError(str(error).replace("metadata:", f"{path}:", 1)) from error


def _decode_embedded(view: Mapping[str, Any], place: str) -> io.BytesIO:
    text = str(view["rgbBase64"])
    try:
        return io.BytesIO(base64.b64decode(text.partition(",")[2] or text, validate=True))
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"{place}.rgbBase64: not base64: {error}") from error
