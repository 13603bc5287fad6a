"""Read build_matrix.yaml and expand it to cells. All other stages use the result of :func:`load`.

`nox -s golden` writes the generated files: build_matrix.schema.json and tests/golden/cells.txt, and with `-- --doctor`
the doctor's table of torch builds.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TypeVar

from scripts.console import log
from scripts.errors import UsageError
from scripts.matrix import doctor_table, rules, torch_builds, yaml_document
from scripts.matrix.expand import Exclusion, expand, to_release, to_toolkit
from scripts.matrix.schema import json_schema, parse
from scripts.model import ROOT, Cell, Release, Toolkit, cuda_tag
from scripts.support.command_line import run_main
from scripts.support.files import write_atomic

PATH = ROOT / "build_matrix.yaml"
SCHEMA = ROOT / "build_matrix.schema.json"
GOLDEN = ROOT / "tests" / "golden" / "cells.txt"


@dataclass(frozen=True)
class Matrix:
    """The expanded build_matrix.yaml, in the order of the file.

    ``default_toolkit`` is a tag ("cu130"). ``table_date`` describes when the table of torch builds was observed.
    """

    releases: tuple[Release, ...]
    toolkits: tuple[Toolkit, ...]
    cells: tuple[Cell, ...]
    exclusions: tuple[Exclusion, ...]
    default_toolkit: str
    table_date: str

    def release(self, version: str) -> Release:
        """Return the release ``version``.

        Raises:
            UsageError: if the matrix does not contain it.
        """
        return _named({release.version: release for release in self.releases}, version, "release")

    def toolkit(self, tag: str) -> Toolkit:
        """Return the toolkit with the tag ``tag`` ("cu130").

        Raises:
            UsageError: if the matrix does not contain it.
        """
        return _named({toolkit.tag: toolkit for toolkit in self.toolkits}, tag, "toolkit")

    def select(self, patterns: Sequence[str]) -> tuple[Cell, ...]:
        """Return the cells whose id matches one of the globs, in the order of the matrix; all cells without a glob.

        Raises:
            UsageError: if a pattern matches no cell. The message names similar ids, or the exclusion of the cells.
        """
        for pattern in patterns:
            if not any(fnmatchcase(cell.id, pattern) for cell in self.cells):
                raise self._no_match(pattern)
        return tuple(
            cell for cell in self.cells if not patterns or any(fnmatchcase(cell.id, pattern) for pattern in patterns)
        )

    def _no_match(self, pattern: str) -> UsageError:
        for exclusion in self.exclusions:
            if any(fnmatchcase(identity, pattern) for identity in exclusion.cells):
                return UsageError(f"no cell matches {pattern}: excluded, because {exclusion.reason}")
        near = difflib.get_close_matches(pattern.replace("*", ""), [cell.id for cell in self.cells], n=3, cutoff=0.3)
        return UsageError(
            f"no cell matches {pattern}; nearest: {', '.join(near) or 'none'}",
            hint="`nox -s plan` lists all cells; globs work: '*-cp312-cu130-*'",
        )


_T = TypeVar("_T")


def _named(known: Mapping[str, _T], name: str, kind: str) -> _T:
    if name not in known:
        raise UsageError(f"no {kind} {name} in {PATH.name}", hint=f"choose one of {', '.join(known)}")
    return known[name]


def load(path: Path = PATH, table: Path = torch_builds.PATH) -> Matrix:
    """Read, check and expand the matrix.

    Raises:
        MatrixError: if the matrix is invalid. The message has one line per problem:
            ``build_matrix.yaml:LINE:COLUMN: PATH: PROBLEM; CORRECTION``.
    """
    builds = torch_builds.load(table)
    document = yaml_document.read(path)
    raw, complete = parse(document)
    if raw is None:
        yaml_document.raise_problems(document.problems)
        raise AssertionError("no model and no problem")
    rules.check(document, raw, complete=complete)
    cells, exclusions = expand(document, raw, builds, sound=complete and not document.problems)
    yaml_document.raise_problems(document.problems)
    return Matrix(
        releases=tuple(to_release(version, release) for version, release in raw.releases.items()),
        toolkits=tuple(to_toolkit(cuda, toolkit) for cuda, toolkit in raw.toolkits.items()),
        cells=cells,
        exclusions=exclusions,
        default_toolkit=cuda_tag(raw.default_toolkit),
        table_date=builds.date,
    )


def golden(matrix: Matrix) -> str:
    """Return one line per cell: its id, wheel, exact torch version and publisher of that torch."""
    return "".join(f"{cell.id}  {cell.wheel}  {cell.torch.version} {cell.torch.origin}\n" for cell in matrix.cells)


def write(path: Path, text: str) -> None:
    """Write a generated file completely or not at all, and report it."""
    write_atomic(path, text)
    log(f"wrote {path.name}")


def main() -> int:
    """Check the matrix and write the files generated from it."""
    parser = argparse.ArgumentParser(prog="nox -s golden --", description="Check build_matrix.yaml.")
    parser.add_argument("--schema", action="store_true", help=f"write {SCHEMA.name}")
    parser.add_argument("--golden", action="store_true", help="write tests/golden/cells.txt")
    parser.add_argument("--doctor", action="store_true", help="write the doctor's table of torch builds")
    options = parser.parse_args()
    if options.schema:
        write(SCHEMA, json_schema())
    if options.doctor:
        write(doctor_table.PATH, doctor_table.text(torch_builds.load()))
    matrix = load()
    if options.golden:
        write(GOLDEN, golden(matrix))
    log(
        f"{PATH.name}: {len(matrix.cells)} cells, {len(matrix.exclusions)} exclusions; torch table: {matrix.table_date}"
    )
    return 0


if __name__ == "__main__":
    run_main(main)
