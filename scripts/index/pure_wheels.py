"""The entry of a wheel without compiled code, from what the wheel itself says: it is staged without cell, audit or GPU.

In place of those: its project is one of ours below packages/, its bytes are those of two builds, and there is nothing
in it that a system could have a say in.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

from scripts.errors import CatalogError, PipelineError, PublishError
from scripts.index import package_record, wheel_entry
from scripts.index.catalog import PureWheel
from scripts.index.wheel_entry import PURE, Candidate
from scripts.support.files import file_sha256
from scripts.wheel import wheel_file
from scripts.wheel.wheel_file import Wheel

_COMPILED = (".so", ".pyd", ".dll", ".dylib", ".a", ".lib", ".exe")
_MEND = "build it again: nox -s packages"


def is_pure(wheel: Path) -> bool:
    """Whether the file's name says that it is a wheel without compiled code."""
    return wheel.name.endswith(f"-{PURE}.whl")


def make(path: Path, folder: Path, uploaded: str, projects: Collection[str]) -> Candidate:
    """Read a wheel of one of ``projects``; the record about it lies below ``folder``.

    Raises:
        PublishError: it is of another project, no record vouches for it, or what it says of itself does not agree.
    """
    try:
        record = package_record.load(file_sha256(path), path.name, path.stat().st_size, folder)
        project = parse_wheel_filename(path.name)[0]
        if project not in projects:
            raise CatalogError(f"a wheel of {project}; without compiled code there is {', '.join(sorted(projects))}")
        with tempfile.TemporaryDirectory(prefix="nvdiffrast-stage-") as temporary:
            wheel = wheel_file.unpack(path.absolute(), Path(temporary).resolve(), project)
            problems = list(_problems(wheel, project))
            if problems:
                raise CatalogError("; ".join(problems))
            metadata = wheel.read(f"{wheel.dist_info}/METADATA")
            entry = _entry(wheel, metadata, uploaded)
        wheel_entry.check(entry, path.name)
    except (PipelineError, ValueError) as error:
        hint = (error.hint if isinstance(error, PipelineError) else "") or _MEND
        raise PublishError(f"{path.name} cannot be staged: {error}", hint=hint) from error
    return Candidate(path, record, entry, metadata)


def check_needs(packages: Collection[PureWheel], projects: Collection[str]) -> None:
    """Refuse packages that need another of our ``projects`` of which the index has nothing.

    It would have to come from elsewhere, where anybody may have taken its name.

    Raises:
        PublishError: the first that does.
    """
    there = {package.project for package in packages}
    for package in packages:
        lacking = {canonicalize_name(Requirement(text).name) for text in package.requires} & {*projects} - there
        if lacking:
            named = ", ".join(sorted(lacking))
            raise PublishError(
                f"{package.name} cannot be staged: it needs {named}, of which the index has nothing",
                hint=f"stage it as well: nox -s packages -- {' '.join(sorted(lacking))}",
            )


def _problems(wheel: Wheel, project: str) -> Iterator[str]:
    """Where name, METADATA, RECORD and WHEEL say different things, and what is not without compiled code."""
    if canonicalize_name(wheel.metadata.name) != project:
        yield f"METADATA says Name: {wheel.metadata.name}"
    if wheel.metadata.version != wheel.version:
        yield f"METADATA says Version: {wheel.metadata.version}, the file name {wheel.version}"
    if wheel.stated_tags != wheel.tags:
        yield f"WHEEL states {', '.join(sorted(map(str, wheel.stated_tags))) or 'no tag'}, not the file name's tags"
    if wheel.field("Root-Is-Purelib") != ["true"]:
        yield "WHEEL does not say Root-Is-Purelib: true"
    yield from (f"{name} is compiled" for name in wheel.files if name.lower().endswith(_COMPILED))
    yield from wheel_file.record_problems(wheel)
    yield from wheel_entry.markup(wheel)


def _entry(wheel: Wheel, metadata: bytes, uploaded: str) -> PureWheel:
    python = wheel.metadata.requires_python
    # What an extra asks for is asked for by name; other markers are refused by the entry's shape.
    required = [one for one in wheel.metadata.requires_dist or [] if "extra ==" not in str(one.marker or "")]
    return PureWheel(
        name=wheel.path.name,
        sha256=file_sha256(wheel.path),
        size=wheel.path.stat().st_size,
        uploaded=uploaded,
        metadata_sha256=hashlib.sha256(metadata).hexdigest(),
        requires_python=str(python) if python else None,
        requires=tuple(sorted(map(str, required))),
    )
