"""The statement of provenance: what it says, that it is the same each time, and that a foreign one is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from scripts.errors import VerifyError
from scripts.wheel import provenance
from scripts.wheel.materials import Ingredients
from tests.unit.ingredients_factory import EPOCH, build_info, ingredients
from tests.unit.wheel_factory import CELL, GIT, REGISTRY


def _made(made_of: Ingredients) -> bytes:
    bill = ("nvdiffrast-1.dist-info/sboms/nvdiffrast.cdx.json", "8" * 64)
    return provenance.make(CELL.wheel, "9" * 64, bill, build_info(made_of.cell), made_of, recipe="2", epoch=EPOCH)


def _saved(folder: Path, content: bytes) -> Path:
    path = folder / "x.provenance.json"
    path.write_bytes(content)
    return path


def test_says_what_decides_the_bytes(tmp_path: Path) -> None:
    statement = provenance.load(_saved(tmp_path, _made(ingredients())))
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


def test_a_registrys_file_is_named_by_its_hash(tmp_path: Path) -> None:
    cell = dataclasses.replace(CELL, release=dataclasses.replace(CELL.release, source=REGISTRY))
    statement = provenance.load(_saved(tmp_path, _made(ingredients(cell))))
    assert statement.digests[REGISTRY.sha256] == "upstream"


def test_every_dependency_can_be_told_apart() -> None:
    """The specification asks for a URI or a digest of each; a name alone says nothing."""
    stated = json.loads(_made(ingredients()))
    dependencies = stated["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert all("uri" in one or "digest" in one for one in dependencies)
    assert "pkg:generic/g%2B%2B@12.2.0" in {one.get("uri") for one in dependencies}


def test_the_same_each_time() -> None:
    made_of = ingredients()
    turned = dataclasses.replace(made_of, series=dict(sorted(made_of.series.items(), reverse=True)))
    assert _made(made_of) == _made(turned)
    assert _made(made_of) != _made(dataclasses.replace(made_of, runtime="x", architectures=("9.0",)))


def _without_subject(stated: dict[str, Any]) -> None:
    stated["subject"] = []


def _other_builder(stated: dict[str, Any]) -> None:
    stated["predicate"]["runDetails"]["builder"]["id"] = "urn:somebody"


def _more(stated: dict[str, Any]) -> None:
    stated["predicate"]["more"] = 1


@pytest.mark.parametrize("change", [_without_subject, _other_builder, _more])
def test_another_form_is_refused(tmp_path: Path, change: Any) -> None:
    stated = json.loads(_made(ingredients()))
    change(stated)
    content = (json.dumps(stated, indent=2, sort_keys=True) + "\n").encode()
    with pytest.raises(VerifyError, match="not a provenance statement"):
        provenance.load(_saved(tmp_path, content))


def test_other_bytes_of_the_same_are_refused(tmp_path: Path) -> None:
    content = _made(ingredients()).replace(b"\n", b"\r\n", 1)
    with pytest.raises(VerifyError, match="not written as statements are"):
        provenance.load(_saved(tmp_path, content))


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff"])
def test_what_is_no_statement_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(VerifyError, match="not a provenance statement"):
        provenance.load(_saved(tmp_path, content))
