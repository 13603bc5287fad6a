"""Checks of several contexts, streams and threads in one process, of error handling, and of memory leaks."""

from __future__ import annotations

import gc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from . import lookups, scenes
from .bench import Bench, Check, Outcome
from .comparison import Draw, Findings, array, compare_raster, tensor
from .reference.arrays import Array

SCENES = (
    Draw(*scenes.random_triangles(41, 8), (48, 64)),
    Draw(*scenes.random_triangles(42, 6), (48, 64)),
    Draw(*scenes.stacked_squares(4), (96, 40)),
)
THREADS, DRAWS = 4, 16
# Clock cycles for which each stream is kept busy before it writes the positions to draw: some hundredths of a second.
BUSY_CYCLES = 50_000_000
# The driver allocates device memory in blocks, so up to this many bytes may be missing.
ALLOWED_LOSS_BYTES = 4 << 20


def contexts(bench: Bench) -> Outcome:
    """Alternate between two contexts and image sizes; later calls must not change earlier outputs."""
    findings, pair = Findings(), (bench.context(), bench.context())
    turns = [(draw, pair[turn % 2]) for turn, draw in enumerate(SCENES * 2)]
    results = [(draw, draw.rasterize(bench, context=context)[1:]) for draw, context in turns]
    for draw, (rast, rast_db) in results:
        compare_raster(findings, draw, (array(rast), array(rast_db)))
    return findings.outcome()


def streams(bench: Bench) -> Outcome:
    """Draw in two streams at once; each draws positions that are written by earlier work in the same stream."""
    findings, cuda = Findings(), bench.torch.cuda
    draws = SCENES[:2]
    sources = [tensor(bench, draw.pos) for draw in draws]
    positions = [bench.torch.zeros_like(source) for source in sources]
    triangles = [tensor(bench, draw.tri, "int32") for draw in draws]
    contexts = [bench.context() for _ in draws]
    cuda.synchronize()
    results = []
    for draw, source, pos, tri, context in zip(draws, sources, positions, triangles, contexts, strict=True):
        with cuda.stream(cuda.Stream()):
            cuda._sleep(BUSY_CYCLES)
            pos.copy_(source)
            results.append(bench.dr.rasterize(context, pos, tri, draw.resolution))
    cuda.synchronize()
    for draw, (rast, rast_db) in zip(draws, results, strict=True):
        compare_raster(findings, draw, (array(rast), array(rast_db)))
    return findings.outcome()


def threads(bench: Bench) -> Outcome:
    """Draw in several threads at once, one context per draw, and use a context in a thread that did not create it."""
    findings = Findings()
    with ThreadPoolExecutor(THREADS) as pool:
        results = list(pool.map(lambda number: _rasterize(bench, SCENES[number % len(SCENES)]), range(DRAWS)))
    context = bench.context()
    with ThreadPoolExecutor(1) as pool:
        results.append(pool.submit(_rasterize, bench, SCENES[DRAWS % len(SCENES)], context).result())
    for number, result in enumerate(results):
        compare_raster(findings, SCENES[number % len(SCENES)], result)
    return findings.outcome()


def _rasterize(bench: Bench, draw: Draw, context: Any = None) -> tuple[Array, Array]:
    """Return rast and rast_db of a draw."""
    _, rast, rast_db = draw.rasterize(bench, context=context)
    return array(rast), array(rast_db)


def errors(bench: Bench) -> Outcome:
    """Check that invalid calls raise an exception, and that a valid call after each of them still works."""
    findings, draw, exceptions = Findings(), SCENES[0], []
    for name, call in _invalid_calls(bench, draw):
        try:
            call()
            bench.torch.cuda.synchronize()
        except Exception as error:
            exceptions.append(f"{name}: {type(error).__name__}")
        else:
            findings.problems.append(f"no exception for {name}")
        compare_raster(findings, draw, _rasterize(bench, draw))
    findings.figures["exceptions"] = len(exceptions)
    findings.detail = "; ".join(exceptions)
    return findings.outcome()


