"""What is drawn: the rasterizer's ids, barycentrics, depth and derivatives, and the depth peeler's, at all sizes."""

from __future__ import annotations

import ctypes.util
from typing import Any

import numpy as np

from . import scenes
from .bench import Bench, Check, Outcome
from .faults import AT_MOST_2048, MULTIPLES_OF_8, STRIDE_ABOVE_2048, SUM_ABOVE_1
from .judge import ROUNDING, Draw, Verdict, array, judge_raster, tensor
from .reference.arrays import Array


def seeds_triangle(bench: Bench) -> Outcome:
    """The first thing anyone draws, of which also the number of pixels is known."""
    return _seeds_triangle(bench, bench.context())


def seeds_triangle_gl(bench: Bench) -> Outcome:
    """The same through OpenGL, where the release has it and the machine too."""
    if not bench.release.startswith("0.3."):
        return Outcome("untested", f"release {bench.release} has no OpenGL rasterizer")
    if not ctypes.util.find_library("EGL"):
        return Outcome("untested", "this machine has no EGL library")
    return _seeds_triangle(bench, bench.dr.RasterizeGLContext(device=bench.device))


def _seeds_triangle(bench: Bench, context: Any) -> Outcome:
    verdict, size = Verdict(), 256
    rast = _draw(verdict, bench, Draw(*scenes.seeds_triangle(), (size, size)), context)
    drawn, half = int((rast[..., 3] > 0).sum()), size // 2
    # Half of a square of pixels, without or with the pixels whose centres are on the diagonal.
    verdict.require(drawn in (half * (half - 1) // 2, half * (half + 1) // 2), f"{drawn} pixels drawn")
    verdict.said = f"{drawn} pixels drawn"
    return verdict.outcome()


def rasterize(bench: Bench) -> Outcome:
    """Overlapping triangles of both windings, in perspective, in two images."""
    verdict = Verdict()
    rast = _draw(verdict, bench, Draw(*scenes.tumble(1, 24, 2), (64, 96)))
    _limit_sum(verdict, bench, rast)
    return verdict.outcome()


def clipping(bench: Bench) -> Outcome:
    """Triangles that reach behind the camera, beyond both depth planes and far out of the view."""
    verdict = Verdict()
    _draw(verdict, bench, Draw(*scenes.through_the_camera(2, 24), (64, 96)))
    return verdict.outcome()


def shared_edges(bench: Bench) -> Outcome:
    """The view in four triangles: no gap and no pixel drawn by none."""
    verdict = Verdict()
    rast = _draw(verdict, bench, Draw(*scenes.fan(), (64, 64)))
    gaps = int((rast[..., 3] == 0).sum())
    verdict.require(gaps == 0, f"{gaps} pixels of the whole view not drawn")
    return verdict.outcome()


def odd_sizes(bench: Bench) -> Outcome:
    """Widths and heights that are no multiple of anything."""
    return _sizes(bench, [(13, 37), (37, 13), (1, 63), (61, 1), (9, 130), (127, 33)])


def one_pixel(bench: Bench) -> Outcome:
    """A single pixel, inside a triangle and outside of all."""
    verdict = Verdict()
    try:
        inside = _draw(verdict, bench, Draw(*scenes.large_triangle(), (1, 1)))
        outside = _draw(verdict, bench, Draw(*scenes.scatter(7, 1), (1, 1)))
        verdict.require(inside[0, 0, 0, 3] > 0, "a pixel of the whole view is not drawn")
        verdict.require(outside[0, 0, 0, 3] == 0, "a pixel is drawn that nothing covers")
    except Exception as error:
        verdict.complaints.append(_last_line(error))
    verdict.excuse(bench, MULTIPLES_OF_8)
    return verdict.outcome()


def range_mode(bench: Bench) -> Outcome:
    """Images that each show a part of one mesh; parts overlap."""
    verdict = Verdict()
    pos, tri = scenes.tumble(4, 20)
    _draw(verdict, bench, Draw(pos[0], tri, (48, 64), np.array([[0, 5], [5, 15], [3, 9], [19, 1]])))
    return verdict.outcome()


def large_batch(bench: Bench) -> Outcome:
    """More than 500 images in one call, all different."""
    verdict = Verdict()
    _draw(verdict, bench, Draw(*scenes.tumble(5, 2, 520), (16, 16)))
    return verdict.outcome()


def wider_than_2048(bench: Bench) -> Outcome:
    """Wide images, not high ones."""
    return _sizes(bench, [(24, 2600)], AT_MOST_2048)


def higher_than_2048(bench: Bench) -> Outcome:
    """High images, and one that is both; where releases draw by tiles."""
    verdict = Verdict()
    try:
        _draw(verdict, bench, Draw(*scenes.tumble(3, 8), (2600, 24)))
        _draw(verdict, bench, Draw(*scenes.scatter(6, 100), (2104, 2088)))
    except Exception as error:
        verdict.complaints.append(_last_line(error))
        verdict.excuse(bench, AT_MOST_2048)
        return verdict.outcome()
    verdict.excuse(bench, STRIDE_ABOVE_2048)
    return verdict.outcome()


def depth_peeling(bench: Bench) -> Outcome:
    """Surface behind surface, until nothing is left."""
    verdict = Verdict()
    for mesh, layers in ((scenes.stack(5), 6), (scenes.tumble(8, 12), 3)):
        draw = Draw(*mesh, (48, 64))
        pos, tri = tensor(bench, draw.pos), tensor(bench, draw.tri, "int32")
        with bench.dr.DepthPeeler(bench.context(), pos, tri, draw.resolution) as peeler:
            for layer in range(layers):
                rast, slopes = peeler.rasterize_next_layer()
                judge_raster(verdict, draw, (array(rast), array(slopes)), layer)
    return verdict.outcome()


def _sizes(bench: Bench, resolutions: list[tuple[int, int]], fault: str = MULTIPLES_OF_8) -> Outcome:
    verdict = Verdict()
    for resolution in resolutions:
        try:
            _draw(verdict, bench, Draw(*scenes.tumble(3, 8), resolution))
        except Exception as error:
            verdict.complaints.append(f"{resolution[0]}x{resolution[1]}: {_last_line(error)}")
    verdict.excuse(bench, fault)
    return verdict.outcome()


def _draw(verdict: Verdict, bench: Bench, draw: Draw, context: Any = None) -> Array:
    """Draw, judge, and give back what was drawn."""
    _, rast, slopes = draw.on(bench, context=context)
    judge_raster(verdict, draw, (array(rast), array(slopes)))
    return array(rast)


def _limit_sum(verdict: Verdict, bench: Bench, rast: Array) -> None:
    """u + v may not pass 1 by more than the rounding of the sum."""
    over = float(np.max(rast[..., 0] + rast[..., 1])) - 1
    found = Verdict()
    found.require(over <= 2 * ROUNDING, f"u + v passes 1 by {over:.2g}")
    found.excuse(bench, SUM_ABOVE_1)
    verdict.complaints += found.complaints
    verdict.known += found.known


def _last_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".strip().splitlines()[-1]


CHECKS = (
    Check("seeds-triangle", seeds_triangle),
    Check("seeds-triangle-gl", seeds_triangle_gl, optional=True),
    Check("rasterize", rasterize),
    Check("clipping", clipping),
    Check("shared-edges", shared_edges),
    Check("odd-sizes", odd_sizes),
    Check("one-pixel", one_pixel),
    Check("range-mode", range_mode),
    Check("large-batch", large_batch),
    Check("wider-than-2048", wider_than_2048),
    Check("higher-than-2048", higher_than_2048),
    Check("depth-peeling", depth_peeling),
)
