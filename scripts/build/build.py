"""Build cells: fetch, patch, provide a toolchain, compile, repair, audit; each cell gives one wheel and one record.

A finished wheel is kept under a hash of all its inputs: the same command after an interruption, or after a change that
concerns other cells, continues where it stopped.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts import console
from scripts.audit import audit
from scripts.build.cell_wheel import make_wheel, read_build_info
from scripts.build.default_cell import host_cell
from scripts.build.inputs import Inputs, Options, gather, torch_environment
from scripts.build.recipe import RECIPE, SOURCE_DATE_EPOCH
from scripts.errors import BuildError, PipelineError
from scripts.index import install_commands
from scripts.matrix import matrix
from scripts.model import ROOT, Cell
from scripts.support import environments
from scripts.support.command_line import run_main
from scripts.support.files import cache_root, file_sha256
from scripts.wheel import audit_record, provenance, sbom, wheel_file
from scripts.wheel.audit_record import Record
from scripts.wheel.wheel_file import Wheel


@dataclass(frozen=True)
class Result:
    """A row of the summary; ``seconds`` is the wall time of the cell's build and audit."""

    cell: Cell
    outcome: str
    detail: str
    seconds: float
    wheel: Path | None = None


def build(cell: Cell, options: Options) -> Result:
    """Build and audit one cell. An error is printed and becomes a failed result."""
    start = time.monotonic()
    try:
        inputs = gather(cell, options)
        wheel = make_wheel(inputs, options)
        with console.step(f"audit {wheel.name}"):
            record = audit_and_record(wheel, inputs, options.output)
    except PipelineError as error:
        console.log(f"error: {error}")
        if error.hint:
            console.log(f"next:  {error.hint}")
        return Result(cell, "failed", type(error).__name__, time.monotonic() - start)
    problems = [f"{check.name}: {check.detail}" for check in record.checks if check.outcome != "passed"]
    return Result(cell, record.outcome, "; ".join(problems), time.monotonic() - start, wheel)


def audit_and_record(path: Path, inputs: Inputs, output: Path) -> Record:
    """Audit a finished wheel, and write its record, bill of materials and provenance below ``output``."""
    # Without the cell's Python on this machine, the import check is untested.
    python = environments.interpreter(torch_environment(inputs)) if inputs.python else None
    with tempfile.TemporaryDirectory(prefix="nvdiffrast-") as folder:
        wheel = wheel_file.unpack(path, Path(folder).resolve())
        record = audit.audit_unpacked(wheel, inputs.cell, python=python, allow_partial=inputs.partial)
        for kind, content in statements(wheel, inputs).items():
            audit_record.save_statement(record.sha256, kind, content, output)
    record = audit_record.with_evidence(record, output)
    audit_record.save(record, output)
    return record


def statements(wheel: Wheel, inputs: Inputs) -> dict[str, bytes]:
    """Return the content of the files beside a wheel's record: a copy of its bill of materials, and its provenance."""
    info, member = read_build_info(wheel, inputs), sbom.member(wheel.dist_info)
    bill = wheel.read(member)
    statement = provenance.make(
        wheel.path.name,
        file_sha256(wheel.path),
        (member, hashlib.sha256(bill).hexdigest()),
        info,
        inputs.materials,
        recipe=RECIPE,
        epoch=SOURCE_DATE_EPOCH,
    )
    return {"sbom": bill, "provenance": statement}


def summarize(results: Sequence[Result]) -> None:
    """Print the closing table, the checks that did not pass, and the commands that install each wheel."""
    rows = []
    for result in results:
        wheel = result.wheel
        size = f"{wheel.stat().st_size / 1e6:.2f} MB" if wheel else "-"
        rows.append((result.cell.id, result.outcome, size, f"{result.seconds:.0f} s"))
    console.table("built", ("cell", "audit", "size", "time"), rows)
    for result in results:
        if result.wheel:
            print(f"{file_sha256(result.wheel)}  {result.wheel}")
        if result.detail:
            console.mark(result.outcome, f"{result.cell.id}: {result.detail}")
    for result in results:
        if result.wheel and result.outcome != "failed":
            print_install_commands(result.cell, result.wheel)


def print_install_commands(cell: Cell, wheel: Path) -> None:
    """Print the commands that install a built wheel, with a path relative to the current folder where possible."""
    here = Path.cwd()
    shown = wheel.relative_to(here) if wheel.is_relative_to(here) else wheel
    print(f"To install it in an environment of CPython {cell.python}:")
    for line in install_commands.file_commands(cell, str(shown)):
        print(f"  {line}")


def arguments(session: str, description: str | None) -> argparse.ArgumentParser:
    """Return a parser for the options that the sessions build and reproduce share."""
    parser = argparse.ArgumentParser(prog=f"nox -s {session} --", description=description)
    parser.add_argument("cells", nargs="*", metavar="CELL", help="cell ids or globs (default: this host's cell)")
    parser.add_argument("--release", help="the upstream release, instead of the newest that can be fetched")
    parser.add_argument("--arch", action="append", default=[], metavar="9.0", help="compile for this architecture only")
    parser.add_argument("--engine", choices=("auto", "host", "cibuildwheel"), default="auto")
    parser.add_argument("--image", help="the container image, instead of the one that the matrix pins")
    parser.add_argument("--source", type=Path, help="take the release from this checkout, mirror or wheel; verified")
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="folder of wheels and records (dist/)")
    return parser


def chosen_cells(parsed: argparse.Namespace) -> tuple[Cell, ...]:
    """Return the cells that the command line names, or this host's default cell."""
    planned = matrix.load()
    if not parsed.cells:
        return (host_cell(planned, parsed.release),)
    return tuple(cell for cell in planned.select(parsed.cells) if parsed.release in (None, cell.release.version))


def parsed_options(parsed: argparse.Namespace, *, fresh: bool = False) -> Options:
    """Return the options of the command line; with ``fresh`` no result of an earlier build is used."""
    cache = cache_root()
    return Options(
        engine=parsed.engine,
        architectures=tuple(parsed.arch),
        image=parsed.image,
        source=parsed.source,
        output=parsed.output.absolute(),
        objects=None if fresh else cache / "objects",
        kept=None if fresh else cache / "wheels",
    )


def main() -> int:
    """Build the cells that the command line names."""
    parser = arguments("build", __doc__)
    parser.add_argument("--fresh", action="store_true", help="use no result of an earlier build")
    parsed = parser.parse_args()
    options = parsed_options(parsed, fresh=parsed.fresh)
    results = [build(cell, options) for cell in chosen_cells(parsed)]
    summarize(results)
    outcomes = {result.outcome for result in results}
    return BuildError.exit_code if "failed" in outcomes else 0


if __name__ == "__main__":
    run_main(main, uses_cache=True)
