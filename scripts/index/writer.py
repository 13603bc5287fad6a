"""Write a static index from a catalog: a whole site in a folder, which any web server can serve.

    index.html                                the page for people
    catalog.json                              what it was made from
    whl/index.html                            the channels
    whl/<channel>/index.html, index.json      a simple repository each
    whl/<channel>/nvdiffrast/index.html, index.json
    whl/<channel>/<package>/...               the same of every package without compiled code, also in whl/cpu/
    files -> ../../pool                       the wheels: files/<sha256>/<wheel>, and <wheel>.metadata
    records -> ../../records                  the evidence about them

The HTML is for installers behind any file server; the JSON, which alone tells when a file was uploaded, is for those
behind one that negotiates (scripts/index/nginx.conf).

nox -s index -- [STORE]                     write the store's indexes again, after a change of their form
nox -s index -- [STORE] --check             follow every link of the current index, and hash every wheel
nox -s index -- [STORE] --export FOLDER     copy the current index out as plain files, without links
nox -s index -- [STORE] --nginx ADDRESS     print a configuration for nginx that listens at ADDRESS
"""

from __future__ import annotations

import argparse
import operator
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

from scripts import console
from scripts.errors import CatalogError, UsageError
from scripts.index import catalog as catalogs
from scripts.index import links, simple_pages
from scripts.index import wheel_entry as entry_shapes
from scripts.index.catalog import CATALOG, Catalog, Entry, File
from scripts.index.export import export
from scripts.index.simple_pages import PROJECT, Edit, Listing
from scripts.model import ROOT
from scripts.support.command_line import run_main
from scripts.support.files import complete_folder

WHL = "whl"
HTML, JSON = "index.html", "index.json"
_LINKS = {"files": "../../pool", "records": "../../records"}
# Fewer entries than these per change are rendered anew.
_WORTH = 10
_NGINX = Path(__file__).with_name("nginx.conf")

__all__ = ["check", "export", "generate", "nginx"]


def generate(catalog: Catalog, destination: Path, *, page: bytes, previous: Path | None = None) -> None:
    """Write the index of ``catalog`` as the new folder ``destination``, whole or not at all.

    ``page`` is the root page. The same catalog and page give the same bytes, with and without ``previous``: an earlier
    generation, from which unchanged files are hard-linked and unchanged lines taken over.

    Raises:
        CatalogError: ``destination`` is there already, or an entry must not become part of a page.
    """
    if destination.exists() or destination.is_symlink():
        raise CatalogError(f"{destination} is there already; a generation never changes")
    names = [*map(operator.attrgetter("name"), catalog.entries)]
    pure = [*map(operator.attrgetter("name"), catalog.packages)]
    if not all(map(operator.lt, names, names[1:])) or not all(map(operator.lt, pure, pure[1:])):
        raise CatalogError("a catalog's entries are ordered by file name, and no name is there twice")
    writer = _Writer(catalog, _usable(previous))
    for entry in (*writer.fresh, *catalog.packages):
        _check(entry)
    with complete_folder(destination) as folder:
        writer.write(folder)
        (folder / HTML).write_bytes(page)
        for name, target in _LINKS.items():
            (folder / name).symlink_to(target)


def check(generation: Path) -> list[str]:
    """What is wrong with a generation: files that do not follow from its catalog, links that lead nowhere, wrong bytes.

    Raises:
        CatalogError: its catalog cannot be read, or holds what no index must.
    """
    generation = generation.resolve()
    with TemporaryDirectory() as folder:
        fresh = Path(folder) / "generation"
        generate(catalogs.read(generation), fresh, page=_read(generation / HTML))
        expected, found = _files(fresh), _files(generation)
        different = [name for name in sorted(expected & found) if _content(fresh / name) != _content(generation / name)]
    problems = [f"{name}: is missing" for name in sorted(expected - found)]
    problems += [f"{name}: is none of the catalog's" for name in sorted(found - expected)]
    problems += [f"{name}: is not what the catalog makes it" for name in different]
    return [*problems, *links.problems(generation)]


def nginx(root: Path, address: str) -> str:
    """A configuration for nginx that serves the generation ``root`` at ``address`` ("127.0.0.1:8080", "80").

    Raises:
        UsageError: one of the two cannot stand in a configuration.
    """
    for value, allowed in ((address, r"[A-Za-z0-9.:\[\]-]+"), (str(root), r"[^\x00-\x1f\"$\\]+")):
        if not re.fullmatch(allowed, value):
            raise UsageError(f"not to be put into nginx's configuration: {value!r}")
    return (
        _NGINX.read_text(encoding="utf-8").replace("listen ADDRESS", f"listen {address}").replace('"ROOT', f'"{root}')
    )


