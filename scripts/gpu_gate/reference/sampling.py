"""texture(): filtered lookups.

Texel i is centred at (i + 1/2)/W. nearest takes the texel that contains the place; linear weighs the four around it.
wrap takes the fractional part of the coordinate, clamp limits it to the centres of the border texels, zero has black
texels all around, cube is in cube.py. The mip level is log2 of the longer axis of the pixel's footprint in texels (the
larger singular value of d(s,t)/d(X,Y), scaled by the texture's size) plus the bias, limited to the levels there are;
linear-mipmap-nearest takes the level below it, linear-mipmap-linear mixes the two around it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from . import cube
from .arrays import STEP, Array, clip, derivative, numbers
from .mipmaps import construct_mip, spread

FILTER_MODES = ("nearest", "linear", "linear-mipmap-nearest", "linear-mipmap-linear")
BOUNDARY_MODES = ("wrap", "clamp", "zero", "cube")


@dataclass(frozen=True)
class Lookup:
    """What texture() is asked besides the texture: uv <N,H,W,2 or 3>, uv_da <N,H,W,4 or 6>, bias <N,H,W>, modes."""

    uv: Any
    uv_da: Any = None
    bias: Any = None
    filter_mode: str = "auto"
    boundary_mode: str = "wrap"
    max_mip_level: int | None = None

    @property
    def mode(self) -> str:
        """The filter mode after "auto", and without mip maps where there are to be none."""
        mode = self.filter_mode
        if mode == "auto":
            mode = "linear" if self.uv_da is None and self.bias is None else "linear-mipmap-linear"
        return "linear" if "mipmap" in mode and self.max_mip_level == 0 else mode

    @property
    def is_cube(self) -> bool:
        return self.boundary_mode == "cube"


@dataclass(frozen=True)
class _Taps:
    """Texels that make up a sample: their places <K,T> in the level, flat without channels (-1: none), and weights."""

    places: Array
    weights: Array


def texture(tex: Any, lookup: Lookup, mip: list[Any] | None = None) -> Array:
    """The samples <N,H,W,C> of a texture <N or 1,H,W,C>, or of a cube map <N or 1,6,S,S,C>.

    mip, the levels below the texture, is made from it if not given.
    """
    levels = _levels(numbers(tex), lookup, mip)
    result = 0
    for level, taps in _plan(lookup, levels):
        texels = levels[level].reshape(-1, levels[level].shape[-1])
        found = np.where(taps.places[..., None] >= 0, texels[taps.places], 0)
        result = result + np.sum(found * taps.weights[..., None], axis=1)
    return np.asarray(result).reshape(*np.shape(lookup.uv)[:3], -1)


@dataclass(frozen=True)
class Gradients:
    """d loss by each of texture()'s inputs; None where that input does not take part."""

    tex: Array
    uv: Array | None
    uv_da: Array | None
    bias: Array | None
    levels: list[Array]


def gradients(tex: Any, lookup: Lookup, d_out: Any, mip: list[Any] | None = None) -> Gradients:
    """d loss by tex (through the levels made from it; `levels` has each alone), uv, uv_da and bias, from d loss by out.

    The choice of texels and levels is fixed; uv takes part except in nearest, uv_da and bias in linear-mipmap-linear.
    """
    levels, d_out = _levels(numbers(tex), lookup, mip), numbers(d_out)
    by_level = [np.zeros(level.shape) for level in levels]
    flat = d_out.reshape(-1, d_out.shape[-1])
    for level, taps in _plan(lookup, levels):
        share = taps.weights[..., None] * flat[:, None, :]
        taken = taps.places >= 0
        np.add.at(by_level[level].reshape(-1, flat.shape[-1]), taps.places[taken], share[taken])
    trilinear = lookup.mode == "linear-mipmap-linear"
    return Gradients(
        by_level[0] if mip is not None else spread(by_level),
        None if lookup.mode == "nearest" else _by(levels, lookup, d_out, "uv"),
        _by(levels, lookup, d_out, "uv_da") if trilinear and lookup.uv_da is not None else None,
        _by(levels, lookup, d_out, "bias") if trilinear and lookup.bias is not None else None,
        by_level,
    )


def mip_level(lookup: Lookup, size: tuple[int, int], levels: int) -> Array:
    """The fractional level <K> at every pixel, limited to [0, levels - 1]."""
    level: Array = np.zeros(int(np.prod(np.shape(lookup.uv)[:3])))
    if lookup.uv_da is not None:
        slopes = numbers(lookup.uv_da).reshape(len(level), -1)
        if lookup.is_cube:
            direction = _flat_uv(lookup)
            slopes = cube.slopes_on(cube.face_of(direction), direction, slopes)
        height, width = size
        s_x, s_y, t_x, t_y = (slopes * np.array([width, width, height, height])).T
        along_x, along_y, mixed = s_x**2 + t_x**2, s_y**2 + t_y**2, s_x * s_y + t_x * t_y
        longest = (along_x + along_y) / 2 + np.sqrt((along_x - along_y) ** 2 / 4 + mixed**2)
        with np.errstate(divide="ignore", invalid="ignore"):
            level = np.log2(longest) / 2
    if lookup.bias is not None:
        level = level + numbers(lookup.bias).reshape(-1)
    return clip(level, 0.0, float(levels - 1))


def _levels(tex: Array, lookup: Lookup, mip: list[Any] | None) -> list[Array]:
    if lookup.mode not in FILTER_MODES or lookup.boundary_mode not in BOUNDARY_MODES:
        raise ValueError(f"no filter mode {lookup.filter_mode!r} with boundary mode {lookup.boundary_mode!r}")
    if "mipmap" not in lookup.mode:
        return [tex]
    return construct_mip(tex, lookup.max_mip_level) if mip is None else [tex, *(numbers(level) for level in mip)]


