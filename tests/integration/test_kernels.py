"""Compile a kernel of the real release in different folders, and compare the bytes."""

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
    """Import the overlay's module wheel_build/objects.py, which setup.py of the patched tree uses."""
    path = PATCHES / "common" / "overlay" / "wheel_build" / "objects.py"
    spec = importlib.util.spec_from_file_location("wheel_build_objects", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # The decorator dataclass looks up the module in sys.modules.
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


def test_kernel_bytes_do_not_depend_on_the_folder(objects: ModuleType, nvcc: object, tmp_path: Path) -> None:
    release = matrix.load().release("0.3.3.1")
    if reason := upstream.availability(release):
        pytest.skip(f"0.3.3.1 is not available: {reason}; fetch it once: nox -s fetch -- 0.3.3.1")
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


def test_refuses_a_folder_that_other_users_can_write(objects: ModuleType) -> None:
    key = uuid.uuid4().hex
    path = Path(f"/tmp/nvdiffrast-{key[:16]}")
    path.mkdir(mode=0o700)
    try:
        path.chmod(0o777)
        with pytest.raises(SystemExit, match="is not private to this user"), objects.fixed_folder(key):
            pass
    finally:
        shutil.rmtree(path)


def test_removes_the_files_of_an_interrupted_build(objects: ModuleType) -> None:
    key = uuid.uuid4().hex
    path = Path(f"/tmp/nvdiffrast-{key[:16]}")
    path.mkdir(mode=0o700)
    (path / "left").write_text("half")
    with objects.fixed_folder(key) as folder:
        assert list(folder.iterdir()) == []
    assert not path.exists()
