"""Checks of rasterize() and DepthPeeler: ids, barycentrics, depth and derivatives, at many image sizes."""

from __future__ import annotations

import ctypes.util
from typing import Any

import numpy as np

from . import scenes
from .bench import Bench, Check, Outcome, describe_error
from .comparison import UNIT_ROUNDOFF, Draw, Findings, array, compare_raster, tensor
from .faults import AT_MOST_2048, MULTIPLES_OF_8, STRIDE_ABOVE_2048, SUM_ABOVE_1
from .reference.arrays import Array


def seeds_triangle(bench: Bench) -> Outcome:
    """Draw one right triangle whose number of pixels is known."""
    return _seeds_triangle(bench, bench.context())


def seeds_triangle_gl(bench: Bench) -> Outcome:
    """Draw the same triangle with the OpenGL rasterizer, if the release has it and the machine has EGL."""
    if not bench.release.startswith("0.3."):
        return Outcome("untested", f"release {bench.release} has no OpenGL rasterizer")
    if not ctypes.util.find_library("EGL"):
        return Outcome("untested", "this machine has no EGL library")
    return _seeds_triangle(bench, bench.dr.RasterizeGLContext(device=bench.device))


def _seeds_triangle(bench: Bench, context: Any) -> Outcome:
    findings, size = Findings(), 256
    rast = _draw(findings, bench, Draw(*scenes.right_triangle(), (size, size)), context)
    drawn, half = int((rast[..., 3] > 0).sum()), size // 2
    # Half of a square of pixels, with or without the pixels whose centers are on the diagonal.
    findings.require(drawn in (half * (half - 1) // 2, half * (half + 1) // 2), f"{drawn} pixels drawn")
    findings.detail = f"{drawn} pixels drawn"
    return findings.outcome()


def rasterize(bench: Bench) -> Outcome:
    """Draw overlapping triangles of both windings, in perspective, in two images."""
    findings = Findings()
    rast = _draw(findings, bench, Draw(*scenes.random_triangles(1, 24, 2), (64, 96)))
    _require_sum_at_most_1(findings, bench, rast)
    return findings.outcome()


def clipping(bench: Bench) -> Outcome:
    """Draw triangles that reach behind the camera, beyond the near and far planes, and far outside the view."""
    findings = Findings()
    _draw(findings, bench, Draw(*scenes.triangles_to_clip(2, 24), (64, 96)))
    return findings.outcome()


def shared_edges(bench: Bench) -> Outcome:
    """Draw four triangles that cover the whole view, and check that there are no gaps between them."""
    findings = Findings()
    rast = _draw(findings, bench, Draw(*scenes.fan(), (64, 64)))
    gaps = int((rast[..., 3] == 0).sum())
    findings.require(gaps == 0, f"{gaps} pixels are not drawn, although the triangles cover the whole view")
    return findings.outcome()


def odd_sizes(bench: Bench) -> Outcome:
    """Draw at widths and heights that are not multiples of 8."""
    return _draw_sizes(bench, [(13, 37), (37, 13), (1, 63), (61, 1), (9, 130), (127, 33)])


def one_pixel(bench: Bench) -> Outcome:
    """Draw images of one pixel, inside and outside a triangle."""
    findings = Findings()
    try:
        inside = _draw(findings, bench, Draw(*scenes.large_triangle(), (1, 1)))
        outside = _draw(findings, bench, Draw(*scenes.small_triangles(7, 1), (1, 1)))
        findings.require(inside[0, 0, 0, 3] > 0, "a covered pixel is not drawn")
        findings.require(outside[0, 0, 0, 3] == 0, "a pixel that no triangle covers is drawn")
    except Exception as error:
        findings.problems.append(describe_error(error))
    findings.accept_known_fault(bench, MULTIPLES_OF_8)
    return findings.outcome()


def range_mode(bench: Bench) -> Outcome:
    """Draw overlapping ranges of one mesh into several images."""
    findings = Findings()
    pos, tri = scenes.random_triangles(4, 20)
    _draw(findings, bench, Draw(pos[0], tri, (48, 64), np.array([[0, 5], [5, 15], [3, 9], [19, 1]])))
    return findings.outcome()


def large_batch(bench: Bench) -> Outcome:
    """Draw 520 different images in one call."""
    findings = Findings()
    _draw(findings, bench, Draw(*scenes.random_triangles(5, 2, 520), (16, 16)))
    return findings.outcome()


def wider_than_2048(bench: Bench) -> Outcome:
    """Draw an image that is wider than 2048 pixels."""
    return _draw_sizes(bench, [(24, 2600)], AT_MOST_2048)


def higher_than_2048(bench: Bench) -> Outcome:
    """Draw images that are higher than 2048 pixels, for which some releases draw in tiles."""
    findings = Findings()
    try:
        _draw(findings, bench, Draw(*scenes.random_triangles(3, 8), (2600, 24)))
        _draw(findings, bench, Draw(*scenes.small_triangles(6, 100), (2104, 2088)))
    except Exception as error:
        findings.problems.append(describe_error(error))
        findings.accept_known_fault(bench, AT_MOST_2048)
        return findings.outcome()
    findings.accept_known_fault(bench, STRIDE_ABOVE_2048)
    return findings.outcome()


def depth_peeling(bench: Bench) -> Outcome:
    """Peel layers of two meshes; the first mesh has fewer layers than are requested."""
    findings = Findings()
    for mesh, layers in ((scenes.stacked_squares(5), 6), (scenes.random_triangles(8, 12), 3)):
        draw = Draw(*mesh, (48, 64))
        pos, tri = tensor(bench, draw.pos), tensor(bench, draw.tri, "int32")
        with bench.dr.DepthPeeler(bench.context(), pos, tri, draw.resolution) as peeler:
            for layer in range(layers):
                rast, rast_db = peeler.rasterize_next_layer()
                compare_raster(findings, draw, (array(rast), array(rast_db)), layer)
    return findings.outcome()


def _draw_sizes(bench: Bench, resolutions: list[tuple[int, int]], fault: str = MULTIPLES_OF_8) -> Outcome:
    """Draw at each resolution; problems are known if the release has the fault."""
    findings = Findings()
    for resolution in resolutions:
        try:
            _draw(findings, bench, Draw(*scenes.random_triangles(3, 8), resolution))
        except Exception as error:
            findings.problems.append(f"{resolution[0]}x{resolution[1]}: {describe_error(error)}")
    findings.accept_known_fault(bench, fault)
    return findings.outcome()


def _draw(findings: Findings, bench: Bench, draw: Draw, context: Any = None) -> Array:
    """Draw, compare with the reference, and return the device's rast."""
    _, rast, rast_db = draw.rasterize(bench, context=context)
    compare_raster(findings, draw, (array(rast), array(rast_db)))
    return array(rast)


def _require_sum_at_most_1(findings: Findings, bench: Bench, rast: Array) -> None:
    """Require u + v <= 1, except for the rounding error of the sum."""
    excess = float(np.max(rast[..., 0] + rast[..., 1])) - 1
    sum_findings = Findings()
    sum_findings.require(excess <= 2 * UNIT_ROUNDOFF, f"u + v exceeds 1 by {excess:.2g}")
    sum_findings.accept_known_fault(bench, SUM_ABOVE_1)
    findings.problems += sum_findings.problems
    findings.known_problems += sum_findings.known_problems


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
