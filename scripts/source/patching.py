"""Creates a patched tree: a pristine release with the patches and the overlay files of its series.

``patches/<series>/series`` lists the patches in the order of application, one per line, each with the largest offset
that its hunks may have (``loader.patch offset<=6``; 0 by default). A patch that is not in ``patches/<series>`` is read
from ``patches/common``. The files of ``patches/common/overlay`` and ``patches/<series>/overlay`` are copied into the
tree; ``patches/<series>/replaces`` lists the upstream files that an overlay may replace.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scripts.console import table
from scripts.errors import PatchError, PipelineError, UntestedError
from scripts.matrix import matrix
from scripts.model import ROOT, Release
from scripts.source import unified_diff, upstream
from scripts.support.command_line import run_main
from scripts.support.files import file_sha256

PATCHES = ROOT / "patches"
_ORIGIN = "build_origin.json"
# All files get the same modification time (2020-01-01 UTC), so that two preparations give identical trees.
_MTIME = 1577836800
_SERIES_LINE = re.compile(r"(?P<name>[\w.-]+\.patch)(?:\s+offset<=(?P<offset>\d+))?")
_IGNORED = shutil.ignore_patterns("__pycache__", "*.pyc", ".git")


@dataclass(frozen=True)
class PatchedTree:
    """A tree that is ready to build, and the hash of the series that was applied to it."""

    path: Path
    series_sha256: str


@dataclass(frozen=True)
class Patch:
    """A patch of a series; ``max_offset`` is the largest allowed offset of its hunks in lines."""

    path: Path
    max_offset: int


@dataclass(frozen=True)
class Series:
    """The patches and overlay files of one release line; ``overlay`` maps paths in the tree to files of patches/."""

    name: str
    patches: tuple[Patch, ...]
    overlay: dict[str, Path]
    replaces: frozenset[str]
    sha256: str


def prepare(release: Release, pristine: Path, destination: Path, *, patches: Path = PATCHES) -> PatchedTree:
    """Create the patched tree of ``release`` at ``destination``.

    The same input gives the same contents, modes and times. A patched tree at ``destination`` is replaced. After an
    error ``destination`` is unchanged.

    Raises:
        PatchError: if a patch does not apply exactly, a file to patch is missing, an overlay file would replace an
            upstream file that ``replaces`` does not list, or ``destination`` contains anything but a patched tree.
    """
    series = read_series(release.series, patches)
    with _replacement(destination) as tree:
        shutil.copytree(pristine, tree, dirs_exist_ok=True, symlinks=True, ignore=_IGNORED)
        for patch in series.patches:
            _apply_patch(patch, tree)
        _apply_overlay(series, tree)
        origin = {
            "release": release.version,
            "source": dataclasses.asdict(release.source),
            "series": series.name,
            "series_sha256": series.sha256,
        }
        (tree / _ORIGIN).write_text(json.dumps(origin, indent=1, sort_keys=True) + "\n", "utf-8", newline="\n")
        _normalize_metadata(tree)
    return PatchedTree(destination, series.sha256)


def read_series(name: str, patches: Path = PATCHES) -> Series:
    """Read the series ``name`` from its folder in ``patches``.

    Raises:
        PatchError: if the series does not exist, a line is malformed, a patch is missing or not listed, or both
            overlays contain the same path.
    """
    folder = patches / name
    file = folder / "series"
    if not file.is_file():
        raise PatchError(
            f"there is no series {name!r}: {file} is missing", hint=f"create {file} with one patch per line"
        )
    listed = tuple(_parse_patch(file, number, text) for number, text in _read_list(file))
    unlisted = {path.name for path in folder.glob("*.patch")} - {patch.path.name for patch in listed}
    if unlisted:
        raise PatchError(
            f"{file} does not list {', '.join(sorted(unlisted))}", hint="add the patch to the list, or delete it"
        )
    overlay = _read_overlays(patches / "common" / "overlay", folder / "overlay")
    replaces = frozenset(text for _, text in _read_list(folder / "replaces"))
    return Series(name, listed, overlay, replaces, _series_sha256(folder, listed, overlay))


def _parse_patch(file: Path, number: int, text: str) -> Patch:
    line = _SERIES_LINE.fullmatch(text)
    if line is None:
        raise PatchError(f"{file}:{number}: {text!r} is not 'NAME.patch' or 'NAME.patch offset<=N'")
    path = file.parent / line["name"]
    common = file.parent.parent / "common" / line["name"]
    if not path.is_file() and not common.is_file():
        raise PatchError(f"{file}:{number}: there is no {path}")
    return Patch(path if path.is_file() else common, int(line["offset"] or 0))


def _read_list(file: Path) -> Iterator[tuple[int, str]]:
    """Yield the number and text of each line of ``file`` without comments; yield nothing if the file is missing."""
    if file.is_file():
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            text = line.partition("#")[0].strip()
            if text:
                yield number, text


def _read_overlays(*folders: Path) -> dict[str, Path]:
    """Return the files of ``folders`` by their path in the tree."""
    overlay: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder)
            if not path.is_file() or "__pycache__" in name.parts or path.suffix == ".pyc":
                continue
            if name.as_posix() in overlay:
                raise PatchError(f"two overlays contain {name.as_posix()}: {overlay[name.as_posix()]} and {path}")
            overlay[name.as_posix()] = path
    return overlay


def _series_sha256(folder: Path, listed: tuple[Patch, ...], overlay: dict[str, Path]) -> str:
    """Return the SHA-256 of everything that affects the patched tree.

    It covers the order, offsets and contents of the patches, the overlays and ``replaces``, but not the comments of the
    series file and not the folder that a file is read from.
    """
    content = {
        "patches": [(patch.path.name, patch.max_offset, file_sha256(patch.path)) for patch in listed],
        "overlay": {name: file_sha256(path) for name, path in overlay.items()},
        "replaces": sorted(text for _, text in _read_list(folder / "replaces")),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _apply_patch(patch: Patch, tree: Path) -> None:
    """Apply one patch to the files of ``tree``, which need not be UTF-8."""
    name = patch.path.parent.name + "/" + patch.path.name
    for file in unified_diff.parse(_read(patch.path), name):
        target = tree / file.path
        if target.is_symlink() or not target.is_file():
            raise PatchError(
                f"{name} does not apply: the release has no {file.path}\nthe hunk:\n{file.hunks[0].text}",
                hint="create a separate series for the release",
            )
        patched = unified_diff.apply(file, _read(target), max_offset=patch.max_offset, name=name)
        target.write_bytes(patched.encode("utf-8", "surrogateescape"))


def _read(path: Path) -> str:
    return path.read_bytes().decode("utf-8", "surrogateescape")


def _apply_overlay(series: Series, tree: Path) -> None:
    """Copy the overlay files into ``tree``."""
    for name, path in series.overlay.items():
        target = tree / name
        if target.exists() and name not in series.replaces:
            raise PatchError(
                f"the overlay file {name} would replace upstream's file",
                hint=f"list it in patches/{series.name}/replaces if this is intended, otherwise rename it",
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        shutil.copyfile(path, target)


def _normalize_metadata(tree: Path) -> None:
    """Give all files and folders the same modification time and modes; only the executable bit is preserved."""
    for path in sorted(tree.rglob("*"), reverse=True):
        if path.is_symlink():
            continue
        path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        os.utime(path, (_MTIME, _MTIME))
    os.utime(tree, (_MTIME, _MTIME))


@contextmanager
def _replacement(destination: Path) -> Iterator[Path]:
    """Yield an empty folder that replaces ``destination`` if the block raises no exception."""
    if destination.exists() and not (destination / _ORIGIN).is_file() and any(destination.iterdir()):
        raise PatchError(
            f"{destination} contains files that are not a patched tree", hint="give an empty or a new folder"
        )
    destination.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{destination.name}.", dir=destination.parent) as temporary:
        tree = Path(temporary) / "new"
        tree.mkdir()
        tree.chmod(0o755)
        yield tree
        if destination.exists():
            destination.rename(Path(temporary) / "old")
        tree.rename(destination)


def check(releases: tuple[Release, ...]) -> int:
    """Apply the series of every available release and print a table of the results; the cache keeps the releases.

    Raises:
        PatchError: if a series does not apply.
        UntestedError: if no series failed, but a release is not available.
    """
    rows = [(release.version, release.series, *_check_release(release)) for release in releases]
    table("patches", ("release", "series", "result", "detail"), rows)
    failed = [version for version, _, result, _ in rows if result == "failed"]
    untested = [version for version, _, result, _ in rows if result == "untested"]
    if failed:
        raise PatchError(f"the series does not apply to {', '.join(failed)}", hint=f"nox -s patch -- {failed[0]}")
    if untested:
        raise UntestedError(
            f"{len(untested)} of {len(rows)} releases are not available: {', '.join(untested)}",
            hint=f"nox -s fetch -- {untested[0]} --source CHECKOUT",
        )
    return 0


def _check_release(release: Release) -> tuple[str, str]:
    """Return the result for one release ("passed", "failed" or "untested") and its detail."""
    missing = upstream.availability(release)
    if missing is not None:
        return "untested", missing
    try:
        with tempfile.TemporaryDirectory(prefix="nvdiffrast-patching-") as temporary:
            tree = prepare(release, upstream.fetch(release), Path(temporary) / "tree")
    except PipelineError as error:
        return "failed", str(error).splitlines()[0]
    return "passed", f"series sha256 {tree.series_sha256[:16]}"


def main() -> int:
    """Create the patched tree of a release for inspection, or check every series."""
    parser = argparse.ArgumentParser(prog="nox -s patch --", description=main.__doc__)
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("release", nargs="?", help="the version of the release, e.g. 0.3.3.1")
    target.add_argument("--check", action="store_true", help="check the series of every available release")
    parser.add_argument("--output", type=Path, help="default: build/patched/RELEASE")
    parser.add_argument(
        "--source", type=Path, help="a checkout, a mirror or a wheel file; it is verified like a download"
    )
    arguments = parser.parse_args()
    planned = matrix.load()
    if arguments.check:
        return check(planned.releases)
    release = planned.release(arguments.release)
    output = arguments.output or ROOT / "build" / "patched" / release.version
    print(prepare(release, upstream.fetch(release, source=arguments.source), output).path)
    return 0


if __name__ == "__main__":
    run_main(main, uses_cache=True)
