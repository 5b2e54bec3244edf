"""Size factors by pooling cells, and the repair of those that are not positive."""

from __future__ import annotations

import itertools
import math
import operator
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scio import _core
from scio.errors import ScioWarning
from scio.pp._anndata import make_actual, put_columns
from scio.pp._curve import fit_curve
from scio.pp._source import Source, is_anndata, open_source

RATIO_NBYTES = 12  # of one value of a kept gene: its gene and its ratio
PASS_NBYTES = 2 << 30  # ratios that are held at a time; more take further passes over the source

Floats = NDArray[np.float64]


def pooled_size_factors(
    source: Any,
    *,
    clusters: str | ArrayLike | None = None,
    sizes: Iterable[int] = range(21, 102, 5),
    max_cluster_size: int | None = 3000,
    min_mean: float | None = None,
    positive: bool = True,
    layer: str | None = None,
    inplace: bool = True,
    key_added: str = "size_factors",
    threads: int = -1,
) -> Floats | None:
    """Size factors from sums over pools of cells, which sparse counts do not upset.

    Cells of a cluster are laid on a ring, small ones rising to large ones and falling again.  The
    counts of every window of 21, 26, … 101 neighbours are added up, divided by the cluster's average
    and summarised by the median over genes; the factors are those whose sums over windows come
    nearest to these medians.  Clusters are then brought to one scale by the median ratio of their
    averages, and the mean of all factors is 1.

    Parameters
    ----------
    source : AnnData, CSR, SciPy sparse matrix, ndarray, path or handle, shape (n_cells, n_genes)
        Counts.  A file is read twice, more often when the values of kept genes need more than 2 GiB.
    clusters : str or array-like, shape (n_cells,), optional
        Rough groups of similar cells: a column of obs, or the labels.  None: all cells are one.
    sizes : iterable of int
        Cells of a window; those above the size of a cluster are left out there.
    max_cluster_size : int or None
        Larger clusters are dealt into parts, as scuttle does to protect its solver.  scio needs no
        such protection: None switches it off.
    min_mean : float, optional
        Genes whose average in the cluster, at its mean library size, is below are not used.  None:
        0.1 up to a median library size of 50,000, 1 from 100,000 on.
    positive : bool
        Replace negative factors by `clean_size_factors`.
    layer : str, optional
        The layer of an AnnData or a file instead of X.
    inplace : bool
        Write ``obs[key_added]`` of an AnnData and return None; other sources are never written to.
    key_added : str
        Name of that column.
    threads : int
        -1: all; 0: none besides the caller.  The result does not depend on it.

    Returns
    -------
    ndarray, shape (n_cells,), float64, or None
        Positive (unless ``positive=False``), with a mean of 1.

    Raises
    ------
    ValueError
        If a cell has no counts (they are named), a value is negative, NaN or infinite, or a
        parameter is out of range.
    KeyNotFoundError
        If there is no such column or layer.

    Warns
    -----
    ScioWarning
        If values are no integers; if a cluster has no window or no gene to use and gets library
        sizes; if factors are not positive; if two clusters have no ratio; if the median library
        size lies between 50,000 and 100,000 and `min_mean` is None.

    Notes
    -----
    Memory: 12 bytes for each stored value of the kept genes of the clusters of one pass, 17 medians
    of 8 bytes a cell of the largest cluster, 20 bytes for each pair of cluster and gene, and 16
    bytes a kept gene for each thread; no dense matrix.

    The least squares problem is a stack of circulant matrices, so Fourier transforms solve it
    exactly.  Window sums are exact too: ratios are rounded to 52 bits below the largest sum a gene
    can have.  So the bits depend neither on threads nor on the storage of the counts.

    Source: Lun, Bach and Marioni, Genome Biology 17 (2016) 75, doi:10.1186/s13059-016-0947-7; as
    ``scuttle::pooledSizeFactors`` 1.8, to 1e-11 relative (1e-5 where factors were replaced).

    Examples
    --------
    >>> import numpy as np
    >>> counts = np.random.default_rng(0).poisson(5, (60, 40))
    >>> counts[0] *= 2
    >>> factors = pooled_size_factors(counts)
    >>> bool(factors[0] > 1.5)
    True
    """
    wanted = _checked_sizes(sizes)
    _check_limits(max_cluster_size, min_mean)
    matrix = open_source(source, layer=layer)
    is_written = inplace and is_anndata(source)
    factors = _factors(matrix, clusters, wanted, max_cluster_size, min_mean, positive, threads)
    if not is_written:
        return factors
    make_actual(source)
    put_columns(source.obs, {key_added: factors})
    return None


