"""The cell that a plain `nox -s build` makes on this machine."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from packaging.version import Version

from scripts import console
from scripts.errors import BuildError, UsageError
from scripts.matrix.matrix import Matrix
from scripts.model import ROOT, Cell
from scripts.source import upstream
from scripts.support import environments
from scripts.support.host import host_platform
from scripts.toolchain import providers


def host_cell(planned: Matrix, release: str | None) -> Cell:
    """Return the cell of :func:`default_cell`, and report why it was chosen."""
    cell, passed_over = default_cell(planned, release)
    console.log(f"cell {cell.id}: this Python, the torch of `pip install torch`, the newest release")
    for reason in passed_over:
        console.log(f"  not {reason}")
    return cell


def default_cell(planned: Matrix, release: str | None = None) -> tuple[Cell, tuple[str, ...]]:
    """Return the cell that a plain `build` makes here, and the reasons why no preferred cell was chosen.

    It has this machine's Python and platform, the torch that `pip install torch` gives (:func:`_default_torch`), and
    the newest upstream release that can be fetched, or the named ``release``.

    Raises:
        UsageError: the matrix has no cell for this Python, this platform and that release.
        BuildError: every candidate lacks a lock, a toolkit or a source; the message has all reasons.
    """
    python = _python_line()
    candidates = [
        cell
        for cell in planned.cells
        if cell.python == python
        and cell.platform.name == host_platform()
        and (release is None or cell.release.version == release)
    ]
    if not candidates:
        raise UsageError(
            f"the matrix has no cell for CPython {python} on {host_platform()}"
            + (f" and release {release}" if release else ""),
            hint="nox -s plan",
        )
    passed_over: dict[str, None] = {}
    for cell in _default_torch(candidates):
        reason = _missing_input(cell, fetch_release=release is None)
        if reason is None:
            return cell, tuple(passed_over)
        passed_over[reason] = None
    raise BuildError(f"no cell can be built here: {'; '.join(passed_over)}", hint="nox -s plan")


def _python_line() -> str:
    """Return the line of the Python that runs this, such as "3.12"."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _default_torch(cells: Sequence[Cell]) -> list[Cell]:
    """Return the cells of the torch builds that `pip install torch` gives, newest torch first, then newest release.

    Those are the builds that PyPI itself serves with CUDA. Where it serves none (Windows), all builds are candidates.
    """
    chosen = [cell for cell in cells if cell.torch.origin == "pypi"] or list(cells)
    return sorted(chosen, key=lambda cell: (Version(cell.torch.version), Version(cell.release.version)), reverse=True)


def _missing_input(cell: Cell, *, fetch_release: bool) -> str | None:
    """Return the first input of the cell that cannot be provided here, with the reason, or None."""
    if not (ROOT / environments.torch_lock_name(cell)).exists():
        return f"torch {cell.torch.version}: unlocked"
    if reason := providers.availability(cell.toolkit):
        return f"CUDA {cell.toolkit.cuda}: {reason}"
    if fetch_release and (reason := upstream.availability(cell.release)):
        return f"{cell.release.version}: {reason}"
    return None
