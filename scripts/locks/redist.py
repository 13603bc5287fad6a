"""NVIDIA's component archives: create a lock from a pinned manifest, and install a toolkit from the lock."""

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
    """Return ``path`` if it is a plain relative path, since it is joined to a URL; otherwise raise ValueError."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or any(mark in path for mark in "\\:?#"):
        raise ValueError(f"{path!r} leads out of the archive folder")
    return path


@dataclass(frozen=True, config=_STRICT)
class Manifests:
    """The sha256 of the pinned manifests by CUDA version, and the components that nvdiffrast needs.

    ``components_since`` adds components since a CUDA major version. ``headers`` names components by platform of which
    only the include folder is kept: torch's headers include them, but its wheels contain only the libraries.
    """

    base: str
    manifests: Mapping[str, Sha256]
    components: tuple[str, ...]
    components_since: Mapping[str, tuple[str, ...]]
    headers: Mapping[str, tuple[str, ...]]

    def versions(self) -> tuple[str, ...]:
        """Return the CUDA versions with a pinned manifest, such as "12.4.1"."""
        return tuple(self.manifests)

    def wanted(self, cuda: str) -> dict[str, tuple[str, ...]]:
        """Return component -> platforms, for components that are kept completely."""
        major = int(cuda.partition(".")[0])
        added = [name for since, names in self.components_since.items() if major >= int(since) for name in names]
        return dict.fromkeys((*self.components, *added), PLATFORMS)

    def wanted_headers(self) -> dict[str, tuple[str, ...]]:
        """Return component -> platforms, for components of which only the headers are kept."""
        names = {name for components in self.headers.values() for name in components}
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
    """One component of a toolkit; ``keep`` is "all", or "headers" if only its headers are used."""

    version: str
    license: str
    keep: Literal["all", "headers"]
    archives: Mapping[str, Archive]


@dataclass(frozen=True, config=_STRICT)
class ManifestPin:
    """The manifest that a lock was created from."""

    url: str
    sha256: Sha256


@dataclass(frozen=True, config=_STRICT)
class RedistLock:
    """The content of requirements/toolkits/cuXXX-redist.json; ``cuda`` has three numbers ("12.4.1")."""

    cuda: str
    manifest: ManifestPin
    components: Mapping[str, Component]

    def for_platform(self, platform: str) -> dict[str, Component]:
        """Return the components that have an archive for ``platform``."""
        return {name: component for name, component in self.components.items() if platform in component.archives}


def pinned_manifests(path: Path | None = None) -> Manifests:
    """Read the file of pinned manifests, by default manifests.json."""
    path = path or MANIFESTS
    return _validated(Manifests, path.read_bytes(), str(path))


def read_lock(path: Path) -> RedistLock:
    """Read and validate a lock file.

    Raises:
        FileNotFoundError: if the lock does not exist.
        ToolchainError: if the file is not a valid lock, or was created from a manifest that is not pinned.
    """
    lock = _validated(RedistLock, path.read_bytes(), str(path))
    pinned = pinned_manifests().manifests.get(lock.cuda)
    if pinned != lock.manifest.sha256:
        raise ToolchainError(
            f"{path} was created from manifest {lock.manifest.sha256}, but {pinned} is pinned for {lock.cuda}",
            hint=f"run `nox -s lock -- {path.stem}`",
        )
    return lock


def _validated(kind: type[_T], content: bytes, place: str) -> _T:
    try:
        return pydantic.TypeAdapter(kind).validate_json(content)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole file"
        raise ToolchainError(f"{place}: {where}: {first['msg']}", hint="create it again: nox -s lock") from error


def make_lock(cuda: str, output: Path) -> None:
    """Fetch the manifest of ``cuda`` ("12.4.1"), verify its pinned sha256, and write the lock of the needed components.

    Raises:
        ToolchainError: if no manifest of this CUDA is pinned, it cannot be fetched, or it lacks a component.
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
    content = {
        "cuda": cuda,
        "manifest": {"url": f"{pinned.base}redistrib_{cuda}.json", "sha256": sha256},
        "components": components,
    }
    lock = _validated(RedistLock, json.dumps(content).encode(), url)
    write_atomic(output, json.dumps(asdict(lock), indent=2) + "\n")


