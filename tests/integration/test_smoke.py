"""The gate on real wheels and the real torch: "untested" without a GPU, "failed" if the wheel has a fault."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.audit import smoke
from scripts.build import build
from scripts.build.inputs import Options
from scripts.errors import PublishError
from scripts.gpu_gate import record as gpu
from scripts.gpu_gate.record import GpuRecord
from scripts.index import evidence
from scripts.model import ROOT, Cell
from scripts.publish import promotion, staging
from scripts.support import environments, interpreters
from scripts.support.files import file_sha256
from scripts.wheel import audit_record
from tests.publishing import BY, proved
from tests.unit.wheel_factory import Parts

pytestmark = pytest.mark.integration

Fault = Callable[[Parts], None]


@pytest.fixture(scope="module")
def wheel(host_cell: Cell, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build and audit this host's cell for one architecture."""
    output = tmp_path_factory.mktemp("dist")
    result = build.build(host_cell, Options("host", ("9.0",), None, None, output, None, None))
    assert result.wheel is not None, result.detail
    return result.wheel


@pytest.fixture(scope="module")
def command_result(wheel: Path) -> tuple[int, str]:
    """Run the command as nox does, and return its exit status and output."""
    command = [sys.executable, "-m", "scripts.audit.smoke", str(wheel)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=900)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def python(host_cell: Cell, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create an environment with the torch that the wheel was built for, and return its Python."""
    found = interpreters.find(host_cell.python)
    assert found is not None
    cache = tmp_path_factory.mktemp("cache")
    environment = environments.create(found, [environments.torch_lock(host_cell)], name="smoke", cache=cache)
    return environments.interpreter(environment)


def _record(wheel: Path, folder: Path) -> GpuRecord:
    return evidence._GPU.validate_json(gpu.path(file_sha256(wheel), folder).read_bytes())


def _has_gpu() -> bool:
    return Path("/dev/nvidiactl").exists()


def _promotion(wheel: Path, folder: Path, store: Path) -> promotion.Promoted:
    staging.stage(store, [wheel], folder, by=BY, allow_partial=True)
    proved(store)
    return promotion.promote(store, by=BY)


@pytest.mark.skipif(_has_gpu(), reason="needs a machine without a GPU")
def test_wheel_is_untested_without_a_gpu_and_promotion_rejects_it(
    wheel: Path, command_result: tuple[int, str], tmp_path: Path
) -> None:
    status, output = command_result
    assert status == 3, output
    assert "Traceback" not in output
    record = _record(wheel, wheel.parent)
    assert (record.outcome, record.device, record.sheet) == ("untested", "", "")
    assert {check.state for check in record.checks if not check.needs_gpu} == {"passed"}, output
    assert {check.state for check in record.checks if check.needs_gpu} == {"untested"}
    with pytest.raises(PublishError, match="no GPU has run nvdiffrast-"):
        _promotion(wheel, wheel.parent, tmp_path / "store")


def _other_release(parts: Parts) -> None:
    parts.edit_info(release="0.3.9")


def _no_plugin(parts: Parts) -> None:
    [name] = [name for name in parts.members if "/nvdiffrast_plugin." in name]
    del parts.members[name]


def _truncated_plugin(parts: Parts) -> None:
    [name] = [name for name in parts.members if "/nvdiffrast_plugin." in name]
    parts.members[name] = parts.members[name][:4096]


def _no_runtime(parts: Parts) -> None:
    for name in [name for name in parts.members if name.startswith("nvdiffrast.libs/")]:
        del parts.members[name]


def _uses_missing_function(parts: Parts) -> None:
    parts.members["nvdiffrast/torch/ops.py"] += b"\ndef missing():\n    return _get_plugin().not_in_the_plugin()\n"


def _does_not_import(parts: Parts) -> None:
    parts.members["nvdiffrast/torch/__init__.py"] = b"raise RuntimeError('not today')\n"


FAULTS: dict[str, tuple[Fault, str, str]] = {
    "another release": (_other_release, "build-info", "release is 0.3.9 in build_info.json, but"),
    "no plugin": (_no_plugin, "precompiled", ""),
    "no runtime": (_no_runtime, "precompiled", "libcudart"),
    # Loading it kills the process.
    "truncated plugin": (_truncated_plugin, "precompiled", ""),
    "uses a missing function": (_uses_missing_function, "symbols", "no plugin has not_in_the_plugin"),
    "does not import": (_does_not_import, "import", "not today"),
}


def _faulty(wheel: Path, cell: Cell, fault: Fault, folder: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        members = {name: archive.read(name) for name in archive.namelist() if not name.endswith(("/", "/RECORD"))}
    parts = Parts(cell, members, wheel.name)
    fault(parts)
    folder.mkdir()
    return parts.write(folder)


@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_wheel_fails_and_promotion_rejects_it(
    wheel: Path, host_cell: Cell, python: Path, tmp_path: Path, fault: str
) -> None:
    """Use the bundle, which takes seconds. The command itself takes longer and is tested below with one fault."""
    apply_fault, check, detail = FAULTS[fault]
    faulty = _faulty(wheel, host_cell, apply_fault, tmp_path / "dist")
    smoke.bundle(faulty, tmp_path / "gate.pyz")
    completed = _run(python, tmp_path, "--output", str(faulty.parent))
    record = _record(faulty, faulty.parent)
    failed = {result.name: result.detail for result in record.checks if result.state == "failed"}
    assert (completed.returncode, record.outcome) == (1, "failed"), completed.stdout + completed.stderr
    assert check in failed, failed
    assert detail in failed[check], failed
    audited = audit_record.find(file_sha256(wheel), wheel.parent)
    assert audited is not None
    audit_record.save(audit_record.make(faulty, host_cell.id, audited.checks, {}, partial=False), faulty.parent)
    with pytest.raises(PublishError, match=f"failed on .*{check}|cannot be staged: build_info.json"):
        _promotion(faulty, faulty.parent, tmp_path / "store")


def _run(python: Path, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [str(python), str(folder / "gate.pyz"), *options]
    variables = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False, timeout=900)


def test_command_fails_with_a_faulty_wheel(wheel: Path, host_cell: Cell, tmp_path: Path) -> None:
    faulty = _faulty(wheel, host_cell, _uses_missing_function, tmp_path / "dist")
    assert smoke.main([str(faulty), "--records", str(tmp_path)]) == 1
    assert _record(faulty, tmp_path).outcome == "failed"


@pytest.mark.skipif(_has_gpu(), reason="needs a machine without a GPU")
def test_bundle_runs_without_this_repository(wheel: Path, python: Path, tmp_path: Path) -> None:
    assert smoke.main([str(wheel), "--bundle", str(tmp_path / "gate.pyz")]) == 0
    completed = _run(python, tmp_path)
    assert completed.returncode == 3, completed.stdout + completed.stderr
    assert {check.state for check in _record(wheel, tmp_path).checks if not check.needs_gpu} == {"passed"}
    assert not list(tmp_path.glob("nvdiffrast*"))


def test_bundle_rejects_another_python(wheel: Path, host_cell: Cell, python: Path, tmp_path: Path) -> None:
    def for_another_python(parts: Parts) -> None:
        parts.edit_info(python="cp39")

    smoke.bundle(_faulty(wheel, host_cell, for_another_python, tmp_path / "dist"), tmp_path / "gate.pyz")
    completed = _run(python, tmp_path)
    assert completed.returncode == 2
    assert "python is cp3" in completed.stderr
    assert not (tmp_path / "records").exists()
