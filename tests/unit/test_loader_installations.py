"""Tests of the loader in incomplete and unusual installations: deleted or added files, missing torch or numpy."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.model import ROOT
from tests.loader_site import (
    INFO,
    REINSTALL,
    SUFFIX,
    THIS,
    TORCH_CHANNEL,
    Site,
    codes,
    needs_gcc,
    next_command,
    unprivileged,
)

pytestmark = needs_gcc

ANSWER = "print(load(False).answer())"
LOAD = "load(False)"
RUNTIME = "libcudart-0a1b2c3d.so.13"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


# --- a deleted module that the installation lists


@pytest.mark.parametrize("gl", [False, True], ids=["cuda", "gl"])
@pytest.mark.parametrize("listed", ["RECORD", "build_info.json", "both"])
def test_a_deleted_plugin_is_an_error_and_is_not_compiled(site: Site, listed: str, gl: bool) -> None:
    name = "nvdiffrast_plugin_gl" if gl else "nvdiffrast_plugin"
    file = site.compile(name)
    if listed != "build_info.json":
        site.record()
    if listed == "RECORD":
        site.info({**INFO, "plugins": []})
    file.unlink()
    output = site.run(f"print(load({gl}))")
    assert codes(output) == ["plugin-deleted"]
    assert f"ImportError: nvdiffrast: the compiled module {name} is neither in " in output
    assert "Antivirus programs delete such files" in output
    assert next_command(output) == REINSTALL
    assert "just in time" not in output
    if listed != "build_info.json":
        assert f"{file} is missing" in output


def test_the_deleted_extension_of_0_4_is_an_error(site: Site) -> None:
    site.info({**INFO, "plugins": ["_nvdiffrast_c"]})
    output = site.run("nvdiffrast.torch._loader.load_extension('_nvdiffrast_c')")
    assert codes(output) == ["plugin-deleted"]
    assert next_command(output) == REINSTALL


def test_forced_compilation_ignores_a_deleted_plugin(site: Site) -> None:
    assert site.run("print(load(False))", NVDIFFRAST_FORCE_JIT="1") == "None\n"


def test_reports_a_deleted_plugin_beside_a_plugin_for_another_python(site: Site) -> None:
    file = site.compile("nvdiffrast_plugin")
    site.record()
    file.rename(file.with_name("nvdiffrast_plugin.cpython-27-x86_64-linux-gnu.so"))
    output = site.run(LOAD)
    assert codes(output)[0] == "plugin-deleted"
    assert f"{file} is missing" in output


def test_reports_another_python_before_a_deleted_plugin(site: Site) -> None:
    """Even the complete wheel would not work; this Python's pip finds the right wheel."""
    site.info({**INFO, "python": "cp27"})
    output = site.run(LOAD)
    assert codes(output) == ["wrong-python"]
    assert f"this wheel is for cp27, and this Python is {THIS}" in output
    assert next_command(output) == f"{sys.executable} -m {REINSTALL}"


def test_the_command_does_not_name_the_python_of_a_matching_wheel(site: Site) -> None:
    output = site.run(LOAD, NVDIFFRAST_NO_JIT="1")
    assert codes(output) == ["plugin-deleted"]
    assert THIS not in next_command(output)


@pytest.mark.parametrize("content", ["", "[]", '{"python": "cp27"'])
def test_a_damaged_build_info_does_not_permit_compilation(site: Site, content: str) -> None:
    (site.package / "build_info.json").write_text(content)
    output = site.run("print(load(False))")
    assert codes(output) == ["plugin-deleted", "build-info"]
    assert next_command(output).startswith("pip install --force-reinstall --no-deps nvdiffrast")


def test_a_source_wheel_where_compilation_is_forbidden(site: Site) -> None:
    site.source_wheel()
    output = site.run(LOAD, NVDIFFRAST_NO_JIT="1")
    assert codes(output) == ["not-compiled"]


# --- files that do not belong to the wheel


