"""Build this host's cell for one architecture with the whole pipeline, and install and import the real wheel."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import uv

from benchmarks.build_time import Bench
from benchmarks.import_time import first_import, unpacked
from scripts.build import build
from scripts.build.inputs import Options
from scripts.build.plan import missing_here
from scripts.matrix import matrix
from scripts.model import Cell, GitPin, Release
from scripts.source import upstream
from scripts.support import environments, interpreters
from scripts.support.files import file_sha256
from scripts.wheel import audit_record

pytestmark = pytest.mark.integration

_USE = """
import json, shutil, sys
import nvdiffrast, torch
import nvdiffrast.torch as dr
from nvdiffrast.torch import ops
found = {"tools": [name for name in ("nvcc", "ninja", "g++", "gcc", "c++", "cc") if shutil.which(name)]}
for gl in (False, True):
    plugin = ops._get_plugin(gl=gl) if gl else ops._get_plugin()
    found["gl" if gl else "cuda"] = [plugin.__file__, sorted(name for name in dir(plugin) if not name.startswith("_"))]
import nvdiffrast_plugin, nvdiffrast_plugin_gl
found["aliases"] = nvdiffrast_plugin is ops._get_plugin() and nvdiffrast_plugin_gl is ops._get_plugin(gl=True)
found["package"] = nvdiffrast.__file__
json.dump(found, sys.stdout)
"""


@pytest.fixture(scope="module")
def cell(host_cell: Cell) -> Cell:
    return host_cell


def _build(cell: Cell, output: Path, objects: Path, *, engine: str = "host") -> Path:
    options = Options(engine, ("9.0",), None, None, output, objects, None)
    result = build.build(cell, options)
    assert result.wheel is not None, result.detail
    assert result.outcome != "failed", result.detail
    return result.wheel


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("objects")


@pytest.fixture(scope="module")
def wheel(cell: Cell, objects: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _build(cell, tmp_path_factory.mktemp("dist"), objects)


def test_wheel_has_its_name_and_a_partial_record(cell: Cell, wheel: Path) -> None:
    assert wheel.name == cell.wheel
    record = audit_record.find(file_sha256(wheel), wheel.parent)
    assert record is not None
    assert record.partial, "a wheel for one architecture must not pass for a release"
    assert not record.release


def test_build_info_has_the_architectures_and_flags(cell: Cell, wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        info = json.loads(archive.read("nvdiffrast/build_info.json"))
    assert info["cell"] == cell.id
    assert info["architectures"] == {"sass": ["9.0"], "ptx": []}
    assert "-lineinfo" not in info["flags"]["nvcc"]
    assert not any("fast" in flag for flag in [*info["flags"]["nvcc"], *info["flags"]["cxx"]])


def test_wheel_has_a_hook_for_pyinstaller(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        assert "nvdiffrast/_pyinstaller/hook-nvdiffrast.py" in archive.namelist()
        (listed,) = [name for name in archive.namelist() if name.endswith(".dist-info/entry_points.txt")]
        assert archive.read(listed).decode().split("\n")[:2] == [
            "[pyinstaller40]",
            "hook-dirs = nvdiffrast._pyinstaller:get_hook_dirs",
        ]


def test_installs_and_imports_without_a_compiler(cell: Cell, wheel: Path, tmp_path: Path) -> None:
    """Install the locked torch and the wheel in a new environment; import both plugins with no program on PATH."""
    python = interpreters.find(cell.python)
    assert python is not None
    binary = uv.find_uv_bin()
    clean = tmp_path / "clean"
    subprocess.run([binary, "venv", "-q", "--no-project", "--python", python, clean], check=True)
    inside = environments.interpreter(clean)
    lock = environments.torch_lock(cell)
    install: list[str | os.PathLike[str]] = [binary, "pip", "install", "-q", "--python", inside]
    subprocess.run([*install, "--require-hashes", "--no-deps", "-r", lock], check=True)
    # Without --no-deps, because the locked torch must meet the requirements of the wheel.
    subprocess.run([*install, "--no-index", wheel], check=True)
    empty = tmp_path / "empty"
    empty.mkdir()
    result = subprocess.run(
        # The check of the GL plugin writes a lock file into the folder for just-in-time compilation.
        [inside, "-I", "-c", _USE],
        env={"PATH": str(empty), "HOME": str(empty), "TORCH_EXTENSIONS_DIR": str(empty / "extensions")},
        cwd=empty,
        capture_output=True,
        text=True,
        check=False,
    )
    if "libEGL" in result.stderr or "libGL" in result.stderr:
        pytest.skip("the GL plugin needs the driver's libraries: apt-get install libgl1 libegl1")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["tools"] == []
    folder = str(Path(found["package"]).parent)
    for kind, expected in (("cuda", "rasterize_fwd_cuda"), ("gl", "rasterize_fwd_gl")):
        file, names = found[kind]
        assert file.startswith(folder)
        assert expected in names
    assert found["aliases"]
    assert "just-in-time" not in result.stderr


@pytest.mark.slow
def test_still_compiles_just_in_time(cell: Cell, tmp_path: Path) -> None:
    """Compile the CUDA plugin from the sources in the wheel, instead of importing the precompiled plugin."""
    bench = Bench(cell, tmp_path)
    site = unpacked(bench)
    folder = tmp_path / "compiled"
    _, file = first_import(bench, site, folder, just_in_time=True)
    assert folder in file.parents
    _, file = first_import(bench, site, folder, just_in_time=False)
    assert site in file.parents


def _neighbours(cell: Cell, differs: str) -> list[Cell]:
    """Return the cells that differ from ``cell`` only in ``differs`` ("python", "torch") and can be built here."""
    axes = {"release", "toolkit", "platform", "python", "torch"} - {differs}
    return [
        other
        for other in matrix.load().cells
        if other.id != cell.id
        and all(getattr(other, axis) == getattr(cell, axis) for axis in axes)
        and not missing_here(other)
    ]


def test_another_python_reuses_kernels_and_host_objects(cell: Cell, wheel: Path, objects: Path, tmp_path: Path) -> None:
    """Only the bindings are compiled again; all other objects of the first build are reused."""
    others = _neighbours(cell, "python")
    if not others:
        pytest.skip("needs a second Python: apt-get install another python3.X with its -dev, or uv python install")
    before = {path: path.stat().st_mtime_ns for path in objects.rglob("*.o")}
    assert len(before) == 6
    made = _build(others[0], tmp_path, objects)
    assert {path: path.stat().st_mtime_ns for path in objects.rglob("*.o")} == before
    assert made.name == others[0].wheel


def test_another_torch_reuses_kernels(cell: Cell, wheel: Path, objects: Path, tmp_path: Path) -> None:
    """Kernels do not depend on torch, so only the host files and the bindings are compiled for another torch."""
    others = _neighbours(cell, "torch")
    if not others:
        pytest.skip("needs a lock file for a second torch of this toolkit: nox -s lock")
    before = set(objects.rglob("*.cu.o"))
    _build(others[-1], tmp_path, objects)
    assert set(objects.rglob("*.cu.o")) == before


def test_patched_tree_builds_the_source_wheel(cell: Cell, tmp_path: Path) -> None:
    """Without BUILD_BINARY_WHEEL, an isolated PEP 517 build of the tree creates upstream's source wheel."""
    from scripts.source import patching

    tree = patching.prepare(cell.release, upstream.fetch(cell.release), tmp_path / "tree").path
    environment = {name: value for name, value in os.environ.items() if name != "BUILD_BINARY_WHEEL"}
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path / "out", tree], env=environment, check=True
    )
    (made,) = (tmp_path / "out").glob("*.whl")
    assert made.name == f"nvdiffrast-{cell.release.version}-py3-none-any.whl"
    with zipfile.ZipFile(made) as archive:
        names = set(archive.namelist())
    assert "nvdiffrast/common/texture.cu" in names
    assert not any(name.endswith((".so", "build_info.json")) for name in names)


