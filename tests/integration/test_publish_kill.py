"""Interrupt publishing with SIGKILL or a full disk: the index stays complete, and a second run finishes the work.

NVDIFFRAST_KILL_POINTS sets the number of random points (12). NVDIFFRAST_KILL_SEED sets the seed, to repeat a run.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from scripts.errors import PublishError
from scripts.index import evidence, ledger, site_files, store, writer
from scripts.index.catalog import Catalog
from scripts.index.store import LINKS, Store, digest
from scripts.matrix import matrix
from scripts.publish import generations as publishing
from scripts.publish import promotion, staging
from scripts.support import files as cache_module
from scripts.support.files import file_sha256
from scripts.wheel import audit_record
from tests.publishing import BY, proved, wheel

pytestmark = pytest.mark.integration

POINTS = int(os.environ.get("NVDIFFRAST_KILL_POINTS", "12"))
SEED = int(os.environ.get("NVDIFFRAST_KILL_SEED") or random.SystemRandom().randrange(10**6))
_WATCHED = {
    str(module.__file__)
    for module in (
        cache_module,
        evidence,
        writer,
        ledger,
        publishing,
        promotion,
        staging,
        audit_record,
        site_files,
        store,
    )
}
_CHANGES = {f"os.{name}" for name in ("rename", "remove", "rmdir", "mkdir", "symlink", "link", "truncate", "chmod")}


@dataclass(frozen=True)
class Scene:
    """A store with one promoted wheel, two wheels to publish, and ``old``, the catalog before they are published."""

    store: Path
    more: tuple[Path, ...]
    old: Catalog

    def copy(self, to: Path) -> Scene:
        """Return a copy of the scene."""
        shutil.copytree(self.store, to, symlinks=True)
        return Scene(to, self.more, self.old)

    def publish(self) -> None:
        """Stage the wheels, record them as proven, and promote them."""
        staging.stage(self.store, self.more, by=BY)
        staged = digest(Store(self.store).catalog("staged"))
        if Store(self.store).catalog("current") == self.old and not ledger.has(self.store, "proved", catalog=staged):
            proved(self.store)
        promotion.promote(self.store, waive_gpu="no GPU here", by=BY)

    def events(self) -> list[tuple[str, Any]]:
        """Return the ledger's events, without times and hashes."""
        return [(event.what, event.details.get("wheel")) for event in ledger.read(self.store)]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    folder = tmp_path_factory.mktemp("publishing")
    matrix.load()
    staging.stage(folder / "store", [wheel(folder / "dist")], by=BY)
    proved(folder / "store")
    promotion.promote(folder / "store", waive_gpu="no GPU here", by=BY)
    more = tuple(wheel(folder / "dist", line) for line in ("2.9", "2.12"))
    return Scene(folder / "store", more, Store(folder / "store").catalog("current"))


