"""Measure build_hierarchy and a C++ loop with the same semantics: grid 256, three layers, five levels, one thread.

The C++ loop, hierarchy_reference.cpp, is compiled with -O3, once with std::map (the reference of the target) and once
with std::unordered_map. All of them run in turns on the same views, and their results must be equal. The views are
depth-peeled views of two nested ellipsoids.

    python benchmarks/hierarchy_time.py [--size 256] [--rounds 9]

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
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch_rasterizer.hierarchy import build_hierarchy

LAYERS, LEVELS, TARGET = 3, 5, 0.3
# Semi-axes of the two ellipsoids.
SURFACES = ((0.95, 0.85, 0.9), (0.55, 0.6, 0.5))
# For each view: axis and direction of the rows, axis of the columns, and viewing axis.
VIEWS = ((1, 1, 0, 2), (1, 1, 2, 0), (2, -1, 0, 1))

Floats = npt.NDArray[np.float32]
Result = list[list[torch.Tensor]]


def make_views(size: int) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Return positions [3, size, size, 4] and normals [3, size, size, 3] of the three views."""
    pairs = [_peel(size, *view) for view in VIEWS]
    return [torch.from_numpy(p) for p, _ in pairs], [torch.from_numpy(n) for _, n in pairs]


def _peel(size: int, down: int, sign: int, across: int, depth: int) -> tuple[Floats, Floats]:
    """Return the first hits along one axis, nearest first."""
    line = (np.arange(size) + 0.5) / size * 2 - 1
    rows, columns = np.meshgrid(sign * line, line, indexing="ij")
    hits = []
    for axes in SURFACES:
        inside = 1 - (rows / axes[down]) ** 2 - (columns / axes[across]) ** 2
        reach = np.sqrt(np.where(inside > 0, inside, np.nan)) * axes[depth]
        for end in (reach, -reach):
            point = np.empty((size, size, 4))
            point[..., down], point[..., across], point[..., depth] = rows, columns, end
            point[..., 3] = inside > 0
            normal = point[..., :3] / np.square(axes)
            hits.append((point, normal / np.linalg.norm(normal, axis=2, keepdims=True)))
    points, normals = (np.nan_to_num(np.stack(part)) for part in zip(*hits, strict=True))
    order = np.argsort(np.where(points[..., 3] > 0, -points[..., depth], np.inf), axis=0, kind="stable")[..., None]
    points, normals = (np.take_along_axis(part, order, axis=0)[:LAYERS] for part in (points, normals))
    return points.astype(np.float32), normals.astype(np.float32)


class ReferenceLoop:
    """The C++ loop, compiled into a folder."""

    def __init__(self, folder: Path, *options: str) -> None:
        library = folder / f"reference_loop{'_'.join(options)}.so"
        source = Path(__file__).with_name("hierarchy_reference.cpp")
        compiler = os.environ.get("CXX", "c++")
        command = [compiler, "-O3", "-std=c++17", "-shared", "-fPIC", *options, "-o", str(library), str(source)]
        subprocess.run(command, check=True)
        self._library = ctypes.CDLL(str(library))
        self._library.build.restype = ctypes.c_void_p
        self._library.cells.restype = ctypes.c_int64

    def __call__(self, positions: list[torch.Tensor], normals: list[torch.Tensor], levels: int, size: int) -> Result:
        """Return the result of build_hierarchy; the C++ vectors are copied into tensors, as the original does."""
        pointers = [(ctypes.c_void_p * 3)(*(view.data_ptr() for view in part)) for part in (positions, normals)]
        shapes = (ctypes.c_int32 * 9)(*(length for view in positions for length in view.shape[:3]))
        handle = ctypes.c_void_p(self._library.build(*pointers, shapes, levels, size))
        counts = [self._library.cells(handle, level) for level in range(levels)]
        cloud = [torch.empty(counts[0], 3), torch.empty(counts[0])]
        self._library.copy_cloud(handle, *(_pointer(tensor) for tensor in cloud))
        neighbours = [torch.empty(count, 9, dtype=torch.int64) for count in counts]
        down, even, odd = ([torch.empty(count, dtype=torch.int64) for count in counts] for _ in range(3))
        for level in range(levels):
            parents = down[level] if level + 1 < levels else None
            tensors = (neighbours[level], parents, even[level], odd[level])
            self._library.copy_level(handle, level, *(_pointer(tensor) for tensor in tensors))
        self._library.destroy(handle)
        return [cloud, neighbours, down[:-1], even, odd]


def _pointer(tensor: torch.Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


def equal(one: Result, other: Result) -> bool:
    """Return whether all tensors of two results are equal."""
    return all(
        len(group) == len(beside) and all(torch.equal(*pair) for pair in zip(group, beside, strict=True))
        for group, beside in zip(one, other, strict=True)
    )


def measure_in_turns(runs: Mapping[str, Callable[[], Result]], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each run, executed in turns after one turn of warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(rounds + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def main() -> int:
    """Print the table. Return 1 if the target is missed or the results differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--size", type=int, default=256, help="pixels and cells along an axis (256)")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    positions, normals = make_views(options.size)
    with tempfile.TemporaryDirectory() as folder:
        sides: dict[str, Callable[..., Result]] = {
            "torch_rasterizer": build_hierarchy,
            "C++ std::map": ReferenceLoop(Path(folder)),
            "C++ std::unordered_map": ReferenceLoop(Path(folder), "-DHASHED"),
        }
        runs = {name: partial(side, positions, normals, LEVELS, options.size) for name, side in sides.items()}
        results = {name: run() for name, run in runs.items()}
        own = results["torch_rasterizer"]
        cells = ", ".join(str(len(level)) for level in own[1])
        print(f"{sum(int(view[..., 3].sum()) for view in positions)} pixels; cells of the {LEVELS} levels: {cells}")
        same = all(equal(own, result) for result in results.values())
        print("results are equal" if same else "results DIFFER")
        seconds = measure_in_turns(runs, options.rounds)
    return 0 if _print_table(seconds) and same else 1


def _print_table(seconds: dict[str, list[float]]) -> bool:
    """Print medians, minima and ratios; return whether the ratio of medians meets the target."""
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    own = min(seconds["torch_rasterizer"])
    print(f"{'':24}{'median ms':>12}{'min ms':>12}{'ratio median':>14}{'ratio min':>12}")
    for name, values in seconds.items():
        ratios = f"{medians['torch_rasterizer'] / medians[name]:>14.2f}{own / min(values):>12.2f}"
        print(f"{name:24}{medians[name] * 1e3:>12.1f}{min(values) * 1e3:>12.1f}{ratios}")
    ratio = medians["torch_rasterizer"] / medians["C++ std::map"]
    print(f"{ratio:.2f} of the C++ loop with std::map; the target is {TARGET}")
    return ratio <= TARGET


if __name__ == "__main__":
    sys.exit(main())
