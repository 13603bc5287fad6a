"""The plan: missing inputs, its three forms, and the partition of GitHub's jobs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from scripts import console
from scripts.build import plan
from scripts.build.plan import Probes
from scripts.errors import UsageError
from scripts.matrix import matrix
from scripts.model import Cell, GitPin, Release, Toolkit
from scripts.support import host
from scripts.support.environments import torch_lock_name

MATRIX = matrix.load()
READY = Probes(
    host="linux_x86_64",
    source=lambda release: None,
    toolkit=lambda toolkit: None,
    compiler=lambda cell: None,
    python=lambda python: None,
    torch_lock=lambda cell: None,
)


def cell(glob: str) -> Cell:
    return MATRIX.select([glob])[0]


LINUX = cell("0.3.3.1-cp312-cu130-torch2.11-linux_x86_64")
WINDOWS = cell("0.3.3.1-cp312-cu130-torch2.11-win_amd64")


def test_names_the_lock_of_an_unlocked_torch() -> None:
    probe = plan.this_machine().torch_lock
    unknown = replace(LINUX, torch=replace(LINUX.torch, version="2.11.99"))
    assert probe(LINUX) is None
    assert probe(unknown) == "torch 2.11.99 has no lock: run `nox -s lock -- 2.11.99-cu130`"


def test_nothing_is_missing_on_a_complete_machine() -> None:
    assert plan.missing_here(LINUX, READY) == ()


def test_reports_only_the_platform_if_it_differs() -> None:
    assert plan.missing_here(WINDOWS, replace(READY, python=lambda python: "no Python")) == ("a win_amd64 machine",)
    assert plan.missing_here(WINDOWS, replace(READY, host="win_amd64")) == ()


def test_names_every_missing_input() -> None:
    bare = replace(
        READY,
        source=lambda release: f"no {release.version}",
        toolkit=lambda toolkit: f"no {toolkit.tag}",
        compiler=lambda cell: f"g++ above {cell.toolkit.gcc.maximum}",
        python=lambda python: f"no {python}",
        torch_lock=torch_lock_name,
    )
    assert plan.missing_here(LINUX, bare) == (
        "no 0.3.3.1",
        "no cu130",
        "g++ above 15",
        "no 3.12",
        "requirements/torch/2.11.0-cu130.txt",
    )


def test_calls_each_probe_once() -> None:
    asked: list[str] = []

    def source(release: Release) -> str | None:
        asked.append(release.version)
        return None if release.version == "0.4.0" else "no source"

    def toolkit(toolkit: Toolkit) -> str | None:
        asked.append(toolkit.tag)
        return None

    rows = plan.rows(MATRIX.cells, replace(READY, source=source, toolkit=toolkit))
    assert sorted(asked) == sorted({one.version for one in MATRIX.releases} | {one.tag for one in MATRIX.toolkits})
    assert {row.cell.release.version for row in rows if row.buildable} == {"0.4.0"}


def test_names_the_host_like_a_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    for system, machine, name in (("Linux", "x86_64", "linux_x86_64"), ("Windows", "AMD64", "win_amd64")):
        monkeypatch.setattr("platform.system", lambda system=system: system)
        monkeypatch.setattr("platform.machine", lambda machine=machine: machine)
        assert host.host_platform() == name


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> object:
    monkeypatch.setattr(plan, "this_machine", lambda: replace(READY, source=_git_is_out_of_reach))

    def call(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["plan", *arguments])
        assert plan.main() == 0
        return capsys.readouterr().out

    return call


def _git_is_out_of_reach(release: Release) -> str | None:
    return "git does not answer" if isinstance(release.source, GitPin) else None


def test_json(run: object) -> None:
    assert callable(run)
    made = json.loads(run("--json"))
    assert len(made["cells"]) == len(MATRIX.cells) >= 100
    keys = {"id", "release", "python", "cuda", "torch", "platform", "wheel", "channel"}
    keys |= {"source", "providers", "buildable", "missing"}
    assert all(one.keys() == keys for one in made["cells"])
    by_id = {one["id"]: one for one in made["cells"]}
    assert by_id[LINUX.id] == {
        "id": "0.3.3.1-cp312-cu130-torch2.11-linux_x86_64",
        "release": "0.3.3.1",
        "python": "3.12",
        "cuda": "13.0",
        "torch": "2.11.0",
        "platform": "linux_x86_64",
        "wheel": "nvdiffrast-0.3.3.1+cu130.torch2.11-cp312-cp312-manylinux_2_28_x86_64.whl",
        "channel": "/whl/cu130/",
        "source": "registry diffrp-nvdiffrast 0.3.3.1",
        "providers": ["pypi", "redist", "system"],
        "buildable": True,
        "missing": [],
    }
    assert by_id[WINDOWS.id]["missing"] == ["a win_amd64 machine"]
    assert by_id["0.4.0-cp312-cu130-torch2.11-linux_x86_64"]["missing"] == ["git does not answer"]
    assert made["totals"]["buildable"] == sum(one["buildable"] for one in made["cells"]) > 0
    assert made["totals"]["excluded"] == sum(len(one["cells"]) for one in made["exclusions"]) > 0
    assert all(one["reason"] for one in made["exclusions"])


def test_json_of_a_glob(run: object) -> None:
    assert callable(run)
    made = json.loads(run("--json", "*-cp312-cu130-*", LINUX.id))
    assert {one["python"] for one in made["cells"]} == {"3.12"}
    assert made["totals"]["cells"] == len(made["cells"]) < made["totals"]["matrix"]


def test_groups_count_every_cell_once() -> None:
    rows = plan.rows(MATRIX.cells, replace(READY, source=_git_is_out_of_reach))
    counts = [count for group in plan.groups(rows) for count in group.counts.values()]
    assert sum(cells for cells, _ in counts) == len(MATRIX.cells)
    assert sum(buildable for _, buildable in counts) == sum(row.buildable for row in rows) > 0
    releases = {name for group in plan.groups(rows) for name in group.counts}
    assert releases == {release.version for release in MATRIX.releases}


def test_torch_lines_with_the_same_pythons_and_platforms_are_one_group() -> None:
    unlocked = replace(READY, torch_lock=lambda cell: "unlocked" if cell.torch.line == "2.11" else None)
    made = plan.groups(plan.rows(MATRIX.select(["0.3.4-*-cu130-*", "0.3.5-*-cu130-*"]), unlocked))
    pythons = ("3.10", "3.11", "3.12", "3.13", "3.14")
    torches = ("2.9", "2.10", "2.11", "2.12", "2.13")
    counts = {"0.3.4": (50, 20), "0.3.5": (50, 20)}
    assert made == [
        plan.Group("cu130", torches, pythons, ("linux_x86_64", "win_amd64"), counts),
        plan.Group("cu130", ("2.14",), pythons, ("linux_x86_64",), {"0.3.4": (5, 5), "0.3.5": (5, 5)}),
    ]


def test_the_short_form_fits_a_screen_of_80_columns(run: object, monkeypatch: pytest.MonkeyPatch) -> None:
    assert callable(run)
    monkeypatch.setenv("COLUMNS", "80")
    printed = run()
    lines = printed.splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 80
    assert len(lines) <= 40
    words = printed.split()
    # Every name is one word: no line break divides it.
    for name in (*(toolkit.tag for toolkit in MATRIX.toolkits), *(release.version for release in MATRIX.releases)):
        assert name in words
    assert f"{len(MATRIX.cells)} cells of {len(MATRIX.cells)} in the matrix" in printed
    assert "2.9-2.13" in printed
    assert "no image pinned" not in printed


def test_names_a_platform_without_an_image(capsys: pytest.CaptureFixture[str]) -> None:
    cell = next(cell for cell in MATRIX.cells if not cell.platform.is_windows)
    unpinned = replace(cell, platform=replace(cell.platform, image=None))
    plan.print_groups(MATRIX, [plan.Row(unpinned, ())])
    assert "linux_x86_64: no image pinned; a container build needs --image" in capsys.readouterr().out


def test_the_long_form_lists_every_exclusion_with_its_reason(run: object) -> None:
    assert callable(run)
    words = run("--cells").split()
    for exclusion in MATRIX.exclusions:
        assert exclusion.pattern in words
        assert set(exclusion.reason.split()) <= set(words)


def test_the_long_form_fits_80_columns(run: object, monkeypatch: pytest.MonkeyPatch) -> None:
    assert callable(run)
    monkeypatch.setenv("COLUMNS", "80")
    lines = run("--cells").splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 80
    shown = [line.split()[0] for line in lines[: len(MATRIX.cells)]]
    assert shown == [one.id for one in MATRIX.cells]
    by_id = dict(line.split("  ", 1) for line in lines[: len(MATRIX.cells)])
    assert by_id[LINUX.id] == "can be built"
    assert by_id[WINDOWS.id] == "lacks 1"
    assert any(line.split()[:4] == ["1", "417", "a", "win_amd64"] for line in lines)


def test_the_short_form_refers_to_the_long_form_for_more_reasons(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    rows = plan.rows(MATRIX.cells, replace(READY, torch_lock=lambda cell: f"no lock {torch_lock_name(cell)}"))
    plan.print_groups(MATRIX, rows)
    printed = capsys.readouterr().out
    reasons = {reason for row in rows for reason in row.missing}
    assert f"and {len(reasons) - 5} more reasons: nox -s plan -- --cells" in printed


@pytest.mark.parametrize("columns", [20, 80])
def test_a_table_does_not_break_words(columns: int, capsys: pytest.CaptureFixture[str]) -> None:
    console.table("", ("cell", "what"), [(LINUX.id, "some words that are wrapped")], width=columns)
    words = capsys.readouterr().out.split()
    assert LINUX.id in words
    assert {"some", "words", "that", "are", "wrapped"} < set(words)


def members(jobs: Sequence[dict[str, object]]) -> list[str]:
    return [identity for job in jobs for identity in str(job["cells"]).split()]


def test_github(run: object) -> None:
    assert callable(run)
    printed = run("--github")
    assert printed.count("\n") == 1
    jobs = json.loads(printed)["include"]
    assert len(jobs) < 256
    assert sorted(members(jobs)) == sorted(one.id for one in MATRIX.cells)
    assert len({job["id"] for job in jobs}) == len(jobs)
    first = next(job for job in jobs if job["id"] == "0.3.3.1-cu130-win_amd64")
    assert first["os"].startswith("windows-")
    assert first["python"] == "3.10\n3.11\n3.12\n3.13\n3.14"
    assert first["msvc"] == "14.44"
    assert next(job for job in jobs if job["id"] == "0.3.3.1-cu126-win_amd64")["msvc"] == "14.43"
    assert next(job for job in jobs if job["id"] == "0.3.3.1-cu126-linux_x86_64")["msvc"] == ""


def test_outputs_of_a_workflow_step(run: object, tmp_path: Path) -> None:
    assert callable(run)
    outputs = tmp_path / "outputs"
    outputs.write_text("before=1\n", encoding="utf-8")
    assert run("--chunks", "--outputs", str(outputs)) == ""
    run("--github", "*-cp312-cu130-torch2.14-*", "--outputs", str(outputs))
    before, chunks, jobs = outputs.read_text(encoding="utf-8").splitlines()
    assert (before, chunks) == ("before=1", 'chunks=["1/1"]')
    assert (
        json.loads(jobs.removeprefix("matrix="))["include"][0]["cells"] == "0.3.3.1-cp312-cu130-torch2.14-linux_x86_64"
    )


@pytest.mark.parametrize(("count", "parts"), [(0, 1), (255, 1), (256, 2), (511, 3)])
def test_the_number_of_chunks_is_minimal(count: int, parts: int) -> None:
    entries: list[dict[str, object]] = [{"id": str(number)} for number in range(count)]
    made = plan.chunks(entries)
    assert len(made) == parts
    assert [entry for which in made for entry in plan.chunk(entries, which)] == entries


def test_chunks_are_a_partition(run: object) -> None:
    assert callable(run)
    whole = json.loads(run("--github"))["include"]
    parts = [json.loads(run("--github", "--chunk", f"{part}/7"))["include"] for part in range(1, 8)]
    assert [job for part in parts for job in part] == whole
    assert {len(part) for part in parts} <= {len(whole) // 7, len(whole) // 7 + 1}


def test_refuses_a_chunk_larger_than_the_limit_of_github() -> None:
    jobs: list[dict[str, object]] = [{"id": str(number)} for number in range(600)]
    with pytest.raises(UsageError, match="600 jobs") as raised:
        plan.chunk(jobs, "1/1")
    assert raised.value.hint == "--chunk 1/3 and so on"
    assert [len(plan.chunk(jobs, f"{part}/3")) for part in (1, 2, 3)] == [200, 200, 200]


@pytest.mark.parametrize("which", ["0/2", "3/2", "1", "a/b", "-1/2"])
def test_refuses_a_malformed_chunk(which: str) -> None:
    with pytest.raises(UsageError, match="is not K/N"):
        plan.chunk([], which)
