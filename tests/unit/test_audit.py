"""Tests of the audit: a correct wheel passes all checks, and a wheel with one defect fails exactly one check."""

from __future__ import annotations

import json
import sys
import venv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from scripts.audit import audit
from scripts.audit.checks import imports
from scripts.errors import AuditError, UsageError
from scripts.matrix import matrix
from scripts.model import Cell
from scripts.support.files import file_sha256
from scripts.wheel import audit_record
from tests.unit import wheel_factory as factory
from tests.unit.wheel_factory import CELL, Module, ModuleMaker, Parts, Stub

pytestmark = pytest.mark.skipif(factory.compiler() is None, reason="no C compiler: apt-get install gcc")

TOOLS = ("twine", "check-wheel-contents")
IMPORTS = ("import-cuda", "import-gl")
PLUGINS = factory.plugin_names(CELL)
INFO = f"nvdiffrast-{CELL.version}.dist-info"
POLICY_AND_MORE = factory.fat_binary([(2, 80), (1, 90), (2, 90), (2, 100)])
ONLY_SUFFIXED = factory.fat_binary([(2, 80), (1, 90), (2, 90)], flags=1 << 20)

Change = Callable[[Parts, ModuleMaker], None]


@pytest.fixture(scope="module")
def maker(tmp_path_factory: pytest.TempPathFactory) -> ModuleMaker:
    return ModuleMaker(tmp_path_factory.mktemp("modules"))


@pytest.fixture
def without_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    """Disable the checks that start other programs; separate tests cover them."""
    kept = {name: check for name, check in audit.CHECKS.items() if name not in TOOLS}
    monkeypatch.setattr(audit, "CHECKS", kept)


def test_correct_wheel_passes_all_checks_except_the_import(maker: ModuleMaker, tmp_path: Path) -> None:
    record = audit.audit(factory.good_parts(maker).write(tmp_path), CELL)
    assert {check.name: check.detail for check in record.checks if check.outcome == "failed"} == {}
    assert [check.name for check in record.checks if check.outcome == "untested"] == list(IMPORTS)
    assert (record.outcome, record.release, record.partial, record.cell) == ("untested", False, False, CELL.id)
    assert "--torch-environment" in record.named("import-cuda").detail


def _drop(member: str) -> Change:
    return lambda parts, _: parts.members.__delitem__(member)


def _edit(member: str, old: str, new: str) -> Change:
    return lambda parts, _: parts.edit(member, old, new)


def _info(**changes: object) -> Change:
    return lambda parts, _: parts.edit_info(**changes)


def _add(member: str, content: bytes = b"") -> Change:
    return lambda parts, _: parts.members.__setitem__(member, content)


def _module(kind: str, **changes: object) -> Change:
    def make_wrong(parts: Parts, maker: ModuleMaker) -> None:
        right = {"cuda": factory.cuda_module, "gl": factory.gl_module}[kind]()
        parts.members[PLUGINS[kind]] = maker.make(replace(right, **changes))  # type: ignore[arg-type]

    return make_wrong


def _needing(kind: str, *more: Stub | str) -> Change:
    right = {"cuda": factory.cuda_module, "gl": factory.gl_module}[kind]()
    return _module(kind, needed=(*right.needed, *more))


def _fatbin(*fat_binaries: bytes) -> Change:
    return _module("cuda", fatbin=b"".join(fat_binaries))


def _rename(parts: Parts, _: ModuleMaker) -> None:
    parts.file_name = parts.file_name.replace("torch2.11", "torch2.10")


def _other_python(parts: Parts, _: ModuleMaker) -> None:
    parts.members["nvdiffrast/torch/nvdiffrast_plugin.cpython-36m-x86_64-linux-gnu.so"] = parts.members.pop(
        PLUGINS["cuda"]
    )


def _bundle_egl(parts: Parts, maker: ModuleMaker) -> None:
    parts.members["nvdiffrast.libs/libEGL-01234567.so.1"] = maker.make(Module())


