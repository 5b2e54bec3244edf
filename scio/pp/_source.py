"""What `scio.pp` computes on: rows of a matrix with the names and columns of its cells and genes.

An AnnData, a matrix in memory, a path or a handle become a `Source`, whose `blocks` are validated CSR
arrays of consecutive rows, whatever the storage is.  Blocks start at multiples of 4,096 rows, which is
the unit in which sums of doubles are taken (see `BLOCK_ROWS`).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from scio import _core
from scio._names import near_names
from scio.data._sources import DEFAULT_MAX_CSC_NBYTES, FileSource, _matrix_of
from scio.errors import KeyNotFoundError
from scio.io import AnnDataFile, Categorical
from scio.io import open as open_file
from scio.io.h5ad import MatrixHandle
from scio.matrix import CSR
from scio.pp._labels import codes_of, column_of, is_missing, names_of, numbered

BLOCK_ROWS = 4096
"""Rows of a block of sums: a constant, so that results do not depend on windows and threads."""

WINDOW_NBYTES = 128 << 20  # decoded bytes of a file that are held at a time, one block at the least
_N_SAMPLED_ROWS = 64
_MATRIX_RANK = 2
_KINDS = "biuf"


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive rows of a matrix as CSR.

    Attributes
    ----------
    start, stop : int
        Rows of the matrix; `start` is a multiple of `BLOCK_ROWS`.
    data : ndarray, shape (nnz,)
        Stored values in the type of the source, explicit zeros included.
    indices : ndarray, shape (nnz,), integer
        Columns; every one was checked against the number of genes.
    indptr : ndarray, shape (stop - start + 1,), int64
        Begins with 0.
    is_canonical : bool
        Columns of every row strictly increase, so none is there twice.
    """

    start: int
    stop: int
    data: NDArray[Any]
    indices: NDArray[Any]
    indptr: NDArray[np.int64]
    is_canonical: bool

    @property
    def n_rows(self) -> int:
        """Rows of this block."""
        return self.stop - self.start


