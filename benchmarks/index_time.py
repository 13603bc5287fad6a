"""Measure how long it takes to generate an index of 5,000 wheels, and one of 50,000, and compare with dumb-pypi.

The wheels are those of the matrix with made-up releases; only their index entries exist. The minimum of all rounds is
reported, because other processes can only add time.

dumb-pypi and this pipeline are measured as whole commands, from a list of wheels in a file to an index in a folder.
This pipeline writes every wheel to two channels in HTML and JSON, dumb-pypi writes one HTML page.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count, islice
from pathlib import Path

from scripts.index import catalog as catalogs
from scripts.index import writer
from scripts.index.catalog import Catalog, Entry
from scripts.matrix import matrix
from scripts.model import ROOT, Cell
from scripts.support import environments
from scripts.support.command_line import run_main
from scripts.support.process import call

WHEELS = 5000
MANY_WHEELS = 50_000
TARGET_RATIO = 1.0
# The maximum size of the page for people; generating this page is not measured.
_PAGE = b"x" * 300_000
# A file system in memory, so that the speed of the disk does not matter.
_MEMORY = Path("/dev/shm")  # noqa: S108
_UPLOADED = "2026-11-21T10:00:00Z"


@dataclass(frozen=True)
class Comparison:
    """The durations of this pipeline and of dumb-pypi in seconds."""

    seconds: float
    reference: float

    @property
    def ratio(self) -> float:
        """The ratio of the two durations."""
        return self.seconds / self.reference


def make_catalog(number: int) -> Catalog:
    """Return a catalog with this number of entries, in the proportions of the matrix."""
    cells = {cell.id.partition("-")[2]: cell for cell in matrix.load().cells}
    entries = (_make_entry(cell, f"0.4.{release}") for release in count() for cell in cells.values())
    return Catalog(tuple(sorted(islice(entries, number), key=lambda entry: entry.name)))


def _make_entry(cell: Cell, release: str) -> Entry:
    made = replace(cell, release=replace(cell.release, version=release))
    return Entry(
        name=made.wheel,
        sha256=hashlib.sha256(made.wheel.encode()).hexdigest(),
        size=3_000_000,
        uploaded=_UPLOADED,
        metadata_sha256=hashlib.sha256(made.id.encode()).hexdigest(),
        requires_python=">=3.10",
        cell=made.id,
        release=release,
        python=made.python,
        cuda=made.toolkit.tag,
        torch=made.torch.line,
        platform=made.platform.name,
        sass=tuple(made.toolkit.architectures),
        ptx=(made.toolkit.ptx,),
    )


def measure_seconds(action: Callable[[], object]) -> float:
    """Return the duration of ``action`` in seconds."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def measure_generation(work: Path, known: Catalog, rounds: int) -> float:
    """Return the duration in seconds of generating all pages of a catalog that is in memory."""
    times = []
    for turn in range(rounds):
        to = work / f"all-{turn}"
        times.append(measure_seconds(lambda to=to: writer.generate(known, to, page=_PAGE)))  # type: ignore[misc]
        shutil.rmtree(to)
    return min(times)


def measure_dumb_pypi(work: Path, known: Catalog, rounds: int) -> Comparison:
    """Compare whole commands of this pipeline and dumb-pypi, run in turns."""
    environment = environments.create(Path(sys.executable), [ROOT / "requirements" / "benchmark.txt"], name="benchmark")
    listed = [
        {
            "filename": entry.name,
            "hash": f"sha256={entry.sha256}",
            "requires_python": entry.requires_python,
            "core_metadata": f"sha256={entry.metadata_sha256}",
            "upload_timestamp": 1_795_255_200,
        }
        for entry in known.entries
    ]
    (work / "list.json").write_text("".join(json.dumps(item) + "\n" for item in listed))
    (work / catalogs.CATALOG).write_text(catalogs.dump(known))
    dumb = [environments.interpreter(environment), "-m", "dumb_pypi.main", "--no-generate-timestamp"]
    dumb += ["--no-per-release-json", "--packages-url", "../../pool", "--package-list-json", work / "list.json"]
    own_command = [sys.executable, "-m", "benchmarks.index_time", "--generate", work]
    times: dict[str, list[float]] = {"index": [], "dumb-pypi": []}
    for turn in range(rounds):
        for name, command in (("index", own_command), ("dumb-pypi", [*dumb, "--output-dir"])):
            to = work / f"{name}-{turn}"
            times[name].append(measure_seconds(lambda c=command, t=to: call([*c, t], cwd=ROOT, echo=False, quiet=True)))  # type: ignore[misc]
    return Comparison(min(times["index"]), min(times["dumb-pypi"]))


def main() -> int:
    """Run ``python -m benchmarks.index_time [--rounds N]``; return 1 if the ratio is above its target."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="rounds of each comparison (9)")
    parser.add_argument(
        "--folder",
        type=Path,
        default=_MEMORY if _MEMORY.is_dir() else None,
        help="folder for the output (/dev/shm if it exists)",
    )
    parser.add_argument("--generate", type=Path, nargs=2, metavar=("CATALOG", "TO"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.generate:
        writer.generate(catalogs.read(options.generate[0]), options.generate[1], page=_PAGE)
        return 0
    known, many = make_catalog(WHEELS), make_catalog(MANY_WHEELS)
    with tempfile.TemporaryDirectory(prefix="nvdiffrast-benchmark-", dir=options.folder) as folder:
        seconds = {len(one.entries): measure_generation(Path(folder), one, options.rounds) for one in (known, many)}
        comparison = measure_dumb_pypi(Path(folder), known, options.rounds)
    print(f"\n{len(known.channels)} channels, best of {options.rounds}, {os.cpu_count()} cores")
    print("\n| wheels | generating all pages, ms |\n|---|---|")
    for wheels, duration in seconds.items():
        print(f"| {wheels:,} | {duration * 1e3:.0f} |")
    print(f"\n| whole commands, {WHEELS:,} wheels | ms | dumb-pypi, ms | ratio | target |\n|---|---|---|---|---|")
    own, reference = comparison.seconds * 1e3, comparison.reference * 1e3
    print(f"| generating all pages | {own:.0f} | {reference:.0f} | {comparison.ratio:.3f} | {TARGET_RATIO:.2f} |")
    return int(comparison.ratio > TARGET_RATIO)


if __name__ == "__main__":
    run_main(main)
