"""Reading `.nv_fatbin`: what is there is found, what is damaged is refused and never guessed."""

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


def test_kinds_and_architectures() -> None:
    (found,) = fatbin.parse(fat_binary([(2, 75), (1, 120), (2, 120)]))
    assert found == {Entry("sass", "7.5"), Entry("ptx", "12.0"), Entry("sass", "12.0")}


@pytest.mark.parametrize(("flags", "name"), [(0x11, "9.0"), (0x100011, "9.0a"), (0x200011, "9.0f")])
def test_suffixes(flags: int, name: str) -> None:
    assert fatbin.parse(fat_binary([(2, 90)], flags=flags)) == (frozenset({Entry("sass", name)}),)


def test_every_fat_binary_is_seen_with_the_linkers_padding_between_them() -> None:
    first, second = fat_binary([(2, 80)], payload=b"12345"), fat_binary([(2, 90)])
    padding = b"\0" * (-len(first) % 8)
    assert len(padding) > 0
    found = fatbin.parse(first + padding + b"\0" * 16 + second + b"\0" * 3)
    assert found == (frozenset({Entry("sass", "8.0")}), frozenset({Entry("sass", "9.0")}))


def test_nothing_is_no_fat_binary() -> None:
    assert fatbin.parse(b"") == ()


@pytest.mark.parametrize(
    ("section", "said"),
    [
        (b"\x7fELF" * 8, "magic 0x464C457F"),
        (fat_binary([(2, 90)])[:-1], "announced"),
        (fat_binary([(2, 90)])[:10], "cut short"),
        (fat_binary([(7, 90)]), "unknown kind 7"),
        (fat_binary([]).replace(b"\x01\0\x10\0", b"\x02\0\x10\0"), "version 2"),
        # An entry that says it is larger than its fat binary.
        (fat_binary([(2, 90)]).replace(b"\x10\0\0\0\0\0\0\0\0\0\0\0", b"\xff\0\0\0\0\0\0\0\0\0\0\0"), "does not fit"),
    ],
)
def test_what_is_damaged_is_refused(section: bytes, said: str) -> None:
    with pytest.raises(AuditError, match=said):
        fatbin.parse(section)


@given(st.lists(_ENTRIES, max_size=4))
def test_what_goes_in_comes_out(fat_binaries: list[list[tuple[int, int]]]) -> None:
    found = fatbin.parse(b"".join(fat_binary(entries) for entries in fat_binaries))
    assert [{(entry.kind, entry.architecture) for entry in each} for each in found] == [
        {(_KINDS[kind], f"{number // 10}.{number % 10}") for kind, number in entries} for entries in fat_binaries
    ]


@given(st.binary(max_size=200), st.integers(0, 200))
def test_noise_never_raises_anything_else(noise: bytes, cut: int) -> None:
    good = fat_binary([(2, 90), (1, 90)])
    with contextlib.suppress(AuditError):
        fatbin.parse(good[:cut] + noise + good[cut:])