class Source:
    """A matrix (cells x genes) and what is known of its cells and genes; see `open_source`.

    Attributes
    ----------
    n_obs, n_vars : int
        Cells and genes.
    dtype : numpy.dtype
        Type of the stored values.
    name : str
        Place of the matrix for messages, ``"pbmc3k.h5ad: X"``.
    is_file : bool
        Whether rows are read and decoded from a file.
    """

    n_obs: int
    n_vars: int
    dtype: np.dtype[Any]
    name: str
    is_file: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """(n_obs, n_vars)."""
        return (self.n_obs, self.n_vars)

    @cached_property
    def obs_names(self) -> NDArray[Any]:
        """Names of the cells, shape (n_obs,), objects of str; "0", "1", … where there are none."""
        return numbered(self.n_obs)

    @cached_property
    def var_names(self) -> NDArray[Any]:
        """Names of the genes, shape (n_vars,), objects of str; "0", "1", … where there are none."""
        return numbered(self.n_vars)

    def blocks(self, n_rows: int | None = None, *, check: bool = True) -> Iterator[Block]:
        """Iterate over all rows, in order.

        Parameters
        ----------
        n_rows : int, optional
            Rows of a block, a multiple of `BLOCK_ROWS`.  None: as many as `WINDOW_NBYTES` hold of a
            file or a dense matrix, all of a sparse matrix in memory.
        check : bool
            False: indices of arrays in memory are not looked at, for consumers that do so
            themselves; `Block.is_canonical` is then False.

        Raises
        ------
        CorruptFileError
            If the arrays break a rule of CSR.
        """
        if n_rows is not None and (n_rows < 1 or n_rows % BLOCK_ROWS):
            message = f"n_rows is {n_rows}, expected a multiple of {BLOCK_ROWS:,}"
            raise ValueError(message)
        start = 0
        while start < self.n_obs:
            stop = min(self._window_stop(start) if n_rows is None else start + n_rows, self.n_obs)
            data, indices, indptr = self._read(start, stop)
            is_canonical = False
            if check:
                shape = (stop - start, self.n_vars)
                is_sorted, has_duplicates = _core.csr_validate(data, indices, indptr, shape=shape)
                is_canonical = is_sorted and not has_duplicates
            yield Block(start, stop, data, indices, indptr, is_canonical)
            start = stop

    def _window_stop(self, start: int) -> int:
        """Where a block that begins at `start` ends when nobody says so: a multiple of 4,096."""
        raise NotImplementedError

    def _read(self, start: int, stop: int) -> _Arrays:
        """data, indices, indptr of rows [start, stop)."""
        raise NotImplementedError

    def take(self, rows: NDArray[np.int64]) -> _Arrays:
        """Return data, indices, indptr of a few rows in any order."""
        raise NotImplementedError

    # --- columns

    def _columns(self, axis: str) -> list[str]:
        return []

    def _column(self, axis: str, key: str) -> Any:
        raise KeyNotFoundError(key)

    def _checked_column(self, axis: str, key: str) -> Any:
        columns = self._columns(axis)
        if key not in columns:
            message = f"{self.name}: {axis} has no column {key!r}; {near_names(key, columns)}"
            raise KeyNotFoundError(message)
        return self._column(axis, key)

    def obs_column(self, key: str) -> NDArray[Any] | tuple[NDArray[np.int32], list[str]]:
        """Return a column of obs.

        Returns
        -------
        ndarray, shape (n_obs,), or (codes, categories)
            Numbers as they are; labels (strings, categories, booleans) as codes, int32, -1 where
            missing, and the list of category names.

        Raises
        ------
        KeyNotFoundError
            If there is no such column; near names are offered.
        """
        column = self._checked_column("obs", key)
        if not isinstance(column, Categorical) and column.dtype.kind in "iuf":
            return cast("NDArray[Any]", column)
        return codes_of(column)

    def var_flags(self, key: str) -> NDArray[np.bool_]:
        """Return a boolean column of var, shape (n_vars,); missing counts as False.

        Raises
        ------
        KeyNotFoundError
            If there is no such column.
        TypeError
            If it holds something else than booleans (or 0 and 1).
        """
        column = self._checked_column("var", key)
        if isinstance(column, np.ma.MaskedArray):
            column = column.filled(False)
        values = [False if is_missing(v) else v for v in np.asarray(column).tolist()]
        if not all(isinstance(v, (bool, int, float)) and v in (0, 1) for v in values):
            message = f"{self.name}: var[{key!r}] holds other values than True and False"
            raise TypeError(message)
        return np.array(values, dtype=np.bool_)

    def batches(
        self, key: str | Sequence[Any] | NDArray[Any], *, name: str = "batch_key"
    ) -> tuple[NDArray[np.int32], list[str]]:
        """Return the batch of every cell.

        Parameters
        ----------
        key : str or array-like, shape (n_obs,)
            A column of obs, or the labels themselves.
        name : str
            What the labels are called in messages.

        Returns
        -------
        codes : ndarray, shape (n_obs,), int32
        categories : list of str
            As stored, also those without cells; sorted when the labels are no categories.

        Raises
        ------
        KeyNotFoundError
            If there is no such column.
        ValueError
            If a label is missing, or there are not `n_obs` of them.
        """
        what = f"obs[{key!r}]" if isinstance(key, str) else name
        column = self._checked_column("obs", key) if isinstance(key, str) else column_of(key)
        if len(column) != self.n_obs:
            message = f"{self.name}: {what} has {len(column)} labels, the matrix {self.n_obs} cells"
            raise ValueError(message)
        codes, categories = codes_of(column)
        missing = np.flatnonzero(codes < 0)
        if len(missing):
            message = (
                f"{self.name}: {what} is missing for {len(missing):,} cells, the first is "
                f"{self.obs_names[missing[0]]!r} (cell {missing[0]}); give them a batch of their own"
            )
            raise ValueError(message)
        return codes, categories

    # --- identity

    def fingerprint(self) -> dict[str, Any]:
        """Return what tells this matrix from another one, to be compared by equality.

        Shape and a hash of the values of 64 rows, zeros left out and duplicates summed: the same for
        every storage and every type of the same numbers.
        """
        step = max(1, self.n_obs // _N_SAMPLED_ROWS)
        rows = np.arange(0, self.n_obs, step, dtype=np.int64)[:_N_SAMPLED_ROWS]
        data, indices, indptr = self.take(rows)
        row_of = np.repeat(np.arange(len(rows)), np.diff(indptr))
        order = np.lexsort((indices, row_of))
        places = row_of[order] * max(1, self.n_vars) + indices[order].astype(np.int64)
        distinct, first = np.unique(places, return_index=True)
        values = data[order].astype(np.float64)
        sums = np.add.reduceat(values, first) if len(first) else values
        kept = sums != 0
        digest = hashlib.sha256(distinct[kept].tobytes())
        digest.update(sums[kept].tobytes())
        return {"n_obs": self.n_obs, "n_vars": self.n_vars, "sample": digest.hexdigest()[:32]}

    def check_fingerprint(self, expected: dict[str, Any], what: str) -> None:
        """Raise ValueError when `what` was made from another matrix."""
        found = self.fingerprint()
        if found == expected:
            return
        shape = (expected.get("n_obs"), expected.get("n_vars"))
        reason = (
            f"it was made from {shape[0]} cells x {shape[1]} genes, this matrix has "
            f"{self.n_obs} x {self.n_vars}"
            if shape != self.shape
            else "the shape is the same, the values are not"
        )
        message = f"{what} does not belong to {self.name}: {reason}"
        raise ValueError(message)

    def __repr__(self) -> str:
        return f"<source {self.name!r}: {self.n_obs:,} x {self.n_vars:,} {self.dtype}>"


_Arrays = tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]]


