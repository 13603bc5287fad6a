"""Provenance of a wheel: an in-toto statement (v1) with a SLSA provenance predicate (v1).

The statement contains what affects the bytes of the wheel, but no machine and no time: a rebuild gives the same
statement. It is not signed here; GitHub Actions attests to it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from packageurl import PackageURL
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from scripts.errors import VerifyError
from scripts.model import RegistryPin
from scripts.wheel.build_info import BuildInfo
from scripts.wheel.materials import Materials, Part, host_compiler

STATEMENT: Literal["https://in-toto.io/Statement/v1"] = "https://in-toto.io/Statement/v1"
PREDICATE: Literal["https://slsa.dev/provenance/v1"] = "https://slsa.dev/provenance/v1"
BUILD_TYPE: Literal["urn:nvdiffrast-wheels:cell:v1"] = "urn:nvdiffrast-wheels:cell:v1"
BUILDER: Literal["urn:nvdiffrast-wheels:build"] = "urn:nvdiffrast-wheels:build"

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Model(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class Resource(_Model):
    """The used fields of in-toto's ResourceDescriptor; ``digest`` is empty for a resource without a single hash."""

    name: str
    uri: str | None = None
    digest: dict[str, str] = {}


class Parameters(_Model):
    """The parameters that a maintainer chooses; they suffice to rebuild the wheel."""

    cell: str
    engine: Annotated[str, Field(pattern=r"^(host|cibuildwheel)$")]
    image: str | None
    architectures: list[str]


class Internal(_Model):
    """The parameters that the pipeline sets."""

    recipe: str
    source_date_epoch: int
    provider: str


class Definition(_Model):
    """SLSA's BuildDefinition."""

    buildType: Literal["urn:nvdiffrast-wheels:cell:v1"]  # noqa: N815
    externalParameters: Parameters  # noqa: N815
    internalParameters: Internal  # noqa: N815
    resolvedDependencies: list[Resource]  # noqa: N815


class Builder(_Model):
    """SLSA's Builder: this pipeline, on any machine."""

    id: Literal["urn:nvdiffrast-wheels:build"]


class Run(_Model):
    """SLSA's RunDetails."""

    builder: Builder
    byproducts: list[Resource]


class Predicate(_Model):
    """SLSA's provenance predicate."""

    buildDefinition: Definition  # noqa: N815
    runDetails: Run  # noqa: N815


class Statement(BaseModel):
    """An in-toto Statement about one wheel."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", populate_by_name=True)

    type: Literal["https://in-toto.io/Statement/v1"] = Field(alias="_type")
    subject: Annotated[list[Resource], Field(min_length=1, max_length=1)]
    predicateType: Literal["https://slsa.dev/provenance/v1"]  # noqa: N815
    predicate: Predicate

    @property
    def parameters(self) -> Parameters:
        """Return the parameters that the maintainer chose."""
        return self.predicate.buildDefinition.externalParameters

    @property
    def wheel(self) -> tuple[str, str]:
        """Return the file name and the SHA-256 of the wheel."""
        return self.subject[0].name, self.subject[0].digest.get("sha256", "")

    @property
    def bill(self) -> str:
        """Return the SHA-256 of the bill of materials, or "" if the statement does not contain it."""
        return next((one.digest.get("sha256", "") for one in self.predicate.runDetails.byproducts), "")

    @property
    def digests(self) -> dict[str, str]:
        """Return the name of each dependency by its hashes."""
        dependencies = self.predicate.buildDefinition.resolvedDependencies
        return {digest: one.name for one in dependencies for digest in one.digest.values()}


def make(
    name: str, sha256: str, bill: tuple[str, str], info: BuildInfo, materials: Materials, *, recipe: str, epoch: int
) -> bytes:
    """Return the statement about the wheel ``name`` as JSON.

    ``bill`` is the member name and the SHA-256 of the bill of materials; ``epoch`` is SOURCE_DATE_EPOCH in seconds.
    """
    definition = Definition(
        buildType=BUILD_TYPE,
        externalParameters=Parameters(
            cell=materials.cell.id,
            engine=materials.engine,
            image=materials.image,
            architectures=list(materials.architectures),
        ),
        internalParameters=Internal(recipe=recipe, source_date_epoch=epoch, provider=materials.provider),
        resolvedDependencies=list(_dependencies(materials, info)),
    )
    bill_name, bill_sha256 = bill
    run = Run(builder=Builder(id=BUILDER), byproducts=[Resource(name=bill_name, digest={"sha256": bill_sha256})])
    statement = Statement(
        _type=STATEMENT,
        subject=[Resource(name=name, digest={"sha256": sha256})],
        predicateType=PREDICATE,
        predicate=Predicate(buildDefinition=definition, runDetails=run),
    )
    return _to_json(statement)


def _to_json(statement: Statement) -> bytes:
    """Return the canonical JSON of a statement, which omits URIs and digests that are not stated."""
    document = statement.model_dump(by_alias=True, exclude_defaults=True)
    return (json.dumps(document, indent=2, sort_keys=True) + "\n").encode()


def _dependencies(materials: Materials, info: BuildInfo) -> Iterator[Resource]:
    """Yield upstream's release, the files of the series, the locks, the toolkit, torch and the compiler."""
    yield _upstream(materials)
    yield Resource(name="series", digest={"sha256": materials.series_sha256})
    for name, sha256 in sorted({**materials.series, **materials.locks}.items()):
        yield Resource(name=name, digest={"sha256": sha256})
    for part in materials.toolkit:
        yield _package(part, "pypi" if materials.provider == "pypi" else "generic")
    yield _package(materials.torch, "pypi")
    yield _package(host_compiler(materials.cell, info), "generic")


def _upstream(materials: Materials) -> Resource:
    source = materials.cell.release.source
    if isinstance(source, RegistryPin):
        uri = f"pkg:pypi/{source.package}@{source.version}"
        return Resource(name="upstream", uri=uri, digest={"sha256": source.sha256})
    uri = f"git+{source.url}@refs/tags/{source.tag}"
    return Resource(name="upstream", uri=uri, digest={"gitCommit": source.commit, "gitTree": source.tree})


def _package(part: Part, kind: str) -> Resource:
    """Return a part as a resource; the digest is stated only if the lock permits a single file."""
    digest = {"sha256": part.hashes[0]} if len(part.hashes) == 1 else {}
    return Resource(name=part.name, uri=PackageURL(kind, None, part.name, part.version).to_string(), digest=digest)


def load(path: Path) -> Statement:
    """Read a statement.

    Raises:
        VerifyError: if it is malformed, or its bytes are not those that this pipeline writes.
    """
    hint = "build the wheel again; the build writes the statement"
    try:
        content = path.read_bytes()
        statement = Statement.model_validate_json(content)
    except (OSError, ValidationError) as error:
        first = str(error).splitlines()[0] if isinstance(error, OSError) else error.errors()[0]["msg"]
        raise VerifyError(f"{path}: not a provenance statement: {first}", hint=hint) from error
    if content != _to_json(statement):
        raise VerifyError(f"{path}: not in the canonical form of a statement", hint=hint)
    return statement