def _checked_sizes(sizes: Iterable[int]) -> NDArray[np.int64]:
    wanted = sorted(operator.index(s) for s in sizes)
    if not wanted:
        message = "sizes is empty, expected the number of cells of one window or more"
        raise ValueError(message)
    if wanted[0] < 1:
        message = f"sizes holds {wanted[0]}, expected 1 or more cells of a window"
        raise ValueError(message)
    twice = next((a for a, b in itertools.pairwise(wanted) if a == b), None)
    if twice is not None:
        message = f"sizes holds {twice} more than once"
        raise ValueError(message)
    return np.array(wanted, dtype=np.int64)


def _check_limits(max_cluster_size: int | None, min_mean: float | None) -> None:
    if max_cluster_size is not None and operator.index(max_cluster_size) < 1:
        message = (
            f"max_cluster_size is {max_cluster_size}, expected 1 or more, or None for no limit"
        )
        raise ValueError(message)
    if min_mean is not None and not 0 <= min_mean < math.inf:
        message = f"min_mean is {min_mean}, expected a number from 0 on"
        raise ValueError(message)


# --- all clusters


@dataclass(slots=True)
class _Part:
    """A cluster, or what one was dealt into."""

    name: str
    cells: NDArray[np.int64]


def _factors(
    source: Source,
    clusters: str | ArrayLike | None,
    sizes: NDArray[np.int64],
    max_cluster_size: int | None,
    min_mean: float | None,
    positive: bool,
    threads: int,
) -> Floats:
    parts = list(_parts_of(source, clusters, max_cluster_size))
    part_of = np.full(source.n_obs, -1, dtype=np.int32)
    for i, part in enumerate(parts):
        part_of[part.cells] = i
    scan = _scan(source, part_of, len(parts))
    if not parts:
        return np.empty(0)
    least = _min_mean(source, scan.totals) if min_mean is None else float(min_mean)
    means = scan.sums
    for i, part in enumerate(parts):
        means[i] *= _mean(scan.totals[part.cells]) / len(part.cells)
    factors = np.empty(source.n_obs)
    pools = _Pools(source, part_of, parts, sizes, least, scan)
    for i, ratios in pools.ratios():
        cells = parts[i].cells
        factors[cells] = _part_factors(parts[i], scan.totals[cells], ratios, positive, threads)
    _rescale(factors, parts, means, least)
    factors /= _mean(factors[factors > 0])
    return factors


