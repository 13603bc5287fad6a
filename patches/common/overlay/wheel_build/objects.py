"""Compiles kernels and stores compiled objects that do not depend on Python.

The key of a stored object is a hash of everything that affects it: sources, flags and compilers. Several builds can use
the same folder at the same time.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

if sys.platform != "win32":
    import fcntl

# The maximum memory of a host compiler for a file that includes torch.
_BYTES_PER_JOB = 1_600_000_000
# Part of every key. Increase it when the same sources, flags and compilers give different bytes.
_RECIPE = 2


def jobs() -> int:
    """Return the number of parallel compilers: MAX_JOBS, or the number of cores if the memory is sufficient."""
    if "MAX_JOBS" in os.environ:
        return max(1, int(os.environ["MAX_JOBS"]))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return cores
    return max(1, min(cores, memory // _BYTES_PER_JOB))


def run(command: Sequence[str], cwd: Path) -> None:
    """Run a compiler or linker; if it fails, print the command and its output and end the build."""
    result = subprocess.run(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if result.returncode:
        sys.stderr.write(f"\nfailed: {shlex.join(command)}\n{result.stdout}")
        raise SystemExit(result.returncode)


def first_line(command: Sequence[str], containing: str = "") -> str:
    """Return the first printed line of ``command`` that contains ``containing``, such as the version of a compiler."""
    text = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True).stdout
    return next(line.strip() for line in text.splitlines() if containing in line)


def digest(tree: Path, folders: Sequence[str], extra: object) -> str:
    """Return a key for the names and contents of all files in ``folders`` and for ``extra``, a JSON value."""
    state = hashlib.sha256(json.dumps([_RECIPE, extra], sort_keys=True).encode())
    for folder in folders:
        for path in sorted((tree / folder).rglob("*")):
            if path.is_file() and path.suffix not in {".py", ".pyc"}:
                content = hashlib.sha256(path.read_bytes()).hexdigest()
                state.update(f"{path.relative_to(tree).as_posix()} {content}\n".encode())
    return state.hexdigest()


@dataclass(frozen=True)
class ObjectStore:
    """A folder with objects by key; if ``root`` is None, no object is stored."""

    root: Path | None

    def get(self, key: str, name: str, destination: Path) -> bool:
        """Copy a stored object to ``destination``; return False if the object is not stored."""
        if self.root is None:
            return False
        try:
            content = (self.root / key[:2] / key / name).read_bytes()
        except FileNotFoundError:
            return False
        destination.parent.mkdir(parents=True, exist_ok=True)
        destination.write_bytes(content)
        return True

    def put(self, key: str, name: str, made: Path) -> None:
        """Store the file ``made``; another build can do the same at the same time."""
        if self.root is None:
            return
        folder = self.root / key[:2] / key
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as beside:
            beside.write(made.read_bytes())
        Path(beside.name).replace(folder / name)


@dataclass(frozen=True)
class Nvcc:
    """The CUDA compiler with everything that affects its output."""

    path: str
    version: str
    host: str
    host_version: str
    flags: tuple[str, ...]

    def command(self, source: str, made: Path) -> list[str]:
        """Return the command; without --objdir-as-tempdir, nvcc uses its process id in names of intermediate files."""
        return [self.path, "-ccbin", self.host, *self.flags, "--objdir-as-tempdir", "-c", source, "-o", str(made)]

    def identity(self) -> list[object]:
        """Return the values that a key must contain."""
        return [self.version, self.host_version, list(self.flags)]


class Progress:
    """Prints one line for each finished file: its number, and the time that this build took to compile it."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.done = 0
        self.start = time.monotonic()
        self._lock = threading.Lock()

    def compiled(self, name: str, since: float) -> None:
        """Print that this build compiled ``name``, from ``since`` (in seconds of time.monotonic) until now."""
        now = time.monotonic()
        self._line(f"{name}: compiled in {now - since:.0f} s, {now - self.start:.0f} s since the build began")

    def kept(self, name: str) -> None:
        """Print that an earlier build compiled ``name``."""
        self._line(f"{name}: kept from an earlier build")

    def _line(self, text: str) -> None:
        # Several threads print; without the lock their lines could mix.
        with self._lock:
            self.done += 1
            print(f"[{self.done}/{self.total}] {text}", flush=True)


@contextmanager
def fixed_folder(key: str) -> Iterator[Path]:
    """Yield an empty folder with the same path on every machine; other builds of ``key`` wait until it is free.

    nvcc uses the absolute path of a source in the names of internal symbols, and has no option to change that. Every
    user can write to the parent folder, so a folder to which others have access is refused.
    """
    path = Path(f"/tmp/nvdiffrast-{key[:16]}")  # noqa: S108
    while True:
        with suppress(FileExistsError):
            path.mkdir(mode=0o700)
        try:
            handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except FileNotFoundError:
            continue
        fcntl.flock(handle, fcntl.LOCK_EX)
        found = os.fstat(handle)
        if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
            raise SystemExit(f"error: {path} is not private to this user: remove it and build again")
        # A previous build may have removed the folder, and another build may have created a new one.
        if path.exists() and path.stat().st_ino == found.st_ino:
            break
        os.close(handle)
    try:
        for left in path.iterdir():  # The files of an interrupted build.
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        yield path
    finally:
        shutil.rmtree(path)
        os.close(handle)


def compile_kernel(
    tree: Path, source: str, folders: Sequence[str], nvcc: Nvcc, store: ObjectStore, build: Path, progress: Progress
) -> Path:
    """Compile one .cu file, which uses neither torch nor Python, or copy its object from the store."""
    made = build / "kernels" / (Path(source).name + ".o")
    key = digest(tree, folders, ["kernel", source, *nvcc.identity()])
    if store.get(key, made.name, made):
        progress.kept(source)
        return made
    made.parent.mkdir(parents=True, exist_ok=True)
    with fixed_folder(key) as fixed:
        # Start the time here, so that it does not include waiting for another build of the same file.
        since = time.monotonic()
        for folder in folders:
            shutil.copytree(tree / folder, fixed / folder)
        run(nvcc.command(source, fixed / made.name), cwd=fixed)
        shutil.copyfile(fixed / made.name, made)
    store.put(key, made.name, made)
    progress.compiled(source, since)
    return made
