"""Pearson residuals and Poisson zeros of every entry, dense: preprocessing.md 11 and 12."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]


def residuals(counts: F64, theta: float = 100, clip: float | None = None) -> F64:
    """Clipped residuals, 0 where nothing is expected."""
    expected = counts.sum(axis=1, keepdims=True) * counts.sum(axis=0) / counts.sum()
    spread = np.sqrt(expected + expected**2 / theta)
    limit = np.sqrt(len(counts)) if clip is None else clip
    with np.errstate(invalid="ignore"):
        return np.clip(np.where(expected > 0, (counts - expected) / spread, 0), -limit, limit)


def residual_variances(counts: F64, theta: float = 100, clip: float | None = None) -> F64:
    """Population variance of every gene's residuals."""
    return np.where(counts.sum(axis=0) > 0, residuals(counts, theta, clip).var(axis=0), 0)


def poisson_enrichment(counts: F64) -> tuple[F64, F64, F64]:
    """Observed and expected share of zeros, and their product p_obs (1 - p_exp)."""
    expected = counts.sum(axis=1, keepdims=True) * counts.sum(axis=0) / counts.sum()
    observed, absent = (counts == 0).mean(axis=0), np.exp(-expected).mean(axis=0)
    return observed, absent, observed * (1 - absent)
