"""Checks of arguments; every error names the argument, the expectation and the value found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

FLOATS = (torch.float32, torch.float64)


def check_tensor(name: str, value: Any, shape: str, dtypes: Sequence[torch.dtype]) -> None:
    """Check that a value is a tensor with one of the dtypes and with the shape, e.g. '[N, 4]'; letters match any size.

    Raises:
        TypeError: if the value is not a tensor or has another dtype.
        ValueError: if the tensor has another shape.
    """
    names = " or ".join(str(dtype) for dtype in dtypes)
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{name}: expected a {names} tensor {shape}, found {type(value).__name__}")
    if value.dtype not in dtypes:
        raise TypeError(f"{name}: expected {names}, found {value.dtype}")
    sizes = shape.strip("[]").split(", ")
    fits = value.dim() == len(sizes)
    fits = fits and all(not size.isdigit() or int(size) == n for size, n in zip(sizes, value.shape, strict=True))
    if not fits:
        raise ValueError(f"{name}: expected shape {shape}, found {shape_of(value)}")


def check_device(device: torch.device, **tensors: torch.Tensor) -> None:
    """Check that every tensor is on the device.

    Raises:
        ValueError: if a tensor is on another device.
    """
    for name, tensor in tensors.items():
        same = tensor.device.type == device.type and (device.index is None or tensor.device.index == device.index)
        if not same:
            raise ValueError(f"{name}: expected a tensor on {device}, found one on {tensor.device}")


def check_faces(name: str, faces: torch.Tensor, vertices: int) -> None:
    """Check that every index refers to a vertex. On a GPU this synchronizes once.

    Raises:
        ValueError: if an index is out of range.
    """
    if not faces.numel():
        return
    least, greatest = (int(value) for value in torch.stack(torch.aminmax(faces)).tolist())
    if least < 0 or greatest >= vertices:
        wrong = least if least < 0 else greatest
        face = int(((faces < 0) | (faces >= vertices)).any(dim=1).to(torch.uint8).argmax())
        expected = f"indices 0 to {vertices - 1}" if vertices else "no faces, because there are no vertices"
        raise ValueError(f"{name}: expected {expected}, found {wrong}; the first invalid face is {face}")


def check_size(width: Any, height: Any) -> tuple[int, int]:
    """Return height and width after checking that they are integers >= 1.

    Raises:
        TypeError: if one is not an integer.
        ValueError: if one is less than 1.
    """
    for name, value in (("width", width), ("height", height)):
        if isinstance(value, bool) or not hasattr(value, "__index__"):
            raise TypeError(f"{name}: expected an integer, found {type(value).__name__} {value!r}")
        if value.__index__() < 1:
            raise ValueError(f"{name}: expected at least 1 pixel, found {value}")
    return height.__index__(), width.__index__()


def check_resolution(resolution: Any) -> tuple[int, int]:
    """Return height and width of a sequence of two integers.

    Raises:
        TypeError, ValueError: if it does not hold exactly two integers >= 1.
    """
    try:
        height, width = resolution
    except (TypeError, ValueError):
        raise ValueError(f"resolution: expected height and width, found {resolution!r}") from None
    return check_size(width, height)


def check_rasterize(pos: torch.Tensor, tri: torch.Tensor, resolution: Sequence[int], device: torch.device) -> None:
    """Check arguments for a compiled rasterizer, which reads memory without checking.

    pos: float32 [1, N, 4] and tri: int32 [M, 3], both on ``device``. resolution: (H, W).

    Raises:
        TypeError, ValueError: if an argument does not match.
    """
    check_tensor("pos", pos, "[1, N, 4]", (torch.float32,))
    check_tensor("tri", tri, "[M, 3]", (torch.int32,))
    check_device(device, pos=pos, tri=tri)
    check_resolution(resolution)
    check_faces("tri", tri, pos.shape[1])


def check_count(name: str, value: Any) -> None:
    """Check that a value is None or an integer >= 1.

    Raises:
        TypeError: if it is of another type.
        ValueError: if it is less than 1.
    """
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}: expected an integer or None, found {type(value).__name__}")
    if value < 1:
        raise ValueError(f"{name}: expected at least 1, found {value}")


def shape_of(tensor: torch.Tensor) -> str:
    """Return the shape of a tensor as text, e.g. '[2, 3]'."""
    return str(list(tensor.shape))
