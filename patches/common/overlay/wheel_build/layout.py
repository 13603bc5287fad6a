"""What this release line is made of, read from layout.json (sources, plugins) and build_origin.json (which release)."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Plugin:
    """One extension module; sources are relative to the tree.

    ``kernels`` are CUDA files, ``host`` C++ files that know nothing of Python, ``bindings`` those with the module in
    them; ``libraries`` are linked besides torch's.
    """

    module: str
    kernels: tuple[str, ...]
    host: tuple[str, ...]
    bindings: tuple[str, ...]
    libraries: tuple[str, ...]

    @property
    def name(self) -> str:
        """The last part of the module's name: what PyInit_ is followed by."""
        return self.module.rpartition(".")[2]


@dataclass(frozen=True)
class Layout:
    """A release: its origin (as patching wrote it), its packages and plugins.

    ``just_in_time``: upstream compiles at first use, so that a wheel of sources is of use. ``aliases`` are top-level
    modules of a binary wheel by which programs import a plugin directly.
    """

    origin: dict[str, Any]
    just_in_time: bool
    packages: tuple[str, ...]
    aliases: tuple[str, ...]
    sources: tuple[str, ...]
    plugins: tuple[Plugin, ...]

    @property
    def release(self) -> str:
        """Upstream's version, e.g. 0.3.3.1."""
        return str(self.origin["release"])

    @property
    def binary(self) -> bool:
        """Whether the wheel is to hold compiled extensions: if asked for, and always where nothing else works."""
        return os.environ.get("BUILD_BINARY_WHEEL") == "1" or not self.just_in_time


def _plugin(entry: dict[str, Any], system: str) -> Plugin:
    return Plugin(
        module=entry["module"],
        kernels=tuple(entry["kernels"]),
        host=tuple(entry["host"]),
        bindings=tuple(entry["bindings"]),
        libraries=tuple(entry["libraries"][system]),
    )


def read_layout(tree: Path, system: str = "") -> Layout:
    """Read the two files of the patched ``tree``; ``system`` is os.name unless told otherwise."""
    origin = json.loads((tree / "build_origin.json").read_text(encoding="utf-8"))
    layout = json.loads((tree / "wheel_build" / "layout.json").read_text(encoding="utf-8"))
    return Layout(
        origin=origin,
        just_in_time=layout["just_in_time"],
        packages=tuple(layout["packages"]),
        aliases=tuple(layout["aliases"]),
        sources=tuple(layout["sources"]),
        plugins=tuple(_plugin(entry, system or os.name) for entry in layout["plugins"]),
    )
