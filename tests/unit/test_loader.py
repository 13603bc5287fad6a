"""Tests of the loader with real extension modules, which are compiled here and broken as in real installations."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.loader_site import (
    INFO,
    OVERLAY,
    REINSTALL,
    SUFFIX,
    TORCH_CHANNEL,
    Site,
    code_headings,
    codes,
    needs_gcc,
    next_command,
    problem_codes,
)

pytestmark = needs_gcc


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_imports_a_compiled_plugin_by_its_name_in_the_package(site: Site) -> None:
    site.compile("nvdiffrast_plugin")
    site.compile("nvdiffrast_plugin_gl", value="43")
    output = site.run("for gl in (False, True): m = load(gl); print(m.__name__, m.answer(), m is load(gl))")
    assert output.splitlines() == [
        "nvdiffrast.torch.nvdiffrast_plugin 42 True",
        "nvdiffrast.torch.nvdiffrast_plugin_gl 43 True",
    ]


def test_logs_once_per_plugin_that_a_source_wheel_is_compiled(site: Site) -> None:
    site.source_wheel()
    output = site.run("print([load(gl) for gl in (False, False, True, True)])")
    assert "[None, None, None, None]" in output
    assert output.count("nvdiffrast_plugin is not compiled in this installation") == 1
    assert output.count("nvdiffrast_plugin_gl is not compiled in this installation") == 1


def test_does_not_import_the_opengl_plugin_as_the_cuda_plugin(site: Site) -> None:
    site.info({**INFO, "plugins": ["nvdiffrast_plugin_gl"]})
    site.compile("nvdiffrast_plugin_gl")
    output = site.run("print(load(False), load(True).answer())")
    assert "None 42" in output


def test_just_in_time_compilation_can_be_forced(site: Site) -> None:
    site.compile("nvdiffrast_plugin")
    assert site.run("print(load(False))", NVDIFFRAST_FORCE_JIT="1") == "None\n"


def test_names_a_missing_library(site: Site) -> None:
    made = site.compile(
        "nvdiffrast_plugin", *site.library("libc10_cuda.so"), declare="int from_library(void);", value="from_library()"
    )
    (site.folder / "gone.so").unlink()
    output = site.run("load(False)")
    assert f"{made} cannot be imported: libc10_cuda.so: cannot open shared object file" in output
    assert "libc10_cuda.so belongs to torch" in output
    assert next_command(output) == f'pip install --force-reinstall {TORCH_CHANNEL} "torch==2.11.*"'


@pytest.mark.parametrize("name", ["libGL.so.1", "libEGL.so.1"])
def test_says_that_graphics_libraries_belong_to_the_driver(site: Site, name: str) -> None:
    # The system may have the real library, so the name only begins with its name.
    library = f"{name}.of-no-system"
    flags = site.library(library)
    site.compile("nvdiffrast_plugin_gl", *flags, declare="int from_library(void);", value="from_library()")
    output = site.run("load(True)")
    assert f"{library} belongs to the graphics driver, and wheels do not contain it" in output


def test_an_undefined_symbol_with_another_torch_hints_at_the_torch_of_the_wheel(site: Site) -> None:
    site.torch("2.12.1+cu130", "13.0")
    made = site.compile("nvdiffrast_plugin", declare="int of_torch(void);", value="of_torch()", init="of_torch();")
    output = site.run("load(False)")
    assert f"{made} cannot be imported" in output
    assert "undefined symbol: of_torch" in output
    assert "torch          2.11.0     2.12.1+cu130  <- differs" in output
    assert next_command(output) == f'pip install --force-reinstall {TORCH_CHANNEL} "torch==2.11.*"'


def test_reports_the_same_torch_line_for_another_cuda(site: Site) -> None:
    site.torch("2.11.3+cu126", "12.6")
    site.compile("nvdiffrast_plugin", declare="int of_torch(void);", value="of_torch()", init="of_torch();")
    output = site.run("load(False)")
    assert "CUDA of torch  13.0       12.6          <- differs" in output
    assert next_command(output) == f'pip install --force-reinstall {TORCH_CHANNEL} "torch==2.11.*"'


def test_reports_an_undefined_symbol_with_the_versions_of_the_wheel(site: Site) -> None:
    site.compile("nvdiffrast_plugin", declare="int of_torch(void);", value="of_torch()", init="of_torch();")
    output = site.run("load(False)")
    assert "differs" not in output
    assert "[symbol-missing] no library contains of_torch: a library has another version" in output


def test_a_module_for_another_python_is_an_error(site: Site) -> None:
    site.compile("nvdiffrast_plugin", suffix=".cpython-27-x86_64-linux-gnu.so")
    site.info({**INFO, "python": "cp27"})
    output = site.run("load(False)")
    assert "ImportError: nvdiffrast:" in output and "compiled for another Python" in output
    assert codes(output)[0] == "wrong-python"
    assert next_command(output) == f"{sys.executable} -m {REINSTALL}"


def test_reports_an_initialization_that_raises_another_error(site: Site) -> None:
    raises = 'PyErr_SetString(PyExc_RuntimeError, "the driver is too old"); return 0;'
    site.compile("nvdiffrast_plugin", init=raises)
    output = site.run("load(False)")
    assert "ImportError: nvdiffrast:" in output and "the driver is too old" in output


def test_reports_a_file_that_is_not_a_module(site: Site) -> None:
    (site.package / "torch" / f"nvdiffrast_plugin{SUFFIX}").write_bytes(b"not an ELF file")
    output = site.run("load(False)")
    assert "ImportError: nvdiffrast:" in output and "next: pip install --force-reinstall" in output


def test_build_info_is_only_needed_to_explain_a_failure(site: Site) -> None:
    (site.package / "build_info.json").unlink()
    made = site.compile("nvdiffrast_plugin")
    assert site.run("print(load(False).answer())") == "42\n"
    made.write_bytes(b"")
    output = site.run("load(False)")
    assert "the wheel's build information cannot be read" in output and "build_info.json cannot be read" in output


def test_reports_a_torch_that_cannot_be_imported(site: Site) -> None:
    site.compile("nvdiffrast_plugin").write_bytes(b"")
    (site.folder / "torch" / "__init__.py").write_text("raise OSError('libcudart is missing')\n")
    output = site.run("")
    assert codes(output) == ["torch-broken"]
    assert "torch is installed, but its import fails: libcudart is missing" in output
    assert "cannot be imported (libcudart is missing)  <- differs" in output


def test_a_second_import_raises_the_same_error_with_the_file(site: Site) -> None:
    made = site.compile("nvdiffrast_plugin")
    made.write_bytes(b"")
    output = site.run(
        "for again in range(2):\n"
        "    try: load(False)\n"
        "    except ImportError as error: print(error.path, error.name, type(error.__cause__).__name__)\n"
    )
    assert output.splitlines() == [f"{made} nvdiffrast.torch.nvdiffrast_plugin ImportError"] * 2


def test_concurrent_threads_get_the_same_initialized_module(site: Site) -> None:
    # The initialization releases the interpreter's lock and waits, so that the other threads start meanwhile.
    slow = "Py_BEGIN_ALLOW_THREADS usleep(100000); Py_END_ALLOW_THREADS"
    site.compile("nvdiffrast_plugin", declare="#include <unistd.h>", init=slow)
    output = site.run(
        "from concurrent.futures import ThreadPoolExecutor\n"
        "import threading\n"
        "start = threading.Barrier(8)\n"
        "def one(_):\n"
        "    start.wait()\n"
        "    module = load(False)\n"
        "    return id(module), module.answer()\n"
        "with ThreadPoolExecutor(8) as pool: print(len(set(pool.map(one, range(8)))))\n"
    )
    assert output == "1\n"


def test_concurrent_threads_log_the_compilation_once(site: Site) -> None:
    site.source_wheel()
    output = site.run(
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(8) as pool: list(pool.map(lambda _: load(False), range(64)))\n"
    )
    assert output.count("is not compiled") == 1


EXTENSION = "print(nvdiffrast.torch._loader.load_extension('_nvdiffrast_c').answer())"


def test_imports_an_extension_beside_the_package(site: Site) -> None:
    site.compile("_nvdiffrast_c", folder=".")
    assert site.run(EXTENSION) == "42\n"


def test_imports_an_extension_from_another_folder_of_sys_path(site: Site) -> None:
    (site.folder / "elsewhere").mkdir()
    site.compile("_nvdiffrast_c", folder="elsewhere")
    assert site.run(f"import sys; sys.path.append({str(site.folder / 'elsewhere')!r})\n{EXTENSION}") == "42\n"


def test_an_absent_extension_is_an_error(site: Site) -> None:
    output = site.run(EXTENSION)
    assert "ImportError: nvdiffrast: the compiled module _nvdiffrast_c is neither in " in output


def test_explains_a_broken_extension(site: Site) -> None:
    site.torch("2.9.1", "12.8")
    site.compile("_nvdiffrast_c", folder=".", declare="int of_torch(void);", init="of_torch();", value="0")
    output = site.run(EXTENSION)
    assert "<- differs" in output and codes(output)[0] == "torch-other-version"


def test_registers_the_dll_folders_once_and_keeps_them(site: Site) -> None:
    """Only Windows has os.add_dll_directory; a stand-in records its calls."""
    for folder in ("torch/lib", "nvdiffrast.libs", "cuda/bin"):
        (site.folder / folder).mkdir(parents=True)
    site.compile("nvdiffrast_plugin")
    output = site.run(
        "import os, gc\n"
        "class Handle:\n"
        "    def __init__(self, path): self.path = path\n"
        "    def __del__(self): print('gone', flush=True) if os else None\n"
        "asked = []\n"
        "os.add_dll_directory = lambda path: (asked.append(path), Handle(path))[1]\n"
        "load(False); load(False); gc.collect()\n"
        "print(asked, flush=True); os._exit(0)\n",
        CUDA_PATH=str(site.folder / "cuda"),
    )
    wanted = [str(site.folder / folder) for folder in ("nvdiffrast.libs", "torch/lib", "cuda/bin")]
    assert output == f"{wanted}\n"


def test_the_loader_does_not_import_torch(site: Site) -> None:
    site.source_wheel()
    (site.package / "torch" / "__init__.py").write_text("from .. import _loader\n")
    assert site.run("load(False); import sys; print('torch' in sys.modules)").startswith("False\n")


def test_modules_compiled_just_in_time_can_be_imported_by_name(site: Site) -> None:
    """nvdiffrast 0.3.3.1 imports them after load(), and torch 2.9 stopped adding them to sys.modules."""
    output = site.run(
        "import importlib, types\n"
        "compiler = types.SimpleNamespace()\n"
        "compiler._import_module_from_library = lambda name, path, is_module: types.ModuleType(name)\n"
        "for _ in range(2): nvdiffrast.torch._loader.keep_compiled_importable(compiler)\n"
        "made = compiler._import_module_from_library('nvdiffrast_plugin_x', 'build', True)\n"
        "print(importlib.import_module('nvdiffrast_plugin_x') is made)\n"
        "compiler._import_module_from_library('other', 'build', True)\n"
        "print('other' in sys.modules)"
    )
    assert output.startswith("True\nFalse\n")


def test_a_successful_import_does_not_import_the_diagnosis(site: Site) -> None:
    site.compile("nvdiffrast_plugin")
    output = site.run(
        "load(False); import sys; print(sorted(name for name in sys.modules if name.startswith('nvdiffrast._')))"
    )
    assert output == "['nvdiffrast._loader', 'nvdiffrast._paths']\n"


def test_imports_without_site_packages(site: Site) -> None:
    site.compile("nvdiffrast_plugin")
    code = f"import sys; sys.path.insert(0, {str(site.folder)!r})\nimport nvdiffrast.torch as t\n"
    code += "print(t._loader.load_precompiled(False).answer())"
    done = subprocess.run([sys.executable, "-S", "-c", code], check=False, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("42\n", "")


def test_every_code_has_a_heading_and_every_heading_a_code() -> None:
    found, headings = problem_codes(), code_headings()
    assert len(found) >= 30
    assert found - headings == set(), "codes without a heading"
    texts = [file.read_text() for file in OVERLAY.rglob("*.py")]
    named = {code for text in texts for code in re.findall(r'"([a-z-]+)"', text)}
    assert headings - named == set(), "headings without a code"


def test_the_message_refers_to_the_heading_of_its_first_code(site: Site) -> None:
    site.compile("nvdiffrast_plugin").write_bytes(b"")
    output = site.run("load(False)")
    assert codes(output)[0] == "library-damaged"
    assert "\nmore: heading library-damaged in docs/troubleshooting.md of nvdiffrast-wheels\n" in output
