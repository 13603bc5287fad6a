"""What works on this machine and how to mend the rest: of a Python's nvdiffrast, and of what builds wheels.

The first is what `python -m nvdiffrast.doctor` says in an installed wheel; here the same code is run by the Python of
--python, whether anything is installed for it or not. Exit codes: 0 nothing failed, 1 something did, 2 usage.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from scripts import cibuildwheel, compilers, interpreters, matrix, toolchain, upstream
from scripts.cache import cache_root
from scripts.errors import CommandError, PipelineError, UsageError, run_main
from scripts.matrix import Matrix
from scripts.model import ROOT, Cell
from scripts.process import call, which

OVERLAY = ROOT / "patches" / "common" / "overlay" / "nvdiffrast"
MACHINE = "build machine"
_START = Path(__file__).with_name("resources") / "doctor_start.py"
# torch unpacked, its download, and a toolkit, each once.
_FIRST_BUILD_GIB = 12
_SECONDS = 900

# State, text, mend.
Finding = tuple[str, str, str]


def main() -> int:
    """Examine the Python and the machine, print, and give the exit code."""
    options = _options()
    overlay = load_overlay()
    report = of_python(overlay, options.python or users_python(), _passed_on(options))
    planned = matrix.load()
    lines = tuple(overlay.Line(MACHINE, state, text, (), mend) for state, text, mend in build_machine(planned))
    advice = report.install
    if not advice.pip:
        advice = overlay.Advice(*_by_building(planned, report, advice.note))
    report = report._replace(lines=(*report.lines, *lines), install=advice)
    if options.share:
        report = overlay.redacted(report)
    overlay.show(report, sys.stdout, as_json=options.json)
    return int(overlay.exit_code(report.lines))


def load_overlay() -> ModuleType:
    """The overlay's doctor as a module; nothing of an installed nvdiffrast is looked at."""
    package = ModuleType("nvdiffrast")
    package.__path__ = [str(OVERLAY)]
    sys.modules["nvdiffrast"] = package
    return importlib.import_module("nvdiffrast.doctor")


def users_python() -> Path:
    """The first Python on PATH that is not of the environment this runs in.

    Raises:
        UsageError: there is none.
    """
    own = Path(sys.prefix).resolve()
    folders = os.environ.get("PATH", "").split(os.pathsep)
    path = os.pathsep.join(one for one in folders if one and not Path(one).resolve().is_relative_to(own))
    found = which("python3", path) or which("python", path)
    if found is None:
        raise UsageError("no Python is on PATH", mend="name one: nox -s doctor -- --python PATH")
    return found


def of_python(overlay: ModuleType, python: Path, arguments: Sequence[str]) -> Any:
    """The overlay's Report of what ``python`` has installed.

    Raises:
        UsageError: ``python`` is none, is too old to run the doctor, or its doctor gives no report.
    """
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "report.json")
        try:
            call([python, _START, OVERLAY, output, *arguments], echo=False, quiet=True, timeout=_SECONDS)
            data = json.loads(output.read_text(encoding="utf-8"))
            if data["schema"] != overlay.SCHEMA:
                raise ValueError(f"its nvdiffrast's doctor gives a report of schema {data['schema']}")
            lines = tuple(overlay.Line(**{**line, "details": tuple(line["details"])}) for line in data["lines"])
            advice = {
                name: tuple(value) if isinstance(value, list) else value for name, value in data["install"].items()
            }
            return overlay.Report(lines, overlay.Advice(**advice), data["facts"])
        except (CommandError, OSError, ValueError, KeyError, TypeError) as error:
            said = (error.output if isinstance(error, CommandError) else "") or str(error)
            last = (said.strip().splitlines() or [""])[-1]
            raise UsageError(
                f"{python} cannot run the doctor: {last}", mend="name a CPython of 3.9 or newer with --python"
            ) from error


def build_machine(planned: Matrix) -> Iterator[Finding]:
    """What this machine has to build wheels with."""
    yield from _compilers(planned)
    yield from _toolkits(planned)
    yield _pythons(planned)
    for release in planned.releases:
        why = upstream.availability(release)
        yield (
            ("info", f"source of {release.version}: {why}", "")
            if why
            else ("passed", f"source of {release.version}", "")
        )
    why = cibuildwheel.availability()
    yield ("info", f"no containers (--engine cibuildwheel): {why}", "") if why else ("passed", "containers", "")
    yield from _disk()


