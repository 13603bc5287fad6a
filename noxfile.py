#!/usr/bin/env -S uv run --script
# /// script
# requires-python = ">=3.11"
# dependencies = ["nox>=2025.5"]
# ///
"""Precompiled nvdiffrast wheels: plan, build, audit.

Arguments after `--` go to the stage, e.g. a cell or a glob of cells.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import NoReturn

import nox
from nox.command import CommandFailed
from nox.virtualenv import VirtualEnv

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
# As many processes as there are cores. conftest.py keeps integration tests in one process, in their order.
PARALLEL = ["-n", "auto", "--dist", "loadgroup"]
# What is measured: with the pipeline's environment, and with the one that holds torch.
BENCHMARKS = ("build", "import", "index")
PACKAGE_BENCHMARKS = ("raster", "hierarchy", "blocks")


def install(session: nox.Session, purpose: str) -> None:
    """Make the session's environment hold exactly what requirements/PURPOSE.txt pins; skip the work if it does."""
    environment = session.virtualenv
    assert isinstance(environment, VirtualEnv)
    lock = REQUIREMENTS / f"{purpose}.txt"
    wanted = f"{hashlib.sha256(lock.read_bytes()).hexdigest()} {platform.python_version()}\n"
    # Written last: without it the installation was interrupted, and is completed.
    installed = Path(environment.location, "installed.txt")
    if installed.exists() and installed.read_text(encoding="utf-8") == wanted:
        return
    if installed.exists():
        environment.reuse_existing = False
        environment.create()
    # With torch these are gigabytes: pip and uv show their progress.
    session.install("--require-hashes", "--no-deps", "-r", str(lock), silent=purpose != "packages")
    installed.write_text(wanted, encoding="utf-8")


# Sessions that need the same requirements run in one environment, which a session that they require makes.
@nox.session(name="env-pipeline", default=False)
def env_pipeline(session: nox.Session) -> None:
    """Make the environment of the pipeline's stages; every stage does this itself."""
    install(session, "pipeline")


@nox.session(name="env-tests", default=False)
def env_tests(session: nox.Session) -> None:
    """Make the environment of the tests."""
    install(session, "tests")


@nox.session(name="env-packages", default=False)
def env_packages(session: nox.Session) -> None:
    """Make the environment of what needs torch."""
    install(session, "packages")


stage_session = partial(nox.session, venv_backend="none", requires=["env-pipeline"])
tests_session = partial(nox.session, venv_backend="none", requires=["env-tests"])
packages_session = partial(nox.session, venv_backend="none", requires=["env-packages"])


def run_shared(
    session: nox.Session, purpose: str, *arguments: str, env: Mapping[str, str] | None = None, silent: bool = False
) -> str:
    """Run Python with ``arguments`` in the environment that sessions share for requirements/PURPOSE.txt.

    With ``silent`` its output is returned instead of shown.
    """
    folder = session.cache_dir.parent.resolve() / f"env-{purpose}"
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    path = os.pathsep.join([str(programs), *filter(None, [os.environ.get("PATH")])])
    variables = {"PATH": path, "VIRTUAL_ENV": str(folder), **(env or {})}
    return str(session.run(str(programs / "python"), *arguments, env=variables, external=True, silent=silent))


def stage(session: nox.Session, name: str, *arguments: str) -> None:
    """Run one stage of the pipeline with the session's arguments; nox ends with the stage's exit status."""
    try:
        run_shared(session, "pipeline", "-m", f"scripts.{name}", *arguments, *session.posargs)
    except CommandFailed as failed:
        end_with_status(failed)


def end_with_status(failed: CommandFailed) -> NoReturn:
    """End nox with the exit status of the command that failed; nox itself would end with 1."""
    status = (failed.reason or "").rpartition(" ")[2]
    raise SystemExit(int(status) if status.isdigit() else 1) from failed


@stage_session
def doctor(session: nox.Session) -> None:
    """Say whether this machine can build wheels and can run them: [--python P] [--json] [--share] [--fix]."""
    stage(session, "doctor.doctor")


@stage_session
def plan(session: nox.Session) -> None:
    """Print what the matrix makes, and what of it this machine can build: [--json | --github] [CELL...]."""
    stage(session, "build.plan")


@stage_session
def build(session: nox.Session) -> None:
    """Build, repair and audit this host's cell or the named ones: [CELL...] [--release X] [--arch 9.0] [--engine E]."""
    stage(session, "build.build")


@stage_session
def audit(session: nox.Session) -> None:
    """Check wheels against their cells: WHEEL..."""
    stage(session, "audit.audit")


@stage_session
def reproduce(session: nox.Session) -> None:
    """Build a cell twice in different surroundings and compare the bytes: [CELL...]."""
    stage(session, "build.reproduce")


@stage_session
def verify(session: nox.Session) -> None:
    """Check a wheel against its record, bill of materials and provenance: WHEEL [--rebuild] [--records DIR]."""
    stage(session, "build.verify")


@nox.session
def audit_locks(session: nox.Session) -> None:
    """Ask a vulnerability service about everything that is locked, less requirements/waivers.yaml: [NAME...]."""
    install(session, "advisories")
    try:
        session.run("python", "-m", "scripts.locks.advisories", *session.posargs)
    except CommandFailed as failed:
        end_with_status(failed)


@stage_session
def patch(session: nox.Session) -> None:
    """Leave a release's patched tree for a person to look at: RELEASE; or try every release: --check."""
    stage(session, "source.patching")


@stage_session
def fetch(session: nox.Session) -> None:
    """Put an upstream release into the cache and print its folder: RELEASE [--source CHECKOUT]."""
    stage(session, "source.upstream")


@stage_session
def lock(session: nox.Session) -> None:
    """Write hash-locked requirements and toolkits: [NAME...] [--check]."""
    stage(session, "locks.generate")


