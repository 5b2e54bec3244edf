"""AnnData elements into HDF5, with the encodings of anndata 0.8 and later.

The face of ``scio._h5write``, which loads libhdf5 when it is first needed.  Elements are the plain
values of `scio.io._plain`; what other libraries made is turned into them by `scio.io._coding`.
"""

from __future__ import annotations

import contextlib
import math
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scio._storage.atomic import atomic_temporary
from scio._storage.keys import escape_key
from scio.errors import IOWriteError, ScioError, ScioWarning
from scio.io._plain import (
    Awkward,
    Compressed,
    DenseParts,
    Members,
    NullableStrings,
    SparseParts,
    Table,
)
from scio.io._profiles import Profile, WriteReport
from scio.io._streams import PLAIN, ArrayStream, StorageOptions, as_native, write_numbers
from scio.io.elements import Categorical
from scio.matrix import CSR

if TYPE_CHECKING:
    from scio._h5write import Writer

__all__ = [
    "Context",
    "DenseStream",
    "NullableStrings",
    "SparseStream",
    "StorageOptions",
    "Table",
    "new_file",
    "published_file",
    "tag_array",
    "write_csr_group",
    "write_element",
    "write_root",
    "write_tables",
]

MANY_COLUMNS = 4000  # their names as one attribute come near the 64 KiB of an old object header
_INT32_MAX = int(np.iinfo(np.int32).max)


@dataclass(frozen=True, slots=True, eq=False)
class Context:
    """What holds for all elements of a file.

    Attributes
    ----------
    options : StorageOptions
    profile : Profile
    report : WriteReport
        Gets one row per element.
    convert : function, optional
        Turns a value that is no plain element into one, given its path; raises TypeError.
    """

    options: StorageOptions = PLAIN
    profile: Profile = field(default_factory=Profile)
    report: WriteReport = field(default_factory=lambda: WriteReport(""))
    convert: Callable[[Any, str], Any] | None = None


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


@contextlib.contextmanager
def published_file(
    path: str | os.PathLike[str], *, overwrite: bool = True, break_hardlinks: bool = False
) -> Iterator[Writer]:
    """Give a writer of a file that appears at `path`, whole, when the block ends well.

    Raises
    ------
    TargetExistsError
        If the file exists and `overwrite` is False.
    IOWriteError
        If anything could not be written; an old file is unchanged.
    """
    with (
        atomic_temporary(path, overwrite=overwrite, break_hardlinks=break_hardlinks) as temporary,
        new_file(temporary.path) as writer,
    ):
        temporary.lock()
        yield writer


def write_tables(
    path: str | os.PathLike[str],
    *,
    obs: Table,
    var: Table,
    X: Any = None,
    layers: Mapping[str, Any] | None = None,
    obsm: Mapping[str, Any] | None = None,
    uns: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    context: Context | None = None,
) -> None:
    """Write an AnnData file from plain elements, whole or not at all.

    Parameters
    ----------
    path : str or Path
    obs, var : Table
    X, layers, obsm : CSR or ndarray
    uns : mapping
        Strings, numbers, arrays, and mappings of these.
    overwrite : bool
        Replace an existing file.
    context : Context, optional
        By default arrays are uncompressed and contiguous.

    Raises
    ------
    TargetExistsError
        If the file exists and `overwrite` is False.
    IOWriteError
        If writing fails; an old file is unchanged.
    TypeError
        If something has no encoding; the message names it.
    """
    with published_file(path, overwrite=overwrite) as writer:
        write_root(writer, obs, var, context)
        if X is not None:
            write_element(writer, "/X", X, context)
        for name, members in (("layers", layers), ("obsm", obsm), ("uns", uns)):
            write_element(writer, f"/{name}", members or {}, context)


def write_root(writer: Writer, obs: Table, var: Table, context: Context | None = None) -> None:
    """Write the mark of an AnnData file and its two frames."""
    _tag(writer, "/", "anndata", "0.1.0")
    write_element(writer, "/obs", obs, context)
    write_element(writer, "/var", var, context)


