"""Records: what is written is read back, what was tampered with is refused."""

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
def test_outcome(tmp_path: Path, outcomes: tuple[Outcome, ...], partial: bool, outcome: Outcome, release: bool) -> None:
    record = _record(tmp_path, *outcomes, partial=partial)
    assert (record.outcome, record.release) == (outcome, release)


def test_saved_and_found_by_sha256(tmp_path: Path) -> None:
    record = _record(tmp_path, "passed", "untested")
    path = audit_record.save(record, tmp_path / "dist")
    assert path == tmp_path / "dist" / "records" / f"{record.sha256}.audit.json"
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    assert audit_record.load(path) == record
    assert audit_record.find(record.sha256, tmp_path / "dist") == record
    assert audit_record.find("0" * 64, tmp_path / "dist") is None


def _fail_nothing(data: dict[str, Any]) -> None:
    data["outcome"] = "passed"


def _release_it(data: dict[str, Any]) -> None:
    data["release"] = True


def _other_wheel(data: dict[str, Any]) -> None:
    data["sha256"] = "0" * 64


def _earlier(data: dict[str, Any]) -> None:
    data["time"] = "2020-01-01T00:00:00+00:00"


def _added(data: dict[str, Any]) -> None:
    data["signed"] = "by somebody"


def _no_checks(data: dict[str, Any]) -> None:
    del data["checks"]


def _odd_outcome(data: dict[str, Any]) -> None:
    data["checks"][0]["outcome"] = "fine"


def _later_schema(data: dict[str, Any]) -> None:
    data["schema"] = 3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_fail_nothing, "states"),
        (_release_it, "states"),
        (_other_wheel, "about another wheel"),
        (_earlier, "was changed"),
        (_added, "was changed"),
        (_no_checks, "checks"),
        (_odd_outcome, "outcome"),
        (_later_schema, "schema 3"),
    ],
)
def test_what_does_not_hold_together_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], said: str
) -> None:
    path = audit_record.save(_record(tmp_path, "failed"), tmp_path)
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    with pytest.raises(AuditError, match=said):
        audit_record.load(path)


@pytest.mark.parametrize("text", ["", "[]", "{}", "\0"])
def test_what_is_no_record_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(AuditError, match="not a record"):
        audit_record.load(tmp_path / "x.json")


def test_no_byte_of_a_record_can_change_unseen(tmp_path: Path) -> None:
    path = audit_record.save(_record(tmp_path, "passed"), tmp_path)
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(AuditError):
            audit_record.load(path)


def test_a_record_holds_what_else_is_stated(tmp_path: Path) -> None:
    record = _record(tmp_path, "passed")
    audit_record.state(record.sha256, "provenance", b"made of this", tmp_path)
    evident = audit_record.with_evidence(record, tmp_path)
    assert evident.evidence == {"provenance": hashlib.sha256(b"made of this").hexdigest()}
    audit_record.save(evident, tmp_path)
    assert audit_record.find(record.sha256, tmp_path) == evident


def test_records_about_a_file_name(tmp_path: Path) -> None:
    record = _record(tmp_path, "passed")
    audit_record.save(record, tmp_path)
    (tmp_path / "records" / f"{'0' * 64}.audit.json").write_text("damaged")
    assert audit_record.about(record.wheel, tmp_path) == [record]
    assert audit_record.about("another.whl", tmp_path) == []
