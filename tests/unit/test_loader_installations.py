"""What the loader makes of incomplete and unusual installations: files deleted or added, torch or numpy missing."""

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


# --- a compiled module that the installation lists and that is gone


@pytest.mark.parametrize("gl", [False, True], ids=["cuda", "gl"])
@pytest.mark.parametrize("listed", ["RECORD", "build_info.json", "both"])
def test_a_deleted_plugin_is_an_error_and_never_compiled_instead(site: Site, listed: str, gl: bool) -> None:
    name = "nvdiffrast_plugin_gl" if gl else "nvdiffrast_plugin"
    file = site.compile(name)
    if listed != "build_info.json":
        site.record()
    if listed == "RECORD":
        site.info({**INFO, "plugins": []})
    file.unlink()
    told = site.run(f"print(load({gl}))")
    assert codes(told) == ["plugin-deleted"]
    assert f"ImportError: nvdiffrast: this installation holds no compiled {name}" in told
    assert "Antivirus programs delete such files" in told
    assert next_command(told) == REINSTALL
    assert "just in time" not in told
    if listed != "build_info.json":
        assert f"{file} is missing" in told


def test_the_extension_of_0_4_deleted(site: Site) -> None:
    site.info({**INFO, "plugins": ["_nvdiffrast_c"]})
    told = site.run("nvdiffrast.torch._loader.load_extension('_nvdiffrast_c')")
    assert codes(told) == ["plugin-deleted"]
    assert next_command(told) == REINSTALL


def test_a_deleted_plugin_with_just_in_time_compilation_asked_for(site: Site) -> None:
    assert site.run("print(load(False))", NVDIFFRAST_FORCE_JIT="1") == "None\n"


def test_a_deleted_plugin_beside_one_that_another_python_left(site: Site) -> None:
    file = site.compile("nvdiffrast_plugin")
    site.record()
    file.rename(file.with_name("nvdiffrast_plugin.cpython-27-x86_64-linux-gnu.so"))
    told = site.run(LOAD)
    assert codes(told)[0] == "plugin-deleted"
    assert f"{file} is missing" in told


def test_a_plugin_deleted_from_the_wheel_of_another_python(site: Site) -> None:
    """The wheel would not fit even if it were whole; this Python's pip finds the wheel that does."""
    site.info({**INFO, "python": "cp27"})
    told = site.run(LOAD)
    assert codes(told) == ["wrong-python"]
    assert f"this wheel is for cp27, this Python is {THIS}" in told
    assert next_command(told) == f"{sys.executable} -m {REINSTALL}"


def test_nobody_is_told_to_install_for_the_python_that_the_wheel_is_for(site: Site) -> None:
    told = site.run(LOAD, NVDIFFRAST_NO_JIT="1")
    assert codes(told) == ["plugin-deleted"]
    assert THIS not in next_command(told)


@pytest.mark.parametrize("content", ["", "[]", '{"python": "cp27"'])
def test_a_damaged_build_info_does_not_permit_compilation(site: Site, content: str) -> None:
    (site.package / "build_info.json").write_text(content)
    told = site.run("print(load(False))")
    assert codes(told) == ["plugin-deleted", "build-info"]
    assert next_command(told).startswith("pip install --force-reinstall --no-deps nvdiffrast")


def test_a_source_wheel_where_compilation_is_forbidden(site: Site) -> None:
    site.source_wheel()
    told = site.run(LOAD, NVDIFFRAST_NO_JIT="1")
    assert codes(told) == ["not-compiled"]


# --- files that the wheel did not bring


def with_runtime(site: Site) -> Path:
    """Make an installation as a wheel leaves it, with a runtime library that its plugin needs; return the library."""
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
def test_files_that_the_wheel_did_not_bring_are_ignored(site: Site, stray: Callable[[Path], None]) -> None:
    stray(with_runtime(site))
    assert site.run(ANSWER, prefix=unprivileged()) == "1\n"


@pytest.mark.parametrize("name", [f"nvdiffrast_plugin.old{SUFFIX}", "nvdiffrast_plugin.cpython-27-x86_64-linux-gnu.so"])
def test_copies_of_the_plugin_are_ignored(site: Site, name: str) -> None:
    with_runtime(site)
    (site.package / "torch" / name).write_bytes(b"")
    assert site.run(ANSWER) == "1\n"
    listed = site.run("from nvdiffrast import _installation\nprint([file.name for file in _installation.plugins()])")
    assert listed == f"{[f'nvdiffrast_plugin{SUFFIX}']}\n"


def test_a_folder_with_the_name_of_a_plugin_is_no_plugin(site: Site) -> None:
    site.source_wheel()
    (site.package / "torch" / f"nvdiffrast_plugin{SUFFIX}").mkdir()
    assert "None" in site.run("print(load(False))")


