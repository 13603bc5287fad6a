"""Tests of scripts.source.upstream with repositories and wheels that have the layout of upstream's."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from scripts.errors import CommandError, SourceError
from scripts.matrix import matrix
from scripts.model import GitPin, RegistryPin, Release
from scripts.source import upstream
from scripts.support import archives

FILES = {
    "LICENSE.txt": "a licence\n",
    "setup.py": "from setuptools import setup\n",
    "nvdiffrast/__init__.py": "__version__ = '9.9'\n",
    "nvdiffrast/torch/ops.py": "import torch\n",
    "nvdiffrast/torch-extra.txt": "sorts between a folder's name and the name with its slash\n",
    "docker/run.sh": "#!/bin/sh\n",
}
UNREACHABLE_URL = "https://upstream.invalid/nvdiffrast"

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="needs git: apt install git")


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


class Upstream(NamedTuple):
    """A repository, and a release that is pinned to its only tagged commit."""

    repository: Path
    release: Release


@pytest.fixture(autouse=True)
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use an empty cache, no user configuration, no cached results and no real releases."""
    monkeypatch.setenv("NVDIFFRAST_WHEELS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "someone")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "someone@example.org")
    monkeypatch.setattr(upstream, "_other_releases", lambda release: [])
    upstream.availability.cache_clear()
    upstream._check_git_server.cache_clear()


def write(folder: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


@pytest.fixture
def example(tmp_path: Path) -> Upstream:
    repository = tmp_path / "repository"
    write(repository, FILES)
    (repository / "docker/run.sh").chmod(0o755)
    git(repository, "init", "--quiet", "--initial-branch=main")
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "-m", "release")
    git(repository, "tag", "v9.9")
    commit, tree = git(repository, "rev-parse", "HEAD"), git(repository, "rev-parse", "HEAD^{tree}")
    (repository / "later.txt").write_text("after the release\n")
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "-m", "later")
    return Upstream(repository, Release("9.9", "9", GitPin(repository.as_uri(), "v9.9", commit, tree)))


def contents(tree: Path) -> dict[str, str]:
    return {file.relative_to(tree).as_posix(): file.read_text() for file in tree.rglob("*") if file.is_file()}


def with_pin(release: Release, **changes: str) -> Release:
    pin = release.source
    assert isinstance(pin, GitPin)
    return Release(
        release.version,
        release.series,
        GitPin(**{"url": pin.url, "tag": pin.tag, "commit": pin.commit, "tree": pin.tree, **changes}),
    )


def cache_entries(tmp_path: Path) -> list[str]:
    folder = tmp_path / "cache" / "upstream"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


@needs_git
def test_fetches_exactly_the_files_and_modes_of_the_pinned_commit(example: Upstream) -> None:
    tree = upstream.fetch(example.release)
    assert contents(tree) == FILES
    assert os.access(tree / "docker/run.sh", os.X_OK)
    assert not os.access(tree / "setup.py", os.X_OK)


@needs_git
def test_uses_the_cached_tree_without_the_repository(example: Upstream) -> None:
    tree = upstream.fetch(example.release)
    shutil.rmtree(example.repository)
    assert upstream.fetch(example.release) == tree
    assert upstream.availability(example.release) is None


@needs_git
def test_respects_the_url_rewriting_of_the_git_configuration(example: Upstream, tmp_path: Path) -> None:
    unreachable = with_pin(example.release, url=UNREACHABLE_URL)
    with pytest.raises(SourceError):
        upstream.fetch(unreachable)
    git(tmp_path, "config", "--global", f"url.{example.repository.as_uri()}.insteadOf", UNREACHABLE_URL)
    assert upstream.availability(unreachable) is None
    assert contents(upstream.fetch(unreachable)) == FILES


