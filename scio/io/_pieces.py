"""Matrices of several files behind one another: rows below rows, or columns beside columns."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from scio import _core
from scio._progress import Progress
from scio.io._windows import (
    SparseArrays,
    cut,
    entries_within,
    place_columns,
    stored_rows,
    windows_of_dense,
)
from scio.io.transpose import transposed_handle
from scio.io.writer import index_dtype_for

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from scio.io._plain import SparseBlock
    from scio.io.h5ad import MatrixHandle

_WINDOW_COPIES = 8  # read, checked, placed, sorted, stacked, on their way into the file
_DENSE_COPIES = 4
_MAX_WINDOW_ROWS = 1 << 16


@dataclass(slots=True)
class Piece:
    """What one file adds to a matrix.

    Attributes
    ----------
    handle : MatrixHandle or None
        None: the file has no such matrix.
    shape : tuple of int
        (n_rows, n_cols) in the file; (n, 0) or (0, n) of one that is missing.
    places : ndarray of int64 or None
        Where each position of the axis that is joined goes, -1: nowhere; None: all stay.
    """

    handle: MatrixHandle | None
    shape: tuple[int, int]
    places: NDArray[np.int64] | None

    @property
    def is_sparse(self) -> bool:
        """Whether it is CSR or CSC."""
        return self.handle is not None and self.handle.format != "dense"

    @property
    def is_nothing(self) -> bool:
        """Whether it has no values at all along the joined axis."""
        return self.handle is None or (self.places is not None and not len(self.places))

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values."""
        return np.dtype(np.bool_) if self.handle is None else self.handle.dtype

    def has_holes(self, n_other: int) -> bool:
        """Whether something of the joined axis is not in the file."""
        return self.places is not None and int(np.sum(self.places >= 0)) < n_other


# ---- dense rows


