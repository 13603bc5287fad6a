"""Unit tests do not use the user's files: invalid files in their places would break a test that reads them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from scripts.model import ROOT
from scripts.support.files import cache_root
from tests import surroundings

# Invalid content of files that tools read, and a lock file that torch and the doctor would wait for.
TRAPS = {
    ".cache/torch_extensions/py311_cu130/nvdiffrast_plugin_gl/lock": "",
    ".cache/nvdiffrast-wheels/environments": "a file in place of a folder",
    ".cache/uv": "a file in place of a folder",
    ".cache/pip": "a file in place of a folder",
    ".config/pip/pip.conf": "no configuration",
    ".config/uv/uv.toml": "no configuration",
    ".config/git/config": "no configuration",
    ".gitconfig": "no configuration",
    ".netrc": "no credentials",
    ".pydistutils.cfg": "no configuration",
    ".pypirc": "no configuration",
}
# Variables that name such files, or that change how a tool works.
VARIABLES = {
    "PIP_INDEX_URL": "http://127.0.0.1:9/",
    "PIP_REQUIRE_VIRTUALENV": "1",
    "UV_INDEX_URL": "http://127.0.0.1:9/",
    "UV_OFFLINE": "no boolean",
    "GIT_DIR": "/nowhere",
    "CFLAGS": "-no-such-option",
    "CXX": "no-such-compiler",
    "CUDA_HOME": "/nowhere",
    "NVDIFFRAST_FORCE_JIT": "1",
    "NVDIFFRAST_DLL_DIRS": "/nowhere",
    "NVDIFFRAST_INDEX_URL": "http://127.0.0.1:9/",
    "PYTHONUNBUFFERED": "1",
    "SOURCE_DATE_EPOCH": "no number",
    "TWINE_PASSWORD": "secret",
    "http_proxy": "http://127.0.0.1:9/",
    "HTTPS_PROXY": "http://127.0.0.1:9/",
}
# Unit tests that run pip, uv, git, twine, compilers and the doctor, or look for caches.
MODULES = (
    *("compilers", "doctor", "doctor_machine", "download", "files", "interpreters", "library_reader", "packages"),
    *("process", "toolchain", "upload", "upstream"),
)


@pytest.fixture
def trapped(tmp_path: Path) -> dict[str, str]:
    """Return the environment of a user whose home folder contains invalid files."""
    home = tmp_path / "home"
    for name, content in TRAPS.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(content)
    named = {"XDG_CONFIG_HOME": home / ".config", "TORCH_EXTENSIONS_DIR": home / ".cache" / "torch_extensions"}
    named |= {"UV_CACHE_DIR": home / ".cache" / "uv", "PIP_CACHE_DIR": home / ".cache" / "pip"}
    return {"PATH": os.environ["PATH"], "HOME": str(home), **VARIABLES, **{name: str(at) for name, at in named.items()}}


def _run(environment: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def _content(home: Path) -> dict[str, bytes]:
    return {str(path.relative_to(home)): path.read_bytes() for path in home.rglob("*") if path.is_file()}


def test_unit_tests_ignore_the_users_configuration(trapped: dict[str, str]) -> None:
    home = Path(trapped["HOME"])
    before = _content(home)
    done = _run(trapped, "-m", "not integration", *(f"tests/unit/test_{name}.py" for name in MODULES))
    assert done.returncode == 0, done.stdout
    assert _content(home) == before
    assert set(before) == set(TRAPS)


def test_tests_without_their_own_environment_read_the_users_configuration(trapped: dict[str, str]) -> None:
    done = _run(trapped, "--noconftest", "tests/unit/test_doctor.py")
    assert done.returncode == 1, done.stdout


def test_unit_tests_keep_few_variables(tmp_path: Path) -> None:
    given = {**VARIABLES, "PATH": "/bin", "LC_ALL": "C", "NVDIFFRAST_TEST_REAL_TORCH": "1"}
    made = surroundings.of_unit_tests(given, tmp_path)
    assert {name for name in given if made.get(name) == given[name]} == {"PATH", "LC_ALL", "NVDIFFRAST_TEST_REAL_TORCH"}
    places = [value for name, value in made.items() if name.endswith(("HOME", "_DIR", "_CACHE"))]
    assert all(Path(place).is_relative_to(tmp_path) for place in places)


def test_integration_tests_get_the_index_and_the_download_folder(tmp_path: Path) -> None:
    given = {"PIP_INDEX_URL": "https://index.example/", "TORCH_EXTENSIONS_DIR": "/real", "UV_CACHE_DIR": "/real"}
    made = surroundings.of_integration_tests(given, tmp_path)
    assert made["PIP_INDEX_URL"] == given["PIP_INDEX_URL"]
    assert made["NVDIFFRAST_WHEELS_CACHE"] == str(tmp_path)
    assert made["UV_CACHE_DIR"] == str(tmp_path / "uv")
    assert "TORCH_EXTENSIONS_DIR" not in made


def test_this_test_has_its_own_home(given_environment: Mapping[str, str]) -> None:
    real = given_environment.get("HOME")
    assert Path.home().is_dir()
    assert real is None or not Path.home().is_relative_to(real)
    assert cache_root().parent == Path.home().parent
