"""Matrices of a file in windows of bounded size, and the new files that are made of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scio import _core
from scio._storage.atomic import Temporary, check_space
from scio._storage.keys import MARK
from scio.io import _coding
from scio.io._profiles import Profile, WriteReport
from scio.io.h5ad import MatrixHandle
from scio.io.write import _tell_of_unread, mark_of
from scio.io.writer import Context, StorageOptions, published_file, write_element

if TYPE_CHECKING:
    from scio.io._plain import Members
    from scio.io.h5ad import AnnDataFile, _Mapping

MAX_MEMORY = 256 << 20
_MIN_ENTRIES = 1 << 16
_MIN_MEMORY = 8 << 20
_MATRIX_RANK = 2
_SPARSE = frozenset({"csr_matrix", "csc_matrix", "csr", "csc"})

SparseArrays = tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]]
Convert = Callable[[Any, str], Any]


def check_memory(max_memory: int) -> int:
    """Return the bound; ValueError if nothing can be done within it."""
    if max_memory < _MIN_MEMORY:
        message = f"max_memory is {max_memory} bytes; at least {_MIN_MEMORY} are needed"
        raise ValueError(message)
    return int(max_memory)


def entries_within(nbytes: int, entry_nbytes: int, n_copies: int) -> int:
    """Entries of which `n_copies` copies take `nbytes`."""
    return max(_MIN_ENTRIES, nbytes // (entry_nbytes * n_copies))


def cut(indptr: NDArray[np.int64], most: int) -> list[tuple[int, int]]:
    """Ranges of rows that hold at most so many entries each; a longer row is alone in its range."""
    ranges = []
    start = 0
    while start < len(indptr) - 1:
        stop = int(np.searchsorted(indptr, indptr[start] + most, side="right")) - 1
        stop = max(start + 1, stop)
        ranges.append((start, stop))
        start = stop
    return ranges


def stored_rows(handle: MatrixHandle) -> _core.Matrix:
    """Open a sparse matrix by the axis along which it is stored.

    The rows of the result are the cells of a CSR matrix, the genes of a CSC matrix; what is read of
    it is checked.
    """
    shape = handle.shape[::-1] if handle.format == "csc" else handle.shape
    return _core.Matrix.open_sparse(handle._file.core, handle.path, shape=shape)


def stored_matrix(members: _Mapping, name: str) -> MatrixHandle | None:
    """Open a member that is a matrix of numbers, by its headers; None if it is something else."""
    if members._is_compound:
        return None
    file, path = members._file, members._paths.get(name, f"{members._path}/{name}")
    if file.kind(path) == "group":
        encoding = file.scalar_attr(path, "encoding-type")
        is_sparse = encoding in _SPARSE or "h5sparse_format" in file.attr_names(path)
        return MatrixHandle(file, path, members._shape) if is_sparse else None
    dataset = file.dataset(path)
    is_matrix = dataset.shape is not None and len(dataset.shape) == _MATRIX_RANK
    is_plain = dataset.dtype is not None and not dataset.type["unsupported"]
    return MatrixHandle(file, path, members._shape) if is_matrix and is_plain else None


def publish(
    dst: str | os.PathLike[str],
    members: Members,
    convert: Convert,
    *,
    options: StorageOptions,
    overwrite: bool,
    needed: int,
    sources: list[AnnDataFile],
    told: AnnDataFile | Any = None,
) -> WriteReport:
    """Write an AnnData file from its elements, whole or not at all.

    Parameters
    ----------
    dst : str or Path
    members : Members
    convert : function
        Gets a value that is no plain element, and its path.
    options : StorageOptions
    overwrite : bool
    needed : int
        A lower bound of the bytes of the file.
    sources : list of AnnDataFile
        Files that must be what they were when all is written.
    told : object, optional
        AnnData in memory whose reader left something unread.
    """
    report = WriteReport(os.fspath(dst))
    context = Context(options, Profile(None), report, convert)
    with published_file(dst, overwrite=overwrite) as writer:
        check_space(Temporary(dst).target, needed)
        write_element(writer, "/", members, context)
        writer.attr("/", MARK, mark_of(context))
        for source in sources:
            source.file.core.check_unchanged()
    report.nbytes = os.stat(dst).st_size
    _tell_of_unread(told, report)
    return report


def plain(value: Any, path: str) -> Any:
    """Turn a value of another library into what the writer takes."""
    return _coding.to_plain(value, path)


def least_stored(handle: MatrixHandle, fraction: float, options: StorageOptions) -> int:
    """A lower bound of the bytes that a part of a matrix takes in a new file.

    Without compression it is known; with it, half of what the source's own compression suggests, so
    that no file is refused that would have fitted.
    """
    index_nbytes = 0 if handle.format == "dense" else 4
    decoded = handle.nnz * (handle.dtype.itemsize + index_nbytes) * fraction
    if options.compression is None:
        return int(decoded)
    member = handle._member("data")
    nbytes = max(1, handle.nnz * handle.dtype.itemsize)
    return int(decoded * min(1.0, member.stored_nbytes / nbytes) / 2)


def windows_of_dense(
    dataset: _core.Dataset, index: NDArray[np.int64], max_nbytes: int
) -> Iterator[NDArray[Any]]:
    """Rows of a dense dataset in any order, in windows of bounded size.

    Parameters
    ----------
    dataset : scio._core.Dataset
    index : ndarray of int64
        Rows, in the order wanted; repeats allowed.
    max_nbytes : int
        Of a window.
    """
    shape = dataset.shape or ()
    row_nbytes = int(np.prod(shape[1:], dtype=np.int64)) * np.dtype(dataset.dtype).itemsize
    n_rows = max(1, max_nbytes // max(1, row_nbytes))
    for first in range(0, len(index), n_rows):
        wanted = index[first : first + n_rows]
        out = np.empty((len(wanted), *shape[1:]), dtype=dataset.dtype)
        rows, inverse = np.unique(wanted, return_inverse=True)
        breaks = np.flatnonzero(np.diff(rows) > 1) + 1
        if len(rows) and rows[-1] - rows[0] < 4 * len(rows):
            breaks = np.empty(0, np.int64)  # close together: one range, read in steps
        order = np.argsort(inverse, kind="stable")
        sorted_rows = wanted[order]
        for piece in np.split(rows, breaks):
            for start in range(int(piece[0]), int(piece[-1]) + 1, n_rows):
                stop = min(start + n_rows, int(piece[-1]) + 1)
                low, high = np.searchsorted(sorted_rows, [start, stop])
                if low == high:
                    continue
                box = dataset.read([start, *[0] * (len(shape) - 1)], [stop - start, *shape[1:]])
                out[order[low:high]] = box[sorted_rows[low:high] - start]
        yield out


def choose_columns(
    arrays: SparseArrays, columns: NDArray[np.int64], shape: tuple[int, int]
) -> SparseArrays:
    """Columns of CSR arrays, in any order; repeats allowed.

    Parameters
    ----------
    arrays : tuple of ndarray
        data, indices, indptr of checked rows.
    columns : ndarray of int64
        Positions in the order wanted.
    shape : tuple of int
        (n_rows, n_cols) of the arrays.
    """
    order = np.argsort(columns, kind="stable")
    starts = np.searchsorted(columns[order], np.arange(shape[1] + 1))
    n_places = np.diff(starts)
    if n_places.max(initial=0) <= 1:
        places = np.full(shape[1], -1, dtype=np.int32)
        places[columns] = np.arange(len(columns), dtype=np.int32)
        return place_columns(arrays, places, len(columns), shape)
    data, indices, indptr = arrays
    n_of_each = n_places[indices]
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(n_of_each)])
    within = np.arange(ends[-1]) - np.repeat(ends[:-1], n_of_each)
    made = order[np.repeat(starts[indices], n_of_each) + within]
    out = np.repeat(data, n_of_each), made.astype(np.int64), ends[indptr]
    return sort_rows(out, (shape[0], len(columns)))


def place_columns(
    arrays: SparseArrays, places: NDArray[np.int32], n_out: int, shape: tuple[int, int]
) -> SparseArrays:
    """Send columns of CSR arrays to other places.

    Parameters
    ----------
    arrays : tuple of ndarray
        data, indices, indptr of checked rows.
    places : ndarray of int32, shape (n_cols,)
        Where each column goes; -1: it is left out.  No place is taken twice.
    n_out : int
        Columns of the result.
    shape : tuple of int
        (n_rows, n_cols) of the arrays.

    Returns
    -------
    tuple of ndarray
        With sorted rows where the order of the columns changes, else in the order of the entries.
    """
    data, indices, indptr = arrays
    if indices.dtype not in (np.int32, np.int64):
        indices = indices.astype(np.int64)
    out = _core.csr_subset(data, indices, indptr, None, places, n_out, shape=shape)
    kept = places[places >= 0]
    if np.all(np.diff(kept) > 0):
        return out
    return sort_rows(out, (shape[0], n_out))


def sort_rows(arrays: SparseArrays, shape: tuple[int, int]) -> SparseArrays:
    """Sort each row by column: transposed twice, in linear time; equal columns keep their order."""
    data, indices, indptr = arrays
    dtype = np.int32 if max(shape) <= np.iinfo(np.int32).max else np.int64
    by_column = _core.csr_transpose(data, indices.astype(dtype, copy=False), indptr, shape=shape)
    return _core.csr_transpose(*by_column, shape=shape[::-1])
