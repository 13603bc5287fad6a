"""Tests of a Windows wheel that is linked by mingw, repaired on Linux, and installed and imported under Wine.

Its module imports functions from NVIDIA's runtime and torch's DLLs. Python, torch and the runtime are the real ones for
Windows. Most tests remove or replace one file, and the loader's message must name the file.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from scripts.build import repair
from scripts.matrix import matrix
from scripts.model import ROOT, Cell
from scripts.support.process import call, which
from scripts.wheel import pe
from tests.integration import registry, wine
from tests.unit import wheel_factory as factory

_MINGW = "x86_64-w64-mingw32"
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        which(f"{_MINGW}-gcc") is None, reason="mingw is not installed: apt-get install gcc-mingw-w64-x86-64"
    ),
]

CELL_ID = "0.3.3.1-cp312-cu128-torch2.11-win_amd64"
PLUGIN = "nvdiffrast_plugin.cp312-win_amd64.pyd"
_OVERLAY = ROOT / "patches" / "common" / "overlay" / "nvdiffrast"
# The version of the runtime, its error without a driver (cudaErrorInsufficientDriver), and a value of torch.
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
    """Install NVIDIA's runtime for Windows with the layout of a toolkit."""
    pin = wine.PINS["runtime"]
    folder = tmp_path_factory.mktemp("toolkit") / "runtime"
    return registry.install(pin["requirement"], pin["sha256"], folder, *wine.WINDOWS) / str(pin["folder"])


def _module(folder: Path) -> bytes:
    """Compile plugin.c and return the .pyd; its import libraries are made from names alone."""
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
    """Build and repair a wheel with the real loader and a module that imports from every DLL."""
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
    """A Windows Python with the wheel installed; ``bundled`` is the file of the bundled runtime."""

    python: wine.WindowsPython
    bundled: Path

    @property
    def torch_libraries(self) -> Path:
        return self.python.site_packages / "torch" / "lib"

    def probe(self, *options: str, first: str = "import torch", **environment: str) -> str:
        """Run the code ``first``, import the plugin, and return the output."""
        return self.python.run(*options, "-c", _PROBE.replace("FIRST", first), env=environment)


def _pip_install(python: wine.WindowsPython, wheel: Path, *options: str) -> None:
    """Install the wheel with pip; its requirements are installed already."""
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


def _lines(output: str) -> list[str]:
    """Return the lines of the output; Wine's own messages on standard error may arrive before or after Python's."""
    return [line.strip() for line in output.splitlines()]


def test_imports_the_plugin_and_calls_the_runtime(installed: Installation) -> None:
    assert GOOD in _lines(installed.probe())


@pytest.mark.parametrize("options", [("-I",), ("-S", "-P")])
def test_imports_in_an_isolated_python(installed: Installation, options: tuple[str, ...]) -> None:
    """The option -S leaves out site-packages, so the test adds it to sys.path."""
    first = f"import sys; sys.path.append({wine.windows_path(installed.python.site_packages)!r}); import torch"
    assert GOOD in _lines(installed.probe(*options, first=first))


@contextmanager
def without(path: Path) -> Iterator[None]:
    """Remove a file or folder temporarily."""
    aside = path.with_name(f"{path.name}.aside")
    path.rename(aside)
    try:
        yield
    finally:
        if path.is_file():
            path.unlink()
        aside.rename(path)


@contextmanager
def replaced(path: Path, content: bytes) -> Iterator[None]:
    """Replace the content of a file temporarily; the file may be a link into a cache."""
    with without(path):
        path.write_bytes(content)
        yield


@pytest.fixture(scope="module")
def diagnosed(installed: Installation) -> Iterator[Installation]:
    """Change torch's version file to CUDA temporarily, because package indexes have only CPU builds for Windows."""
    version = installed.python.site_packages / "torch" / "version.py"
    text = version.read_text(encoding="utf-8")
    changed = text.replace("cuda: Optional[str] = None", 'cuda: Optional[str] = "12.8"')
    assert changed != text
    with replaced(version, changed.encode()):
        yield installed


def test_imports_the_plugin_before_torch(diagnosed: Installation) -> None:
    assert GOOD in _lines(diagnosed.probe(first="pass"))


def _check_message(message: str, *parts: str | Path) -> None:
    """Check that the message is the loader's and contains all ``parts``."""
    assert "ImportError:" in message, message
    for part in parts:
        text = wine.windows_path(part) if isinstance(part, Path) else part
        assert text.lower() in message.lower(), f"{text!r} is not in:\n{message}"
    assert "next:" in message, message


def test_names_the_missing_bundled_runtime(diagnosed: Installation) -> None:
    with without(diagnosed.bundled):
        message = diagnosed.probe()
    _check_message(message, "[library-missing]", diagnosed.bundled.name, PLUGIN, diagnosed.bundled.parent, "12.8")
    _check_message(message, diagnosed.torch_libraries)


