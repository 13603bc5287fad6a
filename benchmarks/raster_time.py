"""Measure torch-rasterizer and a plain C++ loop with the same pixels, in turns, on one thread.

The C++ loop, raster_reference.cpp, is compiled with -O3; its pictures must be equal bit for bit.

    nox -s benchmark_packages -- raster [--rounds 9] [--profile]

It needs torch, numpy and a C++ compiler (CXX, or c++ by default).
"""

from __future__ import annotations

import argparse
import ctypes
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch_rasterizer import PyTorchRasterizer, meshes

Picture = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Workload:
    """A mesh, the side of the picture in pixels, and the target for the ratio to the C++ loop."""

    name: str
    mesh: meshes.Mesh
    size: int
    target: float


def workloads() -> list[Workload]:
    """Return the workloads that have targets."""
    return [
        Workload("sphere 10k @ 1024", meshes.sphere(10_000), 1024, 0.55),
        Workload("sphere 5k @ 512", meshes.sphere(5_000), 512, 0.65),
        Workload("random 10k of 20 px @ 1024", meshes.random_triangles(10_000, 20, 1024), 1024, 0.45),
        Workload("sphere 40k, orthographic @ 2048", meshes.sphere(40_000, perspective=False), 2048, 0.6),
        Workload("sphere 99k @ 1024", meshes.sphere(99_000), 1024, 0.9),
    ]


class ReferenceLoop:
    """The C++ loop, compiled into a folder."""

    def __init__(self, folder: Path) -> None:
        library = folder / "reference_loop.so"
        source = Path(__file__).with_name("raster_reference.cpp")
        compiler = os.environ.get("CXX", "c++")
        options = ["-O3", "-std=c++17", "-shared", "-fPIC", "-ffp-contract=off"]
        subprocess.run([compiler, *options, "-o", str(library), str(source)], check=True)
        self._library = ctypes.CDLL(str(library))

    def __call__(self, mesh: meshes.Mesh, size: int) -> Picture:
        """Return ids and barycentrics."""
        vertices, faces = mesh
        ids, found = torch.empty(size, size, dtype=torch.int32), torch.empty(size, size, 3)
        pointers = [ctypes.c_void_p(tensor.data_ptr()) for tensor in (vertices, faces, ids, found)]
        count = ctypes.c_int64(len(faces))
        self._library.rasterize(*pointers[:2], count, size, size, *pointers[2:])
        return ids, found


def measure_in_turns(actions: list[Callable[[], object]], rounds: int) -> list[list[float]]:
    """Return the milliseconds of each action, executed in turns after one turn of warm-up."""
    times: list[list[float]] = [[] for _ in actions]
    for turn in range(rounds + 1):
        for action, found in zip(actions, times, strict=True):
            start = time.perf_counter()
            action()
            if turn:
                found.append((time.perf_counter() - start) * 1e3)
    return times


def compare(work: Workload, rasterizer: PyTorchRasterizer, reference_loop: ReferenceLoop, rounds: int) -> str:
    """Return one row of the table."""
    none = torch.zeros(0)

    def rasterize() -> Picture:
        return rasterizer.rasterize_image(*work.mesh, none, work.size, work.size, 1e-6, 0)

    def reference() -> Picture:
        return reference_loop(work.mesh, work.size)

    same = all(
        torch.equal(one.view(torch.int32), other.view(torch.int32))
        for one, other in zip(rasterize(), reference(), strict=True)
    )
    if not same:
        raise SystemExit(f"{work.name}: the pictures differ")
    loop, torch_ = measure_in_turns([reference, rasterize], rounds)
    ratio = statistics.median(torch_) / statistics.median(loop)
    cells = [f"{statistics.median(times):.1f} / {min(times):.1f}" for times in (loop, torch_)]
    return f"| {work.name} | {cells[0]} | {cells[1]} | {ratio:.2f} | {min(torch_) / min(loop):.2f} | {work.target} |"


def measure_growth(rasterizer: PyTorchRasterizer, rounds: int) -> list[str]:
    """Return the factors for ten times the faces on the same area and for twice the resolution, by medians."""
    few, many = meshes.sphere(10_000), meshes.sphere(100_000)
    actions: list[Callable[[], object]] = [
        partial(rasterizer.rasterize_image, mesh[0], mesh[1], None, size, size)
        for mesh, size in ((few, 1024), (many, 1024), (few, 2048))
    ]
    base, faces, pixels = (statistics.median(times) for times in measure_in_turns(actions, rounds))
    return [
        f"10 times the faces on the same area: {faces / base:.1f} times the time (target 10)",
        f"twice the resolution: {pixels / base:.1f} times the time (target 4.3)",
    ]


def profile(rasterizer: PyTorchRasterizer, work: Workload) -> str:
    """Return the time of a workload by operator."""
    from torch.profiler import ProfilerActivity  # noqa: PLC0415
    from torch.profiler import profile as record  # noqa: PLC0415

    with record(activities=[ProfilerActivity.CPU]) as found:
        for _ in range(5):
            rasterizer.rasterize_image(*work.mesh, None, work.size, work.size)
    return str(found.key_averages().table(sort_by="self_cpu_time_total", row_limit=15, max_name_column_width=30))


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=9)

    parser.add_argument("--profile", action="store_true", help="also print the time of the first workload by operator")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rasterizer = PyTorchRasterizer("cpu")
    print("| workload | C++ median / min ms | torch median / min ms | ratio of medians | of minima | target |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        reference_loop = ReferenceLoop(Path(folder))
        for work in workloads():
            print(compare(work, rasterizer, reference_loop, options.rounds), flush=True)
    print("\n" + "\n".join(measure_growth(rasterizer, options.rounds)))
    if options.profile:
        print(profile(rasterizer, workloads()[0]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
