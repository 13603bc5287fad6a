"""What would be built, where it comes from, and whether this machine can: `nox -s plan -- [GLOB...]`."""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scripts import console
from scripts.errors import UsageError
from scripts.matrix import matrix
from scripts.matrix.matrix import Matrix
from scripts.model import ROOT, Cell, GitPin, Release, Toolkit
from scripts.source import upstream
from scripts.support import interpreters
from scripts.support.command_line import run_main
from scripts.support.environments import torch_lock_name
from scripts.support.host import host_platform
from scripts.toolchain import providers

# GitHub refuses a matrix of more than 256 jobs.
_MOST_JOBS = 255
# How many reasons the short form names; the long one has them all.
_MOST_REASONS = 5
_RUNNERS = {"linux_x86_64": "ubuntu-24.04", "win_amd64": "windows-2022"}


@dataclass(frozen=True)
class Probes:
    """What is asked of this machine. Each but ``host`` returns None when all is well, else what is missing."""

    host: str
    source: Callable[[Release], str | None]
    toolkit: Callable[[Toolkit], str | None]
    compiler: Callable[[Cell], str | None]
    python: Callable[[str], str | None]
    torch_lock: Callable[[Cell], str | None]


def _interpreter(python: str) -> str | None:
    return None if interpreters.find(python) else f"CPython {python} with headers is not here"


def _compiler(cell: Cell) -> str | None:
    return providers.compiler_availability(cell.toolkit, needs_gl=cell.release.has_gl)


def _torch(cell: Cell) -> str | None:
    lock = ROOT / torch_lock_name(cell)
    return None if lock.exists() else f"torch {cell.torch.version} is unlocked: run `nox -s lock -- {lock.stem}`"


def this_machine() -> Probes:
    """The probes of this machine."""
    return Probes(
        host=host_platform(),
        source=upstream.availability,
        toolkit=providers.availability,
        compiler=_compiler,
        python=_interpreter,
        torch_lock=_torch,
    )


def missing_here(cell: Cell, probes: Probes | None = None) -> tuple[str, ...]:
    """What this machine lacks to build the cell, most fundamental first; empty: it can be built here."""
    probes = probes or this_machine()
    if cell.platform.name != probes.host:
        return (f"a {cell.platform.name} machine",)
    answers = (
        probes.source(cell.release),
        probes.toolkit(cell.toolkit),
        probes.compiler(cell),
        probes.python(cell.python),
        probes.torch_lock(cell),
    )
    return tuple(answer for answer in answers if answer)


def _once(probes: Probes) -> Probes:
    """The same probes, each asked once for each release, toolkit, Python and lock, not once for each cell."""
    return Probes(
        host=probes.host,
        source=_remember(probes.source, lambda release: release.version),
        toolkit=_remember(probes.toolkit, lambda toolkit: toolkit.tag),
        compiler=_remember(probes.compiler, lambda cell: f"{cell.toolkit.tag} {cell.release.has_gl}"),
        python=_remember(probes.python, lambda python: python),
        torch_lock=_remember(probes.torch_lock, torch_lock_name),
    )


def _remember(probe: Callable[[Any], str | None], key: Callable[[Any], str]) -> Callable[[Any], str | None]:
    answers: dict[str, str | None] = {}

    def ask(about: Any) -> str | None:
        name = key(about)
        if name not in answers:
            answers[name] = probe(about)
        return answers[name]

    return ask


@dataclass(frozen=True)
class Row:
    """One cell of the plan."""

    cell: Cell
    missing: tuple[str, ...]

    @property
    def buildable(self) -> bool:
        """Whether this machine can build it."""
        return not self.missing

    def as_json(self) -> dict[str, object]:
        """The cell's entry under "cells"."""
        cell = self.cell
        return {
            "id": cell.id,
            "release": cell.release.version,
            "python": cell.python,
            "cuda": cell.toolkit.cuda,
            "torch": cell.torch.version,
            "platform": cell.platform.name,
            "wheel": cell.wheel,
            "channel": cell.channel,
            "source": source_of(cell.release),
            "providers": [one.kind for one in cell.toolkit.providers],
            "buildable": self.buildable,
            "missing": list(self.missing),
        }


def rows(cells: Sequence[Cell], probes: Probes) -> list[Row]:
    """The plan of some cells on the machine that ``probes`` describe."""
    probes = _once(probes)
    return [Row(cell, missing_here(cell, probes)) for cell in cells]


def source_of(release: Release) -> str:
    """Where a release's source comes from, for people."""
    pin = release.source
    if isinstance(pin, GitPin):
        return f"git {pin.tag} {pin.commit[:8]}"
    return f"registry {pin.package} {pin.version}"


def totals(planned: Matrix, chosen: Sequence[Row]) -> dict[str, int]:
    """Counts for the last line."""
    return {
        "cells": len(chosen),
        "buildable": sum(row.buildable for row in chosen),
        "matrix": len(planned.cells),
        "excluded": sum(len(exclusion.cells) for exclusion in planned.exclusions),
    }


