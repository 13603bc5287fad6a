"""Tests of the doctor with installations that consist of stated facts and problems; torch is not needed."""

from __future__ import annotations

import importlib
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from scripts.model import ROOT
from tests.loopback import serve

OVERLAY = ROOT / "patches" / "common" / "overlay" / "nvdiffrast"
PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
SYSTEM = f"{platform.system()}_{platform.machine()}".lower()
# These modules replace those that examine the machine: they read facts and problems from files.
INSTALLATION = """
import json, pathlib
def describe(torch=False):
    return json.loads(pathlib.Path(__file__).with_name("facts.json").read_text())
"""
DIAGNOSIS = """
import json, pathlib
from ._problem import Problem
def examine(file, error=None, *, device=True):
    problems = json.loads(pathlib.Path(__file__).with_name("problems.json").read_text())
    return [Problem(*problem) for problem in problems.get(file.name.partition(".")[0], [])]
"""
STUBS = {"_installation.py": INSTALLATION, "_diagnosis.py": DIAGNOSIS}
LOADER = """
import importlib, pathlib, sys
def load_precompiled(gl):
    return importlib.import_module("nvdiffrast.torch.nvdiffrast_plugin" + ("_gl" if gl else ""))
"""
INFO = {
    "release": "0.3.3.1",
    "python": "cp311",
    "torch": "2.14.1",
    "cuda": "13.0",
    "architectures": {"sass": ["8.0", "9.0"], "ptx": ["9.0"]},
}
TORCH = {"version": "2.14.1+cu130", "cuda": "13.0", "hip": None, "path": "/opt/some where/torch"}
GPU = {"name": "A GPU", "capability": "9.0", "memory": 80 * 2**30}


@pytest.fixture(autouse=True)
def _quiet_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("NVDIFFRAST_", "CUDA_", "TORCH_")):
            monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def parts() -> Iterator[ModuleType]:
    """Import the doctor's modules under another package name, so that an installed nvdiffrast is not used."""
    package = ModuleType("doctors")
    package.__path__ = [str(OVERLAY)]
    sys.modules["doctors"] = package
    for name in (
        "_doctor_lines",
        "_doctor_share",
        "_doctor_index",
        "_doctor_install",
        "_doctor_checks",
        "_doctor_compiling",
        "_doctor_probe",
    ):
        setattr(package, name.removeprefix("_doctor_"), importlib.import_module(f"doctors.{name}"))
    yield package
    for name in [name for name in sys.modules if name.partition(".")[0] == "doctors"]:
        del sys.modules[name]


