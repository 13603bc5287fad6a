"""Finds the reasons why the system cannot load a module's file or a library that it needs."""

from __future__ import annotations

import importlib.machinery
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from . import _binaries, _dll_folders, _hints, _installation, _paths, _refusals
from ._hints import Hint
from ._problem import Facts, Problem, with_hint

_UNDEFINED_SYMBOL = re.compile(r"undefined symbol: (?P<symbol>\S+)")
_NO_PROCEDURE = "procedure could not be found"
_MISSING_LIBRARY = re.compile(
    r"(?P<library>[^\s:']+): cannot open shared object file(?:: No such file|$)", re.MULTILINE
)
_UNREADABLE = re.compile(r"Permission denied|Access is denied|Input/output error")
# Messages of musl's loader.
_MUSL = re.compile(r"Error (?:loading shared library|relocating) ")
_TOO_OLD = re.compile(
    r"version [`'](?P<version>(?:GLIBC|GLIBCXX|CXXABI)_[\d.]+)' not found(?: \(required by (?P<by>[^)]+)\))?"
)
_DAMAGED = (
    "file too short",
    "its end contains only zeros",
    "invalid ELF header",
    "object file has no dynamic section",
    "is not a valid Win32 application",
    "ELF file data encoding",
)
# Windows error numbers; Windows translates the messages.
_DENIED, _NO_SUCH_PROCEDURE, _BAD_FORMAT = 5, 127, 193
_GRAPHICS = ("libGL.so", "libEGL.so", "libOpenGL.so", "libGLX.so", "libGLdispatch.so")
_DRIVER = ("libcuda.so", "nvcuda.dll", "libnvidia-")
_TORCH = ("libtorch", "libc10", "libshm", "torch", "c10", "shm.dll", "uv.dll", "fbgemm", "asmjit", "libiomp5md")


def is_musl() -> bool:
    """Return whether this Python is built for the C library musl; the wheels are built for glibc."""
    return any("-musl" in suffix for suffix in importlib.machinery.EXTENSION_SUFFIXES)


def find_refusals(facts: Facts) -> Iterator[Problem]:
    """Find the reason for which the system refuses to load a file, even if the file is intact."""
    if facts.error is None:
        return
    if is_musl() or _MUSL.search(facts.text):
        advice = "Use a system with glibc, such as Debian, Ubuntu or Fedora, or a container image of one."
        summary = "the wheel needs glibc, and this system's C library is musl"
        yield Problem("system-musl", summary, (facts.text, advice), "")
        return
    found = _refusals.find(facts.text, facts.number, facts.file)
    if found is not None:
        reason, command = found
        yield Problem(reason.code, reason.summary, (facts.text, reason.advice), command)


def find_faulty_files(facts: Facts) -> Iterator[Problem]:
    """Find libraries that are missing, damaged, unreadable, or too new for this system."""
    folders = _library_folders(facts)
    faults = _binaries.find_faults(facts.file, folders, _installation.loaded_libraries(), _installation.machine())
    kinds = {fault.kind for fault in faults}
    yield from (_of_fault(fault, folders, facts) for fault in faults)
    missing = _MISSING_LIBRARY.search(facts.text)
    if missing and not str(facts.file).endswith(missing["library"]) and not kinds & {"missing", "unreadable"}:
        yield _missing(missing["library"], facts.file, folders, facts)
    if "damaged" not in kinds and (facts.number == _BAD_FORMAT or any(text in facts.text for text in _DAMAGED)):
        yield with_hint("library-damaged", f"the system refuses a file: {facts.text}", (), facts.reinstall())
    if "unreadable" not in kinds:
        yield from _find_denial(facts)
    old = _TOO_OLD.search(facts.text)
    if old:
        summary = f"this system is too old for the wheel: it has no {old['version']}"
        details = (f"needed by {old['by']}",) if old["by"] else ()
        yield Problem("system-too-old", summary, (*details, "Use a newer system, or a container image of one."), "")


