"""Finds the host compiler and checks its version, libraries and headers before the build starts."""

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

# A program with the headers and libraries that upstream's GL plugin uses.
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
    """The host compiler for nvcc.

    ``name`` is ``g++`` or ``cl``. ``version`` is the version of g++ ("12.2.0") or of the Visual C++ toolset.
    """

    path: Path
    name: str
    version: str


def check_host(toolkit: Toolkit, needs_gl: bool, *, platform: str = sys.platform) -> HostCompiler:
    """Return the compiler for ``toolkit``: the one in CXX, or the first one on PATH within the bounds of the toolkit.

    With ``needs_gl``, also check the headers and libraries that the GL plugin needs.

    Raises:
        ToolchainError: if no compiler is within the bounds, or the static C++ library or the GL and EGL headers are
            missing; the hint names the package to install.
    """
    compiler = _msvc(toolkit) if platform == "win32" else _gcc(toolkit)
    if compiler.name == "g++":
        _check_static_library(compiler)
    if needs_gl and compiler.name == "g++":
        _check_gl(compiler)
    return compiler


def check_major(toolkit: Toolkit, torch_cuda: str) -> None:
    """Check that torch was built for the major CUDA version of ``toolkit``, as torch's cpp_extension does later.

    ``torch_cuda`` is torch.version.cuda.

    Raises:
        ToolchainError: if the major versions differ.
    """
    if torch_cuda.partition(".")[0] != toolkit.cuda.partition(".")[0]:
        raise ToolchainError(
            f"the toolkit is CUDA {toolkit.cuda}, but torch is built for another major version: {torch_cuda or 'none'}",
            hint=f"use a torch build for CUDA {toolkit.cuda.partition('.')[0]}, or the toolkit of this torch build",
        )


def within(version: str, bounds: Bounds) -> bool:
    """Return whether ``version`` is within ``bounds``, which are inclusive.

    A bound is compared with as many parts of the version as it has: 13.3.0 is not above "13", but is above "13.2".
    """
    found = Version(version).release
    low = Version(bounds.minimum).release if bounds.minimum else ()
    high = Version(bounds.maximum).release if bounds.maximum else ()
    return found[: len(low)] >= low and (not high or found[: len(high)] <= high)


def _gcc(toolkit: Toolkit) -> HostCompiler:
    """Return the g++ in CXX, or g++ on PATH, or the newest g++-MAJOR on PATH within the bounds."""
    cxx = os.environ.get("CXX")
    unsuitable: list[HostCompiler] = []
    for path in [_find_cxx(cxx)] if cxx else _candidates(toolkit.gcc):
        compiler = _identify_gcc(path)
        if within(compiler.version, toolkit.gcc):
            return compiler
        unsuitable.append(compiler)
    if not unsuitable:
        raise ToolchainError(
            f"no C++ compiler: {toolkit.tag} needs g++ {_describe_bounds(toolkit.gcc)}", hint="apt-get install g++"
        )
    found = unsuitable[0]
    package = f"g++-{_suitable_major(found, toolkit.gcc)}"
    raise ToolchainError(
        f"{found.path} is g++ {found.version}; {toolkit.tag} needs g++ {_describe_bounds(toolkit.gcc)}",
        hint=f"apt-get install {package}" + (f" && export CXX={package}" if cxx else ""),
    )


def _find_cxx(command: str) -> Path:
    """Return the program that CXX names."""
    path = which(command)
    if path is None:
        raise ToolchainError(
            f"CXX is {command!r}, which is not a program on PATH",
            hint="set CXX to a program without options, or unset it",
        )
    return path


def _candidates(bounds: Bounds) -> Iterator[Path]:
    """Yield g++ and every g++-MAJOR on PATH within ``bounds``, newest first."""
    newest = int((bounds.maximum or "30").partition(".")[0])
    oldest = int((bounds.minimum or "6").partition(".")[0])
    for name in ("g++", *(f"g++-{major}" for major in range(newest, oldest - 1, -1))):
        path = which(name)
        if path is not None:
            yield path


