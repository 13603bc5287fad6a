"""Virtual environments from hash-locked requirements, made once per content and reused."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import uv

from scripts import console
from scripts.errors import ToolchainError
from scripts.model import ROOT, Cell
from scripts.support import download_sizes
from scripts.support.files import cache_root, exclusive, file_sha256
from scripts.support.process import call

_MARKER = "complete.json"
_DESCRIBE = "import sys, sysconfig; print(sys.implementation.name, sys.version, sysconfig.get_platform())"


def create(python: Path, requirement_files: Sequence[Path], *, name: str = "env", cache: Path | None = None) -> Path:
    """A virtual environment of ``python`` that holds exactly what ``requirement_files`` pin, and nothing else.

    It lies in the cache under ``name`` and a hash of the interpreter's version and the files' contents; one that is
    there and complete is returned as it is. Only wheels are installed: no code runs before its hash was compared.

    Raises:
        ToolchainError: a requirement file is not there.
        CommandError: uv failed: a hash differs, no wheel for this Python, the index cannot be reached.
    """
    environment, wanted = _place(python, requirement_files, name, cache)
    with exclusive(environment.parent / f".{environment.name}.lock"):
        if not _is_complete(environment):
            shutil.rmtree(environment, ignore_errors=True)
            with console.step(f"environment {environment.name}"):
                _fill(environment, python, requirement_files)
            # Scripts hold the environment's own path, so it cannot be moved into place: the marker comes last instead.
            (environment / _MARKER).write_text(json.dumps(wanted, indent=2) + "\n", encoding="utf-8")
    return environment


def is_made(python: Path, requirement_files: Sequence[Path], *, name: str = "env", cache: Path | None = None) -> bool:
    """Whether :func:`create` with the same arguments would find the environment complete.

    Raises:
        ToolchainError: a requirement file is missing.
    """
    return _is_complete(_place(python, requirement_files, name, cache)[0])


def _place(
    python: Path, requirement_files: Sequence[Path], name: str, cache: Path | None
) -> tuple[Path, dict[str, object]]:
    """Return the environment's folder and what decides its content."""
    for file in requirement_files:
        if not file.exists():
            raise ToolchainError(f"{file} is not there", hint=f"run `nox -s lock -- {file.stem}`")
    described = call([python, "-c", _DESCRIBE], echo=False, quiet=True).strip()
    wanted: dict[str, object] = {"python": described, "requirements": [file_sha256(file) for file in requirement_files]}
    key = hashlib.sha256(json.dumps(wanted).encode()).hexdigest()[:16]
    return (cache or cache_root()) / "environments" / f"{name}-{key}", wanted


def interpreter(environment: Path) -> Path:
    """The environment's Python."""
    return environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def torch_cuda(environment: Path) -> str:
    """The CUDA that the environment's torch is built for ("13.0"), or "" for a CPU build; torch is not imported.

    Raises:
        ToolchainError: there is no torch in it.
    """
    found = [*environment.glob("lib/python3*/site-packages/torch/version.py")]
    found += environment.glob("Lib/site-packages/torch/version.py")
    if not found:
        raise ToolchainError(f"{environment} holds no torch", hint="give it a torch lock")
    match = re.search(r"^cuda\b.*= '([\d.]+)'", found[0].read_text(encoding="utf-8"), re.MULTILINE)
    return match[1] if match else ""


def torch_lock(cell: Cell) -> Path:
    """The requirement file that pins the cell's torch and what a build needs beside it.

    Raises:
        ToolchainError: this torch is not locked.
    """
    path = ROOT / torch_lock_name(cell)
    if not path.exists():
        raise ToolchainError(
            f"torch {cell.torch.version} for {cell.toolkit.tag} on {cell.platform.name} is unlocked",
            hint=f"run `nox -s lock -- {path.stem}`",
        )
    return path


def torch_lock_name(cell: Cell) -> str:
    """Where the cell's torch lock belongs, relative to the repository."""
    # On the package index only the torch for Linux is of CUDA: Windows has a lock of its own.
    windows = "-win_amd64" if cell.platform.is_windows else ""
    return f"requirements/torch/{cell.torch.version}-{cell.toolkit.tag}{windows}.txt"


def _is_complete(environment: Path) -> bool:
    """Whether it was finished, and the Python that it points to is still there."""
    return (environment / _MARKER).is_file() and interpreter(environment).exists()


def _fill(environment: Path, python: Path, requirement_files: Sequence[Path]) -> None:
    """Make the environment with uv and show what it downloads.

    Index settings are uv's own; the hashes hold whatever they are.
    """
    binary = uv.find_uv_bin()
    call([binary, "venv", "--quiet", "--no-project", "--python", python, environment], quiet=True)
    download_sizes.announce(environment.name, interpreter(environment), requirement_files)
    command: list[str | os.PathLike[str]] = [binary, "pip", "install", "--no-deps", "--require-hashes"]
    command += ["--only-binary", ":all:", "--python", interpreter(environment)]
    for file in requirement_files:
        command += ["--requirements", file]
    call(command, show=download_sizes.is_progress, terminal=True)
