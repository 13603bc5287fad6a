"""Steps that every operation on a store shares: read the catalog to change, publish a changed one, query the ledger."""

from __future__ import annotations

from collections.abc import Iterable

from scripts.errors import CatalogError, PublishError
from scripts.index import ledger, site_files
from scripts.index.catalog import Catalog, File
from scripts.index.site_files import Site
from scripts.index.store import Link, Store
from scripts.model import ROOT

DEFAULT_STORE = ROOT / "index"
LOCK_TIMEOUT_SECONDS = 600.0


def next_catalog(store: Store) -> Catalog:
    """Return the catalog that the next generation starts from: the staged one, else the one that readers see."""
    return store.catalog("staged" if store.generation("staged") else "current")


def publish_catalog(store: Store, catalog: Catalog, links: Iterable[Link], made_by: Site | None) -> None:
    """Write the generation of a catalog, switch the links to it, and compare the result with the catalog.

    Raises:
        CatalogError: if the pages behind a link do not list exactly the catalog's wheels.
    """
    generation = site_files.make(store, catalog, made_by or site_files.default())
    for link in links:
        store.switch(link, generation)
        difference = site_files.compare(catalog, store.generation(link) or store.root)
        if not difference.none:
            raise CatalogError(
                f"{store.root / link} does not match its catalog: {difference}", hint="run the same command again"
            )


def refuse_other_bytes(entry: File, catalog: Catalog) -> None:
    """Refuse a wheel whose file name the catalog has with other bytes.

    Raises:
        PublishError: if the name is taken.
    """
    known = catalog.file(entry.name)
    if known and known.sha256 != entry.sha256:
        raise PublishError(
            f"{entry.name} is taken: the index has other bytes under that name, sha256 {known.sha256}",
            hint="a name never gets other bytes: publish under a new version (--replace, if it was never promoted)",
        )


def ledger_events(store: Store, *what: str) -> list[ledger.Event]:
    """Return the ledger's events of these kinds, oldest first."""
    return [event for event in ledger.read(store.root) if event.what in what]
