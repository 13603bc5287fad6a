"""Reads PE and ELF libraries and searches the system for the libraries they need; used only after a failure."""

from __future__ import annotations

import mmap
import os
import re
import struct
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from . import _paths

_PE_MACHINES = {0x8664: "x86_64", 0x14C: "i386", 0xAA64: "aarch64"}
_ELF_MACHINES = {62: "x86_64", 3: "i386", 183: "aarch64"}
# Windows provides libraries with these names without a file (API sets).
_VIRTUAL = ("api-ms-win-", "ext-ms-")
# The number of bytes that are examined in a file of unknown format.
_START = 4096
_SYSTEM_FOLDERS = ("/lib64", "/usr/lib64", "/lib", "/usr/lib", "/usr/local/lib")


class DamagedError(ValueError):
    """A file is not a library, or is incomplete."""


class Binary(NamedTuple):
    """The content of a library that matters for loading it.

    ``format`` is "pe" or "elf", and ``machine`` is, for example, "x86_64". ``needed`` has the names of the libraries
    that it needs. ``imports`` has the functions that it imports from each library, and ``exports`` the functions that
    it contains (PE only). ``paths`` has the folders in which an ELF file searches for libraries (RPATH, RUNPATH).
    """

    format: str
    machine: str
    needed: tuple[str, ...]
    imports: Mapping[str, tuple[str, ...]]
    exports: frozenset[str]
    paths: tuple[str, ...]


class Fault(NamedTuple):
    """The reason why a library cannot be loaded.

    ``kind`` is "missing", "damaged", "unreadable", "foreign" (built for another machine) or "symbol" (a function is
    missing). ``library`` is the name or the file of the library, ``needed_by`` the file that needs it, and ``detail``
    a description of the fault.
    """

    kind: str
    library: str
    needed_by: Path
    detail: str


def read(path: Path) -> Binary:
    """Read a library.

    Raises:
        DamagedError: if the file is not a library, or is truncated.
        OSError: if the file cannot be read.
    """
    if not path.stat().st_size:
        raise DamagedError("it is empty")
    # torch's libraries have gigabytes, and only small parts of them are read.
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            if data[:2] == b"MZ":
                return _read_pe(data)
            if data[:4] == b"\x7fELF":
                return _read_elf(data)
        except (struct.error, IndexError, OverflowError, ValueError) as error:
            raise error if isinstance(error, DamagedError) else DamagedError("it is truncated or altered") from error
        if not any(data[:_START]):
            raise DamagedError("it contains only zeros")
    raise DamagedError("it is not a shared library")


def find_faults(module: Path, folders: Iterable[Path], loaded: Iterable[Path], machine: str) -> list[Fault]:
    """Return the faults of ``module`` and of the libraries that it needs, directly needed libraries first.

    folders: searched in this order, before the system's own folders; loaded: the libraries that this process has
    loaded already; machine: the machine of this process, for example "x86_64".
    """
    try:
        first = read(module)
    except (DamagedError, OSError) as error:
        return [_unusable(module, module, error)]
    if first.machine != machine:
        return [Fault("foreign", str(module), module, f"it is for {first.machine}, not for {machine}")]
    names = {file.name.lower() if first.format == "pe" else file.name: file for file in loaded}
    search = _Search(first.format, tuple(folders), names)
    found: dict[tuple[str, str], Fault] = {}
    seen: set[Path] = set()
    queue = [(module, first, first.paths)]
    while queue:
        file, binary, paths = queue.pop(0)
        for name in binary.needed:
            place, closed = search.find(name, file, paths)
            if place is None:
                inner, fault = None, _fault_of_absent(name, closed, file, first.format)
            else:
                fault, inner = _examine(name, place, file, binary, machine)
            if fault is not None:
                found.setdefault((fault.library, fault.detail), fault)
            if inner is not None and place is not None and place not in seen and not search.is_system(place):
                seen.add(place)
                queue.append((place, inner, (*inner.paths, *paths)))
    return list(found.values())


def _fault_of_absent(name: str, closed: Path | None, file: Path, format_: str) -> Fault | None:
    """Return the fault of a library that was not found; ``closed`` is a folder that this user may not search."""
    if _is_provided(name, format_):
        return None
    if closed is not None:
        return Fault("unreadable", str(closed), file, f"this user may not search it for {name}")
    return Fault("missing", name, file, "")


def _unusable(library: Path, needed_by: Path, error: DamagedError | OSError) -> Fault:
    """Return the fault of a library that could not be read."""
    if isinstance(error, OSError):
        return Fault("unreadable", str(library), needed_by, f"it cannot be read: {error.strerror or error}")
    return Fault("damaged", str(library), needed_by, str(error))


