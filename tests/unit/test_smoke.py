"""The runner of the GPU gate: records, dying processes, the contact sheet, installation checks and the bundle."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import textwrap
import zlib
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from scripts.audit import smoke
from scripts.errors import UsageError
from scripts.gpu_gate import checks_install, machine, record, run, sheet, worker
from scripts.gpu_gate.bench import Bench, Check, Outcome, State
from scripts.gpu_gate.record import GpuRecord, Result
from scripts.index import evidence
from scripts.model import ROOT
from scripts.support.files import file_sha256


def _result(state: State, *, needs_gpu: bool = True, optional: bool = False) -> Result:
    return Result("a check", state, "", needs_gpu=needs_gpu, optional=optional)


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ([_result("passed")], ("passed", 0)),
        ([_result("passed"), _result("known")], ("passed", 0)),
        ([_result("passed"), _result("untested", optional=True)], ("passed", 0)),
        ([_result("passed"), _result("failed")], ("failed", 1)),
        ([_result("untested"), _result("failed", needs_gpu=False)], ("failed", 1)),
        ([_result("passed"), _result("untested")], ("untested", 3)),
        ([_result("passed", needs_gpu=False)], ("untested", 3)),
        ([_result("known")], ("untested", 3)),
        ([], ("untested", 3)),
    ],
)
def test_overall_state_and_exit_code(results: list[Result], expected: tuple[str, int]) -> None:
    gpu_record = record.make("a.whl", "0" * 64, {}, {}, results)
    assert (gpu_record.outcome, record.exit_code(gpu_record)) == expected


def test_check_names_are_unique_and_contain_only_lowercase_letters_digits_and_hyphens() -> None:
    names = [check.name for check in worker.CHECKS]
    assert len(set(names)) == len(names)
    assert not [name for name in names if set(name) - set("abcdefghijklmnopqrstuvwxyz0123456789-") or "--" in name]
    assert [check.name for check in worker.CHECKS if check.optional] == ["seeds-triangle-gl"]
    assert {"files", "build-info", "precompiled", "symbols"} <= {
        check.name for check in worker.CHECKS if not check.needs_gpu
    }


# The modules that a worker imports: a fake torch with a GPU, and a fake nvdiffrast.
_TORCH = """
from types import SimpleNamespace as Names
__version__, version = "2.14.1", Names(cuda="13.0")
properties = Names(name="a GPU", total_memory=2**34)
cuda = Names(init=lambda: None, get_device_properties=lambda _: properties, get_device_capability=lambda _: (9, 0))
"""
_INFO = {"release": "0.3.3.1", "architectures": {"sass": ["9.0"], "ptx": []}}
_PROGRAM = """
import os, pathlib, sys, time
sys.path.insert(0, {root!r})
import numpy as np
from scripts.gpu_gate import worker
from scripts.gpu_gate.bench import Check, Outcome

def good(bench):
    return Outcome("passed", bench.release, {{"pid": os.getpid()}}, {{"image": np.zeros((4, 6, 3), np.uint8)}})

def bad(bench):
    return Outcome("failed", "wrong pixels")

def raises(bench):
    raise ValueError("first line\\nlast line")

def dies(bench):
    print("about to die", flush=True)
    os.kill(os.getpid(), 9)

def hangs(bench):
    time.sleep(60)

worker.CHECK_TIMEOUT_SECONDS = 1.0
worker.CHECKS = [Check(name, globals()[name.partition("-")[0]], needs_gpu="cpu" not in name) for name in {names!r}]
{extra}
worker.main(pathlib.Path(sys.argv[-1]))
"""


class FakeInstallation:
    """A fake installation, and a program that runs checks in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.site = folder / "site"
        self.write("torch/__init__.py", _TORCH)
        self.write("nvdiffrast/__init__.py", "")
        self.write("nvdiffrast/torch/__init__.py", "")
        self.write("nvdiffrast/build_info.json", json.dumps(_INFO))

    def write(self, name: str, content: str) -> None:
        path = self.site / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)

    def run(self, names: Sequence[str], extra: str = "", install_state: State = "passed") -> GpuRecord:
        program = self.folder / "program.py"
        program.write_text(textwrap.dedent(_PROGRAM).format(root=str(ROOT), names=list(names), extra=extra))
        result = Result("install", install_state, "", needs_gpu=False)
        installation = run.Installation("a.whl", "1" * 64, Path(sys.executable), self.site, result)
        checks = [Check(name, lambda _: Outcome("passed"), needs_gpu="cpu" not in name) for name in names]
        return run.run(installation, checks, [str(program)], self.folder / "work", self.folder / "output")


