"""The rules of wheel_policy.toml for a cell: what its wheel may contain and depend on."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

from auditwheel.architecture import Architecture  # type: ignore[import-untyped]
from auditwheel.libc import Libc  # type: ignore[import-untyped]
from auditwheel.policy import WheelPolicies  # type: ignore[import-untyped]
from packaging.version import Version
from pydantic import BaseModel, ConfigDict

from scripts.model import Cell

_PATH = Path(__file__).with_name("wheel_policy.toml")
LIBRARY_FOLDER = "nvdiffrast.libs"
# The prefixes of the symbol versions of libstdc++.
_CXX_PREFIXES = ("CXXABI", "GLIBCXX")


@dataclass(frozen=True)
class Plugin:
    """An extension module; ``kind`` is "cuda" or "gl", ``member`` is its path in the wheel without the suffix."""

    kind: str
    member: str

    @property
    def module(self) -> str:
        """Return the last part of the module name."""
        return self.member.rpartition("/")[2]


@dataclass(frozen=True)
class Licence:
    """The rules for LICENSE.txt: its minimum size in bytes, texts that it must contain, known SHA-256 by release."""

    minimum_size: int
    must_contain: tuple[str, ...]
    known: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class WheelPolicy:
    """The rules for the wheel of one cell; names of libraries and members may contain wildcards.

    ``exclude``: libraries that must not be bundled.
    ``bundled``: regular expression of the only bundled library, None if nothing is bundled.
    ``needed``: libraries that every module may depend on; ``needed_by_gl``: additional ones for the GL plugin.
    ``suffixes``: file name suffixes of an extension module for this Python.
    ``top_level``: names that are allowed at the top level besides the dist-info folder.
    ``forbidden``: members that no wheel may contain.
    ``not_imported``: Python files whose names need not be module names.
    ``sources``: members that the just-in-time fallback compiles.
    ``ignored_contents``: checks of check-wheel-contents that do not apply, with the reasons.
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
        """Return the problems of the bundled libraries ``names``: only one copy of the CUDA runtime is allowed."""
        expected = [name for name in names if self.bundled and re.fullmatch(self.bundled, name)]
        problems = [f"{name} is bundled and must not be" for name in sorted(set(names) - set(expected))]
        if self.bundled and len(expected) != 1:
            problems.append(f"{len(expected)} copies of the CUDA runtime are bundled instead of one")
        return problems


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _PlatformTable(_Table):
    exclude: tuple[str, ...]
    cuda_runtime: str
    bundled: str
    needed: tuple[str, ...]
    needed_by_gl: tuple[str, ...]
    module_suffixes: tuple[str, ...]


class _MembersTable(_Table):
    forbidden: tuple[str, ...]
    not_imported: tuple[str, ...]


class _SeriesTable(_Table):
    cuda_plugin: str
    gl_plugin: str | None = None
    top_level: tuple[str, ...]
    sources: tuple[str, ...]


class _CheckWheelContentsTable(_Table):
    ignore: Mapping[str, str]


class _PolicyFile(_Table):
    """The contents of wheel_policy.toml."""

    platform: Mapping[str, _PlatformTable]
    members: _MembersTable
    licence: Licence
    series: Mapping[str, _SeriesTable]
    check_wheel_contents: _CheckWheelContentsTable


def for_cell(cell: Cell) -> WheelPolicy:
    """Return the policy for the wheel of ``cell``."""
    policy_file = _load()
    platform, series = policy_file.platform[cell.platform.name], policy_file.series[cell.release.series]
    bundled = cell.cuda_runtime == "bundled"
    plugins = (("cuda", series.cuda_plugin), ("gl", series.gl_plugin))
    return WheelPolicy(
        exclude=(*platform.exclude, *(() if bundled else (platform.cuda_runtime,))),
        bundled=platform.bundled.format(number=_runtime_number(cell)) if bundled else None,
        needed=(*platform.needed, *(() if bundled else (platform.cuda_runtime,))),
        needed_by_gl=platform.needed_by_gl,
        suffixes=tuple(suffix.format(digits=cell.python_tag.removeprefix("cp")) for suffix in platform.module_suffixes),
        plugins=tuple(Plugin(kind, member) for kind, member in plugins if member is not None),
        top_level=(*series.top_level, LIBRARY_FOLDER),
        forbidden=policy_file.members.forbidden,
        not_imported=policy_file.members.not_imported,
        sources=series.sources,
        licence=policy_file.licence,
        ignored_contents=policy_file.check_wheel_contents.ignore,
    )


def runtime_pattern(cell: Cell) -> str:
    """Return the file name of the CUDA runtime before it is bundled, with wildcards."""
    return _load().platform[cell.platform.name].cuda_runtime


def symbol_limits(cell: Cell) -> dict[str, frozenset[str]]:
    """Return the symbol versions that the platform tag permits, by prefix: {"GLIBCXX": {"3.4", ..., "3.4.24"}, ...}.

    The limits come from auditwheel. The result is empty for Windows, whose platform tag has no limits.
    """
    if cell.platform.is_windows:
        return {}
    policies = WheelPolicies(libc=Libc.GLIBC, arch=Architecture.x86_64)
    return dict(policies.get_policy_by_name(cell.platform.wheel_tag).symbol_versions)


def newest_symbols(cell: Cell) -> str:
    """Return the newest symbol versions of the C++ runtime that the platform tag permits, separated by spaces.

    For manylinux_2_28 that is "CXXABI_1.3.11 GLIBCXX_3.4.24".
    """
    limits = symbol_limits(cell)
    newest = {
        prefix: max((version for version in limits.get(prefix, ()) if version[0].isdigit()), key=Version, default=None)
        for prefix in _CXX_PREFIXES
    }
    return " ".join(f"{prefix}_{version}" for prefix, version in newest.items() if version)


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Return whether ``name`` matches one of ``patterns``, which may contain wildcards."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _runtime_number(cell: Cell) -> str:
    """Return the number in the file name of the CUDA runtime: the major version, but 110 for CUDA 11 on Windows."""
    major = cell.toolkit.cuda.partition(".")[0]
    return "110" if major == "11" and cell.platform.is_windows else major


@cache
def _load() -> _PolicyFile:
    return _PolicyFile.model_validate(tomllib.loads(_PATH.read_text(encoding="utf-8")))
