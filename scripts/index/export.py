"""Copy a generation to a folder as plain files without symbolic links, for any web server.

The folder is updated in place, so it can be a git checkout or a mounted share. Wheels are written before the pages that
link to them, and each file atomically, so that links are valid at every moment.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from scripts.errors import CatalogError
from scripts.index import catalog as catalogs
from scripts.index.catalog import CATALOG, Catalog, File
from scripts.support.files import replace_atomic, write_atomic

_CHUNK = 1 << 20


def export(generation: Path, folder: Path) -> None:
    """Write the files of ``generation`` to ``folder``, which is new or was made by an earlier export.

    Existing wheels are not written again, and nothing is deleted.

    Raises:
        CatalogError: if ``folder`` is not an exported index, or has a wheel that this index does not have with the same
            bytes; if a file of the pool is missing, is a link, or does not have its hash.
    """
    if not (generation / CATALOG).is_file():
        raise CatalogError(f"{generation} is not an index", hint="promote first: nox -s promote")
    generation = generation.resolve()
    catalog = catalogs.read(generation)
    _check_target(folder, catalog)
    if not (folder / CATALOG).exists():
        # Marks the folder as an export, so that an interrupted export can be run again.
        _put(folder / CATALOG, catalogs.dump(Catalog()).encode())
    for entry in catalog.files:
        _wheel(entry, generation, folder)
        _records(entry, generation, folder)
    for path in _pages(generation):
        _put(folder / path, (generation / path).read_bytes())


def _check_target(folder: Path, catalog: Catalog) -> None:
    """Raise CatalogError if the export would not fit to the existing contents of ``folder``."""
    if not folder.exists():
        return
    if not folder.is_dir() or (any(folder.iterdir()) and not (folder / CATALOG).is_file()):
        raise CatalogError(f"{folder} is not an exported index", hint="export to a new or an empty folder")
    hashes = {entry.name: entry.sha256 for entry in catalog.files}
    for entry in catalogs.read(folder).files:
        if hashes.get(entry.name) != entry.sha256:
            problem = "other bytes under that name" if entry.name in hashes else "no such wheel"
            hint = "a published wheel must not change or disappear; export to another folder"
            raise CatalogError(f"{folder} has {entry.name}, this index has {problem}", hint=hint)


def _pages(generation: Path) -> Iterator[str]:
    """Yield the paths of the pages, each after the pages that it links to."""
    pages = (path.relative_to(generation).as_posix() for path in (generation / "whl").rglob("index.*"))
    yield from sorted(pages, key=lambda path: (-path.count("/"), path))
    yield from ("index.html", CATALOG)


def _wheel(entry: File, generation: Path, folder: Path) -> None:
    """Copy a wheel and its METADATA, unless ``folder`` has them."""
    for name, sha256 in ((entry.name, entry.sha256), (f"{entry.name}.metadata", entry.metadata_sha256)):
        place = Path("files", entry.sha256, name)
        source, target = generation / place, folder / place
        if source.is_symlink() or source.parent.is_symlink() or not source.is_file():
            raise CatalogError(f"{source} is missing or not a regular file")
        if target.is_file() and not target.is_symlink() and target.stat().st_size == source.stat().st_size:
            continue
        _copy(source, target, sha256)


def _copy(source: Path, target: Path, sha256: str) -> None:
    with source.open("rb") as file, replace_atomic(target) as temporary, temporary.open("wb") as copy:
        digest = hashlib.sha256()
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            copy.write(chunk)
        if digest.hexdigest() != sha256:
            raise CatalogError(f"{source} is damaged: its sha256 is not {sha256}", hint="restore it from a copy")


def _records(entry: File, generation: Path, folder: Path) -> None:
    for source in sorted((generation / "records").glob(f"{entry.sha256}.*")):
        if source.suffix not in (".json", ".png"):
            continue
        if source.is_symlink():
            raise CatalogError(f"{source} is a symbolic link")
        _put(folder / "records" / source.name, source.read_bytes())


def _put(path: Path, content: bytes) -> None:
    """Write a file, unless it has these bytes already."""
    if not path.is_file() or path.is_symlink() or path.read_bytes() != content:
        write_atomic(path, content)
