"""The flavours of gene selection, from statistics to tables; preprocessing.md 8 to 13 and 17.

Everything here is arithmetic over (batches x genes) arrays, and written so that neither the order of
genes nor that of batches shows in the last bit: sums run over sorted values, ties go to the gene with
the lower index, logarithms and exponentials are those of the core.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from scio import _core
from scio.errors import ScioWarning

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Bool = NDArray[np.bool_]
Flavor = Literal[
    "seurat",
    "cell_ranger",
    "seurat_v3",
    "seurat_v3_paper",
    "pearson_residuals",
    "poisson_gene_selection",
]

_LN10 = 2.302585092994046
_MAD_OF_NORMAL = 0.6744897501960817  # third quartile of the standard normal distribution
_TINY_MEAN = 1e-12  # what a mean of 0 becomes where a dispersion divides by it
_NEAR = 1e-6  # relative: the noise of float32 logarithms
_LOESS_FLAGS = (
    (1, "singular values were dropped"),
    (2, "a window held one distinct mean and was enlarged"),
    (4, "fewer than 3 distinct means in a window, so the degree was lowered"),
)


@dataclass
class Table:
    """What a flavour found, one entry a gene.

    Attributes
    ----------
    columns : dict of str to ndarray, shape (n_genes,)
        Results in the order and with the names of scanpy, ``highly_variable`` not among them.
    chosen : ndarray, shape (n_genes,), bool
    tied : ndarray, int64
        Genes whose place in the order equals that of the last one chosen, itself included; empty when
        nobody was left out by that tie.
    near_ties : ndarray, int64
        Genes on the other side of the cut whose value differs by less than 1e-6 relative.
    diagnostics : dict
        What loess did, per batch.
    """

    columns: dict[str, NDArray[Any]]
    chosen: Bool
    tied: I64 = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    near_ties: I64 = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    diagnostics: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Cutoffs:
    """Open intervals of mean and normalised dispersion."""

    min_disp: float
    max_disp: float
    min_mean: float
    max_mean: float

    def inside(self, means: F64, norms: F64) -> Bool:
        """Say which genes lie inside; a missing norm counts as 0, an infinite one as the largest."""
        finite = np.nan_to_num(norms)
        inside: Bool = (means > self.min_mean) & (means < self.max_mean)
        return inside & (finite > self.min_disp) & (finite < self.max_disp)


# --- arithmetic that does not depend on the order of what comes


def elementary(function: str, values: F64) -> F64:
    """ln, ln_1p or exp by the core, for any shape."""
    flat = np.ascontiguousarray(values, dtype=np.float64).reshape(-1)
    return _core.elementary(function, flat).reshape(values.shape)


def mean_over_batches(values: F64) -> F64:
    """Mean over axis 0, NaN skipped, the same bits for any order of batches; NaN when all are."""
    ordered = np.sort(values, axis=0)  # NaN last
    total = np.zeros(values.shape[1:])
    for row in ordered:
        total = total + np.where(np.isnan(row), 0.0, row)
    n = (~np.isnan(ordered)).sum(axis=0)
    return np.where(n > 0, total / np.maximum(n, 1), np.nan)


def median_over_batches(values: F64) -> F64:
    """Median over axis 0, NaN skipped; the mean of the middle two for an even number."""
    ordered = np.sort(values, axis=0)
    n = (~np.isnan(ordered)).sum(axis=0)
    low, high = np.maximum(n - 1, 0) // 2, n // 2
    high = np.minimum(high, np.maximum(n - 1, 0))
    genes = np.arange(values.shape[1])
    middle = (ordered[low, genes] + ordered[high, genes]) / 2
    return np.where(n > 0, middle, np.nan)


def best_first(*keys: F64) -> I64:
    """Genes by the first key descending, then the next …, then index; NaN last."""
    return np.lexsort([-key for key in reversed(keys)]).astype(np.int64)


def ranks_of(values: F64) -> F64:
    """Place of every gene in the order of one batch, 0 for the best."""
    ranks = np.empty(values.shape)
    for b, row in enumerate(values):
        ranks[b, best_first(row)] = np.arange(len(row))
    return ranks


def choose(k: int, candidates: Bool, *keys: F64, scores: F64 | None = None) -> Table:
    """Choose the first k of the candidates in the order of `best_first`, and say who tied.

    Genes tie when all keys are equal, or all `scores` (n_batches, n_genes) behind them: ranks, which
    are keys, differ between genes that score the same.
    """
    n_genes = len(candidates)
    order = best_first(*keys)
    order = order[candidates[order]]
    if len(order) < k:
        message = (
            f"n_top_genes is {k:,}, but only {len(order):,} of {n_genes:,} genes have a value to be "
            "ranked by; all of them were chosen"
        )
        warnings.warn(ScioWarning(message), stacklevel=4)
    chosen = np.zeros(n_genes, dtype=np.bool_)
    chosen[order[:k]] = True
    table = Table({}, chosen)
    if 0 < k < len(order):
        last = order[k - 1]
        same = candidates.copy()
        for key in keys:
            same &= (key == key[last]) | (np.isnan(key) & np.isnan(key[last]))
        if scores is not None:
            same |= candidates & (scores == scores[:, last, None]).all(axis=0)
        if not chosen[same].all():
            table.tied = np.flatnonzero(same).astype(np.int64)
    return table


# --- seurat and cell_ranger


@dataclass(frozen=True)
class Moments:
    """Means and variances of the values that dispersions are made of, shape (n_batches, n_genes)."""

    means: F64
    variances: F64
    is_expressed: Bool


def _grouped(values: F64, groups: I64, n_groups: int) -> tuple[F64, I64, I64]:
    """Finite-or-infinite values (NaN dropped) sorted by group and value; starts, sizes of groups."""
    known = ~np.isnan(values)
    order = np.lexsort((values[known], groups[known]))
    sizes = np.bincount(groups[known], minlength=n_groups).astype(np.int64)
    starts = np.cumsum(sizes) - sizes
    return values[known][order], starts.astype(np.int64), sizes


def means_and_spreads(values: F64, groups: I64, n_groups: int) -> tuple[F64, F64]:
    """Mean and standard deviation (ddof 1) per group, about its least value; 0 and it for one."""
    ordered, starts, sizes = _grouped(values, groups, n_groups)
    group = np.repeat(np.arange(n_groups), sizes)
    pivots = np.zeros(n_groups)
    pivots[sizes > 0] = ordered[starts[sizes > 0]]
    with np.errstate(invalid="ignore", divide="ignore"):
        # bincount adds in order, one after the other
        shifts = np.bincount(group, ordered - pivots[group], n_groups) / sizes
        centres = pivots + shifts
        squares = np.bincount(group, (ordered - centres[group]) ** 2, n_groups)
        spreads = np.sqrt(squares / (sizes - 1))
    is_alone = sizes == 1
    spreads = np.where(is_alone, centres, np.where(sizes > 1, spreads, np.nan))
    centres = np.where(is_alone, 0.0, np.where(sizes > 0, centres, np.nan))
    return np.asarray(centres, dtype=np.float64), np.asarray(spreads, dtype=np.float64)


def _group_medians(values: F64, groups: I64, n_groups: int) -> F64:
    ordered, starts, sizes = _grouped(values, groups, n_groups)
    medians = np.full(n_groups, np.nan)
    some = sizes > 0
    low = starts[some] + (sizes[some] - 1) // 2
    high = starts[some] + sizes[some] // 2
    medians[some] = (ordered[low] + ordered[high]) / 2
    return medians


def seurat_bins(means: F64, n_bins: int, *, widen_both: bool = False) -> I64:
    """Bin of every gene by equal widths (preprocessing.md 9).

    `widen_both` gives the bins of Seurat's own mean.var.plot, whose ends both move outwards.
    """
    low, high = float(means.min()), float(means.max())
    if low == high:
        low -= 0.001 * abs(low) if low != 0 else 0.001
        high += 0.001 * abs(high) if high != 0 else 0.001
        edges = _edges(low, high, n_bins)
    else:
        edges = _edges(low, high, n_bins)
        edges[0] -= (high - low) * 0.001
        if widen_both:
            edges[-1] += (high - low) * 0.001
    return (np.searchsorted(edges, means, side="left") - 1).astype(np.int64)


def _edges(low: float, high: float, n_bins: int) -> F64:
    step = (high - low) / n_bins
    edges: F64 = np.arange(n_bins + 1, dtype=np.float64) * step + low
    edges[-1] = high
    return edges


def cell_ranger_bins(means: F64) -> tuple[I64, int]:
    """Bin of every gene by percentiles 10, 15, … 100 of the means; how many bins there are."""
    inner = np.unique(np.percentile(means, np.arange(10, 105, 5)))
    edges = np.concatenate([[-np.inf], inner, [np.inf]])
    bins = np.searchsorted(edges, means, side="left") - 1
    return bins.astype(np.int64), len(edges) - 1


def dispersions_of(means: F64, variances: F64, flavor: str, n_bins: int) -> tuple[F64, F64, F64]:
    """Abscissa, dispersion and normalised dispersion of the genes of one batch."""
    if len(means) == 0:
        return np.empty(0), np.empty(0), np.empty(0)
    safe = np.where(means == 0, _TINY_MEAN, means)
    dispersions = variances / safe
    if flavor == "seurat":
        dispersions = elementary("ln", np.where(dispersions == 0, np.nan, dispersions))
        abscissa = elementary("ln_1p", safe)
        bins = seurat_bins(abscissa, n_bins)
        centres, spreads = means_and_spreads(dispersions, bins, n_bins)
        with np.errstate(invalid="ignore", divide="ignore"):
            return abscissa, dispersions, (dispersions - centres[bins]) / spreads[bins]
    bins, n_groups = cell_ranger_bins(safe)
    off = dispersions - _group_medians(dispersions, bins, n_groups)[bins]
    spread = _group_medians(np.abs(off), bins, n_groups)[bins] / _MAD_OF_NORMAL
    with np.errstate(invalid="ignore", divide="ignore"):
        norms = np.where(off == 0, 0.0, off / spread)
    return safe, dispersions, norms


def _chosen_of_batch(
    means: F64, norms: F64, k: int | None, cutoffs: Cutoffs, *, ties: bool
) -> Bool:
    if k is None:
        return cutoffs.inside(means, norms)
    order = best_first(norms)
    order = order[~np.isnan(norms[order])]
    chosen = np.zeros(len(means), dtype=np.bool_)
    chosen[order[:k]] = True
    if ties and 0 < k < len(order):
        chosen |= norms >= norms[order[k - 1]]
    return chosen


def by_dispersion(
    moments: Moments,
    *,
    flavor: Literal["seurat", "cell_ranger"],
    n_top_genes: int | None,
    cutoffs: Cutoffs,
    n_bins: int,
    only_expressed: bool,
    is_batched: bool,
    compat: str | None,
    names: NDArray[Any] | None = None,
) -> Table:
    """Flavours ``seurat`` and ``cell_ranger`` (preprocessing.md 9).

    `names` of the genes decide ties with ``compat="scanpy"`` and several batches.
    """
    n_batches, n_genes = moments.means.shape
    found = np.zeros((3, n_batches, n_genes))
    n_chosen = np.zeros(n_genes, dtype=np.int64)
    for b in range(n_batches):
        genes = moments.is_expressed[b] if only_expressed else np.ones(n_genes, dtype=np.bool_)
        values = dispersions_of(
            moments.means[b, genes], moments.variances[b, genes], flavor, n_bins
        )
        found[:, b, genes] = values
        if is_batched:
            chosen = _chosen_of_batch(
                values[0], values[2], n_top_genes, cutoffs, ties=compat == "scanpy"
            )
            n_chosen[np.flatnonzero(genes)[chosen]] += 1
    if not is_batched:
        return _one_batch(found[:, 0], n_top_genes, cutoffs, compat)
    means, dispersions, norms = (mean_over_batches(values) for values in found)
    counts = n_chosen.astype(np.float64)
    if n_top_genes is None:
        table = Table({}, cutoffs.inside(means, norms))
        norms = np.where(np.isnan(norms), 0.0, norms)
    else:
        keys = [counts, norms]
        if compat == "scanpy" and names is not None:
            keys.append(-np.unique(names.astype(str), return_inverse=True)[1].astype(np.float64))
        table = choose(n_top_genes, ~np.isnan(norms), *keys)
        _note_near_ties(table, norms, counts)
    table.columns = {
        "means": means,
        "dispersions": dispersions,
        "dispersions_norm": norms,
        "highly_variable_nbatches": n_chosen,
        "highly_variable_intersection": n_chosen == n_batches,
    }
    return table


def _one_batch(found: F64, k: int | None, cutoffs: Cutoffs, compat: str | None) -> Table:
    means, dispersions, norms = found
    if k is None:
        table = Table({}, cutoffs.inside(means, norms))
    else:
        table = choose(k, ~np.isnan(norms), norms)
        if compat == "scanpy":
            table.chosen[table.tied] = True
        _note_near_ties(table, norms)
    table.columns = {"means": means, "dispersions": dispersions, "dispersions_norm": norms}
    return table


def _note_near_ties(table: Table, values: F64, counts: F64 | None = None) -> None:
    """Genes beyond the cut whose value is within 1e-6 of that of the last one chosen."""
    chosen = table.chosen & np.isfinite(values)
    if not chosen.any():
        return
    if counts is not None:
        level = counts[chosen].min()
        chosen &= counts == level
        if not chosen.any():
            return
    last = values[chosen].min()
    with np.errstate(invalid="ignore"):
        near = ~table.chosen & (np.abs(values - last) <= _NEAR * abs(last))
    if counts is not None:
        near &= counts == level
    table.near_ties = np.flatnonzero(near).astype(np.int64)


# --- ranks over batches


def by_ranks(scores: F64, k: int, *, median_first: bool, columns: dict[str, NDArray[Any]]) -> Table:
    """Combine the scores of batches (preprocessing.md 10.5, 11.3); higher scores are better.

    `columns` come before the ranks in the table.
    """
    ranks = ranks_of(scores)
    is_top = ranks < k
    n_top = is_top.sum(axis=0).astype(np.int64)
    median = median_over_batches(np.where(is_top, ranks, np.nan))
    by_median = -median  # NaN stays last
    keys = (by_median, n_top.astype(float)) if median_first else (n_top.astype(float), by_median)
    # a gene that is in no batch among the first k may still be among them over all batches
    table = choose(k, np.ones(len(n_top), dtype=np.bool_), *keys, scores=scores)
    table.columns = columns | {
        "highly_variable_rank": median.astype(np.float32),
        "highly_variable_nbatches": n_top,
        "highly_variable_intersection": n_top == len(scores),
    }
    return table


# --- seurat_v3


@dataclass(frozen=True)
class Trend:
    """The fit of one batch: expected standard deviations (NaN for constant genes) and clips."""

    spreads: F64
    clips: F64
    diagnostics: dict[str, Any]


def fit_trend(means: F64, variances: F64, n_cells: int, span: float, batch: str) -> Trend:
    """Loess of log10 variance by log10 mean over genes that vary; warns of what R would stop at."""
    varies = variances > 0
    spreads = np.full(len(means), np.nan)
    x = elementary("ln", means[varies]) / _LN10
    y = elementary("ln", variances[varies]) / _LN10
    fit, flags, counts = _core.loess(x, y, span)
    spreads[varies] = np.sqrt(elementary("exp", fit * _LN10))
    keys = ("n_vertices", "n_pseudo_inverses", "n_enlarged", "n_lowered")
    diagnostics = dict(zip(keys, counts, strict=True)) | {"batch": batch}
    genes = np.flatnonzero(varies)
    for bit, what in _LOESS_FLAGS:
        met = genes[(flags & bit) != 0]
        if len(met):
            message = (
                f"loess of {batch}: {what}; this concerns {len(met):,} of {len(genes):,} genes, "
                f"with means from {means[met].min():.4g} (gene "
                f"{met[np.argmin(means[met])]}) to {means[met].max():.4g} (gene "
                f"{met[np.argmax(means[met])]})"
            )
            warnings.warn(ScioWarning(message), stacklevel=4)
    return Trend(spreads, spreads * math.sqrt(n_cells) + means, diagnostics)


def counted_squares(
    counts: tuple[I64, NDArray[Any], I64], means: F64, clips: F64, n_zeros: I64
) -> F64:
    """Sums of squares of clipped values about the mean from value counts, values ascending."""
    indptr, values, n_cells = counts
    genes = np.repeat(np.arange(len(means)), np.diff(indptr))
    off = np.minimum(values.astype(np.float64), clips[genes]) - means[genes]
    # bincount adds in order: zeros first, then the values as they come
    zeros = n_zeros * means**2
    weights = n_cells * off**2
    squares: F64 = np.bincount(
        np.concatenate([np.arange(len(means)), genes]),
        np.concatenate([zeros, weights]),
        len(means),
    ).astype(np.float64, copy=False)
    return squares


def standardised_variances(
    squares: F64, variances: F64, maxima: F64, trend: Trend, n_cells: int
) -> F64:
    """Variance of the standardised, clipped values; 0 for constant genes.

    Where nothing is clipped it is the variance over the expected one, so that genes of equal mean and
    variance tie whatever their values are; sums over these would differ in the last bit.
    """
    expected = trend.spreads**2
    with np.errstate(invalid="ignore"):
        norms = np.where(
            maxima > trend.clips, squares / ((n_cells - 1) * expected), variances / expected
        )
    return np.where(np.isnan(expected), 0.0, norms)


# --- Pearson residuals and Poisson zeros


@dataclass(frozen=True)
class Distinct:
    """Distinct values with how often each occurs, ascending, and where each original one went."""

    values: F64
    counts: F64
    inverse: I64

    @classmethod
    def of(cls, values: F64) -> Distinct:
        """Make it of any numbers."""
        distinct, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
        return cls(distinct, counts.astype(np.float64), inverse.reshape(-1).astype(np.int64))

    @property
    def median(self) -> float:
        """Lower median of the original numbers."""
        n = int(self.counts.sum())
        place = int(np.searchsorted(np.cumsum(self.counts), (n + 1) // 2))
        return float(self.values[place])


def fractions_of(sums: F64) -> F64:
    """Share of every gene in all counts of a batch; the total is exact before it is rounded."""
    total = math.fsum(sums.tolist())
    return sums / total if total > 0 else np.zeros(len(sums))


@dataclass(frozen=True)
class PearsonModel:
    """Residuals of zeros of all batches, to which those of stored values are added."""

    fractions: F64  # (n_batches, n_genes)
    shifts: F64
    clips: F64  # (n_batches,)
    sums: F64  # (n_batches, n_genes, 2), written by `residual_corrections`
    inverse_theta: float

    @classmethod
    def of(
        cls,
        sums: F64,
        totals: list[F64],
        *,
        theta: float,
        clip: float | None,
        threads: int,
    ) -> PearsonModel:
        """Make it of gene sums (n_batches, n_genes) and the totals of the cells of every batch."""
        fractions = np.stack([fractions_of(row) for row in sums])
        clips = np.array([math.sqrt(len(t)) if clip is None else clip for t in totals])
        model = cls(fractions, np.empty(sums.shape), clips, np.empty((*sums.shape, 2)), 1.0 / theta)
        for b, cell_totals in enumerate(totals):
            cells, genes = Distinct.of(cell_totals), Distinct.of(fractions[b])
            shifts, zero_sums = _core.residual_zero_sums(
                genes.values,
                cells.values,
                cells.counts,
                shift_total=cells.median,
                clip=float(clips[b]),
                inverse_theta=model.inverse_theta,
                threads=threads,
            )
            model.shifts[b] = shifts[genes.inverse]
            model.sums[b] = zero_sums[genes.inverse]
        return model

    def variances(self, n_cells: I64) -> F64:
        """Population variances of the residuals; 0 for genes without counts."""
        n = n_cells[:, None].astype(np.float64)
        shifted = self.sums[:, :, 0] / n
        variances = np.maximum(self.sums[:, :, 1] / n - shifted**2, 0.0)
        return np.where(self.fractions > 0, variances, 0.0)


def by_poisson(absent: F64, sums: F64, totals: list[F64], k: int, *, threads: int) -> Table:
    """Flavour ``poisson_gene_selection`` (preprocessing.md 12); `absent`: observed shares of zeros."""
    n_genes = absent.shape[1]
    expected = np.empty(absent.shape)
    for b, cell_totals in enumerate(totals):
        cells, genes = Distinct.of(cell_totals), Distinct.of(fractions_of(sums[b]))
        shares = _core.poisson_absence(genes.values, cells.values, cells.counts, threads=threads)
        expected[b] = shares[genes.inverse]
    enrichment = absent * (1.0 - expected)
    ranks = n_genes - 1 - ranks_of(enrichment)
    n_top = (ranks >= n_genes - k).sum(axis=0).astype(np.int64)
    median = median_over_batches(ranks)
    every = np.ones(n_genes, dtype=np.bool_)
    table = choose(k, every, n_top.astype(np.float64), median, scores=enrichment)
    table.columns = {
        "observed_fraction_zeros": median_over_batches(absent),
        "expected_fraction_zeros": median_over_batches(expected),
        "prob_zero_enriched_nbatches": n_top,
        "prob_zero_enrichment": median_over_batches(enrichment),
        "prob_zero_enrichment_rank": median,
    }
    return table
