"""The host compiler and what it must find, checked before a minute is spent compiling."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.version import Version

from scripts.errors import CommandError, ToolchainError
from scripts.model import Bounds, Toolkit
from scripts.support.process import call, which

# What upstream's GL plugin includes and links.
_GL_PROBE = """
#define EGL_NO_X11
#define MESA_EGL_NO_X11_HEADERS
#include <EGL/egl.h>
#include <EGL/eglext.h>
#include <GL/gl.h>
void* probe() { glFinish(); return (void*)eglGetCurrentContext(); }
"""


@dataclass(frozen=True)
class HostCompiler:
    """The compiler nvcc is given: its program, ``g++`` or ``cl``, and its version ("12.2.0"; for cl the toolset's)."""

    path: Path
    name: str
    version: str


def check_host(toolkit: Toolkit, needs_gl: bool, *, platform: str = sys.platform) -> HostCompiler:
    """The compiler for ``toolkit``: the one that CXX names, else the first on PATH within the toolkit's bounds.

    ``needs_gl`` also asks for what the GL plugin includes and links.

    Raises:
        ToolchainError: no compiler within the bounds, no static C++ library, or no GL or EGL headers; it names the
            package to install.
    """
    compiler = _msvc(toolkit) if platform == "win32" else _gcc(toolkit)
    if compiler.name == "g++":
        _check_static_library(compiler)
    if needs_gl and compiler.name == "g++":
        _check_gl(compiler)
    return compiler


def check_major(toolkit: Toolkit, torch_cuda: str) -> None:
    """Refuse a torch built for another CUDA major than ``toolkit``'s; ``torch_cuda`` is its torch.version.cuda.

    Raises:
        ToolchainError: as torch's own cpp_extension would, but before anything is compiled.
    """
    if torch_cuda.partition(".")[0] != toolkit.cuda.partition(".")[0]:
        raise ToolchainError(
            f"torch is built for CUDA {torch_cuda or 'none'}, the toolkit is CUDA {toolkit.cuda}: another major",
            hint=f"build against a torch of CUDA {toolkit.cuda.partition('.')[0]}, or with that torch's toolkit",
        )


def within(version: str, bounds: Bounds) -> bool:
    """Whether ``version`` lies in the closed ``bounds``: 13.3.0 is not above "13", and is above "13.2"."""
    found = Version(version).release
    low = Version(bounds.minimum).release if bounds.minimum else ()
    high = Version(bounds.maximum).release if bounds.maximum else ()
    return found[: len(low)] >= low and (not high or found[: len(high)] <= high)


def _gcc(toolkit: Toolkit) -> HostCompiler:
    """CXX, else g++, else a g++ of a major within the bounds, the newest first."""
    named = os.environ.get("CXX")
    seen: list[HostCompiler] = []
    for path in [_named(named)] if named else _candidates(toolkit.gcc):
        compiler = _gcc_at(path)
        if within(compiler.version, toolkit.gcc):
            return compiler
        seen.append(compiler)
    if not seen:
        raise ToolchainError(
            f"no C++ compiler: {toolkit.tag} needs g++ {_spoken(toolkit.gcc)}", hint="apt-get install g++"
        )
    found = seen[0]
    package = f"g++-{_suitable_major(found, toolkit.gcc)}"
    raise ToolchainError(
        f"{found.path} is g++ {found.version}; {toolkit.tag} needs g++ {_spoken(toolkit.gcc)}",
        hint=f"apt-get install {package}" + (f" && export CXX={package}" if named else ""),
    )


def _named(command: str) -> Path:
    """The program that CXX names."""
    path = which(command)
    if path is None:
        raise ToolchainError(
            f"CXX is {command!r}, which is no program on PATH",
            hint="set CXX to one program without options, or unset it",
        )
    return path


def _candidates(bounds: Bounds) -> Iterator[Path]:
    newest = int((bounds.maximum or "30").partition(".")[0])
    oldest = int((bounds.minimum or "6").partition(".")[0])
    for name in ("g++", *(f"g++-{major}" for major in range(newest, oldest - 1, -1))):
        path = which(name)
        if path is not None:
            yield path


def _gcc_at(path: Path) -> HostCompiler:
    """What ``path`` says of itself; clang, which also answers to g++ on some systems, is told apart."""
    banner = call([path, "--version"], echo=False, quiet=True)
    if "clang" in banner.lower():
        raise ToolchainError(f"{path} is clang; the kernels are compiled with g++ as host compiler", hint="set CXX=g++")
    version = call([path, "-dumpfullversion", "-dumpversion"], echo=False, quiet=True).strip()
    return HostCompiler(path, "g++", version)


def _suitable_major(found: HostCompiler, bounds: Bounds) -> str:
    """The major nearest to what is there: the maximum if that is too new, the minimum if it is too old."""
    too_new = bounds.maximum and not within(found.version, Bounds(maximum=bounds.maximum))
    return ((bounds.maximum if too_new else bounds.minimum) or "").partition(".")[0]


def _spoken(bounds: Bounds) -> str:
    if bounds.minimum and bounds.maximum:
        return f"{bounds.minimum} to {bounds.maximum}"
    return f"{bounds.minimum} or newer" if bounds.minimum else f"{bounds.maximum or 'of any version'} or older"


def _check_static_library(compiler: HostCompiler) -> None:
    """Require libstdc++.a: a plugin links what the platform tag does not permit it to take from the system."""
    answer = call([compiler.path, "-print-file-name=libstdc++.a"], echo=False, quiet=True).strip()
    # For a library that it does not have, g++ repeats the name.
    if answer == "libstdc++.a":
        package = f"libstdc++-{compiler.version.partition('.')[0]}-dev"
        raise ToolchainError(
            f"{compiler.path} has no libstdc++.a, the static C++ library",
            hint=f"apt-get install {package}",
        )


def _check_gl(compiler: HostCompiler) -> None:
    """Compile and link what the GL plugin uses: a header may be there without the library's link."""
    with tempfile.TemporaryDirectory(prefix="nvdiffrast-gl-") as folder:
        probe = Path(folder, "probe.cpp")
        probe.write_text(_GL_PROBE, encoding="utf-8")
        made = Path(folder, "probe.so")
        try:
            call([compiler.path, "-shared", "-fPIC", probe, "-lGL", "-lEGL", "-o", made], echo=False, quiet=True)
        except CommandError as error:
            first = next((line for line in error.output.splitlines() if "error" in line or "cannot find" in line), "")
            raise ToolchainError(
                f"the GL plugin needs the headers and libraries of GL and EGL: {first.strip()}",
                hint="apt-get install libegl-dev libgl-dev",
            ) from error


def _msvc(toolkit: Toolkit) -> HostCompiler:
    """cl.exe on PATH. Its banner says 19.44 where the toolset, which the bounds are of, is 14.44."""
    path = which("cl")
    if path is None:
        raise ToolchainError(
            f"no C++ compiler: cl.exe is not on PATH; {toolkit.tag} needs Visual C++ {_spoken(toolkit.msvc)}",
            hint="run this in an 'x64 Native Tools Command Prompt for VS'",
        )
    match = re.search(r"\b19\.(\d+)\.(\d+)", call([path], echo=False, quiet=True))
    if match is None:
        raise ToolchainError(f"{path} does not say its version", hint="repair the installation of Visual C++")
    version = f"14.{match[1]}.{match[2]}"
    if not within(version, toolkit.msvc):
        raise ToolchainError(
            f"{path} is Visual C++ {version}; {toolkit.tag} needs {_spoken(toolkit.msvc)}",
            hint="install that toolset and choose it: vcvarsall.bat x64 -vcvars_ver=VERSION",
        )
    return HostCompiler(path, "cl", version)