def find_missing_symbols(facts: Facts) -> Iterator[Problem]:
    """Find functions that the system did not find in any library."""
    undefined = _UNDEFINED_SYMBOL.search(facts.text)
    if undefined or _NO_PROCEDURE in facts.text or facts.number == _NO_SUCH_PROCEDURE:
        function = undefined["symbol"] if undefined else "a function that the module needs"
        summary = f"no library contains {function}: a library has another version than at build time"
        details = (facts.text, f"If the command does not help, run this too: {facts.reinstall().command}")
        yield with_hint("symbol-missing", summary, details, facts.replace_torch())


def _library_folders(facts: Facts) -> list[Path]:
    """Return the folders that can contain libraries, beside those that the files name and the system's own."""
    folders = _dll_folders.find() or [_paths.BUNDLED_LIBRARIES]
    if facts.torch and facts.torch.get("path"):
        folders.append(Path(facts.torch["path"], "lib"))
    return list(dict.fromkeys(folders))


def _of_fault(fault: _binaries.Fault, folders: list[Path], facts: Facts) -> Problem:
    if fault.kind == "missing":
        return _missing(fault.library, fault.needed_by, folders, facts)
    needed = (f"needed by {fault.needed_by}",) if fault.library != str(fault.needed_by) else ()
    name = Path(fault.library).name
    if fault.kind == "unreadable":
        return _unreadable(f"{fault.library}: {fault.detail}", needed, Path(fault.library))
    hint = facts.replace_torch() if name.lower().startswith(_TORCH) else facts.reinstall()
    if fault.kind == "symbol":
        summary = f"{name} has another version than at build time: {fault.detail}"
        return with_hint("symbol-missing", summary, (fault.library, *needed), hint)
    return with_hint("library-damaged", f"{fault.library}: {fault.detail}", needed, hint)


def _find_denial(facts: Facts) -> Iterator[Problem]:
    """Find that this user may not read a file; the system's message does not always name the file."""
    if _refusals.find(facts.text, facts.number, facts.file) is not None:
        return
    if facts.number == _DENIED or _UNREADABLE.search(facts.text):
        yield _unreadable(f"this user may not read a file: {facts.text}", (), facts.file.parent)


def _unreadable(summary: str, details: tuple[str, ...], place: Path) -> Problem:
    if sys.platform == "win32":
        advice, command = "The command shows who may read it. Antivirus programs can deny access too.", "icacls"
    else:
        advice, command = "The owner of the file allows access with the command.", "chmod -R a+rX"
    return Problem("file-unreadable", summary, (*details, advice), f"{command} {_hints.quoted(place)}")


def _missing(library: str, needed_by: Path, folders: list[Path], facts: Facts) -> Problem:
    searched = tuple(f"searched {folder}" for folder in folders)
    details = (f"needed by {needed_by}", *searched, "searched the system's own folders")
    return with_hint("library-missing", f"{library} is missing", details, _hint_for(library, facts))


def _hint_for(library: str, facts: Facts) -> Hint:
    """Return the command that installs a missing library, and a note that names the product it belongs to."""
    name = library.lower()
    if library.startswith(_GRAPHICS):
        note = (
            f"{library} belongs to the graphics driver, and wheels do not contain it. A container also needs "
            "NVIDIA_DRIVER_CAPABILITIES=all. RasterizeCudaContext works without it."
        )
        return Hint("apt-get install libgl1 libegl1" if shutil.which("apt-get") else "", note)
    if name.startswith(_DRIVER):
        note = f"{library} belongs to NVIDIA's driver: install the driver, or start the container with GPU access."
        return Hint("", note)
    if name.startswith(("vcruntime", "msvcp", "concrt")):
        note = f"{library} belongs to Microsoft's Visual C++ runtime, vc_redist.x64.exe."
        return Hint(_refusals.UPDATE_VISUAL_CPP, note)
    if re.match(r"(lib)?python3", name):
        hint = _hints.install_for_this_python(facts.info)
        return hint._replace(note=f"{library} belongs to another Python. {hint.note}".rstrip())
    if name.startswith(_TORCH):
        hint = facts.replace_torch()
        return hint._replace(note=f"{library} belongs to torch. {hint.note}".rstrip())
    return facts.reinstall()
