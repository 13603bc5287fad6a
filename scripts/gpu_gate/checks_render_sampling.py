"""Checks of interpolate(), texture() and antialias()."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from . import lookups, pictures, reference, scenes
from .bench import Bench, Check, Outcome
from .comparison import MAX_ROUNDINGS, UNIT_ROUNDOFF, Findings, array, tensor
from .reference import BOUNDARY_MODES, FILTER_MODES, Lookup, edges
from .reference.arrays import Array
from .scenes import exact

# For values in [0, 1]: a coordinate of up to 83 texels and the logarithm of the mip level have rounding errors.
TEXEL_TOLERANCE = 5e-5
# For values in [0, 1]: the point where an edge crosses, a coordinate of up to 64 pixels, has several rounding errors.
ANTIALIAS_TOLERANCE = 1e-4


def interpolate(bench: Bench) -> Outcome:
    """Interpolate attributes of every shape, with derivatives of no attribute, of all, and of selected ones."""
    findings, rng = Findings(), np.random.default_rng(11)
    pos, tri = scenes.random_triangles(11, 16, 2)
    rast, rast_db = (exact(part) for part in reference.rasterize(pos, tri, (48, 64)))
    vertices = pos.shape[1]
    for shape in ((vertices, 3), (1, vertices, 5), (2, vertices, 4), (vertices, 40)):
        attr = exact(rng.uniform(-1, 1, shape))
        for diff_attrs in (None, "all", [2, 0]):
            given = [tensor(bench, attr), tensor(bench, rast), tensor(bench, tri, "int32")]
            values, attr_da = bench.dr.interpolate(*given, rast_db=tensor(bench, rast_db), diff_attrs=diff_attrs)
            expected, expected_attr_da = reference.interpolate(attr, rast, tri, rast_db, diff_attrs)
            findings.require_close("attributes", array(values), expected, MAX_ROUNDINGS * UNIT_ROUNDOFF)
            if diff_attrs is not None:
                # The size of the terms: |du/dX| + |dv/dX| and |du/dY| + |dv/dY|, for each attribute.
                sizes = np.tile(np.abs(rast_db[..., :2]) + np.abs(rast_db[..., 2:]), expected_attr_da.shape[-1] // 2)
                tolerance = MAX_ROUNDINGS * UNIT_ROUNDOFF * 2 * sizes
                findings.require_close("derivatives", array(attr_da), expected_attr_da, tolerance)
    findings.images["attributes"] = pictures.to_image(array(values)[0] / 2 + 0.5)
    return findings.outcome()


def call_texture(bench: Bench, tex: Any, lookup: Lookup, mip: Any = None) -> Any:
    """Call texture() on the device; ``tex`` is a tensor."""
    options: dict[str, Any] = {"filter_mode": lookup.filter_mode, "boundary_mode": lookup.boundary_mode}
    for name, values in (("uv_da", lookup.uv_da), ("mip_level_bias", lookup.bias)):
        if values is not None:
            options[name] = tensor(bench, values)
    if mip is not None:
        options["mip"] = mip
    if lookup.max_mip_level is not None:
        options["max_mip_level"] = lookup.max_mip_level
    return bench.dr.texture(tex, tensor(bench, lookup.uv), **options)


def texture(mode: str, boundary: str) -> Callable[[Bench], Outcome]:
    """Return the check of one filter mode with one boundary mode.

    It samples textures with 1 to 5 channels, with one texture per image and with one for all images.
    """

    def run(bench: Bench) -> Outcome:
        findings, samples = Findings(), lookups.samples(12, boundary)
        for channels, images in ((1, 1), (2, 2), (3, 1), (4, 2), (5, 1)):
            tex = lookups.texels(channels, boundary, channels, images)
            lookup = samples.lookup(mode, boundary, bias="mipmap" in mode and channels == 4)
            out = array(call_texture(bench, tensor(bench, tex), lookup))
            findings.require_close("texels", out, reference.texture(tex, lookup), TEXEL_TOLERANCE)
            findings.images["texels"] = pictures.to_image(out[0])
        return findings.outcome()

    return run


def mip_maps(bench: Bench) -> Outcome:
    """Sample with prebuilt, custom and limited mip levels, with a bias only, and in the filter mode "auto"."""
    findings, samples = Findings(), lookups.samples(13, "wrap")
    tex = lookups.texels(13, "wrap", 3)
    on_device = tensor(bench, tex)
    lookup = samples.lookup("linear-mipmap-linear", "wrap")
    shapes = [level.shape for level in reference.construct_mip(tex)[1:]]
    custom = [exact(np.random.default_rng(k).random(shape)) for k, shape in enumerate(shapes)]
    built = bench.dr.texture_construct_mip(on_device)
    built_limited = bench.dr.texture_construct_mip(on_device, max_mip_level=2)
    by_bias = Lookup(samples.uv, None, samples.bias * 2 + 2, "linear-mipmap-linear")
    cases: list[tuple[str, Lookup, Any, list[Array] | None]] = [
        ("made levels", lookup, built, None),
        ("two made levels", replace(lookup, max_mip_level=2), built_limited, None),
        ("own levels", lookup, [tensor(bench, level) for level in custom], custom),
        ("limited levels", replace(lookup, max_mip_level=2), None, None),
        ("no levels", replace(lookup, max_mip_level=0), None, None),
        ("bias alone", by_bias, None, None),
        ("auto with derivatives", replace(lookup, filter_mode="auto"), None, None),
        ("auto without", Lookup(samples.uv), None, None),
    ]
    for name, case, given, levels in cases:
        out = array(call_texture(bench, on_device, case, given))
        findings.require_close(name, out, reference.texture(tex, case, levels), TEXEL_TOLERANCE)
    return findings.outcome()


def antialias(bench: Bench) -> Outcome:
    """Antialias two cubes and a large triangle, with and without a topology hash that is built beforehand."""
    findings, rng = Findings(), np.random.default_rng(14)
    for pos, tri, channels in scenes.silhouette_meshes():
        rast = exact(reference.rasterize(pos, tri, (64, 64))[0])
        color = exact(rng.random((*rast.shape[:3], channels)))
        faces = tensor(bench, tri, "int32")
        expected = edges.antialias(color, rast, pos, tri)
        for topology_hash in (None, bench.dr.antialias_construct_topology_hash(faces)):
            given = [tensor(bench, color), tensor(bench, rast), tensor(bench, pos), faces]
            out = array(bench.dr.antialias(*given, topology_hash=topology_hash))
            wrong: Array = np.any(findings.require_close("colours", out, expected, ANTIALIAS_TOLERANCE), axis=-1)
        blended: Array = np.any(expected != color, axis=-1)
        findings.keep_maximum("blended pixels", blended.sum())
        findings.images.setdefault("blends", pictures.errors(blended[0] * 2.0, wrong[0]))
    return findings.outcome()


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