def _by(levels: list[Array], lookup: Lookup, d_out: Array, name: str) -> Array:
    """d loss by one of the lookup's arrays; a sample depends on its own pixel's entries alone."""
    given = numbers(getattr(lookup, name))
    entries = given[..., None] if name == "bias" else given
    columns = []
    for column in range(entries.shape[-1]):
        moved = entries.astype(np.complex128)
        moved[..., column] += 1j * STEP
        fields = {**vars(lookup), name: moved.reshape(given.shape)}
        out = texture(levels[0], Lookup(**fields), levels[1:] or None)
        columns.append(np.sum(derivative(out) * d_out, axis=-1))
    return np.stack(columns, axis=-1).reshape(given.shape)


def _plan(lookup: Lookup, levels: list[Array]) -> list[tuple[int, _Taps]]:
    """Which taps of which levels make up the samples <K>, K = N*H*W."""
    if lookup.mode == "nearest":
        return [(0, _nearest(lookup, levels[0]))]
    if lookup.mode == "linear":
        return [(0, _bilinear(lookup, levels[0]))]
    level = mip_level(lookup, levels[0].shape[-3:-1], len(levels))
    lower = np.floor(level.real).astype(np.int64)
    share = level - lower if lookup.mode == "linear-mipmap-linear" else np.zeros(len(level))
    result = []
    for number, texels in enumerate(levels):
        taps = _bilinear(lookup, texels)
        weight = np.where(lower == number, 1 - share, np.where(lower + 1 == number, share, 0))
        result.append((number, _Taps(taps.places, taps.weights * weight[:, None])))
    return result


def _flat_uv(lookup: Lookup) -> Array:
    uv = numbers(lookup.uv)
    return uv.reshape(-1, uv.shape[-1])


def _slices(lookup: Lookup, texels: Array) -> Array:
    """The number of the texture in the minibatch that each sample <K> reads."""
    images, height, width = np.shape(lookup.uv)[:3]
    return np.repeat(np.arange(images) % len(texels), height * width)


def _wrapped(lookup: Lookup) -> Array:
    uv = _flat_uv(lookup)
    return uv - np.floor(uv.real) if lookup.boundary_mode == "wrap" else uv


def _nearest(lookup: Lookup, texels: Array) -> _Taps:
    height, width = texels.shape[-3:-1]
    part, valid = _slices(lookup, texels), np.ones(1, bool)
    if lookup.is_cube:
        direction = _flat_uv(lookup)
        face = cube.face_of(direction)
        place, part, valid = cube.place_on(face, direction), part * 6 + face, face >= 0
    else:
        place = _wrapped(lookup)
    texel = np.floor(place.real * np.array([width, height])).astype(np.int64)
    limited = np.clip(texel, 0, [width - 1, height - 1])
    if lookup.boundary_mode == "zero":
        valid = np.all(limited == texel, axis=1)
    flat = np.where(valid, (part * height + limited[:, 1]) * width + limited[:, 0], -1)
    return _Taps(flat[:, None], np.ones((len(flat), 1)))


def _bilinear(lookup: Lookup, texels: Array) -> _Taps:
    height, width = texels.shape[-3:-1]
    size = np.array([width, height])
    if lookup.is_cube:
        direction = _flat_uv(lookup)
        face = cube.face_of(direction)
        place = cube.place_on(face, direction) * size - 0.5
    else:
        place = _wrapped(lookup) * size - 0.5
    if lookup.boundary_mode == "clamp":
        place = clip(place, 0.0, size - 1.0)
    corner = np.floor(place.real).astype(np.int64)
    share = place - corner
    flat, weights = [], []
    for down in range(2):
        for right in range(2):
            column, row = corner[:, 0] + right, corner[:, 1] + down
            part = _slices(lookup, texels)
            flat.append(
                _cube_texel(part, face, column, row, width)
                if lookup.is_cube
                else _flat_texel(part, column, row, (height, width), lookup.boundary_mode)
            )
            weights.append((share[:, 0] if right else 1 - share[:, 0]) * (share[:, 1] if down else 1 - share[:, 1]))
    taps = _Taps(np.stack(flat, axis=1), np.stack(weights, axis=1))
    return _shared_out(taps, face >= 0) if lookup.is_cube else taps


def _flat_texel(part: Array, column: Array, row: Array, size: tuple[int, int], boundary: str) -> Array:
    height, width = size
    if boundary == "wrap":
        inside_column, inside_row = column % width, row % height
    else:
        inside_column, inside_row = np.clip(column, 0, width - 1), np.clip(row, 0, height - 1)
    place = (part * height + inside_row) * width + inside_column
    outside = (inside_column != column) | (inside_row != row)
    return np.where(outside & (boundary == "zero"), -1, place)


def _cube_texel(part: Array, face: Array, column: Array, row: Array, size: int) -> Array:
    on, column, row = cube.across(np.where(face >= 0, face, 0), column, row, size)
    return np.where(on >= 0, ((part * 6 + on) * size + row) * size + column, -1)


def _shared_out(taps: _Taps, valid: Array) -> _Taps:
    """A texel missing at a cube's corner gives a third of its weight to each of the other three; invalid: no texel."""
    missing = taps.places < 0
    lost = np.sum(np.where(missing, taps.weights, 0), axis=1, keepdims=True)
    weights = np.where(missing, 0, taps.weights + lost / 3)
    return _Taps(np.where(valid[:, None], taps.places, -1), weights)
