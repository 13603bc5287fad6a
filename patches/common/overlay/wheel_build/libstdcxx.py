"""Link a plugin so that it runs with an older libstdc++ than the compiler's own.

A platform tag such as manylinux_2_28 limits the symbol versions that a wheel may need. Headers of newer compilers refer
to newer symbols: g++ 14 to `__cxa_call_terminate@CXXABI_1.3.15`, for example. Red Hat's gcc-toolset solves this by
linking with the old libstdc++.so of the system and taking the missing symbols from a static library. This module does
the same for any g++: a plugin is linked with a stub that has the symbols of the compiler's libstdc++.so up to the
permitted versions, and then with libstdc++.a, from which the linker takes the other symbols. GCC's runtime library
exception permits this. Symbols from libstdc++.a are local to the plugin.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_VERSION = re.compile(r"(?P<prefix>[A-Z]+)_(?P<number>\d+(?:\.\d+)*)")
# The symbols of a stub need a type, because the linker does not mix thread-local and other symbols, but no content.
_SECTIONS = {"FUNC": ".text", "IFUNC": ".text", "OBJECT": ".bss", "TLS": '.section .tbss,"awT",@nobits'}
_TYPES = {"FUNC": "function", "IFUNC": "function", "OBJECT": "object", "TLS": "tls_object"}

Version = tuple[int, ...]


@dataclass(frozen=True)
class Symbol:
    """A dynamic symbol: ``kind`` is readelf's ("FUNC", "OBJECT", "TLS", "IFUNC"), ``version`` e.g. "GLIBCXX_3.4.21"."""

    name: str
    kind: str
    version: str


def parse_limits(text: str) -> dict[str, Version]:
    """Return the newest permitted version by prefix: "GLIBCXX_3.4.24 CXXABI_1.3.11" gives {"GLIBCXX": (3, 4, 24), ...}.

    Raises:
        ValueError: if a word does not have that form.
    """
    limits = {}
    for word in text.split():
        match = _VERSION.fullmatch(word)
        if match is None:
            raise ValueError(f"{word!r} is not a symbol version such as GLIBCXX_3.4.24")
        limits[match["prefix"]] = _number(match["number"])
    return limits


def link_inputs(compiler: str, limits: Mapping[str, Version], folder: Path) -> list[str]:
    """Create the stub in ``folder`` and return the files to link after a plugin's objects and before other libraries.

    The list is empty if the compiler's libstdc++.so is a linker script: such a compiler (gcc-toolset) already takes
    newer symbols from a static library.

    Raises:
        SystemExit: if the compiler has no libstdc++.a.
    """
    shared = _library(compiler, "libstdc++.so")
    if shared is None or not _is_elf(shared):
        return []
    static = _library(compiler, "libstdc++.a")
    if static is None:
        raise SystemExit(f"error: {compiler} has no libstdc++.a: install the static C++ library of this compiler")
    stub = _make_stub(compiler, permitted(_symbols(shared), limits), folder)
    return [str(stub), str(static)]


def permitted(symbols: Iterable[Symbol], limits: Mapping[str, Version]) -> list[Symbol]:
    """Return the symbols whose version is within ``limits``; versions without a number or a limit are not permitted."""
    return [symbol for symbol in symbols if _is_permitted(symbol.version, limits)]


def parse_symbols(table: str) -> Iterator[Symbol]:
    """Yield every defined symbol with its default version from the output of `readelf --dyn-syms --wide`."""
    for line in table.splitlines():
        fields = line.split()
        if len(fields) != 8 or fields[6] == "UND" or fields[3] not in _TYPES:
            continue
        name, separator, version = fields[7].partition("@@")
        if separator:
            yield Symbol(name, fields[3], version)


def stub_source(symbols: Iterable[Symbol]) -> tuple[str, str]:
    """Return an assembly file that defines every symbol, and a version script that gives each its version."""
    assembly = []
    versions: dict[str, list[str]] = {}
    for symbol in symbols:
        lines = (_SECTIONS[symbol.kind], f".globl {symbol.name}", f".type {symbol.name}, @{_TYPES[symbol.kind]}")
        assembly.append("\n".join((*lines, f"{symbol.name}: .skip 1\n")))
        versions.setdefault(symbol.version, []).append(symbol.name)
    script = [
        f"{version} {{ global: {' '.join(f'{name};' for name in names)} }};\n" for version, names in versions.items()
    ]
    return "".join(assembly), "".join(script)


def _is_permitted(version: str, limits: Mapping[str, Version]) -> bool:
    match = _VERSION.fullmatch(version)
    return match is not None and _number(match["number"]) <= limits.get(match["prefix"], ())


def _number(text: str) -> Version:
    return tuple(int(part) for part in text.split("."))


def _library(compiler: str, name: str) -> Path | None:
    """Return the file that ``compiler`` links for ``name``, or None if it prints only the name of a missing library."""
    found = Path(_output([compiler, f"-print-file-name={name}"]).strip())
    return found.resolve() if found.is_absolute() else None


def _is_elf(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(4) == b"\x7fELF"


def _symbols(library: Path) -> Iterator[Symbol]:
    return parse_symbols(_output(["readelf", "--dyn-syms", "--wide", str(library)]))


def _make_stub(compiler: str, symbols: Iterable[Symbol], folder: Path) -> Path:
    """Link the stub; the linker uses only its symbol table."""
    folder.mkdir(parents=True, exist_ok=True)
    assembly, script = folder / "stub.s", folder / "stub.map"
    for file, text in zip((assembly, script), stub_source(symbols), strict=True):
        file.write_text(text, encoding="ascii")
    stub = folder / "libstdc++.so.6"
    options = ["-shared", "-nostdlib", "-Wl,-soname,libstdc++.so.6", f"-Wl,--version-script={script}"]
    _output([compiler, *options, str(assembly), "-o", str(stub)])
    return stub


def _output(command: list[str]) -> str:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise SystemExit(f"error: {' '.join(command)}: {result.stderr.strip()}")
    return result.stdout
