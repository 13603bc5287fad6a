"""Files are written completely or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.support.files import replace_atomic, write_atomic


def test_write_atomic_replaces_the_file_and_leaves_no_other(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    assert write_atomic(path, "old\n") == path
    write_atomic(path, b"\xff\n")
    assert path.read_bytes() == b"\xff\n"
    assert list(path.parent.iterdir()) == [path]


def test_write_atomic_writes_text_as_utf8_without_translating_newlines(tmp_path: Path) -> None:
    assert write_atomic(tmp_path / "file.txt", "é\n").read_bytes() == b"\xc3\xa9\n"


def test_replace_atomic_keeps_the_old_file_if_the_block_raises(tmp_path: Path) -> None:
    path = write_atomic(tmp_path / "file.txt", "old")
    with pytest.raises(RuntimeError), replace_atomic(path) as temporary:
        temporary.write_text("incomplete")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_replace_atomic_shows_the_new_file_only_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    with replace_atomic(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
