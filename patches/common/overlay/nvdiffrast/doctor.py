"""Examine this installation of nvdiffrast and report every problem with the next step: `python -m nvdiffrast.doctor`.

Exit codes: 0 no check failed, 1 a check failed, 2 wrong options or an error of the doctor itself.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from . import _diagnosis, _doctor_compiling, _doctor_index, _doctor_probe, _installation
from . import _doctor_checks as checks
from . import _doctor_install as install
from ._doctor_checks import Findings, Plugin
from ._doctor_install import Advice, Machine
from ._doctor_lines import Line, Printer, count_states, exit_code
from ._doctor_share import Redaction, without_credentials
from ._hints import INDEX_VARIABLE
from ._problem import TROUBLESHOOTING

SCHEMA = 2
_PACKAGE = Path(__file__).resolve().parent
_INDEX = "index"
_CODES = f"each [code] is explained under the heading with its name in {TROUBLESHOOTING} of nvdiffrast-wheels"


class Report(NamedTuple):
    """The doctor's report: its ``lines``, the commands that ``install`` nvdiffrast, and the collected ``facts``."""

    lines: tuple[Line, ...]
    install: Advice
    facts: Mapping[str, Any]


class Question(NamedTuple):
    """A question, "can this machine <text>?"; the answer is no if one of ``lines`` has the state failed."""

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
    except Exception as error:  # a fault of the doctor is not a fault of the installation
        print(f"error: the doctor cannot examine this installation: {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    return exit_code(report.lines)


def examine(*, index: str | None, fix: bool = False, draw: bool = True) -> Report:
    """Examine the installation and return the report.

    index: the URL of an index for the installation commands; fix: first apply the repairs of --fix; draw: draw a
    triangle with a GPU.
    """
    fixed = list(_doctor_compiling.fix(os.environ)) if fix else []
    findings = _diagnose(draw)
    machine = install.this_machine(dict(findings.facts))
    advice, index_lines = _advice(machine, findings, index)
    python = {"executable": sys.executable, "managed": install.is_managed()}
    facts = {**findings.facts, **python, "machine": machine._asdict()}
    return Report((*fixed, *checks.report(findings), *index_lines), advice, facts)


def redacted(report: Report) -> Report:
    """Return the report without folders, the user, the host and the URL of the index."""
    redact = Redaction(report.facts)
    lines = [
        line._replace(text=redact(line.text), details=tuple(redact(line.details)), hint=redact(line.hint))
        for line in report.lines
    ]
    note, pip, uv = redact(list(report.install))
    return Report(tuple(lines), Advice(note, tuple(pip), tuple(uv)), redact(dict(report.facts)))


def show(report: Report, stream: TextIO, *, as_json: bool, questions: Sequence[Question] = ()) -> None:
    """Write the report and the answers to ``questions`` as text or as one JSON object."""
    if as_json:
        # json.dump writes only ASCII, which every console can show.
        json.dump(as_data(report, questions), stream, indent=2, sort_keys=True, default=str)
        stream.write("\n")
        return
    printer = Printer(stream)
    printer.report(report.lines)
    printer.line(", ".join(f"{count} {state}" for state, count in count_states(report.lines).items() if count))
    if any(line.code for line in report.lines):
        printer.line(_CODES)
    if questions:
        printer.line()
    for question in questions:
        printer.line(f"can this machine {question.text}? {_answer(question)}")
    _show_install(report.install, printer)


def _answer(question: Question) -> str:
    failed = [line.text for line in question.lines if line.state == "failed"]
    return f"no: {'; '.join(failed)}" if failed else "yes"


def _show_install(advice: Advice, printer: Printer) -> None:
    """Write the installation commands for each tool; write nothing if the advice is empty."""
    if not advice.note:
        return
    printer.line()
    printer.line(f"to install: {advice.note}")
    for tool, commands in (("pip", advice.pip), ("uv", advice.uv)):
        if commands:
            printer.line(f"  with {tool}:")
        for command in commands:
            printer.line(f"    {command}")


def as_data(report: Report, questions: Sequence[Question] = ()) -> dict[str, Any]:
    """Return the report in a form that JSON supports.

    With ``questions``, "answers" has the answer to each question, and "exit" is 0 if the last answer is yes.
    """
    lines = questions[-1].lines if questions else report.lines
    data = {
        "schema": SCHEMA,
        "exit": exit_code(lines),
        "counts": count_states(report.lines),
        "lines": [line._asdict() for line in report.lines],
        "install": report.install._asdict(),
        "facts": dict(report.facts),
    }
    if questions:
        data["answers"] = {question.text: not exit_code(question.lines) for question in questions}
    return data


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    description, codes = (__doc__ or "\n\n").split("\n\n")
    parser = argparse.ArgumentParser("python -m nvdiffrast.doctor", description=description, epilog=codes)
    parser.add_argument("--json", action="store_true", help="write one JSON object instead of text")
    parser.add_argument("--share", action="store_true", help="leave out folders, the user, the host and the index URL")
    parser.add_argument(
        "--fix",
        action="store_true",
        help="remove the locks of interrupted compilations, and create the folder in TORCH_EXTENSIONS_DIR",
    )
    parser.add_argument("--no-gpu", action="store_true", help="do not draw a triangle with the GPU")
    parser.add_argument(
        "--index-url",
        metavar="URL",
        default=os.environ.get(INDEX_VARIABLE) or None,
        help=f"the root URL of an index of wheels, for the installation commands (default: {INDEX_VARIABLE})",
    )
    return parser.parse_args(arguments)


def _diagnose(draw: bool) -> Findings:
    """Collect the facts, import every plugin, and draw a triangle with each kind of context that works."""
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
    return Findings(facts, plugins, triangles, package, draw)


def _plugin(file: Path) -> Plugin:
    imported = _doctor_probe.run("import", str(file))
    error = None if imported["ok"] else ImportError(imported["error"])
    optional = checks.is_optional(file.name)
    return Plugin(file, imported, tuple(_diagnosis.examine(file, error, device=not optional)))


def _advice(machine: Machine, findings: Findings, index: str | None) -> tuple[Advice, list[Line]]:
    """Return the installation commands and a line about the index; without an index the line is missing.

    The advice is empty if the index cannot be read, or if there is no index and a compiled wheel is installed.
    """
    if index:
        shown = without_credentials(index)
        try:
            wheels = _doctor_index.read(index)
        except _doctor_index.IndexRefusedError as error:
            details = ("The URL of an index is the part before /whl/ in a pip command.",)
            return Advice(""), [Line(_INDEX, "failed", f"{shown}: {error}", details, code="index")]
        line = Line(_INDEX, "passed", f"{shown}: {len(wheels)} wheels")
        return install.advice(machine, wheels, shown), [line]
    if findings.package is not None and findings.plugins:
        return Advice(""), []
    return Advice("--index-url with the URL of an index of wheels shows the commands for this machine"), []


if __name__ == "__main__":
    sys.exit(main())
