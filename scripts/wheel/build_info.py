"""Reads nvdiffrast/build_info.json of a wheel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from scripts.errors import AuditError


class _Model(BaseModel):
    # Ignore unknown keys, so that this version can read files of later versions.
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


class Compiler(_Model):
    """The versions of the host compiler ("12.2.0") and of nvcc ("13.0.88").

    ``cxx_build`` and ``linker`` are the first lines that the compiler and the linker print for --version, such as
    "g++ (Debian 12.2.0-14+deb12u1) 12.2.0". Only the same builds of both give the same bytes for the same sources.
    """

    cxx: str = Field(min_length=1)
    cxx_build: str | None = None
    linker: str | None = None
    nvcc: str = Field(pattern=r"^\d+\.\d+")


class Architectures(_Model):
    """The compute capabilities ("9.0") that the kernels were compiled for."""

    sass: list[str]
    ptx: list[str]


class BuildInfo(_Model):
    """The contents of build_info.json: how a wheel was built."""

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
        """Parse the contents of the file.

        Raises:
            AuditError: if the file is not JSON, or keys are missing or malformed; the message lists all of them.
        """
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            problems = (
                f"{'.'.join(map(str, found['loc']))}: {found['msg']}" if found["loc"] else found["msg"]
                for found in error.errors()
            )
            raise AuditError(f"build_info.json: {'; '.join(problems)}") from error
