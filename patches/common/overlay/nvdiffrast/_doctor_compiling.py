"""Examines just-in-time compilation: the tools that it needs, and the locks that interrupted compilations left."""

from __future__ import annotations

import importlib.util
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from ._doctor_lines import Line

COMPILING, FIXED = "just-in-time compiling", "fixed"
# torch waits while this file exists, even if the process that created it was killed.
_LOCK = "lock"
_STALE_SECONDS = 3600


class Lock(NamedTuple):
    """A lock file that an interrupted compilation left; ``inside``: it is in torch's folder after resolving links."""

    path: Path
    inside: bool


def not_compiled(environ: Mapping[str, str]) -> Line:
    """Report that the installation has no compiled plugin, and the missing tools for compiling it."""
    missing = [name for name, is_found in _tools(environ).items() if not is_found]
    text = "this installation has no compiled plugin: it is a source wheel"
    details = (f"Missing for compiling it just in time: {', '.join(missing)}.",) if missing else ()
    return Line(COMPILING, "failed" if missing else "warning", text, details, code="not-compiled")


def leftovers(environ: Mapping[str, str]) -> Iterator[Line]:
    """Report stale locks, and a folder in TORCH_EXTENSIONS_DIR that this user may not write to."""
    for lock in stale_locks(environ):
        text = f"an interrupted compilation left the lock {lock.path}, and torch would wait forever"
        if lock.inside:
            yield Line(COMPILING, "failed", text, hint="python -m nvdiffrast.doctor --fix", code="stale-lock")
        else:
            details = (f"The lock is outside of {extensions_folder(environ)}, so --fix does not remove it.",)
            yield Line(COMPILING, "failed", text, details, _deletion(lock.path), "stale-lock")
    folder = extensions_folder(environ)
    if "TORCH_EXTENSIONS_DIR" in environ and not _is_writable(folder):
        text = f"TORCH_EXTENSIONS_DIR={folder} cannot be written to"
        yield Line(COMPILING, "warning", text, ("Set it to a folder that you may write to.",))


def fix(environ: Mapping[str, str]) -> Iterator[Line]:
    """Remove stale locks in torch's folder and create the folder in TORCH_EXTENSIONS_DIR; report each action."""
    for lock in stale_locks(environ):
        if lock.inside:
            yield _attempt(f"remove {lock.path}", lock.path.unlink)
    folder = extensions_folder(environ)
    if environ.get("TORCH_EXTENSIONS_DIR") and not folder.exists():
        yield _attempt(f"create {folder}", lambda: folder.mkdir(parents=True))


def extensions_folder(environ: Mapping[str, str]) -> Path:
    """Return the folder in which torch stores compiled modules."""
    if environ.get("TORCH_EXTENSIONS_DIR"):
        return Path(environ["TORCH_EXTENSIONS_DIR"])
    if os.name == "nt":
        return Path(environ.get("LOCALAPPDATA", str(Path.home())), "torch_extensions", "torch_extensions", "Cache")
    return Path(environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser(), "torch_extensions")


def stale_locks(environ: Mapping[str, str]) -> list[Lock]:
    """Return the locks of nvdiffrast's compilations that are older than the longest compilation."""
    root = extensions_folder(environ)
    name = f"nvdiffrast_plugin*/{_LOCK}"
    found = [lock for pattern in (name, f"*/{name}") for lock in _glob(root, pattern)]
    return [Lock(lock, _is_inside(lock, root)) for lock in found if _age(lock) > _STALE_SECONDS]


def _is_inside(lock: Path, root: Path) -> bool:
    """Return whether the folder of ``lock`` is in ``root`` after resolving symbolic links."""
    try:
        return root.resolve() in lock.parent.resolve().parents
    except (OSError, RuntimeError):
        return False


def _glob(root: Path, pattern: str) -> Iterable[Path]:
    try:
        return sorted(root.glob(pattern))
    except OSError:
        return ()


def _age(path: Path) -> float:
    """Return the age in seconds of a file, or of a link itself; 0 if it does not exist."""
    try:
        return time.time() - path.lstat().st_mtime
    except OSError:
        return 0.0


def _deletion(path: Path) -> str:
    return f'del "{path}"' if os.name == "nt" else f"rm '{path}'"


def _attempt(task: str, act: Callable[[], object]) -> Line:
    """Run ``act`` and report whether it succeeded; ``task`` describes it: "remove X"."""
    try:
        act()
    except OSError as error:
        return Line(FIXED, "failed", f"{task}: {error}")
    return Line(FIXED, "passed", task)


def _is_writable(folder: Path) -> bool:
    """Return whether this user may write to the folder, or may create it."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK)


def _tools(environ: Mapping[str, str]) -> dict[str, bool]:
    """Return the tools that torch compiles with, and whether each is installed."""
    homes = (Path(environ[name], "bin") for name in ("CUDA_HOME", "CUDA_PATH") if environ.get(name))
    nvcc = any(shutil.which("nvcc", path=str(folder)) for folder in (*homes, Path("/usr/local/cuda/bin")))
    compiler = "cl" if os.name == "nt" else environ.get("CXX") or "c++"
    ninja = shutil.which("ninja") or importlib.util.find_spec("ninja")
    return {
        "nvcc (a CUDA toolkit)": nvcc or bool(shutil.which("nvcc")),
        f"a C++ compiler ({compiler})": bool(shutil.which(compiler)),
        "ninja": bool(ninja),
    }
