"""The entry of a wheel, from what the wheel itself says: its name, METADATA, RECORD, WHEEL and build_info.json agree.

What an entry says ends up in addresses and pages, so each field has a shape of its own, looked at here whenever an
entry is made or read.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.tags import Tag, parse_tag
from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from packaging.version import Version

from scripts.audit.checks import BUILD_INFO
from scripts.errors import CatalogError, PipelineError, PublishError
from scripts.index.catalog import Entry, File, PureWheel
from scripts.index.package_record import PackageRecord
from scripts.model import cuda_tag, version_line
from scripts.support.files import file_sha256
from scripts.wheel import wheel_file
from scripts.wheel.audit_record import Record
from scripts.wheel.build_info import BuildInfo
from scripts.wheel.wheel_file import Wheel

_SPECIFIER = r"(~=|===?|!=|<=?|>=?) ?[0-9][0-9a-z.]*(\.\*)?"
_REQUIREMENT = rf"[A-Za-z0-9][A-Za-z0-9._-]*( ?{_SPECIFIER}(, ?{_SPECIFIER})*)?"
_NUMBER = r"[0-9]+(\.[0-9]+)*"
NVDIFFRAST, PURE = "nvdiffrast", "py3-none-any"
_SHAPES = {
    "sha256": r"[0-9a-f]{64}",
    "metadata_sha256": r"[0-9a-f]{64}",
    "uploaded": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ",
    "requires_python": rf"{_SPECIFIER}(, ?{_SPECIFIER})*",
    "cell": r"[A-Za-z0-9][A-Za-z0-9._-]*",
    "release": r"[0-9]+(\.[0-9]+)*((a|b|rc|\.post|\.dev)[0-9]+)*",
    "python": r"3\.[0-9]+",
    "cuda": r"cu[0-9]{2,4}",
    "torch": r"[0-9]+\.[0-9]+",
    "platform": r"[a-z0-9_]+",
}
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*\.whl")
# No header of ours has markup; `Requires-Python: <4` and `Name <name@example.org>` are none.
_MARKUP = re.compile(r"<[A-Za-z/!?][^<>@]*>|<script|<!--", re.IGNORECASE)
_REASON = 300


@dataclass(frozen=True)
class Candidate:
    """A wheel that may be staged: the file, its audit's or its builds' record, its entry, and its METADATA as it is."""

    path: Path
    record: Record | PackageRecord
    entry: Entry | PureWheel
    metadata: bytes


def make(path: Path, record: Record, uploaded: str) -> Candidate:
    """Read a wheel that ``record`` is about.

    Raises:
        PublishError: it is no wheel of nvdiffrast, or what it says of itself does not agree.
    """
    hint = "build it again: a wheel is never renamed or edited afterwards"
    with tempfile.TemporaryDirectory(prefix="nvdiffrast-stage-") as folder:
        try:
            wheel = wheel_file.unpack(path.absolute(), Path(folder).resolve())
            info = BuildInfo.parse(wheel.read(BUILD_INFO))
            problems = list(_disagreements(wheel, info))
            if info.cell != record.cell:
                problems.append(f"build_info.json says cell {info.cell}, its audit record {record.cell}")
            metadata = wheel.read(f"{wheel.dist_info}/METADATA")
        except PipelineError as error:
            raise PublishError(f"{path.name} cannot be staged: {error}", hint=error.hint or hint) from error
        if problems:
            raise PublishError(f"{path.name} cannot be staged: {'; '.join(problems)}", hint=hint)
        entry = _entry(wheel, info, record, metadata, uploaded)
    try:
        check(entry, path.name)
    except CatalogError as error:
        raise PublishError(f"{path.name} cannot be staged: {error}", hint=hint) from error
    return Candidate(path, record, entry, metadata)


def check(entry: File, place: str) -> None:
    """Refuse a wheel's entry that must not become part of an address or a page; ``place`` is where it stands.

    Raises:
        CatalogError: a field does not have its shape; all such fields are named.
    """
    problems = list(_misshapen(entry))
    if problems:
        raise CatalogError(f"{place}: {entry.name!r}: {'; '.join(problems)}")


def check_reason(reason: str) -> str:
    """A reason as it is shown: one line of at most 300 characters.

    Raises:
        PublishError: it is empty, longer, or not one line of text.
    """
    said = reason.strip()
    if not said or len(said) > _REASON or not said.isprintable():
        hint = f"say why in one line of at most {_REASON} characters"
        raise PublishError(f"not a reason: {said[:_REASON]!r}", hint=hint)
    return said


def _misshapen(entry: File) -> Iterator[str]:
    for name, shape in _SHAPES.items():
        value = getattr(entry, name, None)
        if value is not None and not re.fullmatch(shape, value, re.ASCII):
            yield f"{name} is {value!r}"
    architectures = (*entry.sass, *entry.ptx) if isinstance(entry, Entry) else ()
    yield from _others("an architecture", architectures, _NUMBER + "[a-z]?")
    yield from _others("a requirement", entry.requires if isinstance(entry, PureWheel) else (), _REQUIREMENT)
    if entry.size <= 0:
        yield f"size is {entry.size}"
    yield from _misnamed(entry)


def _others(what: str, values: Iterable[str], shape: str) -> Iterator[str]:
    yield from (f"{what} is {value!r}" for value in values if not re.fullmatch(shape, value, re.ASCII))


def _misnamed(entry: File) -> Iterator[str]:
    """What keeps the file's name from being one of its kind."""
    if not _FILE_NAME.fullmatch(entry.name):
        yield "not a portable file name"
        return
    try:
        project, version, _, tags = parse_wheel_filename(entry.name)
    except InvalidWheelFilename as error:
        yield str(error)
        return
    if isinstance(entry, PureWheel):
        yield from _misnamed_pure(entry, project, version, tags)
    elif isinstance(entry, Entry):
        yield from _misnamed_compiled(entry, project, version, tags)


