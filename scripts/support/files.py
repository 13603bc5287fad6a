"""The cache folder and its locks; hashes of files; files and folders that are written completely or not at all.

`python -m scripts.support.files` prints the cache folder.
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
# The lock file in the cache folder. Every stage that uses the cache holds a shared lock on it.
IN_USE = ".in-use"
# Windows has no shared locks: each process locks one byte, and `clean` locks all of them.
_BYTES = 1 << 20


def cache_root() -> Path:
    """Return the cache folder: NVDIFFRAST_WHEELS_CACHE, else the system's default; it may not exist yet."""
    named = os.environ.get("NVDIFFRAST_WHEELS_CACHE")
    if named:
        return Path(named).expanduser().absolute()
    if os.name == "nt":
        base = os.environ.get("LOCALAPPDATA")
        return Path(base or Path.home() / "AppData" / "Local") / "nvdiffrast-wheels" / "cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nvdiffrast-wheels"


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def write_atomic(path: Path, content: bytes | str) -> Path:
    """Write a file completely or not at all, replace an existing one, and return ``path``; text is written as UTF-8."""
    with replace_atomic(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@contextmanager
def replace_atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``, which is created if needed.

    The file written there is renamed to ``path`` when the block ends, and deleted if the block raises.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The name is always the same, so that the next run overwrites a file that a killed run left.
    temporary = path.with_name(f".{path.name}.new")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def complete_folder(final: Path) -> Iterator[Path]:
    """Yield an empty folder that is renamed to ``final`` when the block ends, and deleted if the block raises.

    If another process creates ``final`` first, its folder is kept: names depend on the inputs, so both are equal.
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
    """Hold an exclusive lock on the file ``path`` during the block; wait for other processes that hold it."""
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
    """Hold a shared lock on the cache during the block; wait while `nox -s clean` deletes parts of it."""
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
    """Hold an exclusive lock on the existing cache folder ``root`` during the block.

    Raises:
        BlockingIOError: if another process uses the cache.
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
