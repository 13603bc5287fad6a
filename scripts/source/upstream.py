"""Upstream's releases, fetched by their pins: what comes back is what the pin says, or it does not come back.

A release lies in the cache as ``upstream/<version>-<content>/`` with the pristine ``tree/`` and ``origin.json``, which
holds the pin and a digest of the tree. The tree is for reading only; an edited one is noticed and fetched anew.
"""

from __future__ import annotations

import argparse
import dataclasses
import email
import functools
import hashlib
import importlib.util
import json
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path

from scripts.console import log
from scripts.errors import CommandError, PipelineError, SourceError
from scripts.matrix import matrix
from scripts.model import GitPin, RegistryPin, Release
from scripts.support.archives import ArchiveError, unpack_tar, unpack_zip
from scripts.support.command_line import run_main
from scripts.support.files import cache_root, complete_folder, file_sha256
from scripts.support.process import call, which

__all__ = ["availability", "cache_root", "fetch"]

_QUICK_SECONDS = 15.0
# Nothing asks for a password, no hook and no exotic transport of the fetched repository gets a say; the user's own
# configuration (insteadOf, proxies, certificates) stays in force.
_GIT = ["git", "-c", "core.hooksPath=/dev/null", "-c", "protocol.ext.allow=never", "-c", "fetch.recurseSubmodules=no"]
_GIT_ENV = {"GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "", "SSH_ASKPASS": "", "GIT_LFS_SKIP_SMUDGE": "1"}
# Attributes in the tree could make `git archive` leave files out or rewrite them: the repository's own win over those.
_PLAIN_ATTRIBUTES = "* -text !eol -ident -filter -working-tree-encoding -export-ignore -export-subst\n"

# Name to (mode, blob) or to a folder again.
_Folder = dict[str, "tuple[str, str] | _Folder"]


def fetch(release: Release, *, source: Path | None = None, cache: Path | None = None) -> Path:
    """The folder of ``release``'s pristine, verified tree.

    Taken from the cache (``cache``, by default the user's), else from where the pin says, else from ``source``: a
    checkout or a bare mirror for a git pin, a wheel file or a folder that holds it for a registry pin. ``source`` gets
    no more trust than the network does.

    Raises:
        SourceError: it cannot be had, or it is not what the pin says; the cache is left as it was.
    """
    home = _home(release, cache or cache_root())
    if source is None and (tree := _cached_tree(home, release)):
        return tree
    log(f"fetching nvdiffrast {release.version} from {source or _place(release)}")
    with complete_folder(home) as making, tempfile.TemporaryDirectory(prefix="nvdiffrast-source-") as temporary:
        made = making / "tree"
        pin = release.source
        if isinstance(pin, RegistryPin):
            _unpack_wheel(_wheel(release, pin, source, Path(temporary)), made)
        else:
            unpack_tar(_git_archive(release, pin, source, Path(temporary)), made)
        origin = {"pin": dataclasses.asdict(pin), "tree_sha256": _tree_digest(made)}
        (making / "origin.json").write_text(json.dumps(origin, indent=1) + "\n", encoding="utf-8")
        if _cached_tree(home, release) is None:
            shutil.rmtree(home, ignore_errors=True)
    return home / "tree"


@functools.cache
def availability(release: Release) -> str | None:
    """None where ``release`` is cached or its place answers quickly; else what is missing.

    A registry's file is small: it is fetched into the cache, which proves more than an answer would. Asked once a
    process.
    """
    if _cached_tree(_home(release, cache_root()), release):
        return None
    pin = release.source
    if isinstance(pin, RegistryPin):
        return _registry_answers(release)
    return _git_answers(pin.url)


@functools.cache
def _git_answers(url: str) -> str | None:
    if which("git") is None:
        return "git is not installed"
    command = [*_GIT, "ls-remote", "--quiet", "--exit-code", "--", url, "HEAD"]
    try:
        call(command, env=_GIT_ENV, echo=False, quiet=True, timeout=_QUICK_SECONDS)
    except CommandError as error:
        return f"{url} does not answer: {_last_line(error)}"
    return None


def _registry_answers(release: Release) -> str | None:
    try:
        fetch(release)
    except SourceError as error:
        return str(error)
    return None


# --- the cache


def _home(release: Release, cache: Path) -> Path:
    pin = release.source
    content = pin.sha256[:24] if isinstance(pin, RegistryPin) else f"{pin.commit[:12]}-{pin.tree[:12]}"
    return cache / "upstream" / f"{release.version}-{content}"


def _cached_tree(home: Path, release: Release) -> Path | None:
    """The cached tree, if it is there and still what was put there."""
    try:
        origin = json.loads((home / "origin.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        origin = {}
    tree = home / "tree"
    if origin.get("pin") == dataclasses.asdict(release.source) and origin.get("tree_sha256") == _tree_digest(tree):
        return tree
    log(f"{home} was changed since it was fetched; {release.version} is fetched anew")
    return None


def _tree_digest(tree: Path) -> str:
    """A digest of the names and contents below ``tree``; modes are not the same on every system and stay out."""
    digest = hashlib.sha256()
    for path in sorted(tree.rglob("*")):
        name = path.relative_to(tree).as_posix()
        if path.is_symlink():
            digest.update(f"{name}\0link {path.readlink().as_posix()}\0".encode())
        elif path.is_file():
            digest.update(f"{name}\0{file_sha256(path)}\0".encode())
    return digest.hexdigest()


# --- a package registry


def _wheel(release: Release, pin: RegistryPin, source: Path | None, temporary: Path) -> Path:
    """The pinned file, its hash verified: the one at ``source``, or downloaded into ``temporary``."""
    if source is None:
        wheel = _download(release, pin, temporary)
    else:
        wheel = source / pin.filename if source.is_dir() else source
    if not wheel.is_file():
        raise SourceError(
            f"{release.version}: there is no {pin.filename} at {source or temporary}",
            hint=f"name the file or its folder: {_command(release)} --source PATH",
        )
    found = file_sha256(wheel)
    if found != pin.sha256:
        raise SourceError(
            f"{release.version}: {wheel.name} is not the pinned file: sha256 {found}, pinned {pin.sha256}",
            hint="do not use it; find out who changed it before the pin in build_matrix.yaml is touched",
        )
    return wheel


def _download(release: Release, pin: RegistryPin, folder: Path) -> Path:
    """Fetch the one file with pip, which knows the user's index, proxy and certificates."""
    locked = folder / "requirement.txt"
    locked.write_text(f"{pin.package}=={pin.version} --hash=sha256:{pin.sha256}\n", encoding="utf-8")
    options = ["--no-deps", "--only-binary=:all:", "--require-hashes", "--no-input", "--disable-pip-version-check"]
    options += ["--timeout", "10", "--retries", "1"]
    try:
        call([*_pip(), "download", *options, "-r", locked, "-d", folder], echo=False, quiet=True)
    except CommandError as error:
        raise _unavailable(release, f"the package index does not give {pin.filename}: {_last_line(error)}") from error
    return folder / pin.filename


def _pip() -> list[str]:
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    pip = which("pip") or which("pip3")
    if pip is None:
        raise SourceError(
            f"there is no pip for {sys.executable}, nor on PATH", hint=f"{sys.executable} -m ensurepip, or install pip"
        )
    return [str(pip)]


def _unpack_wheel(wheel: Path, tree: Path) -> None:
    """Lay a wheel's content out as the repository has it: the package, LICENSE.txt and README.md at the top."""
    try:
        unpack_zip(wheel, tree)
    except ArchiveError as error:
        raise SourceError(str(error), hint=error.hint) from error
    for dist_info in tree.glob("*.dist-info"):
        for licence in dist_info.rglob("LICENSE.txt"):
            licence.rename(tree / "LICENSE.txt")
        metadata = email.message_from_bytes((dist_info / "METADATA").read_bytes())
        readme = metadata.get_payload(decode=True)
        assert isinstance(readme, bytes)
        (tree / "README.md").write_bytes(readme)
        shutil.rmtree(dist_info)


# --- git


def _git_archive(release: Release, pin: GitPin, source: Path | None, temporary: Path) -> Path:
    """A tar file of exactly the pinned tree, fetched into a repository that lives no longer than ``temporary``."""
    if which("git") is None:
        raise _unavailable(release, "git is not installed")
    repository = temporary / "git"
    # Since git 2.46 even `init` runs the hook "reference-transaction".
    _git_quiet([*_GIT, "init", "--quiet", "--bare", "--template=", str(repository)])
    git = [*_GIT, f"--git-dir={repository}"]
    (repository / "info").mkdir(exist_ok=True)
    (repository / "info" / "attributes").write_text(_PLAIN_ATTRIBUTES, encoding="utf-8")
    _git_fetch(git, release, pin, source)
    found = _git_quiet([*git, "rev-parse", f"{pin.commit}^{{tree}}"]).strip()
    _compare_tree(release, pin, found)
    archive = temporary / "tree.tar"
    _git_quiet([*git, "-c", "tar.umask=0022", "archive", "--format=tar", f"--output={archive}", pin.commit])
    _compare_tree(release, pin, tar_tree(archive))
    return archive


def _git_fetch(git: list[str], release: Release, pin: GitPin, source: Path | None) -> None:
    """Fetch the pinned commit from the pin's url or from ``source``; git itself recomputes every object's name."""
    if source is not None and not source.exists():
        raise SourceError(f"{release.version}: {source} does not exist", hint=f"{_command(release)} --source CHECKOUT")
    remote = pin.url if source is None else source.resolve().as_posix()
    fetch_from = [*git, "fetch", "--quiet", "--no-tags", "--no-write-fetch-head"]
    try:
        _git_quiet([*fetch_from, "--depth=1", "--", remote, pin.commit])
        return
    except CommandError as error:
        refused = error
    # An old server gives no bare commit, and says so in its own words: ask for what its tags and branches reach.
    try:
        _git_quiet([*fetch_from, "--", remote, "+refs/tags/*:refs/tags/*", "+refs/heads/*:refs/heads/*"])
    except CommandError as error:
        raise _unavailable(release, f"{remote} cannot be fetched: {_last_line(refused)}") from error
    try:
        _git_quiet([*git, "cat-file", "-e", f"{pin.commit}^{{commit}}"])
    except CommandError as error:
        raise SourceError(
            f"{release.version}: {remote} has no commit {pin.commit} (tag {pin.tag})",
            hint=f"fetch that commit into it, or take another: {_command(release)} --source PATH",
        ) from error


def _git_quiet(command: list[str]) -> str:
    return call(command, env=_GIT_ENV, echo=False, quiet=True)


def _compare_tree(release: Release, pin: GitPin, found: str) -> None:
    if found != pin.tree:
        raise SourceError(
            f"{release.version}: commit {pin.commit} holds tree {found}, pinned {pin.tree}",
            hint="do not use it; find out which of the two is wrong before the pin in build_matrix.yaml is touched",
        )


def tar_tree(archive: Path) -> str:
    """The name that git gives to the tree in a tar file (its SHA-1, as git defines it)."""
    top: _Folder = {}
    with tarfile.open(archive) as tar:
        for member in tar.getmembers():
            *parents, name = member.name.split("/")
            folder = functools.reduce(_subfolder, parents, top)
            if member.isdir():
                _subfolder(folder, name)
            elif member.issym():
                folder[name] = ("120000", _git_name("blob", member.linkname.encode()))
            else:
                stream = tar.extractfile(member)
                assert stream is not None
                folder[name] = ("100755" if member.mode & 0o100 else "100644", _git_name("blob", stream.read()))
    return _tree_name(top)


def _subfolder(folder: _Folder, name: str) -> _Folder:
    entry = folder.setdefault(name, {})
    assert isinstance(entry, dict)
    return entry


def _tree_name(folder: _Folder) -> str:
    """Folders sort as if their names ended in a slash; that is git's order."""
    entries: list[tuple[bytes, bytes]] = []
    for name, entry in folder.items():
        mode, sha1 = ("40000", _tree_name(entry)) if isinstance(entry, dict) else entry
        key = f"{name}/" if isinstance(entry, dict) else name
        entries.append((key.encode(), f"{mode} {name}\0".encode() + bytes.fromhex(sha1)))
    return _git_name("tree", b"".join(content for _, content in sorted(entries)))


def _git_name(kind: str, content: bytes) -> str:
    return hashlib.sha1(f"{kind} {len(content)}\0".encode() + content, usedforsecurity=False).hexdigest()


# --- what to tell


def _unavailable(release: Release, why: str) -> SourceError:
    """Say what else can be had: the releases that lie in the cache or come from a registry."""
    had = [other.version for other in _others(release) if _within_reach(other, release)]
    offer = f"; can be had here: {', '.join(had)}" if had else ""
    hint = f"name a {_kind(release)}: {_command(release)} --source PATH"
    if had:
        hint = f"name a {_kind(release)} by --source PATH, or take another release: {_command_for(had[0])}"
    return SourceError(f"{release.version}: {why}{offer}", hint=hint)


def _others(release: Release) -> list[Release]:
    try:
        return [other for other in matrix.load().releases if other.version != release.version]
    except PipelineError:
        return []


def _within_reach(other: Release, than: Release) -> bool:
    """Cached, or of another kind of place than the one that just failed (asking that again would only take long)."""
    if _cached_tree(_home(other, cache_root()), other):
        return True
    return type(other.source) is not type(than.source) and availability(other) is None


def _place(release: Release) -> str:
    pin = release.source
    return f"a package index ({pin.package} {pin.version})" if isinstance(pin, RegistryPin) else pin.url


def _kind(release: Release) -> str:
    pin = release.source
    return f"folder with {pin.filename}" if isinstance(pin, RegistryPin) else f"checkout or mirror of {pin.url}"


def _command(release: Release) -> str:
    return _command_for(release.version)


def _command_for(version: str) -> str:
    return f"nox -s fetch -- {version}"


def _last_line(error: CommandError) -> str:
    """What a tool printed last that says something, else that it failed."""
    lines = [line.strip() for line in error.output.splitlines() if line.strip()]
    told = [line for line in lines if line.lower().startswith(("error", "fatal", "remote"))]
    return (told or lines or [str(error)])[-1]


def main() -> int:
    """Fetch one release and print its folder."""
    parser = argparse.ArgumentParser(prog="nox -s fetch --", description=main.__doc__)
    parser.add_argument("release", help="its version, e.g. 0.3.3.1")
    parser.add_argument("--source", type=Path, help="a checkout, a mirror or a wheel file, verified all the same")
    arguments = parser.parse_args()
    print(fetch(matrix.load().release(arguments.release), source=arguments.source))
    return 0


if __name__ == "__main__":
    run_main(main, uses_cache=True)
