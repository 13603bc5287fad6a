"""Checks of the arguments of build_hierarchy, before any computation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from torch_rasterizer.hierarchy.grid import Floats
from torch_rasterizer.hierarchy.views import MOST_PIXELS

_LIMIT = 2**31


@dataclass(frozen=True)
class Arrays:
    """The three views as arrays: positions float32 [L, H, W, 4], normals [L, H, W, 3], feats [L, H, W, C] or None."""

    positions: list[Floats]
    normals: list[Floats]
    feats: list[Floats] | None


def to_arrays(
    positions: Sequence[torch.Tensor],
    normals: Sequence[torch.Tensor],
    feats: Sequence[torch.Tensor] | None,
    num_level: int,
    resolution: int,
) -> Arrays:
    """Check the arguments and return the views as arrays on the CPU.

    Raises:
        TypeError, ValueError: if an argument does not match.
    """
    _check_levels(num_level, resolution)
    point_arrays = _view_arrays("view_layer_positions", positions, "[L, H, W, 4]")
    normal_arrays = _view_arrays("view_layer_normals", normals, "[L, H, W, 3]", point_arrays)
    feat_arrays = None if feats is None else _view_arrays("view_layer_feats", feats, "[L, H, W, C]", point_arrays)
    if feat_arrays and len({array.shape[3] for array in feat_arrays}) > 1:
        found = ", ".join(str(list(array.shape)) for array in feat_arrays)
        raise ValueError(f"view_layer_feats: expected the same number of features in each view, found shapes {found}")
    return Arrays(point_arrays, normal_arrays, feat_arrays)


def _check_levels(num_level: int, resolution: int) -> None:
    for name, value in (("num_level", num_level), ("resolution", resolution)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise TypeError(f"{name}: expected an int, found {type(value).__name__}")
    if num_level < 1:
        raise ValueError(f"num_level: expected at least 1, found {num_level}")
    if resolution < 1:
        raise ValueError(f"resolution: expected at least 1, found {resolution}")
    if num_level > 31 or resolution >> (num_level - 1) == 0:
        raise ValueError(
            f"resolution: expected at least 2**(num_level-1) for {num_level} levels that halve the resolution, "
            f"found {resolution}"
        )


def _view_arrays(
    name: str, tensors: Sequence[torch.Tensor], shape: str, like: list[Floats] | None = None
) -> list[Floats]:
    if isinstance(tensors, torch.Tensor) or not isinstance(tensors, Sequence):
        raise TypeError(f"{name}: expected a list of three tensors, found {type(tensors).__name__}")
    if len(tensors) != 3:
        raise ValueError(f"{name}: expected three views, found {len(tensors)}")
    return [
        _array(f"{name}[{view}]", tensor, shape, like[view].shape[:3] if like else None)
        for view, tensor in enumerate(tensors)
    ]


def _array(name: str, tensor: torch.Tensor, shape: str, like: tuple[int, ...] | None) -> Floats:
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"{name}: expected a torch.Tensor, found {type(tensor).__name__}")
    if tensor.dtype != torch.float32:
        raise TypeError(f"{name}: expected torch.float32, found {tensor.dtype}")
    found = tuple(tensor.shape)
    channels = shape.strip("[]").rsplit(", ", 1)[1]
    if len(found) != 4 or (channels.isdigit() and found[3] != int(channels)):
        raise ValueError(f"{name}: expected shape {shape}, found {list(found)}")
    if like is not None and found[:3] != like:
        raise ValueError(f"{name}: expected [L, H, W] = {list(like)} as in view_layer_positions, found {list(found)}")
    if tensor[..., 0].numel() > MOST_PIXELS:
        raise ValueError(f"{name}: expected at most 2**30 pixels in a view, found shape {list(found)}")
    array: Floats = np.ascontiguousarray(tensor.detach().cpu().numpy())
    return array


def check_points(points: Floats, counts: list[int], resolution: int) -> None:
    """Check that valid points [n, 3] lie in cells that fit into 32-bit integers; counts: the number of points per view.

    Raises:
        ValueError: if a point is too far outside the grid, infinite or NaN.
    """
    if not points.size or _fits_int32(points, resolution):
        return
    for view, part in enumerate(np.split(points, np.cumsum(counts)[:-1])):
        if part.size and not _fits_int32(part, resolution):
            raise ValueError(
                f"view_layer_positions[{view}]: expected finite coordinates in [-1,1] where valid, "
                f"found {float(np.abs(part).max())}"
            )


def _fits_int32(points: Floats, resolution: int) -> bool:
    return (float(np.abs(points).max()) * 0.5 + 0.5) * resolution < _LIMIT
