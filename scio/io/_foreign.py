"""What the readers of other formats share: sparse columns, names, AnnData objects."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scio._optional import require
from scio.errors import CorruptFileError, ScioWarning
from scio.matrix import CSR

if TYPE_CHECKING:
    from scio.io.hdf5 import HDF5File


def note(text: str) -> None:
    """Warn the caller of the reader of something that was skipped or made up."""
    warnings.warn(ScioWarning(text), stacklevel=3)


def keep_columns(matrix: CSR, mask: NDArray[np.bool_]) -> CSR:
    """Keep the columns where `mask` is true, in their order; entries stay in their order, too.

    Parameters
    ----------
    matrix : CSR, shape (n_rows, n_cols)
    mask : ndarray, shape (n_cols,), bool

    Returns
    -------
    CSR, shape (n_rows, mask.sum())
        `matrix` itself when nothing is left out.
    """
    n_kept = int(mask.sum())
    if n_kept == len(mask):
        return matrix
    is_prefix = bool(mask[:n_kept].all())  # genes come before antibodies: nothing is renumbered
    is_kept = matrix.indices < n_kept if is_prefix else mask[matrix.indices]
    # positions of the fewer: 4 bytes per entry at most, not a running count of 8
    is_few = 2 * int(np.count_nonzero(is_kept)) < matrix.nnz
    positions_of = np.flatnonzero(is_kept if is_few else ~is_kept)
    before = np.searchsorted(positions_of, matrix.indptr)
    indptr = before if is_few else matrix.indptr - before
    indices = matrix.indices[is_kept]
    if not is_prefix:
        indices = (np.cumsum(mask) - 1).astype(indices.dtype)[indices]
    arrays = (matrix.data[is_kept], indices, indptr.astype(np.int64, copy=False))
    return CSR._wrap(arrays, (matrix.shape[0], n_kept))


def csr_matrix(matrix: CSR) -> Any:
    """Return ``scipy.sparse.csr_matrix``, the kind that anndata's and scanpy's readers return.

    Notes
    -----
    `data` and `indices` are shared; `indptr` is int32 when `indices` is and it fits.
    """
    sparse = require("scipy.sparse", "reading into AnnData")
    indptr: NDArray[Any] = matrix.indptr
    if matrix.indices.dtype == np.int32 and matrix.nnz <= np.iinfo(np.int32).max:
        indptr = indptr.astype(np.int32)
    return sparse.csr_matrix((matrix.data, matrix.indices, indptr), shape=matrix.shape, copy=False)


def make_adata(
    x: Any,
    *,
    obs_names: NDArray[Any],
    var_names: NDArray[Any],
    obs: Mapping[str, Any] | None = None,
    var: Mapping[str, Any] | None = None,
    **members: Any,
) -> Any:
    """Make an AnnData of parts whose lengths have been checked.

    Parameters
    ----------
    x : csr_matrix or ndarray, shape (n_obs, n_vars)
    obs_names, var_names : ndarray of str
    obs, var : mapping, optional
        Columns by name.
    **members
        `layers`, `obsm`, `varm`, `obsp`, `varp`, `uns`; empty ones may be left out.

    Returns
    -------
    anndata.AnnData
    """
    anndata = require("anndata", "reading into AnnData")
    pandas = require("pandas", "reading into AnnData")

    def frame(columns: Mapping[str, Any] | None, names: NDArray[Any]) -> Any:
        columns = dict(columns or {})
        return pandas.DataFrame(columns, index=pandas.Index(names), columns=list(columns))

    filled = {name: value for name, value in members.items() if value}
    return anndata.AnnData(x, obs=frame(obs, obs_names), var=frame(var, var_names), **filled)


def read_text(file: HDF5File, path: str, n_expected: int, rule: str) -> NDArray[Any]:
    """Read a 1-D dataset of names.

    Parameters
    ----------
    file : HDF5File
    path : str
    n_expected : int
        How many there must be.
    rule : str
        Why, for the message: "one per gene: matrix/shape says 36601".

    Returns
    -------
    ndarray, shape (n_expected,), objects of str

    Raises
    ------
    CorruptFileError
        If there is another number of them.
    """
    values = file.read(path)
    if not isinstance(values, np.ndarray) or values.shape != (n_expected,):
        message = (
            f"{file.name}: {path} has shape {np.shape(values)}, expected ({n_expected},), {rule}"
        )
        raise CorruptFileError(message)
    return as_text(values)


def as_text(values: NDArray[Any]) -> NDArray[Any]:
    """Give an array as objects of str; numbers are written out."""
    if values.dtype == object:
        return values
    text = np.empty(values.shape, dtype=object)
    text[...] = values.astype(str)
    return text


def positions(n: int) -> NDArray[Any]:
    """Names of things without names: "0", "1" …, as anndata has them."""
    return np.array([str(i) for i in range(n)], dtype=object)
