"""Textures and sample positions for the texture checks.

Sample positions keep a margin to every place where a rounding error could select another texel or mip level.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import reference
from .reference import Lookup, cube
from .reference.arrays import Array
from .scenes import exact

FLAT_SIZE = (16, 32)
CUBE_SIZE = 16
IMAGES, HEIGHT, WIDTH = 2, 12, 20
LEVELS = 6
# The smallest distance, in texels, from a sample position to a texel's border or center, at every mip level.
TEXEL_MARGIN = 0.004
# The smallest distance from a direction to an edge of the cube, as a ratio of coordinates.
FACE_MARGIN = 0.01
# The smallest distance from a mip level to an integer.
LEVEL_MARGIN = 0.01


@dataclass(frozen=True)
class Samples:
    """Sample positions: uv [N, H, W, 2 or 3], uv_da [N, H, W, 4 or 6], bias [N, H, W]."""

    uv: Array
    uv_da: Array
    bias: Array

    def lookup(self, mode: str, boundary: str, *, bias: bool = False) -> Lookup:
        """Return the arguments of texture(); uv_da only if the mode uses mip maps, the bias only if requested."""
        mipmapped = "mipmap" in mode
        return Lookup(self.uv, self.uv_da if mipmapped else None, self.bias if bias else None, mode, boundary)


def texels(seed: int, boundary: str, channels: int, images: int = 1) -> Array:
    """Return a texture [images, 16, 32, C], or a cube map [images, 6, 16, 16, C], with values in [0, 1]."""
    extent = (6, CUBE_SIZE, CUBE_SIZE) if boundary == "cube" else FLAT_SIZE
    return exact(np.random.default_rng(seed).random((images, *extent, channels)))


def samples(seed: int, boundary: str) -> Samples:
    """Return sample positions inside and outside a texture, with footprints of all mip levels."""
    rng = np.random.default_rng(seed)
    needed = IMAGES * HEIGHT * WIDTH
    # More candidates than needed, as some are too close to a decision.
    count = 4 * needed
    is_cube = boundary == "cube"
    uv = exact(rng.normal(0, 1, (count, 3)) if is_cube else rng.uniform(-1.6, 2.6, (count, 2)))
    footprint = 2.0 ** rng.uniform(-1, LEVELS, (count, 1)) / (CUBE_SIZE if is_cube else FLAT_SIZE[1])
    uv_da = exact(rng.normal(0, 1, (count, 6 if is_cube else 4)) * footprint)
    bias = exact(rng.uniform(-1.5, 1.5, count))
    kept = np.nonzero(_texel_is_certain(uv, boundary) & _level_is_certain(uv, uv_da, bias, boundary))[0][:needed]
    shape = (IMAGES, HEIGHT, WIDTH)
    return Samples(uv[kept].reshape(*shape, -1), uv_da[kept].reshape(*shape, -1), bias[kept].reshape(shape))


def _texel_is_certain(uv: Array, boundary: str) -> Array:
    """Return which sample positions [K] keep the margins to texel borders, texel centers and cube edges."""
    if boundary == "cube":
        face = cube.face_index(uv)
        size = np.sort(np.abs(uv), axis=1)
        st, certain = cube.face_coordinates(face, uv), size[:, 1] < (1 - FACE_MARGIN) * size[:, 2]
    else:
        st, certain = uv, np.ones(len(uv), bool)
    height, width = _texture_size(boundary)
    for level in range(LEVELS):
        texel = st * [max(width >> level, 1), max(height >> level, 1)]
        for offset in (0, 0.5):
            certain &= np.all(np.abs(texel - offset - np.rint(texel - offset)) > TEXEL_MARGIN, axis=1)
    return certain


def _level_is_certain(uv: Array, uv_da: Array, bias: Array, boundary: str) -> Array:
    """Return which samples [K] keep the margin to integer mip levels: by uv_da, by the bias, and by both together."""
    unlimited = Lookup(uv[None, None], uv_da[None, None], np.full((1, 1, len(uv)), 50.0), boundary_mode=boundary)
    level = reference.sampling.mip_level(unlimited, _texture_size(boundary), 100)
    certain = np.ones(len(uv), bool)
    for total in (level, level + bias, bias):
        certain &= np.abs(total - np.rint(total)) > LEVEL_MARGIN
    return certain


def _texture_size(boundary: str) -> tuple[int, int]:
    """Return the height and width of a texture or of a cube face."""
    return (CUBE_SIZE, CUBE_SIZE) if boundary == "cube" else FLAT_SIZE
