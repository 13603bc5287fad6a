"""Terminal output: tables, progress, check marks; plain text if the output is not a terminal."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table
from rich.text import Text

_MARKS = {"passed": ("✓", "green"), "failed": ("✗", "red"), "untested": ("?", "yellow"), "info": ("•", "cyan")}
# rich assumes 80 columns for a pipe and would wrap tables; lines of a log must not be wrapped.
_PLAIN_WIDTH = 240
_UNLIMITED = 10_000
# The interval of progress messages where no progress bar can be shown.
_SECONDS_BETWEEN_LINES = 10.0


def _console(stderr: bool, width: int | None = None) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    width = width or (None if stream.isatty() else _PLAIN_WIDTH)
    return Console(stderr=stderr, width=width, highlight=False, soft_wrap=not stream.isatty())


def page_width() -> int:
    """Return the width of the output in columns: COLUMNS, else the terminal's width, else 80."""
    return shutil.get_terminal_size().columns


def table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    numbers: Collection[str] = (),
    width: int | None = None,
) -> None:
    """Print a table to standard output. Text is wrapped between words only, so that ids are not split.

    ``numbers`` are the columns to align right. ``width`` is in characters; the default is the terminal's width, or one
    line per row if there is no terminal.
    """
    output, cells = Table(title=title, title_justify="left", box=None, pad_edge=False), [*map(tuple, rows)]
    for position, column in enumerate(columns):
        words = [cell.split() for cell in (column, *(row[position] for row in cells))]
        output.add_column(
            column,
            overflow="fold",
            justify="right" if column in numbers else "left",
            # Without this rich narrows columns of single words too, and splits the words.
            no_wrap=all(len(cell) <= 1 for cell in words),
            min_width=max((len(word) for cell in words for word in cell), default=0),
        )
    for row in cells:
        output.add_row(*(Text(cell) for cell in row))
    console = _console(stderr=False, width=width)
    # If the longest words do not fit, lines become longer than the terminal is wide.
    needed = console.measure(output, options=console.options.update(max_width=_UNLIMITED)).minimum
    console.width = max(console.width, needed)
    console.print(output, crop=False)


def text(message: str, *, width: int | None = None) -> None:
    """Print text to standard output, wrapped between words."""
    if width is not None:
        message = textwrap.fill(message, width, break_long_words=False, break_on_hyphens=False)
    print(message)


def log(message: str) -> None:
    """Print one line of progress to standard error."""
    _console(stderr=True).print(Text(message))


def mark(outcome: str, message: str) -> None:
    """Print one line of a checklist to standard output; ``outcome`` is passed, failed, untested or info."""
    sign, colour = _MARKS[outcome]
    if "utf" not in (sys.stdout.encoding or "").lower():
        sign = {"passed": "ok", "failed": "FAILED", "untested": "untested", "info": "-"}[outcome]
    _console(stderr=False).print(Text.assemble((sign, colour), " ", message))


def size(number: int) -> str:
    """Return a number of bytes in decimal units: ``850 kB``, ``526 MB``, ``2.4 GB``."""
    if number >= 999_500_000:
        return f"{number / 1e9:.1f} GB"
    return f"{number / 1e6:.0f} MB" if number >= 999_500 else f"{number / 1e3:.0f} kB"


@contextmanager
def transfer(name: str, total: int | None, have: int = 0) -> Iterator[Callable[[int], None]]:
    """Show the progress of a download: a bar on a terminal, elsewhere a line every ten seconds.

    ``total`` and ``have`` (received by an earlier run) are in bytes. Yield a function that the block must call with the
    number of bytes of each part received.
    """
    if sys.stderr.isatty():
        columns = TextColumn("   {task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
        with Progress(*columns, TimeRemainingColumn(), console=_console(stderr=True), transient=True) as bar:
            task = bar.add_task(name, total=total, completed=have)
            yield lambda number: bar.advance(task, number)
        return
    received, reported = have, time.monotonic()

    def advance(number: int) -> None:
        nonlocal received, reported
        received += number
        if time.monotonic() - reported >= _SECONDS_BETWEEN_LINES:
            reported = time.monotonic()
            log(f"   {name}: {size(received)}" + (f" of {size(total)}" if total else ""))

    yield advance


@contextmanager
def step(title: str) -> Iterator[None]:
    """Print the title of a step before the block, and its duration in seconds after the block."""
    github = os.environ.get("GITHUB_ACTIONS") == "true"
    log(f"::group::{title}" if github else f"── {title}")
    start = time.monotonic()
    try:
        yield
    finally:
        log(f"   {title}: {time.monotonic() - start:.1f} s")
        if github:
            log("::endgroup::")
