"""Generations of a store: written once, named by what went into them, and looked at before and after the switch."""

from __future__ import annotations

import hashlib
import html.parser
import urllib.parse
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from scripts.errors import CatalogError
from scripts.index import catalog as catalogs
from scripts.index import simple_pages, writer
from scripts.index.catalog import Catalog, Entry
from scripts.index.page import page
from scripts.index.store import Store, writing
from scripts.matrix import matrix
from scripts.wheel import audit_record

_NAME_LENGTH = 20


class Generate(Protocol):
    """Writes a whole static index to ``destination``, or nothing (scripts.index.generate)."""

    def __call__(self, catalog: Catalog, destination: Path, *, page: bytes, previous: Path | None = None) -> None: ...


@dataclass(frozen=True)
class Site:
    """What makes the pages: ``generate`` the indexes, ``render`` the page for people; ``code`` is their source.

    ``render`` is also given the sha256 of the wheels whose statements the store holds.
    """

    generate: Generate
    render: Callable[[Catalog, Collection[str]], bytes]
    code: bytes = b""


def default() -> Site:
    """The real one: scripts.index.writer, and scripts.index.page.page with the matrix."""
    code = b"".join(Path(str(module.__file__)).read_bytes() for module in (writer, simple_pages))
    return Site(writer.generate, lambda catalog, stated: page.render(catalog, matrix.load(), stated), code)


def make(store: Store, catalog: Catalog, site: Site) -> Path:
    """The generation of a catalog; one that was already made of the same is not made again.

    Raises:
        CatalogError: what was made does not list the catalog's wheels.
        PublishError: it cannot be written.
    """
    root_page = site.render(catalog, audit_record.wheels_with_statements(store.root))
    # The code that writes is a part of what goes in: after it changed, an index is written anew.
    parts = (catalogs.dump(catalog).encode(), root_page, site.code)
    name = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:_NAME_LENGTH]
    generation = store.generations / name
    if not generation.is_dir():
        with writing(generation):
            store.generations.mkdir(parents=True, exist_ok=True)
            site.generate(catalog, generation, page=root_page, previous=_previous(store))
    difference = compare(catalog, generation)
    if not difference.none:
        raise CatalogError(f"{generation} is not what it must be: {difference}", hint=f"remove {generation}, run again")
    return generation


def _previous(store: Store) -> Path | None:
    return store.generation("staged") or store.generation("current")


@dataclass(frozen=True)
class Difference:
    """Wheels that should be listed and are not, and the other way round: "CHANNEL/WHEEL"."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]

    @property
    def none(self) -> bool:
        """Whether expected and published are the same."""
        return not self.missing and not self.unexpected

    def __str__(self) -> str:
        parts = {"missing": self.missing, "unexpected": self.unexpected}
        return "; ".join(f"{word}: {', '.join(names)}" for word, names in parts.items() if names) or "no difference"


def compare(catalog: Catalog, generation: Path) -> Difference:
    """Hold the pages that pip reads in a generation against its catalog: name, sha256, yanked or not."""
    listed = set(_listed(generation))
    expected = {
        (channel, file.name, file.sha256, file.yanked is not None)
        for file in catalog.files
        for channel in (file.channels if isinstance(file, Entry) else catalog.channels)
    }
    missing, unexpected = sorted(expected - listed), sorted(listed - expected)
    return Difference(*(tuple(f"{item[0]}/{item[1]}" for item in items) for items in (missing, unexpected)))


def _listed(generation: Path) -> Iterator[tuple[str, str, str, bool]]:
    for listing in sorted(generation.glob("whl/*/*/index.html")):
        links = _Links()
        links.feed(listing.read_text(encoding="utf-8"))
        for name, sha256, yanked in links.found:
            yield listing.parts[-3], name, sha256, yanked


class _Links(html.parser.HTMLParser):
    """The files of a PEP 503 page: name, sha256, whether yanked."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str, bool]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        if tag == "a":
            path, fragment = urllib.parse.urldefrag(attributes.get("href") or "")
            name = urllib.parse.unquote(path.rpartition("/")[2])
            self.found.append((name, fragment.removeprefix("sha256="), "data-yanked" in attributes))
