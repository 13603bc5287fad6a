"""Checks of gradients: against the reference's analytic gradients and against finite differences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import lookups, reference, scenes
from .bench import Bench, Check, Outcome
from .comparison import GRADIENT_TOLERANCE, Draw, Findings, ambiguous_pixels, array, tensor
from .reference import BOUNDARY_MODES, FILTER_MODES, Lookup, edges
from .reference.arrays import Array
from .scenes import exact

# The number of channels and the image size of the cases where thousands of threads add to the same few values.
MANY_CHANNELS = 64
LARGE = (128, 128)
# Steps of finite differences: for the reference, which computes in float64, and for the device, in float32.
STEP, DEVICE_STEP = 1e-7, 2.0**-6

# By the name of the input; None if the input has no gradient.
Gradients = dict[str, "Array | None"]


@dataclass(frozen=True)
class Case:
    """A differentiable call whose gradients are compared.

    Attributes:
        inputs: The differentiable inputs, by name.
        on_device: Makes the call on the device; takes the inputs as tensors, and returns the outputs.
        values: Makes the call in the reference; takes the inputs as arrays, and returns the outputs.
        gradients: Returns the reference's gradients; takes the gradients of the loss with respect to the outputs.
        mask: The pixels [N, H, W] that the loss depends on; True for all.
    """

    inputs: dict[str, Array]
    on_device: Callable[..., list[Any]]
    values: Callable[..., list[Array]]
    gradients: Callable[..., Gradients]
    mask: Any = True


def compare_gradients(findings: Findings, bench: Bench, case: Case, seed: int) -> None:
    """Compare the device's gradients of a random linear loss with the reference and with finite differences."""
    rng = np.random.default_rng(seed)
    leaves = {name: tensor(bench, values, grad=True) for name, values in case.inputs.items()}
    outputs = case.on_device(**leaves)
    mask = np.asarray(case.mask)[..., None] if np.ndim(case.mask) else 1
    grad_outputs = [exact(rng.normal(0, 1, tuple(output.shape)) * mask) for output in outputs]
    grad_tensors = [tensor(bench, grad_output) for grad_output in grad_outputs]
    gradients = bench.torch.autograd.grad(outputs, list(leaves.values()), grad_tensors, allow_unused=True)
    expected_gradients = case.gradients(*grad_outputs)
    for name, actual in zip(leaves, gradients, strict=True):
        expected = expected_gradients[name]
        if expected is None:
            problem = f"by {name}: a gradient that is not 0, although this input has no gradient"
            findings.require(actual is None or not array(actual).any(), problem)
        else:
            findings.require_gradient(f"by {name}", actual, expected)
            if actual is not None:
                _compare_finite_difference(findings, case, name, array(actual), grad_outputs)


def _compare_finite_difference(
    findings: Findings, case: Case, name: str, gradient: Array, grad_outputs: list[Array]
) -> None:
    """Compare a gradient, along a random direction, with a finite difference of the reference's values."""
    direction = np.random.default_rng(len(name)).normal(0, 1, gradient.shape) * (gradient != 0)
    losses = []
    for sign in (1, -1):
        inputs = {**case.inputs, name: case.inputs[name] + sign * STEP * direction}
        pairs = zip(grad_outputs, case.values(**inputs), strict=True)
        losses.append(sum(float(np.sum(grad_output * values)) for grad_output, values in pairs))
    directional = float(np.sum(gradient * direction))
    tolerance = GRADIENT_TOLERANCE * float(np.sum(np.abs(gradient * direction))) + 1e-4
    difference = (losses[0] - losses[1]) / (2 * STEP)
    findings.require_close(f"difference by {name}", np.array([directional]), np.array([difference]), tolerance)


def rasterize(bench: Bench) -> Outcome:
    """Check rasterize() with a batch of meshes and with ranges, with and without the gradients of rast_db."""
    findings = Findings()
    first, tri = scenes.cube()
    second, _ = scenes.cube(yaw=-0.35, pitch=0.8)
    both = np.concatenate([first, second])
    compare_gradients(findings, bench, rasterize_case(bench, Draw(both, tri, (48, 64))), 21)
    compare_gradients(findings, bench, rasterize_case(bench, Draw(both, tri, (48, 64)), grad_db=False), 22)
    compare_gradients(
        findings, bench, rasterize_case(bench, Draw(first[0], tri, (48, 64), np.array([[0, 6], [3, 9]]))), 23
    )
    return findings.outcome()


