"""preprocessing.md 6.1 and 7 in NumPy and exact rationals."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np


def exact_moments(column: np.ndarray) -> tuple[float, float]:
    """Mean and variance (ddof 1), each rounded once; n = 1 gives 0."""
    values = [Fraction(float(v)) for v in column]
    n = len(values)
    mean = sum(values, Fraction(0)) / n
    if n == 1:
        return float(mean), 0.0
    return float(mean), float(sum(((v - mean) ** 2 for v in values), Fraction(0)) / (n - 1))


def moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    pairs = [exact_moments(x[:, g]) for g in range(x.shape[1])]
    return np.array([m for m, _ in pairs]), np.array([v for _, v in pairs])


def scale(
    x: np.ndarray,
    mean: np.ndarray,
    std: np.ndarray,
    *,
    zero_center: bool = True,
    max_value: float = math.inf,
    mask: np.ndarray | None = None,
) -> np.ndarray:
    """y from given mean and std; float64 stays, everything else becomes float32."""
    wide = x.astype(np.float64)
    y = (wide - (mean if zero_center else 0.0)) / std
    y[y > max_value] = max_value
    if zero_center:
        y[y < -max_value] = -max_value
    if mask is not None:
        y[~mask] = wide[~mask]
    return y.astype(np.float64 if x.dtype == np.float64 else np.float32)
