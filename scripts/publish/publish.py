"""Publish wheels: stage them, promote what was proven, yank, upload; `status` tells how things stand.

nox -s publish -- stage WHEEL... [--records DIR] [--replace] [--allow-partial]
nox -s publish -- promote [--waive-gpu REASON] [--records DIR] [--export FOLDER] [--upload TARGET]
nox -s publish -- yank WHEEL --reason REASON
nox -s publish -- unyank WHEEL [--reason REASON]
nox -s publish -- upload TARGET [--index URL] [--staged]
nox -s publish -- status

All take --store DIR (default: index), --by NAME (default: git's user.name), --json, and --wait SECONDS for another
publisher. What is refused changes nothing; what was interrupted is completed by the same command.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from scripts import console
from scripts.build import pure_packages
from scripts.errors import CatalogError, PublishError
from scripts.index import evidence, ledger, package_record, pure_wheels, site_files, wheel_entry
from scripts.index.catalog import Catalog, Entry, File, PureWheel
from scripts.index.export import export
from scripts.index.ledger import person
from scripts.index.package_record import PackageRecord
from scripts.index.site_files import Site
from scripts.index.store import LINKS, Link, Store, digest
from scripts.index.wheel_entry import Candidate
from scripts.model import ROOT
from scripts.publish import upload
from scripts.support.command_line import run_main
from scripts.support.files import file_sha256

STORE = ROOT / "index"
WAIT = 600.0
_SHOWN = 5


@dataclass(frozen=True)
class Staged:
    """What `stage` did: wheels added, wheels that were there already; ``catalog`` is what is to be proven."""

    added: tuple[str, ...]
    already: tuple[str, ...]
    catalog: str


@dataclass(frozen=True)
class Promoted:
    """What `promote` did: wheels that readers see from now on, wheels waived now; ``catalog`` is what they see."""

    new: tuple[str, ...]
    waived: tuple[str, ...]
    wheels: int
    catalog: str


@dataclass(frozen=True)
class Status:
    """How a store stands; ``waiting`` are staged wheels that neither a GPU nor a waiver vouches for."""

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
        """Whether the store holds no wheel and nothing was ever done with it."""
        return not (self.staged or self.current or self.last)


def stage(
    store: Path,
    wheels: Sequence[Path],
    records: Path | None = None,
    *,
    by: str | None = None,
    allow_partial: bool = False,
    replace_staged: bool = False,
    wait: float = WAIT,
    made_by: Site | None = None,
) -> Staged:
    """Put wheels that passed their audit into the store, and all of it into the staged index.

    The record of a wheel's audit, or of the builds of one without compiled code, lies below ``records``, or beside the
    wheel. ``replace_staged`` lets a wheel take the
    name of one that was staged and never promoted.

    Raises:
        PipelineError: a wheel, its record or its name is refused; nothing changed.
    """
    place, by = Store(store), person(by)
    with place.exclusive(by, wait):
        current, base = place.catalog("current"), _staged(place)
        place.check_pool(base)
        candidates = [_candidate(wheel, records or wheel.parent, base, allow_partial) for wheel in wheels]
        for candidate in candidates:
            _refuse_taken(candidate.entry, current if replace_staged else base)
        candidates = _once(candidates)
        pure = {one.name: one for one in (*base.packages, *(candidate.entry for candidate in candidates))}
        pure_wheels.check_needs([one for one in pure.values() if isinstance(one, PureWheel)], _projects())
        if any(isinstance(one.entry, Entry) and one.entry.partial for one in candidates):
            place.mark_rehearsal()
        catalog = base
        for candidate in candidates:
            catalog = catalog.with_entry(_keep(place, candidate, base, records or candidate.path.parent))
        place.switch("staged", site_files.make(place, catalog, made_by or site_files.default()))
        told = {(event.details.get("wheel"), event.details.get("sha256")) for event in _events(place, "staged")}
        new = [one.entry for one in candidates if (one.entry.name, one.entry.sha256) not in told]
        for entry in new:
            ledger.append(store, "staged", by=by, wheel=entry.name, sha256=entry.sha256)
    names = {entry.name for entry in new}
    already = tuple(one.entry.name for one in candidates if one.entry.name not in names)
    return Staged(tuple(sorted(names)), already, digest(catalog))


def _staged(store: Store) -> Catalog:
    """What the next generation is made from: what is staged, else what readers see."""
    return store.catalog("staged" if store.generation("staged") else "current")


def _candidate(wheel: Path, folder: Path, base: Catalog, allow_partial: bool) -> Candidate:
    if wheel.is_symlink() or not wheel.is_file():
        raise PublishError(f"{wheel}: no such file, or not a regular one", hint="name wheels that `nox -s build` made")
    sha256 = file_sha256(wheel)
    known = base.file(wheel.name)
    uploaded = known.uploaded if known else ledger.now()
    if pure_wheels.is_pure(wheel):
        made = pure_wheels.make(wheel, folder, uploaded, _projects())
    else:
        record = evidence.load_audit(sha256, wheel.name, wheel.stat().st_size, folder, allow_partial=allow_partial)
        made = wheel_entry.make(wheel, record, uploaded)
    # What happened to it since it was first staged (a waiver, a yank) stays.
    return replace(made, entry=known) if known and known.sha256 == sha256 else made


def _projects() -> set[str]:
    """Whose wheels may be staged without compiled code."""
    return {package.name for package in pure_packages.known()}


def _keep(store: Store, candidate: Candidate, base: Catalog, folder: Path) -> Entry | PureWheel:
    """Have a wheel and its records in the store; its entry."""
    entry = candidate.entry
    store.add(candidate.path, entry.sha256, candidate.metadata)
    if isinstance(candidate.record, PackageRecord):
        evidence.adopt_package(store, candidate.record)
    else:
        evidence.adopt(store, entry.sha256, candidate.record, folder)
    return entry if entry == base.file(entry.name) else replace(entry, uploaded=store.added(entry))


def _refuse_taken(entry: File, catalog: Catalog) -> None:
    known = catalog.file(entry.name)
    if known and known.sha256 != entry.sha256:
        raise PublishError(
            f"{entry.name} is taken: the index has other bytes under that name, sha256 {known.sha256}",
            hint="a name never gets other bytes: publish under a new version (--replace, if it was never promoted)",
        )


def _once(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Each wheel once, however often it was named."""
    seen: dict[str, Candidate] = {}
    for one in candidates:
        other = seen.setdefault(one.entry.name, one)
        if other.entry.sha256 != one.entry.sha256:
            raise PublishError(
                f"{one.path} and {other.path} have one name and different bytes", hint="stage one of them"
            )
    return list(seen.values())


