"""Gradients, against the reference's analytic ones and against finite differences of its and the device's values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import lookups, reference, scenes
from .bench import Bench, Check, Outcome
from .checks_render_sampling import silhouettes
from .judge import OF_GRADIENT, Draw, Verdict, array, doubtful, tensor
from .reference import BOUNDARY_MODES, FILTER_MODES, Lookup, edges
from .reference.arrays import Array
from .scenes import exact

# Channels and pixels of the cases where thousands of threads add to the same few numbers.
MANY_CHANNELS = 64
LARGE = (128, 128)
# Steps of finite differences: of the reference, which has float64, and of a device, which has not.
STEP, STEP_ON_DEVICE = 1e-7, 2.0**-6

Wanted = dict[str, "Array | None"]


@dataclass(frozen=True)
class Case:
    """A call to differentiate: by name its inputs, on the device, by the reference, and the reference's gradients.

    ``gradients`` takes the outputs' cotangents; None is for an input that has no gradient. ``mask`` <N,H,W>: where
    the loss looks.
    """

    inputs: dict[str, Array]
    on_device: Callable[..., list[Any]]
    values: Callable[..., list[Array]]
    gradients: Callable[..., Wanted]
    mask: Any = True


def judge(verdict: Verdict, bench: Bench, case: Case, seed: int) -> None:
    """Hold the device's gradients of a case, for random cotangents, against the reference and finite differences."""
    rng = np.random.default_rng(seed)
    leaves = {name: tensor(bench, values, grad=True) for name, values in case.inputs.items()}
    outputs = case.on_device(**leaves)
    mask = np.asarray(case.mask)[..., None] if np.ndim(case.mask) else 1
    cotangents = [exact(rng.normal(0, 1, tuple(output.shape)) * mask) for output in outputs]
    by_outputs = [tensor(bench, cotangent) for cotangent in cotangents]
    found = bench.torch.autograd.grad(outputs, list(leaves.values()), by_outputs, allow_unused=True)
    wanted = case.gradients(*cotangents)
    for name, got in zip(leaves, found, strict=True):
        want = wanted[name]
        if want is None:
            verdict.require(got is None or not array(got).any(), f"by {name}: a gradient where there is none")
        else:
            verdict.gradient(f"by {name}", got, want)
            if got is not None:
                _differences(verdict, case, name, array(got), cotangents)


def _differences(verdict: Verdict, case: Case, name: str, gradient: Array, cotangents: list[Array]) -> None:
    """Hold a gradient, along a random direction, against a finite difference of the reference's values."""
    direction = np.random.default_rng(len(name)).normal(0, 1, gradient.shape) * (gradient != 0)
    losses = []
    for sign in (1, -1):
        moved = {**case.inputs, name: case.inputs[name] + sign * STEP * direction}
        pairs = zip(cotangents, case.values(**moved), strict=True)
        losses.append(sum(float(np.sum(cotangent * values)) for cotangent, values in pairs))
    along = float(np.sum(gradient * direction))
    allowed = OF_GRADIENT * float(np.sum(np.abs(gradient * direction))) + 1e-4
    difference = (losses[0] - losses[1]) / (2 * STEP)
    verdict.close(f"difference by {name}", np.array([along]), np.array([difference]), allowed)


def rasterize(bench: Bench) -> Outcome:
    """By positions, of images, of ranges, with and without the derivatives' own."""
    verdict = Verdict()
    first, tri, _ = scenes.cube()
    second, _, _ = scenes.cube(turn=-0.35, tilt=0.8)
    both = np.concatenate([first, second])
    judge(verdict, bench, positions(bench, Draw(both, tri, (48, 64))), 21)
    judge(verdict, bench, positions(bench, Draw(both, tri, (48, 64)), grad_db=False), 22)
    judge(verdict, bench, positions(bench, Draw(first[0], tri, (48, 64), np.array([[0, 6], [3, 9]]))), 23)
    return verdict.outcome()


def positions(bench: Bench, draw: Draw, *, grad_db: bool = True) -> Case:
    """rasterize() by pos; the loss looks at pixels whose triangle is beyond doubt."""
    ids = reference.float_to_id(array(draw.on(bench)[1])[..., 3])

    def on_device(pos: Any) -> list[Any]:
        ranges = None if draw.ranges is None else bench.torch.tensor(draw.ranges, dtype=bench.torch.int32)
        tri = tensor(bench, draw.tri, "int32")
        return list(bench.dr.rasterize(bench.context(), pos, tri, draw.resolution, ranges=ranges, grad_db=grad_db))

    def values(pos: Array) -> list[Array]:
        rast, slopes = reference.shade(pos, draw.tri, ids, draw.ranges)
        # Depth has no gradient, and without grad_db the derivatives have none.
        still = np.zeros_like(slopes) if not grad_db else slopes
        return [rast * [1, 1, 0, 0], still]

    def gradients(by_rast: Array, by_slopes: Array) -> Wanted:
        by_slopes = by_slopes if grad_db else np.zeros_like(by_slopes)
        return {"pos": reference.raster.gradient(draw.pos, draw.tri, ids, by_rast, by_slopes)}

    return Case({"pos": draw.pos}, on_device, values, gradients, ~doubtful(draw) & (ids > 0))