def _short_licence(parts: Parts, _: ModuleMaker) -> None:
    parts.members[f"{INFO}/licenses/LICENSE.txt"] = factory.LICENCE[:500].encode()


def _no_bill(parts: Parts, _: ModuleMaker) -> None:
    parts.bill = False


class Defect(NamedTuple):
    """A change to a correct wheel; the check ``name`` must fail with ``message`` in its detail."""

    name: str
    message: str
    apply: Change


DEFECTS = [
    Defect("file-name", "but the cell requires", _rename),
    Defect("metadata", "Name: other", _edit(f"{INFO}/METADATA", "Name: nvdiffrast", "Name: other")),
    Defect("metadata", "Version: 0.3.4", _edit(f"{INFO}/METADATA", f"Version: {CELL.version}", "Version: 0.3.4")),
    Defect("metadata", "excludes", _edit(f"{INFO}/METADATA", "Requires-Python: >=3.9", "Requires-Python: <3.0")),
    Defect("requirements", "torch==2.11.*", _edit(f"{INFO}/METADATA", "torch==2.11.*", "torch>=2.11")),
    Defect("requirements", "torch==2.11.*", _edit(f"{INFO}/METADATA", "Requires-Dist: torch==2.11.*\n", "")),
    Defect("requirements", "does not contain numpy", _edit(f"{INFO}/METADATA", "Requires-Dist: numpy\n", "")),
    Defect("requirements", "ninja", _edit(f"{INFO}/METADATA", "Dist: numpy\n", "Dist: numpy\nRequires-Dist: ninja\n")),
    Defect("tags", "linux_x86_64", _edit(f"{INFO}/WHEEL", "manylinux_2_28_x86_64", "linux_x86_64")),
    Defect("tags", "Root-Is-Purelib", _edit(f"{INFO}/WHEEL", "Purelib: false", "Purelib: true")),
    Defect("licence", "contains 0 files LICENSE.txt", _drop(f"{INFO}/licenses/LICENSE.txt")),
    Defect("licence", "incomplete", _short_licence),
    Defect("licence", "that of the source had", _edit(f"{INFO}/licenses/LICENSE.txt", "A stand-in", "A copy")),
    Defect("build-info", "flags", _edit("nvdiffrast/build_info.json", '"cxx": ["-O2"]', '"cxx": "-O2"')),
    Defect("build-info", "cell", _info(cell="0.3.4-cp310-cu130-torch2.11-linux_x86_64")),
    Defect("build-info", "torch", _info(torch="2.11.1")),
    Defect("build-info", "compiler.nvcc", _info(compiler={"cxx": "12.2.0", "nvcc": "12.8.93"})),
    Defect("build-info", "pinned", _info(source={"commit": "f" * 40, "tree": "d" * 40})),
    Defect("build-info", "partial is false", _info(architectures={"sass": ["9.0"], "ptx": ["9.0"]})),
    Defect("build-info", "plugins", _info(plugins=["nvdiffrast_plugin"])),
    Defect("bill-of-materials", "has no", _no_bill),
    Defect("plugins", "gl plugin", _drop(PLUGINS["gl"])),
    Defect("members", "tests must not be in the wheel", _add("tests/test_it.py")),
    Defect("members", "earth.npz", _add("nvdiffrast/torch/earth.npz")),
    Defect("members", "nvdiffrast/not-a-module.py is not a valid module name", _add("nvdiffrast/not-a-module.py")),
    Defect("sources", "torch_texture.cpp", _drop("nvdiffrast/torch/torch_texture.cpp")),
    Defect("sources", "antialias.cu includes it", _drop("nvdiffrast/common/antialias.h")),
    Defect("bundled", "libEGL-01234567.so.1", _bundle_egl),
    Defect("needed", "libpython3.so", _needing("cuda", "libpython3.so")),
    Defect("needed", "libGL.so.1", _needing("cuda", "libGL.so.1")),
    Defect("run-paths", "/opt/cuda/lib64", _module("cuda", run_path="$ORIGIN/../../nvdiffrast.libs:/opt/cuda/lib64")),
    Defect("symbol-versions", "GLIBC_2.32", _needing("gl", Stub("libc.so.6", "newer", "GLIBC_2.32"))),
    Defect("symbol-versions", "GLIBCXX_3.4.29", _needing("gl", Stub("libstdc++.so.6", "newer", "GLIBCXX_3.4.29"))),
    Defect("architectures", "lacks sass 8.0", _fatbin(factory.POLICY_FATBIN, factory.fat_binary([(1, 90), (2, 90)]))),
    Defect("architectures", "lacks ptx 9.0", _fatbin(factory.fat_binary([(2, 80), (2, 90)]))),
    Defect("architectures", "contrary to the policy, sass 10.0", _fatbin(POLICY_AND_MORE)),
    Defect("architectures", "lacks ptx 9.0, sass 8.0, sass 9.0", _fatbin(ONLY_SUFFIXED)),
    Defect("architectures", "truncated", _fatbin(factory.POLICY_FATBIN + factory.POLICY_FATBIN[:12])),
    Defect("architectures", "no CUDA code", _fatbin()),
    Defect("debug-information", ".debug_info", _module("gl", debug=True)),
    Defect("build-paths", "/tmp/pip-build-env/x.h", _module("gl", text="/tmp/pip-build-env/x.h")),
    Defect("build-paths", "/home/me/x", _info(flags={"cxx": ["-I/home/me/x"], "nvcc": []})),
    Defect("whole", "a partial wheel", _info(partial=True)),
]  # fmt: skip


