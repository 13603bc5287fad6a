"""How much of the screen fits into the memory there is."""

from __future__ import annotations

import os

import torch

#: Bytes a pixel at most while it is drawn, on a device that works on all pixels at once and on one that does not:
#: the depth buffer, and what barycentrics are computed from.
_AT_ONCE, _IN_PARTS = 256, 48


def free(device: torch.device) -> int | None:
    """Bytes that can be taken, None if the device does not tell."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "cpu":
        try:
            return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
        except (ValueError, OSError, AttributeError):
            return None
    return None


def tile(height: int, width: int, device: torch.device) -> int | None:
    """The side of tiles that take half of the free memory at most; None if the whole screen does, or if unknown."""
    there = free(device)
    if there is None:
        return None
    each = _IN_PARTS if device.type == "cpu" else _AT_ONCE
    # Ids and barycentrics are of the whole screen in any case.
    room = max(there // 2 - 16 * height * width, 0) // each
    if height * width <= room:
        return None
    side = 256
    while (2 * side) ** 2 <= room:
        side *= 2
    return side
