"""``nox -s rehearse``: a whole release on this machine, from source to a page, and nothing leaves it.

build     this host's cell, unless --wheel brings one     promote   waiving the GPU, and saying so
audit     the wheel, against its cell                     export    the index as plain files
stage     it in a store for rehearsals
upload    it with twine to pypiserver on loopback, and install it from there
prove     the staged index with pip and uv, beside stand-ins and beside the real torch

The same command again goes on where it stopped; another wheel gets a folder of its own.
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
from scripts.index import writer as indexes
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
    """One line of the summary; ``seconds`` of wall time."""

    name: str
    seconds: float
    detail: str


@dataclass
class Rehearsal:
    """A release of one audited wheel in ``folder``; the audit's record lies beside the wheel."""

    wheel: Path
    folder: Path
    by: str
    steps: list[Step] = field(default_factory=list)

    @property
    def store(self) -> Path:
        """The store, which is for rehearsals alone."""
        return self.folder / "store"

    @property
    def page(self) -> Path:
        """The page for people, as exported."""
        return self.folder / "site" / "index.html"

    def run(self) -> None:
        """Every step in turn.

        Raises:
            PipelineError: a step failed; the same command goes on from there.
        """
        for name in ("stage", "upload", "prove", "promote", "export"):
            with timed(self.steps, name) as tell:
                tell(getattr(self, name)())

    def stage(self) -> str:
        """Put the wheel into the store, a partial one as well."""
        staging.stage(self.store, [self.wheel], by=self.by, allow_partial=True)
        return f"{self.wheel.name}"

    def upload(self) -> str:
        """Send it to a real index and install it from there with both tools."""
        generation = Store(self.store).generation("staged")
        assert generation is not None
        with serve.uploads(self.folder / "server") as running:
            secrets = {"TWINE_USERNAME": running.user, "TWINE_PASSWORD": running.password()}
            sent = store_upload.send_store(
                self.store, upload.target(running.url, environment=secrets), by=self.by, staged=True
            )
            with prove.serving(generation) as stage:
                self._install_from(running.simple, stage)
        return f"{len(sent.uploaded)} sent, {len(sent.already)} there already; installed from there by pip and uv"

    def _install_from(self, simple: str, stage: prove.Stage) -> None:
        entry = stage.catalog.named(self.wheel.name)
        assert entry is not None
        for tool in TOOLS:
            make = partial(prove.installs, stage, tool, entry, index=simple)
            made = prove.proof("install from pypiserver", tool, entry.name, make)
            if made.outcome != "passed":
                raise PublishError(f"{tool} cannot install {entry.name} from {simple}: {made.detail}")

    def prove(self) -> str:
        """Prove the staged index, with the real torch as well."""
        proofs = prove.prove(self.store, real=True, by=self.by)
        if not proofs:
            return "proved already, nothing changed since"
        imported = [made.tool for made in proofs if (made.check, made.outcome) == ("import", "passed")]
        passed = sum(made.outcome == "passed" for made in proofs)
        return f"{passed} of {len(proofs)} proofs passed; imported beside the real torch: {', '.join(imported)}"

    def promote(self) -> str:
        """Switch the rehearsal's readers to it."""
        done = promotion.promote(self.store, waive_gpu=WAIVER, by=self.by)
        return f"readers see {done.wheels} wheels" + (f"; waived: {WAIVER}" if done.waived else "")

    def export(self) -> str:
        """Write the index as plain files."""
        indexes.export(self.store / "current", self.page.parent)
        return str(self.page.parent)


@contextmanager
def timed(steps: list[Step], name: str) -> Iterator[Callable[[str], None]]:
    """Time a step; what is told of it, or "failed", goes into ``steps``."""
    start, told = time.monotonic(), ["failed"]
    try:
        with console.step(name):
            yield told.append
    finally:
        steps.append(Step(name, time.monotonic() - start, told[-1]))


