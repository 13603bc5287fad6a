"""What other projects' checkers say."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from scripts.audit.checks import Subject
from scripts.errors import CommandError
from scripts.support.process import call


def twine(subject: Subject) -> Iterator[str]:
    """The description renders (twine check --strict)."""
    yield from _problems("twine", "check", "--strict", str(subject.wheel.path))


def check_wheel_contents(subject: Subject) -> Iterator[str]:
    """No bytecode, no duplicates, modules where they can be imported from."""
    ignore = ",".join(subject.policy.ignored_contents)
    yield from _problems("check_wheel_contents", "--no-config", "--ignore", ignore, str(subject.wheel.path))


def _problems(module: str, *arguments: str) -> Iterator[str]:
    try:
        call([sys.executable, "-m", module, *arguments], echo=False, quiet=True)
    except CommandError as error:
        yield " ".join(error.output.split())