class Site:
    """A folder in sys.path with nvdiffrast, whose facts and problems are stated by the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.package = folder / "nvdiffrast"
        (self.package / "torch").mkdir(parents=True)
        for file in (*OVERLAY.glob("*.py"), OVERLAY / "torch_builds.json"):
            shutil.copy(file, self.package)
        (self.package / "__init__.py").touch()
        (self.package / "torch" / "__init__.py").touch()
        for name, text in {**STUBS, "_loader.py": LOADER}.items():
            (self.package / name).write_text(text)
        (folder / "torch.py").touch()
        (folder / "numpy.py").touch()
        self.plugin("nvdiffrast_plugin")
        self.facts()
        self.problems({})

    def plugin(self, name: str, text: str = "") -> Path:
        """Write a Python module in the place of a compiled plugin, and return its file."""
        path = self.package / "torch" / f"{name}.py"
        path.write_text(text)
        return path

    def facts(self, **changes: Any) -> None:
        """State the facts of a working installation with ``changes``."""
        plugins = [str(path) for path in sorted((self.package / "torch").glob("nvdiffrast_plugin*.py"))]
        stated = {
            "torch": TORCH,
            "build_info": INFO,
            "build_info_error": None,
            "driver": {"version": "580.1", "cuda": "13.0"},
            "devices": [GPU],
            "plugins": plugins,
            "copies": [str(self.package)],
            "dll_folders": [],
            "driver_error": None,
        }
        (self.package / "facts.json").write_text(json.dumps({**stated, **changes}))

    def problems(self, problems: dict[str, list[tuple[str, str, list[str], str]]]) -> None:
        """State the problems of each plugin."""
        (self.package / "problems.json").write_text(json.dumps(problems))

    def run(
        self, *arguments: str, draw: bool = False, isolated: bool = False, **environ: str
    ) -> subprocess.CompletedProcess[str]:
        """Run the doctor; ``isolated``: without site-packages; ``draw``: without the option --no-gpu."""
        return subprocess.run(
            [
                sys.executable,
                *(["-S"] if isolated else []),
                "-m",
                "nvdiffrast.doctor",
                *arguments,
                *([] if draw else ["--no-gpu"]),
            ],
            capture_output=True,
            text=True,
            check=False,
            cwd=self.folder,
            env={**os.environ, **self.home(), "PYTHONPATH": str(self.folder), "PYTHONUTF8": "1", **environ},
        )

    def home(self) -> dict[str, str]:
        """Return environment variables that give this test its own home folder."""
        folder = str(self.folder.parent / "home")
        return dict.fromkeys(("HOME", "XDG_CACHE_HOME", "LOCALAPPDATA"), folder)

    def lines(self, *arguments: str, draw: bool = False, **environ: str) -> list[dict[str, Any]]:
        """Run the doctor and return the lines of its report."""
        done = self.run("--json", *arguments, draw=draw, isolated=False, **environ)
        assert done.returncode in (0, 1), done.stderr
        data = json.loads(done.stdout)
        assert data["exit"] == done.returncode
        found: list[dict[str, Any]] = data["lines"]
        return found

    def failed(self, *arguments: str, **environ: str) -> list[str]:
        """Run the doctor and return the code, or else the text, of each failed line."""
        return [
            line["code"] or line["text"]
            for line in self.lines(*arguments, draw=False, **environ)
            if line["state"] == "failed"
        ]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "site")


def entry(**changes: Any) -> dict[str, Any]:
    """Return a catalog entry for this machine with ``changes``."""
    stated = {"release": "0.3.3.1", "python": PYTHON, "cuda": "cu130", "torch": "2.14", "platform": SYSTEM}
    return {**stated, "sass": ["8.0", "9.0"], "ptx": ["9.0"], "yanked": None, "partial": False, **changes}


class TestReport:
    def test_reports_a_missing_driver_once(self, site: Site) -> None:
        site.facts(driver=None, devices=[])
        site.problems({"nvdiffrast_plugin": [("driver-missing", "no NVIDIA driver", [], "get one")]})
        done = site.run()
        assert done.returncode == 1
        assert "Traceback" not in done.stdout + done.stderr
        assert done.stdout.count("[driver-missing]") == 1
        assert "there is no NVIDIA driver [driver-missing]\n        Install NVIDIA's driver. " in done.stdout
        assert "1 failed, 1 untested" in done.stdout

    def test_a_working_installation_passes(self, site: Site) -> None:
        done = site.run()
        assert done.returncode == 0, done.stdout
        assert "A GPU, compute capability 9.0, 80 GiB: the wheel has kernels for it" in done.stdout
        assert "FAILED" not in done.stdout

    def test_a_newer_gpu_uses_the_ptx(self, site: Site) -> None:
        site.facts(devices=[{**GPU, "capability": "12.0"}])
        assert any("PTX" in line["text"] for line in site.lines())
        site.facts(devices=[{**GPU, "capability": "7.5"}])
        assert [line["state"] for line in site.lines() if "A GPU" in line["text"]] == ["info"]

    def test_reports_a_problem_of_both_plugins_once(self, site: Site) -> None:
        site.plugin("nvdiffrast_plugin_gl")
        site.facts()
        problem = ("torch-other-version", "built for torch 2.14", list[str](), "pip install torch")
        site.problems({"nvdiffrast_plugin": [problem], "nvdiffrast_plugin_gl": [problem]})
        assert site.failed() == ["torch-other-version"]

    def test_a_broken_opengl_plugin_is_a_warning(self, site: Site) -> None:
        site.plugin("nvdiffrast_plugin_gl", "raise ImportError('libGL.so.1: cannot open shared object file')")
        site.facts()
        site.problems(
            {"nvdiffrast_plugin_gl": [("library-missing", "libGL.so.1 is missing", [], "apt install libgl1")]}
        )
        assert site.failed() == []
        assert site.run().returncode == 0
        assert any(line["code"] == "library-missing" and line["state"] == "warning" for line in site.lines())

    def test_reports_a_plugin_that_crashes(self, site: Site) -> None:
        site.plugin("nvdiffrast_plugin", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
        found = [line for line in site.lines() if line["state"] == "failed"]
        assert found[0]["text"] == "nvdiffrast_plugin.py cannot be imported"
        assert "signal 11" in found[0]["details"][0]

    def test_reports_a_problem_with_an_unknown_code(self, site: Site) -> None:
        site.problems({"nvdiffrast_plugin": [("of-tomorrow", "something new", [], "read on")]})
        assert site.failed() == ["of-tomorrow"]

    @pytest.mark.parametrize(
        ("changes", "code"),
        [
            ({"torch": None}, "torch-absent"),
            ({"torch": {**TORCH, "cuda": None}}, "torch-cpu-only"),
            ({"driver": None, "devices": []}, "driver-missing"),
            ({"devices": []}, "the driver finds no GPU"),
            ({"build_info": None, "build_info_error": "it is empty"}, "build-info"),
        ],
    )
    def test_reports_failures_from_facts_alone(self, site: Site, changes: dict[str, Any], code: str) -> None:
        site.facts(**changes)
        assert site.failed() == [code]

    def test_reports_the_missing_tools_for_compiling(self, site: Site) -> None:
        (site.package / "torch" / "nvdiffrast_plugin.py").unlink()
        site.facts()
        found = site.lines(PATH="/nowhere", CXX="no-such-compiler")
        line = next(line for line in found if line["code"] == "not-compiled")
        assert line["state"] == "failed"
        assert "a C++ compiler (no-such-compiler)" in line["details"][0]

    def test_reports_that_nvdiffrast_is_not_installed(self, site: Site) -> None:
        (site.package / "torch" / "nvdiffrast_plugin.py").unlink()
        (site.package / "__init__.py").unlink()
        site.facts(build_info=None)
        assert site.failed() == []
        assert any("not installed" in line["text"] and line["state"] == "untested" for line in site.lines())

    def test_reports_a_missing_numpy(self, site: Site) -> None:
        (site.folder / "numpy.py").unlink()
        # The Python of the tests may have numpy in its site-packages, which -S leaves out.
        done = subprocess.run(
            [sys.executable, "-S", "-m", "nvdiffrast.doctor", "--json"],
            capture_output=True,
            text=True,
            check=False,
            cwd=site.folder,
            env={**os.environ, "PYTHONPATH": str(site.folder)},
        )
        assert any("pip install numpy" in line["hint"] for line in json.loads(done.stdout)["lines"])

    def test_reports_its_own_error_without_a_traceback(self, site: Site) -> None:
        (site.package / "facts.json").write_text("{")
        done = site.run()
        assert done.returncode == 2
        assert "the doctor cannot examine this installation" in done.stderr
        assert "Traceback" not in done.stderr

    def test_refuses_an_unknown_option(self, site: Site) -> None:
        assert site.run("--fox").returncode == 2


def test_examines_the_real_machine(site: Site) -> None:
    for file in OVERLAY.glob("*.py"):
        shutil.copy(file, site.package)
    (site.package / "torch" / "nvdiffrast_plugin.py").unlink()
    (site.package / "build_info.json").write_text(json.dumps({**INFO, "plugins": ["nvdiffrast_plugin"]}))
    found = site.lines()
    assert {line["section"] for line in found} >= {"Python and system", "torch", "driver and GPUs", "nvdiffrast"}
    assert [line["text"] for line in found if "0.3.3.1 for cp311, torch 2.14.1" in line["text"]]


class TestEnvironment:
    @pytest.mark.parametrize(
        ("name", "value", "state"),
        [
            ("CUDA_VISIBLE_DEVICES", "", "failed"),
            ("CUDA_VISIBLE_DEVICES", "-1", "failed"),
            ("CUDA_VISIBLE_DEVICES", "0", "info"),
            ("CUDA_LAUNCH_BLOCKING", "1", "warning"),
            ("NVDIFFRAST_FORCE_JIT", "1", "warning"),
            ("CUDA_HOME", "/no/such/folder", "warning"),
            ("NVDIFFRAST_DLL_DIRS", "/no/such/folder", "warning"),
            ("TORCH_CUDA_ARCH_LIST", "8.9", "info"),
        ],
    )
    def test_reports_a_variable(self, site: Site, name: str, value: str, state: str) -> None:
        found = [line for line in site.lines(draw=False, **{name: value}) if line["section"] == "environment"]
        assert found[-1]["state"] == state
        assert name in found[-1]["text"]

    def test_examines_the_plugin_in_spite_of_forced_compilation(self, site: Site) -> None:
        site.package.joinpath("_loader.py").write_text(
            "import os\nassert 'NVDIFFRAST_FORCE_JIT' not in os.environ\n" + LOADER
        )
        assert site.failed(NVDIFFRAST_FORCE_JIT="1") == []

    def test_passes_without_variables(self, site: Site) -> None:
        assert [line["state"] for line in site.lines() if line["section"] == "environment"] == ["passed"]


class TestFix:
    def test_removes_a_stale_lock(self, site: Site, tmp_path: Path) -> None:
        lock = tmp_path / "extensions" / "py311_cu130" / "nvdiffrast_plugin" / "lock"
        lock.parent.mkdir(parents=True)
        lock.touch()
        folder = str(tmp_path / "extensions")
        assert site.failed(TORCH_EXTENSIONS_DIR=folder) == []
        old = time.time() - 7200
        os.utime(lock, (old, old))
        assert site.failed(TORCH_EXTENSIONS_DIR=folder) == ["stale-lock"]
        assert lock.exists()
        assert site.failed("--fix", TORCH_EXTENSIONS_DIR=folder) == []
        assert not lock.exists()

    def test_keeps_locks_of_other_packages(self, site: Site, tmp_path: Path) -> None:
        lock = tmp_path / "another_plugin" / "lock"
        lock.parent.mkdir(parents=True)
        lock.touch()
        os.utime(lock, (0, 0))
        site.run("--fix", TORCH_EXTENSIONS_DIR=str(tmp_path))
        assert lock.exists()

    def test_creates_the_folder_of_extensions(self, site: Site, tmp_path: Path) -> None:
        folder = tmp_path / "a" / "b"
        site.run(TORCH_EXTENSIONS_DIR=str(folder))
        assert not folder.exists()
        found = site.lines("--fix", TORCH_EXTENSIONS_DIR=str(folder))
        assert folder.is_dir()
        assert found[0] == {**found[0], "section": "fixed", "state": "passed"}

    def test_reports_a_repair_that_fails(self, site: Site, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        found = site.lines("--fix", TORCH_EXTENSIONS_DIR=str(tmp_path / "file" / "folder"))
        assert (found[0]["section"], found[0]["state"]) == ("fixed", "failed")


class TestTriangle:
    """Tests with stand-ins for torch and nvdiffrast.torch."""

    TORCH = """
