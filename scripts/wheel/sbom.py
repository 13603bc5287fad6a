"""A wheel's bill of materials: CycloneDX, inside it as `*.dist-info/sboms/nvdiffrast.cdx.json` (PEP 770).

The same wheel from the same ingredients gives the same bytes: the time is SOURCE_DATE_EPOCH's, the serial number
follows from the content, and nothing of the machine is stated.
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
from scripts.wheel.materials import CUDA_LICENCE, CUDA_LICENCE_URL, Ingredients, Part, host_compiler
from scripts.wheel.wheel_file import Wheel

NAME = "nvdiffrast.cdx.json"
LICENCE = "Nvidia Source Code License (1-Way Commercial)"
_CUDART = re.compile(r"(?:^|/)(?:lib)?cudart[^/]*$")
_PROPERTY = "nvdiffrast-wheels:"
_UNNUMBERED = "urn:uuid:00000000-0000-0000-0000-000000000000"


def member(dist_info: str) -> str:
    """Where the bill of materials lies in a wheel."""
    return f"{dist_info}/sboms/{NAME}"


def cudart(wheel: Wheel) -> list[str]:
    """The members that are the bundled CUDA runtime."""
    return [name for name in wheel.files if _CUDART.search(name)]


def make(wheel: Wheel, info: BuildInfo, made_of: Ingredients, *, epoch: int) -> bytes:
    """The bill of materials of an unpacked ``wheel``, as JSON; ``epoch`` is SOURCE_DATE_EPOCH in seconds."""
    subject = _wheel_component(wheel.dist_info, info, made_of)
    runtime = [_bundled(wheel, name, made_of) for name in cudart(wheel)]
    upstream, torch = _upstream(made_of.cell), _torch(made_of)
    tools = [*_toolkit(made_of), _compiler(made_of, info)]
    bom = Bom(
        serial_number=uuid.UUID(_UNNUMBERED),
        metadata=BomMetaData(component=subject, timestamp=datetime.fromtimestamp(epoch, UTC)),
        components=[upstream, torch, *runtime, *_files(made_of), *tools],
    )
    bom.register_dependency(subject, [upstream, torch, *runtime])
    content = JsonV1Dot6(bom).output_as_string(indent=2) + "\n"
    return content.replace(_UNNUMBERED, serial_number(content)).encode()


def serial_number(content: str) -> str:
    """The serial number that a bill of materials must have: it follows from everything else in it."""
    stated = json.loads(content)["serialNumber"]
    digest = hashlib.sha256(content.replace(stated, _UNNUMBERED).encode()).hexdigest()
    return uuid.uuid5(uuid.NAMESPACE_OID, digest).urn


def _wheel_component(dist_info: str, info: BuildInfo, made_of: Ingredients) -> Component:
    cell = made_of.cell
    return Component(
        type=ComponentType.LIBRARY,
        name="nvdiffrast",
        version=cell.version,
        bom_ref=dist_info.removesuffix(".dist-info"),
        purl=PackageURL("pypi", None, "nvdiffrast", cell.version, {"file_name": cell.wheel}),
        licenses=[DisjunctiveLicense(name=LICENCE)],
        pedigree=_pedigree(made_of),
        properties=_properties(
            {
                "cell": cell.id,
                "architectures": ";".join(made_of.architectures),
                "flags": json.dumps(info.flags, sort_keys=True),
                "licence-sha256": info.license_sha256,
                "series-sha256": made_of.series_sha256,
                **{f"lock:{name}": sha256 for name, sha256 in made_of.locks.items()},
            }
        ),
    )


def _pedigree(made_of: Ingredients) -> Pedigree:
    """Upstream's release, and our patches of it; what each hashes to is in the list of components."""
    source = made_of.cell.release.source
    patches = [name for name in made_of.series if name.endswith(".patch")]
    return Pedigree(
        commits=[Commit(uid=source.commit, url=XsUri(source.url))] if isinstance(source, GitPin) else (),
        patches=[Patch(type=PatchClassification.UNOFFICIAL, diff=Diff(url=XsUri(name))) for name in patches],
        notes="upstream's release with the patches and files of ours that this document lists",
    )


def _upstream(cell: Cell) -> Component:
    """The release as it is pinned: a commit and its tree, or a file of a package registry."""
    source, version = cell.release.source, cell.release.version
    if isinstance(source, RegistryPin):
        purl = PackageURL("pypi", None, source.package, source.version, {"file_name": source.filename})
        references, hashes, stated = [], [_sha256(source.sha256)], {"file": source.filename}
    else:
        purl = PackageURL("generic", None, "nvdiffrast", version, {"vcs_url": f"git+{source.url}@{source.commit}"})
        references = [ExternalReference(type=ExternalReferenceType.VCS, url=XsUri(source.url))]
        hashes, stated = [], {"git-commit": source.commit, "git-tree": source.tree, "git-tag": source.tag}
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
        properties=_properties(stated),
    )


def _torch(made_of: Ingredients) -> Component:
    part, line = made_of.torch, made_of.cell.torch.line
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


