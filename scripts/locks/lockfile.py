"""Read hash-locked requirement files, and compare them with their input files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from scripts.errors import ToolchainError

_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})(?=\s|$)")


@dataclass(frozen=True)
class Pin:
    """One requirement of a lock, ``name==version``, with the sha256 of every file that may be installed for it."""

    name: str
    version: str
    marker: str | None
    hashes: tuple[str, ...]


@dataclass(frozen=True)
class InputRequirement:
    """One requirement of an input file, and its position (file and line)."""

    requirement: Requirement
    place: str


def read_lock(path: Path) -> tuple[Pin, ...]:
    """Return every pin in ``path``.

    Raises:
        ToolchainError: if a line is not ``name==version`` with at least one sha256. The message names file and line.
    """
    return tuple(_pin(f"{path}:{number}", text) for number, text in _logical_lines(path) if not _is_channel(text))


def read_input(path: Path) -> tuple[InputRequirement, ...]:
    """Return every requirement of an input file and of the files that it includes with ``-r``."""
    requirements: list[InputRequirement] = []
    for number, text in _logical_lines(path):
        place = f"{path}:{number}"
        if text.startswith("-r "):
            requirements += read_input(path.parent / text[3:].strip())
        else:
            requirements.append(InputRequirement(_requirement(place, text), place))
    return tuple(requirements)


def unsatisfied(requirements: tuple[InputRequirement, ...], pins: tuple[Pin, ...]) -> list[str]:
    """Return one message per requirement that no pin satisfies."""
    found: list[str] = []
    for item in requirements:
        versions = [pin.version for pin in pins if pin.name == canonicalize_name(item.requirement.name)]
        if not versions:
            found.append(f"{item.place}: {item.requirement} is not in the lock")
        for version in versions:
            if not item.requirement.specifier.contains(Version(version), prereleases=True):
                found.append(f"{item.place}: {item.requirement}, but the lock has {version}")
    return found


def _logical_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield logical lines (continuations joined, comments removed) with the number of their first line."""
    text, first = "", 0
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        first = first if text else number
        text += re.sub(r"(^|\s)#.*$", "", line)
        if text.endswith("\\"):
            text = text[:-1]
            continue
        if text.strip():
            yield first, text.strip()
        text = ""


def _is_channel(text: str) -> bool:
    return text.startswith("--extra-index-url ")


def _requirement(place: str, text: str) -> Requirement:
    try:
        return Requirement(text)
    except InvalidRequirement as error:
        raise ToolchainError(f"{place}: {text!r} is not a requirement: {error}", hint="correct the line") from error


def _pin(place: str, text: str) -> Pin:
    requirement = _requirement(place, _HASH.sub("", text).strip())
    specifiers = list(requirement.specifier)
    hashes = tuple(_HASH.findall(text))
    if len(specifiers) != 1 or specifiers[0].operator != "==" or "*" in specifiers[0].version:
        raise ToolchainError(f"{place}: {requirement} is not pinned to one version", hint="run `nox -s lock`")
    if not hashes:
        raise ToolchainError(f"{place}: {requirement} has no sha256", hint="run `nox -s lock`")
    marker = str(requirement.marker) if requirement.marker else None
    return Pin(canonicalize_name(requirement.name), specifiers[0].version, marker, hashes)
