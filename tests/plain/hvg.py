"""Gene selection on dense float64 matrices, a gene at a time: preprocessing.md 8 to 12.

Returns dicts of columns.  Means and variances are NumPy's of two passes; orders are Python's `sorted`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.plain.loess import loess
from tests.plain.residuals import poisson_enrichment, residual_variances

F64 = NDArray[np.float64]


def moments(values: F64) -> tuple[F64, F64]:
    """Mean and variance (ddof 1); integers by exact sums, as section 6 asks."""
    if np.array_equal(values, np.rint(values)):
        whole = values.astype(np.int64).astype(object)
        n, s, q = len(whole), whole.sum(axis=0), (whole * whole).sum(axis=0)
        variances = [(n * b - a * a) / (n * (n - 1)) for a, b in zip(s, q, strict=True)]
        return np.array([a / n for a in s], dtype=float), np.array(variances, dtype=float)
    return values.mean(axis=0), values.var(axis=0, ddof=1)


def order_of(*keys: Sequence[float] | F64) -> list[int]:
    """Genes by the keys, each descending with NaN last, then by index."""

    def place(gene: int) -> tuple[Any, ...]:
        values = [float(key[gene]) for key in keys]
        return (*[(math.isnan(v), -v if v == v else 0.0) for v in values], gene)

    return sorted(range(len(keys[0])), key=place)


def top(order: list[int], k: int) -> NDArray[np.bool_]:
    """Mask of the first k."""
    chosen = np.zeros(len(order), dtype=bool)
    chosen[order[:k]] = True
    return chosen


def seurat_v3_norms(counts: F64, span: float = 0.3) -> F64:
    """Standardised variance of one batch."""
    n = len(counts)
    mean, variance = moments(counts)
    varies = variance > 0
    norms = np.zeros(counts.shape[1])
    if not varies.any():
        return norms
    spread = np.sqrt(10 ** loess(np.log10(mean[varies]), np.log10(variance[varies]), span))
    limits = spread * np.sqrt(n) + mean[varies]
    clipped = np.minimum(counts[:, varies], limits)
    squares = ((clipped - mean[varies]) ** 2).sum(axis=0) / (n - 1)
    # so that equal statistics tie exactly
    is_clipped = counts[:, varies].max(axis=0) > limits
    norms[varies] = np.where(is_clipped, squares, variance[varies]) / spread**2
    return norms


def by_ranks(scores: F64, k: int, *, median_first: bool) -> dict[str, F64 | NDArray[np.bool_]]:
    """Combine scores (n_batches, n_genes), larger is better."""
    ranks = np.empty(scores.shape)
    for b, row in enumerate(scores):
        ranks[b, order_of(row)] = np.arange(len(row))
    n_top = (ranks < k).sum(axis=0)
    kept = [[r for r in column if r < k] for column in ranks.T]
    median = np.array([np.median(c) if c else np.nan for c in kept])
    keys = (-median, n_top) if median_first else (n_top, -median)
    return {"rank": median, "nbatches": n_top, "chosen": top(order_of(*keys), k)}


def seurat_v3(batches: list[F64], k: int, *, paper: bool = False) -> dict[str, Any]:
    """Flavours seurat_v3 and seurat_v3_paper."""
    scores = np.stack([seurat_v3_norms(b) for b in batches])
    return by_ranks(scores, k, median_first=not paper) | {"norm": scores.mean(axis=0)}


def pearson(batches: list[F64], k: int, theta: float = 100) -> dict[str, Any]:
    """Flavour pearson_residuals."""
    scores = np.stack([residual_variances(b, theta) for b in batches])
    return by_ranks(scores, k, median_first=False) | {"norm": scores.mean(axis=0)}


def poisson(batches: list[F64], k: int) -> dict[str, Any]:
    """Flavour poisson_gene_selection."""
    found = np.stack([poisson_enrichment(b) for b in batches])
    n_genes = found.shape[2]
    ranks = np.empty((len(batches), n_genes))
    for b, row in enumerate(found[:, 2]):
        ranks[b, order_of(row)] = n_genes - 1 - np.arange(n_genes)
    n_top = (ranks >= n_genes - k).sum(axis=0)
    median = np.median(ranks, axis=0)
    observed, expected, enrichment = np.median(found, axis=0)
    return {
        "observed": observed,
        "expected": expected,
        "norm": enrichment,
        "rank": median,
        "nbatches": n_top,
        "chosen": top(order_of(n_top, median), k),
    }


def dispersion_columns(values: F64, flavor: str, n_bins: int = 20) -> tuple[F64, F64, F64]:
    """Abscissa, dispersion and normalised dispersion of one batch of logged values."""
    mean, variance = moments(np.expm1(values) if flavor == "seurat" else values)
    mean = np.where(mean == 0, 1e-12, mean)
    dispersion = variance / mean
    if flavor == "seurat":
        with np.errstate(divide="ignore"):
            dispersion = np.where(dispersion == 0, np.nan, np.log(dispersion))
        mean = np.log1p(mean)
        low, high = mean.min(), mean.max()
        edges = np.linspace(low, high, n_bins + 1)
        edges[0] -= (high - low) / 1000
        if low == high:
            wider = 0.001 * abs(low) if low else 0.001
            edges = np.linspace(low - wider, high + wider, n_bins + 1)
    else:
        inner = sorted(set(np.percentile(mean, np.arange(10, 105, 5))))
        edges = np.array([-np.inf, *inner, np.inf])
    norm = np.full(len(mean), np.nan)
    for low, high in itertools.pairwise(edges):
        inside = (mean > low) & (mean <= high)
        known = dispersion[inside & ~np.isnan(dispersion)]
        if known.size == 0:
            continue
        if flavor == "seurat":
            is_alone = known.size == 1
            # equal values have no spread, whatever their mean is rounded to
            equal = known.min() == known.max()
            centre = 0.0 if is_alone else known[0] if equal else known.mean()
            spread = known[0] if is_alone else 0.0 if equal else known.std(ddof=1)
        else:
            centre = np.median(known)
            spread = np.median(np.abs(known - centre)) / 0.6744897501960817
        with np.errstate(invalid="ignore", divide="ignore"):
            norm[inside] = (dispersion[inside] - centre) / spread
        if flavor == "cell_ranger":
            norm[inside & (dispersion == centre)] = 0
    return mean, dispersion, norm


def by_dispersion(batches: list[F64], k: int, flavor: str) -> dict[str, Any]:
    """Flavours seurat and cell_ranger with n_top_genes, over several batches."""
    n_genes = batches[0].shape[1]
    found, n_top = np.zeros((3, len(batches), n_genes)), np.zeros(n_genes)
    for b, values in enumerate(batches):
        some = (values > 0).any(axis=0)
        found[:, b, some] = dispersion_columns(values[:, some], flavor)
        norm = found[2, b, some]
        order = [g for g in order_of(norm) if not math.isnan(norm[g])]
        n_top[np.flatnonzero(some)[order[:k]]] += 1
    columns = []
    for table in found:
        known = [[v for v in column if not math.isnan(v)] for column in table.T]
        columns.append(np.array([np.mean(c) if c else np.nan for c in known]))
    norm = columns[2]
    order = [g for g in order_of(n_top, norm) if not math.isnan(norm[g])]
    chosen = np.zeros(n_genes, dtype=bool)
    chosen[order[:k]] = True
    return {
        "means": columns[0],
        "dispersions": columns[1],
        "norm": norm,
        "nbatches": n_top,
        "chosen": chosen,
    }
