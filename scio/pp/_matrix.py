"""A matrix in memory as the arrays that the core works on, and results as a matrix of the same kind."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scio import _core
from scio._optional import require
from scio.matrix import CSR
from scio.pp._source import _arrays, _check_numbers, _native

_MATRIX_RANK = 2


@dataclass(frozen=True)
class Rows:
    """Rows of a matrix in memory: CSR, or dense in C order when `indptr` is None.

    Attributes
    ----------
    matrix : object
        What the caller gave; results are made in its image.
    name : str
        Its place, for messages: ``"AnnData: X"``.
    data : ndarray, shape (nnz,) or (n_rows, n_cols)
    indices, indptr : ndarray or None
        `indptr` is int64.
    shape : tuple of int
        Of these rows: of the transpose when `is_turned`.
    is_turned : bool
        The rows are the columns of the matrix (CSC, Fortran order).
    """

    matrix: Any
    name: str
    data: NDArray[Any]
    indices: NDArray[Any] | None
    indptr: NDArray[np.int64] | None
    shape: tuple[int, int]
    is_turned: bool = False

    @property
    def arrays(self) -> tuple[NDArray[Any], NDArray[Any] | None, NDArray[np.int64] | None]:
        """data, indices, indptr: the first arguments of the core's functions."""
        return self.data, self.indices, self.indptr

    @property
    def is_sparse(self) -> bool:
        """Whether only some values are stored."""
        return self.indptr is not None

    def place(self, position: int) -> tuple[int, int]:
        """Return (row, column) in the caller's matrix of a position in `data`."""
        if self.indptr is None or self.indices is None:
            row, column = divmod(int(position), self.shape[1])
        else:
            row = int(np.searchsorted(self.indptr, position, side="right")) - 1
            column = int(self.indices[position])
        return (column, row) if self.is_turned else (row, column)

    def summed(self) -> Rows:
        """Return rows with ascending columns, duplicates summed in double, zeros kept."""
        assert self.indices is not None
        assert self.indptr is not None
        n_rows, n_cols = self.shape
        row_of = np.repeat(np.arange(n_rows), np.diff(self.indptr))
        order = np.lexsort((self.indices, row_of))
        places = row_of[order] * max(1, n_cols) + self.indices[order].astype(np.int64)
        is_first = np.append(True, places[1:] != places[:-1])[: len(places)]
        sums = np.zeros(int(is_first.sum()))
        # one by one in stored order, as the loader adds them
        np.add.at(sums, np.cumsum(is_first) - 1, self.data[order].astype(np.float64))
        kept = order[is_first]
        indptr = np.zeros(n_rows + 1, dtype=np.int64)
        np.cumsum(np.bincount(row_of[kept], minlength=n_rows), out=indptr[1:])
        return replace(self, data=sums, indices=self.indices[kept], indptr=indptr)

    def wrap(self, data: NDArray[Any], *, share: bool) -> Any:
        """Return a matrix of the caller's kind with other values.

        Parameters
        ----------
        data : ndarray
            Values in the order of `data`; taken as they are.
        share : bool
            Whether the new matrix uses the same `indices` and `indptr`, or copies of them.
        """
        if self.indptr is None or self.indices is None:
            return data.T if self.is_turned else data
        if isinstance(self.matrix, CSR):
            return CSR._wrap((data, self.indices, self.indptr), self.shape)
        return _scipy_like(self, data, share=share)


def is_sole_owner(container: Any, key: Any = None) -> bool:
    """Say whether nothing but one place holds a matrix and its arrays, as far as can be seen.

    Parameters
    ----------
    container : AnnData, or mapping
        Holds the matrix as ``.X``, or under `key`.
    key : str, optional

    Notes
    -----
    Seen are references to the matrix, to its arrays, and to what these are views of.  Rather too often
    no than too often yes: a debugger that looks at it counts.
    """
    matrix = container.X if key is None else container[key]
    if sys.getrefcount(matrix) > _refs_of_a_variable():
        return False
    return _is_base_alone(matrix) if isinstance(matrix, np.ndarray) else are_arrays_alone(matrix)


def are_arrays_alone(matrix: Any) -> bool:
    """Say whether the arrays of a sparse matrix belong to it alone, as far as can be seen."""
    alone = _refs_of_a_variable()
    for part in ("data", "indices", "indptr"):
        array = getattr(matrix, part)
        if sys.getrefcount(array) > alone or not _is_base_alone(array):
            return False
    return True


