#!/usr/bin/env -S uv run --script
# /// script
# requires-python = ">=3.11"
# dependencies = ["nox>=2025.5"]
# ///
"""Sessions that plan, build, audit and publish precompiled wheels of nvdiffrast.

Arguments after `--` are passed to the stage, for example a cell or a glob of cells.
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
UNIT_TESTS = ["-m", "not integration"]
# As many processes as there are cores, each with whole files.
PARALLEL = ["-n", "auto", "--dist", "loadfile"]
# Benchmarks that run in the pipeline's environment, and those that run in the environment with torch.
BENCHMARKS = ("build", "import", "index")
PACKAGE_BENCHMARKS = ("raster", "hierarchy", "blocks")


def install(session: nox.Session, purpose: str) -> None:
    """Install exactly the pins of requirements/PURPOSE.txt in the session's environment, unless it has them."""
    environment = session.virtualenv
    assert isinstance(environment, VirtualEnv)
    lock = REQUIREMENTS / f"{purpose}.txt"
    wanted = f"{hashlib.sha256(lock.read_bytes()).hexdigest()} {platform.python_version()}\n"
    # This file is written last: if it is missing, an installation was interrupted and must be completed.
    installed = Path(environment.location, "installed.txt")
    if installed.exists() and installed.read_text(encoding="utf-8") == wanted:
        return
    if installed.exists():
        environment.reuse_existing = False
        environment.create()
    # torch downloads gigabytes: let pip and uv show their progress.
    session.install("--require-hashes", "--no-deps", "-r", str(lock), silent=purpose != "packages")
    installed.write_text(wanted, encoding="utf-8")


# Sessions with the same requirements share one environment, which a session that they require creates.
@nox.session(name="env-pipeline", default=False)
def env_pipeline(session: nox.Session) -> None:
    """Create the environment of the pipeline's stages; every stage requires this session."""
    install(session, "pipeline")


@nox.session(name="env-tests", default=False)
def env_tests(session: nox.Session) -> None:
    """Create the environment of the tests."""
    install(session, "tests")


@nox.session(name="env-packages", default=False)
def env_packages(session: nox.Session) -> None:
    """Create the environment of tests and benchmarks that need torch."""
    install(session, "packages")


stage_session = partial(nox.session, venv_backend="none", requires=["env-pipeline"])
tests_session = partial(nox.session, venv_backend="none", requires=["env-tests"])
packages_session = partial(nox.session, venv_backend="none", requires=["env-packages"])


def run_shared(
    session: nox.Session, purpose: str, *arguments: str, env: Mapping[str, str] | None = None, silent: bool = False
) -> str:
    """Run Python with ``arguments`` in the shared environment of requirements/PURPOSE.txt.

    With ``silent``, return the output instead of showing it.
    """
    folder = session.cache_dir.parent.resolve() / f"env-{purpose}"
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    path = os.pathsep.join([str(programs), *filter(None, [os.environ.get("PATH")])])
    variables = {"PATH": path, "VIRTUAL_ENV": str(folder), **(env or {})}
    return str(session.run(str(programs / "python"), *arguments, env=variables, external=True, silent=silent))


def stage(session: nox.Session, name: str, *arguments: str) -> None:
    """Run one stage of the pipeline with the session's arguments; nox ends with the stage's exit status."""
    run_program(session, "pipeline", "-m", f"scripts.{name}", *arguments, *session.posargs)


def run_program(session: nox.Session, purpose: str, *arguments: str, env: Mapping[str, str] | None = None) -> None:
    """Run Python in a shared environment; if it fails, nox ends with its exit status."""
    try:
        run_shared(session, purpose, *arguments, env=env)
    except CommandFailed as failed:
        end_with_status(failed)


def end_with_status(failed: CommandFailed) -> NoReturn:
    """End nox with the exit status of the command that failed; nox itself would end with 1."""
    status = (failed.reason or "").rpartition(" ")[2]
    raise SystemExit(int(status) if status.isdigit() else 1) from failed


@stage_session
def doctor(session: nox.Session) -> None:
    """Report whether this machine can build and run wheels: [--python P] [--json] [--share] [--fix]."""
    stage(session, "doctor.doctor")


@stage_session
def plan(session: nox.Session) -> None:
    """Print the cells of the matrix, and which of them this machine can build: [--json | --github] [CELL...]."""
    stage(session, "build.plan")


@stage_session
def build(session: nox.Session) -> None:
    """Build, repair and audit wheels, by default for this host: [CELL...] [--release X] [--arch 9.0] [--engine E]."""
    stage(session, "build.build")


@stage_session
def audit(session: nox.Session) -> None:
    """Check wheels against their cells: WHEEL..."""
    stage(session, "audit.audit")


@stage_session
def reproduce(session: nox.Session) -> None:
    """Build a cell twice in different folders and time zones, and compare the bytes: [CELL...]."""
    stage(session, "build.reproduce")


@stage_session
def verify(session: nox.Session) -> None:
    """Check a wheel against its record, bill of materials and provenance: WHEEL [--rebuild] [--records DIR]."""
    stage(session, "build.verify")


