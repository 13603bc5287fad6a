"""``nox -s rehearse``: rehearse a whole release on this machine, from the source to the page, with a local index.

build     this host's cell, unless --wheel names a wheel
audit     compare the wheel with its cell
stage     add it to a store for rehearsals
upload    upload it with twine to pypiserver on loopback, and install it from there
prove     install from the staged index with pip and uv, beside stand-ins and beside the real torch
promote   show the wheel to the rehearsal's readers, with a waiver of the GPU test
export    write the index as plain files

Run the same command again to continue after an interruption. Each wheel has its own folder.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from scripts import console
from scripts.audit import audit
from scripts.build import build
from scripts.errors import AuditError, BuildError, PublishError, UsageError
from scripts.index.export import export
from scripts.index.store import Store
from scripts.model import ROOT
from scripts.publish import promotion, prove, serve, staging, store_upload, upload
from scripts.support import environments, interpreters
from scripts.support.command_line import run_main
from scripts.support.files import file_sha256
from scripts.support.sandbox import TOOLS
from scripts.wheel import audit_record, wheel_file

FOLDER = ROOT / "build" / "rehearsal"
WAIVER = "rehearsal: no GPU here"


@dataclass(frozen=True)
class Step:
    """A row of the summary; ``seconds`` is wall time."""

    name: str
    seconds: float
    detail: str


@dataclass
class Rehearsal:
    """The rehearsal of one audited wheel in ``folder``; the audit's record is beside the wheel."""

    wheel: Path
    folder: Path
    by: str
    steps: list[Step] = field(default_factory=list)

    @property
    def store(self) -> Path:
        """Return the store, which is used only for rehearsals."""
        return self.folder / "store"

    @property
    def page(self) -> Path:
        """Return the exported page."""
        return self.folder / "site" / "index.html"

    def run(self) -> None:
        """Run all steps in order.

        Raises:
            PipelineError: if a step fails; the same command continues there.
        """
        for name in ("stage", "upload", "prove", "promote", "export"):
            with timed(self.steps, name) as report:
                report(getattr(self, name)())

    def stage(self) -> str:
        """Stage the wheel, which may be partial."""
        staging.stage(self.store, [self.wheel], by=self.by, allow_partial=True)
        return f"{self.wheel.name}"

    def upload(self) -> str:
        """Upload the wheel to pypiserver, and install it from there with pip and uv."""
        generation = Store(self.store).generation("staged")
        assert generation is not None
        with serve.uploads(self.folder / "server") as running:
            secrets = {"TWINE_USERNAME": running.user, "TWINE_PASSWORD": running.password()}
            sent = store_upload.send_store(
                self.store, upload.target(running.url, environment=secrets), by=self.by, staged=True
            )
            with prove.serving(generation) as served:
                self._install_from(running.simple, served)
        return f"{len(sent.uploaded)} sent, {len(sent.already)} sent before; installed from there by pip and uv"

    def _install_from(self, simple: str, served: prove.ServedIndex) -> None:
        entry = served.catalog.named(self.wheel.name)
        assert entry is not None
        for tool in TOOLS:
            make = partial(prove.installs, served, tool, entry, index=simple)
            made = prove.proof("install from pypiserver", tool, entry.name, make)
            if made.outcome != "passed":
                raise PublishError(f"{tool} cannot install {entry.name} from {simple}: {made.detail}")

    def prove(self) -> str:
        """Prove the staged index, also with the real torch."""
        proofs = prove.prove(self.store, real=True, by=self.by)
        if not proofs:
            return "proved before, nothing has changed"
        imported = [made.tool for made in proofs if (made.check, made.outcome) == ("import", "passed")]
        passed = sum(made.outcome == "passed" for made in proofs)
        return f"{passed} of {len(proofs)} proofs passed; imported beside the real torch: {', '.join(imported)}"

    def promote(self) -> str:
        """Promote the staged index."""
        done = promotion.promote(self.store, waive_gpu=WAIVER, by=self.by)
        return f"readers see {done.wheels} wheels" + (f"; waived: {WAIVER}" if done.waived else "")

    def export(self) -> str:
        """Export the index as plain files."""
        export(self.store / "current", self.page.parent)
        return str(self.page.parent)


