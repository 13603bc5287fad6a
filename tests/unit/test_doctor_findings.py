"""What the doctor reports of one cause: one failure and one command, and nothing that contradicts another line."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from scripts.matrix import doctor_table, torch_builds
from scripts.model import ROOT
from tests.unit.test_doctor import INFO, OVERLAY, PYTHON, SYSTEM, TORCH, Site, entry, parts, site

__all__ = ["parts", "site"]
PLATFORM = SYSTEM.replace("windows", "win")
LIBRARIES = [
    ("library-missing", f"{name} is missing", ["needed by the plugin"], "reinstall torch")
    for name in ("libc10.so", "libtorch_cpu.so", "libtorch_python.so", "libc10_cuda.so")
]
NO_TORCH = ("torch-absent", "torch is not installed", list[str](), "install torch in some way")
linux = pytest.mark.skipif(PLATFORM != "linux_x86_64", reason="the table's row is of Linux on x86-64")


def without_torch(site: Site) -> None:
    """Take torch away as the real diagnosis sees it: every library of torch is missing, too."""
    (site.folder / "torch.py").unlink()
    site.plugin("nvdiffrast_plugin", "import torch_of_no_site")
    site.facts(torch=None)
    site.problems({"nvdiffrast_plugin": [NO_TORCH, *LIBRARIES]})


def record(site: Site, *names: str) -> None:
    """Write RECORD as an installer leaves it."""
    folder = site.folder / "nvdiffrast-0.3.3.1.dist-info"
    folder.mkdir(exist_ok=True)
    digest = base64.urlsafe_b64encode(hashlib.sha256(b"").digest()).rstrip(b"=").decode()
    (folder / "RECORD").write_text("".join(f"{name},sha256={digest},0\n" for name in names))


class TestWithoutTorch:
    def test_one_failure(self, site: Site) -> None:
        without_torch(site)
        assert site.failed() == ["torch-absent"]

    @linux
    @pytest.mark.skipif(not (3, 10) <= sys.version_info[:2] <= (3, 14), reason="torch 2.14 is for CPython 3.10 to 3.14")
    def test_one_command(self, site: Site) -> None:
        without_torch(site)
        out = site.run().stdout
        commands = re.findall(r".*pip install.*", out)
        assert len(commands) == 1, out
        assert commands[0].endswith('install "torch==2.14.*"')

    @linux
    def test_numpy_comes_with_the_same_command(self, site: Site) -> None:
        without_torch(site)
        (site.folder / "numpy.py").unlink()
        out = site.run(isolated=True).stdout
        assert len(re.findall(r".*pip install.*", out)) == 1, out
        assert 'install "torch==2.14.*" numpy\n' in out
        assert "  FAILED   numpy" not in out

    def test_a_library_of_the_wheel_is_reported_all_the_same(self, site: Site) -> None:
        without_torch(site)
        lost = ("library-missing", "libcudart-0a1b.so.13 is missing", ["needed by the plugin"], "reinstall")
        site.problems({"nvdiffrast_plugin": [NO_TORCH, *LIBRARIES, lost]})
        assert site.failed() == ["torch-absent", "library-missing"]


class TestOtherTorch:
    def test_what_follows_from_another_torch_is_no_failure_of_its_own(self, site: Site) -> None:
        site.plugin("nvdiffrast_plugin", "raise ImportError('libc10_cuda.so: cannot open shared object file')")
        site.facts(torch={**TORCH, "version": "2.13.0+cpu", "cuda": None})
        other = ("torch-other-version", "it was built for torch 2.14.1, here is 2.13.0+cpu", list[str](), "prose")
        site.problems({"nvdiffrast_plugin": [other, LIBRARIES[-1]]})
        assert site.failed() == ["torch-other-version"]

    def test_a_torch_that_cannot_be_imported(self, site: Site) -> None:
        site.facts(torch={**TORCH, "version": None, "cuda": None, "error": "libtorch_cpu.so: bad"})
        site.problems(
            {"nvdiffrast_plugin": [("torch-broken", "torch cannot be imported (bad)", [], "reinstall torch")]}
        )
        assert site.failed() == ["torch-broken"]
        out = site.run().stdout
        assert "torch None" not in out
        if PLATFORM == "linux_x86_64":
            assert re.search(r'next: .*install --(force-)?reinstall "torch==2\.14\.\*"', out)

    @linux
    def test_another_build_of_the_same_torch_is_replaced(self, site: Site) -> None:
        """pip and uv regard 2.14.1+cpu as a 2.14.* and would leave it."""
        site.facts(torch={**TORCH, "version": "2.14.1+cpu", "cuda": None})
        site.problems({"nvdiffrast_plugin": [("torch-cpu-only", "this torch is for no CUDA", [], "prose")]})
        (line,) = [line for line in site.lines() if line["code"] == "torch-cpu-only"]
        assert re.search(r'install --(force-)?reinstall "torch==2\.14\.\*"$', line["hint"])

    @pytest.mark.parametrize(
        ("version", "command"),
        [
            ("2.14.1", "--no-deps torch==2.14.1"),
            ("2.13.0+cu126", "https://download.pytorch.org/whl/cu126 torch==2.13.0+cu126"),
            ("2.13.0; rm x", ""),
            ("", ""),
        ],
    )
    def test_the_torch_that_is_installed_again(self, parts: ModuleType, version: str, command: str) -> None:
        found = parts.install.torch_again(version)
        assert found.endswith(command) and bool(found) == bool(command)


class TestKnownBuilds:
    """No command names a build of torch that the doctor's table does not have."""

    @pytest.mark.parametrize(
        ("torch", "cuda"), [("2.16", "12.6"), ("2.14", "12.6"), ("2.15", "13.0"), ("3.0", "13.0"), ("2.14", "13.1")]
    )
    def test_of_the_wheel_that_is_here(self, site: Site, torch: str, cuda: str) -> None:
        site.facts(torch={**TORCH, "version": "2.11.0"}, build_info={**INFO, "torch": f"{torch}.0", "cuda": cuda})
        other = (
            "torch-other-version",
            "it was built for another torch",
            list[str](),
            f'pip install "torch=={torch}.*"',
        )
        site.problems({"nvdiffrast_plugin": [other]})
        out = site.run().stdout
        assert f"torch=={torch}" not in out
        assert "https://pytorch.org/get-started/locally/" in out

    @pytest.mark.parametrize(("torch", "cuda"), [("2.16", "cu126"), ("2.14", "cu126")])
    def test_of_an_index(self, parts: ModuleType, torch: str, cuda: str) -> None:
        content = json.dumps({"schema": 1, "entries": [entry(torch=torch, cuda=cuda)]}).encode()
        here = parts.install.Machine(PYTHON, PLATFORM, "2.11", "12.6", None, ())
        found = parts.install.advice(here, parts.install._parsed(content), "https://i.example")
        assert not [line for line in (*found.pip, *found.uv) if "torch==" in line]
        assert "https://pytorch.org/get-started/locally/" in found.note

    @pytest.mark.parametrize(
        ("machine", "torch", "cuda", "command"),
        [
            (("3.12", "linux_x86_64"), "2.14", "cu130", 'pip install "torch==2.14.*"'),
            (
                ("3.12", "linux_x86_64"),
                "2.13",
                "cu126",
                'pip install --index-url https://download.pytorch.org/whl/cu126 "torch==2.13.*"',
            ),
            (
                ("3.12", "win_amd64"),
                "2.13",
                "cu130",
                'pip install --index-url https://download.pytorch.org/whl/cu130 "torch==2.13.*"',
            ),
            (("3.12", "win_amd64"), "2.14", "cu130", None),
            (("3.10", "linux_x86_64"), "2.15", "cu132", None),
            (("3.13t", "linux_x86_64"), "2.14", "cu130", None),
        ],
    )
    def test_each_from_where_it_is_published(
        self, parts: ModuleType, machine: tuple[str, str], torch: str, cuda: str, command: str | None
    ) -> None:
        assert parts.install.torch_command("pip install", machine[0], machine[1], torch, cuda) == command

    def test_the_table_holds_no_build_that_was_not_observed(self) -> None:
        observed = torch_builds.load()
        for platform, tag, line, origin, pythons in json.loads(doctor_table.PATH.read_text())["builds"]:
            cuda = f"{tag[2:-1]}.{tag[-1]}"
            source = observed.pypi if origin == "pypi" else observed.channels[tag].builds
            versions = [version for version in source if version.startswith(f"{line}.")]
            assert versions, (platform, tag, line)
            for python in pythons:
                found = {observed.origin(cuda, version, platform, python) for version in versions}
                assert found - {None}, (platform, tag, line, python)


