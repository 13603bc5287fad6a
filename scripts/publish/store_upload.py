"""Upload the wheels of a store to another index."""

from __future__ import annotations

from pathlib import Path

from scripts.errors import PublishError
from scripts.index import ledger
from scripts.index.ledger import person
from scripts.index.store import Store
from scripts.publish import upload
from scripts.publish.generations import ledger_events, next_catalog


def send_store(store: Path, target: upload.Target, *, by: str | None = None, staged: bool = False) -> upload.Sent:
    """Upload the wheels that readers see, except yanked ones.

    With ``staged``, upload the staged wheels, which is allowed only to an index on this machine.

    Raises:
        PipelineError: if the store has nothing to upload, or the target refuses a wheel, has other bytes under its
            name, or does not answer.
    """
    place, by = Store(store), person(by)
    if (staged or place.rehearsal) and not target.loopback:
        raise PublishError(
            "only promoted wheels, from a store that is not for rehearsals, may leave this machine",
            hint="promote first",
        )
    catalog = next_catalog(place) if staged else place.catalog("current")
    wanted = [entry for entry in catalog.files if entry.yanked is None]
    if not wanted:
        raise PublishError(f"{store} has nothing to upload", hint="promote wheels first: nox -s promote")
    for entry in wanted:
        place.check_file(entry.sha256, entry.name)
    uploads = [event for event in ledger_events(place, "uploaded") if event.says("uploaded", target=target.shown)]
    logged = {event.details.get("sha256") for event in uploads}

    def log_upload(name: str, sha256: str) -> None:
        if sha256 not in logged:
            ledger.append(store, "uploaded", by=by, wheel=name, sha256=sha256, target=target.shown)

    return upload.send([upload.Item(place.path(entry), entry.sha256) for entry in wanted], target, log_upload)
