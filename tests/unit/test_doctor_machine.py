"""`nox -s doctor`: the doctor of any Python, and the inputs of a build on this machine."""

from __future__ import annotations

import json
import re
import shutil
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts.build import cibuildwheel, default_cell
from scripts.doctor import can_build, doctor, install_advice
from scripts.errors import ToolchainError, UsageError
from scripts.matrix import matrix
from scripts.source import upstream
from scripts.support import interpreters
from scripts.toolchain import compilers, providers
from tests.unit.test_doctor import DIAGNOSIS, GPU, INFO, INSTALLATION, TORCH


@pytest.fixture
def overlay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the overlay's doctor that reports facts chosen by a test."""
    folder = tmp_path / "overlay"
    shutil.copytree(doctor.OVERLAY, folder)
    (folder / "_installation.py").write_text(INSTALLATION)
    (folder / "_diagnosis.py").write_text(DIAGNOSIS)
    (folder / "problems.json").write_text("{}")
    set_facts(folder)
    monkeypatch.setattr(doctor, "OVERLAY", folder)
    monkeypatch.setattr(install_advice, "DIST", tmp_path / "dist")
    # Without a network, the newest release that is available has the OpenGL plugin.
    monkeypatch.setattr(upstream, "availability", lambda release: None if release.has_gl else "no network")
    monkeypatch.setattr(providers, "availability", lambda toolkit: None)
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


def set_facts(folder: Path, **changes: Any) -> None:
    facts = {"torch": TORCH, "build_info": None, "driver": {"version": "1", "cuda": "13.0"}, "devices": [GPU]}
    (folder / "facts.json").write_text(json.dumps({**facts, "plugins": [], **changes}))


def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["doctor", "--python", sys.executable, *arguments])
    return doctor.main(), capsys.readouterr().out