def _parts_of(
    source: Source, clusters: str | ArrayLike | None, max_cluster_size: int | None
) -> Iterator[_Part]:
    """Clusters in the order in which they appear, large ones dealt round."""
    if clusters is None:
        codes, names = np.zeros(source.n_obs, dtype=np.int32), ["all cells"]
    else:
        key: Any = clusters if isinstance(clusters, str) or hasattr(clusters, "dtype") else None
        codes, names = source.batches(np.asarray(clusters) if key is None else key, name="clusters")
    order = np.argsort(codes, kind="stable")
    found, first = np.unique(codes[order], return_index=True)
    groups = np.split(order, first[1:]) if len(found) else []
    for code, cells in sorted(zip(found, groups, strict=True), key=lambda pair: pair[1][0]):
        n_parts = 1 if max_cluster_size is None else -(-len(cells) // max_cluster_size)
        for i in range(n_parts):
            yield _Part(names[code], cells[i::n_parts])


def _mean(values: Floats) -> float:
    """Mean of the exact sum, so that no order of adding shows."""
    return math.fsum(values) / len(values)


def _min_mean(source: Source, totals: Floats) -> float:
    """Default of scuttle: 1 for data with reads, 0.1 for data with UMIs."""
    median = float(np.median(totals))
    if 50_000 < median < 100_000:
        _warn(
            f"{source.name}: the median library size is {median:,g}, between those of UMIs and "
            "reads; min_mean is taken as 0.1, pass it to be sure"
        )
    return 1.0 if median >= 100_000 else 0.1


def _warn(message: str) -> None:
    warnings.warn(ScioWarning(message), stacklevel=4)


@dataclass(slots=True)
class _Scan:
    """First pass.  `sums`, `maxima`: of counts over totals, shape (n_parts, n_genes)."""

    totals: Floats
    n_stored: NDArray[np.int64]
    sums: Floats
    maxima: Floats


def _scan(source: Source, part_of: NDArray[np.int32], n_parts: int) -> _Scan:
    scan = _Scan(
        totals=np.zeros(source.n_obs),
        n_stored=np.zeros(source.n_obs, dtype=np.int64),
        sums=np.zeros((n_parts, source.n_vars)),
        maxima=np.zeros((n_parts, source.n_vars)),
    )
    n_values, n_fractions, maximum = 0, 0, 0.0
    example: tuple[int, int, float] | None = None
    for block in source.blocks(check=False):
        rows = slice(block.start, block.stop)
        try:
            totals, values, fractions, largest, first = _core.pooling_scan(
                block.data,
                block.indices,
                block.indptr,
                part_of[rows],
                scan.sums,
                scan.maxima,
                shape=(block.n_rows, source.n_vars),
                first_row=block.start,
            )
        except ValueError as error:
            error.add_note(f"in {source.name}; cells and genes are counted from 0")
            raise
        scan.totals[rows], scan.n_stored[rows] = totals, np.diff(block.indptr)
        example = first if fractions and example is None else example
        n_values, n_fractions = n_values + values, n_fractions + fractions
        maximum = max(maximum, largest)
    empty = np.flatnonzero(scan.totals == 0)
    if len(empty):
        shown = ", ".join(f"{source.obs_names[i]!r} (cell {i})" for i in empty[:3])
        more = ", …" if len(empty) > 3 else ""
        message = (
            f"{source.name}: {len(empty):,} of {source.n_obs:,} cells have no counts: {shown}{more}; "
            "no size factor fits them, remove them with filter_cells(min_counts=1)"
        )
        raise ValueError(message)
    if example is not None:
        row, gene, value = example
        _warn(
            f"pooled_size_factors expects counts, but {n_fractions / n_values:.1%} of the values of "
            f"{source.name} are no integers (maximum {maximum:.6g}): it has {value:.6g} in cell "
            f"{row}, gene {source.var_names[gene]!r} ({gene}); is it logged or normalised already?"
        )
    return scan


# --- ratios of the kept genes


@dataclass(slots=True)
class _Ratios:
    """Values of one part over totals and averages; `starts`, `counts` by cell of the part."""

    genes: NDArray[np.int32]
    values: Floats
    starts: NDArray[np.int64]
    counts: NDArray[np.int64]
    n_genes: int
    sizes: NDArray[np.int64]
    weak: float


class _Pools:
    """Second pass: which genes are kept, and their ratios, several parts at a time."""

    def __init__(
        self,
        source: Source,
        part_of: NDArray[np.int32],
        parts: list[_Part],
        sizes: NDArray[np.int64],
        min_mean: float,
        scan: _Scan,
    ) -> None:
        self._source, self._part_of, self._parts, self._scan = source, part_of, parts, scan
        self._sizes = [sizes[sizes <= len(part.cells)] for part in parts]
        means = scan.sums
        kept = (means >= min_mean) & (means > 0)
        self._n_genes = np.count_nonzero(kept, axis=1)
        self._weak = [
            1 / math.fsum(row[mask]) if mask.any() else math.inf
            for row, mask in zip(means, kept, strict=True)
        ]
        self._positions = np.cumsum(kept, axis=1, dtype=np.int32) - np.int32(1)
        self._positions[~kept] = -1
        self._round(kept)

    def _round(self, kept: NDArray[np.bool_]) -> None:
        """Turn maxima into what rounds ratios so that no sum over a window is rounded.

        With all sums below 2^e, adding and subtracting 1.5 * 2^(e + 1) leaves multiples of
        2^(e - 51), and up to 2^(e + 2) these are added exactly.
        """
        for i, sizes in enumerate(self._sizes):
            averages = self._scan.sums[i]
            longest = float(sizes[-1]) if len(sizes) else 1.0
            n = len(self._parts[i].cells)
            with np.errstate(divide="ignore", invalid="ignore"):
                most = np.where(kept[i], longest * self._scan.maxima[i] / averages, 1.0)
            # all cells of a gene come to n ratios of 1 / (mean total)
            mean_total = _mean(self._scan.totals[self._parts[i].cells])
            most = np.minimum(most, 1.01 * n / mean_total)
            self._scan.maxima[i] = np.ldexp(1.5, np.frexp(most)[1] + 1)

    def ratios(self) -> Iterator[tuple[int, _Ratios | None]]:
        """Ratios of each part; None where there is no window or no gene."""
        usable = [len(s) > 0 and n > 0 for s, n in zip(self._sizes, self._n_genes, strict=True)]
        for group in self._groups(usable):
            genes, values, starts, counts = self._take(group)
            for i in group:
                cells = self._parts[i].cells
                yield (
                    i,
                    _Ratios(
                        genes,
                        values,
                        starts[cells],
                        counts[cells],
                        int(self._n_genes[i]),
                        self._sizes[i],
                        self._weak[i],
                    ),
                )
        yield from ((i, None) for i, is_usable in enumerate(usable) if not is_usable)

    def _groups(self, usable: list[bool]) -> Iterator[list[int]]:
        """Parts whose ratios are held at the same time."""
        group: list[int] = []
        nbytes = 0
        for i, is_usable in enumerate(usable):
            if not is_usable:
                continue
            more = int(self._scan.n_stored[self._parts[i].cells].sum()) * RATIO_NBYTES
            if group and nbytes + more > PASS_NBYTES:
                yield group
                group, nbytes = [], 0
            group.append(i)
            nbytes += more
        if group:
            yield group

    def _take(
        self, group: list[int]
    ) -> tuple[NDArray[np.int32], Floats, NDArray[np.int64], NDArray[np.int64]]:
        is_wanted = np.zeros(len(self._parts), dtype=np.bool_)
        is_wanted[group] = True
        part_of = np.where(is_wanted[self._part_of], self._part_of, np.int32(-1))
        n_most = int(self._scan.n_stored[part_of >= 0].sum())
        genes, values = np.empty(n_most, dtype=np.int32), np.empty(n_most)
        starts = np.zeros(self._source.n_obs, dtype=np.int64)
        counts = np.zeros(self._source.n_obs, dtype=np.int64)
        n_used = 0
        for block in self._source.blocks(check=False):
            rows = slice(block.start, block.stop)
            starts[rows], counts[rows], n_used = _core.pooling_take(
                block.data,
                block.indices,
                block.indptr,
                part_of[rows],
                self._scan.totals[rows],
                self._positions,
                self._scan.sums,
                self._scan.maxima,
                genes,
                values,
                shape=(block.n_rows, self._source.n_vars),
                first_row=block.start,
                n_used=n_used,
            )
        return genes[:n_used], values[:n_used], starts, counts


# --- one cluster


def _part_factors(
    part: _Part, totals: Floats, ratios: _Ratios | None, positive: bool, threads: int
) -> Floats:
    n = len(totals)
    if ratios is None:
        _warn(
            f"cluster {part.name!r} has {n:,} cells and no window of `sizes` or no gene above "
            "min_mean; its factors are library sizes"
        )
        return totals
    order = np.argsort(totals, kind="stable")
    ring = np.concatenate([order[0::2], order[1::2][::-1]])
    medians = _core.pooling_medians(
        ratios.starts[ring],
        ratios.counts[ring],
        ratios.genes,
        ratios.values,
        ratios.sizes,
        n_genes=ratios.n_genes,
        threads=threads,
    )
    factors = np.empty(n)
    factors[ring] = _core.pooling_solve(medians, ratios.sizes, weak=ratios.weak, threads=threads)
    factors *= totals
    n_negative = np.count_nonzero(factors < 0)
    if n_negative == 0:
        return factors
    done = "replaced by clean_size_factors" if positive else "kept, since positive=False"
    _warn(
        f"cluster {part.name!r}: {n_negative:,} of {n:,} factors came out negative and were {done}"
    )
    return clean_size_factors(factors, ratios.counts) if positive else factors


def _rescale(factors: Floats, parts: list[_Part], means: Floats, min_mean: float) -> None:
    """Bring all clusters to the scale of the one with most genes."""
    reference = int(np.argmax(np.count_nonzero(means > 0, axis=1)))
    theirs, their_sum = means[reference], math.fsum(means[reference])
    for i, part in enumerate(parts):
        if i == reference:
            continue
        mine, my_sum = means[i], math.fsum(means[i])
        pooled = (mine / my_sum + theirs / their_sum) / 2 * ((my_sum + their_sum) / 2)
        used = (pooled >= min_mean) & ((mine > 0) | (theirs > 0))
        with np.errstate(divide="ignore"):
            ratios = mine[used] / theirs[used]
        ratio = float(np.median(ratios)) if len(ratios) else math.nan
        if not 0 < ratio < math.inf:
            ratio = my_sum / their_sum
            _warn(
                f"cluster {part.name!r} shares too few genes with {parts[reference].name!r} for a "
                "median ratio; the ratio of their sums is taken"
            )
        factors[part.cells] *= ratio


# --- factors that are not positive


def clean_size_factors(size_factors: ArrayLike, detected: ArrayLike) -> Floats:
    """Replace factors that are not positive by what the number of detected genes suggests.

    Parameters
    ----------
    size_factors : array-like, shape (n_cells,)
        Factors, some of them zero or negative.
    detected : array-like, shape (n_cells,)
        Genes found in each cell.

    Returns
    -------
    ndarray, shape (n_cells,), float64
        A copy in which all factors are positive.

    Raises
    ------
    ValueError
        If the lengths differ, a value is not finite, or no factor is positive.

    Notes
    -----
    To the positive factors x and their detected genes y the curve y = A x / (B x + 1) is fitted in
    logarithms, four times, the later ones with tricube weights of the residuals.  A cell with D
    genes gets D / (A - B D), the largest factor where that is negative (or no number), the smallest
    where D is 0.  Where no curve can be fitted the smallest positive factor is taken.

    Logarithms, exponentials and sums are scio's own or exact, so that all machines agree.

    Source: ``scuttle::cleanSizeFactors`` 1.8; R's ``nls`` stops sooner, results differ by 1e-6.

    Examples
    --------
    >>> clean_size_factors([0.5, -0.1, 1.0, 2.0], [50, 10, 90, 150]).round(2)
    array([0.5 , 0.09, 1.  , 2.  ])
    """
    factors = np.array(size_factors, dtype=np.float64)
    genes = np.asarray(detected, dtype=np.float64)
    if factors.ndim != 1 or factors.shape != genes.shape:
        message = (
            f"size_factors has shape {factors.shape}, detected {genes.shape}, expected one value of "
            "each for every cell"
        )
        raise ValueError(message)
    for name, values in (("size_factors", factors), ("detected", genes)):
        if not np.isfinite(values).all():
            i = int(np.flatnonzero(~np.isfinite(values))[0])
            message = f"{name}[{i}] is {values[i]}, expected a finite number"
            raise ValueError(message)
    is_good = factors > 0
    if is_good.all():
        return factors
    if not is_good.any():
        message = f"none of {len(factors):,} size factors is positive"
        raise ValueError(message)
    x, y = factors[is_good], genes[is_good]
    is_seen = y > 0  # others have no logarithm
    curve = fit_curve(x[is_seen], y[is_seen])
    new = np.full(np.count_nonzero(~is_good), x.min())
    if curve is not None:
        d = genes[~is_good]
        below = curve[0] - curve[1] * d
        with np.errstate(divide="ignore", invalid="ignore"):
            new = np.where(below > 0, d / below, x.max())
        new = np.where(new > 0, new, x.min())
    factors[~is_good] = new
    return factors
