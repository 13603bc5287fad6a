"""Creates PE shared libraries (.pyd, .dll) without a compiler or linker."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence

AMD64, I386 = 0x8664, 0x14C
_HEADERS = 0x400
_IN_FILE, _IN_MEMORY = 0x200, 0x1000
_DIRECTORIES = {"export": 0, "import": 1, "delay": 13}
_READABLE = 0x40000040  # initialized data


def library(
    needed: Mapping[str, Sequence[str]] | Iterable[str] = (),
    *,
    name: str = "library.dll",
    exports: Sequence[str] = (),
    delayed: Iterable[str] = (),
    sections: Mapping[str, bytes] | None = None,
    machine: int = AMD64,
) -> bytes:
    """Return the contents of a DLL ``name`` that imports functions from the ``needed`` DLLs and exports ``exports``.

    If ``needed`` lists no functions, the DLL imports "function" from each of them. ``delayed`` DLLs are loaded at the
    first call of their functions. ``sections`` maps the names of additional sections to their contents. The DLL
    contains no code, so its exports cannot be called.
    """
    imports = dict(needed) if isinstance(needed, Mapping) else dict.fromkeys(needed, ("function",))
    data = _Data(_IN_MEMORY)
    directories = {
        "import": _imports(data, imports, 8 if machine == AMD64 else 4),
        "delay": _delayed(data, delayed, 8 if machine == AMD64 else 4),
        "export": _exports(data, name, exports),
    }
    return _image(machine, directories, {".rdata": bytes(data.content), **(sections or {})})


class _Data:
    """A growing section; its methods add data and return the address in memory."""

    def __init__(self, address: int) -> None:
        self.address, self.content = address, bytearray()

    def add(self, content: bytes) -> int:
        self.content += bytes(-len(self.content) % 8)
        place = self.address + len(self.content)
        self.content += content
        return place

    def text(self, text: str) -> int:
        return self.add(text.encode("ascii") + b"\0")

    def thunks(self, functions: Iterable[str], size: int) -> int:
        """Add the import table of one DLL: the hint and name of each function, then a zero."""
        names = [self.add(struct.pack("<H", 0) + function.encode("ascii") + b"\0") for function in functions]
        return self.add(b"".join(place.to_bytes(size, "little") for place in [*names, 0]))


def _imports(data: _Data, imports: Mapping[str, Sequence[str]], size: int) -> tuple[int, int]:
    rows = [
        struct.pack("<5I", data.thunks(functions, size), 0, 0, data.text(dll), data.thunks(functions, size))
        for dll, functions in imports.items()
    ]
    table = b"".join(rows) + bytes(20)
    return (data.add(table), len(table)) if rows else (0, 0)


def _delayed(data: _Data, dlls: Iterable[str], size: int) -> tuple[int, int]:
    rows = []
    for dll in dlls:
        name, handle = data.text(dll), data.add(bytes(8))
        addresses, names = data.thunks(["function"], size), data.thunks(["function"], size)
        rows.append(struct.pack("<8I", 1, name, handle, addresses, names, 0, 0, 0))
    table = b"".join(rows) + bytes(32)
    return (data.add(table), len(table)) if rows else (0, 0)


def _exports(data: _Data, name: str, exports: Sequence[str]) -> tuple[int, int]:
    if not exports:
        return 0, 0
    names = b"".join(struct.pack("<I", data.text(export)) for export in sorted(exports))
    functions = struct.pack("<I", data.address) * len(exports)
    ordinals = struct.pack(f"<{len(exports)}H", *range(len(exports)))
    tables = data.add(functions), data.add(names), data.add(ordinals)
    header = struct.pack("<IIHHIIIIIII", 0, 0, 0, 0, data.text(name), 1, len(exports), len(exports), *tables)
    return data.add(header), len(header)


def _image(machine: int, directories: Mapping[str, tuple[int, int]], sections: Mapping[str, bytes]) -> bytes:
    table, body, address, place = b"", b"", _IN_MEMORY, _HEADERS
    for name, content in sections.items():
        raw = content + bytes(-len(content) % _IN_FILE)
        sizes = (len(content), address, len(raw), place)
        table += struct.pack("<8s4I2I2HI", name.encode("ascii"), *sizes, 0, 0, 0, 0, _READABLE)
        body += raw
        place += len(raw)
        address += -(-max(len(content), 1) // _IN_MEMORY) * _IN_MEMORY
    entries = [(0, 0)] * 16
    for which, entry in directories.items():
        entries[_DIRECTORIES[which]] = entry
    optional = _optional(machine, address) + b"".join(struct.pack("<II", *entry) for entry in entries)
    # The flags of an executable DLL without symbols.
    coff = struct.pack("<HHIIIHH", machine, len(sections), 0, 0, 0, len(optional), 0x2022)
    dos = b"MZ" + bytes(58) + struct.pack("<I", 64)
    headers = dos + b"PE\0\0" + coff + optional + table
    return headers + bytes(_HEADERS - len(headers)) + body


def _optional(machine: int, size: int) -> bytes:
    """Return the optional header without directories: no entry point, Windows 6.0, console subsystem."""
    wide = machine == AMD64
    start = struct.pack("<HBB5I", 0x20B if wide else 0x10B, 14, 0, 0, 0, 0, 0, _IN_MEMORY)
    base = struct.pack("<Q", 0x180000000) if wide else struct.pack("<II", 0, 0x10000000)
    middle = struct.pack("<II6H4I2H", _IN_MEMORY, _IN_FILE, 6, 0, 0, 0, 6, 0, 0, size, _HEADERS, 0, 3, 0x160)
    stack = struct.pack("<4Q" if wide else "<4I", 0x100000, 0x1000, 0x100000, 0x1000)
    return start + base + middle + stack + struct.pack("<II", 0, 16)
