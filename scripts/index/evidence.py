"""The evidence that a store keeps about its wheels: records of audits and of GPUs, statements, and waivers.

Files in ``records/`` are named by the sha256 of the wheel: ``.audit.json`` (scripts.wheel.audit_record), ``.cdx.json``
(the bill of materials), ``.provenance.json``, ``.gpu.json`` (scripts.gpu_gate.record), ``.gpu.png`` (what the GPU
rendered), and ``.waiver.json`` (who publishes the wheel without a GPU record, and why).
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
    """Who lets a wheel pass that no GPU has run, and why; the reason is shown to everybody."""

    schema: int
    wheel: str
    sha256: str
    reason: str
    by: str
    time: str


def load_audit(sha256: str, name: str, size: int, folder: Path, *, allow_partial: bool) -> Record:
    """The record in ``folder`` that the wheel of these bytes passed its audit.

    Raises:
        AuditError: the record does not hold together.
        PublishError: there is none, it is about something else, or it does not say passed.
    """
    hint = "audit it: nox -s audit -- WHEEL"
    record = audit_record.find(sha256, folder)
    if record is None:
        raise PublishError(f"{name} has no audit record for its sha256 {sha256} below {folder}", hint=hint)
    if (record.sha256, record.wheel, record.size) != (sha256, name, size):
        raise PublishError(f"{name}: its audit record is about {record.wheel} of {record.size} bytes", hint=hint)
    if record.outcome != "passed":
        found = ", ".join(check.name for check in record.checks if check.outcome == record.outcome) or "nothing checked"
        raise PublishError(f"{name} did not pass its audit, it is {record.outcome}: {found}", hint=hint)
    if record.partial and not allow_partial:
        hint = "build it without --arch; a rehearsal may stage it: --allow-partial"
        raise PublishError(f"{name} is a partial wheel, built for fewer architectures: it is no release", hint=hint)
    return record


def adopt_package(store: Store, record: PackageRecord) -> None:
    """Keep the record of a package's builds in the store; one that is there already stays."""
    with writing(store.records):
        if not package_record.path(record.sha256, store.root).is_file():
            package_record.save(record, store.root)
            sync(store.records)


def adopt(store: Store, sha256: str, record: Record, folder: Path) -> None:
    """Keep the records about a wheel from ``folder`` in the store; an audit's that is there already stays.

    Raises:
        CatalogError: a statement that the record knows of is not there, or not the one that it knows.
    """
    with writing(store.records):
        held = audit_record.find(sha256, store.root)
        stated = _statements(store, held or record, folder)
        if held is None:
            audit_record.save(record, store.root)
            sync(store.records)
    for path, content in stated.items():
        _write(path, content)
    adopt_gpu(store, sha256, folder)


def _statements(store: Store, record: Record, folder: Path) -> dict[Path, bytes]:
    """The bill of materials and the provenance that a record knows of, as far as the store lacks them."""
    found = {}
    for kind, digest in record.evidence.items():
        source, target = (audit_record.statement_path(record.sha256, kind, place) for place in (folder, store.root))
        if target.is_file() and file_sha256(target) == digest:
            continue
        if not source.is_file() or file_sha256(source) != digest:
            raise CatalogError(
                f"{source}: not there, or not the {kind} that the wheel's record knows",
                hint="`nox -s verify -- WHEEL` names what is wrong; build the wheel again",
            )
        found[target] = source.read_bytes()
    return found


def adopt_gpu(store: Store, sha256: str, folder: Path) -> None:
    """Keep the GPU record about a wheel from ``folder``, if it has one, and its contact sheet.

    Raises:
        CatalogError: it is not a record, or the sheet is not the record's.
    """
    source, target = gpu.path(sha256, folder), gpu.path(sha256, store.root)
    if source.is_file() and source.absolute() != target.absolute():
        sheet = _sheet(_load(source, _GPU, sha256), folder)
        if sheet:
            _write(gpu.sheet_path(sha256, store.root), sheet)
        _write(target, source.read_bytes())


def _sheet(record: GpuRecord, folder: Path) -> bytes:
    """The contact sheet of a record that can be believed, nothing where it has none."""
    path = gpu.path(record.sha256, folder)
    contradiction = record.contradiction()
    if contradiction:
        raise CatalogError(f"{path}: {contradiction}", hint=_RUN_AGAIN)
    if not record.sheet:
        return b""
    file = gpu.sheet_path(record.sha256, folder)
    if not file.is_file() or gpu.sha256_of(file) != record.sheet:
        raise CatalogError(f"{file}: not there, or not the contact sheet of its record", hint=_RUN_AGAIN)
    return file.read_bytes()


def judge(store: Store, entry: Entry) -> Entry:
    """The entry with what its records say about GPUs: passed, waived with a reason, or untested.

    Raises:
        CatalogError: a record is malformed, contradicts itself, or is about another wheel.
        PublishError: the wheel was run and it failed; no waiver is for that.
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
    waived = waiver(store, entry)
    if waived is not None:
        return replace(entry, gpu="waived", waiver=wheel_entry.check_reason(waived.reason))
    return replace(entry, gpu="untested", waiver=None)


def waiver(store: Store, entry: Entry) -> Waiver | None:
    """The waiver for a wheel, None where there is none.

    Raises:
        CatalogError: it is malformed or about another wheel.
    """
    path = _path(store.records, entry.sha256, "waiver")
    return _load(path, _WAIVER, entry.sha256, entry.name) if path.is_file() else None


def waive(store: Store, entry: Entry, reason: str, by: str) -> Entry:
    """Write down that ``by`` lets a wheel pass without a GPU, and return its entry saying so."""
    made = Waiver(SCHEMA, entry.name, entry.sha256, reason, by, now())
    text = json.dumps(asdict(made), indent=2, sort_keys=True) + "\n"
    _write(_path(store.records, entry.sha256, "waiver"), text.encode())
    return replace(entry, gpu="waived", waiver=reason)


_GPU = TypeAdapter(GpuRecord)
_WAIVER = TypeAdapter(Waiver)
_Evidence = TypeVar("_Evidence", GpuRecord, Waiver)


def _path(folder: Path, sha256: str, kind: str) -> Path:
    return folder / f"{sha256}.{kind}.json"


def _load(path: Path, adapter: TypeAdapter[_Evidence], sha256: str, name: str | None = None) -> _Evidence:
    try:
        found = adapter.validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise CatalogError(f"{path}: not a record: {error}") from error
    if found.schema != SCHEMA:
        raise CatalogError(f"{path}: a record of schema {found.schema}, not {SCHEMA}")
    if found.sha256 != sha256 or name not in (None, found.wheel):
        raise CatalogError(f"{path}: is about another wheel, {found.wheel}")
    return found


def _write(path: Path, content: bytes) -> None:
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f"{path.name}.new")
        beside.write_bytes(content)
        sync(beside)
        beside.replace(path)