class _CSRSource(Source):
    """Three arrays in memory, borrowed."""

    def __init__(self, arrays: _Arrays, shape: tuple[int, int], name: str) -> None:
        self._data, self._indices, self._indptr = arrays
        self.n_obs, self.n_vars = shape
        self.dtype = self._data.dtype
        self.name = name
        _core.csr_validate(self._data, self._indices, self._indptr, shape=shape, level="structure")

    def _window_stop(self, start: int) -> int:
        return self.n_obs

    def _read(self, start: int, stop: int) -> _Arrays:
        indptr = self._indptr[start : stop + 1]
        first, end = int(indptr[0]), int(indptr[-1])
        indptr = indptr - first if first else indptr
        return self._data[first:end], self._indices[first:end], indptr

    def take(self, rows: NDArray[np.int64]) -> _Arrays:
        return _core.csr_take(self._data, self._indices, self._indptr, rows, shape=self.shape)


class _DenseSource(Source):
    """A 2-D array in memory of any strides; blocks are copies of its non-zero values."""

    def __init__(self, array: NDArray[Any], name: str) -> None:
        self._array = array
        self.n_obs, self.n_vars = array.shape
        self.dtype = array.dtype.newbyteorder("=")
        self.name = name

    def _window_stop(self, start: int) -> int:
        return start + _rows_of(WINDOW_NBYTES, self.n_vars * self.dtype.itemsize)

    def _read(self, start: int, stop: int) -> _Arrays:
        return _core.csr_from_dense(_native(self._array[start:stop]))

    def take(self, rows: NDArray[np.int64]) -> _Arrays:
        return _core.csr_from_dense(_native(self._array[rows]))


