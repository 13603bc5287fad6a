"""Checks whether a wheel matches its cell, from the contents of the file only.

nox -s audit -- WHEEL... [--allow-partial] [--torch-environment DIR | --python P] [--records DIR]

The outcome of a check is passed, failed or untested. A check is untested if it is not possible on this machine. The
record is written beside the wheel. Exit status: 0 if all checks passed, 16 if a check failed, 3 if no check failed but
some are untested.
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
from scripts.audit.checks import (
    BUILD_INFO,
    CheckFunction,
    Subject,
    contents,
    imports,
    metadata,
    shared_libraries,
    tools,
)
from scripts.errors import AuditError, PipelineError, UntestedError, UsageError
from scripts.matrix import matrix
from scripts.model import Cell
from scripts.support.command_line import run_main
from scripts.wheel import audit_record, wheel_file
from scripts.wheel.audit_record import Check, Record
from scripts.wheel.build_info import BuildInfo
from scripts.wheel.wheel_file import Wheel

ARCHIVE, BILL = "archive", "bill-of-materials"
_ARCHIVE_PASSED = "The file is a complete zip archive, and all members are safe to unpack."


@dataclass(frozen=True)
class AuditCheck:
    """A check, and the statement that the record contains if it passes."""

    function: CheckFunction
    passed: str


# In the order of the record.
CHECKS: dict[str, AuditCheck] = {
    "file-name": AuditCheck(metadata.file_name, "The file has the name of its cell's wheel."),
    "metadata": AuditCheck(metadata.identity, "METADATA and the name of the dist-info folder match the cell."),
    "requirements": AuditCheck(metadata.requirements, "The wheel requires only numpy and the torch line of its cell."),
    "tags": AuditCheck(metadata.tags, "WHEEL states the tags of the cell, and that the wheel is not pure."),
    "record": AuditCheck(metadata.record, "RECORD lists every file with its hash and size, and nothing else."),
    "licence": AuditCheck(metadata.licence, "LICENSE.txt is complete and has the content of the source."),
    "build-info": AuditCheck(metadata.build_info, "build_info.json is well-formed and matches the cell."),
    BILL: AuditCheck(metadata.bill_of_materials, "The bill of materials is valid and matches the wheel."),
    "whole": AuditCheck(metadata.complete, "The wheel contains all architectures, or a partial wheel is allowed."),
    "plugins": AuditCheck(contents.plugins, "The wheel contains each plugin of the release once, for its Python."),
    "members": AuditCheck(contents.members, "The wheel contains no unexpected file and no invalid module name."),
    "sources": AuditCheck(contents.sources, "The wheel contains all files that the just-in-time fallback compiles."),
    "bundled": AuditCheck(shared_libraries.bundled, "Only the CUDA runtime is bundled."),
    "needed": AuditCheck(shared_libraries.needed, "The wheel depends only on permitted libraries."),
    "run-paths": AuditCheck(shared_libraries.run_paths, "RPATHs contain only the folder of the bundled libraries."),
    "symbol-versions": AuditCheck(
        shared_libraries.symbol_versions, "No library requires symbols newer than the platform tag permits."
    ),
    "architectures": AuditCheck(
        shared_libraries.architectures, "Each .cu file was compiled for exactly the required architectures."
    ),
    "debug-information": AuditCheck(shared_libraries.debug_information, "The plugins have no debug information."),
    "build-paths": AuditCheck(shared_libraries.build_paths, "No file contains a folder of the build machine."),
    "twine": AuditCheck(tools.twine, "twine check --strict renders the description."),
    "check-wheel-contents": AuditCheck(tools.check_wheel_contents, "check-wheel-contents reports no problem."),
    "import-cuda": AuditCheck(imports.cuda_plugin, "nvdiffrast.torch imports the precompiled CUDA plugin."),
    "import-gl": AuditCheck(imports.gl_plugin, "nvdiffrast.torch imports the precompiled GL plugin, if it has one."),
}
# PE files have neither an RPATH nor symbol versions.
_LINUX_ONLY = {"run-paths", "symbol-versions"}

_TOOLS = ("auditwheel", "check-wheel-contents", "cyclonedx-python-lib", "packaging", "pefile", "pyelftools", "twine")


def audit(
    wheel: Path,
    cell: Cell | None = None,
    *,
    cells: Sequence[Cell] | None = None,
    python: Path | None = None,
    torch_environment: Path | None = None,
    allow_partial: bool = False,
    finished: bool = True,
) -> Record:
    """Run all checks of a wheel and return the record.

    If ``cell`` is None, :func:`find_cell` searches it in ``cells``. ``torch_environment`` is a virtual environment with
    the torch version of the cell, ``python`` the interpreter of such an environment; without both, the import checks
    are untested. A partial wheel fails unless ``allow_partial``; its record never permits publishing. If the wheel is
    not ``finished``, the bill of materials is untested, because it is added later.

    Raises:
        AuditError: if the file does not exist, or belongs to no cell.
    """
    if not wheel.is_file():
        raise AuditError(f"{wheel}: no such file", hint="build one with `nox -s build`")
    interpreter = python or (torch_environment and _interpreter(torch_environment))
    with tempfile.TemporaryDirectory(prefix="nvdiffrast-audit-") as folder:
        try:
            unpacked = wheel_file.unpack(wheel.absolute(), Path(folder).resolve())
        except PipelineError as error:
            return _unreadable_record(wheel, cell, error)
        return audit_unpacked(
            unpacked,
            cell or find_cell(unpacked, cells),
            python=interpreter,
            allow_partial=allow_partial,
            finished=finished,
        )


def audit_unpacked(
    wheel: Wheel, cell: Cell, *, python: Path | None = None, allow_partial: bool = False, finished: bool = True
) -> Record:
    """Run every check on a wheel that is already unpacked; the parameters are those of :func:`audit`."""
    subject = Subject(wheel, cell, python, allow_partial)
    checks = [Check(ARCHIVE, "passed", _ARCHIVE_PASSED)]
    applicable = {name: check for name, check in CHECKS.items() if _applies(name, subject.cell)}
    if not finished:
        applicable[BILL] = AuditCheck(_untested_bill, "")
    checks += [_run(name, check, subject) for name, check in applicable.items()]
    partial = _is_partial(subject)
    return audit_record.make(wheel.path, subject.cell.id, tuple(checks), _tool_versions(), partial=partial)


def find_cell(wheel: Wheel, cells: Sequence[Cell] | None = None) -> Cell:
    """Return the cell whose wheel has this file name, or the cell that build_info.json names.

    ``cells`` are the cells of the matrix. If they are None, this function loads the matrix.

    Raises:
        AuditError: if neither cell exists.
    """
    if cells is None:
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
        f"{wheel.path.name}: no cell of the matrix has a wheel with this name or the cell id in its build_info.json",
        hint="`nox -s plan` lists the cells",
    )


def _applies(name: str, cell: Cell) -> bool:
    return name not in _LINUX_ONLY or not cell.platform.is_windows


def _untested_bill(subject: Subject) -> list[str]:
    raise UntestedError("the bill of materials is added last; the audit of the finished wheel checks it")


def _run(name: str, check: AuditCheck, subject: Subject) -> Check:
    try:
        problems = list(check.function(subject))
    except UntestedError as reason:
        return Check(name, "untested", str(reason))
    except PipelineError as error:
        problems = [str(error)]
    if problems:
        return Check(name, "failed", "; ".join(problems))
    return Check(name, "passed", check.passed)


def _unreadable_record(wheel: Path, cell: Cell | None, error: PipelineError) -> Record:
    """Return the record of a file that cannot be unpacked; all other checks are untested."""
    rest = [Check(name, "untested", "the archive is not readable") for name in CHECKS]
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
            # Do not resolve the link: its target is the interpreter outside of the environment.
            return (environment / name).absolute()
    raise UsageError(f"{environment} is not a virtual environment: it has no bin/python")


def _tool_versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{tool: version(tool) for tool in _TOOLS}}


def show(record: Record, seconds: float) -> None:
    """Print the checks of a record and the outcome."""
    console.mark("info", f"{record.wheel} ({record.size / 1e6:.2f} MB, sha256 {record.sha256})")
    for check in record.checks:
        console.mark(check.outcome, f"{check.name}: {check.detail}")
    count = {outcome: sum(check.outcome == outcome for check in record.checks) for outcome in audit_record.OUTCOMES}
    counted = ", ".join(f"{number} {outcome}" for outcome, number in count.items())
    partial = "; partial: must not be published" if record.partial else ""
    console.mark(record.outcome, f"{record.outcome}: {counted}{partial} ({seconds:.1f} s)")


@dataclass(frozen=True)
class _Options:
    wheels: Sequence[Path]
    allow_partial: bool
    python: Path | None
    torch_environment: Path | None
    records: Path | None


def _parse() -> _Options:
    parser = argparse.ArgumentParser(prog="nox -s audit --", description="Check whether wheels match their cells.")
    parser.add_argument("wheels", nargs="+", type=Path, metavar="WHEEL")
    parser.add_argument(
        "--allow-partial", action="store_true", help="accept a wheel that does not contain all architectures"
    )
    environment = parser.add_mutually_exclusive_group()
    environment.add_argument(
        "--torch-environment", type=Path, metavar="DIR", help="import the wheel in this virtual environment"
    )
    environment.add_argument("--python", type=Path, metavar="P", help="import the wheel with this interpreter")
    parser.add_argument("--records", type=Path, metavar="DIR", help="write records/ below DIR, not beside the wheel")
    return _Options(**vars(parser.parse_args()))


def main() -> int:
    """Audit wheels, print and write their records."""
    options = _parse()
    cells = matrix.load().cells
    outcomes = set()
    for wheel in options.wheels:
        begin = time.monotonic()
        record = audit(
            wheel,
            cells=cells,
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
