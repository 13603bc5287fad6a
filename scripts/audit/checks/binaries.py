"""What the wheel's shared libraries need and hold."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from scripts.audit.checks import BUILD_INFO, Subject
from scripts.wheel import fatbin, libraries, wheel_policy
from scripts.wheel.fatbin import Entry
from scripts.wheel.shared_library import Binary
from scripts.wheel.wheel_policy import LIBRARY_FOLDER, matches

_SHOWN = 3


def bundled(subject: Subject) -> Iterator[str]:
    """The CUDA runtime is bundled, and nothing else."""
    # delvewheel's list for old Pythons, in which order to load what it bundled, is none.
    names = [posixpath.basename(name) for name in subject.bundled if "/.load-order-" not in name]
    yield from subject.policy.bundling_problems(names)


def needed(subject: Subject) -> Iterator[str]:
    """The libraries needed are torch's, the system's and the bundled one; GL's are needed by the GL plugin alone."""
    policy, gl = subject.policy, subject.plugins.get("gl")
    inside = {posixpath.basename(name) for name in subject.binaries if name not in subject.plugins.values()}
    for name, binary in subject.binaries.items():
        allowed = (*policy.needed, *inside, *(policy.needed_by_gl if name == gl else ()))
        yield from (f"{name} needs {lib}" for lib in sorted(binary.needed) if not matches(lib, allowed))


def run_paths(subject: Subject) -> Iterator[str]:
    """Libraries are looked for beside the package and nowhere else: no RPATH leads out of the wheel."""
    for name, binary in subject.binaries.items():
        relative = posixpath.relpath(LIBRARY_FOLDER, posixpath.dirname(name) or ".")
        allowed = {"$ORIGIN" if relative == "." else f"$ORIGIN/{relative}"}
        stated = [path for value in binary.run_paths for path in value.split(":")]
        yield from (
            f"{name} looks for libraries in {path or 'an empty path'}" for path in stated if path not in allowed
        )


def symbol_versions(subject: Subject) -> Iterator[str]:
    """Yield a message for each module that needs symbols newer than the glibc and libstdc++ of the platform tag."""
    ceiling = wheel_policy.symbol_limits(subject.cell)
    for name, binary in subject.binaries.items():
        for prefix, versions in sorted(binary.versions.items()):
            if prefix in ceiling and (newer := sorted(versions - ceiling[prefix])):
                required = ", ".join(_named(binary, f"{prefix}_{version}") for version in newer)
                yield f"{name} requires {required}, newer than {subject.cell.platform.wheel_tag} allows"


def _named(binary: Binary, version: str) -> str:
    """Return the symbols that require ``version`` as ``SYMBOL@VERSION``; the version alone if no symbol requires it."""
    return ", ".join(f"{symbol}@{version}" for symbol in sorted(binary.symbols.get(version, ()))) or version


def architectures(subject: Subject) -> Iterator[str]:
    """Every CUDA source was compiled for exactly the policy's architectures; a partial wheel, for those it states."""
    expected = _expected(subject)
    cuda = subject.plugins.get("cuda")
    for name, binary in subject.binaries.items():
        if not binary.fatbin:
            if name == cuda:
                yield f"{name} has no CUDA code"
        elif name not in subject.plugins.values():
            yield f"{name} has CUDA code"
        else:
            for found in sorted({tuple(sorted(each)) for each in fatbin.parse(binary.fatbin)}):
                yield from _differences(name, frozenset(found), expected)


def debug_information(subject: Subject) -> Iterator[str]:
    """The plugins have no debug information."""
    for name in subject.plugins.values():
        if debug := subject.binaries[name].debug:
            yield f"{name} has debug information: {', '.join(debug[:_SHOWN])}"


def build_paths(subject: Subject) -> Iterator[str]:
    """Neither the plugins nor build_info.json name a folder of the machine that built them."""
    for name in (*subject.plugins.values(), BUILD_INFO):
        if name in subject.wheel.files and (found := libraries.build_paths(subject.wheel.read(name))):
            more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
            yield f"{name} names {', '.join(found[:_SHOWN])}{more}"


def _expected(subject: Subject) -> frozenset[Entry]:
    toolkit, info = subject.cell.toolkit, subject.trusted_info
    sass, ptx = list(toolkit.architectures), [toolkit.ptx]
    if info.partial:
        sass, ptx = info.architectures.sass, info.architectures.ptx
    return frozenset([*(Entry("sass", one) for one in sass), *(Entry("ptx", one) for one in ptx)])


def _differences(name: str, found: frozenset[Entry], expected: frozenset[Entry]) -> Iterator[str]:
    for entries, word in ((expected - found, "lacks"), (found - expected, "has, against the policy,")):
        if entries:
            yield f"{name} {word} {', '.join(f'{entry.kind} {entry.architecture}' for entry in sorted(entries))}"
