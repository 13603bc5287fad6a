"""scripts.support.files: the cache folder, complete folders and locks."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from scripts.support import files


def test_the_environment_names_the_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("NVDIFFRAST_WHEELS_CACHE", raising=False)
    assert files.cache_root() == tmp_path / "xdg" / "nvdiffrast-wheels"
    monkeypatch.setenv("NVDIFFRAST_WHEELS_CACHE", str(tmp_path / "named"))
    assert files.cache_root() == tmp_path / "named"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NVDIFFRAST_WHEELS_CACHE", "relative")
    assert files.cache_root() == tmp_path / "relative"


def test_a_complete_folder_appears_when_the_block_ends(tmp_path: Path) -> None:
    final = tmp_path / "a" / "final"
    with files.complete_folder(final) as beside:
        (beside / "file").write_text("whole")
        assert not final.exists()
    assert (final / "file").read_text() == "whole"
    assert [path.name for path in final.parent.iterdir()] == ["final"]


def test_a_failed_folder_is_deleted(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), files.complete_folder(tmp_path / "final") as beside:
        (beside / "file").touch()
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_an_existing_folder_is_kept(tmp_path: Path) -> None:
    final = tmp_path / "final"
    with files.complete_folder(final) as late:
        with files.complete_folder(final) as early:
            (early / "file").write_text("early")
        (late / "file").write_text("late")
    assert (final / "file").read_text() == "early"
    assert [path.name for path in tmp_path.iterdir()] == ["final"]


def test_exclusive_blocks_do_not_overlap(tmp_path: Path) -> None:
    entered = threading.Event()

    def second() -> None:
        with files.exclusive(tmp_path / "lock"):
            entered.set()

    thread = threading.Thread(target=second)
    with files.exclusive(tmp_path / "lock"):
        thread.start()
        assert not entered.wait(0.1)
    assert entered.wait(5)
    thread.join()


def test_write_atomic_replaces_the_file_and_leaves_no_other(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    assert files.write_atomic(path, "old\n") == path
    files.write_atomic(path, b"\xff\n")
    assert path.read_bytes() == b"\xff\n"
    assert list(path.parent.iterdir()) == [path]


def test_write_atomic_writes_text_as_utf8_without_translating_newlines(tmp_path: Path) -> None:
    assert files.write_atomic(tmp_path / "file.txt", "é\n").read_bytes() == b"\xc3\xa9\n"


def test_replace_atomic_keeps_the_old_file_if_the_block_raises(tmp_path: Path) -> None:
    path = files.write_atomic(tmp_path / "file.txt", "old")
    with pytest.raises(RuntimeError), files.replace_atomic(path) as temporary:
        temporary.write_text("incomplete")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_replace_atomic_shows_the_new_file_only_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    with files.replace_atomic(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