def rasterize_case(bench: Bench, draw: Draw, *, grad_db: bool = True) -> Case:
    """Return a case for rasterize() and its input pos; the loss ignores ambiguous pixels."""
    ids = reference.float_to_id(array(draw.rasterize(bench)[1])[..., 3])

    def on_device(pos: Any) -> list[Any]:
        ranges = None if draw.ranges is None else bench.torch.tensor(draw.ranges, dtype=bench.torch.int32)
        tri = tensor(bench, draw.tri, "int32")
        return list(bench.dr.rasterize(bench.context(), pos, tri, draw.resolution, ranges=ranges, grad_db=grad_db))

    def values(pos: Array) -> list[Array]:
        rast, rast_db = reference.rasterize_ids(pos, draw.tri, ids, draw.ranges)
        # z/w and the id have no gradient, and rast_db has one only with grad_db.
        return [rast * [1, 1, 0, 0], rast_db if grad_db else np.zeros_like(rast_db)]

    def gradients(grad_rast: Array, grad_rast_db: Array) -> Gradients:
        grad_rast_db = grad_rast_db if grad_db else np.zeros_like(grad_rast_db)
        return {"pos": reference.raster.gradient(draw.pos, draw.tri, ids, grad_rast, grad_rast_db)}

    return Case({"pos": draw.pos}, on_device, values, gradients, ~ambiguous_pixels(draw) & (ids > 0))


def interpolate(bench: Bench) -> Outcome:
    """Check interpolate() with attributes of every shape, and its inputs attr, rast and rast_db."""
    findings, rng = Findings(), np.random.default_rng(24)
    pos, tri = scenes.random_triangles(11, 16, 2)
    draw = Draw(pos, tri, (48, 64))
    for shape in ((48, 3), (1, 48, 5), (2, 48, 4)):
        for diff_attrs in ("all", [2, 0]):
            compare_gradients(
                findings, bench, interpolate_case(bench, draw, exact(rng.uniform(-1, 1, shape)), diff_attrs), 25
            )
    return findings.outcome()


def interpolate_case(bench: Bench, draw: Draw, attr: Array, diff_attrs: Any) -> Case:
    """Return a case for interpolate() and its inputs attr, rast and rast_db."""
    rast, rast_db = (exact(part) for part in reference.rasterize(draw.pos, draw.tri, draw.resolution))

    def on_device(attr: Any, rast: Any, rast_db: Any) -> list[Any]:
        tri = tensor(bench, draw.tri, "int32")
        return list(bench.dr.interpolate(attr, rast, tri, rast_db=rast_db, diff_attrs=diff_attrs))

    def values(attr: Array, rast: Array, rast_db: Array) -> list[Array]:
        return list(reference.interpolate(attr, rast, draw.tri, rast_db, diff_attrs))

    def gradients(grad_out: Array, grad_attr_da: Array) -> Gradients:
        grad_attr, grad_rast, grad_rast_db = reference.attributes.gradients(
            attr, rast, draw.tri, grad_out, rast_db=rast_db, diff_attrs=diff_attrs, grad_attr_da=grad_attr_da
        )
        return {"attr": grad_attr, "rast": grad_rast, "rast_db": grad_rast_db}

    return Case({"attr": attr, "rast": rast, "rast_db": rast_db}, on_device, values, gradients)


def texture(bench: Bench) -> Outcome:
    """Check texture() and its inputs tex, uv, uv_da and mip_level_bias in every mode, and its input mip in one mode."""
    findings = Findings()
    for boundary in BOUNDARY_MODES:
        samples = lookups.samples(12, boundary)
        for mode in FILTER_MODES:
            tex = lookups.texels(26, boundary, 3, 2)
            lookup = samples.lookup(mode, boundary, bias="mipmap" in mode)
            compare_gradients(findings, bench, texture_case(bench, tex, lookup), 27)
    tex = lookups.texels(28, "wrap", 2)
    rng = np.random.default_rng(28)
    mip = [exact(rng.random(level.shape)) for level in reference.construct_mip(tex)[1:]]
    lookup = lookups.samples(12, "wrap").lookup("linear-mipmap-linear", "wrap")
    compare_gradients(findings, bench, texture_case(bench, tex, lookup, mip), 29)
    return findings.outcome()


def texture_case(bench: Bench, tex: Array, lookup: Lookup, mip: list[Array] | None = None) -> Case:
    """Return a case for texture() and all its differentiable inputs."""
    optional = {"uv_da": lookup.uv_da, "mip_level_bias": lookup.bias}
    used = {name: values for name, values in optional.items() if values is not None}
    levels = {f"level_{number}": level for number, level in enumerate(mip or [])}
    modes: dict[str, Any] = {"filter_mode": lookup.filter_mode, "boundary_mode": lookup.boundary_mode}

    def on_device(tex: Any, uv: Any, **rest: Any) -> list[Any]:
        given = [rest.pop(name) for name in levels]
        return [bench.dr.texture(tex, uv, **rest, **modes, **({"mip": given} if given else {}))]

    def values(tex: Array, uv: Array, **rest: Array) -> list[Array]:
        given = [rest.pop(name) for name in levels]
        moved = Lookup(uv, rest.get("uv_da"), rest.get("mip_level_bias"), **modes)
        return [reference.texture(tex, moved, given or None)]

    def gradients(grad_out: Array) -> Gradients:
        expected = reference.sampling.gradients(tex, lookup, grad_out, mip)
        by_level = dict(zip(levels, expected.levels[1:], strict=False))
        return {
            "tex": expected.tex,
            "uv": expected.uv,
            "uv_da": expected.uv_da,
            "mip_level_bias": expected.bias,
            **by_level,
        }

    return Case({"tex": tex, "uv": lookup.uv, **used, **levels}, on_device, values, gradients)


