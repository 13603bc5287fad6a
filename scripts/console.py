"""What a maintainer sees: tables, progress, marks; plain text where the output is not a terminal."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.table import Table
from rich.text import Text

_MARKS = {"passed": ("✓", "green"), "failed": ("✗", "red"), "untested": ("?", "yellow"), "info": ("•", "cyan")}
# rich guesses 80 columns for a pipe and would wrap a table there; a log is read with its lines whole.
_PLAIN_WIDTH = 240


def _console(stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _PLAIN_WIDTH
    return Console(stderr=stderr, width=width, highlight=False, soft_wrap=not stream.isatty())


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table to standard output; ids are never cut short."""
    made = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*(Text(cell) for cell in row))
    _console(stderr=False).print(made)


def say(message: str) -> None:
    """One line of progress, to standard error."""
    _console(stderr=True).print(Text(message))


def mark(outcome: str, message: str) -> None:
    """One line of a checklist to standard output; ``outcome`` is passed, failed, untested or info."""
    sign, colour = _MARKS[outcome]
    if "utf" not in (sys.stdout.encoding or "").lower():
        sign = {"passed": "ok", "failed": "FAILED", "untested": "untested", "info": "-"}[outcome]
    _console(stderr=False).print(Text.assemble((sign, colour), " ", message))


@contextmanager
def step(title: str) -> Iterator[None]:
    """Announce a stage and say how long it took."""
    github = os.environ.get("GITHUB_ACTIONS") == "true"
    say(f"::group::{title}" if github else f"── {title}")
    start = time.monotonic()
    try:
        yield
    finally:
        say(f"   {title}: {time.monotonic() - start:.1f} s")
        if github:
            say("::endgroup::")
