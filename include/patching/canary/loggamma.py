"""Logarithm of the gamma function over arrays: NumPy has none, and the judge must not need SciPy."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
"""Array of float64; the axes are said where it is used."""

_SHIFT = 8
_HALF_LOG_2PI = 0.9189385332046727


def log_gamma(x: Any) -> Floats:
    """Give ln Γ(x) for x > 0, element by element, to about 1e-12 relative.

    Stirling's series (Abramowitz and Stegun 6.1.41) from x + 8 on, brought down by the recurrence Γ(x+1) = x·Γ(x).
    """
    value = np.asarray(x, dtype=np.float64)
    product = value * (value + 1.0)
    for step in range(2, _SHIFT):
        product = product * (value + step)
    high = value + _SHIFT
    inverse = 1.0 / high
    square = inverse * inverse
    series = inverse * (1 / 12 - square * (1 / 360 - square * (1 / 1260 - square / 1680)))
    answer: Floats = (high - 0.5) * np.log(high) - high + _HALF_LOG_2PI + series - np.log(product)
    return answer
