"""What is given to rasterizers that are not ours, checked: they read memory as they expect it, without looking."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def check_rasterize(pos: torch.Tensor, tri: torch.Tensor, resolution: Sequence[int], device: torch.device) -> None:
    """pos float32 <1,N,4> and tri int32 <M,3>, both on `device`; resolution (H, W). Raises TypeError or ValueError."""
    _check_tensor("pos", pos, torch.float32, device)
    _check_tensor("tri", tri, torch.int32, device)
    if pos.dim() != 3 or pos.shape[0] != 1 or pos.shape[2] != 4:
        raise ValueError(f"pos: expected shape <1,N,4>, found {tuple(pos.shape)}")
    if tri.dim() != 2 or tri.shape[1] != 3:
        raise ValueError(f"tri: expected shape <M,3>, found {tuple(tri.shape)}")
    if len(resolution) != 2 or min(resolution) < 1:
        raise ValueError(f"resolution: expected (height, width), both at least 1, found {tuple(resolution)}")
    if tri.numel() and not 0 <= int(tri.min()) <= int(tri.max()) < pos.shape[1]:
        found = f"{int(tri.min())} to {int(tri.max())}"
        raise ValueError(f"tri: expected vertex indices 0 to {pos.shape[1] - 1}, found {found}")


def _check_tensor(name: str, tensor: torch.Tensor, dtype: torch.dtype, device: torch.device) -> None:
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"{name}: expected a torch.Tensor, found {type(tensor).__name__}")
    if tensor.dtype != dtype:
        raise TypeError(f"{name}: expected {dtype}, found {tensor.dtype}")
    if tensor.device.type != device.type:
        raise ValueError(f"{name}: expected a tensor on {device}, found one on {tensor.device}")