@dataclass(frozen=True)
class Group:
    """Torch lines of one toolkit with the same Pythons and platforms; ``counts`` has cells and buildable by release."""

    toolkit: str
    torches: tuple[str, ...]
    pythons: tuple[str, ...]
    platforms: tuple[str, ...]
    counts: Mapping[str, tuple[int, int]]

    @property
    def alike(self) -> tuple[object, ...]:
        """Return what neighbours must share to become one group."""
        return self.toolkit, self.pythons, self.platforms, tuple(self.counts)


def groups(chosen: Sequence[Row]) -> list[Group]:
    """Return the groups of some cells: toolkit x torch, with counts for each release, in the order of the cells."""
    by_line: dict[tuple[str, str], list[Row]] = {}
    for row in chosen:
        by_line.setdefault((row.cell.toolkit.tag, row.cell.torch.line), []).append(row)
    made: list[Group] = []
    for (toolkit, torch), members in by_line.items():
        group = _group(toolkit, torch, members)
        if made and made[-1].alike == group.alike:
            made[-1] = _joined(made[-1], group)
        else:
            made.append(group)
    return made


def _group(toolkit: str, torch: str, members: Sequence[Row]) -> Group:
    """Return the group of one torch line of one toolkit."""
    counts: dict[str, tuple[int, int]] = {}
    for row in members:
        cells, buildable = counts.get(row.cell.release.version, (0, 0))
        counts[row.cell.release.version] = (cells + 1, buildable + row.buildable)
    pythons = dict.fromkeys(row.cell.python for row in members)
    platforms = dict.fromkeys(row.cell.platform.name for row in members)
    return Group(toolkit, (torch,), tuple(pythons), tuple(platforms), counts)


def _joined(one: Group, other: Group) -> Group:
    """Return the group of both; they are alike."""
    counts = {
        name: (cells + other.counts[name][0], buildable + other.counts[name][1])
        for name, (cells, buildable) in one.counts.items()
    }
    return replace(one, torches=(*one.torches, *other.torches), counts=counts)


def print_groups(planned: Matrix, chosen: Sequence[Row]) -> None:
    """Print the plan for people, in about a screenful: groups, the most frequent reasons, exclusions, totals."""
    width = console.page_width()
    releases = list(dict.fromkeys(row.cell.release.version for row in chosen))
    columns = ("CUDA", "torch", "Python", "system", *releases)
    lines = [_line(group, releases) for group in groups(chosen)]
    title = "Cells that this machine can build, of all cells, by release"
    console.table(title, columns, lines, numbers=releases, width=width)
    print()
    lacking = Counter(reason for row in chosen for reason in row.missing).most_common()
    if lacking:
        shown = [(str(count), reason) for reason, count in lacking[:_MOST_REASONS]]
        console.table("Missing here", ("cells", "what"), shown, numbers=("cells",), width=width)
        if len(lacking) > _MOST_REASONS:
            console.text(f"and {len(lacking) - _MOST_REASONS} more reasons: nox -s plan -- --cells", width=width)
        print()
    _print_totals(planned, chosen, width)


def _line(group: Group, releases: Sequence[str]) -> tuple[str, ...]:
    """Return a group's line: for each release the number of cells that can be built here, and of all, as "3/8"."""
    systems = ", ".join(name.partition("_")[0] for name in group.platforms)
    counts = ("{1}/{0}".format(*group.counts[name]) if name in group.counts else "-" for name in releases)
    return group.toolkit, _span(group.torches), _span(group.pythons), systems, *counts


def _span(versions: Sequence[str]) -> str:
    """Return versions that follow each other in the matrix: ``2.9``, ``2.9-2.13``."""
    return versions[0] if len(versions) == 1 else f"{versions[0]}-{versions[-1]}"


def print_cells(planned: Matrix, chosen: Sequence[Row]) -> None:
    """Print the plan for people, in full: a line for each cell, everything that is missing, exclusions, totals."""
    width = console.page_width()
    lacking = Counter(reason for row in chosen for reason in row.missing).most_common()
    numbers = {reason: str(number) for number, (reason, _) in enumerate(lacking, 1)}
    for row in chosen:
        lacks = ", ".join(numbers[reason] for reason in row.missing)
        console.text(f"{row.cell.id}  {f'lacks {lacks}' if lacks else 'can be built'}")
    print()
    if lacking:
        legend = ((numbers[reason], str(count), reason) for reason, count in lacking)
        console.table("Missing here", ("", "cells", "what"), legend, numbers=("", "cells"), width=width)
        print()
    _print_end(planned, chosen, width)


def _print_end(planned: Matrix, chosen: Sequence[Row], width: int) -> None:
    """Print the exclusions with their reasons, and the totals."""
    excluded = ((str(len(one.cells)), one.pattern, one.reason) for one in planned.exclusions)
    console.table("Excluded", ("cells", "glob", "because"), excluded, numbers=("cells",), width=width)
    print()
    _print_totals(planned, chosen, width)


