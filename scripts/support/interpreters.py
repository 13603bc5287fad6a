"""Find a CPython installation that can build extension modules."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import uv
from packaging.version import InvalidVersion, Version

from scripts.errors import CommandError
from scripts.support.process import call, which

# Prints a list as JSON in one line.
_PROBE = (
    "import json, platform, sys, sysconfig\n"
    "print(json.dumps([platform.python_implementation(), '%d.%d' % sys.version_info[:2],"
    " bool(sysconfig.get_config_var('Py_GIL_DISABLED')), sysconfig.get_path('include')]))"
)


@cache
def find(python: str) -> Path | None:
    """Return a CPython of the version line ``python`` ("3.12") that runs here and has Python.h, or None.

    The search covers the places that uv knows (PATH, its own installations, the Windows registry) and pyenv. Nothing is
    downloaded.
    """
    return next((found for found in _candidates(python) if _usable(found, python)), None)


def _candidates(python: str) -> Iterator[Path]:
    if sys.version_info[:2] == tuple(int(part) for part in python.split(".")):
        # The base interpreter of a virtual environment: builds must not see the packages of the environment.
        yield Path(getattr(sys, "_base_executable", sys.executable))
    yield from _pyenv(python)
    on_path = which(f"python{python}")
    if on_path:
        yield on_path
    command = [
        uv.find_uv_bin(),
        "python",
        "find",
        "--system",
        "--no-project",
        "--no-python-downloads",
        "--quiet",
        python,
    ]
    try:
        found = call(command, echo=False, quiet=True).strip()
    except CommandError:
        return
    yield Path(found)


def _pyenv(python: str) -> Iterator[Path]:
    """Yield pyenv's interpreters of that line, newest first; pyenv's shims find only selected versions."""
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    folders = [(version, folder) for folder in root.glob(f"versions/{python}.*") if (version := _version(folder.name))]
    for _, folder in sorted(folders, reverse=True):
        executable = folder / ("python.exe" if os.name == "nt" else "bin/python")
        if executable.exists():
            yield executable


def _version(name: str) -> Version | None:
    try:
        return Version(name)
    except InvalidVersion:
        return None


def _usable(executable: Path, python: str) -> bool:
    try:
        output = call([executable, "-I", "-c", _PROBE], echo=False, quiet=True)
        # Startup files may print before the answer, and warnings on standard error may arrive after it.
        answer = [line for line in output.splitlines() if line.startswith("[")][-1]
        implementation, line, free_threaded, include = json.loads(answer)
    except (CommandError, IndexError, ValueError):
        return False
    return (
        implementation == "CPython" and line == python and not free_threaded and (Path(include) / "Python.h").is_file()
    )
