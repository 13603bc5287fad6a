"""`nox -s clean`: shows the size of the project's files, and deletes no other files."""

from __future__ import annotations

import ast
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.errors import InUseError, PipelineError, UsageError
from scripts.model import ROOT
from scripts.support import disk_usage, files

HASH = 64 * "a"
# Files of a build by category, below the cache ("cache") and the repository ("root").
KEPT = {
    "sessions": ["root/.nox/env-pipeline/bin/python", "root/.nox/lint/pyvenv.cfg"],
    "builds": ["root/build/logs/cell.log", "root/build/patched/0.3.3.1/setup.py"],
    "tools": ["root/.mypy_cache/3.11/x.json", "root/.pytest_cache/v/lastfailed"],
    "objects": ["cache/objects/0f/object.o"],
    "wheels": [f"cache/wheels/{HASH}/some.whl", f"cache/wheels/.{HASH}.x1y2/part.whl"],
    "environments": [
        "cache/environments/torch-2.14.1-38ccdf2719e95542/bin/python",
        "cache/environments/.torch-2.14.1-38ccdf2719e95542.lock",
    ],
    "toolkits": ["cache/toolkits/cu130-pypi-f8af9c7a1548ab44/bin/nvcc"],
    "sources": ["cache/upstream/0.3.3.1-cee41fe51b6fca1c7a7a992d/setup.py"],
    "downloads": [f"cache/downloads/{HASH}/archive.tar.xz", f"cache/downloads/{HASH}.lock"],
    "images": ["cache/images/build.tar"],
    "uv": ["cache/uv/archive/file"],
}


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> disk_usage.Places:
    for names in KEPT.values():
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(100_000 * b"x")
    monkeypatch.setenv("NVDIFFRAST_WHEELS_CACHE", str(tmp_path / "cache"))
    return disk_usage.Places(tmp_path / "root", tmp_path / "cache")


def _files(folder: Path) -> set[str]:
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
    return {name for name in found if not name.endswith(files.IN_USE)}


def _run(places: disk_usage.Places, *arguments: str, answer: str | None = None) -> None:
    """Run the command; ``answer`` is the input at a terminal, None means that there is no terminal."""
    stdin = None if answer is None else io.StringIO(answer)
    disk_usage.run(arguments, places, stdin)


@pytest.mark.parametrize("category", KEPT)
def test_deletes_only_the_named_category(places: disk_usage.Places, tmp_path: Path, category: str) -> None:
    _run(places, category, "--yes")
    assert _files(tmp_path) == {name for other, names in KEPT.items() if other != category for name in names}


def test_deletes_all_categories(places: disk_usage.Places, tmp_path: Path) -> None:
    _run(places, "--yes")
    assert _files(tmp_path) == set()


