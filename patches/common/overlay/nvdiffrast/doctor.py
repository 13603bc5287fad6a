"""Report what of this installation works, what does not, and the next step: `python -m nvdiffrast.doctor`.

Exit codes: 0 nothing failed, 1 something did, 2 the question was wrong or could not be answered.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from . import _diagnosis, _doctor_compiling, _doctor_probe, _installation
from . import _doctor_checks as checks
from . import _doctor_install as install
from ._doctor_checks import Examined, Plugin
from ._doctor_install import Advice, Machine
from ._doctor_lines import Line, Printer, counted, exit_code
from ._doctor_share import Redaction, without_credentials

SCHEMA = 2
INDEX_VARIABLE = "NVDIFFRAST_INDEX_URL"
_PACKAGE = Path(__file__).resolve().parent
_INDEX = "index"
_CODES = 'each [code] has a heading of its name in the README of nvdiffrast-wheels, under "When it does not load"'


class Report(NamedTuple):
    """Everything that the doctor says: ``lines``, how to ``install``, and the ``facts`` behind them."""

    lines: tuple[Line, ...]
    install: Advice
    facts: Mapping[str, Any]


class Question(NamedTuple):
    """A question that a report answers, "can this machine <text>?", by the lines that belong to it."""

    text: str
    lines: tuple[Line, ...]


def main(arguments: Sequence[str] | None = None) -> int:
    """Examine the installation, print the report, and return the exit code."""
    options = _options(arguments)
    try:
        report = examine(index=options.index_url, fix=options.fix, draw=not options.no_gpu)
        if options.share:
            report = redacted(report)
        show(report, sys.stdout, as_json=options.json)
    except Exception as error:  # a fault of the doctor is not one of the installation, and is reported in one line
        print(f"error: the doctor cannot examine this installation: {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    return exit_code(report.lines)


def examine(*, index: str | None, fix: bool = False, draw: bool = True) -> Report:
    """Examine everything; ``fix`` first does what --fix may do, ``draw`` lets a GPU be used."""
    fixed = list(_doctor_compiling.fix(os.environ)) if fix else []
    examined = _examined(draw)
    machine = install.this_machine(dict(examined.facts))
    advice, of_index = _advice(machine, examined, index)
    python = {"executable": sys.executable, "managed": install.is_managed()}
    facts = {**examined.facts, **python, "machine": machine._asdict()}
    return Report((*fixed, *checks.lines(examined), *of_index), advice, facts)


def redacted(report: Report) -> Report:
    """Return the report without folders, user, host and the index's address."""
    redact = Redaction(report.facts)
    found = [
        line._replace(text=redact(line.text), details=tuple(redact(line.details)), hint=redact(line.hint))
        for line in report.lines
    ]
    note, pip, uv = redact(list(report.install))
    return Report(tuple(found), Advice(note, tuple(pip), tuple(uv)), redact(dict(report.facts)))


def show(report: Report, stream: TextIO, *, as_json: bool, questions: Sequence[Question] = ()) -> None:
    """Write the report and the answers to ``questions``, for a person or as one JSON object."""
    if as_json:
        # ASCII, so that any console can show it.
        json.dump(as_data(report, questions), stream, indent=2, sort_keys=True, default=str)
        stream.write("\n")
        return
    printer = Printer(stream)
    printer.write(report.lines)
    printer.say(", ".join(f"{count} {state}" for state, count in counted(report.lines).items() if count))
    if any(line.code for line in report.lines):
        printer.say(_CODES)
    if questions:
        printer.say()
    for question in questions:
        printer.say(f"can this machine {question.text}? {_answer(question)}")
    _show_install(report.install, printer)


def _answer(question: Question) -> str:
    failed = [line.text for line in question.lines if line.state == "failed"]
    return f"no: {'; '.join(failed)}" if failed else "yes"


def _show_install(advice: Advice, printer: Printer) -> None:
    """Write the commands that install, for each tool; nothing where nothing is to be installed."""
    if not advice.note:
        return
    printer.say()
    printer.say(f"to install: {advice.note}")
    for tool, commands in (("pip", advice.pip), ("uv", advice.uv)):
        if commands:
            printer.say(f"  with {tool}:")
        for command in commands:
            printer.say(f"    {command}")


def as_data(report: Report, questions: Sequence[Question] = ()) -> dict[str, Any]:
    """Return the report as JSON can hold it.

    With ``questions``, "answers" has an object for each, and "exit" is the answer to the last one.
    """
    lines = questions[-1].lines if questions else report.lines
    data = {
        "schema": SCHEMA,
        "exit": exit_code(lines),
        "counts": counted(report.lines),
        "lines": [line._asdict() for line in report.lines],
        "install": report.install._asdict(),
        "facts": dict(report.facts),
    }
    if questions:
        data["answers"] = {one.text: not exit_code(one.lines) for one in questions}
    return data


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
    parser.add_argument("--no-gpu", action="store_true", help="do not draw with the GPU")
    parser.add_argument(
        "--index-url",
        metavar="URL",
        default=os.environ.get(INDEX_VARIABLE) or None,
        help=f"the root of an index of wheels, for the commands at the end (default: {INDEX_VARIABLE})",
    )
    return parser.parse_args(arguments)


def _examined(draw: bool) -> Examined:
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
    return Examined(facts, plugins, triangles, package, draw)


def _plugin(file: Path) -> Plugin:
    imported = _doctor_probe.run("import", str(file))
    error = None if imported["ok"] else ImportError(imported["error"])
    optional = checks.is_optional(file.name)
    return Plugin(file, imported, tuple(_diagnosis.examine(file, error, device=not optional)))


def _advice(machine: Machine, examined: Examined, index: str | None) -> tuple[Advice, list[Line]]:
    """Return how to install from the index, and a line about the index; empty advice if nothing needs installing."""
    if index:
        shown = without_credentials(index)
        try:
            wheels = install.read_index(index)
        except install.IndexRefusedError as error:
            details = ("the address is what stands before /whl/ in a pip command",)
            return Advice(""), [Line(_INDEX, "failed", f"{shown}: {error}", details, code="index")]
        found = Line(_INDEX, "passed", f"{shown}: {len(wheels)} wheels")
        return install.advice(machine, wheels, shown), [found]
    if examined.package is not None and examined.plugins:
        return Advice(""), []
    return Advice("name an index of wheels with --index-url, and the commands for this machine are shown"), []


if __name__ == "__main__":
    sys.exit(main())
