"""Tests of the codes for the messages and error numbers with which systems refuse to load a library.

tests/integration/test_broken_installations.py causes the errors that Linux can cause. The other messages are copied
here as their systems print them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.loader_site import SUFFIX, Site, codes, needs_gcc, next_command

pytestmark = needs_gcc

# The import's error has the system's message. torch's errors on Windows also contain the error number.
EXPLAIN = """
from pathlib import Path
from nvdiffrast import _diagnosis
print(_diagnosis.explain(Path({file!r}), ImportError({text!r})))
"""
LIBRARY = "/opt/e/libx.so"
LINUX = [
    (f"{LIBRARY}: cannot allocate memory in static TLS block", "static-tls", "export GLIBC_TUNABLES="),
    (
        f"{LIBRARY}: cannot enable executable stack as shared object requires: Permission denied",
        "executable-stack",
        f"patchelf --clear-execstack {LIBRARY}",
    ),
    (f"{LIBRARY}: cannot restore segment prot after reloc: Permission denied", "policy-blocked", "restorecon -R -v "),
    (f"{LIBRARY}: cannot open shared object file: Operation not permitted", "policy-blocked", "restorecon -R -v "),
    (f"{LIBRARY}: cannot map zero-fill pages", "memory-short", "free -h"),
    (f"{LIBRARY}: cannot open shared object file: Permission denied", "file-unreadable", "chmod -R a+rX "),
    ("[Errno 5] Input/output error: '/opt/e'", "file-unreadable", "chmod -R a+rX "),
    (f"{LIBRARY}: object file has no dynamic section", "library-damaged", "pip install --force-reinstall "),
    (
        "Error loading shared library ld-linux-x86-64.so.2: No such file or directory (needed by /opt/e)",
        "system-musl",
        sys.executable,
    ),
    ("Error relocating /opt/e: __memcpy_chk: symbol not found", "system-musl", sys.executable),
]
WINDOWS = [
    ("An Application Control policy has blocked this file.", "policy-blocked", "powershell -Command "),
    ("[WinError 4551] Eine Anwendungssteuerungsrichtlinie hat ...", "policy-blocked", "powershell -Command "),
    (
        "Operation did not complete successfully because the file contains a virus or potentially unwanted software.",
        "policy-blocked",
        "powershell -Command ",
    ),
    (
        "The paging file is too small for this operation to complete.",
        "memory-short",
        "SystemPropertiesPerformance.exe",
    ),
    ("[WinError 1455] Die Auslagerungsdatei ist zu klein", "memory-short", "SystemPropertiesPerformance.exe"),
    (
        "A dynamic link library (DLL) initialization routine failed.",
        "dll-initialization",
        "winget install --id Microsoft.VCRedist.2015+.x64",
    ),
    ("[WinError 1114] Eine DLL-Initialisierungsroutine ist ...", "dll-initialization", "winget install "),
    ("Access is denied.", "file-unreadable", "chmod -R a+rX "),
    ("[WinError 5] Zugriff verweigert", "file-unreadable", "chmod -R a+rX "),
    ("[WinError 193] %1 ist keine zulässige Win32-Anwendung", "library-damaged", "pip install --force-reinstall "),
    ("[WinError 127] Die angegebene Prozedur wurde nicht gefunden", "symbol-missing", "pip install --force-reinstall "),
]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    site = Site(tmp_path)
    site.compile("nvdiffrast_plugin")
    return site


def explained(site: Site, text: str) -> str:
    file = site.package / "torch" / f"nvdiffrast_plugin{SUFFIX}"
    return site.run(EXPLAIN.format(file=str(file), text=text))


@pytest.mark.parametrize(("text", "code", "command"), LINUX)
def test_messages_of_linux(site: Site, text: str, code: str, command: str) -> None:
    output = explained(site, text)
    assert codes(output) == [code]
    assert text in output
    assert next_command(output).startswith(command)


@pytest.mark.parametrize(("text", "code", "command"), WINDOWS)
def test_messages_and_error_numbers_of_windows(site: Site, text: str, code: str, command: str) -> None:
    output = explained(
        site, text if text.startswith("[") else f"DLL load failed while importing nvdiffrast_plugin: {text}"
    )
    assert codes(output) == [code]
    assert next_command(output).startswith(command)


@pytest.mark.parametrize(("enforced", "code"), [(True, "policy-blocked"), (False, "memory-short")])
def test_code_of_a_library_that_is_not_mapped(site: Site, enforced: bool, code: str) -> None:
    """glibc gives no reason: it is SELinux if that is enforced, else memory. Another test covers mount options."""
    output = site.run(
        "from pathlib import Path\nfrom nvdiffrast import _refusals\n"
        f"_refusals._selinux_enforces = lambda: {enforced}\n"
        "text = '/opt/libx.so: failed to map segment from shared object'\n"
        "print(_refusals.find(text, None, Path('/opt'))[0].code)"
    )
    assert output == f"{code}\n"


def test_reports_a_python_for_musl(site: Site) -> None:
    """This Python imports only modules with musl in their names, so it imports no module of a wheel for glibc."""
    code = "import importlib.machinery\n"
    code += "importlib.machinery.EXTENSION_SUFFIXES[:] = ['.cpython-311-x86_64-linux-musl.so']\nload(False)"
    output = site.run(code)
    assert codes(output) == ["system-musl"]
    assert "Use a system with glibc" in output


@pytest.mark.parametrize("suffix", [".pypy311-pp73-x86_64-linux-gnu.so", ".cpython-311d-x86_64-linux-gnu.so"])
def test_reports_a_python_of_the_same_version_that_imports_other_modules(site: Site, suffix: str) -> None:
    code = f"import importlib.machinery\nimportlib.machinery.EXTENSION_SUFFIXES[:] = [{suffix!r}]\nload(False)"
    output = site.run(code)
    assert codes(output) == ["wrong-python"]
    assert f"This Python imports compiled modules with names that end in {suffix}." in output
