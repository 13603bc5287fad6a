"""Time the index of 5,000 wheels: adding one to it beside making it all, and making it all beside dumb-pypi.

The wheels are those of the matrix, of as many made-up releases as it takes; only their entries exist. Adding one is
measured twice: from the catalog that a publishing process holds anyway, and with reading that catalog from the disk.
Of all turns the quickest counts: what else the machine does only adds.

dumb-pypi and ours are whole commands, from the list of wheels in a file to the site in a folder; ours then has every
wheel in two channels, in HTML and JSON, where dumb-pypi has one HTML page.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count, islice
from pathlib import Path

from scripts.errors import run_main
from scripts.index import catalog as catalogs
from scripts.index import writer
from scripts.index.catalog import Catalog, Entry
from scripts.matrix import matrix
from scripts.model import ROOT, Cell
from scripts.support import environments
from scripts.support.process import call

WHEELS = 5000
# As large as the page for people may be; its making is not measured.
_PAGE = b"x" * 300_000
# The generator is measured, not the disk below it: with that one, adding a wheel varies by half as much again.
_MEMORY = Path("/dev/shm")  # noqa: S108
_UPLOADED = "2026-11-21T10:00:00Z"


@dataclass(frozen=True)
class Row:
    """One line of the table: seconds of either side; ``bar`` is the ratio to stay under, None for no promise."""

    name: str
    seconds: float
    beside: float
    bar: float | None

    @property
    def ratio(self) -> float:
        """How many times as long as the other side."""
        return self.seconds / self.beside


def wheels(number: int) -> Catalog:
    """So many entries in the matrix's own mixture."""
    cells = {cell.id.partition("-")[2]: cell for cell in matrix.load().cells}
    made = (_entry(cell, f"0.4.{release}") for release in count() for cell in cells.values())
    return Catalog(tuple(sorted(islice(made, number), key=lambda entry: entry.name)))


def _entry(cell: Cell, release: str) -> Entry:
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


def timed(action: Callable[[], object]) -> float:
    """Seconds that ``action`` takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def incremental(work: Path, known: Catalog, rounds: int) -> Iterator[Row]:
    """One wheel more beside all, in turns; the new one lands in the middle of its channels."""
    added = known.entries[len(known.entries) // 2]
    added = replace(added, name=added.name.replace(f"-{added.release}+", "-0.4.50+"), release="0.4.50")
    whole, one, reading = [], [], []
    for turn in range(rounds):
        before = work / f"all-{turn}"
        whole.append(timed(lambda to=before: writer.generate(known, to, page=_PAGE)))  # type: ignore[misc]
        reading.append(timed(lambda of=before: catalogs.read(of)))  # type: ignore[misc]
        after = catalogs.read(before).with_entry(added)
        to = work / f"one-more-{turn}"
        one.append(timed(lambda to=to, of=before: writer.generate(after, to, page=_PAGE, previous=of)))  # type: ignore[misc]  # noqa: B023
    yield Row("one wheel more / all", min(one), min(whole), 0.05)
    yield Row("the same, and reading the catalog / all", min(one) + min(reading), min(whole), None)


def beside_dumb_pypi(work: Path, known: Catalog, rounds: int) -> Row:
    """Whole commands, in turns."""
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
    ours = [sys.executable, "-m", "benchmarks.index_time", "--generate", work]
    times: dict[str, list[float]] = {"ours": [], "dumb-pypi": []}
    for turn in range(rounds):
        for name, command in (("ours", ours), ("dumb-pypi", [*dumb, "--output-dir"])):
            to = work / f"{name}-{turn}"
            times[name].append(timed(lambda c=command, t=to: call([*c, t], cwd=ROOT, echo=False, quiet=True)))  # type: ignore[misc]
    ours_take, theirs_take = map(min, times.values())
    return Row("all / dumb-pypi", ours_take, theirs_take, 1.0)


def main() -> int:
    """``python -m benchmarks.index_time [--rounds N]``; 1 if a bar was not met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="how often each comparison is made (9)")
    parser.add_argument("--folder", type=Path, default=_MEMORY if _MEMORY.is_dir() else None, help="where to write")
    parser.add_argument("--generate", type=Path, nargs=2, metavar=("CATALOG", "TO"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.generate:
        writer.generate(catalogs.read(options.generate[0]), options.generate[1], page=_PAGE)
        return 0
    known = wheels(WHEELS)
    channels = {channel for entry in known.entries for channel in entry.channels}
    with tempfile.TemporaryDirectory(prefix="nvdiffrast-benchmark-", dir=options.folder) as folder:
        rows = [*incremental(Path(folder), known, options.rounds)]
        rows.append(beside_dumb_pypi(Path(folder), known, options.rounds))
    print(
        f"\n{len(known.entries)} wheels in {len(channels)} channels, best of {options.rounds}, {os.cpu_count()} cores"
    )
    print("\n| what | ms | beside | ratio | bar |\n|---|---|---|---|---|")
    for row in rows:
        bar = "" if row.bar is None else f"{row.bar:.2f}"
        print(f"| {row.name} | {row.seconds * 1e3:.0f} | {row.beside * 1e3:.0f} | {row.ratio:.3f} | {bar} |")
    return int(any(row.bar is not None and row.ratio > row.bar for row in rows))


if __name__ == "__main__":
    run_main(main)
