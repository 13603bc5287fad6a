"""Verification: changes of the wheel, its record, its bill of materials or its provenance are found and named."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from scripts.audit import audit
from scripts.build import build, cell_wheel, inputs, verify
from scripts.errors import UsageError, VerifyError
from scripts.matrix import matrix
from scripts.wheel import audit_record, provenance, sbom
from scripts.wheel.audit_record import Check
from tests.unit.materials_factory import EPOCH, bill, build_info, materials_of
from tests.unit.wheel_factory import CELL, CUDART, text_parts

CHECKS = (Check("metadata", "passed", "fine"),)


@dataclass(frozen=True)
class Made:
    """A wheel and the files about it."""

    wheel: Path
    record: Path
    sbom: Path
    provenance: Path

    @property
    def folder(self) -> Path:
        """Where the wheel lies, and records/ beside it."""
        return self.wheel.parent

    def blamed(self) -> set[str]:
        """The parts that are found not to fit."""
        return {finding.part for finding in verify.verify(self.wheel, self.folder, again=False)}


@pytest.fixture(autouse=True)
def known_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use a matrix of one cell, and an audit of one check; the audit has its own tests."""
    monkeypatch.setattr(matrix, "load", lambda: matrix.Matrix((), (), (CELL,), (), "cu130", ""))
    kept = {"metadata": audit.CHECKS["metadata"]}
    monkeypatch.setattr(audit, "CHECKS", kept)


@pytest.fixture
def made(tmp_path: Path) -> Made:
    parts = text_parts()
    parts.members[f"nvdiffrast.libs/{CUDART}"] = b"the CUDA runtime"
    parts.edit_info(architectures={"sass": [*CELL.toolkit.architectures], "ptx": [CELL.toolkit.ptx]})
    wheel = parts.write(tmp_path)
    sbom.inject(wheel, bill(wheel, materials_of()))
    return _state(wheel)


def _state(wheel: Path, *, checks: tuple[Check, ...] = CHECKS) -> Made:
    """Write the files that a build writes about its wheel."""
    record = audit_record.make(wheel, CELL.id, checks, {"python": "3"}, partial=False)
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(sbom.NAME)]
        content = archive.read(name)
    stated = name, hashlib.sha256(content).hexdigest()
    statement = provenance.make(
        wheel.name, record.sha256, stated, build_info(), materials_of(), recipe="2", epoch=EPOCH
    )
    folder = wheel.parent
    copy = audit_record.save_statement(record.sha256, "sbom", content, folder)
    path = audit_record.save_statement(record.sha256, "provenance", statement, folder)
    return Made(wheel, audit_record.save(audit_record.with_evidence(record, folder), folder), copy, path)


def _flip(path: Path, place: int) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])


def test_accepts_an_unchanged_wheel(made: Made) -> None:
    assert made.blamed() == set()


@pytest.mark.parametrize("part", ["wheel", "record", "sbom", "provenance"])
def test_finds_a_changed_byte(made: Made, part: str) -> None:
    """Bytes at both ends and between them are changed, one at a time."""
    path: Path = getattr(made, part)
    size = path.stat().st_size
    for place in (0, size // 7, size // 3, size // 2, size * 4 // 5, size - 1):
        _flip(path, place)
        assert made.blamed() == {part}, place
        _flip(path, place)
    assert made.blamed() == set()


def test_finds_a_valid_provenance_that_is_not_the_recorded_one(made: Made) -> None:
    """The provenance matches the wheel and the bill, but its hash is not in the record."""
    made.provenance.write_bytes(made.provenance.read_bytes().replace(b'"recipe": "2"', b'"recipe": "3"'))
    assert made.blamed() == {"provenance"}


def test_finds_another_bill_inside_the_wheel(made: Made) -> None:
    """RECORD has the hash of the new bill, so that only the wheel and the bill differ from the record."""
    other = dataclasses.replace(materials_of(), runtime="13.0.97")
    sbom.inject(made.wheel, bill(made.wheel, other))
    assert made.blamed() == {"wheel", "sbom"}


def test_finds_a_missing_bill(made: Made) -> None:
    with zipfile.ZipFile(made.wheel) as archive:
        members = {name: archive.read(name) for name in archive.namelist() if not name.endswith(sbom.NAME)}
    with zipfile.ZipFile(made.wheel, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    assert made.blamed() == {"wheel", "sbom"}


def _restate(made: Made, change: Callable[[str], str]) -> None:
    """Change the provenance, and write its new hash into the record."""
    made.provenance.write_text(change(made.provenance.read_text()))
    record = audit_record.load(made.record)
    audit_record.save(audit_record.with_evidence(record, made.folder), made.folder)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("c" * 40, "b" * 40),
        (CELL.id, CELL.id.replace("torch2.11", "torch2.10")),
        ('"9.0+PTX"', '"10.0+PTX"'),
        (CELL.wheel, "nvdiffrast-0-py3-none-any.whl"),
    ],
    ids=["dependency", "cell", "architectures", "name"],
)
def test_finds_a_changed_statement(made: Made, old: str, new: str) -> None:
    def change(text: str) -> str:
        assert old in text
        return text.replace(old, new)

    _restate(made, change)
    assert made.blamed() == {"provenance"}


