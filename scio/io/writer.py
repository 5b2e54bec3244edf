"""AnnData elements into HDF5, with the encodings of anndata 0.8 and later.

The face of ``scio._h5write``, which loads libhdf5 when it is first needed.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scio._storage.atomic import atomic_path
from scio.errors import IOWriteError, ScioError
from scio.io.elements import Categorical, Column, Frame
from scio.matrix import CSR

if TYPE_CHECKING:
    from scio._h5write import Writer

MANY_COLUMNS = 4000  # their names as one attribute come near the 64 KiB of an old object header


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
        ``"_index"`` when the index has no name.
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

        name = frame.index_name
        index = _keep_nullable(frame, name, frame.index)[at]
        return cls(index, {n: functools.partial(read, n) for n in frame.columns}, name)


def _keep_nullable(frame: Frame, name: str, column: Any) -> Any:
    """Strings of the nullable encoding stay so, even where none is missing."""
    if isinstance(column, Categorical):
        categories: Any = _keep_nullable(frame, f"{name}/categories", column.categories)
        return Categorical(column.codes, categories, column.ordered)
    encoding, na_value = frame.string_encoding(name)
    return NullableStrings(column, na_value) if encoding == "nullable-string-array" else column


@contextlib.contextmanager
def new_file(path: str | os.PathLike[str]) -> Iterator[Writer]:
    """Give a writer of a new file at `path`; it is closed and synced when the block ends well.

    Raises
    ------
    IOWriteError
        If the file exists, or anything could not be written; the file is of no use then.
    """
    from scio import _h5write

    writer = _h5write.Writer(path)
    try:
        yield writer
        writer.close()
    finally:
        writer.discard()


def write_h5ad(
    path: str | os.PathLike[str],
    *,
    obs: Table,
    var: Table,
    X: Any = None,
    layers: Mapping[str, Any] | None = None,
    obsm: Mapping[str, Any] | None = None,
    uns: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> None:
    """Write an AnnData file, whole or not at all.

    Parameters
    ----------
    path : str or Path
    obs, var : Table
    X, layers, obsm : CSR or ndarray
        Uncompressed, contiguous.
    uns : mapping
        Strings, numbers, arrays, and mappings of these.
    overwrite : bool
        Replace an existing file.

    Raises
    ------
    TargetExistsError
        If the file exists and `overwrite` is False.
    IOWriteError
        If writing fails; an old file is unchanged.
    TypeError
        If something has no encoding; the message names it.
    """
    with atomic_path(path, overwrite=overwrite) as temporary, new_file(temporary) as writer:
        write_root(writer, obs, var)
        if X is not None:
            write_element(writer, "/X", X)
        for name, members in (("layers", layers), ("obsm", obsm), ("uns", uns)):
            write_element(writer, f"/{name}", members or {})


def write_root(writer: Writer, obs: Table, var: Table) -> None:
    """Write the mark of an AnnData file and its two frames."""
    _tag(writer, "/", "anndata", "0.1.0")
    write_element(writer, "/obs", obs)
    write_element(writer, "/var", var)


def write_element(writer: Writer, path: str, value: Any) -> None:
    """Write one element with its encoding.

    Parameters
    ----------
    writer : scio._h5write.Writer
    path : str
        Absolute path in the file.
    value : Table, Categorical, NullableStrings, CSR, ndarray, MaskedArray, mapping, str, bool, int or float

    Raises
    ------
    TypeError
        If the value has no encoding: names path, type, and for columns of objects the first bad row.
    """
    if isinstance(value, Table):
        _write_table(writer, path, value)
    elif isinstance(value, Categorical):
        _write_categorical(writer, path, value)
    elif isinstance(value, NullableStrings):
        _write_nullable_strings(writer, path, value)
    elif isinstance(value, CSR):
        write_csr_group(writer, path, value.shape)
        for name in ("data", "indices", "indptr"):
            writer.dataset(f"{path}/{name}", getattr(value, name))
    elif isinstance(value, Mapping):
        _write_dict(writer, path, value)
    elif isinstance(value, np.ma.MaskedArray):
        _write_masked(writer, path, value)
    elif isinstance(value, np.ndarray) and value.dtype.kind in "OUT":
        _write_strings(writer, path, value)
    elif isinstance(value, np.ndarray):
        writer.dataset(path, _native(path, value))
        _tag(writer, path, "array", "0.2.0")
    elif isinstance(value, str):
        writer.dataset(path, value)
        _tag(writer, path, "string", "0.2.0")
    elif isinstance(value, (bool, int, float, np.generic)):
        writer.dataset(path, _native(path, np.asarray(value)))
        _tag(writer, path, "numeric-scalar", "0.2.0")
    else:
        message = f"{path} is a {type(value).__name__}, which has no encoding in AnnData files"
        raise TypeError(message)


def write_csr_group(writer: Writer, path: str, shape: tuple[int, int]) -> None:
    """Write the group of a CSR matrix without its three arrays."""
    writer.group(path)
    _tag(writer, path, "csr_matrix", "0.1.0")
    writer.attr(path, "shape", np.array(shape, dtype=np.int64))


def tag_array(writer: Writer, path: str) -> None:
    """Mark a dataset as a dense array."""
    _tag(writer, path, "array", "0.2.0")


def _tag(writer: Writer, path: str, encoding: str, version: str) -> None:
    writer.attr(path, "encoding-type", encoding)
    writer.attr(path, "encoding-version", version)


def _native(path: str, array: NDArray[Any]) -> NDArray[Any]:
    """The array as the writer takes it: native byte order, C order."""
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        message = f"{path} has dtype {array.dtype}, which scio does not write"
        raise TypeError(message)
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    return native if native.ndim == 0 else np.ascontiguousarray(native)


def _write_table(writer: Writer, path: str, table: Table) -> None:
    writer.group(path, wide=len(table.columns) > MANY_COLUMNS)
    _tag(writer, path, "dataframe", "0.2.0")
    writer.attr(path, "_index", table.index_name)
    write_element(writer, f"{path}/{table.index_name}", table.index)
    table.unread.clear()
    for name, column in table.columns.items():
        if not callable(column):
            write_element(writer, f"{path}/{name}", column)
            continue
        try:
            write_element(writer, f"{path}/{name}", column())
        except IOWriteError:
            raise
        except (ScioError, TypeError, ValueError) as error:
            table.unread[name] = str(error)
    written = [name for name in table.columns if name not in table.unread]
    writer.attr(path, "column-order", written)


def _write_dict(writer: Writer, path: str, members: Mapping[str, Any]) -> None:
    writer.group(path)
    _tag(writer, path, "dict", "0.1.0")
    for name, value in members.items():
        if value is not None:
            write_element(writer, f"{path}/{name}", value)


def _write_categorical(writer: Writer, path: str, column: Categorical) -> None:
    writer.group(path)
    _tag(writer, path, "categorical", "0.2.0")
    writer.attr(path, "ordered", bool(column.ordered))
    # the smallest signed type that holds them, as pandas has it
    dtype = np.result_type(np.int8, np.min_scalar_type(-len(column.categories) - 1))
    writer.dataset(f"{path}/codes", _native(path, column.codes.astype(dtype)))
    tag_array(writer, f"{path}/codes")
    categories: Any = column.categories
    is_nullable = isinstance(categories, NullableStrings)
    write_element(
        writer, f"{path}/categories", categories if is_nullable else np.asarray(categories)
    )


def _write_masked(writer: Writer, path: str, column: np.ma.MaskedArray[Any, Any]) -> None:
    kinds = {"i": "nullable-integer", "u": "nullable-integer", "b": "nullable-boolean"}
    if column.dtype.kind not in kinds:
        message = (
            f"{path} is a masked array of {column.dtype}; integers and booleans can be missing"
        )
        raise TypeError(message)
    mask = np.ma.getmaskarray(column)
    _write_nullable(writer, path, kinds[column.dtype.kind], column.filled(0), mask)


def _write_nullable(
    writer: Writer, path: str, encoding: str, values: NDArray[Any], mask: NDArray[np.bool_]
) -> None:
    writer.group(path)
    _tag(writer, path, encoding, "0.1.0")
    write_element(writer, f"{path}/values", values)
    write_element(writer, f"{path}/mask", mask)


def _write_nullable_strings(writer: Writer, path: str, column: NullableStrings) -> None:
    mask = np.array([v is None for v in column.values], dtype=np.bool_)
    values = np.where(mask, "", column.values).astype(object)
    _write_nullable(writer, path, "nullable-string-array", values, mask)
    writer.attr(path, "na-value", column.na_value)


def _write_strings(writer: Writer, path: str, column: NDArray[Any]) -> None:
    if column.ndim != 1:
        message = f"{path} holds strings in {column.ndim} dimensions; scio writes lists of strings"
        raise TypeError(message)
    strings = column.tolist()
    wrong = next((i for i, v in enumerate(strings) if not isinstance(v, str)), None)
    if wrong is None:
        try:
            writer.dataset(path, strings)
        except ValueError as error:
            error.add_note(f"{path} could not be written")
            raise
        _tag(writer, path, "string-array", "0.2.0")
        return
    is_missing = [v is None or (isinstance(v, float) and math.isnan(v)) for v in strings]
    other = next(
        (i for i, v in enumerate(strings) if not isinstance(v, str) and not is_missing[i]), None
    )
    if other is not None:
        message = (
            f"{path} holds a {type(strings[other]).__name__} in row {other}; "
            "a column of objects holds strings, or None where one is missing"
        )
        raise TypeError(message)
    values = np.array([None if m else v for v, m in zip(strings, is_missing, strict=True)], object)
    _write_nullable_strings(writer, path, NullableStrings(values))
