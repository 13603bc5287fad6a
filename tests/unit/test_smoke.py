"""The GPU gate's runner: its verdicts and records, processes that die, the contact sheet, the one file."""

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
from scripts.gpu_gate.checks import CHECKS
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
def test_verdict(results: list[Result], expected: tuple[str, int]) -> None:
    made = record.make("a.whl", "0" * 64, {}, {}, results)
    assert (made.outcome, record.exit_code(made)) == expected


def test_names_of_checks_are_unique_and_plain() -> None:
    names = [check.name for check in CHECKS]
    assert len(set(names)) == len(names)
    assert not [name for name in names if set(name) - set("abcdefghijklmnopqrstuvwxyz0123456789-") or "--" in name]
    assert [check.name for check in CHECKS if check.optional] == ["seeds-triangle-gl"]
    assert {"files", "build-info", "precompiled", "symbols"} <= {check.name for check in CHECKS if not check.needs_gpu}


# What a worker finds: a torch with a GPU, nvdiffrast, and the checks of CHECKS.
_TORCH = """
from types import SimpleNamespace as Names
__version__, version = "2.14.1", Names(cuda="13.0")
found = Names(name="a GPU", total_memory=2**34)
cuda = Names(init=lambda: None, get_device_properties=lambda _: found, get_device_capability=lambda _: (9, 0))
"""
_INFO = {"release": "0.3.3.1", "architectures": {"sass": ["9.0"], "ptx": []}}
_PROGRAM = """
import os, pathlib, sys, time
sys.path.insert(0, {root!r})
import numpy as np
from scripts.gpu_gate import worker
from scripts.gpu_gate.bench import Check, Outcome

def good(bench):
    return Outcome("passed", bench.release, {{"pid": os.getpid()}}, {{"seen": np.zeros((4, 6, 3), np.uint8)}})

def bad(bench):
    return Outcome("failed", "wrong pixels")

def raises(bench):
    raise ValueError("first line\\nlast line")

def dies(bench):
    print("about to die", flush=True)
    os.kill(os.getpid(), 9)

def hangs(bench):
    time.sleep(60)

worker.PATIENCE = 1.0
worker.CHECKS = [Check(name, globals()[name.partition("-")[0]], needs_gpu="cpu" not in name) for name in {names!r}]
{also}
worker.main(pathlib.Path(sys.argv[-1]))
"""


class Scene:
    """A pretended installation, and a program that makes checks in it."""

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

    def run(self, names: Sequence[str], also: str = "", how: State = "passed") -> GpuRecord:
        program = self.folder / "program.py"
        program.write_text(textwrap.dedent(_PROGRAM).format(root=str(ROOT), names=list(names), also=also))
        installed = run.Installed(
            "a.whl", "1" * 64, Path(sys.executable), self.site, Result("install", how, "", needs_gpu=False)
        )
        checks = [Check(name, lambda _: Outcome("passed"), needs_gpu="cpu" not in name) for name in names]
        return run.run(installed, checks, [str(program)], self.folder / "work", self.folder / "output")


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def _states(made: GpuRecord) -> dict[str, State]:
    return {one.name: one.state for one in made.checks}


def test_all_passed(scene: Scene) -> None:
    made = scene.run(["good", "good-2", "good-cpu"])
    assert made.outcome == "passed"
    assert made.device == "a GPU, 16.0 GiB, compute capability 9.0"
    assert list(_states(made)) == ["install", "import", "good", "good-2", "good-cpu"]
    assert made.versions["torch"] == "2.14.1"
    assert len({one.figures["pid"] for one in made.checks if one.figures}) == 1
    written = record.path(made.sha256, scene.folder / "output").read_text()
    assert evidence._GPU.validate_json(written) == made
    picture = record.sheet_path(made.sha256, scene.folder / "output")
    assert record.sha256_of(picture) == made.sheet
    assert made.contradiction() == ""


