"""scripts.support.interpreters: find a CPython of a version line, with headers."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.support import interpreters
from scripts.support.process import call

ANSWER = '["{}", "{}", {}, "{}"]'


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    interpreters.find.cache_clear()
    yield
    interpreters.find.cache_clear()


def fake(
    path: Path, *, line: str, implementation: str = "CPython", threads: str = "false", headers: bool = True
) -> Path:
    """Create a program at ``path`` that answers like an interpreter."""
    path.parent.mkdir(parents=True)
    if headers:
        (path.parent / "Python.h").touch()
    answer = ANSWER.format(implementation, line, threads, path.parent)
    path.write_text(f"#!/bin/sh\necho noise\necho '{answer}'\n")
    path.chmod(0o755)
    return path


@pytest.mark.skipif(os.name == "nt", reason="the stand-ins are shell scripts")
@pytest.mark.parametrize(
    "spoilt",
    [{"line": "3.8"}, {"implementation": "PyPy"}, {"threads": "true"}, {"headers": False}],
    ids=["another line", "another Python", "free-threaded", "no headers"],
)
def test_skips_unusable_interpreters(spoilt: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    fake(tmp_path / "versions/3.99.10/bin/python", **{"line": "3.99", **spoilt})  # type: ignore[arg-type]
    good = fake(tmp_path / "versions/3.99.9/bin/python", line="3.99")
    assert interpreters.find("3.99") == good


@pytest.mark.skipif(os.name == "nt", reason="the stand-ins are shell scripts")
def test_prefers_the_newest_patch_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    fake(tmp_path / "versions/3.99.9/bin/python", line="3.99")
    newest = fake(tmp_path / "versions/3.99.10/bin/python", line="3.99")
    fake(tmp_path / "versions/3.99-mine/bin/python", line="3.99")
    assert interpreters.find("3.99") == newest


def test_returns_none_if_no_interpreter_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    assert interpreters.find("3.99") is None


def test_finds_the_base_interpreter_of_the_environment() -> None:
    line = f"{sys.version_info[0]}.{sys.version_info[1]}"
    found = interpreters.find(line)
    if found is None:
        pytest.skip("the interpreter that runs the tests has no headers; install python3-dev")
    answer = call([found, "-c", "import sys; print(sys.version_info[:2], sys.prefix == sys.base_prefix)"], quiet=True)
    assert answer.strip() == f"{sys.version_info[:2]} True"