@stage_session
def observe(session: nox.Session) -> None:
    """Refresh the table of torch builds from a package index: [--index URL] [--add] [--report FILE]."""
    stage(session, "matrix.observe")


@stage_session
def golden(session: nox.Session) -> None:
    """Write what is made from the matrix: its JSON schema and the golden list of cells; --doctor: its torch table."""
    stage(session, "matrix.matrix", "--schema", "--golden")


@stage_session
def packages(session: nox.Session) -> None:
    """Build the pure-Python packages as wheels, in dist/: [NAME...]."""
    stage(session, "build.pure_packages")


@stage_session
def index(session: nox.Session) -> None:
    """Write a store's index again, or copy it out as plain files: [STORE] [--export FOLDER]."""
    stage(session, "index.writer")


@stage_session(name="stage")
def stage_wheels(session: nox.Session) -> None:
    """Put audited wheels into the staged index: WHEEL... [--store DIR]."""
    stage(session, "publish.publish", "stage")


@stage_session
def prove(session: nox.Session) -> None:
    """Install every staged wheel by pip and by uv, by the very commands that the page shows: [--store DIR] [--real]."""
    stage(session, "publish.prove")


@stage_session
def smoke(session: nox.Session) -> None:
    """Hold what wheels render on this machine's GPU against a reference: [WHEEL...] [--bundle FILE]."""
    stage(session, "audit.smoke")


@stage_session
def promote(session: nox.Session) -> None:
    """Let readers see the staged index: [--store DIR] [--waive-gpu REASON] [--export FOLDER]."""
    stage(session, "publish.publish", "promote")


@stage_session
def release(session: nox.Session) -> None:
    """Stage, prove and promote wheels: WHEEL... [--waive-gpu REASON] [--export FOLDER]."""
    stage(session, "publish.release")


@stage_session
def publish(session: nox.Session) -> None:
    """The rest of publishing: yank WHEEL --reason R, unyank WHEEL, upload, status."""
    stage(session, "publish.publish")


@stage_session
def serve(session: nox.Session) -> None:
    """Run an index that takes uploads on loopback, with generated credentials: [FOLDER] [--port N]."""
    stage(session, "publish.serve")


@stage_session
def rehearse(session: nox.Session) -> None:
    """A whole release on this machine: build, audit, stage, upload, prove, promote to a local folder: [--arch 9.0]."""
    stage(session, "publish.rehearse")


@tests_session(default=False)
def image(session: nox.Session) -> None:
    """Make a container image from Debian packages, for machines without a registry, and print its name (as root)."""
    run_shared(session, "tests", "-m", "tests.integration.container", *session.posargs)


@nox.session(venv_backend="none", default=False)
def clean(session: nox.Session) -> None:
    """Show the sizes of all that is kept on disk, and remove what is chosen: [CATEGORY...] [--yes]."""
    # In nox's own Python: the environments are among what is removed.
    try:
        session.run(sys.executable, "-m", "scripts.support.disk_usage", *session.posargs, external=True)
    except CommandFailed as failed:
        end_with_status(failed)


@stage_session
def benchmark(session: nox.Session) -> None:
    """Measure side by side and print tables: build (half an hour), import or index."""
    measure(session, "pipeline", BENCHMARKS)


@packages_session
def benchmark_packages(session: nox.Session) -> None:
    """Measure the packages side by side and print tables: raster, hierarchy or blocks."""
    measure(session, "packages", PACKAGE_BENCHMARKS)


def measure(session: nox.Session, purpose: str, known: tuple[str, ...]) -> None:
    """Run the benchmark that the first argument names, by default the first of ``known``."""
    name, *arguments = session.posargs or known[:1]
    if name not in known:
        session.error(f"{name}: expected one of {', '.join(known)}")
    sources = os.pathsep.join(str(folder.resolve()) for folder in sorted(Path("packages").glob("*/src")))
    run_shared(session, purpose, "-m", f"benchmarks.{name}_time", *arguments, env={**ONE_THREAD, "PYTHONPATH": sources})


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, types, workflows, the matrix, and that what is generated and locked is up to date."""
    install(session, "lint")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")
    session.run("python", "-m", "scripts.locks.generate", "--check")
    session.run("check-jsonschema", "--schemafile", "build_matrix.schema.json", "build_matrix.yaml")
    session.run("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *WORKFLOWS)
    session.run("check-jsonschema", "--builtin-schema", "vendor.github-actions", *ACTIONS)
    session.run("zizmor", "--offline", "--no-progress", "--strict-collection", "--min-severity=low", ".github")
    # The plan's tests render it at 80 columns.
    session.run("python", "-m", "pytest", "-q", "tests/unit/test_workflows.py", "tests/unit/test_plan.py")


@tests_session
def tests(session: nox.Session) -> None:
    """Run the tests; `-- -m "not integration"` leaves out those that need minutes."""
    # Integration tests share the builds' cache: torch is downloaded once. Unit tests do not see it.
    cache = run_shared(session, "tests", "-m", "scripts.support.files", silent=True).strip()
    run_shared(session, "tests", "-m", "pytest", *PARALLEL, *session.posargs, env={"NVDIFFRAST_WHEELS_CACHE": cache})
    if not any(Path(argument).exists() for argument in session.posargs):
        # Nox does not add what a notified session requires.
        session.notify("env-packages")
        session.notify("test_packages")


@packages_session
def test_packages(session: nox.Session) -> None:
    """Run the tests that need torch: of packages/ and of the gate's checks; `tests` runs them as well."""
    run_shared(session, "packages", "-m", "pytest", *PARALLEL, *session.posargs, *TORCH_TESTS, env=ONE_THREAD)


if __name__ == "__main__":
    nox.main()
