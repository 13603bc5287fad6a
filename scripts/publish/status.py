"""The state of a store: what is staged, promoted, proven, waived and yanked."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scripts.index import evidence, ledger
from scripts.index.store import Store, digest
from scripts.publish.generations import next_catalog
from scripts.publish.names import SHOWN


@dataclass(frozen=True, kw_only=True)
class Status:
    """The state of a store.

    ``staged`` and ``current`` are numbers of wheels; ``pending`` are wheels that are staged and not promoted,
    ``waiting`` staged wheels with neither a GPU record nor a waiver; ``last`` has the latest events of the ledger.
    """

    store: str
    rehearsal: bool
    staged: int
    current: int
    pending: tuple[str, ...]
    proven: bool
    waiting: tuple[str, ...]
    waived: tuple[str, ...]
    yanked: tuple[str, ...]
    last: tuple[dict[str, Any], ...]

    @property
    def empty(self) -> bool:
        """Return whether the store has no wheel and its ledger has no event."""
        return not (self.staged or self.current or self.last)


def read(store: Path) -> Status:
    """Return the state of the store; nothing changes.

    Raises:
        CatalogError: if the store is damaged.
    """
    place = Store(store)
    current, staged = place.catalog("current"), next_catalog(place)
    judged = [evidence.judge(place, entry) for entry in staged.entries if entry.yanked is None]
    events = ledger.read(store)
    return Status(
        store=str(store),
        rehearsal=place.rehearsal,
        staged=len(staged.files),
        current=len(current.files),
        pending=tuple(entry.name for entry in staged.files if entry != current.file(entry.name)),
        proven=bool(staged.files)
        and (any(event.says("proved", catalog=digest(staged)) for event in events) or staged == current),
        waiting=tuple(entry.name for entry in judged if entry.gpu == "untested"),
        waived=tuple(entry.name for entry in judged if entry.gpu == "waived"),
        yanked=tuple(entry.name for entry in staged.files if entry.yanked is not None),
        last=tuple(asdict(event) for event in events[-SHOWN:]),
    )
