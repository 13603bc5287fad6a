"""Check whether this machine can build wheels, and whether one of its Pythons can run nvdiffrast.

The second check is `python -m nvdiffrast.doctor` of an installed wheel; here the Python of --python runs the same code,
even if nvdiffrast is not installed there. Exit codes: 0 this machine can build, 1 it cannot, 2 usage error.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from scripts.doctor import can_build, install_advice
from scripts.errors import CommandError, UsageError
from scripts.matrix import matrix
from scripts.matrix.matrix import Matrix
from scripts.model import ROOT, Cell
from scripts.support.command_line import run_main
from scripts.support.process import call, which

OVERLAY = ROOT / "patches" / "common" / "overlay" / "nvdiffrast"
BUILT, BUILDING = "wheels in dist", "to build wheels"
_START = Path(__file__).with_name("start_doctor.py")
_TIMEOUT_SECONDS = 900
# Only Pythons of Linux distributions are marked as managed by the system.
_ACTIVATE = ". .venv/bin/activate"


def main() -> int:
    """Examine the Python and the machine, print the report, and return the exit code."""
    options = _options()
    overlay = load_overlay()
    report = of_python(overlay, options.python or users_python(), _forwarded_options(options))
    planned = matrix.load()
    choice = can_build.choose(planned)
    report = with_wheels(overlay, planned, choice.cell, report, shared=options.share)
    findings = can_build.findings(planned, choice)
    lines = [overlay.Line(BUILDING, one.state, one.text, one.details, one.hint) for one in findings]
    report = report._replace(lines=(*report.lines, *lines))
    if options.share:
        report = overlay.redacted(report)
    runs, builds = (
        overlay.Question(text, tuple(line for line in report.lines if (line.section == BUILDING) is building))
        for text, building in (("run nvdiffrast", False), ("build wheels", True))
    )
    overlay.show(report, sys.stdout, as_json=options.json, questions=(runs, builds))
    return int(overlay.exit_code(builds.lines))


def with_wheels(overlay: ModuleType, planned: Matrix, chosen: Cell | None, report: Any, *, shared: bool = False) -> Any:
    """Return the report with the wheels of dist/, and with how to install one where nvdiffrast is not installed.

    ``chosen`` is the cell that a plain `nox -s build` builds. With ``shared`` the report was redacted.
    """
    machine = report.facts["machine"]
    built = install_advice.in_dist(planned, machine)
    lines = (*report.lines, *(overlay.Line(BUILT, "info", one.text) for one in built))
    if report.install.pip or report.facts.get("build_info") is not None:
        return report._replace(lines=lines)
    note, pip, uv = install_advice.advice(overlay, planned, machine, built, chosen)
    if pip and report.facts["managed"]:
        # With --share the path is a placeholder, which must not be quoted.
        executable = report.facts["executable"] if shared else shlex.quote(report.facts["executable"])
        pip = (f"{executable} -m venv .venv", _ACTIVATE, *pip)
        uv = (f"uv venv --python {executable}", _ACTIVATE, *uv)
    return report._replace(lines=lines, install=overlay.Advice(note, pip, uv))


def load_overlay() -> ModuleType:
    """Return the overlay's doctor as a module, without reading an installed nvdiffrast."""
    package = ModuleType("nvdiffrast")
    package.__path__ = [str(OVERLAY)]
    sys.modules["nvdiffrast"] = package
    return importlib.import_module("nvdiffrast.doctor")


def users_python() -> Path:
    """Return the first Python on PATH that does not belong to the running environment.

    Raises:
        UsageError: if there is no such Python.
    """
    own = Path(sys.prefix).resolve()
    folders = os.environ.get("PATH", "").split(os.pathsep)
    path = os.pathsep.join(one for one in folders if one and not Path(one).resolve().is_relative_to(own))
    found = which("python3", path) or which("python", path)
    if found is None:
        raise UsageError("no Python is on PATH", hint="name one: nox -s doctor -- --python PATH")
    return found


def of_python(overlay: ModuleType, python: Path, arguments: Sequence[str]) -> Any:
    """Return the overlay's Report about the installation of ``python``.

    Raises:
        UsageError: if ``python`` is not a Python, is too old to run the doctor, or its doctor returns no report.
    """
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "report.json")
        try:
            call([python, _START, OVERLAY, output, *arguments], echo=False, quiet=True, timeout=_TIMEOUT_SECONDS)
            data = json.loads(output.read_text(encoding="utf-8"))
            if data["schema"] != overlay.SCHEMA:
                raise UsageError(
                    f"the doctor in the nvdiffrast of {python} has another version",
                    hint=f"{python} -m nvdiffrast.doctor",
                )
            lines = tuple(overlay.Line(**{**line, "details": tuple(line["details"])}) for line in data["lines"])
            advice = {
                name: tuple(value) if isinstance(value, list) else value for name, value in data["install"].items()
            }
            return overlay.Report(lines, overlay.Advice(**advice), data["facts"])
        except (CommandError, OSError, ValueError, KeyError, TypeError) as error:
            output_text = (error.output if isinstance(error, CommandError) else "") or str(error)
            last = (output_text.strip().splitlines() or [""])[-1]
            raise UsageError(
                f"{python} cannot run the doctor: {last}",
                hint="name a CPython of 3.9 or newer: nox -s doctor -- --python PATH",
            ) from error


def _forwarded_options(options: argparse.Namespace) -> list[str]:
    """Return the options that are passed to the doctor of the examined Python."""
    flags = {"--fix": options.fix, "--no-gpu": options.no_gpu, "--share": options.share}
    chosen = [flag for flag, given in flags.items() if given]
    return [*chosen, "--index-url", options.index_url] if options.index_url else chosen


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser("nox -s doctor --", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--python", type=Path, help="the Python to examine (default: the first on PATH)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--share", action="store_true", help="omit folders, user, host and the URL of the index")
    parser.add_argument("--fix", action="store_true", help="remove files of interrupted compilations")
    parser.add_argument("--no-gpu", action="store_true", help="do not render with the GPU")
    parser.add_argument("--index-url", metavar="URL", help="the root of an index (default: NVDIFFRAST_INDEX_URL)")
    return parser.parse_args()


if __name__ == "__main__":
    run_main(main)
