"""GitHub's workflows without GitHub: expressions evaluated, steps as bash sees them, calls of nox checked.

Only what our workflows use is understood; anything else is an error, so that nothing is silently passed over.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from nox.virtualenv import VirtualEnv
from ruamel.yaml import YAML

import noxfile
from scripts.model import ROOT

FOLDER = ROOT / ".github" / "workflows"
_EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")
# Every argument of every call of nox, instead of what nox would do.
_SPY = 'nox() { printf "%s\\0" "$@"; printf "\\n"; }\n'


def load(name: str) -> dict[str, Any]:
    """One workflow's document."""
    document: dict[str, Any] = YAML(typ="safe", pure=True).load(FOLDER / name)
    return document


def names() -> list[str]:
    """All workflows."""
    return sorted(path.name for path in FOLDER.glob("*.yml"))


def evaluate(expression: str, context: Mapping[str, Any]) -> Any:
    """The value of ``a.b.c``, ``'text'``, ``x || y``, ``x == y`` or ``always()``; a missing property is ''.

    Raises:
        ValueError: the expression is of another kind.
    """
    if " || " in expression:
        first, _, rest = expression.partition(" || ")
        return evaluate(first, context) or evaluate(rest, context)
    if " == " in expression:
        left, _, right = expression.partition(" == ")
        return evaluate(left, context) == evaluate(right, context)
    if re.fullmatch(r"'[^']*'", expression):
        return expression[1:-1]
    if expression == "always()":
        return True
    if not re.fullmatch(r"[a-z]+(\.\w+)*", expression):
        raise ValueError(f"what is {expression}?")
    value: Any = context
    for part in expression.split("."):
        value = value.get(part, "") if isinstance(value, Mapping) else ""
    return value


def expand(text: str, context: Mapping[str, Any]) -> str:
    """``text`` with its expressions replaced."""
    return _EXPRESSION.sub(lambda match: str(evaluate(match[1], context)), text)


@dataclass(frozen=True)
class Step:
    """A step of a job: its document, and the environment it runs in, with expressions still in it."""

    workflow: str
    job: str
    document: Mapping[str, Any]
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def command(self) -> str | None:
        """What it runs, if it is no action."""
        return self.document.get("run")

    def variables(self, context: Mapping[str, Any]) -> dict[str, str]:
        """Its environment, expanded."""
        return {name: expand(str(value), context) for name, value in self.environment.items()}

    def runs(self, context: Mapping[str, Any]) -> bool:
        """Whether its condition holds."""
        return bool(evaluate(self.document.get("if", "always()"), context))


def steps(workflow: str, job: str | None = None) -> Iterator[Step]:
    """Every step of a workflow, or of one of its jobs, in order."""
    document = load(workflow)
    for name, one in document["jobs"].items():
        for step in one.get("steps", ()) if job in (None, name) else ():
            environment = {**document.get("env", {}), **one.get("env", {}), **step.get("env", {})}
            yield Step(workflow, name, step, environment)


def calls(command: str, variables: Mapping[str, str]) -> list[list[str]]:
    """The arguments of each call of nox that ``command`` makes, split by bash itself."""
    shell = ["bash", "--noprofile", "--norc", "-euo", "pipefail", "-c", _SPY + command]
    environment = {"PATH": os.environ["PATH"], **variables}
    done = subprocess.run(shell, env=environment, cwd=ROOT, capture_output=True, check=True)
    return [line.split("\0")[:-1] for line in done.stdout.decode().splitlines()]


class _Parsed(Exception):  # noqa: N818
    """The arguments were taken; nothing is to be done with them."""


@dataclass
class Recorder:
    """Stands in for a nox session and keeps what it would run and install."""

    posargs: Sequence[str]
    commands: list[list[str]] = field(default_factory=list)
    installed: list[str] = field(default_factory=list)
    cache_dir: Path = Path(".nox", ".cache")

    def __post_init__(self) -> None:
        # The folder is empty: nothing was installed yet.
        self._folder = tempfile.TemporaryDirectory()
        self.virtualenv = VirtualEnv(self._folder.name)

    def run(self, *command: str, **_: object) -> str:
        self.commands.append([str(part) for part in command])
        return ""

    def install(self, *arguments: str, **_: object) -> None:
        self.installed += [Path(argument).name for argument in arguments if argument.endswith(".txt")]

    def notify(self, *_: str) -> None:
        """Nothing follows."""


def sessions() -> dict[str, Any]:
    """The sessions of the noxfile by the name that nox knows."""
    found = [value for value in vars(noxfile).values() if type(value).__name__ == "Func"]
    return {one.name or one.func.__name__: one for one in found}


def problem(arguments: Sequence[str]) -> str | None:
    """Why ``nox ARGUMENTS`` would be refused, by nox or by what the session runs; None if it would not."""
    head, separator, posargs = list(arguments), "--" in arguments, []
    if separator:
        head, posargs = head[: head.index("--")], head[head.index("--") + 1 :]
    if len(head) < 2 or head[0] not in {"-s", "--session"}:
        return f"not a call of sessions: {shlex.join(arguments)}"
    for name in head[1:]:
        if name not in sessions():
            return f"no session {name}"
        recorder = Recorder(posargs)
        sessions()[name].func(recorder)
        for command in recorder.commands:
            if refused := _refused(command):
                return f"{name}: {refused}"
    return None


def _refused(command: Sequence[str]) -> str | None:
    """Return what argparse says against ``python -m scripts.X ...``; None for any other program."""
    is_stage = Path(command[0]).stem == "python" and command[1] == "-m" and command[2].startswith("scripts.")
    if not is_stage or command[2] == "scripts.support.files":
        return None
    module = importlib.import_module(command[2])
    parse = argparse.ArgumentParser.parse_args
    said: list[str] = []

    def only_parse(parser: argparse.ArgumentParser, *given: Any) -> None:
        parse(parser, *given)
        raise _Parsed

    def refuse(_: argparse.ArgumentParser, text: str) -> None:
        said.append(text)
        raise SystemExit(2)

    with (
        mock.patch.object(sys, "argv", [command[2], *command[3:]]),
        mock.patch.object(argparse.ArgumentParser, "parse_args", only_parse),
        mock.patch.object(argparse.ArgumentParser, "error", refuse),
    ):
        try:
            module.main()
        except _Parsed:
            return None
        except SystemExit:
            return said[-1] if said else "it ends"
    return "it parses nothing"


def pinned(path: Path) -> Iterator[tuple[int, str, str, str]]:
    """Line number, action, reference and comment of every ``uses:`` of another repository."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        match = re.search(r"uses: ([^@\s]+)@?(\S*)(?:\s+# (.*))?$", line)
        if match and not match[1].startswith("./"):
            yield number, match[1], match[2], match[3] or ""