@pytest.fixture
def installation(tmp_path: Path) -> FakeInstallation:
    return FakeInstallation(tmp_path)


def _states(gpu_record: GpuRecord) -> dict[str, State]:
    return {check.name: check.state for check in gpu_record.checks}


def test_passes_if_all_checks_pass(installation: FakeInstallation) -> None:
    gpu_record = installation.run(["good", "good-2", "good-cpu"])
    assert gpu_record.outcome == "passed"
    assert gpu_record.device == "a GPU, 16.0 GiB, compute capability 9.0"
    assert list(_states(gpu_record)) == ["install", "import", "good", "good-2", "good-cpu"]
    assert gpu_record.versions["torch"] == "2.14.1"
    assert len({check.figures["pid"] for check in gpu_record.checks if check.figures}) == 1
    written = record.path(gpu_record.sha256, installation.folder / "output").read_text()
    assert evidence._GPU.validate_json(written) == gpu_record
    image = record.sheet_path(gpu_record.sha256, installation.folder / "output")
    assert record.sha256_of(image) == gpu_record.sheet
    assert gpu_record.contradiction() == ""


def test_runs_the_remaining_checks_in_a_new_process_after_a_failed_gpu_check(installation: FakeInstallation) -> None:
    gpu_record = installation.run(["good", "bad", "good-2", "bad-cpu", "good-3", "raises", "good-4"])
    assert gpu_record.outcome == "failed"
    assert [state for name, state in _states(gpu_record).items() if name.startswith("good")] == ["passed"] * 4
    details = {check.name: check.detail for check in gpu_record.checks}
    assert (details["bad"], details["raises"]) == ("wrong pixels", "last line")
    processes = [check.figures["pid"] for check in gpu_record.checks if check.figures]
    assert [processes[0] != processes[1], processes[1] == processes[2], processes[2] != processes[3]] == [True] * 3


@pytest.mark.skipif(os.name == "nt", reason="needs signals")
def test_check_that_kills_its_process_fails(installation: FakeInstallation) -> None:
    gpu_record = installation.run(["good", "dies", "good-2", "dies-cpu", "good-3"])
    assert _states(gpu_record) == {
        **{"install": "passed", "import": "passed", "good": "passed", "dies": "failed"},
        **{"good-2": "passed", "dies-cpu": "failed", "good-3": "passed"},
    }
    assert "the process died: SIGKILL: about to die" in gpu_record.checks[3].detail


def test_check_that_hangs_fails(installation: FakeInstallation) -> None:
    gpu_record = installation.run(["hangs", "good"])
    assert (_states(gpu_record)["hangs"], _states(gpu_record)["good"]) == ("failed", "passed")
    assert "the process died: exit status 1: Timeout (0:00:01)! | Thread" in gpu_record.checks[2].detail
    assert "in hangs" in gpu_record.checks[2].detail


def test_fails_if_the_worker_process_does_not_start(installation: FakeInstallation) -> None:
    gpu_record = installation.run(["good", "good-2"], extra="raise SystemExit('broken')")
    assert (gpu_record.outcome, gpu_record.device) == ("failed", "")
    assert _states(gpu_record) == {"install": "passed", "import": "failed", "good": "untested", "good-2": "untested"}
    assert "broken" in gpu_record.checks[1].detail


def test_fails_if_the_worker_process_reports_nothing(installation: FakeInstallation) -> None:
    gpu_record = installation.run(["good"], extra="sys.exit(0)")
    assert (gpu_record.outcome, _states(gpu_record)["good"]) == ("failed", "untested")


def test_runs_no_check_if_the_wheel_is_not_installed(installation: FakeInstallation) -> None:
    gpu_record = installation.run(["good"], install_state="failed")
    assert _states(gpu_record) == {"install": "failed", "good": "untested"}
    assert gpu_record.outcome == "failed"


