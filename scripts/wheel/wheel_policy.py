"""What a wheel of ours may hold and need: wheel_policy.toml, for a cell."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from auditwheel.architecture import Architecture  # type: ignore[import-untyped]
from auditwheel.libc import Libc  # type: ignore[import-untyped]
from auditwheel.policy import WheelPolicies  # type: ignore[import-untyped]
from packaging.version import Version

from scripts.model import Cell

_PATH = Path(__file__).with_name("wheel_policy.toml")
LIBRARY_FOLDER = "nvdiffrast.libs"
# Prefixes of the versions of libstdc++'s symbols.
_CXX_PREFIXES = ("CXXABI", "GLIBCXX")


@dataclass(frozen=True)
class Plugin:
    """One extension module: ``kind`` is "cuda" or "gl", ``member`` its name in the wheel without the suffix."""

    kind: str
    member: str

    @property
    def module(self) -> str:
        """The last part of the module's name."""
        return self.member.rpartition("/")[2]


@dataclass(frozen=True)
class Licence:
    """What LICENSE.txt must be: its least size in bytes, texts in it, its sha256 by release where it is known."""

    minimum_size: int
    must_contain: tuple[str, ...]
    known: Mapping[str, str]


@dataclass(frozen=True)
class WheelPolicy:
    """The policy for one cell.

    ``exclude`` are never bundled (wildcards); ``bundled`` is the pattern of the one file that is, None for nothing;
    ``needed`` are the libraries any module may need, ``needed_by_gl`` those of the GL plugin besides;
    ``suffixes`` of an extension module for this Python; ``top_level`` names beside the dist-info folder (wildcards);
    ``forbidden`` are members that are in no wheel (wildcards); ``not_imported`` are Python files whose names need be no
    module's; ``sources`` are members that the just-in-time fallback compiles; ``ignored_contents`` are
    checks of check-wheel-contents and why they do not fit.
    """

    exclude: tuple[str, ...]
    bundled: str | None
    needed: tuple[str, ...]
    needed_by_gl: tuple[str, ...]
    suffixes: tuple[str, ...]
    plugins: tuple[Plugin, ...]
    top_level: tuple[str, ...]
    forbidden: tuple[str, ...]
    not_imported: tuple[str, ...]
    sources: tuple[str, ...]
    licence: Licence
    ignored_contents: Mapping[str, str]

    def bundling_problems(self, names: Iterable[str]) -> list[str]:
        """What is wrong with the names of the bundled libraries: anything but the CUDA runtime, once."""
        expected = [name for name in names if self.bundled and re.fullmatch(self.bundled, name)]
        problems = [f"{name} is bundled and must not be" for name in sorted(set(names) - set(expected))]
        if self.bundled and len(expected) != 1:
            problems.append(f"{len(expected)} copies of the CUDA runtime are bundled instead of one")
        return problems


def for_cell(cell: Cell) -> WheelPolicy:
    """The policy for the wheel of ``cell``."""
    data = _load()
    platform, series = data["platform"][cell.platform.name], data["series"][cell.release.series]
    bundled = cell.cuda_runtime == "bundled"
    licence = data["licence"]
    return WheelPolicy(
        exclude=(*platform["exclude"], *([] if bundled else [platform["cuda_runtime"]])),
        bundled=platform["bundled"].format(number=_runtime_number(cell)) if bundled else None,
        needed=(*platform["needed"], *([] if bundled else [platform["cuda_runtime"]])),
        needed_by_gl=tuple(platform["needed_by_gl"]),
        suffixes=tuple(
            suffix.format(digits=cell.python_tag.removeprefix("cp")) for suffix in platform["module_suffixes"]
        ),
        plugins=tuple(Plugin(kind, series[f"{kind}_plugin"]) for kind in ("cuda", "gl") if f"{kind}_plugin" in series),
        top_level=(*series["top_level"], LIBRARY_FOLDER),
        forbidden=tuple(data["members"]["forbidden"]),
        not_imported=tuple(data["members"]["not_imported"]),
        sources=tuple(series["sources"]),
        licence=Licence(licence["minimum_size"], tuple(licence["must_contain"]), licence["known"]),
        ignored_contents=data["check_wheel_contents"]["ignore"],
    )


def runtime_pattern(cell: Cell) -> str:
    """The CUDA runtime's file name before it is bundled, with wildcards."""
    pattern: str = _load()["platform"][cell.platform.name]["cuda_runtime"]
    return pattern


def symbol_limits(cell: Cell) -> dict[str, frozenset[str]]:
    """Return the symbol versions that the platform tag permits, by prefix: {"GLIBCXX": {"3.4", ..., "3.4.24"}, ...}.

    The source is auditwheel's table of policies; the result is empty for Windows, whose tag states no limit.
    """
    if cell.platform.is_windows:
        return {}
    policies = WheelPolicies(libc=Libc.GLIBC, arch=Architecture.x86_64)
    return dict(policies.get_policy_by_name(cell.platform.wheel_tag).symbol_versions)


def newest_symbols(cell: Cell) -> str:
    """Return the newest version of the C++ runtime's symbols that the platform tag permits, separated by blanks.

    For manylinux_2_28 that is "CXXABI_1.3.11 GLIBCXX_3.4.24".
    """
    limits = symbol_limits(cell)
    newest = {
        prefix: max((version for version in limits.get(prefix, ()) if version[0].isdigit()), key=Version, default=None)
        for prefix in _CXX_PREFIXES
    }
    return " ".join(f"{prefix}_{version}" for prefix, version in newest.items() if version)


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether a name is one of ``patterns``, which may have wildcards."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _runtime_number(cell: Cell) -> str:
    """The CUDA runtime's number in the name of its library: the major version, but 110 for all of 11 on Windows."""
    major = cell.toolkit.cuda.partition(".")[0]
    return "110" if major == "11" and cell.platform.is_windows else major


@cache
def _load() -> dict[str, Any]:
    return tomllib.loads(_PATH.read_text(encoding="utf-8"))
