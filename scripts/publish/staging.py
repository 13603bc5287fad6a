"""Staging: add audited wheels to a store and to its staged index."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from scripts.build import pure_packages
from scripts.errors import PublishError
from scripts.index import evidence, ledger, pure_wheels, site_files, wheel_entry
from scripts.index.catalog import Catalog, Entry, File, PureWheel
from scripts.index.ledger import person
from scripts.index.package_record import PackageRecord
from scripts.index.site_files import Site
from scripts.index.store import Store, digest
from scripts.index.wheel_entry import Candidate
from scripts.publish.generations import LOCK_TIMEOUT_SECONDS, ledger_events, next_catalog, refuse_other_bytes
from scripts.support.files import file_sha256


@dataclass(frozen=True)
class Staged:
    """The result of `stage`: wheels added now, wheels staged before, and the digest of the catalog to prove."""

    added: tuple[str, ...]
    already: tuple[str, ...]
    catalog: str


def stage(
    store: Path,
    wheels: Sequence[Path],
    records: Path | None = None,
    *,
    by: str | None = None,
    allow_partial: bool = False,
    replace_staged: bool = False,
    wait: float = LOCK_TIMEOUT_SECONDS,
    made_by: Site | None = None,
) -> Staged:
    """Add wheels that passed their audit to the store and to the staged index.

    The record of a wheel's audit (for a wheel without compiled code, of its builds) lies below ``records``, by default
    below the wheel's folder. With ``replace_staged`` a wheel may take the name of one that was staged and never
    promoted.

    Raises:
        PipelineError: if a wheel, its record or its name is refused; nothing changed.
    """
    place, by = Store(store), person(by)
    with place.exclusive(by, wait):
        current, base = place.catalog("current"), next_catalog(place)
        place.check_pool(base)
        candidates = [_candidate(wheel, records or wheel.parent, base, allow_partial) for wheel in wheels]
        for candidate in candidates:
            refuse_other_bytes(candidate.entry, current if replace_staged else base)
        candidates = _without_repetitions(candidates)
        _check_requirements(base, candidates)
        if any(isinstance(one.entry, Entry) and one.entry.partial for one in candidates):
            place.mark_rehearsal()
        catalog = base
        for candidate in candidates:
            catalog = catalog.with_entry(_add(place, candidate, base, records or candidate.path.parent))
        place.switch("staged", site_files.make(place, catalog, made_by or site_files.default()))
        added = _log_staged(place, candidates, by)
    already = tuple(one.entry.name for one in candidates if one.entry.name not in added)
    return Staged(tuple(sorted(added)), already, digest(catalog))


def _candidate(wheel: Path, folder: Path, base: Catalog, allow_partial: bool) -> Candidate:
    if wheel.is_symlink() or not wheel.is_file():
        raise PublishError(f"{wheel}: no such file, or not a regular one", hint="name wheels that `nox -s build` made")
    sha256 = file_sha256(wheel)
    known = base.file(wheel.name)
    uploaded = known.uploaded if known else ledger.now()
    if pure_wheels.is_pure(wheel):
        candidate = pure_wheels.make(wheel, folder, uploaded, _projects())
    else:
        record = evidence.load_audit(sha256, wheel.name, wheel.stat().st_size, folder, allow_partial=allow_partial)
        candidate = wheel_entry.make(wheel, record, uploaded)
    # A waiver or a yank since the wheel was first staged stays.
    return replace(candidate, entry=known) if known and known.sha256 == sha256 else candidate


def _projects() -> set[str]:
    """Return the names of the projects whose wheels without compiled code may be staged."""
    return {package.name for package in pure_packages.known()}


def _check_requirements(base: Catalog, candidates: Iterable[Candidate]) -> None:
    pure = {one.name: one for one in (*base.packages, *(candidate.entry for candidate in candidates))}
    pure_wheels.check_needs([one for one in pure.values() if isinstance(one, PureWheel)], _projects())


def _add(store: Store, candidate: Candidate, base: Catalog, folder: Path) -> Entry | PureWheel:
    """Copy a wheel and its records into the store, and return its entry."""
    entry = candidate.entry
    store.add(candidate.path, entry.sha256, candidate.metadata)
    if isinstance(candidate.record, PackageRecord):
        evidence.adopt_package(store, candidate.record)
    else:
        evidence.adopt(store, entry.sha256, candidate.record, folder)
    return entry if entry == base.file(entry.name) else replace(entry, uploaded=store.added(entry))


def _log_staged(store: Store, candidates: Iterable[Candidate], by: str) -> set[str]:
    """Log each wheel that the ledger does not list as staged yet, and return the names of those wheels."""
    logged = {(event.details.get("wheel"), event.details.get("sha256")) for event in ledger_events(store, "staged")}
    new: list[File] = [one.entry for one in candidates if (one.entry.name, one.entry.sha256) not in logged]
    for entry in new:
        ledger.append(store.root, "staged", by=by, wheel=entry.name, sha256=entry.sha256)
    return {entry.name for entry in new}


def _without_repetitions(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Return each wheel once, even if the command names it several times."""
    unique: dict[str, Candidate] = {}
    for one in candidates:
        other = unique.setdefault(one.entry.name, one)
        if other.entry.sha256 != one.entry.sha256:
            raise PublishError(
                f"{one.path} and {other.path} have the same name and different bytes", hint="stage one of them"
            )
    return list(unique.values())
