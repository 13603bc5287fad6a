"""How alike two pictures are."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nv_diff_render.shading import SKY

# What a picture must reach to count as equal.
MAX_MSE, MIN_PSNR, MIN_GEOMETRY = 0.001, 40.0, 0.99


@dataclass(frozen=True)
class Metrics:
    """Of values in [0, 1]: mean squared error, 10 log10(1 / MSE) in dB, largest difference; the share of pixels where
    both have a block or both the sky; and how many pixels differ at all.
    """

    mse: float
    psnr: float
    max_error: float
    geometry_match: float
    different: int

    @property
    def good(self) -> bool:
        """Whether it reaches the bars."""
        return self.mse < MAX_MSE and self.psnr > MIN_PSNR and self.geometry_match > MIN_GEOMETRY


def compare(
    picture: npt.NDArray[np.uint8], truth: npt.NDArray[np.uint8], coverage: npt.NDArray[np.bool_] | None = None
) -> Metrics:
    """Compare pictures uint8 <H,W,3>; ``coverage`` <H,W> tells where the first has blocks, else its colours do.

    A picture has no coverage of its own: what has exactly the sky's colour counts as sky.
    """
    if picture.shape != truth.shape:
        raise ValueError(f"the pictures have {picture.shape} and {truth.shape}: expected the same")
    difference = np.abs(picture.astype(np.float64) - truth) / 255
    mse = float((difference**2).mean())
    if coverage is None:
        coverage = _covered(picture)
    return Metrics(
        mse,
        math.inf if mse == 0 else 10 * math.log10(1 / mse),
        float(difference.max()),
        float((coverage == _covered(truth)).mean()),
        int(difference.any(axis=2).sum()),
    )


def _covered(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    covered: npt.NDArray[np.bool_] = (picture != np.rint(np.array(SKY) * 255)).any(axis=2)
    return covered
