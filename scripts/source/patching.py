"""A pristine release plus its series: patches applied to the letter, then our own files laid over it.

``patches/<series>/series`` names the patches in order, one a line, with the offset its hunks may have
(``loader.patch offset<=6``; none by default); one that is not in its folder is taken from ``patches/common``.
``patches/common/overlay`` and ``patches/<series>/overlay`` hold files of
ours; ``patches/<series>/replaces`` names the files of upstream that an overlay may replace.
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
ORIGIN = "build_origin.json"
# One moment for every file, so that two preparations are the same to whoever looks at times: 2020-01-01 UTC.
_MTIME = 1577836800
_SERIES_LINE = re.compile(r"(?P<name>[\w.-]+\.patch)(?:\s+offset<=(?P<offset>\d+))?")
_LITTER = shutil.ignore_patterns("__pycache__", "*.pyc", ".git")


@dataclass(frozen=True)
class PatchedTree:
    """A tree ready to build, and the hash of everything of ours that went into it."""

    path: Path
    series_hash: str


@dataclass(frozen=True)
class Patch:
    """One line of a series file."""

    path: Path
    max_offset: int


@dataclass(frozen=True)
class Series:
    """What ``patches/`` holds for one release line; overlay files by their path in the tree."""

    name: str
    patches: tuple[Patch, ...]
    overlay: dict[str, Path]
    replaces: frozenset[str]
    sha256: str


def prepare(release: Release, pristine: Path, destination: Path, *, patches: Path = PATCHES) -> PatchedTree:
    """Make ``destination`` the patched tree of ``release``; the same in gives the same bytes, modes and times.

    A tree that an earlier call left at ``destination`` is replaced; anything else there is refused. On an error
    ``destination`` is as it was.

    Raises:
        PatchError: a patch does not apply exactly, a file to patch is missing, or an overlay would hide a file of
            upstream that ``replaces`` does not name.
    """
    series = read_series(release.series, patches)
    with _replacing(destination) as making:
        shutil.copytree(pristine, making, dirs_exist_ok=True, symlinks=True, ignore=_LITTER)
        for patch in series.patches:
            _apply(patch, making)
        _lay_over(series, making)
        origin = {
            "release": release.version,
            "source": dataclasses.asdict(release.source),
            "series": series.name,
            "series_sha256": series.sha256,
        }
        (making / ORIGIN).write_text(json.dumps(origin, indent=1, sort_keys=True) + "\n", "utf-8", newline="\n")
        _settle(making)
    return PatchedTree(destination, series.sha256)


def read_series(name: str, patches: Path = PATCHES) -> Series:
    """Read one folder of ``patches/``.

    Raises:
        PatchError: no such series, a line that cannot be read, a patch that is not there or not named, or one path in
            both overlays.
    """
    folder = patches / name
    file = folder / "series"
    if not file.is_file():
        raise PatchError(f"there is no series {name!r}: {file} is missing", hint=f"make {file}, one patch a line")
    listed = tuple(_patch(file, number, text) for number, text in _lines(file))
    unlisted = {path.name for path in folder.glob("*.patch")} - {patch.path.name for patch in listed}
    if unlisted:
        raise PatchError(
            f"{file}: {', '.join(sorted(unlisted))} is in the folder and in no line", hint="name or drop it"
        )
    overlay = _overlay(patches / "common" / "overlay", folder / "overlay")
    replaces = frozenset(text for _, text in _lines(folder / "replaces"))
    return Series(name, listed, overlay, replaces, _series_hash(folder, listed, overlay))


def _patch(file: Path, number: int, text: str) -> Patch:
    line = _SERIES_LINE.fullmatch(text)
    if line is None:
        raise PatchError(f"{file}:{number}: {text!r} is not 'NAME.patch' or 'NAME.patch offset<=N'")
    path = file.parent / line["name"]
    common = file.parent.parent / "common" / line["name"]
    if not path.is_file() and not common.is_file():
        raise PatchError(f"{file}:{number}: there is no {path}")
    return Patch(path if path.is_file() else common, int(line["offset"] or 0))


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    """The lines of a list of names with their numbers, without comments; none if there is no file."""
    if file.is_file():
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            text = line.partition("#")[0].strip()
            if text:
                yield number, text


def _overlay(*folders: Path) -> dict[str, Path]:
    overlay: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder)
            if not path.is_file() or "__pycache__" in name.parts or path.suffix == ".pyc":
                continue
            if name.as_posix() in overlay:
                raise PatchError(f"{name.as_posix()} is in two overlays: {overlay[name.as_posix()]} and {path}")
            overlay[name.as_posix()] = path
    return overlay


def _series_hash(folder: Path, listed: tuple[Patch, ...], overlay: dict[str, Path]) -> str:
    """SHA-256 over what decides the patched tree: order and offsets, patches, overlays; not comments, nor places."""
    content = {
        "patches": [(patch.path.name, patch.max_offset, file_sha256(patch.path)) for patch in listed],
        "overlay": {name: file_sha256(path) for name, path in overlay.items()},
        "replaces": sorted(text for _, text in _lines(folder / "replaces")),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _apply(patch: Patch, tree: Path) -> None:
    """Apply one patch to files of ``tree``; every file is read as bytes that need not be UTF-8."""
    name = patch.path.parent.name + "/" + patch.path.name
    for file in unified_diff.parse(_read(patch.path), name):
        target = tree / file.path
        if target.is_symlink() or not target.is_file():
            raise PatchError(
                f"{name} does not apply: {file.path} is not in the release\nthe hunk:\n{file.hunks[0].text}",
                hint="give the release a series of its own",
            )
        patched = unified_diff.apply(file, _read(target), max_offset=patch.max_offset, name=name)
        target.write_bytes(patched.encode("utf-8", "surrogateescape"))


def _read(path: Path) -> str:
    return path.read_bytes().decode("utf-8", "surrogateescape")


def _lay_over(series: Series, tree: Path) -> None:
    for name, path in series.overlay.items():
        target = tree / name
        if target.exists() and name not in series.replaces:
            raise PatchError(
                f"the overlay's {name} would hide upstream's own file",
                hint=f"name it in patches/{series.name}/replaces if that is meant, else rename it",
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        shutil.copyfile(path, target)


def _settle(tree: Path) -> None:
    """Give every file and folder its mode (only the executable bit is kept) and the one time."""
    for path in sorted(tree.rglob("*"), reverse=True):
        if path.is_symlink():
            continue
        path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        os.utime(path, (_MTIME, _MTIME))
    os.utime(tree, (_MTIME, _MTIME))


@contextmanager
def _replacing(destination: Path) -> Iterator[Path]:
    """A folder beside ``destination`` that takes its place when the block ends well."""
    if destination.exists() and not (destination / ORIGIN).is_file() and any(destination.iterdir()):
        raise PatchError(f"{destination} holds something that is no patched tree", hint="name an empty or new folder")
    destination.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{destination.name}.", dir=destination.parent) as temporary:
        making = Path(temporary) / "new"
        making.mkdir()
        making.chmod(0o755)
        yield making
        if destination.exists():
            destination.rename(Path(temporary) / "old")
        making.rename(destination)


def check(releases: tuple[Release, ...]) -> int:
    """Try the series of every release that can be had and print a table; the release's sources are left in the cache.

    Raises:
        PatchError: a series does not apply.
        UntestedError: all that could be tried apply, but a release could not be had.
    """
    rows = [(release.version, release.series, *_try(release)) for release in releases]
    table("patches", ("release", "series", "result", "what"), rows)
    failed = [version for version, _, result, _ in rows if result == "failed"]
    untested = [version for version, _, result, _ in rows if result == "untested"]
    if failed:
        raise PatchError(f"the series does not apply to {', '.join(failed)}", hint=f"nox -s patch -- {failed[0]}")
    if untested:
        raise UntestedError(
            f"{len(untested)} of {len(rows)} releases could not be had: {', '.join(untested)}",
            hint=f"nox -s fetch -- {untested[0]} --source CHECKOUT",
        )
    return 0


def _try(release: Release) -> tuple[str, str]:
    missing = upstream.availability(release)
    if missing is not None:
        return "untested", missing
    try:
        with tempfile.TemporaryDirectory(prefix="nvdiffrast-patching-") as temporary:
            tree = prepare(release, upstream.fetch(release), Path(temporary) / "tree")
    except PipelineError as error:
        return "failed", str(error).splitlines()[0]
    return "passed", f"series sha256 {tree.series_hash[:16]}"


def main() -> int:
    """Leave the patched tree of a release for a person to look at, or try every series."""
    parser = argparse.ArgumentParser(prog="nox -s patch --", description=main.__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("release", nargs="?", help="its version, e.g. 0.3.3.1")
    what.add_argument("--check", action="store_true", help="try every release that can be had here")
    parser.add_argument("--output", type=Path, help="default: build/patched/RELEASE")
    parser.add_argument("--source", type=Path, help="a checkout, a mirror or a wheel file, verified all the same")
    arguments = parser.parse_args()
    known = matrix.load()
    if arguments.check:
        return check(known.releases)
    release = known.release(arguments.release)
    output = arguments.output or ROOT / "build" / "patched" / release.version
    print(prepare(release, upstream.fetch(release, source=arguments.source), output).path)
    return 0


if __name__ == "__main__":
    run_main(main, uses_cache=True)
