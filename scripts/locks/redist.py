"""NVIDIA's component archives: a pinned manifest becomes a lock of ours, the lock becomes a toolkit."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, TypeVar

import pydantic
from pydantic.dataclasses import dataclass

from scripts.errors import PipelineError, ToolchainError
from scripts.model import ROOT
from scripts.support import archives
from scripts.support.download import fetch
from scripts.support.files import cache_root, write_atomic
from scripts.support.host import redist_platform

MANIFESTS = ROOT / "requirements" / "toolkits" / "manifests.json"
MIRROR_VARIABLE = "NVDIFFRAST_WHEELS_REDIST"
PAUSE_SECONDS = 1.0
PLATFORMS = ("linux-x86_64", "windows-x86_64")

Sha256 = Annotated[str, pydantic.Field(pattern=r"^[0-9a-f]{64}$")]
_T = TypeVar("_T")
_STRICT = pydantic.ConfigDict(extra="forbid")


def _below(path: str) -> str:
    """A manifest's path is joined to a URL: it must not lead to another place or server."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or any(mark in path for mark in "\\:?#"):
        raise ValueError(f"{path!r} leads out of the archive folder")
    return path


@dataclass(frozen=True, config=_STRICT)
class Manifests:
    """The manifests we know, by CUDA version, and which of their components make a toolkit for nvdiffrast.

    ``components_since`` adds some from a CUDA major on. Of ``headers`` only the include folder is kept, for the
    platforms whose torch wheels bring the libraries but not the headers that torch's own headers include.
    """

    base: str
    manifests: Mapping[str, Sha256]
    components: tuple[str, ...]
    components_since: Mapping[str, tuple[str, ...]]
    headers: Mapping[str, tuple[str, ...]]

    def versions(self) -> tuple[str, ...]:
        """The CUDA versions with a pinned manifest, such as "12.4.1"."""
        return tuple(self.manifests)

    def wanted(self, cuda: str) -> dict[str, tuple[str, ...]]:
        """Component -> platforms it is kept for, whole."""
        major = int(cuda.partition(".")[0])
        added = [name for since, names in self.components_since.items() if major >= int(since) for name in names]
        return dict.fromkeys((*self.components, *added), PLATFORMS)

    def wanted_headers(self) -> dict[str, tuple[str, ...]]:
        """Component -> platforms its headers are kept for."""
        names = {name for held in self.headers.values() for name in held}
        return {
            name: tuple(platform for platform in PLATFORMS if name in self.headers.get(platform, ()))
            for name in sorted(names)
        }


@dataclass(frozen=True, config=_STRICT)
class Archive:
    """One archive of a component for one platform; ``size`` in bytes."""

    relative_path: Annotated[str, pydantic.AfterValidator(_below)]
    sha256: Sha256
    size: pydantic.PositiveInt


@dataclass(frozen=True, config=_STRICT)
class Component:
    """One part of a toolkit; ``keep`` says whether all of it is used or its headers alone."""

    version: str
    license: str
    keep: Literal["all", "headers"]
    archives: Mapping[str, Archive]


@dataclass(frozen=True, config=_STRICT)
class ManifestPin:
    """The manifest that a lock was made from."""

    url: str
    sha256: Sha256


@dataclass(frozen=True, config=_STRICT)
class RedistLock:
    """requirements/toolkits/cuXXX-redist.json; ``cuda`` has three parts."""

    cuda: str
    manifest: ManifestPin
    components: Mapping[str, Component]

    def for_platform(self, platform: str) -> dict[str, Component]:
        """The components that ``platform`` has an archive of."""
        return {name: held for name, held in self.components.items() if platform in held.archives}


def pinned_manifests(path: Path | None = None) -> Manifests:
    """The data file of pinned manifests, by default ours."""
    path = path or MANIFESTS
    return _validated(Manifests, path.read_bytes(), str(path))


def read_lock(path: Path) -> RedistLock:
    """A lock file of ours, checked field by field.

    Raises:
        FileNotFoundError: not locked.
        ToolchainError: not a lock file, or made from a manifest that is not the pinned one.
    """
    lock = _validated(RedistLock, path.read_bytes(), str(path))
    pinned = pinned_manifests().manifests.get(lock.cuda)
    if pinned != lock.manifest.sha256:
        raise ToolchainError(
            f"{path} was made from manifest {lock.manifest.sha256}, but {pinned} is pinned for {lock.cuda}",
            hint=f"run `nox -s lock -- {path.stem}`",
        )
    return lock


def _validated(kind: type[_T], content: bytes, place: str) -> _T:
    try:
        return pydantic.TypeAdapter(kind).validate_json(content)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole file"
        raise ToolchainError(f"{place}: {where}: {first['msg']}", hint="run `nox -s lock` for it again") from error


