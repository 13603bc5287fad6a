"""Advice on how to install a wheel of this repository into the examined Python: from dist/, else by building one."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from packaging.version import Version

from scripts.audit.checks import BUILD_INFO
from scripts.errors import AuditError
from scripts.matrix.matrix import Matrix
from scripts.model import ROOT, Cell
from scripts.source import upstream
from scripts.toolchain import providers
from scripts.wheel.build_info import BuildInfo

DIST = ROOT / "dist"
# The largest accepted build_info.json, in bytes.
_SIZE_LIMIT = 1 << 20


@dataclass(frozen=True)
class Built:
    """A wheel in dist/: its path, its cell, and its build_info.json."""

    path: Path
    cell: Cell
    info: BuildInfo

    @property
    def text(self) -> str:
        """Return a line that names the wheel and, if it is partial, its architectures."""
        few = f", only for compute capability {', '.join(self.info.architectures.sass)}" if self.info.partial else ""
        return f"{shown(self.path)} is built{few}"


def shown(path: Path) -> str:
    """Return a path relative to the repository, or the whole path if it lies elsewhere."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def in_dist(planned: Matrix, machine: Mapping[str, Any]) -> list[Built]:
    """Return the wheels in dist/ for that Python and platform, the best first; unreadable files are skipped.

    ``machine`` is _doctor_install.Machine as a mapping. A wheel for the installed torch is better than others.
    """
    cells = {cell.wheel: cell for cell in planned.cells if _is_for(cell, machine)}
    found = []
    for path in DIST.glob("nvdiffrast-*.whl"):
        info = _info(path) if path.name in cells else None
        if info is not None:
            found.append(Built(path, cells[path.name], info))
    return sorted(found, key=lambda built: (not built.info.partial, *_rank(built.cell, machine)), reverse=True)


def _info(wheel: Path) -> BuildInfo | None:
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(BUILD_INFO) as member:
            return BuildInfo.parse(member.read(_SIZE_LIMIT))
    except (OSError, zipfile.BadZipFile, KeyError, AuditError):
        return None


def advice(
    overlay: ModuleType, planned: Matrix, machine: Mapping[str, Any], built: Sequence[Built], chosen: Cell | None
) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """Return a note and the commands of pip and uv: for the best wheel in dist/, else for one that can be built here.

    ``built`` is the result of :func:`in_dist`, ``chosen`` the cell that a plain `nox -s build` builds. Without a cell
    for the machine there are no commands.
    """
    if built:
        cell, wheel, first = built[0].cell, shown(built[0].path), tuple[str, ...]()
        note = f"{wheel}, for torch {cell.torch.line} of CUDA {cell.toolkit.cuda}"
    else:
        found = _buildable(planned, machine, chosen)
        if found is None:
            return f"the matrix has no cell for Python {machine['python']} that this machine can build", (), ()
        cell, wheel = found, f"dist/{found.wheel}"
        first = ("nox -s build" if found == chosen else f"nox -s build -- {found.id}",)
        note = f"build a wheel for torch {cell.torch.line} of CUDA {cell.toolkit.cuda}, then install it"
    if machine["torch"] and not _has_torch(cell, machine):
        note += f"; this changes torch, which is {machine['torch']} of CUDA {machine['cuda'] or 'none'}"
    pip, uv = (
        (*first, *_commands(overlay, install, cell, wheel, machine)) for install in ("pip install", "uv pip install")
    )
    return note, pip, uv


def _commands(overlay: ModuleType, install: str, cell: Cell, wheel: str, machine: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the commands that install ``wheel`` and, if it is missing, its torch from the index that publishes it."""
    if _has_torch(cell, machine):
        return (f"{install} {wheel}",)
    same = machine["torch"] == cell.torch.line
    command = overlay.install.replacing(install) if same else install
    torch = str(overlay.install.torch_from(command, cell.torch.origin, cell.torch.line, cell.toolkit.tag))
    # If both come from the same index, one command installs them.
    return (f"{torch} {wheel}",) if cell.torch.origin == "pypi" and not same else (torch, f"{install} {wheel}")


def _buildable(planned: Matrix, machine: Mapping[str, Any], chosen: Cell | None) -> Cell | None:
    """Return the best cell for the machine whose source and toolkit are available, or None if no cell matches.

    It is a cell for the installed torch, else ``chosen``, else a cell of the default toolkit.
    """
    if chosen is not None and _is_for(chosen, machine) and (not machine["torch"] or _has_torch(chosen, machine)):
        return chosen
    fitting = [
        cell
        for cell in planned.cells
        if _is_for(cell, machine)
        and (_has_torch(cell, machine) or cell.toolkit.tag == planned.default_toolkit)
        and upstream.availability(cell.release) is None
        and providers.availability(cell.toolkit) is None
    ]
    return max(fitting, key=lambda cell: _rank(cell, machine), default=None)


def _is_for(cell: Cell, machine: Mapping[str, Any]) -> bool:
    return (cell.platform.name, cell.python) == (machine["platform"], machine["python"])


def _has_torch(cell: Cell, machine: Mapping[str, Any]) -> bool:
    """Return whether the installed torch has the cell's version and CUDA."""
    return (cell.torch.line, cell.toolkit.cuda) == (machine["torch"], machine["cuda"])


def _rank(cell: Cell, machine: Mapping[str, Any]) -> tuple[bool, Version, Version]:
    return _has_torch(cell, machine), Version(cell.release.version), Version(cell.torch.version)
