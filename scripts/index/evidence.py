"""Read, check and copy the records of a store about its wheels.

Files in ``records/`` are named after the sha256 of the wheel: ``.audit.json`` (scripts.wheel.audit_record),
``.cdx.json`` (the bill of materials), ``.provenance.json``, ``.gpu.json`` (scripts.gpu_gate.record), ``.gpu.png`` (the
images that the GPU rendered), and ``.waiver.json`` (who publishes the wheel without a GPU run, and why).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from scripts.errors import CatalogError, PublishError
from scripts.gpu_gate import record as gpu
from scripts.gpu_gate.record import GpuRecord
from scripts.index import package_record, wheel_entry
from scripts.index.catalog import Entry
from scripts.index.ledger import now
from scripts.index.package_record import PackageRecord
from scripts.index.store import Store, sync, writing
from scripts.support.files import file_sha256
from scripts.wheel import audit_record
from scripts.wheel.audit_record import Record

SCHEMA = 1
_RUN_AGAIN = "run the gate again: nox -s smoke -- WHEEL"


@dataclass(frozen=True)
class Waiver:
    """The permission of the person ``by`` to publish a wheel without a GPU run; the index shows the reason."""

    schema: int
    wheel: str
    sha256: str
    reason: str
    by: str
    time: str


def load_audit(sha256: str, name: str, size: int, folder: Path, *, allow_partial: bool) -> Record:
    """Return the audit record in ``folder`` for the wheel with this hash, name and size; it must have passed.

    Raises:
        AuditError: if the record contradicts itself.
        PublishError: if there is no record, if it is for another file, or if the audit did not pass.
    """
    hint = "audit it: nox -s audit -- WHEEL"
    record = audit_record.find(sha256, folder)
    if record is None:
        raise PublishError(f"{name} has no audit record for its sha256 {sha256} below {folder}", hint=hint)
    if (record.sha256, record.wheel, record.size) != (sha256, name, size):
        raise PublishError(f"{name}: its audit record is for {record.wheel} of {record.size} bytes", hint=hint)
    if record.outcome != "passed":
        checks = ", ".join(check.name for check in record.checks if check.outcome == record.outcome) or "no check ran"
        raise PublishError(f"{name} did not pass its audit; outcome {record.outcome}: {checks}", hint=hint)
    if record.partial and not allow_partial:
        hint = "build it without --arch; a rehearsal may stage it: --allow-partial"
        raise PublishError(
            f"{name} is a partial wheel, built for fewer architectures: it must not be published", hint=hint
        )
    return record


def adopt_package(store: Store, record: PackageRecord) -> None:
    """Copy the record of a package's builds into the store, unless the store has one."""
    with writing(store.records):
        if not package_record.path(record.sha256, store.root).is_file():
            package_record.save(record, store.root)
            sync(store.records)


def adopt(store: Store, sha256: str, record: Record, folder: Path) -> None:
    """Copy the records about a wheel from ``folder`` into the store; keep an audit record that the store has.

    Raises:
        CatalogError: if a statement that the audit record lists is missing or has another hash.
    """
    with writing(store.records):
        stored = audit_record.find(sha256, store.root)
        statements = _missing_statements(store, stored or record, folder)
        if stored is None:
            audit_record.save(record, store.root)
            sync(store.records)
    for path, content in statements.items():
        _write(path, content)
    adopt_gpu(store, sha256, folder)


def _missing_statements(store: Store, record: Record, folder: Path) -> dict[Path, bytes]:
    """Return by target path the bill of materials and the provenance that a record lists and the store lacks."""
    statements = {}
    for kind, digest in record.evidence.items():
        source, target = (audit_record.statement_path(record.sha256, kind, place) for place in (folder, store.root))
        if target.is_file() and file_sha256(target) == digest:
            continue
        if not source.is_file() or file_sha256(source) != digest:
            raise CatalogError(
                f"{source}: missing, or not the {kind} that the wheel's record lists",
                hint="build the wheel again; `nox -s verify -- WHEEL` names the problem",
            )
        statements[target] = source.read_bytes()
    return statements


