"""`nox -s clean`: show the size of the caches, environments and build folders of this project, and delete them.

It imports only the standard library, because it also deletes the environments of the other commands.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from scripts.errors import InUseError, UsageError
from scripts.model import ROOT
from scripts.support.command_line import run_main
from scripts.support.files import cache_root, sole_use

_MOUNTS = Path("/proc/self/mountinfo")
_ANY = ".*"
# Category -> description and folders, below the repository ("root") or the cache folder ("cache"). A pattern matches
# the names that this project creates: the user chooses the cache folder, and it may contain other files.
_KNOWN: dict[str, tuple[str, tuple[tuple[str, str, str], ...]]] = {
    "sessions": ("environments of nox; every session creates its own again", (("root", ".nox", _ANY),)),
    "builds": ("logs, patched trees, rehearsals", (("root", "build", _ANY),)),
    "tools": (
        "caches of linters and tests",
        tuple(("root", name, _ANY) for name in (".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis")),
    ),
    "objects": ("compiled objects; without them a build compiles all files", (("cache", "objects", r"[0-9a-f]{2}"),)),
    "wheels": ("finished wheels by their inputs; dist/ is not deleted", (("cache", "wheels", r"[0-9a-f]{64}"),)),
    "environments": ("torch to build against", (("cache", "environments", r"[\w.+-]+-[0-9a-f]{16}"),)),
    "toolkits": ("CUDA's compiler and headers", (("cache", "toolkits", r"cu\d+-\w+-[0-9a-f]{16}"),)),
    "sources": ("upstream's releases", (("cache", "upstream", r"[\w.]+-[0-9a-f]{12}-?[0-9a-f]{12}"),)),
    "downloads": ("archives by hash", (("cache", "downloads", r"[0-9a-f]{64}"),)),
    "images": (
        "container images and systems that the tests create",
        (("cache", "images", r"debian-\w+|[\w.-]+\.(tar|conf)"),),
    ),
    "uv": ("uv's cache of containers and tests", (("cache", "uv", _ANY),)),
}
# Unfinished entries and lock files: `.NAME.RANDOM`, `NAME.lock`, `.NAME.lock`, `NAME.part`.
_BESIDE = r"\.?(?:{})(?:\.[\w-]+)?"


@dataclass(frozen=True)
class Places:
    """The repository and the cache."""

    root: Path
    cache: Path


@dataclass
class Category:
    """A category of files: the entries to delete, their size on disk in bytes, and messages about skipped entries."""

    name: str
    meaning: str
    entries: list[Path] = field(default_factory=list)
    size: int = 0
    left: list[str] = field(default_factory=list)


def measure(places: Places) -> list[Category]:
    """Return all categories; a file with several hard links counts for the first category that contains it."""
    seen: set[tuple[int, int]] = set()
    mounts = _mount_points()
    categories = []
    for name, (meaning, folders) in _KNOWN.items():
        category = Category(name, meaning)
        for kind, folder, pattern in folders:
            _look(category, (places.root if kind == "root" else places.cache) / folder, pattern, mounts)
        category.size = sum(_sizes(category.entries, seen))
        categories.append(category)
    return categories


def run(arguments: Sequence[str], places: Places, stdin: TextIO | None) -> None:
    """Show all categories and delete those that the command line or the user names.

    ``stdin`` is None if there is no terminal.

    Raises:
        UsageError: if a category does not exist.
        InUseError: if a build or a test uses the cache.
    """
    options = _parse(arguments)
    _known(options.categories)
    kept = measure(places)
    _show(kept)
    if not any(category.entries for category in kept):
        return
    names = options.categories or list(_KNOWN)
    if not options.yes:
        names = _ask(options.categories, stdin)
    _remove([category for category in kept if category.name in names], places)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="nox -s clean --", description="Show the size of the caches and delete them.")
    parser.add_argument("categories", nargs="*", metavar="CATEGORY", help=f"{', '.join(_KNOWN)}; default: ask")
    parser.add_argument("--yes", action="store_true", help="do not ask; without a category, delete all of them")
    return parser.parse_args(arguments)


def _known(names: Sequence[str]) -> None:
    if unknown := [name for name in names if name not in _KNOWN]:
        raise UsageError(f"unknown category: {', '.join(unknown)}", hint=f"choose from: {', '.join(_KNOWN)}")


def _look(category: Category, folder: Path, pattern: str, mounts: Sequence[Path]) -> None:
    """Add the entries of ``folder`` that this project created; report other entries, links and mount points."""
    if folder.is_symlink():
        category.left.append(f"{folder} is a link: left alone")
        return
    if not folder.is_dir():
        return
    entries = sorted(folder.iterdir())
    own = [entry for entry in entries if re.fullmatch(_BESIDE.format(pattern), entry.name)]
    if strange := len(entries) - len(own):
        category.left.append(
            f"{folder}: {strange} {'entry is' if strange == 1 else 'entries are'} not of this project: left alone"
        )
    for entry in own:
        mounted = next((mount for mount in mounts if mount.is_relative_to(entry.resolve())), None)
        if mounted and not entry.is_symlink():
            category.left.append(f"{entry}: {mounted} is mounted in it: left alone")
        else:
            category.entries.append(entry)


def _mount_points() -> list[Path]:
    """Return the mount points of all file systems; empty if the system does not list them."""
    if not _MOUNTS.exists():
        return []
    # The fifth field is the mount point; blanks in it are written as octal numbers.
    fields = [line.split(" ")[4] for line in _MOUNTS.read_text(encoding="utf-8").splitlines()]
    return [Path(re.sub(r"\\(\d{3})", lambda match: chr(int(match[1], 8)), field)) for field in fields]


def _sizes(entries: Sequence[Path], seen: set[tuple[int, int]]) -> Iterator[int]:
    """Yield the size on disk of every file below ``entries`` that is not in ``seen``; do not follow links."""
    for entry in entries:
        files = [entry]
        if entry.is_dir() and not entry.is_symlink():
            files = [Path(folder, name) for folder, _, names in os.walk(entry) for name in names]
        for file in files:
            try:
                state = file.lstat()
            except FileNotFoundError:  # a build that runs at the same time removed it
                continue
            if stat.S_ISREG(state.st_mode) and (state.st_dev, state.st_ino) not in seen:
                seen.add((state.st_dev, state.st_ino))
                yield state.st_blocks * 512 if hasattr(state, "st_blocks") else state.st_size


def _show(kept: Sequence[Category]) -> None:
    filled = [category for category in kept if category.entries]
    for category in filled:
        print(f"{category.name:<13}{_format_size(category.size):>12}  {category.meaning}")
    print(f"{'total':<13}{_format_size(sum(category.size for category in kept)):>12}" if filled else "nothing is kept")
    for category in kept:
        for line in category.left:
            print(f"  {line}")


def _format_size(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def _ask(named: Sequence[str], stdin: TextIO | None) -> list[str]:
    """Return the categories that the user agrees to delete; an empty list without a terminal."""
    if stdin is None:
        print(f"nothing was removed; to remove: nox -s clean -- {' '.join([*named, '--yes'])}")
        return []
    if named:
        print(f"Remove {', '.join(named)}? [y/N] ", end="", flush=True)
        return list(named) if stdin.readline().strip().lower() in {"y", "yes"} else []
    print("Remove which? (names separated by blanks, all, or Enter to keep everything) ", end="", flush=True)
    answer = stdin.readline().split()
    if answer == ["all"]:
        return list(_KNOWN)
    _known(answer)
    return answer


def _remove(chosen: Sequence[Category], places: Places) -> None:
    """Delete the entries of ``chosen``, and their folders if those are then empty.

    Raises:
        InUseError: if the cache is in use; nothing is deleted.
    """
    entries = [entry for category in chosen for entry in category.entries]
    if not entries:
        return
    places.cache.mkdir(parents=True, exist_ok=True)
    try:
        with sole_use(places.cache):
            for entry in entries:
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                else:
                    entry.unlink()
            for folder in {entry.parent for entry in entries}:
                if not any(folder.iterdir()):
                    folder.rmdir()
    except BlockingIOError as error:
        raise InUseError(
            f"{places.cache} is in use by a build or a test", hint="wait until it has ended, then: nox -s clean"
        ) from error
    print(f"removed: {', '.join(category.name for category in chosen if category.entries)}")


def main() -> int:
    """Show all categories and delete the chosen ones."""
    places = Places(ROOT, cache_root())
    run(sys.argv[1:], places, sys.stdin if sys.stdin.isatty() else None)
    return 0


if __name__ == "__main__":
    run_main(main)
