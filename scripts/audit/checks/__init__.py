"""The audit's checks, by concern. A check is a function of a Subject that yields what is wrong; nothing is good.

It raises UntestedError where it cannot be made here, and may raise another PipelineError where the wheel is too damaged
to be read.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from scripts.errors import AuditError, UntestedError
from scripts.model import Cell
from scripts.wheel import libraries, wheel_policy
from scripts.wheel.build_info import BuildInfo
from scripts.wheel.shared_library import Binary
from scripts.wheel.wheel_file import Wheel
from scripts.wheel.wheel_policy import LIBRARY_FOLDER, WheelPolicy

BUILD_INFO = "nvdiffrast/build_info.json"


@dataclass(frozen=True)
class Subject:
    """The wheel under audit and what it is held against; ``interpreter`` is a Python with torch to import it in."""

    wheel: Wheel
    cell: Cell
    interpreter: Path | None = None
    allow_partial: bool = False

    @cached_property
    def policy(self) -> WheelPolicy:
        """What a wheel of this cell may hold and need."""
        return wheel_policy.for_cell(self.cell)

    @cached_property
    def info(self) -> BuildInfo:
        """build_info.json.

        Raises:
            AuditError: it is missing or malformed.
        """
        return BuildInfo.parse(self.wheel.read(BUILD_INFO))

    @property
    def trusted_info(self) -> BuildInfo:
        """build_info.json for a check that is about something else.

        Raises:
            UntestedError: it cannot be read; the check of build_info.json itself says why.
        """
        try:
            return self.info
        except AuditError as error:
            raise UntestedError("build_info.json cannot be read") from error

    @cached_property
    def bundled(self) -> tuple[str, ...]:
        """The members that are there beside the package: all that is in nvdiffrast.libs, and any strange library."""
        return tuple(
            name
            for name in self.wheel.files
            if name.startswith(f"{LIBRARY_FOLDER}/")
            or (libraries.is_shared_library(name) and name not in self.plugins.values())
        )

    @cached_property
    def binaries(self) -> dict[str, Binary]:
        """All shared libraries of the wheel by member name.

        Raises:
            AuditError: one is damaged.
        """
        return {
            name: libraries.read(self.wheel.folder / name)
            for name in self.wheel.files
            if libraries.is_shared_library(name)
        }

    @cached_property
    def plugins(self) -> dict[str, str]:
        """The member that holds each plugin, by its kind; one that is missing is not there."""
        candidates = {
            plugin.kind: [plugin.member + suffix for suffix in self.policy.suffixes] for plugin in self.policy.plugins
        }
        present = {kind: [name for name in names if name in self.wheel.files] for kind, names in candidates.items()}
        return {kind: names[0] for kind, names in present.items() if names}


class CheckFunction(Protocol):
    """What a check looks like."""

    def __call__(self, subject: Subject, /) -> Iterable[str]:
        """Yield what is wrong."""
        ...
