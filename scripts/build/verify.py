"""Verify that a wheel, its record, its bill of materials and its provenance agree, and that a rebuild is identical.

nox -s verify -- WHEEL [--records DIR] [--rebuild]

Each of the four files is checked alone and against the others, and the report names the file that is wrong. None of
them is signed: if all four were changed consistently, only the rebuild detects it. Exit status 0: all agree; 21: there
is a disagreement.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from scripts import console
from scripts.audit import audit
from scripts.audit.checks import BUILD_INFO
from scripts.build import build, cell_wheel, reproduce
from scripts.build import inputs as inputs_module
from scripts.build.inputs import Options
from scripts.errors import AuditError, PipelineError, UsageError, VerifyError
from scripts.matrix import matrix
from scripts.model import Cell
from scripts.support.command_line import run_main
from scripts.support.files import file_sha256
from scripts.wheel import audit_record, provenance, sbom, wheel_file
from scripts.wheel.audit_record import Record
from scripts.wheel.build_info import BuildInfo
from scripts.wheel.provenance import Statement
from scripts.wheel.wheel_file import Wheel

Part = Literal["wheel", "record", "sbom", "provenance", "rebuild"]
PARTS: tuple[Part, ...] = ("wheel", "record", "sbom", "provenance", "rebuild")
_PASSED: dict[Part, str] = {
    "wheel": "is complete, and the file that its record and its provenance describe",
    "record": "is unchanged since it was written, and its checks still pass",
    "sbom": "is valid, the same inside the wheel and beside it, and matches the wheel",
    "provenance": "is unchanged since it was written, and names the same materials as the bill of materials",
    "rebuild": "wheel, bill of materials and provenance are identical to the byte",
}


@dataclass(frozen=True)
class Finding:
    """A problem, and the part that has it."""

    part: Part
    text: str


@dataclass(frozen=True)
class Evidence:
    """A wheel and the files that describe it. A file that cannot be read is None, and ``findings`` has the reason.

    ``bill`` is the copy of the bill of materials beside the record, ``unpacked`` the wheel's content.
    """

    path: Path
    sha256: str
    folder: Path
    record: Record | None
    statement: Statement | None
    bill: bytes | None
    unpacked: Wheel | None
    findings: tuple[Finding, ...]

    @cached_property
    def info(self) -> BuildInfo | None:
        """Return build_info.json, or None if it cannot be read."""
        try:
            return BuildInfo.parse(self.unpacked.read(BUILD_INFO)) if self.unpacked else None
        except AuditError:
            return None

    @cached_property
    def cell(self) -> Cell | None:
        """Return the wheel's cell of the matrix, or None if no cell matches."""
        try:
            return audit.find_cell(self.unpacked) if self.unpacked else None
        except PipelineError:
            return None


# --- reading each file


def read_evidence(wheel: Path, folder: Path, scratch: Path) -> Evidence:
    """Read a wheel and the files about it below ``folder``; the wheel is unpacked into the empty folder ``scratch``.

    Raises:
        UsageError: if the wheel does not exist.
    """
    if not wheel.is_file():
        raise UsageError(f"{wheel}: no such file", hint="`nox -s build` makes one")
    sha256 = file_sha256(wheel)
    record, findings = _read_record(wheel, sha256, folder)
    about = record.sha256 if record else sha256
    read = Evidence(wheel, sha256, folder, record, None, None, None, ())
    path = audit_record.statement_path(about, "provenance", folder)
    problem = _file_problem(path, "provenance", record)
    statement: Statement | None = None
    if problem is None:
        try:
            statement = provenance.load(path)
        except VerifyError as error:
            problem = str(error)
    findings += [Finding("provenance", problem)] if problem else []
    copy = audit_record.statement_path(about, "sbom", folder)
    problem = _file_problem(copy, "sbom", record)
    findings += [Finding("sbom", problem)] if problem else []
    unpacked = None
    try:
        unpacked = wheel_file.unpack(wheel, scratch)
    except PipelineError as error:
        findings.append(Finding("wheel", str(error)))
    bill = copy.read_bytes() if copy.is_file() else None
    return dataclasses.replace(read, statement=statement, bill=bill, unpacked=unpacked, findings=tuple(findings))


