"""Explains why the operating system itself refuses to load an intact library; imported only after a failure.

The system's message is searched for its English text. On Windows, where messages are translated, the error's number
decides if it is known.
"""

from __future__ import annotations

import ctypes
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

from . import _hints, _loader

UPDATE_VISUAL_CPP = "winget install --id Microsoft.VCRedist.2015+.x64"
# How Python searches for the libraries of a compiled module: LOAD_LIBRARY_SEARCH_DEFAULT_DIRS and _DLL_LOAD_DIR.
_SEARCH = 0x1000 | 0x100
_LIBRARY = re.compile(r"(?:^|: )(?P<library>(?:[A-Za-z]:)?[^:]+): (?:cannot|failed)")


class Refusal(NamedTuple):
    """One reason for which a system refuses a library.

    It applies if ``text`` is in the system's message or Windows' error is one of ``numbers``. ``command`` may hold
    {library}, {site} and {mount} in place of the file at fault, the folder of installed packages and its file system.
    """

    code: str
    text: str
    numbers: tuple[int, ...]
    summary: str
    advice: str
    command: str


# What glibc says, without a reason, whether memory is short or the system forbids to run code from the file.
_NOT_MAPPED = "failed to map segment from shared object"
_LINUX = (
    Refusal(
        "static-tls",
        r"cannot allocate memory in static TLS block",
        (),
        "a library needs static thread-local storage, and this process has none left",
        "Import nvdiffrast.torch before other compiled packages, or reserve more storage before Python starts.",
        "export GLIBC_TUNABLES=glibc.rtld.optional_static_tls=65536",
    ),
    Refusal(
        "executable-stack",
        r"cannot enable executable stack",
        (),
        "a library asks for an executable stack, which this system does not allow",
        "No file of nvdiffrast needs one: clear the mark from the library that the message names.",
        "patchelf --clear-execstack {library}",
    ),
    Refusal(
        "policy-blocked",
        r"cannot restore segment prot|cannot change memory protections|shared object file: Operation not permitted",
        (),
        "a security policy of this system, such as SELinux, forbids to run code from the library",
        "`ausearch -m avc -ts recent` shows the denial; the command sets the labels that SELinux expects.",
        "restorecon -R -v {site}",
    ),
    Refusal(
        "memory-short",
        r"Cannot allocate memory|cannot map zero-fill pages|cannot create shared object descriptor",
        (),
        "there is not enough memory to load a library",
        "End other programs, or raise the memory limit of the container or of the session (ulimit -v).",
        "free -h",
    ),
    Refusal(
        "mount-noexec",
        r"failed to map segment from shared object: Operation not permitted",
        (),
        "the file system of the installation does not allow to run code from it (mount option noexec)",
        "Install nvdiffrast into an environment on another file system, or allow it as root.",
        "mount -o remount,exec {mount}",
    ),
)
_WINDOWS = (
    Refusal(
        "policy-blocked",
        r"(?i:application control policy|blocked by group policy|contains a virus)",
        (4551, 1260, 225),
        "a security policy or antivirus program of this system has blocked a file",
        "An administrator of the system can allow it; the command shows what was blocked last.",
        'powershell -Command "Get-WinEvent -LogName Microsoft-Windows-CodeIntegrity/Operational -MaxEvents 5 | fl"',
    ),
    Refusal(
        "memory-short",
        r"paging file is too small",
        (1455, 8, 14),
        "there is not enough memory to load a library: the paging file is too small",
        "The command opens the settings; under Advanced, Virtual memory, let Windows manage the size, then restart it.",
        "SystemPropertiesPerformance.exe",
    ),
    Refusal(
        "dll-initialization",
        r"dynamic link library \(DLL\) initialization routine failed",
        (1114,),
        "a library was found and its own initialization failed",
        "An outdated Visual C++ runtime is the usual cause; the command updates it.",
        UPDATE_VISUAL_CPP,
    ),
)


def refusal(text: str, number: int | None, file: Path) -> tuple[Refusal, str] | None:
    """Return the reason behind the system's message or error ``number``, and its command; None if it is unknown.

    ``file`` is the module that could not be loaded.
    """
    named = _LIBRARY.search(text)
    library = Path(named["library"]) if named else file
    found = next((one for one in (*_LINUX, *_WINDOWS) if _applies(one, text, number)), None)
    if found is None and _NOT_MAPPED in text:
        code = _why_not_mapped(library if library.is_absolute() else file)
        found = next(one for one in _LINUX if one.code == code)
    if found is None:
        return None
    command = found.command.format(
        library=_hints.quoted(library),
        site=_hints.quoted(_loader.PACKAGE.parent),
        mount=_hints.quoted(_mount_point(file)),
    )
    return found, command


def windows_error(file: Path) -> int | None:
    """Return the number of Windows' error when a DLL is loaded as Python does it; None if it loads, or elsewhere."""
    if os.name != "nt":
        return None
    try:
        ctypes.WinDLL(str(file), winmode=_SEARCH)  # type: ignore[attr-defined, unused-ignore]
    except OSError as error:
        number: Any = getattr(error, "winerror", None)
        return number if isinstance(number, int) else None
    return None


def _applies(one: Refusal, text: str, number: int | None) -> bool:
    return number in one.numbers or re.search(one.text, text) is not None


def _why_not_mapped(file: Path) -> str:
    """Return the code for a library that the system opened and then did not map."""
    if _has_noexec(file):
        return "mount-noexec"
    return "policy-blocked" if _selinux_enforces() else "memory-short"


def _has_noexec(file: Path) -> bool:
    try:
        return bool(os.statvfs(file).f_flag & os.ST_NOEXEC)
    except (AttributeError, OSError):
        return False


def _selinux_enforces() -> bool:
    try:
        return Path("/sys/fs/selinux/enforce").read_text(encoding="ascii").strip() == "1"
    except OSError:
        return False


def _mount_point(file: Path) -> Path:
    """Return where the file's file system is mounted; a bind mount is known to the kernel's list alone."""
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return Path(file.anchor)
    points = {Path(line.split()[4].replace(r"\040", " ")) for line in lines}
    return next((folder for folder in file.parents if folder in points), Path(file.anchor))
