"""Refresh torch_builds.yaml from package indexes: `nox -s observe`.

Two sources: a registry of Python packages (the plain torch wheels; the CUDA they were built with is read from each
wheel's metadata), and PyTorch's own channels, one folder a CUDA tag. A source that cannot be reached leaves its part of
the table as it was, and that is said; if none can be reached the file is not touched.
"""

from __future__ import annotations

import argparse
import datetime
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from packaging.metadata import parse_email
from packaging.requirements import InvalidRequirement, Requirement
from packaging.tags import Tag
from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from packaging.version import Version

from scripts.console import mark
from scripts.errors import UntestedError
from scripts.matrix import additions, matrix, torch_builds, yaml_document
from scripts.matrix.expand import to_toolkit
from scripts.matrix.schema import parse
from scripts.matrix.torch_builds import Channel, Plain, TorchTable
from scripts.model import version_line
from scripts.support import simple_api
from scripts.support.command_line import run_main
from scripts.support.simple_api import File, IndexUnreachable

INDEX = "https://pypi.org/simple"
CHANNELS = "https://download.pytorch.org/whl"
_OLDEST = Version("2.2")
_PLATFORMS = {"x86_64": "linux_x86_64", "win_amd64": "win_amd64"}
_RUNTIME = re.compile(r"^nvidia-cuda-runtime(-cu\d+)?$")


@dataclass
class Report:
    """What was observed and what could not be, a line each."""

    observed: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)


def refresh(
    table: TorchTable, *, index: str, channels: str, tags: Iterable[str], today: str
) -> tuple[TorchTable, Report]:
    """The table as the indexes have it now; ``tags`` are the channels to read ("cu130"), ``today`` an ISO date."""
    report = Report()
    made = dict(table.channels)
    for tag in sorted(set(tags) | set(made), key=lambda tag: int(tag[2:])):
        try:
            made[tag] = Channel(channel_builds(simple_api.files(f"{channels}/{tag}/torch/"), tag), observed=today)
            report.observed.append(f"channel {tag}: {len(made[tag].builds)} torch versions")
        except IndexUnreachable as error:
            report.kept.append(f"channel {tag}: {error}")
    try:
        pypi = plain_builds(simple_api.files(f"{index}/torch/"), table.pypi)
        report.observed.append(f"plain wheels: {len(pypi)} torch versions")
        return TorchTable(made, pypi, today), report
    except IndexUnreachable as error:
        report.kept.append(f"plain wheels: {error}")
        return replace(table, channels=made), report


def channel_builds(files: Iterable[File], tag: str) -> Mapping[str, Mapping[str, tuple[str, ...]]]:
    """torch version -> platform -> CPython lines of the wheels of one channel.

    Raises:
        IndexUnreachable: the page lists no torch wheel of that CUDA (a login page, say): nothing was observed.
    """
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for wheel in _wheels(files):
        if wheel.version.local == tag:
            found[wheel.version.public][wheel.platform].add(wheel.python)
    if not found:
        raise IndexUnreachable(f"the page lists no torch wheel for {tag}")
    return {version: {name: _ordered(pythons) for name, pythons in where.items()} for version, where in found.items()}


def plain_builds(files: Iterable[File], known: Mapping[str, Plain]) -> Mapping[str, Plain]:
    """torch version -> plain build, for Linux; the CUDA of a version that is ``known`` is not read again.

    Raises:
        IndexUnreachable: there is no torch wheel, or a wheel's metadata cannot be read.
    """
    by_version: dict[str, list[_Wheel]] = defaultdict(list)
    for wheel in _wheels(files):
        if wheel.version.local is None and wheel.platform == "linux_x86_64":
            by_version[wheel.version.public].append(wheel)
    if not by_version:
        raise IndexUnreachable("the page lists no plain torch wheel for Linux")
    made = {}
    for version, wheels in by_version.items():
        cuda = known[version].cuda if version in known else cuda_of(simple_api.metadata(wheels[0].file))
        if cuda:
            made[version] = Plain(cuda, _ordered({wheel.python for wheel in wheels}))
    return made