def promote(
    store: Path,
    *,
    waive_gpu: str | None = None,
    by: str | None = None,
    records: Path | None = None,
    wait: float = WAIT,
    made_by: Site | None = None,
) -> Promoted:
    """Show readers what was staged and proven.

    Every wheel needs a record that a GPU ran it (in the store, or below ``records``), a waiver, or ``waive_gpu``, the
    reason of a waiver for all that have neither. A yanked wheel, or one without compiled code, needs none.

    Raises:
        PipelineError: something is not proven or not vouched for; nothing changed.
    """
    place, by = Store(store), person(by)
    reason = None if waive_gpu is None else wheel_entry.check_reason(waive_gpu)
    with place.exclusive(by, wait):
        staged, current = place.catalog("staged"), place.catalog("current")
        _refuse_unproven(place, staged, current)
        _check_kept(place, staged, current)
        for entry in staged.entries if records else ():
            evidence.adopt_gpu(place, entry.sha256, records or place.root)
        judged = [evidence.judge(place, entry) for entry in staged.entries]
        lacking = [entry for entry in judged if entry.gpu == "untested" and entry.yanked is None]
        if lacking and reason is None:
            raise PublishError(
                f"no GPU has run {_some(entry.name for entry in lacking)}",
                hint="run them on a GPU, or answer for it: --waive-gpu REASON",
            )
        waived = {entry.name: evidence.waive(place, entry, reason or "", by) for entry in lacking}
        catalog = replace(staged, entries=tuple(waived.get(entry.name, entry) for entry in judged))
        _publish(place, catalog, ("current", "staged"), made_by)
        new = _tell_promoted(place, catalog, by)
    return Promoted(new, tuple(sorted(waived)), len(catalog.files), digest(catalog))


def _refuse_unproven(store: Store, staged: Catalog, current: Catalog) -> None:
    if store.generation("staged") is None:
        raise PublishError(f"nothing is staged in {store.root}", hint="stage wheels first: nox -s stage -- WHEELS")
    if staged != current and not ledger.has(store.root, "proved", catalog=digest(staged)):
        raise PublishError(
            f"what is staged (catalog {digest(staged)}) was not proven to install",
            hint="prove it first: nox -s prove",
        )


