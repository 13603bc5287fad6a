"""Reads PE shared libraries (.pyd, .dll)."""

from __future__ import annotations

from pathlib import Path

import pefile  # type: ignore[import-untyped, unused-ignore]

from scripts.errors import AuditError
from scripts.wheel.shared_library import SharedLibrary

# A PE section name has at most eight bytes, so `.nv_fatbin` is truncated.
_FATBIN = b".nv_fatb"
_DIRECTORIES = [
    pefile.DIRECTORY_ENTRY["IMAGE_DIRECTORY_ENTRY_IMPORT"],
    pefile.DIRECTORY_ENTRY["IMAGE_DIRECTORY_ENTRY_DELAY_IMPORT"],
    pefile.DIRECTORY_ENTRY["IMAGE_DIRECTORY_ENTRY_DEBUG"],
]


def read(path: Path) -> SharedLibrary:
    """Read a PE shared library; names of DLLs are returned in lower case, because Windows ignores case.

    Raises:
        AuditError: if the file is damaged.
    """
    try:
        with pefile.PE(str(path), fast_load=True) as image:
            _check_complete(image, path)
            image.parse_data_directories(directories=_DIRECTORIES)
            imports = [
                *getattr(image, "DIRECTORY_ENTRY_IMPORT", ()),
                *getattr(image, "DIRECTORY_ENTRY_DELAY_IMPORT", ()),
            ]
            return SharedLibrary(
                needed=frozenset(entry.dll.decode("ascii").lower() for entry in imports),
                debug=_debug(image),
                fatbin=b"".join(
                    section.get_data()[: section.Misc_VirtualSize]
                    for section in image.sections
                    if section.Name.rstrip(b"\0") == _FATBIN
                ),
            )
    except (pefile.PEFormatError, UnicodeDecodeError) as error:
        raise AuditError(f"{path.name}: a damaged PE file: {error}") from error


def _check_complete(image: pefile.PE, path: Path) -> None:
    """Raise PEFormatError if the file is truncated, which pefile itself accepts."""
    end = max((section.PointerToRawData + section.SizeOfRawData for section in image.sections), default=0)
    if len(image.sections) < image.FILE_HEADER.NumberOfSections or end > path.stat().st_size:
        raise pefile.PEFormatError("the file is truncated")


def _debug(image: pefile.PE) -> tuple[str, ...]:
    """Return references to .pdb files and GNU debug sections, whose names are "/" and an offset."""
    types = [entry.struct.Type for entry in getattr(image, "DIRECTORY_ENTRY_DEBUG", ())]
    codeview = pefile.DEBUG_TYPE["IMAGE_DEBUG_TYPE_CODEVIEW"]
    sections = [section.Name.rstrip(b"\0").decode("ascii") for section in image.sections]
    return (
        *("reference to a .pdb file" for type_ in types if type_ == codeview),
        *(f"section {name}" for name in sections if name.startswith("/")),
    )
