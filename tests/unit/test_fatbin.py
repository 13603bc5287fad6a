"""Tests of scripts.wheel.fatbin: all entries are read, and damaged sections are rejected."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.errors import AuditError
from scripts.wheel import fatbin
from scripts.wheel.fatbin import Entry
from tests.unit.wheel_factory import fat_binary

_KINDS = {1: "ptx", 2: "sass"}
_ENTRIES = st.lists(st.tuples(st.sampled_from([1, 2]), st.integers(50, 129)), max_size=6)


def test_reads_kinds_and_architectures() -> None:
    (found,) = fatbin.parse(fat_binary([(2, 75), (1, 120), (2, 120)]))
    assert found == {Entry("sass", "7.5"), Entry("ptx", "12.0"), Entry("sass", "12.0")}


@pytest.mark.parametrize(("flags", "name"), [(0x11, "9.0"), (0x100011, "9.0a"), (0x200011, "9.0f")])
def test_reads_architecture_suffixes(flags: int, name: str) -> None:
    assert fatbin.parse(fat_binary([(2, 90)], flags=flags)) == (frozenset({Entry("sass", name)}),)


def test_skips_padding_between_fat_binaries() -> None:
    first, second = fat_binary([(2, 80)], payload=b"12345"), fat_binary([(2, 90)])
    padding = b"\0" * (-len(first) % 8)
    assert len(padding) > 0
    found = fatbin.parse(first + padding + b"\0" * 16 + second + b"\0" * 3)
    assert found == (frozenset({Entry("sass", "8.0")}), frozenset({Entry("sass", "9.0")}))


def test_empty_section_has_no_fat_binaries() -> None:
    assert fatbin.parse(b"") == ()


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (b"\x7fELF" * 8, "magic 0x464C457F"),
        (fat_binary([(2, 90)])[:-1], "the header states"),
        (fat_binary([(2, 90)])[:10], "truncated"),
        (fat_binary([(7, 90)]), "unknown kind 7"),
        (fat_binary([]).replace(b"\x01\0\x10\0", b"\x02\0\x10\0"), "version 2"),
        # An entry whose stated size exceeds the fat binary.
        (
            fat_binary([(2, 90)]).replace(b"\x10\0\0\0\0\0\0\0\0\0\0\0", b"\xff\0\0\0\0\0\0\0\0\0\0\0"),
            "exceeds the fat binary",
        ),
    ],
)
def test_rejects_a_damaged_section(section: bytes, message: str) -> None:
    with pytest.raises(AuditError, match=message):
        fatbin.parse(section)


@given(st.lists(_ENTRIES, max_size=4))
def test_reads_all_entries(fat_binaries: list[list[tuple[int, int]]]) -> None:
    found = fatbin.parse(b"".join(fat_binary(entries) for entries in fat_binaries))
    assert [{(entry.kind, entry.architecture) for entry in each} for each in found] == [
        {(_KINDS[kind], f"{number // 10}.{number % 10}") for kind, number in entries} for entries in fat_binaries
    ]


@given(st.binary(max_size=200), st.integers(0, 200))
def test_random_bytes_raise_only_audit_errors(noise: bytes, cut: int) -> None:
    good = fat_binary([(2, 90), (1, 90)])
    with contextlib.suppress(AuditError):
        fatbin.parse(good[:cut] + noise + good[cut:])
