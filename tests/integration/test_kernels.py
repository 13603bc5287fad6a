"""Kernels of the real release come out the same wherever the tree lies, PTX included."""

from __future__ import annotations

import importlib.util
import shutil
import sys
import uuid
from pathlib import Path
from types import ModuleType

import pytest

from scripts.errors import PipelineError
from scripts.matrix import matrix
from scripts.source import patching, upstream
from scripts.source.patching import PATCHES
from scripts.toolchain import compilers, providers

pytestmark = pytest.mark.integration

SOURCE = "nvdiffrast/common/interpolate.cu"
FOLDERS = ["nvdiffrast/common"]


@pytest.fixture
def objects() -> ModuleType:
    """The overlay's own module, as the patched tree's setup.py imports it."""
    path = PATCHES / "common" / "overlay" / "wheel_build" / "objects.py"
    spec = importlib.util.spec_from_file_location("wheel_build_objects", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # dataclasses look their own module up.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def nvcc(objects: ModuleType) -> object:
    toolkit = matrix.load().toolkit("cu130")
    try:
        compiler = compilers.check_host(toolkit, needs_gl=False)
        home = providers.provide(toolkit)
    except PipelineError as error:
        pytest.skip(f"{error}; {error.hint}")
    flags = ("-DNVDR_TORCH", "--compiler-options", "-fPIC", "-gencode=arch=compute_90,code=compute_90")
    return objects.Nvcc(str(home.path / "bin" / "nvcc"), home.version, str(compiler.path), compiler.version, flags)


def test_the_same_bytes_from_any_folder(objects: ModuleType, nvcc: object, tmp_path: Path) -> None:
    release = matrix.load().release("0.3.3.1")
    if reason := upstream.availability(release):
        pytest.skip(f"0.3.3.1 cannot be had: {reason}; fetch it once: nox -s fetch -- 0.3.3.1")
    made = []
    for name in ("one", "another/in a deeper folder"):
        tree = tmp_path / name / "tree"
        (tree.parent).mkdir(parents=True)
        patching.prepare(release, upstream.fetch(release), tree)
        kernel = objects.compile_kernel(
            tree, SOURCE, FOLDERS, nvcc, objects.ObjectStore(None), tmp_path / name / "build", objects.Progress(1)
        )
        made.append(kernel.read_bytes())
    assert made[0] == made[1]


def test_a_folder_of_somebody_elses_is_refused(objects: ModuleType) -> None:
    key = uuid.uuid4().hex
    path = Path(f"/tmp/nvdiffrast-{key[:16]}")
    path.mkdir(mode=0o700)
    try:
        path.chmod(0o777)
        with pytest.raises(SystemExit, match="is not private to this user"), objects.fixed_folder(key):
            pass
    finally:
        shutil.rmtree(path)


def test_what_an_interrupted_build_left_is_cleared(objects: ModuleType) -> None:
    key = uuid.uuid4().hex
    path = Path(f"/tmp/nvdiffrast-{key[:16]}")
    path.mkdir(mode=0o700)
    (path / "left").write_text("half")
    with objects.fixed_folder(key) as folder:
        assert list(folder.iterdir()) == []
    assert not path.exists()
