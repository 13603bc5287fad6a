"""What is given to rasterizers that are not ours, checked: they read memory as they expect it, without looking."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from torch_rasterizer.validation import check_device, check_faces, check_resolution, check_tensor


def check_rasterize(pos: torch.Tensor, tri: torch.Tensor, resolution: Sequence[int], device: torch.device) -> None:
    """pos float32 <1,N,4> and tri int32 <M,3>, both on `device`; resolution (H, W). Raises TypeError or ValueError."""
    check_tensor("pos", pos, "<1,N,4>", (torch.float32,))
    check_tensor("tri", tri, "<M,3>", (torch.int32,))
    check_device(device, pos=pos, tri=tri)
    check_resolution(resolution)
    check_faces("tri", tri, pos.shape[1])