def test_shows_sizes_and_deletes_nothing(
    places: disk_usage.Places, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _run(places)
    output = capsys.readouterr().out
    for category, names in KEPT.items():
        (line,) = [line for line in output.splitlines() if line.split()[:1] == [category]]
        assert f"{0.1 * len(names):.1f} MB" in line
    assert "total 1.7 MB" in " ".join(output.split())
    assert "nox -s clean -- --yes" in output
    assert _files(tmp_path) == {name for names in KEPT.values() for name in names}


def test_a_file_with_two_hard_links_counts_once(places: disk_usage.Places) -> None:
    first = places.cache / "uv" / "archive" / "file"
    (places.cache / "uv" / "archive" / "again").hardlink_to(first)
    sizes = {category.name: category.size for category in disk_usage.measure(places)}
    assert 100_000 <= sizes["uv"] < 200_000


def test_skips_a_file_that_disappears_while_sizes_are_measured(
    places: disk_usage.Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = places.cache / "uv" / "archive" / "file"
    real = Path.lstat

    def lstat(path: Path) -> os.stat_result:
        if path == gone:
            raise FileNotFoundError(path)
        return real(path)

    monkeypatch.setattr(Path, "lstat", lstat)
    sizes = {category.name: category.size for category in disk_usage.measure(places)}
    assert sizes["uv"] == 0


@pytest.mark.parametrize(
    ("answer", "left"),
    [
        ("objects uv\n", set(KEPT) - {"objects", "uv"}),
        ("all\n", set()),
        ("\n", set(KEPT)),
        ("", set(KEPT)),
    ],
)
def test_asks_for_the_categories_without_names(
    places: disk_usage.Places, tmp_path: Path, answer: str, left: set[str]
) -> None:
    _run(places, answer=answer)
    assert _files(tmp_path) == {name for category in left for name in KEPT[category]}


@pytest.mark.parametrize(("answer", "removed"), [("y\n", True), ("yes\n", True), ("n\n", False), ("\n", False)])
def test_asks_for_confirmation_with_names(places: disk_usage.Places, answer: str, removed: bool) -> None:
    _run(places, "objects", answer=answer)
    assert (places.cache / "objects").exists() is not removed


@pytest.mark.parametrize("arguments", [("obejcts", "--yes"), ("obejcts",)])
def test_an_unknown_category_changes_nothing(
    places: disk_usage.Places, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    with pytest.raises(UsageError, match="obejcts"):
        _run(places, *arguments)
    assert _files(tmp_path) == {name for names in KEPT.values() for name in names}


def test_an_unknown_answer_changes_nothing(places: disk_usage.Places, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="wheel"):
        _run(places, answer="objects wheel\n")
    assert _files(tmp_path) == {name for names in KEPT.values() for name in names}


def test_deletes_links_without_following_them(places: disk_usage.Places, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    (places.cache / "objects" / "0f" / "link").symlink_to(outside, target_is_directory=True)
    (places.cache / "objects" / "1e").symlink_to(outside, target_is_directory=True)
    (places.root / "build" / "link").symlink_to(outside, target_is_directory=True)
    _run(places, "--yes")
    assert (outside / "precious").read_text() == "x"
    assert not (places.cache / "objects").exists()
    assert not (places.root / "build").exists()


@pytest.mark.parametrize("name", ["cache/objects", "root/build", "root/.nox"])
def test_does_not_delete_a_folder_that_is_a_link(
    places: disk_usage.Places, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    outside = tmp_path / "outside"
    (tmp_path / name).rename(outside)
    (tmp_path / name).symlink_to(outside, target_is_directory=True)
    before = _files(outside)
    _run(places, "--yes")
    assert _files(outside) == before
    assert f"{tmp_path / name} is a link: left alone" in capsys.readouterr().out


def test_does_not_delete_files_of_other_programs(
    places: disk_usage.Places, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """NVDIFFRAST_WHEELS_CACHE may name a folder with other files, such as a home folder."""
    strange = ["cache/downloads/holiday.jpg", "cache/wheels/other-1.0.whl", "cache/Documents/letter.txt"]
    strange += ["cache/environments/work/bin/python", "root/dist/made.whl", "root/index/current/index.html"]
    for name in strange:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    _run(places, "--yes")
    assert _files(tmp_path) == set(strange)
    assert f"{places.cache / 'downloads'}: 1 entry is not of this project: left alone" in capsys.readouterr().out


def test_does_not_delete_a_folder_with_a_mount_point(
    places: disk_usage.Places, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    system = places.cache / "images" / "debian-bookworm"
    (system / "proc").mkdir(parents=True)
    monkeypatch.setattr(disk_usage, "_mount_points", lambda: [Path("/"), system / "proc"])
    _run(places, "images", "--yes")
    assert system.exists()
    assert not (places.cache / "images" / "build.tar").exists()
    assert f"{system}: {system / 'proc'} is mounted in it: left alone" in capsys.readouterr().out


def test_lists_the_mount_points_of_this_machine() -> None:
    if sys.platform != "linux":
        pytest.skip("mounts are read from /proc, which is of Linux")
    assert Path("/proc") in disk_usage._mount_points()


@pytest.fixture
def build(places: disk_usage.Places) -> Iterator[subprocess.Popen[str]]:
    """Start another process that uses the cache like a build."""
    stage = "lambda: print('running', flush=True) or input()"
    code = f"from scripts.support.command_line import run_main; run_main({stage}, uses_cache=True)"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        yield process
        process.kill()


def test_deletes_nothing_while_a_build_runs(
    places: disk_usage.Places, tmp_path: Path, build: subprocess.Popen[str]
) -> None:
    with pytest.raises(InUseError, match="in use"):
        _run(places, "--yes")
    assert _files(tmp_path) == {name for names in KEPT.values() for name in names}
    build.kill()
    build.wait()
    _run(places, "--yes")
    assert _files(tmp_path) == set()


def test_two_builds_run_at_once(places: disk_usage.Places, build: subprocess.Popen[str]) -> None:
    with files.in_use():
        pass


def test_an_empty_cache_is_not_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _run(disk_usage.Places(tmp_path / "root", tmp_path / "cache"), "--yes")
    assert "nothing is kept" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


# The stages that read or write files that `clean` deletes.
USERS = {
    "build",
    "patching",
    "prove",
    "pure_packages",
    "rehearse",
    "release",
    "reproduce",
    "smoke",
    "upstream",
    "verify",
}


def test_every_stage_that_uses_the_cache_locks_it() -> None:
    users = set()
    for path in (ROOT / "scripts").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node) == "run_main(main, uses_cache=True)":
                users.add(path.stem)
    assert users == USERS


def test_has_its_own_exit_status() -> None:
    def kinds(one: type[PipelineError]) -> Iterator[type[PipelineError]]:
        yield one
        for other in one.__subclasses__():
            yield from kinds(other)

    assert [kind for kind in kinds(PipelineError) if kind.exit_code == InUseError.exit_code] == [InUseError]