class _Writer:
    """Writes the files of ``catalog``, from those of the generation ``earlier`` where there is one."""

    def __init__(self, catalog: Catalog, earlier: Path | None) -> None:
        self.earlier = earlier
        self.catalog = catalog
        self.entries = catalog.entries
        before = catalogs.read(earlier) if earlier else Catalog()
        self.gone, self.replaced = _changes(before.entries, self.entries)
        self.same_packages = before.packages == catalog.packages

    @property
    def fresh(self) -> list[Entry]:
        """The entries that are new or say something else than before."""
        return [self.entries[at] for at in self.replaced]

    def write(self, folder: Path) -> None:
        """Write everything below ``folder`` that follows from the catalog."""
        touched = {channel for entry in (*self.gone, *self.fresh) for channel in entry.channels}
        names = sorted(self.catalog.channels, key=simple_pages.channel_order)
        (folder / WHL).mkdir()
        for channel in names:
            projects = simple_pages.projects(channel, self.catalog.packages)
            # As text: with some hundred files the making of Path objects is what costs.
            os.mkdir(f"{folder}/{WHL}/{channel}")  # noqa: PTH102
            for project in projects:
                os.mkdir(f"{folder}/{WHL}/{channel}/{project}")  # noqa: PTH102
            pages = [
                f"{place}{name}" for place in ("", *(f"{project}/" for project in projects)) for name in (HTML, JSON)
            ]
            if channel in touched or not self.same_packages or not self._link(folder, channel, pages):
                self._write_channel(folder, channel, projects)
        (folder / WHL / HTML).write_bytes(simple_pages.channels_html(names).encode())
        self._write_listing(folder, CATALOG, simple_pages.catalog_json(self.catalog.packages), None)

    def _link(self, folder: Path, channel: str, pages: Sequence[str]) -> bool:
        """Take over a channel that lists what it listed; whether that was possible."""
        if self.earlier is None:
            return False
        source, target = f"{self.earlier}/{WHL}/{channel}", f"{folder}/{WHL}/{channel}"
        try:
            for name in pages:
                os.link(f"{source}/{name}", f"{target}/{name}")
        except OSError:
            # Not there, or a file system without hard links: all are written again, and none through a link.
            for name in pages:
                Path(target, name).unlink(missing_ok=True)
            return False
        return True

    def _write_channel(self, folder: Path, channel: str, projects: Sequence[str]) -> None:
        root = f"{WHL}/{channel}"
        (folder / root / HTML).write_bytes(simple_pages.channel_html(channel, projects).encode())
        (folder / root / JSON).write_bytes(simple_pages.channel_json(projects).encode())
        for project in projects:
            pages = {HTML: simple_pages.project_html(channel, project), JSON: simple_pages.project_json(project)}
            for name, listing in pages.items():
                if project == PROJECT:
                    self._write_listing(folder, f"{root}/{project}/{name}", listing, channel)
                else:
                    files = [package for package in self.catalog.packages if package.project == project]
                    (folder / root / project / name).write_bytes(listing.render(files))

    def _write_listing(self, folder: Path, path: str, listing: Listing, channel: str | None) -> None:
        """Write the page of a channel, or of all: the earlier one with the lines of what is fresh, if that is less."""
        pieces = None
        # Nothing goes from an index but by hand.
        if self.earlier and not self.gone and len(self.replaced) * _WORTH <= len(self.entries):
            pieces = listing.changed(_read(self.earlier / path), list(self._edits(channel)))
        with (folder / path).open("wb") as file:
            file.writelines(pieces or [listing.render(self._listed[channel] if channel else self.entries)])

    @cached_property
    def _listed(self) -> Mapping[str, Sequence[Entry]]:
        """The entries of every channel."""
        listed: defaultdict[str, list[Entry]] = defaultdict(list)
        for entry in self.entries:
            for channel in entry.channels:
                listed[channel].append(entry)
        return listed

    def _edits(self, channel: str | None) -> Iterator[Edit]:
        for at, old in self.replaced.items():
            if _lists(channel, self.entries[at]):
                after = self._kept(range(at + 1, len(self.entries)), channel)
                before = None if after else self._kept(range(at - 1, -1, -1), channel)
                yield Edit(self.entries[at], old, after, before)

    def _kept(self, positions: Iterable[int], channel: str | None) -> Entry | None:
        """The first entry at ``positions`` that the channel lists and listed before, as it is."""
        found = (at for at in positions if at not in self.replaced and _lists(channel, self.entries[at]))
        return next((self.entries[at] for at in found), None)