@pytest.mark.parametrize("dll", ["c10.dll", "torch_python.dll", "uv.dll"])
def test_names_a_missing_dll_of_torch(diagnosed: Installation, dll: str) -> None:
    """torch_python.dll needs torch_cpu.dll, which needs uv.dll."""
    with without(diagnosed.torch_libraries / dll):
        message = diagnosed.probe(first="pass")
    needing = "torch_cpu.dll" if dll == "uv.dll" else PLUGIN
    _check_message(message, dll, needing, diagnosed.torch_libraries)


def test_names_a_truncated_runtime(diagnosed: Installation) -> None:
    content = diagnosed.bundled.read_bytes()
    with replaced(diagnosed.bundled, content[: len(content) // 2]):
        message = diagnosed.probe()
    _check_message(message, "[library-damaged]", diagnosed.bundled)


def test_names_a_runtime_of_32_bits(diagnosed: Installation) -> None:
    content = (diagnosed.python.site_packages / "setuptools" / "cli-32.exe").read_bytes()
    with replaced(diagnosed.bundled, content):
        message = diagnosed.probe()
    _check_message(message, "[library-damaged]", diagnosed.bundled)


def test_names_a_truncated_plugin(diagnosed: Installation) -> None:
    plugin = diagnosed.python.site_packages / "nvdiffrast" / "torch" / PLUGIN
    content = plugin.read_bytes()
    with replaced(plugin, content[: len(content) // 2]):
        message = diagnosed.probe()
    _check_message(message, "[library-damaged]", plugin)


def test_reports_a_missing_torch(diagnosed: Installation) -> None:
    with without(diagnosed.python.site_packages / "torch"):
        message = diagnosed.probe(first="pass")
    _check_message(message, "[torch-absent]", "torch")
    # PyPI's torch for Windows does not use CUDA.
    assert 'next: pip install --index-url https://download.pytorch.org/whl/cu128 "torch==2.11.*"' in message


def test_reports_a_missing_numpy(diagnosed: Installation) -> None:
    """The Windows Python has no numpy; import_requirements is the first call of upstream's patched code."""
    message = diagnosed.probe(first="from nvdiffrast import _loader; _loader.import_requirements()")
    _check_message(message, "[numpy-absent]", "next: pip install numpy")


def test_reports_a_deleted_plugin(diagnosed: Installation) -> None:
    plugin = diagnosed.python.site_packages / "nvdiffrast" / "torch" / PLUGIN
    with without(plugin):
        message = diagnosed.probe()
    _check_message(
        message, "[plugin-deleted]", f"{wine.windows_path(plugin)} is missing", "next: pip install --force-reinstall"
    )


def test_reports_a_runtime_whose_initialization_fails(diagnosed: Installation, tmp_path: Path) -> None:
    """The error number identifies the cause, because the text depends on the language of Windows."""
    source = tmp_path / "fails.c"
    source.write_text(
        "int DllMain(void *module, unsigned reason, void *reserved) { return 0; }\n"
        "__declspec(dllexport) int cudaRuntimeGetVersion(int *n) { return 1; }\n"
        "__declspec(dllexport) int cudaGetDeviceCount(int *n) { return 1; }\n"
    )
    call([f"{_MINGW}-gcc", "-shared", "-s", "-o", "fails.dll", source], cwd=tmp_path, echo=False)
    with replaced(diagnosed.bundled, (tmp_path / "fails.dll").read_bytes()):
        message = diagnosed.probe()
    _check_message(message, "[dll-initialization]", "next: winget install --id Microsoft.VCRedist.2015+.x64")


def test_finds_the_runtime_in_nvdiffrast_dll_dirs(diagnosed: Installation, toolkit: Path, tmp_path: Path) -> None:
    """The runtime has the file name that the module imports."""
    (runtime,) = toolkit.rglob("cudart64_12.dll")
    folder = tmp_path / "more DLLs"
    folder.mkdir()
    shutil.copyfile(runtime, folder / diagnosed.bundled.name)
    with without(diagnosed.bundled):
        assert "[library-missing]" in diagnosed.probe()
        for listed in (wine.windows_path(folder), f'C:\\;"{wine.windows_path(folder)}"'):
            found = diagnosed.probe(NVDIFFRAST_DLL_DIRS=listed)
            assert GOOD in _lines(found)


@pytest.mark.parametrize("name", ["Grüße 日本 é", "long"])
def test_works_in_folders_with_unusual_names(diagnosed: Installation, wheel: Path, tmp_path: Path, name: str) -> None:
    """One folder has a name that is not ASCII; the other makes paths longer than 260 characters, Windows' old limit."""
    folder = tmp_path / name
    while name == "long" and len(str(folder)) < 280:
        folder /= "0123456789" * 4
    folder.mkdir(parents=True)
    _pip_install(diagnosed.python, wheel, "--target", wine.windows_path(folder))
    first = f"import sys; sys.path.insert(0, {wine.windows_path(folder)!r}); import torch"
    assert GOOD in _lines(diagnosed.probe(first=first))
    with without(folder / "nvdiffrast.libs" / diagnosed.bundled.name):
        message = diagnosed.probe(first=first)
    _check_message(message, "[library-missing]", diagnosed.bundled.name, folder / "nvdiffrast.libs")
