"""Reads ELF shared libraries."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from elftools.common.exceptions import ELFError
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection, GNUVerSymSection
from elftools.elf.sections import SymbolTableSection

from scripts.errors import AuditError
from scripts.wheel.shared_library import SharedLibrary

_DEBUG_PREFIXES = (".debug", ".zdebug", ".gdb_index", ".stab")


def read(path: Path) -> SharedLibrary:
    """Read an ELF shared library.

    Raises:
        AuditError: if the file is damaged.
    """
    try:
        with path.open("rb") as file:
            image = ELFFile(file)
            names = [section.name for section in image.iter_sections()]
            fatbin = image.get_section_by_name(".nv_fatbin")
            return SharedLibrary(
                needed=frozenset(_dynamic(image, "DT_NEEDED", "needed")),
                run_paths=(*_dynamic(image, "DT_RPATH", "rpath"), *_dynamic(image, "DT_RUNPATH", "runpath")),
                versions=_versions(image),
                symbols=_symbols(image),
                debug=tuple(name for name in names if name.startswith(_DEBUG_PREFIXES)),
                fatbin=fatbin.data() if fatbin else b"",
            )
    # For a damaged file, pyelftools also raises errors of other types.
    except (ELFError, ValueError, KeyError, IndexError, AttributeError, UnicodeDecodeError, OverflowError) as error:
        raise AuditError(f"{path.name}: a damaged ELF file: {error}") from error


def _dynamic(image: ELFFile, tag: str, attribute: str) -> list[str]:
    section = image.get_section_by_name(".dynamic")
    if not isinstance(section, DynamicSection):
        return []
    return [getattr(entry, attribute) for entry in section.iter_tags(tag)]


def _versions(image: ELFFile) -> Mapping[str, frozenset[str]]:
    """Return the required symbol versions by prefix: GLIBC_2.2.5 gives {"GLIBC": {"2.2.5"}}.

    Versions without the form PREFIX_NUMBER are omitted, because platform tags do not limit them.
    """
    versions: dict[str, set[str]] = defaultdict(set)
    section = image.get_section_by_name(".gnu.version_r")
    if isinstance(section, GNUVerNeedSection):
        for _, auxiliaries in section.iter_versions():
            for auxiliary in auxiliaries:
                prefix, separator, number = auxiliary.name.partition("_")
                if separator:
                    versions[prefix].add(number)
    return {prefix: frozenset(numbers) for prefix, numbers in versions.items()}


def _symbols(image: ELFFile) -> Mapping[str, frozenset[str]]:
    """Return the names of the undefined symbols by their required version."""
    needed, table = image.get_section_by_name(".gnu.version_r"), image.get_section_by_name(".dynsym")
    indexes = image.get_section_by_name(".gnu.version")
    if not isinstance(needed, GNUVerNeedSection) or not isinstance(indexes, GNUVerSymSection):
        return {}
    assert isinstance(table, SymbolTableSection)
    names = {auxiliary["vna_other"]: auxiliary.name for _, others in needed.iter_versions() for auxiliary in others}
    symbols: dict[str, set[str]] = defaultdict(set)
    for symbol, version in zip(table.iter_symbols(), indexes.iter_symbols(), strict=True):
        if symbol["st_shndx"] == "SHN_UNDEF" and version["ndx"] in names:
            symbols[names[version["ndx"]]].add(symbol.name)
    return {version: frozenset(found) for version, found in symbols.items()}
