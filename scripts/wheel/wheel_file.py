"""Reads untrusted wheels: the file name, METADATA, WHEEL and RECORD."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from packaging.metadata import ExceptionGroup, Metadata
from packaging.tags import Tag, parse_tag
from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from packaging.version import Version

from scripts.errors import AuditError
from scripts.support.archives import unpack_zip


@dataclass(frozen=True)
class Wheel:
    """An unpacked wheel; ``files`` are the sorted names of its members, relative to ``folder``."""

    path: Path
    folder: Path
    files: tuple[str, ...]
    version: Version
    tags: frozenset[Tag]

    def read(self, member: str) -> bytes:
        """Return the contents of a member.

        Raises:
            AuditError: if the wheel has no such member.
        """
        if member not in self.files:
            raise AuditError(f"{self.path.name} has no {member}")
        return (self.folder / member).read_bytes()

    @cached_property
    def dist_info(self) -> str:
        """Return the name of the dist-info folder.

        Raises:
            AuditError: if the wheel does not have exactly one.
        """
        found = {name.partition("/")[0] for name in self.files if ".dist-info/" in name}
        if len(found) != 1:
            raise AuditError(f"{self.path.name} has {len(found)} dist-info folders instead of one")
        return found.pop()

    @cached_property
    def metadata(self) -> Metadata:
        """Return the validated METADATA.

        Raises:
            AuditError: if it is missing or malformed.
        """
        content = self.read(f"{self.dist_info}/METADATA")
        try:
            return Metadata.from_email(content, validate=True)
        except ExceptionGroup as group:
            raise AuditError(f"METADATA: {'; '.join(map(str, group.exceptions))}") from group

    @cached_property
    def wheel_fields(self) -> tuple[tuple[str, str], ...]:
        """Return the fields of WHEEL in their order."""
        text = self.read(f"{self.dist_info}/WHEEL").decode("utf-8", "replace")
        pairs = (line.partition(":") for line in text.splitlines() if line.strip())
        return tuple((name.strip(), value.strip()) for name, _, value in pairs)

    def field(self, name: str) -> list[str]:
        """Return all values of a field of WHEEL."""
        return [value for field, value in self.wheel_fields if field == name]

    @cached_property
    def stated_tags(self) -> frozenset[Tag]:
        """Return the tags in WHEEL."""
        return frozenset(tag for value in self.field("Tag") for tag in parse_tag(value))


def unpack(path: Path, folder: Path, project: str = "nvdiffrast") -> Wheel:
    """Unpack the wheel of ``project`` at ``path`` into the empty ``folder``.

    Raises:
        AuditError: if the file name is not the name of a wheel of ``project``.
        ArchiveError: if the file is not a complete zip archive, or has a member with an unsafe name.
    """
    try:
        name, version, _, tags = parse_wheel_filename(path.name)
    except InvalidWheelFilename as error:
        raise AuditError(str(error)) from error
    if name != project:
        raise AuditError(f"{path.name} is a wheel of {name}, not of {project}")
    members = unpack_zip(path, folder)
    files = sorted(member.relative_to(folder).as_posix() for member in members)
    return Wheel(path, folder, tuple(files), version, frozenset(tags))


def record_problems(wheel: Wheel) -> Iterator[str]:
    """Yield the problems of RECORD: it must list each file once with hash and size, and RECORD itself with neither."""
    record = f"{wheel.dist_info}/RECORD"
    text = wheel.read(record).decode("utf-8", "replace")
    seen: set[str] = set()
    for row in csv.reader(io.StringIO(text)):
        if len(row) != 3:
            yield f"RECORD has a row with {len(row)} fields: {','.join(row)}"
            continue
        name, digest, size = row
        if name in seen:
            yield f"RECORD lists {name} twice"
        seen.add(name)
        if name not in wheel.files:
            yield f"RECORD lists {name}, which is not in the wheel"
        elif (digest, size) != _record_fields(wheel, name, record):
            yield f"{name} does not match RECORD"
    yield from (f"RECORD does not list {name}" for name in wheel.files if name not in seen)


def _record_fields(wheel: Wheel, name: str, record: str) -> tuple[str, str]:
    """Return the hash and size that RECORD must state for a file."""
    if name == record:
        return "", ""
    content = wheel.read(name)
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode("ascii")
    return f"sha256={digest}", str(len(content))
