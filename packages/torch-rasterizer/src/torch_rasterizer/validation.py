"""Arguments checked: an error names the argument, what was expected and what was found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

FLOATS = (torch.float32, torch.float64)


def check_tensor(name: str, value: Any, shape: str, dtypes: Sequence[torch.dtype]) -> None:
    """A tensor of one of the dtypes and of the shape: '<N,4>' is numbers that must be, and letters for any.

    Raises:
        TypeError: not a tensor, or of another dtype.
        ValueError: of another shape.
    """
    names = " or ".join(str(dtype) for dtype in dtypes)
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{name}: expected a {names} tensor {shape}, found {type(value).__name__}")
    if value.dtype not in dtypes:
        raise TypeError(f"{name}: expected {names}, found {value.dtype}")
    sizes = shape.strip("<>").split(",")
    fits = value.dim() == len(sizes)
    fits = fits and all(not size.isdigit() or int(size) == n for size, n in zip(sizes, value.shape, strict=True))
    if not fits:
        raise ValueError(f"{name}: expected shape {shape}, found {shape_of(value)}")


def check_device(device: torch.device, **tensors: torch.Tensor) -> None:
    """Every tensor on the device.

    Raises:
        ValueError: one is on another.
    """
    for name, tensor in tensors.items():
        same = tensor.device.type == device.type and (device.index is None or tensor.device.index == device.index)
        if not same:
            raise ValueError(f"{name}: expected a tensor on {device}, found one on {tensor.device}")


def check_faces(name: str, faces: torch.Tensor, vertices: int) -> None:
    """Every index of a vertex. On a GPU this waits for it once.

    Raises:
        ValueError: an index is out of range.
    """
    if not faces.numel():
        return
    least, greatest = (int(value) for value in torch.stack(torch.aminmax(faces)).tolist())
    if least < 0 or greatest >= vertices:
        wrong = least if least < 0 else greatest
        face = int(((faces < 0) | (faces >= vertices)).any(dim=1).to(torch.uint8).argmax())
        expected = f"indices 0 to {vertices - 1}" if vertices else "no faces, since there are no vertices"
        raise ValueError(f"{name}: expected {expected}, found {wrong}, the first in face {face}")


def check_size(width: Any, height: Any) -> tuple[int, int]:
    """Height and width, whole numbers from 1.

    Raises:
        TypeError: not whole numbers.
        ValueError: less than 1.
    """
    for name, value in (("width", width), ("height", height)):
        if isinstance(value, bool) or not hasattr(value, "__index__"):
            raise TypeError(f"{name}: expected a whole number, found {type(value).__name__} {value!r}")
        if value.__index__() < 1:
            raise ValueError(f"{name}: expected at least 1 pixel, found {value}")
    return height.__index__(), width.__index__()


def check_resolution(resolution: Any) -> tuple[int, int]:
    """Height and width, of whatever holds two.

    Raises:
        TypeError, ValueError: it does not, or they are not whole numbers from 1.
    """
    try:
        height, width = resolution
    except (TypeError, ValueError):
        raise ValueError(f"resolution: expected height and width, found {resolution!r}") from None
    return check_size(width, height)


def check_count(name: str, value: Any) -> None:
    """A whole number from 1, or None.

    Raises:
        TypeError, ValueError: it is not.
    """
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}: expected a whole number or None, found {type(value).__name__}")
    if value < 1:
        raise ValueError(f"{name}: expected at least 1, found {value}")


def shape_of(tensor: torch.Tensor) -> str:
    """As '<2,3>'."""
    return f"<{','.join(str(size) for size in tensor.shape)}>"