@pytest.mark.usefixtures("without_tools")
@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: f"{defect.name}: {defect.message}")
def test_one_defect_fails_exactly_one_check(maker: ModuleMaker, tmp_path: Path, defect: Defect) -> None:
    parts = factory.good_parts(maker)
    defect.apply(parts, maker)
    record = audit.audit(parts.write(tmp_path), CELL)
    assert [check.name for check in record.checks if check.outcome == "failed"] == [defect.name]
    assert defect.message in record.named(defect.name).detail
    assert (record.outcome, record.release) == ("failed", False)


def test_defects_cover_all_checks() -> None:
    tested_separately = {"record", *TOOLS, *IMPORTS}
    assert {defect.name for defect in DEFECTS} | tested_separately == set(audit.CHECKS)


@pytest.mark.usefixtures("without_tools")
def test_bill_of_materials_is_untested_for_an_unfinished_wheel(maker: ModuleMaker, tmp_path: Path) -> None:
    parts = factory.good_parts(maker)
    parts.bill = False
    record = audit.audit(parts.write(tmp_path), CELL, finished=False)
    assert record.named("bill-of-materials").outcome == "untested"
    assert [check.name for check in record.checks if check.outcome == "failed"] == []


@pytest.mark.usefixtures("without_tools")
def test_ignores_a_plugin_for_another_python(maker: ModuleMaker, tmp_path: Path) -> None:
    parts = factory.good_parts(maker)
    _other_python(parts, maker)
    record = audit.audit(parts.write(tmp_path), CELL)
    assert "cuda plugin occurs 0 times" in record.named("plugins").detail


@pytest.mark.usefixtures("without_tools")
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("nvdiffrast/__init__.py,sha256=", "nvdiffrast/__init__.py,sha256=x", "__init__.py does not match RECORD"),
        ("nvdiffrast/__init__.py,", "nvdiffrast/other.py,", "other.py, which is not in the wheel"),
        ("nvdiffrast/__init__.py,", "../outside.py,", "../outside.py, which is not in the wheel"),
        ("RECORD,,", "RECORD,,5", "RECORD does not match RECORD"),
        ("RECORD,,\n", "RECORD,,\nnvdiffrast/__init__.py,,\n", "twice"),
        ("RECORD,,\n", "RECORD,,\none,two\n", "a row with 2 fields"),
    ],
)
def test_rejects_a_wrong_record_file(maker: ModuleMaker, tmp_path: Path, old: str, new: str, message: str) -> None:
    parts = factory.good_parts(maker)
    assert old in parts.record()
    found = audit.audit(parts.write(tmp_path, parts.record().replace(old, new)), CELL)
    assert [check.name for check in found.checks if check.outcome == "failed"] == ["record"]
    assert message in found.named("record").detail


