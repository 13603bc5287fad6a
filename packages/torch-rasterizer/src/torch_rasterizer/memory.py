"""Choose a tile size that fits into the free memory."""

from __future__ import annotations

import os

import torch

#: Maximum bytes per pixel for the depth buffer and the intermediate values, on a device that processes all pixels at
#: once and on a device that processes them in parts.
_AT_ONCE, _IN_PARTS = 256, 48


def free_bytes(device: torch.device) -> int | None:
    """Return the free memory in bytes, or None if the device does not report it."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "cpu":
        try:
            return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
        except (ValueError, OSError, AttributeError):
            return None
    return None


def tile_size(height: int, width: int, device: torch.device) -> int | None:
    """Return the side of tiles that use at most half of the free memory.

    Return None if the whole screen fits, or if the free memory is unknown.
    """
    available = free_bytes(device)
    if available is None:
        return None
    each = _IN_PARTS if device.type == "cpu" else _AT_ONCE
    # Ids and barycentrics always cover the whole screen.
    room = max(available // 2 - 16 * height * width, 0) // each
    if height * width <= room:
        return None
    side = 256
    while (2 * side) ** 2 <= room:
        side *= 2
    return side
