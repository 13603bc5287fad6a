"""Report the download size of an installation from hash-locked requirements before it starts."""

from __future__ import annotations

import os
import tempfile
import tomllib
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import uv
from packaging.pylock import Package, Pylock

from scripts import console
from scripts.errors import CommandError
from scripts.support.process import call

_TIMEOUT_SECONDS = 10.0
_CONNECTIONS = 8
# The number of files to name, and their minimum size in bytes.
_NAMED, _LARGE = 4, 50_000_000
# What this process has already reported: a build reports all of its downloads before the first one.
_announced: set[tuple[Path, ...]] = set()


@dataclass(frozen=True)
class Download:
    """One package to download; ``size`` is in bytes, or None if it is unknown."""

    name: str
    size: int | None


def announce(title: str, python: Path, requirement_files: Sequence[Path]) -> None:
    """Report the maximum download size of ``requirement_files`` for ``python``, once per process.

    If the size cannot be determined, report that instead of failing: the installation reports its own errors.
    """
    if (files := tuple(requirement_files)) in _announced:
        return
    _announced.add(files)
    try:
        found = expected(python, requirement_files)
    except CommandError:
        console.log(f"   {title}: the size of the download is unknown, the package index did not answer")
    else:
        console.log(f"   {title}: {describe(found)}")


def describe(found: Sequence[Download]) -> str:
    """Return a summary such as ``up to 2.4 GB to download, 35 packages; largest: torch 526 MB``."""
    known = {one.name: one.size for one in found if one.size is not None}
    unknown = len(found) - len(known)
    large = sorted((name for name, size in known.items() if size >= _LARGE), key=lambda name: -known[name])[:_NAMED]
    count = f"{len(found)} package{'' if len(found) == 1 else 's'}"
    if found and not known:
        return f"{count} to download, sizes unknown"
    return (
        f"up to {console.size(sum(known.values()))} to download, {count}"
        + (f", {unknown} of unknown size" if unknown else "")
        + (f"; largest: {', '.join(f'{name} {console.size(known[name])}' for name in large)}" if large else "")
    )


def expected(python: Path, requirement_files: Sequence[Path]) -> tuple[Download, ...]:
    """Return the packages that uv downloads to install ``requirement_files`` for ``python`` with an empty cache.

    uv chooses the files with its own index settings. Sizes come from the index if it supports JSON, otherwise from the
    servers of the files.

    Raises:
        CommandError: if uv fails, for example because the package index cannot be reached.
    """
    with tempfile.TemporaryDirectory(prefix="nvdiffrast-sizes-") as folder:
        made = Path(folder, "pylock.toml")
        command: list[str | os.PathLike[str]] = [uv.find_uv_bin(), "pip", "compile", "--quiet", "--no-deps"]
        command += ["--no-header", "--only-binary", ":all:", "--python", python, "--format", "pylock.toml"]
        call([*command, *requirement_files, "--output-file", made], echo=False, quiet=True)
        return sizes(made)


def is_progress(line: str) -> bool:
    """Return whether a line of output of `uv pip install` reports the start or the end of a download."""
    return line.lstrip().startswith(("Downloading ", "Downloaded "))


def sizes(path: Path) -> tuple[Download, ...]:
    """Return the wheels that a pylock.toml of one platform lists, with their sizes in bytes."""
    lock = Pylock.from_dict(tomllib.loads(path.read_text(encoding="utf-8")))
    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        return tuple(pool.map(_size, lock.packages))


def _size(package: Package) -> Download:
    stated = [wheel.size for wheel in package.wheels or () if wheel.size]
    requested = () if stated else _request_sizes([wheel.url for wheel in package.wheels or () if wheel.url])
    return Download(str(package.name), max([*stated, *requested], default=None))


def _request_sizes(urls: Sequence[str]) -> Iterator[int]:
    """Yield the Content-Length of each URL; skip servers that do not answer."""
    for url in urls:
        if not url.startswith(("https://", "http://")):
            continue
        request = urllib.request.Request(url, method="HEAD")  # noqa: S310 - the line above
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:  # noqa: S310
                length = answer.headers.get("Content-Length", "")
        except OSError:
            continue
        if length.isdecimal():
            yield int(length)