def write_element(writer: Writer, path: str, value: Any, context: Context | None = None) -> None:
    """Write one element with its encoding.

    Parameters
    ----------
    writer : scio._h5write.Writer
    path : str
        Absolute path in the file.
    value : object
        A plain element (`scio.io._plain`), Categorical, CSR, ndarray, MaskedArray, mapping, None,
        str, bytes, bool or number; anything else that ``context.convert`` takes.
    context : Context, optional
        By default arrays are uncompressed and contiguous.

    Raises
    ------
    TypeError
        If the value has no encoding: names path, type, and for columns of objects the first bad row.
    """
    context = context if context is not None else Context()
    encoder = _find(value)
    if encoder is None and context.convert is not None:
        value = context.convert(value, path)
        encoder = _find(value)
    if encoder is None:
        message = f"{path} is a {type(value).__name__}, which has no encoding in AnnData files"
        raise TypeError(message)
    encoder(writer, path, value, context)


def _find(value: Any) -> Callable[[Writer, str, Any, Context], None] | None:
    return next((encoder for kinds, encoder in _ENCODERS if isinstance(value, kinds)), None)


def member_path(path: str, key: Any, context: Context) -> str:
    """Return the path of a member; a key that HDF5 would take apart is escaped, and that is told.

    Raises
    ------
    TypeError
        If the key is no string.
    ValueError
        If it is empty.
    """
    if not isinstance(key, str):
        message = (
            f"{path} has a key {key!r} of type {type(key).__name__}; keys are str: write str(key)"
        )
        raise TypeError(message)
    try:
        name = escape_key(str.__str__(key))
    except ValueError as error:
        error.add_note(f"it is in {path}")
        raise
    if name != key:
        note = f"the key {key!r} is written as {name!r}, since '/' and '.' divide paths in HDF5"
        context.report.add(f"{path}/{name}", "", note=note)
        warnings.warn(ScioWarning(f"{path}: {note}"), stacklevel=2)
    return f"{path.rstrip('/')}/{name}"


def write_csr_group(writer: Writer, path: str, shape: tuple[int, int]) -> None:
    """Write the group of a CSR matrix without its three arrays."""
    _begin_sparse(writer, path, is_csc=False)
    writer.attr(path, "shape", np.array(shape, dtype=np.int64))


def _begin_sparse(writer: Writer, path: str, is_csc: bool) -> str:
    encoding = "csc_matrix" if is_csc else "csr_matrix"
    writer.group(path)
    _tag(writer, path, encoding, "0.1.0")
    return encoding


def tag_array(writer: Writer, path: str) -> None:
    """Mark a dataset as a dense array."""
    _tag(writer, path, "array", "0.2.0")


def _tag(writer: Writer, path: str, encoding: str, version: str) -> None:
    writer.attr(path, "encoding-type", encoding)
    writer.attr(path, "encoding-version", version)


# ---- matrices


