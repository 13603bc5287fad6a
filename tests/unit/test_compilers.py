"""Tests of scripts.toolchain.compilers with scripts that act as compilers."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.errors import ToolchainError
from scripts.model import Bounds, Toolkit
from scripts.support.process import which
from scripts.toolchain import compilers

Fake = Callable[..., Path]


GCC = Bounds("9", "13")
MSVC = Bounds("14.29", "14.43")


def toolkit(gcc: Bounds = GCC) -> Toolkit:
    return Toolkit("12.4", (), ("9.0",), "9.0", gcc, MSVC)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Set PATH to an empty folder and return a function that adds a simulated compiler to it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("CXX", raising=False)

    def add(name: str, version: str, banner: str = "g++ (Debian) {version}", gl: str = "") -> Path:
        """``gl`` is the error message that the compiler prints when it compiles a file."""
        program = folder / name
        program.write_text(
            "#!/bin/sh\n"
            f'[ "$1" = --version ] && echo "{banner.format(version=version)}" && exit\n'
            f'[ "$1" = -dumpfullversion ] && echo "{version}" && exit\n'
            '[ "$1" = -print-file-name=libstdc++.a ] && echo /usr/lib/libstdc++.a && exit\n'
            f'[ -n "{gl}" ] && echo "{gl}" && exit 1\n'
            "exit 0\n"
        )
        program.chmod(0o755)
        return program

    return add


@pytest.mark.parametrize(
    ("version", "minimum", "maximum", "expected"),
    [
        ("13.3.0", "9", "13", True),
        ("14.1.0", "9", "13", False),
        ("8.5.0", "9", "13", False),
        ("9.0.0", "9", "13", True),
        ("13.3.0", None, "13.2", False),
        ("12.2.0", "13", None, False),
        ("100.0", None, None, True),
        ("14.44.35207", "14.29", "14.43", False),
        ("14.43.34808", "14.29", "14.43", True),
    ],
)
def test_compares_versions_with_bounds(version: str, minimum: str | None, maximum: str | None, expected: bool) -> None:
    assert compilers.within(version, Bounds(minimum, maximum)) is expected


def test_uses_gcc_on_path(fake: Fake) -> None:
    path = fake("g++", "12.2.0")
    assert compilers.check_host(toolkit(), needs_gl=False) == compilers.HostCompiler(path, "g++", "12.2.0")


def test_rejects_a_machine_without_a_compiler(fake: Fake) -> None:
    with pytest.raises(ToolchainError, match=r"no C\+\+ compiler: cu124 needs g\+\+ 9 to 13") as raised:
        compilers.check_host(toolkit(), needs_gl=False)
    assert raised.value.hint == "apt-get install g++"


def test_rejects_a_compiler_without_the_static_library(fake: Fake, tmp_path: Path) -> None:
    program = fake("g++", "14.2.0")
    program.write_text(program.read_text().replace("echo /usr/lib/libstdc++.a", "echo libstdc++.a"))
    with pytest.raises(ToolchainError, match=r"has no static C\+\+ library") as raised:
        compilers.check_host(toolkit(Bounds("9", "15")), needs_gl=False)
    assert raised.value.hint == "apt-get install libstdc++-14-dev"


@pytest.mark.parametrize(("version", "package"), [("14.2.0", "g++-13"), ("8.3.0", "g++-9")])
def test_rejects_a_compiler_outside_the_bounds(fake: Fake, version: str, package: str) -> None:
    path = fake("g++", version)
    with pytest.raises(ToolchainError) as raised:
        compilers.check_host(toolkit(), needs_gl=False)
    assert str(raised.value) == f"{path} is g++ {version}; cu124 needs g++ 9 to 13"
    assert raised.value.hint == f"apt-get install {package}"


def test_uses_the_newest_suitable_versioned_compiler(fake: Fake) -> None:
    fake("g++", "14.2.0")
    fake("g++-10", "10.2.1")
    newest = fake("g++-13", "13.3.0")
    assert compilers.check_host(toolkit(), needs_gl=False).path == newest


def test_uses_the_compiler_of_cxx(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    fake("g++", "12.2.0")
    named = fake("my-g++", "11.4.0")
    monkeypatch.setenv("CXX", str(named))
    assert compilers.check_host(toolkit(), needs_gl=False).path == named
    monkeypatch.setenv("CXX", "my-g++")
    assert compilers.check_host(toolkit(), needs_gl=False).version == "11.4.0"


def test_rejects_an_unsuitable_compiler_of_cxx(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    fake("g++", "12.2.0")
    monkeypatch.setenv("CXX", str(fake("my-g++", "14.1.0")))
    with pytest.raises(ToolchainError, match=r"my-g\+\+ is g\+\+ 14") as raised:
        compilers.check_host(toolkit(), needs_gl=False)
    assert raised.value.hint == "apt-get install g++-13 && export CXX=g++-13"


@pytest.mark.parametrize("value", ["nothing-there", "ccache g++"])
def test_rejects_cxx_that_is_not_a_program(fake: Fake, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    fake("g++", "12.2.0")
    fake("ccache", "4.0")
    monkeypatch.setenv("CXX", value)
    with pytest.raises(ToolchainError, match=re.escape(f"CXX is '{value}'")):
        compilers.check_host(toolkit(), needs_gl=False)


def test_rejects_clang_that_is_installed_as_gcc(fake: Fake) -> None:
    fake("g++", "12.0.0", banner="Apple clang version {version}")
    with pytest.raises(ToolchainError, match="is clang"):
        compilers.check_host(toolkit(), needs_gl=False)


def test_checks_gl_headers_only_if_needed(fake: Fake) -> None:
    fake("g++", "12.2.0", gl="probe.cpp:4:10: fatal error: EGL/egl.h: No such file or directory")
    compilers.check_host(toolkit(), needs_gl=False)
    with pytest.raises(ToolchainError, match=r"EGL/egl\.h: No such file") as raised:
        compilers.check_host(toolkit(), needs_gl=True)
    assert raised.value.hint == "apt-get install libegl-dev libgl-dev"


def test_rejects_a_missing_gl_library(fake: Fake) -> None:
    fake("g++", "12.2.0", gl="/usr/bin/ld: cannot find -lEGL: No such file or directory")
    with pytest.raises(ToolchainError, match="cannot find -lEGL"):
        compilers.check_host(toolkit(), needs_gl=True)


def test_compiles_the_gl_probe_with_the_installed_compiler() -> None:
    if which("g++") is None or not Path("/usr/include/EGL/egl.h").exists():
        pytest.skip("needs g++ and GL headers: apt-get install g++ libegl-dev libgl-dev")
    compilers.check_host(toolkit(Bounds()), needs_gl=True)


def fake_cl(folder: Path, banner: str) -> Path:
    program = folder / "bin" / "cl"
    program.write_text(f"#!/bin/sh\necho '{banner}'\n")
    program.chmod(0o755)
    return program


def test_uses_msvc(fake: Fake, tmp_path: Path) -> None:
    program = fake_cl(tmp_path, "Compiler Version 19.43.34808 for x64")
    found = compilers.check_host(toolkit(), needs_gl=True, platform="win32")
    assert found == compilers.HostCompiler(program, "cl", "14.43.34808")


@pytest.mark.parametrize(
    ("banner", "message"),
    [
        ("Compiler Version 19.44.35207 for x64", r"is Visual C\+\+ 14\.44\.35207; cu124 needs 14\.29 to 14\.43"),
        ("hello", "prints no version"),
    ],
)
def test_rejects_unsuitable_msvc(fake: Fake, tmp_path: Path, banner: str, message: str) -> None:
    fake_cl(tmp_path, banner)
    with pytest.raises(ToolchainError, match=message):
        compilers.check_host(toolkit(), needs_gl=True, platform="win32")


def test_rejects_windows_without_msvc(fake: Fake) -> None:
    with pytest.raises(ToolchainError, match=r"cl\.exe is not on PATH"):
        compilers.check_host(toolkit(), needs_gl=True, platform="win32")


@pytest.mark.parametrize("torch_cuda", ["12.1", "12.8", "12"])
def test_accepts_torch_of_the_same_major_version(torch_cuda: str) -> None:
    compilers.check_major(toolkit(), torch_cuda)


@pytest.mark.parametrize("torch_cuda", ["13.0", "11.8", "1", ""])
def test_rejects_torch_of_another_major_version(torch_cuda: str) -> None:
    with pytest.raises(ToolchainError, match="another major version"):
        compilers.check_major(toolkit(), torch_cuda)
