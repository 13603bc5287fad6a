"""Finds a compiled custom_rasterizer, which must not be replaced without its user knowing."""

from __future__ import annotations

import importlib.machinery
import os
import sys
import warnings
from pathlib import Path

_KERNEL = "custom_rasterizer_kernel"
# Set to 1 to use this package although the original is there.
_SHADOW = "TORCH_RASTERIZER_SHADOW"


def refuse_to_shadow() -> None:
    """Raise ImportError if a compiled original is on the path; with TORCH_RASTERIZER_SHADOW=1 only warn."""
    found = compiled()
    if found is None:
        return
    if os.environ.get(_SHADOW) == "1":
        message = f"custom_rasterizer: using the one in plain PyTorch, not the compiled one, {found}"
        warnings.warn(message, RuntimeWarning, stacklevel=3)
        return
    raise ImportError(
        f"custom_rasterizer: a compiled original is installed as well: {found}; keep one of them: "
        f"pip uninstall custom-rasterizer (removes this one), or set {_SHADOW}=1 to use this one",
        name="custom_rasterizer",
    )


def compiled() -> Path | None:
    """The compiled kernel on sys.path that belongs to the original, None if there is none."""
    for entry in sys.path:
        folder = Path(entry or ".")
        for suffix in importlib.machinery.EXTENSION_SUFFIXES:
            file = folder / f"{_KERNEL}{suffix}"
            if file.is_file():
                return file
    return None
