"""Fetches pinned upstream releases and verifies that each is exactly what its pin states.

The cache holds a release as ``upstream/<version>-<content>/``: the pristine ``tree/``, and ``origin.json`` with the pin
and a digest of the tree. The tree is read-only by convention; a modified tree is detected and fetched again.
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

_AVAILABILITY_TIMEOUT_SECONDS = 15.0
# git asks for no password and runs no hook, submodule or external transport of the fetched repository. The user's own
# configuration (insteadOf, proxies, certificates) still applies.
_GIT = ["git", "-c", "core.hooksPath=/dev/null", "-c", "protocol.ext.allow=never", "-c", "fetch.recurseSubmodules=no"]
_GIT_ENV = {"GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "", "SSH_ASKPASS": "", "GIT_LFS_SKIP_SMUDGE": "1"}
# Attributes in the tree could make `git archive` omit or rewrite files. The attributes of the repository override them.
_PLAIN_ATTRIBUTES = "* -text !eol -ident -filter -working-tree-encoding -export-ignore -export-subst\n"

# Maps a name to (mode, SHA-1 of the blob) or to a subfolder.
_Folder = dict[str, "tuple[str, str] | _Folder"]


def fetch(release: Release, *, source: Path | None = None, cache: Path | None = None) -> Path:
    """Return the folder of the pristine, verified tree of ``release``.

    The tree comes from ``source`` if it is given: a checkout or a bare mirror for a git pin, a wheel file or its folder
    for a registry pin. Otherwise it comes from the cache (``cache``, by default the user's), or from the place that the
    pin names. ``source`` is verified like a download.

    Raises:
        SourceError: if the release is not available, or its content is not what the pin states; the cache is unchanged.
    """
    entry = _cache_entry(release, cache or cache_root())
    if source is None and (tree := _cached_tree(entry, release)):
        return tree
    log(f"fetching nvdiffrast {release.version} from {source or _describe_origin(release)}")
    with complete_folder(entry) as new_entry, tempfile.TemporaryDirectory(prefix="nvdiffrast-source-") as temporary:
        tree = new_entry / "tree"
        pin = release.source
        if isinstance(pin, RegistryPin):
            _unpack_wheel(_get_wheel(release, pin, source, Path(temporary)), tree)
        else:
            unpack_tar(_git_archive(release, pin, source, Path(temporary)), tree)
        origin = {"pin": dataclasses.asdict(pin), "tree_sha256": _tree_digest(tree)}
        (new_entry / "origin.json").write_text(json.dumps(origin, indent=1) + "\n", encoding="utf-8")
        if _cached_tree(entry, release) is None:
            shutil.rmtree(entry, ignore_errors=True)
    return entry / "tree"


@functools.cache
def availability(release: Release) -> str | None:
    """Return None if ``release`` is cached or its server answers in time, otherwise the reason why it is unavailable.

    The small file of a registry pin is fetched into the cache, which is a stronger test than a query. Each process
    checks a release once.
    """
    if _cached_tree(_cache_entry(release, cache_root()), release):
        return None
    pin = release.source
    if isinstance(pin, RegistryPin):
        return _check_registry(release)
    return _check_git_server(pin.url)


@functools.cache
def _check_git_server(url: str) -> str | None:
    if which("git") is None:
        return "git is not installed"
    command = [*_GIT, "ls-remote", "--quiet", "--exit-code", "--", url, "HEAD"]
    try:
        call(command, env=_GIT_ENV, echo=False, quiet=True, timeout=_AVAILABILITY_TIMEOUT_SECONDS)
    except CommandError as error:
        return f"{url} does not answer: {_error_line(error)}"
    return None


def _check_registry(release: Release) -> str | None:
    try:
        fetch(release)
    except SourceError as error:
        return str(error)
    return None


# --- the cache


def _cache_entry(release: Release, cache: Path) -> Path:
    """Return the folder of ``release`` in the cache, whether or not it exists."""
    pin = release.source
    content = pin.sha256[:24] if isinstance(pin, RegistryPin) else f"{pin.commit[:12]}-{pin.tree[:12]}"
    return cache / "upstream" / f"{release.version}-{content}"


def _cached_tree(entry: Path, release: Release) -> Path | None:
    """Return the cached tree, or None if it is missing or was modified."""
    try:
        origin = json.loads((entry / "origin.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        origin = {}
    tree = entry / "tree"
    if origin.get("pin") == dataclasses.asdict(release.source) and origin.get("tree_sha256") == _tree_digest(tree):
        return tree
    log(f"{entry} was modified after it was fetched; fetching {release.version} again")
    return None


def _tree_digest(tree: Path) -> str:
    """Return a digest of all names and contents in ``tree``; it omits the modes, which differ between systems."""
    digest = hashlib.sha256()
    for path in sorted(tree.rglob("*")):
        name = path.relative_to(tree).as_posix()
        if path.is_symlink():
            digest.update(f"{name}\0link {path.readlink().as_posix()}\0".encode())
        elif path.is_file():
            digest.update(f"{name}\0{file_sha256(path)}\0".encode())
    return digest.hexdigest()


# --- a package registry


def _get_wheel(release: Release, pin: RegistryPin, source: Path | None, temporary: Path) -> Path:
    """Return the pinned file from ``source``, or downloaded into ``temporary``, after verifying its hash."""
    if source is None:
        wheel = _download(release, pin, temporary)
    else:
        wheel = source / pin.filename if source.is_dir() else source
    if not wheel.is_file():
        raise SourceError(
            f"{release.version}: there is no {pin.filename} at {source or temporary}",
            hint=f"give the file or its folder: {_fetch_command(release.version)} --source PATH",
        )
    found = file_sha256(wheel)
    if found != pin.sha256:
        raise SourceError(
            f"{release.version}: {wheel.name} is not the pinned file: sha256 {found}, pinned {pin.sha256}",
            hint="do not use it; find out who changed it before you change the pin in build_matrix.yaml",
        )
    return wheel


def _download(release: Release, pin: RegistryPin, folder: Path) -> Path:
    """Download the pinned file with pip, which uses the user's index, proxy and certificates."""
    locked = folder / "requirement.txt"
    locked.write_text(f"{pin.package}=={pin.version} --hash=sha256:{pin.sha256}\n", encoding="utf-8")
    options = ["--no-deps", "--only-binary=:all:", "--require-hashes", "--no-input", "--disable-pip-version-check"]
    options += ["--timeout", "10", "--retries", "1"]
    try:
        call([*_pip(), "download", *options, "-r", locked, "-d", folder], echo=False, quiet=True)
    except CommandError as error:
        raise _unavailable(release, f"pip cannot download {pin.filename}: {_error_line(error)}") from error
    return folder / pin.filename


def _pip() -> list[str]:
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    pip = which("pip") or which("pip3")
    if pip is None:
        raise SourceError(
            f"pip is neither installed for {sys.executable} nor on PATH",
            hint=f"run `{sys.executable} -m ensurepip`, or install pip",
        )
    return [str(pip)]


def _unpack_wheel(wheel: Path, tree: Path) -> None:
    """Unpack a wheel into the layout of the repository, with LICENSE.txt and README.md at the top."""
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
    """Return a tar file of exactly the pinned tree; git fetches it into a repository below ``temporary``."""
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
    """Fetch the pinned commit from the URL of the pin or from ``source``; git verifies the SHA-1 of every object."""
    if source is not None and not source.exists():
        raise SourceError(
            f"{release.version}: {source} does not exist", hint=f"{_fetch_command(release.version)} --source CHECKOUT"
        )
    remote = pin.url if source is None else source.resolve().as_posix()
    fetch_from = [*git, "fetch", "--quiet", "--no-tags", "--no-write-fetch-head"]
    try:
        _git_quiet([*fetch_from, "--depth=1", "--", remote, pin.commit])
        return
    except CommandError as error:
        first_error = error
    # Old servers refuse to serve a single commit, each with its own message. Fetch all tags and branches instead.
    try:
        _git_quiet([*fetch_from, "--", remote, "+refs/tags/*:refs/tags/*", "+refs/heads/*:refs/heads/*"])
    except CommandError as error:
        raise _unavailable(release, f"cannot fetch {remote}: {_error_line(first_error)}") from error
    try:
        _git_quiet([*git, "cat-file", "-e", f"{pin.commit}^{{commit}}"])
    except CommandError as error:
        raise SourceError(
            f"{release.version}: {remote} has no commit {pin.commit} (tag {pin.tag})",
            hint=f"fetch that commit into it, or use another one: {_fetch_command(release.version)} --source PATH",
        ) from error


def _git_quiet(command: list[str]) -> str:
    return call(command, env=_GIT_ENV, echo=False, quiet=True)


def _compare_tree(release: Release, pin: GitPin, found: str) -> None:
    if found != pin.tree:
        raise SourceError(
            f"{release.version}: commit {pin.commit} has tree {found}, pinned {pin.tree}",
            hint="do not use it; find out which of the two is wrong before you change the pin in build_matrix.yaml",
        )


def tar_tree(archive: Path) -> str:
    """Return the SHA-1 that git computes for the tree in a tar file."""
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
    """Return the SHA-1 of a tree; git sorts folders as if their names ended in a slash."""
    entries: list[tuple[bytes, bytes]] = []
    for name, entry in folder.items():
        mode, sha1 = ("40000", _tree_name(entry)) if isinstance(entry, dict) else entry
        key = f"{name}/" if isinstance(entry, dict) else name
        entries.append((key.encode(), f"{mode} {name}\0".encode() + bytes.fromhex(sha1)))
    return _git_name("tree", b"".join(content for _, content in sorted(entries)))


def _git_name(kind: str, content: bytes) -> str:
    return hashlib.sha1(f"{kind} {len(content)}\0".encode() + content, usedforsecurity=False).hexdigest()


# --- messages


def _unavailable(release: Release, why: str) -> SourceError:
    """Return an error that also lists the releases that are available here."""
    available = [other.version for other in _other_releases(release) if _is_available(other, release)]
    alternatives = f"; available here: {', '.join(available)}" if available else ""
    hint = f"give a {_describe_source(release)}: {_fetch_command(release.version)} --source PATH"
    if available:
        command = _fetch_command(available[0])
        hint = f"give a {_describe_source(release)} with --source PATH, or use another release: {command}"
    return SourceError(f"{release.version}: {why}{alternatives}", hint=hint)


def _other_releases(release: Release) -> list[Release]:
    try:
        return [other for other in matrix.load().releases if other.version != release.version]
    except PipelineError:
        return []


def _is_available(other: Release, failed: Release) -> bool:
    """Return whether ``other`` is available.

    A release with the same kind of pin as the ``failed`` one counts as available only if it is cached: another query of
    the same kind would probably fail too, and would take long.
    """
    if _cached_tree(_cache_entry(other, cache_root()), other):
        return True
    return type(other.source) is not type(failed.source) and availability(other) is None


def _describe_origin(release: Release) -> str:
    pin = release.source
    return f"a package index ({pin.package} {pin.version})" if isinstance(pin, RegistryPin) else pin.url


def _describe_source(release: Release) -> str:
    pin = release.source
    return f"folder with {pin.filename}" if isinstance(pin, RegistryPin) else f"checkout or mirror of {pin.url}"


def _fetch_command(version: str) -> str:
    return f"nox -s fetch -- {version}"


def _error_line(error: CommandError) -> str:
    """Return the last error line that a tool printed, otherwise its last line, otherwise the message of ``error``."""
    lines = [line.strip() for line in error.output.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith(("error", "fatal", "remote"))]
    return (errors or lines or [str(error)])[-1]


def main() -> int:
    """Fetch a release and print its folder."""
    parser = argparse.ArgumentParser(prog="nox -s fetch --", description=main.__doc__)
    parser.add_argument("release", help="the version of the release, e.g. 0.3.3.1")
    parser.add_argument(
        "--source", type=Path, help="a checkout, a mirror or a wheel file; it is verified like a download"
    )
    arguments = parser.parse_args()
    print(fetch(matrix.load().release(arguments.release), source=arguments.source))
    return 0


if __name__ == "__main__":
    run_main(main, uses_cache=True)
