"""Finds what keeps the system from loading a module's file or a library that it needs."""

from __future__ import annotations

import importlib.machinery
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from . import _binaries, _hints, _installation, _loader, _refusals
from ._hints import Hint
from ._problem import Case, Problem, with_hint

_UNDEFINED_SYMBOL = re.compile(r"undefined symbol: (?P<symbol>\S+)")
_NO_PROCEDURE = "procedure could not be found"
_MISSING_LIBRARY = re.compile(
    r"(?P<library>[^\s:']+): cannot open shared object file(?:: No such file|$)", re.MULTILINE
)
_UNREADABLE = re.compile(r"Permission denied|Access is denied|Input/output error")
# The words of musl's own loader.
_MUSL = re.compile(r"Error (?:loading shared library|relocating) ")
_TOO_OLD = re.compile(
    r"version [`'](?P<version>(?:GLIBC|GLIBCXX|CXXABI)_[\d.]+)' not found(?: \(required by (?P<by>[^)]+)\))?"
)
_DAMAGED = (
    "file too short",
    "its end holds only zeros",
    "invalid ELF header",
    "object file has no dynamic section",
    "is not a valid Win32 application",
    "ELF file data encoding",
)
# Windows' errors by number; the texts are translated.
_DENIED, _NO_SUCH_PROCEDURE, _BAD_FORMAT = 5, 127, 193
_GRAPHICS = ("libGL.so", "libEGL.so", "libOpenGL.so", "libGLX.so", "libGLdispatch.so")
_DRIVER = ("libcuda.so", "nvcuda.dll", "libnvidia-")
_TORCH = ("libtorch", "libc10", "libshm", "torch", "c10", "shm.dll", "uv.dll", "fbgemm", "asmjit", "libiomp5md")


def is_musl() -> bool:
    """Return whether this Python is made for musl, a C library other than the wheels' glibc."""
    return any("-musl" in suffix for suffix in importlib.machinery.EXTENSION_SUFFIXES)


def refused(case: Case) -> Iterator[Problem]:
    """Find why the system refuses a file, whether or not it is intact."""
    if case.error is None:
        return
    if is_musl() or _MUSL.search(case.text):
        advice = "Use a system with glibc, such as Debian, Ubuntu or Fedora, or a container image of one."
        summary = "the wheel is for glibc, and this system's C library is musl"
        yield Problem("system-musl", summary, (case.text, advice), "")
        return
    found = _refusals.refusal(case.text, case.number, case.file)
    if found is not None:
        reason, command = found
        yield Problem(reason.code, reason.summary, (case.text, reason.advice), command)


def files(case: Case) -> Iterator[Problem]:
    """Find what is wrong with the files themselves, and what the system says of them."""
    folders = _searched(case)
    found = _binaries.faults(case.file, folders, _installation.loaded_libraries(), _installation.machine())
    kinds = {fault.kind for fault in found}
    yield from (_of_fault(fault, folders, case) for fault in found)
    named = _MISSING_LIBRARY.search(case.text)
    if named and not str(case.file).endswith(named["library"]) and not kinds & {"missing", "unreadable"}:
        yield _missing(named["library"], case.file, folders, case)
    if "damaged" not in kinds and (case.number == _BAD_FORMAT or any(sign in case.text for sign in _DAMAGED)):
        yield with_hint("library-damaged", f"the system refuses a file: {case.text}", (), case.reinstall())
    if "unreadable" not in kinds:
        yield from _denied(case)
    old = _TOO_OLD.search(case.text)
    if old:
        summary = f"this system is too old for the wheel, it lacks {old['version']}"
        details = (f"needed by {old['by']}",) if old["by"] else ()
        yield Problem("system-too-old", summary, (*details, "Use a newer system, or a container image of one."), "")


