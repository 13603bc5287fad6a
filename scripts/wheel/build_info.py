"""nvdiffrast/build_info.json, as it is read back from a wheel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from scripts.errors import AuditError


class _Model(BaseModel):
    # What is added to the file later does not make earlier readers fail.
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


class Compiler(_Model):
    """Versions of the host compiler and of nvcc: "12.2.0", "13.0.88".

    ``cxx_build`` and ``linker`` are the first lines that the compiler and the linker print about themselves, such as
    "g++ (Debian 12.2.0-14+deb12u1) 12.2.0"; the same sources give the same bytes with the same builds of both.
    """

    cxx: str = Field(min_length=1)
    cxx_build: str | None = None
    linker: str | None = None
    nvcc: str = Field(pattern=r"^\d+\.\d+")


class Architectures(_Model):
    """Compute capabilities ("9.0") that the kernels were compiled for."""

    sass: list[str]
    ptx: list[str]


class BuildInfo(_Model):
    """What a wheel says of its own making."""

    cell: str
    release: str
    source: Mapping[str, str]
    series: str
    series_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    license_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    python: str
    torch: str
    cuda: str
    compiler: Compiler
    architectures: Architectures
    flags: Mapping[str, list[str]]
    partial: bool
    plugins: list[str]

    @classmethod
    def parse(cls, content: bytes) -> Self:
        """Read the file's bytes.

        Raises:
            AuditError: not JSON, or a key is missing or malformed; all of them are named.
        """
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            problems = (
                f"{'.'.join(map(str, found['loc']))}: {found['msg']}" if found["loc"] else found["msg"]
                for found in error.errors()
            )
            raise AuditError(f"build_info.json: {'; '.join(problems)}") from error
