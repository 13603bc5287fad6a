"""Defines a problem of an installation and the facts from which problems are found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from . import _hints
from ._hints import Hint

# The document of nvdiffrast-wheels that has one heading per code.
TROUBLESHOOTING = "docs/troubleshooting.md"
# A module can be imported in spite of a problem with one of these codes.
IMPORTABLE_CODES = ("build-info", "two-copies", "driver-missing", "driver-too-old", "no-kernel")


class Problem(NamedTuple):
    """A problem of an installation.

    ``code`` is stable and is a heading in TROUBLESHOOTING. ``details`` are lines of text. ``hint`` is the command that
    fixes the problem, or is empty if a command cannot fix it.
    """

    code: str
    summary: str
    details: tuple[str, ...]
    hint: str


class Facts(NamedTuple):
    """The facts about one compiled module: its file, the error of its import, and the installation.

    ``info`` is the content of build_info.json, and ``info_error`` the reason why it cannot be read. ``torch`` is
    described at _installation.torch_facts. ``number`` is the Windows error number, if it is known.
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
        """Return the message of the import's error; empty if the import succeeded."""
        return str(self.error or "")

    def replace_torch(self) -> Hint:
        """Return the command that replaces the installed torch with the one that the wheel was built for."""
        return _hints.install_torch(self.info, replace=True)

    def reinstall(self) -> Hint:
        """Return the command that installs the same wheel again."""
        return _hints.reinstall(self.info)


def with_hint(code: str, summary: str, details: Iterable[str], hint: Hint) -> Problem:
    """Return a problem with the command of ``hint``; the note of ``hint`` becomes the last detail."""
    return Problem(code, summary, (*details, *((hint.note,) if hint.note else ())), hint.command)


def first_line(text: str) -> str:
    """Return the first line of an error message; the messages of numpy and torch can be very long."""
    return next(iter(text.strip().splitlines()), "the error has no message")
