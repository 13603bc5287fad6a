"""The record of a wheel without compiled code: `records/<sha256>.package.json`.

Such a wheel needs no audit of compiled files and no GPU run. Its record states that two builds in different
environments gave the same bytes.
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
_HINT = "build it again: nox -s packages"


@dataclass(frozen=True)
class PackageRecord:
    """A record that ``builds`` builds gave the same bytes.

    ``tools`` are the versions of the build tools by name; ``time`` is in UTC.
    """

    wheel: str
    sha256: str
    size: int
    builds: int
    tools: Mapping[str, str]
    time: str
    schema: int = SCHEMA


def make(wheel: Path, builds: int, tools: Mapping[str, str]) -> PackageRecord:
    """Return a record of the file ``wheel`` with the current time."""
    return PackageRecord(wheel.name, file_sha256(wheel), wheel.stat().st_size, builds, dict(tools), now())


def path(sha256: str, folder: Path) -> Path:
    """Return the path of the record for a wheel below ``folder``."""
    return folder / "records" / f"{sha256}.package.json"


def save(record: PackageRecord, folder: Path) -> Path:
    """Write the record below ``folder`` atomically, over an earlier one; return its path."""
    return write_atomic(path(record.sha256, folder), json.dumps(asdict(record), indent=2, sort_keys=True) + "\n")


def load(sha256: str, name: str, size: int, folder: Path) -> PackageRecord:
    """Return the record below ``folder`` for the wheel with this hash, name and size.

    Raises:
        AuditError: if it is missing, malformed, for another file, or states fewer than two builds.
    """
    source = path(sha256, folder)
    if not source.is_file():
        raise AuditError(f"{name} has no record of its builds for its sha256 {sha256} below {folder}", hint=_HINT)
    try:
        record = _ADAPTER.validate_json(source.read_bytes())
    except (OSError, ValidationError) as error:
        raise AuditError(f"{source}: not a record: {error}", hint=_HINT) from error
    if record.schema != SCHEMA:
        raise AuditError(f"{source}: a record of schema {record.schema}, not {SCHEMA}", hint=_HINT)
    if (record.sha256, record.wheel, record.size) != (sha256, name, size):
        raise AuditError(f"{source}: is about another wheel, {record.wheel} of {record.size} bytes", hint=_HINT)
    if record.builds < BUILDS:
        raise AuditError(f"{source}: states {record.builds} builds; a reproducible wheel needs {BUILDS}", hint=_HINT)
    return record


_ADAPTER = TypeAdapter(PackageRecord)