def _identify_gcc(path: Path) -> HostCompiler:
    """Return the compiler at ``path``; raise ToolchainError for clang, which some systems install as g++."""
    banner = call([path, "--version"], echo=False, quiet=True)
    if "clang" in banner.lower():
        raise ToolchainError(f"{path} is clang, but the host compiler must be g++", hint="set CXX=g++")
    version = call([path, "-dumpfullversion", "-dumpversion"], echo=False, quiet=True).strip()
    return HostCompiler(path, "g++", version)


def _suitable_major(found: HostCompiler, bounds: Bounds) -> str:
    """Return the major version nearest to ``found``: the maximum if it is too new, the minimum if it is too old."""
    too_new = bounds.maximum and not within(found.version, Bounds(maximum=bounds.maximum))
    return ((bounds.maximum if too_new else bounds.minimum) or "").partition(".")[0]


def _describe_bounds(bounds: Bounds) -> str:
    """Return ``bounds`` in words: "9 to 13", "9 or newer"."""
    if bounds.minimum and bounds.maximum:
        return f"{bounds.minimum} to {bounds.maximum}"
    return f"{bounds.minimum} or newer" if bounds.minimum else f"{bounds.maximum or 'of any version'} or older"


def _check_static_library(compiler: HostCompiler) -> None:
    """Check for libstdc++.a: plugins link symbols from it that are newer than the platform tag allows."""
    printed = call([compiler.path, "-print-file-name=libstdc++.a"], echo=False, quiet=True).strip()
    # g++ prints only the name of a library that it does not have.
    if printed == "libstdc++.a":
        package = f"libstdc++-{compiler.version.partition('.')[0]}-dev"
        raise ToolchainError(
            f"{compiler.path} has no static C++ library (libstdc++.a)",
            hint=f"apt-get install {package}",
        )


def _check_gl(compiler: HostCompiler) -> None:
    """Compile and link a program that uses GL and EGL; a header can exist without the library."""
    with tempfile.TemporaryDirectory(prefix="nvdiffrast-gl-") as folder:
        probe = Path(folder, "probe.cpp")
        probe.write_text(_GL_PROBE, encoding="utf-8")
        output = Path(folder, "probe.so")
        try:
            call([compiler.path, "-shared", "-fPIC", probe, "-lGL", "-lEGL", "-o", output], echo=False, quiet=True)
        except CommandError as error:
            first = next((line for line in error.output.splitlines() if "error" in line or "cannot find" in line), "")
            raise ToolchainError(
                f"the headers or libraries of GL and EGL, which the GL plugin needs, are missing: {first.strip()}",
                hint="apt-get install libegl-dev libgl-dev",
            ) from error


def _msvc(toolkit: Toolkit) -> HostCompiler:
    """Return cl.exe on PATH. Its banner shows 19.44 for toolset 14.44; the bounds are toolset versions."""
    path = which("cl")
    if path is None:
        raise ToolchainError(
            f"no C++ compiler: cl.exe is not on PATH; {toolkit.tag} needs Visual C++ {_describe_bounds(toolkit.msvc)}",
            hint="run this in an 'x64 Native Tools Command Prompt for VS'",
        )
    match = re.search(r"\b19\.(\d+)\.(\d+)", call([path], echo=False, quiet=True))
    if match is None:
        raise ToolchainError(f"{path} prints no version", hint="repair the installation of Visual C++")
    version = f"14.{match[1]}.{match[2]}"
    if not within(version, toolkit.msvc):
        raise ToolchainError(
            f"{path} is Visual C++ {version}; {toolkit.tag} needs {_describe_bounds(toolkit.msvc)}",
            hint="install a suitable toolset and select it: vcvarsall.bat x64 -vcvars_ver=VERSION",
        )
    return HostCompiler(path, "cl", version)
