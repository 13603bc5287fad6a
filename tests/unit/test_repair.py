"""Repair on Linux with auditwheel: the bundled libraries, the file name, and reproducible bytes."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from scripts.audit import audit
from scripts.build import repair
from scripts.errors import RepairError
from scripts.model import Cell, Platform
from scripts.support.files import file_sha256
from tests.unit import wheel_factory as factory
from tests.unit.wheel_factory import CELL, CUDART, Module, ModuleMaker, Stub

pytestmark = pytest.mark.skipif(factory.compiler() is None, reason="no C compiler: apt-get install gcc")

LINKED = replace(CELL, platform=Platform("linux_x86_64", "linux_x86_64"))
RUNTIME = "libcudart.so.13"


@pytest.fixture(autouse=True)
def epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")


@pytest.fixture(scope="module")
def maker(tmp_path_factory: pytest.TempPathFactory) -> ModuleMaker:
    return ModuleMaker(tmp_path_factory.mktemp("modules"))


@pytest.fixture(scope="module")
def toolkit(maker: ModuleMaker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the root of a toolkit with an empty library under the name of the CUDA runtime."""
    root = tmp_path_factory.mktemp("toolkit")
    (root / "lib64").mkdir()
    maker.make(Module((RUNTIME,)))
    content = (maker.folder / f"{RUNTIME}-" / "lib.so").read_bytes()
    (root / "lib64" / RUNTIME).write_bytes(content)
    (root / "lib64" / "libcudart.so").symlink_to(RUNTIME)
    return root


def _linked(maker: ModuleMaker, folder: Path, needed: Sequence[Stub | str] = (RUNTIME,)) -> Path:
    """Write a wheel like a linked one: tagged linux_x86_64, without bundled libraries."""
    modules = {
        "cuda": Module((*factory.TORCH_LIBRARIES, *needed), fatbin=factory.POLICY_FATBIN),
        "gl": Module((*factory.TORCH_LIBRARIES, "libGL.so.1", "libEGL.so.1", *needed)),
    }
    parts = factory.good_parts(maker, LINKED, modules)
    del parts.members[f"nvdiffrast.libs/{CUDART}"]
    folder.mkdir(parents=True, exist_ok=True)
    return parts.write(folder)


