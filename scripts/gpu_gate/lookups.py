"""Textures and the places where checks look them up, far enough from where a rounding would choose another texel."""

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
# No place is nearer than this to a border or the middle of a texel of any level, in texels, ...
TEXEL_MARGIN = 0.004
# ... to an edge between a cube's faces, as a ratio of coordinates, nor any mip level to a whole number.
FACE_MARGIN = LEVEL_MARGIN = 0.01


@dataclass(frozen=True)
class Samples:
    """uv <N,H,W,2 or 3>, uv_da <N,H,W,4 or 6>, bias <N,H,W>."""

    uv: Array
    uv_da: Array
    bias: Array

    def asked(self, mode: str, boundary: str, *, bias: bool = False) -> Lookup:
        """What texture() is asked; derivatives and bias only where the mode uses them."""
        mipmapped = "mipmap" in mode
        return Lookup(self.uv, self.uv_da if mipmapped else None, self.bias if bias else None, mode, boundary)


def texels(seed: int, boundary: str, channels: int, images: int = 1) -> Array:
    """A texture <images,16,32,C>, or a cube map <images,6,16,16,C>, of values in [0,1]."""
    extent = (6, CUBE_SIZE, CUBE_SIZE) if boundary == "cube" else FLAT_SIZE
    return exact(np.random.default_rng(seed).random((images, *extent, channels)))


def samples(seed: int, boundary: str) -> Samples:
    """Places in and around a texture, with footprints of all mip levels."""
    rng = np.random.default_rng(seed)
    count, wanted = 4 * IMAGES * HEIGHT * WIDTH, IMAGES * HEIGHT * WIDTH
    is_cube = boundary == "cube"
    uv = exact(rng.normal(0, 1, (count, 3)) if is_cube else rng.uniform(-1.6, 2.6, (count, 2)))
    footprint = 2.0 ** rng.uniform(-1, LEVELS, (count, 1)) / (CUBE_SIZE if is_cube else FLAT_SIZE[1])
    uv_da = exact(rng.normal(0, 1, (count, 6 if is_cube else 4)) * footprint)
    bias = exact(rng.uniform(-1.5, 1.5, count))
    kept = np.nonzero(_clear(uv, boundary) & _level_clear(uv, uv_da, bias, boundary))[0][:wanted]
    shape = (IMAGES, HEIGHT, WIDTH)
    return Samples(uv[kept].reshape(*shape, -1), uv_da[kept].reshape(*shape, -1), bias[kept].reshape(shape))


def _clear(uv: Array, boundary: str) -> Array:
    """Which places are far from every decision about texels."""
    if boundary == "cube":
        face = cube.face_of(uv)
        size = np.sort(np.abs(uv), axis=1)
        place, clear, extent = cube.place_on(face, uv), size[:, 1] < (1 - FACE_MARGIN) * size[:, 2], (CUBE_SIZE,) * 2
    else:
        place, clear, extent = uv, np.ones(len(uv), bool), FLAT_SIZE
    for level in range(LEVELS):
        texel = place * [max(extent[1] >> level, 1), max(extent[0] >> level, 1)]
        for offset in (0, 0.5):
            clear &= np.all(np.abs(texel - offset - np.rint(texel - offset)) > TEXEL_MARGIN, axis=1)
    return clear


def _level_clear(uv: Array, uv_da: Array, bias: Array, boundary: str) -> Array:
    """Which footprints are far from the next mip level, with the bias, by it alone, and without it."""
    extent = (CUBE_SIZE,) * 2 if boundary == "cube" else FLAT_SIZE
    unlimited = Lookup(uv[None, None], uv_da[None, None], np.full((1, 1, len(uv)), 50.0), boundary_mode=boundary)
    level = reference.sampling.mip_level(unlimited, extent, 100)
    clear = np.ones(len(uv), bool)
    for total in (level, level + bias, bias):
        clear &= np.abs(total - np.rint(total)) > LEVEL_MARGIN
    return clear
