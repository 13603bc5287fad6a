"""Measure the first import after an installation, of the precompiled wheel and of the wheel compiled just in time.

    nox -s benchmark -- import [--rounds 5]

Both import torch first and then the CUDA plugin. The just-in-time build compiles one architecture, as torch does for
the GPU of the machine.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import zipfile
from pathlib import Path

from benchmarks.build_time import Bench
from scripts.build.default_cell import host_cell
from scripts.matrix import matrix
from scripts.support import process
from scripts.support.command_line import run_main
from scripts.support.files import cache_root

_ARCHITECTURE = "9.0"
_IMPORT = """
import time, torch
start = time.perf_counter()
import nvdiffrast.torch.ops as ops
plugin = ops._get_plugin()
print(time.perf_counter() - start, plugin.__file__, hasattr(plugin, "rasterize_fwd_cuda"))
"""


def first_import(bench: Bench, site: Path, folder: Path, *, just_in_time: bool) -> tuple[float, Path]:
    """Return the seconds of an import in a fresh process, and the file of the CUDA plugin.

    ``site`` is the folder of the unpacked wheel, ``folder`` the folder for just-in-time builds.
    """
    variables = {**bench.variables([_ARCHITECTURE]), "PYTHONPATH": str(site), "TORCH_EXTENSIONS_DIR": str(folder)}
    if just_in_time:
        variables["NVDIFFRAST_FORCE_JIT"] = "1"
    printed = process.call([bench.python, "-c", _IMPORT], env=variables, quiet=True).splitlines()[-1]
    seconds, file, complete = printed.split(" ")
    if complete != "True":
        raise RuntimeError(f"{file} has no rasterize_fwd_cuda")
    return float(seconds), Path(file)


def unpacked(bench: Bench) -> Path:
    """Build the wheel of this host's cell with the pipeline, unpack it, and return the folder."""
    bench.pipeline(bench.cell, cache_root(), [_ARCHITECTURE])
    site = bench.work / "site"
    with zipfile.ZipFile(bench.work / "dist" / bench.cell.wheel) as wheel:
        wheel.extractall(site)
    return site


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    cell = host_cell(matrix.load(), "0.3.3.1")
    with tempfile.TemporaryDirectory() as work:
        bench = Bench(cell, Path(work))
        site = unpacked(bench)
        # The first run writes Python's bytecode caches and is not counted.
        times = [first_import(bench, site, Path(work, "none"), just_in_time=False)[0] for _ in range(rounds + 1)][1:]
        compiled, _ = first_import(bench, site, Path(work, "jit"), just_in_time=True)
    precompiled = statistics.median(times)
    print(f"| {cell.id} | first import of the CUDA plugin |\n|---|---|")
    print(f"| precompiled | {precompiled:.3f} s (median of {rounds}, minimum {min(times):.3f}) |")
    print(f"| compiled just in time, once | {compiled:.0f} s |")
    print(f"| ratio | {compiled / precompiled:.0f} |")
    return 0


if __name__ == "__main__":
    run_main(main)
