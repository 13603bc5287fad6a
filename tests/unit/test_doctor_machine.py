"""`nox -s doctor`: the doctor of any Python, and what the machine has to build with."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts import cibuildwheel, compilers, doctor, interpreters, matrix, toolchain, upstream
from scripts.errors import ToolchainError, UsageError
from tests.unit.test_doctor import DIAGNOSIS, GPU, INFO, INSTALLATION, TORCH


@pytest.fixture
def overlay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The overlay's doctor, with facts that a test states."""
    folder = tmp_path / "overlay"
    shutil.copytree(doctor.OVERLAY, folder)
    (folder / "_installation.py").write_text(INSTALLATION)
    (folder / "_diagnosis.py").write_text(DIAGNOSIS)
    (folder / "problems.json").write_text("{}")
    tell(folder)
    monkeypatch.setattr(doctor, "OVERLAY", folder)
    monkeypatch.setattr(upstream, "availability", lambda release: None)
    monkeypatch.setattr(toolchain, "availability", lambda toolkit: None)
    monkeypatch.setattr(cibuildwheel, "availability", lambda: "no engine answers")
    monkeypatch.setattr(interpreters, "find", lambda python: Path("python"))
    monkeypatch.setattr(
        compilers, "check_host", lambda toolkit, needs_gl: compilers.HostCompiler(Path("g"), "g++", "12")
    )
    before = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "nvdiffrast"}
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "nvdiffrast"]:
        del sys.modules[name]
    sys.modules.update(before)


def tell(folder: Path, **changes: Any) -> None:
    facts = {"torch": TORCH, "build_info": None, "driver": {"version": "1", "cuda": "13.0"}, "devices": [GPU]}
    (folder / "facts.json").write_text(json.dumps({**facts, "plugins": [], **changes}))


def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["doctor", "--python", sys.executable, *arguments])
    return doctor.main(), capsys.readouterr().out


@pytest.mark.usefixtures("overlay")
class TestMachine:
    def test_all_is_well(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        code, out = run(capsys, monkeypatch)
        assert "build machine\n  ok       g++ 12, g\n  ok       headers and libraries of GL and EGL\n" in out
        # The Python of the tests may lack numpy.
        assert code == int("numpy is not installed" in out)
        cell = rf"\S+-cp{sys.version_info[0]}{sys.version_info[1]}-cu130-torch2\.14-"
        assert re.search(rf"^  nox -s build -- {cell}", out, re.MULTILINE)

    def test_no_compiler(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        def absent(toolkit: Any, needs_gl: bool) -> None:
            raise ToolchainError("no C++ compiler", mend="apt-get install g++")

        monkeypatch.setattr(compilers, "check_host", absent)
        code, out = run(capsys, monkeypatch)
        assert code == 1
        assert "  FAILED   no C++ compiler\n      next: apt-get install g++\n" in out

    def test_no_headers(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        def headless(toolkit: Any, needs_gl: bool) -> compilers.HostCompiler:
            if needs_gl:
                raise ToolchainError("no EGL/egl.h", mend="apt-get install libegl-dev")
            return compilers.HostCompiler(Path("g"), "g++", "12")

        monkeypatch.setattr(compilers, "check_host", headless)
        code, out = run(capsys, monkeypatch)
        assert code == 1
        assert "no EGL/egl.h\n      next: apt-get install libegl-dev\n" in out

    def test_no_default_toolkit(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(toolchain, "availability", lambda toolkit: "unlocked")
        code, out = run(capsys, monkeypatch)
        assert code == 1
        assert [line for line in out.splitlines() if "FAILED" in line and "CUDA" in line] == [
            "  FAILED   CUDA 13.0: unlocked"
        ]

    def test_json_and_share(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        _, out = run(capsys, monkeypatch, "--json", "--share")
        data = json.loads(out)
        assert {line["section"] for line in data["lines"]} >= {"torch", "build machine"}
        assert str(Path.home()) not in out
        assert sys.prefix not in out

    def test_no_python(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        broken = tmp_path / "python"
        broken.write_text("#!/bin/sh\necho it is ancient >&2; exit 1\n")
        broken.chmod(0o755)
        monkeypatch.setattr(sys, "argv", ["doctor", "--python", str(broken)])
        with pytest.raises(UsageError, match=r"python cannot run the doctor: it is ancient"):
            doctor.main()

    def test_only_a_small_disk(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(doctor, "_FIRST_BUILD_GIB", 1 << 40)
        assert "warning" in {state for state, _, _ in doctor.build_machine(matrix.load())}


def test_an_installed_doctor_is_asked_itself(overlay: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    shutil.copytree(overlay, site / "nvdiffrast")
    (site / "nvdiffrast" / "__init__.py").touch()
    tell(site / "nvdiffrast", build_info=INFO)
    monkeypatch.setenv("PYTHONPATH", str(site))
    report = doctor.of_python(doctor.load_overlay(), Path(sys.executable), ["--no-gpu"])
    assert report.facts["build_info"]["torch"] == "2.14.1"
    assert "not-compiled" in {line.code for line in report.lines}


def test_the_python_of_this_environment_is_not_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "python3").write_text("#!/bin/sh\n")
    (tmp_path / "python3").chmod(0o755)
    monkeypatch.setenv("PATH", f"{sys.prefix}/bin:{tmp_path}")
    assert doctor.users_python() == tmp_path / "python3"
    monkeypatch.setenv("PATH", f"{sys.prefix}/bin")
    with pytest.raises(UsageError, match="no Python is on PATH"):
        doctor.users_python()