class TestDeletedPlugin:
    def test_one_that_build_info_lists(self, site: Site) -> None:
        (site.package / "torch" / "nvdiffrast_plugin.py").unlink()
        site.facts(build_info={**INFO, "plugins": ["nvdiffrast_plugin", "nvdiffrast_plugin_gl"]})
        lines = [line for line in site.lines() if line["code"] == "plugin-deleted"]
        assert [(line["state"], line["text"].split()[0]) for line in lines] == [
            ("failed", "nvdiffrast_plugin"),
            ("warning", "nvdiffrast_plugin_gl"),
        ]
        assert site.run().returncode == 1
        assert "not-compiled" not in {line["code"] for line in site.lines()}

    def test_one_that_record_lists(self, site: Site) -> None:
        name = "nvdiffrast/torch/nvdiffrast_plugin.cpython-311-x86_64-linux-gnu.so"
        for file in OVERLAY.glob("*.py"):
            shutil.copy(file, site.package)
        record(site, "nvdiffrast/__init__.py", name)
        (site.package / "torch" / "nvdiffrast_plugin.py").unlink()
        (line,) = [line for line in site.lines() if line["code"] == "plugin-deleted"]
        assert line["state"] == "failed"
        assert any(Path(name).name in detail for detail in line["details"])

    def test_none_is_deleted(self, site: Site) -> None:
        site.facts(build_info={**INFO, "plugins": ["nvdiffrast_plugin"]})
        assert site.failed() == []