def _component(manifest: Mapping[str, Any], name: str, platforms: tuple[str, ...], keep: str) -> dict[str, Any]:
    """Return the lock's entry of one component; sizes in the manifest are strings."""
    try:
        entry = manifest[name]
        archives_of = {
            platform: {key: entry[platform][key] for key in ("relative_path", "sha256", "size")}
            for platform in platforms
        }
        return {"version": entry["version"], "license": entry["license"], "keep": keep, "archives": archives_of}
    except KeyError as error:
        raise ToolchainError(
            f"the manifest of CUDA {manifest.get('release_label', '')} has no {error} for {name}",
            hint=f"correct the components in {MANIFESTS.name}",
        ) from error


def install(lock: RedistLock, destination: Path, *, platform: str | None = None) -> None:
    """Fetch, verify and unpack the components of ``lock`` into the empty folder ``destination``.

    All archives are fetched and verified before the first one is opened. The licence of a component becomes
    ``licenses/NAME.txt``.

    Raises:
        ToolchainError: if an archive cannot be fetched or differs from the lock, or two components conflict.
    """
    platform = platform or redist_platform()
    base = _base(lock.manifest.url.rpartition("/")[0] + "/")
    wanted = lock.for_platform(platform)
    fetched = {
        name: fetch(
            base + component.archives[platform].relative_path,
            sha256=component.archives[platform].sha256,
            size=component.archives[platform].size,
            folder=_downloads(),
            pause=PAUSE_SECONDS,
        )
        for name, component in wanted.items()
    }
    for name, archive in fetched.items():
        _add(name, archive, destination, headers_alone=wanted[name].keep == "headers")
    _refuse_links_outside(destination)


def _add(name: str, archive: Path, destination: Path, *, headers_alone: bool) -> None:
    """Unpack one component and move the files that are kept into the toolkit."""
    with tempfile.TemporaryDirectory(dir=destination.parent, prefix=".unpack-") as unpacked:
        try:
            (archives.unpack_zip if archive.suffix == ".zip" else archives.unpack_tar)(archive, Path(unpacked))
        except PipelineError as error:
            raise ToolchainError(f"component {name}: {error}", hint=error.hint) from error
        tops = list(Path(unpacked).iterdir())
        if len(tops) != 1 or tops[0].is_symlink() or not tops[0].is_dir():
            raise ToolchainError(f"component {name}: {archive.name} must contain exactly one folder", hint="report it")
        _merge(name, tops[0], destination, headers_alone=headers_alone)


def _merge(name: str, top: Path, destination: Path, *, headers_alone: bool) -> None:
    """Move the files below ``top`` to ``destination``; refuse a file that another component contains too."""
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
            raise ToolchainError(f"component {name}: another component contains {inside} too", hint="report it")
        target.parent.mkdir(parents=True, exist_ok=True)
        source.rename(target)


def _refuse_links_outside(folder: Path) -> None:
    """Refuse links that leave the toolkit, which is possible because the archives' top folders are removed."""
    real = folder.resolve()
    for path in folder.rglob("*"):
        if path.is_symlink() and not path.resolve().is_relative_to(real):
            raise ToolchainError(
                f"{path.relative_to(folder)} is a link to {path.readlink()}, outside of the toolkit",
                hint="do not use these archives; report it",
            )


def _base(url: str) -> str:
    """Return the URL of the archives: that of the mirror in NVDIFFRAST_WHEELS_REDIST if it is set, else ``url``."""
    return (os.environ.get(MIRROR_VARIABLE) or url).rstrip("/") + "/"


def _downloads() -> Path:
    return cache_root() / "downloads"
