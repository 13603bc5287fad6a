"""What the wheel says of itself: file name, METADATA, WHEEL, RECORD, build_info.json, the licence."""

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
    """The file is named as its cell says."""
    if subject.wheel.path.name != subject.cell.wheel:
        yield f"the file is named {subject.wheel.path.name}, its cell says {subject.cell.wheel}"


def identity(subject: Subject) -> Iterator[str]:
    """METADATA's Name, Version and Requires-Python, and the dist-info folder's name, are the cell's."""
    cell, metadata = subject.cell, subject.wheel.metadata
    if metadata.name != "nvdiffrast":
        yield f"METADATA says Name: {metadata.name}"
    if str(metadata.version) != cell.version:
        yield f"METADATA says Version: {metadata.version}, the cell {cell.version}"
    if metadata.requires_python is not None and not metadata.requires_python.contains(cell.python):
        yield f"METADATA says Requires-Python: {metadata.requires_python}, which rules {cell.python} out"
    if subject.wheel.dist_info != f"nvdiffrast-{cell.version}.dist-info":
        yield f"the dist-info folder is named {subject.wheel.dist_info}"


def requirements(subject: Subject) -> Iterator[str]:
    """METADATA requires numpy and the torch line it was built against, and nothing else."""
    required = subject.wheel.metadata.requires_dist or []
    torch = Requirement(f"torch=={subject.cell.torch.line}.*")
    if [one for one in required if canonicalize_name(one.name) == "torch"] != [torch]:
        yield f"Requires-Dist must be {torch} once, not {', '.join(map(str, required)) or 'nothing'}"
    if not any(canonicalize_name(one.name) == "numpy" and one.marker is None for one in required):
        yield "Requires-Dist has no numpy"
    others = [one for one in required if canonicalize_name(one.name) not in {"torch", "numpy"}]
    yield from (f"Requires-Dist has {one}, which nvdiffrast does not need" for one in others)


def tags(subject: Subject) -> Iterator[str]:
    """WHEEL states the cell's tags, and that the wheel is not pure."""
    wheel, cell = subject.wheel, subject.cell
    expected = parse_tag(f"{cell.python_tag}-{cell.python_tag}-{cell.platform.wheel_tag}")
    if wheel.stated_tags != expected:
        stated, wanted = (", ".join(sorted(map(str, some))) for some in (wheel.stated_tags, expected))
        yield f"WHEEL states {stated or 'no tag'}, the cell {wanted}"
    if wheel.field("Root-Is-Purelib") != ["false"]:
        yield f"WHEEL says Root-Is-Purelib: {', '.join(wheel.field('Root-Is-Purelib')) or 'nothing'}"


def record(subject: Subject) -> Iterator[str]:
    """RECORD names every file with its hash and size, and nothing else."""
    yield from wheel_file.record_problems(subject.wheel)


def licence(subject: Subject) -> Iterator[str]:
    """LICENSE.txt goes along whole, as in the source."""
    wheel, policy = subject.wheel, subject.policy.licence
    found = [n for n in wheel.files if n.startswith(f"{wheel.dist_info}/") and n.endswith("/LICENSE.txt")]
    if len(found) != 1:
        yield f"{len(found)} LICENSE.txt in {wheel.dist_info} instead of one"
        return
    content = wheel.read(found[0])
    missing = [text for text in policy.must_contain if text.encode() not in content]
    if len(content) < policy.minimum_size or missing:
        yield f"LICENSE.txt is not whole: {len(content)} bytes; not in it: {missing or 'nothing'}"
        return
    digest = hashlib.sha256(content).hexdigest()
    known = policy.known.get(subject.cell.release.version)
    if known is not None and digest != known:
        yield f"LICENSE.txt has sha256 {digest}, the release's has {known}"
    elif digest != subject.trusted_info.license_sha256:
        yield f"LICENSE.txt has sha256 {digest}, the source's had {subject.trusted_info.license_sha256}"


def build_info(subject: Subject) -> Iterator[str]:
    """build_info.json is well-formed and says what the cell says."""
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
            yield f"build_info.json: {name}: {found}, the cell says {expected}"
    if not pins <= set(info.source.values()):
        yield f"build_info.json: source: not the content that the release is pinned to: {', '.join(sorted(pins))}"
    policy = set(cell.toolkit.architectures), {cell.toolkit.ptx}
    if not info.partial and (set(info.architectures.sass), set(info.architectures.ptx)) != policy:
        yield f"build_info.json: architectures: {info.architectures}, and yet partial: false"


def bill_of_materials(subject: Subject) -> Iterator[str]:
    """The bill of materials is there, is valid, and says what build_info.json, the cell and the files say."""
    yield from sbom.problems(subject.wheel, subject.cell, subject.trusted_info)


def whole(subject: Subject) -> Iterator[str]:
    """The wheel is for all architectures of its toolkit, or a partial one is allowed."""
    if subject.trusted_info.partial and not subject.allow_partial:
        yield "a partial wheel, built for a quick local try: it cannot pass for a release; build it without --arch"


def torch_is_of_its_line(version: str, line: str) -> bool:
    """Whether "2.11.0+cu130" is of the line "2.11".

    Raises:
        UntestedError: it is no version.
    """
    try:
        return Version(version).release[:2] == Version(line).release[:2]
    except ValueError as error:
        raise UntestedError(f"torch says it is {version}") from error
