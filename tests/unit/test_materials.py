"""Tests of scripts.wheel.materials with the locks and patches of this repository and a simulated toolkit."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType

import pytest

from scripts.matrix import matrix
from scripts.model import ROOT, Cell, ProviderKind
from scripts.source import patching
from scripts.support.files import file_sha256
from scripts.toolchain.providers import CudaHome
from scripts.wheel import materials


@pytest.fixture(scope="module")
def cell() -> Cell:
    """Return a cell whose toolkit and torch are locked in this repository."""
    cells = matrix.load().select(["0.3.3.1-cp311-cu130-torch2.14-linux_x86_64"])
    return cells[0]


def _home(folder: Path, kind: ProviderKind, **components: str) -> CudaHome:
    stated = {name.replace("_", "-"): version for name, version in components.items()}
    return CudaHome(folder, "13.0.88", kind, MappingProxyType(stated), None)


def _collect(cell: Cell, home: CudaHome, **more: str | None) -> materials.Materials:
    series = patching.read_series(cell.release.series)
    engine, image = more.get("engine") or "host", more.get("image")
    return materials.collect(cell, home, series, engine=engine, image=image, architectures=("9.0",))


def test_collects_all_materials_with_their_hashes(cell: Cell, tmp_path: Path) -> None:
    materials = _collect(cell, _home(tmp_path, "pypi", nvidia_cuda_runtime="13.0.96"))
    loader = "patches/0.3/loader.patch"
    assert materials.series[loader] == file_sha256(ROOT / loader)
    assert "patches/common/overlay/setup.py" in materials.series
    assert {part.name for part in materials.toolkit} >= {"nvidia-cuda-nvcc", "nvidia-cuda-runtime"}
    assert all(part.hashes for part in materials.toolkit)
    assert (materials.torch.version, materials.runtime) == (cell.torch.version, "13.0.96")
    assert materials.torch.hashes
    assert set(materials.locks) == {
        "requirements/pipeline.txt",
        "requirements/toolkits/cu130.txt",
        "requirements/torch/2.14.1-cu130.txt",
    }
    assert all(file_sha256(ROOT / name) == sha256 for name, sha256 in materials.locks.items())


def test_system_toolkit_has_no_hashes(cell: Cell, tmp_path: Path) -> None:
    materials = _collect(cell, _home(tmp_path, "system", nvcc="13.0.88"))
    assert [(part.name, part.version, part.hashes) for part in materials.toolkit] == [("nvcc", "13.0.88", ())]
    assert "requirements/toolkits/cu130.txt" not in materials.locks


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ('{"cuda_cudart": {"name": "CUDA Runtime", "version": "13.0.48"}}', "13.0.48"),
        ("{}", "13.0"),
        ("[]", "13.0"),
        ("no JSON", "13.0"),
        (None, "13.0"),
    ],
)
def test_reads_the_runtime_version_of_an_installed_toolkit(
    cell: Cell, tmp_path: Path, text: str | None, version: str
) -> None:
    if text is not None:
        (tmp_path / "version.json").write_text(text)
    assert _collect(cell, _home(tmp_path, "system", nvcc="13.0.88")).runtime == version


def test_states_the_image_only_for_a_container_build(cell: Cell, tmp_path: Path) -> None:
    home = _home(tmp_path, "system", nvcc="13.0.88")
    assert _collect(cell, home, image="some@sha256:1").image is None
    assert _collect(cell, home, engine="cibuildwheel", image="some@sha256:1").image == "some@sha256:1"
