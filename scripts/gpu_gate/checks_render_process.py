"""How the wheel behaves in a process: several contexts, streams and threads, errors, and memory."""

from __future__ import annotations

import gc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from . import lookups, scenes
from .bench import Bench, Check, Outcome
from .judge import Draw, Verdict, array, judge_raster, tensor
from .reference.arrays import Array

SCENES = (
    Draw(*scenes.tumble(41, 8), (48, 64)),
    Draw(*scenes.tumble(42, 6), (48, 64)),
    Draw(*scenes.stack(4), (96, 40)),
)
THREADS, DRAWS = 4, 16
# Clock cycles that a stream is kept busy for before what it draws is there: some hundredths of a second.
BUSY = 50_000_000
# What may be missing of the device's memory: it is handed out in pieces.
GRANULE = 4 << 20


def contexts(bench: Bench) -> Outcome:
    """Two contexts by turns, at different sizes; what each gave stays as it was."""
    verdict, pair = Verdict(), (bench.context(), bench.context())
    turns = [(draw, pair[turn % 2]) for turn, draw in enumerate(SCENES * 2)]
    drawn = [(draw, draw.on(bench, context=context)[1:]) for draw, context in turns]
    for draw, (rast, slopes) in drawn:
        judge_raster(verdict, draw, (array(rast), array(slopes)))
    return verdict.outcome()


def streams(bench: Bench) -> Outcome:
    """Two streams at once, each drawing positions that only its own earlier work puts there."""
    verdict, cuda = Verdict(), bench.torch.cuda
    draws = SCENES[:2]
    given = [tensor(bench, draw.pos) for draw in draws]
    seen = [bench.torch.zeros_like(pos) for pos in given]
    faces = [tensor(bench, draw.tri, "int32") for draw in draws]
    ready = [bench.context() for _ in draws]
    cuda.synchronize()
    results = []
    for draw, pos, source, tri, context in zip(draws, seen, given, faces, ready, strict=True):
        with cuda.stream(cuda.Stream()):
            cuda._sleep(BUSY)
            pos.copy_(source)
            results.append(bench.dr.rasterize(context, pos, tri, draw.resolution))
    cuda.synchronize()
    for draw, (rast, slopes) in zip(draws, results, strict=True):
        judge_raster(verdict, draw, (array(rast), array(slopes)))
    return verdict.outcome()


def threads(bench: Bench) -> Outcome:
    """Several threads at once, each with its own context, and one context used where it was not made."""
    verdict = Verdict()
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(lambda number: _drawn(bench, SCENES[number % len(SCENES)]), range(DRAWS)))
    made_here = bench.context()
    with ThreadPoolExecutor(1) as pool:
        found.append(pool.submit(_drawn, bench, SCENES[DRAWS % len(SCENES)], made_here).result())
    for number, got in enumerate(found):
        judge_raster(verdict, SCENES[number % len(SCENES)], got)
    return verdict.outcome()


def _drawn(bench: Bench, draw: Draw, context: Any = None) -> tuple[Array, Array]:
    _, rast, slopes = draw.on(bench, context=context)
    return array(rast), array(slopes)


def errors(bench: Bench) -> Outcome:
    """Calls that are wrong raise, and after each of them the next right one is right."""
    verdict, draw, said = Verdict(), SCENES[0], []
    for name, call in _wrong_calls(bench, draw):
        try:
            call()
            bench.torch.cuda.synchronize()
        except Exception as error:
            said.append(f"{name}: {type(error).__name__}")
        else:
            verdict.complaints.append(f"no exception for {name}")
        judge_raster(verdict, draw, _drawn(bench, draw))
    verdict.figures["exceptions"] = len(said)
    verdict.said = "; ".join(said)
    return verdict.outcome()


def _wrong_calls(bench: Bench, draw: Draw) -> list[tuple[str, Callable[[], Any]]]:
    """Calls that cannot be answered, by what is wrong with them."""
    dr, torch, context = bench.dr, bench.torch, bench.context()
    pos, tri = tensor(bench, draw.pos), tensor(bench, draw.tri, "int32")
    # Not contiguous: every second of twice as many.
    spread = torch.cat([pos, pos], dim=2)[..., :4]
    rast = torch.zeros((1, 8, 8, 4), device=bench.device)
    odd = torch.zeros((1, 6, 10, 3), device=bench.device)
    uv = torch.zeros((1, 8, 8, 2), device=bench.device)
    return [
        ("float64 positions", lambda: dr.rasterize(context, pos.double(), tri, (8, 8))),
        ("int64 triangles", lambda: dr.rasterize(context, pos, tri.long(), (8, 8))),
        ("positions of three numbers", lambda: dr.rasterize(context, pos[..., :3].contiguous(), tri, (8, 8))),
        ("positions in pieces", lambda: dr.rasterize(context, spread, tri, (8, 8))),
        ("an image of no rows", lambda: dr.rasterize(context, pos, tri, (0, 8))),
        ("flat positions without ranges", lambda: dr.rasterize(context, pos[0], tri, (8, 8))),
        ("float64 attributes", lambda: dr.interpolate(pos.double(), rast, tri)),
        ("float64 texels", lambda: dr.texture(odd.double(), uv)),
        ("an unknown boundary", lambda: dr.texture(odd, uv, boundary_mode="mirror")),
        ("levels of an odd texture", lambda: dr.texture_construct_mip(odd)),
        ("float64 colours", lambda: dr.antialias(rast.double(), rast, pos, tri)),
    ]


def memory(bench: Bench) -> Outcome:
    """Contexts, draws and gradients come and go; in the end as much is free as after the first of them."""
    verdict, left = Verdict(), []
    for _ in range(6):
        _work(bench)
        gc.collect()
        bench.torch.cuda.synchronize()
        bench.torch.cuda.empty_cache()
        left.append((bench.torch.cuda.memory_allocated(), bench.torch.cuda.mem_get_info()[0]))
    # The first rounds load kernels, which stay.
    kept = left[-1][0] - left[1][0]
    lost = left[1][1] - left[-1][1]
    verdict.figures.update({"bytes in tensors": kept, "bytes lost": lost})
    verdict.require(kept <= 0, f"{kept} bytes stay in tensors after four rounds")
    verdict.require(lost <= GRANULE, f"{lost} bytes of the device's memory are gone after four rounds")
    return verdict.outcome()


def _work(bench: Bench) -> None:
    """Everything once, with a context that ends here."""
    pos, rast, slopes = Draw(*scenes.tumble(43, 8), (48, 64)).on(bench, grad=True)
    tri = tensor(bench, scenes.tumble(43, 8)[1], "int32")
    uv, uv_da = bench.dr.interpolate(pos[..., :2].contiguous(), rast, tri, rast_db=slopes, diff_attrs="all")
    tex = tensor(bench, lookups.texels(43, "wrap", 3), grad=True)
    color = bench.dr.texture(tex, uv, uv_da=uv_da, filter_mode="linear-mipmap-linear")
    bench.dr.antialias(color, rast, pos, tri).sum().backward()
    if not np.any(array(tex.grad)):
        raise ValueError("a texture that is seen has no gradient")


CHECKS = (
    Check("contexts", contexts),
    Check("streams", streams),
    Check("threads", threads),
    Check("errors", errors),
    Check("memory", memory),
)
