"""Tests of wheel_build/objects.py of the overlay: the progress messages."""

from __future__ import annotations

import importlib.util
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import pytest

from scripts.model import ROOT

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="on Windows torch's own build compiles the kernels")


@pytest.fixture(scope="module")
def objects() -> ModuleType:
    path = ROOT / "patches" / "common" / "overlay" / "wheel_build" / "objects.py"
    spec = importlib.util.spec_from_file_location("wheel_build_objects", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_prints_the_time_of_a_compiled_file_but_not_of_a_reused_one(
    objects: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = tmp_path / "tree"
    (tree / "src").mkdir(parents=True)
    (tree / "src" / "one.cu").write_text(str(tmp_path))
    compiler = tmp_path / "nvcc"
    compiler.write_text('#!/bin/sh\nfor last; do :; done\necho object > "$last"\n')
    compiler.chmod(0o755)
    nvcc = objects.Nvcc(str(compiler), "13.0", "g++", "12", ())
    store = objects.ObjectStore(tmp_path / "store")
    for _ in range(2):
        objects.compile_kernel(tree, "src/one.cu", ["src"], nvcc, store, tmp_path / "build", objects.Progress(2))
    compiled, kept = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"\[1/2\] src/one\.cu: compiled in \d+ s, \d+ s since the build began", compiled)
    assert kept == "[1/2] src/one.cu: kept from an earlier build"


def test_does_not_mix_the_lines_of_several_threads(objects: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    printed: list[str] = []

    class Slow:
        """A slow standard output, so that other threads run before each part of a line."""

        def write(self, text: str) -> int:
            time.sleep(0.001)
            printed.append(text)
            return len(text)

        def flush(self) -> None:
            pass

    monkeypatch.setattr(sys, "stdout", Slow())
    progress = objects.Progress(20)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(progress.kept, [f"{number}.cu" for number in range(20)]))
    monkeypatch.undo()
    lines = "".join(printed).splitlines()
    assert [line.split("]")[0] for line in lines] == [f"[{number}/20" for number in range(1, 21)]
    assert all(line.endswith(" kept from an earlier build") for line in lines)
