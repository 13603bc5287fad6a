"""Is a wheel what its cell says? Looks at the file, never at how it was made.

nox -s audit -- WHEEL... [--allow-partial] [--torch-environment DIR | --python P] [--records DIR]

Every check passes, fails, or is untested: it could not be made here, which never counts as passed. What was found is
written as a record beside the wheel. Exit status 0: all passed; 16: something failed; 3: nothing failed, something is
untested.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from scripts import console
from scripts.audit.checks import BUILD_INFO, CheckFunction, Subject, binaries, contents, imports, metadata, tools
from scripts.errors import AuditError, PipelineError, UntestedError, UsageError
from scripts.matrix import matrix
from scripts.model import Cell
from scripts.support.command_line import run_main
from scripts.wheel import audit_record, wheel_file
from scripts.wheel.audit_record import Check, Record
from scripts.wheel.build_info import BuildInfo
from scripts.wheel.wheel_file import Wheel

ARCHIVE, BILL = "archive", "bill-of-materials"
_ARCHIVE_PASSED = "A whole zip archive, every member of which is safe to unpack."

# In the order in which they are shown. The first line of a function's docstring is what holds when it passes.
CHECKS: dict[str, CheckFunction] = {
    "file-name": metadata.file_name,
    "metadata": metadata.identity,
    "requirements": metadata.requirements,
    "tags": metadata.tags,
    "record": metadata.record,
    "licence": metadata.licence,
    "build-info": metadata.build_info,
    BILL: metadata.bill_of_materials,
    "whole": metadata.whole,
    "plugins": contents.plugins,
    "members": contents.members,
    "sources": contents.sources,
    "bundled": binaries.bundled,
    "needed": binaries.needed,
    "run-paths": binaries.run_paths,
    "symbol-versions": binaries.symbol_versions,
    "architectures": binaries.architectures,
    "debug-information": binaries.debug_information,
    "build-paths": binaries.build_paths,
    "twine": tools.twine,
    "check-wheel-contents": tools.check_wheel_contents,
    "import-cuda": imports.cuda_plugin,
    "import-gl": imports.gl_plugin,
}
# These have no meaning for a PE file: it has no RPATH and no symbol versions.
_LINUX_ONLY = {"run-paths", "symbol-versions"}

_TOOLS = ("auditwheel", "check-wheel-contents", "cyclonedx-python-lib", "packaging", "pefile", "pyelftools", "twine")


def audit(
    wheel: Path,
    cell: Cell | None = None,
    *,
    python: Path | None = None,
    torch_environment: Path | None = None,
    allow_partial: bool = False,
    finished: bool = True,
) -> Record:
    """Make every check of a wheel.

    ``cell`` is looked up by the file's name, then by build_info.json, if it is not given. ``torch_environment`` is a
    virtual environment with the torch that the wheel is for, or ``python`` its interpreter; without either the import
    is untested. A partial wheel fails unless ``allow_partial``; its record is never one of a release.
    One that is not ``finished`` has no bill of materials yet, which is then untested.

    Raises:
        AuditError: the file is not there, or is no wheel of any cell of the matrix.
    """
    if not wheel.is_file():
        raise AuditError(f"{wheel}: no such file", hint="`nox -s build` makes one")
    interpreter = python or (torch_environment and _interpreter(torch_environment))
    with tempfile.TemporaryDirectory(prefix="nvdiffrast-audit-") as folder:
        try:
            unpacked = wheel_file.unpack(wheel.absolute(), Path(folder).resolve())
        except PipelineError as error:
            return _unreadable(wheel, cell, error)
        return audit_unpacked(
            unpacked, cell or find_cell(unpacked), python=interpreter, allow_partial=allow_partial, finished=finished
        )


def audit_unpacked(
    wheel: Wheel, cell: Cell, *, python: Path | None = None, allow_partial: bool = False, finished: bool = True
) -> Record:
    """Run every check on a wheel that is already unpacked; the parameters are those of :func:`audit`."""
    subject = Subject(wheel, cell, python, allow_partial)
    checks = [Check(ARCHIVE, "passed", _ARCHIVE_PASSED)]
    made = {name: check for name, check in CHECKS.items() if _applies(name, subject.cell)}
    if not finished:
        made[BILL] = _not_yet
    checks += [_run(name, function, subject) for name, function in made.items()]
    partial = _is_partial(subject)
    return audit_record.make(wheel.path, subject.cell.id, tuple(checks), _tool_versions(), partial=partial)


def find_cell(wheel: Wheel) -> Cell:
    """The cell of the matrix that makes a wheel of that name, else the one that build_info.json names.

    Raises:
        AuditError: there is neither.
    """
    cells = matrix.load().cells
    by_name = {cell.wheel: cell for cell in cells}
    if wheel.path.name in by_name:
        return by_name[wheel.path.name]
    try:
        stated = BuildInfo.parse(wheel.read(BUILD_INFO)).cell
    except AuditError:
        stated = None
    for cell in cells:
        if cell.id == stated:
            return cell
    raise AuditError(
        f"{wheel.path.name}: no cell of the matrix makes a wheel of this name, and its build_info.json names none",
        hint="`nox -s plan` lists the wheels that there are",
    )


def _applies(name: str, cell: Cell) -> bool:
    return name not in _LINUX_ONLY or cell.platform.name.startswith("linux")


def _not_yet(subject: Subject) -> list[str]:
    raise UntestedError("comes into the wheel last; the audit of the finished wheel looks at it")


def _run(name: str, function: CheckFunction, subject: Subject) -> Check:
    try:
        problems = list(function(subject))
    except UntestedError as reason:
        return Check(name, "untested", str(reason))
    except PipelineError as error:
        problems = [str(error)]
    if problems:
        return Check(name, "failed", "; ".join(problems))
    return Check(name, "passed", (function.__doc__ or name).splitlines()[0])


def _unreadable(wheel: Path, cell: Cell | None, error: PipelineError) -> Record:
    """The record of a file that could not be unpacked: nothing else can be looked at."""
    rest = [Check(name, "untested", "the archive could not be read") for name in CHECKS]
    checks = (Check(ARCHIVE, "failed", str(error)), *rest)
    return audit_record.make(wheel, cell.id if cell else "", checks, _tool_versions(), partial=False)


def _is_partial(subject: Subject) -> bool:
    try:
        return subject.info.partial
    except AuditError:
        return False


def _interpreter(environment: Path) -> Path:
    for name in ("bin/python", "Scripts/python.exe"):
        if (environment / name).exists():
            # Not resolved: behind the link lies the interpreter that knows nothing of the environment.
            return (environment / name).absolute()
    raise UsageError(f"{environment} is no virtual environment: no bin/python in it")


def _tool_versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{tool: version(tool) for tool in _TOOLS}}


def show(record: Record, seconds: float) -> None:
    """Print a record as a checklist."""
    console.mark("info", f"{record.wheel} ({record.size / 1e6:.2f} MB, sha256 {record.sha256})")
    for check in record.checks:
        console.mark(check.outcome, f"{check.name}: {check.detail}")
    count = {outcome: sum(check.outcome == outcome for check in record.checks) for outcome in audit_record.OUTCOMES}
    counted = ", ".join(f"{number} {outcome}" for outcome, number in count.items())
    partial = "; partial: not for release" if record.partial else ""
    console.mark(record.outcome, f"{record.outcome}: {counted}{partial} ({seconds:.1f} s)")


@dataclass(frozen=True)
class _Options:
    wheels: Sequence[Path]
    allow_partial: bool
    python: Path | None
    torch_environment: Path | None
    records: Path | None


def _parse() -> _Options:
    parser = argparse.ArgumentParser(prog="nox -s audit --", description="Check wheels against their cells.")
    parser.add_argument("wheels", nargs="+", type=Path, metavar="WHEEL")
    parser.add_argument("--allow-partial", action="store_true", help="let a wheel of narrowed architectures pass")
    environment = parser.add_mutually_exclusive_group()
    environment.add_argument("--torch-environment", type=Path, metavar="DIR", help="import in this virtual environment")
    environment.add_argument("--python", type=Path, metavar="P", help="import with this interpreter")
    parser.add_argument("--records", type=Path, metavar="DIR", help="write records/ below DIR, not beside the wheel")
    return _Options(**vars(parser.parse_args()))


def main() -> int:
    """Audit wheels, show and write their records."""
    options = _parse()
    outcomes = set()
    for wheel in options.wheels:
        begin = time.monotonic()
        record = audit(
            wheel,
            python=options.python,
            torch_environment=options.torch_environment,
            allow_partial=options.allow_partial,
        )
        show(record, time.monotonic() - begin)
        folder = options.records or wheel.parent
        path = audit_record.save(audit_record.with_evidence(record, folder), folder)
        console.mark("info", f"record: {path}")
        outcomes.add(record.outcome)
    if "failed" in outcomes:
        return AuditError.exit_code
    return UntestedError.exit_code if "untested" in outcomes else 0


if __name__ == "__main__":
    run_main(main)
