"""Tests of the doctor with working and broken drivers, which are small C libraries named libcuda.so.1."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from scripts.model import ROOT

OVERLAY = ROOT / "patches" / "common" / "overlay" / "nvdiffrast"
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        shutil.which("gcc") is None or sys.platform != "linux", reason="needs gcc on Linux: apt-get install gcc"
    ),
]

# A driver for CUDA 13.0 with one GPU; most tests replace one of its functions.
FUNCTIONS = {
    "cuDriverGetVersion": "int cuDriverGetVersion(int *version) { *version = 13000; return 0; }",
    "cuInit": "int cuInit(unsigned flags) { return 0; }",
    "cuGetErrorName": 'int cuGetErrorName(int code, const char **name) { *name = "CUDA_ERROR_X"; return 0; }',
    "cuDeviceGetCount": "int cuDeviceGetCount(int *count) { *count = 1; return 0; }",
    "cuDeviceGet": "int cuDeviceGet(int *device, int number) { *device = number; return 0; }",
    "cuDeviceGetName": 'int cuDeviceGetName(char *name, int size, int device) { strcpy(name, "A GPU"); return 0; }',
    "cuDeviceTotalMem_v2": "int cuDeviceTotalMem_v2(size_t *size, int device) { *size = 1ul << 33; return 0; }",
    "cuDeviceGetAttribute": (
        "int cuDeviceGetAttribute(int *value, int key, int device) { *value = key == 75 ? 9 : 0; return 0; }"
    ),
}
HEAD = "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n#include <unistd.h>\n"


@pytest.fixture
def installation(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Import the overlay's _installation under another package name, with a short time limit for the driver."""
    package = ModuleType("asked")
    package.__path__ = [str(OVERLAY)]
    monkeypatch.setitem(sys.modules, "asked", package)
    monkeypatch.setattr(importlib.import_module("asked._doctor_driver"), "SECONDS", 3)
    yield importlib.import_module("asked._installation")
    for name in [name for name in sys.modules if name.startswith("asked.")]:
        del sys.modules[name]


def provide(folder: Path, monkeypatch: pytest.MonkeyPatch, **changes: str) -> Path:
    """Compile libcuda.so.1 with ``changes`` of its functions and set LD_LIBRARY_PATH to its folder; return the file."""
    folder.mkdir(exist_ok=True)
    source = folder / "cuda.c"
    source.write_text(HEAD + "\n".join({**FUNCTIONS, **changes}.values()) + "\n")
    library = folder / "libcuda.so.1"
    subprocess.run(["gcc", "-shared", "-fPIC", "-w", source, "-Wl,-soname,libcuda.so.1", "-o", library], check=True)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(folder))
    return library


def test_reads_the_answer_of_a_driver(
    installation: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provide(tmp_path, monkeypatch)
    assert installation.driver_error() is None
    assert installation.driver()["cuda"] == "13.0"
    assert installation.devices() == [{"name": "A GPU", "capability": "9.0", "memory": 1 << 33}]


def test_does_not_load_the_driver_into_its_own_process(
    installation: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = provide(tmp_path, monkeypatch)
    assert installation.driver() is not None
    assert str(library) not in Path("/proc/self/maps").read_text()


def test_ignores_lines_that_the_driver_prints(
    installation: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provide(tmp_path, monkeypatch, cuInit='int cuInit(unsigned flags) { puts("{}"); printf("hello"); return 0; }')
    assert installation.driver_error() is None
    assert len(installation.devices()) == 1


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param(
            {"cuInit": "int cuInit(unsigned flags) { sleep(600); return 0; }"},
            "cuInit gave no answer within 3 s",
            id="hang",
        ),
        pytest.param(
            {"cuInit": "int cuInit(unsigned flags) { abort(); }"},
            "cuInit ended the process: signal SIGABRT",
            id="abort",
        ),
        pytest.param(
            {"cuInit": 'int cuInit(unsigned flags) { fputs("bad state\\n", stderr); exit(3); }'},
            "cuInit ended the process: exit status 3",
            id="exit",
        ),
        pytest.param(
            {"cuInit": "int cuInit(unsigned flags) { return 803; }"},
            "cuInit failed with 803 (CUDA_ERROR_X)",
            id="error",
        ),
        pytest.param({"cuInit": ""}, "has no function cuInit", id="no cuInit"),
        pytest.param(
            {"cuDeviceGetName": "int cuDeviceGetName(char *name, int size, int device) { return 999; }"},
            "cuDeviceGetName failed with 999",
            id="device",
        ),
    ],
)
def test_reports_the_failed_call_of_a_broken_driver(
    installation: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, str],
    expected: str,
) -> None:
    library = provide(tmp_path, monkeypatch, **changes)
    error = installation.driver_error()
    assert error["code"] == "driver-broken"
    assert expected in error["summary"]
    assert any(str(library) in detail for detail in error["details"])
    assert installation.devices() == []


def test_keeps_the_answers_before_a_hang(
    installation: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provide(tmp_path, monkeypatch, cuInit="int cuInit(unsigned flags) { sleep(600); return 0; }")
    assert installation.driver()["cuda"] == "13.0"


def test_reports_no_error_of_a_driver_without_a_gpu(
    installation: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provide(tmp_path, monkeypatch, cuInit="int cuInit(unsigned flags) { return 100; }")
    assert installation.driver_error() is None
    assert installation.driver()["cuda"] == "13.0"
    assert installation.devices() == []


def test_reports_the_stub_library_of_a_toolkit(
    installation: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stubs = tmp_path / "stubs"
    always = {name: text.partition("{")[0] + "{ return 34; }" for name, text in FUNCTIONS.items()}
    library = provide(stubs, monkeypatch, **always)
    error = installation.driver_error()
    assert error["code"] == "driver-stub"
    assert str(library) in error["summary"]
    assert error["hint"] == "unset LD_LIBRARY_PATH"
    assert installation.driver() is None
    monkeypatch.setenv("LD_LIBRARY_PATH", f"/opt/other:{stubs}")
    importlib.import_module("asked._doctor_driver").query.cache_clear()
    assert installation.driver_error()["hint"] == "export LD_LIBRARY_PATH=/opt/other"


def test_reports_a_file_that_is_not_a_library(
    installation: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "libcuda.so.1").write_text("<html>404</html>" * 8)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    error = installation.driver_error()
    assert error["code"] == "driver-broken"
    assert "libcuda.so.1" in error["summary"] and "invalid ELF header" in error["summary"]


def test_the_doctor_continues_after_a_driver_that_aborts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site" / "nvdiffrast"
    shutil.copytree(OVERLAY, package)
    (package / "__init__.py").touch()
    provide(tmp_path / "driver", monkeypatch, cuInit="int cuInit(unsigned flags) { abort(); }")
    done = subprocess.run(
        [sys.executable, "-m", "nvdiffrast.doctor", "--json"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(package.parent), "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)},
    )
    assert done.returncode == 1, done.stderr
    data = json.loads(done.stdout)
    codes = [line["code"] for line in data["lines"] if line["section"] == "driver and GPUs"]
    assert codes.count("driver-broken") == 1
    assert "driver-missing" not in codes
    assert data["facts"]["driver"]["cuda"] == "13.0"


@pytest.mark.skipif(Path("/proc/driver/nvidia").exists(), reason="this machine has a driver")
def test_reports_that_there_is_no_driver(installation: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    assert (installation.driver(), installation.devices(), installation.driver_error()) == (None, [], None)
