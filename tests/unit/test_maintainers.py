"""Check docs/maintainers.md by making its edits on a copy of the matrix, and the nox commands of all documents."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from scripts.errors import MatrixError
from scripts.locks import generate
from scripts.matrix import matrix, torch_builds
from scripts.matrix.matrix import Matrix
from scripts.matrix.torch_builds import Channel, TorchTable
from scripts.model import ROOT
from tests import workflows

GUIDE = (ROOT / "docs" / "maintainers.md").read_text(encoding="utf-8")
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted(ROOT.glob("packages/*/README.md"))]
SECTIONS = dict(re.findall(r"^## (.+)\n((?:(?!## ).*\n)*)", GUIDE, re.MULTILINE))
_YAML = YAML(typ="safe", pure=True)
NOW = matrix.load()


def blocks(text: str, kind: str) -> list[str]:
    """Return the fenced code blocks of a kind, such as "yaml", without their indentation."""
    found = re.findall(rf"^( *)```{kind}\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    return [re.sub(rf"^{indent}", "", body, flags=re.MULTILINE) for indent, body in found]


def commands(text: str) -> list[str]:
    """Return the nox commands of console blocks; comments and `pipx run` are removed."""
    lines = [line for block in blocks(text, "console") for line in block.splitlines()]
    found = [line.removeprefix("$ ").removeprefix("pipx run ") for line in lines if line.startswith("$ ")]
    return [line.partition("  #")[0].rstrip() for line in found if line.startswith("nox ")]


def all_commands(text: str) -> list[str]:
    """Return the nox commands of console blocks and of inline code."""
    return [*commands(text), *re.findall(r"`(?:pipx run )?(nox -s [^`]+)`", text)]


def merged(old: Any, new: Any) -> Any:
    """Return two YAML values as one: mappings merged by key, lists concatenated."""
    if isinstance(old, dict) and isinstance(new, dict):
        return {**old, **{key: merged(old[key], value) if key in old else value for key, value in new.items()}}
    return old + new if isinstance(old, list) else new


def newer() -> TorchTable:
    """Return the table of torch builds with the build that the guide assumes.

    It is torch 2.16.0 for CUDA 13.0 and 13.3, and for CPython 3.10 to 3.15.
    """
    table, pythons = torch_builds.load(), ("3.10", "3.11", "3.12", "3.13", "3.14", "3.15")
    builds = {"2.16.0": {"linux_x86_64": pythons, "win_amd64": pythons}}
    before = table.channels["cu130"]
    added = {
        "cu130": replace(before, builds={**before.builds, **builds}),
        "cu133": Channel(builds, observed="2027-01-01"),
    }
    return replace(table, channels={**table.channels, **added})


def edited(tmp_path: Path, *sections: str, without: str | None = None) -> Matrix:
    """Return the matrix with the edits of some sections; ``without`` is a key to leave out of the edits."""
    data: Any = _YAML.load(matrix.PATH.read_text(encoding="utf-8"))
    for section in sections:
        (block,) = blocks(SECTIONS[section], "yaml")
        change: Mapping[str, Any] = _YAML.load(block)
        data = merged(data, {key: value for key, value in change.items() if key != without})
    path, table = tmp_path / "build_matrix.yaml", tmp_path / "torch_builds.yaml"
    path.write_text(json.dumps(data, indent=1), encoding="utf-8")
    table.write_text(torch_builds.dump(newer()), encoding="utf-8")
    return matrix.load(path, table)


def added(made: Matrix) -> list[str]:
    """Return the ids of the cells that an edit adds; an edit removes no cell."""
    known = {cell.id for cell in NOW.cells}
    assert known <= {cell.id for cell in made.cells}
    return [cell.id for cell in made.cells if cell.id not in known]


def test_adds_a_torch(tmp_path: Path) -> None:
    cells = added(edited(tmp_path, "Adding a torch"))
    assert "0.3.3.1-cp312-cu130-torch2.16-linux_x86_64" in cells
    assert "0.4.0-cp310-cu130-torch2.16-win_amd64" in cells
    assert all("-cu130-torch2.16-" in cell for cell in cells)
    assert len(cells) == len(NOW.releases) * 5 * 2


def test_adds_a_cuda_version(tmp_path: Path) -> None:
    made = edited(tmp_path, "Adding a CUDA")
    assert made.toolkit("cu133").policy[-1] == "12.0+PTX"
    assert {provider.lock for provider in made.toolkit("cu133").providers} == {
        "requirements/toolkits/cu133.txt",
        "requirements/toolkits/cu133-redist.json",
        None,
    }
    cells = added(made)
    assert len(cells) == len(NOW.releases) * 5
    assert all(re.search(r"-cu133-torch2.16-linux_x86_64$", cell) for cell in cells)


def test_adds_a_python(tmp_path: Path) -> None:
    made = edited(tmp_path, "Adding a torch", "Adding a Python")
    cells = [cell for cell in added(made) if "-cp315-" in cell]
    assert "0.3.3.1-cp315-cu130-torch2.16-win_amd64" in cells
    assert all("-cu130-torch2.16-" in cell for cell in cells)
    assert len(cells) == len(NOW.releases) * 2


def test_rejects_a_python_without_the_exclusions(tmp_path: Path) -> None:
    with pytest.raises(MatrixError, match=r"torch 2\.9\.1 for CUDA 12\.6 does not exist for CPython 3\.15") as raised:
        edited(tmp_path, "Adding a torch", "Adding a Python", without="exclusions")
    assert re.match(r"build_matrix\.yaml:\d+:\d+: ", str(raised.value))


def test_adds_an_upstream_release(tmp_path: Path) -> None:
    made = edited(tmp_path, "Adding an upstream release")
    cells = added(made)
    assert "0.4.1-cp312-cu130-torch2.14-linux_x86_64" in cells
    assert {cell.split("-")[0] for cell in cells} == {"0.4.1"}
    assert made.release("0.4.1").series == "0.4"


@pytest.mark.parametrize("section", ["Adding a torch", "Adding a CUDA", "Adding a Python"])
def test_lock_commands_name_locks_that_exist(section: str, monkeypatch: pytest.MonkeyPatch) -> None:
    known = newer()
    monkeypatch.setattr(torch_builds, "load", lambda: known)
    (command,) = (one for one in commands(SECTIONS[section]) if one.startswith("nox -s lock "))
    for chosen in generate.select(command.split(" -- ")[1].split()):
        assert isinstance(chosen, generate.RequirementsLock)
        if chosen.name.startswith("2."):
            assert chosen.channel == f"https://download.pytorch.org/whl/{chosen.name.split('-')[1]}"


@pytest.mark.parametrize(
    "command", dict.fromkeys(one for path in DOCUMENTS for one in all_commands(path.read_text(encoding="utf-8")))
)
def test_every_command_exists(command: str) -> None:
    if "nox -s build " in command:
        # The quoted globs of cells are checked by the tests above; this test checks the options.
        command = command.replace("'", "")
    (arguments,) = workflows.calls("set -f\n" + re.sub(r"\s+", " ", command), {})
    assert workflows.problem(arguments) is None


def test_a_command_that_does_not_exist_is_found() -> None:
    (command,) = commands("```console\n$ pipx run nox -s no-such-session  # text\n```\n")
    assert workflows.problem(command.split()[1:]) == "no session no-such-session"
