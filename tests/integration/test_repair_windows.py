"""Repair and audit a Windows wheel on Linux.

mingw links a .pyd that imports from NVIDIA's real CUDA runtime, and delvewheel bundles the runtime.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from scripts.audit import audit
from scripts.build import repair
from scripts.errors import RepairError
from scripts.model import Cell
from scripts.support.files import file_sha256
from scripts.support.process import which
from scripts.wheel import pe
from scripts.wheel.audit_record import Record
from tests.integration import registry
from tests.unit import wheel_factory as factory

_MINGW = "x86_64-w64-mingw32-gcc"
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(which(_MINGW) is None, reason=f"needs {_MINGW}: apt-get install gcc-mingw-w64-x86-64"),
]

_RUNTIME = (
    "nvidia-cuda-runtime-cu11==11.8.89",
    "f60c9fdaed8065b38de8097867240efc5556a8a710007146daeb9082334a6e63",
)
CELL = replace(factory.CELL, platform=factory.WINDOWS, toolkit=replace(factory.TOOLKIT, cuda="11.8"), python="3.12")
SUFFIX = ".cp312-win_amd64.pyd"
TORCH = {"c10.dll": "c10_stub", "torch_python.dll": "torch_stub"}


@pytest.fixture(autouse=True)
def epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")


@pytest.fixture(scope="module")
def toolkit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with NVIDIA's runtime for Windows; its DLLs are in bin, as in a toolkit."""
    folder = tmp_path_factory.mktemp("toolkit") / "runtime"
    registry.install(*_RUNTIME, folder, "--python-platform", "x86_64-pc-windows-msvc")
    return folder / "nvidia" / "cuda_runtime"


def _extension(
    folder: Path, name: str, imports: Mapping[str, str], *, fatbin: bytes = b"", debug: bool = False
) -> bytes:
    """Compile a .pyd that imports one function from each DLL."""
    folder.mkdir(parents=True)
    libraries = []
    for dll, function in imports.items():
        (folder / f"{dll}.def").write_text(f"LIBRARY {dll}\nEXPORTS\n{function}\n")
        library = folder / f"{dll}.a"
        _run(folder, "x86_64-w64-mingw32-dlltool", "-d", f"{dll}.def", "-l", library.name)
        libraries.append(library.name)
    declared = "".join(f"__declspec(dllimport) int {function}(void);\n" for function in imports.values())
    called = " + ".join(f"{function}()" for function in imports.values()) or "0"
    (folder / "x.c").write_text(f"{declared}__declspec(dllexport) int PyInit_{name}(void) {{ return {called}; }}\n")
    (folder / "fatbin").write_bytes(fatbin)
    (folder / "y.s").write_text('.section .nv_fatb,"r"\n.incbin "fatbin"\n' if fatbin else "")
    options = ["-shared", "-g" if debug else "-s", "-Wl,--no-insert-timestamp", "-o", "x.pyd"]
    _run(folder, _MINGW, *options, "x.c", "y.s", *libraries)
    return (folder / "x.pyd").read_bytes()


def _run(folder: Path, *command: str) -> None:
    subprocess.run(command, check=True, cwd=folder)


def _linked(folder: Path, cell: Cell = CELL, *, debug: bool = False, more: Mapping[str, str] | None = None) -> Path:
    """Write a wheel like one linked on Windows, without bundled libraries."""
    runtime = {"cudart64_110.dll": "cudaGetLastError", **TORCH}
    system = {"opengl32.dll": "glFinish", "gdi32.dll": "GdiFlush"}
    name, gl = "nvdiffrast_plugin", "nvdiffrast_plugin_gl"
    cuda = _extension(folder / name, name, {**runtime, **(more or {})}, fatbin=factory.POLICY_FATBIN, debug=debug)
    parts = factory.text_parts(cell)
    parts.members[f"nvdiffrast/torch/{name}{SUFFIX}"] = cuda
    parts.members[f"nvdiffrast/torch/{gl}{SUFFIX}"] = _extension(folder / gl, gl, {**runtime, **system})
    return parts.write(folder)


def _failed(record: Record) -> dict[str, str]:
    return {check.name: check.detail for check in record.checks if check.outcome == "failed"}


