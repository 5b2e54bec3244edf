"""Loess in one dimension as R runs it (gaussian family, interpolated surface): preprocessing.md 13.

Slow and plain: one function per numbered point of the page, NumPy in float64, LAPACK's SVD.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]


def vertices(x: F64, span: float) -> F64:
    """Both ends of the box and every cut, ascending; `x` sorted, one entry a point (13.2 to 13.4)."""
    n = x.size
    leaf = int(np.floor(n * span * 0.2))
    margin = 0.005 * max(x[-1] - x[0], 1e-10 * np.abs(x).max() + 1e-30)
    found = [x[0] - margin, x[-1] + margin]
    cells = [(1, n, found[0], found[1])]
    while cells:
        lower, upper, left, right = cells.pop()
        if upper - lower + 1 <= leaf:
            continue
        middle = (lower + upper) // 2
        for step in range(n + 1):
            tried = [middle + step, middle - step]
            inside = [m for m in tried if lower <= m < upper]
            if len(inside) < 2 and step:  # the first that leaves the cell ends the search
                if tried[0] < upper and x[tried[0] - 1] != x[tried[0]]:
                    middle = tried[0]
                break
            apart = [m for m in inside if x[m - 1] != x[m]]
            if apart:
                middle = apart[0]
                break
        cut = x[middle - 1]
        if cut in (left, right):
            continue
        found.append(cut)
        cells += [(lower, middle, left, cut), (middle + 1, upper, cut, right)]
    return np.array(sorted(found))


def local_fit(x: F64, y: F64, count: F64, vertex: float, span: float) -> tuple[float, float, float]:
    """Value and slope at a vertex of the weighted polynomial (13.5, 13.7); `x` distinct.

    The third number, from 0 to 1, is small where rounding matters: singular values, or columns that
    only points of tiny weight fill, differ by much.
    """
    n = int(count.sum())
    distance = np.abs(x - vertex)
    order = np.argsort(distance, kind="stable")
    q = max(1, min(n, int(np.floor(n * span + 1e-5))))
    sorted_distance = distance[order]
    i = int(np.searchsorted(np.cumsum(count[order]), q))
    while i + 1 < x.size and sorted_distance[i] <= sorted_distance[0]:
        i += 1
    width = sorted_distance[i]
    inside = distance < width if width > sorted_distance[0] else np.full(x.size, True)
    ratio = distance[inside] / width if width > sorted_distance[0] else np.zeros(x.size)
    # 1 - ratio^3, exactly where it is nearly 0
    rest = (width - distance[inside]) / width if width > sorted_distance[0] else 1 - ratio
    root = np.sqrt(count[inside] * (rest * (1 + ratio + ratio**2)) ** 3)
    n_columns = min(3, int(inside.sum()))
    design = root[:, None] * (x[inside] - vertex)[:, None] ** np.arange(n_columns)
    norms = np.sqrt((design**2).sum(axis=0))
    norms[norms == 0] = 1
    u, s, vt = np.linalg.svd(design / norms, full_matrices=False)
    inverse = np.where(s <= s[0] * 100 * np.finfo(float).eps, 0, 1 / np.where(s == 0, 1, s))
    beta = (vt.T * inverse) @ (u.T @ (root * y[inside])) / norms
    columns = norms * (width or 1.0) ** -np.arange(n_columns)
    certainty = float(s[-1] / s[0] * columns.min() / columns.max())
    return float(beta[0]), float(beta[1]) if n_columns > 1 else 0.0, certainty


def fits_at_vertices(x: F64, y: F64, span: float) -> tuple[F64, F64]:
    """The vertices, and what `local_fit` returns at each."""
    distinct, inverse, count = np.unique(x, return_inverse=True, return_counts=True)
    mean = np.bincount(inverse, y) / count
    at = vertices(np.sort(x), span)
    return at, np.array([local_fit(distinct, mean, count, v, span) for v in at])


def loess(x: F64, y: F64, span: float = 0.3) -> F64:
    """Return the fit at every x; any order, any ties."""
    if x.size == 0:
        return np.empty(0)
    at, fits = fits_at_vertices(x, y, span)
    cell = np.clip(np.searchsorted(at, x, "right") - 1, 0, at.size - 2)
    width = at[cell + 1] - at[cell]
    h = (x - at[cell]) / width
    low, high = fits[cell], fits[cell + 1]
    return (
        (1 - h) ** 2 * (1 + 2 * h) * low[:, 0]
        + h**2 * (3 - 2 * h) * high[:, 0]
        + h * (1 - h) ** 2 * width * low[:, 1]
        - h**2 * (1 - h) * width * high[:, 1]
    )