@contextmanager
def timed(steps: list[Step], name: str) -> Iterator[Callable[[str], None]]:
    """Time a step, and append it to ``steps`` with the reported result, or with "failed" if nothing was reported."""
    start, results = time.monotonic(), ["failed"]
    try:
        with console.step(name):
            yield results.append
    finally:
        steps.append(Step(name, time.monotonic() - start, results[-1]))


def build_wheel(parsed: argparse.Namespace, output: Path) -> Path:
    """Build and audit this host's cell.

    Raises:
        BuildError: if the build or the audit does not pass; the reason was printed.
    """
    [cell] = build.chosen_cells(parsed)
    result = build.build(cell, replace(build.parsed_options(parsed), output=output))
    if result.wheel is None or result.outcome != "passed":
        raise BuildError(f"{cell.id}: {result.outcome}: {result.detail}", hint="fix that and rehearse again")
    return result.wheel


def copy_wheel(wheel: Path, output: Path) -> Path:
    """Copy a wheel that was built before, and audit the copy.

    Raises:
        UsageError: if the wheel does not exist.
        AuditError: if a check does not pass.
    """
    if not wheel.is_file():
        raise UsageError(f"{wheel}: no such file", hint="name a wheel that `nox -s build` made, or omit --wheel")
    output.mkdir(parents=True, exist_ok=True)
    copy = output / wheel.name
    if wheel.resolve() != copy.resolve():
        shutil.copyfile(wheel, copy)
    with tempfile.TemporaryDirectory(prefix="nvdiffrast-rehearse-") as scratch:
        cell = audit.find_cell(wheel_file.unpack(copy, Path(scratch).resolve()))
    python = interpreters.find(cell.python)
    lock = environments.torch_lock(cell)
    environment = environments.create(python, [lock], name=f"torch-{cell.torch.version}") if python else None
    record = audit.audit(copy, cell, torch_environment=environment, allow_partial=True)
    audit_record.save(audit_record.with_evidence(record, output), output)
    problems = "; ".join(f"{check.name}: {check.detail}" for check in record.checks if check.outcome != "passed")
    if record.outcome != "passed":
        raise AuditError(f"{copy.name}: {record.outcome}: {problems}", hint="publishing needs a passed audit")
    return copy


def summarize(rehearsal: Rehearsal) -> None:
    """Print the closing table and the page's URL."""
    rows = [(step.name, f"{step.seconds:.1f} s", step.detail) for step in rehearsal.steps]
    console.table("rehearsed", ("step", "time", "result"), rows)
    if rehearsal.page.exists():
        print(f"page:   {rehearsal.page.as_uri()}")
        print(f"ledger: {rehearsal.store / 'ledger.jsonl'}")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="nox -s rehearse --", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--wheel", type=Path, help="use this wheel instead of building one")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="folder of all results (build/rehearsal/)")
    parser.add_argument("--by", default="rehearsal", help="the person to log (rehearsal)")
    parser.add_argument("--release", help="the upstream release, instead of the newest that can be fetched")
    parser.add_argument("--arch", action="append", default=[], metavar="9.0", help="compile for this architecture only")
    parser.add_argument("--engine", choices=("auto", "host", "cibuildwheel"), default="auto")
    parser.add_argument("--image", help="the container image, instead of the one that the matrix pins")
    parser.add_argument("--source", type=Path, help="read the release from this checkout, mirror or wheel; verified")
    parsed = parser.parse_args()
    parsed.cells, parsed.output, parsed.folder = [], parsed.folder, parsed.folder.absolute()
    return parsed


def main() -> int:
    """Rehearse a release."""
    parsed = _parse()
    dist, steps = parsed.folder / "dist", list[Step]()
    with timed(steps, "audit" if parsed.wheel else "build, audit") as report:
        wheel = copy_wheel(parsed.wheel, dist) if parsed.wheel else build_wheel(parsed, dist)
        report(f"{wheel.stat().st_size / 1e6:.2f} MB, every check passed")
    # Within a store a file name never gets other bytes, so each wheel has its own store.
    rehearsal = Rehearsal(wheel, parsed.folder / file_sha256(wheel)[:12], parsed.by, steps)
    try:
        rehearsal.run()
    finally:
        summarize(rehearsal)
    return 0


if __name__ == "__main__":
    run_main(main, uses_cache=True)
