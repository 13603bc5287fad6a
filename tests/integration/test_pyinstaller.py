"""Tests that a program frozen by PyInstaller imports the plugin with the wheel's hook, and reports a missing hook.

nvdiffrast is the source wheel of a real release, which is patched and built here. The plugin and its library are
compiled here, and torch and numpy are empty stand-ins.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from scripts.matrix import matrix
from scripts.model import ROOT, RegistryPin
from scripts.source import patching, upstream
from scripts.support import environments
from scripts.support.process import call
from tests.integration import registry
from tests.loader_site import INFO, SUFFIX, Site, codes, needs_gcc, next_command

pytestmark = [
    pytest.mark.integration,
    needs_gcc,
    pytest.mark.skipif(
        not sysconfig.get_config_var("Py_ENABLE_SHARED"),
        reason="PyInstaller needs a Python with a shared library: apt-get install python3",
    ),
]

RUNTIME = "libcudart-0a1b2c3d.so.13"
PROGRAM = """
from nvdiffrast.torch import ops
plugin = ops._get_plugin()
print(plugin.answer(), plugin.__file__)
"""
TORCH = '__version__ = "2.11.0+cu130"\nclass version: cuda = "13.0"\nclass autograd: Function = object\n'


def _source_wheel(tools: Path, folder: Path) -> Path:
    """Build the source wheel of a release with the setuptools in ``tools``, and return it."""
    (release,) = (one for one in matrix.load().releases if isinstance(one.source, RegistryPin))
    if missing := upstream.availability(release):
        pytest.skip(missing)
    tree = patching.prepare(release, upstream.fetch(release), folder / "tree").path
    command: list[str | Path] = [sys.executable, "setup.py", "-q", "bdist_wheel", "--dist-dir", folder]
    call(command, cwd=tree, env={"PYTHONPATH": str(tools), "BUILD_BINARY_WHEEL": None}, echo=False, quiet=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lock = ROOT / "requirements" / "pyinstaller.txt"
    return registry.install_locked(lock, tmp_path_factory.mktemp("tools") / "pyinstaller")


@pytest.fixture(scope="module")
def wheel(tools: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _source_wheel(tools, tmp_path_factory.mktemp("wheel"))


class Workshop:
    """An environment with nvdiffrast, in which programs are frozen."""

    def __init__(self, folder: Path, tools: Path, wheel: Path) -> None:
        venv.create(folder / "environment", symlinks=True)
        self.folder = folder
        self.python = environments.interpreter(folder / "environment")
        (self.packages,) = (folder / "environment" / "lib").glob("python*/site-packages")
        uv = [sys.executable, "-m", "uv", "pip", "install", "-q", "--offline", "--no-deps", "--no-config"]
        call([*uv, "--python", self.python, wheel], echo=False, quiet=True)
        shutil.copytree(tools, self.packages, dirs_exist_ok=True)
        (self.packages / "torch").mkdir()
        (self.packages / "torch" / "__init__.py").write_text(TORCH)
        (self.packages / "numpy.py").touch()
        self._compile()

    def _compile(self) -> None:
        """Add the files that a compiled wheel contains and the source wheel does not."""
        site = Site(self.folder / "site")
        (made,) = site.library(RUNTIME)
        libraries = self.packages / "nvdiffrast.libs"
        libraries.mkdir()
        shutil.copy(made, libraries / RUNTIME)
        path = "-Wl,-rpath,$ORIGIN/../../nvdiffrast.libs"
        declare, value = "int from_library(void);", "from_library()"
        plugin = site.compile("nvdiffrast_plugin", str(libraries / RUNTIME), path, declare=declare, value=value)
        shutil.copy(plugin, self.packages / "nvdiffrast" / "torch")
        (self.packages / "nvdiffrast" / "build_info.json").write_text(json.dumps(INFO))

    def freeze(self, *options: str) -> Path:
        """Freeze a program, remove the packages of the environment, and return the program."""
        (self.folder / "program.py").write_text(PROGRAM)
        hooks = self.folder / "hooks"
        hooks.mkdir()
        for name in ("numpy", "torch"):  # PyInstaller's own hooks need the real packages.
            (hooks / f"hook-{name}.py").touch()
        options = ("--log-level", "WARN", "--additional-hooks-dir", str(hooks), *options)
        command: list[str | Path] = [self.python, "-m", "PyInstaller", "--noconfirm", *options, "program.py"]
        environment = {**os.environ, "PYINSTALLER_CONFIG_DIR": str(self.folder / "cache")}
        subprocess.run(command, cwd=self.folder, env=environment, check=True)
        shutil.rmtree(self.packages)
        moved = self.folder / "moved"
        (self.folder / "dist").rename(moved)
        return moved / "program" if "--onefile" in options else moved / "program" / "program"


@pytest.fixture
def workshop(tools: Path, wheel: Path, tmp_path: Path) -> Workshop:
    return Workshop(tmp_path, tools, wheel)


def run(program: Path) -> str:
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


@pytest.mark.parametrize("options", [(), ("--onefile",)], ids=["folder", "file"])
def test_a_frozen_program_imports_the_plugin(workshop: Workshop, options: tuple[str, ...]) -> None:
    answer, file = run(workshop.freeze(*options)).split()
    assert answer == "1"
    assert file.endswith(f"nvdiffrast/torch/nvdiffrast_plugin{SUFFIX}")
    assert not file.startswith(str(workshop.packages))


def test_reports_a_program_that_was_frozen_without_the_hook(workshop: Workshop) -> None:
    (entry_points,) = workshop.packages.glob("nvdiffrast-*.dist-info/entry_points.txt")
    entry_points.unlink()
    output = run(workshop.freeze())
    assert codes(output) == ["frozen-incomplete"]
    assert next_command(output) == "pyinstaller --clean --collect-all nvdiffrast --collect-all torch program.py"
