"""Releases come by their pins or not at all, from repositories and wheels of our own making in upstream's layout."""

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
NOWHERE = "https://upstream.invalid/nvdiffrast"

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="needs git: apt install git")


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


class Upstream(NamedTuple):
    """A repository, and a release pinned to its one tagged commit."""

    repository: Path
    release: Release


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache, no configuration of the user's, no memory of earlier answers, no real releases."""
    monkeypatch.setenv("NVDIFFRAST_WHEELS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "someone")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "someone@example.org")
    monkeypatch.setattr(upstream, "_others", lambda release: [])
    upstream.availability.cache_clear()
    upstream._git_answers.cache_clear()


def write(folder: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


@pytest.fixture
def up(tmp_path: Path) -> Upstream:
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


def content(tree: Path) -> dict[str, str]:
    return {file.relative_to(tree).as_posix(): file.read_text() for file in tree.rglob("*") if file.is_file()}


def repinned(release: Release, **changes: str) -> Release:
    pin = release.source
    assert isinstance(pin, GitPin)
    return Release(
        release.version,
        release.series,
        GitPin(**{"url": pin.url, "tag": pin.tag, "commit": pin.commit, "tree": pin.tree, **changes}),
    )


def cached(tmp_path: Path) -> list[str]:
    folder = tmp_path / "cache" / "upstream"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


@needs_git
def test_a_commit_is_fetched_whole_and_only_itself(up: Upstream) -> None:
    tree = upstream.fetch(up.release)
    assert content(tree) == FILES
    assert os.access(tree / "docker/run.sh", os.X_OK)
    assert not os.access(tree / "setup.py", os.X_OK)


@needs_git
def test_what_is_cached_needs_no_upstream(up: Upstream) -> None:
    tree = upstream.fetch(up.release)
    shutil.rmtree(up.repository)
    assert upstream.fetch(up.release) == tree
    assert upstream.availability(up.release) is None


@needs_git
def test_the_users_rewriting_of_urls_is_honoured(up: Upstream, tmp_path: Path) -> None:
    away = repinned(up.release, url=NOWHERE)
    with pytest.raises(SourceError):
        upstream.fetch(away)
    git(tmp_path, "config", "--global", f"url.{up.repository.as_uri()}.insteadOf", NOWHERE)
    assert upstream.availability(away) is None
    assert content(upstream.fetch(away)) == FILES


@needs_git
@pytest.mark.parametrize("kind", ["checkout", "dirty", "bare", "mirror", "shallow", "single", "packed", "worktree"])
def test_a_source_of_any_kind_gives_the_pinned_tree(up: Upstream, tmp_path: Path, kind: str) -> None:
    source = tmp_path / "source"
    url = up.repository.as_uri()
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
    away = repinned(up.release, url=NOWHERE)
    assert content(upstream.fetch(away, source=source)) == FILES
    assert upstream.availability(away) is None


@needs_git
def test_a_commit_that_holds_another_tree_is_refused(up: Upstream, tmp_path: Path) -> None:
    wrong = repinned(up.release, tree="1" * 40)
    with pytest.raises(SourceError, match=f"holds tree {up.release.source.tree}, pinned {'1' * 40}"):  # type: ignore[union-attr]
        upstream.fetch(wrong)
    assert cached(tmp_path) == []


@needs_git
@pytest.mark.parametrize("source", [True, False])
def test_a_commit_that_is_not_there_is_refused(up: Upstream, tmp_path: Path, source: bool) -> None:
    wrong = repinned(up.release, commit="1" * 40)
    with pytest.raises(SourceError, match=f"has no commit {'1' * 40}") as caught:
        upstream.fetch(wrong, source=up.repository if source else None)
    assert caught.value.hint and "nox -s fetch -- 9.9 --source" in caught.value.hint
    assert cached(tmp_path) == []


@needs_git
def test_a_moved_tag_changes_nothing(up: Upstream) -> None:
    git(up.repository, "tag", "--force", "v9.9", "main")
    assert content(upstream.fetch(up.release)) == FILES


@needs_git
def test_a_commit_object_in_anothers_place_is_noticed(up: Upstream, tmp_path: Path) -> None:
    """A mirror whose object store was tampered with: the file of the pinned commit holds the later one."""
    commit, later = up.release.source.commit, git(up.repository, "rev-parse", "main")  # type: ignore[union-attr]
    objects = up.repository / ".git" / "objects"
    target = objects / commit[:2] / commit[2:]
    target.chmod(0o644)
    shutil.copyfile(objects / later[:2] / later[2:], target)
    with pytest.raises(SourceError):
        upstream.fetch(up.release, source=up.repository)
    assert cached(tmp_path) == []


@needs_git
def test_attributes_in_the_tree_do_not_decide_what_comes_out(up: Upstream) -> None:
    write(
        up.repository, {".gitattributes": "* text eol=crlf\nsetup.py export-ignore\nLICENSE.txt export-subst ident\n"}
    )
    write(up.repository, {"LICENSE.txt": "$Format:%H$ $Id$\n"})
    git(up.repository, "add", ".")
    git(up.repository, "add", "--renormalize", ".")
    git(up.repository, "commit", "--quiet", "-m", "attributes")
    commit, tree = git(up.repository, "rev-parse", "HEAD"), git(up.repository, "rev-parse", "HEAD^{tree}")
    out = upstream.fetch(repinned(up.release, commit=commit, tree=tree))
    assert (out / "LICENSE.txt").read_bytes() == b"$Format:%H$ $Id$\n"
    assert (out / "setup.py").read_bytes() == FILES["setup.py"].encode()


@needs_git
def test_no_hook_of_the_users_templates_runs(up: Upstream, tmp_path: Path) -> None:
    hooks = tmp_path / "template" / "hooks"
    write(hooks, dict.fromkeys(("reference-transaction", "post-checkout"), f"#!/bin/sh\ntouch {tmp_path}/ran\n"))
    for hook in hooks.iterdir():
        hook.chmod(0o755)
    git(tmp_path, "config", "--global", "init.templateDir", str(hooks.parent))
    git(tmp_path, "config", "--global", "core.hooksPath", str(hooks))
    upstream.fetch(up.release)
    # A commit that is not there makes it fetch, and so write, references: a hook's chance.
    with pytest.raises(SourceError):
        upstream.fetch(repinned(up.release, commit="1" * 40))
    assert not (tmp_path / "ran").exists()


@needs_git
def test_an_interrupted_fetch_can_be_run_again(up: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = archives.unpack_tar

    def interrupted(path: Path, destination: Path) -> list[Path]:
        real(path, destination)
        raise KeyboardInterrupt

    monkeypatch.setattr(upstream, "unpack_tar", interrupted)
    with pytest.raises(KeyboardInterrupt):
        upstream.fetch(up.release)
    assert cached(tmp_path) == []
    # What a killed process leaves behind is never taken for the whole.
    write(tmp_path / "cache" / "upstream" / upstream._home(up.release, tmp_path).name, {"tree/setup.py": "half\n"})
    monkeypatch.setattr(upstream, "unpack_tar", real)
    assert content(upstream.fetch(up.release)) == FILES


@needs_git
@pytest.mark.parametrize("damage", ["changed", "added", "removed", "origin"])
def test_a_cached_tree_that_was_edited_is_fetched_anew(up: Upstream, damage: str) -> None:
    tree = upstream.fetch(up.release)
    if damage == "removed":
        (tree / "setup.py").unlink()
    else:
        name = {"changed": "setup.py", "added": "nvdiffrast/new.py", "origin": "../origin.json"}[damage]
        (tree / name).write_text("edited\n")
    assert content(upstream.fetch(up.release)) == FILES


@needs_git
def test_no_release_answers_for_another_pin(up: Upstream) -> None:
    upstream.fetch(up.release)
    shutil.rmtree(up.repository)
    pin = up.release.source
    assert isinstance(pin, GitPin)
    # The cache's folder has the first digits in its name; the pin inside is compared whole.
    other = repinned(up.release, commit=pin.commit[:-1] + ("0" if pin.commit[-1] != "0" else "1"))
    with pytest.raises(SourceError):
        upstream.fetch(other)


@needs_git
def test_unreachable_names_what_can_be_had_and_the_command(
    up: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = Release("8.0", "9", GitPin(NOWHERE, "v8.0", "2" * 40, "3" * 40))
    here, gone = make_wheel_release(tmp_path), Release("7.0", "9", GitPin(NOWHERE, "v7.0", "4" * 40, "5" * 40))
    upstream.fetch(up.release)
    upstream.fetch(here, source=tmp_path)
    monkeypatch.setattr(upstream, "_others", lambda release: [up.release, gone, here])
    with pytest.raises(
        SourceError, match=rf"^8\.0: {NOWHERE} cannot be fetched: .*can be had here: 9\.9, 1\.0$"
    ) as caught:
        upstream.fetch(away)
    assert caught.value.hint == (
        f"name a checkout or mirror of {NOWHERE} by --source PATH, or take another release: nox -s fetch -- 9.9"
    )
    missing = upstream.availability(away)
    assert missing is not None and NOWHERE in missing


@needs_git
def test_a_source_that_is_not_there_or_no_repository(up: Upstream, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="does not exist"):
        upstream.fetch(up.release, source=tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="cannot be fetched"):
        upstream.fetch(up.release, source=tmp_path / "empty")


def test_without_git_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    release = Release("8.0", "9", GitPin(NOWHERE, "v8.0", "2" * 40, "3" * 40))
    assert upstream.availability(release) == "git is not installed"
    with pytest.raises(SourceError, match="git is not installed"):
        upstream.fetch(release)


@needs_git
def test_the_name_of_a_tree_is_gits_own(up: Upstream, tmp_path: Path) -> None:
    write(up.repository, {"a/b/c": "", "a-b": "1", "a.b": "2", "ab/x": "3", "é": "4"})
    (up.repository / "link").symlink_to("a/b/c")
    git(up.repository, "add", ".")
    git(up.repository, "commit", "--quiet", "-m", "odd names")
    git(up.repository, "archive", "--format=tar", f"--output={tmp_path}/t.tar", "HEAD")
    assert upstream.tar_tree(tmp_path / "t.tar") == git(up.repository, "rev-parse", "HEAD^{tree}")


# --- a registry's file


def make_wheel_release(folder: Path, extra: dict[str, str] | None = None) -> Release:
    """A wheel like the one a registry holds: the package's sources, the licence in its dist-info."""
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
def test_a_wheel_is_laid_out_like_the_repository(tmp_path: Path, named: str) -> None:
    release = make_wheel_release(tmp_path)
    source = tmp_path if named == "folder" else tmp_path / "example-1.0-py3-none-any.whl"
    tree = upstream.fetch(release, source=source)
    assert content(tree) == {
        **{name: text for name, text in FILES.items() if name.startswith("nvdiffrast/")},
        "LICENSE.txt": "a licence\n",
        "README.md": "# Title\n\ntext é\n",
    }


def test_another_file_of_that_name_is_refused(tmp_path: Path) -> None:
    release = make_wheel_release(tmp_path)
    make_wheel_release(tmp_path, {"nvdiffrast/more.py": "import os\n"})
    with pytest.raises(SourceError, match="is not the pinned file: sha256"):
        upstream.fetch(release, source=tmp_path)
    assert cached(tmp_path) == []


def test_a_pinned_wheel_that_climbs_out_is_refused(tmp_path: Path) -> None:
    release = make_wheel_release(tmp_path, {"../../../../escaped": "x"})
    with pytest.raises(SourceError, match="leads out of the archive"):
        upstream.fetch(release, source=tmp_path)
    assert not list(tmp_path.rglob("escaped"))
    assert cached(tmp_path) == []


def test_a_wheel_that_is_not_there(tmp_path: Path) -> None:
    release = make_wheel_release(tmp_path)
    (tmp_path / "example-1.0-py3-none-any.whl").unlink()
    with pytest.raises(SourceError, match=r"there is no example-1\.0-py3-none-any\.whl at"):
        upstream.fetch(release, source=tmp_path)


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Let pip find packages in one folder and nowhere else."""
    if not any(shutil.which(name) for name in ("pip", "pip3")):
        pytest.skip("needs pip: python -m ensurepip")

    def configure(folder: Path) -> None:
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        monkeypatch.setenv("PIP_FIND_LINKS", str(folder))

    return configure


def test_pip_fetches_the_one_file_by_the_users_configuration(tmp_path: Path, pip: Callable[[Path], None]) -> None:
    release = make_wheel_release(tmp_path)
    pip(tmp_path)
    assert upstream.availability(release) is None
    (tmp_path / "example-1.0-py3-none-any.whl").unlink()
    assert (upstream.fetch(release) / "LICENSE.txt").read_text() == "a licence\n"


def test_an_index_that_serves_another_file_is_refused(tmp_path: Path, pip: Callable[[Path], None]) -> None:
    release = make_wheel_release(tmp_path)
    make_wheel_release(tmp_path, {"nvdiffrast/more.py": "import os\n"})
    pip(tmp_path)
    with pytest.raises(SourceError, match=r"1\.0: the package index does not give example-1\.0-py3-none-any\.whl"):
        upstream.fetch(release)
    assert cached(tmp_path) == []


def test_the_command_line_prints_the_folder(
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


def test_a_tools_last_words_are_told() -> None:
    error = CommandError("exit status 1", returncode=1, output="ERROR: no such thing\nhint: try harder\n\n")
    assert upstream._last_line(error) == "ERROR: no such thing"
    assert upstream._last_line(CommandError("exit status 1", returncode=1)) == "exit status 1"
