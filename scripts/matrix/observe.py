"""`nox -s observe`: refresh torch_builds.yaml from package indexes.

The sources are PyPI (the CUDA of a torch version is read from the metadata of a wheel) and PyTorch's channels, one per
CUDA tag. If a source cannot be reached, its part of the table stays the same, and that is reported. If no source can be
reached, the file is not changed.
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
from scripts.support.files import write_atomic
from scripts.support.simple_api import File, IndexUnreachable

INDEX = "https://pypi.org/simple"
CHANNELS = "https://download.pytorch.org/whl"
_OLDEST = Version("2.2")
_PLATFORMS = {"x86_64": "linux_x86_64", "win_amd64": "win_amd64"}
_RUNTIME = re.compile(r"^nvidia-cuda-runtime(-cu\d+)?$")


@dataclass
class Report:
    """Messages about the sources that were observed, and about those that could not be read."""

    observed: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)


def refresh(
    table: TorchTable, *, index: str, channels: str, tags: Iterable[str], today: str
) -> tuple[TorchTable, Report]:
    """Return the table with the current content of the indexes.

    ``tags`` are the channels to read ("cu130"); ``today`` is an ISO date.
    """
    report = Report()
    made = dict(table.channels)
    for tag in sorted(set(tags) | set(made), key=lambda tag: int(tag[2:])):
        try:
            made[tag] = Channel(channel_builds(simple_api.files(f"{channels}/{tag}/torch/"), tag), observed=today)
            report.observed.append(f"channel {tag}: {len(made[tag].builds)} torch versions")
        except IndexUnreachable as error:
            report.unread.append(f"channel {tag}: {error}")
    try:
        pypi = plain_builds(simple_api.files(f"{index}/torch/"), table.pypi)
        report.observed.append(f"plain wheels: {len(pypi)} torch versions")
        return TorchTable(made, pypi, today), report
    except IndexUnreachable as error:
        report.unread.append(f"plain wheels: {error}")
        return replace(table, channels=made), report


def channel_builds(files: Iterable[File], tag: str) -> Mapping[str, Mapping[str, tuple[str, ...]]]:
    """Return torch version -> platform -> CPython lines of the wheels of one channel.

    Raises:
        IndexUnreachable: if the page lists no torch wheel of that CUDA, for example because it is a login page.
    """
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for wheel in _wheels(files):
        if wheel.version.local == tag:
            found[wheel.version.public][wheel.platform].add(wheel.python)
    if not found:
        raise IndexUnreachable(f"the page lists no torch wheel for {tag}")
    return {version: {name: _ordered(pythons) for name, pythons in where.items()} for version, where in found.items()}


def plain_builds(files: Iterable[File], known: Mapping[str, Plain]) -> Mapping[str, Plain]:
    """Return torch version -> build on PyPI for Linux; the CUDA of versions in ``known`` is not read again.

    Raises:
        IndexUnreachable: if the page lists no torch wheel, or the metadata of a wheel cannot be read.
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
    """Return the CUDA that a torch wheel requires: "13.0.2" by ``cuda-toolkit``, "12.8" by the runtime, or None."""
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
    """Yield the wheels of final versions for CPython with the GIL on the platforms of the matrix."""
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
        UntestedError: if no source could be reached; the file is not changed.
    """
    table = torch_builds.load(path)
    today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    made, report = refresh(table, index=index, channels=channels, tags=_toolkit_tags(), today=today)
    if not report.observed:
        raise UntestedError(
            "\n".join([f"{path.name} unchanged:", *report.unread]),
            hint="check the network, or use another index: --index URL",
        )
    matrix.write(path, torch_builds.dump(made))
    return report


def _toolkit_tags() -> list[str]:
    """Return the tags of all toolkits in the matrix, even if the table does not contain their torch yet."""
    raw, _ = parse(yaml_document.read(matrix.PATH))
    return [to_toolkit(cuda, toolkit).tag for cuda, toolkit in raw.toolkits.items()] if raw else []


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="nox -s observe --", description="Refresh torch_builds.yaml.")
    parser.add_argument(
        "--index", default=os.environ.get("PIP_INDEX_URL", INDEX), help="the simple index with PyPI's torch wheels"
    )
    parser.add_argument("--channels", default=CHANNELS, help="the URL of PyTorch's channels")
    parser.add_argument("--add", action="store_true", help="also add newer torch lines to the matrix")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write a report of the changes in Markdown")
    return parser.parse_args()


def _update_matrix(before: TorchTable, *, add: bool, report: Path | None) -> None:
    """Add new torch versions to the matrix if ``add``, and write a report to the file ``report``."""
    extension = additions.extend(matrix.PATH, torch_builds.PATH) if add else None
    if extension and extension.additions:
        matrix.write(matrix.PATH, extension.text)
        mark("passed", f"{len(extension.additions)} torch lines added to the matrix: {len(extension.cells)} cells")
    if report:
        write_atomic(report, additions.report(before, torch_builds.load(torch_builds.PATH), extension))


def main() -> int:
    """Refresh the table of torch builds, and update the matrix."""
    options = _parse()
    before = torch_builds.load(torch_builds.PATH)
    report = observe(torch_builds.PATH, index=options.index.rstrip("/"), channels=options.channels.rstrip("/"))
    for line in report.observed:
        mark("passed", line)
    for line in report.unread:
        mark("untested", f"{line}; its part of the table is not changed")
    _update_matrix(before, add=options.add, report=options.report)
    return 0


if __name__ == "__main__":
    run_main(main)
