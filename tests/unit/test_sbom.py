"""Tests of scripts.wheel.sbom: creating, injecting and checking the bill of materials."""

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
from tests.unit.materials_factory import bill, materials_of
from tests.unit.wheel_factory import CELL, CUDART, REGISTRY, text_parts

REGISTRY_CELL = dataclasses.replace(CELL, release=dataclasses.replace(CELL.release, source=REGISTRY))


def _wheel(folder: Path, cell: Cell = CELL) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    parts = text_parts(cell)
    parts.members[f"nvdiffrast.libs/{CUDART}"] = b"the CUDA runtime"
    return parts.write(folder)


def _problems_of_changed_bill(folder: Path, change: Callable[[str], str] = str, cell: Cell = CELL) -> list[str]:
    """Return the problems of a wheel whose bill of materials was changed."""
    wheel = _wheel(folder, cell)
    content = change(bill(wheel, materials_of(cell)).decode())
    sbom.inject(wheel, content.encode())
    unpacked = wheel_file.unpack(wheel, folder / "unpacked")
    return list(sbom.problems(unpacked, cell, BuildInfo.parse(unpacked.read(BUILD_INFO))))


def _renumber(text: str) -> str:
    """Return ``text`` with the serial number that matches its content."""
    return text.replace(json.loads(text)["serialNumber"], sbom.serial_number(text))


@pytest.mark.parametrize("cell", [CELL, REGISTRY_CELL], ids=["git", "registry"])
def test_generated_bill_has_no_problems(tmp_path: Path, cell: Cell) -> None:
    assert _problems_of_changed_bill(tmp_path, cell=cell) == []


def test_lists_the_materials_of_the_wheel(tmp_path: Path) -> None:
    stated = json.loads(bill(_wheel(tmp_path), materials_of()))
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


def test_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    """The folder and the order of the materials do not matter."""
    materials = materials_of()
    reordered = dataclasses.replace(materials, series=dict(sorted(materials.series.items(), reverse=True)))
    assert bill(_wheel(tmp_path / "a"), materials) == bill(_wheel(tmp_path / "b"), reordered)


def test_another_material_gives_another_serial_number(tmp_path: Path) -> None:
    wheel, materials = _wheel(tmp_path), materials_of()
    other = dataclasses.replace(materials, runtime="13.0.97")
    numbers = {json.loads(bill(wheel, one))["serialNumber"] for one in (materials, other)}
    assert len(numbers) == 2


def _contents(wheel: Path) -> dict[str, tuple[object, int, bytes]]:
    with zipfile.ZipFile(wheel) as archive:
        return {info.filename: (info.date_time, info.external_attr, archive.read(info)) for info in archive.infolist()}


def test_injecting_preserves_all_other_members(tmp_path: Path) -> None:
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


def test_injecting_again_replaces_the_bill_and_gives_the_same_bytes(tmp_path: Path) -> None:
    wheel = _wheel(tmp_path)
    sbom.inject(wheel, b"{}")
    once = wheel.read_bytes()
    sbom.inject(wheel, b"[]")
    sbom.inject(wheel, b"{}")
    assert wheel.read_bytes() == once


def test_rejects_a_wheel_without_record(tmp_path: Path) -> None:
    wheel = tmp_path / CELL.wheel
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("nvdiffrast/__init__.py", "")
    before = wheel.read_bytes()
    with pytest.raises(AuditError, match="no RECORD"):
        sbom.inject(wheel, b"{}")
    assert wheel.read_bytes() == before


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"type": "library"', '"type": "libary"', "not CycloneDX 1.6"),
        ('"specVersion": "1.6"', '"specVersion": "1.6", "extra": 1', "not CycloneDX 1.6"),
        ("c" * 40, "b" * 40, "upstream: " + "c" * 40),
        ('"12.2.0"', '"12.2.1"', "compiler: 12.2.0"),
        (f'"version": "{CELL.version}"', '"version": "0"', "describes version 0"),
        ("NVIDIA CUDA Toolkit EULA", "MIT", "cudart: NVIDIA CUDA Toolkit EULA"),
        ("a" * 64, "b" * 64, "wheel: " + "a" * 64),
        ('"bom-ref": "cudart"', '"bom-ref": "cudart2"', "cudart: "),
    ],
)
def test_reports_wrong_contents(tmp_path: Path, old: str, new: str, message: str) -> None:
    def change(text: str) -> str:
        assert old in text
        return _renumber(text.replace(old, new))

    assert any(message in problem for problem in _problems_of_changed_bill(tmp_path, change))


def test_serial_number_detects_a_changed_byte(tmp_path: Path) -> None:
    assert _problems_of_changed_bill(tmp_path, lambda text: text.replace("6" * 64, "7" + "6" * 63)) == [
        "the serial number does not match the content"
    ]


def test_reports_a_listed_runtime_that_is_not_in_the_wheel(tmp_path: Path) -> None:
    wheel = _wheel(tmp_path)
    content = bill(wheel, materials_of())
    parts = text_parts(CELL)
    bare = parts.write(tmp_path)
    sbom.inject(bare, content)
    unpacked = wheel_file.unpack(bare, tmp_path / "unpacked")
    info = BuildInfo.parse(unpacked.read(BUILD_INFO))
    assert list(sbom.problems(unpacked, CELL, info)) == ["cudart: is listed, but not in the wheel"]
