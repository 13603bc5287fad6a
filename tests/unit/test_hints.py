"""Every command in a hint of an error is valid and ends the hint.

The hints are found by static analysis: texts are followed through names, f-strings and functions of the same module,
and values that are known only at run time are replaced by a placeholder.
"""

from __future__ import annotations

import ast
import importlib
import itertools
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

from scripts.model import ROOT
from tests import workflows

# Replaces a value that is known only at run time.
PLACEHOLDER = "PLACEHOLDER"
PROGRAMS = ("nox", "python", "pip", "uv", "git", "apt-get", "podman", "docker")
SOURCES = sorted((ROOT / "scripts").rglob("*.py"))
# Modules that only containers or sessions run.
INTERNAL = {"files.py", "cibuildwheel.py", "repair.py"}
# The maximum number of texts of a hint, and of steps to find them.
_LIMIT, _DEPTH = 64, 8


@dataclass(frozen=True)
class Source:
    """One module of the pipeline."""

    path: Path

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.path.read_text(encoding="utf-8"))

    @cached_property
    def values(self) -> dict[str, list[ast.expr]]:
        """Return the values assigned to each name in the module."""
        found: dict[str, list[ast.expr]] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                found.setdefault(node.targets[0].id, []).append(node.value)
        return found

    @cached_property
    def returned(self) -> dict[str, list[ast.expr]]:
        """Return the values that each function returns."""
        return {
            node.name: [one.value for one in ast.walk(node) if isinstance(one, ast.Return) and one.value]
            for node in ast.walk(self.tree)
            if isinstance(node, ast.FunctionDef)
        }

    def hints(self) -> Iterator[tuple[int, str]]:
        """The line and every possible text of each hint."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.keyword) and node.arg == "hint":
                yield from ((node.value.lineno, text) for text in self.texts(node.value))
            if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name) and node.target.id == "hint":
                yield from ((node.lineno, text) for text in self.texts(node.value))

    def texts(self, node: ast.expr, depth: int = 0) -> list[str]:
        """Every text that an expression can give, with placeholders."""
        if depth > _DEPTH:
            return [PLACEHOLDER]
        match node:
            case ast.Constant(value=str(text)):
                return [text]
            case ast.JoinedStr(values=parts):
                return self._joined([self.texts(part, depth + 1) for part in parts])
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return self._joined([self.texts(left, depth + 1), self.texts(right, depth + 1)])
            case ast.Call(func=ast.Attribute(value=value, attr="format")):
                return [re.sub(r"\{\w*\}", PLACEHOLDER, text) for text in self.texts(value, depth + 1)]
        choices = self._choices(node)
        return [text for one in choices for text in self.texts(one, depth + 1)] if choices else [PLACEHOLDER]

    def _choices(self, node: ast.expr) -> list[ast.expr]:
        """The expressions that an expression has its value from; none if only a run can tell."""
        match node:
            case ast.FormattedValue(value=value):
                return [value]
            case ast.IfExp(body=body, orelse=orelse):
                return [body, orelse]
            case ast.BoolOp(values=values):
                return values
            case ast.Name(id=name):
                return self.values.get(name, [])
            case ast.Call(func=ast.Name(id=name)):
                return self.returned.get(name, [])
        return []

    @staticmethod
    def _joined(parts: list[list[str]]) -> list[str]:
        return ["".join(chosen) for chosen in itertools.islice(itertools.product(*parts), _LIMIT)]


def commands(text: str) -> Iterator[str]:
    """Yield the commands in a hint: texts in backquotes, or from the name of a program to the end."""
    quoted = re.compile(r"`([^`]*)`")
    start = rf"(?:^|[:,;] )(?:[A-Z]+=\S+ )*(?=(?:{'|'.join(PROGRAMS)}) )"
    yield from (one for one in quoted.findall(text) if one.split(" ")[0] in PROGRAMS)
    if found := re.search(start, quoted.sub("", text)):
        yield quoted.sub("", text)[found.end() :]


def problem(text: str) -> str | None:
    """Return the problem of a hint, or None."""
    if "python -m scripts" in text:
        return "python -m scripts.X needs an environment that readers do not have"
    for command in commands(text):
        if re.search(r"[,;:(]( |$)| (and|or|then|if|to) ", command):
            return f"prose after the command: {command}"
        words = shlex.split(command)
        if words[0] == "nox":
            refused = workflows.problem(words[1:])
            # A placeholder cannot be one of the choices.
            if refused and PLACEHOLDER not in refused:
                return f"{command}: {refused}"
    return None


def found() -> list[tuple[str, str]]:
    """Return the position and the text of every hint in the pipeline."""
    return [(f"{path.relative_to(ROOT)}:{line}", text) for path in SOURCES for line, text in Source(path).hints()]


@pytest.mark.parametrize(("place", "text"), found())
def test_commands_in_hints_are_valid(place: str, text: str) -> None:
    assert problem(text) is None, f"{place}: {text}"


def test_finds_the_texts_of_most_hints() -> None:
    texts = [text for _, text in found()]
    assert len(texts) > 150
    assert sum(text != PLACEHOLDER for text in texts) > 0.8 * len(texts)
    assert sum("nox -s" in text for text in texts) > 40


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("python -m scripts.build.build", "python -m scripts.X needs"),
        ("nox -s biuld", "no session biuld"),
        ("nox -s build -- --no-such", "unrecognized arguments"),
        ("nox -s stage -- X, from the index it came from", "prose after the command"),
        ("raise the locks: nox -s lock -- --upgrade; or waive one", "prose after the command"),
        ("`nox -s biuld` makes one", "no session biuld"),
        ("apt-get install g++ and set CXX=g++", "prose after the command"),
    ],
)
def test_reports_a_wrong_hint(text: str, wrong: str) -> None:
    assert wrong in (problem(text) or "")


@pytest.mark.parametrize("text", ["nox -s build -- X --arch 9.0", "`nox -s build` makes one", "uv python install 3.12"])
def test_accepts_a_command_or_a_sentence_with_one(text: str) -> None:
    assert problem(text) is None


def test_messages_name_sessions_instead_of_modules() -> None:
    """This also covers messages that are not hints."""
    named = {path.name for path in SOURCES if "python -m scripts" in path.read_text(encoding="utf-8")}
    assert named <= INTERNAL


def _modules() -> list[str]:
    """Return the modules that the sessions run."""
    made: set[str] = set()
    for session in workflows.sessions().values():
        recorder = workflows.Recorder([])
        session.func(recorder)
        made |= {command[2] for command in recorder.commands if command[1:2] == ["-m"] and "scripts." in command[2]}
    return sorted(made - {"scripts.support.files"})


@pytest.mark.parametrize("module", _modules())
def test_help_texts_name_the_session(
    module: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [module, "--help"])
    with pytest.raises(SystemExit) as caught:
        importlib.import_module(module).main()
    assert caught.value.code == 0
    output = capsys.readouterr().out
    named = re.match(r"usage: nox -s (\w+) --", output)
    assert named and named[1] in workflows.sessions()
    assert "python -m scripts" not in output
