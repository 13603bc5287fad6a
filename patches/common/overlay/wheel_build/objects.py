"""Compiled objects that do not depend on Python: where they are kept, and how the kernels are made.

An object is kept under a key of everything that went into it: sources, flags, compilers. Any number of builds may share
the folder, also at the same time.
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

# A host compiler takes up to this much on a file that includes torch.
_BYTES_PER_JOB = 1_600_000_000
# Part of every key; raise it when the same sources, flags and compilers come to give other bytes.
_RECIPE = 2


def jobs() -> int:
    """How many compilers at once: MAX_JOBS, or as many as there are cores, within memory."""
    if "MAX_JOBS" in os.environ:
        return max(1, int(os.environ["MAX_JOBS"]))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return cores
    return max(1, min(cores, memory // _BYTES_PER_JOB))


def run(command: Sequence[str], cwd: Path) -> None:
    """Run a compiler or linker; on failure print the whole command and end the build."""
    result = subprocess.run(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if result.returncode:
        sys.stderr.write(f"\nfailed: {shlex.join(command)}\n{result.stdout}")
        raise SystemExit(result.returncode)


def first_line(command: Sequence[str], containing: str = "") -> str:
    """The first line that ``command`` prints (with ``containing`` in it): how compilers state their version."""
    text = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True).stdout
    return next(line.strip() for line in text.splitlines() if containing in line)


def digest(tree: Path, folders: Sequence[str], extra: object) -> str:
    """A key over every file in ``folders`` (by name and content) and ``extra`` (anything JSON can hold)."""
    state = hashlib.sha256(json.dumps([_RECIPE, extra], sort_keys=True).encode())
    for folder in folders:
        for path in sorted((tree / folder).rglob("*")):
            if path.is_file() and path.suffix not in {".py", ".pyc"}:
                content = hashlib.sha256(path.read_bytes()).hexdigest()
                state.update(f"{path.relative_to(tree).as_posix()} {content}\n".encode())
    return state.hexdigest()


@dataclass(frozen=True)
class ObjectStore:
    """A folder of objects by key; ``root`` None keeps nothing."""

    root: Path | None

    def get(self, key: str, name: str, destination: Path) -> bool:
        """Copy a kept object to ``destination``; False if there is none."""
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
        """Keep ``made``; another build may do the same at the same time."""
        if self.root is None:
            return
        folder = self.root / key[:2] / key
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as beside:
            beside.write(made.read_bytes())
        Path(beside.name).replace(folder / name)


@dataclass(frozen=True)
class Nvcc:
    """The CUDA compiler with everything that decides what it makes."""

    path: str
    version: str
    host: str
    host_version: str
    flags: tuple[str, ...]

    def command(self, source: str, made: Path) -> list[str]:
        """The command. nvcc names its intermediate files after its process unless they lie beside the object."""
        return [self.path, "-ccbin", self.host, *self.flags, "--objdir-as-tempdir", "-c", source, "-o", str(made)]

    def identity(self) -> list[object]:
        """What a key must hold of it."""
        return [self.version, self.host_version, list(self.flags)]


class Progress:
    """Print one line for each finished file: its number, and how long this build took to compile it."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.done = 0
        self.start = time.monotonic()
        self._lock = threading.Lock()

    def compiled(self, name: str, since: float) -> None:
        """Count ``name``, which this build compiled from ``since`` (of time.monotonic) until now."""
        now = time.monotonic()
        self._line(f"{name}: compiled in {now - since:.0f} s, {now - self.start:.0f} s since the build began")

    def kept(self, name: str) -> None:
        """Count ``name``, which an earlier build compiled; its time is no part of this build."""
        self._line(f"{name}: kept from an earlier build")

    def _line(self, text: str) -> None:
        # Kernels are finished by several threads; print alone would mix their lines.
        with self._lock:
            self.done += 1
            print(f"[{self.done}/{self.total}] {text}", flush=True)


@contextmanager
def fixed_folder(key: str) -> Iterator[Path]:
    """An empty folder that has the same path on every machine, for whoever compiles ``key``; others wait.

    nvcc builds the absolute path of a source into the names of its internal symbols, and no option changes that. The
    folder lies where anyone may write, so one that somebody else made is refused.
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
            raise SystemExit(f"error: {path} is not this user's own folder: remove it and build again")
        # Whoever held it before us has removed it; the next one in its place is another.
        if path.exists() and path.stat().st_ino == found.st_ino:
            break
        os.close(handle)
    try:
        for left in path.iterdir():  # By a build that was interrupted.
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        yield path
    finally:
        shutil.rmtree(path)
        os.close(handle)


def compile_kernel(
    tree: Path, source: str, folders: Sequence[str], nvcc: Nvcc, store: ObjectStore, build: Path, progress: Progress
) -> Path:
    """Compile one .cu file, or take it from the store; it knows neither torch nor Python."""
    made = build / "kernels" / (Path(source).name + ".o")
    key = digest(tree, folders, ["kernel", source, *nvcc.identity()])
    if store.get(key, made.name, made):
        progress.kept(source)
        return made
    made.parent.mkdir(parents=True, exist_ok=True)
    with fixed_folder(key) as fixed:
        # Another build that compiles the same holds the folder; waiting for it is not compiling.
        since = time.monotonic()
        for folder in folders:
            shutil.copytree(tree / folder, fixed / folder)
        run(nvcc.command(source, fixed / made.name), cwd=fixed)
        shutil.copyfile(fixed / made.name, made)
    store.put(key, made.name, made)
    progress.compiled(source, since)
    return made