def test_runs_no_check_if_nvdiffrast_cannot_be_imported(installation: FakeInstallation) -> None:
    installation.write("nvdiffrast/torch/__init__.py", "raise ImportError('[library-missing] libc10.so')")
    gpu_record = installation.run(["good", "good-cpu"])
    assert _states(gpu_record) == {"install": "passed", "import": "failed", "good": "untested", "good-cpu": "untested"}
    assert "[library-missing] libc10.so" in gpu_record.checks[1].detail


@pytest.mark.parametrize(
    ("torch", "reason"),
    [
        (_TORCH.replace('cuda="13.0"', "cuda=None"), "no GPU: torch 2.14.1 is built without CUDA"),
        (_TORCH.replace("init=lambda: None", "init=lambda: 1 / 0"), "no GPU: division by zero"),
        (_TORCH.replace("(9, 0)", "(8, 9)"), "no kernels for compute capability 8.9"),
    ],
)
def test_gpu_checks_are_untested_without_a_usable_gpu(installation: FakeInstallation, torch: str, reason: str) -> None:
    installation.write("torch/__init__.py", torch)
    gpu_record = installation.run(["good", "good-cpu"])
    assert _states(gpu_record) == {"install": "passed", "import": "passed", "good": "untested", "good-cpu": "passed"}
    assert reason in gpu_record.checks[2].detail
    assert record.exit_code(gpu_record) == 3


def test_incomplete_result_line_is_ignored(tmp_path: Path) -> None:
    progress, file = run.Progress(), tmp_path / "results.jsonl"
    file.write_text('{"start": "one"}\n{"result": {"name": "on')
    progress.read(file)
    assert (progress.started, progress.results) == ("one", [])


def test_untested_checks_with_the_same_reason_share_a_line() -> None:
    results = [Result(name, "untested", "no GPU") for name in ("one", "two")]
    gpu_record = record.make("a.whl", "0" * 64, {}, {}, [Result("three", "passed", "detail"), *results])
    assert record.summary_lines(gpu_record) == [
        ("passed", "three: detail"),
        ("untested", "one, two: no GPU"),
        ("untested", "untested: a.whl on no GPU: 1 passed, 2 untested"),
    ]


@pytest.mark.parametrize(
    ("capability", "sass", "ptx", "expected"),
    [
        ("9.0", ["8.0", "9.0"], [], True),
        ("8.9", ["8.6"], [], True),
        ("8.6", ["8.9"], [], False),
        ("9.0", ["8.0"], [], False),
        ("12.1", ["9.0"], ["9.0"], True),
        ("7.5", ["9.0"], ["9.0"], False),
        ("10.0", ["9.0"], ["12.0"], False),
    ],
)
def test_supports_compute_capability(capability: str, sass: list[str], ptx: list[str], expected: bool) -> None:
    assert machine.supports(capability, sass, ptx) is expected


def test_worker_environment_has_no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver, toolkit = tmp_path / "driver", tmp_path / "toolkit"
    for folder, name in ((driver, "libcuda.so.1"), (toolkit, "libcudart.so.13")):
        folder.mkdir()
        (folder / name).touch()
    monkeypatch.setenv("LD_LIBRARY_PATH", os.pathsep.join([str(toolkit), str(driver), ""]))
    for name in ("CUDA_HOME", "CC", "NVDIFFRAST_FORCE_JIT", "TORCH_CUDA_ARCH_LIST", "PYTHONPATH"):
        monkeypatch.setenv(name, "anything")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    variables = machine.worker_environment(tmp_path / "scratch")
    assert variables["LD_LIBRARY_PATH"] == str(driver)
    assert not list(Path(variables["PATH"]).iterdir())
    assert not {"CUDA_HOME", "CC", "NVDIFFRAST_FORCE_JIT", "TORCH_CUDA_ARCH_LIST", "PYTHONPATH"} & set(variables)
    assert variables["CUDA_VISIBLE_DEVICES"] == "0"


