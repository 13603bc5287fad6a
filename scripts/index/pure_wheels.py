"""Make the entry of a wheel without compiled code.

Such a wheel is staged without cell, audit and GPU run. Instead, its project must be below packages/, two builds must
have given the same bytes, and it must not contain compiled files.
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

_COMPILED_SUFFIXES = (".so", ".pyd", ".dll", ".dylib", ".a", ".lib", ".exe")
_HINT = "build it again: nox -s packages"


def is_pure(wheel: Path) -> bool:
    """Return whether the file name is one of a wheel without compiled code."""
    return wheel.name.endswith(f"-{PURE}.whl")


def make(path: Path, folder: Path, uploaded: str, projects: Collection[str]) -> Candidate:
    """Read a wheel of one of ``projects``, whose record is below ``folder``.

    Raises:
        PublishError: if it belongs to another project, has no valid record, or if its parts disagree.
    """
    try:
        record = package_record.load(file_sha256(path), path.name, path.stat().st_size, folder)
        project = parse_wheel_filename(path.name)[0]
        if project not in projects:
            raise CatalogError(
                f"a wheel of {project}; the projects without compiled code are {', '.join(sorted(projects))}"
            )
        with tempfile.TemporaryDirectory(prefix="nvdiffrast-stage-") as temporary:
            wheel = wheel_file.unpack(path.absolute(), Path(temporary).resolve(), project)
            problems = list(_problems(wheel, project))
            if problems:
                raise CatalogError("; ".join(problems))
            metadata = wheel.read(f"{wheel.dist_info}/METADATA")
            entry = _entry(wheel, metadata, uploaded)
        wheel_entry.check(entry, path.name)
    except (PipelineError, ValueError) as error:
        hint = (error.hint if isinstance(error, PipelineError) else "") or _HINT
        raise PublishError(f"{path.name} cannot be staged: {error}", hint=hint) from error
    return Candidate(path, record, entry, metadata)


def check_needs(packages: Collection[PureWheel], projects: Collection[str]) -> None:
    """Check that the index has every one of our ``projects`` that a package requires.

    Otherwise installers would take it from another index, where anybody can register its name.

    Raises:
        PublishError: if one is missing.
    """
    available = {package.project for package in packages}
    for package in packages:
        required = {canonicalize_name(Requirement(text).name) for text in package.requires}
        missing = sorted(required & {*projects} - available)
        if missing:
            raise PublishError(
                f"{package.name} cannot be staged: it needs {', '.join(missing)}, which the index does not have",
                hint=f"stage it as well: nox -s packages -- {' '.join(missing)}",
            )


def _problems(wheel: Wheel, project: str) -> Iterator[str]:
    """Yield one message per contradiction between file name, METADATA, RECORD and WHEEL, and per compiled file."""
    if canonicalize_name(wheel.metadata.name) != project:
        yield f"METADATA says Name: {wheel.metadata.name}"
    if wheel.metadata.version != wheel.version:
        yield f"METADATA says Version: {wheel.metadata.version}, the file name {wheel.version}"
    if wheel.stated_tags != wheel.tags:
        yield f"WHEEL states {', '.join(sorted(map(str, wheel.stated_tags))) or 'no tag'}, not the file name's tags"
    if wheel.field("Root-Is-Purelib") != ["true"]:
        yield "WHEEL does not say Root-Is-Purelib: true"
    yield from (f"{name} is compiled" for name in wheel.files if name.lower().endswith(_COMPILED_SUFFIXES))
    yield from wheel_file.record_problems(wheel)
    yield from wheel_entry.markup(wheel)


def _entry(wheel: Wheel, metadata: bytes, uploaded: str) -> PureWheel:
    python = wheel.metadata.requires_python
    # Extras are installed only on request; wheel_entry.check refuses other markers.
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