float32 = int32 = None
class Tensor(list):
    def cpu(self): return self
    def tolist(self): return self
def tensor(data, dtype=None, device=None): return data
"""
    RENDERER = """
from nvdiffrast._doctor_probe import covered
from torch import Tensor
class RasterizeCudaContext: pass
def rasterize(context, corners, faces, resolution):
    height, width = resolution
    rows = [
        [[0, 0, 0, float(bool(covered(width, column, row)) MORE)] for column in range(width)]
        for row in range(height)
    ]
    return [Tensor(rows)], None
"""

    def draw(self, site: Site, more: str = "") -> list[dict[str, Any]]:
        (site.folder / "torch.py").write_text(self.TORCH)
        (site.package / "torch" / "__init__.py").write_text(self.RENDERER.replace("MORE", more))
        return [line for line in site.lines(draw=True) if line["text"].startswith("drawing a triangle")]

    def test_accepts_a_correct_image(self, site: Site) -> None:
        (line,) = self.draw(site)
        assert line["state"] == "passed"
        assert "of 4096 pixels" in line["text"]

    def test_rejects_an_upside_down_image(self, site: Site) -> None:
        (line,) = self.draw(site, "if 0 else bool(covered(width, column, height - 1 - row))")
        assert line["state"] == "failed"
        assert "pixels are wrong" in line["details"][0]

    def test_reports_an_error_of_drawing(self, site: Site) -> None:
        (line,) = self.draw(site, "+ 1 / 0")
        assert (line["state"], line["code"]) == ("failed", "triangle")
        assert "division" in line["details"][0]

    def test_the_expected_triangle_has_its_area(self, parts: ModuleType) -> None:
        inside = sum(parts.probe.covered(64, x, y) is True for x in range(64) for y in range(64))
        # The area is half of 1.6 x 1.6, and the image is 2 x 2.
        assert inside / 4096 == pytest.approx(0.32, abs=0.01)


class TestPrinter:
    class Terminal(io.StringIO):
        encoding = "utf-8"

        def isatty(self) -> bool:
            return True

    def written(self, parts: ModuleType, stream: io.StringIO, **environ: str) -> str:
        line = parts.lines.Line("a section", "failed", "it is \x1b[2J broken", ("more",), "fix it", "a-code")
        parts.lines.Printer(stream, environ).report([line])
        return stream.getvalue()

    def test_uses_marks_and_colours_on_a_terminal(self, parts: ModuleType) -> None:
        shown = self.written(parts, self.Terminal())
        assert "  \x1b[31m✗\x1b[0m it is ?[2J broken [a-code]\n        more\n      next: fix it\n" in shown

    def test_uses_no_colours_with_no_color(self, parts: ModuleType) -> None:
        assert "  ✗ it is" in self.written(parts, self.Terminal(), NO_COLOR="1")

    def test_uses_ascii_words_in_a_file(self, parts: ModuleType) -> None:
        assert self.written(parts, io.StringIO()).isascii()
        assert "  FAILED   it is" in self.written(parts, io.StringIO())


class TestShare:
    def test_removes_private_data(self, site: Site) -> None:
        site.facts(torch={**TORCH, "path": str(Path.home() / "my code" / "torch")})
        plain, shared = site.run("--json").stdout, site.run("--json", "--share").stdout
        assert str(site.folder) in plain
        for private in (str(site.folder), str(Path.home() / "my code"), sys.prefix, "my code"):
            assert private not in shared
        assert "nvdiffrast_plugin.py" in shared

    @pytest.mark.parametrize(
        ("text", "shared"),
        [
            ("in /opt/a/b.so, needed", "in <path>/b.so, needed"),
            (r"in D:\tools\c10.dll, needed", "in <path>/c10.dll, needed"),
            (r"\\server\share\x.dll", "<path>/x.dll"),
            ("pip install --index-url https://u:p@index.example/whl/cu130/ x", None),
            ("exit 0/1/2 and/or 3.3/4", "exit 0/1/2 and/or 3.3/4"),
        ],
    )
    def test_redacts_paths_and_urls(self, parts: ModuleType, text: str, shared: str | None) -> None:
        wanted = shared or "pip install --index-url https://<index>/whl/cu130/ x"
        assert parts.share.Redaction()(text) == wanted

    def test_shows_paths_below_site_packages(self, parts: ModuleType) -> None:
        import sysconfig

        text = f"{sysconfig.get_path('purelib')}/nvdiffrast/torch/x.so"
        assert parts.share.Redaction()({"a": [text]}) == {"a": ["<site-packages>/nvdiffrast/torch/x.so"]}


class TestInstall:
    def machine(self, parts: ModuleType, **changes: Any) -> Any:
        stated = {"python": PYTHON, "platform": SYSTEM, "torch": "2.14", "cuda": "13.0", "driver": "13.0"}
        return parts.install.Machine(**{**stated, "capabilities": ("9.0",), **changes})

    def advice(self, parts: ModuleType, entries: list[dict[str, Any]], **changes: Any) -> Any:
        content = json.dumps({"schema": 1, "entries": entries}).encode()
        return parts.install.advice(self.machine(parts, **changes), parts.index.parse(content), "https://i.example")

    def test_prefers_a_wheel_for_the_installed_torch(self, parts: ModuleType) -> None:
        found = self.advice(parts, [entry(), entry(torch="2.15"), entry(release="0.3.1"), entry(cuda="cu128")])
        assert found.pip == (
            "pip install numpy",
            "pip install --index-url https://i.example/whl/cu130/ nvdiffrast==0.3.3.1",
        )
        assert found.uv[-1] == "uv pip install --default-index https://i.example/whl/cu130/ nvdiffrast==0.3.3.1"

    def test_gives_the_commands_of_the_index_page(self, parts: ModuleType) -> None:
        from scripts.index import install_commands
        from scripts.index.catalog import Entry

        rest: Any = dict.fromkeys(
            ("name", "sha256", "size", "uploaded", "metadata_sha256", "requires_python", "cell"), ""
        )
        shown = install_commands.commands("https://i.example", Entry(**rest, **entry()))
        found = self.advice(parts, [entry()])
        assert (found.pip, found.uv) == (shown.pip, shown.uv)

    def test_changes_a_torch_without_a_wheel(self, parts: ModuleType) -> None:
        found = self.advice(parts, [entry(torch="2.13"), entry(torch="2.11")], torch="2.12")
        channel = "" if sys.platform == "linux" else "--index-url https://download.pytorch.org/whl/cu130 "
        assert found.pip[0] == f'pip install {channel}"torch==2.13.*"'
        assert "torch 2.12" in found.note
        assert "2.11 of cu130, 2.13 of cu130" in found.note

    def test_without_torch_the_driver_decides(self, parts: ModuleType) -> None:
        found = self.advice(parts, [entry(), entry(cuda="cu128", torch="2.11")], torch=None, cuda=None, driver="12.8")
        assert "whl/cu128/" in found.pip[-1]
        assert "torch==2.11" in found.pip[0]

    def test_reports_a_gpu_without_a_wheel(self, parts: ModuleType) -> None:
        found = self.advice(parts, [entry()], capabilities=("7.5",))
        assert found.pip == ()
        assert "7.5" in found.note

    def test_reports_a_python_without_a_wheel(self, parts: ModuleType) -> None:
        found = self.advice(parts, [entry(python="3.9")])
        assert found.pip == ()
        assert f"no wheel for Python {PYTHON}" in found.note
        assert "3.9 on" in found.note

    @pytest.mark.parametrize("changes", [{"yanked": "broken"}, {"partial": True}])
    def test_does_not_offer_yanked_and_partial_wheels(self, parts: ModuleType, changes: dict[str, Any]) -> None:
        assert self.advice(parts, [entry(**changes)]).pip == ()

    @pytest.mark.parametrize(
        "changes", [{"release": "1; rm -rf ~"}, {"cuda": "cu130 $(x)"}, {"torch": "2.14\n"}, {"release": None}]
    )
    def test_ignores_entries_with_shell_syntax(self, parts: ModuleType, changes: dict[str, Any]) -> None:
        assert self.advice(parts, [entry(**changes)]).pip == ()

    @pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"schema": 2, "entries": []}', b'{"schema": 1}', b"\xff"])
    def test_refuses_a_file_that_is_not_a_catalog(self, parts: ModuleType, content: bytes) -> None:
        with pytest.raises(parts.index.IndexRefusedError, match=r"catalog\.json"):
            parts.index.parse(content)

    @pytest.mark.parametrize("url", ["", "file:///etc", "ftp://x", "https://x y", "https://x/$(y)", "/etc"])
    def test_refuses_a_malformed_url(self, parts: ModuleType, url: str) -> None:
        with pytest.raises(parts.index.IndexRefusedError, match="URL"):
            parts.index.read(url)

    def test_reads_the_index_from_a_server(self, site: Site) -> None:
        with serve() as server:
            server.files["root/catalog.json"] = json.dumps({"schema": 1, "entries": [entry()]}).encode()
            done = site.run(NVDIFFRAST_INDEX_URL=f"{server.url}root/")
            assert done.returncode == 0, done.stdout
            assert f"  pip install --index-url {server.url}root/whl/cu130/ nvdiffrast==0.3.3.1\n" in done.stdout
            assert site.failed("--index-url", f"{server.url}elsewhere") == ["index"]

    def test_does_not_show_credentials(self, site: Site) -> None:
        with serve() as server:
            server.files["catalog.json"] = json.dumps({"schema": 1, "entries": [entry()]}).encode()
            done = site.run("--index-url", server.url.replace("://", "://user:hidden@"))
        assert "1 wheels" in done.stdout
        assert "hidden" not in done.stdout + done.stderr

    def test_shows_no_commands_for_an_installed_wheel_without_an_index(self, site: Site) -> None:
        assert "to install" not in site.run().stdout