@pytest.mark.parametrize(
    ("name", "message", "change"),
    [
        ("twine", "long_description", _edit(f"{INFO}/METADATA", "A wheel for tests.\n", "")),
        ("check-wheel-contents", "W001", _add("nvdiffrast/old.pyc", b"\0")),
    ],
)
def test_runs_the_checkers_of_other_projects(
    maker: ModuleMaker, tmp_path: Path, name: str, message: str, change: Change
) -> None:
    parts = factory.good_parts(maker)
    change(parts, maker)
    record = audit.audit(parts.write(tmp_path), CELL)
    assert [check.name for check in record.checks if check.outcome == "failed"] == [name]
    assert message in record.named(name).detail


@pytest.mark.usefixtures("without_tools")
def test_partial_wheel_must_have_its_stated_architectures_and_is_not_publishable(
    maker: ModuleMaker, tmp_path: Path
) -> None:
    modules = {"cuda": replace(factory.cuda_module(), fatbin=factory.fat_binary([(2, 90)])), "gl": factory.gl_module()}
    parts = factory.good_parts(maker, modules=modules)
    parts.edit_info(partial=True, architectures={"sass": ["9.0"], "ptx": []})
    path = parts.write(tmp_path)
    assert [c.name for c in audit.audit(path, CELL).checks if c.outcome == "failed"] == ["whole"]
    record = audit.audit(path, CELL, allow_partial=True)
    assert [c.name for c in record.checks if c.outcome == "failed"] == []
    assert (record.partial, record.release) == (True, False)
    assert not replace(record, checks=(audit_record.Check("all", "passed", ""),)).release


@pytest.mark.usefixtures("without_tools")
def test_rejects_a_licence_that_differs_from_the_known_one(maker: ModuleMaker, tmp_path: Path) -> None:
    cell = replace(CELL, release=replace(CELL.release, version="0.3.3.1", source=factory.REGISTRY))
    record = audit.audit(factory.good_parts(maker, cell).write(tmp_path), cell)
    assert [check.name for check in record.checks if check.outcome == "failed"] == ["licence"]
    assert "that of the release has ce20436c" in record.named("licence").detail


@pytest.mark.usefixtures("without_tools")
def test_rejects_a_bundled_runtime_if_the_cell_uses_that_of_torch(maker: ModuleMaker, tmp_path: Path) -> None:
    cell = replace(CELL, cuda_runtime="torch")
    parts = factory.good_parts(maker, cell)
    record = audit.audit(parts.write(tmp_path), cell)
    assert [check.name for check in record.checks if check.outcome == "failed"] == ["bundled"]


@pytest.mark.parametrize("member", ["../outside.py", "/etc/passwd", "nvdiffrast/__INIT__.py"])
def test_unsafe_archive_fails_and_leaves_other_checks_untested(maker: ModuleMaker, tmp_path: Path, member: str) -> None:
    parts = factory.good_parts(maker)
    parts.members[member] = b"outside"
    record = audit.audit(parts.write(tmp_path), CELL)
    assert [check.name for check in record.checks if check.outcome == "failed"] == ["archive"]
    assert {check.outcome for check in record.checks if check.name != "archive"} == {"untested"}
    assert not (tmp_path.parent / "outside.py").exists()


