"""texture(): filtered texture lookups.

The center of texel i is at (i + 1/2)/W. The filter mode "nearest" reads the texel that contains the sample position;
"linear" interpolates between the four nearest texels. The boundary mode "wrap" uses the fractional part of the
coordinate, "clamp" clamps it to the centers of the border texels, "zero" reads 0 outside the texture, and "cube" is
described in cube.py.

The mip level is log2 of the longer axis of the pixel's footprint in texels (the larger singular value of d(s,t)/d(X,Y),
scaled by the size of the texture), plus the bias, clamped to the existing levels. "linear-mipmap-nearest" reads the
level rounded down; "linear-mipmap-linear" interpolates between the two nearest levels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from . import cube
from .arrays import STEP, Array, as_float, clip, derivative
from .mipmaps import construct_mip, sum_levels

FILTER_MODES = ("nearest", "linear", "linear-mipmap-nearest", "linear-mipmap-linear")
BOUNDARY_MODES = ("wrap", "clamp", "zero", "cube")


@dataclass(frozen=True)
class Lookup:
    """The arguments of texture() other than the texture.

    Attributes:
        uv: Sample positions [N, H, W, 2], or directions [N, H, W, 3] for a cube map.
        uv_da: Their derivatives with respect to pixel coordinates, [N, H, W, 4] or [N, H, W, 6].
        bias: The mip level bias [N, H, W].
        filter_mode: One of FILTER_MODES, or "auto".
        boundary_mode: One of BOUNDARY_MODES.
        max_mip_level: The highest mip level; None for all levels.
    """

    uv: Any
    uv_da: Any = None
    bias: Any = None
    filter_mode: str = "auto"
    boundary_mode: str = "wrap"
    max_mip_level: int | None = None

    @property
    def mode(self) -> str:
        """The filter mode with "auto" resolved; "linear" if mip maps are disabled by max_mip_level."""
        mode = self.filter_mode
        if mode == "auto":
            mode = "linear" if self.uv_da is None and self.bias is None else "linear-mipmap-linear"
        return "linear" if "mipmap" in mode and self.max_mip_level == 0 else mode

    @property
    def is_cube(self) -> bool:
        return self.boundary_mode == "cube"


@dataclass(frozen=True)
class _Taps:
    """The texels of each sample.

    Attributes:
        indices: Flat texel indices [K, T] in the mip level; -1 for a texel that does not exist.
        weights: The weights [K, T] of the texels.
    """

    indices: Array
    weights: Array


def texture(tex: Any, lookup: Lookup, mip: list[Any] | None = None) -> Array:
    """Return samples [N, H, W, C] of a texture [N or 1, H, W, C] or of a cube map [N or 1, 6, S, S, C].

    ``mip`` contains the mip levels below the texture; by default they are built from the texture.
    """
    levels = _levels(as_float(tex), lookup, mip)
    result = 0
    for level, taps in _select_texels(lookup, levels):
        texels = levels[level].reshape(-1, levels[level].shape[-1])
        found = np.where(taps.indices[..., None] >= 0, texels[taps.indices], 0)
        result = result + np.sum(found * taps.weights[..., None], axis=1)
    return np.asarray(result).reshape(*np.shape(lookup.uv)[:3], -1)


@dataclass(frozen=True)
class Gradients:
    """The gradients by the inputs of texture(); None for an input that has no gradient.

    ``tex`` includes the gradients of the mip levels that are built from the texture; ``levels`` has one per level.
    """

    tex: Array
    uv: Array | None
    uv_da: Array | None
    bias: Array | None
    levels: list[Array]


def gradients(tex: Any, lookup: Lookup, grad_out: Any, mip: list[Any] | None = None) -> Gradients:
    """Return the gradients by tex, uv, uv_da and bias; ``grad_out`` is the gradient by the output.

    The selection of texels and levels is fixed. uv has a gradient except in the mode "nearest"; uv_da and bias have one
    in the mode "linear-mipmap-linear".
    """
    levels, grad_out = _levels(as_float(tex), lookup, mip), as_float(grad_out)
    grad_levels = [np.zeros(level.shape) for level in levels]
    flat = grad_out.reshape(-1, grad_out.shape[-1])
    for level, taps in _select_texels(lookup, levels):
        contribution = taps.weights[..., None] * flat[:, None, :]
        exists = taps.indices >= 0
        np.add.at(grad_levels[level].reshape(-1, flat.shape[-1]), taps.indices[exists], contribution[exists])
    trilinear = lookup.mode == "linear-mipmap-linear"
    return Gradients(
        grad_levels[0] if mip is not None else sum_levels(grad_levels),
        None if lookup.mode == "nearest" else _complex_step_gradient(levels, lookup, grad_out, "uv"),
        _complex_step_gradient(levels, lookup, grad_out, "uv_da") if trilinear and lookup.uv_da is not None else None,
        _complex_step_gradient(levels, lookup, grad_out, "bias") if trilinear and lookup.bias is not None else None,
        grad_levels,
    )


def mip_level(lookup: Lookup, size: tuple[int, int], levels: int) -> Array:
    """Return the fractional mip level [K] of every sample, clamped to [0, levels - 1].

    ``size`` is the height and width of the texture.
    """
    level: Array = np.zeros(int(np.prod(np.shape(lookup.uv)[:3])))
    if lookup.uv_da is not None:
        st_da = as_float(lookup.uv_da).reshape(len(level), -1)
        if lookup.is_cube:
            direction = _flat_uv(lookup)
            st_da = cube.face_derivatives(cube.face_index(direction), direction, st_da)
        height, width = size
        s_x, s_y, t_x, t_y = (st_da * np.array([width, width, height, height])).T
        # The larger eigenvalue of J^T J, with J = ((s_x, s_y), (t_x, t_y)).
        xx, yy, xy = s_x**2 + t_x**2, s_y**2 + t_y**2, s_x * s_y + t_x * t_y
        longest = (xx + yy) / 2 + np.sqrt((xx - yy) ** 2 / 4 + xy**2)
        with np.errstate(divide="ignore", invalid="ignore"):
            level = np.log2(longest) / 2
    if lookup.bias is not None:
        level = level + as_float(lookup.bias).reshape(-1)
    return clip(level, 0.0, float(levels - 1))


def _levels(tex: Array, lookup: Lookup, mip: list[Any] | None) -> list[Array]:
    if lookup.mode not in FILTER_MODES or lookup.boundary_mode not in BOUNDARY_MODES:
        raise ValueError(f"unknown filter mode {lookup.filter_mode!r} or boundary mode {lookup.boundary_mode!r}")
    if "mipmap" not in lookup.mode:
        return [tex]
    return construct_mip(tex, lookup.max_mip_level) if mip is None else [tex, *(as_float(level) for level in mip)]


def _complex_step_gradient(levels: list[Array], lookup: Lookup, grad_out: Array, name: str) -> Array:
    """Return the gradient by one array of the lookup; each sample depends only on the values of its own pixel."""
    given = as_float(getattr(lookup, name))
    entries = given[..., None] if name == "bias" else given
    columns = []
    for column in range(entries.shape[-1]):
        moved = entries.astype(np.complex128)
        moved[..., column] += 1j * STEP
        fields = {**vars(lookup), name: moved.reshape(given.shape)}
        out = texture(levels[0], Lookup(**fields), levels[1:] or None)
        columns.append(np.sum(derivative(out) * grad_out, axis=-1))
    return np.stack(columns, axis=-1).reshape(given.shape)


def _select_texels(lookup: Lookup, levels: list[Array]) -> list[tuple[int, _Taps]]:
    """Return the mip levels that the samples [K] read, K = N*H*W, each with its texels."""
    if lookup.mode == "nearest":
        return [(0, _nearest(lookup, levels[0]))]
    if lookup.mode == "linear":
        return [(0, _bilinear(lookup, levels[0]))]
    level = mip_level(lookup, levels[0].shape[-3:-1], len(levels))
    lower = np.floor(level.real).astype(np.int64)
    fraction = level - lower if lookup.mode == "linear-mipmap-linear" else np.zeros(len(level))
    selected = []
    for number, texels in enumerate(levels):
        taps = _bilinear(lookup, texels)
        weight = np.where(lower == number, 1 - fraction, np.where(lower + 1 == number, fraction, 0))
        selected.append((number, _Taps(taps.indices, taps.weights * weight[:, None])))
    return selected


def _flat_uv(lookup: Lookup) -> Array:
    """Return uv as [K, 2], or as [K, 3] for a cube map."""
    uv = as_float(lookup.uv)
    return uv.reshape(-1, uv.shape[-1])


def _texture_index(lookup: Lookup, texels: Array) -> Array:
    """Return the index [K], in the minibatch of textures, of the texture that each sample reads."""
    images, height, width = np.shape(lookup.uv)[:3]
    return np.repeat(np.arange(images) % len(texels), height * width)


def _wrapped(lookup: Lookup) -> Array:
    """Return uv [K, 2], wrapped to [0, 1) in the boundary mode "wrap"."""
    uv = _flat_uv(lookup)
    return uv - np.floor(uv.real) if lookup.boundary_mode == "wrap" else uv


def _nearest(lookup: Lookup, texels: Array) -> _Taps:
    """Return the texel that contains each sample position."""
    height, width = texels.shape[-3:-1]
    # The index of the texture, or of the face of the cube map.
    image, valid = _texture_index(lookup, texels), np.ones(1, bool)
    if lookup.is_cube:
        direction = _flat_uv(lookup)
        face = cube.face_index(direction)
        st, image, valid = cube.face_coordinates(face, direction), image * 6 + face, face >= 0
    else:
        st = _wrapped(lookup)
    texel = np.floor(st.real * np.array([width, height])).astype(np.int64)
    clamped = np.clip(texel, 0, [width - 1, height - 1])
    if lookup.boundary_mode == "zero":
        valid = np.all(clamped == texel, axis=1)
    indices = np.where(valid, (image * height + clamped[:, 1]) * width + clamped[:, 0], -1)
    return _Taps(indices[:, None], np.ones((len(indices), 1)))


def _bilinear(lookup: Lookup, texels: Array) -> _Taps:
    """Return the four texels around each sample position."""
    height, width = texels.shape[-3:-1]
    size = np.array([width, height])
    if lookup.is_cube:
        direction = _flat_uv(lookup)
        face = cube.face_index(direction)
        position = cube.face_coordinates(face, direction) * size - 0.5
    else:
        position = _wrapped(lookup) * size - 0.5
    if lookup.boundary_mode == "clamp":
        position = clip(position, 0.0, size - 1.0)
    corner = np.floor(position.real).astype(np.int64)
    fraction = position - corner
    image = _texture_index(lookup, texels)
    indices, weights = [], []
    for down in range(2):
        for right in range(2):
            column, row = corner[:, 0] + right, corner[:, 1] + down
            indices.append(
                _cube_texel(image, face, column, row, width)
                if lookup.is_cube
                else _flat_texel(image, column, row, (height, width), lookup.boundary_mode)
            )
            weight_x = fraction[:, 0] if right else 1 - fraction[:, 0]
            weight_y = fraction[:, 1] if down else 1 - fraction[:, 1]
            weights.append(weight_x * weight_y)
    taps = _Taps(np.stack(indices, axis=1), np.stack(weights, axis=1))
    return _replace_missing(taps, face >= 0) if lookup.is_cube else taps


def _flat_texel(image: Array, column: Array, row: Array, size: tuple[int, int], boundary: str) -> Array:
    """Return the flat texel index [K] in a minibatch of textures; -1 outside the texture in the mode "zero"."""
    height, width = size
    if boundary == "wrap":
        inside_column, inside_row = column % width, row % height
    else:
        inside_column, inside_row = np.clip(column, 0, width - 1), np.clip(row, 0, height - 1)
    index = (image * height + inside_row) * width + inside_column
    outside = (inside_column != column) | (inside_row != row)
    return np.where(outside & (boundary == "zero"), -1, index)


def _cube_texel(image: Array, face: Array, column: Array, row: Array, size: int) -> Array:
    """Return the flat texel index [K] in a minibatch of cube maps; -1 outside a corner of the cube."""
    face, column, row = cube.wrap_texel(np.where(face >= 0, face, 0), column, row, size)
    return np.where(face >= 0, ((image * 6 + face) * size + row) * size + column, -1)


def _replace_missing(taps: _Taps, valid: Array) -> _Taps:
    """Distribute the weight of a texel that is missing at a corner of the cube equally to the other three texels.

    Samples that are not ``valid`` [K] read no texel.
    """
    missing = taps.indices < 0
    lost = np.sum(np.where(missing, taps.weights, 0), axis=1, keepdims=True)
    weights = np.where(missing, 0, taps.weights + lost / 3)
    return _Taps(np.where(valid[:, None], taps.indices, -1), weights)
