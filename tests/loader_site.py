"""A site-packages folder for tests of the loader, with real extension modules."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from scripts.model import ROOT

OVERLAY = ROOT / "patches" / "common" / "overlay" / "nvdiffrast"
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")
THIS = f"cp{sys.version_info[0]}{sys.version_info[1]}"
PLUGINS = ["nvdiffrast_plugin", "nvdiffrast_plugin_gl"]
INFO = {
    "python": THIS,
    "torch": "2.11.0",
    "cuda": "13.0",
    "cell": "a cell",
    "release": "0.3.3.1",
    "plugins": PLUGINS,
}
REINSTALL = "pip install --force-reinstall --no-deps nvdiffrast==0.3.3.1+cu130.torch2.11"
TORCH_CHANNEL = "--index-url https://download.pytorch.org/whl/cu130"
# A module with one function, which may call into a library.
MODULE = """
#include <Python.h>
{declare}
static PyObject* answer(PyObject* self, PyObject* unused) {{ return PyLong_FromLong({value}); }}
static PyMethodDef methods[] = {{{{"answer", answer, METH_NOARGS, ""}}, {{0}}}};
static struct PyModuleDef definition = {{PyModuleDef_HEAD_INIT, "{name}", 0, -1, methods}};
PyMODINIT_FUNC PyInit_{name}(void) {{ {init} return PyModule_Create(&definition); }}
"""
TORCH = '__version__ = "{version}"\nclass version: cuda = {cuda!r}\n'

needs_gcc = pytest.mark.skipif(
    shutil.which("gcc") is None or os.name != "posix", reason="needs gcc to compile modules: apt-get install gcc"
)


class Site:
    """A site-packages folder with an installed nvdiffrast."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.package = folder / "nvdiffrast"
        (self.package / "torch").mkdir(parents=True)
        for name in [path.name for path in OVERLAY.glob("_*.py") if "_doctor" not in path.name]:
            shutil.copy(OVERLAY / name, self.package)
        (self.package / "__init__.py").touch()
        # Upstream's patched file also imports numpy and torch through the loader.
        (self.package / "torch" / "__init__.py").write_text("from .. import _loader\n_loader.import_requirements()\n")
        (folder / "numpy.py").touch()
        self.info(INFO)
        self.torch("2.11.0+cu130", "13.0")

    def info(self, info: Mapping[str, object]) -> None:
        (self.package / "build_info.json").write_text(json.dumps(info))

    def torch(self, version: str, cuda: str | None) -> None:
        (self.folder / "torch").mkdir(exist_ok=True)
        (self.folder / "torch" / "__init__.py").write_text(TORCH.format(version=version, cuda=cuda))

    def source_wheel(self) -> None:
        """Change the installation to a source wheel, which has no compiled module and no build_info.json."""
        (self.package / "build_info.json").unlink()

    def record(self, version: str = "0.3.3.1+cu130.torch2.11") -> Path:
        """Write a .dist-info folder with a RECORD that lists every existing file, and return the folder."""
        info = self.folder / f"nvdiffrast-{version}.dist-info"
        info.mkdir()
        rows = [
            f"{file.relative_to(self.folder).as_posix()},sha256={_digest(file)},{file.stat().st_size}"
            for folder in ("nvdiffrast", "nvdiffrast.libs")
            for file in sorted((self.folder / folder).rglob("*"))
            if file.is_file()
        ]
        (info / "RECORD").write_text("\n".join([*rows, f"{info.name}/RECORD,,"]) + "\n")
        return info

    def compile(
        self, name: str, *flags: str, folder: str = "nvdiffrast/torch", suffix: str = SUFFIX, **parts: str
    ) -> Path:
        """Compile an extension module from MODULE with ``parts``, and return its file."""
        source = self.folder / f"{name}.c"
        source.write_text(MODULE.format(**{"name": name, "declare": "", "value": "42", "init": "", **parts}))
        made = self.folder / folder / (name + suffix)
        include = sysconfig.get_path("include")
        subprocess.run(["gcc", "-shared", "-fPIC", "-I", include, source, "-o", made, *flags], check=True)
        return made

    def library(self, name: str) -> list[str]:
        """Compile a shared library whose file does not have its name; return the flags that link against it."""
        source = self.folder / "library.c"
        source.write_text("int from_library(void) { return 1; }\n")
        made = self.folder / "gone.so"
        subprocess.run(["gcc", "-shared", "-fPIC", source, f"-Wl,-soname,{name}", "-o", made], check=True)
        return [str(made)]

    def run(self, code: str, *options: str, prefix: Sequence[str] = (), **env: str) -> str:
        """Run ``code`` in a new interpreter after importing nvdiffrast.torch; return its output and errors.

        options: options of the interpreter; prefix: a command that runs the interpreter; env: environment variables.
        """
        wrapped = f"import nvdiffrast.torch\nload = nvdiffrast.torch._loader.load_precompiled\n{code}"
        start = f"import sys; sys.path.insert(0, {str(self.folder)!r})\n{wrapped}"
        done = subprocess.run(
            [*prefix, sys.executable, "-I", *options, "-c", start],
            check=False,
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.stdout + done.stderr


def _digest(file: Path) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(file.read_bytes()).digest()).rstrip(b"=").decode()


def unprivileged() -> list[str]:
    """Return a command prefix that makes file modes apply to root; skip the test if the prefix is not available."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("root reads files of any mode: run the tests as another user, or apt-get install util-linux")
    return ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]


def codes(message: str) -> list[str]:
    """Return the codes in a message, in order."""
    return re.findall(r"^(?:also )?\[([a-z-]+)\] ", message, re.MULTILINE)


def next_command(message: str) -> str:
    """Return the command of the only ``next:`` line of a message."""
    (command,) = re.findall(r"^next: (.*)$", message, re.MULTILINE)
    return str(command)


def problem_codes() -> set[str]:
    """Return the codes of all problems that the overlay creates."""
    pattern = re.compile(r'(?:Problem|with_hint|Refusal|_problem)\(\s*"([a-z-]+)"')
    return {code for file in OVERLAY.rglob("*.py") for code in pattern.findall(file.read_text())}


def code_headings() -> set[str]:
    """Return the codes that have a heading in docs/troubleshooting.md."""
    document = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    return set(re.findall(r"^#+ `([a-z-]+)`$", document, re.MULTILINE))
