"""Parses an `.nv_fatbin` section, which contains one fat binary for each compiled .cu file.

NVIDIA does not document the format; tests/integration/test_fatbin_cuda.py compares the results with cuobjdump. All
numbers are little-endian. A fat binary is a header (u32 magic, u16 version, u16 header size, u64 size of the entries)
and entries (u16 kind at offset 0, u32 header size at 4, u64 payload size at 8, u32 architecture at 28, u64 flags at 40;
two bits of the flags stand for the suffixes of sm_90a and sm_100f).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Literal

from scripts.errors import AuditError

Kind = Literal["ptx", "sass"]

_MAGIC = 0xBA55ED50
_CONTAINER = struct.Struct("<IHHQ")
_ENTRY = struct.Struct("<H2xIQ12xI8xQ")
_KINDS: dict[int, Kind] = {1: "ptx", 2: "sass"}
_ARCHITECTURE_SPECIFIC = 1 << 20
_FAMILY_SPECIFIC = 1 << 21
_ALIGNMENT = 8


@dataclass(frozen=True, order=True)
class Entry:
    """The code of one .cu file for one architecture, such as SASS for "9.0" or PTX for "12.0".

    Code for "9.0a" runs on no other architecture, and code for "10.0f" runs only on its family.
    """

    kind: Kind
    architecture: str


FatBinary = frozenset[Entry]


def parse(section: bytes) -> tuple[FatBinary, ...]:
    """Return the fat binaries of an `.nv_fatbin` section in their order.

    Raises:
        AuditError: if the section is malformed or truncated, or contains an unknown kind of entry.
    """
    found: list[FatBinary] = []
    offset = 0
    while offset < len(section):
        if not any(section[offset : offset + _ALIGNMENT]):
            offset += _ALIGNMENT
            continue
        begin, end = _container(section, offset)
        found.append(frozenset(_entries(section, begin, end)))
        offset = end + -end % _ALIGNMENT
    return tuple(found)


def _container(section: bytes, offset: int) -> tuple[int, int]:
    """Return the offsets where the entries of the fat binary at ``offset`` begin and end."""
    if len(section) - offset < _CONTAINER.size:
        raise _malformed(offset, "the header is truncated")
    magic, version, header, size = _CONTAINER.unpack_from(section, offset)
    if magic != _MAGIC:
        raise _malformed(offset, f"magic 0x{magic:08X} instead of 0x{_MAGIC:08X}")
    if version != 1 or header < _CONTAINER.size:
        raise _malformed(offset, f"version {version}, header of {header} bytes")
    if offset + header + size > len(section):
        raise _malformed(offset, f"the header states {size} bytes, but {len(section) - offset - header} follow")
    return offset + header, offset + header + size


def _entries(section: bytes, begin: int, end: int) -> list[Entry]:
    entries: list[Entry] = []
    offset = begin
    while offset < end:
        if end - offset < _ENTRY.size:
            raise _malformed(offset, "an entry is truncated")
        kind, header, size, architecture, flags = _ENTRY.unpack_from(section, offset)
        if kind not in _KINDS:
            raise _malformed(offset, f"an entry has the unknown kind {kind}")
        if header < _ENTRY.size or offset + header + size > end:
            raise _malformed(offset, f"an entry of {header}+{size} bytes exceeds the fat binary")
        entries.append(Entry(_KINDS[kind], _capability(architecture, flags)))
        offset += header + size
    return entries


def _capability(architecture: int, flags: int) -> str:
    suffix = "a" if flags & _ARCHITECTURE_SPECIFIC else "f" if flags & _FAMILY_SPECIFIC else ""
    return f"{architecture // 10}.{architecture % 10}{suffix}"


def _malformed(offset: int, why: str) -> AuditError:
    return AuditError(f".nv_fatbin at offset {offset}: {why}", hint="compare with `cuobjdump --list-elf --list-ptx`")
