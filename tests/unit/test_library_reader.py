"""Tests of scripts.wheel.library_reader: damaged files are rejected with AuditError."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.errors import AuditError
from scripts.wheel import library_reader
from tests.unit import wheel_factory as factory
from tests.unit.wheel_factory import Module, ModuleMaker, Stub

needs_compiler = pytest.mark.skipif(factory.compiler() is None, reason="no C compiler: apt-get install gcc")


@needs_compiler
def test_reads_an_elf_file(tmp_path: Path) -> None:
    versioned = Stub("libc.so.6", "newer", "GLIBC_2.34")
    content = ModuleMaker(tmp_path).make(Module((versioned, "libc10.so"), "$ORIGIN:/opt", b"12345678", debug=True))
    (tmp_path / "it.so").write_bytes(content)
    found = library_reader.read(tmp_path / "it.so")
    assert found.needed == {"libc.so.6", "libc10.so"}
    assert found.run_paths == ("$ORIGIN:/opt",)
    assert found.versions == {"GLIBC": {"2.34"}}
    assert ".debug_info" in found.debug
    assert found.fatbin == b"12345678"


@needs_compiler
@pytest.mark.parametrize("keep", [0.02, 0.3, 0.6, 0.9, 0.999])
def test_rejects_a_truncated_elf_file(tmp_path: Path, keep: float) -> None:
    content = ModuleMaker(tmp_path).make(Module(("libc10.so",)))
    (tmp_path / "it.so").write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(AuditError, match=r"it\.so"):
        library_reader.read(tmp_path / "it.so")


@pytest.mark.parametrize("content", [b"", b"#!/bin/sh\n", b"MZ", b"MZ" + b"\0" * 200])
def test_rejects_a_file_that_is_neither_elf_nor_pe(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "it.so").write_bytes(content)
    with pytest.raises(AuditError, match=r"it\.so"):
        library_reader.read(tmp_path / "it.so")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a/b.so", True),
        ("libcudart-01234567.so.13", True),
        ("x.libs/libcudart-01234567.so.11.8.89", True),
        ("x.cp312-win_amd64.pyd", True),
        ("x.dll", True),
        ("x.so.txt", False),
        ("resolved.py", False),
        ("setgpu.lib", False),
    ],
)
def test_recognizes_names_of_shared_libraries(name: str, expected: bool) -> None:
    assert library_reader.is_shared_library(name) is expected


def test_finds_build_paths() -> None:
    content = b"\0/usr/include/x.h\0/tmp/build-1/a.h\0x=/home/me/b.h\0C:\\Users\\me\\c.h\0/tmp/\0/root/d\0a.tmp/e\0"
    assert library_reader.build_paths(content) == ["/home/me/b.h", "/tmp/build-1/a.h", "C:\\Users\\me\\c.h"]
