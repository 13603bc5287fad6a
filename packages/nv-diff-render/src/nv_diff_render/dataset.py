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
from nv_diff_render.files import read_json, write_whole

METADATA = "metadata.json"
VERSION = "1.0"

Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Camera:
    """What a view was drawn with: matrices <4,4>, and what they were made from."""

    view: torch.Tensor
    projection: torch.Tensor
    fov_y_degrees: float
    near: float
    far: float


@dataclass(frozen=True)
class Dataset:
    """A dataset that was read; ``size`` is height and width, ``views`` the metadata of each view."""

    folder: Path
    size: tuple[int, int]
    views: Sequence[Mapping[str, Any]]
    capture_id: str

    def matrices(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """View and projection <4,4>.

        Raises:
            ValueError: there is no such view, or its matrices are malformed.
        """
        return _matrices(self.folder / METADATA, self.views, index)

    def picture(self, index: int) -> Picture:
        """The picture uint8 <H,W,3> that WebGPU drew.

        Raises:
            ValueError: there is none, or it is not of the dataset's size.
        """
        view = self.views[index]
        place = f"{self.folder / METADATA}: views[{index}]"
        source = _embedded(view, place) if view.get("rgbBase64") else self._file(view, place)
        try:
            with Image.open(source) as image:
                found = np.asarray(image.convert("RGB"))
        except (OSError, UnidentifiedImageError) as error:
            raise ValueError(f"{place}: its picture cannot be read: {error}") from error
        if found.shape[:2] != self.size:
            raise ValueError(f"{place}: its picture has {found.shape[:2]} pixels (h, w), not {self.size}")
        return found

    def _file(self, view: Mapping[str, Any], place: str) -> Path:
        path = view.get("rgbPath")
        if not isinstance(path, str) or not path:
            raise ValueError(f"{place}: it has neither rgbPath nor rgbBase64")
        found = (self.folder / path).resolve()
        if not found.is_relative_to(self.folder.resolve()):
            raise ValueError(f"{place}.rgbPath: {path!r} leads out of the dataset's folder")
        return found


def read(folder: Path) -> Dataset:
    """Read a dataset's metadata.

    Raises:
        ValueError: it is malformed; the message names the place.
        OSError: it is not there.
    """
    path = folder / METADATA
    data = read_json(path)
    size = data.get("imageSize")
    if not isinstance(size, Mapping):
        raise ValueError(f"{path}: imageSize: expected an object of width and height, found {size!r}")
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
    """Write a dataset: first the pictures, the metadata last, so that what has metadata is whole.

    Args:
        folder: datasets/ID.
        cameras: of every view.
        pictures: uint8 <H,W,4> or <H,W,3> of every view.
        capture_id: ties it to its map.
        captured_at: time in ISO 8601.
    """
    views = []
    for index, (camera, picture) in enumerate(zip(cameras, pictures, strict=True)):
        name = f"images/{index:03}_view_{index + 1:03}.png"
        write_whole(folder / name, png(picture[..., :3]))
        views.append(_view(camera, index, name, picture.shape[:2], captured_at))
    height, width = pictures[0].shape[:2]
    content = {
        "formatVersion": VERSION,
        "exportedAt": captured_at,
        "imageSize": {"width": width, "height": height},
        "viewCount": len(views),
        "captureId": capture_id,
        "views": views,
    }
    write_whole(folder / METADATA, (json.dumps(content, indent=1) + "\n").encode())


def png(picture: Picture) -> bytes:
    """A picture uint8 <H,W,3> as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _view(camera: Camera, index: int, name: str, size: tuple[int, ...], captured_at: str) -> dict[str, Any]:
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


def _embedded(view: Mapping[str, Any], place: str) -> io.BytesIO:
    text = str(view["rgbBase64"])
    try:
        return io.BytesIO(base64.b64decode(text.partition(",")[2] or text, validate=True))
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"{place}.rgbBase64: not base64: {error}") from error
