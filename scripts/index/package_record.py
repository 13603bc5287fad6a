"""Evidence about one wheel without compiled code, as JSON keyed by its sha256: `records/<sha256>.package.json`.

There is nothing in such a wheel that a GPU, a linker or a cell could have a say in: it is vouched for by having been
built twice, in different surroundings, to the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from scripts.errors import AuditError
from scripts.index.ledger import now
from scripts.support.files import file_sha256, write_atomic

SCHEMA = 1
BUILDS = 2
_MEND = "build it again: nox -s packages"


@dataclass(frozen=True)
class PackageRecord:
    """That ``builds`` builds gave these bytes; ``tools`` are the versions of what built them, ``time`` is in UTC."""

    wheel: str
    sha256: str
    size: int
    builds: int
    tools: Mapping[str, str]
    time: str
    schema: int = SCHEMA


def make(wheel: Path, builds: int, tools: Mapping[str, str]) -> PackageRecord:
    """A record of now about the file ``wheel``."""
    return PackageRecord(wheel.name, file_sha256(wheel), wheel.stat().st_size, builds, dict(tools), now())


def path(sha256: str, folder: Path) -> Path:
    """Where the record about the wheel of that sha256 belongs below ``folder``."""
    return folder / "records" / f"{sha256}.package.json"


def save(record: PackageRecord, folder: Path) -> Path:
    """Write the record below ``folder``, whole or not at all, over an earlier one."""
    return write_atomic(path(record.sha256, folder), json.dumps(asdict(record), indent=2, sort_keys=True) + "\n")


def load(sha256: str, name: str, size: int, folder: Path) -> PackageRecord:
    """The record below ``folder`` that vouches for the wheel of these bytes.

    Raises:
        AuditError: there is none, it is malformed or about something else, or it tells of fewer than two builds.
    """
    source = path(sha256, folder)
    if not source.is_file():
        raise AuditError(f"{name} has no record of its builds for its sha256 {sha256} below {folder}", hint=_MEND)
    try:
        record = _ADAPTER.validate_json(source.read_bytes())
    except (OSError, ValidationError) as error:
        raise AuditError(f"{source}: not a record: {error}", hint=_MEND) from error
    if record.schema != SCHEMA:
        raise AuditError(f"{source}: a record of schema {record.schema}, not {SCHEMA}", hint=_MEND)
    if (record.sha256, record.wheel, record.size) != (sha256, name, size):
        raise AuditError(f"{source}: is about another wheel, {record.wheel} of {record.size} bytes", hint=_MEND)
    if record.builds < BUILDS:
        raise AuditError(f"{source}: tells of {record.builds} builds, which show nothing reproducible", hint=_MEND)
    return record


_ADAPTER = TypeAdapter(PackageRecord)