def _check_kept(store: Store, staged: Catalog, current: Catalog) -> None:
    """Refuse to lose what readers have, and anything new that is not whole and audited."""
    store.check_pool(staged)
    for entry in current.files:
        kept = staged.file(entry.name)
        if kept is None:
            raise CatalogError(f"what is staged lacks {entry.name}, which readers have", hint="stage that wheel again")
        _refuse_taken(kept, current)
    known = {entry.sha256 for entry in current.files}
    for entry in staged.files:
        if entry.sha256 not in known:
            store.check_file(entry.sha256, entry.name)
            if isinstance(entry, PureWheel):
                package_record.load(entry.sha256, entry.name, entry.size, store.root)
            else:
                partial = store.rehearsal and entry.partial
                evidence.load_audit(entry.sha256, entry.name, entry.size, store.root, allow_partial=partial)


def _publish(store: Store, catalog: Catalog, links: Iterable[Link], made_by: Site | None) -> None:
    """Make the generation of a catalog, switch to it, and hold what readers see now against what they should."""
    generation = site_files.make(store, catalog, made_by or site_files.default())
    for link in links:
        store.switch(link, generation)
        difference = site_files.compare(catalog, store.generation(link) or store.root)
        if not difference.none:
            raise CatalogError(f"{store.root / link} is not what it must be: {difference}", hint="run the same again")


def _tell_promoted(store: Store, catalog: Catalog, by: str) -> tuple[str, ...]:
    """Write a promotion down, unless it is the last that was; the wheels that no promotion had before."""
    events = _events(store, "promoted")
    before = {name for event in events for name in event.details.get("wheels", {})}
    new = {entry.name: entry.sha256 for entry in catalog.files if entry.name not in before}
    if not events or not events[-1].says("promoted", catalog=digest(catalog)):
        ledger.append(store.root, "promoted", by=by, catalog=digest(catalog), wheels=new)
    return tuple(sorted(new))


def yank(
    store: Path,
    wheel: str,
    *,
    reason: str,
    by: str | None = None,
    wait: float = WAIT,
    made_by: Site | None = None,
) -> bool:
    """Mark a wheel as yanked: installers leave it alone unless it is pinned. False if it was, for that reason.

    Raises:
        PipelineError: there is no such wheel, or the reason is none.
    """
    mark = _Mark(wheel, "yanked", wheel_entry.check_reason(reason), person(by))
    return _mark(Store(store), mark, wait, made_by)


def unyank(
    store: Path,
    wheel: str,
    *,
    reason: str | None = None,
    by: str | None = None,
    wait: float = WAIT,
    made_by: Site | None = None,
) -> bool:
    """Take a yank back; False if there is none.

    Raises:
        PipelineError: there is no such wheel, or the reason is none.
    """
    said = None if reason is None else wheel_entry.check_reason(reason)
    return _mark(Store(store), _Mark(wheel, "unyanked", said, person(by)), wait, made_by)


@dataclass(frozen=True)
class _Mark:
    """That a wheel is yanked or unyanked, why, and by whom."""

    wheel: str
    what: Literal["yanked", "unyanked"]
    reason: str | None
    by: str

    def is_told(self, store: Store) -> bool:
        """Whether it is the last that the ledger tells of the wheel's yanks; what was never yanked needs no word."""
        events = _events(store, "yanked", "unyanked")
        last = next((one for one in reversed(events) if one.says(one.what, wheel=self.wheel)), None)
        if self.what == "unyanked":
            return last is None or last.what == self.what
        return last is not None and last.says(self.what, reason=self.reason)


def _mark(store: Store, mark: _Mark, wait: float, made_by: Site | None) -> bool:
    with store.exclusive(mark.by, wait):
        catalogs = {link: store.catalog(link) for link in LINKS if store.generation(link)}
        if not any(catalog.file(mark.wheel) for catalog in catalogs.values()):
            hint = "nox -s publish -- status"
            raise PublishError(f"no wheel {mark.wheel!r} in {store.root}", hint=hint)
        yanked = mark.reason if mark.what == "yanked" else None
        changed = False
        # Readers first.
        for link in reversed(LINKS):
            entry = catalogs[link].file(mark.wheel) if link in catalogs else None
            if entry and entry.yanked != yanked:
                _publish(store, catalogs[link].with_entry(replace(entry, yanked=yanked)), [link], made_by)
                changed = True
        if changed or not mark.is_told(store):
            ledger.append(store.root, mark.what, by=mark.by, wheel=mark.wheel, reason=mark.reason)
    return changed


