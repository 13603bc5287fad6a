"""Packages without compiled code: two builds give the same bytes, and a record states it."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

import pytest

from scripts.build import pure_packages
from scripts.errors import AuditError, BuildError
from scripts.index import package_record
from scripts.support.files import file_sha256

PROJECT = """\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"
[project]
name = "some-thing"
version = "1.2"
license-files = ["LICENSE"]
[tool.setuptools.packages.find]
where = ["src"]
"""
# What a build must not see: it puts the hour of the time zone into the wheel.
CLOCK = (
    "import time, pathlib\npathlib.Path('src/some_thing/hour.py').write_text(f'HOUR = {time.localtime(0).tm_hour}')\n"
)


@pytest.fixture
def package(tmp_path: Path) -> pure_packages.Package:
    folder = tmp_path / "packages" / "some-thing"
    (folder / "src" / "some_thing").mkdir(parents=True)
    (folder / "pyproject.toml").write_text(PROJECT)
    (folder / "README.md").write_text("Some thing.\n")
    (folder / "LICENSE").write_text("Do as you please.\n")
    (folder / "src" / "some_thing" / "__init__.py").write_text("ANSWER = 42\n")
    [found] = pure_packages.known(folder.parent)
    return found


def test_builds_a_wheel_and_its_record(package: pure_packages.Package, tmp_path: Path) -> None:
    wheel = pure_packages.build(package, tmp_path / "dist")
    sha256, size = file_sha256(wheel), wheel.stat().st_size
    assert wheel.name == "some_thing-1.2-py3-none-any.whl"
    record = package_record.load(sha256, wheel.name, size, tmp_path / "dist")
    assert (record.builds, set(record.tools)) == (2, {"build", "python", "setuptools"})
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read("some_thing/__init__.py") == b"ANSWER = 42\n"
    os.utime(package.folder / "src" / "some_thing" / "__init__.py", (0, 0))
    assert file_sha256(pure_packages.build(package, tmp_path / "later")) == sha256


def test_refuses_builds_that_differ(package: pure_packages.Package, tmp_path: Path) -> None:
    pyproject = package.folder / "pyproject.toml"
    backend = PROJECT.replace('"setuptools.build_meta"', '"backend"\nbackend-path = ["src"]')
    pyproject.write_text(backend)
    (package.folder / "src" / "backend.py").write_text(f"from setuptools.build_meta import *\n{CLOCK}")
    with pytest.raises(BuildError, match="two builds of the same sources differ"):
        pure_packages.build(package, tmp_path / "dist")
    assert not (tmp_path / "dist").exists()


def test_refuses_invalid_records(tmp_path: Path) -> None:
    wheel = tmp_path / "some_thing-1.2-py3-none-any.whl"
    wheel.write_bytes(b"a wheel")
    sha256, size = file_sha256(wheel), wheel.stat().st_size
    with pytest.raises(AuditError, match="has no record of its builds"):
        package_record.load(sha256, wheel.name, size, tmp_path)
    path = package_record.save(package_record.make(wheel, 2, {}), tmp_path)
    assert package_record.load(sha256, wheel.name, size, tmp_path).wheel == wheel.name
    whole = json.loads(path.read_text())
    for changes, message in (
        ({"builds": 1}, "a reproducible wheel needs 2"),
        ({"size": 1}, "about another wheel"),
        ({"wheel": "other"}, "about another wheel"),
        ({"schema": 2}, "schema 2"),
        ({"tools": None}, "not a record"),
    ):
        path.write_text(json.dumps({**whole, **changes}))
        with pytest.raises(AuditError, match=message):
            package_record.load(sha256, wheel.name, size, tmp_path)
