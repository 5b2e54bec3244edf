"""Objects of pandas, SciPy, dask, awkward, h5py and anndata as the plain elements of the writer.

None of these libraries is imported here: an object of theirs cannot be there unless they are.
Nothing is changed in the caller's objects; arrays are handed on without a copy where they can be.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scio._core import csr_validate
from scio._optional import require
from scio.io._advice import no_column, no_value
from scio.io._from_file import LazyMembers, from_file
from scio.io._plain import (
    Awkward,
    Compressed,
    DenseParts,
    Members,
    NullableStrings,
    SparseParts,
    Table,
)
from scio.io.elements import Categorical

_BLOCK_NBYTES = 64 << 20  # of a matrix that is not in memory
_BLOCK_ENTRIES = 8 << 20  # of a sparse one
_MAX_BLOCK_ROWS = 16_384  # of a sparse one whose density is not known


def to_plain(value: Any, path: str) -> Any:
    """Turn a value of another library into what the writer takes.

    Parameters
    ----------
    value : object
    path : str
        Where it will be written, for messages.

    Returns
    -------
    object
        A plain element.

    Raises
    ------
    TypeError
        If AnnData files cannot hold it; the message names a conversion.
    """
    found = from_file(value)
    if found is not None:
        return found
    for module, convert in _CONVERTERS:
        if module in sys.modules:
            found = convert(sys.modules[module], value, path)
            if found is not None:
                return found
    if isinstance(value, (list, tuple)):
        return _from_list(value, path)
    raise TypeError(no_value(value, path))


def _from_list(value: list[Any] | tuple[Any, ...], path: str) -> NDArray[Any]:
    try:
        array = np.asarray(value)
    except ValueError as error:
        message = f"{path} is a ragged {type(value).__name__}; write an awkward array"
        raise TypeError(message) from error
    if array.dtype.kind in "US" and not _all_texts(value):
        # numpy turns numbers beside strings into strings, without a word
        message = (
            f"{path} is a {type(value).__name__} of mixed types; write a dict, or list(map(str, …))"
        )
        raise TypeError(message)
    return array


def _all_texts(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(_all_texts(v) for v in value)
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "USO"
    return isinstance(value, (str, bytes))


# ---- pandas


def _from_pandas(pandas: Any, value: Any, path: str) -> Any:
    if isinstance(value, pandas.DataFrame):
        return table_of(value, path)
    if isinstance(value, pandas.MultiIndex):
        return None
    if isinstance(value, pandas.Index):
        value = value.array
    if isinstance(value, pandas.api.extensions.ExtensionArray):
        return column_of(value, path)
    return None


def table_of(
    frame: Any, path: str, *, convert_strings: bool = False, is_axis: bool = False
) -> Table:
    """Turn a frame into plain columns.

    Parameters
    ----------
    frame : pandas.DataFrame
    path : str
        Where it will be written, for messages.
    convert_strings : bool
        Write columns of strings that repeat as categoricals, as anndata does.
    is_axis : bool
        obs or var: the index is strings, all there.

    Raises
    ------
    TypeError
        If a name is no string, or a column holds what has no encoding.
    ValueError
        If names of columns repeat, or one is reserved.
    """
    _check_names(frame, path)
    name = frame.index.name
    if name is not None and name in frame.columns:
        _check_same(frame, name, path)
    index_name = "_index" if name is None else name
    columns: dict[str, Any] = {}
    for i, column in enumerate(frame.columns):
        series = frame.iloc[:, i]
        coded = _repeated_strings(series) if convert_strings and column != name else None
        columns[column] = (
            coded if coded is not None else column_of(series.array, f"{path}/{column}")
        )
    return Table(_index_of(frame.index, path, is_axis=is_axis), columns, index_name)


def _check_names(frame: Any, path: str) -> None:
    wrong = next((c for c in frame.columns if not isinstance(c, str)), None)
    if wrong is not None:
        message = (
            f"{path} has a column named {wrong!r}, a {type(wrong).__name__}; names are str: "
            "write frame.rename(columns=str)"
        )
        raise TypeError(message)
    if not frame.columns.is_unique:
        repeated = sorted(set(frame.columns[frame.columns.duplicated()]))
        message = f"{path} has several columns named {', '.join(map(repr, repeated))}"
        raise ValueError(message)
    if "_index" in frame.columns:
        message = f"{path} has a column named '_index', which is the name of the index in the file"
        raise ValueError(message)
    if frame.index.name is not None and not isinstance(frame.index.name, str):
        message = f"the index of {path} is named {frame.index.name!r}, which is no str"
        raise TypeError(message)


def _check_same(frame: Any, name: str, path: str) -> None:
    pandas = sys.modules["pandas"]
    if not pandas.Series(frame.index, index=frame.index).equals(frame[name]):
        message = (
            f"the index of {path} is named {name!r}, as is a column with other values; "
            "the file has one place for both: rename one of them"
        )
        raise ValueError(message)


def _index_of(index: Any, path: str, *, is_axis: bool) -> NDArray[Any]:
    pandas = sys.modules["pandas"]
    if isinstance(index, pandas.MultiIndex):
        message = f"{path} has an index of {index.nlevels} levels; write frame.reset_index()"
        raise TypeError(message)
    values: Any = column_of(index.array, f"{path}/{index.name or '_index'}")
    if isinstance(values, Categorical):
        values = values.labels()
    if isinstance(values, NullableStrings):
        values = values.values
    if isinstance(values, np.ma.MaskedArray) and not np.ma.getmaskarray(values).any():
        values = np.asarray(values)
    is_text = values.dtype.kind in "UO"
    if is_text or is_axis or isinstance(values, np.ma.MaskedArray):
        _check_labels(values, path)
    return np.asarray(values)


def _check_labels(values: Any, path: str) -> None:
    flat = values.tolist()
    wrong = next((i for i, v in enumerate(flat) if not isinstance(v, str)), -1)
    if wrong >= 0:
        found = type(flat[wrong]).__name__
        message = (
            f"the index of {path} holds a {found} in row {wrong}; labels are strings, all of them"
        )
        raise TypeError(message)


def _repeated_strings(series: Any) -> Categorical | None:
    """A column of strings as anndata writes it: its labels in natural order, if any repeats."""
    pandas = sys.modules["pandas"]
    if pandas.api.types.infer_dtype(series) != "string":
        return None
    if any("\0" in text for text in series.dropna()):
        return None  # pandas takes "a\0b" for "a"; as strings they are refused
    coded = pandas.Categorical(series)
    if len(coded.categories) >= len(coded):
        return None
    natsorted = require("natsort", "writing strings as categoricals in anndata's order").natsorted
    ordered = natsorted(coded.categories)
    if list(coded.categories) != ordered:
        coded = coded.reorder_categories(ordered)
    return Categorical(np.asarray(coded.codes), _objects(coded.categories), False)


def _objects(values: Any) -> NDArray[Any]:
    out: NDArray[Any] = np.asarray(values, dtype=object)
    return out


def column_of(array: Any, path: str) -> Any:
    """Turn the array of a column into a plain one.

    Parameters
    ----------
    array : pandas.api.extensions.ExtensionArray
    path : str
        Where it will be written, for messages.

    Raises
    ------
    TypeError
        If it has no encoding; names the first offending row, its type and a conversion.
    """
    pandas = sys.modules["pandas"]
    dtype = array.dtype
    numpy_array = getattr(pandas.arrays, "NumpyExtensionArray", None) or pandas.arrays.PandasArray
    if isinstance(array, numpy_array):
        return array.to_numpy()
    if isinstance(dtype, pandas.CategoricalDtype):
        categories = column_of(array.categories.array, f"{path}/categories")
        if isinstance(categories, np.ma.MaskedArray):
            categories = np.asarray(categories)  # pandas has no missing categories
        return Categorical(np.asarray(array.codes), categories, bool(array.ordered))
    if isinstance(dtype, pandas.StringDtype):
        return _strings(array, dtype)
    if isinstance(array, (pandas.arrays.IntegerArray, pandas.arrays.BooleanArray)):
        mask = np.asarray(array.isna())
        values = array.to_numpy(dtype=dtype.numpy_dtype, na_value=0)
        return np.ma.MaskedArray(values, mask=mask)
    if isinstance(array, pandas.arrays.FloatingArray) and not array.isna().any():
        return array.to_numpy(dtype=dtype.numpy_dtype)
    raise TypeError(no_column(array, path))


def _strings(array: Any, dtype: Any) -> Any:
    values = _objects(array.to_numpy(dtype=object))
    mask = np.asarray(array.isna())
    if not mask.any():
        return values
    values = values.copy()
    values[mask] = None
    return NullableStrings(values, "NA" if dtype.na_value is sys.modules["pandas"].NA else "NaN")


# ---- SciPy


def _from_scipy(sparse: Any, value: Any, path: str) -> Any:
    if not sparse.issparse(value):
        return None
    if value.ndim == 1:
        value = sparse.coo_array(value).reshape((1, -1))
    if value.format not in {"csr", "csc"}:
        value = value.tocsr()
    return _compressed(value, path)


def _compressed(value: Any, path: str) -> Compressed:
    """A CSR or CSC matrix in memory, checked: what scio writes is sound."""
    is_csc = value.format == "csc"
    shape = (int(value.shape[0]), int(value.shape[1]))
    indptr = np.ascontiguousarray(value.indptr, dtype=np.int64)
    nnz = int(indptr[-1]) if len(indptr) else 0
    data, indices = value.data[:nnz], value.indices[:nnz]  # SciPy allows room behind the last
    try:
        csr_validate(
            np.zeros(len(data), np.int8),
            np.ascontiguousarray(indices),
            indptr,
            shape=(shape[1], shape[0]) if is_csc else shape,
        )
    except ValueError as error:
        error.add_note(f"{path} was not written")
        raise

    return Compressed(is_csc, shape, data, indices, indptr)


def _sparse_blocks(
    is_csc: bool, shape: tuple[int, int], dtype: Any, pieces: Callable[[], Iterator[Any]], path: str
) -> SparseParts:
    """A sparse matrix whose SciPy pieces come one by one along its major axis."""

    def blocks() -> Iterator[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]]:
        for piece in pieces():
            wanted = piece.tocsc() if is_csc else piece.tocsr()
            block = _compressed(wanted, path)
            yield block.data, block.indices, np.diff(block.indptr)

    return SparseParts(is_csc, shape, np.dtype(dtype), blocks)


# ---- arrays that are not in memory


def _from_dask(dask: Any, value: Any, path: str) -> Any:
    if not isinstance(value, dask.Array):
        return None
    meta = value._meta
    if not hasattr(meta, "format"):

        def dense() -> Iterator[NDArray[Any]]:
            for start, stop in _ranges(value.chunks[0]):
                yield np.asarray(value[start:stop].compute())

        return DenseParts(tuple(map(int, value.shape)), np.dtype(value.dtype), dense)
    is_csc = meta.format == "csc"

    def pieces() -> Iterator[Any]:
        for start, stop in _ranges(value.chunks[1 if is_csc else 0]):
            yield (value[:, start:stop] if is_csc else value[start:stop]).compute()

    shape = (int(value.shape[0]), int(value.shape[1]))
    return _sparse_blocks(is_csc, shape, value.dtype, pieces, path)


def _ranges(sizes: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    start = 0
    for size in sizes:
        yield start, start + int(size)
        start += int(size)


def _from_h5py(h5py: Any, value: Any, path: str) -> Any:
    return _stored_array(value) if isinstance(value, h5py.Dataset) else None


def _from_zarr(zarr: Any, value: Any, path: str) -> Any:
    return _stored_array(value) if isinstance(value, zarr.Array) else None


def _stored_array(value: Any) -> Any:
    """A dataset of another library, read in blocks of rows; strings at once."""
    if value.ndim == 0 or value.dtype.kind not in "biufc":
        return np.asarray(value.asstr()[()] if value.dtype.kind == "O" else value[()])
    rows = _rows_per_block(value.shape, value.dtype.itemsize)

    def blocks() -> Iterator[NDArray[Any]]:
        for start in range(0, value.shape[0], rows):
            yield np.asarray(value[start : start + rows])

    return DenseParts(tuple(map(int, value.shape)), np.dtype(value.dtype), blocks)


def _rows_per_block(shape: tuple[int, ...], itemsize: int) -> int:
    row_nbytes = max(1, int(np.prod(shape[1:], dtype=np.int64)) * itemsize)
    return max(1, _BLOCK_NBYTES // row_nbytes)


# ---- awkward


def _from_awkward(awkward: Any, value: Any, path: str) -> Any:
    if not isinstance(value, awkward.Array):
        return None
    # a copy of anndata's view is an array without the marks of a view
    plain = copy.copy(value) if type(value) is not awkward.Array else value
    form, length, buffers = awkward.to_buffers(awkward.to_packed(plain))
    arrays = {name: np.asarray(buffer) for name, buffer in buffers.items()}
    return Awkward(form.to_json(), int(length), arrays)


# ---- anndata


def _from_anndata(anndata: Any, value: Any, path: str) -> Any:
    if isinstance(value, anndata.AnnData):
        return members_of(value, path)
    kinds = getattr(anndata, "abc", None) or anndata.experimental  # there before 0.11
    if isinstance(value, (kinds.CSRDataset, kinds.CSCDataset)):
        return _stored_sparse(value, path)
    if isinstance(value, anndata.Raw):
        return raw_of(value, path)
    return None


def _stored_sparse(value: Any, path: str) -> SparseParts:
    """A sparse matrix in an open file, in blocks of bounded size."""
    is_csc = value.format == "csc"
    indptr = np.asarray(value.group["indptr"][:], dtype=np.int64)

    def pieces() -> Iterator[Any]:
        start = 0
        while start < len(indptr) - 1:
            most = indptr[start] + _BLOCK_ENTRIES
            stop = max(start + 1, int(np.searchsorted(indptr, most, side="right")) - 1)
            yield value[:, start:stop] if is_csc else value[start:stop]
            start = stop

    shape = (int(value.shape[0]), int(value.shape[1]))
    return _sparse_blocks(is_csc, shape, value.dtype, pieces, path)


def members_of(adata: Any, path: str = "/", *, convert_strings: bool = True) -> Members:
    """Turn an AnnData into its elements; the large ones are fetched when they are written.

    Parameters
    ----------
    adata : anndata.AnnData
        In memory, a view, or backed.
    path : str
        Where it will be written.
    convert_strings : bool
        As `scio.write_h5ad`.
    """
    root = path.rstrip("/")
    members: dict[str, Any] = {
        name: table_of(
            _in_memory(getattr(adata, name)),
            f"{root}/{name}",
            convert_strings=convert_strings,
            is_axis=True,
        )
        for name in ("obs", "var")
    }
    members["uns"] = dict(adata.uns)
    for name in ("obsm", "varm", "obsp", "varp", "layers"):
        members[name] = LazyMembers(getattr(adata, name))
    if adata.raw is not None:
        members["raw"] = raw_of(adata.raw, f"{root}/raw", convert_strings=convert_strings)
    members["X"] = lambda: _matrix_of(adata, f"{root}/X")
    return Members("anndata", members)


def raw_of(raw: Any, path: str, *, convert_strings: bool = True) -> Members:
    """Turn anndata's ``raw`` into its elements."""
    var = table_of(raw.var, f"{path}/var", convert_strings=convert_strings, is_axis=True)
    return Members("raw", {"var": var, "varm": dict(raw.varm), "X": lambda: raw.X})


