"""Make generations, and compare them with their catalogs before and after a switch.

A generation's name is a hash of everything that its files depend on, so a generation is written only once.
"""

from __future__ import annotations

import hashlib
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
from scripts.support import simple_api
from scripts.wheel import audit_record

_NAME_LENGTH = 20


class Generate(Protocol):
    """A function like :func:`scripts.index.writer.generate`: it writes a whole index, or nothing if it fails."""

    def __call__(self, catalog: Catalog, destination: Path, *, page: bytes) -> None: ...


@dataclass(frozen=True)
class Site:
    """The functions that make an index: ``generate`` writes the files, ``render`` returns the page for people.

    ``render`` gets the catalog and the sha256 of the wheels for which the store has a bill of materials and a
    provenance. ``code`` is the source code of ``generate``.
    """

    generate: Generate
    render: Callable[[Catalog, Collection[str]], bytes]
    code: bytes = b""


def default() -> Site:
    """Return the functions of scripts.index.writer, and of scripts.index.page.page with the matrix."""
    code = b"".join(Path(str(module.__file__)).read_bytes() for module in (writer, simple_pages))
    return Site(writer.generate, lambda catalog, stated: page.render(catalog, matrix.load(), stated), code)


def make(store: Store, catalog: Catalog, site: Site) -> Path:
    """Return the generation of a catalog; write it if the store does not have it yet.

    Raises:
        CatalogError: if the generation does not list exactly the catalog's wheels.
        PublishError: if it cannot be written.
    """
    root_page = site.render(catalog, audit_record.wheels_with_statements(store.root))
    # The name depends on the code, so that an index is written again after a change of the code.
    parts = (catalogs.dump(catalog).encode(), root_page, site.code)
    name = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:_NAME_LENGTH]
    generation = store.generations / name
    if not generation.is_dir():
        with writing(generation):
            store.generations.mkdir(parents=True, exist_ok=True)
            site.generate(catalog, generation, page=root_page)
    difference = compare(catalog, generation)
    if not difference.none:
        hint = f"remove {generation}, run again"
        raise CatalogError(f"{generation} does not match its catalog: {difference}", hint=hint)
    return generation


@dataclass(frozen=True)
class Difference:
    """Wheels, as "CHANNEL/WHEEL", that the pages do not list but should, and those that they list but should not."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]

    @property
    def none(self) -> bool:
        """Whether the pages list exactly the expected wheels."""
        return not self.missing and not self.unexpected

    def __str__(self) -> str:
        parts = {"missing": self.missing, "unexpected": self.unexpected}
        return "; ".join(f"{word}: {', '.join(names)}" for word, names in parts.items() if names) or "no difference"


def compare(catalog: Catalog, generation: Path) -> Difference:
    """Compare name, sha256 and yanked state in a generation's HTML pages with its catalog."""
    listed = set(_listed(generation))
    expected = {
        (channel, file.name, file.sha256, file.yanked is not None)
        for file in catalog.files
        for channel in (file.channels if isinstance(file, Entry) else catalog.channels)
    }
    missing, unexpected = sorted(expected - listed), sorted(listed - expected)
    return Difference(*(tuple(f"{item[0]}/{item[1]}" for item in items) for items in (missing, unexpected)))


def _listed(generation: Path) -> Iterator[tuple[str, str, str | None, bool]]:
    """Yield channel, file name, sha256 and yanked state for every link of the projects' pages."""
    for page_path in sorted(generation.glob("whl/*/*/index.html")):
        for file in simple_api.linked_files(page_path.read_text(encoding="utf-8")):
            yield page_path.parts[-3], file.name, file.sha256, file.yanked
