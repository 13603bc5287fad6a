"""The schema of build_matrix.yaml: pydantic models, their JSON schema, and readable messages for pydantic's errors."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from scripts.matrix.yaml_document import Document, Trail

_DOTTED = r"^[0-9]+(\.[0-9]+)*$"
_PYTHON = r"^3\.[0-9]+$"
_CUDA = r"^[0-9]+\.[0-9]+$"
_TORCH = r"^[0-9]+\.[0-9]+\.[0-9]+$"
_SHA256 = r"^[0-9a-f]{64}$"
_SHA1 = r"^[0-9a-f]{40}$"
_IMAGE = r"^[^\s@]+@sha256:[0-9a-f]{64}$"
_TEXT = r"\S"
_PLAIN = r"^[A-Za-z0-9_]+$"
_FILE = r"^[A-Za-z0-9][A-Za-z0-9._+-]*$"
_URL = r"^(https|ssh|file)://\S+$"

_WORDS = {
    _DOTTED: 'a version such as "0.3.5"',
    _PYTHON: 'a CPython line such as "3.12"',
    _CUDA: 'a CUDA version of two numbers, or a capability, such as "13.0"',
    _TORCH: 'an exact torch version of three numbers such as "2.11.0"',
    _SHA256: "a sha256: 64 lower-case hexadecimal digits, as `sha256sum` prints them",
    _SHA1: "a git object: 40 lower-case hexadecimal digits, as `git rev-parse` prints them",
    _IMAGE: "an image pinned by digest: NAME@sha256:64 hexadecimal digits",
    _TEXT: "a sentence",
    _PLAIN: "a name of letters, digits and underscores",
    _FILE: "a plain file name",
    _URL: "a URL: https://..., ssh://... or file://...",
}

Dotted = Annotated[str, Field(pattern=_DOTTED)]
Python = Annotated[str, Field(pattern=_PYTHON)]
Cuda = Annotated[str, Field(pattern=_CUDA)]
Torch = Annotated[str, Field(pattern=_TORCH)]
Sha256 = Annotated[str, Field(pattern=_SHA256)]
Sha1 = Annotated[str, Field(pattern=_SHA1)]
Text = Annotated[str, Field(pattern=_TEXT)]
Plain = Annotated[str, Field(pattern=_PLAIN)]
FileName = Annotated[str, Field(pattern=_FILE)]


class _Raw(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class RawRegistry(_Raw):
    """A pin of one file of a package registry."""

    package: FileName
    version: Dotted
    filename: FileName
    sha256: Sha256


class RawGit(_Raw):
    """A pin of a git commit and its tree."""

    url: Annotated[str, Field(pattern=_URL)]
    tag: Text
    commit: Sha1
    tree: Sha1


class RawRelease(_Raw):
    """One upstream version; exactly one of ``registry`` and ``git`` pins its content."""

    series: Cuda = Field(description="The folder of patches/ that applies.")
    opengl: bool = Field(default=False, description="Whether the release contains the OpenGL plugin.")
    registry: RawRegistry | None = None
    git: RawGit | None = None


class RawBounds(_Raw):
    """The oldest and newest compiler version; "13" includes every 13.x."""

    minimum: Dotted | None = None
    maximum: Dotted | None = None


class RawTorch(_Raw):
    """The Pythons and platforms for this torch; a missing list means all of them."""

    python: Annotated[list[Python], Field(min_length=1)] | None = None
    platforms: Annotated[list[Plain], Field(min_length=1)] | None = None


class RawToolkit(_Raw):
    """One CUDA version."""

    providers: Annotated[list[Literal["pypi", "redist", "system"]], Field(min_length=1)]
    architectures: Annotated[list[Cuda], Field(min_length=1, description="Compute capabilities that get SASS.")]
    ptx: Cuda = Field(description="The newest architecture; it gets PTX as well.")
    gcc: RawBounds
    msvc: RawBounds
    torch: Annotated[dict[Torch, RawTorch], Field(min_length=1)]


class RawPlatform(_Raw):
    """A platform's tag in wheel names, and its container image, pinned by digest (Linux only)."""

    wheel_tag: Plain
    image: Annotated[str, Field(pattern=_IMAGE)] | None = None


class RawExclusion(_Raw):
    """Cells that are not built, and the reason."""

    cells: Text = Field(description="A glob over cell ids.")
    reason: Text


class RawMatrix(_Raw):
    """build_matrix.yaml."""

    default_toolkit: Cuda
    cuda_runtime: Literal["bundled", "torch"]
    python: Annotated[list[Python], Field(min_length=1)]
    platforms: Annotated[dict[Plain, RawPlatform], Field(min_length=1)]
    releases: Annotated[dict[Dotted, RawRelease], Field(min_length=1)]
    toolkits: Annotated[dict[Cuda, RawToolkit], Field(min_length=1)]
    exclusions: list[RawExclusion] = []


