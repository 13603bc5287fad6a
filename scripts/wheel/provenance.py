"""Where a wheel comes from: an in-toto statement (v1) with a SLSA provenance predicate (v1), one for each wheel.

It holds what decides the wheel's bytes and nothing of the machine or the hour, so that whoever builds the same again
gets the same statement. It is not signed here; GitHub Actions attests to what it says.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from packageurl import PackageURL
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from scripts.errors import VerifyError
from scripts.model import RegistryPin
from scripts.wheel.build_info import BuildInfo
from scripts.wheel.materials import Ingredients, Part, host_compiler

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:nvdiffrast-wheels:cell:v1"
BUILDER = "urn:nvdiffrast-wheels:build"

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Model(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class Resource(_Model):
    """in-toto's ResourceDescriptor, as far as we use it; ``digest`` is empty where nothing can be hashed."""

    name: str
    uri: str | None = None
    digest: dict[str, str] = {}


class Parameters(_Model):
    """What a maintainer chooses: enough to build the wheel again."""

    cell: str
    engine: Literal["host", "cibuildwheel"]
    image: str | None
    architectures: list[str]


class Internal(_Model):
    """What the pipeline itself decides."""

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
    """SLSA's Builder: this pipeline, wherever it ran."""

    id: Literal["urn:nvdiffrast-wheels:build"]


class Run(_Model):
    """SLSA's RunDetails."""

    builder: Builder
    byproducts: list[Resource]


class Predicate(_Model):
    """SLSA's provenance."""

    buildDefinition: Definition  # noqa: N815
    runDetails: Run  # noqa: N815


class Statement(BaseModel):
    """in-toto's Statement about one wheel."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", populate_by_name=True)

    type: Literal["https://in-toto.io/Statement/v1"] = Field(alias="_type")
    subject: Annotated[list[Resource], Field(min_length=1, max_length=1)]
    predicateType: Literal["https://slsa.dev/provenance/v1"]  # noqa: N815
    predicate: Predicate

    @property
    def parameters(self) -> Parameters:
        """What was chosen."""
        return self.predicate.buildDefinition.externalParameters

    @property
    def wheel(self) -> tuple[str, str]:
        """File name and sha256 of the wheel."""
        return self.subject[0].name, self.subject[0].digest.get("sha256", "")

    @property
    def bill(self) -> str:
        """The sha256 of the bill of materials, "" if none is stated."""
        return next((one.digest.get("sha256", "") for one in self.predicate.runDetails.byproducts), "")

    @property
    def digests(self) -> dict[str, str]:
        """Every hash of a dependency, and the name of what it is of."""
        named = self.predicate.buildDefinition.resolvedDependencies
        return {digest: one.name for one in named for digest in one.digest.values()}


def make(
    name: str, sha256: str, bill: tuple[str, str], info: BuildInfo, made_of: Ingredients, *, recipe: str, epoch: int
) -> bytes:
    """The statement about the wheel ``name``, as JSON.

    ``bill`` is the bill of materials' member and sha256; ``epoch`` is SOURCE_DATE_EPOCH in seconds.
    """
    cell = made_of.cell
    stated = {
        "_type": STATEMENT,
        "subject": [_resource(name, digest={"sha256": sha256})],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "cell": cell.id,
                    "engine": made_of.engine,
                    "image": made_of.image,
                    "architectures": list(made_of.architectures),
                },
                "internalParameters": {"recipe": recipe, "source_date_epoch": epoch, "provider": made_of.provider},
                "resolvedDependencies": list(_dependencies(made_of, info)),
            },
            "runDetails": {
                "builder": {"id": BUILDER},
                "byproducts": [_resource(bill[0], digest={"sha256": bill[1]})],
            },
        },
    }
    return _text(stated)


def _text(stated: dict[str, Any]) -> bytes:
    return (json.dumps(stated, indent=2, sort_keys=True) + "\n").encode()


def _resource(name: str, **stated: Any) -> dict[str, Any]:
    return {"name": name, **{key: value for key, value in stated.items() if value}}


def _dependencies(made_of: Ingredients, info: BuildInfo) -> Iterator[dict[str, Any]]:
    """Upstream's release, our files, the locks, the toolkit, the compiler, torch; each by hash where it has one."""
    yield _upstream(made_of)
    yield _resource("series", digest={"sha256": made_of.series_sha256})
    for name, sha256 in sorted({**made_of.series, **made_of.locks}.items()):
        yield _resource(name, digest={"sha256": sha256})
    for part in made_of.toolkit:
        yield _part(part, "pypi" if made_of.provider == "pypi" else "generic")
    yield _part(made_of.torch, "pypi")
    yield _part(host_compiler(made_of.cell, info), "generic")


def _upstream(made_of: Ingredients) -> dict[str, Any]:
    source = made_of.cell.release.source
    if isinstance(source, RegistryPin):
        uri = f"pkg:pypi/{source.package}@{source.version}"
        return _resource("upstream", uri=uri, digest={"sha256": source.sha256})
    uri = f"git+{source.url}@refs/tags/{source.tag}"
    return _resource("upstream", uri=uri, digest={"gitCommit": source.commit, "gitTree": source.tree})


def _part(part: Part, kind: str) -> dict[str, Any]:
    """A lock may name a file for each platform: only what can be but one file is stated with its hash."""
    digest = {"sha256": part.hashes[0]} if len(part.hashes) == 1 else {}
    return _resource(part.name, uri=PackageURL(kind, None, part.name, part.version).to_string(), digest=digest)


def load(path: Path) -> Statement:
    """Read a statement.

    Raises:
        VerifyError: it cannot be read, or is no statement of ours, to the byte.
    """
    hint = "build the wheel again: its statement is written with it"
    try:
        content = path.read_bytes()
        statement = Statement.model_validate_json(content)
    except (OSError, ValidationError) as error:
        first = str(error).splitlines()[0] if isinstance(error, OSError) else error.errors()[0]["msg"]
        raise VerifyError(f"{path}: not a provenance statement: {first}", hint=hint) from error
    if content != _text(json.loads(content)):
        raise VerifyError(f"{path}: not written as statements are", hint=hint)
    return statement
