"""scripts.support.files: places, complete folders, one at a time."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from scripts.support import files


def test_place_is_named_by_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("NVDIFFRAST_WHEELS_CACHE", raising=False)
    assert files.cache_root() == tmp_path / "xdg" / "nvdiffrast-wheels"
    monkeypatch.setenv("NVDIFFRAST_WHEELS_CACHE", str(tmp_path / "named"))
    assert files.cache_root() == tmp_path / "named"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NVDIFFRAST_WHEELS_CACHE", "relative")
    assert files.cache_root() == tmp_path / "relative"


def test_folder_appears_when_it_is_complete(tmp_path: Path) -> None:
    final = tmp_path / "a" / "final"
    with files.complete_folder(final) as beside:
        (beside / "file").write_text("whole")
        assert not final.exists()
    assert (final / "file").read_text() == "whole"
    assert [path.name for path in final.parent.iterdir()] == ["final"]


def test_folder_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), files.complete_folder(tmp_path / "final") as beside:
        (beside / "file").touch()
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_folder_of_the_one_that_was_first_stays(tmp_path: Path) -> None:
    final = tmp_path / "final"
    with files.complete_folder(final) as late:
        with files.complete_folder(final) as early:
            (early / "file").write_text("early")
        (late / "file").write_text("late")
    assert (final / "file").read_text() == "early"
    assert [path.name for path in tmp_path.iterdir()] == ["final"]


def test_one_at_a_time(tmp_path: Path) -> None:
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
