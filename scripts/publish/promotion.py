"""Promotion: make the staged and proven index the one that readers see."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from scripts.errors import CatalogError, PublishError
from scripts.index import evidence, ledger, package_record, wheel_entry
from scripts.index.catalog import Catalog, PureWheel
from scripts.index.ledger import person
from scripts.index.site_files import Site
from scripts.index.store import Store, digest
from scripts.publish.generations import LOCK_TIMEOUT_SECONDS, ledger_events, publish_catalog, refuse_other_bytes
from scripts.publish.names import shorten


@dataclass(frozen=True)
class Promoted:
    """The result of `promote`: wheels new to readers, wheels waived now, and the number and digest of all wheels."""

    new: tuple[str, ...]
    waived: tuple[str, ...]
    wheels: int
    catalog: str


def promote(
    store: Path,
    *,
    waive_gpu: str | None = None,
    by: str | None = None,
    records: Path | None = None,
    wait: float = LOCK_TIMEOUT_SECONDS,
    made_by: Site | None = None,
) -> Promoted:
    """Show readers the wheels that are staged and proven.

    Every wheel needs a record that a GPU ran it (in the store, or below ``records``) or a waiver; ``waive_gpu`` is the
    reason of a waiver for all wheels that have neither. Yanked wheels and wheels without compiled code need neither.

    Raises:
        PipelineError: if a wheel is not proven, or has neither a GPU record nor a waiver; nothing changed.
    """
    place, by = Store(store), person(by)
    reason = None if waive_gpu is None else wheel_entry.check_reason(waive_gpu)
    with place.exclusive(by, wait):
        staged, current = place.catalog("staged"), place.catalog("current")
        _refuse_unproven(place, staged, current)
        _check_wheels(place, staged, current)
        for entry in staged.entries if records else ():
            evidence.adopt_gpu(place, entry.sha256, records or place.root)
        judged = [evidence.judge(place, entry) for entry in staged.entries]
        lacking = [entry for entry in judged if entry.gpu == "untested" and entry.yanked is None]
        if lacking and reason is None:
            raise PublishError(
                f"no GPU has run {shorten(entry.name for entry in lacking)}",
                hint="run them on a GPU, or waive the GPU test with a reason: --waive-gpu REASON",
            )
        waived = {entry.name: evidence.waive(place, entry, reason or "", by) for entry in lacking}
        catalog = replace(staged, entries=tuple(waived.get(entry.name, entry) for entry in judged))
        publish_catalog(place, catalog, ("current", "staged"), made_by)
        new = _log_promotion(place, catalog, by)
    return Promoted(new, tuple(sorted(waived)), len(catalog.files), digest(catalog))


def _refuse_unproven(store: Store, staged: Catalog, current: Catalog) -> None:
    if store.generation("staged") is None:
        raise PublishError(f"nothing is staged in {store.root}", hint="stage wheels first: nox -s stage -- WHEELS")
    if staged != current and not ledger.has(store.root, "proved", catalog=digest(staged)):
        raise PublishError(
            f"the staged index (catalog {digest(staged)}) was not proven to install",
            hint="prove it first: nox -s prove",
        )


def _check_wheels(store: Store, staged: Catalog, current: Catalog) -> None:
    """Refuse to drop or change a wheel that readers have, and to add one that is damaged or not audited."""
    store.check_pool(staged)
    for entry in current.files:
        kept = staged.file(entry.name)
        if kept is None:
            raise CatalogError(f"the staged index lacks {entry.name}, which readers have", hint="stage it again")
        refuse_other_bytes(kept, current)
    known = {entry.sha256 for entry in current.files}
    for entry in staged.files:
        if entry.sha256 not in known:
            store.check_file(entry.sha256, entry.name)
            if isinstance(entry, PureWheel):
                package_record.load(entry.sha256, entry.name, entry.size, store.root)
            else:
                partial = store.rehearsal and entry.partial
                evidence.load_audit(entry.sha256, entry.name, entry.size, store.root, allow_partial=partial)


def _log_promotion(store: Store, catalog: Catalog, by: str) -> tuple[str, ...]:
    """Log the promotion unless it is already the last one logged. Return the wheels promoted for the first time."""
    events = ledger_events(store, "promoted")
    before = {name for event in events for name in event.details.get("wheels", {})}
    new = {entry.name: entry.sha256 for entry in catalog.files if entry.name not in before}
    if not events or not events[-1].says("promoted", catalog=digest(catalog)):
        ledger.append(store.root, "promoted", by=by, catalog=digest(catalog), wheels=new)
    return tuple(sorted(new))
