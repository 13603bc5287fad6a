"""Compare the entries that scripts.wheel.fatbin finds in nvcc's output with those that NVIDIA's cuobjdump lists."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from scripts.support import process
from scripts.wheel import fatbin, library_reader
from scripts.wheel.fatbin import Entry
from tests.integration import registry

pytestmark = pytest.mark.integration

_KERNEL = """\
__global__ void NAME_kernel(float *values) { values[threadIdx.x] *= 2.0f; }
extern "C" void NAME(float *values) { NAME_kernel<<<1, 32>>>(values); }
"""
_CUOBJDUMP = (
    "nvidia-cuda-cuobjdump==13.2.51",
    "95c69d3ddf0c2c1f535ec44c3433a66aeee19f588d9d22f73356e20b25f12b50",
)


@pytest.fixture(scope="module")
def cuda_home() -> Path:
    for root in (os.environ.get("CUDA_HOME"), "/usr/local/cuda"):
        if root and (Path(root) / "bin" / "nvcc").exists():
            return Path(root)
    pytest.skip("needs nvcc: set CUDA_HOME to a CUDA toolkit")


@pytest.fixture(scope="module")
def cuobjdump(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = process.which("cuobjdump")
    if found:
        return found
    folder = registry.install(*_CUOBJDUMP, tmp_path_factory.mktemp("tools") / "cuobjdump")
    return next(folder.rglob("bin/cuobjdump"))


def _object(cuda_home: Path, folder: Path, name: str, gencode: Sequence[str]) -> Path:
    (folder / f"{name}.cu").write_text(_KERNEL.replace("NAME", name))
    made = folder / f"{name}.o"
    flags = [f"-gencode={one}" for one in gencode]
    process.call([cuda_home / "bin" / "nvcc", "-Xcompiler=-fPIC", *flags, "-c", folder / f"{name}.cu", "-o", made])
    return made


def _listed(cuobjdump: Path, library: Path) -> list[Entry]:
    """Return the entries of all fat binaries in a library, from cuobjdump's names: k.1.sm_90a.cubin, k.1.sm_90.ptx."""
    output = process.call([cuobjdump, "--list-elf", library]) + process.call([cuobjdump, "--list-ptx", library])
    names = re.findall(r"\.sm_(\d+)(\d)([a-z]?)\.(cubin|ptx)$", output, re.MULTILINE)
    return sorted(
        Entry("ptx" if kind == "ptx" else "sass", f"{major}.{minor}{suffix}") for major, minor, suffix, kind in names
    )


def test_finds_the_same_entries_as_cuobjdump(cuda_home: Path, cuobjdump: Path, tmp_path: Path) -> None:
    policy = ("arch=compute_80,code=sm_80", "arch=compute_90,code=sm_90", "arch=compute_90,code=compute_90")
    objects = [
        _object(cuda_home, tmp_path, "whole", policy),
        _object(cuda_home, tmp_path, "other", policy),
        _object(cuda_home, tmp_path, "narrow", ["arch=compute_90a,code=sm_90a"]),
    ]
    library = tmp_path / "all.so"
    process.call(["gcc", "-shared", "-o", library, *objects, f"-L{cuda_home}/lib64", "-lcudart"])
    found = fatbin.parse(library_reader.read(library).fatbin)
    whole = frozenset({Entry("sass", "8.0"), Entry("sass", "9.0"), Entry("ptx", "9.0")})
    assert sorted(found, key=len, reverse=True) == [whole, whole, frozenset({Entry("sass", "9.0a")})]
    assert sorted(entry for each in found for entry in each) == _listed(cuobjdump, library)