def _print_totals(planned: Matrix, chosen: Sequence[Row], width: int) -> None:
    """Print the platforms without an image, the dates of the tables, and the totals."""
    for one in dict.fromkeys(row.cell.platform for row in chosen):
        if one.name.startswith("linux") and not one.image:
            console.text(f"{one.name}: no image pinned; a container build needs --image", width=width)
    count = totals(planned, chosen)
    console.text(f"torch builds as of: {planned.table_date}", width=width)
    console.text(
        f"{count['cells']} cells of {count['matrix']} in the matrix ({count['excluded']} more are excluded), "
        f"{count['buildable']} can be built here; nox -s plan -- --cells shows each with every reason",
        width=width,
    )


def as_json(planned: Matrix, chosen: Sequence[Row]) -> dict[str, object]:
    """The plan for programs."""
    exclusions = [{"glob": e.pattern, "reason": e.reason, "cells": list(e.cells)} for e in planned.exclusions]
    return {
        "cells": [row.as_json() for row in chosen],
        "exclusions": exclusions,
        "table_date": planned.table_date,
        "totals": totals(planned, chosen),
    }


def jobs(cells: Sequence[Cell]) -> list[dict[str, object]]:
    """GitHub's jobs. One builds all Pythons and torches of a (release, toolkit, platform): they share the CUDA kernels.

    Each: ``id``, ``os`` (the runner), ``python`` (CPython lines, one a line, as setup-python takes them), ``msvc`` (the
    newest Visual C++ toolset that the toolkit takes; empty on Linux), ``cells`` (their ids, separated by blanks).
    """

    def group(cell: Cell) -> tuple[str, str, str]:
        return cell.release.version, cell.toolkit.tag, cell.platform.name

    grouped: dict[tuple[str, str, str], list[Cell]] = {}
    for cell in cells:
        grouped.setdefault(group(cell), []).append(cell)
    return [
        {
            "id": "-".join(key),
            "os": _RUNNERS[key[2]],
            "python": "\n".join(dict.fromkeys(cell.python for cell in members)),
            "msvc": members[0].toolkit.msvc.maximum or "" if key[2].startswith("win") else "",
            "cells": " ".join(cell.id for cell in members),
        }
        for key, members in grouped.items()
    ]


def chunk(entries: Sequence[dict[str, object]], which: str) -> list[dict[str, object]]:
    """Part K of N ("K/N") of the jobs: contiguous, of equal size but for one; all parts together are all jobs.

    Raises:
        UsageError: K/N is not one, or the part still has more jobs than GitHub takes.
    """
    part, _, count = which.partition("/")
    if not (part.isdecimal() and count.isdecimal() and 1 <= int(part) <= int(count)):
        raise UsageError(f"--chunk {which} is not K/N with 1 <= K <= N", hint="for example --chunk 1/2")
    k, n = int(part), int(count)
    chosen = list(itertools.islice(entries, len(entries) * (k - 1) // n, len(entries) * k // n))
    if len(chosen) > _MOST_JOBS:
        least = -(-len(entries) // _MOST_JOBS)
        raise UsageError(
            f"{len(chosen)} jobs are more than GitHub takes ({_MOST_JOBS})", hint=f"--chunk 1/{least} and so on"
        )
    return chosen


def chunks(entries: Sequence[dict[str, object]]) -> list[str]:
    """The fewest parts, each as :func:`chunk` takes it ("1/2"), into which GitHub takes the jobs."""
    count = max(1, -(-len(entries) // _MOST_JOBS))
    return [f"{part}/{count}" for part in range(1, count + 1)]


def hand_over(name: str, value: object, outputs: Path | None) -> None:
    """Print ``value`` as one line of JSON, or append it to the file of a workflow step's outputs as ``name``."""
    text = json.dumps(value)
    if outputs is None:
        print(text)
        return
    with outputs.open("a", encoding="utf-8") as file:
        file.write(f"{name}={text}\n")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="nox -s plan --", description="Show what would be built.")
    parser.add_argument("globs", nargs="*", metavar="GLOB", help="cell ids, e.g. '*-cp312-cu130-*'; default: all")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--cells", action="store_true", help="a line for each cell, and everything that is missing")
    form.add_argument("--json", action="store_true", help="for programs")
    form.add_argument("--github", action="store_true", help="a matrix of GitHub jobs, one line of JSON")
    form.add_argument("--chunks", action="store_true", help="into how many parts GitHub takes the jobs, as JSON")
    parser.add_argument("--chunk", default="1/1", metavar="K/N", help="with --github: part K of N of the jobs")
    parser.add_argument(
        "--outputs", type=Path, metavar="FILE", help="append matrix=JSON or chunks=JSON to FILE instead"
    )
    return parser.parse_args()


def main() -> int:
    """Print the plan."""
    options = _parse()
    planned = matrix.load()
    cells = planned.select(options.globs)
    if options.chunks:
        hand_over("chunks", chunks(jobs(cells)), options.outputs)
        return 0
    if options.github:
        hand_over("matrix", {"include": chunk(jobs(cells), options.chunk)}, options.outputs)
        return 0
    chosen = rows(cells, this_machine())
    if options.json:
        json.dump(as_json(planned, chosen), sys.stdout, indent=1)
        print()
    else:
        (print_cells if options.cells else print_groups)(planned, chosen)
    return 0


if __name__ == "__main__":
    run_main(main)
