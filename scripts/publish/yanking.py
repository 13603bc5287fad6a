"""Yanking: mark a wheel so that installers ignore it unless it is pinned, and remove that mark."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from scripts.errors import PublishError
from scripts.index import ledger, wheel_entry
from scripts.index.ledger import person
from scripts.index.site_files import Site
from scripts.index.store import LINKS, Store
from scripts.publish.generations import LOCK_TIMEOUT_SECONDS, ledger_events, publish_catalog


def yank(
    store: Path,
    wheel: str,
    *,
    reason: str,
    by: str | None = None,
    wait: float = LOCK_TIMEOUT_SECONDS,
    made_by: Site | None = None,
) -> bool:
    """Yank a wheel. Return False if it was already yanked for that reason.

    Raises:
        PipelineError: if the store has no such wheel, or the reason is not one line of text.
    """
    change = _Change(wheel, "yanked", wheel_entry.check_reason(reason), person(by))
    return _apply(Store(store), change, wait, made_by)


def unyank(
    store: Path,
    wheel: str,
    *,
    reason: str | None = None,
    by: str | None = None,
    wait: float = LOCK_TIMEOUT_SECONDS,
    made_by: Site | None = None,
) -> bool:
    """Undo the yank of a wheel. Return False if it is not yanked.

    Raises:
        PipelineError: if the store has no such wheel, or the reason is not one line of text.
    """
    checked = None if reason is None else wheel_entry.check_reason(reason)
    return _apply(Store(store), _Change(wheel, "unyanked", checked, person(by)), wait, made_by)


@dataclass(frozen=True)
class _Change:
    """A yank of a wheel, or the end of one: its reason, and the person who decides it."""

    wheel: str
    what: Literal["yanked", "unyanked"]
    reason: str | None
    by: str

    def is_logged(self, store: Store) -> bool:
        """Return whether it is the last change that the ledger has of the wheel's yanks.

        The unyanking of a wheel that was never yanked counts as logged.
        """
        events = ledger_events(store, "yanked", "unyanked")
        last = next((event for event in reversed(events) if event.says(event.what, wheel=self.wheel)), None)
        if self.what == "unyanked":
            return last is None or last.what == self.what
        return last is not None and last.says(self.what, reason=self.reason)


def _apply(store: Store, change: _Change, wait: float, made_by: Site | None) -> bool:
    with store.exclusive(change.by, wait):
        catalogs = {link: store.catalog(link) for link in LINKS if store.generation(link)}
        if not any(catalog.file(change.wheel) for catalog in catalogs.values()):
            raise PublishError(f"no wheel {change.wheel!r} in {store.root}", hint="nox -s publish -- status")
        yanked = change.reason if change.what == "yanked" else None
        changed = False
        # The index that readers see comes first.
        for link in reversed(LINKS):
            entry = catalogs[link].file(change.wheel) if link in catalogs else None
            if entry and entry.yanked != yanked:
                publish_catalog(store, catalogs[link].with_entry(replace(entry, yanked=yanked)), [link], made_by)
                changed = True
        if changed or not change.is_logged(store):
            ledger.append(store.root, change.what, by=change.by, wheel=change.wheel, reason=change.reason)
    return changed
