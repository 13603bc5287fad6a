"""The gate's inputs are chosen so that rounding errors do not change any decision, such as which texel is read."""

from __future__ import annotations

import numpy as np
import pytest

from scripts.gpu_gate import lookups, reference
from scripts.gpu_gate.reference import BOUNDARY_MODES, FILTER_MODES, edges
from scripts.gpu_gate.scenes import exact, silhouette_meshes


@pytest.mark.parametrize(("case", "size"), [(0, 64), (1, 64), (1, 128)])
def test_rounding_positions_does_not_change_silhouettes(case: int, size: int) -> None:
    pos, tri, _ = silhouette_meshes()[case]
    rast = exact(reference.rasterize(pos, tri, (size, size))[0])
    expected = edges.blends(rast, pos, tri)
    assert len(expected.first) > 50
    for seed in range(20):
        moved = pos + np.random.default_rng(seed).uniform(-1e-6, 1e-6, pos.shape)
        found = edges.blends(rast, moved, tri)
        assert np.array_equal(found.first, expected.first)
        assert np.array_equal(found.vertices, expected.vertices)
        assert np.array_equal(found.target, expected.target)
        assert np.array_equal(np.abs(found.alpha) == 0.5, np.abs(expected.alpha) == 0.5)


@pytest.mark.parametrize("boundary", BOUNDARY_MODES)
@pytest.mark.parametrize("mode", FILTER_MODES)
def test_rounding_uv_does_not_change_texels(mode: str, boundary: str) -> None:
    samples, tex = lookups.samples(12, boundary), lookups.texels(1, boundary, 3)
    assert samples.uv.shape[:3] == (lookups.IMAGES, lookups.HEIGHT, lookups.WIDTH)
    near = lookups.Samples(samples.uv * (1 + 1e-6), samples.uv_da * (1 + 1e-6), samples.bias * (1 + 1e-6))
    for bias in (False, "mipmap" in mode):
        found = [reference.texture(tex, each.lookup(mode, boundary, bias=bias)) for each in (samples, near)]
        assert np.max(np.abs(found[0] - found[1])) < 2e-4


def test_samples_use_every_mip_level() -> None:
    lookup = lookups.samples(12, "wrap").lookup("linear-mipmap-nearest", "wrap")
    level = reference.sampling.mip_level(lookup, lookups.FLAT_SIZE, lookups.LEVELS)
    assert set(np.floor(level).astype(int)) == set(range(lookups.LEVELS))
