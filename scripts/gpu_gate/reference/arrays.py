"""Helpers for the complex-step method, with which one function computes both values and derivatives.

Every formula of the reference is analytic in its continuous inputs. For the input `x + i*STEP*d`, the imaginary part of
the result is STEP times the derivative in direction `d`, exact up to rounding. Decisions, such as which pixel is
covered or which texel is read, use only the real part.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

# Its square is negligible beside every value used here, and it is far from underflow.
STEP = 1e-40


def as_float(values: Any) -> Array:
    """Return the values as float64, or unchanged if they are complex."""
    array = np.asarray(values)
    return array if np.iscomplexobj(array) else array.astype(np.float64)


def clip(values: Array, low: Any, high: Any) -> Array:
    """Clamp values to [low, high]; a clamped value has no derivative. NaN becomes ``low``, as on the device."""
    kept = np.where(values.real > low, values, low)
    return np.where(kept.real > high, high, kept)


def magnitude(values: Array) -> Array:
    """Return the absolute value; it has a derivative except at 0."""
    return np.where(values.real < 0, -values, values)


def derivative(values: Array) -> Array:
    """Return the derivative that a complex-step result carries."""
    return np.imag(values) / STEP