def test_a_failed_check_on_the_device_leaves_the_rest_to_a_fresh_process(scene: Scene) -> None:
    made = scene.run(["good", "bad", "good-2", "bad-cpu", "good-3", "raises", "good-4"])
    assert made.outcome == "failed"
    assert [state for name, state in _states(made).items() if name.startswith("good")] == ["passed"] * 4
    details = {one.name: one.detail for one in made.checks}
    assert (details["bad"], details["raises"]) == ("wrong pixels", "last line")
    processes = [one.figures["pid"] for one in made.checks if one.figures]
    assert [processes[0] != processes[1], processes[1] == processes[2], processes[2] != processes[3]] == [True] * 3


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_check_that_kills_its_process_has_failed(scene: Scene) -> None:
    made = scene.run(["good", "dies", "good-2", "dies-cpu", "good-3"])
    assert _states(made) == {
        **{"install": "passed", "import": "passed", "good": "passed", "dies": "failed"},
        **{"good-2": "passed", "dies-cpu": "failed", "good-3": "passed"},
    }
    assert "the process died: SIGKILL: about to die" in made.checks[3].detail


def test_a_check_that_hangs_has_failed(scene: Scene) -> None:
    made = scene.run(["hangs", "good"])
    assert (_states(made)["hangs"], _states(made)["good"]) == ("failed", "passed")
    assert "the process died: exit status 1: Timeout (0:00:01)! | Thread" in made.checks[2].detail
    assert "in hangs" in made.checks[2].detail


def test_a_process_that_does_not_start(scene: Scene) -> None:
    made = scene.run(["good", "good-2"], also="raise SystemExit('out of order')")
    assert (made.outcome, made.device) == ("failed", "")
    assert _states(made) == {"install": "passed", "import": "failed", "good": "untested", "good-2": "untested"}
    assert "out of order" in made.checks[1].detail


def test_a_process_that_ends_without_a_word(scene: Scene) -> None:
    made = scene.run(["good"], also="sys.exit(0)")
    assert (made.outcome, _states(made)["good"]) == ("failed", "untested")


def test_what_was_not_installed_is_not_run(scene: Scene) -> None:
    made = scene.run(["good"], how="failed")
    assert _states(made) == {"install": "failed", "good": "untested"}
    assert made.outcome == "failed"


def test_what_does_not_import_is_not_run(scene: Scene) -> None:
    scene.write("nvdiffrast/torch/__init__.py", "raise ImportError('[library-missing] libc10.so')")
    made = scene.run(["good", "good-cpu"])
    assert _states(made) == {"install": "passed", "import": "failed", "good": "untested", "good-cpu": "untested"}
    assert "[library-missing] libc10.so" in made.checks[1].detail


@pytest.mark.parametrize(
    ("torch", "why"),
    [
        (_TORCH.replace('cuda="13.0"', "cuda=None"), "no GPU: torch 2.14.1 is built without CUDA"),
        (_TORCH.replace("init=lambda: None", "init=lambda: 1 / 0"), "no GPU: division by zero"),
        (_TORCH.replace("(9, 0)", "(8, 9)"), "no kernels for compute capability 8.9"),
    ],
)
def test_without_a_gpu_it_is_untested(scene: Scene, torch: str, why: str) -> None:
    scene.write("torch/__init__.py", torch)
    made = scene.run(["good", "good-cpu"])
    assert _states(made) == {"install": "passed", "import": "passed", "good": "untested", "good-cpu": "passed"}
    assert why in made.checks[2].detail
    assert record.exit_code(made) == 3


def test_a_torn_line_is_no_result(tmp_path: Path) -> None:
    found, file = run.Found(), tmp_path / "results.jsonl"
    file.write_text('{"start": "one"}\n{"result": {"name": "on')
    found.read(file)
    assert (found.begun, found.results) == ("one", [])


