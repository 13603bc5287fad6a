"""Tests of the record, the bill of materials and the provenance of a real wheel."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from scripts.build import build, reproduce
from scripts.build.inputs import Options, gather
from scripts.model import ROOT, Cell
from scripts.support.files import file_sha256
from scripts.wheel import audit_record, sbom

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> Options:
    return Options("host", ("9.0",), None, None, tmp_path_factory.mktemp("dist"), None, None)


@pytest.fixture(scope="module")
def wheel(host_cell: Cell, options: Options) -> Path:
    result = build.build(host_cell, options)
    assert result.wheel is not None, result.detail
    return result.wheel


def _verify(wheel: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "scripts.build.verify", str(wheel), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def _bill(wheel: Path) -> bytes:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(f".dist-info/sboms/{sbom.NAME}")]
        return archive.read(name)


def test_build_writes_a_valid_bill_of_materials_and_a_provenance(wheel: Path) -> None:
    record = audit_record.find(file_sha256(wheel), wheel.parent)
    assert record is not None
    assert set(record.evidence) == set(audit_record.STATEMENTS)
    assert record.named("bill-of-materials").outcome == "passed"
    assert list(sbom.schema_problems(_bill(wheel))) == []


def test_bill_of_materials_names_the_toolchain(host_cell: Cell, options: Options, wheel: Path) -> None:
    text = _bill(wheel).decode()
    inputs = gather(host_cell, options)
    assert inputs.compiler is not None
    for name, version in inputs.cuda.components.items():
        assert f'"name": "{name}"' in text
        assert f'"version": "{version}"' in text
    assert f'"version": "{inputs.compiler.version}"' in text
    assert inputs.series.sha256 in text
    with zipfile.ZipFile(wheel) as archive:
        (runtime,) = [name for name in archive.namelist() if "cudart" in name]
    assert f'"value": "{runtime}"' in text
    # The bill must not contain paths of this machine.
    assert not any(str(place) in text for place in (ROOT, Path.home(), inputs.cuda.path, inputs.compiler.path))


def test_builds_in_different_environments_are_identical(
    host_cell: Cell, options: Options, wheel: Path, tmp_path: Path
) -> None:
    one, other = reproduce.build_twice(host_cell, options, tmp_path)
    assert _bill(one) == _bill(other) == _bill(wheel)
    assert file_sha256(one) == file_sha256(other) == file_sha256(wheel)


def test_wheel_is_identical_to_its_rebuild(wheel: Path) -> None:
    result = _verify(wheel, "--rebuild")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "rebuild: wheel, bill of materials and provenance are identical to the byte" in result.stdout


@pytest.mark.parametrize("part", ["wheel", "record", "sbom", "provenance"])
def test_verify_names_the_file_with_a_changed_byte(wheel: Path, part: str) -> None:
    digest = file_sha256(wheel)
    folder = wheel.parent
    paths = {"wheel": wheel, "record": folder / "records" / f"{digest}.audit.json"}
    paths |= {kind: audit_record.statement_path(digest, kind, folder) for kind in audit_record.STATEMENTS}
    before = paths[part].read_bytes()
    place = len(before) // 2
    paths[part].write_bytes(before[:place] + bytes([before[place] ^ 1]) + before[place + 1 :])
    try:
        result = _verify(wheel)
    finally:
        paths[part].write_bytes(before)
    assert result.returncode == 21, result.stdout + result.stderr
    assert f"error: {wheel.name} does not verify: {part}\n" in result.stderr
