"""scripts.matrix.additions: add torch builds of a newer table to a copy of the matrix."""

from __future__ import annotations

import difflib
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from scripts.matrix import additions, matrix, observe, torch_builds
from scripts.matrix.torch_builds import Channel, Plain, TorchTable

TABLE = torch_builds.load()
ALL = ("3.10", "3.11", "3.12", "3.13", "3.14")


@pytest.fixture
def paths(tmp_path: Path) -> tuple[Path, Path]:
    """Return a copy of the matrix, and the path for a table."""
    return Path(shutil.copy(matrix.PATH, tmp_path)), tmp_path / "torch_builds.yaml"


def newer() -> TorchTable:
    """Return the table with torch 2.16 for CUDA 13.0, two patches of 2.16 for 13.2 on PyPI, and an older line."""
    channel = TABLE.channels["cu130"]
    builds = {
        **channel.builds,
        "2.16.0": {"linux_x86_64": ALL, "win_amd64": ALL},
        "2.17.0": {"linux_x86_64": ("3.15",)},
        "2.9.2": {"linux_x86_64": ALL},
    }
    plain = {"2.16.0": Plain("13.2.1", ALL), "2.16.1": Plain("13.2.1", ("3.11", "3.12", "3.15"))}
    return TorchTable(
        {**TABLE.channels, "cu130": replace(channel, builds=builds)}, {**TABLE.pypi, **plain}, "2027-01-01"
    )


def test_adds_nothing_if_the_table_has_nothing_new(paths: tuple[Path, Path]) -> None:
    path, table = paths
    table.write_text(torch_builds.dump(TABLE))
    made = additions.extend(path, table)
    assert (made.text, made.additions, made.cells) == (path.read_text(), (), ())
    assert "Nothing has changed." in additions.report(TABLE, TABLE, made)


def test_adds_newer_lines_after_the_last_one(paths: tuple[Path, Path]) -> None:
    path, table = paths
    table.write_text(torch_builds.dump(newer()))
    made = additions.extend(path, table)
    diff = difflib.unified_diff(path.read_text().splitlines(), made.text.splitlines(), lineterm="", n=1)
    assert [line for line in diff if not line.startswith(("@@", "---", "+++"))] == [
        '       "2.14.1": {platforms: [linux_x86_64]}',
        '+      "2.16.0": {}',
        '   "13.2":',
        '       "2.15.0": {python: ["3.11", "3.12", "3.13", "3.14"], platforms: [linux_x86_64]}',
        '+      "2.16.1": {python: ["3.11", "3.12"], platforms: [linux_x86_64]}',
        " ",
    ]
    path.write_text(made.text)
    assert {cell.id for cell in matrix.load(path, table).cells} == {
        *(cell.id for cell in matrix.load().cells),
        *(cell.id for cell in made.cells),
    }
    assert {cell.torch.version for cell in made.cells} == {"2.16.0", "2.16.1"}


def test_the_report_names_builds_cells_and_the_next_command(paths: tuple[Path, Path]) -> None:
    path, table = paths
    table.write_text(torch_builds.dump(newer()))
    report = additions.report(TABLE, newer(), additions.extend(path, table))
    assert "- new: torch 2.16.0, cu130, win_amd64, CPython 3.14" in report
    assert "- new: torch 2.16.1, plain (CUDA 13.2.1), CPython 3.15" in report
    assert "- CUDA 13.2: torch 2.16.1" in report
    assert "- `0.4.0-cp312-cu132-torch2.16-linux_x86_64`" in report
    assert "nox -s lock -- 2.16.0-cu130 2.16.0-cu130-win_amd64 2.16.1-cu132" in report


def test_the_report_names_builds_that_are_gone() -> None:
    channel = Channel({}, observed="2027-01-01")
    less = replace(TABLE, channels={**TABLE.channels, "cu118": channel})
    assert "- gone: torch 2.2.2, cu118, win_amd64, CPython 3.10" in additions.report(TABLE, less, None)


def test_observe_writes_the_matrix_and_the_report(paths: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path, table = paths
    table.write_text(torch_builds.dump(TABLE))
    monkeypatch.setattr(matrix, "PATH", path)
    monkeypatch.setattr(torch_builds, "PATH", table)
    monkeypatch.setattr(
        observe, "observe", lambda file, **_: file.write_text(torch_builds.dump(newer())) and observe.Report()
    )
    report = path.parent / "build" / "observed.md"
    monkeypatch.setattr("sys.argv", ["observe", "--add", "--report", str(report)])
    assert observe.main() == 0
    assert '"2.16.1": {python: ["3.11", "3.12"]' in path.read_text()
    assert "- new: torch 2.16.0, cu130" in report.read_text()
