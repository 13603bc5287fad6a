"""Helpers that let one function serve values and derivatives.

Every formula here is analytic in its continuous inputs, so feeding it `x + i*STEP*d` and reading the imaginary part
gives the derivative along `d` exact to rounding (the complex step). Decisions, such as which pixel or which texel, look
at the real part alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

# Squares of it vanish beside any value met here, and it is far from underflow itself.
STEP = 1e-40


def numbers(values: Any) -> Array:
    """The values as float64, or as complex128 where they carry a derivative."""
    array = np.asarray(values)
    return array if np.iscomplexobj(array) else array.astype(np.float64)


def clip(values: Array, low: Any, high: Any) -> Array:
    """The values limited to [low, high]; a limited value has no derivative. NaN goes to `low`, as on the device."""
    kept = np.where(values.real > low, values, low)
    return np.where(kept.real > high, high, kept)


def magnitude(values: Array) -> Array:
    """The absolute value, which has a derivative other than at 0."""
    return np.where(values.real < 0, -values, values)


def derivative(values: Array) -> Array:
    """What the complex step left in a result."""
    return np.imag(values) / STEP
