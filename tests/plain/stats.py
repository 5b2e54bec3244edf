"""Means, variances and QC as docs/reference/preprocessing.md says, in NumPy float64 and Python ints."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np


def exact_moments(dense: Any) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance (ddof 1) of every column of integers, each rounded once."""
    n = len(dense)
    means, variances = [], []
    for column in np.asarray(dense).T:
        values = [int(v) for v in column]
        s, q = sum(values), sum(v * v for v in values)
        means.append(float(Fraction(s, n)) if n else 0.0)
        variances.append(float(Fraction(n * q - s * s, n * (n - 1))) if n > 1 else 0.0)
    return np.array(means), np.array(variances)


def moments(dense: Any) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance (ddof 1) of every column, in two passes about the first row."""
    x = np.asarray(dense, dtype=np.float64)
    if len(x) == 0:
        return np.zeros(x.shape[1]), np.zeros(x.shape[1])
    shifted = x - x[0]
    mean = shifted.mean(axis=0)
    squares = ((shifted - mean) ** 2).sum(axis=0)
    return x[0] + mean, squares / (len(x) - 1) if len(x) > 1 else np.zeros(x.shape[1])


def qc_of_cells(
    dense: Any, tops: tuple[int, ...], flags: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Columns of obs."""
    x = np.asarray(dense, dtype=np.float64)
    total = x.sum(axis=1)
    n_genes = (x != 0).sum(axis=1)
    out = {
        "n_genes_by_counts": n_genes,
        "log1p_n_genes_by_counts": np.log1p(n_genes),
        "total_counts": total,
        "log1p_total_counts": np.log1p(total),
    }
    descending = -np.sort(-x, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        for k in tops:
            out[f"pct_counts_in_top_{k}_genes"] = 100 * descending[:, :k].sum(axis=1) / total
        for name, flag in flags.items():
            part = x[:, flag].sum(axis=1)
            out[f"total_counts_{name}"] = part
            out[f"log1p_total_counts_{name}"] = np.log1p(part)
            out[f"pct_counts_{name}"] = 100 * part / total
    return out


def qc_of_genes(dense: Any) -> dict[str, np.ndarray]:
    """Columns of var."""
    x = np.asarray(dense, dtype=np.float64)
    n_cells = (x != 0).sum(axis=0)
    mean, total = x.sum(axis=0) / len(x), x.sum(axis=0)
    return {
        "n_cells_by_counts": n_cells,
        "mean_counts": mean,
        "log1p_mean_counts": np.log1p(mean),
        "pct_dropout_by_counts": 100 * (1 - n_cells / len(x)),
        "total_counts": total,
        "log1p_total_counts": np.log1p(total),
    }


def is_outlier(values: Any, nmads: float, side: str, *, log: bool, batch: Any) -> np.ndarray:
    """Far from the median of the batch, in median absolute deviations."""
    v = np.log(values) if log else np.asarray(values, dtype=np.float64)
    out = np.zeros(len(v), dtype=bool)
    for label in set(batch):
        rows = np.flatnonzero(np.asarray(batch) == label)
        centre = np.median(v[rows])
        spread = 1.4826 * np.median(np.abs(v[rows] - centre))
        if side != "higher":
            out[rows] |= v[rows] < centre - nmads * spread
        if side != "lower":
            out[rows] |= v[rows] > centre + nmads * spread
    return out
