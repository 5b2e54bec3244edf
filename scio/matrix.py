"""Compressed sparse rows as three arrays, handed on without a copy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from scio import _core
from scio._optional import require


class CSR:
    """A sparse matrix in compressed rows: cells x genes.

    Parameters
    ----------
    data : ndarray, shape (nnz,), numeric or bool
        Stored values.
    indices : ndarray, shape (nnz,), integer
        Column of each value, in [0, n_cols).
    indptr : ndarray, shape (n_rows + 1,), integer
        Row r is ``indptr[r]:indptr[r + 1]``; kept as int64.
    shape : tuple of int
        (n_rows, n_cols).

    Raises
    ------
    CorruptFileError
        If the arrays break a rule; the message names array, position, found and expected.
    TypeError
        If a dtype is not one that scio computes with.

    Notes
    -----
    The arrays are kept as they are, not copied (but `indptr` is widened to int64).  They are NumPy
    arrays, so each supports DLPack and the buffer protocol on its own.
    Rows may be unsorted, and hold an index twice: such entries are summed wherever numbers are
    computed.

    Examples
    --------
    >>> import numpy as np, scio
    >>> m = scio.CSR(np.float32([1, 2]), np.int32([0, 2]), np.int64([0, 1, 2]), shape=(2, 3))
    >>> m.toarray()
    array([[1., 0., 0.],
           [0., 0., 2.]], dtype=float32)
    """

    __slots__ = ("data", "indices", "indptr", "shape")

    data: NDArray[Any]
    indices: NDArray[Any]
    indptr: NDArray[np.int64]
    shape: tuple[int, int]

    def __init__(
        self,
        data: NDArray[Any],
        indices: NDArray[Any],
        indptr: NDArray[Any],
        *,
        shape: tuple[int, int],
    ) -> None:
        self.data = np.ascontiguousarray(data)
        self.indices = np.ascontiguousarray(indices)
        self.indptr = np.ascontiguousarray(indptr, dtype=np.int64)
        self.shape = (int(shape[0]), int(shape[1]))
        _core.csr_validate(self.data, self.indices, self.indptr, shape=self.shape)

    @classmethod
    def _wrap(
        cls,
        arrays: tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]],
        shape: tuple[int, int],
    ) -> CSR:
        """Take arrays that the core made and has checked."""
        self = cls.__new__(cls)
        self.data, self.indices, self.indptr = arrays
        self.shape = shape
        return self

    @property
    def nnz(self) -> int:
        """Stored entries, explicit zeros included."""
        return int(self.data.shape[0])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values."""
        return self.data.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of the three arrays."""
        return int(self.data.nbytes + self.indices.nbytes + self.indptr.nbytes)

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        n_rows, n_cols = self.shape
        return (
            f"scio.CSR {n_rows:,} x {n_cols:,}, {self.nnz:,} stored {self.dtype} values, "
            f"{self.indices.dtype} indices, {self.nbytes / 2**20:.1f} MiB"
        )

    def __getitem__(self, rows: Any) -> CSR:
        """Gather rows: an int array, a boolean mask, a slice or an int (which gives one row)."""
        index = row_index(rows, self.shape[0])
        arrays = _core.csr_take(self.data, self.indices, self.indptr, index, shape=self.shape)
        return CSR._wrap(arrays, (len(index), self.shape[1]))

    def transpose(self) -> CSR:
        """Return the transpose as CSR: the same numbers as CSC of this matrix."""
        arrays = _core.csr_transpose(self.data, self.indices, self.indptr, shape=self.shape)
        return CSR._wrap(arrays, (self.shape[1], self.shape[0]))

    @property
    def T(self) -> CSR:
        """The transpose."""
        return self.transpose()

    def toarray(self) -> NDArray[Any]:
        """Return the dense matrix, shape (n_rows, n_cols), dtype of `data`; entries are summed."""
        return _core.csr_to_dense(self.data, self.indices, self.indptr, shape=self.shape)

    def to_scipy(self) -> Any:
        """Return a ``scipy.sparse.csr_array`` over the same `data` and `indices` (no copy).

        Raises
        ------
        MissingDependencyError
            If SciPy is not installed.
        """
        sparse = require("scipy.sparse", "CSR.to_scipy")
        indptr = self.indptr
        if self.indices.dtype == np.int32 and self.nnz <= np.iinfo(np.int32).max:
            indptr = indptr.astype(np.int32)
        return sparse.csr_array((self.data, self.indices, indptr), shape=self.shape, copy=False)

    @classmethod
    def from_scipy(cls, matrix: Any) -> CSR:
        """Take the arrays of a SciPy CSR (or anything with ``tocsr``)."""
        csr = matrix.tocsr()
        return cls(csr.data, csr.indices, csr.indptr, shape=csr.shape)

    @classmethod
    def from_dense(cls, dense: NDArray[Any]) -> CSR:
        """Keep the values of a 2-D array that are not zero (NaN is kept)."""
        array = np.ascontiguousarray(dense)
        rows, cols = array.shape
        return cls._wrap(_core.csr_from_dense(array), (rows, cols))

    def to_torch(self) -> Any:
        """Return a ``torch.sparse_csr_tensor`` that shares `data` (no copy).

        Raises
        ------
        MissingDependencyError
            If torch is not installed.
        """
        torch = require("torch", "CSR.to_torch")
        indices = self.indices if self.indices.dtype == np.int64 else self.indices.astype(np.int64)
        return torch.sparse_csr_tensor(
            torch.from_numpy(self.indptr),
            torch.from_numpy(indices),
            torch.from_numpy(self.data),
            size=self.shape,
            check_invariants=False,  # the gate has proved them
        )


def row_index(rows: Any, n_rows: int) -> NDArray[np.int64]:
    """Turn a row selector into int64 positions.

    Parameters
    ----------
    rows : int, slice, boolean mask or integer array
        Negative positions count from the end.
    n_rows : int
        Rows of the matrix.

    Returns
    -------
    ndarray, shape (n_selected,), int64

    Raises
    ------
    IndexError
        If a position is out of range or a mask has the wrong length.
    TypeError
        If the selector is of another kind.
    """
    if isinstance(rows, slice):
        return np.arange(*rows.indices(n_rows), dtype=np.int64)
    index = np.asarray(rows)
    if index.ndim == 0:
        index = index[None]
    if index.ndim != 1:
        message = f"rows are selected by a 1-D array, this one has {index.ndim} dimensions"
        raise IndexError(message)
    if index.dtype == np.bool_:
        if len(index) != n_rows:
            message = f"the mask has {len(index)} entries, the matrix {n_rows} rows"
            raise IndexError(message)
        return np.flatnonzero(index).astype(np.int64, copy=False)
    if len(index) == 0:
        return np.empty(0, dtype=np.int64)
    if index.dtype.kind not in "iu":
        message = f"rows are selected by integers, a mask or a slice, not by {index.dtype}"
        raise TypeError(message)
    index = index.astype(np.int64)
    low, high = int(index.min()), int(index.max())
    if low < -n_rows or high >= n_rows:
        wrong = high if high >= n_rows else low
        message = f"row {wrong} does not exist: the matrix has {n_rows} rows"
        raise IndexError(message)
    index[index < 0] += n_rows
    return np.ascontiguousarray(index)