def _in_memory(frame: Any) -> Any:
    """Frames that anndata reads lazily have no columns of pandas before."""
    return frame.to_memory() if hasattr(frame, "to_memory") else frame


def _matrix_of(adata: Any, path: str) -> Any:
    if not (adata.isbacked and adata.is_view) or 0 in adata.shape:
        return adata.X
    # a view of a view is refused there, so blocks are views of the whole
    whole, obs, var = adata._adata_ref, adata._oidx, adata._vidx
    rows = np.arange(whole.n_obs)[obs]
    columns = np.arange(whole.n_vars)[var]
    stored = whole.X
    if hasattr(stored, "format"):
        is_csc = stored.format == "csc"
        step = _MAX_BLOCK_ROWS
    else:
        is_csc = False
        step = _rows_per_block(stored.shape, stored.dtype.itemsize)

    def pieces() -> Iterator[Any]:
        for start in range(0, len(columns) if is_csc else len(rows), step):
            part = slice(start, start + step)
            yield whole[obs, columns[part]].X if is_csc else whole[rows[part], var].X

    shape = (len(rows), len(columns))
    if hasattr(stored, "format"):
        return _sparse_blocks(is_csc, shape, stored.dtype, pieces, path)
    return DenseParts(shape, np.dtype(stored.dtype), lambda: map(np.asarray, pieces()))


_CONVERTERS: tuple[tuple[str, Callable[[Any, Any, str], Any]], ...] = (
    ("pandas", _from_pandas),
    ("scipy.sparse", _from_scipy),
    ("dask.array", _from_dask),
    ("awkward", _from_awkward),
    ("anndata", _from_anndata),
    ("h5py", _from_h5py),
    ("zarr", _from_zarr),
)
