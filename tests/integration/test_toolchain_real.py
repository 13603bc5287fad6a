"""Tests of toolkits, environments and locks with the real package index, compiler and uv."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from scripts.errors import CommandError, ToolchainError
from scripts.locks import generate
from scripts.matrix import torch_builds
from scripts.model import ROOT, Bounds, Provider, Toolkit
from scripts.support import environments
from scripts.support.process import call, which
from scripts.toolchain import providers
from tests.loopback import Server, serve

pytestmark = pytest.mark.integration

EM_CUDA = 190
KERNEL = """
#include <cstdio>
#include <cuda_runtime.h>
#include <cuda/std/cstdint>
__global__ void twice(float* x) { x[threadIdx.x] *= 2; }
int main() { int version; cudaRuntimeGetVersion(&version); printf("%d", version); }
"""


def toolkit(cuda: str, provider: str) -> Toolkit:
    tag = "cu" + cuda.replace(".", "")
    held = Provider("pypi", f"requirements/toolkits/{tag}.txt") if provider == "pypi" else Provider("system")
    return Toolkit(cuda, (held,), ("9.0",), "9.0", Bounds(), Bounds())


@pytest.fixture(scope="package")
def index(machine: None) -> None:
    """Skip the test if the package index that uv uses does not answer."""
    address = os.environ.get("UV_DEFAULT_INDEX", "https://pypi.org/simple/")
    try:
        urllib.request.urlopen(address.rstrip("/") + "/packaging/", timeout=20).close()
    except OSError as error:
        pytest.skip(f"needs the package index ({error}); set UV_DEFAULT_INDEX to one that can be reached")


@pytest.fixture
def compiler() -> None:
    if which("g++") is None:
        pytest.skip("needs a C++ compiler: apt-get install g++")


@pytest.mark.parametrize("cuda", ["13.0", "13.2"])
def test_toolkit_from_the_package_index_compiles(index: None, compiler: None, tmp_path: Path, cuda: str) -> None:
    """Compile a kernel for sm_90 and a program, and run it; no other CUDA of this machine is visible."""
    home = providers.provide(toolkit(cuda, "pypi"), cache=tmp_path)
    source = tmp_path / "twice.cu"
    source.write_text(KERNEL)
    alone = {"PATH": "/usr/bin:/bin", "CUDA_HOME": "", "CUDA_PATH": "", "CPATH": "", "LD_LIBRARY_PATH": ""}
    call([home.path / "bin" / "nvcc", "-arch=sm_90", "-cubin", source, "-o", tmp_path / "twice.cubin"], env=alone)
    with (tmp_path / "twice.cubin").open("rb") as file:
        elf = ELFFile(file)
        assert elf.header["e_machine"] in (EM_CUDA, "EM_CUDA")
        assert [section.name for section in elf.iter_sections() if section.name.startswith(".text.")]
    call([home.path / "bin" / "nvcc", "-arch=sm_90", "-cudart", "shared", source, "-o", tmp_path / "twice"], env=alone)
    runtime = {"LD_LIBRARY_PATH": str(home.path / "lib64")}
    major, minor = cuda.split(".")
    assert call([tmp_path / "twice"], env=runtime, quiet=True) == f"{int(major) * 1000 + int(minor) * 10}"


def test_finds_the_toolkit_of_the_system(compiler: None) -> None:
    if which("nvcc") is None and not os.environ.get("CUDA_HOME"):
        pytest.skip("needs a CUDA toolkit on the system: set CUDA_HOME")
    for cuda in ("11.8", "12.4", "12.6", "12.8", "13.0", "13.2"):
        if providers.availability(toolkit(cuda, "system")) is None:
            assert providers.provide(toolkit(cuda, "system")).version.startswith(f"{cuda}.")
            break
    else:
        pytest.skip("the matrix has no toolkit with the version of the system's CUDA: set CUDA_HOME to one of them")
    with pytest.raises(ToolchainError, match=r"not 10\.2"):
        providers.provide(toolkit("10.2", "system"))


def test_refuses_a_toolkit_with_a_wrong_hash(index: None, tmp_path: Path) -> None:
    lock = tmp_path / "cu130.txt"
    text = (ROOT / "requirements/toolkits/cu130.txt").read_text()
    lock.write_text(re.sub(r"sha256:[0-9a-f]{8}", "sha256:00000000", text))
    with pytest.raises(CommandError) as raised:
        providers.provide(Toolkit("13.0", (Provider("pypi", str(lock)),), (), "", Bounds(), Bounds()), cache=tmp_path)
    assert "hash" in raised.value.output.lower()
    assert not list((tmp_path / "toolkits").iterdir())


def one_pin(name: str) -> str:
    """Return the lines of requirements/pipeline.txt that pin ``name``."""
    match = re.search(rf"^{name}==.*\n(    .*\n)+", (ROOT / "requirements/pipeline.txt").read_text(), re.MULTILINE)
    assert match
    return match[0]


def wheel(path: Path, name: str, version: str) -> bytes:
    """Write a wheel that contains one module, ``name``, and return its bytes."""
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", "stand_in = True\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", f"{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return path.read_bytes()


def test_environment_ignores_a_local_wheel_with_another_hash(
    index: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PIP_FIND_LINKS and UV_FIND_LINKS name a folder with a wheel of the same name and version."""
    lock = tmp_path / "lock.txt"
    lock.write_text(one_pin("packaging"))
    version = lock.read_text().partition("==")[2].split()[0]
    trap = tmp_path / "trap"
    trap.mkdir()
    wheel(trap / f"packaging-{version}-py3-none-any.whl", "packaging", version)
    for variable in ("PIP_FIND_LINKS", "UV_FIND_LINKS"):
        monkeypatch.setenv(variable, str(trap))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    try:
        made = environments.create(Path(sys.executable), [lock], cache=tmp_path)
    except CommandError as error:
        assert "hash" in error.output.lower()
        return
    call([environments.interpreter(made), "-c", "import packaging.version"], quiet=True)