def interpolate(bench: Bench) -> Outcome:
    """By attributes of every shape, by barycentrics and by their derivatives."""
    verdict, rng = Verdict(), np.random.default_rng(24)
    pos, tri = scenes.tumble(11, 16, 2)
    draw = Draw(pos, tri, (48, 64))
    for shape in ((48, 3), (1, 48, 5), (2, 48, 4)):
        for chosen in ("all", [2, 0]):
            judge(verdict, bench, attributes(bench, draw, exact(rng.uniform(-1, 1, shape)), chosen), 25)
    return verdict.outcome()


def attributes(bench: Bench, draw: Draw, attr: Array, chosen: Any) -> Case:
    """interpolate() by attr, rast and rast_db."""
    rast, slopes = (exact(part) for part in reference.rasterize(draw.pos, draw.tri, draw.resolution))

    def on_device(attr: Any, rast: Any, rast_db: Any) -> list[Any]:
        tri = tensor(bench, draw.tri, "int32")
        return list(bench.dr.interpolate(attr, rast, tri, rast_db=rast_db, diff_attrs=chosen))

    def values(attr: Array, rast: Array, rast_db: Array) -> list[Array]:
        return list(reference.interpolate(attr, rast, draw.tri, rast_db, chosen))

    def gradients(by_values: Array, by_pairs: Array) -> Wanted:
        by = reference.attributes.gradients(
            attr, rast, draw.tri, by_values, slopes=slopes, chosen=chosen, d_pairs=by_pairs
        )
        return {"attr": by[0], "rast": by[1], "rast_db": by[2]}

    return Case({"attr": attr, "rast": rast, "rast_db": slopes}, on_device, values, gradients)


def texture(bench: Bench) -> Outcome:
    """By texels, places, footprints and bias, for each filter and boundary; by levels of one's own."""
    verdict = Verdict()
    for boundary in BOUNDARY_MODES:
        asked = lookups.samples(12, boundary)
        for mode in FILTER_MODES:
            tex = lookups.texels(26, boundary, 3, 2)
            judge(verdict, bench, texels(bench, tex, asked.asked(mode, boundary, bias="mipmap" in mode)), 27)
    tex = lookups.texels(28, "wrap", 2)
    rng = np.random.default_rng(28)
    own = [exact(rng.random(level.shape)) for level in reference.construct_mip(tex)[1:]]
    lookup = lookups.samples(12, "wrap").asked("linear-mipmap-linear", "wrap")
    judge(verdict, bench, texels(bench, tex, lookup, own), 29)
    return verdict.outcome()


def texels(bench: Bench, tex: Array, lookup: Lookup, levels: list[Array] | None = None) -> Case:
    """texture() by all its inputs."""
    inputs = {"tex": tex, "uv": lookup.uv, "uv_da": lookup.uv_da, "mip_level_bias": lookup.bias}
    own = {f"level_{number}": level for number, level in enumerate(levels or [])}
    modes: dict[str, Any] = {"filter_mode": lookup.filter_mode, "boundary_mode": lookup.boundary_mode}

    def on_device(tex: Any, uv: Any, **rest: Any) -> list[Any]:
        mip = [rest.pop(name) for name in own]
        return [bench.dr.texture(tex, uv, **rest, **modes, **({"mip": mip} if mip else {}))]

    def values(tex: Array, uv: Array, **rest: Array) -> list[Array]:
        mip = [rest.pop(name) for name in own]
        moved = Lookup(uv, rest.get("uv_da"), rest.get("mip_level_bias"), **modes)
        return [reference.texture(tex, moved, mip or None)]

    def gradients(by_out: Array) -> Wanted:
        by = reference.sampling.gradients(tex, lookup, by_out, levels)
        by_levels = dict(zip(own, by.levels[1:], strict=False))
        return {"tex": by.tex, "uv": by.uv, "uv_da": by.uv_da, "mip_level_bias": by.bias, **by_levels}

    given = {name: values for name, values in inputs.items() if values is not None}
    return Case({**given, **own}, on_device, values, gradients)


