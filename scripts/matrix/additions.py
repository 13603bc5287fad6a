"""What a new table of torch builds means for the matrix: newer torch lines of its toolkits, and the cells they make.

The matrix is edited as text, a line for each torch behind the toolkit's last, so that everything else stays as written.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.version import Version

from scripts.matrix import matrix, torch_builds, yaml_document
from scripts.matrix.schema import RawMatrix, parse
from scripts.matrix.torch_builds import TorchTable
from scripts.matrix.yaml_document import Document
from scripts.model import Cell, cuda_tag


@dataclass(frozen=True)
class Addition:
    """A torch ("2.15.0") that exists for a toolkit's CUDA ("13.2") and that the matrix does not build for yet.

    ``pythons`` and ``platforms`` are None where it exists for all that the matrix has.
    """

    cuda: str
    torch: str
    pythons: tuple[str, ...] | None
    platforms: tuple[str, ...] | None

    @property
    def line(self) -> str:
        """Its entry below the toolkit's ``torch``."""
        narrow = {"python": self.pythons, "platforms": self.platforms}
        inner = ", ".join(f"{key}: {_flow(key, values)}" for key, values in narrow.items() if values)
        return f"{json.dumps(self.torch)}: {{{inner}}}"


def _flow(key: str, values: Sequence[str]) -> str:
    return json.dumps(values) if key == "python" else f"[{', '.join(values)}]"


@dataclass(frozen=True)
class Adopted:
    """A matrix with additions: its text, and the cells that are new."""

    text: str
    additions: tuple[Addition, ...]
    cells: tuple[Cell, ...]


def additions(raw: RawMatrix, builds: TorchTable) -> tuple[Addition, ...]:
    """For each toolkit the newest patch of every torch line above those it has, where it exists for what is built."""
    found = []
    for cuda, toolkit in raw.toolkits.items():
        newest = max(_line(torch) for torch in toolkit.torch)
        known = [one for torch in _known(builds, cuda) if (one := _addition(raw, builds, cuda, torch))]
        found += [one for one in _latest(known) if _line(one.torch) > newest]
    return tuple(found)


def _known(builds: TorchTable, cuda: str) -> Iterable[str]:
    channel = builds.channels.get(cuda_tag(cuda))
    return {*(channel.builds if channel else ()), *builds.pypi}


def _line(torch: str) -> tuple[int, ...]:
    return Version(torch).release[:2]


def _latest(known: Iterable[Addition]) -> list[Addition]:
    by_line = {_line(one.torch): one for one in sorted(known, key=lambda one: Version(one.torch))}
    return [by_line[line] for line in sorted(by_line)]


def _addition(raw: RawMatrix, builds: TorchTable, cuda: str, torch: str) -> Addition | None:
    """All platforms that have it, with the Pythons that all of these have."""
    exists = {name: set(builds.pythons(cuda, torch, name)) & set(raw.python) for name in raw.platforms}
    platforms = tuple(name for name, pythons in exists.items() if pythons)
    if not platforms:
        return None
    pythons = tuple(python for python in raw.python if all(python in exists[name] for name in platforms))
    if not pythons:
        return None
    every = pythons == tuple(raw.python), platforms == tuple(raw.platforms)
    return Addition(cuda, torch, None if every[0] else pythons, None if every[1] else platforms)


def adopt(path: Path, table: Path) -> Adopted:
    """The matrix at ``path`` with every addition that the table at ``table`` allows; nothing is written.

    Raises:
        MatrixError: the matrix is wrong as it is, or would be with what was added.
    """
    before = matrix.load(path, table)
    document = yaml_document.read(path)
    raw, _ = parse(document)
    assert raw is not None
    found = additions(raw, torch_builds.load(table))
    text = _insert(document, raw, found)
    with tempfile.TemporaryDirectory(prefix="nvdiffrast-") as folder:
        beside = Path(folder) / path.name
        beside.write_text(text, encoding="utf-8")
        after = matrix.load(beside, table)
    known = {cell.id for cell in before.cells}
    return Adopted(text, found, tuple(cell for cell in after.cells if cell.id not in known))


def _insert(document: Document, raw: RawMatrix, found: Sequence[Addition]) -> str:
    lines = list(document.lines)
    places: Mapping[str, tuple[int, int]] = {
        cuda: max(document.keys["toolkits", cuda, "torch", torch] for torch in toolkit.torch)
        for cuda, toolkit in raw.toolkits.items()
    }
    # From the end, and of one toolkit the newest first, so that the places above stay right.
    for one in sorted(found, key=lambda one: (places[one.cuda], Version(one.torch)), reverse=True):
        number, column = places[one.cuda]
        lines.insert(number, " " * (column - 1) + one.line)
    return "\n".join(lines) + "\n"


def report(before: TorchTable, after: TorchTable, adopted: Adopted | None) -> str:
    """For people, in Markdown: what changed in the table, what was added to the matrix, what is left to do."""
    parts = ["## The table of torch builds", *(_changes(before, after) or ["Nothing has changed."])]
    if adopted and adopted.additions:
        parts += ["", "## Added to the matrix"]
        parts += [f"- CUDA {one.cuda}: torch {one.torch}" for one in adopted.additions]
        parts += ["", f"{len(adopted.cells)} cells:", "", *(f"- `{cell.id}`" for cell in adopted.cells)]
        names = dict.fromkeys(
            f"{cell.torch.version}-{cell.toolkit.tag}" + ("-win_amd64" if cell.platform.is_windows else "")
            for cell in adopted.cells
        )
        parts += ["", "Lock their torch before they are built:", "", f"    nox -s lock -- {' '.join(names)}"]
    return "\n".join(parts) + "\n"


def _changes(before: TorchTable, after: TorchTable) -> list[str]:
    """A line for every build that came or went."""
    old, new = _flat(before), _flat(after)
    came = [f"- new: {build}" for build in new if build not in old]
    return came + [f"- gone: {build}" for build in old if build not in new]


def _flat(table: TorchTable) -> dict[str, None]:
    """``torch 2.15.0 for CUDA 13.2, linux_x86_64, CPython 3.12`` for each build there is."""
    flat: dict[str, None] = {}
    for tag, channel in table.channels.items():
        for version, platforms in channel.builds.items():
            for name, pythons in platforms.items():
                flat |= dict.fromkeys(f"torch {version}, {tag}, {name}, CPython {python}" for python in pythons)
    for version, plain in table.pypi.items():
        flat |= dict.fromkeys(f"torch {version}, plain (CUDA {plain.cuda}), CPython {p}" for p in plain.pythons)
    return flat
