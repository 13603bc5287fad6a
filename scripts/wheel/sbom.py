"""The bill of materials of a wheel in CycloneDX format, stored as `*.dist-info/sboms/nvdiffrast.cdx.json` (PEP 770).

The same wheel and materials give the same bytes: the time is SOURCE_DATE_EPOCH, the serial number is computed from the
content, and the document does not mention the machine.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import re
import uuid
import zipfile
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, Property, XsUri
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import (
    Commit,
    Component,
    ComponentScope,
    ComponentType,
    Diff,
    Patch,
    PatchClassification,
    Pedigree,
)
from cyclonedx.model.license import DisjunctiveLicense
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

from scripts.errors import AuditError
from scripts.model import Cell, GitPin, RegistryPin
from scripts.support.files import replace_atomic
from scripts.wheel.build_info import BuildInfo
from scripts.wheel.materials import CUDA_LICENCE, CUDA_LICENCE_URL, Materials, Part, host_compiler
from scripts.wheel.wheel_file import Wheel

NAME = "nvdiffrast.cdx.json"
LICENCE = "Nvidia Source Code License (1-Way Commercial)"
_CUDART = re.compile(r"(?:^|/)(?:lib)?cudart[^/]*$")
_PROPERTY = "nvdiffrast-wheels:"
_PLACEHOLDER_SERIAL_NUMBER = "urn:uuid:00000000-0000-0000-0000-000000000000"


def member(dist_info: str) -> str:
    """Return the member name of the bill of materials."""
    return f"{dist_info}/sboms/{NAME}"


def cudart(wheel: Wheel) -> list[str]:
    """Return the members that are the bundled CUDA runtime."""
    return [name for name in wheel.files if _CUDART.search(name)]


def make(wheel: Wheel, info: BuildInfo, materials: Materials, *, epoch: int) -> bytes:
    """Return the bill of materials of ``wheel`` as JSON; ``epoch`` is SOURCE_DATE_EPOCH in seconds."""
    subject = _wheel_component(wheel.dist_info, info, materials)
    runtime = [_bundled(wheel, name, materials) for name in cudart(wheel)]
    upstream, torch = _upstream(materials.cell), _torch(materials)
    tools = [*_toolkit(materials), _compiler(materials, info)]
    bom = Bom(
        serial_number=uuid.UUID(_PLACEHOLDER_SERIAL_NUMBER),
        metadata=BomMetaData(component=subject, timestamp=datetime.fromtimestamp(epoch, UTC)),
        components=[upstream, torch, *runtime, *_files(materials), *tools],
    )
    bom.register_dependency(subject, [upstream, torch, *runtime])
    content = JsonV1Dot6(bom).output_as_string(indent=2) + "\n"
    return content.replace(_PLACEHOLDER_SERIAL_NUMBER, serial_number(content)).encode()


def serial_number(content: str) -> str:
    """Return the serial number that a bill of materials must have; it is computed from all other content."""
    serial = json.loads(content)["serialNumber"]
    digest = hashlib.sha256(content.replace(serial, _PLACEHOLDER_SERIAL_NUMBER).encode()).hexdigest()
    return uuid.uuid5(uuid.NAMESPACE_OID, digest).urn


def _wheel_component(dist_info: str, info: BuildInfo, materials: Materials) -> Component:
    cell = materials.cell
    return Component(
        type=ComponentType.LIBRARY,
        name="nvdiffrast",
        version=cell.version,
        bom_ref=dist_info.removesuffix(".dist-info"),
        purl=PackageURL("pypi", None, "nvdiffrast", cell.version, {"file_name": cell.wheel}),
        licenses=[DisjunctiveLicense(name=LICENCE)],
        pedigree=_pedigree(materials),
        properties=_properties(
            {
                "cell": cell.id,
                "architectures": ";".join(materials.architectures),
                "flags": json.dumps(info.flags, sort_keys=True),
                "licence-sha256": info.license_sha256,
                "series-sha256": materials.series_sha256,
                **{f"lock:{name}": sha256 for name, sha256 in materials.locks.items()},
            }
        ),
    )


def _pedigree(materials: Materials) -> Pedigree:
    """Return the origin of the code: upstream's release and the patches; the list of components has their hashes."""
    source = materials.cell.release.source
    patches = [name for name in materials.series if name.endswith(".patch")]
    return Pedigree(
        commits=[Commit(uid=source.commit, url=XsUri(source.url))] if isinstance(source, GitPin) else (),
        patches=[Patch(type=PatchClassification.UNOFFICIAL, diff=Diff(url=XsUri(name))) for name in patches],
        notes="upstream's release with the patches and files of ours that this document lists",
    )