def test_bundles_only_the_runtime_and_passes_the_audit(toolkit: Path, tmp_path: Path) -> None:
    made = repair.repair(_linked(tmp_path), CELL, tmp_path / "dist", library_path=toolkit)
    assert made.name == CELL.wheel
    with zipfile.ZipFile(made) as archive:
        (bundled,) = [n for n in archive.namelist() if n.startswith("nvdiffrast.libs/") and n.endswith(".dll")]
        plugin = archive.extract(f"nvdiffrast/torch/nvdiffrast_plugin{SUFFIX}", tmp_path)
        assert str(tmp_path) not in archive.read(f"nvdiffrast-{CELL.version}.dist-info/DELVEWHEEL").decode()
    assert Path(bundled).name in pe.read(Path(plugin)).needed
    record = audit.audit(made, CELL, python=Path(sys.executable), finished=False)
    assert _failed(record) == {}
    assert "cannot be imported on linux_x86_64" in record.named("import-cuda").detail


def test_wheel_bytes_do_not_depend_on_the_folder(toolkit: Path, tmp_path: Path) -> None:
    made = [
        repair.repair(_linked(tmp_path / place), CELL, tmp_path / place / "out", library_path=path)
        for place, path in (("a", toolkit), ("b", toolkit / "bin"))
    ]
    assert file_sha256(made[0]) == file_sha256(made[1])


def test_bundles_nothing_with_the_runtime_of_torch(toolkit: Path, tmp_path: Path) -> None:
    cell = replace(CELL, cuda_runtime="torch")
    made = repair.repair(_linked(tmp_path), cell, tmp_path / "dist", library_path=toolkit)
    assert _failed(audit.audit(made, cell, finished=False)) == {}


def test_refuses_to_bundle_another_dll(toolkit: Path, tmp_path: Path) -> None:
    strange = tmp_path / "toolkit" / "bin"
    shutil.copytree(toolkit / "bin", strange)
    (strange / "cudart64_strange.dll").write_bytes(_extension(tmp_path / "strange", "strange", {}))
    wheel = _linked(tmp_path, more={"cudart64_strange.dll": "PyInit_strange"})
    with pytest.raises(RepairError, match=r"cudart64_strange-\w+\.dll is bundled and must not be"):
        repair.repair(wheel, CELL, tmp_path / "dist", library_path=strange.parent)
    assert not (tmp_path / "dist").exists()


def test_refuses_a_missing_dll(toolkit: Path, tmp_path: Path) -> None:
    wheel = _linked(tmp_path, more={"nowhere.dll": "lost"})
    with pytest.raises(RepairError, match="delvewheel"):
        repair.repair(wheel, CELL, tmp_path / "dist", library_path=toolkit)


def test_audit_refuses_debug_information_and_unknown_imports(toolkit: Path, tmp_path: Path) -> None:
    wheel = _linked(tmp_path, debug=True, more={"ws2_32.dll": "WSACleanup"})
    record = audit.audit(repair.repair(wheel, CELL, tmp_path / "dist", library_path=toolkit), CELL)
    assert {"debug-information", "needed"} <= set(_failed(record))
    assert "ws2_32.dll" in record.named("needed").detail


def test_a_module_at_the_top_level_finds_its_runtime(toolkit: Path, tmp_path: Path) -> None:
    release = replace(CELL.release, version="0.4.0", series="0.4", has_gl=False)
    cell = replace(CELL, release=release)
    parts = factory.text_parts(cell)
    del parts.members["nvdiffrast_plugin_gl.py"]
    imports = {"cudart64_110.dll": "cudaGetLastError", **TORCH}
    parts.members[f"_nvdiffrast_c{SUFFIX}"] = _extension(
        tmp_path / "module", "_nvdiffrast_c", imports, fatbin=factory.POLICY_FATBIN
    )
    parts.edit_info(plugins=["_nvdiffrast_c"])
    made = repair.repair(parts.write(tmp_path), cell, tmp_path / "dist", library_path=toolkit)
    assert _failed(audit.audit(made, cell, finished=False)) == {}
    with zipfile.ZipFile(made) as archive:
        assert [name for name in archive.namelist() if name.endswith(".dll") and "/" not in name]