def test_finds_the_cell_by_file_name_or_build_info(
    maker: ModuleMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "CHECKS", {"file-name": audit.CHECKS["file-name"]})
    known = matrix.Matrix((), (), (replace(CELL, python="3.9"), CELL), (), "cu130", "")
    monkeypatch.setattr(matrix, "load", lambda: known)
    parts = factory.good_parts(maker)
    assert audit.audit(parts.write(tmp_path)).cell == CELL.id
    _rename(parts, maker)
    renamed = audit.audit(parts.write(tmp_path))
    assert (renamed.cell, renamed.outcome) == (CELL.id, "failed")
    parts.edit_info(cell="unknown")
    with pytest.raises(AuditError, match="no cell of the matrix"):
        audit.audit(parts.write(tmp_path))


def test_rejects_a_missing_file_and_an_invalid_environment(maker: ModuleMaker, tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="no such file"):
        audit.audit(tmp_path / CELL.wheel, CELL)
    with pytest.raises(UsageError, match="is not a virtual environment"):
        audit.audit(factory.good_parts(maker).write(tmp_path), CELL, torch_environment=tmp_path)


# A minimal replacement of upstream's loader: it opens the plugin with ctypes and returns a module with its path.
_OPS = """\
import ctypes, glob, os, types

def _get_plugin(gl=False):
    folder = os.path.dirname(__file__)
    name = "nvdiffrast_plugin_gl" if gl else "nvdiffrast_plugin"
    file, = glob.glob(os.path.join(folder, name + ".cpython*"))
    assert os.environ["PATH"] and not any(os.listdir(p) for p in os.environ["PATH"].split(os.pathsep))
    ctypes.CDLL(file)
    module = types.ModuleType(name)
    module.__file__ = file
    return module
"""


@pytest.fixture(scope="module")
def torch_environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a virtual environment with a minimal replacement of torch."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    venv.create(folder, symlinks=True)
    package = folder / "lib" / f"python{factory.PYTHON}" / "site-packages" / "torch"
    package.mkdir()
    (package / "__init__.py").write_text("from . import version\n__version__ = '2.11.0+cu130'\n")
    (package / "version.py").write_text("cuda = '13.0'\n")
    return folder


def _importable(maker: ModuleMaker, cell: Cell = CELL) -> Parts:
    parts = factory.good_parts(maker, cell, {"cuda": Module(text="cuda"), "gl": Module(text="gl")})
    parts.members["nvdiffrast/torch/ops.py"] = _OPS.encode()
    return parts


@pytest.fixture
def imports_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "CHECKS", {name: audit.CHECKS[name] for name in IMPORTS})


@pytest.mark.usefixtures("imports_only")
def test_imports_the_wheel_without_a_compiler(maker: ModuleMaker, tmp_path: Path, torch_environment: Path) -> None:
    wheel = _importable(maker).write(tmp_path)
    record = audit.audit(wheel, CELL, torch_environment=torch_environment)
    assert record.named("import-cuda").outcome == "passed", record.named("import-cuda").detail
    gl = record.named("import-gl")
    assert gl.outcome == "passed" or "apt-get install libegl1 libgl1" in gl.detail


@pytest.mark.usefixtures("imports_only")
@pytest.mark.parametrize(("kind", "other"), [("cuda", "gl"), ("gl", "cuda")])
def test_rejects_a_plugin_that_cannot_be_loaded(
    maker: ModuleMaker, tmp_path: Path, torch_environment: Path, kind: str, other: str
) -> None:
    parts = _importable(maker)
    parts.members[PLUGINS[kind]] = maker.make(Module(needed=("libnowhere.so.1",)))
    record = audit.audit(parts.write(tmp_path), CELL, torch_environment=torch_environment)
    if "apt-get install" in record.named("import-gl").detail:
        pytest.skip("no libEGL or libGL here: apt-get install libegl1 libgl1")
    assert record.named(f"import-{kind}").outcome == "failed"
    assert "libnowhere.so.1" in record.named(f"import-{kind}").detail
    assert record.named(f"import-{other}").outcome == "passed"


