"""Tests of the reader of PE and ELF files; it reports every damaged file and never fails in another way."""

from __future__ import annotations

import importlib
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scripts.model import ROOT
from tests.unit import pe_factory

OVERLAY = ROOT / "patches" / "common" / "overlay" / "nvdiffrast"
IMAGE = pe_factory.library(
    {"a.dll": ["one", "two"], "b.dll": ["three"]}, exports=["y", "x"], delayed=["late.dll"], name="m.dll"
)
SYSTEM = Path(sys.executable).resolve()


@pytest.fixture(scope="module")
def binaries() -> Iterator[ModuleType]:
    """Import the module under another package name, so that an installed nvdiffrast is not used."""
    package = ModuleType("readers")
    package.__path__ = [str(OVERLAY)]
    sys.modules["readers"] = package
    yield importlib.import_module("readers._binaries")
    for name in [name for name in sys.modules if name.partition(".")[0] == "readers"]:
        del sys.modules[name]


def test_reads_a_pe_file(binaries: Any, tmp_path: Path) -> None:
    """A delay-loaded DLL is not needed for the import."""
    (tmp_path / "m.dll").write_bytes(IMAGE)
    assert binaries.read(tmp_path / "m.dll") == (
        "pe",
        "x86_64",
        ("a.dll", "b.dll"),
        {"a.dll": ("one", "two"), "b.dll": ("three",)},
        frozenset({"x", "y"}),
        (),
    )


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a program for Linux")
def test_reads_an_elf_file(binaries: Any) -> None:
    found = binaries.read(SYSTEM)
    assert found.format == "elf"
    assert any(name.startswith("libc.so") for name in found.needed)


def test_ignores_the_case_of_dll_names(binaries: Any, tmp_path: Path) -> None:
    """A DLL that the process has loaded is used from any folder."""
    (tmp_path / "m.dll").write_bytes(pe_factory.library(["A.dll"]))
    (tmp_path / "elsewhere").mkdir()
    loaded = tmp_path / "elsewhere" / "a.DLL"
    loaded.write_bytes(pe_factory.library(exports=["function"]))
    assert binaries.find_faults(tmp_path / "m.dll", [], [loaded], "x86_64") == []
    (fault,) = binaries.find_faults(tmp_path / "m.dll", [], [], "x86_64")
    assert (fault.kind, fault.library, fault.needed_by) == ("missing", "A.dll", tmp_path / "m.dll")


def test_accepts_libraries_that_need_each_other(binaries: Any, tmp_path: Path) -> None:
    (tmp_path / "a.dll").write_bytes(pe_factory.library(["b.dll"], exports=["function"]))
    (tmp_path / "b.dll").write_bytes(pe_factory.library(["a.dll"], exports=["function"]))
    assert binaries.find_faults(tmp_path / "a.dll", [], [], "x86_64") == []


def test_uses_the_library_in_the_first_folder(binaries: Any, tmp_path: Path) -> None:
    (tmp_path / "m.dll").write_bytes(pe_factory.library(["a.dll"]))
    for name, exports in (("good", ["function"]), ("bad", ["other"])):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.dll").write_bytes(pe_factory.library(exports=exports))
    good, bad = tmp_path / "good", tmp_path / "bad"
    assert binaries.find_faults(tmp_path / "m.dll", [good, bad], [], "x86_64") == []
    assert [fault.kind for fault in binaries.find_faults(tmp_path / "m.dll", [bad, good], [], "x86_64")] == ["symbol"]


def _check_reading(binaries: Any, path: Path, content: bytes) -> None:
    """Check that reading ``content`` succeeds or raises DamagedError, and that searching its faults ends."""
    path.write_bytes(content)
    try:
        binaries.read(path)
    except binaries.DamagedError as error:
        assert str(error)
    binaries.find_faults(path, [], [], "x86_64")


def _elf() -> bytes:
    """Return the start of a Linux program, which refers to parts of the file that are missing here."""
    return SYSTEM.read_bytes()[:4096] if sys.platform.startswith("linux") else b"\x7fELF"


@pytest.mark.parametrize("whole", [IMAGE, _elf()], ids=["pe", "elf"])
def test_refuses_truncated_files(binaries: Any, tmp_path: Path, whole: bytes) -> None:
    for length in [*range(0, min(len(whole), 1200), 7), len(whole) - 1]:
        _check_reading(binaries, tmp_path / "m", whole[:length])
        with pytest.raises(binaries.DamagedError):
            binaries.read(tmp_path / "m")


@pytest.mark.parametrize(("program", "name"), [(64, 2**64 - 1), (2**64 - 1, 1)], ids=["name", "table"])
def test_refuses_addresses_outside_of_the_file(binaries: Any, tmp_path: Path, program: int, name: int) -> None:
    """Python raises another error, OverflowError, for an address that is too large for an index."""
    header = struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, program, 0, 0, 64, 56, 2, 0, 0, 0)
    dynamic = struct.pack("<IIQQQQQQ", 2, 0, 176, 0, 0, 48, 48, 0)
    load = struct.pack("<IIQQQQQQ", 1, 0, 0, 0, 0, 224, 224, 0)
    strings = struct.pack("<6Q", 5, 0, 1, name, 0, 0)
    (tmp_path / "m").write_bytes(b"\x7fELF\2\1\1" + bytes(9) + header + dynamic + load + strings)
    with pytest.raises(binaries.DamagedError):
        binaries.read(tmp_path / "m")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    whole=st.sampled_from([IMAGE, _elf()]),
    changes=st.lists(st.tuples(st.integers(0, 2**16), st.binary(min_size=1, max_size=8)), min_size=1, max_size=6),
)
def test_reads_or_refuses_any_changed_file(
    binaries: Any, tmp_path: Path, whole: bytes, changes: list[tuple[int, bytes]]
) -> None:
    content = bytearray(whole)
    for place, new in changes:
        content[place % len(whole) : place % len(whole) + len(new)] = new
    _check_reading(binaries, tmp_path / "m", bytes(content))
