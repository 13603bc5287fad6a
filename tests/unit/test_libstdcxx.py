"""Tests of wheel_build/libstdcxx.py of the overlay, which limits the symbol versions of the C++ runtime."""

from __future__ import annotations

import ctypes
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from scripts.model import ROOT
from scripts.support.process import call, which
from scripts.wheel import wheel_policy
from tests.unit import wheel_factory as factory

LIMITS = "GLIBCXX_3.4.24 CXXABI_1.3.11"
TABLE = """
Symbol table '.dynsym' contains 7 entries:
   Num:    Value          Size Type    Bind   Vis      Ndx Name
     0: 0000000000000000     0 NOTYPE  LOCAL  DEFAULT  UND
     1: 0000000000000000     0 FUNC    GLOBAL DEFAULT  UND memcpy@GLIBC_2.14 (2)
     2: 00000000000a1110    37 FUNC    GLOBAL DEFAULT   15 __cxa_begin_catch@@CXXABI_1.3
     3: 00000000000a1150    90 FUNC    GLOBAL DEFAULT   15 __cxa_call_terminate@@CXXABI_1.3.15
     4: 0000000000226f40   272 OBJECT  GLOBAL DEFAULT   29 _ZSt4cout@@GLIBCXX_3.4
     5: 0000000000000010     8 TLS     GLOBAL DEFAULT   24 _ZSt15__once_callable@@GLIBCXX_3.4.11
     6: 00000000000b1150    90 FUNC    GLOBAL DEFAULT   15 _ZNKSs11_M_disjunctEPKc@GLIBCXX_3.4
     7: 0000000000000000     0 OBJECT  GLOBAL DEFAULT  ABS GLIBCXX_3.4.32
     8: 00000000000c1150    90 FUNC    WEAK   DEFAULT   15 _ZGTtNKSt9exceptionD1Ev@@CXXABI_TM_1
"""


@pytest.fixture(scope="module")
def libstdcxx() -> ModuleType:
    folder = ROOT / "patches" / "common" / "overlay" / "wheel_build"
    sys.path.insert(0, str(folder))
    try:
        import libstdcxx as module  # type: ignore[import-not-found]
    finally:
        sys.path.remove(str(folder))
    assert isinstance(module, ModuleType)
    return module


def test_parses_the_limits_of_the_platform_tag(libstdcxx: ModuleType) -> None:
    words = wheel_policy.newest_symbols(factory.CELL)
    assert libstdcxx.parse_limits(words) == {"GLIBCXX": (3, 4, 24), "CXXABI": (1, 3, 11)}


def test_windows_has_no_limits() -> None:
    assert wheel_policy.newest_symbols(replace(factory.CELL, platform=factory.WINDOWS)) == ""


@pytest.mark.parametrize("word", ["GLIBCXX", "3.4.24", "GLIBCXX_3.4.", "GLIBCXX_3.4.24,"])
def test_rejects_malformed_limits(libstdcxx: ModuleType, word: str) -> None:
    with pytest.raises(ValueError, match="not a symbol version"):
        libstdcxx.parse_limits(word)


def test_reads_only_defined_default_versions(libstdcxx: ModuleType) -> None:
    names = {symbol.name: symbol.kind for symbol in libstdcxx.parse_symbols(TABLE)}
    assert names == {
        "__cxa_begin_catch": "FUNC",
        "__cxa_call_terminate": "FUNC",
        "_ZSt4cout": "OBJECT",
        "_ZSt15__once_callable": "TLS",
        "_ZGTtNKSt9exceptionD1Ev": "FUNC",
    }


def test_does_not_permit_newer_and_unnumbered_versions(libstdcxx: ModuleType) -> None:
    found = libstdcxx.permitted(libstdcxx.parse_symbols(TABLE), libstdcxx.parse_limits(LIMITS))
    assert [symbol.name for symbol in found] == ["__cxa_begin_catch", "_ZSt4cout", "_ZSt15__once_callable"]


def test_compares_versions_as_numbers(libstdcxx: ModuleType) -> None:
    symbols = [libstdcxx.Symbol("a", "FUNC", "GLIBCXX_3.4.9"), libstdcxx.Symbol("b", "FUNC", "GLIBCXX_3.4.30")]
    assert [one.name for one in libstdcxx.permitted(symbols, {"GLIBCXX": (3, 4, 24)})] == ["a"]


@pytest.mark.skipif(which("g++") is None, reason="no g++: apt-get install g++")
def test_links_a_plugin_without_symbols_above_the_limit(libstdcxx: ModuleType, tmp_path: Path) -> None:
    """Any g++ exceeds this limit: GLIBCXX_3.4.20 does not contain the strings of the C++11 ABI."""
    source = tmp_path / "plugin.cpp"
    body = 'extern "C" int probe(const char* text) { return std::string(text).append("x").size(); }'
    source.write_text(f"#include <string>\n{body}\n")
    limits = libstdcxx.parse_limits("GLIBCXX_3.4.20 CXXABI_1.3.8")
    inputs = libstdcxx.link_inputs("g++", limits, tmp_path / "stub")
    script = tmp_path / "plugin.map"
    script.write_text("{ global: probe; local: *; };\n")
    options = ["-shared", "-fPIC", "-O2", f"-Wl,--version-script={script}", "-Wl,--as-needed"]
    needed = {}
    for name, more in (("plain", []), ("limited", inputs)):
        plugin = tmp_path / f"{name}.so"
        call(["g++", *options, source, *more, "-o", plugin])
        needed[name] = call(["readelf", "--dyn-syms", "--wide", plugin])
    assert "GLIBCXX_3.4.21" in needed["plain"]
    assert "GLIBCXX_3.4.21" not in needed["limited"]
    assert ctypes.CDLL(str(tmp_path / "limited.so")).probe(b"four") == 5
