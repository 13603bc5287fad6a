"""What the doctor found, as lines, and how they are written: on a terminal, in a log, or as JSON."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple, TextIO

# State: mark, colour (ANSI), and the word where marks cannot be shown.
STATES = {
    "passed": ("✓", "32", "ok"),
    "failed": ("✗", "31", "FAILED"),
    "warning": ("!", "33", "warning"),
    "untested": ("?", "33", "untested"),
    "info": ("•", "36", "info"),
}


class Line(NamedTuple):
    """One finding.

    ``state`` is a key of STATES; ``details`` are further lines; ``hint`` is the next step, a command where there is
    one; ``code`` is a heading of the README.
    """

    section: str
    state: str
    text: str
    details: tuple[str, ...] = ()
    hint: str = ""
    code: str = ""


def counted(lines: Iterable[Line]) -> dict[str, int]:
    """Return how many lines there are of each state but info."""
    found = Counter(line.state for line in lines)
    return {state: found[state] for state in STATES if state != "info"}


def exit_code(lines: Iterable[Line]) -> int:
    """Return 1 if anything failed, else 0."""
    return int(any(line.state == "failed" for line in lines))


class Printer:
    """Writes lines to a stream: with marks and colours on a terminal, with words elsewhere."""

    def __init__(self, stream: TextIO, environ: Mapping[str, str] = os.environ) -> None:
        terminal = stream.isatty() and environ.get("TERM") != "dumb"
        self._stream = stream
        self._encoding = getattr(stream, "encoding", None) or "utf-8"
        self._colour = terminal and not environ.get("NO_COLOR")
        self._marks = terminal and "utf" in self._encoding.lower()

    def write(self, lines: Iterable[Line]) -> None:
        """Write every line under the heading of its section, in the order given."""
        section = ""
        for line in lines:
            if line.section != section:
                section = line.section
                self.say(section)
            self._put(f"  {self._mark(line.state)} {self._clean(line.text)}{self._code(line.code)}")
            for detail in line.details:
                self.say(f"        {detail}")
            if line.hint:
                self.say(f"      next: {line.hint}")

    def say(self, text: str = "") -> None:
        """Write one line of text."""
        self._put(self._clean(text))

    def _put(self, text: str) -> None:
        self._stream.write(f"{text}\n")

    def _clean(self, text: str) -> str:
        """Return what this stream can show: no text of a file or an index can send control codes to the terminal."""
        printable = "".join(one if one.isprintable() else "?" for one in text)
        return printable.encode(self._encoding, "replace").decode(self._encoding)

    def _mark(self, state: str) -> str:
        mark, colour, word = STATES[state]
        shown = mark if self._marks else f"{word:8}"
        return f"\x1b[{colour}m{shown}\x1b[0m" if self._colour else shown

    def _code(self, code: str) -> str:
        return f" [{self._clean(code)}]" if code else ""