def with_runtime(site: Site) -> Path:
    """Install a plugin and the runtime library that it needs; return the library."""
    libraries = site.folder / "nvdiffrast.libs"
    libraries.mkdir()
    [made] = site.library(RUNTIME)
    shutil.move(made, libraries / RUNTIME)
    path = "-Wl,-rpath,$ORIGIN/../../nvdiffrast.libs"
    declare, value = "int from_library(void);", "from_library()"
    site.compile("nvdiffrast_plugin", str(libraries / RUNTIME), path, declare=declare, value=value)
    site.record()
    return libraries / RUNTIME


def truncated(runtime: Path) -> None:
    content = runtime.read_bytes()
    runtime.with_name(".nfs00000000000012").write_bytes(content[: len(content) // 2])
    runtime.with_name("libcudart-99999999.so.13").write_bytes(content[: len(content) // 2])


def unreadable(runtime: Path) -> None:
    copy = Path(shutil.copy(runtime, runtime.with_name(f"{runtime.name}.orig")))
    copy.chmod(0)


def folder(runtime: Path) -> None:
    runtime.with_name("old.so").mkdir()


def link_to_nothing(runtime: Path) -> None:
    runtime.with_name("libcudart.so").symlink_to("gone")


@pytest.mark.parametrize("stray", [truncated, unreadable, folder, link_to_nothing])
def test_ignores_files_that_do_not_belong_to_the_wheel(site: Site, stray: Callable[[Path], None]) -> None:
    stray(with_runtime(site))
    assert site.run(ANSWER, prefix=unprivileged()) == "1\n"


@pytest.mark.parametrize("name", [f"nvdiffrast_plugin.old{SUFFIX}", "nvdiffrast_plugin.cpython-27-x86_64-linux-gnu.so"])
def test_ignores_copies_of_the_plugin(site: Site, name: str) -> None:
    with_runtime(site)
    (site.package / "torch" / name).write_bytes(b"")
    assert site.run(ANSWER) == "1\n"
    listed = site.run("from nvdiffrast import _installation\nprint([file.name for file in _installation.plugins()])")
    assert listed == f"{[f'nvdiffrast_plugin{SUFFIX}']}\n"


def test_ignores_a_folder_with_the_name_of_a_plugin(site: Site) -> None:
    site.source_wheel()
    (site.package / "torch" / f"nvdiffrast_plugin{SUFFIX}").mkdir()
    assert "None" in site.run("print(load(False))")


def test_reports_a_truncated_library_of_the_wheel(site: Site) -> None:
    runtime = with_runtime(site)
    content = runtime.read_bytes()
    runtime.write_bytes(content[: len(content) // 2])
    output = site.run(LOAD)
    assert codes(output)[0] == "library-damaged"


def test_a_successful_import_does_not_read_record(site: Site) -> None:
    with_runtime(site)
    output = site.run("load(False); print(sorted(name for name in sys.modules if name.startswith('nvdiffrast._')))")
    assert output == "['nvdiffrast._loader', 'nvdiffrast._paths']\n"


# --- torch and numpy


def test_reports_a_missing_torch(site: Site) -> None:
    shutil.rmtree(site.folder / "torch")
    output = site.run("", "-S")
    assert codes(output) == ["torch-absent"]
    assert "ModuleNotFoundError: nvdiffrast: torch cannot be imported: No module named 'torch'" in output
    assert sys.executable in output
    assert next_command(output) == f'pip install {TORCH_CHANNEL} "torch==2.11.*"'


def test_reports_a_missing_numpy(site: Site) -> None:
    (site.folder / "numpy.py").unlink()
    output = site.run("", "-S")
    assert codes(output) == ["numpy-absent"]
    assert "ModuleNotFoundError: nvdiffrast: numpy cannot be imported: No module named 'numpy'" in output
    assert next_command(output) == "pip install numpy"


def test_reports_that_numpy_and_torch_are_missing(site: Site) -> None:
    (site.folder / "numpy.py").unlink()
    shutil.rmtree(site.folder / "torch")
    assert codes(site.run("", "-S")) == ["numpy-absent", "torch-absent"]


def test_reports_a_numpy_that_cannot_be_imported(site: Site) -> None:
    (site.folder / "numpy.py").write_text("raise ImportError('\\n\\nIMPORTANT: read this\\n' + 'and this\\n' * 20)\n")
    output = site.run("")
    assert codes(output) == ["numpy-broken"]
    assert "nvdiffrast: numpy cannot be imported: IMPORTANT: read this\n" in output
    assert next_command(output) == "pip install --force-reinstall numpy"


def test_reports_another_python_before_a_broken_numpy(site: Site) -> None:
    """In a copied site-packages folder the compiled modules of numpy and torch fail first."""
    site.info({**INFO, "python": "cp27"})
    (site.folder / "numpy.py").write_text("raise ImportError('no compiled numpy')\n")
    output = site.run("")
    assert codes(output)[0] == "wrong-python"
    assert next_command(output) == f"{sys.executable} -m {REINSTALL}"


def test_shortens_a_long_message_of_torch_to_one_line(site: Site) -> None:
    (site.folder / "torch" / "__init__.py").write_text("raise ImportError('bad\\n' + 'and more\\n' * 20)\n")
    output = site.run("")
    message = output[output.index("nvdiffrast: torch cannot be imported: bad\n") :]
    assert "and more" not in message
    assert "cannot be imported (bad)" in message


def test_a_torch_without_a_dependency_is_broken_and_not_absent(site: Site) -> None:
    (site.folder / "torch" / "__init__.py").write_text("import a_package_that_is_nowhere\n")
    output = site.run("")
    assert codes(output) == ["torch-broken"]
    assert next_command(output) == f'pip install --force-reinstall {TORCH_CHANNEL} "torch==2.11.*"'


def test_reports_a_missing_torch_with_a_source_wheel(site: Site) -> None:
    site.source_wheel()
    shutil.rmtree(site.folder / "torch")
    assert next_command(site.run("", "-S")) == "pip install torch"


def test_does_not_install_torch_from_pypi_on_windows(site: Site) -> None:
    """PyPI's torch for Windows does not use CUDA, and without build_info.json the CUDA version is unknown."""
    site.source_wheel()
    code = "from nvdiffrast import _hints\n_hints.os.name = 'nt'\nprint(_hints.install_torch(None))"
    note = "https://pytorch.org/get-started/locally/ shows the command that installs torch with CUDA."
    assert site.run(code) == f"Hint(command='', note='{note}')\n"


# --- the command that installs the same wheel again


def test_says_before_the_command_that_the_index_is_unknown(site: Site) -> None:
    output = site.run(LOAD)
    assert next_command(output) == REINSTALL
    assert output.index("The index of the wheel is unknown") < output.index("next: ")


def test_uses_the_index_of_the_environment_variable(site: Site) -> None:
    output = site.run(LOAD, NVDIFFRAST_INDEX_URL="https://wheels.example/root/")
    index = "--index-url https://wheels.example/root/whl/cu130/"
    assert next_command(output) == REINSTALL.replace("nvdiffrast==", f"{index} nvdiffrast==")
    assert "is unknown" not in output


@pytest.mark.parametrize(
    "value", ["https://e.example/$(id)", "https://user:secret@e.example/", "https://e.example/ -r x"]
)
def test_ignores_an_index_with_shell_syntax_or_a_password(site: Site, value: str) -> None:
    assert next_command(site.run(LOAD, NVDIFFRAST_INDEX_URL=value)) == REINSTALL


def test_reinstalls_from_the_wheel_file(site: Site) -> None:
    wheel = site.folder / "a folder" / "nvdiffrast-0.3.3.1-x.whl"
    wheel.parent.mkdir()
    wheel.touch()
    (site.record() / "direct_url.json").write_text(json.dumps({"url": wheel.as_uri(), "archive_info": {}}))
    assert next_command(site.run(LOAD)) == f"pip install --force-reinstall --no-deps '{wheel}'"
    wheel.unlink()
    assert next_command(site.run(LOAD)) == REINSTALL


def test_reinstalls_from_the_url_of_the_wheel(site: Site) -> None:
    address = "https://e.example/nvdiffrast-0.3.3.1%2Bcu130.torch2.11-x.whl"
    (site.record() / "direct_url.json").write_text(json.dumps({"url": address, "archive_info": {}}))
    assert next_command(site.run(LOAD)) == f"pip install --force-reinstall --no-deps {address}"


def test_does_not_use_malformed_versions_in_a_command(site: Site) -> None:
    site.info({**INFO, "release": "1; id", "torch": "2.11; id", "cuda": "13.0; id"})
    output = site.run(LOAD)
    assert "; id" not in next_command(output)


# --- programs frozen by PyInstaller


def frozen(site: Site, code: str) -> str:
    return site.run(f"import sys; sys.frozen = True; sys._MEIPASS = {str(site.folder)!r}\n{code}")


def test_reports_a_frozen_program_without_the_plugin(site: Site) -> None:
    site.source_wheel()
    output = frozen(site, LOAD)
    assert codes(output) == ["frozen-incomplete"]
    program = Path(sys.executable).stem
    assert next_command(output) == f"pyinstaller --clean --collect-all nvdiffrast --collect-all torch {program}.py"


def test_gives_no_pyinstaller_command_to_a_program_of_another_tool(site: Site) -> None:
    output = site.run(f"import sys; sys.frozen = True\n{LOAD}")
    assert codes(output) == ["frozen-incomplete"]
    assert "next:" not in output and "Add the folders nvdiffrast and nvdiffrast.libs" in output


# --- the plugin as a top-level module


@pytest.mark.parametrize("name", ["nvdiffrast_plugin", "nvdiffrast_plugin_gl"])
def test_imports_the_plugin_as_a_top_level_module(site: Site, name: str) -> None:
    site.compile(name)
    shutil.copy(ROOT / "patches" / "0.3" / "overlay" / f"{name}.py", site.folder)
    (site.package / "torch" / "ops.py").write_text(
        "from .. import _loader\n\n\ndef _get_plugin(gl=False):\n    return _loader.load_precompiled(gl)\n"
    )
    output = site.run(f"import {name} as plugin\nprint(plugin.answer(), plugin is load({name.endswith('_gl')}))")
    assert output == "42 True\n"


def test_imports_the_extension_of_0_4_by_the_name_of_the_plugin(site: Site) -> None:
    site.compile("_nvdiffrast_c", folder=".")
    shutil.copy(ROOT / "patches" / "0.4" / "overlay" / "nvdiffrast_plugin.py", site.folder)
    (site.package / "torch" / "ops.py").write_text(
        "from .. import _loader\n_nvdiffrast_c = _loader.load_extension('_nvdiffrast_c')\n"
    )
    assert site.run("import nvdiffrast_plugin, _nvdiffrast_c\nprint(nvdiffrast_plugin is _nvdiffrast_c)") == "True\n"


def test_layout_lists_every_top_level_module_of_the_overlay() -> None:
    for series in ("0.3", "0.4"):
        overlay = ROOT / "patches" / series / "overlay"
        listed = json.loads((overlay / "wheel_build" / "layout.json").read_text())["aliases"]
        assert sorted(f"{name}.py" for name in listed) == sorted(file.name for file in overlay.glob("*.py"))


# --- NVDIFFRAST_DLL_DIRS


@pytest.mark.parametrize(
    ("listed", "wanted"),
    [
        ('"{0}"', ["{0}"]),
        ('"{0}":{1}', ["{0}", "{1}"]),
        ('{0}:"{1}":', ["{0}", "{1}"]),
        (' "{0}" ', ["{0}"]),
        ('"{0}:x"', ["{0}:x"]),
        ('"{0}', ["{0}"]),
    ],
)
def test_accepts_quoted_folders(site: Site, listed: str, wanted: list[str]) -> None:
    """NVDIFFRAST_DLL_DIRS has the syntax of PATH on Windows; os.add_dll_directory exists only there."""
    folders = [site.folder / "first folder", site.folder / "second"]
    for path in (*folders, site.folder / "first folder:x"):
        path.mkdir()
    code = "import os\nos.add_dll_directory = print\n"
    code += "from nvdiffrast import _dll_folders\nprint([str(path) for path in _dll_folders.find()])"
    output = site.run(code, NVDIFFRAST_DLL_DIRS=listed.format(*folders), CUDA_PATH="")
    assert output == f"{[one.format(*folders) for one in wanted]}\n"