def _bundled(wheel: Wheel, name: str, made_of: Ingredients) -> Component:
    """The CUDA runtime as it lies in the wheel: repair has given the toolkit's file a name of its own."""
    return Component(
        type=ComponentType.LIBRARY,
        name="cudart",
        version=made_of.runtime,
        bom_ref="cudart",
        description="the CUDA runtime, redistributed as Attachment A of its licence allows",
        scope=ComponentScope.REQUIRED,
        hashes=[_sha256(hashlib.sha256(wheel.read(name)).hexdigest())],
        licenses=[_cuda_licence()],
        properties=_properties({"member": name}),
    )


def _toolkit(made_of: Ingredients) -> Iterator[Component]:
    for part in made_of.toolkit:
        yield Component(
            type=ComponentType.APPLICATION,
            name=part.name,
            group="cuda-toolkit",
            version=part.version,
            bom_ref=f"toolkit:{part.name}",
            scope=ComponentScope.EXCLUDED,
            purl=PackageURL("pypi", None, part.name, part.version) if made_of.provider == "pypi" else None,
            licenses=[_cuda_licence() if part.licence == CUDA_LICENCE else DisjunctiveLicense(name=part.licence)],
            properties=[*_locked(part), *_properties({"provider": made_of.provider})],
        )


def _compiler(made_of: Ingredients, info: BuildInfo) -> Component:
    compiler = host_compiler(made_of.cell, info)
    stated = {"engine": made_of.engine, **({"image": made_of.image} if made_of.image else {})}
    return Component(
        type=ComponentType.APPLICATION,
        name=compiler.name,
        version=compiler.version,
        bom_ref="compiler",
        description="the host compiler",
        scope=ComponentScope.EXCLUDED,
        properties=_properties(stated),
    )


def _files(made_of: Ingredients) -> Iterator[Component]:
    """Our patches of upstream and the files laid over it."""
    for name, sha256 in made_of.series.items():
        yield Component(type=ComponentType.FILE, name=name, bom_ref=name, hashes=[_sha256(sha256)])


def _cuda_licence() -> DisjunctiveLicense:
    return DisjunctiveLicense(name=CUDA_LICENCE, url=XsUri(CUDA_LICENCE_URL))


def _sha256(digest: str) -> HashType:
    return HashType(alg=HashAlgorithm.SHA_256, content=digest)


def _properties(stated: dict[str, str]) -> list[Property]:
    return [Property(name=_PROPERTY + name, value=value) for name, value in stated.items()]


def _locked(part: Part) -> list[Property]:
    """A lock allows one file for each platform: which of them served is not a fact about the wheel."""
    return [Property(name=f"{_PROPERTY}locked-sha256", value=value) for value in part.hashes]


# --- in the wheel


def inject(wheel: Path, content: bytes) -> None:
    """Put ``content`` into the wheel as its bill of materials, with its line in RECORD; everything else stays.

    An earlier one is replaced. The file changes at once or not at all.

    Raises:
        AuditError: the wheel has no RECORD.
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
    """RECORD with the row of one file, before the last one, which is RECORD's own."""
    rows = [row for row in csv.reader(io.StringIO(record.decode())) if row and row[0] != name]
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    rows.insert(-1, [name, f"sha256={digest}", str(len(content))])
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


# --- what may be wrong with one


def schema_problems(content: bytes) -> Iterator[str]:
    """Where ``content`` is not CycloneDX 1.6, as its JSON schema has it."""
    try:
        wrong = JsonStrictValidator(SchemaVersion.V1_6).validate_str(content.decode())
    except UnicodeDecodeError as error:
        yield f"not UTF-8: {error}"
        return
    if wrong is not None:
        # What the schema's own error says of the whole document is of the document's length.
        yield "not CycloneDX 1.6: " + str(wrong).splitlines()[0][:300]


def problems(wheel: Wheel, cell: Cell, info: BuildInfo) -> Iterator[str]:
    """Where the bill of materials is not valid, or says other things than the wheel and its cell."""
    content = wheel.read(member(wheel.dist_info))
    wrong = list(schema_problems(content))
    if wrong:
        yield from wrong
        return
    stated = json.loads(content)
    if stated.get("serialNumber") != serial_number(content.decode()):
        yield "the serial number does not follow from the content"
    if stated["metadata"]["component"].get("version") != cell.version:
        yield f"is about version {stated['metadata']['component'].get('version')}, the wheel is {cell.version}"
    components = {component["bom-ref"]: component for component in stated["components"]}
    if "cudart" in components and not cudart(wheel):
        yield "cudart: is listed, but not in the wheel"
    components["wheel"] = stated["metadata"]["component"]
    for name, value in _expected(wheel, cell, info):
        if value not in json.dumps(components.get(name, {})):
            yield f"{name}: {value} is not in it"


def _expected(wheel: Wheel, cell: Cell, info: BuildInfo) -> Iterable[tuple[str, str]]:
    """(component, what it must state)."""
    source = cell.release.source
    pins = [source.sha256] if isinstance(source, RegistryPin) else [source.commit, source.tree]
    yield from (("upstream", pin) for pin in pins)
    yield from (("wheel", value) for value in (cell.id, info.series_sha256, info.license_sha256))
    yield "torch", cell.torch.version
    yield "compiler", info.compiler.cxx
    for name in cudart(wheel):
        yield "cudart", hashlib.sha256(wheel.read(name)).hexdigest()
        yield "cudart", CUDA_LICENCE