class _FileSource(Source):
    """A matrix in a file: windows of bounded size, decoded by all threads."""

    is_file = True

    def __init__(self, handle: MatrixHandle, name: str) -> None:
        self._handle = handle
        self.n_obs, self.n_vars = handle.shape
        self.dtype = handle.dtype
        self.name = f"{name}: {handle.path.strip('/')}"

    @property
    def _matrix(self) -> _core.Matrix:
        return self._handle._core_matrix(DEFAULT_MAX_CSC_NBYTES)

    def _window_stop(self, start: int) -> int:
        matrix = self._matrix
        if matrix.kind == "dense":
            # as CSR a value of a dense matrix may take twice its bytes and an index
            return start + _rows_of(WINDOW_NBYTES, self.n_vars * (self.dtype.itemsize + 4))
        itemsize = self.dtype.itemsize + 4
        most = int(matrix.indptr[start]) + WINDOW_NBYTES // itemsize
        stop = int(np.searchsorted(matrix.indptr, most, side="right")) - 1
        if stop >= self.n_obs:
            return self.n_obs
        return start + max(1, (stop - start) // BLOCK_ROWS) * BLOCK_ROWS

    def _read(self, start: int, stop: int) -> _Arrays:
        return self._matrix.read(start, stop)

    def take(self, rows: NDArray[np.int64]) -> _Arrays:
        return self._matrix.take(rows)


class _AnnDataFileSource(_FileSource):
    """The same with the frames of its file."""

    def __init__(self, file: AnnDataFile, matrix: str) -> None:
        self._source = FileSource(file, matrix)
        super().__init__(file.matrix(matrix), os.path.basename(file.name))
        self._file = file
        self._var = file.var if matrix != "raw/X" or file.raw is None else file.raw.var

    @cached_property
    def obs_names(self) -> NDArray[Any]:
        return self._file.obs_names

    @cached_property
    def var_names(self) -> NDArray[Any]:
        return self._source.genes()

    def _columns(self, axis: str) -> list[str]:
        return (self._file.obs if axis == "obs" else self._var).columns

    def _column(self, axis: str, key: str) -> Any:
        return (self._file.obs if axis == "obs" else self._var)[key]


class _AnnDataSource(Source):
    """A matrix of an AnnData, with its frames as they are now."""

    def __init__(self, adata: Any, matrix: str) -> None:
        if getattr(adata, "isbacked", False) and not matrix.startswith("layers/"):
            self._inner = _open_backed(adata, matrix)
        else:
            values, _ = _matrix_of(adata, matrix)
            self._inner = _source_of_matrix(values, f"AnnData: {matrix}")
        self.is_file = self._inner.is_file
        self._frames = {"obs": adata.obs, "var": (adata.raw if matrix == "raw/X" else adata).var}
        self.n_obs, self.n_vars = self._inner.shape
        self.dtype, self.name = self._inner.dtype, self._inner.name

    @cached_property
    def obs_names(self) -> NDArray[Any]:
        return names_of(self._frames["obs"])

    @cached_property
    def var_names(self) -> NDArray[Any]:
        return names_of(self._frames["var"])

    def _columns(self, axis: str) -> list[str]:
        return [str(c) for c in self._frames[axis].columns]

    def _column(self, axis: str, key: str) -> Any:
        return column_of(self._frames[axis][key])

    def _window_stop(self, start: int) -> int:
        return self._inner._window_stop(start)

    def _read(self, start: int, stop: int) -> _Arrays:
        return self._inner._read(start, stop)

    def take(self, rows: NDArray[np.int64]) -> _Arrays:
        return self._inner.take(rows)


def open_source(source: Any, *, layer: str | None = None, use_raw: bool = False) -> Source:
    """Make a source of anything that `scio.pp` takes.

    Parameters
    ----------
    source : AnnData, CSR, SciPy sparse matrix, ndarray, path, AnnDataFile or MatrixHandle
        In memory it is borrowed, not copied; columns (CSC) are turned into rows once.
    layer : str, optional
        The layer of an AnnData or a file instead of X.
    use_raw : bool
        ``raw.X`` and the genes of raw instead.

    Returns
    -------
    Source

    Raises
    ------
    TypeError
        If it is something else, or holds no numbers.
    ValueError
        If `layer` and `use_raw` are both given, or a matrix without layers gets one of them.
    KeyNotFoundError
        If there is no such layer (near names are offered) or no raw.
    """
    if layer is not None and use_raw:
        message = f"layer={layer!r} and use_raw=True exclude each other"
        raise ValueError(message)
    matrix = "raw/X" if use_raw else "X" if layer is None else f"layers/{layer}"
    if isinstance(source, Source):
        return source
    if isinstance(source, (str, os.PathLike)):
        return _AnnDataFileSource(open_file(source), matrix)
    if isinstance(source, AnnDataFile):
        return _AnnDataFileSource(source, matrix)
    if is_anndata(source):
        return _AnnDataSource(source, matrix)
    if matrix != "X":
        message = f"{matrix} needs an AnnData or a file, not {type(source).__name__}"
        raise ValueError(message)
    if isinstance(source, MatrixHandle):
        return _FileSource(source, os.path.basename(source._file.name))
    return _source_of_matrix(source, "matrix in memory")


def is_anndata(thing: Any) -> bool:
    """Say whether this is an AnnData in memory, without importing anndata."""
    return all(
        hasattr(thing, name) for name in ("obs", "var_names", "X", "uns")
    ) and not isinstance(thing, AnnDataFile)


def _open_backed(adata: Any, matrix: str) -> Source:
    """The matrix in the file of a backed AnnData, whose frames are in memory."""
    if adata.is_view:
        message = "a view of a backed AnnData is not read; call .to_memory() first"
        raise TypeError(message)
    file = open_file(str(adata.filename))
    return _FileSource(file.matrix(matrix), os.path.basename(file.name))


def _source_of_matrix(values: Any, name: str) -> Source:
    if isinstance(values, CSR):
        return _CSRSource((values.data, values.indices, values.indptr), values.shape, name)
    if hasattr(values, "tocsr") and hasattr(values, "format"):
        return _source_of_scipy(values, name)
    if isinstance(values, np.ndarray):
        array: NDArray[Any] = np.asarray(values)  # without the manners of numpy.matrix
    elif hasattr(values, "__dlpack__") or hasattr(values, "__array_namespace__"):
        array = np.from_dlpack(values)
    else:
        message = (
            f"{name} is a {type(values).__name__}; scio takes an AnnData, scio.CSR, SciPy sparse "
            "matrix, NumPy array, path or handle of scio.open"
        )
        raise TypeError(message)
    if array.ndim != _MATRIX_RANK:
        message = f"{name} has {array.ndim} dimensions, a matrix has 2 (cells x genes)"
        raise ValueError(message)
    _check_numbers(array, name)
    return _DenseSource(array, name)


def _source_of_scipy(values: Any, name: str) -> Source:
    n_rows, n_cols = (int(n) for n in values.shape)
    if values.format == "csr":
        arrays = (values.data, values.indices, values.indptr)
    elif values.format == "csc":
        _check_numbers(values.data, name)
        columns = _arrays(values.data, values.indices, values.indptr)
        arrays = _core.csr_transpose(*columns, shape=(n_cols, n_rows))
    else:
        coo = values.tocoo()
        row, col = coo.coords if hasattr(coo, "coords") else (coo.row, coo.col)
        order = np.argsort(row, kind="stable")  # tocsr() would add duplicates in a narrow type
        indptr = np.zeros(n_rows + 1, dtype=np.int64)
        np.cumsum(np.bincount(row, minlength=n_rows), out=indptr[1:])
        arrays = (coo.data[order], col[order], indptr)
    _check_numbers(arrays[0], name)
    return _CSRSource(_arrays(*arrays), (n_rows, n_cols), name)


def _arrays(data: NDArray[Any], indices: NDArray[Any], indptr: NDArray[Any]) -> _Arrays:
    # SciPy may hold more room than entries
    nnz = int(indptr[-1]) if len(indptr) else 0
    pointers = np.ascontiguousarray(indptr, dtype=np.int64)
    return _native(data[:nnz]), _native(indices[:nnz]), pointers


def _native(array: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))


def _check_numbers(array: NDArray[Any], name: str) -> None:
    if array.dtype.kind not in _KINDS or array.dtype.itemsize > 8:
        message = f"{name} holds {array.dtype}, expected bool, an integer or a float up to 64 bits"
        raise TypeError(message)


def _rows_of(nbytes: int, row_nbytes: int) -> int:
    """Rows that fit, a multiple of BLOCK_ROWS and at least that."""
    return max(1, nbytes // max(1, row_nbytes * BLOCK_ROWS)) * BLOCK_ROWS