def test_finds_the_provenance_of_another_wheel(made: Made) -> None:
    digest = audit_record.load(made.record).sha256
    _restate(made, lambda text: text.replace(digest, "0" * 64))
    assert made.blamed() == {"provenance"}


def test_finds_the_provenance_of_another_bill(made: Made) -> None:
    digest = hashlib.sha256(made.sbom.read_bytes()).hexdigest()
    _restate(made, lambda text: text.replace(digest, "0" * 64))
    assert made.blamed() == {"sbom"}


@pytest.mark.parametrize("part", ["record", "sbom", "provenance"])
def test_names_a_missing_file(made: Made, part: str) -> None:
    getattr(made, part).unlink()
    assert made.blamed() == {part}


def test_refuses_statements_that_the_record_does_not_list(made: Made) -> None:
    """The statements were added after the record was written."""
    audit_record.save(dataclasses.replace(audit_record.load(made.record), evidence={}), made.folder)
    assert made.blamed() == {"sbom", "provenance"}


def test_finds_a_check_that_no_longer_passes(made: Made) -> None:
    """The audit runs again, and the record must agree with it."""
    parts = text_parts()
    parts.edit(f"{parts.dist_info}/METADATA", "Name: nvdiffrast", "Name: other")
    parts.members[f"nvdiffrast.libs/{CUDART}"] = b"the CUDA runtime"
    wheel = parts.write(made.folder)
    sbom.inject(wheel, bill(wheel, materials_of()))
    assert _state(wheel).blamed() == {"record"}


def test_reports_the_record_of_a_failed_audit(made: Made) -> None:
    assert _state(made.wheel, checks=(Check("metadata", "failed", "no"),)).blamed() == {"record"}


def _run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["verify", *arguments])
    return verify.main()


def test_the_command_line(made: Made, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(monkeypatch, str(made.wheel)) == 0
    assert "rebuild" not in capsys.readouterr().out
    _flip(made.sbom, 100)
    with pytest.raises(VerifyError, match="does not verify: sbom"):
        _run(monkeypatch, str(made.wheel), "--rebuild")
    assert "rebuild: not needed, there are problems already" in capsys.readouterr().out
    with pytest.raises(UsageError, match="no such file"):
        _run(monkeypatch, str(made.folder / "nowhere.whl"))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda stated: stated, None),
        (lambda stated: {**stated, "sbom": b"{}"}, "another bill of materials"),
        (lambda stated: {**stated, "provenance": stated["provenance"].replace(b'"2"', b'"3"')}, '"3"'),
    ],
    ids=["same", "sbom", "provenance"],
)
def test_compares_a_rebuild_with_all_files(
    made: Made,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[..., dict[str, bytes]],
    expected: str | None,
) -> None:
    stated = {"sbom": made.sbom.read_bytes(), "provenance": made.provenance.read_bytes()}
    monkeypatch.setattr(inputs, "gather", lambda *_: None)
    monkeypatch.setattr(cell_wheel, "make_wheel", lambda *_: made.wheel)
    monkeypatch.setattr(build, "statements", lambda *_: change(stated))
    found = verify.verify(made.wheel, made.folder, again=True)
    assert {finding.part for finding in found} == ({"rebuild"} if expected else set())
    assert expected is None or expected in found[0].text


def test_names_the_members_in_which_a_rebuild_differs(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other" / made.wheel.name
    other.parent.mkdir()
    parts = text_parts()
    parts.members["nvdiffrast/__init__.py"] = b"changed"
    parts.write(other.parent)
    stated = {"sbom": made.sbom.read_bytes(), "provenance": made.provenance.read_bytes()}
    monkeypatch.setattr(inputs, "gather", lambda *_: None)
    monkeypatch.setattr(cell_wheel, "make_wheel", lambda *_: other)
    monkeypatch.setattr(build, "statements", lambda *_: stated)
    (finding,) = verify.verify(made.wheel, made.folder, again=True)
    assert finding.part == "rebuild"
    assert "nvdiffrast/__init__.py: content" in finding.text


def test_verifying_changes_nothing(made: Made) -> None:
    before = {path: path.read_bytes() for path in made.folder.rglob("*") if path.is_file()}
    made.blamed()
    assert {path: path.read_bytes() for path in made.folder.rglob("*") if path.is_file()} == before
    assert json.loads(made.sbom.read_text())["bomFormat"] == "CycloneDX"