def _read_record(wheel: Path, sha256: str, folder: Path) -> tuple[Record | None, list[Finding]]:
    """Return the record of the wheel's bytes, else the latest record of its file name, with the problems found."""
    try:
        record = audit_record.find(sha256, folder)
    except AuditError as error:
        return None, [Finding("record", str(error))]
    if record is not None:
        return record, []
    others = sorted(audit_record.find_by_name(wheel.name, folder), key=lambda one: one.time)
    if not others:
        return None, [Finding("record", f"no record of sha256 {sha256} below {folder}")]
    return others[-1], [Finding("wheel", f"has sha256 {sha256}; its record is about {others[-1].sha256}")]


def _file_problem(path: Path, kind: Literal["sbom", "provenance"], record: Record | None) -> str | None:
    """Return why a statement's file is wrong: it is missing, or its sha256 is not the one in the record; else None."""
    if not path.is_file():
        return f"{path} does not exist"
    if record is None:
        return None
    found, known = file_sha256(path), record.evidence.get(kind)
    if known is None:
        return f"{path.name} was added after the record was written"
    return None if found == known else f"{path} has sha256 {found}; the record says {known}"


# --- comparing the files


def examine(evidence: Evidence) -> list[Finding]:
    """Return every problem that can be found without a rebuild."""
    found = list(evidence.findings)
    for check in (_check_wheel, _check_provenance, _check_sbom, _check_agreement):
        found += check(evidence)
    if not found:
        found += _check_record(evidence)
    return found


def _check_wheel(evidence: Evidence) -> Iterator[Finding]:
    if evidence.unpacked is None:
        return
    for problem in wheel_file.record_problems(evidence.unpacked):
        yield Finding("wheel", problem)
    if evidence.info is None:
        yield Finding("wheel", "its build_info.json cannot be read")
    if evidence.cell is None:
        yield Finding("wheel", "no cell of the matrix makes it")


def _check_provenance(evidence: Evidence) -> Iterator[Finding]:
    """Compare the statement with the wheel; if the record matches the wheel, the statement is the wrong one."""
    statement, record = evidence.statement, evidence.record
    if statement is None:
        return
    name, sha256 = statement.wheel
    if name != evidence.path.name:
        yield Finding("provenance", f"is about {name}")
    if sha256 != evidence.sha256 and (record is None or record.sha256 == evidence.sha256):
        yield Finding("provenance", f"is about sha256 {sha256}, the wheel has {evidence.sha256}")


def _check_sbom(evidence: Evidence) -> Iterator[Finding]:
    """Compare the copy, the bill of materials inside the wheel, and the hash in the provenance."""
    inside = _bill_inside(evidence)
    if inside is None:
        if evidence.unpacked is not None:
            yield Finding("sbom", "the wheel contains no bill of materials")
        return
    digests = {"inside the wheel": hashlib.sha256(inside).hexdigest()}
    if evidence.bill is not None:
        digests["beside the record"] = hashlib.sha256(evidence.bill).hexdigest()
    if evidence.statement is not None:
        digests["in the provenance"] = evidence.statement.bill
    if len(set(digests.values())) > 1:
        yield Finding("sbom", "differs: " + ", ".join(f"{digest} {place}" for place, digest in digests.items()))
    if evidence.unpacked and evidence.cell and evidence.info:
        for problem in sbom.problems(evidence.unpacked, evidence.cell, evidence.info):
            yield Finding("sbom", problem)


def _bill_inside(evidence: Evidence) -> bytes | None:
    try:
        return evidence.unpacked.read(sbom.member(evidence.unpacked.dist_info)) if evidence.unpacked else None
    except AuditError:
        return None


def _check_agreement(evidence: Evidence) -> Iterator[Finding]:
    """Check that all files have the same cell and architectures, and that the bill has each hash of the provenance."""
    record, statement, info, inside = evidence.record, evidence.statement, evidence.info, _bill_inside(evidence)
    if info is None:
        return
    if record is not None and (record.cell, record.wheel) != (info.cell, evidence.path.name):
        yield Finding("record", f"is about {record.wheel}, cell {record.cell}; the wheel says {info.cell}")
    if statement is None or inside is None:
        return
    chosen = sorted(number.removesuffix("+PTX") for number in statement.parameters.architectures)
    if (statement.parameters.cell, chosen) != (info.cell, sorted(info.architectures.sass)):
        yield Finding("provenance", f"is of {statement.parameters.cell} for {', '.join(chosen)}")
    for digest, name in statement.digests.items():
        if digest not in inside.decode("utf-8", "replace"):
            yield Finding("provenance", f"names {name} of {digest}; the bill of materials does not")