class TestTriangleReasons:
    def reason(self, site: Site, *, draw: bool = False) -> str:
        (line,) = [line for line in site.lines(draw=draw) if "triangle" in line["text"]]
        assert line["state"] == "untested"
        return str(line["text"])

    def test_a_gpu_that_was_not_to_be_used(self, site: Site) -> None:
        reason = self.reason(site)
        assert "--no-gpu" in reason
        assert "no GPU" not in reason

    def test_a_gpu_and_a_plugin_that_cannot_be_imported(self, site: Site) -> None:
        site.plugin("nvdiffrast_plugin", "raise ImportError('broken')")
        reason = self.reason(site, draw=True)
        assert "the CUDA plugin cannot be imported" in reason
        assert "no GPU" not in reason

    def test_no_gpu(self, site: Site) -> None:
        site.facts(driver=None, devices=[])
        assert "there is no GPU to draw with" in self.reason(site, draw=True)


class TestDriver:
    def test_a_driver_that_does_not_work(self, site: Site) -> None:
        error = {
            "code": "driver-broken",
            "summary": "cuInit gave no answer",
            "details": ["asked was x"],
            "hint": "nvidia-smi",
        }
        site.facts(devices=[], driver_error=error)
        site.problems({"nvdiffrast_plugin": [("driver-missing", "there is no NVIDIA driver", [], "install one")]})
        assert site.failed() == ["driver-broken"]
        assert "\n        asked was x\n      next: nvidia-smi\n" in site.run().stdout


class TestWords:
    def test_codes_are_explained_somewhere(self, site: Site) -> None:
        without_torch(site)
        assert "each [code] has a heading of its name in the README of nvdiffrast-wheels" in site.run().stdout

    def test_every_code_has_a_heading(self, parts: ModuleType) -> None:
        source = "".join(file.read_text() for file in OVERLAY.glob("_doctor_*.py"))
        codes = set(re.findall(r'"((?:driver|gpus|not|plugin|stale|torch)-[a-z-]+)"', source)) | set(
            parts.checks._SECTIONS
        )
        assert {"driver-broken", "driver-stub", "plugin-deleted", "stale-lock", "torch-absent"} <= codes
        headings = set(re.findall(r"^#### `(.*)`$", (ROOT / "docs" / "troubleshooting.md").read_text(), re.MULTILINE))
        assert {*codes, "index", "triangle"} <= headings

    def test_nothing_is_to_be_explained_where_all_is_well(self, site: Site) -> None:
        out = site.run().stdout
        assert "[code]" not in out
        assert "to install" not in out

    def test_no_command_of_this_repository_s_modules(self) -> None:
        for file in (*OVERLAY.glob("*doctor*.py"), *(ROOT / "scripts").glob("doctor*.py")):
            assert "python -m scripts" not in file.read_text(), file

    def test_a_python_that_belongs_to_the_system(self, parts: ModuleType, tmp_path: Path) -> None:
        assert not parts.install.is_managed(str(tmp_path))
        (tmp_path / "EXTERNALLY-MANAGED").touch()
        assert parts.install.is_managed(str(tmp_path)) == (sys.prefix == sys.base_prefix)


