"""Write the static index of a catalog, and check a written one.

    index.html                                the page for people
    catalog.json                              the catalog
    whl/index.html                            the list of channels
    whl/<channel>/index.html, index.json      one simple repository per channel
    whl/<channel>/nvdiffrast/index.html, index.json
    whl/<channel>/<package>/...               the same for each package without compiled code; also in whl/cpu/
    files -> ../../pool                       the wheels: files/<sha256>/<wheel> and <wheel>.metadata
    records -> ../../records                  the records about the wheels

Every file server can serve the HTML pages to installers. The JSON pages need a server that negotiates the content type
(scripts/index/nginx.conf); only they state when a file was uploaded.
"""

from __future__ import annotations

import operator
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from scripts.errors import CatalogError
from scripts.index import catalog as catalogs
from scripts.index import links, simple_pages, wheel_entry
from scripts.index.catalog import CATALOG, Catalog, File, PureWheel
from scripts.index.simple_pages import PROJECT
from scripts.support.files import complete_folder

WHL = "whl"
HTML, JSON = "index.html", "index.json"
_LINKS = {"files": "../../pool", "records": "../../records"}


def generate(catalog: Catalog, destination: Path, *, page: bytes) -> None:
    """Write the index of ``catalog`` as the new folder ``destination``; if that fails, leave no folder.

    ``page`` is the page for people. The same catalog and page always give the same bytes.

    Raises:
        CatalogError: if ``destination`` exists, or if an entry must not become part of a page.
    """
    if destination.exists() or destination.is_symlink():
        raise CatalogError(f"{destination} already exists; a generation is never overwritten")
    for files in (catalog.entries, catalog.packages):
        names = [file.name for file in files]
        if not all(map(operator.lt, names, names[1:])):
            raise CatalogError("a catalog's entries must be ordered by file name, without duplicates")
    for file in catalog.files:
        _check_file(file)
    with complete_folder(destination) as folder:
        _write_channels(folder / WHL, catalog)
        _write(folder / CATALOG, catalogs.dump(catalog))
        (folder / HTML).write_bytes(page)
        for name, target in _LINKS.items():
            (folder / name).symlink_to(target)


def check(generation: Path) -> list[str]:
    """Return every problem of a generation: pages that differ from its catalog, broken links, files with wrong bytes.

    Raises:
        CatalogError: if its catalog is unreadable or has an invalid entry.
    """
    generation = generation.resolve()
    with TemporaryDirectory() as folder:
        fresh = Path(folder) / "generation"
        generate(catalogs.read(generation), fresh, page=_read_page(generation / HTML))
        expected, found = _list_files(fresh), _list_files(generation)
        different = [name for name in sorted(expected & found) if _content(fresh / name) != _content(generation / name)]
    problems = [f"{name}: is missing" for name in sorted(expected - found)]
    problems += [f"{name}: is not part of the catalog's index" for name in sorted(found - expected)]
    problems += [f"{name}: differs from what the catalog gives" for name in different]
    return [*problems, *links.problems(generation)]


def _write_channels(folder: Path, catalog: Catalog) -> None:
    """Write the list of channels and every channel as the new folder ``folder``."""
    channels = sorted(catalog.channels, key=simple_pages.channel_order)
    packages = _group_by_project(catalog.packages)
    compiled = _group_by_channel(catalog)
    folder.mkdir()
    _write(folder / HTML, simple_pages.channels_html(channels))
    for channel in channels:
        listed = {PROJECT: compiled[channel], **packages} if channel in compiled else packages
        _write_channel(folder / channel, listed)


def _write_channel(folder: Path, listed: Mapping[str, Sequence[File]]) -> None:
    """Write a channel, which is named like its folder; ``listed`` are the files of each project."""
    channel = folder.name
    folder.mkdir()
    _write(folder / HTML, simple_pages.channel_html(channel, listed))
    _write(folder / JSON, simple_pages.channel_json(listed))
    for project, files in listed.items():
        (folder / project).mkdir()
        _write(folder / project / HTML, simple_pages.project_html(channel, project, files))
        _write(folder / project / JSON, simple_pages.project_json(project, files))


def _group_by_channel(catalog: Catalog) -> Mapping[str, Sequence[File]]:
    """Return the wheels of nvdiffrast by channel."""
    grouped: defaultdict[str, list[File]] = defaultdict(list)
    for entry in catalog.entries:
        for channel in entry.channels:
            grouped[channel].append(entry)
    return grouped


def _group_by_project(packages: Iterable[PureWheel]) -> Mapping[str, Sequence[File]]:
    """Return the wheels without compiled code by project, in the order of the projects' names."""
    grouped: defaultdict[str, list[File]] = defaultdict(list)
    for package in packages:
        grouped[package.project].append(package)
    return dict(sorted(grouped.items()))


def _write(path: Path, text: str) -> None:
    path.write_bytes(text.encode())


def _list_files(folder: Path) -> set[str]:
    """Return the relative paths of all files and links below a folder, without following links."""
    paths = (Path(root, name) for root, folders, files in os.walk(folder) for name in (*folders, *files))
    return {path.relative_to(folder).as_posix() for path in paths if path.is_symlink() or not path.is_dir()}


def _content(path: Path) -> bytes:
    """Return the target of a link, or the bytes of a file."""
    return os.fsencode(path.readlink()) if path.is_symlink() else path.read_bytes()


def _read_page(path: Path) -> bytes:
    """Return a page's bytes, b"" if it is unreadable; :func:`check` reports an unreadable page later."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _check_file(file: File) -> None:
    """Raise CatalogError if a text of the entry could break a page's markup, or if its upload time is no valid date."""
    wheel_entry.check(file, "the catalog")
    for name in ("yanked", "waiver"):
        reason = getattr(file, name, None)
        if reason is not None and not reason.isprintable():
            raise CatalogError(f"the catalog: {file.name!r}: {name} is {reason!r}, not one line of text")
    try:
        datetime.fromisoformat(file.uploaded)
    except ValueError as error:
        raise CatalogError(f"the catalog: {file.name!r}: uploaded is {file.uploaded!r}: {error}") from error