def make_lock(cuda: str, output: Path) -> None:
    """Fetch the manifest of ``cuda`` ("12.4.1"), verify its pinned sha256, and write the lock of what we need of it.

    Raises:
        ToolchainError: no such manifest is pinned, it cannot be had, or it lacks a component.
    """
    pinned = pinned_manifests()
    if cuda not in pinned.manifests:
        raise ToolchainError(f"no manifest of CUDA {cuda} is pinned", hint=f"add its sha256 to {MANIFESTS.name}")
    url = f"{_base(pinned.base)}redistrib_{cuda}.json"
    sha256 = pinned.manifests[cuda]
    manifest = json.loads(fetch(url, sha256=sha256, size=None, folder=_downloads(), pause=PAUSE_SECONDS).read_bytes())
    components = {
        name: _component(manifest, name, platforms, keep)
        for wanted, keep in ((pinned.wanted(cuda), "all"), (pinned.wanted_headers(), "headers"))
        for name, platforms in wanted.items()
    }
    held = {
        "cuda": cuda,
        "manifest": {"url": f"{pinned.base}redistrib_{cuda}.json", "sha256": sha256},
        "components": components,
    }
    lock = _validated(RedistLock, json.dumps(held).encode(), url)
    write_atomic(output, json.dumps(asdict(lock), indent=2) + "\n")


def _component(manifest: Mapping[str, Any], name: str, platforms: tuple[str, ...], keep: str) -> dict[str, Any]:
    """What the lock says of one component; the manifest's sizes are strings."""
    try:
        held = manifest[name]
        archives_of = {
            platform: {key: held[platform][key] for key in ("relative_path", "sha256", "size")}
            for platform in platforms
        }
        return {"version": held["version"], "license": held["license"], "keep": keep, "archives": archives_of}
    except KeyError as error:
        raise ToolchainError(
            f"the manifest of CUDA {manifest.get('release_label', '')} has no {error} for {name}",
            hint=f"correct the components in {MANIFESTS.name}",
        ) from error


def install(lock: RedistLock, destination: Path, *, platform: str | None = None) -> None:
    """Fetch, verify and unpack the components of ``lock`` into ``destination``, a folder that is ours and empty.

    Everything is fetched and verified before the first archive is opened. Each component's licence becomes
    ``licenses/NAME.txt``.

    Raises:
        ToolchainError: something cannot be had, or is not what the lock says, or does not fit together.
    """
    platform = platform or redist_platform()
    base = _base(lock.manifest.url.rpartition("/")[0] + "/")
    wanted = lock.for_platform(platform)
    fetched = {
        name: fetch(
            base + held.archives[platform].relative_path,
            sha256=held.archives[platform].sha256,
            size=held.archives[platform].size,
            folder=_downloads(),
            pause=PAUSE_SECONDS,
        )
        for name, held in wanted.items()
    }
    for name, archive in fetched.items():
        _add(name, archive, destination, headers_alone=wanted[name].keep == "headers")
    _refuse_links_outside(destination)


def _add(name: str, archive: Path, destination: Path, *, headers_alone: bool) -> None:
    """Unpack one component and move what is kept of it into the toolkit."""
    with tempfile.TemporaryDirectory(dir=destination.parent, prefix=".unpack-") as unpacked:
        try:
            (archives.unpack_zip if archive.suffix == ".zip" else archives.unpack_tar)(archive, Path(unpacked))
        except PipelineError as error:
            raise ToolchainError(f"component {name}: {error}", hint=error.hint) from error
        tops = list(Path(unpacked).iterdir())
        if len(tops) != 1 or tops[0].is_symlink() or not tops[0].is_dir():
            raise ToolchainError(f"component {name}: {archive.name} does not hold one folder", hint="report it")
        _merge(name, tops[0], destination, headers_alone=headers_alone)


def _merge(name: str, top: Path, destination: Path, *, headers_alone: bool) -> None:
    """Move the files below ``top`` to the same place below ``destination``; two components never hold the same file."""
    for source in sorted(top.rglob("*")):
        inside = source.relative_to(top)
        if source.is_dir() and not source.is_symlink():
            continue
        if inside == Path("LICENSE") or inside == Path("LICENSE.txt"):
            inside = Path("licenses", f"{name}.txt")
        elif headers_alone and inside.parts[0] != "include":
            continue
        target = destination / inside
        if os.path.lexists(target):
            raise ToolchainError(f"component {name}: another one holds {inside} too", hint="report it")
        target.parent.mkdir(parents=True, exist_ok=True)
        source.rename(target)


def _refuse_links_outside(folder: Path) -> None:
    """An archive's own top folder is dropped, so a link that stayed inside it may now leave the toolkit."""
    real = folder.resolve()
    for path in folder.rglob("*"):
        if path.is_symlink() and not path.resolve().is_relative_to(real):
            raise ToolchainError(
                f"{path.relative_to(folder)} is a link to {path.readlink()}, outside of the toolkit",
                hint="do not use these archives; report it",
            )


def _base(url: str) -> str:
    """Where the archives lie: ``url``, or the mirror that NVDIFFRAST_WHEELS_REDIST names; contents are pinned."""
    return (os.environ.get(MIRROR_VARIABLE) or url).rstrip("/") + "/"


def _downloads() -> Path:
    return cache_root() / "downloads"
