"""A store on disk, as scripts.index.catalog lays it out: what may change in it, and how.

Wheels are added and never changed; a generation is written whole and then switched to by replacing one symbolic link,
so that a reader sees the old index or the new one. A process that dies on the way leaves names that begin with a dot
or end with ".new", which the next one sweeps away.
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
    """What a proof is about: the sha256 of the catalog's text."""
    return hashlib.sha256(catalogs.dump(catalog).encode()).hexdigest()


@dataclass(frozen=True)
class Store:
    """The store in the folder ``root``; it need not exist yet."""

    root: Path

    @property
    def pool(self) -> Path:
        """The wheels' folder."""
        return self.root / "pool"

    @property
    def records(self) -> Path:
        """The evidence's folder."""
        return self.root / "records"

    @property
    def generations(self) -> Path:
        """The indexes' folder."""
        return self.root / "generations"

    @property
    def rehearsal(self) -> bool:
        """Whether it is for rehearsals only, and so may hold what is no release."""
        return (self.root / "rehearsal").is_file()

    def mark_rehearsal(self) -> None:
        """Make a store that has no index yet one for rehearsals, for good.

        Raises:
            PublishError: it has an index, of releases.
        """
        if self.rehearsal:
            return
        if any(self.generation(link) for link in LINKS):
            raise PublishError(
                f"{self.root} is a store of releases; what is no release does not go into it",
                hint="rehearse in a store of its own: --store FOLDER",
            )
        with writing(self.root):
            (self.root / "rehearsal").write_text("For rehearsals only: what is in here is no release.\n")

    @contextmanager
    def exclusive(self, who: str, wait: float = 600) -> Iterator[None]:
        """Be the only one to change the store; another is waited for, ``wait`` seconds at most.

        Raises:
            PublishError: another is still at it; the message says who.
        """
        with writing(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / ".lock").open("a+", encoding="utf-8") as file:
            self._acquire(file, wait)
            # Only a courtesy to whoever waits; on a full disk it may fail.
            with suppress(OSError):
                file.truncate(0)
                file.write(f"{who} (process {os.getpid()}, since {now()})")
                file.flush()
            self._sweep()
            yield

    def _acquire(self, file: IO[str], wait: float) -> None:
        end, told = time.monotonic() + wait, False
        while not _locked(file):
            file.seek(0)
            other = file.read().strip() or "another process"
            if time.monotonic() >= end:
                hint = "wait until that has ended, then run the same command again (--wait SECONDS waits longer)"
                raise PublishError(f"{self.root} is being changed by {other}", hint=hint)
            if not told:
                console.log(f"{self.root} is being changed by {other}; waiting")
                told = True
            time.sleep(0.1)

    def _sweep(self) -> None:
        """Remove what a process that died left half done."""
        for folder in (self.pool, self.generations, self.records, self.root):
            if folder.is_symlink():
                raise CatalogError(f"{folder} is a symbolic link; a store is one folder")
            for path in folder.iterdir() if folder.is_dir() else ():
                if path.name.endswith(".new") or (folder != self.root and path.name.startswith(".")):
                    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    def generation(self, link: Link) -> Path | None:
        """The folder that ``staged`` or ``current`` points at, None while there is no such link.

        Raises:
            CatalogError: it is no link, or points at anything but a generation that is there.
        """
        path = self.root / link
        if not path.is_symlink():
            if path.exists():
                raise CatalogError(f"{path} is not a symbolic link to a generation")
            return None
        target = path.readlink().as_posix()
        folder = self.root / target
        if not _TARGET.fullmatch(target) or folder.is_symlink() or not folder.is_dir():
            hint = f"point it at one of {self.generations} again; the ledger tells which was promoted last"
            raise CatalogError(f"{path} points at {target!r}, which is no generation of this store", hint=hint)
        return folder

    def catalog(self, link: Link) -> Catalog:
        """What ``staged`` or ``current`` holds; nothing while there is no such link.

        Raises:
            CatalogError: the link or its catalog is not what it must be.
        """
        folder = self.generation(link)
        if folder is None:
            return Catalog()
        if not (folder / catalogs.CATALOG).is_file():
            raise CatalogError(f"{folder} has no {catalogs.CATALOG}", hint="stage again, with a store that is whole")
        catalog = catalogs.read(folder)
        for entry in catalog.files:
            wheel_entry.check(entry, str(folder / catalogs.CATALOG))
        return catalog

    def switch(self, link: Link, generation: Path) -> None:
        """Let ``link`` point at ``generation``, from one moment to the next."""
        beside = self.root / f"{link}.new"
        with writing(beside):
            beside.unlink(missing_ok=True)
            beside.symlink_to(f"generations/{generation.name}")
            beside.replace(self.root / link)
            sync(self.root)

    def add(self, wheel: Path, sha256: str, metadata: bytes) -> None:
        """Copy a wheel and its METADATA into the pool; the same bytes already there are left alone.

        Raises:
            CatalogError: what is there already under that hash is something else.
            PublishError: the wheel changed meanwhile, or there is no room for it.
        """
        final = self.pool / sha256
        if final.is_symlink() or final.exists():
            self.check_file(sha256, wheel.name)
            return
        with writing(final), complete_folder(final) as folder:
            copied = _copy(wheel, folder / wheel.name)
            if copied != sha256:
                raise PublishError(f"{wheel} changed while it was staged: its sha256 is now {copied}, was {sha256}")
            beside = folder / f"{wheel.name}.metadata"
            beside.write_bytes(metadata)
            sync(beside)
            sync(folder)

    def added(self, entry: File) -> str:
        """When a wheel came into the pool, in UTC: the same however often its staging was interrupted."""
        moment = datetime.fromtimestamp(self.path(entry).stat().st_mtime, UTC)
        return moment.strftime("%Y-%m-%dT%H:%M:%SZ")

    def check_file(self, sha256: str, name: str) -> None:
        """Refuse a wheel of the pool that is not the bytes its folder is named by.

        Raises:
            CatalogError: it is not there, a link, or other bytes.
        """
        path = self.pool / sha256 / name
        _only_files(path.parent)
        for needed in (path, path.with_name(f"{name}.metadata")):
            if not needed.is_file():
                raise CatalogError(f"{needed} is missing", hint=f"put {name} back: the sha256 of its bytes is {sha256}")
        if file_sha256(path) != sha256:
            raise CatalogError(f"{path} is damaged: its sha256 is not {sha256}", hint="restore it from a copy")

    def check_pool(self, catalog: Catalog) -> None:
        """Refuse a pool that holds anything but regular files, or lacks an entry of the catalog; sizes are looked at.

        Raises:
            CatalogError: the first that is wrong.
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
        """Where the pool has a wheel."""
        return self.pool / entry.sha256 / entry.name


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """What goes wrong with the disk in the block is a :class:`PublishError` that names ``place``."""
    try:
        yield
    except OSError as error:
        hint = "make room (or fix that) and run the same command again; the index is as it was"
        raise PublishError(f"{place}: cannot be written: {error.strerror or error}", hint=hint) from error


def sync(path: Path) -> None:
    """Have a file's bytes, or a folder's names, on the disk before anything refers to them."""
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
    """Copy a file and return the sha256 of what was written."""
    found = hashlib.sha256()
    with source.open("rb") as original, target.open("xb") as copy:
        while chunk := original.read(_CHUNK):
            found.update(chunk)
            copy.write(chunk)
        copy.flush()
        os.fsync(copy.fileno())
    target.chmod(0o644)
    return found.hexdigest()


def _only_files(folder: Path) -> None:
    """Refuse a folder of the pool that is a link, or holds anything but regular files."""
    hint = "remove it; the pool holds regular files alone"
    if folder.is_symlink() or not folder.is_dir():
        raise CatalogError(f"{folder} is not a folder of its own", hint=hint)
    with os.scandir(folder) as found:
        for path in found:
            if not stat.S_ISREG(path.stat(follow_symlinks=False).st_mode):
                raise CatalogError(f"{path.path} is a link or no regular file", hint=hint)
