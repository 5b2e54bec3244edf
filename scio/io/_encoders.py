"""One function per encoding of AnnData, found by the type of the value."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scio._storage.keys import escape_key
from scio.errors import IOWriteError, ScioError, ScioWarning
from scio.io._advice import no_object
from scio.io._plain import (
    Awkward,
    Compressed,
    DenseParts,
    Members,
    NullableStrings,
    SparseParts,
    Table,
    Unread,
)
from scio.io._profiles import Profile, WriteReport
from scio.io._streams import (
    PLAIN,
    DenseStream,
    SparseStream,
    StorageOptions,
    as_native,
    begin_sparse,
    index_dtype_for,
    tag,
    tag_array,
    write_indptr,
    write_numbers,
)
from scio.io.elements import Categorical
from scio.matrix import CSR

if TYPE_CHECKING:
    from scio._h5write import Writer

MANY_COLUMNS = 4000  # their names as one attribute come near the 64 KiB of an old object header


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


# ---- matrices


def _write_csr(writer: Writer, path: str, value: CSR, context: Context) -> None:
    parts = Compressed(False, value.shape, value.data, value.indices, value.indptr)
    _write_compressed(writer, path, parts, context)


def _write_compressed(writer: Writer, path: str, value: Compressed, context: Context) -> None:
    encoding = begin_sparse(writer, path, value.is_csc)
    writer.attr(path, "shape", np.array(value.shape, dtype=np.int64))
    indices = value.indices.astype(
        index_dtype_for(value.shape[0 if value.is_csc else 1]), copy=False
    )
    write_numbers(writer, f"{path}/data", value.data, context.options, can_grow=True)
    write_numbers(writer, f"{path}/indices", indices, context.options, can_grow=True)
    write_indptr(writer, path, value.indptr, context.options)
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
    tag(writer, path, "dataframe", "0.2.0")
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
    for name, reason in table.unread.items():
        context.report.add(f"{path}/{name}", "", loss=f"left out: {reason}")
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
    writer.group(path)
    tag(writer, path, "dict", "0.1.0")
    for name, value in members.items():
        write_element(writer, member_path(path, name, context), value, context)
    context.report.add(path, "dict")


def _write_members(writer: Writer, path: str, value: Members, context: Context) -> None:
    if path != "/":
        writer.group(path)
    tag(writer, path, value.encoding, "0.1.0")
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
    tag(writer, path, "awkward-array", "0.1.0")
    writer.attr(path, "length", value.length)
    writer.attr(path, "form", value.form)
    for name, buffer in value.buffers.items():
        write_numbers(writer, f"{path}/{name}", buffer, context.options)
        tag_array(writer, f"{path}/{name}")
    context.report.add(path, "awkward-array")


# ---- columns


def _write_categorical(writer: Writer, path: str, column: Categorical, context: Context) -> None:
    writer.group(path)
    tag(writer, path, "categorical", "0.2.0")
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
    tag(writer, path, encoding, "0.1.0")
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
    tag(writer, path, encoding, "0.2.0")
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
        raise TypeError(no_object(path, flat, other, value.shape))
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
    tag(writer, path, "rec-array", "0.2.0")
    context.report.add(path, "rec-array")


def _texts_of(path: str, values: NDArray[Any]) -> NDArray[Any]:
    flat = values.reshape(-1).tolist()
    wrong = next((i for i, v in enumerate(flat) if not isinstance(v, str)), -1)
    if wrong >= 0:
        raise TypeError(no_object(path, flat, wrong, values.shape))
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
    tag(writer, path, "string", "0.2.0")
    context.report.add(path, "string")


def _write_bytes(writer: Writer, path: str, value: bytes, context: Context) -> None:
    if value.endswith(b"\0"):
        message = (
            f"{path} is bytes that end with NUL, which HDF5 takes for padding; "
            "write numpy.frombuffer(value, 'uint8')"
        )
        raise TypeError(message)
    writer.dataset(path, bytes(value))
    tag(writer, path, "bytes", "0.2.0")
    context.report.add(path, "bytes")


def _write_number(writer: Writer, path: str, value: Any, context: Context) -> None:
    array = np.asarray(value)
    if array.dtype.kind == "O":
        message = f"{path} is {value!r:.60}, beyond 64 bits; write str(value)"
        raise TypeError(message)
    writer.dataset(path, as_native(path, array))
    tag(writer, path, "numeric-scalar", "0.2.0")
    context.report.add(path, "numeric-scalar")


def _write_none(writer: Writer, path: str, value: None, context: Context) -> None:
    if not context.profile.allows("null"):
        loss = f"None is read since anndata 0.12, compat is {context.profile.compat!r}"
        context.report.add(path, "", loss=f"left out: {loss}")
        return
    writer.dataset(path, value)
    tag(writer, path, "null", "0.1.0")
    context.report.add(path, "null")


def _skip_unread(writer: Writer, path: str, value: Unread, context: Context) -> None:
    context.report.add(path, "", loss=f"left out: {value.reason}")


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
    (Unread, _skip_unread),
    (Mapping, _write_dict),
    (np.ma.MaskedArray, _write_masked),
    (np.ndarray, _write_ndarray),
    (str, _write_str),
    (bytes, _write_bytes),
    ((bool, int, float, complex, np.generic), _write_number),
    (type(None), _write_none),
)
