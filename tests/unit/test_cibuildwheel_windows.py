"""The Windows configuration as cibuildwheel parses it, and its repair command; the tests run on Linux."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path, PureWindowsPath
from typing import Any

import pytest
from cibuildwheel.options import CommandLineArguments, compute_options
from cibuildwheel.platforms import windows
from cibuildwheel.util.helpers import prepare_command

from scripts.build import cibuildwheel
from scripts.matrix import matrix
from scripts.model import ROOT, Cell
from scripts.wheel import pe
from tests.unit import pe_factory
from tests.unit import wheel_factory as factory

CUDA = PureWindowsPath(r"C:\Program Files\NVIDIA GPU Computing Toolkit\CUDA\v12.8")
LOCK = PureWindowsPath(r"D:\a b\requirements\torch.txt")
CACHE = PureWindowsPath(r"D:\a b\cache")
MATRIX = matrix.load()


@pytest.fixture
def cell() -> Cell:
    (found,) = MATRIX.select(["0.3.3.1-cp312-cu128-torch2.11-win_amd64"])
    return found


def policy(cell: Cell) -> list[str]:
    """Return the cell's architectures in the notation of torch."""
    suffixes = {cell.toolkit.ptx: "+PTX"}
    return [each + suffixes.get(each, "") for each in cell.toolkit.architectures]


def text(cell: Cell, **changed: Any) -> str:
    places: dict[str, Any] = {"cuda_home": CUDA, "torch_lock": LOCK, "cache": CACHE}
    fixed: dict[str, Any] = {"image": "", "architectures": policy(cell), "epoch": 1577836800}
    return cibuildwheel.configuration(cell, **{**places, **fixed, **changed})


def understood(cell: Cell, **changed: Any) -> tuple[list[str], Any]:
    """Return the identifiers that cibuildwheel would build on Windows, and its options for the first of them."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "cibuildwheel.toml"
        config.write_text(text(cell, **changed), encoding="utf-8")
        given = CommandLineArguments.defaults()
        given.platform, given.config_file, given.package_dir = "windows", str(config), Path(folder)
        options = compute_options("windows", given, env={})

        chosen = options.globals.build_selector, options.globals.architectures
        found = [each.identifier for each in windows.get_python_configurations(*chosen)]
        return found, options.build_options(found[0]) if found else None


@pytest.mark.parametrize("python", sorted({cell.python for cell in MATRIX.select(["*-win_amd64"])}))
def test_each_python_gives_one_build(cell: Cell, python: str) -> None:
    identifiers, _ = understood(replace(cell, python=python))
    assert identifiers == [f"cp{python.replace('.', '')}-win_amd64"]


def test_every_windows_cell_has_a_configuration() -> None:
    """The texts differ, and each contains the name of its cell."""
    cells = MATRIX.select(["*-win_amd64"])
    texts = {text(cell) for cell in cells}
    assert len(texts) == len(cells) > 0


def test_the_build_gets_the_exact_values(cell: Cell) -> None:
    """Values are quoted for a shell: spaces, semicolons and plus signs must be preserved."""
    _, options = understood(cell)
    assert options.environment.as_dictionary({}) == {
        "BUILD_BINARY_WHEEL": "1",
        "CUDA_HOME": CUDA.as_posix(),
        "CUDA_PATH": CUDA.as_posix(),
        "DISTUTILS_USE_SDK": "1",
        "NVDIFFRAST_BUILD_CACHE": CACHE.as_posix(),
        "NVDIFFRAST_CELL": cell.id,
        "NVDIFFRAST_LOCAL_VERSION": "cu128.torch2.11",
        "NVDIFFRAST_PARTIAL": "0",
        "NVDIFFRAST_TORCH_REQUIREMENT": "torch==2.11.*",
        "PYTHONHASHSEED": "0",
        "SOURCE_DATE_EPOCH": "1577836800",
        "TORCH_CUDA_ARCH_LIST": ";".join(policy(cell)),
    }


def words(command: str) -> list[str]:
    """Split a command line as Windows programs do; backslashes before quotes are not supported."""
    assert '\\"' not in command
    return [quoted or plain for quoted, plain in re.findall(r'"([^"]*)"|(\S+)', command)]


def test_commands_quote_paths_with_spaces(cell: Cell) -> None:
    _, options = understood(cell)
    given = {"wheel": r"C:\Users\A B\nvdiffrast.whl", "dest_dir": r"C:\Users\A B\repaired"}
    python = Path(sys.executable).as_posix()
    assert words(prepare_command(options.repair_command, **given)) == [
        *(python, "-m", "scripts.build.repair", given["wheel"], "--cell", cell.id),
        *("--output", given["dest_dir"], "--library-path", CUDA.as_posix()),
    ]
    before = words(prepare_command(options.before_build, project=".", package="."))
    assert before[:5] == [python, "-m", "uv", "pip", "install"]
    assert before[-2:] == ["-r", LOCK.as_posix()]
    assert {"--require-hashes", "--no-deps", "--only-binary"} <= set(before)
    (audit,) = options.audit_command
    assert words(prepare_command(audit, wheel=given["wheel"]))[-2:] == ["audit", given["wheel"]]


def test_uses_no_unix_shell_and_no_container(cell: Cell) -> None:
    _, options = understood(cell)
    assert options.before_all == ""
    commands = (options.repair_command, options.before_build, *options.audit_command)
    assert not [command for command in commands if re.search(r"\benv |/opt/|'|\$", command.replace(sys.executable, ""))]
    assert options.build_frontend.name == "build[uv]"
    assert "--no-isolation" in options.build_frontend.args
    assert not options.test_command


def test_the_repair_command_repairs(cell: Cell, tmp_path: Path) -> None:
    """Run the command unchanged, with paths that contain spaces, on constructed libraries."""
    toolkit, output = tmp_path / "a toolkit", tmp_path / "re paired"
    (toolkit / "bin").mkdir(parents=True)
    runtime = pe_factory.library(["kernel32.dll"], name="cudart64_12.dll", exports=["function"])
    (toolkit / "bin" / "cudart64_12.dll").write_bytes(runtime)
    parts = factory.text_parts(cell)
    plugin = "nvdiffrast/torch/nvdiffrast_plugin.cp312-win_amd64.pyd"
    parts.members[plugin] = pe_factory.library(["cudart64_12.dll", "c10.dll"], exports=["PyInit_nvdiffrast_plugin"])
    _, options = understood(cell, cuda_home=toolkit)
    command = prepare_command(options.repair_command, wheel=parts.write(tmp_path), dest_dir=output)
    subprocess.run(command, shell=True, check=True, cwd=ROOT, env={"PATH": "", "SOURCE_DATE_EPOCH": "1577836800"})
    (made,) = output.iterdir()
    assert made.name == cell.wheel
    with zipfile.ZipFile(made) as archive:
        extracted = Path(archive.extract(plugin, tmp_path))
    assert any(name.startswith("cudart64_12-") for name in pe.read(extracted).needed)
