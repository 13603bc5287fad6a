"""The log of all operations on a store: `ledger.jsonl`, one JSON object per line, append-only.

Each line has the operation, the name of the person, the time (UTC) and the commit of this repository; other fields
depend on the operation: `staged` has wheel and sha256, `proved` has the sha256 of the catalog. A process that is killed
while it writes leaves an incomplete last line; reading skips it, and the next process that appends removes it.
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
    """A line of a ledger; ``commit`` is None if this is not a git checkout."""

    what: str
    by: str
    time: str
    commit: str | None
    details: Mapping[str, Any]

    def says(self, what: str, **details: Any) -> bool:
        """Return whether this is the operation ``what`` with at least these details."""
        return self.what == what and all(self.details.get(key) == value for key, value in details.items())


def append(store: Path, what: str, *, by: str | None = None, **details: Any) -> Event:
    """Append the operation ``what`` to the ledger, with the current time and the person ``by`` (see :func:`person`).

    The complete line is on the disk when this returns; after an error the ledger is unchanged.

    Raises:
        CatalogError: if the existing file is not a ledger.
        PublishError: if the ledger cannot be written.
        UsageError: if no valid name is known.
    """
    event = Event(what, person(by), now(), commit(), details)
    line = {"schema": SCHEMA, "what": what, "by": event.by, "time": event.time, "commit": event.commit, **details}
    content = (json.dumps(line, sort_keys=True) + "\n").encode()
    path = store / LEDGER
    try:
        with _open_locked(path) as descriptor:
            size = _end_last_line(path, descriptor)
            try:
                _write(descriptor, content)
            except OSError:
                os.ftruncate(descriptor, size)
                raise
    except OSError as error:
        hint = "remove the cause and run the same command again"
        raise PublishError(f"{path}: cannot be written: {error.strerror}", hint=hint) from error
    return event


def read(store: Path) -> list[Event]:
    """Return every entry, oldest first; an empty list if the store has no ledger.

    Raises:
        CatalogError: if a line before the last one is invalid, or if the last one is complete and invalid.
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
    return [*events, _event(last, path, len(lines) + 1)] if _is_complete(last) else events


def has(store: Path, what: str, **details: Any) -> bool:
    """Return whether the ledger has the operation ``what`` with these details."""
    return any(event.says(what, **details) for event in read(store))


def person(by: str | None = None) -> str:
    """Return the name for the ledger: ``by`` if it is given, else git's user.name.

    Raises:
        UsageError: if there is no name, or if it is not one line of at most 100 characters.
    """
    hint = "name the person who publishes: --by NAME"
    name = _git("config", "user.name") if by is None else by.strip()
    if not name:
        raise UsageError("nobody is named, and git has no user.name", hint=hint)
    if len(name) > _LONGEST_NAME or not name.isprintable():
        raise UsageError(f"not a person's name: {name[:_LONGEST_NAME]!r}", hint=hint)
    return name


def commit() -> str | None:
    """Return the commit of this repository, with "-dirty" if tracked files differ from it; None without git."""
    head = _git("rev-parse", "HEAD")
    return f"{head}-dirty" if head and _git("status", "--porcelain", "--untracked-files=no") else head


def now() -> str:
    """Return the UTC time in ISO 8601, in whole seconds: "2026-11-21T10:00:00Z"."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _git(*arguments: str) -> str | None:
    try:
        return call(["git", *arguments], cwd=ROOT, echo=False, quiet=True).strip() or None
    except CommandError:
        return None


@contextmanager
def _open_locked(path: Path) -> Iterator[int]:
    """Open the ledger for appending and lock it during the block."""
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


def _end_last_line(path: Path, descriptor: int) -> int:
    """Remove an incomplete last line, or add its missing newline; return the new size in bytes."""
    read(path.parent)
    content = path.read_bytes()
    last = content.rpartition(b"\n")[2]
    if _is_complete(last):
        _write(descriptor, b"\n")
        return len(content) + 1
    os.ftruncate(descriptor, len(content) - len(last))
    return len(content) - len(last)


def _write(descriptor: int, content: bytes) -> None:
    while content:
        content = content[os.write(descriptor, content) :]
    os.fsync(descriptor)


def _is_complete(line: bytes) -> bool:
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
        hint = "restore the ledger from a copy; only its last line may be incomplete"
        raise CatalogError(f"{path}:{number}: not an entry of a ledger: {error!r}", hint=hint) from error