@nox.session
def audit_locks(session: nox.Session) -> None:
    """Query advisories about all locked versions, and apply requirements/waivers.yaml: [NAME...]."""
    install(session, "advisories")
    try:
        session.run("python", "-m", "scripts.locks.advisories", *session.posargs)
    except CommandFailed as failed:
        end_with_status(failed)


@stage_session
def patch(session: nox.Session) -> None:
    """Write the patched tree of a release for inspection: RELEASE; or patch every release: --check."""
    stage(session, "source.patching")


@stage_session
def fetch(session: nox.Session) -> None:
    """Fetch an upstream release into the cache and print its folder: RELEASE [--source CHECKOUT]."""
    stage(session, "source.upstream")


@stage_session
def lock(session: nox.Session) -> None:
    """Write the locks of requirements and toolkits, or check them: [NAME...] [--check] [--upgrade]."""
    stage(session, "locks.generate")


@stage_session
def observe(session: nox.Session) -> None:
    """Update the table of torch builds from package indexes: [--index URL] [--add] [--report FILE]."""
    stage(session, "matrix.observe")


@stage_session
def golden(session: nox.Session) -> None:
    """Write the files generated from the matrix: JSON schema and list of cells; --doctor: the doctor's table."""
    stage(session, "matrix.matrix", "--schema", "--golden")


@stage_session
def packages(session: nox.Session) -> None:
    """Build the wheels of the pure-Python packages in dist/: [NAME...]."""
    stage(session, "build.pure_packages")


@stage_session
def index(session: nox.Session) -> None:
    """Write the index of a store again, or export it as plain files: [STORE] [--export FOLDER]."""
    stage(session, "index.command")


@stage_session(name="stage")
def stage_wheels(session: nox.Session) -> None:
    """Add audited wheels to the staged index: WHEEL... [--store DIR]."""
    stage(session, "publish.publish", "stage")


@stage_session
def prove(session: nox.Session) -> None:
    """Install every staged wheel with pip and with uv, by the commands of the index page: [--store DIR] [--real]."""
    stage(session, "publish.prove")


@stage_session
def smoke(session: nox.Session) -> None:
    """Compare what wheels render on this machine's GPU with a reference: [WHEEL...] [--bundle FILE]."""
    stage(session, "audit.smoke")


@stage_session
def promote(session: nox.Session) -> None:
    """Make the staged index the current one: [--store DIR] [--waive-gpu REASON] [--export FOLDER]."""
    stage(session, "publish.publish", "promote")


@stage_session
def release(session: nox.Session) -> None:
    """Stage, prove and promote wheels: WHEEL... [--waive-gpu REASON] [--export FOLDER]."""
    stage(session, "publish.release")


@stage_session
def publish(session: nox.Session) -> None:
    """Run another publishing command: yank WHEEL --reason R, unyank WHEEL, upload, status."""
    stage(session, "publish.publish")


@stage_session
def serve(session: nox.Session) -> None:
    """Serve an index with uploads on loopback, with generated credentials: [FOLDER] [--port N]."""
    stage(session, "publish.serve")


@stage_session
def rehearse(session: nox.Session) -> None:
    """Rehearse a release in a local folder: build, audit, stage, upload, prove, promote: [--arch 9.0]."""
    stage(session, "publish.rehearse")


@tests_session(default=False)
def image(session: nox.Session) -> None:
    """Create a container image from Debian packages, for machines without a registry, and print its name (as root)."""
    run_program(session, "tests", "-m", "tests.integration.container", *session.posargs)


@nox.session(venv_backend="none", default=False)
def clean(session: nox.Session) -> None:
    """Show the size of caches, environments and build folders, and delete them: [CATEGORY...] [--yes]."""
    # Use nox's own Python, because the environments can be deleted.
    try:
        session.run(sys.executable, "-m", "scripts.support.disk_usage", *session.posargs, external=True)
    except CommandFailed as failed:
        end_with_status(failed)


@stage_session
def benchmark(session: nox.Session) -> None:
    """Run a benchmark and print its table: build (half an hour), import or index."""
    measure(session, "pipeline", BENCHMARKS)


@packages_session
def benchmark_packages(session: nox.Session) -> None:
    """Run a benchmark of the packages and print its table: raster, hierarchy or blocks."""
    measure(session, "packages", PACKAGE_BENCHMARKS)


def measure(session: nox.Session, purpose: str, known: tuple[str, ...]) -> None:
    """Run the benchmark that the first argument names, by default the first of ``known``."""
    name, *arguments = session.posargs or known[:1]
    if name not in known:
        session.error(f"{name}: expected one of {', '.join(known)}")
    sources = os.pathsep.join(str(folder.resolve()) for folder in sorted(Path("packages").glob("*/src")))
    run_program(
        session, purpose, "-m", f"benchmarks.{name}_time", *arguments, env={**ONE_THREAD, "PYTHONPATH": sources}
    )


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, types, workflows and the matrix, and that generated files and locks are up to date."""
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
    # Integration tests use servers, containers and all cores, so they run one after the other.
    runs = [session.posargs] if session.posargs else [UNIT_TESTS, ["-m", "integration"]]
    for arguments in runs:
        processes = PARALLEL if "not integration" in arguments else []
        run_shared(session, "tests", "-m", "pytest", *processes, *arguments, env={"NVDIFFRAST_WHEELS_CACHE": cache})
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