def _examine(name: str, place: Path, file: Path, binary: Binary, machine: str) -> tuple[Fault | None, Binary | None]:
    """Return the fault of a library that was found, or None, and its content if it can be read."""
    try:
        inner = read(place)
    except (DamagedError, OSError) as error:
        return _unusable(place, file, error), None
    if inner.machine != machine:
        return Fault("foreign", str(place), file, f"it is for {inner.machine}, not for {machine}"), None
    absent = sorted(set(binary.imports.get(name, ())) - inner.exports)
    if binary.format == "pe" and absent and not _is_provided(name, "pe"):
        return Fault("symbol", str(place), file, f"it does not contain {absent[0]}"), inner
    return None, inner


class _Search:
    """The search of a system's loader for libraries."""

    def __init__(self, format_: str, folders: tuple[Path, ...], loaded: Mapping[str, Path]) -> None:
        self._format, self._folders, self._loaded = format_, folders, loaded
        self._system = _windows_folders() if format_ == "pe" else _linux_folders()

    def find(self, name: str, needed_by: Path, paths: tuple[str, ...]) -> tuple[Path | None, Path | None]:
        """Return the file of a library; or None and the first folder, if any, that this user may not search.

        ``paths`` are the search paths of the file ``needed_by``.
        """
        key = name.lower() if self._format == "pe" else name
        if key in self._loaded:
            return self._loaded[key], None
        expected = (needed_by.parent,) if self._format == "pe" else tuple(_expand(paths, needed_by))
        others = () if self._format == "pe" else tuple(_folders_in("LD_LIBRARY_PATH"))
        for folder in (*expected, *others, *self._folders, *self._system):
            if _paths.is_file(folder / name):
                return folder / name, None
        return None, next((folder for folder in (*expected, *self._folders) if _is_closed(folder / name)), None)

    def is_system(self, place: Path) -> bool:
        """Return whether the file is a library of the system, whose own needs are not examined."""
        return place.parent in self._system


def _is_provided(name: str, format_: str) -> bool:
    """Return whether the system provides the library without a file with that name."""
    if format_ == "pe":
        return name.lower().startswith(_VIRTUAL)
    return name.startswith(("ld-linux", "linux-vdso"))


def _expand(paths: Iterable[str], origin: Path) -> Iterator[Path]:
    """Yield the folders of an ELF file's search paths; ``origin`` is the file."""
    for path in paths:
        for part in filter(None, path.split(":")):
            yield Path(part.replace("${ORIGIN}", str(origin.parent)).replace("$ORIGIN", str(origin.parent)))


def _folders_in(variable: str) -> list[Path]:
    return [Path(part) for part in os.environ.get(variable, "").split(os.pathsep) if part]


def _windows_folders() -> tuple[Path, ...]:
    root = Path(os.environ.get("SYSTEMROOT", r"C:\Windows"))
    return (Path(sys.executable).parent, Path(sys.base_prefix), Path(sys.base_prefix, "DLLs"), root / "System32", root)


def _linux_folders() -> tuple[Path, ...]:
    found: list[str | Path] = [*_folders_in_config(Path("/etc/ld.so.conf")), *_SYSTEM_FOLDERS]
    found += [folder for root in ("/lib", "/usr/lib") for folder in sorted(Path(root).glob("*-linux-*"))]
    return tuple(dict.fromkeys(map(Path, found)))


def _folders_in_config(file: Path, depth: int = 4) -> Iterator[str]:
    """Yield the folders that ld.so.conf and the files included by it list."""
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in (line.partition("#")[0].strip() for line in lines):
        included = re.match(r"include\s+(.+)", line)
        if included and depth:
            pattern = included[1].strip()
            root, inner = (Path("/"), pattern[1:]) if pattern.startswith("/") else (file.parent, pattern)
            for name in sorted(root.glob(inner)):
                yield from _folders_in_config(name, depth - 1)
        elif line.startswith("/"):
            yield line


def _is_closed(path: Path) -> bool:
    """Return whether this user may not look up the file."""
    try:
        path.stat()
    except PermissionError:
        return True
    except OSError:
        return False
    return False