def test_lines_tell_once_what_lacks() -> None:
    results = [Result(name, "untested", "no GPU") for name in ("one", "two")]
    made = record.make("a.whl", "0" * 64, {}, {}, [Result("three", "passed", "well"), *results])
    assert record.lines(made) == [
        ("passed", "three: well"),
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
def test_kernels_serve_a_device(capability: str, sass: list[str], ptx: list[str], expected: bool) -> None:
    assert machine.served(capability, sass, ptx) is expected


def test_surroundings_have_no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver, toolkit = tmp_path / "driver", tmp_path / "toolkit"
    for folder, name in ((driver, "libcuda.so.1"), (toolkit, "libcudart.so.13")):
        folder.mkdir()
        (folder / name).touch()
    monkeypatch.setenv("LD_LIBRARY_PATH", os.pathsep.join([str(toolkit), str(driver), ""]))
    for name in ("CUDA_HOME", "CC", "NVDIFFRAST_FORCE_JIT", "TORCH_CUDA_ARCH_LIST", "PYTHONPATH"):
        monkeypatch.setenv(name, "anything")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    made = machine.surroundings(tmp_path / "scratch")
    assert made["LD_LIBRARY_PATH"] == str(driver)
    assert not list(Path(made["PATH"]).iterdir())
    assert not {"CUDA_HOME", "CC", "NVDIFFRAST_FORCE_JIT", "TORCH_CUDA_ARCH_LIST", "PYTHONPATH"} & set(made)
    assert made["CUDA_VISIBLE_DEVICES"] == "0"


def _decoded(png: bytes) -> tuple[int, int, bytes]:
    """Width, height and rows of a PNG that our own writer made."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    place, chunks = 8, {}
    while place < len(png):
        length, kind = struct.unpack(">I4s", png[place : place + 8])
        content = png[place + 8 : place + 8 + length]
        assert zlib.crc32(kind + content) == struct.unpack(">I", png[place + 8 + length : place + 12 + length])[0]
        chunks[kind] = content
        place += 12 + length
    width, height = struct.unpack(">II", chunks[b"IHDR"][:8])
    return width, height, zlib.decompress(chunks[b"IDAT"])


def test_png_holds_the_pixels() -> None:
    picture = np.random.default_rng(1).integers(0, 256, (3, 5, 3), dtype=np.uint8)
    width, height, rows = _decoded(sheet.png(picture))
    assert (width, height) == (5, 3)
    assert rows == b"".join(b"\0" + row.tobytes() for row in picture)


@pytest.mark.parametrize("picture", [np.zeros((3, 5), np.uint8), np.zeros((3, 5, 3)), np.zeros((3, 5, 4), np.uint8)])
def test_png_of_another_kind_is_refused(picture: Any) -> None:
    with pytest.raises(ValueError, match="a picture is"):
        sheet.png(picture)


def test_contact_sheet_has_every_picture() -> None:
    red = np.zeros((64, 96, 3), np.uint8)
    red[..., 0] = 255
    pictures = {f"check-{size}": red[:size, : 2 * size] for size in (1, 7, 40, 64)} | {"wide": red.repeat(40, axis=1)}
    width, height, rows = _decoded(sheet.contact_sheet(pictures))
    pixels = np.frombuffer(rows, np.uint8).reshape(height, 1 + 3 * width)[:, 1:].reshape(height, width, 3)
    ours = [sheet._fitted(picture) for picture in pictures.values()]
    assert int((pixels == (255, 0, 0)).all(axis=-1).sum()) == sum(one.shape[0] * one.shape[1] for one in ours)
    assert (pixels == sheet._INK).all(axis=-1).any()
    assert sheet.contact_sheet({}) == b""


def test_every_letter_has_a_glyph_of_its_own() -> None:
    # But 0 and O, 5 and S.
    assert len(set(sheet._GLYPHS.values())) == len(sheet._LETTERS) - 2
    assert all(len(rows) == 5 for rows in sheet._GLYPHS.values())


def test_bundle_is_the_same_for_the_same_wheel(tmp_path: Path) -> None:
    wheel = tmp_path / "a.whl"
    wheel.write_bytes(b"a wheel")
    for name in ("one.pyz", "two.pyz"):
        smoke.bundle(wheel, tmp_path / name)
    assert file_sha256(tmp_path / "one.pyz") == file_sha256(tmp_path / "two.pyz")


def test_bundle_says_what_it_lacks(tmp_path: Path) -> None:
    wheel = tmp_path / "a.whl"
    wheel.write_bytes(b"a wheel")
    smoke.bundle(wheel, tmp_path / "gate.pyz")
    command = [sys.executable, "-S", str(tmp_path / "gate.pyz")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert "has no torch and no numpy" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_wheel_for_this_machine(tmp_path: Path) -> None:
    for name in (
        "nvdiffrast-0.3.4+cu130.torch2.11-cp399-cp399-manylinux_2_28_x86_64.whl",
        "nvdiffrast-0.3.4+cu130.torch2.11-cp311-cp311-manylinux_2_28_s390x.whl",
    ):
        (tmp_path / name).touch()
    with pytest.raises(UsageError, match="is for this machine"):
        smoke.here(tmp_path)


def test_asked_of_plugins() -> None:
    source = "a = _get_plugin().one(1)\nb = _get_plugin(gl=True).two\nc = _nvdiffrast_c.three(x)\nd = other().four"
    assert checks_install.asked_of_plugins(source) == {"one", "two", "three"}


def _bench(folder: Path, **changes: Any) -> Bench:
    """A bench over a pretended package of release 0.4.0."""
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
    made = SimpleNamespace(version="0.4.0+cu130.torch2.14", files=[], locate_file=lambda name: tmp_path / str(name))
    monkeypatch.setattr(checks_install, "_distribution", lambda: made)
    return made


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({}, ""),
        ({"torch": "2.13.0"}, "torch is 2.13, here is 2.14"),
        ({"cuda": "12.8"}, "cuda is 12.8, here is 13.0"),
        ({"python": "cp39"}, "python is cp39, here is cp3"),
        ({"release": "0.3.5"}, "release is 0.3.5, here is 0.4.0"),
        ({"cell": "x-linux_s390x"}, "built for the cell x-linux_s390x, here is"),
    ],
)
def test_build_info(tmp_path: Path, distribution: SimpleNamespace, changes: dict[str, str], complaint: str) -> None:
    found = checks_install.build_info(_bench(tmp_path, **changes))
    assert found.state == ("failed" if complaint else "passed")
    assert complaint in found.detail


@pytest.mark.parametrize("fault", ["", "changed", "gone", "elsewhere", "nothing"])
def test_files(tmp_path: Path, distribution: SimpleNamespace, fault: str) -> None:
    bench = _bench(tmp_path)
    name = "nvdiffrast/torch/ops.py"
    digest = checks_install._digest(tmp_path / name, "sha256")
    entry = type("Entry", (str,), {"hash": SimpleNamespace(mode="sha256", value=digest)})(name)
    distribution.files = [] if fault == "nothing" else [entry]
    if fault == "changed":
        (tmp_path / name).write_text("other")
    elif fault == "gone":
        (tmp_path / name).unlink()
    elif fault == "elsewhere":
        bench.dr.__file__ = "/elsewhere/nvdiffrast/torch/__init__.py"
    complaints = {"": "1 files as", "changed": "is not what RECORD says", "gone": "is not there"}
    complaints |= {"elsewhere": "imported from /elsewhere", "nothing": "names no file"}
    found = checks_install.files(bench)
    assert found.state == ("failed" if fault else "passed")
    assert complaints[fault] in found.detail


@pytest.mark.parametrize("fault", ["", "compiler", "outside", "compiled", "symbol", "name"])
def test_plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
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


def test_a_check_that_is_untested_here_is_not_run() -> None:
    check = Check("one", lambda _: pytest.fail("it ran"))
    bench = Bench(None, None, "cpu", list)
    made, _ = worker.perform(check, worker.Place(bench, why="no GPU"))
    assert (made.state, made.detail) == ("untested", "no GPU")
