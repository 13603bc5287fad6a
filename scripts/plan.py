"""What would be built, where it comes from, and whether this machine can: `nox -s plan -- [GLOB...]`."""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts import console, interpreters, matrix, toolchain, upstream
from scripts.environments import torch_lock_name
from scripts.errors import UsageError, run_main
from scripts.matrix import Matrix
from scripts.model import ROOT, Cell, GitPin, Release, Toolkit

# GitHub refuses a matrix of more than 256 jobs.
_MOST_JOBS = 255
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


def host_platform() -> str:
    """This machine as a platform's name, e.g. ``linux_x86_64``."""
    return f"{platform.system()}_{platform.machine()}".lower().replace("windows", "win")


def _interpreter(python: str) -> str | None:
    return None if interpreters.find(python) else f"CPython {python} with headers is not here"


def _compiler(cell: Cell) -> str | None:
    return toolchain.compiler_availability(cell.toolkit, needs_gl=cell.release.has_gl)


def _torch(cell: Cell) -> str | None:
    lock = ROOT / torch_lock_name(cell)
    return None if lock.exists() else f"torch {cell.torch.version} is unlocked: run `nox -s lock -- {lock.stem}`"


def this_machine() -> Probes:
    """The probes of this machine."""
    return Probes(
        host=host_platform(),
        source=upstream.availability,
        toolkit=toolchain.availability,
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


def providers_of(toolkit: Toolkit) -> str:
    """``pypi locked, redist unlocked, system``."""
    return ", ".join(
        f"{one.kind} {'locked' if (ROOT / one.lock).exists() else 'unlocked'}" if one.lock else one.kind
        for one in toolkit.providers
    )


def totals(planned: Matrix, chosen: Sequence[Row]) -> dict[str, int]:
    """Counts for the last line."""
    return {
        "cells": len(chosen),
        "buildable": sum(row.buildable for row in chosen),
        "matrix": len(planned.cells),
        "excluded": sum(len(exclusion.cells) for exclusion in planned.exclusions),
    }


def print_table(planned: Matrix, chosen: Sequence[Row]) -> None:
    """The plan for people: cells, what is missing and for how many, exclusions, images, totals."""
    lacking = Counter(reason for row in chosen for reason in row.missing)
    numbers = {reason: f"[{number}]" for number, (reason, _) in enumerate(lacking.most_common(), 1)}
    console.table(
        "Cells",
        ("cell", "wheel", "source", "toolkit", "here"),
        (
            (
                row.cell.id,
                row.cell.wheel,
                source_of(row.cell.release),
                providers_of(row.cell.toolkit),
                "can be built" if row.buildable else "lacks " + " ".join(numbers[reason] for reason in row.missing),
            )
            for row in chosen
        ),
    )
    if lacking:
        legend = ((numbers[what], str(count), what) for what, count in lacking.most_common())
        console.table("Missing here", ("", "cells", "what"), legend)
    console.table(
        "Excluded", ("cells", "glob", "because"), ((str(len(e.cells)), e.pattern, e.reason) for e in planned.exclusions)
    )
    images = {
        row.cell.platform.name
        for row in chosen
        if row.cell.platform.name.startswith("linux") and not row.cell.platform.image
    }
    for name in sorted(images):
        console.mark("info", f"{name}: no image pinned; a container build needs --image")
    count = totals(planned, chosen)
    console.mark("info", f"torch builds as of: {planned.table_date}")
    console.mark(
        "info",
        f"{count['cells']} cells ({count['matrix']} in the matrix, {count['excluded']} excluded), "
        f"{count['buildable']} can be built here",
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
        raise UsageError(f"--chunk {which} is not K/N with 1 <= K <= N", mend="for example --chunk 1/2")
    k, n = int(part), int(count)
    chosen = list(itertools.islice(entries, len(entries) * (k - 1) // n, len(entries) * k // n))
    if len(chosen) > _MOST_JOBS:
        least = -(-len(entries) // _MOST_JOBS)
        raise UsageError(
            f"{len(chosen)} jobs are more than GitHub takes ({_MOST_JOBS})", mend=f"--chunk 1/{least} and so on"
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
        print_table(planned, chosen)
    return 0


if __name__ == "__main__":
    run_main(main)
