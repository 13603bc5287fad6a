"""Selection of torch devices."""

from __future__ import annotations

import torch


def best_device() -> torch.device:
    """Return CUDA or ROCm if available, else MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def as_device(device: torch.device | str) -> torch.device:
    """Return the device with this name.

    Raises:
        ValueError: if torch knows no such device.
    """
    try:
        return torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device: expected a torch.device or its name, found {device!r}") from error