def cuda_of(metadata: str) -> str | None:
    """The CUDA that a torch wheel's METADATA asks for: "13.0.2" by ``cuda-toolkit``, "12.8" by the runtime, or None."""
    raw, _ = parse_email(metadata)
    pins: dict[str, str] = {}
    for line in raw.get("requires_dist", []):
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue
        exact = [one.version for one in requirement.specifier if one.operator == "=="]
        if exact:
            pins["runtime" if _RUNTIME.match(requirement.name) else requirement.name] = exact[0].removesuffix(".*")
    if "cuda-toolkit" in pins:
        return pins["cuda-toolkit"]
    return version_line(pins["runtime"]) if "runtime" in pins else None


@dataclass(frozen=True)
class _Wheel:
    file: File
    version: Version
    python: str
    platform: str


def _wheels(files: Iterable[File]) -> Iterable[_Wheel]:
    """The final releases for a plain CPython (no free-threaded ABI) on a platform that we know."""
    for file in files:
        try:
            name, version, _, tags = parse_wheel_filename(file.name)
        except InvalidWheelFilename:
            continue
        if name != "torch" or version.is_prerelease or version < _OLDEST or file.yanked:
            continue
        for tag in sorted(tags, key=str)[:1]:
            platform = _platform(tag)
            if platform and re.fullmatch(r"cp3\d+", tag.abi):
                yield _Wheel(file, version, f"3.{tag.abi[3:]}", platform)


def _platform(tag: Tag) -> str | None:
    if tag.platform.startswith(("linux_", "manylinux")):
        return _PLATFORMS.get("x86_64") if tag.platform.endswith("_x86_64") else None
    return _PLATFORMS.get(tag.platform)


def _ordered(pythons: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(pythons, key=Version))


def observe(path: Path, *, index: str, channels: str) -> Report:
    """Refresh the file at ``path``.

    Raises:
        UntestedError: nothing could be reached; the file is as it was.
    """
    table = torch_builds.load(path)
    today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    made, report = refresh(table, index=index, channels=channels, tags=_toolkit_tags(), today=today)
    if not report.observed:
        raise UntestedError(
            "\n".join([f"{path.name} unchanged:", *report.kept]), hint="check the network, or name --index"
        )
    matrix.write(path, torch_builds.dump(made))
    return report


def _toolkit_tags() -> list[str]:
    """The toolkits that the matrix asks for, even where their torch is not in the table yet."""
    raw, _ = parse(yaml_document.read(matrix.PATH))
    return [to_toolkit(cuda, toolkit).tag for cuda, toolkit in raw.toolkits.items()] if raw else []


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="nox -s observe --", description="Refresh torch_builds.yaml.")
    parser.add_argument(
        "--index", default=os.environ.get("PIP_INDEX_URL", INDEX), help="a simple index with the plain wheels"
    )
    parser.add_argument("--channels", default=CHANNELS, help="the folder of PyTorch's channels")
    parser.add_argument("--add", action="store_true", help="add newer torch lines to the matrix as well")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write what changed there, in Markdown")
    return parser.parse_args()


def _follow(before: TorchTable, *, add: bool, told: Path | None) -> None:
    """Take into the matrix what the new table has, and tell."""
    adopted = additions.adopt(matrix.PATH, torch_builds.PATH) if add else None
    if adopted and adopted.additions:
        matrix.write(matrix.PATH, adopted.text)
        mark("passed", f"{len(adopted.additions)} torch lines added to the matrix: {len(adopted.cells)} cells")
    if told:
        told.parent.mkdir(parents=True, exist_ok=True)
        told.write_text(additions.report(before, torch_builds.load(torch_builds.PATH), adopted), encoding="utf-8")


def main() -> int:
    """Refresh the table of torch builds."""
    options = _parse()
    before = torch_builds.load(torch_builds.PATH)
    report = observe(torch_builds.PATH, index=options.index.rstrip("/"), channels=options.channels.rstrip("/"))
    for line in report.observed:
        mark("passed", line)
    for line in report.kept:
        mark("untested", f"{line}; kept as it was")
    _follow(before, add=options.add, told=options.report)
    return 0


if __name__ == "__main__":
    run_main(main)
