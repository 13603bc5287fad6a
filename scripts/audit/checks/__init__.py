"""The checks of the audit, one module per topic.

A check is a function that takes a Subject and yields one message per problem; no message means that it passed. It
raises UntestedError if it is not possible on this machine, and another PipelineError if the wheel is too damaged.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from scripts.errors import AuditError, UntestedError
from scripts.model import Cell
from scripts.wheel import library_reader, wheel_policy
from scripts.wheel.build_info import BuildInfo
from scripts.wheel.shared_library import SharedLibrary
from scripts.wheel.wheel_file import Wheel
from scripts.wheel.wheel_policy import LIBRARY_FOLDER, WheelPolicy

BUILD_INFO = "nvdiffrast/build_info.json"


@dataclass(frozen=True)
class Subject:
    """The audited wheel and its cell; ``interpreter`` is a Python with torch for the import checks."""

    wheel: Wheel
    cell: Cell
    interpreter: Path | None = None
    allow_partial: bool = False

    @cached_property
    def policy(self) -> WheelPolicy:
        """Return the policy for a wheel of this cell."""
        return wheel_policy.for_cell(self.cell)

    @cached_property
    def info(self) -> BuildInfo:
        """Return build_info.json.

        Raises:
            AuditError: if it is missing or malformed.
        """
        return BuildInfo.parse(self.wheel.read(BUILD_INFO))

    @property
    def trusted_info(self) -> BuildInfo:
        """Return build_info.json for a check of other files.

        Raises:
            UntestedError: if it is missing or malformed; the check "build-info" reports the details.
        """
        try:
            return self.info
        except AuditError as error:
            raise UntestedError("build_info.json is missing or malformed") from error

    @cached_property
    def bundled(self) -> tuple[str, ...]:
        """Return the bundled members: everything in nvdiffrast.libs, and other shared libraries except the plugins."""
        return tuple(
            name
            for name in self.wheel.files
            if name.startswith(f"{LIBRARY_FOLDER}/")
            or (library_reader.is_shared_library(name) and name not in self.plugins.values())
        )

    @cached_property
    def shared_libraries(self) -> dict[str, SharedLibrary]:
        """Return the shared libraries of the wheel by member name.

        Raises:
            AuditError: if a library is damaged.
        """
        return {
            name: library_reader.read(self.wheel.folder / name)
            for name in self.wheel.files
            if library_reader.is_shared_library(name)
        }

    @cached_property
    def plugins(self) -> dict[str, str]:
        """Return the member of each plugin by its kind, without the plugins that are missing."""
        candidates = {
            plugin.kind: [plugin.member + suffix for suffix in self.policy.suffixes] for plugin in self.policy.plugins
        }
        present = {kind: [name for name in names if name in self.wheel.files] for kind, names in candidates.items()}
        return {kind: names[0] for kind, names in present.items() if names}


class CheckFunction(Protocol):
    """The type of a check."""

    def __call__(self, subject: Subject, /) -> Iterable[str]:
        """Yield one message per problem."""
        ...
