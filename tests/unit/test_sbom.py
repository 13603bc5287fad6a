"""The bill of materials: valid, the same each time, in the wheel with its line in RECORD, and held against it."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.audit.checks import BUILD_INFO
from scripts.errors import AuditError
from scripts.model import Cell, GitPin
from scripts.wheel import sbom, wheel_file
from scripts.wheel.build_info import BuildInfo
from tests.unit.ingredients_factory import bill, ingredients
from tests.unit.wheel_factory import CELL, CUDART, REGISTRY, text_parts

REGISTRY_CELL = dataclasses.replace(CELL, release=dataclasses.replace(CELL.release, source=REGISTRY))


def _wheel(folder: Path, cell: Cell = CELL) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    parts = text_parts(cell)
    parts.members[f"nvdiffrast.libs/{CUDART}"] = b"the CUDA runtime"
    return parts.write(folder)


def _with_bill(folder: Path, change: Callable[[str], str] = str, cell: Cell = CELL) -> list[str]:
    """What is wrong with a wheel whose bill of materials was changed."""
    wheel = _wheel(folder, cell)
    content = change(bill(wheel, ingredients(cell)).decode())
    sbom.inject(wheel, content.encode())
    unpacked = wheel_file.unpack(wheel, folder / "unpacked")
    return list(sbom.problems(unpacked, cell, BuildInfo.parse(unpacked.read(BUILD_INFO))))


def _numbered(text: str) -> str:
    """With the serial number that follows from the changed content."""
    return text.replace(json.loads(text)["serialNumber"], sbom.serial_number(text))


@pytest.mark.parametrize("cell", [CELL, REGISTRY_CELL], ids=["git", "registry"])
def test_a_wheels_own_bill_is_right(tmp_path: Path, cell: Cell) -> None:
    assert _with_bill(tmp_path, cell=cell) == []


def test_names_what_the_wheel_is_made_of(tmp_path: Path) -> None:
    stated = json.loads(bill(_wheel(tmp_path), ingredients()))
    found = {component["bom-ref"]: component for component in stated["components"]}
    source = CELL.release.source
    assert isinstance(source, GitPin)
    assert source.commit in json.dumps(found["upstream"])
    assert found["patches/0.3/one.patch"]["hashes"] == [{"alg": "SHA-256", "content": "1" * 64}]
    assert found["toolkit:nvidia-cuda-nvcc"]["version"] == "13.0.88"
    assert found["compiler"]["version"] == "12.2.0"
    assert (found["cudart"]["version"], found["cudart"]["licenses"][0]["license"]["name"]) == (
        "13.0.96",
        "NVIDIA CUDA Toolkit EULA",
    )
    assert "headers" in found["torch"]["description"]
    assert found["torch"]["version"] == CELL.torch.version


def test_the_same_each_time(tmp_path: Path) -> None:
    """Also for another folder and another order of the same ingredients."""
    made_of = ingredients()
    turned = dataclasses.replace(made_of, series=dict(sorted(made_of.series.items(), reverse=True)))
    assert bill(_wheel(tmp_path / "a"), made_of) == bill(_wheel(tmp_path / "b"), turned)


def test_another_ingredient_gives_another_serial_number(tmp_path: Path) -> None:
    wheel, made_of = _wheel(tmp_path), ingredients()
    other = dataclasses.replace(made_of, runtime="13.0.97")
    numbers = {json.loads(bill(wheel, one))["serialNumber"] for one in (made_of, other)}
    assert len(numbers) == 2


def _contents(wheel: Path) -> dict[str, tuple[object, int, bytes]]:
    with zipfile.ZipFile(wheel) as archive:
        return {info.filename: (info.date_time, info.external_attr, archive.read(info)) for info in archive.infolist()}


def test_injecting_keeps_everything_else(tmp_path: Path) -> None:
    wheel = _wheel(tmp_path)
    before = _contents(wheel)
    sbom.inject(wheel, b"{}")
    after = _contents(wheel)
    record = f"nvdiffrast-{CELL.version}.dist-info/RECORD"
    assert list(after)[-1] == record
    assert after.pop(sbom.member(f"nvdiffrast-{CELL.version}.dist-info"))[2] == b"{}"
    assert len(after.pop(record)[2].splitlines()) == len(before.pop(record)[2].splitlines()) + 1
    assert after == before
    assert list(wheel_file.record_problems(wheel_file.unpack(wheel, tmp_path / "unpacked"))) == []


def test_injecting_twice_replaces_and_gives_the_same_bytes(tmp_path: Path) -> None:
    wheel = _wheel(tmp_path)
    sbom.inject(wheel, b"{}")
    once = wheel.read_bytes()
    sbom.inject(wheel, b"[]")
    sbom.inject(wheel, b"{}")
    assert wheel.read_bytes() == once


def test_a_wheel_without_record_is_refused(tmp_path: Path) -> None:
    wheel = tmp_path / CELL.wheel
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("nvdiffrast/__init__.py", "")
    before = wheel.read_bytes()
    with pytest.raises(AuditError, match="no RECORD"):
        sbom.inject(wheel, b"{}")
    assert wheel.read_bytes() == before


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('"type": "library"', '"type": "libary"', "not CycloneDX 1.6"),
        ('"specVersion": "1.6"', '"specVersion": "1.6", "extra": 1', "not CycloneDX 1.6"),
        ("c" * 40, "b" * 40, "upstream: " + "c" * 40),
        ('"12.2.0"', '"12.2.1"', "compiler: 12.2.0"),
        (f'"version": "{CELL.version}"', '"version": "0"', "is about version 0"),
        ("NVIDIA CUDA Toolkit EULA", "MIT", "cudart: NVIDIA CUDA Toolkit EULA"),
        ("a" * 64, "b" * 64, "wheel: " + "a" * 64),
        ('"bom-ref": "cudart"', '"bom-ref": "cudart2"', "cudart: "),
    ],
)
def test_what_is_not_so_is_told(tmp_path: Path, old: str, new: str, told: str) -> None:
    def change(text: str) -> str:
        assert old in text
        return _numbered(text.replace(old, new))

    assert any(told in problem for problem in _with_bill(tmp_path, change))


def test_a_changed_byte_is_told_by_the_serial_number(tmp_path: Path) -> None:
    assert _with_bill(tmp_path, lambda text: text.replace("6" * 64, "7" + "6" * 63)) == [
        "the serial number does not follow from the content"
    ]


def test_a_runtime_that_is_not_there_is_told(tmp_path: Path) -> None:
    wheel = _wheel(tmp_path)
    content = bill(wheel, ingredients())
    parts = text_parts(CELL)
    bare = parts.write(tmp_path)
    sbom.inject(bare, content)
    unpacked = wheel_file.unpack(bare, tmp_path / "unpacked")
    info = BuildInfo.parse(unpacked.read(BUILD_INFO))
    assert list(sbom.problems(unpacked, CELL, info)) == ["cudart: is listed, but not in the wheel"]
