"""Read GitHub workflows: evaluate expressions, split commands with bash, and check the arguments of nox.

Only the syntax that this repository's workflows use is supported; other syntax raises an error.
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
# A replacement of nox that prints its arguments.
_SPY = 'nox() { printf "%s\\0" "$@"; printf "\\n"; }\n'


def load(name: str) -> dict[str, Any]:
    """Return the parsed content of a workflow."""
    document: dict[str, Any] = YAML(typ="safe", pure=True).load(FOLDER / name)
    return document


def names() -> list[str]:
    """Return the file names of all workflows."""
    return sorted(path.name for path in FOLDER.glob("*.yml"))


def evaluate(expression: str, context: Mapping[str, Any]) -> Any:
    """Return the value of ``a.b.c``, ``'text'``, ``x || y``, ``x == y`` or ``always()``; a missing property is "".

    Raises:
        ValueError: if the expression has another form.
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
        raise ValueError(f"unsupported expression: {expression}")
    value: Any = context
    for part in expression.split("."):
        value = value.get(part, "") if isinstance(value, Mapping) else ""
    return value


def expand(text: str, context: Mapping[str, Any]) -> str:
    """Return ``text`` with its expressions replaced by their values."""
    return _EXPRESSION.sub(lambda match: str(evaluate(match[1], context)), text)


@dataclass(frozen=True)
class Step:
    """A step of a job: its parsed content, and its environment with unevaluated expressions."""

    workflow: str
    job: str
    document: Mapping[str, Any]
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def command(self) -> str | None:
        """Return the command of the step, or None if it uses an action."""
        return self.document.get("run")

    def variables(self, context: Mapping[str, Any]) -> dict[str, str]:
        """Return the environment with evaluated expressions."""
        return {name: expand(str(value), context) for name, value in self.environment.items()}

    def runs(self, context: Mapping[str, Any]) -> bool:
        """Return whether the condition of the step is true."""
        return bool(evaluate(self.document.get("if", "always()"), context))


def steps(workflow: str, job: str | None = None) -> Iterator[Step]:
    """Yield the steps of a workflow, or of one of its jobs, in order."""
    document = load(workflow)
    for name, one in document["jobs"].items():
        for step in one.get("steps", ()) if job in (None, name) else ():
            environment = {**document.get("env", {}), **one.get("env", {}), **step.get("env", {})}
            yield Step(workflow, name, step, environment)


def calls(command: str, variables: Mapping[str, str]) -> list[list[str]]:
    """Return the arguments of each call of nox in ``command``, as bash splits them."""
    shell = ["bash", "--noprofile", "--norc", "-euo", "pipefail", "-c", _SPY + command]
    environment = {"PATH": os.environ["PATH"], **variables}
    done = subprocess.run(shell, env=environment, cwd=ROOT, capture_output=True, check=True)
    return [line.split("\0")[:-1] for line in done.stdout.decode().splitlines()]


class _Parsed(Exception):  # noqa: N818
    """The arguments are valid; the module must not run."""


@dataclass
class Recorder:
    """A substitute for a nox session that records commands and installations."""

    posargs: Sequence[str]
    commands: list[list[str]] = field(default_factory=list)
    installed: list[str] = field(default_factory=list)
    cache_dir: Path = Path(".nox", ".cache")

    def __post_init__(self) -> None:
        # An empty folder means that nothing is installed.
        self._folder = tempfile.TemporaryDirectory()
        self.virtualenv = VirtualEnv(self._folder.name)

    def run(self, *command: str, **_: object) -> str:
        self.commands.append([str(part) for part in command])
        return ""

    def install(self, *arguments: str, **_: object) -> None:
        self.installed += [Path(argument).name for argument in arguments if argument.endswith(".txt")]

    def notify(self, *_: str) -> None:
        """Ignore the notification."""


def sessions() -> dict[str, Any]:
    """Return the sessions of the noxfile by name."""
    found = [value for value in vars(noxfile).values() if type(value).__name__ == "Func"]
    return {one.name or one.func.__name__: one for one in found}


def problem(arguments: Sequence[str]) -> str | None:
    """Return why nox or the session's stage refuses ``arguments``, or None if they are valid."""
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
    """Return the error of argparse for ``python -m scripts.X ...``, or None if there is no error or another program."""
    is_stage = Path(command[0]).stem == "python" and command[1] == "-m" and command[2].startswith("scripts.")
    if not is_stage or command[2] == "scripts.support.files":
        return None
    module = importlib.import_module(command[2])
    parse = argparse.ArgumentParser.parse_args
    errors: list[str] = []

    def only_parse(parser: argparse.ArgumentParser, *given: Any) -> None:
        parse(parser, *given)
        raise _Parsed

    def refuse(_: argparse.ArgumentParser, text: str) -> None:
        errors.append(text)
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
            return errors[-1] if errors else "the module exits"
    return "the module does not parse its arguments"


def pinned(path: Path) -> Iterator[tuple[int, str, str, str]]:
    """Yield line number, action, reference and comment of every ``uses:`` of another repository."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        match = re.search(r"uses: ([^@\s]+)@?(\S*)(?:\s+# (.*))?$", line)
        if match and not match[1].startswith("./"):
            yield number, match[1], match[2], match[3] or ""
