"""What pixels get: interpolated attributes, filtered texels, smoothed silhouettes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from . import lookups, pictures, reference, scenes
from .bench import Bench, Check, Outcome
from .judge import ROUNDING, ROUNDINGS, Verdict, array, tensor
from .reference import BOUNDARY_MODES, FILTER_MODES, Lookup, edges
from .reference.arrays import Array
from .scenes import exact

# Of values in [0,1]: a place is off by a rounding of up to 83 texels, a mip level by one of its logarithm.
OF_TEXELS = 5e-5
# Of colours in [0,1]: an edge's crossing is off by some roundings of up to 64 pixels.
OF_CROSSINGS = 1e-4


def interpolate(bench: Bench) -> Outcome:
    """Attributes of every shape, and their derivatives: of none, of all, of some in any order."""
    verdict, rng = Verdict(), np.random.default_rng(11)
    pos, tri = scenes.tumble(11, 16, 2)
    rast, slopes = (exact(part) for part in reference.rasterize(pos, tri, (48, 64)))
    vertices = pos.shape[1]
    for shape in ((vertices, 3), (1, vertices, 5), (2, vertices, 4), (vertices, 40)):
        attr = exact(rng.uniform(-1, 1, shape))
        for chosen in (None, "all", [2, 0]):
            given = [tensor(bench, attr), tensor(bench, rast), tensor(bench, tri, "int32")]
            values, pairs = bench.dr.interpolate(*given, rast_db=tensor(bench, slopes), diff_attrs=chosen)
            wanted, wanted_pairs = reference.interpolate(attr, rast, tri, slopes, chosen)
            verdict.close("attributes", array(values), wanted, ROUNDINGS * ROUNDING)
            if chosen is not None:
                count = wanted_pairs.shape[-1] // 2
                by_x, by_y = (
                    np.abs(slopes[..., 0]) + np.abs(slopes[..., 2]),
                    np.abs(slopes[..., 1]) + np.abs(slopes[..., 3]),
                )
                sizes = np.tile(np.stack([by_x, by_y], axis=-1), count)
                verdict.close("derivatives", array(pairs), wanted_pairs, ROUNDINGS * ROUNDING * 2 * sizes)
    verdict.images["attributes"] = pictures.shown(array(values)[0] / 2 + 0.5)
    return verdict.outcome()


def look_up(bench: Bench, tex: Any, lookup: Lookup, mip: Any = None) -> Any:
    """texture() on the device; tex is a tensor."""
    keywords: dict[str, Any] = {"filter_mode": lookup.filter_mode, "boundary_mode": lookup.boundary_mode}
    for name, values in (("uv_da", lookup.uv_da), ("mip_level_bias", lookup.bias)):
        if values is not None:
            keywords[name] = tensor(bench, values)
    if mip is not None:
        keywords["mip"] = mip
    if lookup.max_mip_level is not None:
        keywords["max_mip_level"] = lookup.max_mip_level
    return bench.dr.texture(tex, tensor(bench, lookup.uv), **keywords)


def texture(mode: str, boundary: str) -> Callable[[Bench], Outcome]:
    """The check of one filter with one boundary: textures of several channel counts, one and two in number."""

    def run(bench: Bench) -> Outcome:
        verdict, asked = Verdict(), lookups.samples(12, boundary)
        for channels, images in ((1, 1), (2, 2), (3, 1), (4, 2), (5, 1)):
            tex = lookups.texels(channels, boundary, channels, images)
            lookup = asked.asked(mode, boundary, bias="mipmap" in mode and channels == 4)
            out = array(look_up(bench, tensor(bench, tex), lookup))
            verdict.close("texels", out, reference.texture(tex, lookup), OF_TEXELS)
            verdict.images["texels"] = pictures.shown(out[0])
        return verdict.outcome()

    return run


def mip_maps(bench: Bench) -> Outcome:
    """Levels made beforehand, levels of one's own, the limit to levels, the bias alone, and "auto"."""
    verdict, asked = Verdict(), lookups.samples(13, "wrap")
    tex = lookups.texels(13, "wrap", 3)
    on_device = tensor(bench, tex)
    lookup = asked.asked("linear-mipmap-linear", "wrap")
    own = [
        exact(np.random.default_rng(k).random(level.shape)) for k, level in enumerate(reference.construct_mip(tex)[1:])
    ]
    made = bench.dr.texture_construct_mip(on_device)
    few = bench.dr.texture_construct_mip(on_device, max_mip_level=2)
    by_bias = Lookup(asked.uv, None, asked.bias * 2 + 2, "linear-mipmap-linear")
    cases: list[tuple[str, Lookup, Any, list[Array] | None]] = [
        ("made levels", lookup, made, None),
        ("two made levels", replace(lookup, max_mip_level=2), few, None),
        ("own levels", lookup, [tensor(bench, level) for level in own], own),
        ("limited levels", replace(lookup, max_mip_level=2), None, None),
        ("no levels", replace(lookup, max_mip_level=0), None, None),
        ("bias alone", by_bias, None, None),
        ("auto with derivatives", replace(lookup, filter_mode="auto"), None, None),
        ("auto without", Lookup(asked.uv), None, None),
    ]
    for name, case, given, levels in cases:
        out = array(look_up(bench, on_device, case, given))
        verdict.close(name, out, reference.texture(tex, case, levels), OF_TEXELS)
    return verdict.outcome()


def antialias(bench: Bench) -> Outcome:
    """Two cubes' silhouettes and a large triangle's, with the topology found at once and beforehand."""
    verdict, rng = Verdict(), np.random.default_rng(14)
    for pos, tri, channels in silhouettes():
        rast = exact(reference.rasterize(pos, tri, (64, 64))[0])
        color = exact(rng.random((*rast.shape[:3], channels)))
        faces = tensor(bench, tri, "int32")
        wanted = edges.antialias(color, rast, pos, tri)
        for known in (None, bench.dr.antialias_construct_topology_hash(faces)):
            given = [tensor(bench, color), tensor(bench, rast), tensor(bench, pos), faces]
            out = array(bench.dr.antialias(*given, topology_hash=known))
            off: Array = np.any(verdict.close("colours", out, wanted, OF_CROSSINGS), axis=-1)
        blended: Array = np.any(wanted != color, axis=-1)
        verdict.keep("blended pixels", blended.sum())
        verdict.images.setdefault("blends", pictures.errors(blended[0] * 2.0, off[0]))
    return verdict.outcome()


def silhouettes() -> list[tuple[Array, Array, int]]:
    """Meshes (pos, tri) and numbers of channels to smooth at 64x64."""
    first, tri, _ = scenes.cube()
    second, _, _ = scenes.cube(turn=-0.35, tilt=0.8)
    return [(np.concatenate([first, second]), tri, 3), (*scenes.large_triangle(), 5)]


CHECKS = (
    Check("interpolate", interpolate),
    *(
        Check(f"texture-{mode}-{boundary}", texture(mode, boundary))
        for mode in FILTER_MODES
        for boundary in BOUNDARY_MODES
    ),
    Check("mip-maps", mip_maps),
    Check("antialias", antialias),
)
