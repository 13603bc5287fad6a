"""The loader against real extension modules, compiled here in a moment and broken in the ways that wheels break."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.model import ROOT
from tests.loader_site import (
    INFO,
    OVERLAY,
    REINSTALL,
    SUFFIX,
    TORCH_CHANNEL,
    Site,
    codes,
    needs_gcc,
    next_command,
)

pytestmark = needs_gcc


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_a_compiled_plugin_is_imported_by_its_name_in_the_package(site: Site) -> None:
    site.compile("nvdiffrast_plugin")
    site.compile("nvdiffrast_plugin_gl", value="43")
    told = site.run("for gl in (False, True): m = load(gl); print(m.__name__, m.answer(), m is load(gl))")
    assert told.splitlines() == [
        "nvdiffrast.torch.nvdiffrast_plugin 42 True",
        "nvdiffrast.torch.nvdiffrast_plugin_gl 43 True",
    ]


def test_a_source_wheel_compiles_just_in_time_and_says_so_once_each(site: Site) -> None:
    site.source_wheel()
    told = site.run("print([load(gl) for gl in (False, False, True, True)])")
    assert "[None, None, None, None]" in told
    assert told.count("nvdiffrast_plugin is not compiled in this installation") == 1
    assert told.count("nvdiffrast_plugin_gl is not compiled in this installation") == 1


def test_one_plugin_of_two_is_not_taken_for_the_other(site: Site) -> None:
    site.info({**INFO, "plugins": ["nvdiffrast_plugin_gl"]})
    site.compile("nvdiffrast_plugin_gl")
    told = site.run("print(load(False), load(True).answer())")
    assert "None 42" in told


def test_just_in_time_can_be_forced(site: Site) -> None:
    site.compile("nvdiffrast_plugin")
    assert site.run("print(load(False))", NVDIFFRAST_FORCE_JIT="1") == "None\n"


def test_a_missing_library_is_named(site: Site) -> None:
    made = site.compile(
        "nvdiffrast_plugin", *site.library("libc10_cuda.so"), declare="int from_library(void);", value="from_library()"
    )
    (site.folder / "gone.so").unlink()
    told = site.run("load(False)")
    assert f"{made} is there but cannot be imported: libc10_cuda.so: cannot open shared object file" in told
    assert "libc10_cuda.so belongs to torch" in told
    assert next_command(told) == f'pip install --force-reinstall {TORCH_CHANNEL} "torch==2.11.*"'


@pytest.mark.parametrize("name", ["libGL.so.1", "libEGL.so.1"])
def test_graphics_libraries_belong_to_the_driver(site: Site, name: str) -> None:
    # A system may have the real library: ours has a name that only begins alike.
    library = f"{name}.of-no-system"
    flags = site.library(library)
    site.compile("nvdiffrast_plugin_gl", *flags, declare="int from_library(void);", value="from_library()")
    told = site.run("load(True)")
    assert f"{library} belongs to the graphics driver and is in no wheel" in told


def test_an_undefined_symbol_with_another_torch_asks_for_the_torch_it_was_built_for(site: Site) -> None:
    site.torch("2.12.1+cu130", "13.0")
    made = site.compile("nvdiffrast_plugin", declare="int of_torch(void);", value="of_torch()", init="of_torch();")
    told = site.run("load(False)")
    assert f"{made} is there but cannot be imported" in told
    assert "undefined symbol: of_torch" in told
    assert "torch          2.11.0     2.12.1+cu130  <- differs" in told
    assert next_command(told) == f'pip install --force-reinstall {TORCH_CHANNEL} "torch==2.11.*"'


def test_the_same_torch_line_for_another_cuda(site: Site) -> None:
    site.torch("2.11.3+cu126", "12.6")
    site.compile("nvdiffrast_plugin", declare="int of_torch(void);", value="of_torch()", init="of_torch();")
    told = site.run("load(False)")
    assert "CUDA of torch  13.0       12.6          <- differs" in told
    assert next_command(told) == f'pip install --force-reinstall {TORCH_CHANNEL} "torch==2.11.*"'


def test_an_undefined_symbol_with_everything_as_built(site: Site) -> None:
    site.compile("nvdiffrast_plugin", declare="int of_torch(void);", value="of_torch()", init="of_torch();")
    told = site.run("load(False)")
    assert "differs" not in told
    assert "[symbol-missing] no library has of_torch: a library is of another version" in told


def test_a_module_for_another_python_is_broken_not_absent(site: Site) -> None:
    site.compile("nvdiffrast_plugin", suffix=".cpython-27-x86_64-linux-gnu.so")
    site.info({**INFO, "python": "cp27"})
    told = site.run("load(False)")
    assert "ImportError: nvdiffrast:" in told and "compiled for another Python" in told
    assert codes(told)[0] == "wrong-python"
    assert next_command(told) == f"{sys.executable} -m {REINSTALL}"


def test_a_module_whose_initialisation_raises_something_else(site: Site) -> None:
    raises = 'PyErr_SetString(PyExc_RuntimeError, "the driver is too old"); return 0;'
    site.compile("nvdiffrast_plugin", init=raises)
    told = site.run("load(False)")
    assert "ImportError: nvdiffrast:" in told and "the driver is too old" in told


def test_a_file_that_is_no_module(site: Site) -> None:
    (site.package / "torch" / f"nvdiffrast_plugin{SUFFIX}").write_bytes(b"not an ELF file")
    told = site.run("load(False)")
    assert "ImportError: nvdiffrast:" in told and "next: pip install --force-reinstall" in told


def test_without_build_info_a_good_module_loads_and_a_broken_one_says_so(site: Site) -> None:
    (site.package / "build_info.json").unlink()
    made = site.compile("nvdiffrast_plugin")
    assert site.run("print(load(False).answer())") == "42\n"
    made.write_bytes(b"")
    told = site.run("load(False)")
    assert "what it was built for is unknown" in told and "build_info.json cannot be read" in told


def test_a_torch_that_cannot_be_imported_is_part_of_the_finding(site: Site) -> None:
    site.compile("nvdiffrast_plugin").write_bytes(b"")
    (site.folder / "torch" / "__init__.py").write_text("raise OSError('libcudart is missing')\n")
    told = site.run("")
    assert codes(told) == ["torch-broken"]
    assert "torch is installed and its own import fails: libcudart is missing" in told
    assert "cannot be imported (libcudart is missing)  <- differs" in told


def test_the_error_repeats_and_carries_the_file(site: Site) -> None:
    made = site.compile("nvdiffrast_plugin")
    made.write_bytes(b"")
    told = site.run(
        "for again in range(2):\n"
        "    try: load(False)\n"
        "    except ImportError as error: print(error.path, error.name, type(error.__cause__).__name__)\n"
    )
    assert told.splitlines() == [f"{made} nvdiffrast.torch.nvdiffrast_plugin ImportError"] * 2


def test_threads_that_ask_at_once_get_the_same_whole_module(site: Site) -> None:
    # The initialisation waits without the interpreter's lock, so that the others run into it.
    slow = "Py_BEGIN_ALLOW_THREADS usleep(100000); Py_END_ALLOW_THREADS"
    site.compile("nvdiffrast_plugin", declare="#include <unistd.h>", init=slow)
    told = site.run(
        "from concurrent.futures import ThreadPoolExecutor\n"
        "import threading\n"
        "start = threading.Barrier(8)\n"
        "def one(_):\n"
        "    start.wait()\n"
        "    module = load(False)\n"
        "    return id(module), module.answer()\n"
        "with ThreadPoolExecutor(8) as pool: print(len(set(pool.map(one, range(8)))))\n"
    )
    assert told == "1\n"


def test_threads_that_find_nothing_warn_once(site: Site) -> None:
    site.source_wheel()
    told = site.run(
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(8) as pool: list(pool.map(lambda _: load(False), range(64)))\n"
    )
    assert told.count("is not compiled") == 1


EXTENSION = "print(nvdiffrast.torch._loader.load_extension('_nvdiffrast_c').answer())"


def test_an_extension_beside_the_package(site: Site) -> None:
    site.compile("_nvdiffrast_c", folder=".")
    assert site.run(EXTENSION) == "42\n"


def test_an_extension_elsewhere_on_the_path(site: Site) -> None:
    (site.folder / "elsewhere").mkdir()
    site.compile("_nvdiffrast_c", folder="elsewhere")
    assert site.run(f"import sys; sys.path.append({str(site.folder / 'elsewhere')!r})\n{EXTENSION}") == "42\n"


def test_an_absent_extension_is_an_error_since_nothing_can_stand_in(site: Site) -> None:
    told = site.run(EXTENSION)
    assert "ImportError: nvdiffrast: this installation holds no compiled _nvdiffrast_c" in told


def test_a_broken_extension_is_explained(site: Site) -> None:
    site.torch("2.9.1", "12.8")
    site.compile("_nvdiffrast_c", folder=".", declare="int of_torch(void);", init="of_torch();", value="0")
    told = site.run(EXTENSION)
    assert "<- differs" in told and codes(told)[0] == "torch-other-version"


def test_dll_folders_are_registered_once_and_kept(site: Site) -> None:
    """Only Windows has os.add_dll_directory; a stand-in shows what is asked of it, and when."""
    for folder in ("torch/lib", "nvdiffrast.libs", "cuda/bin"):
        (site.folder / folder).mkdir(parents=True)
    site.compile("nvdiffrast_plugin")
    told = site.run(
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
    assert told == f"{wanted}\n"


def test_the_loader_itself_imports_no_torch(site: Site) -> None:
    site.source_wheel()
    (site.package / "torch" / "__init__.py").write_text("from .. import _loader\n")
    assert site.run("load(False); import sys; print('torch' in sys.modules)").startswith("False\n")


def test_what_is_compiled_just_in_time_can_be_imported_by_name(site: Site) -> None:
    """As 0.3.3.1 does after load(), which since torch 2.9 leaves nothing in sys.modules; others are let alone."""
    told = site.run(
        "import importlib, types\n"
        "compiler = types.SimpleNamespace()\n"
        "compiler._import_module_from_library = lambda name, path, is_module: types.ModuleType(name)\n"
        "for _ in range(2): nvdiffrast.torch._loader.keep_compiled_importable(compiler)\n"
        "made = compiler._import_module_from_library('nvdiffrast_plugin_x', 'build', True)\n"
        "print(importlib.import_module('nvdiffrast_plugin_x') is made)\n"
        "compiler._import_module_from_library('other', 'build', True)\n"
        "print('other' in sys.modules)"
    )
    assert told.startswith("True\nFalse\n")


def test_a_module_that_loads_needs_nothing_of_the_diagnosis(site: Site) -> None:
    """What explains failures is large, and read only then."""
    site.compile("nvdiffrast_plugin")
    told = site.run(
        "load(False); import sys; print(sorted(name for name in sys.modules if name.startswith('nvdiffrast._')))"
    )
    assert told == "['nvdiffrast._loader']\n"


def test_imports_without_site_packages(site: Site) -> None:
    site.compile("nvdiffrast_plugin")
    code = f"import sys; sys.path.insert(0, {str(site.folder)!r})\nimport nvdiffrast.torch as t\n"
    code += "print(t._loader.load_precompiled(False).answer())"
    done = subprocess.run([sys.executable, "-S", "-c", code], check=False, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("42\n", "")


def test_every_code_has_a_heading() -> None:
    texts = {file.name: file.read_text() for file in OVERLAY.rglob("*.py")}
    made = re.compile(r'(?:Problem|with_hint|Refusal)\(\s*"([a-z-]+)"')
    found = {code for text in texts.values() for code in made.findall(text)}
    headings = set(re.findall(r"^#### `([a-z-]+)`$", (ROOT / "docs" / "troubleshooting.md").read_text(), re.MULTILINE))
    assert len(found) >= 30
    assert found - headings == set(), "codes without a heading"
    named = {code for text in texts.values() for code in re.findall(r'"([a-z-]+)"', text)}
    assert headings - named == set(), "headings of codes that do not exist"