def _run(scene: Scene, kind: str = "", point: int = 0) -> tuple[int, dict[str, int]]:
    """Publish in a child process that is killed at the given event; return its status and its event counts."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        # Temporary files of a killed process are removed with the test's folder.
        tempfile.tempdir = str(scene.store.parent)
        _publish_counting(scene, kind, point, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        counted = pipe.read()
    _, status = os.waitpid(child, 0)
    return status, json.loads(counted or "{}")


@dataclass
class _Counter:
    """Counts executed lines, changes of the store, and renames in it; kills the process before the chosen event."""

    store: str
    kind: str
    point: int
    counts: dict[str, int] = field(default_factory=lambda: {"line": 0, "operation": 0, "rename": 0})

    def count(self, what: str) -> None:
        self.counts[what] += 1
        if (what, self.counts[what]) == (self.kind, self.point):
            os.kill(os.getpid(), signal.SIGKILL)

    def trace(self, frame: FrameType, event: str, argument: object) -> Any:
        if frame.f_code.co_filename not in _WATCHED:
            return None
        if event == "line":
            self.count("line")
        return self.trace

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        changes = event in _CHANGES or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR))
        # Wheels are unpacked in folders outside the store.
        if changes and str(arguments[0]).startswith(self.store):
            self.count("operation")
            if event == "os.rename":
                self.count("rename")


def _publish_counting(scene: Scene, kind: str, point: int, writing: int) -> None:
    counter = _Counter(str(scene.store), kind, point)
    try:
        sys.addaudithook(counter.audit)
        sys.settrace(counter.trace)
        scene.publish()
        sys.settrace(None)
        os.write(writing, json.dumps(counter.counts).encode())
        os._exit(0)
    finally:
        os._exit(1)


def _check(scene: Scene) -> None:
    """Check that readers have a complete index, and that the pool has only complete wheels."""
    place = Store(scene.store)
    current = place.catalog("current")
    assert current == scene.old or len(current.entries) == 1 + len(scene.more)
    for link in LINKS:
        generation = place.generation(link)
        assert generation
        assert writer.check(generation) == []
        assert site_files.compare(place.catalog(link), generation).none
    ledger.read(scene.store)
    for wheels in _visible(place.pool):
        assert sorted(path.suffix for path in wheels.iterdir()) == [".metadata", ".whl"]
        assert file_sha256(next(wheels.glob("*.whl"))) == wheels.name


def _visible(folder: Path) -> Iterator[Path]:
    return (path for path in folder.iterdir() if not path.name.startswith("."))


def _files(scene: Scene) -> dict[Path, tuple[int, int]]:
    """Return the inode and time of every complete file, which must never be written again."""
    roots = [path for name in ("pool", "generations") for path in _visible(scene.store / name)]
    files = [path for root in roots for path in root.rglob("*") if path.is_file() and not path.is_symlink()]
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


def _points(counts: dict[str, int]) -> list[tuple[str, int]]:
    """Choose a third of the points among renames, a third among all changes, the others among all lines."""
    chosen = random.Random(SEED)
    number = {"rename": min(POINTS // 3, counts["rename"]), "operation": POINTS // 3}
    number["line"] = POINTS - sum(number.values())
    return [(kind, point) for kind in number for point in chosen.sample(range(1, counts[kind] + 1), number[kind])]


def test_publishing_survives_a_kill_at_random_points(scene: Scene, tmp_path: Path) -> None:
    whole = scene.copy(tmp_path / "whole")
    status, counts = _run(whole)
    assert status == 0
    expected, generations = sorted(map(str, whole.events())), len(list((whole.store / "generations").iterdir()))
    print(f"NVDIFFRAST_KILL_SEED={SEED} NVDIFFRAST_KILL_POINTS={POINTS}: {counts}")
    progress = set()
    for kind, point in _points(counts):
        print(f"killed at {kind} {point} of {counts[kind]}")
        one = scene.copy(tmp_path / f"{kind}-{point}")
        status, _ = _run(one, kind, point)
        assert os.WIFSIGNALED(status), f"not killed: {status}"
        _check(one)
        progress.add(len(one.events()))
        before = _files(one)
        status, _ = _run(one)
        assert status == 0, "the second run failed"
        _check(one)
        after = _files(one)
        assert {path: after[path] for path in before} == before, "a complete file was written again"
        assert sorted(map(str, one.events())) == expected
        assert len(list((one.store / "generations").iterdir())) == generations
        assert Store(one.store).catalog("current") == Store(one.store).catalog("staged")
        left = [path for path in one.store.rglob("*") if path.name.endswith(".new") or path.name.startswith(".")]
        assert [path.name for path in left] == [".lock"]
    # The points must be spread over the whole run.
    assert POINTS < 12 or len(progress) > 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount an empty file system of 2 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    try:
        subprocess.run(mounting, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"cannot mount a small tmpfs ({error}); run as root: nox -s tests -- -k full_disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_publishing_survives_a_full_disk(scene: Scene, small_disk: Path) -> None:
    outcomes = set()
    for number, free in enumerate((0, 8, 16, 24, 32, 48, 64, 80, 100, 130, 170, 240, 400, 800)):
        one = scene.copy(small_disk / f"store{number}")
        with _only(small_disk, free * 1024):
            try:
                one.publish()
                outcomes.add("published")
            except PublishError as error:
                assert "No space left on device" in str(error)
                assert error.hint
                outcomes.add(str(error).partition(":")[0].removeprefix(str(one.store)).split("/")[1])
            _check(one)
        one.publish()
        _check(one)
        assert len(Store(one.store).catalog("current").entries) == 1 + len(scene.more)
        shutil.rmtree(one.store)
    print(f"the disk was full at: {outcomes}")
    assert {"pool", "generations", "published"} <= outcomes


class _only:  # noqa: N801 - used like a function
    """Leave only this number of bytes free on a file system during the block."""

    def __init__(self, folder: Path, free: int) -> None:
        self.filler, self.free = folder / "filler", free

    def __enter__(self) -> None:
        found = os.statvfs(self.filler.parent)
        size = max(0, found.f_bavail * found.f_frsize - self.free)
        self.filler.write_bytes(b"\0" * size)

    def __exit__(self, *raised: object) -> None:
        self.filler.unlink()