def _misnamed_pure(entry: PureWheel, project: str, version: Version, tags: Iterable[Tag]) -> Iterator[str]:
    if project == NVDIFFRAST:
        yield "nvdiffrast has compiled code: there is none of it without a cell"
    if {*map(str, tags)} != {PURE} or version.local or str(version) != entry.version:
        yield f"the file is not named as one of {PURE} with a plain version"


def _misnamed_compiled(entry: Entry, project: str, version: Version, tags: Iterable[Tag]) -> Iterator[str]:
    """The name is one of its release, CUDA, torch and Python."""
    if project != NVDIFFRAST:
        yield f"a wheel of {project}, not of nvdiffrast"
    expected = f"{entry.release}+{entry.cuda}.torch{entry.torch}"
    if str(version) != expected:
        yield f"the file is named as version {version}, its entry makes it {expected}"
    interpreter = "cp" + entry.python.replace(".", "")
    if {tag.interpreter for tag in tags} != {interpreter}:
        yield f"the file is not named as one for {interpreter}"


def _disagreements(wheel: Wheel, info: BuildInfo) -> Iterator[str]:
    """Where name, METADATA, RECORD, WHEEL and build_info.json say different things."""
    metadata = wheel.metadata
    if metadata.name != "nvdiffrast":
        yield f"METADATA says Name: {metadata.name}"
    if metadata.version != wheel.version:
        yield f"METADATA says Version: {metadata.version}, the file name {wheel.version}"
    if wheel.dist_info != f"nvdiffrast-{wheel.version}.dist-info":
        yield f"the dist-info folder is named {wheel.dist_info}"
    if wheel.stated_tags != wheel.tags:
        yield f"WHEEL states {', '.join(sorted(map(str, wheel.stated_tags))) or 'no tag'}, not the file name's tags"
    expected = f"{info.release}+{cuda_tag(info.cuda)}.torch{version_line(info.torch)}"
    if str(wheel.version) != expected:
        yield f"build_info.json makes it {expected}, the file name {wheel.version}"
    if info.python not in {tag.interpreter for tag in parse_tag("-".join(wheel.path.stem.split("-")[-3:]))}:
        yield f"build_info.json says {info.python}"
    required = [str(one) for one in metadata.requires_dist or [] if one.name.lower() == "torch"]
    if required != [f"torch=={version_line(info.torch)}.*"]:
        yield f"METADATA requires {', '.join(required) or 'no torch'}, not torch=={version_line(info.torch)}.*"
    yield from wheel_file.record_problems(wheel)
    yield from markup(wheel)


def markup(wheel: Wheel) -> Iterator[str]:
    """What of METADATA's headers has markup, which no page must repeat."""
    headers = wheel.read(f"{wheel.dist_info}/METADATA").decode("utf-8", "replace").replace("\r\n", "\n")
    for line in headers.partition("\n\n")[0].splitlines():
        if _MARKUP.search(line):
            yield f"METADATA has markup in {line.partition(':')[0]}"


def _entry(wheel: Wheel, info: BuildInfo, record: Record, metadata: bytes, uploaded: str) -> Entry:
    requires_python = wheel.metadata.requires_python
    return Entry(
        name=wheel.path.name,
        sha256=file_sha256(wheel.path),
        size=wheel.path.stat().st_size,
        uploaded=uploaded,
        metadata_sha256=hashlib.sha256(metadata).hexdigest(),
        requires_python=str(requires_python) if requires_python else None,
        cell=record.cell,
        release=info.release,
        python=f"3.{info.python.removeprefix('cp3')}",
        cuda=cuda_tag(info.cuda),
        torch=version_line(info.torch),
        platform=info.cell.rpartition("-")[2],
        sass=tuple(info.architectures.sass),
        ptx=tuple(info.architectures.ptx),
        partial=record.partial,
    )
