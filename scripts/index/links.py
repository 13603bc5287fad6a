"""Follow every link of a generation's pages and check the file it leads to, as an installer would."""

from __future__ import annotations

import json
import os
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from scripts.support import simple_api
from scripts.support.files import file_sha256


@dataclass(frozen=True)
class _Link:
    """A link of a page, with the hashes and the size in bytes that the page announces; None if it does not."""

    url: str
    sha256: str | None = None
    metadata_sha256: str | None = None
    size: int | None = None


def problems(generation: Path) -> Iterator[str]:
    """Yield one message per problem with a link of ``generation``; each file is hashed once."""
    hash_file = cache(file_sha256)
    for page in sorted(generation.rglob("index.*")):
        place = page.relative_to(generation).as_posix()
        try:
            links = list(_json_links(page) if page.suffix == ".json" else _html_links(page))
        except (ValueError, KeyError, TypeError) as error:
            yield f"{place}: not a page: {error!r}"
            continue
        for link in links:
            yield from (f"{place}: {link.url}: {problem}" for problem in _problems(generation, page, link, hash_file))


def _problems(generation: Path, page: Path, link: _Link, hash_file: Callable[[Path], str]) -> Iterator[str]:
    """Yield one message per problem with one link of ``page``."""
    parts = urllib.parse.urlsplit(link.url)
    if parts.scheme or parts.netloc:
        # Only the page for people may link to other sites; installers find everything in the index.
        if page.parent != generation:
            yield "leads to another site"
        return
    target = Path(os.path.normpath(page.parent / urllib.parse.unquote(parts.path)))
    if not target.is_relative_to(generation):
        yield "leads out of the index"
        return
    if target.is_dir():
        target /= "index.html"
    yield from _file_problems(target, link.sha256, hash_file)
    if link.metadata_sha256:
        yield from _file_problems(target.with_name(f"{target.name}.metadata"), link.metadata_sha256, hash_file)
    if link.size is not None and target.is_file() and target.stat().st_size != link.size:
        yield f"{target.name} has {target.stat().st_size} bytes, not {link.size}"


def _file_problems(path: Path, sha256: str | None, hash_file: Callable[[Path], str]) -> Iterator[str]:
    """Yield a message if a file is missing, is a symbolic link, or does not have the hash ``sha256``."""
    # "records" is a symbolic link, and its files have no announced hash. The folder of a wheel must not be one.
    linked = path.is_symlink() or (sha256 is not None and path.parent.is_symlink())
    if linked or not path.is_file():
        yield f"{path.name} is missing or not a regular file"
    elif sha256 is not None and hash_file(path) != sha256:
        yield f"{path.name} has sha256 {hash_file(path)}, not {sha256}"


def _json_links(path: Path) -> Iterator[_Link]:
    page = json.loads(path.read_bytes())
    for project in page.get("projects", ()):
        yield _Link(f"{project['name']}/")
    for file in page.get("files", ()):
        yield _Link(file["url"], file["hashes"]["sha256"], file["core-metadata"]["sha256"], file["size"])


def _html_links(path: Path) -> Iterator[_Link]:
    for file in simple_api.linked_files(path.read_text("utf-8")):
        # A link that is only a fragment stays on its page.
        if file.url:
            yield _Link(file.url, file.sha256, file.metadata_sha256)
