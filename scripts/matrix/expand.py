"""Expand the matrix to cells: the product of its axes without the exclusions, checked against the torch table."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from scripts.matrix.schema import RawBounds, RawMatrix, RawRelease, RawToolkit
from scripts.matrix.torch_builds import TorchTable
from scripts.matrix.yaml_document import Document, Trail
from scripts.model import (
    Bounds,
    Cell,
    GitPin,
    Platform,
    Provider,
    ProviderKind,
    RegistryPin,
    Release,
    Toolkit,
    TorchBuild,
    cuda_tag,
    version_line,
)


@dataclass(frozen=True)
class Exclusion:
    """A glob over cell ids, the reason why those cells are not built, and the ids of the excluded cells."""

    pattern: str
    reason: str
    cells: tuple[str, ...]


@dataclass(frozen=True)
class _Candidate:
    """A combination in the matrix; ``exists`` is False if the table does not contain its torch build."""

    cell: Cell
    exists: bool


def _candidates(raw: RawMatrix, builds: TorchTable) -> Iterator[_Candidate]:
    platforms = {name: Platform(name, one.wheel_tag, one.image) for name, one in raw.platforms.items()}
    for (version, release), (cuda, toolkit) in itertools.product(raw.releases.items(), raw.toolkits.items()):
        if release.registry is None and release.git is None:
            continue
        made_release, made_toolkit = to_release(version, release), to_toolkit(cuda, toolkit)
        for torch, where in toolkit.torch.items():
            names = [name for name in where.platforms or platforms if name in platforms]
            for python, name in itertools.product(where.python or raw.python, names):
                origin = builds.origin(cuda, torch, name, python)
                build = TorchBuild(version_line(torch), torch, origin or "pytorch")
                cell = Cell(made_release, python, made_toolkit, build, platforms[name], raw.cuda_runtime)
                yield _Candidate(cell, exists=origin is not None)


def to_release(version: str, raw: RawRelease) -> Release:
    """Return the release; the rules have checked that it has a pin."""
    if raw.registry:
        pin = raw.registry
        source = RegistryPin(pin.package, pin.version, pin.filename, pin.sha256)
        return Release(version, raw.series, source, has_gl=raw.opengl)
    assert raw.git is not None
    commit = GitPin(raw.git.url, raw.git.tag, raw.git.commit, raw.git.tree)
    return Release(version, raw.series, commit, has_gl=raw.opengl)


def to_toolkit(cuda: str, raw: RawToolkit) -> Toolkit:
    """Return the toolkit, with the lock file of each of its providers."""
    tag = cuda_tag(cuda)
    locks: dict[ProviderKind, str | None] = {
        "pypi": f"requirements/toolkits/{tag}.txt",
        "redist": f"requirements/toolkits/{tag}-redist.json",
        "system": None,
    }
    providers = tuple(Provider(kind, locks[kind]) for kind in raw.providers)
    return Toolkit(cuda, providers, tuple(raw.architectures), raw.ptx, _bounds(raw.gcc), _bounds(raw.msvc))


def _bounds(raw: RawBounds) -> Bounds:
    return Bounds(raw.minimum, raw.maximum)


def expand(
    document: Document, raw: RawMatrix, builds: TorchTable, *, sound: bool
) -> tuple[tuple[Cell, ...], tuple[Exclusion, ...]]:
    """Return the cells and the exclusions in the order of the file; report problems to ``document``.

    If ``sound`` is False, the matrix has other problems, which may cause unused exclusions and axis values. Those are
    then not reported.
    """
    candidates = list(_candidates(raw, builds))
    exclusions = []
    for index, rule in enumerate(raw.exclusions):
        excluded = tuple(item.cell.id for item in candidates if fnmatchcase(item.cell.id, rule.cells))
        if not excluded and sound:
            text = f"{rule.cells} excludes no cell that is not excluded above; remove it or correct the glob"
            document.report(("exclusions", index, "cells"), text)
        exclusions.append(Exclusion(rule.cells, rule.reason, excluded))
        candidates = [item for item in candidates if item.cell.id not in excluded]
    _check_builds(document, raw, builds, candidates)
    cells = tuple(item.cell for item in candidates)
    if sound:
        _check_use(document, raw, cells)
    return cells, tuple(exclusions)


def _check_builds(document: Document, raw: RawMatrix, builds: TorchTable, candidates: Sequence[_Candidate]) -> None:
    """Report every combination that is not in the table of torch builds."""
    absent: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for candidate in candidates:
        if not candidate.exists:
            cell = candidate.cell
            absent[(cell.toolkit.cuda, cell.torch.version, cell.platform.name)].add(cell.python)
    for (cuda, torch, platform), missing in absent.items():
        pythons = ", ".join(python for python in raw.python if python in missing)
        known = ", ".join(builds.pythons(cuda, torch, platform)) or "none"
        text = (
            f"torch {torch} for CUDA {cuda} does not exist for CPython {pythons} on {platform} (known: {known}); "
            "narrow `python` or `platforms`, exclude it with a reason, or refresh the table with `nox -s observe`"
        )
        document.report(("toolkits", cuda, "torch", torch), text, key=True)


def _check_use(document: Document, raw: RawMatrix, cells: Sequence[Cell]) -> None:
    """Report every release, toolkit, torch, Python and platform that no cell uses."""
    used: set[Trail] = set()
    for cell in cells:
        cuda = cell.toolkit.cuda
        used |= {("releases", cell.release.version), ("toolkits", cuda), ("platforms", cell.platform.name)}
        used |= {("toolkits", cuda, "torch", cell.torch.version), ("python", raw.python.index(cell.python))}
    declared: list[Trail] = [("releases", name) for name in raw.releases]
    declared += [("platforms", name) for name in raw.platforms] + [("python", i) for i in range(len(raw.python))]
    for cuda, toolkit in raw.toolkits.items():
        torches: list[Trail] = [("toolkits", cuda, "torch", torch) for torch in toolkit.torch]
        declared += [trail for trail in torches if trail in used or ("toolkits", cuda) in used] or [("toolkits", cuda)]
    for trail in declared:
        if trail not in used:
            text = "no cell uses it: every combination is excluded; remove it or an exclusion"
            document.report(trail, text, key=True)
