#!/usr/bin/env -S uv run --script
# /// script
# requires-python = ">=3.11"
# dependencies = ["nox>=2025.5"]
# ///
"""Precompiled nvdiffrast wheels: plan, build, audit.

Arguments after `--` go to the stage, e.g. a cell or a glob of cells.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nox
from nox.command import CommandFailed

nox.needs_version = ">=2025.5"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["lint", "tests"]

REQUIREMENTS = Path("requirements")
TORCH_TESTS = ["tests/beside_torch", *sorted(str(folder) for folder in Path("packages").glob("*/tests"))]
WORKFLOWS = sorted(str(path) for path in Path(".github").glob("workflows/*.yml"))
ACTIONS = sorted(str(path) for path in Path(".github").glob("actions/*/action.yml"))
# With more than one, torch stalls where others compute as well.
ONE_THREAD = {"OMP_NUM_THREADS": "1"}


# What is measured, and the requirements it takes.
BENCHMARKS = {
    "build": "pipeline",
    "import": "pipeline",
    "index": "pipeline",
    "raster": "packages",
    "hierarchy": "packages",
    "blocks": "packages",
}


@nox.session
def doctor(session: nox.Session) -> None:
    """Say whether this machine can build wheels and can run them: [--python P] [--json] [--share] [--fix]."""
    stage(session, "doctor")


@nox.session
def plan(session: nox.Session) -> None:
    """Print what the matrix makes, and what of it this machine can build: [--json | --github] [CELL...]."""
    stage(session, "plan")


@nox.session
def build(session: nox.Session) -> None:
    """Build, repair and audit this host's cell or the named ones: [CELL...] [--release X] [--arch 9.0] [--engine E]."""
    stage(session, "build")


@nox.session
def audit(session: nox.Session) -> None:
    """Check wheels against their cells: WHEEL..."""
    stage(session, "audit")


@nox.session
def reproduce(session: nox.Session) -> None:
    """Build a cell twice in different surroundings and compare the bytes: [CELL...]."""
    stage(session, "reproduce")


@nox.session
def verify(session: nox.Session) -> None:
    """Check a wheel against its record, bill of materials and provenance: WHEEL [--rebuild] [--records DIR]."""
    stage(session, "verify")


@nox.session
def audit_locks(session: nox.Session) -> None:
    """Ask a vulnerability service about everything that is locked, less requirements/waivers.yaml: [NAME...]."""
    install(session, "advisories")
    session.run("python", "-m", "scripts.audit_locks", *session.posargs)


@nox.session
def patch(session: nox.Session) -> None:
    """Leave a release's patched tree for a person to look at: RELEASE; or try every release: --check."""
    stage(session, "patching")


@nox.session
def lock(session: nox.Session) -> None:
    """Write hash-locked requirements and toolkits: [NAME...] [--check]."""
    stage(session, "locks")


@nox.session
def observe(session: nox.Session) -> None:
    """Refresh the table of torch builds from a package index: [--index URL] [--add] [--report FILE]."""
    stage(session, "observe")


@nox.session
def golden(session: nox.Session) -> None:
    """Write what is made from the matrix: its JSON schema and the golden list of cells; --doctor: its torch table."""
    stage(session, "matrix", "--schema", "--golden")


@nox.session
def packages(session: nox.Session) -> None:
    """Build the pure-Python packages as wheels, in dist/: [NAME...]."""
    stage(session, "packages")


@nox.session
def index(session: nox.Session) -> None:
    """Write a store's index again, or copy it out as plain files: [STORE] [--export FOLDER]."""
    stage(session, "index")


@nox.session(name="stage")
def stage_wheels(session: nox.Session) -> None:
    """Put audited wheels into the staged index: WHEEL... [--store DIR]."""
    stage(session, "publish", "stage")


@nox.session
def prove(session: nox.Session) -> None:
    """Install every staged wheel by pip and by uv, by the very commands that the page shows: [--store DIR] [--real]."""
    stage(session, "prove")


