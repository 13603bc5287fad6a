"""Example materials of a wheel, and the bill of materials that they give."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from scripts.audit.checks import BUILD_INFO
from scripts.model import Cell
from scripts.wheel import sbom, wheel_file
from scripts.wheel.build_info import BuildInfo
from scripts.wheel.materials import CUDA_LICENCE, Materials, Part
from tests.unit import wheel_factory
from tests.unit.wheel_factory import CELL

EPOCH = 1_577_836_800


def materials_of(cell: Cell = CELL) -> Materials:
    """Return materials for a wheel of tests.unit.wheel_factory."""
    return Materials(
        cell=cell,
        engine="host",
        image=None,
        architectures=cell.toolkit.policy,
        series_sha256="a" * 64,
        series={"patches/0.3/one.patch": "1" * 64, "patches/common/overlay/two.py": "2" * 64},
        provider="pypi",
        toolkit=(Part("nvidia-cuda-nvcc", "13.0.88", ("3" * 64, "4" * 64), CUDA_LICENCE),),
        runtime="13.0.96",
        torch=Part("torch", cell.torch.version, ("5" * 64,), "BSD-3-Clause"),
        locks={"requirements/pipeline.txt": "6" * 64},
    )


def build_info(cell: Cell = CELL) -> BuildInfo:
    """Return the build_info.json of a wheel of tests.unit.wheel_factory."""
    return BuildInfo.parse(json.dumps(wheel_factory.build_info(cell)).encode())


def bill(wheel: Path, materials: Materials) -> bytes:
    """Return the bill of materials of a wheel file."""
    with tempfile.TemporaryDirectory() as folder:
        unpacked = wheel_file.unpack(wheel, Path(folder))
        info = BuildInfo.parse(unpacked.read(BUILD_INFO))
        return sbom.make(unpacked, info, materials, epoch=EPOCH)
