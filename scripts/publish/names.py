"""Wording of wheel counts and of long lists of names."""

from __future__ import annotations

from collections.abc import Iterable

# How many names or events are shown before the rest is only counted.
SHOWN = 5


def count(wheels: int) -> str:
    """Return "1 wheel", "2 wheels"."""
    return f"{wheels} wheel{'' if wheels == 1 else 's'}"


def shorten(names: Iterable[str]) -> str:
    """Return the first names of a list, and the number of the others; empty for an empty list."""
    listed = list(names)
    more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return ", ".join(listed[:SHOWN]) + more
