"""Reads the layout of a release line (layout.json) and the origin of the patched tree (build_origin.json)."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Plugin:
    """An extension module; source files are relative to the tree.

    ``kernels`` are CUDA files, ``host`` are C++ files that do not use Python, ``bindings`` are C++ files that define
    the module. ``libraries`` are linked in addition to those of torch.
    """

    module: str
    kernels: tuple[str, ...]
    host: tuple[str, ...]
    bindings: tuple[str, ...]
    libraries: tuple[str, ...]

    @property
    def name(self) -> str:
        """Return the last part of the module name, which follows PyInit_ in the name of its entry point."""
        return self.module.rpartition(".")[2]


@dataclass(frozen=True)
class Layout:
    """The origin of the patched tree, and the packages and plugins of its release line.

    ``just_in_time`` is true if upstream can compile at first use, so that a source wheel works. ``aliases`` are
    top-level modules of a binary wheel that programs use to import a plugin directly.
    """

    origin: dict[str, Any]
    just_in_time: bool
    packages: tuple[str, ...]
    aliases: tuple[str, ...]
    sources: tuple[str, ...]
    plugins: tuple[Plugin, ...]

    @property
    def release(self) -> str:
        """Return upstream's version, e.g. 0.3.3.1."""
        return str(self.origin["release"])

    @property
    def binary(self) -> bool:
        """Return whether to build a binary wheel: on request, and always without just-in-time compilation."""
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
    """Read both files of the patched ``tree``; ``system`` is os.name by default."""
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