def _invalid_calls(bench: Bench, draw: Draw) -> list[tuple[str, Callable[[], Any]]]:
    """Return invalid calls, each with a description of its mistake."""
    dr, torch, context = bench.dr, bench.torch, bench.context()
    pos, tri = tensor(bench, draw.pos), tensor(bench, draw.tri, "int32")
    # Not contiguous: a part of the columns of a wider tensor.
    not_contiguous = torch.cat([pos, pos], dim=2)[..., :4]
    rast = torch.zeros((1, 8, 8, 4), device=bench.device)
    odd = torch.zeros((1, 6, 10, 3), device=bench.device)
    uv = torch.zeros((1, 8, 8, 2), device=bench.device)
    return [
        ("float64 positions", lambda: dr.rasterize(context, pos.double(), tri, (8, 8))),
        ("int64 triangles", lambda: dr.rasterize(context, pos, tri.long(), (8, 8))),
        ("positions with 3 columns", lambda: dr.rasterize(context, pos[..., :3].contiguous(), tri, (8, 8))),
        ("positions that are not contiguous", lambda: dr.rasterize(context, not_contiguous, tri, (8, 8))),
        ("an image height of 0", lambda: dr.rasterize(context, pos, tri, (0, 8))),
        ("positions [V, 4] without ranges", lambda: dr.rasterize(context, pos[0], tri, (8, 8))),
        ("float64 attributes", lambda: dr.interpolate(pos.double(), rast, tri)),
        ("float64 texels", lambda: dr.texture(odd.double(), uv)),
        ("an unknown boundary mode", lambda: dr.texture(odd, uv, boundary_mode="mirror")),
        ("mip levels of a texture with an odd size", lambda: dr.texture_construct_mip(odd)),
        ("float64 colors", lambda: dr.antialias(rast.double(), rast, pos, tri)),
    ]


def memory(bench: Bench) -> Outcome:
    """Check that repeated creation of contexts, draws and gradients does not leak memory."""
    findings, usage = Findings(), []
    for _ in range(6):
        _use_every_operation(bench)
        gc.collect()
        bench.torch.cuda.synchronize()
        bench.torch.cuda.empty_cache()
        usage.append((bench.torch.cuda.memory_allocated(), bench.torch.cuda.mem_get_info()[0]))
    # The first rounds load kernels, which stay in memory.
    kept = usage[-1][0] - usage[1][0]
    lost = usage[1][1] - usage[-1][1]
    findings.figures.update({"bytes in tensors": kept, "bytes lost": lost})
    findings.require(kept <= 0, f"{kept} bytes stay allocated in tensors after four rounds")
    findings.require(lost <= ALLOWED_LOSS_BYTES, f"{lost} bytes of device memory are lost after four rounds")
    return findings.outcome()


def _use_every_operation(bench: Bench) -> None:
    """Call every operation once, forward and backward, with a context that is released at the end."""
    pos, rast, rast_db = Draw(*scenes.random_triangles(43, 8), (48, 64)).rasterize(bench, grad=True)
    tri = tensor(bench, scenes.random_triangles(43, 8)[1], "int32")
    uv, uv_da = bench.dr.interpolate(pos[..., :2].contiguous(), rast, tri, rast_db=rast_db, diff_attrs="all")
    tex = tensor(bench, lookups.texels(43, "wrap", 3), grad=True)
    color = bench.dr.texture(tex, uv, uv_da=uv_da, filter_mode="linear-mipmap-linear")
    bench.dr.antialias(color, rast, pos, tri).sum().backward()
    if not np.any(array(tex.grad)):
        raise ValueError("a visible texture has no gradient")


CHECKS = (
    Check("contexts", contexts),
    Check("streams", streams),
    Check("threads", threads),
    Check("errors", errors),
    Check("memory", memory),
)
