"""What the loader makes of the words and numbers with which systems refuse to load a library.

Those that can be provoked on Linux are provoked in tests/integration/test_broken_installations.py; the others are
quoted here as their systems word them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.loader_site import SUFFIX, Site, codes, needs_gcc, next_command

pytestmark = needs_gcc

# The finders get the system's words as the import's error; Windows' errors hold a number, where torch reports them.
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
def test_words_of_linux(site: Site, text: str, code: str, command: str) -> None:
    told = explained(site, text)
    assert codes(told) == [code]
    assert text in told
    assert next_command(told).startswith(command)


@pytest.mark.parametrize(("text", "code", "command"), WINDOWS)
def test_words_and_numbers_of_windows(site: Site, text: str, code: str, command: str) -> None:
    told = explained(
        site, text if text.startswith("[") else f"DLL load failed while importing nvdiffrast_plugin: {text}"
    )
    assert codes(told) == [code]
    assert next_command(told).startswith(command)


@pytest.mark.parametrize(("enforced", "code"), [(True, "policy-blocked"), (False, "memory-short")])
def test_a_library_that_is_not_mapped(site: Site, enforced: bool, code: str) -> None:
    """glibc does not say why: SELinux where it is enforced, else memory; the mount option is tested with a mount."""
    told = site.run(
        "from pathlib import Path\nfrom nvdiffrast import _refusals\n"
        f"_refusals._selinux_enforces = lambda: {enforced}\n"
        "said = '/opt/libx.so: failed to map segment from shared object'\n"
        "print(_refusals.refusal(said, None, Path('/opt'))[0].code)"
    )
    assert told == f"{code}\n"


def test_a_python_for_musl(site: Site) -> None:
    """Its modules have names of their own, so that it takes none of a wheel for glibc."""
    code = "import importlib.machinery\n"
    code += "importlib.machinery.EXTENSION_SUFFIXES[:] = ['.cpython-311-x86_64-linux-musl.so']\nload(False)"
    told = site.run(code)
    assert codes(told) == ["system-musl"]
    assert "Use a system with glibc" in told


@pytest.mark.parametrize("suffix", [".pypy311-pp73-x86_64-linux-gnu.so", ".cpython-311d-x86_64-linux-gnu.so"])
def test_a_python_of_the_same_version_that_takes_other_modules(site: Site, suffix: str) -> None:
    code = f"import importlib.machinery\nimportlib.machinery.EXTENSION_SUFFIXES[:] = [{suffix!r}]\nload(False)"
    told = site.run(code)
    assert codes(told) == ["wrong-python"]
    assert f"this Python imports compiled modules that end in {suffix}" in told