class SparseStream:
    """A sparse matrix that is written in blocks of consecutive rows (columns for CSC).

    Parameters
    ----------
    writer : scio._h5write.Writer
    path : str
    shape : tuple of int
        (n_rows, n_cols); the axis of the blocks may be None: then it is what was appended.
    data_dtype, index_dtype : dtype
        Of ``data`` and ``indices``; see `index_dtype_for`.
    options : StorageOptions
    is_csc : bool
        Blocks are columns, indices are rows.

    Notes
    -----
    ``indptr`` is kept in memory (8 bytes per row) and written by `finish`: int32 when the entries
    allow, else int64.
    """

    def __init__(
        self,
        writer: Writer,
        path: str,
        *,
        shape: tuple[int | None, int | None],
        data_dtype: Any,
        index_dtype: Any,
        options: StorageOptions,
        is_csc: bool = False,
    ) -> None:
        self._writer, self._path, self._options = writer, path, options
        self._shape, self._is_csc = shape, is_csc
        self._counts: list[NDArray[np.int64]] = []
        _begin_sparse(writer, path, is_csc)
        self._data = self._stream("data", data_dtype)
        self._indices = self._stream("indices", index_dtype)

    def _stream(self, name: str, dtype: Any) -> ArrayStream:
        return ArrayStream(
            self._writer,
            f"{self._path}/{name}",
            shape=(None,),
            dtype=dtype,
            options=self._options,
            can_grow=True,
        )

    def append(self, data: NDArray[Any], indices: NDArray[Any], row_nnz: NDArray[Any]) -> None:
        """Append rows.

        Parameters
        ----------
        data, indices : ndarray, shape (nnz of the block,)
        row_nnz : ndarray, shape (n_rows of the block,)
            Entries of each row.
        """
        counts = np.asarray(row_nnz, dtype=np.int64)
        if not len(data) == len(indices) == int(counts.sum()):
            message = (
                f"{self._path}: a block has {len(data):,} values, {len(indices):,} indices and "
                f"{int(counts.sum()):,} entries in its rows"
            )
            raise ValueError(message)
        self._counts.append(counts)
        self._data.append(data)
        self._indices.append(indices)

    def finish(self) -> None:
        """Write indptr and shape.

        Raises
        ------
        ValueError
            If other than the promised rows were appended.
        """
        self._data.finish()
        self._indices.finish()
        counts = np.concatenate([np.zeros(1, np.int64), *self._counts])
        indptr = np.cumsum(counts)
        n_major, n_minor = self._shape[:: -1 if self._is_csc else 1]
        if n_major is not None and n_major != len(indptr) - 1:
            message = f"{self._path}: {len(indptr) - 1:,} rows came, {n_major:,} were promised"
            raise ValueError(message)
        if n_minor is None:
            message = (
                f"{self._path}: the shape {self._shape} lacks the axis that is not appended to"
            )
            raise ValueError(message)
        _write_indptr(self._writer, self._path, indptr, self._options)
        shape = np.array([len(indptr) - 1, n_minor], dtype=np.int64)
        self._writer.attr(self._path, "shape", shape[::-1].copy() if self._is_csc else shape)


class DenseStream:
    """A dense array that is written in blocks along its first axis.

    Parameters
    ----------
    writer : scio._h5write.Writer
    path : str
    shape : tuple of int
        ``shape[0]`` may be None: then it is what was appended.
    dtype : dtype
    options : StorageOptions
    """

    def __init__(
        self,
        writer: Writer,
        path: str,
        *,
        shape: tuple[int | None, ...],
        dtype: Any,
        options: StorageOptions,
    ) -> None:
        self._writer, self._path = writer, path
        self._stream = ArrayStream(writer, path, shape=shape, dtype=dtype, options=options)

    def append(self, rows: NDArray[Any]) -> None:
        """Append rows, shape (n, ...)."""
        self._stream.append(rows)

    def finish(self) -> None:
        """End the dataset; ValueError if other than the promised rows were appended."""
        self._stream.finish()
        tag_array(self._writer, self._path)


def index_dtype_for(n_minor: int) -> np.dtype[Any]:
    """Type of indices below `n_minor`: int32 where they fit, else int64, never unsigned."""
    return np.dtype(np.int32 if n_minor <= _INT32_MAX else np.int64)


def _write_indptr(writer: Writer, path: str, indptr: NDArray[Any], options: StorageOptions) -> None:
    dtype = np.int32 if int(indptr[-1]) <= _INT32_MAX else np.int64
    write_numbers(writer, f"{path}/indptr", indptr.astype(dtype), options, can_grow=True)


def _write_csr(writer: Writer, path: str, value: CSR, context: Context) -> None:
    parts = Compressed(False, value.shape, value.data, value.indices, value.indptr)
    _write_compressed(writer, path, parts, context)