def _bundled(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return [name for name in archive.namelist() if name.startswith("nvdiffrast.libs/") and not name.endswith("/")]


def test_bundles_only_the_runtime_and_passes_the_audit(maker: ModuleMaker, toolkit: Path, tmp_path: Path) -> None:
    made = repair.repair(_linked(maker, tmp_path / "linked"), CELL, tmp_path / "dist", library_path=toolkit)
    assert made == tmp_path / "dist" / CELL.wheel
    (bundled,) = _bundled(made)
    assert bundled.startswith("nvdiffrast.libs/libcudart-")
    record = audit.audit(made, CELL, finished=False)
    assert {check.name: check.detail for check in record.checks if check.outcome == "failed"} == {}
    assert [entry.name for entry in (tmp_path / "dist").iterdir()] == [CELL.wheel]


def test_the_bytes_do_not_depend_on_the_folder(maker: ModuleMaker, toolkit: Path, tmp_path: Path) -> None:
    made = [
        repair.repair(_linked(maker, tmp_path / place), CELL, tmp_path / place / "out", library_path=path)
        for place, path in (("a", toolkit), ("b/c/d", toolkit / "lib64"))
    ]
    assert file_sha256(made[0]) == file_sha256(made[1])


def test_the_epoch_is_an_argument(
    maker: ModuleMaker, toolkit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    linked = _linked(maker, tmp_path / "linked")
    expected = repair.repair(linked, CELL, tmp_path / "variable", library_path=toolkit)
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    made = repair.repair(linked, CELL, tmp_path / "argument", library_path=toolkit, epoch=1_700_000_000)
    assert file_sha256(made) == file_sha256(expected)
    assert "SOURCE_DATE_EPOCH" not in os.environ


def test_bundles_nothing_with_the_runtime_of_torch(maker: ModuleMaker, toolkit: Path, tmp_path: Path) -> None:
    cell = replace(CELL, cuda_runtime="torch")
    made = repair.repair(_linked(maker, tmp_path / "linked"), cell, tmp_path / "dist", library_path=toolkit)
    assert _bundled(made) == []
    record = audit.audit(made, cell, finished=False)
    assert {check.name: check.detail for check in record.checks if check.outcome == "failed"} == {}


def test_a_module_at_the_top_level_finds_its_runtime(maker: ModuleMaker, toolkit: Path, tmp_path: Path) -> None:
    cell = replace(CELL, release=replace(CELL.release, version="0.4.0", series="0.4"))
    parts = factory.text_parts(replace(cell, platform=LINKED.platform))
    module = Module((*factory.TORCH_LIBRARIES, RUNTIME), fatbin=factory.POLICY_FATBIN)
    del parts.members["nvdiffrast_plugin_gl.py"]
    parts.members[f"_nvdiffrast_c.cpython-{cell.python.replace('.', '')}-x86_64-linux-gnu.so"] = maker.make(module)
    parts.edit_info(cell=cell.id, plugins=["_nvdiffrast_c"])
    made = repair.repair(parts.write(tmp_path), cell, tmp_path / "dist", library_path=toolkit)
    record = audit.audit(made, cell, finished=False)
    assert {check.name: check.detail for check in record.checks if check.outcome == "failed"} == {}


def _refused(wheel: Path, cell: Cell, destination: Path, toolkit: Path | None) -> str:
    """Return the message of the refusal, and check that the destination did not change."""
    destination.mkdir()
    (destination / cell.wheel).write_bytes(b"an earlier one")
    with pytest.raises(RepairError) as caught:
        repair.repair(wheel, cell, destination, library_path=toolkit)
    assert [entry.read_bytes() for entry in destination.iterdir()] == [b"an earlier one"]
    assert caught.value.hint is not None
    return str(caught.value)


def test_refuses_to_bundle_another_library(maker: ModuleMaker, toolkit: Path, tmp_path: Path) -> None:
    stranger = tmp_path / "toolkit" / "lib64"
    stranger.mkdir(parents=True)
    (stranger / RUNTIME).write_bytes((toolkit / "lib64" / RUNTIME).read_bytes())
    maker.make(Module(("libstranger.so.1",)))
    # Named like the runtime, so that it is taken along from the toolkit.
    (stranger / "libcudart.so.stranger").write_bytes((maker.folder / "libstranger.so.1-" / "lib.so").read_bytes())
    wheel = _linked(maker, tmp_path / "linked", (RUNTIME, "libcudart.so.stranger"))
    message = _refused(wheel, CELL, tmp_path / "dist", stranger.parent)
    assert "must not be" in message
    assert "stranger" in message


def test_refuses_a_wheel_without_the_runtime(maker: ModuleMaker, toolkit: Path, tmp_path: Path) -> None:
    wheel = _linked(maker, tmp_path / "linked", needed=())
    assert "0 copies of the CUDA runtime" in _refused(wheel, CELL, tmp_path / "dist", toolkit)


def test_names_every_symbol_that_is_too_new(maker: ModuleMaker, toolkit: Path, tmp_path: Path) -> None:
    too_new = (
        Stub("libm.so.6", "newer", "GLIBC_2.32"),
        Stub("libc.so.6", "newest", "GLIBC_2.34"),
        Stub("libstdc++.so.6", "_ZSt21ios_base_library_initv", "GLIBCXX_3.4.32"),
    )
    wheel = _linked(maker, tmp_path / "linked", (RUNTIME, Stub("libdl.so.2", "old", "GLIBC_2.4"), *too_new))
    message = _refused(wheel, CELL, tmp_path / "dist", toolkit)
    for stub in too_new:
        assert f"{stub.symbol}@{stub.version}" in message
    assert "old@GLIBC_2.4" not in message
    assert "manylinux_2_28_x86_64" in message


def test_names_the_last_error_of_auditwheel(maker: ModuleMaker, tmp_path: Path) -> None:
    """The wheel needs a runtime that does not exist; no symbol is too new."""
    wheel = _linked(maker, tmp_path / "linked", ("libcudart.so.nowhere",))
    assert "libcudart.so.nowhere" in _refused(wheel, CELL, tmp_path / "dist", None)


def test_refuses_a_wheel_of_another_cell(maker: ModuleMaker, toolkit: Path, tmp_path: Path) -> None:
    other = replace(CELL, torch=replace(CELL.torch, line="2.10"))
    message = _refused(_linked(maker, tmp_path / "linked"), other, tmp_path / "dist", toolkit)
    assert f"{CELL.wheel} instead of {other.wheel}" in message


def test_refuses_a_folder_without_a_toolkit(maker: ModuleMaker, tmp_path: Path) -> None:
    message = _refused(_linked(maker, tmp_path / "linked"), CELL, tmp_path / "dist", tmp_path / "linked")
    assert message == f"no libcudart.so* in {tmp_path / 'linked'}"