def _upstream(cell: Cell) -> Component:
    """Return the component for the pinned release: a commit and its tree, or a file of a package registry."""
    source, version = cell.release.source, cell.release.version
    if isinstance(source, RegistryPin):
        purl = PackageURL("pypi", None, source.package, source.version, {"file_name": source.filename})
        references, hashes, properties = [], [_sha256(source.sha256)], {"file": source.filename}
    else:
        purl = PackageURL("generic", None, "nvdiffrast", version, {"vcs_url": f"git+{source.url}@{source.commit}"})
        references = [ExternalReference(type=ExternalReferenceType.VCS, url=XsUri(source.url))]
        hashes, properties = [], {"git-commit": source.commit, "git-tree": source.tree, "git-tag": source.tag}
    return Component(
        type=ComponentType.LIBRARY,
        name="nvdiffrast",
        group="upstream",
        version=version,
        bom_ref="upstream",
        purl=purl,
        hashes=hashes,
        licenses=[DisjunctiveLicense(name=LICENCE)],
        external_references=references,
        properties=_properties(properties),
    )


def _torch(materials: Materials) -> Component:
    part, line = materials.torch, materials.cell.torch.line
    return Component(
        type=ComponentType.LIBRARY,
        name=part.name,
        version=part.version,
        bom_ref="torch",
        description=f"its headers are compiled in; torch {line} is required at run time, and not part of the wheel",
        scope=ComponentScope.REQUIRED,
        purl=PackageURL("pypi", None, part.name, part.version),
        licenses=[DisjunctiveLicense(id=part.licence)],
        properties=_locked(part),
    )


def _bundled(wheel: Wheel, name: str, materials: Materials) -> Component:
    """Return the component for the CUDA runtime in the wheel, which the repair stage renamed."""
    return Component(
        type=ComponentType.LIBRARY,
        name="cudart",
        version=materials.runtime,
        bom_ref="cudart",
        description="the CUDA runtime, redistributed as Attachment A of its licence allows",
        scope=ComponentScope.REQUIRED,
        hashes=[_sha256(hashlib.sha256(wheel.read(name)).hexdigest())],
        licenses=[_cuda_licence()],
        properties=_properties({"member": name}),
    )


def _toolkit(materials: Materials) -> Iterator[Component]:
    for part in materials.toolkit:
        yield Component(
            type=ComponentType.APPLICATION,
            name=part.name,
            group="cuda-toolkit",
            version=part.version,
            bom_ref=f"toolkit:{part.name}",
            scope=ComponentScope.EXCLUDED,
            purl=PackageURL("pypi", None, part.name, part.version) if materials.provider == "pypi" else None,
            licenses=[_cuda_licence() if part.licence == CUDA_LICENCE else DisjunctiveLicense(name=part.licence)],
            properties=[*_locked(part), *_properties({"provider": materials.provider})],
        )


def _compiler(materials: Materials, info: BuildInfo) -> Component:
    compiler = host_compiler(materials.cell, info)
    properties = {"engine": materials.engine, **({"image": materials.image} if materials.image else {})}
    return Component(
        type=ComponentType.APPLICATION,
        name=compiler.name,
        version=compiler.version,
        bom_ref="compiler",
        description="the host compiler",
        scope=ComponentScope.EXCLUDED,
        properties=_properties(properties),
    )


def _files(materials: Materials) -> Iterator[Component]:
    """Yield the components for the patches and the overlay files."""
    for name, sha256 in materials.series.items():
        yield Component(type=ComponentType.FILE, name=name, bom_ref=name, hashes=[_sha256(sha256)])