def _write_compressed(writer: Writer, path: str, value: Compressed, context: Context) -> None:
    encoding = _begin_sparse(writer, path, value.is_csc)
    writer.attr(path, "shape", np.array(value.shape, dtype=np.int64))
    indices = value.indices.astype(
        index_dtype_for(value.shape[0 if value.is_csc else 1]), copy=False
    )
    write_numbers(writer, f"{path}/data", value.data, context.options, can_grow=True)
    write_numbers(writer, f"{path}/indices", indices, context.options, can_grow=True)
    _write_indptr(writer, path, value.indptr, context.options)
    context.report.add(path, encoding)


def _write_sparse_parts(writer: Writer, path: str, value: SparseParts, context: Context) -> None:
    stream = SparseStream(
        writer,
        path,
        shape=value.shape,
        data_dtype=value.dtype,
        index_dtype=index_dtype_for(value.shape[0 if value.is_csc else 1]),
        options=context.options,
        is_csc=value.is_csc,
    )
    for data, indices, row_nnz in value.blocks():
        stream.append(data, indices, row_nnz)
    stream.finish()
    context.report.add(path, "csc_matrix" if value.is_csc else "csr_matrix")


def _write_dense_parts(writer: Writer, path: str, value: DenseParts, context: Context) -> None:
    stream = DenseStream(
        writer, path, shape=value.shape, dtype=value.dtype, options=context.options
    )
    for block in value.blocks():
        stream.append(block)
    stream.finish()
    context.report.add(path, "array")


# ---- groups


def _write_table(writer: Writer, path: str, table: Table, context: Context) -> None:
    writer.group(path, wide=len(table.columns) > MANY_COLUMNS)
    _tag(writer, path, "dataframe", "0.2.0")
    index_path = member_path(path, table.index_name, context)
    writer.attr(path, "_index", index_path.rpartition("/")[2])
    write_element(writer, index_path, table.index, context)
    table.unread.clear()
    names = []
    for name, column in table.columns.items():
        column_path = index_path
        if name != table.index_name:
            column_path = member_path(path, name, context)
            if not _write_column(writer, column_path, name, column, table, context):
                continue
        names.append(column_path.rpartition("/")[2])
    writer.attr(path, "column-order", names)
    context.report.add(path, "dataframe")


def _write_column(
    writer: Writer, path: str, name: str, column: Any, table: Table, context: Context
) -> bool:
    """False when the column could not be read and was left out."""
    if not callable(column):
        write_element(writer, path, column, context)
        return True
    try:
        write_element(writer, path, column(), context)
    except IOWriteError:
        raise
    except (ScioError, TypeError, ValueError) as error:
        table.unread[name] = str(error)
        return False
    return True


def _write_dict(writer: Writer, path: str, members: Mapping[Any, Any], context: Context) -> None:
    writer.group(path, wide=False)
    _tag(writer, path, "dict", "0.1.0")
    for name, value in members.items():
        write_element(writer, member_path(path, name, context), value, context)
    context.report.add(path, "dict")


def _write_members(writer: Writer, path: str, value: Members, context: Context) -> None:
    if path != "/":
        writer.group(path)
    _tag(writer, path, value.encoding, "0.1.0")
    for name, member in value.members.items():
        element = member() if callable(member) else member
        if element is not None:
            write_element(writer, f"{path.rstrip('/')}/{name}", element, context)
        del element  # large ones are made one by one
    context.report.add(path, value.encoding)


def _write_awkward(writer: Writer, path: str, value: Awkward, context: Context) -> None:
    if not context.profile.allows("awkward-array"):
        loss = f"awkward arrays are read since anndata 0.9, compat is {context.profile.compat!r}"
        context.report.add(path, "", loss=f"left out: {loss}")
        return
    writer.group(path)
    _tag(writer, path, "awkward-array", "0.1.0")
    writer.attr(path, "length", value.length)
    writer.attr(path, "form", value.form)
    for name, buffer in value.buffers.items():
        write_numbers(writer, f"{path}/{name}", buffer, context.options)
        tag_array(writer, f"{path}/{name}")
    context.report.add(path, "awkward-array")


# ---- columns


