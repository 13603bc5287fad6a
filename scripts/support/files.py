"""Where what is fetched and made is kept between runs, by content; folders appear complete or not at all.

python -m scripts.support.files prints the folder.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CHUNK = 1 << 20
# The name of the lock in the cache's folder, which every stage shares that uses the cache.
IN_USE = ".in-use"
# On Windows, which knows no shared locks, each process locks one byte of this many.
_BYTES = 1 << 20


def cache_root() -> Path:
    """The cache's folder: NVDIFFRAST_WHEELS_CACHE, else the system's place for caches; it need not exist yet."""
    named = os.environ.get("NVDIFFRAST_WHEELS_CACHE")
    if named:
        return Path(named).expanduser().absolute()
    if os.name == "nt":
        base = os.environ.get("LOCALAPPDATA")
        return Path(base or Path.home() / "AppData" / "Local") / "nvdiffrast-wheels" / "cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nvdiffrast-wheels"


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def complete_folder(final: Path) -> Iterator[Path]:
    """An empty folder beside ``final`` to fill; it takes that name when the block ends, and vanishes if it raises.

    Whoever loses a race to the name drops what it made: names say what went in, so both made the same.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=final.parent))
    beside.chmod(0o755)
    try:
        yield beside
        try:
            beside.rename(final)
        except OSError:
            if not final.is_dir():
                raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock file ``path`` during the block; another process that wants it waits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        if sys.platform == "win32":
            import msvcrt  # noqa: PLC0415

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
        else:
            import fcntl  # noqa: PLC0415

            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def in_use(root: Path | None = None) -> Iterator[None]:
    """Hold a shared lock on the cache during the block; wait while `nox -s clean` removes parts of it."""
    path = (root or cache_root()) / IN_USE
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        if sys.platform == "win32":
            import msvcrt  # noqa: PLC0415

            file.seek(os.getpid() % _BYTES)
            msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
        else:
            import fcntl  # noqa: PLC0415

            fcntl.flock(file, fcntl.LOCK_SH)
        yield


@contextmanager
def sole_use(root: Path) -> Iterator[None]:
    """Hold the cache at ``root``, which is there, alone during the block.

    Raises:
        BlockingIOError: another process uses it.
    """
    with (root / IN_USE).open("a+b") as file:
        if sys.platform == "win32":
            import msvcrt  # noqa: PLC0415

            file.seek(0)
            try:
                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, _BYTES)
            except OSError as error:
                raise BlockingIOError(str(error)) from error
        else:
            import fcntl  # noqa: PLC0415

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


if __name__ == "__main__":
    print(cache_root())
