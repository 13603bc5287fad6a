"""Build both plugins upstream's way and ours, side by side, and print the ratios as a Markdown table.

Downloads and environments are made beforehand. Ours is the whole command: patch, compile, link, repair, audit.
Upstream's is the just-in-time compilation of both plugins of the same release with the same torch, toolkit, compiler
and architectures.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts import console
from scripts.build import build
from scripts.build.plan import missing_here
from scripts.errors import run_main
from scripts.matrix import matrix
from scripts.matrix.matrix import Matrix
from scripts.model import ROOT, Cell
from scripts.support import environments, process
from scripts.support.files import cache_root

_UPSTREAM = Path(__file__).with_name("plain_upstream.py")
_ARCHITECTURE = "9.0"
_IMPORTS = 11
_IMPORT = """
import time, torch
start = time.perf_counter()
import nvdiffrast.torch.ops as ops
ops._get_plugin(), ops._get_plugin(gl=True)
print(time.perf_counter() - start)
"""


@dataclass(frozen=True)
class Cost:
    """What a command took: seconds on the wall, seconds of processor time of it and all that it started."""

    wall: float
    cpu: float


@dataclass(frozen=True)
class Row:
    """One line of the table; ``bar`` is the ratio to stay under."""

    name: str
    ours: str
    upstream: str
    ratio: float
    bar: float


def cost(command: Sequence[str | Path], *, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> Cost:
    """Run ``command`` and measure it."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    process.call(command, cwd=cwd, env=env, quiet=True)
    wall, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return Cost(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def prepare(cell: Cell) -> tuple[build.Inputs, Path]:
    """Fetch what a build of ``cell`` needs and make its environment, so that neither is measured."""
    inputs = build.gather(cell, build.Options("host", (), None, None, ROOT / "dist", None, None))
    return inputs, build.torch_environment(cell, inputs)


class Bench:
    """One cell, its inputs, and a folder for everything that the measured commands make."""

    def __init__(self, cell: Cell, work: Path) -> None:
        self.cell = cell
        self.work = work
        self.inputs, self.environment = prepare(cell)
        self.python = environments.interpreter(self.environment)
        assert self.inputs.compiler is not None
        self.compiler = self.inputs.compiler.path

    def variables(self, architectures: Sequence[str]) -> dict[str, str]:
        """What upstream's way needs in its environment."""
        headers = sorted((self.environment / "lib").glob("python*/site-packages/nvidia/*/include"))
        return {
            "PATH": f"{self.python.parent}{os.pathsep}{os.environ['PATH']}",
            "CUDA_HOME": str(self.inputs.cuda.path),
            "CXX": os.fspath(self.compiler),
            "TORCH_CUDA_ARCH_LIST": ";".join(architectures),
            # torch's headers want cuSPARSE's, which this toolkit leaves to the wheels beside torch.
            "CPLUS_INCLUDE_PATH": os.pathsep.join(map(str, headers)),
            "TORCH_EXTENSIONS_DIR": str(self.extensions),
        }

    @property
    def extensions(self) -> Path:
        """The folder for just-in-time compilations; in torch's own a check of the GL plugin would leave a lock."""
        return self.work / "extensions"

    def upstream_jit(self, architectures: Sequence[str]) -> Cost:
        """Both plugins, just in time, from nothing."""
        variables = self.variables(architectures)
        with tempfile.TemporaryDirectory(dir=self.work) as folder:
            variables["TORCH_EXTENSIONS_DIR"] = folder
            return cost([self.python, _UPSTREAM, "jit", self.inputs.pristine], env=variables)

    def upstream_wheel(self, architectures: Sequence[str]) -> tuple[Cost, int]:
        """The wheel of plain CUDAExtensions: what it costs, and its size in bytes."""
        variables = self.variables(architectures)
        tree = self.work / "plain"
        shutil.copytree(self.inputs.pristine, tree)
        taken = cost([self.python, _UPSTREAM, "wheel", "bdist_wheel"], cwd=tree, env=variables)
        return taken, next((tree / "dist").glob("*.whl")).stat().st_size

    def ours(self, cell: Cell, cache: Path, architectures: Sequence[str]) -> Cost:
        """The pipeline's own command, with ``cache`` for what it may reuse."""
        command: list[str | Path] = [sys.executable, "-m", "scripts.build.build", cell.id, "--engine", "host"]
        for number in architectures:
            command += ["--arch", number]
        return cost([*command, "--output", self.work / "dist"], cwd=ROOT, env={"NVDIFFRAST_WHEELS_CACHE": str(cache)})

    def cold_cache(self, name: str) -> Path:
        """A cache in which everything is fetched and nothing is built."""
        cache = self.work / name
        cache.mkdir()
        for kind in ("environments", "toolkits", "upstream", "downloads"):
            (cache_root() / kind).mkdir(parents=True, exist_ok=True)
            (cache / kind).symlink_to(cache_root() / kind)
        return cache

    def import_seconds(self) -> list[float]:
        """What importing the package and both plugins takes once torch is there, in fresh processes."""
        folder = self.work / "unpacked"
        with zipfile.ZipFile(self.work / "dist" / self.cell.wheel) as wheel:
            wheel.extractall(folder)
        variables = {"PYTHONPATH": str(folder), "TORCH_EXTENSIONS_DIR": str(self.extensions)}
        taken = [process.call([self.python, "-c", _IMPORT], env=variables, quiet=True) for _ in range(_IMPORTS + 1)]
        return [float(printed.splitlines()[-1]) for printed in taken[1:]]


def _seconds(costs: Sequence[Cost], kind: str) -> str:
    values = [getattr(one, kind) for one in costs]
    spread = f" ({min(values):.0f}-{max(values):.0f})" if len(values) > 1 else ""
    return f"{statistics.median(values):.0f} s{spread}"


def _row(name: str, ours: Sequence[Cost], upstream: Sequence[Cost], kind: str, bar: float) -> Row:
    ratios = [getattr(a, kind) / getattr(b, kind) for a, b in zip(ours, upstream, strict=True)]
    return Row(name, _seconds(ours, kind), _seconds(upstream, kind), statistics.median(ratios), bar)


def neighbours(planned: Matrix, cell: Cell) -> tuple[Cell | None, Cell | None]:
    """A cell that differs in Python alone, and one that differs in torch alone, which this machine can build."""

    def same_but(other: Cell, *, python: bool) -> bool:
        keys = (other.release, other.toolkit, other.platform) == (cell.release, cell.toolkit, cell.platform)
        alike = other.torch == cell.torch if python else other.python == cell.python
        return keys and alike and other.id != cell.id and not missing_here(other)

    def newest(python: bool) -> Cell | None:
        found = [other for other in planned.cells if same_but(other, python=python)]
        return found[-1] if found else None

    return newest(True), newest(False)


def measure(bench: Bench, planned: Matrix, rounds: int) -> list[Row]:
    """All rows, in the order in which they are measured."""
    one, policy = (_ARCHITECTURE,), bench.cell.toolkit.policy
    upstream, ours = [], []
    for number in range(rounds):
        console.say(f"round {number + 1} of {rounds}: one architecture")
        upstream.append(bench.upstream_jit(one))
        ours.append(bench.ours(bench.cell, bench.cold_cache(f"cold{number}"), one))
    rows = [
        _row(f"cold wheel, architecture {_ARCHITECTURE}, wall", ours, upstream, "wall", 0.25),
        _row(f"cold wheel, architecture {_ARCHITECTURE}, CPU", ours, upstream, "cpu", 0.25),
    ]
    for cell, what in zip(neighbours(planned, bench.cell), ("Python", "torch"), strict=True):
        if cell is not None:
            prepare(cell)
            further = [bench.ours(cell, bench.work / "cold0", one)]
            rows.append(_row(f"a further {what} ({cell.id}), CPU", further, upstream[:1], "cpu", 0.15))
    console.say("the plain wheel, for its size")
    _, size = bench.upstream_wheel(one)
    mine = (bench.work / "dist" / bench.cell.wheel).stat().st_size
    rows.append(Row("wheel size", f"{mine / 1e6:.2f} MB", f"{size / 1e6:.2f} MB", mine / size, 1 / 15))
    console.say(f"the whole policy: {' '.join(policy)}")
    whole_policy = [bench.upstream_jit(policy)]
    rows.append(
        _row(
            f"cold wheel, {len(policy)} architectures and PTX, wall",
            [bench.ours(bench.cell, bench.cold_cache("policy"), ())],
            whole_policy,
            "wall",
            0.4,
        )
    )
    taken = [seconds * 1000 for seconds in bench.import_seconds()]
    more = statistics.median(taken)
    spread = f"{more:.1f} ms ({min(taken):.1f}-{max(taken):.1f})"
    rows.append(Row("import after `import torch`, against 30 ms", spread, "-", more / 30, 1.0))
    return rows


def main() -> int:
    """``python -m benchmarks.build_time [CELL] [--rounds N]``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cell", nargs="?", help="the cell to measure; this host's unless told otherwise")
    parser.add_argument("--rounds", type=int, default=3, help="how often the first comparison is made (3)")
    parsed = parser.parse_args()
    planned = matrix.load()
    cell = planned.select([parsed.cell])[0] if parsed.cell else build.host_cell(planned, None)
    with tempfile.TemporaryDirectory(prefix="nvdiffrast-benchmark-") as folder:
        rows = measure(Bench(cell, Path(folder)), planned, parsed.rounds)
    print(f"\n{cell.id}, {os.cpu_count()} cores\n")
    print("| what | ours | upstream | ratio | bar |\n|---|---|---|---|---|")
    for row in rows:
        print(f"| {row.name} | {row.ours} | {row.upstream} | {row.ratio:.2f} | {row.bar:.2f} |")
    return 0


if __name__ == "__main__":
    run_main(main)