def _write_categorical(writer: Writer, path: str, column: Categorical, context: Context) -> None:
    writer.group(path)
    _tag(writer, path, "categorical", "0.2.0")
    writer.attr(path, "ordered", bool(column.ordered))
    # the smallest signed type that holds them, as pandas has it
    dtype = np.result_type(np.int8, np.min_scalar_type(-len(column.categories) - 1))
    codes = column.codes.astype(dtype)
    write_numbers(writer, f"{path}/codes", codes, context.options)
    tag_array(writer, f"{path}/codes")
    categories: Any = column.categories
    if isinstance(categories, NullableStrings):
        _write_nullable_categories(writer, f"{path}/categories", categories, context)
    else:
        write_element(writer, f"{path}/categories", np.asarray(categories), context)
    context.report.add(path, "categorical")


def _write_nullable_categories(
    writer: Writer, path: str, categories: NullableStrings, context: Context
) -> None:
    if context.profile.allows("nullable-string-array"):
        write_element(writer, path, categories, context)
        return
    if any(v is None for v in categories.values):
        message = (
            f"{path} has a missing label, which only anndata 0.11 and later read; "
            f"compat is {context.profile.compat!r}"
        )
        raise TypeError(message)
    write_element(writer, path, np.asarray(categories.values), context)


def _write_masked(
    writer: Writer, path: str, column: np.ma.MaskedArray[Any, Any], context: Context
) -> None:
    kinds = {"i": "nullable-integer", "u": "nullable-integer", "b": "nullable-boolean"}
    mask = np.ma.getmaskarray(column)
    if column.dtype.kind not in kinds or column.ndim != 1:
        if not mask.any():
            write_element(writer, path, np.asarray(column), context)
            return
        message = (
            f"{path} is a masked array of {column.dtype} in {column.ndim} dimensions with a missing "
            f"value at {tuple(int(i[0]) for i in mask.nonzero())}; integers and booleans of one "
            "dimension can be missing: write .filled(...)"
        )
        raise TypeError(message)
    _write_nullable(writer, path, kinds[column.dtype.kind], column.filled(0), mask, context)


def _write_nullable(
    writer: Writer,
    path: str,
    encoding: str,
    values: NDArray[Any],
    mask: NDArray[np.bool_],
    context: Context,
) -> None:
    writer.group(path)
    _tag(writer, path, encoding, "0.1.0")
    _write_array(writer, f"{path}/values", values, None, context.options)
    _write_array(writer, f"{path}/mask", mask, None, context.options)
    context.report.add(path, encoding)


def _write_nullable_strings(
    writer: Writer, path: str, column: NullableStrings, context: Context
) -> None:
    mask = np.fromiter((v is None for v in column.values), np.bool_, len(column.values))
    if not context.profile.allows("nullable-string-array"):
        _write_as_categorical(writer, path, column.values, mask, context)
        return
    values = np.where(mask, "", column.values).astype(object)
    _write_nullable(writer, path, "nullable-string-array", values, mask, context)
    writer.attr(path, "na-value", column.na_value)


def _write_as_categorical(
    writer: Writer, path: str, values: NDArray[Any], mask: NDArray[np.bool_], context: Context
) -> None:
    """Strings for readers that know no missing ones."""
    if not mask.any():
        write_element(writer, path, np.asarray(values), context)
        return
    categories, inverse = np.unique(values[~mask].astype(object), return_inverse=True)
    codes = np.full(len(values), -1, dtype=np.int64)
    codes[~mask] = inverse
    loss = (
        f"strings with {int(mask.sum()):,} missing became a categorical, since only anndata 0.11 "
        f"and later know missing strings; compat is {context.profile.compat!r}"
    )
    context.report.add(path, "categorical", loss=loss)
    _write_categorical(writer, path, Categorical(codes, categories), context)


# ---- arrays and scalars


def _write_array(
    writer: Writer,
    path: str,
    value: NDArray[Any],
    context: Context | None,
    options: StorageOptions,
) -> None:
    """Numbers or strings that have no missing ones; with context the element is reported."""
    if value.dtype.kind in "OUT":
        _write_text_array(writer, path, value)
        encoding = "string-array"
    else:
        write_numbers(writer, path, value, options)
        encoding = "array"
    _tag(writer, path, encoding, "0.2.0")
    if context is not None:
        context.report.add(path, encoding)


