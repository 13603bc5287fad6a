"""Virtual environments from hash-locked requirements, cached by their content."""

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
    """Return a virtual environment of ``python`` that contains exactly the pins of ``requirement_files``.

    Its folder in the cache is named by ``name`` and a hash of the interpreter's version and the files' contents; a
    complete environment is reused. Only wheels are installed, so that no code runs before its hash was verified.

    Raises:
        ToolchainError: if a requirement file is missing.
        CommandError: if uv fails, for example because a hash differs or a wheel for this Python is missing.
    """
    environment, wanted = _place(python, requirement_files, name, cache)
    with exclusive(environment.parent / f".{environment.name}.lock"):
        if not _is_complete(environment):
            shutil.rmtree(environment, ignore_errors=True)
            with console.step(f"environment {environment.name}"):
                _fill(environment, python, requirement_files)
            # Scripts contain the path of the environment, so it cannot be renamed. The marker is written last instead.
            (environment / _MARKER).write_text(json.dumps(wanted, indent=2) + "\n", encoding="utf-8")
    return environment


def is_made(python: Path, requirement_files: Sequence[Path], *, name: str = "env", cache: Path | None = None) -> bool:
    """Return whether :func:`create` with the same arguments would reuse a complete environment.

    Raises:
        ToolchainError: if a requirement file is missing.
    """
    return _is_complete(_place(python, requirement_files, name, cache)[0])


def _place(
    python: Path, requirement_files: Sequence[Path], name: str, cache: Path | None
) -> tuple[Path, dict[str, object]]:
    """Return the environment's folder, and the values that determine its content."""
    for file in requirement_files:
        if not file.exists():
            raise ToolchainError(f"{file} is missing", hint=f"run `nox -s lock -- {file.stem}`")
    described = call([python, "-c", _DESCRIBE], echo=False, quiet=True).strip()
    wanted: dict[str, object] = {"python": described, "requirements": [file_sha256(file) for file in requirement_files]}
    key = hashlib.sha256(json.dumps(wanted).encode()).hexdigest()[:16]
    return (cache or cache_root()) / "environments" / f"{name}-{key}", wanted


def interpreter(environment: Path) -> Path:
    """Return the path of the environment's Python."""
    return environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def torch_cuda(environment: Path) -> str:
    """Return the CUDA version of the environment's torch ("13.0"), or "" for a CPU build, without importing torch.

    Raises:
        ToolchainError: if the environment contains no torch.
    """
    found = [*environment.glob("lib/python3*/site-packages/torch/version.py")]
    found += environment.glob("Lib/site-packages/torch/version.py")
    if not found:
        raise ToolchainError(f"{environment} contains no torch", hint="create it from a torch lock")
    match = re.search(r"^cuda\b.*= '([\d.]+)'", found[0].read_text(encoding="utf-8"), re.MULTILINE)
    return match[1] if match else ""


def torch_lock(cell: Cell) -> Path:
    """Return the requirement file that pins the cell's torch and the other build requirements.

    Raises:
        ToolchainError: if this torch is not locked.
    """
    path = ROOT / torch_lock_name(cell)
    if not path.exists():
        raise ToolchainError(
            f"torch {cell.torch.version} for {cell.toolkit.tag} on {cell.platform.name} is unlocked",
            hint=f"run `nox -s lock -- {path.stem}`",
        )
    return path


def torch_lock_name(cell: Cell) -> str:
    """Return the path of the cell's torch lock, relative to the repository."""
    # PyPI has CUDA builds of torch for Linux only, so Windows has its own lock.
    windows = "-win_amd64" if cell.platform.is_windows else ""
    return f"requirements/torch/{cell.torch.version}-{cell.toolkit.tag}{windows}.txt"


def _is_complete(environment: Path) -> bool:
    """Return whether the environment is complete and its Python still exists."""
    return (environment / _MARKER).is_file() and interpreter(environment).exists()


def _fill(environment: Path, python: Path, requirement_files: Sequence[Path]) -> None:
    """Create the environment with uv and show what it downloads.

    uv uses its own index settings; the hashes are verified in any case.
    """
    binary = uv.find_uv_bin()
    call([binary, "venv", "--quiet", "--no-project", "--python", python, environment], quiet=True)
    download_sizes.announce(environment.name, interpreter(environment), requirement_files)
    command: list[str | os.PathLike[str]] = [binary, "pip", "install", "--no-deps", "--require-hashes"]
    command += ["--only-binary", ":all:", "--python", interpreter(environment)]
    for file in requirement_files:
        command += ["--requirements", file]
    call(command, show=download_sizes.is_progress, terminal=True)
