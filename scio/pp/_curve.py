"""The curve of detected genes against size factors, fitted without help of a library's exponentials."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_LN2 = 0.6931471805599453
_MAX_STEPS = 200
_N_WEIGHTINGS = 3

Floats = NDArray[np.float64]


def fit_curve(x: Floats, y: Floats) -> tuple[float, float] | None:
    """(A, B) of y = A x / (B x + 1), or None."""
    if len(x) < 3:
        return None
    lower = x < np.median(x)
    squares = math.fsum(x[lower] * x[lower])
    slope = math.fsum(x[lower] * y[lower]) / squares if squares > 0 else 0.0
    below = np.flatnonzero(y < slope * x)
    if not len(below):
        return None
    top = below[np.argmax(y[below])]
    at = (log_of(np.array(slope)), log_of(np.array(slope / y[top] - 1 / x[top])))
    point = (float(at[0]), float(at[1]))
    log_ratio = log_of(y) - log_of(x)
    weights = np.ones(len(x))
    for i in range(_N_WEIGHTINGS + 1):
        found = _minimise(point, x, log_ratio, weights)
        if found is None:
            return None
        point = found
        if i < _N_WEIGHTINGS:
            residuals = np.abs(_residuals(point, x, log_ratio))
            width = max(1e-8, 3 * float(np.median(residuals)))
            u = np.minimum(residuals / width, 1)
            t = 1 - u * u * u
            weights = t * t * t
    return exp_of(point[0]), exp_of(point[1])


def _residuals(point: tuple[float, float], x: Floats, log_ratio: Floats) -> Floats:
    residuals: Floats = log_ratio - point[0] + log_of(x * exp_of(point[1]) + 1)
    return residuals


def _minimise(
    point: tuple[float, float], x: Floats, log_ratio: Floats, weights: Floats
) -> tuple[float, float] | None:
    """Gauss-Newton with step halving; None when it does not come to rest."""
    residuals = _residuals(point, x, log_ratio)
    loss = math.fsum(weights * residuals * residuals)
    for _ in range(_MAX_STEPS):
        step = _step(point, x, residuals, weights)
        if step is None:
            return None
        while True:
            after = (point[0] + step[0], point[1] + step[1])
            is_small = max(map(abs, step)) <= 1e-12 * max(map(abs, after))
            if max(map(abs, after)) < 500:
                residuals = _residuals(after, x, log_ratio)
                new_loss = math.fsum(weights * residuals * residuals)
                if new_loss <= loss or is_small:
                    break
            elif is_small:
                return None
            step = (step[0] / 2, step[1] / 2)
        if new_loss <= loss:
            point, loss = after, new_loss
        if is_small:
            return point
    return None


def _step(
    point: tuple[float, float], x: Floats, residuals: Floats, weights: Floats
) -> tuple[float, float] | None:
    """Solve the two normal equations."""
    grown = x * exp_of(point[1])
    slope = -grown / (grown + 1)
    a, b = math.fsum(weights), math.fsum(weights * slope)
    c = math.fsum(weights * slope * slope)
    p, q = math.fsum(weights * residuals), math.fsum(weights * slope * residuals)
    determinant = a * c - b * b
    if not determinant > 1e-14 * a * c:
        return None
    return (c * p - b * q) / determinant, (a * q - b * p) / determinant


def log_of(x: Floats) -> Floats:
    """Natural logarithm of positive doubles by sums, products and quotients only."""
    mantissa, exponent = np.frexp(x)
    is_low = mantissa < 0.7071067811865476
    mantissa = np.where(is_low, 2 * mantissa, mantissa)
    f = (mantissa - 1) / (mantissa + 1)
    z = f * f
    total = np.zeros_like(z)
    for odd in range(23, 1, -2):  # 2 atanh f; f^2 < 0.0295
        total = (total + 2.0 / odd) * z
    result: Floats = (exponent - is_low) * _LN2 + (2 * f + f * total)
    return result


def exp_of(x: float) -> float:
    """Exponential of a double below 700 in magnitude, likewise."""
    n = round(x / _LN2)
    r = (x - n * 0.693147180369123816490) - n * 1.90821492927058770002e-10  # ln 2 in two parts
    total = 1.0
    for k in range(17, 0, -1):
        total = 1.0 + total * r / k
    return math.ldexp(total, n)
