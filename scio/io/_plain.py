"""What the writer takes: elements as NumPy arrays and plain values, whoever made them.

`scio.io._coding` turns pandas, SciPy, dask, awkward and anndata objects into these.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from scio._storage.keys import key_of_names
from scio.io.elements import Categorical, Column, Frame


@dataclass(frozen=True, slots=True, eq=False)
class NullableStrings:
    """A column of strings that knows missing ones.

    Attributes
    ----------
    values : ndarray, shape (n,), objects of str or None
    na_value : str
        ``"NA"`` or ``"NaN"``: what pandas shows for None.
    """

    values: NDArray[Any]
    na_value: str = "NA"

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: Any) -> NullableStrings:
        return NullableStrings(self.values[rows], self.na_value)


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """A data frame in memory: obs or var.

    Attributes
    ----------
    index : ndarray or NullableStrings, shape (n,), objects of str
        Row names.
    columns : dict
        Name to column: ndarray, MaskedArray (nullable numbers), Categorical or NullableStrings; or a
        function that gives one when it is about to be written.
    index_name : str
        ``"_index"`` when the index has no name.  A column of this name has the content of the
        index and is not written again.
    unread : dict
        Name to reason of the columns that were left out, since their function failed.
    """

    index: NDArray[Any] | NullableStrings
    columns: dict[str, Column | NullableStrings | Callable[[], Any]]
    index_name: str = "_index"
    unread: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, frame: Frame, rows: NDArray[np.int64] | None = None) -> Table:
        """Read all columns of a frame of a file.

        Parameters
        ----------
        frame : Frame
        rows : ndarray of int64, optional
            Keep these rows only.

        Raises
        ------
        IOFormatError
            If a column cannot be read.
        """
        lazy = cls.lazy(frame, rows)
        columns = {n: c() if callable(c) else c for n, c in lazy.columns.items()}
        return cls(lazy.index, columns, lazy.index_name)

    @classmethod
    def lazy(cls, frame: Frame, rows: NDArray[np.int64] | None = None) -> Table:
        """Read the index of a frame, and each column when it is written: one is held at a time.

        A column that cannot be read, or has no encoding, is left out then and told in `unread`.
        """
        at: Any = slice(None) if rows is None else rows

        def read(name: str) -> Any:
            return _keep_nullable(frame, name, frame[name])[at]

        name, key = frame.index_name, key_of_names(frame._file)
        index = _keep_nullable(frame, name, frame.index)[at]
        columns: dict[str, Any] = {key(n): functools.partial(read, n) for n in frame.columns}
        return cls(index, columns, key(name))


def _keep_nullable(frame: Frame, name: str, column: Any) -> Any:
    """Strings of the nullable encoding stay so, even where none is missing."""
    if isinstance(column, Categorical):
        categories: Any = _keep_nullable(frame, f"{name}/categories", column.categories)
        return Categorical(column.codes, categories, column.ordered)
    encoding, na_value = frame.string_encoding(name)
    return NullableStrings(column, na_value) if encoding == "nullable-string-array" else column


@dataclass(frozen=True, slots=True, eq=False)
class Compressed:
    """A CSR or CSC matrix in memory.

    Attributes
    ----------
    is_csc : bool
    shape : tuple of int
        (n_rows, n_cols).
    data, indices : ndarray, shape (nnz,)
    indptr : ndarray of int64, shape (n_rows + 1,), or (n_cols + 1,) for CSC
    """

    is_csc: bool
    shape: tuple[int, int]
    data: NDArray[Any]
    indices: NDArray[Any]
    indptr: NDArray[np.int64]


SparseBlock = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class SparseParts:
    """A compressed sparse matrix that comes in blocks of consecutive rows (columns for CSC).

    Attributes
    ----------
    is_csc : bool
    shape : tuple of int
        (n_rows, n_cols).
    dtype : numpy.dtype
        Of the values.
    blocks : function
        Gives an iterator of (data, indices, entries per row of the block).
    """

    is_csc: bool
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    blocks: Callable[[], Iterator[SparseBlock]]


@dataclass(frozen=True, slots=True, eq=False)
class DenseParts:
    """A dense array that comes in blocks along its first axis.

    Attributes
    ----------
    shape : tuple of int
    dtype : numpy.dtype
    blocks : function
        Gives an iterator of arrays, one behind the other along axis 0.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    blocks: Callable[[], Iterator[NDArray[Any]]]


@dataclass(frozen=True, slots=True, eq=False)
class Awkward:
    """A packed awkward array: its form as JSON, its length, its buffers by name."""

    form: str
    length: int
    buffers: dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Members:
    """A group of elements that has an encoding of its own, such as ``raw`` or ``anndata``."""

    encoding: Literal["anndata", "raw"]
    members: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Unread:
    """Something of a source that cannot be read, and why; it is left out."""

    reason: str
