"""Explains why the operating system refuses to load an intact library; imported only after a failure.

On Linux the English text of the system's message identifies the reason. Windows translates its messages, so the number
of the error identifies the reason where it is known.
"""

from __future__ import annotations

import ctypes
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

from . import _hints, _paths

UPDATE_VISUAL_CPP = "winget install --id Microsoft.VCRedist.2015+.x64"
# Python loads compiled modules with these flags: LOAD_LIBRARY_SEARCH_DEFAULT_DIRS and LOAD_LIBRARY_SEARCH_DLL_LOAD_DIR.
_LOAD_FLAGS = 0x1000 | 0x100
_LIBRARY = re.compile(r"(?:^|: )(?P<library>(?:[A-Za-z]:)?[^:]+): (?:cannot|failed)")


class Refusal(NamedTuple):
    """A reason for which a system refuses to load a library.

    It applies if the pattern ``text`` matches the system's message, or if the Windows error number is in ``numbers``.
    ``command`` may contain {library}, {site} and {mount}, which are replaced by the affected file, the folder of the
    installed packages, and the mount point of its file system.
    """

    code: str
    text: str
    numbers: tuple[int, ...]
    summary: str
    advice: str
    command: str


# glibc prints this message both if memory is short and if the system forbids to execute code from the file.
_NOT_MAPPED = "failed to map segment from shared object"
_LINUX = (
    Refusal(
        "static-tls",
        r"cannot allocate memory in static TLS block",
        (),
        "a library needs static thread-local storage, and this process has used all of it",
        "Import nvdiffrast.torch before other compiled packages, or reserve more storage before Python starts.",
        "export GLIBC_TUNABLES=glibc.rtld.optional_static_tls=65536",
    ),
    Refusal(
        "executable-stack",
        r"cannot enable executable stack",
        (),
        "a library requests an executable stack, which this system does not allow",
        "No file of nvdiffrast needs an executable stack. The command removes the request from the library.",
        "patchelf --clear-execstack {library}",
    ),
    Refusal(
        "policy-blocked",
        r"cannot restore segment prot|cannot change memory protections|shared object file: Operation not permitted",
        (),
        "a security policy of this system, such as SELinux, forbids to execute code from the library",
        "`ausearch -m avc -ts recent` shows the denial. The command sets the labels that SELinux expects.",
        "restorecon -R -v {site}",
    ),
    Refusal(
        "memory-short",
        r"Cannot allocate memory|cannot map zero-fill pages|cannot create shared object descriptor",
        (),
        "there is not enough memory to load a library",
        "Close other programs, or raise the memory limit of the container or of the session (ulimit -v).",
        "free -h",
    ),
    Refusal(
        "mount-noexec",
        r"failed to map segment from shared object: Operation not permitted",
        (),
        "the file system of the installation does not allow to execute code (mount option noexec)",
        "Install nvdiffrast on another file system, or run the command as root to allow execution.",
        "mount -o remount,exec {mount}",
    ),
)
_WINDOWS = (
    Refusal(
        "policy-blocked",
        r"(?i:application control policy|blocked by group policy|contains a virus)",
        (4551, 1260, 225),
        "a security policy or an antivirus program has blocked a file",
        "An administrator can allow the file. The command shows the files that were blocked last.",
        'powershell -Command "Get-WinEvent -LogName Microsoft-Windows-CodeIntegrity/Operational -MaxEvents 5 | fl"',
    ),
    Refusal(
        "memory-short",
        r"paging file is too small",
        (1455, 8, 14),
        "there is not enough memory to load a library: the paging file is too small",
        "The command opens the settings: under Advanced, Virtual memory, let Windows manage the size, then restart.",
        "SystemPropertiesPerformance.exe",
    ),
    Refusal(
        "dll-initialization",
        r"dynamic link library \(DLL\) initialization routine failed",
        (1114,),
        "the initialization of a library failed",
        "The usual cause is an outdated Visual C++ runtime. The command updates it.",
        UPDATE_VISUAL_CPP,
    ),
)


def find(text: str, number: int | None, file: Path) -> tuple[Refusal, str] | None:
    """Return the reason of the system's message or error ``number`` and its command, or None if the reason is unknown.

    ``file`` is the module that could not be loaded.
    """
    match = _LIBRARY.search(text)
    library = Path(match["library"]) if match else file
    found = next((reason for reason in (*_LINUX, *_WINDOWS) if _applies(reason, text, number)), None)
    if found is None and _NOT_MAPPED in text:
        code = _code_of_unmapped(library if library.is_absolute() else file)
        found = next(reason for reason in _LINUX if reason.code == code)
    if found is None:
        return None
    command = found.command.format(
        library=_hints.quoted(library),
        site=_hints.quoted(_paths.SITE_PACKAGES),
        mount=_hints.quoted(_mount_point(file)),
    )
    return found, command


def windows_error(file: Path) -> int | None:
    """Return the Windows error number of loading a DLL as Python does; None if it loads, and None on other systems."""
    if os.name != "nt":
        return None
    try:
        ctypes.WinDLL(str(file), winmode=_LOAD_FLAGS)  # type: ignore[attr-defined, unused-ignore]
    except OSError as error:
        number: Any = getattr(error, "winerror", None)
        return number if isinstance(number, int) else None
    return None


def _applies(reason: Refusal, text: str, number: int | None) -> bool:
    return number in reason.numbers or re.search(reason.text, text) is not None


def _code_of_unmapped(file: Path) -> str:
    """Return the code for a library that the system opened but did not map into memory."""
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
    """Return the mount point of a file; only the kernel's list contains bind mounts."""
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return Path(file.anchor)
    points = {Path(line.split()[4].replace(r"\040", " ")) for line in lines}
    return next((folder for folder in file.parents if folder in points), Path(file.anchor))
