"""Make a wheel's entry from the wheel, and check entries.

The file name, METADATA, RECORD, WHEEL and build_info.json must agree. The fields of an entry become parts of URLs and
pages, so each field must match a pattern; every entry is checked when it is made and when it is read.
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
_PATTERNS = {
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
# Does not match `Requires-Python: <4` and `Name <name@example.org>`.
_MARKUP = re.compile(r"<[A-Za-z/!?][^<>@]*>|<script|<!--", re.IGNORECASE)
_LONGEST_REASON = 300


@dataclass(frozen=True)
class Candidate:
    """A wheel that may be staged: the file, its audit record or build record, its entry, and the bytes of METADATA."""

    path: Path
    record: Record | PackageRecord
    entry: Entry | PureWheel
    metadata: bytes


def make(path: Path, record: Record, uploaded: str) -> Candidate:
    """Read a wheel for which ``record`` was made.

    Raises:
        PublishError: if it is not a wheel of nvdiffrast, or if its parts disagree.
    """
    hint = "build it again; do not rename or edit a wheel"
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
    """Check that a wheel's entry can become part of a URL and a page; errors name ``place``.

    Raises:
        CatalogError: if a field is invalid; the message names all invalid fields.
    """
    problems = list(_field_problems(entry))
    if problems:
        raise CatalogError(f"{place}: {entry.name!r}: {'; '.join(problems)}")


def check_reason(reason: str) -> str:
    """Return a reason without surrounding white space; it must be one line of at most 300 characters.

    Raises:
        PublishError: if it is empty, longer, or not one line of text.
    """
    text = reason.strip()
    if not text or len(text) > _LONGEST_REASON or not text.isprintable():
        hint = f"give the reason in one line of at most {_LONGEST_REASON} characters"
        raise PublishError(f"not a reason: {text[:_LONGEST_REASON]!r}", hint=hint)
    return text


def _field_problems(entry: File) -> Iterator[str]:
    """Yield one message per invalid field."""
    for name, pattern in _PATTERNS.items():
        value = getattr(entry, name, None)
        if value is not None and not re.fullmatch(pattern, value, re.ASCII):
            yield f"{name} is {value!r}"
    architectures = (*entry.sass, *entry.ptx) if isinstance(entry, Entry) else ()
    yield from _mismatches("an architecture", architectures, _NUMBER + "[a-z]?")
    yield from _mismatches("a requirement", entry.requires if isinstance(entry, PureWheel) else (), _REQUIREMENT)
    if entry.size <= 0:
        yield f"size is {entry.size}"
    yield from _name_problems(entry)


def _mismatches(what: str, values: Iterable[str], pattern: str) -> Iterator[str]:
    yield from (f"{what} is {value!r}" for value in values if not re.fullmatch(pattern, value, re.ASCII))


def _name_problems(entry: File) -> Iterator[str]:
    """Yield one message per contradiction between the file name and the other fields."""
    if not _FILE_NAME.fullmatch(entry.name):
        yield "not a portable file name"
        return
    try:
        project, version, _, tags = parse_wheel_filename(entry.name)
    except InvalidWheelFilename as error:
        yield str(error)
        return
    if isinstance(entry, PureWheel):
        yield from _pure_name_problems(entry, project, version, tags)
    elif isinstance(entry, Entry):
        yield from _compiled_name_problems(entry, project, version, tags)


def _pure_name_problems(entry: PureWheel, project: str, version: Version, tags: Iterable[Tag]) -> Iterator[str]:
    if project == NVDIFFRAST:
        yield "nvdiffrast has compiled code, so its wheel needs a cell"
    if {*map(str, tags)} != {PURE} or version.local or str(version) != entry.version:
        yield f"the file name must have the tag {PURE} and a version without a local part"


def _compiled_name_problems(entry: Entry, project: str, version: Version, tags: Iterable[Tag]) -> Iterator[str]:
    if project != NVDIFFRAST:
        yield f"a wheel of {project}, not of nvdiffrast"
    expected = f"{entry.release}+{entry.cuda}.torch{entry.torch}"
    if str(version) != expected:
        yield f"the file name has version {version}, its entry gives {expected}"
    interpreter = "cp" + entry.python.replace(".", "")
    if {tag.interpreter for tag in tags} != {interpreter}:
        yield f"the file name does not have the tag {interpreter}"


def _disagreements(wheel: Wheel, info: BuildInfo) -> Iterator[str]:
    """Yield one message per contradiction between file name, METADATA, RECORD, WHEEL and build_info.json."""
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
        yield f"build_info.json gives version {expected}, the file name {wheel.version}"
    if info.python not in {tag.interpreter for tag in parse_tag("-".join(wheel.path.stem.split("-")[-3:]))}:
        yield f"build_info.json says {info.python}"
    required = [str(one) for one in metadata.requires_dist or [] if one.name.lower() == "torch"]
    if required != [f"torch=={version_line(info.torch)}.*"]:
        yield f"METADATA requires {', '.join(required) or 'no torch'}, not torch=={version_line(info.torch)}.*"
    yield from wheel_file.record_problems(wheel)
    yield from markup(wheel)


def markup(wheel: Wheel) -> Iterator[str]:
    """Yield one message per header of METADATA with markup, which must not become part of a page."""
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
