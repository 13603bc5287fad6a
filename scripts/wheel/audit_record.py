"""Evidence about one wheel as JSON, keyed by the wheel's sha256: `records/<sha256>.audit.json`."""

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
# What else is stated about a wheel, beside its record, and how its file's name ends.
STATEMENTS = {"sbom": ".cdx.json", "provenance": ".provenance.json"}


@dataclass(frozen=True)
class Check:
    """One check: ``detail`` says what holds, what is wrong, or why it could not be looked at."""

    name: str
    outcome: Outcome
    detail: str


@dataclass(frozen=True)
class Record:
    """What an audit found.

    ``time`` is when it was made (UTC, ISO 8601; no build timestamp plays a part), ``tools`` the versions of what looked
    at the wheel, ``partial`` whether the wheel was built for narrowed architectures, ``evidence`` the sha256 of each of
    the STATEMENTS that lay beside the record when it was made.
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
        """failed if any check failed, else untested if any is, else passed; no checks prove nothing."""
        outcomes = {check.outcome for check in self.checks}
        if "failed" in outcomes:
            return "failed"
        return "untested" if "untested" in outcomes or not outcomes else "passed"

    @property
    def release(self) -> bool:
        """Whether the wheel can be released as far as this record goes: everything passed, and it is whole."""
        return self.outcome == "passed" and not self.partial

    def named(self, name: str) -> Check:
        """The check of that name.

        Raises:
            KeyError: there is none.
        """
        for check in self.checks:
            if check.name == name:
                return check
        raise KeyError(name)


def make(wheel: Path, cell: str, checks: tuple[Check, ...], tools: Mapping[str, str], *, partial: bool) -> Record:
    """A record of now about the file ``wheel``."""
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
    """Write `records/<sha256>.audit.json` below ``directory``, whole or not at all, over an earlier one."""
    return write_atomic(_path(record.sha256, directory), _text(record))


def state(sha256: str, kind: str, content: bytes, directory: Path) -> Path:
    """Write one of the STATEMENTS about the wheel of that sha256, as a record is written."""
    return write_atomic(statement(sha256, kind, directory), content)


def statement(sha256: str, kind: str, directory: Path) -> Path:
    """Where one of the STATEMENTS about the wheel of that sha256 belongs."""
    return directory / _FOLDER / f"{sha256}{STATEMENTS[kind]}"


def stated(directory: Path) -> frozenset[str]:
    """Return the sha256 of every wheel about which all of the STATEMENTS lie below ``directory``."""
    names = {path.name for path in (directory / _FOLDER).glob("*.json")}
    having = [{name.removesuffix(end) for name in names if name.endswith(end)} for end in STATEMENTS.values()]
    return frozenset(set.intersection(*having))


def with_evidence(record: Record, directory: Path) -> Record:
    """The record with the sha256 of what else is stated about its wheel below ``directory``."""
    paths = {kind: statement(record.sha256, kind, directory) for kind in STATEMENTS}
    return replace(record, evidence={kind: file_sha256(path) for kind, path in paths.items() if path.is_file()})


def about(name: str, directory: Path) -> list[Record]:
    """Every record below ``directory`` about a wheel of that file name, whatever its bytes; a damaged one is none."""
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
        AuditError: it cannot be read, is of another schema, states an outcome that its checks do not bear out, or was
            changed by so much as a byte since it was written.
    """
    hint = "audit the wheel again: nox -s audit -- WHEEL"
    try:
        text = path.read_bytes().decode()
        data = json.loads(text)
        data.pop("seal", None)
        stated = {name: data.pop(name) for name in ("outcome", "release")}
        record = _ADAPTER.validate_python(data)
    except (OSError, ValueError, KeyError, AttributeError, TypeError, ValidationError) as error:
        raise AuditError(f"{path}: not a record: {error}", hint=hint) from error
    if record.schema != SCHEMA:
        raise AuditError(f"{path}: a record of schema {record.schema}, not {SCHEMA}", hint=hint)
    if stated != {"outcome": record.outcome, "release": record.release}:
        raise AuditError(f"{path}: states {stated}, but its checks make it {record.outcome}", hint=hint)
    if path.name.endswith(_SUFFIX) and path.name != record.sha256 + _SUFFIX:
        raise AuditError(f"{path}: is about another wheel, {record.sha256}", hint=hint)
    if text != _text(record):
        raise AuditError(f"{path}: was changed since it was written: its seal does not fit", hint=hint)
    return record


def find(sha256: str, directory: Path) -> Record | None:
    """The record about the wheel of that sha256 below ``directory``, or None."""
    path = _path(sha256, directory)
    return load(path) if path.is_file() else None


_ADAPTER = TypeAdapter(Record)


def _text(record: Record) -> str:
    """The record as JSON. Its seal, a sha256 of the rest, tells a damaged one; it is no signature."""
    stated = {**asdict(record), "outcome": record.outcome, "release": record.release}
    stated["seal"] = hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()
    return json.dumps(stated, indent=2, sort_keys=True) + "\n"


def _path(sha256: str, directory: Path) -> Path:
    return directory / _FOLDER / f"{sha256}{_SUFFIX}"
