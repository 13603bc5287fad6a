"""A Windows wheel from the linker to the import: built by mingw, repaired on Linux, installed and imported under Wine.

Its module imports from NVIDIA's runtime and torch's DLLs; what is Windows here is genuine, but for Windows itself.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from scripts import matrix, pe, repair
from scripts.model import ROOT, Cell
from scripts.process import call, which
from tests.integration import registry, wine
from tests.unit import wheel_factory as factory

_MINGW = "x86_64-w64-mingw32"
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(which(f"{_MINGW}-gcc") is None, reason="no mingw: apt-get install gcc-mingw-w64-x86-64"),
]

CELL_ID = "0.3.3.1-cp312-cu128-torch2.11-win_amd64"
PLUGIN = "nvdiffrast_plugin.cp312-win_amd64.pyd"
_OVERLAY = ROOT / "patches" / "common" / "overlay" / "nvdiffrast"
# The runtime's own version, what it answers where there is no driver (cudaErrorInsufficientDriver), torch's switches.
GOOD = "runtime 12080 answers 35, torch 0"
_PROBE = """
try:
    FIRST
    from nvdiffrast import _loader
    plugin = _loader.load_precompiled(False)
    print(f"runtime {plugin.version()} answers {plugin.devices()}, torch {plugin.torch()}")
except ImportError as error:
    print("ImportError:", error)
"""


@pytest.fixture(scope="module")
def cell() -> Cell:
    (found,) = matrix.load().select([CELL_ID])
    return found


@pytest.fixture(scope="module")
def toolkit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """NVIDIA's runtime for Windows, laid out as a toolkit."""
    pin = wine.PINS["runtime"]
    folder = tmp_path_factory.mktemp("toolkit") / "runtime"
    return registry.install(pin["requirement"], pin["sha256"], folder, *wine.WINDOWS) / str(pin["folder"])


def _module(folder: Path) -> bytes:
    """plugin.c as a .pyd; its import libraries are made from names alone."""
    libraries = []
    for dll, names in wine.PINS["imports"].items():
        exports = "".join(f'{name} == "{exported}"\n' for name, exported in names.items())
        (folder / f"{dll}.def").write_text(f"LIBRARY {dll}\nEXPORTS\n{exports}", encoding="utf-8")
        call([f"{_MINGW}-dlltool", "-d", f"{dll}.def", "-l", f"{dll}.a"], cwd=folder, echo=False)
        libraries.append(f"{dll}.a")
    (folder / "fatbin").write_bytes(factory.POLICY_FATBIN)
    (folder / "fatbin.s").write_text('.section .nv_fatb,"r"\n.incbin "fatbin"\n', encoding="utf-8")
    source = Path(__file__).with_name("plugin.c")
    options = ["-shared", "-s", "-O2", "-Wl,--no-insert-timestamp", "-o", PLUGIN]
    call([f"{_MINGW}-gcc", *options, source, "fatbin.s", *libraries], cwd=folder, echo=False)
    return (folder / PLUGIN).read_bytes()


@pytest.fixture(scope="module")
def wheel(cell: Cell, toolkit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as a release would have it: the real loader, a module for every DLL, repaired."""
    folder = tmp_path_factory.mktemp("wheel")
    parts = factory.text_parts(cell)
    parts.edit_info(plugins=["nvdiffrast_plugin"])
    for file in _OVERLAY.glob("*.py"):
        parts.members[f"nvdiffrast/{file.name}"] = file.read_bytes()
    parts.members[f"nvdiffrast/torch/{PLUGIN}"] = _module(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", "1700000000")
        return repair.repair(parts.write(folder), cell, folder / "repaired", library_path=toolkit)


def test_the_repaired_module_names_the_bundled_runtime(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        module = archive.extract(f"nvdiffrast/torch/{PLUGIN}", tmp_path)
    (bundled,) = [Path(name).name for name in names if name.endswith(".dll")]
    assert bundled.startswith("cudart64_12-")
    needed = pe.read(Path(module)).needed
    assert {bundled, "c10.dll", "torch_python.dll", "python312.dll"} <= needed
    assert "cudart64_12.dll" not in needed


@dataclass(frozen=True)
class Installation:
    """The wheel in a Windows Python: ``bundled`` is the runtime's file."""

    python: wine.WindowsPython
    bundled: Path

    @property
    def torch_libraries(self) -> Path:
        return self.python.site_packages / "torch" / "lib"

    def probe(self, *options: str, first: str = "import torch", **environment: str) -> str:
        """What comes of importing the plugin after ``first``."""
        return self.python.run(*options, "-c", _PROBE.replace("FIRST", first), env=environment)


def _pip_install(python: wine.WindowsPython, wheel: Path, *options: str) -> None:
    """As a user does; what it requires is there already."""
    command = ["-m", "pip", "--isolated", "install", "--no-index", "--no-deps", "--no-compile", *options]
    assert "Successfully installed nvdiffrast" in python.run(*command, wine.windows_path(wheel))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    if reason := wine.unavailable():
        pytest.skip(reason)
    with wine.started(tmp_path_factory.mktemp("windows")) as python:
        _pip_install(python, wheel)
        (bundled,) = python.site_packages.glob("nvdiffrast.libs/cudart64_12-*.dll")
        yield Installation(python, bundled)


def test_installed_by_pip_it_imports_and_calls_the_runtime(installed: Installation) -> None:
    assert installed.probe().splitlines()[-1].strip() == GOOD