@needs_git
@pytest.mark.parametrize("kind", ["checkout", "dirty", "bare", "mirror", "shallow", "single", "packed", "worktree"])
def test_fetches_the_pinned_tree_from_any_kind_of_source(example: Upstream, tmp_path: Path, kind: str) -> None:
    source = tmp_path / "source"
    url = example.repository.as_uri()
    clone: dict[str, list[str]] = {
        "bare": ["--bare"],
        "mirror": ["--mirror"],
        "shallow": ["--depth=1", "--branch=v9.9"],
        "single": ["--single-branch", "--branch=v9.9", "--no-tags"],
    }
    git(tmp_path, "clone", "--quiet", *clone.get(kind, []), url, str(source))
    if kind == "dirty":
        write(source, {"setup.py": "changed\n", "new.py": "new\n"})
        (source / "LICENSE.txt").unlink()
        git(source, "add", "--all")
    if kind == "packed":
        git(source, "gc", "--quiet")
    if kind == "worktree":
        git(source, "worktree", "add", "--quiet", str(tmp_path / "beside"), "v9.9")
        source = tmp_path / "beside"
    unreachable = with_pin(example.release, url=UNREACHABLE_URL)
    assert contents(upstream.fetch(unreachable, source=source)) == FILES
    assert upstream.availability(unreachable) is None


@needs_git
def test_rejects_a_commit_with_another_tree(example: Upstream, tmp_path: Path) -> None:
    wrong = with_pin(example.release, tree="1" * 40)
    with pytest.raises(SourceError, match=f"has tree {example.release.source.tree}, pinned {'1' * 40}"):  # type: ignore[union-attr]
        upstream.fetch(wrong)
    assert cache_entries(tmp_path) == []


@needs_git
@pytest.mark.parametrize("source", [True, False])
def test_rejects_a_missing_commit(example: Upstream, tmp_path: Path, source: bool) -> None:
    wrong = with_pin(example.release, commit="1" * 40)
    with pytest.raises(SourceError, match=f"has no commit {'1' * 40}") as caught:
        upstream.fetch(wrong, source=example.repository if source else None)
    assert caught.value.hint and "nox -s fetch -- 9.9 --source" in caught.value.hint
    assert cache_entries(tmp_path) == []


@needs_git
def test_ignores_a_moved_tag(example: Upstream) -> None:
    git(example.repository, "tag", "--force", "v9.9", "main")
    assert contents(upstream.fetch(example.release)) == FILES


@needs_git
def test_rejects_a_commit_object_with_the_wrong_content(example: Upstream, tmp_path: Path) -> None:
    """In the modified mirror, the file of the pinned commit contains a later commit."""
    commit, later = example.release.source.commit, git(example.repository, "rev-parse", "main")  # type: ignore[union-attr]
    objects = example.repository / ".git" / "objects"
    target = objects / commit[:2] / commit[2:]
    target.chmod(0o644)
    shutil.copyfile(objects / later[:2] / later[2:], target)
    with pytest.raises(SourceError):
        upstream.fetch(example.release, source=example.repository)
    assert cache_entries(tmp_path) == []


@needs_git
def test_ignores_the_git_attributes_of_the_tree(example: Upstream) -> None:
    write(
        example.repository,
        {".gitattributes": "* text eol=crlf\nsetup.py export-ignore\nLICENSE.txt export-subst ident\n"},
    )
    write(example.repository, {"LICENSE.txt": "$Format:%H$ $Id$\n"})
    git(example.repository, "add", ".")
    git(example.repository, "add", "--renormalize", ".")
    git(example.repository, "commit", "--quiet", "-m", "attributes")
    commit, tree = git(example.repository, "rev-parse", "HEAD"), git(example.repository, "rev-parse", "HEAD^{tree}")
    out = upstream.fetch(with_pin(example.release, commit=commit, tree=tree))
    assert (out / "LICENSE.txt").read_bytes() == b"$Format:%H$ $Id$\n"
    assert (out / "setup.py").read_bytes() == FILES["setup.py"].encode()


@needs_git
def test_runs_no_git_hook(example: Upstream, tmp_path: Path) -> None:
    hooks = tmp_path / "template" / "hooks"
    write(hooks, dict.fromkeys(("reference-transaction", "post-checkout"), f"#!/bin/sh\ntouch {tmp_path}/ran\n"))
    for hook in hooks.iterdir():
        hook.chmod(0o755)
    git(tmp_path, "config", "--global", "init.templateDir", str(hooks.parent))
    git(tmp_path, "config", "--global", "core.hooksPath", str(hooks))
    upstream.fetch(example.release)
    # For a missing commit, git fetches and writes references, which would run a hook.
    with pytest.raises(SourceError):
        upstream.fetch(with_pin(example.release, commit="1" * 40))
    assert not (tmp_path / "ran").exists()