def build_wheel(parsed: argparse.Namespace, output: Path) -> Path:
    """Build and audit this host's cell.

    Raises:
        BuildError: it failed; the reason was said.
    """
    [cell] = build.chosen_cells(parsed)
    result = build.build(cell, replace(build.parsed_options(parsed), output=output))
    if result.wheel is None or result.outcome != "passed":
        raise BuildError(f"{cell.id}: {result.outcome}: {result.detail}", hint="fix that and rehearse again")
    return result.wheel


def take_wheel(wheel: Path, output: Path) -> Path:
    """Copy a wheel that was built before, and audit the copy.

    Raises:
        UsageError: there is no such file.
        AuditError: it does not pass.
    """
    if not wheel.is_file():
        raise UsageError(f"{wheel}: no such file", hint="name a wheel that `nox -s build` made, or none")
    output.mkdir(parents=True, exist_ok=True)
    taken = output / wheel.name
    if wheel.resolve() != taken.resolve():
        shutil.copyfile(wheel, taken)
    with tempfile.TemporaryDirectory(prefix="nvdiffrast-rehearse-") as scratch:
        cell = audit.find_cell(wheel_file.unpack(taken, Path(scratch).resolve()))
    python = interpreters.find(cell.python)
    lock = environments.torch_lock(cell)
    environment = environments.create(python, [lock], name=f"torch-{cell.torch.version}") if python else None
    record = audit.audit(taken, cell, torch_environment=environment, allow_partial=True)
    audit_record.save(audit_record.with_evidence(record, output), output)
    wrong = "; ".join(f"{check.name}: {check.detail}" for check in record.checks if check.outcome != "passed")
    if record.outcome != "passed":
        raise AuditError(f"{taken.name}: {record.outcome}: {wrong}", hint="only what passes its audit is published")
    return taken


def summarize(rehearsal: Rehearsal) -> None:
    """The closing table and the page's address."""
    rows = [(step.name, f"{step.seconds:.1f} s", step.detail) for step in rehearsal.steps]
    console.table("rehearsed", ("step", "time", "result"), rows)
    if rehearsal.page.exists():
        print(f"page:   {rehearsal.page.as_uri()}")
        print(f"ledger: {rehearsal.store / 'ledger.jsonl'}")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="nox -s rehearse --", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--wheel", type=Path, help="take this wheel instead of building one")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where everything goes (build/rehearsal/)")
    parser.add_argument("--by", default="rehearsal", help="who publishes, for the ledger (rehearsal)")
    parser.add_argument("--release", help="the upstream release, instead of the newest that can be had")
    parser.add_argument("--arch", action="append", default=[], metavar="9.0", help="compile for this one only")
    parser.add_argument("--engine", choices=("auto", "host", "cibuildwheel"), default="auto")
    parser.add_argument("--image", help="the container image, instead of the one that the matrix pins")
    parser.add_argument("--source", type=Path, help="take the release from this checkout, mirror or wheel; verified")
    parsed = parser.parse_args()
    parsed.cells, parsed.output, parsed.folder = [], parsed.folder, parsed.folder.absolute()
    return parsed


def main() -> int:
    """``nox -s rehearse -- [--wheel WHEEL | --arch 9.0]``."""
    parsed = _parse()
    dist, steps = parsed.folder / "dist", list[Step]()
    with timed(steps, "audit" if parsed.wheel else "build, audit") as tell:
        wheel = take_wheel(parsed.wheel, dist) if parsed.wheel else build_wheel(parsed, dist)
        tell(f"{wheel.stat().st_size / 1e6:.2f} MB, every check passed")
    # A name never gets other bytes: another wheel of the name is another rehearsal.
    rehearsal = Rehearsal(wheel, parsed.folder / file_sha256(wheel)[:12], parsed.by, steps)
    try:
        rehearsal.run()
    finally:
        summarize(rehearsal)
    return 0


if __name__ == "__main__":
    run_main(main, uses_cache=True)
