"""Build one real cell twice with cibuildwheel, in a container of the local build image."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.build import cibuildwheel, repair
from scripts.errors import BuildError, CommandError, ToolchainError
from scripts.matrix import matrix
from scripts.model import Cell
from scripts.source import patching, upstream
from scripts.support import environments
from scripts.support.files import file_sha256
from scripts.toolchain import providers
from scripts.wheel import build_info, wheel_file
from tests.integration import container

pytestmark = pytest.mark.integration

EPOCH = 1577836800


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    if reason := container.unavailable():
        pytest.skip(f"needs the local build image: {reason}")
    name = container.ensure_image()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CIBW_CONTAINER_ENGINE", "podman")
        for variable, value in container.environment(name).items():
            patch.setenv(variable, value)
        yield name


@pytest.fixture(scope="module")
def cell() -> Cell:
    """Return the cell with release 0.3.3.1, CUDA 13.0, its newest torch, and a Python that the image has."""
    held = {interpreter.tag for interpreter in container.find_interpreters()}
    python = "cp312" if "cp312" in held else max(held)
    return matrix.load().select([f"0.3.3.1-{python}-cu130-*-linux_x86_64"])[-1]


def build(cell: Cell, image: str, folder: Path) -> Path:
    """Build the wheel of ``cell`` for one architecture, with all machine-dependent paths below ``folder``."""
    tree = patching.prepare(cell.release, upstream.fetch(cell.release), folder / "tree")
    return cibuildwheel.run(
        tree.path,
        cell,
        cuda_home=providers.provide(cell.toolkit, cache=folder / "toolkits").path,
        torch_lock=environments.torch_lock(cell),
        cache=folder / "objects",
        architectures=("9.0+PTX",),
        epoch=EPOCH,
        destination=folder / "dist",
        image=image,
    )


def test_two_builds_give_the_same_bytes(cell: Cell, image: str, tmp_path: Path) -> None:
    first = build(cell, image, tmp_path / "first")
    second = build(cell, image, tmp_path / "another folder" / "deeper")
    assert first.name == cell.wheel
    assert file_sha256(first) == file_sha256(second)
    repair.assert_bundled(first, cell)
    unpacked = wheel_file.unpack(first, tmp_path / "unpacked")
    info = build_info.BuildInfo.parse(unpacked.read("nvdiffrast/build_info.json"))
    assert info.cell == cell.id
    assert info.partial
    assert info.architectures.sass == ["9.0"]


def test_refuses_an_image_with_an_unsuitable_compiler(
    cell: Cell, image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cibuildwheel, "_STAGE", cibuildwheel._STAGE.replace("env ", "env CXX=/bin/false ", 1))
    with pytest.raises(BuildError):
        build(cell, image, tmp_path)
    shown = capfd.readouterr().err
    assert "/bin/false" in shown
    assert "Building wheel" not in shown


def test_reports_a_missing_image(cell: Cell, image: str, tmp_path: Path) -> None:
    with pytest.raises((BuildError, ToolchainError, CommandError)):
        build(cell, f"{image}-absent", tmp_path)
    assert not list((tmp_path / "dist").iterdir())
