"""Repair of Windows wheels with delvewheel on any machine, with constructed libraries instead of compiled ones."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pefile  # type: ignore[import-untyped, unused-ignore]
import pytest

from scripts.audit import audit
from scripts.build import repair
from scripts.errors import RepairError
from scripts.model import Cell
from scripts.support.files import file_sha256
from scripts.wheel import pe
from tests.unit import pe_factory
from tests.unit import wheel_factory as factory

CELL = replace(factory.CELL, platform=factory.WINDOWS, python="3.12")
RUNTIME = "cudart64_13.dll"
SUFFIX = ".cp312-win_amd64.pyd"
NEEDED = (RUNTIME, "c10.dll", "torch_python.dll", "python312.dll", "kernel32.dll")
CUDA, GL = f"nvdiffrast/torch/nvdiffrast_plugin{SUFFIX}", f"nvdiffrast/torch/nvdiffrast_plugin_gl{SUFFIX}"


@pytest.fixture(autouse=True)
def epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")


@pytest.fixture
def toolkit(tmp_path: Path) -> Path:
    """Return the root of a toolkit with a DLL named like the runtime; DLLs of torch beside it must not be bundled."""
    folder = tmp_path / "toolkit" / "bin" / "x64"
    folder.mkdir(parents=True)
    for name in (RUNTIME, "c10.dll", "torch_python.dll"):
        content = pe_factory.library(["kernel32.dll"], name=name, exports=["function"])
        (folder / name).write_bytes(content)
    return tmp_path / "toolkit"


def _module(needed: tuple[str, ...] = NEEDED, **options: Any) -> bytes:
    options = {"sections": {".nv_fatb": factory.POLICY_FATBIN}, **options}
    return pe_factory.library(needed, exports=["PyInit_nvdiffrast_plugin"], **options)


def _linked(folder: Path, members: Mapping[str, bytes] | None = None) -> Path:
    """Write a wheel like one linked on Windows, without bundled libraries."""
    parts = factory.text_parts(CELL)
    gl = _module((*NEEDED, "opengl32.dll", "gdi32.dll", "user32.dll"), sections={})
    parts.members |= {CUDA: _module(), GL: gl, **(members or {})}
    folder.mkdir(parents=True, exist_ok=True)
    return parts.write(folder)


def _failed(wheel: Path, cell: Cell = CELL) -> dict[str, str]:
    record = audit.audit(wheel, cell, finished=False)
    return {check.name: check.detail for check in record.checks if check.outcome == "failed"}


def _libraries(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return [name for name in archive.namelist() if name.endswith(".dll")]


def test_bundles_only_the_runtime_and_renames_it_in_both_plugins(toolkit: Path, tmp_path: Path) -> None:
    made = repair.repair(_linked(tmp_path), CELL, tmp_path / "dist", library_path=toolkit)
    (bundled,) = [Path(name) for name in _libraries(made)]
    assert bundled.parent.name == "nvdiffrast.libs"
    assert bundled.name.startswith("cudart64_13-")
    others = set(NEEDED) - {RUNTIME}
    with zipfile.ZipFile(made) as archive:
        cuda, gl = (pe.read(Path(archive.extract(name, tmp_path))) for name in (CUDA, GL))
    assert cuda.needed == {bundled.name, *others}
    assert gl.needed == {bundled.name, *others, "opengl32.dll", "gdi32.dll", "user32.dll"}
    assert cuda.fatbin == factory.POLICY_FATBIN
    assert _failed(made) == {}


def test_keeps_the_imports_and_exports_of_a_module(toolkit: Path, tmp_path: Path) -> None:
    made = repair.repair(_linked(tmp_path), CELL, tmp_path / "dist", library_path=toolkit)
    with zipfile.ZipFile(made) as archive:
        image: Any = pefile.PE(data=archive.read(CUDA))
    assert [symbol.name for symbol in image.DIRECTORY_ENTRY_EXPORT.symbols] == [b"PyInit_nvdiffrast_plugin"]
    functions = {entry.dll: [item.name for item in entry.imports] for entry in image.DIRECTORY_ENTRY_IMPORT}
    assert set(map(tuple, functions.values())) == {(b"function",)}
    assert len(functions) == len(NEEDED)


def test_the_package_adds_the_folder_of_the_runtime(toolkit: Path, tmp_path: Path) -> None:
    made = repair.repair(_linked(tmp_path), CELL, tmp_path / "dist", library_path=toolkit)
    with zipfile.ZipFile(made) as archive:
        assert "os.add_dll_directory(libs_dir)" in archive.read("nvdiffrast/__init__.py").decode()


def test_the_bytes_do_not_depend_on_the_folder(toolkit: Path, tmp_path: Path) -> None:
    made = [
        repair.repair(_linked(tmp_path / place), CELL, tmp_path / place / "out", library_path=path)
        for place, path in (("a", toolkit), ("b/c/d", toolkit / "bin" / "x64"))
    ]
    assert file_sha256(made[0]) == file_sha256(made[1])
    with zipfile.ZipFile(made[0]) as archive:
        written = b"".join(archive.read(name) for name in archive.namelist())
    assert str(tmp_path).encode() not in written
    assert sys.prefix.encode() not in written


def test_bundles_nothing_with_the_runtime_of_torch(toolkit: Path, tmp_path: Path) -> None:
    cell = replace(CELL, cuda_runtime="torch")
    made = repair.repair(_linked(tmp_path), cell, tmp_path / "dist", library_path=toolkit)
    assert _libraries(made) == []
    assert _failed(made, cell) == {}


def _refused(wheel: Path, tmp_path: Path, toolkit: Path) -> str:
    with pytest.raises(RepairError) as caught:
        repair.repair(wheel, CELL, tmp_path / "dist", library_path=toolkit)
    assert caught.value.hint
    assert not (tmp_path / "dist").exists()
    return str(caught.value)


def test_refuses_a_32_bit_runtime(toolkit: Path, tmp_path: Path) -> None:
    content = pe_factory.library(name=RUNTIME, exports=["function"], machine=pe_factory.I386)
    (toolkit / "bin" / "x64" / RUNTIME).write_bytes(content)
    assert RUNTIME in _refused(_linked(tmp_path), tmp_path, toolkit)


@pytest.mark.parametrize("way", ["needed", "delayed"])
def test_names_a_missing_dll(toolkit: Path, tmp_path: Path, way: str) -> None:
    module = _module((*NEEDED, "nowhere.dll")) if way == "needed" else _module(delayed=["nowhere.dll"])
    assert "nowhere.dll" in _refused(_linked(tmp_path, {CUDA: module}), tmp_path, toolkit)


def test_refuses_to_bundle_another_dll(toolkit: Path, tmp_path: Path) -> None:
    """Its name is like that of the runtime, so that it is copied from the toolkit."""
    name = "cudart64_strange.dll"
    (toolkit / "bin" / "x64" / name).write_bytes(pe_factory.library(name=name, exports=["function"]))
    wheel = _linked(tmp_path, {CUDA: _module((*NEEDED, name))})
    assert "cudart64_strange-" in _refused(wheel, tmp_path, toolkit)


@pytest.mark.parametrize(("member", "length"), [(CUDA, 200), (GL, 0x300), (GL, -0x200)])
def test_the_audit_reports_a_truncated_module(toolkit: Path, tmp_path: Path, member: str, length: int) -> None:
    """delvewheel reads the rest as a library with fewer imports, and reports no error."""
    wheel = _linked(tmp_path, {member: _module()[:length]})
    made = repair.repair(wheel, CELL, tmp_path / "dist", library_path=toolkit)
    assert f"{Path(member).name}: a damaged PE file" in str(_failed(made))


def test_the_audit_reports_a_dll_that_repair_ignores(toolkit: Path, tmp_path: Path) -> None:
    """No module of the wheel needs that DLL of the system."""
    wheel = _linked(tmp_path, {CUDA: _module((*NEEDED, "ws2_32.dll"))})
    made = repair.repair(wheel, CELL, tmp_path / "dist", library_path=toolkit)
    assert "ws2_32.dll" in _failed(made)["needed"]
