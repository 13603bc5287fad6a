"""Tests of audit records: a saved record is loaded again, and a modified one is rejected."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scripts.errors import AuditError
from scripts.wheel import audit_record
from scripts.wheel.audit_record import Check, Outcome, Record


def _record(tmp_path: Path, *outcomes: Outcome, partial: bool = False) -> Record:
    wheel = tmp_path / "nvdiffrast-1-py3-none-any.whl"
    wheel.write_bytes(b"a wheel")
    checks = tuple(Check(f"check-{n}", outcome, "because") for n, outcome in enumerate(outcomes))
    return audit_record.make(wheel, "the-cell", checks, {"python": "3"}, partial=partial)


@pytest.mark.parametrize(
    ("outcomes", "partial", "outcome", "release"),
    [
        (("passed", "passed"), False, "passed", True),
        (("passed", "passed"), True, "passed", False),
        (("passed", "untested"), False, "untested", False),
        (("untested", "failed", "passed"), False, "failed", False),
        ((), False, "untested", False),
    ],
)
def test_outcome_follows_from_the_checks(
    tmp_path: Path, outcomes: tuple[Outcome, ...], partial: bool, outcome: Outcome, release: bool
) -> None:
    record = _record(tmp_path, *outcomes, partial=partial)
    assert (record.outcome, record.release) == (outcome, release)


def test_saves_and_finds_a_record_by_sha256(tmp_path: Path) -> None:
    record = _record(tmp_path, "passed", "untested")
    path = audit_record.save(record, tmp_path / "dist")
    assert path == tmp_path / "dist" / "records" / f"{record.sha256}.audit.json"
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    assert audit_record.load(path) == record
    assert audit_record.find(record.sha256, tmp_path / "dist") == record
    assert audit_record.find("0" * 64, tmp_path / "dist") is None


def _change_outcome(data: dict[str, Any]) -> None:
    data["outcome"] = "passed"


def _change_release(data: dict[str, Any]) -> None:
    data["release"] = True


def _change_wheel(data: dict[str, Any]) -> None:
    data["sha256"] = "0" * 64


def _change_time(data: dict[str, Any]) -> None:
    data["time"] = "2020-01-01T00:00:00+00:00"


def _add_key(data: dict[str, Any]) -> None:
    data["signed"] = "by somebody"


def _remove_checks(data: dict[str, Any]) -> None:
    del data["checks"]


def _set_unknown_outcome(data: dict[str, Any]) -> None:
    data["checks"][0]["outcome"] = "fine"


def _change_schema(data: dict[str, Any]) -> None:
    data["schema"] = 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_change_outcome, "states"),
        (_change_release, "states"),
        (_change_wheel, "about another wheel"),
        (_change_time, "was modified"),
        (_add_key, "was modified"),
        (_remove_checks, "checks"),
        (_set_unknown_outcome, "outcome"),
        (_change_schema, "schema 3"),
    ],
)
def test_rejects_an_inconsistent_record(tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str) -> None:
    path = audit_record.save(_record(tmp_path, "failed"), tmp_path)
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    with pytest.raises(AuditError, match=message):
        audit_record.load(path)


@pytest.mark.parametrize("text", ["", "[]", "{}", "\0"])
def test_rejects_a_file_that_is_not_a_record(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(AuditError, match="not a record"):
        audit_record.load(tmp_path / "x.json")


def test_rejects_a_record_with_any_changed_byte(tmp_path: Path) -> None:
    path = audit_record.save(_record(tmp_path, "passed"), tmp_path)
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(AuditError):
            audit_record.load(path)


def test_record_contains_the_hashes_of_the_statements(tmp_path: Path) -> None:
    record = _record(tmp_path, "passed")
    audit_record.save_statement(record.sha256, "provenance", b"statement", tmp_path)
    with_evidence = audit_record.with_evidence(record, tmp_path)
    assert with_evidence.evidence == {"provenance": hashlib.sha256(b"statement").hexdigest()}
    audit_record.save(with_evidence, tmp_path)
    assert audit_record.find(record.sha256, tmp_path) == with_evidence


def test_finds_records_by_file_name_and_skips_damaged_ones(tmp_path: Path) -> None:
    record = _record(tmp_path, "passed")
    audit_record.save(record, tmp_path)
    (tmp_path / "records" / f"{'0' * 64}.audit.json").write_text("damaged")
    assert audit_record.find_by_name(record.wheel, tmp_path) == [record]
    assert audit_record.find_by_name("another.whl", tmp_path) == []
