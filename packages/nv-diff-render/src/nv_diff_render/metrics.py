"""Comparison of two pictures."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nv_diff_render.shading import SKY

# Limits of the validation; see Metrics.good.
MAX_MSE, MIN_PSNR, MIN_GEOMETRY = 0.001, 40.0, 0.99


@dataclass(frozen=True)
class Metrics:
    """The result of a comparison of values in [0, 1].

    mse: mean squared error. psnr: 10 log10(1 / mse) in dB. max_error: largest difference. geometry_match: the fraction
    of pixels where both pictures show a block or both show the sky. different: the number of pixels with any
    difference.
    """

    mse: float
    psnr: float
    max_error: float
    geometry_match: float
    different: int

    @property
    def good(self) -> bool:
        """Whether the picture passes the validation."""
        return self.mse < MAX_MSE and self.psnr > MIN_PSNR and self.geometry_match > MIN_GEOMETRY


def compare(
    picture: npt.NDArray[np.uint8], truth: npt.NDArray[np.uint8], coverage: npt.NDArray[np.bool_] | None = None
) -> Metrics:
    """Compare pictures uint8 [H, W, 3].

    ``coverage`` [H, W] marks the pixels of the first picture that show blocks. Without it, and for ``truth``, every
    pixel that does not have exactly the colour of the sky counts as a block.
    """
    if picture.shape != truth.shape:
        raise ValueError(f"expected pictures of the same shape, found {list(picture.shape)} and {list(truth.shape)}")
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
