"""Analytic Pearson residuals as a matrix, or row by row."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scio import _core
from scio.pp import _flavors as flavors
from scio.pp._anndata import make_actual, put_matrix
from scio.pp._source import Block, Source, is_anndata, open_source

__all__ = ["iterate_pearson_residuals", "normalize_pearson_residuals"]

_ITERATED_NBYTES = 64 << 20  # dense rows that the iterator makes at a time


def check_residual_arguments(theta: float, clip: float | None) -> None:
    """Raise ValueError unless theta is above 0 and clip is None or not negative."""
    if not theta > 0:
        message = f"theta is {theta!r}, expected a number above 0 (infinity is Poisson)"
        raise ValueError(message)
    if clip is not None and not clip >= 0:
        message = f"clip is {clip!r}, expected a number of at least 0, or None"
        raise ValueError(message)


def canonical_blocks(source: Source) -> Iterator[Block]:
    """Blocks whose rows hold every gene once, in order, with indices of 32 or 64 bits."""
    for block in source.blocks():
        yield _canonical(block)


def _canonical(block: Block) -> Block:
    """Sort the rows of a block and add its duplicates, in double, where there are any."""
    data, indices, indptr = block.data, block.indices, block.indptr
    if not block.is_canonical:
        rows = np.repeat(np.arange(block.n_rows), np.diff(indptr))
        order = np.lexsort((indices, rows))  # stable: duplicates are added as they are stored
        data, indices, rows = data[order].astype(np.float64), indices[order], rows[order]
        is_first = np.ones(len(data), dtype=np.bool_)
        is_first[1:] = (rows[1:] != rows[:-1]) | (indices[1:] != indices[:-1])
        data = np.bincount(np.cumsum(is_first) - 1, data, int(is_first.sum()))
        indices, rows = indices[is_first], rows[is_first]
        indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=block.n_rows))])
    if indices.dtype not in (np.dtype(np.int32), np.dtype(np.int64)):
        indices = indices.astype(np.int64)
    return Block(
        block.start,
        block.stop,
        np.ascontiguousarray(data),
        np.ascontiguousarray(indices),
        np.ascontiguousarray(indptr, dtype=np.int64),
        is_canonical=True,
    )


@dataclass(frozen=True)
class _Residuals:
    """The model of all cells, ready to make rows."""

    source: Source
    totals: NDArray[np.float64]
    fractions: NDArray[np.float64]
    clip: float
    theta: float
    dtype: np.dtype[Any]
    threads: int

    def fill(self, block: Block, out: NDArray[Any]) -> None:
        """Write the residuals of rows of `block` into `out`."""
        _core.residual_rows(
            block.data,
            block.indices,
            block.indptr,
            np.ascontiguousarray(self.totals[block.start : block.stop]),
            self.fractions,
            out,
            shape=(block.n_rows, self.source.n_vars),
            clip=self.clip,
            inverse_theta=1.0 / self.theta,
            threads=self.threads,
        )


def _model_of(
    source: Any,
    layer: str | None,
    theta: float,
    clip: float | None,
    *,
    check_values: bool,
    threads: int,
) -> _Residuals:
    from scio.pp.stats import gene_stats

    check_residual_arguments(theta, clip)
    given = open_source(source, layer=layer)
    if given.n_obs == 0:
        message = f"{given.name} has no cells"
        raise ValueError(message)
    stats = gene_stats(given, scaled=False, threads=threads)
    if given.n_vars and not np.any(stats.n_nonzero):
        message = f"{given.name}: all {given.n_obs:,} x {given.n_vars:,} values are 0"
        raise ValueError(message)
    if stats.facts["n_negative"] or (stats.facts["n_fractional"] and check_values):
        stats.check_counts("normalize_pearson_residuals")
    sums = np.asarray(stats.sums(), dtype=np.float64).reshape(-1)
    dtype = np.dtype(np.float64 if given.dtype == np.float64 else np.float32)
    limit = math.sqrt(given.n_obs) if clip is None else float(clip)
    fractions = flavors.fractions_of(sums)
    return _Residuals(given, stats.totals, fractions, limit, float(theta), dtype, threads)


def iterate_pearson_residuals(
    source: Any,
    *,
    theta: float = 100,
    clip: float | None = None,
    check_values: bool = True,
    layer: str | None = None,
    threads: int = -1,
) -> Iterator[NDArray[Any]]:
    """Make dense Pearson residuals a few rows at a time.

    Parameters
    ----------
    source, theta, clip, check_values, layer, threads
        As in `normalize_pearson_residuals`; a path or a handle is streamed.

    Yields
    ------
    ndarray, shape (n_rows, n_genes), float32 or float64
        New arrays of consecutive rows, about 64 MiB each: the rows of
        `normalize_pearson_residuals`, bit for bit.

    Raises
    ------
    ValueError
        As in `normalize_pearson_residuals`.
    """
    model = _model_of(source, layer, theta, clip, check_values=check_values, threads=threads)
    return _rows(model)


def _rows(model: _Residuals) -> Iterator[NDArray[Any]]:
    n_vars = model.source.n_vars
    step = max(1, _ITERATED_NBYTES // max(1, n_vars * model.dtype.itemsize))
    for block in canonical_blocks(model.source):
        for first in range(0, block.n_rows, step):
            last = min(first + step, block.n_rows)
            begin, end = int(block.indptr[first]), int(block.indptr[last])
            part = Block(
                block.start + first,
                block.start + last,
                block.data[begin:end],
                block.indices[begin:end],
                block.indptr[first : last + 1] - begin,
                is_canonical=True,
            )
            out = np.empty((last - first, n_vars), dtype=model.dtype)
            model.fill(part, out)
            yield out


def normalize_pearson_residuals(
    source: Any,
    *,
    theta: float = 100,
    clip: float | None = None,
    check_values: bool = True,
    layer: str | None = None,
    inplace: bool = True,
    copy: bool = False,
    threads: int = -1,
) -> Any:
    """Replace counts by analytic Pearson residuals.

    Parameters
    ----------
    source : AnnData, matrix, path or handle, shape (n_cells, n_genes)
        Counts.
    theta : float > 0
        Overdispersion, shared by all genes; infinity is Poisson.
    clip : float >= 0, optional
        Residuals are at most that, either side; the root of the number of cells unless given.
    check_values : bool
        Warn of non-integers.
    layer : str, optional
        Layer instead of X.
    inplace : bool
        Replace X or the layer of an AnnData by a new array; False returns a dict.
    copy : bool
        Do it in a copy of the AnnData, which is returned.
    threads : int
        -1: all.  Results do not depend on it.

    Returns
    -------
    None, AnnData, dict or ndarray, shape (n_cells, n_genes)
        Residuals are float64 for float64 counts, else float32.  A dict has ``X``, ``theta``,
        ``clip`` and ``computed_on``; a matrix, path or handle gives the array alone.

    Raises
    ------
    ValueError
        If theta, clip or the values are not allowed, or copy=True with inplace=False.
    MemoryError
        If the dense result does not fit the free memory; `iterate_pearson_residuals` needs none.

    Notes
    -----
    r = (x - mu) / sqrt(mu + mu^2 / theta), mu = total of the cell times sum of the gene over the sum
    of all; 0 where mu is 0.
    **Source** Lause, Berens and Kobak, Genome Biology 22 (2021) 258.
    """
    if copy and not inplace:
        message = "copy=True returns an AnnData and inplace=False a dict; choose one of them"
        raise ValueError(message)
    has_obs = is_anndata(source)
    adata = source.copy() if copy and has_obs else source
    model = _model_of(adata, layer, theta, clip, check_values=check_values, threads=threads)
    values = _dense(model)
    if not has_obs:
        return values
    note = {
        "theta": model.theta,
        "clip": model.clip,
        "computed_on": layer if layer else "adata.X",
    }
    if not inplace:
        return {"X": values, **note}
    make_actual(adata)
    put_matrix(adata, values, layer=layer)
    adata.uns["pearson_residuals_normalization"] = note
    return adata if copy else None


def _dense(model: _Residuals) -> NDArray[Any]:
    source = model.source
    needed = source.n_obs * source.n_vars * model.dtype.itemsize
    free = free_nbytes()
    if free is not None and needed > free:
        message = (
            f"the residuals of {source.name} are dense: {source.n_obs:,} x {source.n_vars:,} "
            f"{model.dtype} need {needed / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free; select "
            "genes first, or take the rows from iterate_pearson_residuals one part at a time"
        )
        raise MemoryError(message)
    out = np.empty(source.shape, dtype=model.dtype)
    for block in canonical_blocks(source):
        model.fill(block, out[block.start : block.stop])
    return out


def free_nbytes() -> int | None:
    """Memory that can be had without swapping, None where the system does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            lines = dict(line.split(":", 1) for line in file)
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None