def test_missing_gl_headers_stop_before_compiling(cell: Cell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = shutil.which("g++")
    if real is None:
        pytest.skip("no g++ on PATH: apt-get install g++")
    blind = tmp_path / "g++"
    blind.write_text(f'#!/bin/sh\nexec {real} -nostdinc "$@"\n')
    blind.chmod(0o755)
    monkeypatch.setenv("CXX", str(blind))
    options = Options("host", ("9.0",), None, None, tmp_path / "dist", None, None)
    result = build.build(cell, options)
    assert (result.outcome, result.wheel) == ("failed", None)
    assert result.detail == "ToolchainError"
    assert not (tmp_path / "dist").exists()


@pytest.fixture
def later_layout(cell: Cell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cell:
    """Return a cell whose release has the layout of 0.4 and the sources of 0.3.3.1, in a local git repository.

    Git uses the local repository instead of the URL in the pin.
    """
    tree = tmp_path / "upstream"
    pristine = upstream.fetch(cell.release) / "nvdiffrast"
    shutil.copytree(pristine / "common", tree / "csrc" / "common")
    for name in ("texture.cu", "cudaraster/impl/RasterImpl.cu"):
        kernel = tree / "csrc" / "common" / name
        kernel.rename(kernel.with_name(f"{kernel.stem}_kernel.cu"))
    (tree / "csrc" / "torch").mkdir()
    for source in (pristine / "torch").iterdir():
        if source.suffix in {".cpp", ".h", ".inl"}:
            shutil.copyfile(source, tree / "csrc" / "torch" / source.name)
    package = tree / "nvdiffrast" / "torch"
    package.mkdir(parents=True)
    (tree / "nvdiffrast" / "__init__.py").write_text("")
    # The context of the patch is the last line of upstream's license notice.
    notice = "#\n" * 6 + "# license agreement from NVIDIA CORPORATION is strictly prohibited.\n\n"
    (package / "__init__.py").write_text(f"{notice}from . import ops\n")
    (package / "ops.py").write_text("\n" * 9 + "import torch\nimport warnings\nimport _nvdiffrast_c\n")
    (tree / "setup.py").write_text("raise SystemExit('replaced by the overlay')\n")
    (tree / "pyproject.toml").write_text("[build-system]\nrequires = []\n")
    shutil.copyfile(upstream.fetch(cell.release) / "LICENSE.txt", tree / "LICENSE.txt")

    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=test", "-c", "user.email=test@example.invalid"]
        return subprocess.run(
            ["git", *identity, *arguments], cwd=tree, check=True, capture_output=True, text=True
        ).stdout.strip()

    git("init", "-q")
    git("add", "-A")
    git("commit", "-q", "-m", "0.4 layout")
    address = "https://git.example.invalid/nvdiffrast"
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", f"url.{tree}.insteadOf")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", address)
    pin = GitPin(address, "v0.4.0", git("rev-parse", "HEAD"), git("rev-parse", "HEAD^{tree}"))
    return dataclasses.replace(cell, release=Release("0.4.0", "0.4", pin))


def test_builds_the_layout_of_0_4_from_git(later_layout: Cell, tmp_path: Path) -> None:
    """The patches of series 0.4 apply, and the audited wheel has one extension module and no GL plugin."""
    made = _build(later_layout, tmp_path / "dist", tmp_path / "objects")
    assert made.name == later_layout.wheel
    with zipfile.ZipFile(made) as archive:
        names = archive.namelist()
    modules = [name for name in names if name.endswith(".so")]
    assert [name.partition(".")[0] for name in modules] == ["_nvdiffrast_c"]
    assert "nvdiffrast_plugin.py" in names and "nvdiffrast_plugin_gl.py" not in names
    record = audit_record.find(file_sha256(made), made.parent)
    assert record is not None
    assert record.named("import-cuda").outcome == "passed"


def test_reports_a_failing_compiler(
    cell: Cell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Print the compiler's messages and the command that builds the cell again; write no files to dist."""
    failing = tmp_path / "g++"
    failing.write_text(
        '#!/bin/sh\ncase "$*" in *bindings.cpp*) echo "made to fail" >&2; exit 1;; esac\n'
        f'exec {shutil.which("g++")} "$@"\n'
    )
    failing.chmod(0o755)
    monkeypatch.setenv("CXX", str(failing))
    result = build.build(cell, Options("host", ("9.0",), None, None, tmp_path / "dist", None, None))
    output = capsys.readouterr().err
    assert result.detail == "BuildError"
    assert "made to fail" in output
    assert "Traceback" not in output
    assert f"next:  nox -s build -- {cell.id} --engine host --arch 9.0" in output
    assert not (tmp_path / "dist").exists()