@pytest.mark.usefixtures("imports_only")
def test_gl_plugin_is_untested_without_gl_libraries(
    maker: ModuleMaker, tmp_path: Path, torch_environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe = imports.PROBE.read_text().replace("libEGL.so.1", "libEGL.so.99")
    (tmp_path / "probe.py").write_text(probe)
    monkeypatch.setattr(imports, "PROBE", tmp_path / "probe.py")
    record = audit.audit(_importable(maker).write(tmp_path), CELL, torch_environment=torch_environment)
    assert (record.named("import-cuda").outcome, record.named("import-gl").outcome) == ("passed", "untested")
    assert "this machine has no libEGL.so.99: apt-get install libegl1 libgl1" in record.named("import-gl").detail


@pytest.mark.usefixtures("imports_only")
@pytest.mark.parametrize(
    ("statement", "message"),
    [("module.__file__ = os.__file__", "outside of the wheel"), ("os._exit(77)", "exit status 77")],
)
def test_rejects_a_plugin_outside_of_the_wheel_and_a_crash(
    maker: ModuleMaker, tmp_path: Path, torch_environment: Path, statement: str, message: str
) -> None:
    parts = _importable(maker)
    parts.edit("nvdiffrast/torch/ops.py", "module.__file__ = file", statement)
    record = audit.audit(parts.write(tmp_path), CELL, torch_environment=torch_environment)
    assert record.named("import-cuda").outcome == "failed"
    assert message in record.named("import-cuda").detail


@pytest.mark.usefixtures("imports_only")
@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (replace(CELL, torch=replace(CELL.torch, line="2.1")), "has torch 2.11.0+cu130 with CUDA 13.0"),
        (replace(CELL, toolkit=replace(CELL.toolkit, cuda="12.8")), "has torch 2.11.0+cu130 with CUDA 13.0"),
        (replace(CELL, python="3.8"), f"is Python {factory.PYTHON}"),
    ],
)
def test_import_is_untested_in_an_unsuitable_environment(
    maker: ModuleMaker, tmp_path: Path, torch_environment: Path, cell: Cell, message: str
) -> None:
    record = audit.audit(_importable(maker, cell).write(tmp_path), cell, torch_environment=torch_environment)
    assert record.named("import-cuda").outcome == "untested"
    assert message in record.named("import-cuda").detail


@pytest.mark.usefixtures("imports_only")
def test_import_is_untested_without_torch(maker: ModuleMaker, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", symlinks=True)
    record = audit.audit(_importable(maker).write(tmp_path), CELL, torch_environment=tmp_path / "venv")
    assert record.named("import-cuda").outcome == "untested"
    assert "cannot import torch" in record.named("import-cuda").detail


@pytest.mark.usefixtures("without_tools")
def test_command_prints_and_writes_the_record(
    maker: ModuleMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(matrix, "load", lambda: matrix.Matrix((), (), (CELL,), (), "cu130", ""))
    parts = factory.good_parts(maker)
    for partial, code, outcome in ((False, 3, "untested"), (True, 16, "failed")):
        parts.edit_info(partial=partial)
        wheel = parts.write(tmp_path)
        monkeypatch.setattr(sys, "argv", ["audit", str(wheel), "--records", str(tmp_path / "output")])
        assert audit.main() == code
        shown = capsys.readouterr().out
        assert f"{outcome}: {20 - partial} passed, {int(partial)} failed, 2 untested" in shown
        record = tmp_path / "output" / "records" / f"{file_sha256(wheel)}.audit.json"
        assert json.loads(record.read_text())["outcome"] == outcome


@pytest.mark.usefixtures("imports_only")
def test_command_loads_the_matrix_once_for_all_wheels(
    maker: ModuleMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []

    def load() -> matrix.Matrix:
        loaded.append(1)
        return matrix.Matrix((), (), (CELL,), (), "cu130", "")

    monkeypatch.setattr(matrix, "load", load)
    wheels = []
    for folder in (tmp_path / "first", tmp_path / "second"):
        folder.mkdir()
        wheels.append(str(factory.good_parts(maker).write(folder)))
    monkeypatch.setattr(sys, "argv", ["audit", *wheels])
    assert audit.main() == 3
    assert len(loaded) == 1
