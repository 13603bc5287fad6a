"""Writes nvdiffrast/build_info.json, which states how a wheel was built, but not when or where."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from layout import Layout
from objects import Nvcc, first_line


def architectures(flags: Sequence[str]) -> dict[str, list[str]]:
    """Return the compute capabilities of SASS and PTX in the -gencode flags of nvcc."""
    found: dict[str, set[tuple[int, ...]]] = {"sm": set(), "compute": set()}
    for flag in flags:
        for kind, number in re.findall(r"code=(sm|compute)_(\d+)[a-z]?", flag):
            found[kind].add((int(number[:-1]), int(number[-1])))
    return {
        name: ["{}.{}".format(*capability) for capability in sorted(found[kind])]
        for name, kind in (("sass", "sm"), ("ptx", "compute"))
    }


def _number(version_line: str) -> str:
    """Return the last version number in the version line of a compiler: 13.0.88, 12.2.0."""
    return re.findall(r"\d+\.\d+(?:\.\d+)*", version_line)[-1]


def write(build_lib: Path, layout: Layout, nvcc: Nvcc, host_flags: Sequence[str]) -> None:
    """Write the file into the package under ``build_lib``.

    NVDIFFRAST_CELL is the id of the cell; NVDIFFRAST_PARTIAL=1 marks a wheel that does not contain all architectures.
    """
    license_text = Path("LICENSE.txt").read_bytes()
    info = {
        "cell": os.environ.get("NVDIFFRAST_CELL"),
        "release": layout.release,
        "source": layout.origin["source"],
        "series": layout.origin["series"],
        "series_sha256": layout.origin["series_sha256"],
        "license_sha256": hashlib.sha256(license_text).hexdigest(),
        "python": f"cp{sys.version_info.major}{sys.version_info.minor}",
        "torch": torch.__version__.split("+")[0],
        "cuda": torch.version.cuda,
        "compiler": {
            "cxx": _number(nvcc.host_version),
            "cxx_build": nvcc.host_version,
            "linker": first_line(["ld", "--version"]) if os.name == "posix" else None,
            "nvcc": _number(nvcc.version),
        },
        "architectures": architectures(nvcc.flags),
        "flags": {"cxx": list(host_flags), "nvcc": list(nvcc.flags)},
        "partial": os.environ.get("NVDIFFRAST_PARTIAL") == "1",
        "plugins": [plugin.name for plugin in layout.plugins],
    }
    text = json.dumps(info, indent=2, sort_keys=True) + "\n"
    (build_lib / "nvdiffrast" / "build_info.json").write_text(text, encoding="utf-8", newline="\n")
