"""A reference implementation of custom_rasterizer's pixels: a loop over triangles, written from the description."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
EMPTY = np.iinfo(np.int64).max
ONE, HALF = np.float32(1), np.float32(0.5)


def project(vertices: Floats, width: int, height: int) -> Floats:
    """Return x and y in pixels and the depth, [N, 3]."""
    x, y, z, w = vertices.T
    with np.errstate(all="ignore"):
        across = ((x / w) * HALF + HALF) * np.float32(width - 1) + HALF
        down = (HALF + (HALF * y) / w) * np.float32(height - 1) + HALF
        return np.stack([across, down, (z / w) * np.float32(0.49999) + HALF], axis=1)


def barycentrics(corners: Floats, px: Floats, py: Floats) -> Floats | None:
    """Return alpha, beta and gamma at samples, [..., 3], or None if the triangle has no area."""

    def area(a, b, c):  # type: ignore[no-untyped-def]
        return (c[0] - a[0]) * (b[1] - a[1]) - (b[0] - a[0]) * (c[1] - a[1])

    a, b, c = corners
    whole = area(a, b, c)
    if whole == 0 or not np.isfinite(whole):
        return None
    inverse = ONE / whole
    beta = area(a, (px, py), c) * inverse
    gamma = area(a, b, (px, py)) * inverse
    alpha = (1.0 - beta.astype(np.float64) - gamma).astype(np.float32)
    return np.stack([alpha, beta, gamma], axis=-1)


def rasterize(
    vertices: Floats, faces: npt.NDArray[np.int32], width: int, height: int, prior: Floats | None = None
) -> tuple[npt.NDArray[np.int32], Floats, Ints]:
    """Return ids [H, W], barycentrics [H, W, 3] and quantized depths [H, W]."""
    screen = project(vertices, width, height)
    buffer = np.full((height, width), EMPTY)
    least = np.zeros((height, width), np.float32)
    if prior is not None:
        least = prior.reshape(height, width) * np.float32(0.49999) + HALF + np.float32(1e-6)
    for number, face in enumerate(faces):
        _draw(screen[face], number + 1, buffer, least)
    ids, found = np.zeros((height, width), np.int32), np.zeros((height, width, 3), np.float32)
    for row, column in np.argwhere(buffer != EMPTY):
        number = buffer[row, column] & 0xFFFFFFFF
        face = faces[number - 1]
        at = np.float32(column) + HALF, np.float32(row) + HALF
        flat = barycentrics(screen[face], *at)
        assert flat is not None
        divided = flat / vertices[face, 3]
        found[row, column] = divided * (ONE / (divided[0] + divided[1] + divided[2]))
        ids[row, column] = number
    return ids, found, buffer >> 32


def _draw(corners: Floats, number: int, buffer: Ints, least: Floats) -> None:
    if not np.isfinite(corners).all():
        return
    height, width = buffer.shape
    low, high = np.trunc(corners[:, :2].min(0)), corners[:, :2].max(0) + ONE
    left, top = (int(max(0, min(value, 2**20))) for value in low)
    columns = np.arange(left, width, dtype=np.float32)
    rows = np.arange(top, height, dtype=np.float32)
    columns, rows = columns[columns < high[0]], rows[rows < high[1]]
    if not len(columns) or not len(rows):
        return
    flat = barycentrics(corners, columns[None] + HALF, rows[:, None] + HALF)
    if flat is None:
        return
    here = np.s_[top : top + len(rows), left : left + len(columns)]
    depth = flat[..., 0] * corners[0, 2] + flat[..., 1] * corners[1, 2] + flat[..., 2] * corners[2, 2]
    drawn = ((flat >= 0) & (flat <= 1)).all(axis=-1) & (depth >= least[here])
    key = (np.trunc(np.where(drawn, depth, 0) * np.float32(1 << 18)).astype(np.int64) << 32) | number
    buffer[here] = np.minimum(buffer[here], np.where(drawn, key, EMPTY))