def adopt_gpu(store: Store, sha256: str, folder: Path) -> None:
    """Copy the GPU record about a wheel and its contact sheet from ``folder``, if it has them.

    Raises:
        CatalogError: if the record is invalid, or if the sheet does not match it.
    """
    source, target = gpu.path(sha256, folder), gpu.path(sha256, store.root)
    if source.is_file() and source.absolute() != target.absolute():
        sheet = _sheet(_load(source, _GPU, sha256), folder)
        if sheet:
            _write(gpu.sheet_path(sha256, store.root), sheet)
        _write(target, source.read_bytes())


def _sheet(record: GpuRecord, folder: Path) -> bytes:
    """Return the contact sheet of a GPU record, b"" if it has no sheet; raise CatalogError if one is invalid."""
    path = gpu.path(record.sha256, folder)
    contradiction = record.contradiction()
    if contradiction:
        raise CatalogError(f"{path}: {contradiction}", hint=_RUN_AGAIN)
    if not record.sheet:
        return b""
    file = gpu.sheet_path(record.sha256, folder)
    if not file.is_file() or gpu.sha256_of(file) != record.sheet:
        raise CatalogError(f"{file}: missing, or not the contact sheet of its record", hint=_RUN_AGAIN)
    return file.read_bytes()


def judge(store: Store, entry: Entry) -> Entry:
    """Return the entry with its GPU state from the records: passed, waived with a reason, or untested.

    Raises:
        CatalogError: if a record is malformed, contradicts itself, or is for another wheel.
        PublishError: if the wheel failed on a GPU; a waiver does not change this.
    """
    path = gpu.path(entry.sha256, store.root)
    if path.is_file():
        record = _load(path, _GPU, entry.sha256, entry.name)
        _sheet(record, store.root)
        if record.outcome == "failed" and entry.yanked is None:
            hint = f"yank it: nox -s publish -- yank {entry.name} --reason REASON"
            where = f"{record.device} (driver {record.driver})" if record.device else "a machine without a GPU"
            failed = ", ".join(check.name for check in record.checks if check.state == "failed")
            raise PublishError(f"{entry.name} failed on {where}: {failed}", hint=hint)
        if record.outcome == "passed":
            return replace(entry, gpu="passed", waiver=None)
    permission = waiver(store, entry)
    if permission is not None:
        return replace(entry, gpu="waived", waiver=wheel_entry.check_reason(permission.reason))
    return replace(entry, gpu="untested", waiver=None)


def waiver(store: Store, entry: Entry) -> Waiver | None:
    """Return the waiver for a wheel, None if no waiver exists.

    Raises:
        CatalogError: if it is malformed or for another wheel.
    """
    path = _path(store.records, entry.sha256, "waiver")
    return _load(path, _WAIVER, entry.sha256, entry.name) if path.is_file() else None


def waive(store: Store, entry: Entry, reason: str, by: str) -> Entry:
    """Write a waiver of the person ``by`` for a wheel, and return the changed entry."""
    permission = Waiver(SCHEMA, entry.name, entry.sha256, reason, by, now())
    text = json.dumps(asdict(permission), indent=2, sort_keys=True) + "\n"
    _write(_path(store.records, entry.sha256, "waiver"), text.encode())
    return replace(entry, gpu="waived", waiver=reason)


_GPU = TypeAdapter(GpuRecord)
_WAIVER = TypeAdapter(Waiver)
_RecordT = TypeVar("_RecordT", GpuRecord, Waiver)


def _path(folder: Path, sha256: str, kind: str) -> Path:
    return folder / f"{sha256}.{kind}.json"


def _load(path: Path, adapter: TypeAdapter[_RecordT], sha256: str, name: str | None = None) -> _RecordT:
    try:
        record = adapter.validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise CatalogError(f"{path}: not a record: {error}") from error
    if record.schema != SCHEMA:
        raise CatalogError(f"{path}: a record of schema {record.schema}, not {SCHEMA}")
    if record.sha256 != sha256 or name not in (None, record.wheel):
        raise CatalogError(f"{path}: is about another wheel, {record.wheel}")
    return record


def _write(path: Path, content: bytes) -> None:
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.new")
        temporary.write_bytes(content)
        sync(temporary)
        temporary.replace(path)
