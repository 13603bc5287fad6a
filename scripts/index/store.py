"""Change a store on disk; scripts/index/catalog.py describes its folders.

Wheels are added and never changed. A generation is written completely, then one symbolic link is replaced, so that a
reader sees either the old index or the new one. A process that is killed may leave files whose names begin with a dot
or end with ".new"; the next process removes them.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Literal

from scripts import console
from scripts.errors import CatalogError, PublishError
from scripts.index import catalog as catalogs
from scripts.index import wheel_entry
from scripts.index.catalog import Catalog, File
from scripts.index.ledger import now
from scripts.support.files import complete_folder, file_sha256

Link = Literal["staged", "current"]
LINKS: tuple[Link, ...] = ("staged", "current")

_CHUNK = 1 << 20
_TARGET = re.compile(r"generations/[A-Za-z0-9][A-Za-z0-9._-]*")


def digest(catalog: Catalog) -> str:
    """Return the sha256 of the catalog's text; a proof names this hash."""
    return hashlib.sha256(catalogs.dump(catalog).encode()).hexdigest()


@dataclass(frozen=True)
class Store:
    """The store in the folder ``root``, which need not exist yet."""

    root: Path

    @property
    def pool(self) -> Path:
        """The folder of the wheels."""
        return self.root / "pool"

    @property
    def records(self) -> Path:
        """The folder of the records about the wheels."""
        return self.root / "records"

    @property
    def generations(self) -> Path:
        """The folder of the indexes."""
        return self.root / "generations"

    @property
    def rehearsal(self) -> bool:
        """Whether the store is for rehearsals; only such a store may have partial wheels."""
        return (self.root / "rehearsal").is_file()

    def mark_rehearsal(self) -> None:
        """Make this a store for rehearsals; this cannot be undone.

        Raises:
            PublishError: if it has an index that is not for rehearsals.
        """
        if self.rehearsal:
            return
        if any(self.generation(link) for link in LINKS):
            raise PublishError(
                f"{self.root} is not a store for rehearsals, and a store with an index cannot become one",
                hint="use another store for the rehearsal: --store FOLDER",
            )
        with writing(self.root):
            (self.root / "rehearsal").write_text("For rehearsals only: do not publish these wheels.\n")

    @contextmanager
    def exclusive(self, who: str, wait: float = 600) -> Iterator[None]:
        """Lock the store for changes by ``who`` during the block; wait up to ``wait`` seconds for another process.

        Raises:
            PublishError: if another process still has the lock; the message names it.
        """
        with writing(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / ".lock").open("a+", encoding="utf-8") as file:
            self._acquire(file, wait)
            # Only for the message of a waiting process: a full disk must not stop this one.
            with suppress(OSError):
                file.truncate(0)
                file.write(f"{who} (process {os.getpid()}, since {now()})")
                file.flush()
            self._sweep()
            yield

    def _acquire(self, file: IO[str], wait: float) -> None:
        end, reported = time.monotonic() + wait, False
        while not _locked(file):
            file.seek(0)
            other = file.read().strip() or "another process"
            if time.monotonic() >= end:
                hint = "wait until it has ended, then run the same command again (--wait SECONDS waits longer)"
                raise PublishError(f"{self.root} is being changed by {other}", hint=hint)
            if not reported:
                console.log(f"{self.root} is being changed by {other}; waiting")
                reported = True
            time.sleep(0.1)

    def _sweep(self) -> None:
        """Remove the incomplete files of killed processes."""
        for folder in (self.pool, self.generations, self.records, self.root):
            if folder.is_symlink():
                raise CatalogError(f"{folder} is a symbolic link; a store must be one folder")
            for path in folder.iterdir() if folder.is_dir() else ():
                if path.name.endswith(".new") or (folder != self.root and path.name.startswith(".")):
                    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    def generation(self, link: Link) -> Path | None:
        """Return the folder that ``staged`` or ``current`` points at, None if the link does not exist.

        Raises:
            CatalogError: if it is not a symbolic link to an existing generation of this store.
        """
        path = self.root / link
        if not path.is_symlink():
            if path.exists():
                raise CatalogError(f"{path} is not a symbolic link to a generation")
            return None
        target = path.readlink().as_posix()
        folder = self.root / target
        if not _TARGET.fullmatch(target) or folder.is_symlink() or not folder.is_dir():
            hint = f"point it at a folder of {self.generations} again; the ledger names the catalog promoted last"
            raise CatalogError(f"{path} points at {target!r}, which is not a generation of this store", hint=hint)
        return folder

    def catalog(self, link: Link) -> Catalog:
        """Return the catalog of ``staged`` or ``current``; an empty one if the link does not exist.

        Raises:
            CatalogError: if the link or its catalog is invalid.
        """
        folder = self.generation(link)
        if folder is None:
            return Catalog()
        if not (folder / catalogs.CATALOG).is_file():
            raise CatalogError(
                f"{folder} has no {catalogs.CATALOG}", hint="restore the store from a copy, then stage again"
            )
        catalog = catalogs.read(folder)
        for entry in catalog.files:
            wheel_entry.check(entry, str(folder / catalogs.CATALOG))
        return catalog

    def switch(self, link: Link, generation: Path) -> None:
        """Let ``link`` point at ``generation``, atomically."""
        new_link = self.root / f"{link}.new"
        with writing(new_link):
            new_link.unlink(missing_ok=True)
            new_link.symlink_to(f"generations/{generation.name}")
            new_link.replace(self.root / link)
            sync(self.root)

    def add(self, wheel: Path, sha256: str, metadata: bytes) -> None:
        """Copy a wheel and its METADATA into the pool, unless it has them already.

        Raises:
            CatalogError: if the pool has a folder for this hash with other contents.
            PublishError: if the wheel changed while it was copied, or if the disk is full.
        """
        final = self.pool / sha256
        if final.is_symlink() or final.exists():
            self.check_file(sha256, wheel.name)
            return
        with writing(final), complete_folder(final) as folder:
            copied = _copy(wheel, folder / wheel.name)
            if copied != sha256:
                raise PublishError(f"{wheel} changed while it was staged: its sha256 is now {copied}, was {sha256}")
            metadata_path = folder / f"{wheel.name}.metadata"
            metadata_path.write_bytes(metadata)
            sync(metadata_path)
            sync(folder)

    def added(self, entry: File) -> str:
        """Return the UTC time at which a wheel was added to the pool; staging it again does not change this time."""
        moment = datetime.fromtimestamp(self.path(entry).stat().st_mtime, UTC)
        return moment.strftime("%Y-%m-%dT%H:%M:%SZ")

    def check_file(self, sha256: str, name: str) -> None:
        """Check that the pool has a wheel and its METADATA, and that the wheel's bytes have the hash ``sha256``.

        Raises:
            CatalogError: if a file is missing or a link, or if the hash differs.
        """
        path = self.pool / sha256 / name
        _only_files(path.parent)
        for needed in (path, path.with_name(f"{name}.metadata")):
            if not needed.is_file():
                raise CatalogError(f"{needed} is missing", hint=f"restore {name} with sha256 {sha256} from a copy")
        if file_sha256(path) != sha256:
            raise CatalogError(f"{path} is damaged: its sha256 is not {sha256}", hint="restore it from a copy")

    def check_pool(self, catalog: Catalog) -> None:
        """Check that the pool has only regular files, and every wheel of the catalog with its size.

        Raises:
            CatalogError: if it does not; the message names the first problem.
        """
        if not self.pool.exists():
            return
        for folder in sorted(self.pool.iterdir()):
            _only_files(folder)
        for entry in catalog.files:
            path = self.path(entry)
            if not path.is_file() or path.stat().st_size != entry.size:
                raise CatalogError(f"{path} is missing or not of {entry.size} bytes", hint="restore it from a copy")

    def path(self, entry: File) -> Path:
        """Return the path of a wheel in the pool."""
        return self.pool / entry.sha256 / entry.name


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """Turn an OSError in the block into a :class:`PublishError` that names ``place``."""
    try:
        yield
    except OSError as error:
        hint = "free disk space or remove the cause, then run the same command again; the index is unchanged"
        raise PublishError(f"{place}: cannot be written: {error.strerror or error}", hint=hint) from error


def sync(path: Path) -> None:
    """Flush a file's bytes or a folder's names to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _locked(file: IO[str]) -> bool:
    if sys.platform == "win32":
        raise PublishError("a store needs file locks and symbolic links", hint="publish on Linux or macOS")
    import fcntl  # noqa: PLC0415 - not on every system

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _copy(source: Path, target: Path) -> str:
    """Copy a file and return the sha256 of the copied bytes."""
    sha256 = hashlib.sha256()
    with source.open("rb") as original, target.open("xb") as copy:
        while chunk := original.read(_CHUNK):
            sha256.update(chunk)
            copy.write(chunk)
        copy.flush()
        os.fsync(copy.fileno())
    target.chmod(0o644)
    return sha256.hexdigest()


def _only_files(folder: Path) -> None:
    """Raise CatalogError if a folder of the pool is a link, or has anything but regular files."""
    hint = "remove it; the pool must have only regular files"
    if folder.is_symlink() or not folder.is_dir():
        raise CatalogError(f"{folder} is not a folder, or is a link", hint=hint)
    with os.scandir(folder) as members:
        for path in members:
            if not stat.S_ISREG(path.stat(follow_symlinks=False).st_mode):
                raise CatalogError(f"{path.path} is not a regular file", hint=hint)