def _write_ndarray(writer: Writer, path: str, value: NDArray[Any], context: Context) -> None:
    if value.dtype.names is not None:
        _write_records(writer, path, value, context)
    elif value.ndim == 0:
        write_element(writer, path, value[()], context)
    elif value.dtype.kind == "S":
        _write_byte_strings(writer, path, value, context)
    elif value.dtype.kind == "O":
        _write_objects(writer, path, value, context)
    else:
        _write_array(writer, path, np.asarray(value), context, context.options)


def _write_text_array(writer: Writer, path: str, value: NDArray[Any]) -> None:
    try:
        if value.ndim == 1:
            writer.dataset(path, value.tolist())
        else:
            writer.dataset(path, np.ascontiguousarray(value.astype(object)))
    except ValueError as error:
        error.add_note(f"{path} could not be written")
        raise


def _write_objects(writer: Writer, path: str, value: NDArray[Any], context: Context) -> None:
    """Objects that are strings, some of which may be missing."""
    flat = value.reshape(-1).tolist()
    if set(map(type, flat)) <= {str}:
        _write_array(writer, path, value, context, context.options)
        return
    is_missing = [v is None or _is_nan(v) for v in flat]
    other = next(
        (i for i, v in enumerate(flat) if not isinstance(v, str) and not is_missing[i]), -1
    )
    if other >= 0:
        raise TypeError(_no_encoding(path, flat, other, value.shape))
    if not any(is_missing):  # subclasses of str
        plain = np.empty(len(flat), dtype=object)
        plain[:] = [str.__str__(v) for v in flat]
        _write_array(writer, path, plain.reshape(value.shape), context, context.options)
        return
    if value.ndim != 1:
        at = np.unravel_index(is_missing.index(True), value.shape)
        message = (
            f"{path} holds strings in {value.ndim} dimensions with a missing one at "
            f"{tuple(map(int, at))}; only lists of strings can have missing ones: fill it"
        )
        raise TypeError(message)
    values = np.empty(len(flat), dtype=object)
    values[:] = [None if m else v for v, m in zip(flat, is_missing, strict=True)]
    _write_nullable_strings(writer, path, NullableStrings(values), context)


def _is_nan(value: Any) -> bool:
    """NaN or pandas' NA."""
    if isinstance(value, float):
        return math.isnan(value)
    return type(value).__name__ == "NAType"


_ADVICE = {
    "bool": "astype('boolean')",
    "bool_": "astype('boolean')",
    "int": "astype('Int64') if all are integers, else astype(str)",
    "float": "astype('float64') if all are numbers, else astype(str)",
    "Decimal": "astype('float64'), or astype(str) to keep all digits",
    "bytes": ".str.decode('utf-8')",
    "Interval": "astype(str); for labels of pandas.cut: .cat.rename_categories(str)",
    "list": "an awkward array in obsm, or ','.join of its items",
    "tuple": "an awkward array in obsm, or ','.join of its items",
    "ndarray": "an array in obsm",
    "dict": "one column per key",
    "DataFrame": "obsm, or an element of uns of its own",
}


def _no_encoding(path: str, flat: list[Any], position: int, shape: tuple[int, ...]) -> str:
    """Name the first offending value, its row, its type, and a conversion that works."""
    value = flat[position]
    kind = type(value).__name__
    where = f"row {position}"
    if len(shape) > 1:
        where = f"position {tuple(map(int, np.unravel_index(position, shape)))}"
    advice = _ADVICE.get(kind, "astype(str)")
    if isinstance(value, (int, np.integer)) and any(isinstance(v, str) for v in flat):
        advice = "astype(str), since there are strings, too"
    return (
        f"{path} holds a {kind} in {where}, {value!r:.60}, which AnnData files cannot hold; a column "
        f"of objects holds strings, or None where one is missing. Convert it: {advice}"
    )