def _is_base_alone(array: NDArray[Any]) -> bool:
    """Whether nobody but `array` refers to the array whose memory it uses, if there is one."""
    base = array.base
    return not isinstance(base, np.ndarray) or sys.getrefcount(base) <= _refs_of_a_variable()


class _Holder:
    def __init__(self) -> None:
        self.thing = object()


def _refs_of_a_variable() -> int:
    """References to what a container and one local variable hold, as this Python counts them."""
    holder = _Holder()
    thing = holder.thing
    return sys.getrefcount(thing)


def as_rows(matrix: Any, name: str = "matrix in memory", *, by_rows: bool = True) -> Rows:
    """Take the arrays of a matrix in memory.

    Parameters
    ----------
    matrix : CSR, SciPy sparse matrix, ndarray or array of the array API, shape (n_cells, n_genes)
        Borrowed where its layout allows; otherwise converted.
    name : str
        For messages.
    by_rows : bool
        Whether the rows must be cells.  False: columns (CSC, Fortran order) are taken as they lie,
        with `Rows.is_turned`.

    Raises
    ------
    TypeError
        If it is no matrix of numbers.
    """
    if isinstance(matrix, CSR):
        return Rows(matrix, name, matrix.data, matrix.indices, matrix.indptr, matrix.shape)
    if hasattr(matrix, "tocsr") and hasattr(matrix, "format"):
        return _rows_of_scipy(matrix, name, by_rows=by_rows)
    if isinstance(matrix, np.ndarray):
        array: NDArray[Any] = np.asarray(matrix)
    elif hasattr(matrix, "__dlpack__") or hasattr(matrix, "__array_namespace__"):
        array = np.from_dlpack(matrix)
    else:
        message = (
            f"{name} is a {type(matrix).__name__}; scio takes an AnnData, scio.CSR, SciPy sparse "
            "matrix, NumPy array or path"
        )
        raise TypeError(message)
    if array.ndim != _MATRIX_RANK:
        message = f"{name} has {array.ndim} dimensions, a matrix has 2 (cells x genes)"
        raise ValueError(message)
    _check_numbers(array, name)
    is_turned = not by_rows and array.flags.f_contiguous and not array.flags.c_contiguous
    array = _native(array.T if is_turned else array)
    n_rows, n_cols = array.shape
    return Rows(matrix, name, array, None, None, (n_rows, n_cols), is_turned)


def _rows_of_scipy(matrix: Any, name: str, *, by_rows: bool) -> Rows:
    n_rows, n_cols = (int(n) for n in matrix.shape)
    _check_numbers(np.empty(0, dtype=matrix.dtype), name)
    if matrix.format == "csc" and not by_rows:
        arrays = _arrays(matrix.data, matrix.indices, matrix.indptr)
        return Rows(matrix, name, *arrays, (n_cols, n_rows), is_turned=True)
    if matrix.format == "csc":
        columns = _arrays(matrix.data, matrix.indices, matrix.indptr)
        arrays = _core.csr_transpose(*columns, shape=(n_cols, n_rows))
    elif matrix.format == "csr":
        arrays = _arrays(matrix.data, matrix.indices, matrix.indptr)
    else:
        csr = matrix.tocsr()
        arrays = _arrays(csr.data, csr.indices, csr.indptr)
    return Rows(matrix, name, *arrays, (n_rows, n_cols))


def _scipy_like(rows: Rows, data: NDArray[Any], *, share: bool) -> Any:
    """SciPy's matrix or array of the same kind (CSC only where the rows are its columns)."""
    sp = require("scipy.sparse", "a sparse result")
    matrix = rows.matrix
    wanted = "csc" if rows.is_turned else "csr"
    shape = rows.shape[::-1] if rows.is_turned else rows.shape
    if matrix.format == wanted:
        kind = type(matrix)
    else:
        is_array = isinstance(matrix, sp.sparray)
        kind = sp.csr_array if is_array else sp.csr_matrix
    indices, indptr = rows.indices, rows.indptr
    is_same = matrix.format == wanted and len(data) == matrix.indptr[-1]
    if is_same and rows.indices is not None and len(matrix.indices) == len(rows.indices):
        indices, indptr = matrix.indices, matrix.indptr
    if share:
        made = kind((data, indices, indptr), shape=shape, copy=False)
    else:
        made = kind((data, np.array(indices), np.array(indptr)), shape=shape, copy=False)
    for flag in ("has_sorted_indices", "has_canonical_format"):
        known = getattr(matrix, f"_{flag}", None) if is_same else None
        if known is not None:
            setattr(made, flag, known)
    return made