def status(store: Path) -> Status:
    """How the store stands; changes nothing.

    Raises:
        CatalogError: it is not what it must be.
    """
    place = Store(store)
    current, staged = place.catalog("current"), _staged(place)
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
        last=tuple(asdict(event) for event in events[-_SHOWN:]),
    )


def send(store: Path, target: upload.Target, *, by: str | None = None, staged: bool = False) -> upload.Sent:
    """Upload what readers see (or, to a rehearsal's index on this machine, what is staged), without what is yanked.

    Raises:
        PipelineError: there is nothing, the target refuses or has other bytes, or it cannot be reached any more.
    """
    place, by = Store(store), person(by)
    if (staged or place.rehearsal) and not target.loopback:
        raise PublishError("only what was promoted, in a store of releases, leaves this machine", hint="promote first")
    catalog = _staged(place) if staged else place.catalog("current")
    wanted = [entry for entry in catalog.files if entry.yanked is None]
    if not wanted:
        raise PublishError(f"{store} has nothing to upload", hint="promote wheels first: nox -s promote")
    for entry in wanted:
        place.check_file(entry.sha256, entry.name)

    told = {
        one.details.get("sha256") for one in _events(place, "uploaded") if one.says("uploaded", target=target.shown)
    }

    def tell(name: str, sha256: str) -> None:
        if sha256 not in told:
            ledger.append(store, "uploaded", by=by, wheel=name, sha256=sha256, target=target.shown)

    return upload.send([upload.Item(place.path(entry), entry.sha256) for entry in wanted], target, tell)


def _events(store: Store, *what: str) -> list[ledger.Event]:
    return [event for event in ledger.read(store.root) if event.what in what]


def _count(wheels: int) -> str:
    return f"{wheels} wheel{'' if wheels == 1 else 's'}"


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return ", ".join(listed[:_SHOWN]) + more


@dataclass(frozen=True)
class _Options:
    command: str
    store: Path
    by: str | None
    json: bool
    wait: float
    wheels: Sequence[Path] = ()
    wheel: str = ""
    reason: str | None = None
    records: Path | None = None
    allow_partial: bool = False
    replace: bool = False
    waive_gpu: str | None = None
    export: Path | None = None
    upload: str | None = None
    target: str = ""
    index: str | None = None
    staged: bool = False


def _common() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--store", type=Path, default=STORE, metavar="DIR", help="the store's folder (default: index)")
    common.add_argument("--by", metavar="NAME", help="who does it (default: git's user.name)")
    common.add_argument("--json", action="store_true", help="print JSON")
    common.add_argument("--wait", type=float, default=WAIT, metavar="S", help="seconds to wait for another publisher")
    return common


def _parse(arguments: Sequence[str] | None) -> _Options:
    parser = argparse.ArgumentParser(prog="nox -s publish --", description="Publish wheels to an index.")
    commands, common = parser.add_subparsers(dest="command", required=True), [_common()]
    staging = commands.add_parser("stage", parents=common, help="put audited wheels into the staged index")
    staging.add_argument("wheels", nargs="+", type=Path, metavar="WHEEL")
    staging.add_argument("--records", type=Path, metavar="DIR", help="records/ lies below DIR, not beside the wheel")
    staging.add_argument("--allow-partial", action="store_true", help="partial wheels as well, for a rehearsal")
    staging.add_argument("--replace", action="store_true", help="take the name of a wheel that was never promoted")
    promoting = commands.add_parser("promote", parents=common, help="show readers what was staged and proven")
    promoting.add_argument("--waive-gpu", metavar="REASON", help="answer for wheels that no GPU has run")
    promoting.add_argument("--records", type=Path, metavar="DIR", help="take GPU records from below DIR")
    promoting.add_argument("--export", type=Path, metavar="FOLDER", help="then write the index there, as plain files")
    promoting.add_argument("--upload", metavar="TARGET", help="then upload to this URL or repository of .pypirc")
    promoting.add_argument("--index", metavar="URL", help="the simple index of --upload (default: TARGET/simple/)")
    yanking = commands.add_parser("yank", parents=common, help="have installers leave a wheel alone")
    yanking.add_argument("wheel", metavar="WHEEL")
    yanking.add_argument("--reason", required=True)
    unyanking = commands.add_parser("unyank", parents=common, help="take a yank back")
    unyanking.add_argument("wheel", metavar="WHEEL")
    unyanking.add_argument("--reason")
    sending = commands.add_parser(
        "upload", parents=common, help="upload to an index; TWINE_* or keyring has the password"
    )
    sending.add_argument("target", metavar="TARGET", help="URL of the upload API, or a repository of .pypirc")
    sending.add_argument("--index", metavar="URL", help="the target's simple index (default: TARGET/simple/)")
    sending.add_argument("--staged", action="store_true", help="what is staged, to an index on this machine")
    commands.add_parser("status", parents=common, help="how things stand")
    return _Options(**vars(parser.parse_args(arguments)))