_MODELS = (RawMatrix, RawRelease, RawRegistry, RawGit, RawToolkit, RawBounds, RawTorch, RawPlatform, RawExclusion)
_KEYS = sorted({name for model in _MODELS for name in model.model_fields})
_SETTINGS = {"default_toolkit": "0.0", "cuda_runtime": "bundled"}
_MISSING = {
    "sha256": "it pins the content: add the file's sha256",
    "commit": "it pins the content: add the output of `git rev-parse TAG^{commit}`",
    "tree": "it pins the content: add the output of `git rev-parse TAG^{tree}`",
    "reason": "every exclusion needs a reason: add `reason:`",
}


def json_schema() -> str:
    """Return the content of build_matrix.schema.json, which editors use."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **RawMatrix.model_json_schema()}
    return json.dumps(schema, indent=2) + "\n"


def parse(document: Document) -> tuple[RawMatrix | None, bool]:
    """Return a model of the well-formed entries, and whether it is complete; report malformed values as problems.

    The rules can then check the well-formed entries. The model is None if a whole section is malformed.
    """
    try:
        return RawMatrix.model_validate(document.data), True
    except ValidationError as error:
        malformed = {_explain(document, dict(one)) for one in error.errors()}
    try:
        return RawMatrix.model_validate(_without(document.data, malformed)), False
    except ValidationError:
        return None, False


def _without(data: Any, malformed: set[Trail]) -> Any:
    """Return ``data`` without its malformed entries (trails of two parts), with default values for settings."""
    if not isinstance(data, dict):
        return data
    kept = {**_SETTINGS, **data}
    kept |= {key: default for key, default in _SETTINGS.items() if (key,) in malformed}
    if isinstance(kept.get("python"), list):
        kept["python"] = [line for index, line in enumerate(kept["python"]) if ("python", index) not in malformed]
    for section in ("platforms", "releases", "toolkits"):
        if isinstance(kept.get(section), dict):
            kept[section] = {key: value for key, value in kept[section].items() if (section, key) not in malformed}
    if isinstance(kept.get("exclusions"), list):
        entries = enumerate(kept["exclusions"])
        kept["exclusions"] = [_placeholder(entry) if ("exclusions", i) in malformed else entry for i, entry in entries]
    return {key: value for key, value in kept.items() if key in RawMatrix.model_fields}


def _placeholder(exclusion: Any) -> dict[str, str]:
    """Return a well-formed exclusion in place of a malformed one, so that the others keep their index."""
    cells = exclusion.get("cells") if isinstance(exclusion, dict) else None
    return {"cells": cells if isinstance(cells, str) and cells.strip() else "-", "reason": "-"}


def _explain(document: Document, error: Mapping[str, Any]) -> Trail:
    """Report one pydantic error at its position, and return the trail of the malformed entry."""
    trail: Trail = tuple(part for part in error["loc"] if part != "[key]")
    kind = error["type"]
    if kind == "missing":
        name = str(trail[-1])
        document.report(trail, _MISSING.get(name, f"`{name}` is missing; add it"))
    elif kind == "extra_forbidden":
        near = difflib.get_close_matches(str(trail[-1]), _KEYS, n=1)
        hint = f"did you mean `{near[0]}`?" if near else "remove it"
        document.report(trail, f"unknown key; {hint}", key=True)
    else:
        is_key = "[key]" in error["loc"]
        document.report(trail, _sentence(document, trail, error, is_key), key=is_key)
    return trail[:2]


def _sentence(document: Document, trail: Trail, error: Mapping[str, Any], is_key: bool) -> str:
    kind, found, context = error["type"], error["input"], error.get("ctx", {})
    if kind == "string_type" and isinstance(found, (int, float)):
        written = document.source(trail)
        return f'{written} is read as {_describe(found)}; quote it: "{written}"'
    if kind == "string_pattern_mismatch":
        return f"{found!r} is not {_WORDS[context['pattern']]}" + (" (this key is one)" if is_key else "")
    if kind == "literal_error":
        return f"{found!r} is not known; write {context['expected']}"
    if kind == "too_short":
        return "is empty; list at least one"
    wanted = {"list_type": "a list", "dict_type": "a mapping", "model_type": "a mapping", "string_type": "text"}
    return f"found {_describe(found)}; write {wanted.get(kind, error['msg'])}"


def _describe(found: object) -> str:
    if isinstance(found, bool):
        return f"the truth value {str(found).lower()}"
    if isinstance(found, (int, float)):
        return f"the number {found}"
    return {"NoneType": "nothing", "list": "a list", "dict": "a mapping", "str": f"the text {found!r}"}.get(
        type(found).__name__, f"a {type(found).__name__}"
    )