@pytest.mark.usefixtures("overlay")
class TestMachine:
    def test_a_complete_machine_passes(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        code, out = run(capsys, monkeypatch)
        assert "  ok       g++ 12, g\n  ok       headers and libraries of OpenGL and EGL\n" in out
        assert code == 0
        assert "can this machine build wheels? yes\n" in out

    def test_names_the_cell_of_a_plain_build(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, overlay: Path
    ) -> None:
        set_facts(overlay, torch=None)
        cell = default_cell.default_cell(matrix.load())[0]
        _, out = run(capsys, monkeypatch)
        assert f"`nox -s build` takes the cell {cell.id}\n" in out
        assert f'    nox -s build\n    pip install "torch=={cell.torch.line}.*" dist/{cell.wheel}\n' in out

    def test_a_machine_that_can_build_but_not_run(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, overlay: Path
    ) -> None:
        set_facts(overlay, torch=None, driver=None, devices=[])
        code, out = run(capsys, monkeypatch)
        assert code == 0
        assert "can this machine run nvdiffrast? no: torch is not installed; there is no NVIDIA driver\n" in out
        assert "can this machine build wheels? yes\n" in out
        _, out = run(capsys, monkeypatch, "--json")
        data = json.loads(out)
        assert data["answers"] == {"run nvdiffrast": False, "build wheels": True}
        assert data["exit"] == 0

    def test_a_wheel_in_dist(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, overlay: Path, tmp_path: Path
    ) -> None:
        set_facts(overlay, torch=None)
        cell = default_cell.default_cell(matrix.load())[0]
        path = tmp_path / cell.wheel
        info = {
            **dict.fromkeys(("cell", "release", "series", "python", "torch", "cuda"), "x"),
            **{"series_sha256": "0" * 64, "license_sha256": "0" * 64, "source": {}, "flags": {}},
            **{"compiler": {"cxx": "12", "nvcc": "13.0"}, "plugins": [], "partial": True},
            "architectures": {"sass": ["9.0"], "ptx": []},
        }
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("nvdiffrast/build_info.json", json.dumps(info))
        (tmp_path / cell.wheel.replace(cell.release.version, "0.1")).touch()
        monkeypatch.setattr(install_advice, "DIST", tmp_path)
        _, out = run(capsys, monkeypatch)
        assert f"{path} is built, only for compute capability 9.0\n" in out
        assert f'    pip install "torch=={cell.torch.line}.*" {path}\n' in out
        assert "    nox -s build\n" not in out
        path.write_bytes(b"not a wheel")
        _, out = run(capsys, monkeypatch)
        assert "is built" not in out
        assert "    nox -s build\n" in out

    def test_advises_the_cell_of_the_installed_torch(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, overlay: Path
    ) -> None:
        set_facts(overlay, torch={**TORCH, "version": "2.13.0+cu126", "cuda": "12.6"})
        _, out = run(capsys, monkeypatch)
        assert re.search(
            r"^    nox -s build -- \S+-cu126-torch2\.13-\S+\n    pip install dist/\S+\n", out, re.MULTILINE
        )

    def test_advises_to_replace_another_build_of_the_same_torch(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, overlay: Path
    ) -> None:
        cell = default_cell.default_cell(matrix.load())[0]
        set_facts(overlay, torch={**TORCH, "version": f"{cell.torch.version}+cpu", "cuda": None})
        _, out = run(capsys, monkeypatch)
        torch = f'"torch=={cell.torch.line}.*"'
        assert f"    pip install --force-reinstall {torch}\n    pip install dist/{cell.wheel}\n" in out
        assert f"    uv pip install --reinstall {torch}\n    uv pip install dist/{cell.wheel}\n" in out

    def test_advises_only_commands_that_work(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, overlay: Path
    ) -> None:
        set_facts(overlay, torch=None, driver=None, devices=[])
        monkeypatch.setattr(can_build, "_FIRST_BUILD_GIB", 1 << 40)
        monkeypatch.setattr(interpreters, "find", lambda python: None)
        _, out = run(capsys, monkeypatch)
        hints = re.findall(r"^      next: (.*)$", out, re.MULTILINE)
        assert hints
        assert all(
            re.match(r"(nox -s|pip|uv|apt-get|python -m nvdiffrast|\S+ -m venv|nvidia-smi)\b", hint) for hint in hints
        )

    def test_reports_a_missing_compiler(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def absent(toolkit: Any, needs_gl: bool) -> None:
            raise ToolchainError("no C++ compiler", hint="apt-get install g++")

        monkeypatch.setattr(compilers, "check_host", absent)
        code, out = run(capsys, monkeypatch)
        assert code == 1
        assert "  FAILED   no C++ compiler\n      next: apt-get install g++\n" in out

    def test_reports_missing_headers(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        def headless(toolkit: Any, needs_gl: bool) -> compilers.HostCompiler:
            if needs_gl:
                raise ToolchainError("no EGL/egl.h", hint="apt-get install libegl-dev")
            return compilers.HostCompiler(Path("g"), "g++", "12")

        monkeypatch.setattr(compilers, "check_host", headless)
        code, out = run(capsys, monkeypatch)
        assert code == 1
        assert "no EGL/egl.h\n      next: apt-get install libegl-dev\n" in out

    def test_reports_a_missing_toolkit(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(providers, "availability", lambda toolkit: "unlocked")
        code, out = run(capsys, monkeypatch)
        assert code == 1
        assert re.search(r"^  FAILED   no cell can be built here: CUDA 13\.2: unlocked; .*$", out, re.MULTILINE)
        assert "      next: nox -s plan\n" in out

    def test_json_and_share(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        _, out = run(capsys, monkeypatch, "--json", "--share")
        data = json.loads(out)
        assert {line["section"] for line in data["lines"]} >= {"torch", "to build wheels"}
        assert str(Path.home()) not in out
        assert sys.prefix not in out

    def test_refuses_a_machine_without_python(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        broken = tmp_path / "python"
        broken.write_text("#!/bin/sh\necho it is ancient >&2; exit 1\n")
        broken.chmod(0o755)
        monkeypatch.setattr(sys, "argv", ["doctor", "--python", str(broken)])
        with pytest.raises(UsageError, match=r"python cannot run the doctor: it is ancient"):
            doctor.main()

    def test_warns_of_a_small_disk(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(can_build, "_FIRST_BUILD_GIB", 1 << 40)
        planned = matrix.load()
        found = can_build.findings(planned, can_build.choose(planned))
        assert [one.state for one in found if "GiB free" in one.text] == ["warning", "warning"]

    def test_share_omits_private_details(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def absent(toolkit: Any, needs_gl: bool) -> None:
            raise ToolchainError("/srv/secret folder/g++ is g++ 4")

        monkeypatch.setattr(compilers, "check_host", absent)
        code, out = run(capsys, monkeypatch, "--share")
        assert code == 1
        assert "can this machine build wheels? no: <path>/g++ is g++ 4\n" in out
        assert "secret" not in out


def test_advises_an_environment_for_a_python_of_the_system(overlay: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_facts(overlay, torch=None)
    module, planned = doctor.load_overlay(), matrix.load()
    report = doctor.of_python(module, Path(sys.executable), ["--no-gpu"])
    chosen = can_build.choose(planned).cell
    plain = doctor.with_wheels(module, planned, chosen, report).install
    assert not any("venv" in command for command in plain.pip)
    facts = {**report.facts, "managed": True, "executable": "/usr/bin/python3"}
    managed = doctor.with_wheels(module, planned, chosen, report._replace(facts=facts)).install
    assert managed.pip == ("/usr/bin/python3 -m venv .venv", ". .venv/bin/activate", *plain.pip)
    assert managed.uv == ("uv venv --python /usr/bin/python3", ". .venv/bin/activate", *plain.uv)


def test_runs_the_doctor_of_an_installed_nvdiffrast(
    overlay: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    shutil.copytree(overlay, site / "nvdiffrast")
    (site / "nvdiffrast" / "__init__.py").touch()
    set_facts(site / "nvdiffrast", build_info=INFO)
    monkeypatch.setenv("PYTHONPATH", str(site))
    report = doctor.of_python(doctor.load_overlay(), Path(sys.executable), ["--no-gpu"])
    assert report.facts["build_info"]["torch"] == "2.14.1"
    assert "not-compiled" in {line.code for line in report.lines}


def test_skips_the_python_of_this_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "python3").write_text("#!/bin/sh\n")
    (tmp_path / "python3").chmod(0o755)
    monkeypatch.setenv("PATH", f"{sys.prefix}/bin:{tmp_path}")
    assert doctor.users_python() == tmp_path / "python3"
    monkeypatch.setenv("PATH", f"{sys.prefix}/bin")
    with pytest.raises(UsageError, match="no Python is on PATH"):
        doctor.users_python()