def test_refuses_an_environment_with_a_wrong_hash(index: None, tmp_path: Path) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_text(re.sub(r"sha256:[0-9a-f]{8}", "sha256:00000000", one_pin("packaging")))
    with pytest.raises(CommandError) as raised:
        environments.create(Path(sys.executable), [lock], cache=tmp_path)
    assert "hash" in raised.value.output.lower()
    assert not list(tmp_path.glob("environments/*/complete.json"))


def test_locking_again_keeps_the_pins(index: None, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    [again] = generate.select(["cu130"], tmp_path)
    before = again.output.read_bytes()
    generate.make(again)
    assert again.output.read_bytes() == before


@pytest.fixture
def channel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Serve PyTorch's channel for CUDA 13.0, which has only a stand-in for torch."""
    name = "torch-2.9.1+cu130-py3-none-any.whl"
    content = wheel(tmp_path / name, "torch", "2.9.1+cu130")
    digest = hashlib.sha256(content).hexdigest()
    with serve() as server:
        server.files["cu130/torch/"] = f'<a href="../{name}#sha256={digest}">{name}</a>'.encode()
        server.files[f"cu130/{name}"] = content
        monkeypatch.setattr(torch_builds, "PYTORCH_CHANNEL", server.url)
        monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
        yield server


def test_locks_and_installs_torch_from_its_channel(index: None, channel: Server, tmp_path: Path) -> None:
    """Only torch comes from the channel; the other packages come from the package index."""
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    [asked] = generate.select(["2.9.1-cu130"], tmp_path)
    generate.make(asked)
    assert generate.problems(asked) == []
    made = environments.create(Path(sys.executable), [asked.output], cache=tmp_path)
    call([environments.interpreter(made), "-c", "import torch; assert torch.stand_in; import numpy"], quiet=True)