class _Pe:
    """A PE file with access to its content by memory address."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        (start,) = struct.unpack_from("<I", data, 0x3C)
        if data[start : start + 4] != b"PE\0\0":
            raise DamagedError("it is not a PE file")
        machine, count, _, _, _, size, _ = struct.unpack_from("<HHIIIHH", data, start + 4)
        self.machine = _PE_MACHINES.get(machine, f"machine {machine:#x}")
        optional = start + 24
        (magic,) = struct.unpack_from("<H", data, optional)
        self.wide = magic == 0x20B
        self._directories = optional + (112 if self.wide else 96)
        self._sections: list[tuple[int, int, int]] = []
        for number in range(count):
            _, _, memory, length, place = struct.unpack_from("<8sIIII", data, optional + size + 40 * number)
            if place + length > len(data):
                raise DamagedError(f"it is truncated: {len(data)} bytes of at least {place + length}")
            self._sections.append((memory, length, place))

    def directory(self, number: int) -> int:
        """Return the memory address of a table, or 0 if the file has no such table."""
        return int(struct.unpack_from("<I", self.data, self._directories + 8 * number)[0])

    def at(self, address: int) -> int:
        """Return the offset in the file of a memory address."""
        for memory, length, place in self._sections:
            if memory <= address < memory + length:
                return place + address - memory
        raise DamagedError("it refers to an address outside of the file")

    def text(self, address: int) -> str:
        """Return the text at a memory address."""
        place = self.at(address)
        return self.data[place : self._end(place)].decode("ascii")

    def _end(self, place: int) -> int:
        end = self.data.find(b"\0", place)
        if end < 0:
            raise DamagedError("a name in it has no end")
        return end

    def numbers(self, address: int, count: int) -> tuple[int, ...]:
        """Return ``count`` 32-bit numbers at a memory address."""
        found: tuple[int, ...] = struct.unpack_from(f"<{count}I", self.data, self.at(address))
        return found


def _read_pe(data: mmap.mmap) -> Binary:
    image = _Pe(data)
    imports: dict[str, tuple[str, ...]] = {}
    table = image.directory(1)
    while table:
        names, _, _, name, first = image.numbers(table, 5)
        if not name:
            break
        imports[image.text(name)] = tuple(_imported_names(image, names or first))
        table += 20
    exports: frozenset[str] = frozenset()
    if image.directory(0):
        values = image.numbers(image.directory(0), 10)
        count, place = values[6], values[8]
        exports = frozenset(image.text(address) for address in image.numbers(place, count)) if count else frozenset()
    return Binary("pe", image.machine, tuple(imports), imports, exports, ())


def _imported_names(image: _Pe, table: int) -> Iterator[str]:
    """Yield the names of the functions that are imported from one DLL; imports by ordinal number are skipped."""
    size, flag = (8, 1 << 63) if image.wide else (4, 1 << 31)
    place = image.at(table)
    while True:
        value = int.from_bytes(image.data[place : place + size], "little")
        if not value:
            return
        if not value & flag:
            yield image.text((value & 0x7FFFFFFF) + 2)
        place += size


def _read_elf(data: mmap.mmap) -> Binary:
    if data[4] != 2 or data[5] != 1:
        raise DamagedError("it is not a 64-bit little-endian ELF file")
    machine = _ELF_MACHINES.get(struct.unpack_from("<H", data, 18)[0], "another machine")
    program, sections = struct.unpack_from("<QQ", data, 32)
    size, count, section_size, section_count = struct.unpack_from("<HHHH", data, 54)
    end = sections + section_size * section_count if sections else 0
    loads, dynamic = [], None
    for number in range(count):
        kind, _, place, memory, _, length, _, _ = struct.unpack_from("<IIQQQQQQ", data, program + size * number)
        end = max(end, place + length)
        if kind == 1:
            loads.append((memory, length, place))
        elif kind == 2:
            dynamic = place, length
    if end > len(data):
        raise DamagedError(f"it is truncated: {len(data)} bytes of at least {end}")
    needed, paths = _dynamic(data, dynamic, loads) if dynamic else ([], [])
    return Binary("elf", machine, tuple(needed), {}, frozenset(), tuple(paths))


def _dynamic(data: mmap.mmap, table: tuple[int, int], loads: list[tuple[int, int, int]]) -> tuple[list[str], list[str]]:
    """Return the needed libraries and the search paths."""
    entries = list(struct.iter_unpack("<QQ", data[table[0] : table[0] + table[1] // 16 * 16]))
    strings = next((value for tag, value in entries if tag == 5), None)
    if strings is None:
        raise DamagedError("its dynamic section is empty")
    where = [place + strings - memory for memory, length, place in loads if memory <= strings < memory + length]
    if not where:
        return [], []

    def text(offset: int) -> str:
        place = where[0] + offset
        return data[place : data.find(b"\0", place)].decode("utf-8", "surrogateescape")

    needed = [text(value) for tag, value in entries if tag == 1]
    if not all(needed):
        raise DamagedError("the names of the libraries that it needs were replaced by zeros")
    return needed, [text(value) for tag, value in entries if tag in (15, 29)]
