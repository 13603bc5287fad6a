"""Do a wheel, its record, its bill of materials and its provenance agree, and does a rebuild give the same bytes?

nox -s verify -- WHEEL [--records DIR] [--rebuild]

Each of the four is looked at by itself and against the others, so that what does not fit is named. Nothing here is a
signature: who changes all four in step is found out by the rebuild alone. Exit status 0: all agree; 21: something does
not.
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
from scripts.build import build, reproduce
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
_HOLDS: dict[Part, str] = {
    "wheel": "is the file that its record and its provenance are about, and whole",
    "record": "is as it was written, and its checks hold",
    "sbom": "is valid, the same inside the wheel and beside it, and says what the wheel is made of",
    "provenance": "is as it was written, and names what the bill of materials names",
    "rebuild": "wheel, bill of materials and provenance come out the same, to the byte",
}


@dataclass(frozen=True)
class Finding:
    """Something that does not fit, and what it is a fault of."""

    part: Part
    text: str


@dataclass(frozen=True)
class Evidence:
    """A wheel and what is said of it; what cannot be read is None, and ``findings`` tell why.

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
        """build_info.json, where it can be read."""
        try:
            return BuildInfo.parse(self.unpacked.read(BUILD_INFO)) if self.unpacked else None
        except AuditError:
            return None

    @cached_property
    def cell(self) -> Cell | None:
        """The matrix' cell of the wheel, where there is one."""
        try:
            return audit.find_cell(self.unpacked) if self.unpacked else None
        except PipelineError:
            return None


# --- reading the four, each by itself


def gather(wheel: Path, folder: Path, scratch: Path) -> Evidence:
    """Read the wheel, and what ``folder`` holds about it; ``scratch`` is an empty folder to unpack it into.

    Raises:
        UsageError: there is no such wheel.
    """
    if not wheel.is_file():
        raise UsageError(f"{wheel}: no such file", hint="`nox -s build` makes one")
    sha256 = file_sha256(wheel)
    record, findings = _record(wheel, sha256, folder)
    about = record.sha256 if record else sha256
    read = Evidence(wheel, sha256, folder, record, None, None, None, ())
    path = audit_record.statement(about, "provenance", folder)
    wrong = _stated(path, "provenance", record)
    statement: Statement | None = None
    if wrong is None:
        try:
            statement = provenance.load(path)
        except VerifyError as error:
            wrong = str(error)
    findings += [Finding("provenance", wrong)] if wrong else []
    copy = audit_record.statement(about, "sbom", folder)
    wrong = _stated(copy, "sbom", record)
    findings += [Finding("sbom", wrong)] if wrong else []
    unpacked = None
    try:
        unpacked = wheel_file.unpack(wheel, scratch)
    except PipelineError as error:
        findings.append(Finding("wheel", str(error)))
    bill = copy.read_bytes() if copy.is_file() else None
    return dataclasses.replace(read, statement=statement, bill=bill, unpacked=unpacked, findings=tuple(findings))


def _record(wheel: Path, sha256: str, folder: Path) -> tuple[Record | None, list[Finding]]:
    """The wheel's record, found by its bytes, else by its name: then it is the bytes that are others."""
    try:
        record = audit_record.find(sha256, folder)
    except AuditError as error:
        return None, [Finding("record", str(error))]
    if record is not None:
        return record, []
    others = sorted(audit_record.about(wheel.name, folder), key=lambda one: one.time)
    if not others:
        return None, [Finding("record", f"there is none about sha256 {sha256} below {folder}")]
    return others[-1], [Finding("wheel", f"has sha256 {sha256}; its record is about {others[-1].sha256}")]


def _stated(path: Path, kind: Literal["sbom", "provenance"], record: Record | None) -> str | None:
    """What is wrong with the file of a statement: not there, or not the one that the record knows."""
    if not path.is_file():
        return f"{path} is not there"
    if record is None:
        return None
    found, known = file_sha256(path), record.evidence.get(kind)
    if known is None:
        return f"the record knows of none; {path.name} came later"
    return None if found == known else f"{path} has sha256 {found}; the record says {known}"


# --- holding them against each other


def examine(evidence: Evidence) -> list[Finding]:
    """Everything that does not fit, without a rebuild."""
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
    """Where the record is of the wheel and the statement is not, it is the statement that is wrong."""
    statement, record = evidence.statement, evidence.record
    if statement is None:
        return
    name, sha256 = statement.wheel
    if name != evidence.path.name:
        yield Finding("provenance", f"is about {name}")
    if sha256 != evidence.sha256 and (record is None or record.sha256 == evidence.sha256):
        yield Finding("provenance", f"is about sha256 {sha256}, the wheel has {evidence.sha256}")