def antialias(bench: Bench) -> Outcome:
    """Check antialias() and its inputs color and pos, with and without a gradient boost."""
    findings = Findings()
    for pos, tri, channels in scenes.silhouette_meshes():
        compare_gradients(findings, bench, antialias_case(bench, Draw(pos, tri, (64, 64)), channels), 30)
        compare_gradients(findings, bench, antialias_case(bench, Draw(pos, tri, (64, 64)), channels, 3.0), 31)
    return findings.outcome()


def antialias_case(bench: Bench, draw: Draw, channels: int, boost: float = 1.0) -> Case:
    """Return a case for antialias() and its inputs color and pos; the gradient of pos is multiplied by ``boost``."""
    rast = exact(reference.rasterize(draw.pos, draw.tri, draw.resolution)[0])
    color = exact(np.random.default_rng(32).random((*rast.shape[:3], channels)))

    def on_device(color: Any, pos: Any) -> list[Any]:
        drawn, tri = tensor(bench, rast), tensor(bench, draw.tri, "int32")
        return [bench.dr.antialias(color, drawn, pos, tri, pos_gradient_boost=boost)]

    def values(color: Array, pos: Array) -> list[Array]:
        # The boosted gradient is that of a position that moves ``boost`` times as far.
        return [edges.antialias(color, rast, draw.pos + boost * (pos - draw.pos), draw.tri)]

    def gradients(grad_out: Array) -> Gradients:
        grad_color, grad_pos = edges.gradients(color, rast, draw.pos, draw.tri, grad_out)
        return {"color": grad_color, "pos": grad_pos * boost}

    return Case({"color": color, "pos": draw.pos}, on_device, values, gradients)


def large_triangles(bench: Bench) -> Outcome:
    """Check a triangle and texels that cover thousands of pixels, so that many threads add to the same values."""
    findings, rng = Findings(), np.random.default_rng(33)
    whole, large = Draw(*scenes.view_covering_triangle(), LARGE), Draw(*scenes.large_triangle(), LARGE)
    compare_gradients(findings, bench, rasterize_case(bench, whole), 34)
    compare_gradients(
        findings, bench, interpolate_case(bench, whole, exact(rng.uniform(-1, 1, (3, MANY_CHANNELS))), "all"), 35
    )
    compare_gradients(findings, bench, antialias_case(bench, large, MANY_CHANNELS), 36)
    row, column = np.mgrid[0 : LARGE[0], 0 : LARGE[1]]
    lookup = Lookup((np.stack([column, row], axis=-1)[None] + 0.25) / LARGE[0], None, None, "linear")
    compare_gradients(findings, bench, texture_case(bench, exact(rng.random((1, 4, 4, MANY_CHANNELS))), lookup), 37)
    return findings.outcome()


def on_the_device(bench: Bench) -> Outcome:
    """Compare the gradient of a rendered triangle by pos with finite differences of the device's own images."""
    findings, draw = Findings(), Draw(*scenes.view_covering_triangle(), LARGE)
    rng = np.random.default_rng(38)
    attr = exact(rng.uniform(0, 1, (3, MANY_CHANNELS)))
    weight = exact(rng.uniform(0.5, 1.5, (1, *LARGE, MANY_CHANNELS)))
    direction = rng.normal(0, 1, draw.pos.shape) * [1, 1, 0, 1]

    def render(pos: Any) -> Any:
        tri = tensor(bench, draw.tri, "int32")
        rast, _ = bench.dr.rasterize(bench.context(), pos, tri, draw.resolution)
        return bench.dr.interpolate(tensor(bench, attr), rast, tri)[0]

    def central_difference(step: float) -> float:
        ends = [array(render(tensor(bench, draw.pos + sign * step * direction))) for sign in (1, -1)]
        return float(np.sum(weight * (ends[0] - ends[1]))) / (2 * step)

    pos = tensor(bench, draw.pos, grad=True)
    (gradient,) = bench.torch.autograd.grad([render(pos)], [pos], [tensor(bench, weight)])
    # Richardson extrapolation: two steps cancel the error that grows with the square of the step.
    expected = (4 * central_difference(DEVICE_STEP / 2) - central_difference(DEVICE_STEP)) / 3
    directional = float(np.sum(array(gradient) * direction))
    tolerance = GRADIENT_TOLERANCE * float(np.sum(np.abs(array(gradient) * direction)))
    findings.require_close("difference on the device", np.array([directional]), np.array([expected]), tolerance)
    findings.figures.update({"gradient": directional, "finite difference": expected})
    return findings.outcome()


CHECKS = (
    Check("gradients-rasterize", rasterize),
    Check("gradients-interpolate", interpolate),
    Check("gradients-texture", texture),
    Check("gradients-antialias", antialias),
    Check("gradients-large-triangles", large_triangles),
    Check("gradients-on-the-device", on_the_device),
)
