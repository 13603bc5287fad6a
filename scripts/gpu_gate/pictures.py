"""Images of check results, [H, W, 3] uint8, top row first."""

from __future__ import annotations

import numpy as np

from .reference.arrays import Array


def to_image(values: Array) -> Array:
    """Convert values in [0, 1] to an image.

    ``values`` has 1 to 3 channels, [H, W, 1] to [H, W, 3], and row 0 at the bottom, as rasterize() returns it. Missing
    channels repeat the last one.
    """
    channels = [values[..., min(k, values.shape[-1] - 1)] for k in range(3)]
    levels = np.nan_to_num(np.clip(np.stack(channels, axis=-1), 0, 1)) * 255
    return np.ascontiguousarray(np.rint(levels).astype(np.uint8)[::-1])


def barycentrics(rast: Array) -> Array:
    """Show u, v and 1-u-v as red, green and blue; the background is black."""
    u, v = rast[..., 0], rast[..., 1]
    return to_image(np.stack([u, v, 1 - u - v], axis=-1) * (rast[..., 3:] > 0))


def errors(drawn: Array, wrong: Array, tolerated: Array | None = None) -> Array:
    """Show drawn pixels in grey, wrong pixels in red, and tolerated differences in blue; all inputs are [H, W] bool."""
    image = np.repeat(drawn[..., None] * 0.25, 3, axis=-1)
    if tolerated is not None:
        image[tolerated] = (0.2, 0.4, 1.0)
    image[wrong] = (1.0, 0.1, 0.1)
    return to_image(image)
