"""What a maintainer sees: tables, progress, marks; plain text where the output is not a terminal."""

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
# rich guesses 80 columns for a pipe and would wrap a table there; a log is read with its lines whole.
_PLAIN_WIDTH = 240
_UNLIMITED = 10_000
# How often a log, which cannot show a bar, says how much of a file has arrived.
_SECONDS_BETWEEN_LINES = 10.0


def _console(stderr: bool, width: int | None = None) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    width = width or (None if stream.isatty() else _PLAIN_WIDTH)
    return Console(stderr=stderr, width=width, highlight=False, soft_wrap=not stream.isatty())


def page_width() -> int:
    """Return how many columns a person reads: COLUMNS, else the terminal's, else 80; also through a pipe."""
    return shutil.get_terminal_size().columns


def table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    numbers: Collection[str] = (),
    width: int | None = None,
) -> None:
    """Print a table to standard output. Text is wrapped between words only, so that ids stay whole.

    ``numbers`` are columns to align on the right. ``width`` is in characters; the default is the terminal's, and
    without a terminal each row is one line.
    """
    made, held = Table(title=title, title_justify="left", box=None, pad_edge=False), [*map(tuple, rows)]
    for place, column in enumerate(columns):
        words = [cell.split() for cell in (column, *(row[place] for row in held))]
        made.add_column(
            column,
            overflow="fold",
            justify="right" if column in numbers else "left",
            # rich takes room from columns of single words too, and breaks what no longer fits, unless it is told this.
            no_wrap=all(len(cell) <= 1 for cell in words),
            min_width=max((len(word) for cell in words for word in cell), default=0),
        )
    for row in held:
        made.add_row(*(Text(cell) for cell in row))
    console = _console(stderr=False, width=width)
    # Where the longest words do not fit, the lines become longer than the terminal is wide.
    needed = console.measure(made, options=console.options.update(max_width=_UNLIMITED)).minimum
    console.width = max(console.width, needed)
    console.print(made, crop=False)


def text(message: str, *, width: int | None = None) -> None:
    """Print text to standard output, wrapped between words like a table."""
    if width is not None:
        message = textwrap.fill(message, width, break_long_words=False, break_on_hyphens=False)
    print(message)


def log(message: str) -> None:
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
            log(f"   {name}: {size(arrived)}" + (f" of {size(total)}" if total else ""))

    yield advance


@contextmanager
def step(title: str) -> Iterator[None]:
    """Announce a stage and say how long it took."""
    github = os.environ.get("GITHUB_ACTIONS") == "true"
    log(f"::group::{title}" if github else f"── {title}")
    start = time.monotonic()
    try:
        yield
    finally:
        log(f"   {title}: {time.monotonic() - start:.1f} s")
        if github:
            log("::endgroup::")
