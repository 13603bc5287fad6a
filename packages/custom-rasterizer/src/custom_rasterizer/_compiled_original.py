"""Detect a compiled custom_rasterizer, which this package must not shadow silently."""

from __future__ import annotations

import importlib.machinery
import os
import sys
import warnings
from pathlib import Path

_KERNEL = "custom_rasterizer_kernel"
# Set to 1 to use this package although a compiled original is installed.
_SHADOW = "TORCH_RASTERIZER_SHADOW"


def refuse_to_shadow() -> None:
    """Raise ImportError if a compiled original is on the path; with TORCH_RASTERIZER_SHADOW=1 warn instead."""
    found = find_compiled_kernel()
    if found is None:
        return
    if os.environ.get(_SHADOW) == "1":
        message = f"custom_rasterizer: using the plain PyTorch package, not the compiled kernel {found}"
        warnings.warn(message, RuntimeWarning, stacklevel=3)
        return
    raise ImportError(
        f"custom_rasterizer: a compiled original is installed as well: {found}; run pip uninstall custom-rasterizer "
        f"to remove this package, or set {_SHADOW}=1 to use this package",
        name="custom_rasterizer",
    )


def find_compiled_kernel() -> Path | None:
    """Return the compiled kernel of the original on sys.path, or None if it is not installed."""
    for entry in sys.path:
        folder = Path(entry or ".")
        for suffix in importlib.machinery.EXTENSION_SUFFIXES:
            file = folder / f"{_KERNEL}{suffix}"
            if file.is_file():
                return file
    return None
