"""Defines the lines of the doctor's report, and writes them for a terminal or a log."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple, TextIO

# For each state: its mark, its colour (ANSI), and the word that replaces the mark in a log.
STATES = {
    "passed": ("✓", "32", "ok"),
    "failed": ("✗", "31", "FAILED"),
    "warning": ("!", "33", "warning"),
    "untested": ("?", "33", "untested"),
    "info": ("•", "36", "info"),
}


class Line(NamedTuple):
    """A result of the doctor.

    ``state`` is a key of STATES. ``details`` are further lines of text. ``hint`` is the next step, preferably a
    command. ``code`` is a heading in _problem.TROUBLESHOOTING; it is empty if the result has no heading.
    """

    section: str
    state: str
    text: str
    details: tuple[str, ...] = ()
    hint: str = ""
    code: str = ""


def count_states(lines: Iterable[Line]) -> dict[str, int]:
    """Return the number of lines with each state except info."""
    found = Counter(line.state for line in lines)
    return {state: found[state] for state in STATES if state != "info"}


def exit_code(lines: Iterable[Line]) -> int:
    """Return 1 if a line has the state failed, else 0."""
    return int(any(line.state == "failed" for line in lines))


class Printer:
    """A writer of lines to a stream: with marks and colours on a terminal, with words elsewhere."""

    def __init__(self, stream: TextIO, environ: Mapping[str, str] = os.environ) -> None:
        terminal = stream.isatty() and environ.get("TERM") != "dumb"
        self._stream = stream
        self._encoding = getattr(stream, "encoding", None) or "utf-8"
        self._colour = terminal and not environ.get("NO_COLOR")
        self._marks = terminal and "utf" in self._encoding.lower()

    def report(self, lines: Iterable[Line]) -> None:
        """Write the lines in the given order, with a heading before each section."""
        section = ""
        for line in lines:
            if line.section != section:
                section = line.section
                self.line(section)
            code = f" [{line.code}]" if line.code else ""
            self._write(f"  {self._mark(line.state)} {self._printable(line.text + code)}")
            for detail in line.details:
                self.line(f"        {detail}")
            if line.hint:
                self.line(f"      next: {line.hint}")

    def line(self, text: str = "") -> None:
        """Write one line of text."""
        self._write(self._printable(text))

    def _write(self, text: str) -> None:
        self._stream.write(f"{text}\n")

    def _printable(self, text: str) -> str:
        """Replace characters that the stream cannot encode, and control codes, which could change the terminal."""
        printable = "".join(character if character.isprintable() else "?" for character in text)
        return printable.encode(self._encoding, "replace").decode(self._encoding)

    def _mark(self, state: str) -> str:
        mark, colour, word = STATES[state]
        shown = mark if self._marks else f"{word:8}"
        return f"\x1b[{colour}m{shown}\x1b[0m" if self._colour else shown
