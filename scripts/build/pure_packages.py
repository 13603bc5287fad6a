"""Builds the pure-Python packages below packages/ as wheels: nox -s packages -- [NAME...] [--output DIR].

The same sources give the same bytes, whoever builds them and when: times and modes are fixed, and only what the package
declares is copied before it is built. Each is built twice, in different surroundings; that both gave the same bytes is
written down beside the wheel, in records/, and lets it be staged.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from scripts import console
from scripts.build.build import SOURCE_DATE_EPOCH
from scripts.errors import BuildError, CommandError, UsageError
from scripts.index import package_record
from scripts.model import ROOT
from scripts.support.command_line import run_main
from scripts.support.files import file_sha256
from scripts.support.process import call

FOLDER = ROOT / "packages"
_SOURCES = ("pyproject.toml", "README.md", "LICENSE", "src")
# What two builds differ in: where they run, in which order sets come, which time of day it is.
_SURROUNDINGS: dict[str, dict[str, str]] = {
    "one": {"PYTHONHASHSEED": "0", "TZ": "UTC"},
    "another/and/deeper": {"PYTHONHASHSEED": "4711", "TZ": "XYZ-11:30"},
}
_NOT = shutil.ignore_patterns("__pycache__", "*.egg-info", "*.pyc")


@dataclass(frozen=True)
class Package:
    """A package below packages/: its folder, and what its pyproject.toml calls it."""

    folder: Path
    name: str
    version: str

    @property
    def wheel(self) -> str:
        """The file name of its wheel."""
        return f"{self.name.replace('-', '_')}-{self.version}-py3-none-any.whl"


def known(folder: Path = FOLDER) -> tuple[Package, ...]:
    """All packages, by name."""
    return tuple(sorted(_read(folder), key=lambda package: package.name))


def build(package: Package, destination: Path) -> Path:
    """The package's wheel in ``destination``, whole or not at all, and beside it the record that two builds agreed.

    Raises:
        BuildError: it cannot be built, what comes out is not its wheel with its licence, or two builds differ.
    """
    with tempfile.TemporaryDirectory(prefix="nvdiffrast-package-") as work:
        made = [_build(package, Path(work) / place, variables) for place, variables in _SURROUNDINGS.items()]
        if len({*map(file_sha256, made)}) != 1:
            raise BuildError(
                f"{package.name}: two builds of the same sources differ",
                hint="find what depends on the folder, the time zone or the order of a set",
            )
        _check_licence(made[0], package)
        destination.mkdir(parents=True, exist_ok=True)
        beside = destination / f".{package.wheel}.new"
        shutil.copyfile(made[0], beside)
        wheel = beside.replace(destination / package.wheel)
    tools = {"python": platform.python_version(), **{name: version(name) for name in ("build", "setuptools")}}
    package_record.save(package_record.make(wheel, len(made), tools), destination)
    return wheel


def _build(package: Package, work: Path, variables: Mapping[str, str]) -> Path:
    """Build once, in the new folder ``work``."""
    tree, out = work / package.name, work / "out"
    _copy(package.folder, tree)
    command: list[str | os.PathLike[str]] = [sys.executable, "-m", "build", "--wheel", "--no-isolation"]
    command += ["--outdir", out, tree]
    try:
        call(command, env={"SOURCE_DATE_EPOCH": str(SOURCE_DATE_EPOCH), **variables}, quiet=True, umask=0o022)
    except CommandError as error:
        raise BuildError(f"{package.name}: {error}", hint=f"look at {package.folder / 'pyproject.toml'}") from error
    made = [path.name for path in out.iterdir()]
    if made != [package.wheel]:
        raise BuildError(f"{package.name}: made {', '.join(made) or 'nothing'} instead of {package.wheel}")
    return out / package.wheel


def _read(folder: Path) -> Iterator[Package]:
    for file in folder.glob("*/pyproject.toml"):
        project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
        yield Package(file.parent, project["name"], project["version"])


def _copy(folder: Path, tree: Path) -> None:
    """Copy what belongs into the package, with the modes that the wheel is to have."""
    tree.mkdir(parents=True)
    for name in _SOURCES:
        if (folder / name).is_dir():
            shutil.copytree(folder / name, tree / name, ignore=_NOT)
        else:
            shutil.copyfile(folder / name, tree / name)
    for path in tree.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _check_licence(wheel: Path, package: Package) -> None:
    expected = (package.folder / "LICENSE").read_bytes()
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(".dist-info/licenses/LICENSE")]
        if len(names) != 1 or archive.read(names[0]) != expected:
            raise BuildError(f"{wheel.name} does not carry its licence whole")


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the named packages, or all."""
    parser = argparse.ArgumentParser(prog="nox -s packages --", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="packages, all unless named")
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="where wheels go (dist/)")
    options = parser.parse_args(arguments)
    found = {package.name: package for package in known()}
    unknown = [name for name in options.names if name not in found]
    if unknown:
        raise UsageError(f"no package {', '.join(unknown)}", hint=f"choose from: {', '.join(found)}")
    wheels = [build(found[name], options.output) for name in options.names or found]
    rows = [(wheel.name, f"{wheel.stat().st_size / 1e3:.0f} kB", file_sha256(wheel)) for wheel in wheels]
    console.table("built", ("wheel", "size", "sha256"), rows)
    return 0


if __name__ == "__main__":
    run_main(main, uses_cache=True)
