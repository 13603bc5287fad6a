"""Audit records of wheels, stored as `records/<sha256 of the wheel>.audit.json`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from scripts.errors import AuditError
from scripts.support.files import file_sha256, write_atomic

Outcome = Literal["passed", "failed", "untested"]
OUTCOMES: tuple[Outcome, ...] = ("passed", "failed", "untested")

SCHEMA = 2
_FOLDER = "records"
_SUFFIX = ".audit.json"
# The other documents about a wheel that are stored beside its record, with the suffixes of their file names.
STATEMENTS = {"sbom": ".cdx.json", "provenance": ".provenance.json"}


@dataclass(frozen=True)
class Check:
    """The result of one check; ``detail`` states what was checked, what is wrong, or why the check was not possible."""

    name: str
    outcome: Outcome
    detail: str


@dataclass(frozen=True, kw_only=True)
class Record:
    """The result of an audit.

    ``time`` is the time of the audit (UTC, ISO 8601). ``tools`` maps the name of each tool to its version. ``partial``
    is true for a wheel that does not contain all architectures. ``evidence`` maps the kind of each of the STATEMENTS
    that existed at the time of the audit to its SHA-256.
    """

    wheel: str
    sha256: str
    size: int
    cell: str
    time: str
    tools: Mapping[str, str]
    partial: bool
    checks: tuple[Check, ...]
    schema: int = SCHEMA
    evidence: Mapping[str, str] = field(default_factory=dict)

    @property
    def outcome(self) -> Outcome:
        """Return "failed" if a check failed, "untested" if a check is untested or no check exists, else "passed"."""
        outcomes = {check.outcome for check in self.checks}
        if "failed" in outcomes:
            return "failed"
        return "untested" if "untested" in outcomes or not outcomes else "passed"

    @property
    def release(self) -> bool:
        """Return whether the wheel may be published: all checks passed, and it contains all architectures."""
        return self.outcome == "passed" and not self.partial

    def named(self, name: str) -> Check:
        """Return the check with this name.

        Raises:
            KeyError: if the record has no such check.
        """
        for check in self.checks:
            if check.name == name:
                return check
        raise KeyError(name)


def make(wheel: Path, cell: str, checks: tuple[Check, ...], tools: Mapping[str, str], *, partial: bool) -> Record:
    """Return a record of the file ``wheel`` with the current time."""
    return Record(
        wheel=wheel.name,
        sha256=file_sha256(wheel),
        size=wheel.stat().st_size,
        cell=cell,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        tools=dict(tools),
        partial=partial,
        checks=checks,
    )


def save(record: Record, directory: Path) -> Path:
    """Write the record below ``directory`` atomically; replace an earlier record of the same wheel."""
    return write_atomic(_record_path(record.sha256, directory), _text(record))


def save_statement(sha256: str, kind: str, content: bytes, directory: Path) -> Path:
    """Write one of the STATEMENTS about the wheel with this SHA-256 below ``directory`` atomically."""
    return write_atomic(statement_path(sha256, kind, directory), content)


def statement_path(sha256: str, kind: str, directory: Path) -> Path:
    """Return the path of one of the STATEMENTS about the wheel with this SHA-256."""
    return directory / _FOLDER / f"{sha256}{STATEMENTS[kind]}"


def wheels_with_statements(directory: Path) -> frozenset[str]:
    """Return the SHA-256 of every wheel that has all of the STATEMENTS below ``directory``."""
    names = {path.name for path in (directory / _FOLDER).glob("*.json")}
    wheels = [{name.removesuffix(suffix) for name in names if name.endswith(suffix)} for suffix in STATEMENTS.values()]
    return frozenset(set.intersection(*wheels))


def with_evidence(record: Record, directory: Path) -> Record:
    """Return the record with the SHA-256 of each of the STATEMENTS about its wheel below ``directory``."""
    paths = {kind: statement_path(record.sha256, kind, directory) for kind in STATEMENTS}
    return replace(record, evidence={kind: file_sha256(path) for kind, path in paths.items() if path.is_file()})


def find_by_name(name: str, directory: Path) -> list[Record]:
    """Return all records below ``directory`` of wheels with this file name; skip damaged records."""
    found = []
    for path in sorted((directory / _FOLDER).glob(f"*{_SUFFIX}")):
        try:
            found.append(load(path))
        except AuditError:
            continue
    return [record for record in found if record.wheel == name]


def load(path: Path) -> Record:
    """Read a record.

    Raises:
        AuditError: if the record is malformed, has another schema, states an outcome that its checks contradict, or was
            modified after it was written.
    """
    hint = "audit the wheel again: nox -s audit -- WHEEL"
    try:
        text = path.read_bytes().decode()
        data = json.loads(text)
        data.pop("seal", None)
        results = {name: data.pop(name) for name in ("outcome", "release")}
        record = _ADAPTER.validate_python(data)
    except (OSError, ValueError, KeyError, AttributeError, TypeError, ValidationError) as error:
        raise AuditError(f"{path}: not a record: {error}", hint=hint) from error
    if record.schema != SCHEMA:
        raise AuditError(f"{path}: the record has schema {record.schema}, not {SCHEMA}", hint=hint)
    if results != {"outcome": record.outcome, "release": record.release}:
        raise AuditError(f"{path}: states {results}, but the outcome of its checks is {record.outcome}", hint=hint)
    if path.name.endswith(_SUFFIX) and path.name != record.sha256 + _SUFFIX:
        raise AuditError(f"{path}: is about another wheel, {record.sha256}", hint=hint)
    if text != _text(record):
        raise AuditError(f"{path}: was modified after it was written: its seal does not fit", hint=hint)
    return record


def find(sha256: str, directory: Path) -> Record | None:
    """Return the record of the wheel with this SHA-256 below ``directory``, or None if there is no such record."""
    path = _record_path(sha256, directory)
    return load(path) if path.is_file() else None


_ADAPTER = TypeAdapter(Record)


def _text(record: Record) -> str:
    """Return the record as JSON. Its seal, a SHA-256 of the other fields, detects damage; it is not a signature."""
    document = {**asdict(record), "outcome": record.outcome, "release": record.release}
    document["seal"] = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


def _record_path(sha256: str, directory: Path) -> Path:
    return directory / _FOLDER / f"{sha256}{_SUFFIX}"
