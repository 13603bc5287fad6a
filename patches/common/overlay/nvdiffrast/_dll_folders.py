"""Finds the folders in which Windows has to search for the DLLs of the compiled modules."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import sys
from pathlib import Path

from . import _paths


def find() -> list[Path]:
    """Return the absolute paths of the existing folders, in the order in which Windows searches them.

    The folders are those of NVDIFFRAST_DLL_DIRS, the wheel's own, torch's, those of the nvidia-* wheels, CUDA_PATH's,
    and those of the installed toolkits of the CUDA major version that the wheel was built for. The list is empty on
    other systems, where each library stores the folders of the libraries it needs.
    """
    if not hasattr(os, "add_dll_directory"):
        return []
    folders = [*_listed_in("NVDIFFRAST_DLL_DIRS"), _paths.BUNDLED_LIBRARIES]
    torch = _torch_folder()
    if torch is not None:
        folders += [
            torch / "lib",
            *sorted(torch.parent.glob("nvidia/*/bin")),
            *sorted(torch.parent.glob("nvidia/*/bin/*")),
        ]
    homes = [os.environ.get("CUDA_PATH", ""), *_toolkits()]
    folders += [Path(home, *parts) for home in homes if home for parts in (("bin",), ("bin", "x64"))]
    # A relative folder would depend on the current folder.
    return list(dict.fromkeys(folder for folder in folders if folder.is_absolute() and _paths.is_folder(folder)))


def _listed_in(variable: str) -> list[Path]:
    """Return the folders that an environment variable lists; as in PATH, a folder with a separator in it is quoted."""
    parts = re.findall(rf'(?:[^{os.pathsep}"]|"[^"]*"?)+', os.environ.get(variable, ""))
    return [Path(part) for part in (part.replace('"', "").strip() for part in parts) if part]


def _torch_folder() -> Path | None:
    """Return torch's folder without importing torch, or None if torch is not found."""
    module = sys.modules.get("torch")
    file = getattr(module, "__file__", None)
    if file is None:
        try:
            spec = importlib.util.find_spec("torch")
        except (ImportError, ValueError):
            return None
        file = spec.origin if spec is not None else None
    return Path(file).parent if file else None


def _toolkits() -> list[str]:
    """Return the toolkits of the wheel's CUDA major version, newest first, from the variables their installers set."""
    try:
        info = json.loads(_paths.BUILD_INFO.read_text(encoding="utf-8"))
        major = str(info["cuda"]).partition(".")[0]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    names = [name for name in os.environ if name.upper().startswith(f"CUDA_PATH_V{major}_")]
    return [os.environ[name] for name in sorted(names, reverse=True)]
