"""Tests of scripts.wheel.provenance: the contents of the statement, and that invalid ones are rejected."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from scripts.errors import VerifyError
from scripts.wheel import provenance
from scripts.wheel.materials import Materials
from tests.unit.materials_factory import EPOCH, build_info, materials_of
from tests.unit.wheel_factory import CELL, GIT, REGISTRY


def _made(materials: Materials) -> bytes:
    bill = ("nvdiffrast-1.dist-info/sboms/nvdiffrast.cdx.json", "8" * 64)
    return provenance.make(CELL.wheel, "9" * 64, bill, build_info(materials.cell), materials, recipe="2", epoch=EPOCH)


def _saved(folder: Path, content: bytes) -> Path:
    path = folder / "x.provenance.json"
    path.write_bytes(content)
    return path


def test_states_the_materials_and_parameters(tmp_path: Path) -> None:
    statement = provenance.load(_saved(tmp_path, _made(materials_of())))
    assert statement.wheel == (CELL.wheel, "9" * 64)
    assert statement.bill == "8" * 64
    assert statement.parameters.cell == CELL.id
    assert statement.parameters.architectures == list(CELL.toolkit.policy)
    assert statement.digests == {
        GIT.commit: "upstream",
        GIT.tree: "upstream",
        "a" * 64: "series",
        "1" * 64: "patches/0.3/one.patch",
        "2" * 64: "patches/common/overlay/two.py",
        "6" * 64: "requirements/pipeline.txt",
        "5" * 64: "torch",
    }


def test_states_the_hash_of_a_registry_file(tmp_path: Path) -> None:
    cell = dataclasses.replace(CELL, release=dataclasses.replace(CELL.release, source=REGISTRY))
    statement = provenance.load(_saved(tmp_path, _made(materials_of(cell))))
    assert statement.digests[REGISTRY.sha256] == "upstream"


def test_every_dependency_has_a_uri_or_a_digest() -> None:
    """The specification requires a URI or a digest for each dependency."""
    stated = json.loads(_made(materials_of()))
    dependencies = stated["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert all("uri" in one or "digest" in one for one in dependencies)
    assert "pkg:generic/g%2B%2B@12.2.0" in {one.get("uri") for one in dependencies}


def test_same_input_gives_the_same_bytes() -> None:
    materials = materials_of()
    reordered = dataclasses.replace(materials, series=dict(sorted(materials.series.items(), reverse=True)))
    assert _made(materials) == _made(reordered)
    assert _made(materials) != _made(dataclasses.replace(materials, runtime="x", architectures=("9.0",)))


def _without_subject(stated: dict[str, Any]) -> None:
    stated["subject"] = []


def _other_builder(stated: dict[str, Any]) -> None:
    stated["predicate"]["runDetails"]["builder"]["id"] = "urn:other"


def _unknown_key(stated: dict[str, Any]) -> None:
    stated["predicate"]["more"] = 1


@pytest.mark.parametrize("change", [_without_subject, _other_builder, _unknown_key])
def test_rejects_an_invalid_statement(tmp_path: Path, change: Any) -> None:
    stated = json.loads(_made(materials_of()))
    change(stated)
    content = (json.dumps(stated, indent=2, sort_keys=True) + "\n").encode()
    with pytest.raises(VerifyError, match="not a provenance statement"):
        provenance.load(_saved(tmp_path, content))


def test_rejects_a_statement_that_is_not_canonical(tmp_path: Path) -> None:
    content = _made(materials_of()).replace(b"\n", b"\r\n", 1)
    with pytest.raises(VerifyError, match="not in the canonical form"):
        provenance.load(_saved(tmp_path, content))


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff"])
def test_rejects_a_file_that_is_not_a_statement(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(VerifyError, match="not a provenance statement"):
        provenance.load(_saved(tmp_path, content))
