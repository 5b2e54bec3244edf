"""Pooled size factors in NumPy float64, slowly and plainly, from section 14 of the specification."""

from __future__ import annotations

import numpy as np


def pooled_size_factors(
    x,
    clusters=None,
    sizes=range(21, 102, 5),
    max_cluster_size=3000,
    min_mean=None,
    positive=True,
    solve=None,
):
    """Factors of a dense matrix of counts, shape (n_cells, n_genes)."""
    x = np.asarray(x, dtype=np.float64)
    n_cells = len(x)
    labels = np.zeros(n_cells, int) if clusters is None else np.asarray(clusters)
    if min_mean is None:
        min_mean = 1.0 if np.median(x.sum(1)) >= 1e5 else 0.1
    parts = list(split(labels, max_cluster_size))
    factors, averages = np.empty(n_cells), []
    for cells in parts:
        factors[cells], average = one_cluster(x[cells], sizes, min_mean, positive, solve)
        averages.append(average)
    reference = averages[int(np.argmax([(a > 0).sum() for a in averages]))]
    for cells, average in zip(parts, averages, strict=True):
        factors[cells] *= rescaling(average, reference, min_mean)
    return factors / factors[factors > 0].mean()


def split(labels, largest):
    """Cells of each cluster in order of appearance, the large ones dealt round."""
    for label in dict.fromkeys(labels.tolist()):
        cells = np.flatnonzero(labels == label)
        n_parts = 1 if largest is None else -(-len(cells) // largest)
        for i in range(n_parts):
            yield cells[i::n_parts]


def ring_of(totals):
    """Small cells, ever larger ones, and down again by the others."""
    order = np.argsort(totals, kind="stable")
    return np.concatenate([order[0::2], order[1::2][::-1]])


def one_cluster(x, sizes, min_mean, positive, solve=None):
    n = len(x)
    totals = x.sum(1)
    scaled = x / totals[:, None]
    average = scaled.mean(0) * totals.mean()
    kept = average >= min_mean
    sizes = [s for s in sizes if s <= n]
    if not sizes or not kept.any():
        return totals.copy(), average
    ring = ring_of(totals)
    ratios = (scaled / np.where(kept, average, 1))[:, kept][ring]
    medians = pool_medians(ratios, sizes)
    factors = np.empty(n)
    factors[ring] = (solve or solve_dense)(medians, sizes, 1 / average[kept].sum())
    factors *= totals
    if positive and (factors < 0).any():
        factors = clean_size_factors(factors, (x[:, kept] > 0).sum(1))
    return factors, average


def pool_medians(ratios, sizes):
    """Median over genes of the sums of `s` consecutive rows of the ring; shape (n_sizes, n)."""
    n = len(ratios)
    out = np.empty((len(sizes), n))
    for i, s in enumerate(sizes):
        for w in range(n):
            out[i, w] = np.median(ratios[np.arange(w, w + s) % n].sum(0))
    return out


def solve_dense(medians, sizes, weak):
    """Least squares of the equations as they stand."""
    n = medians.shape[1]
    rows = [np.eye(n) * 1e-3]
    for s in sizes:
        block = np.zeros((n, n))
        for w in range(n):
            block[w, np.arange(w, w + s) % n] = 1
        rows.append(block)
    right = np.concatenate([np.full(n, weak * 1e-3), medians.ravel()])
    return np.linalg.lstsq(np.concatenate(rows), right, rcond=None)[0]


def solve_fft(medians, sizes, weak):
    """The same by NumPy's transform: the equations are a stack of circulants."""
    n = medians.shape[1]
    upper = 1e-6 * np.fft.fft(np.full(n, weak))
    lower = np.full(n, 1e-6)
    for s, b in zip(sizes, medians, strict=True):
        box = np.conj(np.fft.fft(np.r_[np.ones(s), np.zeros(n - s)]))
        upper = upper + np.conj(box) * np.fft.fft(b)
        lower += np.abs(box) ** 2
    return np.fft.ifft(upper / lower).real


def rescaling(average, reference, min_mean):
    """What factors of a cluster are multiplied by to match those of the reference."""
    mine, theirs = average.sum(), reference.sum()
    used = (average / mine + reference / theirs) / 2 * ((mine + theirs) / 2) >= min_mean
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = average[used] / reference[used]
    ratios = ratios[~np.isnan(ratios)]
    ratio = np.median(ratios) if len(ratios) else np.nan
    return ratio if np.isfinite(ratio) and ratio > 0 else mine / theirs


def clean_size_factors(factors, detected):
    """What is not positive, by the curve of detected genes against factors."""
    factors = np.asarray(factors, dtype=np.float64).copy()
    detected = np.asarray(detected, dtype=np.float64)
    good = factors > 0
    x, y = factors[good], detected[good]
    if good.all():
        return factors
    fitted = fit_curve(x, y) if len(x) >= 3 else None
    if fitted is None:
        factors[~good] = x.min()
        return factors
    alpha, beta = fitted
    d = detected[~good]
    with np.errstate(divide="ignore"):
        new = d / (np.exp(alpha) - np.exp(beta) * d)
    factors[~good] = np.where(new < 0, x.max(), new)
    return factors


def fit_curve(x, y):
    lower = x < np.median(x)
    slope = (x[lower] * y[lower]).sum() / (x[lower] ** 2).sum()
    below = np.flatnonzero(y < slope * x)
    if not len(below):
        return None
    top = below[np.argmax(y[below])]
    b = slope / y[top] - 1 / x[top]
    if not b > 0:
        return None
    p = np.log([slope, b])

    def residual(p):
        return np.log(y) - (p[0] + np.log(x) - np.log(x * np.exp(p[1]) + 1))

    weights = np.ones(len(x))
    for _ in range(4):
        for _ in range(200):
            r = residual(p)
            grow = x * np.exp(p[1])
            jacobian = (
                np.stack([np.ones(len(x)), -grow / (grow + 1)], 1) * np.sqrt(weights)[:, None]
            )
            step = np.linalg.lstsq(jacobian, r * np.sqrt(weights), rcond=None)[0]
            size = 1.0
            while (weights * residual(p + size * step) ** 2).sum() > (
                weights * r**2
            ).sum() and size > 1e-9:
                size /= 2
            p = p + size * step
            if np.abs(size * step).max() < 1e-12 * np.abs(p).max():
                break
        r = np.abs(residual(p))
        weights = (1 - np.minimum(r / max(1e-8, 3 * np.median(r)), 1) ** 3) ** 3
    return p