def test_a_truncated_library_of_the_wheel_is_still_found(site: Site) -> None:
    runtime = with_runtime(site)
    content = runtime.read_bytes()
    runtime.write_bytes(content[: len(content) // 2])
    told = site.run(LOAD)
    assert codes(told)[0] == "library-damaged"


def test_record_is_not_read_for_a_module_that_loads(site: Site) -> None:
    with_runtime(site)
    told = site.run("load(False); print(sorted(name for name in sys.modules if name.startswith('nvdiffrast._')))")
    assert told == "['nvdiffrast._loader']\n"


# --- torch and numpy


def test_torch_missing(site: Site) -> None:
    shutil.rmtree(site.folder / "torch")
    told = site.run("", "-S")
    assert codes(told) == ["torch-absent"]
    assert "ModuleNotFoundError: nvdiffrast: torch cannot be imported: No module named 'torch'" in told
    assert sys.executable in told
    assert next_command(told) == f'pip install {TORCH_CHANNEL} "torch==2.11.*"'


def test_numpy_missing(site: Site) -> None:
    (site.folder / "numpy.py").unlink()
    told = site.run("", "-S")
    assert codes(told) == ["numpy-absent"]
    assert "ModuleNotFoundError: nvdiffrast: numpy cannot be imported: No module named 'numpy'" in told
    assert next_command(told) == "pip install numpy"


def test_both_missing(site: Site) -> None:
    (site.folder / "numpy.py").unlink()
    shutil.rmtree(site.folder / "torch")
    assert codes(site.run("", "-S")) == ["numpy-absent", "torch-absent"]


def test_a_numpy_that_fails(site: Site) -> None:
    (site.folder / "numpy.py").write_text("raise ImportError('\\n\\nIMPORTANT: read this\\n' + 'and this\\n' * 20)\n")
    told = site.run("")
    assert codes(told) == ["numpy-broken"]
    assert "nvdiffrast: numpy cannot be imported: IMPORTANT: read this\n" in told
    assert next_command(told) == "pip install --force-reinstall numpy"


def test_a_package_that_fails_in_the_folder_of_another_python(site: Site) -> None:
    """Whoever copies site-packages takes numpy's and torch's compiled modules along, which fail first."""
    site.info({**INFO, "python": "cp27"})
    (site.folder / "numpy.py").write_text("raise ImportError('no compiled numpy')\n")
    told = site.run("")
    assert codes(told)[0] == "wrong-python"
    assert next_command(told) == f"{sys.executable} -m {REINSTALL}"


def test_a_long_message_of_torch_takes_one_line(site: Site) -> None:
    (site.folder / "torch" / "__init__.py").write_text("raise ImportError('bad\\n' + 'and more\\n' * 20)\n")
    told = site.run("")
    message = told[told.index("nvdiffrast: torch cannot be imported: bad\n") :]
    assert "and more" not in message
    assert "cannot be imported (bad)" in message


def test_a_torch_that_lacks_a_package_is_not_called_absent(site: Site) -> None:
    (site.folder / "torch" / "__init__.py").write_text("import a_package_that_is_nowhere\n")
    told = site.run("")
    assert codes(told) == ["torch-broken"]
    assert next_command(told) == f'pip install --force-reinstall {TORCH_CHANNEL} "torch==2.11.*"'


def test_torch_missing_beside_a_source_wheel(site: Site) -> None:
    site.source_wheel()
    shutil.rmtree(site.folder / "torch")
    assert next_command(site.run("", "-S")) == "pip install torch"


def test_windows_never_gets_torch_from_pypi(site: Site) -> None:
    """PyPI's torch for Windows has no CUDA; without build_info.json nobody knows which CUDA to ask for."""
    site.source_wheel()
    code = "from nvdiffrast import _hints\n_hints.os.name = 'nt'\nprint(_hints.install_torch(None))"
    assert site.run(code) == (
        "Hint(command='', note='https://pytorch.org/get-started/locally/ shows the command for a torch with CUDA.')\n"
    )


# --- the command that installs the same wheel again


def test_an_unknown_index_is_said_before_the_command(site: Site) -> None:
    told = site.run(LOAD)
    assert next_command(told) == REINSTALL
    assert told.index("The index that the wheel came from is not known here") < told.index("next: ")


def test_the_index_of_the_environment_is_used(site: Site) -> None:
    told = site.run(LOAD, NVDIFFRAST_INDEX_URL="https://wheels.example/root/")
    index = "--index-url https://wheels.example/root/whl/cu130/"
    assert next_command(told) == REINSTALL.replace("nvdiffrast==", f"{index} nvdiffrast==")
    assert "is not known here" not in told


@pytest.mark.parametrize(
    "value", ["https://e.example/$(id)", "https://user:secret@e.example/", "https://e.example/ -r x"]
)
def test_no_index_that_says_more_to_a_shell_or_holds_a_password(site: Site, value: str) -> None:
    assert next_command(site.run(LOAD, NVDIFFRAST_INDEX_URL=value)) == REINSTALL


def test_a_wheel_that_was_installed_from_a_file_is_installed_from_it_again(site: Site) -> None:
    wheel = site.folder / "a folder" / "nvdiffrast-0.3.3.1-x.whl"
    wheel.parent.mkdir()
    wheel.touch()
    (site.record() / "direct_url.json").write_text(json.dumps({"url": wheel.as_uri(), "archive_info": {}}))
    assert next_command(site.run(LOAD)) == f"pip install --force-reinstall --no-deps '{wheel}'"
    wheel.unlink()
    assert next_command(site.run(LOAD)) == REINSTALL


def test_a_wheel_that_was_installed_from_an_address_is_installed_from_it_again(site: Site) -> None:
    address = "https://e.example/nvdiffrast-0.3.3.1%2Bcu130.torch2.11-x.whl"
    (site.record() / "direct_url.json").write_text(json.dumps({"url": address, "archive_info": {}}))
    assert next_command(site.run(LOAD)) == f"pip install --force-reinstall --no-deps {address}"


def test_versions_that_are_no_versions_are_no_part_of_a_command(site: Site) -> None:
    site.info({**INFO, "release": "1; id", "torch": "2.11; id", "cuda": "13.0; id"})
    told = site.run(LOAD)
    assert "; id" not in next_command(told)


# --- programs frozen by PyInstaller


def frozen(site: Site, code: str) -> str:
    return site.run(f"import sys; sys.frozen = True; sys._MEIPASS = {str(site.folder)!r}\n{code}")


def test_a_frozen_program_without_the_plugin(site: Site) -> None:
    site.source_wheel()
    told = frozen(site, LOAD)
    assert codes(told) == ["frozen-incomplete"]
    program = Path(sys.executable).stem
    assert next_command(told) == f"pyinstaller --clean --collect-all nvdiffrast --collect-all torch {program}.py"


def test_a_program_frozen_by_another_tool_gets_no_command_of_pyinstaller(site: Site) -> None:
    told = site.run(f"import sys; sys.frozen = True\n{LOAD}")
    assert codes(told) == ["frozen-incomplete"]
    assert "next:" not in told and "Put the folders nvdiffrast and nvdiffrast.libs" in told


# --- the plugin by its own name


@pytest.mark.parametrize("name", ["nvdiffrast_plugin", "nvdiffrast_plugin_gl"])
def test_the_plugin_is_imported_at_the_top_level(site: Site, name: str) -> None:
    site.compile(name)
    shutil.copy(ROOT / "patches" / "0.3" / "overlay" / f"{name}.py", site.folder)
    (site.package / "torch" / "ops.py").write_text(
        "from .. import _loader\n\n\ndef _get_plugin(gl=False):\n    return _loader.load_precompiled(gl)\n"
    )
    told = site.run(f"import {name} as plugin\nprint(plugin.answer(), plugin is load({name.endswith('_gl')}))")
    assert told == "42 True\n"


def test_the_extension_of_0_4_by_the_name_of_the_plugin(site: Site) -> None:
    site.compile("_nvdiffrast_c", folder=".")
    shutil.copy(ROOT / "patches" / "0.4" / "overlay" / "nvdiffrast_plugin.py", site.folder)
    (site.package / "torch" / "ops.py").write_text(
        "from .. import _loader\n_nvdiffrast_c = _loader.load_extension('_nvdiffrast_c')\n"
    )
    assert site.run("import nvdiffrast_plugin, _nvdiffrast_c\nprint(nvdiffrast_plugin is _nvdiffrast_c)") == "True\n"


def test_every_alias_is_a_module_of_its_overlay() -> None:
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
def test_folders_may_be_quoted(site: Site, listed: str, wanted: list[str]) -> None:
    """As in Windows' PATH; a stand-in for os.add_dll_directory shows what is asked of it."""
    folders = [site.folder / "first folder", site.folder / "second"]
    for path in (*folders, site.folder / "first folder:x"):
        path.mkdir()
    code = "import os\nos.add_dll_directory = print\n"
    code += "print([str(path) for path in nvdiffrast.torch._loader.dll_folders()])"
    told = site.run(code, NVDIFFRAST_DLL_DIRS=listed.format(*folders), CUDA_PATH="")
    assert told == f"{[one.format(*folders) for one in wanted]}\n"
