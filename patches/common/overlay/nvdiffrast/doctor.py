"""Says what of this installation works, what does not, and how to mend it: `python -m nvdiffrast.doctor`.

Exit codes: 0 nothing failed, 1 something did, 2 the question was wrong or could not be answered.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from . import _diagnosis, _doctor_probe, _installation
from . import _doctor_checks as checks
from . import _doctor_install as install
from ._doctor_checks import Patient, Plugin
from ._doctor_install import Advice, Machine
from ._doctor_lines import Line, Paper, counted, exit_code
from ._doctor_share import Redaction, without_credentials

SCHEMA = 1
INDEX_VARIABLE = "NVDIFFRAST_INDEX_URL"
_PACKAGE = Path(__file__).resolve().parent
_FIXED, _INDEX = "fixed", "index"


class Report(NamedTuple):
    """All that the doctor says: ``lines``, how to ``install``, and the ``facts`` behind them."""

    lines: tuple[Line, ...]
    install: Advice
    facts: Mapping[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Examine, print, and give the exit code."""
    options = _options(arguments)
    try:
        report = examine(index=options.index_url, fix=options.fix, draw=not options.no_gpu)
        if options.share:
            report = redacted(report)
        show(report, sys.stdout, as_json=options.json)
    except Exception as error:  # a doctor's own mistake is not the patient's, and no reason for a traceback
        print(f"error: the doctor cannot say: {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    return exit_code(report.lines)


def examine(*, index: str | None, fix: bool = False, draw: bool = True) -> Report:
    """Look at everything; ``fix`` mends first what can be mended without risk, ``draw`` lets a GPU be used."""
    fixed = list(_mended(os.environ)) if fix else []
    patient = _patient(draw)
    machine = install.this_machine(dict(patient.facts))
    advice, unread = _advice(machine, patient, index)
    facts = {**patient.facts, "machine": machine._asdict()}
    return Report((*fixed, *checks.lines(patient), *unread), advice, facts)


def redacted(report: Report) -> Report:
    """The same without what says whose machine it is."""
    redact = Redaction(report.facts)
    found = [
        line._replace(text=redact(line.text), details=tuple(redact(line.details)), mend=redact(line.mend))
        for line in report.lines
    ]
    note, pip, uv = redact(list(report.install))
    return Report(tuple(found), Advice(note, tuple(pip), tuple(uv)), redact(dict(report.facts)))


def show(report: Report, stream: TextIO, *, as_json: bool) -> None:
    """Write the report, for a person or as one JSON object."""
    if as_json:
        # ASCII, so that any console can carry it.
        stream.write(json.dumps(as_data(report), indent=2, sort_keys=True, default=str) + "\n")
        return
    paper = Paper(stream)
    paper.write(report.lines)
    paper.say(", ".join(f"{count} {state}" for state, count in counted(report.lines).items() if count))
    paper.say()
    paper.say(f"to install: {report.install.note}")
    for command in (*report.install.pip, *report.install.uv):
        paper.say(f"  {command}")


def as_data(report: Report) -> dict[str, Any]:
    """The report as JSON can hold it."""
    return {
        "schema": SCHEMA,
        "exit": exit_code(report.lines),
        "counts": counted(report.lines),
        "lines": [line._asdict() for line in report.lines],
        "install": report.install._asdict(),
        "facts": dict(report.facts),
    }


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    description, codes = (__doc__ or "\n\n").split("\n\n")
    parser = argparse.ArgumentParser("python -m nvdiffrast.doctor", description=description, epilog=codes)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    parser.add_argument("--share", action="store_true", help="leave out folders, user, host and the index's address")
    parser.add_argument(
        "--fix",
        action="store_true",
        help="remove what an interrupted compilation left, and make the folder that TORCH_EXTENSIONS_DIR names",
    )
    parser.add_argument("--no-gpu", action="store_true", help="draw nothing")
    parser.add_argument(
        "--index-url",
        metavar="URL",
        default=os.environ.get(INDEX_VARIABLE) or None,
        help=f"the root of an index of wheels, for the commands at the end (default: {INDEX_VARIABLE})",
    )
    return parser.parse_args(arguments)


def _patient(draw: bool) -> Patient:
    facts = _installation.describe(torch=True)
    package = _PACKAGE if (_PACKAGE / "__init__.py").is_file() else None
    plugins = tuple(_plugin(Path(file)) for file in facts.get("plugins") or ())
    usable = (
        {plugin.optional for plugin in plugins if plugin.imported["ok"]} if draw and facts.get("devices") else set()
    )
    triangles = {}
    if False in usable:
        triangles["cuda"] = _doctor_probe.run("triangle", "cuda")
    if usable == {False, True}:
        triangles["gl"] = _doctor_probe.run("triangle", "gl")
    return Patient(facts, plugins, triangles, package)


def _plugin(file: Path) -> Plugin:
    imported = _doctor_probe.run("import", str(file))
    error = None if imported["ok"] else ImportError(imported["error"])
    optional = file.name.startswith("nvdiffrast_plugin_gl")
    return Plugin(file, imported, tuple(_diagnosis.examine(file, error, device=not optional)))


def _advice(machine: Machine, patient: Patient, index: str | None) -> tuple[Advice, list[Line]]:
    """How to install, and what was wrong with the index."""
    info = patient.facts.get("build_info")
    unread = []
    if index:
        shown = without_credentials(index)
        try:
            wheels = install.read_index(index)
        except install.IndexRefusedError as error:
            mend = "check the address: it is what stands before /whl/ in a pip command"
            unread.append(Line(_INDEX, "failed", f"{shown}: {error}", mend=mend, code="index"))
        else:
            found = Line(_INDEX, "passed", f"{shown}: {len(wheels)} wheels")
            return install.advice(machine, wheels, shown), [found]
    if isinstance(info, dict):
        return install.of_build_info(machine, info), unread
    return Advice("name an index of wheels with --index-url, and the commands for this machine are here"), unread


def _mended(environ: Mapping[str, str]) -> Iterator[Line]:
    """Do what --fix may: nothing of it can be lost or changes what works."""
    for lock in checks.stale_locks(environ):
        yield _tried(f"removed {lock}", lock.unlink)
    folder = checks.extensions_folder(environ)
    if environ.get("TORCH_EXTENSIONS_DIR") and not folder.exists():
        yield _tried(f"made {folder}", lambda: folder.mkdir(parents=True))


def _tried(text: str, act: Any) -> Line:
    try:
        act()
    except OSError as error:
        return Line(_FIXED, "failed", f"not {text}: {error}")
    return Line(_FIXED, "passed", text)


if __name__ == "__main__":
    sys.exit(main())
