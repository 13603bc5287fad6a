"""The workflows call nox with valid arguments, pin their actions, and have minimal permissions."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import pytest

from scripts.build import plan
from scripts.matrix import matrix
from scripts.model import ROOT
from tests import workflows
from tests.workflows import Step

JOBS = plan.jobs(matrix.load().cells)
# The values of GitHub's expressions in commands.
CONTEXT: dict[str, Any] = {
    "inputs": {"cells": "*", "chunk": "1/1", "engine": "cibuildwheel"},
    "matrix": JOBS[0],
    "vars": {"STORE": "store", "WAIVE_GPU": "no GPU for Windows"},
}
RUNNER = {"GITHUB_ACTOR": "somebody", "GITHUB_OUTPUT": "outputs"}
COMMANDS = [step for name in workflows.names() for step in workflows.steps(name) if step.command]
ACTIONS = sorted((ROOT / ".github" / "actions").glob("*/action.yml"))


def named(step: Step) -> str:
    return f"{step.workflow}:{step.job}:{step.command}"


def test_all_workflows_exist() -> None:
    assert workflows.names() == ["build.yml", "ci.yml", "observe.yml", "rehearse.yml", "release.yml"]


@pytest.mark.parametrize("step", COMMANDS, ids=named)
def test_a_step_only_calls_nox(step: Step) -> None:
    assert step.command is not None
    assert re.fullmatch(r"nox -s [^\n;&|`]*", step.command), "one line, one command"
    assert "${{" not in step.command, "inputs come through env"


@pytest.mark.parametrize("step", COMMANDS, ids=named)
def test_every_call_has_a_valid_session_and_arguments(step: Step) -> None:
    assert step.command is not None
    made = workflows.calls(step.command, {**RUNNER, **step.variables(CONTEXT)})
    assert len(made) == 1
    assert workflows.problem(made[0]) is None


@pytest.mark.parametrize(
    ("call", "wrong"),
    [
        ("nox -s biuld", "no session biuld"),
        ("nox -s build -- --arc 9.0 --no-such", "build: unrecognized arguments: --no-such"),
        ("nox -s build -- --engine docker", "build: argument --engine: invalid choice: 'docker'"),
        ("nox -s plan -- --json --github", "plan: argument --github: not allowed with argument --json"),
        ("nox -s verify", "verify: the following arguments are required: WHEEL"),
        ("nox -s publish -- yank X", "publish: the following arguments are required: --reason"),
        ("nox -l", "not a call of sessions: -l"),
    ],
)
def test_reports_a_wrong_call(call: str, wrong: str) -> None:
    (arguments,) = workflows.calls(call, {})
    message = workflows.problem(arguments)
    assert message is not None
    assert message.startswith(wrong)


def test_passes_a_gpu_waiver_only_with_a_reason() -> None:
    step = next(step for step in workflows.steps("release.yml", "promote") if step.command)
    assert step.command is not None
    (with_reason,) = workflows.calls(step.command, {**RUNNER, "STORE": "my store", "REASON": "no GPU"})
    (without,) = workflows.calls(step.command, {**RUNNER, "STORE": "my store", "REASON": ""})
    assert with_reason[-2:] == ["--waive-gpu", "no GPU"]
    assert "--waive-gpu" not in without
    assert "my store" in without


def test_actions_are_pinned_by_commit_with_one_version_each() -> None:
    known: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for path in [*workflows.FOLDER.glob("*.yml"), *ACTIONS]:
        for number, action, reference, comment in workflows.pinned(path):
            assert re.fullmatch(r"[0-9a-f]{40}", reference), f"{path.name}:{number}"
            assert re.fullmatch(r"v\d+\.\d+\.\d+", comment), f"{path.name}:{number}"
            # actions/cache/save belongs to actions/cache.
            known["/".join(action.split("/")[:2])].add((reference, comment))
    assert len(known) >= 6
    assert {action: pins for action, pins in known.items() if len(pins) > 1} == {}


def test_only_the_matrix_names_the_container_image() -> None:
    images = {cell.platform.name: cell.platform.image for cell in matrix.load().cells}
    assert images["win_amd64"] is None
    assert re.fullmatch(r"quay\.io/pypa/manylinux_2_28_x86_64@sha256:[0-9a-f]{64}", images["linux_x86_64"] or "")
    for path in workflows.FOLDER.glob("*.yml"):
        assert "@sha256:" not in path.read_text(encoding="utf-8")


def test_workflows_build_linux_wheels_in_the_container() -> None:
    triggers = workflows.load("build.yml")["on"]
    assert {one["inputs"]["engine"]["default"] for one in triggers.values()} == {"cibuildwheel"}
    builds = [step for step in COMMANDS if re.match(r"nox -s (build|rehearse)\b", step.command or "")]
    assert {step.workflow for step in builds} == {"build.yml", "ci.yml", "rehearse.yml"}
    for step in builds:
        (arguments,) = workflows.calls(step.command or "", {**RUNNER, **step.variables(CONTEXT)})
        assert arguments[arguments.index("--engine") + 1] == "cibuildwheel"


@pytest.mark.parametrize("name", workflows.names())
def test_permissions_are_minimal(name: str) -> None:
    document = workflows.load(name)
    assert document["permissions"] == {}
    for job in document["jobs"].values():
        assert "permissions" in job
        writes = {scope for scope, how in job["permissions"].items() if how == "write"}
        actions = " ".join(step.get("uses", "") for step in job.get("steps", ()))
        assert writes <= {"attestations", "id-token"} or "create-pull-request" in actions
        assert not ("id-token" in writes and any("run" in step for step in job["steps"])), "a token beside our own code"


def triggers(name: str) -> Mapping[str, Any]:
    document = workflows.load(name)["on"]
    assert isinstance(document, Mapping)
    return document


@pytest.mark.parametrize("name", workflows.names())
def test_pull_requests_do_not_run_on_self_hosted_runners(name: str) -> None:
    for job in workflows.load(name)["jobs"].values():
        if "self-hosted" in job.get("runs-on", ()):
            assert set(triggers(name)) <= {"push", "workflow_dispatch"}
            assert set(triggers(name)["push"]) == {"tags"}
    assert "pull_request_target" not in triggers(name)


def test_promotion_needs_approval_and_follows_gpu_checks_and_proof() -> None:
    jobs = workflows.load("release.yml")["jobs"]
    assert jobs["promote"]["environment"] == "index"
    assert "gpu" in jobs["smoke"]["runs-on"]
    order = ["plan", "build", "smoke", "stage", "promote", "attest"]
    assert list(jobs) == order
    assert [jobs[name].get("needs") for name in order] == [None, *order[:-1]]


def test_build_uses_the_matrix_and_chunks_of_the_plan() -> None:
    cells = workflows.load("build.yml")["jobs"]["cells"]
    assert cells["strategy"]["matrix"] == "${{ fromJSON(needs.plan.outputs.matrix) }}"
    chunk = workflows.load("release.yml")["jobs"]["build"]
    assert chunk["strategy"]["matrix"]["chunk"] == "${{ fromJSON(needs.plan.outputs.chunks) }}"
    assert chunk["with"]["chunk"] == "${{ matrix.chunk }}"
    for job in JOBS:
        used = set(re.findall(r"[{ ]matrix\.(\w+)", json.dumps(cells)))
        assert used <= set(job)


@pytest.mark.parametrize("job", JOBS, ids=lambda job: str(job["id"]))
def test_every_job_of_the_matrix_is_a_valid_call(job: dict[str, object]) -> None:
    step = next(step for step in workflows.steps("build.yml", "cells") if "build" in (step.command or ""))
    assert step.command is not None
    (arguments,) = workflows.calls(step.command, {**RUNNER, **step.variables({**CONTEXT, "matrix": job})})
    assert arguments[3 : 3 + len(str(job["cells"]).split())] == str(job["cells"]).split()
    assert workflows.problem(arguments) is None


def test_windows_jobs_use_a_toolset_that_the_cuda_supports() -> None:
    """This checks only the name of the toolset; the runner provides the toolset itself."""
    step = next(step for step in workflows.steps("build.yml", "cells") if "msvc" in step.document.get("uses", ""))
    assert step.document["with"]["toolset"] == "${{ matrix.msvc }}"
    assert step.runs({"runner": {"os": "Windows"}})
    assert not step.runs({"runner": {"os": "Linux"}})
    for job in JOBS:
        windows = str(job["os"]).startswith("windows")
        toolkit = matrix.load().toolkit(str(job["id"]).split("-")[1])
        assert job["msvc"] == (toolkit.msvc.maximum if windows else "")
    assert workflows.load("build.yml")["defaults"]["run"]["shell"] == "bash", "no PowerShell"
