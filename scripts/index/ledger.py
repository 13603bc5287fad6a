"""What was done to a store, in order: `ledger.jsonl`, one JSON object a line, only ever appended to.

An entry says what, by whom (a name given), when (UTC), and from which commit of this repository; the rest depends on
what: a `staged` entry names wheel and sha256, a `proved` one the sha256 of the catalog. A process that dies while
writing leaves a torn last line: it is passed over in reading, and cut off by whoever appends next.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scripts.errors import CatalogError, CommandError, PublishError, UsageError
from scripts.model import ROOT
from scripts.support.process import call

LEDGER = "ledger.jsonl"
SCHEMA = 1
_LONGEST_NAME = 100


@dataclass(frozen=True)
class Event:
    """One line of a ledger; ``commit`` is None where the repository is not a checkout."""

    what: str
    by: str
    time: str
    commit: str | None
    details: Mapping[str, Any]

    def says(self, what: str, **details: Any) -> bool:
        """Whether it tells of ``what`` with these details, among others."""
        return self.what == what and all(self.details.get(key) == value for key, value in details.items())


def append(store: Path, what: str, *, by: str | None = None, **details: Any) -> Event:
    """Write down that ``what`` was done to the store, now, by the person named (default: :func:`person`).

    The line is on the disk, whole, when this returns, or the ledger is as it was.

    Raises:
        CatalogError: what is there is no ledger.
        PublishError: it cannot be written.
        UsageError: nobody is named.
    """
    event = Event(what, person(by), now(), commit(), details)
    line = {"schema": SCHEMA, "what": what, "by": event.by, "time": event.time, "commit": event.commit, **details}
    content = (json.dumps(line, sort_keys=True) + "\n").encode()
    path = store / LEDGER
    try:
        with _exclusive(path) as descriptor:
            size = _whole_lines(path, descriptor)
            try:
                _write(descriptor, content)
            except OSError:
                os.ftruncate(descriptor, size)
                raise
    except OSError as error:
        hint = "fix that and run the same command again"
        raise PublishError(f"{path}: cannot be written: {error.strerror}", hint=hint) from error
    return event


def read(store: Path) -> list[Event]:
    """Every entry, oldest first; a store without a ledger has none.

    Raises:
        CatalogError: a line that is not the torn last one is no entry.
    """
    path = store / LEDGER
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise CatalogError(f"{path}: cannot be read: {error.strerror}") from error
    *lines, last = content.split(b"\n")
    events = [_event(line, path, number) for number, line in enumerate(lines, start=1)]
    return [*events, _event(last, path, len(lines) + 1)] if _is_whole(last) else events


def has(store: Path, what: str, **details: Any) -> bool:
    """Whether the ledger tells of ``what`` with these details."""
    return any(event.says(what, **details) for event in read(store))


def person(by: str | None = None) -> str:
    """The name to write down: the one given, else git's user.name.

    Raises:
        UsageError: there is none, or it is not one line of at most 100 characters.
    """
    hint = "say who publishes: --by NAME"
    name = _git("config", "user.name") if by is None else by.strip()
    if not name:
        raise UsageError("nobody is named, and git knows no user.name", hint=hint)
    if len(name) > _LONGEST_NAME or not name.isprintable():
        raise UsageError(f"not a person's name: {name[:_LONGEST_NAME]!r}", hint=hint)
    return name


def commit() -> str | None:
    """The commit of this repository, with "-dirty" when tracked files differ from it."""
    head = _git("rev-parse", "HEAD")
    return f"{head}-dirty" if head and _git("status", "--porcelain", "--untracked-files=no") else head


def now() -> str:
    """UTC in ISO 8601, in whole seconds: "2026-11-21T10:00:00Z"."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _git(*arguments: str) -> str | None:
    try:
        return call(["git", *arguments], cwd=ROOT, echo=False, quiet=True).strip() or None
    except CommandError:
        return None


@contextmanager
def _exclusive(path: Path) -> Iterator[int]:
    """The ledger, open for appending, and nobody else's meanwhile."""
    if sys.platform == "win32":
        raise PublishError("a store needs file locks and symbolic links", hint="publish on Linux or macOS")
    import fcntl  # noqa: PLC0415 - not on every system

    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _whole_lines(path: Path, descriptor: int) -> int:
    """Cut a torn last line off, or end one that lacks only its newline; the size in bytes after that."""
    read(path.parent)
    content = path.read_bytes()
    last = content.rpartition(b"\n")[2]
    if _is_whole(last):
        _write(descriptor, b"\n")
        return len(content) + 1
    os.ftruncate(descriptor, len(content) - len(last))
    return len(content) - len(last)


def _write(descriptor: int, content: bytes) -> None:
    while content:
        content = content[os.write(descriptor, content) :]
    os.fsync(descriptor)


def _is_whole(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _event(line: bytes, path: Path, number: int) -> Event:
    try:
        data: dict[str, Any] = json.loads(line)
        if data.pop("schema") != SCHEMA:
            raise CatalogError(f"{path}:{number}: not an entry of schema {SCHEMA}")
        what, by, time, commit = (data.pop(key) for key in ("what", "by", "time", "commit"))
        return Event(str(what), str(by), str(time), commit and str(commit), data)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        hint = "restore the ledger from a copy; only its last line may be torn"
        raise CatalogError(f"{path}:{number}: not an entry of a ledger: {error!r}", hint=hint) from error