@needs_git
def test_repeats_an_interrupted_fetch(example: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = archives.unpack_tar

    def interrupted(path: Path, destination: Path) -> list[Path]:
        real(path, destination)
        raise KeyboardInterrupt

    monkeypatch.setattr(upstream, "unpack_tar", interrupted)
    with pytest.raises(KeyboardInterrupt):
        upstream.fetch(example.release)
    assert cache_entries(tmp_path) == []
    # An incomplete entry of a killed process must not be used.
    write(
        tmp_path / "cache" / "upstream" / upstream._cache_entry(example.release, tmp_path).name,
        {"tree/setup.py": "half\n"},
    )
    monkeypatch.setattr(upstream, "unpack_tar", real)
    assert contents(upstream.fetch(example.release)) == FILES


@needs_git
@pytest.mark.parametrize("damage", ["changed", "added", "removed", "origin"])
def test_fetches_again_if_the_cached_tree_was_modified(example: Upstream, damage: str) -> None:
    tree = upstream.fetch(example.release)
    if damage == "removed":
        (tree / "setup.py").unlink()
    else:
        name = {"changed": "setup.py", "added": "nvdiffrast/new.py", "origin": "../origin.json"}[damage]
        (tree / name).write_text("edited\n")
    assert contents(upstream.fetch(example.release)) == FILES


@needs_git
def test_does_not_use_the_cached_tree_of_another_pin(example: Upstream) -> None:
    upstream.fetch(example.release)
    shutil.rmtree(example.repository)
    pin = example.release.source
    assert isinstance(pin, GitPin)
    # The name of the cache entry contains only the first digits of the commit; the stored pin contains all of them.
    other = with_pin(example.release, commit=pin.commit[:-1] + ("0" if pin.commit[-1] != "0" else "1"))
    with pytest.raises(SourceError):
        upstream.fetch(other)


@needs_git
def test_error_lists_the_available_releases_and_the_command(
    example: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unreachable = Release("8.0", "9", GitPin(UNREACHABLE_URL, "v8.0", "2" * 40, "3" * 40))
    here, gone = make_wheel_release(tmp_path), Release("7.0", "9", GitPin(UNREACHABLE_URL, "v7.0", "4" * 40, "5" * 40))
    upstream.fetch(example.release)
    upstream.fetch(here, source=tmp_path)
    monkeypatch.setattr(upstream, "_other_releases", lambda release: [example.release, gone, here])
    with pytest.raises(
        SourceError, match=rf"^8\.0: cannot fetch {UNREACHABLE_URL}: .*; available here: 9\.9, 1\.0$"
    ) as caught:
        upstream.fetch(unreachable)
    assert caught.value.hint == (
        f"give a checkout or mirror of {UNREACHABLE_URL} with --source PATH, "
        "or use another release: nox -s fetch -- 9.9"
    )
    missing = upstream.availability(unreachable)
    assert missing is not None and UNREACHABLE_URL in missing


@needs_git
def test_rejects_a_source_that_is_missing_or_not_a_repository(example: Upstream, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="does not exist"):
        upstream.fetch(example.release, source=tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="cannot fetch"):
        upstream.fetch(example.release, source=tmp_path / "empty")


def test_reports_that_git_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    release = Release("8.0", "9", GitPin(UNREACHABLE_URL, "v8.0", "2" * 40, "3" * 40))
    assert upstream.availability(release) == "git is not installed"
    with pytest.raises(SourceError, match="git is not installed"):
        upstream.fetch(release)


@needs_git
def test_tree_hash_equals_the_hash_of_git(example: Upstream, tmp_path: Path) -> None:
    write(example.repository, {"a/b/c": "", "a-b": "1", "a.b": "2", "ab/x": "3", "é": "4"})
    (example.repository / "link").symlink_to("a/b/c")
    git(example.repository, "add", ".")
    git(example.repository, "commit", "--quiet", "-m", "odd names")
    git(example.repository, "archive", "--format=tar", f"--output={tmp_path}/t.tar", "HEAD")
    assert upstream.tar_tree(tmp_path / "t.tar") == git(example.repository, "rev-parse", "HEAD^{tree}")


# --- registry pins


def make_wheel_release(folder: Path, extra: dict[str, str] | None = None) -> Release:
    """Write a wheel with the sources of the package and the licence in its dist-info; return its release."""
    wheel = folder / "example-1.0-py3-none-any.whl"
    info = "example-1.0.dist-info"
    files = {name: text for name, text in FILES.items() if name.startswith("nvdiffrast/")}
    files |= {
        f"{info}/LICENSE.txt": "a licence\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: example\nVersion: 1.0\n\n# Title\n\ntext é\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in (files | (extra or {})).items():
            archive.writestr(name, text)
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return Release("1.0", "9", RegistryPin("example", "1.0", wheel.name, digest))


@pytest.mark.parametrize("named", ["file", "folder"])
def test_unpacks_a_wheel_into_the_layout_of_the_repository(tmp_path: Path, named: str) -> None:
    release = make_wheel_release(tmp_path)
    source = tmp_path if named == "folder" else tmp_path / "example-1.0-py3-none-any.whl"
    tree = upstream.fetch(release, source=source)
    assert contents(tree) == {
        **{name: text for name, text in FILES.items() if name.startswith("nvdiffrast/")},
        "LICENSE.txt": "a licence\n",
        "README.md": "# Title\n\ntext é\n",
    }


def test_rejects_another_file_with_the_same_name(tmp_path: Path) -> None:
    release = make_wheel_release(tmp_path)
    make_wheel_release(tmp_path, {"nvdiffrast/more.py": "import os\n"})
    with pytest.raises(SourceError, match="is not the pinned file: sha256"):
        upstream.fetch(release, source=tmp_path)
    assert cache_entries(tmp_path) == []


def test_rejects_a_wheel_with_a_member_outside_its_folder(tmp_path: Path) -> None:
    release = make_wheel_release(tmp_path, {"../../../../escaped": "x"})
    with pytest.raises(SourceError, match="escaped"):
        upstream.fetch(release, source=tmp_path)
    assert not list(tmp_path.rglob("escaped"))
    assert cache_entries(tmp_path) == []


def test_rejects_a_missing_wheel(tmp_path: Path) -> None:
    release = make_wheel_release(tmp_path)
    (tmp_path / "example-1.0-py3-none-any.whl").unlink()
    with pytest.raises(SourceError, match=r"there is no example-1\.0-py3-none-any\.whl at"):
        upstream.fetch(release, source=tmp_path)


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Return a function that makes pip search packages only in the given folder."""
    if not any(shutil.which(name) for name in ("pip", "pip3")):
        pytest.skip("needs pip: python -m ensurepip")

    def configure(folder: Path) -> None:
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        monkeypatch.setenv("PIP_FIND_LINKS", str(folder))

    return configure


def test_downloads_with_the_pip_configuration_of_the_user(tmp_path: Path, pip: Callable[[Path], None]) -> None:
    release = make_wheel_release(tmp_path)
    pip(tmp_path)
    assert upstream.availability(release) is None
    (tmp_path / "example-1.0-py3-none-any.whl").unlink()
    assert (upstream.fetch(release) / "LICENSE.txt").read_text() == "a licence\n"


def test_rejects_another_file_from_the_package_index(tmp_path: Path, pip: Callable[[Path], None]) -> None:
    release = make_wheel_release(tmp_path)
    make_wheel_release(tmp_path, {"nvdiffrast/more.py": "import os\n"})
    pip(tmp_path)
    with pytest.raises(SourceError, match=r"1\.0: pip cannot download example-1\.0-py3-none-any\.whl"):
        upstream.fetch(release)
    assert cache_entries(tmp_path) == []


def test_command_prints_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    release = make_wheel_release(tmp_path)

    class Known:
        def release(self, version: str) -> Release:
            return release

    monkeypatch.setattr(matrix, "load", Known)
    monkeypatch.setattr(sys, "argv", ["upstream", "1.0", "--source", str(tmp_path)])
    assert upstream.main() == 0
    assert Path(capsys.readouterr().out.strip()) == upstream.fetch(release)


def test_error_line_prefers_a_line_marked_as_an_error() -> None:
    error = CommandError("exit status 1", returncode=1, output="ERROR: no such thing\nhint: try harder\n\n")
    assert upstream._error_line(error) == "ERROR: no such thing"
    assert upstream._error_line(CommandError("exit status 1", returncode=1)) == "exit status 1"
