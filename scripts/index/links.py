"""Follow every link of a generation's pages to a file of the right bytes, as an installer would."""

from __future__ import annotations

import html.parser
import json
import os
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from scripts.support.files import file_sha256


@dataclass(frozen=True)
class _Link:
    """A link of a page: where to, and what the page says of the file there, if it does."""

    url: str
    sha256: str | None = None
    metadata_sha256: str | None = None
    size: int | None = None


def problems(generation: Path) -> Iterator[str]:
    """What is wrong with the links of all pages of ``generation``; each file is hashed once."""
    hashed = cache(file_sha256)
    for page in sorted(generation.rglob("index.*")):
        place = page.relative_to(generation).as_posix()
        try:
            links = list(_json(page.read_bytes()) if page.suffix == ".json" else _html(page.read_text("utf-8")))
        except (ValueError, KeyError, TypeError) as error:
            yield f"{place}: not a page: {error!r}"
            continue
        for link in links:
            yield from (f"{place}: {link.url}: {problem}" for problem in _wrong(generation, page, link, hashed))


def _wrong(generation: Path, page: Path, link: _Link, hashed: Callable[[Path], str]) -> Iterator[str]:
    parts = urllib.parse.urlsplit(link.url)
    if parts.scheme or parts.netloc:
        # The page for people may name other sites; an index is whole in itself.
        if page.parent != generation:
            yield "leads to another site"
        return
    target = Path(os.path.normpath(page.parent / urllib.parse.unquote(parts.path)))
    if not target.is_relative_to(generation):
        yield "leads out of the index"
        return
    if target.is_dir():
        target /= "index.html"
    yield from _wrong_file(target, link.sha256, hashed)
    if link.metadata_sha256:
        yield from _wrong_file(target.with_name(f"{target.name}.metadata"), link.metadata_sha256, hashed)
    if link.size is not None and target.is_file() and target.stat().st_size != link.size:
        yield f"{target.name} has {target.stat().st_size} bytes, not {link.size}"


def _wrong_file(path: Path, sha256: str | None, hashed: Callable[[Path], str]) -> Iterator[str]:
    # A wheel's folder is one of the pool's own; "records", which holds what has no hash, is a link.
    linked = path.is_symlink() or (sha256 is not None and path.parent.is_symlink())
    if linked or not path.is_file():
        yield f"{path.name} is missing, or no regular file"
    elif sha256 is not None and hashed(path) != sha256:
        yield f"{path.name} has sha256 {hashed(path)}, not {sha256}"


def _json(content: bytes) -> Iterator[_Link]:
    page = json.loads(content)
    for project in page.get("projects", ()):
        yield _Link(f"{project['name']}/")
    for file in page.get("files", ()):
        yield _Link(file["url"], file["hashes"]["sha256"], file["core-metadata"]["sha256"], file["size"])


def _html(text: str) -> Iterator[_Link]:
    parser = _Anchors()
    parser.feed(text)
    for attributes in parser.found:
        url, fragment = urllib.parse.urldefrag(attributes.get("href") or "")
        # A bare fragment stays on its page.
        if url:
            metadata = attributes.get("data-core-metadata") or ""
            yield _Link(url, _sha256(fragment), _sha256(metadata))


def _sha256(text: str) -> str | None:
    return text.removeprefix("sha256=") if text.startswith("sha256=") else None


class _Anchors(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[dict[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.found.append(dict(attrs))