def _decode(png: bytes) -> tuple[int, int, bytes]:
    """Return width, height and rows of a PNG that sheet.png() wrote."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    offset, chunks = 8, {}
    while offset < len(png):
        length, kind = struct.unpack(">I4s", png[offset : offset + 8])
        content = png[offset + 8 : offset + 8 + length]
        assert zlib.crc32(kind + content) == struct.unpack(">I", png[offset + 8 + length : offset + 12 + length])[0]
        chunks[kind] = content
        offset += 12 + length
    width, height = struct.unpack(">II", chunks[b"IHDR"][:8])
    return width, height, zlib.decompress(chunks[b"IDAT"])


def test_png_contains_the_pixels() -> None:
    image = np.random.default_rng(1).integers(0, 256, (3, 5, 3), dtype=np.uint8)
    width, height, rows = _decode(sheet.png(image))
    assert (width, height) == (5, 3)
    assert rows == b"".join(b"\0" + row.tobytes() for row in image)


@pytest.mark.parametrize("image", [np.zeros((3, 5), np.uint8), np.zeros((3, 5, 3)), np.zeros((3, 5, 4), np.uint8)])
def test_png_rejects_an_image_of_another_shape_or_type(image: Any) -> None:
    with pytest.raises(ValueError, match="an image must be"):
        sheet.png(image)


def test_contact_sheet_contains_every_image() -> None:
    red = np.zeros((64, 96, 3), np.uint8)
    red[..., 0] = 255
    images = {f"check-{size}": red[:size, : 2 * size] for size in (1, 7, 40, 64)} | {"wide": red.repeat(40, axis=1)}
    width, height, rows = _decode(sheet.contact_sheet(images))
    pixels = np.frombuffer(rows, np.uint8).reshape(height, 1 + 3 * width)[:, 1:].reshape(height, width, 3)
    drawn = [sheet._resized(image) for image in images.values()]
    assert int((pixels == (255, 0, 0)).all(axis=-1).sum()) == sum(image.shape[0] * image.shape[1] for image in drawn)
    assert (pixels == sheet._INK).all(axis=-1).any()
    assert sheet.contact_sheet({}) == b""


def test_every_letter_has_its_own_glyph() -> None:
    # Except for 0 and O, and for 5 and S.
    assert len(set(sheet._GLYPHS.values())) == len(sheet._LETTERS) - 2
    assert all(len(rows) == 5 for rows in sheet._GLYPHS.values())


def test_bundle_is_the_same_for_the_same_wheel(tmp_path: Path) -> None:
    wheel = tmp_path / "a.whl"
    wheel.write_bytes(b"a wheel")
    for name in ("one.pyz", "two.pyz"):
        smoke.bundle(wheel, tmp_path / name)
    assert file_sha256(tmp_path / "one.pyz") == file_sha256(tmp_path / "two.pyz")


def test_bundle_reports_missing_packages(tmp_path: Path) -> None:
    wheel = tmp_path / "a.whl"
    wheel.write_bytes(b"a wheel")
    smoke.bundle(wheel, tmp_path / "gate.pyz")
    command = [sys.executable, "-S", str(tmp_path / "gate.pyz")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert "has no torch and no numpy" in done.stderr
    assert "Traceback" not in done.stderr


def test_find_wheels_rejects_wheels_for_other_machines(tmp_path: Path) -> None:
    for name in (
        "nvdiffrast-0.3.4+cu130.torch2.11-cp399-cp399-manylinux_2_28_x86_64.whl",
        "nvdiffrast-0.3.4+cu130.torch2.11-cp311-cp311-manylinux_2_28_s390x.whl",
    ):
        (tmp_path / name).touch()
    with pytest.raises(UsageError, match="is for this machine"):
        smoke.find_wheels(tmp_path)


def test_finds_the_plugin_functions_that_ops_py_uses() -> None:
    source = "a = _get_plugin().one(1)\nb = _get_plugin(gl=True).two\nc = _nvdiffrast_c.three(x)\nd = other().four"
    assert checks_install.plugin_functions(source) == {"one", "two", "three"}


def _bench(folder: Path, **changes: Any) -> Bench:
    """Return a bench with a fake package of release 0.4.0."""
    package = folder / "nvdiffrast"
    (package / "torch").mkdir(parents=True)
    (package / "torch" / "ops.py").write_text("_nvdiffrast_c.draw()")
    info = {"release": "0.4.0", "python": f"cp3{sys.version_info.minor}", "torch": "2.14.1", "cuda": "13.0"}
    system = "win_amd64" if os.name == "nt" else f"linux_{os.uname().machine}"
    (package / "build_info.json").write_text(json.dumps({**info, "cell": f"x-{system}", **changes}))
    dr = SimpleNamespace(__file__=str(package / "torch" / "__init__.py"), **dict.fromkeys(checks_install._NAMES, None))
    return Bench(
        dr, SimpleNamespace(__version__="2.14.0+cu130", version=SimpleNamespace(cuda="13.0")), "cpu", list, "0.4.0"
    )


@pytest.fixture
def distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    fake = SimpleNamespace(version="0.4.0+cu130.torch2.14", files=[], locate_file=lambda name: tmp_path / str(name))
    monkeypatch.setattr(checks_install, "_distribution", lambda: fake)
    return fake


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({}, ""),
        ({"torch": "2.13.0"}, "torch is 2.13 in build_info.json, but 2.14 here"),
        ({"cuda": "12.8"}, "cuda is 12.8 in build_info.json, but 13.0 here"),
        ({"python": "cp39"}, "python is cp39 in build_info.json, but cp3"),
        ({"release": "0.3.5"}, "release is 0.3.5 in build_info.json, but 0.4.0 here"),
        ({"cell": "x-linux_s390x"}, "built for the cell x-linux_s390x, but this platform is"),
    ],
)
def test_build_info_check(tmp_path: Path, distribution: SimpleNamespace, changes: dict[str, str], problem: str) -> None:
    found = checks_install.build_info(_bench(tmp_path, **changes))
    assert found.state == ("failed" if problem else "passed")
    assert problem in found.detail


@pytest.mark.parametrize("fault", ["", "changed", "missing", "elsewhere", "nothing"])
def test_files_check(tmp_path: Path, distribution: SimpleNamespace, fault: str) -> None:
    bench = _bench(tmp_path)
    name = "nvdiffrast/torch/ops.py"
    digest = checks_install._digest(tmp_path / name, "sha256")
    entry = type("Entry", (str,), {"hash": SimpleNamespace(mode="sha256", value=digest)})(name)
    distribution.files = [] if fault == "nothing" else [entry]
    if fault == "changed":
        (tmp_path / name).write_text("other")
    elif fault == "missing":
        (tmp_path / name).unlink()
    elif fault == "elsewhere":
        bench.dr.__file__ = "/elsewhere/nvdiffrast/torch/__init__.py"
    problems = {"": "1 files match", "changed": "does not match its hash in RECORD", "missing": "is missing"}
    problems |= {"elsewhere": "imported from /elsewhere", "nothing": "lists no file"}
    found = checks_install.files(bench)
    assert found.state == ("failed" if fault else "passed")
    assert problems[fault] in found.detail


@pytest.mark.parametrize("fault", ["", "compiler", "outside", "compiled", "symbol", "name"])
def test_precompiled_and_symbols_checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    bench, empty = _bench(tmp_path), tmp_path / "bin"
    empty.mkdir()
    plugin = SimpleNamespace(__file__=str(tmp_path / "_nvdiffrast_c.so"), draw=None)
    monkeypatch.setenv("PATH", str(empty))
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "extensions"))
    if fault == "compiler":
        (empty / "nvcc").write_text("")
        (empty / "nvcc").chmod(0o755)
    elif fault == "outside":
        plugin.__file__ = "/elsewhere/_nvdiffrast_c.so"
    elif fault == "compiled":
        (tmp_path / "extensions" / "py").mkdir(parents=True)
        (tmp_path / "extensions" / "py" / "plugin.so").touch()
    elif fault == "symbol":
        del plugin.draw
    elif fault == "name":
        del bench.dr.texture
    monkeypatch.setitem(sys.modules, "_nvdiffrast_c", plugin)
    found = [check(bench).state for check in (checks_install.precompiled, checks_install.symbols)]
    expected = {"": ["passed", "passed"], "symbol": ["passed", "failed"], "name": ["passed", "failed"]}
    assert found == expected.get(fault, ["failed", "passed"])


def test_gpu_check_does_not_run_without_a_gpu() -> None:
    check = Check("one", lambda _: pytest.fail("it ran"))
    bench = Bench(None, None, "cpu", list)
    result, _ = worker.run_check(check, worker.Setup(bench, gpu_missing="no GPU"))
    assert (result.state, result.detail) == ("untested", "no GPU")