def dense_blocks(
    name: str,
    pieces: list[Piece],
    axis: int,
    shape: tuple[int, int],
    dtype: np.dtype[Any],
    fill: Any,
    max_memory: int,
) -> Iterator[NDArray[Any]]:
    """Dense pieces behind one another along an axis, in windows of rows."""
    if not any(piece.has_holes(shape[1 - axis]) for piece in pieces):
        fill = 0  # seen by nobody; integers take no NaN
    row_nbytes = max(1, shape[1] * dtype.itemsize)
    n_rows = max(1, max_memory // _DENSE_COPIES // row_nbytes)
    with Progress(shape[0], unit="rows", what=f"concatenating {name}") as progress:
        if axis == 0:
            for piece in pieces:
                for start in range(0, piece.shape[0], n_rows):
                    stop = min(start + n_rows, piece.shape[0])
                    yield _dense_rows(piece, start, stop, shape[1], dtype, fill)
                    progress.update(stop - start)
            return
        sources = [_source_rows(piece, shape[0]) for piece in pieces]
        for start in range(0, shape[0], n_rows):
            stop = min(start + n_rows, shape[0])
            out = np.full((stop - start, shape[1]), fill, dtype=dtype)
            first = 0
            for piece, source in zip(pieces, sources, strict=True):
                there = np.flatnonzero(source[start:stop] >= 0)
                if len(there) and piece.handle is not None:
                    read = _read_dense(piece.handle, source[start:stop][there])
                    out[there, first : first + piece.shape[1]] = read
                first += piece.shape[1]
            yield out
            progress.update(stop - start)


def _read_dense(handle: MatrixHandle, index: NDArray[np.int64]) -> NDArray[Any]:
    if not len(index):
        return np.empty((0, handle.n_cols), dtype=handle.dtype)
    dataset = handle._file.dataset(handle.path)
    (block,) = windows_of_dense(dataset, index, 1 << 62)
    return block


def _dense_rows(
    piece: Piece, start: int, stop: int, n_columns: int, dtype: np.dtype[Any], fill: Any
) -> NDArray[Any]:
    if piece.handle is None:
        return np.full((stop - start, n_columns), fill, dtype=dtype)
    rows = piece.handle._file.dataset(piece.handle.path).read(
        [start, 0], [stop - start, piece.shape[1]]
    )
    if piece.places is None:
        return rows.astype(dtype, copy=False)
    kept = piece.places >= 0
    out = np.full((stop - start, n_columns), fill, dtype=dtype)
    out[:, piece.places[kept]] = rows[:, kept]
    return out


def _source_rows(piece: Piece, n_rows: int) -> NDArray[np.int64]:
    """For each row of the result the row of the piece, -1 where it has none."""
    if piece.places is None:
        return np.arange(n_rows)
    out = np.full(n_rows, -1, dtype=np.int64)
    kept = np.flatnonzero(piece.places >= 0)
    out[piece.places[kept]] = kept
    return out


# ---- sparse rows


def sparse_blocks(
    name: str,
    pieces: list[Piece],
    axis: int,
    shape: tuple[int, int],
    dtype: np.dtype[Any],
    max_memory: int,
    folder: Path,
) -> Iterator[SparseBlock]:
    """Pieces behind one another along an axis, as CSR, in windows of rows."""
    index_dtype = index_dtype_for(shape[1])
    with (
        contextlib.ExitStack() as stack,
        Progress(shape[0], unit="rows", what=f"concatenating {name}") as progress,
    ):
        turn = functools.partial(_by_row, stack=stack, max_memory=max_memory, folder=folder)
        rows = [_Rows(p, axis, shape, turn(p), max_memory) for p in pieces]
        blocks = _below(rows) if axis == 0 else _beside(rows, shape, max_memory)
        for data, indices, indptr in blocks:
            yield (
                data.astype(dtype, copy=False),
                indices.astype(index_dtype, copy=False),
                np.diff(indptr),
            )
            progress.update(len(indptr) - 1)


def _by_row(
    piece: Piece, *, stack: contextlib.ExitStack, max_memory: int, folder: Path
) -> MatrixHandle | None:
    """The matrix by rows; one by columns is turned in a temporary file, for as long as needed."""
    if piece.handle is None or piece.handle.format != "csc":
        return piece.handle
    return stack.enter_context(
        transposed_handle(piece.handle, max_memory=max_memory, folder=folder)
    )


class _Rows:
    """The rows of a piece as CSR arrays, whatever it is."""

    def __init__(
        self,
        piece: Piece,
        axis: int,
        shape: tuple[int, int],
        handle: MatrixHandle | None,
        max_memory: int,
    ) -> None:
        self._handle, self._shape, self.n_columns = handle, piece.shape, piece.shape[1]
        self.dtype = piece.dtype
        self._matrix: _core.Matrix | None = None
        self._most = entries_within(max_memory, self.dtype.itemsize + 8, _WINDOW_COPIES)
        if handle is not None and handle.format != "dense":
            self._matrix = stored_rows(handle)
        self._places: NDArray[np.int32] | None = None
        self._n_out = shape[1]
        self.source = np.empty(0, np.int64)
        if axis == 0:
            if piece.places is not None:
                self._places = piece.places.astype(np.int32)
        else:
            self.source = _source_rows(piece, shape[0])

    @property
    def indptr(self) -> NDArray[np.int64]:
        """Extents of the rows of the file; of a dense matrix, the most there can be."""
        if self._matrix is not None:
            return self._matrix.indptr
        n_columns = 0 if self._handle is None else self.n_columns
        return np.arange(self._shape[0] + 1, dtype=np.int64) * n_columns

    def windows(self) -> Iterator[SparseArrays]:
        """All rows with their columns in their places."""
        for start, stop in cut(self.indptr, self._most):
            for a in range(start, stop, _MAX_WINDOW_ROWS):
                b = min(stop, a + _MAX_WINDOW_ROWS)
                yield self._placed(self.read(np.arange(a, b)), b - a)

    def _placed(self, arrays: SparseArrays, n_rows: int) -> SparseArrays:
        if self._places is None or not len(self._places):
            return arrays
        return place_columns(arrays, self._places, self._n_out, (n_rows, self._shape[1]))

    def read(self, index: NDArray[np.int64]) -> SparseArrays:
        """Read rows of the file, in any order."""
        n = len(index)
        if self._handle is None:
            empty = np.zeros(n + 1, np.int64)
            return np.empty(0, self.dtype), np.empty(0, np.int32), empty
        if self._matrix is None:
            return _core.csr_from_dense(_read_dense(self._handle, index))
        if n and index[-1] - index[0] == n - 1 and np.all(np.diff(index) == 1):
            return self._matrix.read(int(index[0]), int(index[-1]) + 1)
        return self._matrix.take(np.ascontiguousarray(index))


def _below(rows: list[_Rows]) -> Iterator[SparseArrays]:
    for piece in rows:
        yield from piece.windows()


def _beside(rows: list[_Rows], shape: tuple[int, int], max_memory: int) -> Iterator[SparseArrays]:
    """Rows of all pieces side by side."""
    lengths = np.zeros(shape[0], dtype=np.int64)
    for piece in rows:
        there = piece.source >= 0
        lengths[there] += np.diff(piece.indptr)[piece.source[there]]
    extents = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    itemsize = max(piece.dtype.itemsize for piece in rows)
    for start, stop in cut(extents, entries_within(max_memory, itemsize + 8, _WINDOW_COPIES)):
        yield _side_by_side(rows, start, stop)


def _side_by_side(rows: list[_Rows], start: int, stop: int) -> SparseArrays:
    parts, counts = [], []
    first = 0
    for piece in rows:
        source = piece.source[start:stop]
        there = np.flatnonzero(source >= 0)
        data, indices, indptr = piece.read(source[there])
        of_rows = np.zeros(stop - start, dtype=np.int64)
        of_rows[there] = np.diff(indptr)
        parts.append((data, indices.astype(np.int64) + first))
        counts.append(of_rows)
        first += piece.n_columns
    indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.sum(counts, axis=0))])
    data = np.empty(int(indptr[-1]), dtype=np.result_type(*[p[0].dtype for p in parts]))
    indices = np.empty(len(data), dtype=np.int64)
    at = indptr[:-1].copy()
    for (values, columns), of_rows in zip(parts, counts, strict=True):
        ends = np.cumsum(of_rows)
        to = np.arange(len(values)) + np.repeat(at - ends + of_rows, of_rows)
        data[to], indices[to] = values, columns
        at += of_rows
    return data, indices, indptr