def _cuda_licence() -> DisjunctiveLicense:
    return DisjunctiveLicense(name=CUDA_LICENCE, url=XsUri(CUDA_LICENCE_URL))


def _sha256(digest: str) -> HashType:
    return HashType(alg=HashAlgorithm.SHA_256, content=digest)


def _properties(values: dict[str, str]) -> list[Property]:
    return [Property(name=_PROPERTY + name, value=value) for name, value in values.items()]


def _locked(part: Part) -> list[Property]:
    """Return all hashes that the lock permits; it is not known which of these files was installed."""
    return [Property(name=f"{_PROPERTY}locked-sha256", value=value) for value in part.hashes]


# --- writing into a wheel


def inject(wheel: Path, content: bytes) -> None:
    """Write ``content`` into the wheel as its bill of materials, and update RECORD; other members do not change.

    An existing bill of materials is replaced. The wheel file is replaced atomically.

    Raises:
        AuditError: if the wheel has no RECORD.
    """
    with zipfile.ZipFile(wheel) as archive:
        members = [(info, archive.read(info)) for info in archive.infolist()]
    record = next((info for info, _ in members if info.filename.endswith(".dist-info/RECORD")), None)
    if record is None:
        raise AuditError(f"{wheel.name} has no RECORD")
    name = member(record.filename.removesuffix("/RECORD"))
    added = zipfile.ZipInfo(name, record.date_time)
    added.compress_type, added.external_attr, added.create_system = zipfile.ZIP_DEFLATED, 0o100644 << 16, 3
    with replace_atomic(wheel) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for info, old in members:
            if info is record:
                archive.writestr(added, content)
                archive.writestr(record, _with_row(old, name, content))
            elif info.filename != name:
                archive.writestr(info, old)


def _with_row(record: bytes, name: str, content: bytes) -> bytes:
    """Return RECORD with a row for ``name`` before its last row, which is that of RECORD itself."""
    rows = [row for row in csv.reader(io.StringIO(record.decode())) if row and row[0] != name]
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    rows.insert(-1, [name, f"sha256={digest}", str(len(content))])
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


# --- checking


def schema_problems(content: bytes) -> Iterator[str]:
    """Yield a message if ``content`` does not match the JSON schema of CycloneDX 1.6."""
    try:
        schema_error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(content.decode())
    except UnicodeDecodeError as error:
        yield f"not UTF-8: {error}"
        return
    if schema_error is not None:
        # The message can contain the whole document.
        yield "not CycloneDX 1.6: " + str(schema_error).splitlines()[0][:300]


def problems(wheel: Wheel, cell: Cell, info: BuildInfo) -> Iterator[str]:
    """Yield the problems of the bill of materials: it must be valid, and agree with the wheel and its cell."""
    content = wheel.read(member(wheel.dist_info))
    invalid = list(schema_problems(content))
    if invalid:
        yield from invalid
        return
    document = json.loads(content)
    if document.get("serialNumber") != serial_number(content.decode()):
        yield "the serial number does not match the content"
    subject = document["metadata"]["component"]
    if subject.get("version") != cell.version:
        yield f"describes version {subject.get('version')}, but the version of the wheel is {cell.version}"
    components = {component["bom-ref"]: component for component in document["components"]}
    if "cudart" in components and not cudart(wheel):
        yield "cudart: is listed, but not in the wheel"
    components["wheel"] = subject
    for name, value in _expected(wheel, cell, info):
        if value not in json.dumps(components.get(name, {})):
            yield f"{name}: {value} is missing"


def _expected(wheel: Wheel, cell: Cell, info: BuildInfo) -> Iterable[tuple[str, str]]:
    """Yield pairs of a component and a value that it must contain."""
    source = cell.release.source
    pins = [source.sha256] if isinstance(source, RegistryPin) else [source.commit, source.tree]
    yield from (("upstream", pin) for pin in pins)
    yield from (("wheel", value) for value in (cell.id, info.series_sha256, info.license_sha256))
    yield "torch", cell.torch.version
    yield "compiler", info.compiler.cxx
    for name in cudart(wheel):
        yield "cudart", hashlib.sha256(wheel.read(name)).hexdigest()
        yield "cudart", CUDA_LICENCE
