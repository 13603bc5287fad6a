"""What just-in-time compiling needs on this machine, and what an interrupted compilation left in torch's folder."""

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
# torch waits for this file as long as it exists, also when the process that made it was killed.
_LOCK = "lock"
_STALE_SECONDS = 3600


class Lock(NamedTuple):
    """A lock that an interrupted compilation left; ``inside``: no symbolic link leads out of torch's folder to it."""

    path: Path
    inside: bool


def not_compiled(environ: Mapping[str, str]) -> Line:
    """Report that the installation has no compiled plugin, and what is missing to compile it."""
    missing = [name for name, there in _tools(environ).items() if not there]
    text = "this installation has no compiled plugin: it is a source wheel"
    details = (f"to compile it just in time, {', '.join(missing)} is missing",) if missing else ()
    return Line(COMPILING, "failed" if missing else "warning", text, details, code="not-compiled")


def leftovers(environ: Mapping[str, str]) -> Iterator[Line]:
    """Report stale locks, and a folder that TORCH_EXTENSIONS_DIR names and nobody can write to."""
    for lock in stale_locks(environ):
        text = f"an interrupted compilation left {lock.path}: torch would wait for it without end"
        if lock.inside:
            yield Line(COMPILING, "failed", text, hint="python -m nvdiffrast.doctor --fix", code="stale-lock")
        else:
            details = (f"it lies outside of {extensions_folder(environ)}, so --fix leaves it alone",)
            yield Line(COMPILING, "failed", text, details, _deletion(lock.path), "stale-lock")
    folder = extensions_folder(environ)
    if "TORCH_EXTENSIONS_DIR" in environ and not _writable(folder):
        text = f"TORCH_EXTENSIONS_DIR={folder} cannot be written to"
        yield Line(COMPILING, "warning", text, ("set it to a folder of yours",))


def fix(environ: Mapping[str, str]) -> Iterator[Line]:
    """Remove stale locks inside torch's folder and make the folder that TORCH_EXTENSIONS_DIR names; report each."""
    for lock in stale_locks(environ):
        if lock.inside:
            yield _tried(f"removed {lock.path}", lock.path.unlink)
    folder = extensions_folder(environ)
    if environ.get("TORCH_EXTENSIONS_DIR") and not folder.exists():
        yield _tried(f"made {folder}", lambda: folder.mkdir(parents=True))


def extensions_folder(environ: Mapping[str, str]) -> Path:
    """Return the folder where torch keeps what it compiles."""
    if environ.get("TORCH_EXTENSIONS_DIR"):
        return Path(environ["TORCH_EXTENSIONS_DIR"])
    if os.name == "nt":
        return Path(environ.get("LOCALAPPDATA", str(Path.home())), "torch_extensions", "torch_extensions", "Cache")
    return Path(environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser(), "torch_extensions")


def stale_locks(environ: Mapping[str, str]) -> list[Lock]:
    """Return the locks of nvdiffrast's own compilations that are older than any compilation takes."""
    root = extensions_folder(environ)
    name = f"nvdiffrast_plugin*/{_LOCK}"
    found = [lock for pattern in (name, f"*/{name}") for lock in _globbed(root, pattern)]
    return [Lock(lock, _is_inside(lock, root)) for lock in found if _age(lock) > _STALE_SECONDS]


def _is_inside(lock: Path, root: Path) -> bool:
    """Whether the folder of ``lock`` lies in ``root`` when every symbolic link below ``root`` is followed."""
    try:
        return root.resolve() in lock.parent.resolve().parents
    except (OSError, RuntimeError):
        return False


def _globbed(root: Path, pattern: str) -> Iterable[Path]:
    try:
        return sorted(root.glob(pattern))
    except OSError:
        return ()


def _age(path: Path) -> float:
    """Return the age of the file itself, not of a link's target, in seconds; 0 if it is gone."""
    try:
        return time.time() - path.lstat().st_mtime
    except OSError:
        return 0.0


def _deletion(path: Path) -> str:
    return f'del "{path}"' if os.name == "nt" else f"rm '{path}'"


def _tried(text: str, act: Callable[[], object]) -> Line:
    try:
        act()
    except OSError as error:
        return Line(FIXED, "failed", f"not {text}: {error}")
    return Line(FIXED, "passed", text)


def _writable(folder: Path) -> bool:
    """Whether the folder can be written to, or could be made."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK)


def _tools(environ: Mapping[str, str]) -> dict[str, bool]:
    """Return which of the tools that torch compiles with are here."""
    homes = (Path(environ[name], "bin") for name in ("CUDA_HOME", "CUDA_PATH") if environ.get(name))
    nvcc = any(shutil.which("nvcc", path=str(folder)) for folder in (*homes, Path("/usr/local/cuda/bin")))
    compiler = "cl" if os.name == "nt" else environ.get("CXX") or "c++"
    ninja = shutil.which("ninja") or importlib.util.find_spec("ninja")
    return {
        "nvcc (a CUDA toolkit)": nvcc or bool(shutil.which("nvcc")),
        f"a C++ compiler ({compiler})": bool(shutil.which(compiler)),
        "ninja": bool(ninja),
    }