def antialias(bench: Bench) -> Outcome:
    """By colours, and by the positions of silhouettes."""
    verdict = Verdict()
    for pos, tri, channels in silhouettes():
        judge(verdict, bench, colours(bench, Draw(pos, tri, (64, 64)), channels), 30)
        judge(verdict, bench, colours(bench, Draw(pos, tri, (64, 64)), channels, 3.0), 31)
    return verdict.outcome()


def colours(bench: Bench, draw: Draw, channels: int, boost: float = 1.0) -> Case:
    """antialias() by color and pos; pos's gradient is multiplied by the boost."""
    rast = exact(reference.rasterize(draw.pos, draw.tri, draw.resolution)[0])
    color = exact(np.random.default_rng(32).random((*rast.shape[:3], channels)))

    def on_device(color: Any, pos: Any) -> list[Any]:
        drawn, tri = tensor(bench, rast), tensor(bench, draw.tri, "int32")
        return [bench.dr.antialias(color, drawn, pos, tri, pos_gradient_boost=boost)]

    def values(color: Array, pos: Array) -> list[Array]:
        # A boosted gradient is that of a position that moves faster.
        return [edges.antialias(color, rast, draw.pos + boost * (pos - draw.pos), draw.tri)]

    def gradients(by_out: Array) -> Wanted:
        by_color, by_pos = edges.gradients(color, rast, draw.pos, draw.tri, by_out)
        return {"color": by_color, "pos": by_pos * boost}

    return Case({"color": color, "pos": draw.pos}, on_device, values, gradients)


def large_triangles(bench: Bench) -> Outcome:
    """One triangle over thousands of pixels, or one texel under them, with many channels: all add to a few numbers."""
    verdict, rng = Verdict(), np.random.default_rng(33)
    whole, large = Draw(*scenes.whole_view(), LARGE), Draw(*scenes.large_triangle(), LARGE)
    judge(verdict, bench, positions(bench, whole), 34)
    judge(verdict, bench, attributes(bench, whole, exact(rng.uniform(-1, 1, (3, MANY_CHANNELS))), "all"), 35)
    judge(verdict, bench, colours(bench, large, MANY_CHANNELS), 36)
    row, column = np.mgrid[0 : LARGE[0], 0 : LARGE[1]]
    lookup = Lookup((np.stack([column, row], axis=-1)[None] + 0.25) / LARGE[0], None, None, "linear")
    judge(verdict, bench, texels(bench, exact(rng.random((1, 4, 4, MANY_CHANNELS))), lookup), 37)
    return verdict.outcome()


def on_the_device(bench: Bench) -> Outcome:
    """What a large triangle shows in many channels, by its vertices: the gradient against the device's own values."""
    verdict, draw = Verdict(), Draw(*scenes.whole_view(), LARGE)
    rng = np.random.default_rng(38)
    attr, weight = (
        exact(rng.uniform(0, 1, (3, MANY_CHANNELS))),
        exact(rng.uniform(0.5, 1.5, (1, *LARGE, MANY_CHANNELS))),
    )
    direction = rng.normal(0, 1, draw.pos.shape) * [1, 1, 0, 1]

    def seen(pos: Any) -> Any:
        tri = tensor(bench, draw.tri, "int32")
        rast, _ = bench.dr.rasterize(bench.context(), pos, tri, draw.resolution)
        return bench.dr.interpolate(tensor(bench, attr), rast, tri)[0]

    def difference(step: float) -> float:
        ends = [array(seen(tensor(bench, draw.pos + sign * step * direction))) for sign in (1, -1)]
        return float(np.sum(weight * (ends[0] - ends[1]))) / (2 * step)

    pos = tensor(bench, draw.pos, grad=True)
    (found,) = bench.torch.autograd.grad([seen(pos)], [pos], [tensor(bench, weight)])
    # Of two steps, so that what grows with their square is gone.
    wanted = (4 * difference(STEP_ON_DEVICE / 2) - difference(STEP_ON_DEVICE)) / 3
    along = float(np.sum(array(found) * direction))
    allowed = OF_GRADIENT * float(np.sum(np.abs(array(found) * direction)))
    verdict.close("difference on the device", np.array([along]), np.array([wanted]), allowed)
    verdict.figures.update({"gradient": along, "finite difference": wanted})
    return verdict.outcome()


CHECKS = (
    Check("gradients-rasterize", rasterize),
    Check("gradients-interpolate", interpolate),
    Check("gradients-texture", texture),
    Check("gradients-antialias", antialias),
    Check("gradients-large-triangles", large_triangles),
    Check("gradients-on-the-device", on_the_device),
)