def _lists(channel: str | None, entry: Entry) -> bool:
    """Whether a channel, None for the whole catalog, lists an entry."""
    return channel is None or channel in entry.channels


def _usable(previous: Path | None) -> Path | None:
    """The earlier generation itself, if its pages are of the format that is written now."""
    if previous is None:
        return None
    folder = previous.resolve()
    head = simple_pages.channels_html([]).partition("<title>")[0]
    return folder if _read(folder / WHL / HTML).startswith(head.encode()) else None


def _changes(before: Sequence[Entry], entries: Sequence[Entry]) -> tuple[list[Entry], dict[int, Entry | None]]:
    """The entries that are gone; and by position those that are new or say something else, with what they replace."""
    start = _alike(before, entries)
    end = _alike(before[start:][::-1], entries[start:][::-1])
    old = {entry.name: entry for entry in before[start : len(before) - end]}
    replaced = {}
    for at in range(start, len(entries) - end):
        known = old.pop(entries[at].name, None)
        if known != entries[at]:
            replaced[at] = known
    return list(old.values()), replaced


def _alike(one: Sequence[Entry], other: Sequence[Entry]) -> int:
    """How many entries both begin with: the very same objects, which is much cheaper to see than that two are equal."""
    same = list(map(operator.is_, one, other))
    return same.index(False) if False in same else len(same)


def _files(folder: Path) -> set[str]:
    """The files and links below a folder; not what is behind the links."""
    paths = (Path(root, name) for root, folders, files in os.walk(folder) for name in (*folders, *files))
    return {path.relative_to(folder).as_posix() for path in paths if path.is_symlink() or not path.is_dir()}


def _content(path: Path) -> bytes:
    return os.fsencode(path.readlink()) if path.is_symlink() else path.read_bytes()


def _read(path: Path) -> bytes:
    """A page; nothing if it is not there."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _check(entry: File) -> None:
    """Refuse an entry whose texts could leave their line of a page, or that was uploaded at no date."""
    entry_shapes.check(entry, "the catalog")
    for name in ("yanked", "waiver"):
        reason = getattr(entry, name, None)
        if reason is not None and not reason.isprintable():
            raise CatalogError(f"the catalog: {entry.name!r}: {name} is {reason!r}, not one line of text")
    try:
        datetime.fromisoformat(entry.uploaded)
    except ValueError as error:
        raise CatalogError(f"the catalog: {entry.name!r}: uploaded is {entry.uploaded!r}: {error}") from error


def _write_again(root: Path) -> None:
    """Write both indexes of a store again and let its links point at them."""
    # site makes indexes with this module.
    from scripts.index import site_files  # noqa: PLC0415
    from scripts.index.store import LINKS, Store  # noqa: PLC0415

    store = Store(root)
    if not any(store.generation(link) for link in LINKS):
        raise CatalogError(f"{root} has no index yet", hint="nox -s stage -- WHEEL...")
    with store.exclusive("index"):
        for link in LINKS:
            before = store.generation(link)
            if before is None:
                continue
            made = site_files.make(store, store.catalog(link), site_files.default())
            if made != before:
                store.switch(link, made)
            console.mark("passed", f"{link}: {made}" + ("" if made != before else ", as it was"))


def _report(generation: Path) -> None:
    if not (generation / CATALOG).is_file():
        raise CatalogError(f"{generation} holds no index", hint="promote first: nox -s promote")
    problems = check(generation)
    for problem in problems:
        console.mark("failed", problem)
    if problems:
        raise CatalogError(
            f"{generation} is damaged", hint="restore the pool's files; then nox -s index writes the pages"
        )
    console.mark("passed", f"{generation}: every link leads to the bytes that are announced")


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="nox -s index --", description="Write, check or copy out an index.")
    parser.add_argument("store", nargs="?", type=Path, default=ROOT / "index", metavar="STORE")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="follow every link of the current index")
    what.add_argument("--export", type=Path, metavar="FOLDER", help="copy the current index out as plain files")
    what.add_argument("--nginx", metavar="ADDRESS", help="print a configuration for nginx, listening at ADDRESS")
    options = parser.parse_args()
    current = options.store.absolute() / "current"
    if options.nginx:
        print(nginx(current, options.nginx), end="")
    elif options.export:
        export(current, options.export)
        console.mark("passed", f"exported to {options.export.absolute()}")
    elif options.check:
        _report(current)
    else:
        _write_again(options.store)
    return 0


if __name__ == "__main__":
    run_main(main)