def _stage(options: _Options) -> Staged:
    done = stage(
        options.store,
        options.wheels,
        options.records,
        by=options.by,
        allow_partial=options.allow_partial,
        replace_staged=options.replace,
        wait=options.wait,
    )
    _tell(options, [*(f"staged {name}" for name in done.added), *(f"already staged: {name}" for name in done.already)])
    return done


def _promote(options: _Options) -> Promoted:
    target = upload.target(options.upload, options.index) if options.upload else None
    done = promote(
        options.store, waive_gpu=options.waive_gpu, by=options.by, records=options.records, wait=options.wait
    )
    _tell(options, [f"promoted {name}" for name in done.new])
    _tell(options, [f"no GPU has run {name}: waived" for name in done.waived], "untested")
    _tell(options, [f"readers see {_count(done.wheels)}, as expected: none missing, none unexpected"])
    if options.export:
        export(options.store / "current", options.export)
        _tell(options, [f"exported to {options.export.absolute()}"])
    if target:
        _tell_sent(options, send(options.store, target, by=options.by), target)
    return done


def _yank(options: _Options) -> dict[str, Any]:
    changed = yank(options.store, options.wheel, reason=options.reason or "", by=options.by, wait=options.wait)
    _tell(options, [f"{'yanked' if changed else 'already yanked:'} {options.wheel}"])
    return {"wheel": options.wheel, "changed": changed}


def _unyank(options: _Options) -> dict[str, Any]:
    changed = unyank(options.store, options.wheel, reason=options.reason, by=options.by, wait=options.wait)
    _tell(options, [f"{'unyanked' if changed else 'is not yanked:'} {options.wheel}"])
    return {"wheel": options.wheel, "changed": changed}


def _upload(options: _Options) -> upload.Sent:
    target = upload.target(options.target, options.index)
    done = send(options.store, target, by=options.by, staged=options.staged)
    _tell_sent(options, done, target)
    return done


def _tell_sent(options: _Options, sent: upload.Sent, target: upload.Target) -> None:
    _tell(options, [f"uploaded {name}" for name in sent.uploaded])
    _tell(options, [f"{target.shown} has {_count(len(sent.uploaded) + len(sent.already))} of ours"])


def _status(options: _Options) -> Status:
    found = status(options.store)
    if found.empty and not options.json:
        console.mark("info", f"{found.store}: empty, nothing was staged yet; next: nox -s stage -- WHEEL...")
    elif not options.json:
        rows = [
            ("staged", f"{_count(found.staged)}, {'proven' if found.proven else 'not proven yet'}"),
            ("current", _count(found.current)),
            ("not promoted yet", _some(found.pending) or "nothing"),
            ("neither run on a GPU nor waived", _some(found.waiting) or "nothing"),
            ("waived", _some(found.waived) or "nothing"),
            ("yanked", _some(found.yanked) or "nothing"),
            *((one["time"], f"{one['what']} by {one['by']}") for one in found.last),
        ]
        console.table(f"{found.store}{' (for rehearsals)' if found.rehearsal else ''}", ("", ""), rows)
    return found


def _tell(options: _Options, lines: Iterable[str], outcome: str = "passed") -> None:
    for line in lines:
        if not options.json:
            console.mark(outcome, line)


_COMMANDS: dict[str, Callable[[_Options], Any]] = {
    "stage": _stage,
    "promote": _promote,
    "yank": _yank,
    "unyank": _unyank,
    "upload": _upload,
    "status": _status,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Publish, as the command line says."""
    options = _parse(arguments)
    done = _COMMANDS[options.command](options)
    if options.json:
        print(json.dumps(done if isinstance(done, dict) else asdict(done), indent=1, sort_keys=True))
    return 0


if __name__ == "__main__":
    run_main(main)
