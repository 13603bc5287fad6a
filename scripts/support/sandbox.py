"""Clean environments in which the commands of the page run as they stand, with this repository's own pip and uv.

Nothing of this machine's configuration reaches them: no pip.conf, no PIP_ or UV_ variable, no cache of an earlier run.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Literal

import uv

from scripts.errors import UsageError
from scripts.support import environments
from scripts.support.process import call

Tool = Literal["pip", "uv"]
TOOLS: tuple[Tool, ...] = ("pip", "uv")

# Seconds; a proof installs from loopback alone.
_PATIENCE = 600.0
_CLEARED = ("PIP_", "UV_", "PYTHON", "VIRTUAL_ENV", "CONDA")


@dataclass(frozen=True)
class Surroundings:
    """What the tools find beside the environment: the index that stands for the usual one, and uv's cache."""

    default_index: str
    cache: Path

    def variables(self) -> dict[str, str | None]:
        """The environment variables that make it so; None is a variable to take away."""
        cleared = {name: None for name in os.environ if name.startswith(_CLEARED)}
        return {
            **cleared,
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_INDEX_URL": self.default_index,
            "PIP_NO_CACHE_DIR": "1",
            "PIP_NO_INPUT": "1",
            "PIP_RETRIES": "0",
            "UV_CACHE_DIR": str(self.cache),
            "UV_DEFAULT_INDEX": self.default_index,
            "UV_NO_CONFIG": "1",
            "UV_NO_PROGRESS": "1",
            "UV_PYTHON_DOWNLOADS": "never",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }


@dataclass(frozen=True)
class Environment:
    """A virtual environment in ``folder``, and what surrounds it."""

    folder: Path
    surroundings: Surroundings

    def run(self, line: str, *, cwd: Path | None = None) -> str:
        """Run one line of the page ("pip install ..." or "uv ...") in the environment and return what it printed.

        Raises:
            CommandError: it failed; the error carries the last lines.
            UsageError: the line begins with neither pip nor uv.
        """
        tool, *arguments = shlex.split(line) or [""]
        if tool == "pip":
            command = [sys.executable, "-m", "pip", "--python", str(self.interpreter), *arguments]
        elif tool == "uv":
            command = [uv.find_uv_bin(), *arguments]
        else:
            raise UsageError(f"not a command of pip or uv: {line}")
        variables = {**self.surroundings.variables(), "VIRTUAL_ENV": str(self.folder)}
        return call(command, env=variables, cwd=cwd or self.folder, echo=False, quiet=True, timeout=_PATIENCE)

    @property
    def interpreter(self) -> Path:
        """Its Python."""
        return environments.interpreter(self.folder)

    @property
    def site_packages(self) -> Path:
        """Where what is installed lies."""
        if os.name == "nt":
            return self.folder / "Lib" / "site-packages"
        return next(self.folder.glob("lib/python3*/site-packages"))

    def installed(self) -> Mapping[str, str]:
        """The versions of what is installed, by name."""
        return {found.metadata["Name"]: found.version for found in distributions(path=[str(self.site_packages)])}

    def fingerprint(self, package: str) -> tuple[str | None, int, int]:
        """What changes when the package is installed again, be it the same version: its version, file and time."""
        state = (self.site_packages / package / "__init__.py").stat()
        return self.installed().get(package), state.st_ino, state.st_mtime_ns


def create(folder: Path, python: Path, surroundings: Surroundings, *requirements: str) -> Environment:
    """A new virtual environment of ``python`` with ``requirements`` from the default index, in place of an old one.

    Raises:
        CommandError: uv failed.
    """
    made = Environment(folder, surroundings)
    command: list[str | Path] = [
        uv.find_uv_bin(),
        "venv",
        "--quiet",
        "--clear",
        "--no-project",
        "--python",
        python,
        folder,
    ]
    call(command, env=surroundings.variables(), echo=False, quiet=True)
    if requirements:
        made.run(shlex.join(["uv", "pip", "install", "--quiet", *requirements]))
    return made
