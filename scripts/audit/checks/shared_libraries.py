"""Checks of the shared libraries in the wheel: their dependencies and contents."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from scripts.audit.checks import BUILD_INFO, Subject
from scripts.wheel import fatbin, library_reader, wheel_policy
from scripts.wheel.fatbin import Entry
from scripts.wheel.shared_library import SharedLibrary
from scripts.wheel.wheel_policy import LIBRARY_FOLDER, matches

_MAX_SHOWN = 3


def bundled(subject: Subject) -> Iterator[str]:
    """Check that only the CUDA runtime is bundled."""
    # delvewheel adds .load-order-* files, which are not libraries, for old Pythons.
    names = [posixpath.basename(name) for name in subject.bundled if "/.load-order-" not in name]
    yield from subject.policy.bundling_problems(names)


def needed(subject: Subject) -> Iterator[str]:
    """Check that the wheel depends only on permitted libraries, and only the GL plugin on those of GL."""
    policy, gl = subject.policy, subject.plugins.get("gl")
    bundled_names = {
        posixpath.basename(name) for name in subject.shared_libraries if name not in subject.plugins.values()
    }
    for name, library in subject.shared_libraries.items():
        allowed = (*policy.needed, *bundled_names, *(policy.needed_by_gl if name == gl else ()))
        yield from (f"{name} depends on {lib}" for lib in sorted(library.needed) if not matches(lib, allowed))


def run_paths(subject: Subject) -> Iterator[str]:
    """Check that every RPATH and RUNPATH entry is the folder of the bundled libraries."""
    for name, library in subject.shared_libraries.items():
        relative = posixpath.relpath(LIBRARY_FOLDER, posixpath.dirname(name) or ".")
        allowed = {"$ORIGIN" if relative == "." else f"$ORIGIN/{relative}"}
        stated = [path for value in library.run_paths for path in value.split(":")]
        yield from (f"{name} searches libraries in {path or 'an empty path'}" for path in stated if path not in allowed)


def symbol_versions(subject: Subject) -> Iterator[str]:
    """Check that no library requires symbols newer than the glibc and libstdc++ of the platform tag."""
    limits = wheel_policy.symbol_limits(subject.cell)
    for name, library in subject.shared_libraries.items():
        for prefix, versions in sorted(library.versions.items()):
            if prefix in limits and (newer := sorted(versions - limits[prefix])):
                required = ", ".join(_symbols(library, f"{prefix}_{version}") for version in newer)
                yield f"{name} requires {required}, newer than {subject.cell.platform.wheel_tag} allows"


def _symbols(library: SharedLibrary, version: str) -> str:
    """Return the symbols that require ``version`` as ``SYMBOL@VERSION``; the version alone if no symbol requires it."""
    return ", ".join(f"{symbol}@{version}" for symbol in sorted(library.symbols.get(version, ()))) or version


def architectures(subject: Subject) -> Iterator[str]:
    """Check that each .cu file was compiled for exactly the required architectures.

    These are the architectures of the policy, or those that build_info.json of a partial wheel states.
    """
    expected = _expected_entries(subject)
    cuda = subject.plugins.get("cuda")
    for name, library in subject.shared_libraries.items():
        if not library.fatbin:
            if name == cuda:
                yield f"{name} has no CUDA code"
        elif name not in subject.plugins.values():
            yield f"{name} has CUDA code"
        else:
            for found in sorted({tuple(sorted(each)) for each in fatbin.parse(library.fatbin)}):
                yield from _differences(name, frozenset(found), expected)


def debug_information(subject: Subject) -> Iterator[str]:
    """Check that the plugins have no debug information."""
    for name in subject.plugins.values():
        if debug := subject.shared_libraries[name].debug:
            yield f"{name} has debug information: {', '.join(debug[:_MAX_SHOWN])}"


def build_paths(subject: Subject) -> Iterator[str]:
    """Check that the plugins and build_info.json contain no folder of the build machine."""
    for name in (*subject.plugins.values(), BUILD_INFO):
        if name in subject.wheel.files and (found := library_reader.build_paths(subject.wheel.read(name))):
            more = f" and {len(found) - _MAX_SHOWN} more" if len(found) > _MAX_SHOWN else ""
            yield f"{name} contains {', '.join(found[:_MAX_SHOWN])}{more}"


def _expected_entries(subject: Subject) -> frozenset[Entry]:
    """Return the fat binary entries that each .cu file must have."""
    toolkit, info = subject.cell.toolkit, subject.trusted_info
    sass, ptx = list(toolkit.architectures), [toolkit.ptx]
    if info.partial:
        sass, ptx = info.architectures.sass, info.architectures.ptx
    return frozenset([*(Entry("sass", one) for one in sass), *(Entry("ptx", one) for one in ptx)])


def _differences(name: str, found: frozenset[Entry], expected: frozenset[Entry]) -> Iterator[str]:
    for entries, verb in ((expected - found, "lacks"), (found - expected, "has, contrary to the policy,")):
        if entries:
            yield f"{name} {verb} {', '.join(f'{entry.kind} {entry.architecture}' for entry in sorted(entries))}"