def _check_sbom(evidence: Evidence) -> Iterator[Finding]:
    """The copy, the one inside, and the hash that the provenance states."""
    inside = _inside(evidence)
    if inside is None:
        if evidence.unpacked is not None:
            yield Finding("sbom", "there is none inside the wheel")
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


def _inside(evidence: Evidence) -> bytes | None:
    try:
        return evidence.unpacked.read(sbom.member(evidence.unpacked.dist_info)) if evidence.unpacked else None
    except AuditError:
        return None


def _check_agreement(evidence: Evidence) -> Iterator[Finding]:
    """Cell and architectures are the same everywhere; what the provenance names by hash the bill names too."""
    record, statement, info, inside = evidence.record, evidence.statement, evidence.info, _inside(evidence)
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
    """What it says holds: nothing fails that passed."""
    record = evidence.record
    assert record is not None
    assert evidence.cell is not None
    if record.outcome == "failed":
        yield Finding("record", "says that the wheel failed its audit")
    now = audit.audit(evidence.path, evidence.cell, allow_partial=record.partial)
    failed = {check.name: check.detail for check in now.checks if check.outcome == "failed"}
    for check in record.checks:
        if check.outcome == "passed" and check.name in failed:
            yield Finding("record", f"says that {check.name} passed; it fails: {failed[check.name]}")


# --- building it again


def rebuild(evidence: Evidence, folder: Path, *, source: Path | None = None) -> Iterator[Finding]:
    """Build the cell again as the provenance says, into ``folder``, from empty caches; what differs.

    Raises:
        PipelineError: it cannot be built here, or fails to.
    """
    statement = evidence.statement
    assert statement is not None
    chosen = statement.parameters
    (cell,) = matrix.load().select([chosen.cell])
    options = build.Options(
        engine=chosen.engine,
        architectures=tuple(chosen.architectures),
        image=chosen.image,
        source=source,
        output=folder,
        objects=None,
        kept=None,
    )
    inputs = build.gather(cell, options)
    made = build.make_wheel(cell, inputs, options)
    found, stated = file_sha256(made), build.statements(made, cell, inputs, options)
    if found != evidence.sha256:
        lines = reproduce.differences(evidence.path, made)
        yield Finding("rebuild", "\n  ".join([f"gives another wheel, sha256 {found}", *lines]))
    if stated["sbom"] != evidence.bill:
        yield Finding("rebuild", "gives another bill of materials")
    written = audit_record.statement(evidence.sha256, "provenance", evidence.folder).read_bytes()
    if stated["provenance"] != written:
        yield Finding("rebuild", f"gives another provenance: {_first_difference(written, stated['provenance'])}")


def _first_difference(one: bytes, other: bytes) -> str:
    lines = zip(one.decode().splitlines(), other.decode().splitlines(), strict=False)
    return next((f"{first.strip()} against {second.strip()}" for first, second in lines if first != second), "length")


# --- the command line


def verify(wheel: Path, folder: Path, *, again: bool, source: Path | None = None) -> list[Finding]:
    """Print what holds and what does not, and return the latter; ``again`` asks for a rebuild as well."""
    with tempfile.TemporaryDirectory(prefix="nvdiffrast-verify-") as scratch:
        base = Path(scratch).resolve()
        (base / "unpacked").mkdir()
        evidence = gather(wheel.absolute(), folder, base / "unpacked")
        findings = examine(evidence)
        if again and not findings:
            findings += rebuild(evidence, base / "rebuilt", source=source)
            looked_at = PARTS
        else:
            looked_at = PARTS[:-1]
    console.mark("info", f"{wheel.name} (sha256 {evidence.sha256})")
    for part in looked_at:
        wrong = [finding.text for finding in findings if finding.part == part]
        console.mark("failed" if wrong else "passed", f"{part}: {'; '.join(wrong) or _HOLDS[part]}")
    if again and looked_at != PARTS:
        console.mark("untested", "rebuild: what is wrong already shows without one")
    return findings


def main() -> int:
    """``nox -s verify -- WHEEL``."""
    parser = argparse.ArgumentParser(prog="nox -s verify --", description="Verify a wheel and what it states.")
    parser.add_argument("wheel", type=Path, metavar="WHEEL")
    parser.add_argument("--records", type=Path, metavar="DIR", help="the folder that holds records/ (the wheel's)")
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
