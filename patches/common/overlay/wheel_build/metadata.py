"""What setup() is told about the package, whichever kind of wheel is made."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from layout import Layout

# Needed by just-in-time compilation on Windows alone.
_WINDOWS_ONLY = {".lib"}


def _data_files(tree: Path, layout: Layout) -> dict[str, list[str]]:
    """Every file of upstream's packages that is not Python, by the package that carries it."""
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
    """Upstream's own wheel: Python and sources, compiled just in time where the line can do that."""
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
