"""preprocessing.md 4 and 5 in NumPy, on dense float64 matrices, one cell after the other."""

from __future__ import annotations

import math

import numpy as np


def total_of(row: np.ndarray) -> float:
    """Integers exactly; else what the loader does: eight lanes over the values that are not 0."""
    kept = row[row != 0].astype(np.float64)
    if np.all(kept == np.floor(kept)):
        return float(sum(int(v) for v in row))
    lanes = [0.0] * 8
    n_whole = len(kept) // 8 * 8
    for i in range(n_whole):
        lanes[i % 8] += float(kept[i])
    for i in range(n_whole, len(kept)):
        lanes[i - n_whole] += float(kept[i])
    a, b, c, d, e, f, g, h = lanes
    return ((a + b) + (c + d)) + ((e + f) + (g + h))


def totals_of(x: np.ndarray, left_out: np.ndarray | None = None) -> np.ndarray:
    kept = x if left_out is None else np.where(left_out, 0, x)
    return np.array([total_of(row) for row in kept])


def median_target(totals: np.ndarray) -> float:
    return float(np.median(totals[totals != 0]))


def high_genes(x: np.ndarray, totals: np.ndarray, max_fraction: float) -> np.ndarray:
    return np.any(x.astype(np.float64) > max_fraction * totals[:, None], axis=0)


def normalize(
    x: np.ndarray, target: float | None = None, max_fraction: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(y, total / target); float64 stays, everything else becomes float32."""
    totals = totals_of(x)
    if max_fraction is not None:
        totals = totals_of(x, high_genes(x, totals, max_fraction))
    target = median_target(totals) if target is None else float(target)
    out = np.empty(x.shape, dtype=np.float64 if x.dtype == np.float64 else np.float32)
    for c, total in enumerate(totals):
        factor = 1.0 if total == 0 else target / total
        out[c] = (x[c].astype(np.float64) * factor).astype(out.dtype)
    return out, totals / target


def exact_log1p(x: np.ndarray, base: float | None = None) -> np.ndarray:
    """ln(1 + x) in extended precision, to be compared by units of the last place."""
    logs = np.log1p(x.astype(np.longdouble))
    return logs if base is None else logs / np.log(np.longdouble(base))


def ulps(got: np.ndarray, exact: np.ndarray) -> float:
    """Largest distance in units of the last place of `got`'s type."""
    if got.size == 0:
        return 0.0
    spacing = np.spacing(np.abs(exact).astype(got.dtype)).astype(np.longdouble)
    return float(np.max(np.abs(got.astype(np.longdouble) - exact) / spacing))


def pow2(k: int) -> float:
    return math.ldexp(1.0, k)
