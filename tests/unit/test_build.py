"""Inputs of a build, the part of its output that is shown, and its summary."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest

from scripts.build import build, cell_wheel, cibuildwheel, inputs
from scripts.build.build import Result
from scripts.errors import BuildError
from scripts.matrix import matrix
from scripts.model import Cell
from scripts.source import patching, upstream
from scripts.support import download_sizes, interpreters
from scripts.support.files import file_sha256
from scripts.toolchain import compilers, providers
from scripts.wheel import wheel_file
from tests.unit.materials_factory import materials_of
from tests.unit.wheel_factory import CELL, text_parts

CELLS = matrix.load()


def cell(glob: str) -> Cell:
    return CELLS.select([glob])[0]


PYPI = cell("0.3.3.1-cp312-cu130-torch2.14-linux_x86_64")
PYTORCH = cell("0.3.3.1-cp312-cu126-torch2.8-linux_x86_64")
WINDOWS = cell("0.3.3.1-cp312-cu130-torch2.13-win_amd64")


def made(one: Cell, folder: Path, outcome: str = "passed") -> Result:
    wheel = folder / one.wheel
    wheel.parent.mkdir(exist_ok=True)
    wheel.write_bytes(b"wheel")
    return Result(one, outcome, "", 61.0, wheel)


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (PYPI, [f"  pip install torch==2.14.1 dist/{PYPI.wheel}"]),
        (
            PYTORCH,
            [
                "  pip install torch==2.8.0 --index-url https://download.pytorch.org/whl/cu126",
                f"  pip install dist/{PYTORCH.wheel}",
            ],
        ),
        (
            WINDOWS,
            [
                "  pip install torch==2.13.0 --index-url https://download.pytorch.org/whl/cu130",
                f"  pip install dist/{WINDOWS.wheel}",
            ],
        ),
    ],
    ids=["torch of PyPI", "torch of PyTorch's channel", "Windows"],
)
def test_prints_the_command_that_installs_the_wheel(
    one: Cell,
    expected: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    build.summarize([made(one, tmp_path / "dist")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[-len(expected) - 1 :] == ["To install it in an environment of CPython 3.12:", *expected]


def test_prints_the_absolute_path_of_a_wheel_outside_the_current_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build.summarize([made(PYPI, tmp_path / "a folder")])
    assert f"torch==2.14.1 '{tmp_path}/a folder/{PYPI.wheel}'" in capsys.readouterr().out


def test_prints_the_hash_in_the_format_of_sha256sum(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = made(PYPI, tmp_path)
    build.summarize([result])
    assert result.wheel is not None
    assert f"{file_sha256(result.wheel)}  {result.wheel}" in capsys.readouterr().out.splitlines()


def test_prints_no_command_for_a_wheel_that_failed_its_audit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build.summarize([made(PYPI, tmp_path, "failed"), Result(PYTORCH, "failed", "BuildError", 3.0)])
    assert "pip install" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("[3/14] common/texture.cu: compiled in 38 s, 41 s since the build began\n", True),
        ("[1/14] common/antialias.cu: kept from an earlier build\n", True),
        ("FAILED: [code=1] host.o\n", True),
        ("error: no CUDA toolkit\n", True),
        ("[1/2] c++ -MMD -MF host.o.d -O2 host.cpp\n", False),
        ("[1/2] /usr/bin/g++-12 -MMD -MF host.o.d -O2 host.cpp\n", False),
        ("copying build/lib\n", False),
    ],
)
def test_shows_only_progress_and_errors_of_a_build(line: str, shown: bool) -> None:
    assert cell_wheel.is_progress(line) == shown


def test_announces_downloads_before_it_fetches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NVDIFFRAST_WHEELS_CACHE", str(tmp_path))
    monkeypatch.setattr(inputs, "choose_engine", lambda *_: "host")
    monkeypatch.setattr(compilers, "check_host", lambda *_, **__: None)
    monkeypatch.setattr(interpreters, "find", lambda _: Path(sys.executable))
    announced: list[str] = []
    monkeypatch.setattr(download_sizes, "announce", lambda title, *_: announced.append(title))

    def fetch(*_: object, **__: object) -> Path:
        assert announced == ["CUDA 13.0", "torch 2.14.1"]
        raise StopIteration

    monkeypatch.setattr(upstream, "fetch", fetch)
    options = inputs.Options("host", (), None, None, tmp_path, None, None)
    with pytest.raises(StopIteration):
        inputs.gather(PYPI, options)


def test_does_not_fetch_an_available_toolkit(tmp_path: Path) -> None:
    toolkit = PYPI.toolkit
    lock = providers.to_fetch(toolkit, cache=tmp_path)
    assert lock is not None and lock.name == "cu130.txt"
    (made,) = {providers._cache_folder(toolkit, one, lock, tmp_path) for one in toolkit.providers if one.kind == "pypi"}
    made.mkdir(parents=True)
    assert providers.to_fetch(toolkit, cache=tmp_path) is None
    assert providers.to_fetch(replace(toolkit, providers=()), cache=tmp_path) is None


def test_auto_builds_on_the_host_unless_an_image_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cibuildwheel, "availability", lambda: None)
    assert PYPI.platform.image is not None
    assert inputs.choose_engine(PYPI, "auto", None) == "host"
    assert inputs.choose_engine(PYPI, "auto", "example.org/image") == "cibuildwheel"
    assert inputs.choose_engine(WINDOWS, "auto", None) == "cibuildwheel"
    monkeypatch.setattr(cibuildwheel, "availability", lambda: "no engine answers")
    assert inputs.choose_engine(PYPI, "auto", "example.org/image") == "host"


@pytest.mark.parametrize(
    ("engine", "named", "expected"),
    [
        ("host", None, None),
        ("host", "example.org/image", None),
        ("cibuildwheel", None, PYPI.platform.image),
        ("cibuildwheel", "example.org/image", "example.org/image"),
    ],
)
def test_the_pinned_image_is_used_by_containers_only(engine: str, named: str | None, expected: str | None) -> None:
    assert inputs.container_image(PYPI, engine, named) == expected


@pytest.mark.parametrize("change", [None, "0" * 64])
def test_refuses_a_wheel_of_another_series(change: str | None, tmp_path: Path) -> None:
    series = patching.read_series(CELL.release.series)
    parts = text_parts()
    parts.edit_info(series_sha256=change or series.sha256)
    wheel = wheel_file.unpack(parts.write(tmp_path), tmp_path / "unpacked")
    home = providers.CudaHome(tmp_path, "13.0.88", "system", MappingProxyType({}), None)
    made = inputs.Inputs(
        cell=CELL,
        engine="host",
        image=None,
        architectures=CELL.toolkit.policy,
        pristine=tmp_path,
        series=series,
        cuda=home,
        compiler=None,
        python=None,
        torch_lock=tmp_path,
        materials=materials_of(),
    )
    with nullcontext() if change is None else pytest.raises(BuildError, match="another series"):
        assert cell_wheel.read_build_info(wheel, made).series_sha256 == series.sha256