def _compilers(planned: Matrix) -> Iterator[Finding]:
    """The host compiler of the default toolkit, and whether it finds what the OpenGL plugin includes."""
    toolkit = planned.toolkit(planned.default_toolkit)
    found = _asked(lambda: compilers.check_host(toolkit, needs_gl=False))
    if isinstance(found, PipelineError):
        yield "failed", str(found), found.mend or ""
        return
    yield "passed", f"{found.name} {found.version}, {found.path}", ""
    headers = _asked(lambda: compilers.check_host(toolkit, needs_gl=True))
    if isinstance(headers, PipelineError):
        yield "failed", str(headers), headers.mend or ""
    else:
        yield "passed", "headers and libraries of GL and EGL", ""


def _toolkits(planned: Matrix) -> Iterator[Finding]:
    for toolkit in planned.toolkits:
        why = toolchain.availability(toolkit)
        needed = toolkit.tag == planned.default_toolkit
        if why is None:
            yield "passed", f"CUDA {toolkit.cuda}{' (the default)' if needed else ''}", ""
        else:
            yield "failed" if needed else "info", f"CUDA {toolkit.cuda}: {why}", "nox -s lock" if needed else ""


def _pythons(planned: Matrix) -> Finding:
    wanted = list(dict.fromkeys(cell.python for cell in planned.cells))
    here = [python for python in wanted if interpreters.find(python)]
    missing = [python for python in wanted if python not in here]
    text = f"CPython with headers: {', '.join(here) or 'none'}" + (f"; not {', '.join(missing)}" if missing else "")
    return ("passed", text, "") if here else ("failed", text, "apt-get install python3-dev")


def _disk() -> Iterator[Finding]:
    for purpose, folder in (("what is fetched", cache_root()), ("builds", ROOT / "build")):
        there = next(parent for parent in (folder, *folder.parents) if parent.exists())
        free = shutil.disk_usage(there).free / 2**30
        text = f"{free:.0f} GiB free for {purpose}, {folder}"
        enough = free >= _FIRST_BUILD_GIB
        yield (
            ("passed", text, "")
            if enough
            else (
                "warning",
                f"{text}: a first build takes up to {_FIRST_BUILD_GIB}",
                "set NVDIFFRAST_WHEELS_CACHE to a folder of a larger disk, or free some space: nox -s clean",
            )
        )


def _asked(probe: Callable[[], Any]) -> Any:
    """What it gives, or why it cannot."""
    try:
        return probe()
    except PipelineError as error:
        return error


def _by_building(planned: Matrix, report: Any, note: str) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """The commands where no index has a wheel for this machine: make one, and install it."""
    cell = _fitting(planned, report.facts)
    if cell is None:
        return note, (), ()
    make, wheel = f"nox -s build -- {cell.id}", f"dist/{cell.wheel}"
    torch = f'"torch=={cell.torch.line}.*"'
    here = f"{note}; from this repository, for torch {cell.torch.line} of CUDA {cell.toolkit.cuda}"
    return here, (make, f"pip install {torch} {wheel}"), (make, f"uv pip install {torch} {wheel}")


def _fitting(planned: Matrix, facts: Any) -> Cell | None:
    """The newest cell for that Python, its torch if it has one, whose source and toolkit can be had."""
    machine = facts["machine"]
    torch = machine["torch"], machine["cuda"]
    fitting = [
        cell
        for cell in planned.cells
        if (cell.platform.name, cell.python) == (machine["platform"], machine["python"])
        and torch in ((None, None), (cell.torch.line, cell.toolkit.cuda))
        and upstream.availability(cell.release) is None
        and toolchain.availability(cell.toolkit) is None
    ]
    return max(fitting, key=lambda cell: (_numbers(cell.release.version), _numbers(cell.torch.line)), default=None)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def _passed_on(options: argparse.Namespace) -> list[str]:
    """What the Python's own doctor is told."""
    flags = {"--fix": options.fix, "--no-gpu": options.no_gpu, "--share": options.share}
    told = [flag for flag, given in flags.items() if given]
    return [*told, "--index-url", options.index_url] if options.index_url else told


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser("nox -s doctor --", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--python", type=Path, help="the Python to examine (default: the first on PATH)")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    parser.add_argument("--share", action="store_true", help="leave out folders, user, host and the index's address")
    parser.add_argument("--fix", action="store_true", help="mend what can be mended without risk")
    parser.add_argument("--no-gpu", action="store_true", help="draw nothing")
    parser.add_argument("--index-url", metavar="URL", help="the root of an index (default: NVDIFFRAST_INDEX_URL)")
    return parser.parse_args()


if __name__ == "__main__":
    run_main(main)
