"""Build both plugins with upstream's method and with this pipeline, and print the ratios as a Markdown table.

Downloads and environments are prepared in advance. The pipeline is measured as a whole command: patch, compile, link,
repair, audit. Upstream's method is the just-in-time compilation of both plugins of the same release with the same
torch, toolkit, compiler and architectures.
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
from scripts.build.default_cell import host_cell
from scripts.build.inputs import Inputs, Options, gather, torch_environment
from scripts.build.plan import missing_here
from scripts.matrix import matrix
from scripts.matrix.matrix import Matrix
from scripts.model import ROOT, Cell
from scripts.support import environments, process
from scripts.support.command_line import run_main
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
    """The cost of a command: wall-clock seconds, and processor seconds of it and its child processes."""

    wall: float
    cpu: float


@dataclass(frozen=True)
class Row:
    """A row of the table; ``target`` is the maximum ratio."""

    name: str
    pipeline: str
    upstream: str
    ratio: float
    target: float


def measure_cost(
    command: Sequence[str | Path], *, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> Cost:
    """Run ``command`` and return its cost."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    process.call(command, cwd=cwd, env=env, quiet=True)
    wall, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return Cost(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def prepare(cell: Cell) -> tuple[Inputs, Path]:
    """Fetch the inputs of a build of ``cell`` and create its environment, so that neither is measured."""
    inputs = gather(cell, Options("host", (), None, None, ROOT / "dist", None, None))
    return inputs, torch_environment(inputs)


class Bench:
    """A cell, its inputs, and a folder for the outputs of the measured commands."""

    def __init__(self, cell: Cell, work: Path) -> None:
        self.cell = cell
        self.work = work
        self.inputs, self.environment = prepare(cell)
        self.python = environments.interpreter(self.environment)
        assert self.inputs.compiler is not None
        self.compiler = self.inputs.compiler.path

    def variables(self, architectures: Sequence[str]) -> dict[str, str]:
        """Return the environment variables of upstream's build."""
        headers = sorted((self.environment / "lib").glob("python*/site-packages/nvidia/*/include"))
        return {
            "PATH": f"{self.python.parent}{os.pathsep}{os.environ['PATH']}",
            "CUDA_HOME": str(self.inputs.cuda.path),
            "CXX": os.fspath(self.compiler),
            "TORCH_CUDA_ARCH_LIST": ";".join(architectures),
            # torch's headers include those of cuSPARSE, which are in NVIDIA's wheels, not in this toolkit.
            "CPLUS_INCLUDE_PATH": os.pathsep.join(map(str, headers)),
            "TORCH_EXTENSIONS_DIR": str(self.extensions),
        }

    @property
    def extensions(self) -> Path:
        """The folder for just-in-time compilations; in torch's own a check of the GL plugin would leave a lock."""
        return self.work / "extensions"

    def upstream_jit(self, architectures: Sequence[str]) -> Cost:
        """Compile both plugins just in time, without a cache."""
        variables = self.variables(architectures)
        with tempfile.TemporaryDirectory(dir=self.work) as folder:
            variables["TORCH_EXTENSIONS_DIR"] = folder
            return measure_cost([self.python, _UPSTREAM, "jit", self.inputs.pristine], env=variables)

    def upstream_wheel(self, architectures: Sequence[str]) -> tuple[Cost, int]:
        """Build the wheel of plain CUDAExtensions; return its cost and its size in bytes."""
        variables = self.variables(architectures)
        tree = self.work / "plain"
        shutil.copytree(self.inputs.pristine, tree)
        cost = measure_cost([self.python, _UPSTREAM, "wheel", "bdist_wheel"], cwd=tree, env=variables)
        return cost, next((tree / "dist").glob("*.whl")).stat().st_size

    def pipeline(self, cell: Cell, cache: Path, architectures: Sequence[str]) -> Cost:
        """Run the pipeline's build command with the cache folder ``cache``."""
        command: list[str | Path] = [sys.executable, "-m", "scripts.build.build", cell.id, "--engine", "host"]
        for number in architectures:
            command += ["--arch", number]
        return measure_cost(
            [*command, "--output", self.work / "dist"], cwd=ROOT, env={"NVDIFFRAST_WHEELS_CACHE": str(cache)}
        )

    def cold_cache(self, name: str) -> Path:
        """Create a cache with all downloads but without build results."""
        cache = self.work / name
        cache.mkdir()
        for kind in ("environments", "toolkits", "upstream", "downloads"):
            (cache_root() / kind).mkdir(parents=True, exist_ok=True)
            (cache / kind).symlink_to(cache_root() / kind)
        return cache

    def import_seconds(self) -> list[float]:
        """Return the seconds for importing the package and both plugins after torch, each in a fresh process."""
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


def _row(name: str, pipeline: Sequence[Cost], upstream: Sequence[Cost], kind: str, target: float) -> Row:
    ratios = [getattr(a, kind) / getattr(b, kind) for a, b in zip(pipeline, upstream, strict=True)]
    return Row(name, _seconds(pipeline, kind), _seconds(upstream, kind), statistics.median(ratios), target)


def neighbours(planned: Matrix, cell: Cell) -> tuple[Cell | None, Cell | None]:
    """Return a cell that differs only in Python, and one that differs only in torch, if this machine can build them."""

    def same_but(other: Cell, *, python: bool) -> bool:
        keys = (other.release, other.toolkit, other.platform) == (cell.release, cell.toolkit, cell.platform)
        same = other.torch == cell.torch if python else other.python == cell.python
        return keys and same and other.id != cell.id and not missing_here(other)

    def newest(python: bool) -> Cell | None:
        found = [other for other in planned.cells if same_but(other, python=python)]
        return found[-1] if found else None

    return newest(True), newest(False)


def measure(bench: Bench, planned: Matrix, rounds: int) -> list[Row]:
    """Return all rows, in the order of measurement."""
    one, policy = (_ARCHITECTURE,), bench.cell.toolkit.policy
    upstream, pipeline = [], []
    for number in range(rounds):
        console.log(f"round {number + 1} of {rounds}: one architecture")
        upstream.append(bench.upstream_jit(one))
        pipeline.append(bench.pipeline(bench.cell, bench.cold_cache(f"cold{number}"), one))
    rows = [
        _row(f"cold wheel, architecture {_ARCHITECTURE}, wall", pipeline, upstream, "wall", 0.25),
        _row(f"cold wheel, architecture {_ARCHITECTURE}, CPU", pipeline, upstream, "cpu", 0.25),
    ]
    for cell, kind in zip(neighbours(planned, bench.cell), ("Python", "torch"), strict=True):
        if cell is not None:
            prepare(cell)
            further = [bench.pipeline(cell, bench.work / "cold0", one)]
            rows.append(_row(f"a further {kind} ({cell.id}), CPU", further, upstream[:1], "cpu", 0.15))
    console.log("the wheel of plain CUDAExtensions, for its size")
    _, size = bench.upstream_wheel(one)
    own_size = (bench.work / "dist" / bench.cell.wheel).stat().st_size
    rows.append(Row("wheel size", f"{own_size / 1e6:.2f} MB", f"{size / 1e6:.2f} MB", own_size / size, 1 / 15))
    console.log(f"the whole policy: {' '.join(policy)}")
    whole_policy = [bench.upstream_jit(policy)]
    rows.append(
        _row(
            f"cold wheel, {len(policy)} architectures and PTX, wall",
            [bench.pipeline(bench.cell, bench.cold_cache("policy"), ())],
            whole_policy,
            "wall",
            0.4,
        )
    )
    milliseconds = [seconds * 1000 for seconds in bench.import_seconds()]
    median = statistics.median(milliseconds)
    spread = f"{median:.1f} ms ({min(milliseconds):.1f}-{max(milliseconds):.1f})"
    rows.append(Row("import after `import torch`, relative to 30 ms", spread, "-", median / 30, 1.0))
    return rows


def main() -> int:
    """Run ``python -m benchmarks.build_time [CELL] [--rounds N]``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cell", nargs="?", help="the cell to measure (default: the cell of this host)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of the first comparison (3)")
    parsed = parser.parse_args()
    planned = matrix.load()
    cell = planned.select([parsed.cell])[0] if parsed.cell else host_cell(planned, None)
    with tempfile.TemporaryDirectory(prefix="nvdiffrast-benchmark-") as folder:
        rows = measure(Bench(cell, Path(folder)), planned, parsed.rounds)
    print(f"\n{cell.id}, {os.cpu_count()} cores\n")
    print("| workload | pipeline | upstream | ratio | target |\n|---|---|---|---|---|")
    for row in rows:
        print(f"| {row.name} | {row.pipeline} | {row.upstream} | {row.ratio:.2f} | {row.target:.2f} |")
    return 0


if __name__ == "__main__":
    run_main(main)
