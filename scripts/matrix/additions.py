"""Find new torch versions for the toolkits of the matrix, and add them to build_matrix.yaml.

The file is edited as text: one line per torch after the last one of its toolkit, so that all other lines stay the same.
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
    """A torch version ("2.15.0") that is published for a toolkit's CUDA ("13.2") and missing in the matrix.

    ``pythons`` and ``platforms`` are None if it is published for all Pythons or platforms of the matrix.
    """

    cuda: str
    torch: str
    pythons: tuple[str, ...] | None
    platforms: tuple[str, ...] | None

    @property
    def line(self) -> str:
        """Return its line below ``torch`` in the toolkit."""
        narrow = {"python": self.pythons, "platforms": self.platforms}
        inner = ", ".join(f"{key}: {_flow(key, values)}" for key, values in narrow.items() if values)
        return f"{json.dumps(self.torch)}: {{{inner}}}"


def _flow(key: str, values: Sequence[str]) -> str:
    return json.dumps(values) if key == "python" else f"[{', '.join(values)}]"


@dataclass(frozen=True)
class Extension:
    """The text of a matrix with additions, the additions, and the new cells."""

    text: str
    additions: tuple[Addition, ...]
    cells: tuple[Cell, ...]


def additions(raw: RawMatrix, builds: TorchTable) -> tuple[Addition, ...]:
    """Return the newest version of every torch line that is newer than all torch lines of its toolkit in the matrix."""
    found = []
    for cuda, toolkit in raw.toolkits.items():
        newest = max(_line(torch) for torch in toolkit.torch)
        usable = [one for torch in _published(builds, cuda) if (one := _addition(raw, builds, cuda, torch))]
        found += [one for one in _latest(usable) if _line(one.torch) > newest]
    return tuple(found)


def _published(builds: TorchTable, cuda: str) -> Iterable[str]:
    channel = builds.channels.get(cuda_tag(cuda))
    return {*(channel.builds if channel else ()), *builds.pypi}


def _line(torch: str) -> tuple[int, ...]:
    return Version(torch).release[:2]


def _latest(candidates: Iterable[Addition]) -> list[Addition]:
    by_line = {_line(one.torch): one for one in sorted(candidates, key=lambda one: Version(one.torch))}
    return [by_line[line] for line in sorted(by_line)]


def _addition(raw: RawMatrix, builds: TorchTable, cuda: str, torch: str) -> Addition | None:
    """Return the addition for every platform that has the torch, and the Pythons that all of these have, or None."""
    exists = {name: set(builds.pythons(cuda, torch, name)) & set(raw.python) for name in raw.platforms}
    platforms = tuple(name for name, pythons in exists.items() if pythons)
    if not platforms:
        return None
    pythons = tuple(python for python in raw.python if all(python in exists[name] for name in platforms))
    if not pythons:
        return None
    all_pythons, all_platforms = pythons == tuple(raw.python), platforms == tuple(raw.platforms)
    return Addition(cuda, torch, None if all_pythons else pythons, None if all_platforms else platforms)


def extend(path: Path, table: Path) -> Extension:
    """Return the matrix at ``path`` with all additions from the table at ``table``; write no file.

    Raises:
        MatrixError: if the matrix is invalid, with or without the additions.
    """
    before = matrix.load(path, table)
    document = yaml_document.read(path)
    raw, _ = parse(document)
    assert raw is not None
    found = additions(raw, torch_builds.load(table))
    text = _insert(document, raw, found)
    with tempfile.TemporaryDirectory(prefix="nvdiffrast-") as folder:
        copy = Path(folder) / path.name
        copy.write_text(text, encoding="utf-8")
        after = matrix.load(copy, table)
    known = {cell.id for cell in before.cells}
    return Extension(text, found, tuple(cell for cell in after.cells if cell.id not in known))


def _insert(document: Document, raw: RawMatrix, found: Sequence[Addition]) -> str:
    lines = list(document.lines)
    places: Mapping[str, tuple[int, int]] = {
        cuda: max(document.keys["toolkits", cuda, "torch", torch] for torch in toolkit.torch)
        for cuda, toolkit in raw.toolkits.items()
    }
    # From the end of the file, and the newest torch of a toolkit first: line numbers before an insertion stay valid.
    for one in sorted(found, key=lambda one: (places[one.cuda], Version(one.torch)), reverse=True):
        number, column = places[one.cuda]
        lines.insert(number, " " * (column - 1) + one.line)
    return "\n".join(lines) + "\n"


def report(before: TorchTable, after: TorchTable, extension: Extension | None) -> str:
    """Return a report in Markdown: changes of the table, additions to the matrix, and the next step."""
    parts = ["## The table of torch builds", *(_changes(before, after) or ["Nothing has changed."])]
    if extension and extension.additions:
        parts += ["", "## Added to the matrix"]
        parts += [f"- CUDA {one.cuda}: torch {one.torch}" for one in extension.additions]
        parts += ["", f"{len(extension.cells)} cells:", "", *(f"- `{cell.id}`" for cell in extension.cells)]
        names = dict.fromkeys(
            f"{cell.torch.version}-{cell.toolkit.tag}" + ("-win_amd64" if cell.platform.is_windows else "")
            for cell in extension.cells
        )
        parts += ["", "Lock their torch before they are built:", "", f"    nox -s lock -- {' '.join(names)}"]
    return "\n".join(parts) + "\n"


def _changes(before: TorchTable, after: TorchTable) -> list[str]:
    """Return one line for every build that was added or removed."""
    old, new = _flat(before), _flat(after)
    added = [f"- new: {build}" for build in new if build not in old]
    return added + [f"- gone: {build}" for build in old if build not in new]


def _flat(table: TorchTable) -> dict[str, None]:
    """Return one text per build, such as ``torch 2.15.0, cu132, linux_x86_64, CPython 3.12``."""
    flat: dict[str, None] = {}
    for tag, channel in table.channels.items():
        for version, platforms in channel.builds.items():
            for name, pythons in platforms.items():
                flat |= dict.fromkeys(f"torch {version}, {tag}, {name}, CPython {python}" for python in pythons)
    for version, plain in table.pypi.items():
        flat |= dict.fromkeys(f"torch {version}, plain (CUDA {plain.cuda}), CPython {p}" for p in plain.pythons)
    return flat