def _check_record(evidence: Evidence) -> Iterator[Finding]:
    """Audit the wheel again, and check that every check that passed still passes."""
    record = evidence.record
    assert record is not None
    assert evidence.cell is not None
    if record.outcome == "failed":
        yield Finding("record", "states that the wheel failed its audit")
    now = audit.audit(evidence.path, evidence.cell, allow_partial=record.partial)
    failed = {check.name: check.detail for check in now.checks if check.outcome == "failed"}
    for check in record.checks:
        if check.outcome == "passed" and check.name in failed:
            yield Finding("record", f"states that {check.name} passed; it fails: {failed[check.name]}")


# --- building it again


def rebuild(evidence: Evidence, folder: Path, *, source: Path | None = None) -> Iterator[Finding]:
    """Build the cell again with the parameters of the provenance, into ``folder``, and yield the differences.

    Results of earlier builds are not used.

    Raises:
        PipelineError: if the cell cannot be built here, or its build fails.
    """
    statement = evidence.statement
    assert statement is not None
    chosen = statement.parameters
    (cell,) = matrix.load().select([chosen.cell])
    options = Options(
        engine=chosen.engine,
        architectures=tuple(chosen.architectures),
        image=chosen.image,
        source=source,
        output=folder,
        objects=None,
        kept=None,
    )
    inputs = inputs_module.gather(cell, options)
    made = cell_wheel.make_wheel(inputs, options)
    found, stated = file_sha256(made), build.statements(wheel_file.unpack(made, folder / "unpacked"), inputs)
    if found != evidence.sha256:
        lines = reproduce.differences(evidence.path, made)
        yield Finding("rebuild", "\n  ".join([f"gives another wheel, sha256 {found}", *lines]))
    if stated["sbom"] != evidence.bill:
        yield Finding("rebuild", "gives another bill of materials")
    written = audit_record.statement_path(evidence.sha256, "provenance", evidence.folder).read_bytes()
    if stated["provenance"] != written:
        yield Finding("rebuild", f"gives another provenance: {_first_difference(written, stated['provenance'])}")


def _first_difference(one: bytes, other: bytes) -> str:
    lines = zip(one.decode().splitlines(), other.decode().splitlines(), strict=False)
    return next((f"{first.strip()} against {second.strip()}" for first, second in lines if first != second), "length")


# --- the command line


def verify(wheel: Path, folder: Path, *, again: bool, source: Path | None = None) -> list[Finding]:
    """Print one line per part and return the problems; with ``again`` also build the wheel again."""
    with tempfile.TemporaryDirectory(prefix="nvdiffrast-verify-") as scratch:
        base = Path(scratch).resolve()
        (base / "unpacked").mkdir()
        evidence = read_evidence(wheel.absolute(), folder, base / "unpacked")
        findings = examine(evidence)
        if again and not findings:
            findings += rebuild(evidence, base / "rebuilt", source=source)
            checked = PARTS
        else:
            checked = PARTS[:-1]
    console.mark("info", f"{wheel.name} (sha256 {evidence.sha256})")
    for part in checked:
        problems = [finding.text for finding in findings if finding.part == part]
        console.mark("failed" if problems else "passed", f"{part}: {'; '.join(problems) or _PASSED[part]}")
    if again and checked != PARTS:
        console.mark("untested", "rebuild: not needed, there are problems already")
    return findings


def main() -> int:
    """Verify the wheel that the command line names."""
    parser = argparse.ArgumentParser(prog="nox -s verify --", description="Verify a wheel and the files about it.")
    parser.add_argument("wheel", type=Path, metavar="WHEEL")
    parser.add_argument(
        "--records", type=Path, metavar="DIR", help="the folder that has records/ (default: the wheel's)"
    )
    parser.add_argument("--rebuild", action="store_true", help="build it again and compare the bytes")
    parser.add_argument("--source", type=Path, help="for the rebuild: a checkout, mirror or wheel of the release")
    parsed = parser.parse_args()
    folder = parsed.records or parsed.wheel.absolute().parent
    findings = verify(parsed.wheel, folder, again=parsed.rebuild, source=parsed.source)
    if findings:
        wrong = [part for part in PARTS if any(finding.part == part for finding in findings)]
        raise VerifyError(
            f"{parsed.wheel.name} does not verify: {', '.join(wrong)}",
            hint="do not use it; build it again from a clean checkout: nox -s build",
        )
    return 0


if __name__ == "__main__":
    run_main(main, uses_cache=True)
