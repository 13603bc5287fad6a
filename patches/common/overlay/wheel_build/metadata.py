"""The arguments of setup() that source and binary wheels share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from layout import Layout

# Only just-in-time compilation on Windows needs these files.
_WINDOWS_ONLY = {".lib"}


def _data_files(tree: Path, layout: Layout) -> dict[str, list[str]]:
    """Return the files of upstream's packages that are not Python modules, by package."""
    data: dict[str, list[str]] = {}
    folders = {package: tree / package.replace(".", "/") for package in layout.packages}
    for package, folder in folders.items():
        nested = {other for other in folders.values() if other != folder and folder in other.parents}
        data[package] = sorted(
            path.relative_to(folder).as_posix()
            for path in folder.rglob("*")
            if path.is_file()
            and path.suffix not in {".py", ".pyc", ".so", ".pyd"}
            and (os.name == "nt" or path.suffix not in _WINDOWS_ONLY)
            and not nested.intersection(path.parents)
        )
    return data


def source_wheel(tree: Path, layout: Layout) -> dict[str, Any]:
    """Return the arguments for upstream's own wheel, which contains Python modules and C++ and CUDA sources."""
    return {
        "name": "nvdiffrast",
        "version": layout.release,
        "description": "Modular primitives for high-performance differentiable rendering",
        "long_description": (tree / "wheel_build" / "README.md").read_text(encoding="utf-8"),
        "long_description_content_type": "text/markdown",
        "author": "NVIDIA Corporation",
        "url": "https://github.com/NVlabs/nvdiffrast",
        "license": "LicenseRef-Nvidia-Source-Code-License",
        "license_files": ["LICENSE.txt"],
        "python_requires": ">=3.9",
        "install_requires": ["numpy"],
        "packages": list(layout.packages),
        "entry_points": {"pyinstaller40": ["hook-dirs = nvdiffrast._pyinstaller:get_hook_dirs"]},
        "package_data": _data_files(tree, layout),
        "include_package_data": False,
        "zip_safe": False,
    }
