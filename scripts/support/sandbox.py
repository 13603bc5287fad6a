"""Virtual environments that run the index page's install commands with the pinned pip and uv.

They ignore the configuration of the machine: pip.conf, PIP_ and UV_ variables, and the caches of earlier runs.
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

# Packages are installed from loopback only.
_TIMEOUT_SECONDS = 600.0
_CLEARED = ("PIP_", "UV_", "PYTHON", "VIRTUAL_ENV", "CONDA")


@dataclass(frozen=True)
class Surroundings:
    """The settings of pip and uv: the URL of the index that replaces PyPI, and the folder of uv's cache."""

    default_index: str
    cache: Path

    def variables(self) -> dict[str, str | None]:
        """Return the environment variables for these settings; None removes a variable."""
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
    """A virtual environment in ``folder``, and the settings of pip and uv."""

    folder: Path
    surroundings: Surroundings

    def run(self, line: str, *, cwd: Path | None = None) -> str:
        """Run one command line of pip or uv in the environment and return its output.

        Raises:
            CommandError: if the command fails. The error contains its last lines.
            UsageError: if the line does not begin with pip or uv.
        """
        tool, *arguments = shlex.split(line) or [""]
        if tool == "pip":
            command = [sys.executable, "-m", "pip", "--python", str(self.interpreter), *arguments]
        elif tool == "uv":
            command = [uv.find_uv_bin(), *arguments]
        else:
            raise UsageError(f"not a command of pip or uv: {line}")
        variables = {**self.surroundings.variables(), "VIRTUAL_ENV": str(self.folder)}
        return call(command, env=variables, cwd=cwd or self.folder, echo=False, quiet=True, timeout=_TIMEOUT_SECONDS)

    @property
    def interpreter(self) -> Path:
        """Return the path of the environment's Python."""
        return environments.interpreter(self.folder)

    @property
    def site_packages(self) -> Path:
        """Return the folder of the installed packages."""
        if os.name == "nt":
            return self.folder / "Lib" / "site-packages"
        return next(self.folder.glob("lib/python3*/site-packages"))

    def installed(self) -> Mapping[str, str]:
        """Return the version of each installed package by its name."""
        return {found.metadata["Name"]: found.version for found in distributions(path=[str(self.site_packages)])}

    def fingerprint(self, package: str) -> tuple[str | None, int, int]:
        """Return the version, inode and time of a package, which change even if the same version is reinstalled."""
        state = (self.site_packages / package / "__init__.py").stat()
        return self.installed().get(package), state.st_ino, state.st_mtime_ns


def create(folder: Path, python: Path, surroundings: Surroundings, *requirements: str) -> Environment:
    """Create a virtual environment of ``python`` with ``requirements`` from the default index; replace an existing one.

    Raises:
        CommandError: if uv fails.
    """
    environment = Environment(folder, surroundings)
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
        environment.run(shlex.join(["uv", "pip", "install", "--quiet", *requirements]))
    return environment
