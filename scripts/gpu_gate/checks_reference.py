"""The reference itself, against closed forms: it needs no GPU, and without it no other check says anything."""

from __future__ import annotations

import numpy as np

from . import reference, scenes
from .bench import Bench, Check, Outcome
from .judge import Verdict
from .reference import Lookup
from .reference.arrays import Array

EXACT = 1e-9


def areas(bench: Bench) -> Outcome:
    """How many pixels a right triangle on the pixels' grid covers, and the barycentrics at their centres."""
    verdict, size = Verdict(), 64
    pos, tri = scenes.seeds_triangle()
    rast, slopes = reference.rasterize(pos, tri, (size, size))
    x, y = _centres(size)
    drawn: Array = rast[0, ..., 3] > 0
    inside: Array = (x > 0) & (y > 0) & (x + y < 1)
    verdict.require(bool(np.all(drawn[inside])), "a pixel inside is not drawn")
    verdict.require(not np.any(drawn & ~(inside | (x + y == 1))), "a pixel outside is drawn")
    wanted = np.stack([1 - x - y, x], axis=-1)
    verdict.close("u, v", rast[0, ..., :2], wanted, EXACT, drawn[..., None])
    slope = np.array([-1, -1, 1, 0]) * 2 / size
    verdict.close("derivatives", slopes[0], np.broadcast_to(slope, slopes[0].shape), EXACT, drawn[..., None])
    return verdict.outcome()


def linear(bench: Bench) -> Outcome:
    """A linear attribute over the whole view is the same linear function at every pixel, and so are its derivatives."""
    verdict, size = Verdict(), 32
    pos, tri = scenes.fan()
    attr = pos[..., :2] @ np.array([[2.0, 1.0], [-3.0, 0.5]]) + 0.25
    rast, slopes = reference.rasterize(pos, tri, (size, size))
    values, pairs = reference.interpolate(attr, rast, tri, slopes, "all")
    x, y = _centres(size)
    wanted = np.stack([2 * x - 3 * y, x + 0.5 * y], axis=-1) + 0.25
    verdict.close("attribute", values[0], wanted, EXACT)
    rates = np.array([2, -3, 1, 0.5]) * 2 / size
    verdict.close("derivatives", pairs[0], np.broadcast_to(rates, pairs[0].shape), EXACT)
    return verdict.outcome()


def ramp(bench: Bench) -> Outcome:
    """A texture that grows evenly is looked up as the same ramp, and its levels keep its mean."""
    verdict, size = Verdict(), 16
    texel = (np.arange(size) + 0.5) / size
    tex = np.broadcast_to(texel[None, None, :, None], (1, size, size, 1))
    place = np.random.default_rng(1).uniform(0.5 / size, 1 - 0.5 / size, (1, 8, 8, 2))
    found = reference.texture(tex, Lookup(place, boundary_mode="clamp"))
    verdict.close("ramp", found, place[..., :1], EXACT)
    means = np.array([level.mean() for level in reference.construct_mip(tex)])
    verdict.close("mean of levels", means, np.full(len(means), 0.5), EXACT)
    return verdict.outcome()


def _centres(size: int) -> tuple[Array, Array]:
    row, column = np.mgrid[0:size, 0:size]
    return (2 * column + 1) / size - 1, (2 * row + 1) / size - 1


CHECKS = (
    Check("reference-areas", areas, needs_gpu=False),
    Check("reference-linear", linear, needs_gpu=False),
    Check("reference-ramp", ramp, needs_gpu=False),
)
