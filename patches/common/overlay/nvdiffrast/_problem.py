"""Defines a problem of an installation, and the facts from which the diagnosis finds problems."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from . import _hints
from ._hints import Hint


class Problem(NamedTuple):
    """One thing that is wrong: a stable ``code``, lines of ``details``, and ``hint``, which may be empty.

    ``hint`` is what fixes it; a command, where the problem keeps a module from being imported.
    """

    code: str
    summary: str
    details: tuple[str, ...]
    hint: str


class Case(NamedTuple):
    """The facts that all findings are made from: the module's file, its import's error, and the installation.

    ``info`` is the content of build_info.json and ``info_error`` why it cannot be read; ``number`` is the number of
    Windows' error, if it is known.
    """

    file: Path
    error: BaseException | None
    info: Mapping[str, Any] | None
    info_error: str | None
    torch: Mapping[str, Any] | None
    python: str
    number: int | None

    @property
    def text(self) -> str:
        """What importing the module said; empty if it was imported."""
        return str(self.error or "")

    def reinstall_torch(self) -> Hint:
        """Return the command that replaces torch by the one that the wheel is for."""
        return _hints.install_torch(self.info, again=True)

    def reinstall(self) -> Hint:
        """Return the command that installs this wheel again."""
        return _hints.reinstall(self.info)


def with_hint(code: str, summary: str, details: Iterable[str], hint: Hint) -> Problem:
    """Return a problem whose last detail is what is to be read before its command."""
    return Problem(code, summary, (*details, *((hint.note,) if hint.note else ())), hint.command)