def subset_matrix(
    matrix: Any, rows: NDArray[np.int64] | None, columns: NDArray[np.int64] | None
) -> Any:
    """Return chosen rows and columns, new memory; None keeps all of them.

    CSR and CSC go through the core with all threads; everything else is indexed as it likes.
    """
    if isinstance(matrix, CSR):
        made = _subset_arrays(
            (matrix.data, matrix.indices, matrix.indptr), matrix.shape, rows, columns
        )
        if made is None:
            return subset_matrix(matrix[rows], None, columns) if rows is not None else matrix
        arrays, shape = made
        return CSR._wrap(arrays, shape)
    form = getattr(matrix, "format", "")
    if form in {"csr", "csc"} and type(matrix).__module__.startswith("scipy.sparse"):
        is_turned = form == "csc"
        made = _subset_arrays(
            _arrays(matrix.data, matrix.indices, matrix.indptr),
            matrix.shape[::-1] if is_turned else matrix.shape,
            columns if is_turned else rows,
            rows if is_turned else columns,
        )
        if made is not None:
            (data, indices, indptr), shape = made
            if indices.dtype == np.int32 and len(data) <= np.iinfo(np.int32).max:
                indptr = indptr.astype(np.int32)
            subset = type(matrix)(
                (data, indices, indptr), shape=shape[::-1] if is_turned else shape, copy=False
            )
            for flag in ("has_sorted_indices", "has_canonical_format"):
                if getattr(matrix, f"_{flag}", False):
                    setattr(subset, flag, True)
            return subset
    if rows is not None:
        matrix = matrix[rows]
    return matrix if columns is None else matrix[:, columns]


def _subset_arrays(
    arrays: tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]],
    shape: tuple[int, int],
    rows: NDArray[np.int64] | None,
    columns: NDArray[np.int64] | None,
) -> tuple[tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]], tuple[int, int]] | None:
    """The arrays and their shape; None when columns are repeated or out of order."""
    data, indices, indptr = arrays
    n_rows, n_cols = int(shape[0]), int(shape[1])
    new_column = None
    n_columns = n_cols
    if columns is not None:
        if np.any(np.diff(columns) <= 0):
            return None
        n_columns = len(columns)
        new_column = np.full(n_cols, -1, dtype=np.int32)
        new_column[columns] = np.arange(n_columns, dtype=np.int32)
    if indices.dtype not in (np.int32, np.int64):
        indices = indices.astype(np.int64)
    made = _core.csr_subset(
        data, indices, indptr, rows, new_column, n_columns, shape=(n_rows, n_cols)
    )
    return made, (n_rows if rows is None else len(rows), n_columns)


def subset_anndata(
    adata: Any, *, obs: NDArray[np.int64] | None = None, var: NDArray[np.int64] | None = None
) -> Any:
    """Return an AnnData of chosen cells and genes, a copy.

    anndata's own view decides what belongs to it (frames, obsm, obsp, raw, categories); only X and
    the layers, which are nearly all of the bytes, are taken by the core.
    """
    index = (slice(None) if obs is None else obs, slice(None) if var is None else var)
    view = adata[index]
    parts: dict[str, Any] = {
        "layers": {k: subset_matrix(m, obs, var) for k, m in _layers_of(adata).items()}
    }
    if adata.X is not None:
        parts["X"] = subset_matrix(adata.X, obs, var)
    return view._mutated_copy(**parts)


def _layers_of(adata: Any) -> dict[str, Any]:
    return {key: adata.layers[key] for key in adata.layers}


def elements_sharing(adata: Any, matrix: Any) -> list[str]:
    """Name the elements of an AnnData, other than `matrix` itself at one place, with its memory."""
    mine = list(_memory_of(matrix))
    found = [
        name
        for name, element in _elements(adata)
        if any(np.may_share_memory(a, b) for a in mine for b in _memory_of(element))
    ]
    return found[1:]  # the first is the matrix itself


def _elements(adata: Any) -> Iterator[tuple[str, Any]]:
    if adata.X is not None:
        yield "X", adata.X
    for attribute in ("layers", "obsm", "varm", "obsp", "varp"):
        mapping = getattr(adata, attribute)
        for key in mapping:
            yield f"{attribute}[{key!r}]", mapping[key]
    if adata.raw is not None:
        yield "raw.X", adata.raw.X


def _memory_of(matrix: Any) -> Iterator[NDArray[Any]]:
    if isinstance(matrix, np.ndarray):
        yield np.asarray(matrix)
        return
    for part in ("data", "indices", "indptr"):
        array = getattr(matrix, part, None)
        if isinstance(array, np.ndarray):
            yield array
