"""Checks of the reference itself against closed-form results.

They need no GPU. If one of them fails, the results of the other checks mean nothing.
"""

from __future__ import annotations

import numpy as np

from . import reference, scenes
from .bench import Bench, Check, Outcome
from .comparison import Findings
from .reference import Lookup
from .reference.arrays import Array

# Tolerance: the reference computes in float64.
EXACT = 1e-9


def areas(bench: Bench) -> Outcome:
    """Check which pixels a right triangle aligned with the pixel grid covers, and the barycentrics at their centers."""
    findings, size = Findings(), 64
    pos, tri = scenes.right_triangle()
    rast, rast_db = reference.rasterize(pos, tri, (size, size))
    x, y = _pixel_centers(size)
    drawn: Array = rast[0, ..., 3] > 0
    inside: Array = (x > 0) & (y > 0) & (x + y < 1)
    findings.require(bool(np.all(drawn[inside])), "a pixel inside the triangle is not drawn")
    findings.require(not np.any(drawn & ~(inside | (x + y == 1))), "a pixel outside the triangle is drawn")
    expected = np.stack([1 - x - y, x], axis=-1)
    findings.require_close("u, v", rast[0, ..., :2], expected, EXACT, drawn[..., None])
    derivatives = np.broadcast_to(np.array([-1, -1, 1, 0]) * 2 / size, rast_db[0].shape)
    findings.require_close("derivatives", rast_db[0], derivatives, EXACT, drawn[..., None])
    return findings.outcome()


def linear(bench: Bench) -> Outcome:
    """Check that an attribute that is linear over the view, and its derivatives, are reproduced at every pixel."""
    findings, size = Findings(), 32
    pos, tri = scenes.fan()
    attr = pos[..., :2] @ np.array([[2.0, 1.0], [-3.0, 0.5]]) + 0.25
    rast, rast_db = reference.rasterize(pos, tri, (size, size))
    values, attr_da = reference.interpolate(attr, rast, tri, rast_db, "all")
    x, y = _pixel_centers(size)
    expected = np.stack([2 * x - 3 * y, x + 0.5 * y], axis=-1) + 0.25
    findings.require_close("attribute", values[0], expected, EXACT)
    derivatives = np.broadcast_to(np.array([2, -3, 1, 0.5]) * 2 / size, attr_da[0].shape)
    findings.require_close("derivatives", attr_da[0], derivatives, EXACT)
    return findings.outcome()


def ramp(bench: Bench) -> Outcome:
    """Check that a lookup in a linear ramp texture returns the coordinate, and that mip levels keep the mean."""
    findings, size = Findings(), 16
    texel = (np.arange(size) + 0.5) / size
    tex = np.broadcast_to(texel[None, None, :, None], (1, size, size, 1))
    uv = np.random.default_rng(1).uniform(0.5 / size, 1 - 0.5 / size, (1, 8, 8, 2))
    actual = reference.texture(tex, Lookup(uv, boundary_mode="clamp"))
    findings.require_close("ramp", actual, uv[..., :1], EXACT)
    means = np.array([level.mean() for level in reference.construct_mip(tex)])
    findings.require_close("mean of levels", means, np.full(len(means), 0.5), EXACT)
    return findings.outcome()


def _pixel_centers(size: int) -> tuple[Array, Array]:
    """Return x and y of the pixel centers of a square image, each [size, size], in [-1, 1]."""
    row, column = np.mgrid[0:size, 0:size]
    return (2 * column + 1) / size - 1, (2 * row + 1) / size - 1


CHECKS = (
    Check("reference-areas", areas, needs_gpu=False),
    Check("reference-linear", linear, needs_gpu=False),
    Check("reference-ramp", ramp, needs_gpu=False),
)