@nox.session
def smoke(session: nox.Session) -> None:
    """Hold what wheels render on this machine's GPU against a reference: [WHEEL...] [--bundle FILE]."""
    with its_exit_status():
        stage(session, "smoke")


@nox.session
def promote(session: nox.Session) -> None:
    """Let readers see the staged index: [--store DIR] [--waive-gpu REASON] [--export FOLDER]."""
    stage(session, "publish", "promote")


@nox.session
def release(session: nox.Session) -> None:
    """Stage, prove and promote wheels: WHEEL... [--waive-gpu REASON] [--export FOLDER]."""
    stage(session, "release")


@nox.session
def publish(session: nox.Session) -> None:
    """The rest of publishing: yank WHEEL --reason R, unyank WHEEL, upload, status."""
    stage(session, "publish")


@nox.session
def serve(session: nox.Session) -> None:
    """Run an index that takes uploads on loopback, with generated credentials: [FOLDER] [--port N]."""
    stage(session, "serve")


@nox.session
def rehearse(session: nox.Session) -> None:
    """A whole release on this machine: build, audit, stage, upload, prove, promote to a local folder: [--arch 9.0]."""
    stage(session, "rehearse")


@nox.session(default=False)
def image(session: nox.Session) -> None:
    """Make a container image from Debian packages, for machines without a registry, and print its name (as root)."""
    install(session, "tests")
    session.run("python", "-m", "tests.integration.container", *session.posargs)


@nox.session
def benchmark(session: nox.Session) -> None:
    """Measure side by side and print tables: build (half an hour), import, index, raster, hierarchy or blocks."""
    name, *arguments = session.posargs or ["build"]
    if name not in BENCHMARKS:
        session.error(f"{name}: expected one of {', '.join(BENCHMARKS)}")
    install(session, BENCHMARKS[name])
    sources = os.pathsep.join(str(folder.resolve()) for folder in sorted(Path("packages").glob("*/src")))
    session.run("python", "-m", f"benchmarks.{name}_time", *arguments, env={**ONE_THREAD, "PYTHONPATH": sources})


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, types, workflows, the matrix, and that what is generated and locked is up to date."""
    install(session, "lint")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")
    session.run("python", "-m", "scripts.locks", "--check")
    session.run("check-jsonschema", "--schemafile", "build_matrix.schema.json", "build_matrix.yaml")
    session.run("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *WORKFLOWS)
    session.run("check-jsonschema", "--builtin-schema", "vendor.github-actions", *ACTIONS)
    session.run("zizmor", "--offline", "--no-progress", "--strict-collection", "--min-severity=low", ".github")
    session.run("python", "-m", "pytest", "-q", "tests/unit/test_workflows.py")


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests; `-- -m "not integration"` leaves out those that need minutes."""
    install(session, "tests")
    session.run("python", "-m", "pytest", *session.posargs)
    if not any(Path(argument).exists() for argument in session.posargs):
        session.notify("test_packages")


@nox.session
def test_packages(session: nox.Session) -> None:
    """Run the tests that need torch: of packages/ and of the gate's checks; `tests` runs them as well."""
    install(session, "packages")
    session.run("python", "-m", "pytest", *session.posargs, *TORCH_TESTS, env=ONE_THREAD)


def install(session: nox.Session, purpose: str) -> None:
    """Install exactly what requirements/PURPOSE.txt pins."""
    session.install("--require-hashes", "--no-deps", "-r", str(REQUIREMENTS / f"{purpose}.txt"))


def stage(session: nox.Session, name: str, *arguments: str) -> None:
    """Run one stage of the pipeline with the session's arguments."""
    install(session, "pipeline")
    session.run("python", "-m", f"scripts.{name}", *arguments, *session.posargs)


@contextmanager
def its_exit_status() -> Iterator[None]:
    """End nox with the status of the command that failed, where a status says more than that it did."""
    try:
        yield
    except CommandFailed as failed:
        status = (failed.reason or "").rpartition(" ")[2]
        raise SystemExit(int(status) if status.isdigit() else 1) from failed


if __name__ == "__main__":
    nox.main()
