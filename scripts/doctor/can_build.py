"""Check whether this machine can build wheels: the inputs of the cell of a plain `nox -s build`, and of other cells."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from scripts.build import cibuildwheel, default_cell
from scripts.errors import PipelineError
from scripts.matrix.matrix import Matrix
from scripts.model import ROOT, Cell
from scripts.source import upstream
from scripts.support import environments, interpreters
from scripts.support.files import cache_root
from scripts.toolchain import compilers, providers

# Enough for torch unpacked, its download, and a toolkit.
_FIRST_BUILD_GIB = 12


@dataclass(frozen=True)
class Finding:
    """A line of the report: its state ("passed", "failed", "warning", "info"), text, details and next step."""

    state: str
    text: str
    details: tuple[str, ...] = ()
    hint: str = ""


@dataclass(frozen=True)
class Choice:
    """The cell that a plain `nox -s build` builds here, and why no newer one; or ``error`` if it builds no cell."""

    cell: Cell | None
    reasons: tuple[str, ...] = ()
    error: PipelineError | None = None


def choose(planned: Matrix) -> Choice:
    """Return the cell that a plain `nox -s build` would build."""
    try:
        cell, passed_over = default_cell.default_cell(planned)
    except PipelineError as error:
        return Choice(None, error=error)
    return Choice(cell, tuple(f"not {reason}" for reason in passed_over))


def findings(planned: Matrix, choice: Choice) -> Iterator[Finding]:
    """Yield the findings about building wheels on this machine; if one of them failed, it cannot build."""
    if choice.error is not None:
        yield _refusal(choice.error)
    if choice.cell is not None:
        yield Finding("passed", f"`nox -s build` takes the cell {choice.cell.id}", choice.reasons)
        yield from _inputs(choice.cell)
    yield from _disk()
    yield from _all_inputs(planned)


def _inputs(cell: Cell) -> Iterator[Finding]:
    """Yield one finding per input of a cell's build."""
    why = upstream.availability(cell.release)
    yield (
        Finding("failed", f"source of {cell.release.version}: {why}")
        if why
        else Finding("passed", f"source of {cell.release.version}")
    )
    yield _toolkit(cell)
    yield _probed(lambda: environments.torch_lock(cell), f"torch {cell.torch.version}, locked")
    yield from _compiler(cell)
    yield _python(cell.python)


def _toolkit(cell: Cell) -> Finding:
    why = providers.availability(cell.toolkit)
    if why is None:
        return Finding("passed", f"CUDA {cell.toolkit.cuda}")
    return Finding("failed", f"CUDA {cell.toolkit.cuda}: {why}", hint=f"nox -s lock -- {cell.toolkit.tag}")


def _compiler(cell: Cell) -> Iterator[Finding]:
    """Yield findings about the host compiler, and about the headers and libraries of the OpenGL plugin."""
    try:
        found = compilers.check_host(cell.toolkit, needs_gl=False)
    except PipelineError as error:
        yield _refusal(error)
        return
    yield Finding("passed", f"{found.name} {found.version}, {found.path}")
    if cell.release.has_gl:
        yield _probed(
            lambda: compilers.check_host(cell.toolkit, needs_gl=True), "headers and libraries of OpenGL and EGL"
        )


def _python(line: str) -> Finding:
    found = interpreters.find(line)
    if found:
        return Finding("passed", f"CPython {line} with headers, {found}")
    text = f"CPython {line} with its headers is not installed"
    return Finding("failed", text, hint=f"apt-get install python{line} python{line}-dev")


def _disk() -> Iterator[Finding]:
    for purpose, folder in (("downloads", cache_root()), ("builds", ROOT / "build")):
        there = next(parent for parent in (folder, *folder.parents) if parent.exists())
        free = shutil.disk_usage(there).free / 2**30
        text = f"{free:.0f} GiB free for {purpose}, {folder}"
        if free >= _FIRST_BUILD_GIB:
            yield Finding("passed", text)
        else:
            details = f"a first build takes up to {_FIRST_BUILD_GIB} GiB; NVDIFFRAST_WHEELS_CACHE names another folder"
            yield Finding("warning", text, (details,))


def _all_inputs(planned: Matrix) -> Iterator[Finding]:
    """Yield the available sources, toolkits, Pythons and containers for all cells; `nox -s plan` has the reasons."""
    pythons = list(dict.fromkeys(cell.python for cell in planned.cells))
    kinds = {
        "sources": {release.version: upstream.availability(release) is None for release in planned.releases},
        "toolkits": {f"CUDA {one.cuda}": providers.availability(one) is None for one in planned.toolkits},
        "CPython with headers": {python: interpreters.find(python) is not None for python in pythons},
    }
    for kind, there in kinds.items():
        here, missing = ([name for name, found in there.items() if found is wanted] for wanted in (True, False))
        text = f"{kind}: {', '.join(here) or 'none'}" + (f"; missing: {', '.join(missing)}" if missing else "")
        yield Finding("info", text)
    why = cibuildwheel.availability()
    yield Finding("info", f"no containers (--engine cibuildwheel): {why}" if why else "containers can be used")


def _probed(probe: Callable[[], Any], text: str) -> Finding:
    """Return the finding ``text`` if the probe succeeds, else its error as a failed finding."""
    try:
        probe()
    except PipelineError as error:
        return _refusal(error)
    return Finding("passed", text)


def _refusal(error: PipelineError) -> Finding:
    return Finding("failed", str(error), hint=error.hint or "")