def _write_records(writer: Writer, path: str, value: NDArray[Any], context: Context) -> None:
    """A structured array; its texts are variable-length strings."""
    names = value.dtype.names or ()
    parts = {name: value[name] for name in names}
    fields: list[Any] = []
    for name in names:
        base, shape = parts[name].dtype, value.dtype[name].shape
        if base.kind in "UO":
            parts[name] = _texts_of(f"{path}[{name!r}]", parts[name])
            fields.append((name, object, shape))
        elif base.kind == "S":
            fields.append((name, base, shape))
        elif base.kind == "V":
            message = f"{path}[{name!r}] is a record in a record, which AnnData files cannot hold"
            raise TypeError(message)
        else:
            fields.append((name, as_native(f"{path}[{name!r}]", np.zeros(1, base)).dtype, shape))
    out = np.empty(value.shape, dtype=fields)
    for name in names:
        out[name] = parts[name]
    writer.dataset(path, out)
    _tag(writer, path, "rec-array", "0.2.0")
    context.report.add(path, "rec-array")


def _texts_of(path: str, values: NDArray[Any]) -> NDArray[Any]:
    flat = values.reshape(-1).tolist()
    wrong = next((i for i, v in enumerate(flat) if not isinstance(v, str)), -1)
    if wrong >= 0:
        raise TypeError(_no_encoding(path, flat, wrong, values.shape))
    out = np.empty(len(flat), dtype=object)
    out[:] = flat
    return out.reshape(values.shape)


def _write_byte_strings(writer: Writer, path: str, value: NDArray[Any], context: Context) -> None:
    writer.dataset(path, np.ascontiguousarray(value))
    tag_array(writer, path)
    context.report.add(path, "array")


def _write_str(writer: Writer, path: str, value: str, context: Context) -> None:
    try:
        writer.dataset(path, str.__str__(value))
    except ValueError as error:
        error.add_note(f"{path} could not be written")
        raise
    _tag(writer, path, "string", "0.2.0")
    context.report.add(path, "string")


def _write_bytes(writer: Writer, path: str, value: bytes, context: Context) -> None:
    if value.endswith(b"\0"):
        message = (
            f"{path} is bytes that end with NUL, which HDF5 takes for padding; "
            "write numpy.frombuffer(value, 'uint8')"
        )
        raise TypeError(message)
    writer.dataset(path, bytes(value))
    _tag(writer, path, "bytes", "0.2.0")
    context.report.add(path, "bytes")


def _write_number(writer: Writer, path: str, value: Any, context: Context) -> None:
    array = np.asarray(value)
    if array.dtype.kind == "O":
        message = f"{path} is {value!r:.60}, beyond 64 bits; write str(value)"
        raise TypeError(message)
    writer.dataset(path, as_native(path, array))
    _tag(writer, path, "numeric-scalar", "0.2.0")
    context.report.add(path, "numeric-scalar")


def _write_none(writer: Writer, path: str, value: None, context: Context) -> None:
    if not context.profile.allows("null"):
        loss = f"None is read since anndata 0.12, compat is {context.profile.compat!r}"
        context.report.add(path, "", loss=f"left out: {loss}")
        return
    writer.dataset(path, value)
    _tag(writer, path, "null", "0.1.0")
    context.report.add(path, "null")


_ENCODERS: tuple[tuple[Any, Callable[[Writer, str, Any, Context], None]], ...] = (
    (Table, _write_table),
    (Categorical, _write_categorical),
    (NullableStrings, _write_nullable_strings),
    (CSR, _write_csr),
    (Compressed, _write_compressed),
    (SparseParts, _write_sparse_parts),
    (DenseParts, _write_dense_parts),
    (Awkward, _write_awkward),
    (Members, _write_members),
    (Mapping, _write_dict),
    (np.ma.MaskedArray, _write_masked),
    (np.ndarray, _write_ndarray),
    (str, _write_str),
    (bytes, _write_bytes),
    ((bool, int, float, complex, np.generic), _write_number),
    (type(None), _write_none),
)
