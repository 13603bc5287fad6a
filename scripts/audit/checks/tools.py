"""Checks that run the checkers of other projects."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from scripts.audit.checks import Subject
from scripts.errors import CommandError
from scripts.support.process import call


def twine(subject: Subject) -> Iterator[str]:
    """Run twine check --strict, which renders the description."""
    yield from _problems("twine", "check", "--strict", str(subject.wheel.path))


def check_wheel_contents(subject: Subject) -> Iterator[str]:
    """Run check-wheel-contents, which finds bytecode, duplicates and misplaced modules."""
    ignore = ",".join(subject.policy.ignored_contents)
    yield from _problems("check_wheel_contents", "--no-config", "--ignore", ignore, str(subject.wheel.path))


def _problems(module: str, *arguments: str) -> Iterator[str]:
    """Run a Python module as a command and yield its output if it fails."""
    try:
        call([sys.executable, "-m", module, *arguments], echo=False, quiet=True)
    except CommandError as error:
        yield " ".join(error.output.split())
