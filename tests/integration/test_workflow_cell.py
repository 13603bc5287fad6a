"""Run build.yml for one cell as GitHub does: expand the matrix and run the steps in order, with a real wheel."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from scripts.model import ROOT, Cell
from scripts.support.files import file_sha256
from scripts.wheel import audit_record
from tests import workflows
from tests.workflows import Step

pytestmark = pytest.mark.integration
# The only actions that the workflow may use. The test does not run them; it runs all steps with a command.
_ACTIONS = ("actions/checkout@", "actions/cache/", "actions/upload-artifact@", "./.github/actions/nox")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the files that git tracks, as a runner would check them out."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: clone the repository")
    folder = tmp_path_factory.mktemp("runner") / "checkout"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


def run(step: Step, context: Mapping[str, Any], checkout: Path) -> str:
    """Run a step as the runner does, with this environment's nox, and return its output."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "GITHUB_OUTPUT": str(checkout.parent / "outputs"),
        **step.variables(context),
    }
    script = checkout.parent / "step.sh"
    script.write_text(step.command or "", encoding="utf-8")
    shell = ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)]
    done = subprocess.run(shell, cwd=checkout, env=environment, stdout=-1, stderr=subprocess.STDOUT, check=False)
    output = done.stdout.decode(errors="replace")
    assert done.returncode == 0, f"{step.command}\n{output[-4000:]}"
    return output


def run_job(name: str, context: Mapping[str, Any], checkout: Path) -> list[str]:
    """Run all steps of a job in order, and return the commands."""
    ran = []
    for step in workflows.steps("build.yml", name):
        if step.command:
            run(step, context, checkout)
            ran.append(step.command)
        elif step.runs(context):
            assert step.document["uses"].startswith(_ACTIONS)
    return ran


def test_workflow_builds_one_cell_and_reuses_its_wheel(host_cell: Cell, checkout: Path) -> None:
    inputs = {"cells": host_cell.id, "chunk": "1/1", "engine": "host"}
    context: dict[str, Any] = {"inputs": inputs, "runner": {"os": "Linux"}}
    assert len(run_job("plan", context, checkout)) == 1
    outputs = dict(line.split("=", 1) for line in (checkout.parent / "outputs").read_text().splitlines())
    (job,) = json.loads(outputs["matrix"])["include"]
    assert job["cells"] == host_cell.id

    (command,) = run_job("cells", {**context, "matrix": job}, checkout)
    assert command.startswith("nox -s build ")
    upload = list(workflows.steps("build.yml", "cells"))[-1].document["with"]["path"]
    (wheel,) = (checkout / upload).glob("*.whl")
    assert wheel.name == host_cell.wheel
    record = audit_record.find(file_sha256(wheel), checkout / upload)
    assert record is not None
    assert record.outcome == "passed"

    # Run the job again, as after an interruption: the finished wheel comes from the cache.
    before = wheel.read_bytes()
    shutil.rmtree(checkout / upload)
    build = next(step for step in workflows.steps("build.yml", "cells") if "build" in (step.command or ""))
    assert "the wheel of an earlier build is used" in run(build, {**context, "matrix": job}, checkout)
    assert wheel.read_bytes() == before