def symbols(case: Case) -> Iterator[Problem]:
    """Find functions that no library has."""
    named = _UNDEFINED_SYMBOL.search(case.text)
    if named or _NO_PROCEDURE in case.text or case.number == _NO_SUCH_PROCEDURE:
        what = f"no library has {named['symbol']}" if named else "a procedure is in no library"
        summary = f"{what}: a library is of another version than the one built against"
        details = (case.text, f"If the command does not help, run this too: {case.reinstall().command}")
        yield with_hint("symbol-missing", summary, details, case.reinstall_torch())


def _searched(case: Case) -> list[Path]:
    """Return the folders where libraries may come from, beside those that files themselves name."""
    folders = list(_loader.dll_folders())
    if not folders:
        folders = [_loader.PACKAGE.parent / "nvdiffrast.libs"]
    if case.torch and case.torch.get("path"):
        folders.append(Path(case.torch["path"], "lib"))
    return list(dict.fromkeys(folders))


def _of_fault(fault: _binaries.Fault, folders: list[Path], case: Case) -> Problem:
    if fault.kind == "missing":
        return _missing(fault.library, fault.needed_by, folders, case)
    needed = (f"needed by {fault.needed_by}",) if fault.library != str(fault.needed_by) else ()
    name = Path(fault.library).name
    if fault.kind == "unreadable":
        return _unreadable(f"{fault.library}: {fault.detail}", needed, Path(fault.library))
    hint = case.reinstall_torch() if name.lower().startswith(_TORCH) else case.reinstall()
    if fault.kind == "symbol":
        summary = f"{name} is of another version than the one built against: {fault.detail}"
        return with_hint("symbol-missing", summary, (fault.library, *needed), hint)
    return with_hint("library-damaged", f"{fault.library}: {fault.detail}", needed, hint)


def _denied(case: Case) -> Iterator[Problem]:
    """Find that the system does not let this user read a file, which it need not name."""
    if _refusals.refusal(case.text, case.number, case.file) is not None:
        return
    if case.number == _DENIED or _UNREADABLE.search(case.text):
        yield _unreadable(f"the system does not let this user read a file: {case.text}", (), case.file.parent)


def _unreadable(summary: str, details: tuple[str, ...], place: Path) -> Problem:
    if sys.platform == "win32":
        advice, command = "The command shows who may read it. Antivirus programs deny it, too.", "icacls"
    else:
        advice, command = "Its owner allows it with the command.", "chmod -R a+rX"
    return Problem("file-unreadable", summary, (*details, advice), f"{command} {_hints.quoted(place)}")


def _missing(library: str, needed_by: Path, folders: list[Path], case: Case) -> Problem:
    searched = tuple(f"searched {folder}" for folder in folders)
    details = (f"needed by {needed_by}", *searched, "and the system's own folders")
    return with_hint("library-missing", f"{library} is missing", details, _for_library(library, case))


def _for_library(library: str, case: Case) -> Hint:
    """Return whose a missing library is, and the command that brings it."""
    name = library.lower()
    if library.startswith(_GRAPHICS):
        note = (
            f"{library} belongs to the graphics driver and is in no wheel; a container also needs "
            "NVIDIA_DRIVER_CAPABILITIES=all. RasterizeCudaContext does not need it."
        )
        return Hint("apt-get install libgl1 libegl1" if shutil.which("apt-get") else "", note)
    if name.startswith(_DRIVER):
        note = f"{library} belongs to NVIDIA's driver: install the driver, or start the container with GPU access."
        return Hint("", note)
    if name.startswith(("vcruntime", "msvcp", "concrt")):
        return Hint(
            _refusals.UPDATE_VISUAL_CPP, f"{library} belongs to Microsoft's Visual C++ runtime, vc_redist.x64.exe."
        )
    if re.match(r"(lib)?python3", name):
        hint = _hints.install_for_this_python(case.info)
        return hint._replace(note=f"{library} belongs to another Python. {hint.note}".rstrip())
    if name.startswith(_TORCH):
        hint = case.reinstall_torch()
        return hint._replace(note=f"{library} belongs to torch. {hint.note}".rstrip())
    return case.reinstall()
