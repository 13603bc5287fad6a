"""README.md and docs/: paths, links, sessions, exit statuses and error codes that they name exist."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache

import pytest

from scripts import errors
from scripts.model import ROOT
from tests.unit.test_layout import ORDER
from tests.workflows import sessions

TEXTS = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted(ROOT.glob("packages/*/README.md")))
}
# Folders of the repository; a word in backticks that begins with one of them is a path.
FOLDERS = ("benchmarks", "docs", "packages", "patches", "requirements", "scripts", "tests", ".github", ".ci")
OVERLAY = ROOT / "patches" / "common" / "overlay" / "nvdiffrast"


def named_paths(text: str) -> set[str]:
    """Return the paths and globs of the repository that a document names in backticks."""
    prose = re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL)
    words = [word for code in re.findall(r"`([^`]+)`", prose) for word in code.split()]
    return {word for word in words if word.startswith(tuple(f"{folder}/" for folder in FOLDERS)) and "<" not in word}


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub makes of a document's headings."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(text: str) -> Iterator[tuple[str, str]]:
    """Yield the file and the anchor of every relative link and picture."""
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"[a-z]+:", target):
            file, _, anchor = target.partition("#")
            yield file, anchor


def table_rows(text: str, heading: str) -> dict[str, str]:
    """Return the table below a heading: the code in the first cell of each row with the text of the row."""
    section = text.partition(f"{heading}\n")[2]
    table = re.search(r"(?:^\|.*\n)+", section, re.MULTILINE)
    assert table is not None, heading
    return {match[1]: line for line in table[0].splitlines() if (match := re.match(r"\| `?([\w-]+)`? \|", line))}


@cache
def overlay_strings() -> frozenset[str]:
    """Return every string constant in the source of the loader and the doctor; the codes of problems are among them."""
    found = set[str]()
    for file in OVERLAY.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return frozenset(found)


@pytest.mark.parametrize("name", TEXTS)
def test_paths_exist(name: str) -> None:
    # A package's document names files of the package.
    roots = (ROOT, (ROOT / name).parent)
    missing = [path for path in named_paths(TEXTS[name]) if not any(any(root.glob(path)) for root in roots)]
    assert missing == []


def test_a_missing_path_is_found() -> None:
    text = "`scripts/model.py`, `nox -s tests -- scripts/gone.py`, `scripts/gpu_gate/checks_*.py`\n"
    text += "```\n`docs/example.md`\n```\n"
    assert named_paths(text) == {"scripts/model.py", "scripts/gone.py", "scripts/gpu_gate/checks_*.py"}
    assert not any(ROOT.glob("scripts/gone.py"))


@pytest.mark.parametrize("name", TEXTS)
def test_links_lead_to_files_and_headings(name: str) -> None:
    folder = (ROOT / name).parent
    for file, anchor in links(TEXTS[name]):
        target = (folder / file).resolve() if file else ROOT / name
        assert target.is_file(), f"{name}: {file}"
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), f"{name}: {file}#{anchor}"


def test_the_table_has_every_session() -> None:
    public = {name for name in sessions() if not name.startswith("env-")}
    assert set(table_rows(TEXTS["README.md"], "### Sessions")) - {"session"} == public


def test_the_table_has_every_exit_status() -> None:
    types = (value for value in vars(errors).values() if isinstance(value, type))
    found = {cls.exit_code for cls in types if issubclass(cls, errors.PipelineError)}
    rows = table_rows(TEXTS["docs/maintainers.md"], "## Exit statuses")
    assert {int(status) for status in rows if status.isdigit()} == {*found, 0, 130}


def test_every_heading_of_troubleshooting_is_a_code_of_the_overlay() -> None:
    headings = re.findall(r"^#### `([a-z-]+)`$", TEXTS["docs/troubleshooting.md"], re.MULTILINE)
    assert len(headings) == len(set(headings)) >= 35
    assert set(headings) - overlay_strings() == set()


def test_the_architecture_names_every_package_in_the_order_of_imports() -> None:
    rows = table_rows(TEXTS["docs/architecture.md"], "## Packages")
    assert tuple(name for name in rows if name != "package") == ORDER


def test_a_change_is_made_in_at_most_two_files() -> None:
    section = TEXTS["docs/architecture.md"].partition("## Where to change what\n")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ") and not line.startswith("| to ")]
    assert len(rows) >= 6
    for row in rows:
        file_cell = row.split(" | ")[1]
        assert 1 <= len(re.findall(r"`[^`]+`", file_cell)) <= 2, row
