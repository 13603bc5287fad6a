"""Judging of proofs, the environments of the tools, and the stand-ins."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import pytest

from scripts.errors import CommandError, PublishError, UntestedError, UsageError
from scripts.publish import prove, stand_ins
from scripts.publish.prove import Proof
from scripts.support.sandbox import Environment, Surroundings
from scripts.wheel import wheel_file

PASSED = Proof("install", "pip", "a.whl", "passed", "fine")
UNTESTED = Proof("install", "-", "b.whl", "untested", "this machine is another")
FAILED = Proof("refuse", "uv", "torch 0.1", "failed", "torch was changed")


def test_one_failed_proof_is_an_error() -> None:
    with pytest.raises(PublishError, match=r"1 of 3 proofs failed; the first: refuse uv torch 0\.1: torch was changed"):
        prove.judge((PASSED, FAILED, UNTESTED), real=False)


@pytest.mark.parametrize(
    ("proofs", "real", "why"),
    [
        ((), False, r"\(install\): no wheel is for this machine"),
        ((UNTESTED,), False, r"\(install\): this machine is another"),
        ((PASSED,), True, r"\(import\): no wheel is for this machine"),
        ((PASSED, Proof("import", "pip", "a.whl", "untested", "no torch")), True, r"\(import\): no torch"),
    ],
)
def test_proofs_that_test_nothing_are_an_error(proofs: tuple[Proof, ...], real: bool, why: str) -> None:
    with pytest.raises(UntestedError, match=why):
        prove.judge(proofs, real=real)


def test_accepts_passed_proofs() -> None:
    prove.judge((PASSED, UNTESTED), real=False)
    prove.judge((PASSED, Proof("import", "uv", "a.whl", "passed")), real=True)


def test_outcome_of_each_error() -> None:
    def raises(error: Exception) -> str:
        raise error

    made = [
        prove.proof("install", "pip", "a.whl", lambda: "fine"),
        prove.proof("install", "pip", "a.whl", lambda: raises(UntestedError("no torch"))),
        prove.proof("install", "pip", "a.whl", lambda: raises(PublishError("another one"))),
        prove.proof("install", "pip", "a.whl", lambda: raises(CommandError("status 1", returncode=1, output="why"))),
    ]
    assert [(one.outcome, one.detail) for one in made] == [
        ("passed", "fine"),
        ("untested", "no torch"),
        ("failed", "another one"),
        ("failed", "status 1\nwhy"),
    ]


def test_removes_the_configuration_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_INDEX", "PYTHONPATH"):
        monkeypatch.setenv(name, "elsewhere")
    variables = Surroundings("http://127.0.0.1:1", tmp_path).variables()
    assert {variables[name] for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_INDEX")} == {
        None
    }
    assert variables["PYTHONPATH"] is None
    assert variables["PIP_INDEX_URL"] == variables["UV_DEFAULT_INDEX"] == "http://127.0.0.1:1"


@pytest.mark.parametrize("line", ["rm -rf x", "python -m pip install x", "", "PIP_X=1 pip install x"])
def test_runs_only_pip_and_uv(line: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a command of pip or uv"):
        Environment(tmp_path, Surroundings("", tmp_path)).run(line)


def test_stand_ins_are_valid_and_reproducible(tmp_path: Path) -> None:
    made = [
        stand_ins.wheel(tmp_path / name, "nvdiffrast", "0.3.3.1+cu128.torch2.9", requires=["torch==2.9.*"])
        for name in ("one", "two")
    ]
    assert made[0].read_bytes() == made[1].read_bytes()
    unpacked = wheel_file.unpack(made[0], tmp_path / "unpacked")
    assert list(wheel_file.record_problems(unpacked)) == []
    assert [str(one) for one in unpacked.metadata.requires_dist or []] == ["torch==2.9.*"]
    with zipfile.ZipFile(made[0]) as archive:
        assert archive.testzip() is None


def test_listing_of_stand_ins(tmp_path: Path) -> None:
    stand_ins.wheel(tmp_path, "torch", "2.9.1+cu128")
    stand_ins.wheel(tmp_path, "torch", "2.10.0")
    stand_ins.wheel(tmp_path, "numpy", "2.0")
    stand_ins.list_wheels(tmp_path)
    page = (tmp_path / "torch" / "index.html").read_text()
    links = re.findall(r'href="([^"#]+)#sha256=[0-9a-f]{64}"', page)
    assert links == ["../torch-2.10.0-py3-none-any.whl", "../torch-2.9.1%2Bcu128-py3-none-any.whl"]
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["numpy", "torch"]


def test_prints_each_proof_once_and_names_the_stand_ins(capsys: pytest.CaptureFixture[str]) -> None:
    made = [prove.proof("install", "pip", "a.whl", lambda: "fine"), UNTESTED, FAILED]
    prove.print_result(made, ["numpy", "torch"], real=False)
    lines = capsys.readouterr().out.splitlines()
    assert [line[2:] for line in lines[:2]] == ["install pip a.whl: fine", "3 proofs: 1 passed, 1 failed, 1 untested"]
    assert "took the place of: numpy, torch; nothing was imported, --real does that" in lines[2]
    prove.print_result(made, ["torch"], real=True)
    assert "only `import` proofs used the real, locked torch" in capsys.readouterr().out
