"""Sparse rows as dense ones, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from scio.matrix import CSR


def _as_csr(matrix: Any) -> CSR:
    return matrix if isinstance(matrix, CSR) else CSR.from_scipy(matrix)


def sparse_to_dense(matrix: Any) -> NDArray[Any]:
    """Return a dense copy.

    Parameters
    ----------
    matrix : CSR, SciPy sparse matrix or ndarray, shape (n_cells, n_genes)

    Returns
    -------
    ndarray, shape (n_cells, n_genes), dtype of the values
        Entries that name one place twice are summed; an ndarray comes back as it is.
    """
    return matrix if isinstance(matrix, np.ndarray) else _as_csr(matrix).toarray()


def get_row_as_dense(matrix: Any, row: int) -> NDArray[Any]:
    """Return one row, shape (n_genes,), as a dense array.

    Raises
    ------
    IndexError
        If there is no such row; negative ones count from the end.
    """
    if isinstance(matrix, np.ndarray):
        return np.asarray(matrix[row])
    dense: NDArray[Any] = _as_csr(matrix)[int(row)].toarray()[0]
    return dense


def get_nonzero_indices_and_values(matrix: Any, row: int) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Return the places and values of a row that are not zero.

    Returns
    -------
    indices : ndarray, shape (n,), int64
        Ascending.
    values : ndarray, shape (n,)
        NaN and negative values are kept.
    """
    dense = get_row_as_dense(matrix, row)
    indices = np.flatnonzero(dense).astype(np.int64)
    return indices, dense[indices]
