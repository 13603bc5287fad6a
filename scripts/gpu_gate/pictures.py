"""Small pictures of what a check saw, as <H,W,3> uint8, the top row first."""

from __future__ import annotations

import numpy as np

from .reference.arrays import Array


def shown(values: Array) -> Array:
    """A picture of values in [0,1] <H,W,1 to 3>, whose row 0 is at the bottom."""
    channels = [values[..., min(k, values.shape[-1] - 1)] for k in range(3)]
    levels = np.nan_to_num(np.clip(np.stack(channels, axis=-1), 0, 1)) * 255
    return np.ascontiguousarray(np.rint(levels).astype(np.uint8)[::-1])


def barycentrics(rast: Array) -> Array:
    """u, v and 1-u-v as red, green and blue, black where nothing is drawn."""
    u, v = rast[..., 0], rast[..., 1]
    return shown(np.stack([u, v, 1 - u - v], axis=-1) * (rast[..., 3:] > 0))


def errors(drawn: Array, wrong: Array, open_: Array | None = None) -> Array:
    """Grey where something is drawn, red where it is wrong, blue where it differs within what is allowed."""
    picture = np.repeat(drawn[..., None] * 0.25, 3, axis=-1)
    if open_ is not None:
        picture[open_] = (0.2, 0.4, 1.0)
    picture[wrong] = (1.0, 0.1, 0.1)
    return shown(picture)


def magnified(picture: Array, rows: slice, columns: slice, times: int = 8) -> Array:
    """A part of a picture with every pixel as a square."""
    return np.ascontiguousarray(picture[rows, columns].repeat(times, axis=0).repeat(times, axis=1))
