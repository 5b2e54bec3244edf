"""Cells and genes with too few or too many counts are left out."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scio import _core
from scio.io import AnnDataFile
from scio.io.h5ad import MatrixHandle
from scio.pp._anndata import get_matrix, make_actual
from scio.pp._matrix import Rows, as_rows, subset_anndata
from scio.pp._source import BLOCK_ROWS, is_anndata, open_source
from scio.pp.normalize import _Owner, check_finite

__all__ = ["filter_cells", "filter_genes"]

_EXACT = 2.0**53  # integers up to here are exact in double


def filter_cells(
    data: Any,
    *,
    min_counts: float | None = None,
    min_genes: int | None = None,
    max_counts: float | None = None,
    max_genes: int | None = None,
    inplace: bool = True,
    copy: bool = False,
) -> Any:
    """Keep cells by their counts or by their number of genes.

    Exactly one limit is given per call; limits are inclusive.

    Parameters
    ----------
    data : AnnData, CSR, SciPy sparse matrix, ndarray, or path / handle of `scio.open`
        Counts, shape (n_cells, n_genes).  A file is streamed.
    min_counts, max_counts : float, optional
        Least and greatest total of a cell.
    min_genes, max_genes : int, optional
        Least and greatest number of genes with a value above 0.
    inplace : bool
        AnnData: subset it.  False: return mask and numbers only.
    copy : bool
        AnnData: return a subset copy, and leave `data` as it is.

    Returns
    -------
    None, AnnData, or (mask, numbers)
        None: the AnnData was subset and got ``obs["n_counts"]`` (float64) or ``obs["n_genes"]``
        (int64).  For a matrix or file, or with ``inplace=False``: mask, bool of shape (n_cells,), True
        = kept, and the totals or numbers of genes.

    Raises
    ------
    ValueError
        If not exactly one limit is given, or a value is NaN or infinite (cell and gene are named).
    CorruptFileError
        If the arrays of a sparse matrix break a rule.

    Notes
    -----
    Totals are exact: sums of integers, else doubles in a fixed order.

    **Source**: scanpy 1.11 ``filter_cells``.  scanpy adds in single precision, so totals above 2^24
    differ.

    Examples
    --------
    >>> import numpy as np, scio
    >>> kept, n_genes = scio.pp.filter_cells(np.array([[1, 0], [3, 5], [0, 0]]), min_genes=1)
    >>> kept, n_genes
    (array([ True,  True, False]), array([1, 2, 0]))
    """
    limits = _Limits("cells", "genes", min_counts, min_genes, max_counts, max_genes)
    return _filter(data, limits, inplace=inplace, copy=copy)


def filter_genes(
    data: Any,
    *,
    min_counts: float | None = None,
    min_cells: int | None = None,
    max_counts: float | None = None,
    max_cells: int | None = None,
    inplace: bool = True,
    copy: bool = False,
) -> Any:
    """Keep genes by their counts or by the number of cells that have them.

    Exactly one limit is given per call; limits are inclusive.

    Parameters
    ----------
    data : AnnData, CSR, SciPy sparse matrix, ndarray, or path / handle of `scio.open`
        Counts, shape (n_cells, n_genes).  A file is streamed.
    min_counts, max_counts : float, optional
        Least and greatest total of a gene.
    min_cells, max_cells : int, optional
        Least and greatest number of cells with a value above 0.
    inplace : bool
        AnnData: subset it.  False: return mask and numbers only.
    copy : bool
        AnnData: return a subset copy, and leave `data` as it is.

    Returns
    -------
    None, AnnData, or (mask, numbers)
        As `filter_cells`, with ``var["n_counts"]`` or ``var["n_cells"]`` and a mask of shape
        (n_genes,).

    Raises
    ------
    ValueError
        If not exactly one limit is given, or a value is NaN or infinite.
    CorruptFileError
        If the arrays of a sparse matrix break a rule.

    Notes
    -----
    Totals are exact: sums of integers, else doubles by blocks of 4,096 cells in order.

    **Source**: scanpy 1.11 ``filter_genes``.  scanpy adds in single precision, so totals above 2^24
    differ.

    Examples
    --------
    >>> import numpy as np, scio
    >>> kept, n_cells = scio.pp.filter_genes(np.array([[1, 0], [3, 5], [0, 0]]), min_cells=2)
    >>> kept, n_cells
    (array([ True, False]), array([2, 1]))
    """
    limits = _Limits("genes", "cells", min_counts, min_cells, max_counts, max_cells)
    return _filter(data, limits, inplace=inplace, copy=copy)


class _Limits:
    """The one limit of a call."""

    def __init__(
        self,
        kept: str,
        counted: str,
        min_counts: float | None,
        min_number: float | None,
        max_counts: float | None,
        max_number: float | None,
    ) -> None:
        given = {
            "min_counts": min_counts,
            f"min_{counted}": min_number,
            "max_counts": max_counts,
            f"max_{counted}": max_number,
        }
        named = {name: value for name, value in given.items() if value is not None}
        if len(named) != 1:
            found = ", ".join(named) or "none"
            message = f"exactly one of {', '.join(given)} is given per call, not {found}"
            raise ValueError(message)
        ((self.name, self.value),) = named.items()
        self.is_cells = kept == "cells"
        self.is_counts = self.name.endswith("_counts")
        self.column = "n_counts" if self.is_counts else f"n_{counted}"

    def mask(self, numbers: NDArray[Any]) -> NDArray[np.bool_]:
        value = self.value
        kept: NDArray[np.bool_] = (
            numbers >= value if self.name.startswith("min") else numbers <= value
        )
        return kept


def _filter(data: Any, limits: _Limits, *, inplace: bool, copy: bool) -> Any:
    if isinstance(data, (str, os.PathLike, AnnDataFile, MatrixHandle)):
        numbers = _count_source(data, limits)
        return limits.mask(numbers), numbers
    if not is_anndata(data):
        numbers = _count(as_rows(data), limits, None)
        return limits.mask(numbers), numbers
    matrix = get_matrix(data)
    rows = as_rows(matrix, "AnnData: X", by_rows=True)
    numbers = _count(rows, limits, data)
    del matrix, rows
    kept = limits.mask(numbers)
    if not inplace and not copy:
        return kept, numbers
    adata = data
    index = np.flatnonzero(kept).astype(np.int64)
    axis = "obs" if limits.is_cells else "var"
    if len(index) == len(kept):
        adata = data.copy() if copy else data
        if not copy:
            make_actual(data)
        getattr(adata, axis)[limits.column] = numbers
        return adata if copy else None
    subset = subset_anndata(data, **{axis: index})
    getattr(subset, axis)[limits.column] = numbers[index]
    if copy:
        return subset
    data._init_as_actual(subset)
    return None


def _count(rows: Rows, limits: _Limits, adata: Any) -> NDArray[Any]:
    if limits.is_cells:
        totals, n_positive, facts = _core.row_totals(*rows.arrays, shape=rows.shape)
        check_finite(rows, facts, _owner_of(adata))
        return totals if limits.is_counts else n_positive
    try:
        numbers, is_canonical = _count_columns(rows, limits)
    except ValueError:
        _, _, facts = _core.row_totals(*rows.arrays, shape=rows.shape)
        check_finite(rows, facts, _owner_of(adata))  # says where
        raise
    if not is_canonical and rows.is_sparse:
        numbers, _ = _count_columns(rows.summed(), limits)
    return numbers


def _count_columns(rows: Rows, limits: _Limits) -> tuple[NDArray[Any], bool]:
    what = "sum" if limits.is_counts else "positive"
    numbers, is_canonical = _core.column_sums(*rows.arrays, what, shape=rows.shape)
    return numbers, is_canonical


def _owner_of(adata: Any) -> Any:
    return _Owner(np.empty((0, 0)) if adata is None else adata, None)


def _count_source(data: Any, limits: _Limits) -> NDArray[Any]:
    """The same of a file, which is streamed."""
    source = open_source(data)
    parts: list[NDArray[Any]] = []
    totals: NDArray[Any] = np.zeros(source.n_vars, dtype=np.int64)
    # blocks of sums of doubles are added one by one, as in memory
    n_rows = BLOCK_ROWS if limits.is_counts and not limits.is_cells else None
    for block in source.blocks(n_rows, check=False):
        rows = Rows(
            None,
            source.name,
            block.data,
            block.indices,
            block.indptr,
            (block.n_rows, source.n_vars),
        )
        try:
            numbers = _count(rows, limits, None)
        except ValueError as error:
            error.add_note(f"counted from row {block.start} on")
            raise
        if limits.is_cells:
            parts.append(numbers)
        else:
            totals = _add_sums(totals, numbers)
    if not limits.is_cells:
        return totals.astype(np.float64) if limits.is_counts else totals
    return (
        np.concatenate(parts)
        if parts
        else np.zeros(0, np.float64 if limits.is_counts else np.int64)
    )


def _add_sums(totals: NDArray[Any], numbers: NDArray[Any]) -> NDArray[Any]:
    """Integers exactly, for as long as all are; then doubles."""
    sums: NDArray[Any] = totals
    if totals.dtype == np.int64 and numbers.dtype == np.float64:
        are_integers = np.all((numbers == np.floor(numbers)) & (np.abs(numbers) < _EXACT))
        if not are_integers:
            sums = totals.astype(np.float64) + numbers
        else:
            sums = totals + numbers.astype(np.int64)
    else:
        sums = totals + numbers
    return sums