class TestLinksOutOfTheExtensionsFolder:
    def outside(self, tmp_path: Path) -> Path:
        lock = tmp_path / "elsewhere" / "nvdiffrast_plugin" / "lock"
        lock.parent.mkdir(parents=True)
        lock.touch()
        old = time.time() - 7200
        os.utime(lock, (old, old))
        return lock

    @pytest.mark.parametrize("link", ["py311_cu130", "nvdiffrast_plugin"])
    def test_a_folder(self, site: Site, tmp_path: Path, link: str) -> None:
        lock = self.outside(tmp_path)
        root = tmp_path / "extensions"
        root.mkdir()
        (root / link).symlink_to(lock.parents[1] if link == "py311_cu130" else lock.parent, target_is_directory=True)
        site.run("--fix", TORCH_EXTENSIONS_DIR=str(root))
        assert lock.exists()
        (line,) = [line for line in site.lines("--fix", TORCH_EXTENSIONS_DIR=str(root)) if line["code"] == "stale-lock"]
        assert "outside" in line["details"][0]
        assert "--fix" not in line["hint"]

    def test_the_folder_itself_may_be_a_link(self, site: Site, tmp_path: Path) -> None:
        lock = self.outside(tmp_path)
        (tmp_path / "extensions").symlink_to(lock.parents[1], target_is_directory=True)
        site.run("--fix", TORCH_EXTENSIONS_DIR=str(tmp_path / "extensions"))
        assert not lock.exists()

    def test_a_lock_that_is_a_link(self, site: Site, tmp_path: Path) -> None:
        target = self.outside(tmp_path)
        lock = tmp_path / "extensions" / "nvdiffrast_plugin" / "lock"
        lock.parent.mkdir(parents=True)
        lock.symlink_to(target)
        site.run("--fix", TORCH_EXTENSIONS_DIR=str(tmp_path / "extensions"))
        assert target.exists()


class TestShare:
    @pytest.fixture
    def redact(self, parts: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Any:
        def make(user: str, host: str, facts: Any = None) -> Any:
            monkeypatch.setattr(parts.share.getpass, "getuser", lambda: user)
            monkeypatch.setattr(parts.share.socket, "gethostname", lambda: host)
            return parts.share.Redaction(facts)

        return make

    @pytest.mark.parametrize(
        ("text", "shared"),
        [
            ("/srv/my data/torch/lib/x.so: bad", "<path>/x.so: bad"),
            ("/srv/Ann Lee Smith/x.so: bad", "<path>/x.so: bad"),
            (r"in C:\Users\Ann Smith\my code\c10.dll, needed", "in <path>/c10.dll, needed"),
            ('"/srv/my data/x y.so"', '"<path>/x y.so"'),
            ("A=/srv/one/lib:/opt/two secret/lib", "A=<path>/lib:<path>/lib"),
            ("/opt/a/b.so is for torch/lib", "<path>/b.so is for torch/lib"),
            ("n/a, 3/4 and/or x/y", "n/a, 3/4 and/or x/y"),
            ("https://pytorch.org/get-started/locally/", "https://pytorch.org/get-started/locally/"),
            ("https://github.com/NVlabs/nvdiffrast is away", "https://github.com/NVlabs/nvdiffrast is away"),
            ("https://pytorch.org.example/x", "https://<index>/x"),
            ("https://user@github.com/ann/x", "https://<index>/ann/x"),
        ],
    )
    def test_paths_with_blanks(self, redact: Any, text: str, shared: str) -> None:
        assert redact("nobody", "nowhere")(text) == shared

    def test_a_path_that_exists_ends_where_the_system_says(self, redact: Any, tmp_path: Path) -> None:
        folder = tmp_path / "a folder of more words than a sentence"
        folder.mkdir()
        (folder / "lib x.so").touch()
        assert redact("nobody", "nowhere")(f"needed by {folder}/lib x.so today") == "needed by <path>/lib x.so today"

    @pytest.mark.parametrize(
        ("text", "shared"),
        [
            ("a@py: a package and a plugin", "<user>@<host>: a package and a plugin"),
            ("Python: pip install py, a.b, a-b", "Python: pip install py, a.b, a-b"),
            ("/home/a/x.so", "<path>/x.so"),
            ("/home/a", "<path>/<user>"),
            (r"\\py\a\x.dll", "<path>/x.dll"),
            ("CUDA 13.0 for a GPU", "CUDA 13.0 for a GPU"),
            ("n/a", "n/a"),
        ],
    )
    def test_short_names(self, redact: Any, text: str, shared: str) -> None:
        assert redact("a", "py")(text) == shared

    def test_long_names_are_masked_in_any_place(self, redact: Any) -> None:
        shared = redact("annemarie", "annes-laptop.example.org")
        assert shared("annemarie on annes-laptop: ANNES-LAPTOP.example.org") == "<user> on <host>: <host>"

    @pytest.mark.parametrize("name", ["torch", "root", "nvidia", "python", "cuda"])
    def test_names_that_are_words_of_the_report(self, redact: Any, name: str) -> None:
        text = f"{name} is installed; the root of torch; an NVIDIA GPU; CUDA 13.0 for python"
        assert redact(name, name)(text) == text
        assert redact(name, name)(f"/home/{name}") == "<path>/<user>"

    def test_a_home_with_a_short_name(self, redact: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", "/a")
        monkeypatch.setenv("USERPROFILE", "/a")
        shared = redact("a", "py")
        assert shared("n/a, 1/a/2 and /a/b/c.so, /a") == "n/a, 1/a/2 and <path>/c.so, <home>"
