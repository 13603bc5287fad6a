"""Checks of the file name, METADATA, WHEEL, RECORD, build_info.json, the bill of materials and the licence."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from packaging.requirements import Requirement
from packaging.tags import parse_tag
from packaging.utils import canonicalize_name
from packaging.version import Version

from scripts.audit.checks import Subject
from scripts.errors import UntestedError
from scripts.model import RegistryPin, version_line
from scripts.wheel import sbom, wheel_file


def file_name(subject: Subject) -> Iterator[str]:
    """Check that the file has the name of its cell's wheel."""
    if subject.wheel.path.name != subject.cell.wheel:
        yield f"the file name is {subject.wheel.path.name}, but the cell requires {subject.cell.wheel}"


def identity(subject: Subject) -> Iterator[str]:
    """Check that Name, Version and Requires-Python in METADATA and the name of the dist-info folder match the cell."""
    cell, metadata = subject.cell, subject.wheel.metadata
    if metadata.name != "nvdiffrast":
        yield f"METADATA states Name: {metadata.name}"
    if str(metadata.version) != cell.version:
        yield f"METADATA states Version: {metadata.version}, but the cell requires {cell.version}"
    if metadata.requires_python is not None and not metadata.requires_python.contains(cell.python):
        yield f"METADATA states Requires-Python: {metadata.requires_python}, which excludes {cell.python}"
    if subject.wheel.dist_info != f"nvdiffrast-{cell.version}.dist-info":
        yield f"the name of the dist-info folder is {subject.wheel.dist_info}"


def requirements(subject: Subject) -> Iterator[str]:
    """Check that METADATA requires only numpy and the torch version line of the cell."""
    required = subject.wheel.metadata.requires_dist or []
    torch = Requirement(f"torch=={subject.cell.torch.line}.*")
    if [one for one in required if canonicalize_name(one.name) == "torch"] != [torch]:
        yield f"Requires-Dist must contain {torch} once, but is {', '.join(map(str, required)) or 'nothing'}"
    if not any(canonicalize_name(one.name) == "numpy" and one.marker is None for one in required):
        yield "Requires-Dist does not contain numpy"
    others = [one for one in required if canonicalize_name(one.name) not in {"torch", "numpy"}]
    yield from (f"Requires-Dist contains {one}, which nvdiffrast does not need" for one in others)


def tags(subject: Subject) -> Iterator[str]:
    """Check that WHEEL states the tags of the cell, and that the wheel is not pure."""
    wheel, cell = subject.wheel, subject.cell
    expected = parse_tag(f"{cell.python_tag}-{cell.python_tag}-{cell.platform.wheel_tag}")
    if wheel.stated_tags != expected:
        stated, wanted = (", ".join(sorted(map(str, some))) for some in (wheel.stated_tags, expected))
        yield f"WHEEL states {stated or 'no tag'}, but the cell requires {wanted}"
    if wheel.field("Root-Is-Purelib") != ["false"]:
        yield f"WHEEL states Root-Is-Purelib: {', '.join(wheel.field('Root-Is-Purelib')) or 'nothing'}"


def record(subject: Subject) -> Iterator[str]:
    """Check that RECORD lists every file with its hash and size, and nothing else."""
    yield from wheel_file.record_problems(subject.wheel)


def licence(subject: Subject) -> Iterator[str]:
    """Check that LICENSE.txt is complete and has the content of the source."""
    wheel, policy = subject.wheel, subject.policy.licence
    found = [n for n in wheel.files if n.startswith(f"{wheel.dist_info}/") and n.endswith("/LICENSE.txt")]
    if len(found) != 1:
        yield f"{wheel.dist_info} contains {len(found)} files LICENSE.txt instead of one"
        return
    content = wheel.read(found[0])
    missing = [text for text in policy.must_contain if text.encode() not in content]
    if len(content) < policy.minimum_size or missing:
        yield f"LICENSE.txt is incomplete: {len(content)} bytes; missing texts: {missing or 'none'}"
        return
    digest = hashlib.sha256(content).hexdigest()
    known = policy.known.get(subject.cell.release.version)
    if known is not None and digest != known:
        yield f"LICENSE.txt has sha256 {digest}, but that of the release has {known}"
    elif digest != subject.trusted_info.license_sha256:
        yield f"LICENSE.txt has sha256 {digest}, but that of the source had {subject.trusted_info.license_sha256}"


def build_info(subject: Subject) -> Iterator[str]:
    """Check that build_info.json is well-formed and matches the cell."""
    cell, info = subject.cell, subject.info
    source = cell.release.source
    pins = {source.sha256} if isinstance(source, RegistryPin) else {source.commit, source.tree}
    stated = {
        "cell": (info.cell, cell.id),
        "release": (info.release, cell.release.version),
        "series": (info.series, cell.release.series),
        "python": (info.python, cell.python_tag),
        "torch": (info.torch, cell.torch.version),
        "cuda": (info.cuda, cell.toolkit.cuda),
        "compiler.nvcc": (version_line(info.compiler.nvcc), cell.toolkit.cuda),
        "plugins": (sorted(info.plugins), sorted(plugin.module for plugin in subject.policy.plugins)),
    }
    for name, (found, expected) in stated.items():
        if found != expected:
            yield f"build_info.json: {name} is {found}, but the cell requires {expected}"
    if not pins <= set(info.source.values()):
        yield f"build_info.json: source is not the content that the release is pinned to: {', '.join(sorted(pins))}"
    policy = set(cell.toolkit.architectures), {cell.toolkit.ptx}
    if not info.partial and (set(info.architectures.sass), set(info.architectures.ptx)) != policy:
        yield f"build_info.json: architectures are {info.architectures}, which is a partial wheel, but partial is false"


def bill_of_materials(subject: Subject) -> Iterator[str]:
    """Check that the bill of materials exists, is valid, and matches build_info.json, the cell and the files."""
    yield from sbom.problems(subject.wheel, subject.cell, subject.trusted_info)


def complete(subject: Subject) -> Iterator[str]:
    """Check that the wheel contains all architectures of its toolkit, unless partial wheels are allowed."""
    if subject.trusted_info.partial and not subject.allow_partial:
        yield "a partial wheel, for local tests only, must not be published; build it without --arch"


def is_of_torch_line(version: str, line: str) -> bool:
    """Return whether ``version`` ("2.11.0+cu130") belongs to ``line`` ("2.11").

    Raises:
        UntestedError: if ``version`` is not a version number.
    """
    try:
        return Version(version).release[:2] == Version(line).release[:2]
    except ValueError as error:
        raise UntestedError(f"torch reports the invalid version {version!r}") from error
