"""What a maintainer sees: tables, progress, marks; plain text where the output is not a terminal."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table
from rich.text import Text

_MARKS = {"passed": ("✓", "green"), "failed": ("✗", "red"), "untested": ("?", "yellow"), "info": ("•", "cyan")}
# rich guesses 80 columns for a pipe and would wrap a table there; a log is read with its lines whole.
_PLAIN_WIDTH = 240
# How often a log, which cannot show a bar, says how much of a file has arrived.
_SECONDS_BETWEEN_LINES = 10.0


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


def size(number: int) -> str:
    """Return bytes as people read them, in units of 10^3: ``850 kB``, ``526 MB``, ``2.4 GB``."""
    if number >= 999_500_000:
        return f"{number / 1e9:.1f} GB"
    return f"{number / 1e6:.0f} MB" if number >= 999_500 else f"{number / 1e3:.0f} kB"


@contextmanager
def transfer(name: str, total: int | None, have: int = 0) -> Iterator[Callable[[int], None]]:
    """Show how much of a file has arrived: a bar on a terminal, elsewhere a line every ten seconds.

    ``total`` and ``have``, what an earlier run left, are in bytes. The block calls what it is given with the number of
    bytes of each part that arrives.
    """
    if sys.stderr.isatty():
        columns = TextColumn("   {task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
        with Progress(*columns, TimeRemainingColumn(), console=_console(stderr=True), transient=True) as bar:
            task = bar.add_task(name, total=total, completed=have)
            yield lambda number: bar.advance(task, number)
        return
    arrived, said = have, time.monotonic()

    def advance(number: int) -> None:
        nonlocal arrived, said
        arrived += number
        if time.monotonic() - said >= _SECONDS_BETWEEN_LINES:
            said = time.monotonic()
            say(f"   {name}: {size(arrived)}" + (f" of {size(total)}" if total else ""))

    yield advance


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
