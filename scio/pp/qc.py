"""Quality control: per cell and per gene numbers, and outliers by median absolute deviation."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from scio import _core
from scio._optional import require
from scio.errors import ScioWarning
from scio.pp._anndata import make_actual, put_columns, require_anndata
from scio.pp._source import Source, open_source
from scio.pp.stats import MAX_VALUE_NBYTES, Feed, GeneStats

DEFAULT_TOPS = (50, 100, 200, 500)
_MAX_FLAGS = 64
_MAD_TO_SD = 1.4826

Columns = dict[str, NDArray[Any]]


def calculate_qc_metrics(
    adata: Any,
    *,
    expr_type: str = "counts",
    var_type: str = "genes",
    qc_vars: Sequence[str] | str = (),
    percent_top: Sequence[int] | None = DEFAULT_TOPS,
    layer: str | None = None,
    use_raw: bool = False,
    inplace: bool = False,
    log1p: bool = True,
    parallel: bool | None = None,
    threads: int = -1,
    progress: bool = True,
) -> tuple[Any, Any] | None:
    """Count genes and molecules of each cell, and cells of each gene.

    Parameters
    ----------
    adata : AnnData, CSR, SciPy sparse matrix, ndarray, path or handle, shape (n_cells, n_genes)
        A file is streamed; nothing is written into it.
    expr_type, var_type : str
        Words that the names of the columns are made of.
    qc_vars : str or sequence of str
        Boolean columns of var; totals over these genes are taken.
    percent_top : sequence of int, optional
        Shares of the total in the k largest values, for each k.
    layer : str, optional
        The layer instead of X.
    use_raw : bool
        ``raw.X`` instead of X; only the table of cells can then be written in place.
    inplace : bool
        Write the columns into obs and var, and return None.
    log1p : bool
        Also ln(1 + x) of counts and totals.
    parallel : None
        Has no meaning, as in scanpy.
    threads : int
        -1: all; 0: in the caller.
    progress : bool
        A bar while a file is read (tqdm, on a terminal).

    Returns
    -------
    obs, var : pandas.DataFrame
        Or None with `inplace`.  Of cells: ``n_genes_by_counts`` (x ≠ 0, int64), ``total_counts``,
        ``pct_counts_in_top_k_genes``, and per entry V of `qc_vars` ``total_counts_V``,
        ``pct_counts_V``.  Of genes: ``n_cells_by_counts`` (int64), ``mean_counts``,
        ``pct_dropout_by_counts``, ``total_counts``.  float64 unless said; ``log1p_`` columns beside.

    Raises
    ------
    ValueError
        If a value is NaN or infinite, or a k of `percent_top` is not in [1, n_genes].
    KeyNotFoundError
        If there is no such layer or column of var; near names are offered.
    TypeError
        If a column of `qc_vars` is not boolean, or `inplace` is asked of something else than an AnnData.

    Warns
    -----
    ScioWarning
        If k of the default `percent_top` exceed the number of genes; they are left out.

    Notes
    -----
    Totals are exact: scanpy sums in the type of the data, so that a float32 gene total stops at 2^24.
    Shares of 0 in 0 are NaN.  The matrix is not changed: scanpy removes its explicit zeros.

    **Source**: scanpy 1.11.5 ``calculate_qc_metrics``, after ``scater`` (doi:10.1093/bioinformatics/btw777).

    Examples
    --------
    >>> import scio
    >>> obs, var = scio.pp.calculate_qc_metrics(scio.datasets.pbmc3k())
    >>> float(obs["total_counts"].iloc[0]), int(var["n_cells_by_counts"].max())
    (2421.0, 2700)
    """
    if parallel is not None:
        text = "the argument parallel has no meaning; use threads"
        warnings.warn(FutureWarning(text), stacklevel=2)
    if inplace:
        require_anndata(adata, "calculate_qc_metrics(inplace=True)")
        make_actual(adata)
    source = open_source(adata, layer=layer, use_raw=use_raw)
    names = [qc_vars] if isinstance(qc_vars, str) else list(qc_vars)
    tops = checked_tops(percent_top, source)
    flags = [source.var_flags(name) for name in names]
    words = (expr_type, var_type)
    obs, stats = count_cells(
        source,
        tops,
        dict(zip(names, flags, strict=True)),
        words=words,
        threads=threads,
        progress=progress,
    )
    var = gene_columns(stats, expr_type)
    if not log1p:
        obs, var = _without_logs(obs), _without_logs(var)
    if inplace:
        put_columns(adata.obs, obs)
        put_columns(adata.raw.var if use_raw else adata.var, var)
        return None
    pandas = require("pandas", "calculate_qc_metrics")
    return (
        pandas.DataFrame(obs, index=pandas.Index(source.obs_names)),
        pandas.DataFrame(var, index=pandas.Index(source.var_names)),
    )


def checked_tops(percent_top: Sequence[int] | None, source: Source) -> list[int]:
    """Return the k of `percent_top` in order, refusing those that the matrix has no genes for."""
    if percent_top is None:
        return []
    tops = sorted({int(k) for k in percent_top})
    wrong = [k for k in tops if not 1 <= k <= source.n_vars]
    if not wrong:
        return tops
    if tuple(percent_top) != DEFAULT_TOPS:
        message = (
            f"percent_top has {', '.join(map(str, wrong))}; {source.name} has {source.n_vars} genes, "
            "each must be in [1, that]"
        )
        raise ValueError(message)
    text = f"{source.name} has {source.n_vars} genes: percent_top leaves out {', '.join(map(str, wrong))}"
    warnings.warn(ScioWarning(text), stacklevel=3)
    return [k for k in tops if k not in wrong]


def count_cells(
    source: Source,
    tops: list[int],
    flags: dict[str, NDArray[np.bool_]],
    *,
    words: tuple[str, str] = ("counts", "genes"),
    threads: int = -1,
    progress: bool = True,
) -> tuple[Columns, GeneStats]:
    """Read a matrix once; return the columns of obs, and the statistics that those of var come from."""
    if len(flags) > _MAX_FLAGS:
        message = f"qc_vars names {len(flags)} columns, at most {_MAX_FLAGS} are taken at once"
        raise ValueError(message)
    bits = np.zeros(source.n_vars, dtype=np.uint64)
    for i, flag in enumerate(flags.values()):
        bits |= flag.astype(np.uint64) << np.uint64(i)
    core = _core.GeneStats(
        source.n_vars,
        1,
        flags=bits,
        n_flags=len(flags),
        tops=np.array(tops, dtype=np.int64),
        max_value_nbytes=MAX_VALUE_NBYTES,
    )
    feed = Feed(source, core, threads=threads)
    feed.run(is_shown=progress)
    totals, n_genes, top_sums, flag_sums = feed.cells()
    expr_type, var_type = words
    obs: Columns = {}
    _put(obs, f"n_{var_type}_by_{expr_type}", n_genes)
    _put(obs, f"total_{expr_type}", totals)
    for i, k in enumerate(tops):
        assert top_sums is not None
        obs[f"pct_{expr_type}_in_top_{k}_{var_type}"] = _percent(top_sums[:, i], totals)
    for i, name in enumerate(flags):
        assert flag_sums is not None
        _put(obs, f"total_{expr_type}_{name}", np.ascontiguousarray(flag_sums[:, i]))
        obs[f"pct_{expr_type}_{name}"] = _percent(flag_sums[:, i], totals)
    return obs, feed.result(with_values=False)


def gene_columns(stats: GeneStats, expr_type: str = "counts") -> Columns:
    """Return the columns of var, from statistics without batches."""
    n_cells, sums = stats.n_nonzero[0], stats.sums()[0]
    with np.errstate(invalid="ignore", divide="ignore"):
        means = sums / stats.n_obs
        dropout = 100 * (1 - n_cells / stats.n_obs)
    var: Columns = {f"n_cells_by_{expr_type}": n_cells}
    _put(var, f"mean_{expr_type}", means)
    var[f"pct_dropout_by_{expr_type}"] = dropout
    _put(var, f"total_{expr_type}", sums)
    return var


def _put(columns: Columns, name: str, values: NDArray[Any]) -> None:
    """A column, and log1p of it behind it."""
    columns[name] = values
    numbers = values.astype(np.float64)
    logs = np.where(numbers == -1, -np.inf, np.nan)
    fits = np.flatnonzero(numbers > -1)
    # the own routine: that of libm differs between versions
    logs[fits] = _core.normalize_log1p(numbers[None, fits], None, None, 0.0, True)[0]
    columns[f"log1p_{name}"] = logs


def _without_logs(columns: Columns) -> Columns:
    return {
        name: values
        for name, values in columns.items()
        if not (name.startswith("log1p_") and name.removeprefix("log1p_") in columns)
    }


def _percent(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore", divide="ignore"):
        out: NDArray[np.float64] = 100 * part / whole
    return out


def is_outlier(
    values: Any,
    *,
    nmads: float = 3,
    type: Literal["both", "lower", "higher"] = "both",
    log: bool = False,
    batch: Any = None,
) -> NDArray[np.bool_]:
    """Flag values that lie far from the median of their batch.

    Parameters
    ----------
    values : array-like, shape (n,)
        One number per cell, as ``obs["total_counts"]``.  NaN is never an outlier.
    nmads : float
        How many deviations are far.
    type : {"both", "lower", "higher"}
        Which side counts.
    log : bool
        Take ln(values) first, for numbers that are not negative; ln 0 is -inf, below everything.
    batch : array-like, shape (n,), optional
        Labels; centre and spread are of each batch.

    Returns
    -------
    ndarray, shape (n,), bool

    Raises
    ------
    ValueError
        If `values` is not 1-D, a label is missing, lengths differ, `nmads` is negative or NaN, or
        `log` meets a negative value.

    Notes
    -----
    Centre m = median, spread d = 1.4826 · median |v - m|; outliers are v < m - nmads · d and
    v > m + nmads · d, both strict.

    **Source**: ``isOutlier`` of scuttle 1.8 (doi:10.1093/bioinformatics/btw777).

    Examples
    --------
    >>> from scio.pp import is_outlier
    >>> is_outlier([10, 11, 9, 10, 50, 12])
    array([False, False, False, False,  True, False])
    """
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1:
        message = f"values have {numbers.ndim} dimensions, expected one number per cell"
        raise ValueError(message)
    if type not in ("both", "lower", "higher"):
        message = f"type is {type!r}, expected 'both', 'lower' or 'higher'"
        raise ValueError(message)
    if not nmads >= 0:
        message = f"nmads is {nmads!r}, expected 0 or more"
        raise ValueError(message)
    if log:
        if np.any(numbers < 0):
            at = int(np.flatnonzero(numbers < 0)[0])
            message = f"log=True, but values[{at}] is {numbers[at]:g}"
            raise ValueError(message)
        with np.errstate(divide="ignore"):
            numbers = np.log(numbers)
    out = np.zeros(len(numbers), dtype=np.bool_)
    for rows in _rows_by_batch(batch, len(numbers)):
        out[rows] = _far(numbers[rows], nmads, type)
    return out


def _rows_by_batch(batch: Any, n: int) -> list[Any]:
    if batch is None:
        return [slice(None)]
    # as a matrix without genes, which knows how to read labels
    codes, categories = open_source(np.zeros((n, 0), dtype=np.float32)).batches(batch)
    return [np.flatnonzero(codes == i) for i in range(len(categories))]


def _far(values: NDArray[np.float64], nmads: float, side: str) -> NDArray[np.bool_]:
    known = values[~np.isnan(values)]
    if len(known) == 0:
        return np.zeros(len(values), dtype=np.bool_)
    with np.errstate(invalid="ignore"):  # -inf - -inf
        centre = np.median(known)
        distances = np.abs(known - centre)
        spread = _MAD_TO_SD * np.median(np.where(np.isnan(distances), 0.0, distances))
        low: NDArray[np.bool_] = values < centre - nmads * spread
        high: NDArray[np.bool_] = values > centre + nmads * spread
    if side == "both":
        return low | high
    return low if side == "lower" else high
