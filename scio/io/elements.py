"""Readers of single AnnData elements: one function per encoding, found by a registry.

An element is recognised by its ``encoding-type``; by kind and shape only when it has none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scio._names import near_names
from scio._optional import require
from scio.errors import CorruptFileError, IOFormatError, KeyNotFoundError, UnsupportedError
from scio.io.hdf5 import HDF5File


@dataclass(frozen=True, slots=True, eq=False)
class Categorical:
    """A column of labels stored as codes.

    Attributes
    ----------
    codes : ndarray, shape (n,), signed integer
        Position in `categories`; -1 is missing.
    categories : ndarray, shape (n_categories,)
        The distinct labels.
    ordered : bool
        Whether the categories have an order.
    """

    codes: NDArray[Any]
    categories: NDArray[Any]
    ordered: bool = False

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, rows: Any) -> Categorical:
        return Categorical(np.atleast_1d(self.codes[rows]), self.categories, self.ordered)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            message = "labels are made from codes, which needs a copy"
            raise ValueError(message)
        return self.labels().astype(dtype, copy=False) if dtype is not None else self.labels()

    def __repr__(self) -> str:
        shown = ", ".join(str(c) for c in self.categories[:6])
        more = ", …" if len(self.categories) > 6 else ""
        return f"<{len(self)} labels of {len(self.categories)} categories: {shown}{more}>"

    def labels(self) -> NDArray[Any]:
        """Return the labels as objects, shape (n,); None where missing."""
        table = np.empty(len(self.categories) + 1, dtype=object)
        table[:-1] = self.categories
        return table[self.codes.astype(np.int64, copy=False)]

    def to_pandas(self) -> Any:
        """Return a ``pandas.Categorical``."""
        pandas = require("pandas", "Categorical.to_pandas")
        return pandas.Categorical.from_codes(
            self.codes, categories=pandas.Index(self.categories), ordered=self.ordered
        )


Column = NDArray[Any] | Categorical
Reader = Callable[[HDF5File, str], Any]

_READERS: dict[str, Reader] = {}


def _reads(*encodings: str) -> Callable[[Reader], Reader]:
    def register(reader: Reader) -> Reader:
        for encoding in encodings:
            _READERS[encoding] = reader
        return reader

    return register


def read_column(file: HDF5File, path: str) -> Column:
    """Read a 1-D column of a frame in any encoding that has one.

    Parameters
    ----------
    file : HDF5File
    path : str
        Path of the column, a dataset or a group.

    Returns
    -------
    ndarray, MaskedArray or Categorical, shape (n,)

    Raises
    ------
    CorruptFileError
        If the element breaks a rule; names element, rule, found and expected.
    UnsupportedError
        If its encoding is not known.
    """
    encoding = file.scalar_attr(path, "encoding-type")
    if encoding is None:
        encoding = _guess(file, path)
    reader = _READERS.get(str(encoding))
    if reader is None:
        version = file.scalar_attr(path, "encoding-version", "?")
        message = f"{file.name}: {path} has encoding {encoding!r} version {version}, which scio does not read"
        raise UnsupportedError(message)
    column: Column = reader(file, path)
    return column


def _guess(file: HDF5File, path: str) -> str:
    if file.kind(path) == "dataset":
        has_labels = file.core.attr_names(path)
        return "legacy-categorical" if "categories" in has_labels else "array"
    members = set(file.keys(path))
    if {"codes", "categories"} <= members:
        return "categorical"
    if {"values", "mask"} <= members:
        return "nullable-integer"
    return "group without encoding-type"


@_reads("array", "string-array")
def _read_array(file: HDF5File, path: str) -> NDArray[Any]:
    values = np.asarray(file.read(path))
    if values.ndim != 1:
        message = f"{file.name}: {path} has shape {values.shape}, a column has one dimension"
        raise CorruptFileError(message)
    return values


@_reads("categorical")
def _read_categorical(file: HDF5File, path: str) -> Categorical:
    missing = [name for name in ("codes", "categories") if name not in file.keys(path)]
    if missing:
        message = f"{file.name}: {path} lacks {', '.join(missing)}; it needs codes, categories"
        raise CorruptFileError(message)
    codes = _integers(file, f"{path}/codes")
    categories = read_column(file, f"{path}/categories")
    ordered = bool(file.scalar_attr(path, "ordered", default=False))
    return _categorical(file, path, codes, np.asarray(categories), ordered)


@_reads("legacy-categorical")
def _read_legacy_categorical(file: HDF5File, path: str) -> Categorical:
    target = file.attr_reference(path, "categories")
    if target is None:
        message = f"{file.name}: {path}@categories is no reference to an object of this file"
        raise CorruptFileError(message)
    categories = np.atleast_1d(file.read(target))
    ordered = bool(file.scalar_attr(target, "ordered", default=False))
    return _categorical(file, path, _integers(file, path), categories, ordered)


def _integers(file: HDF5File, path: str) -> NDArray[Any]:
    codes: NDArray[Any] = _read_array(file, path)
    if codes.dtype.kind not in "iu":
        message = f"{file.name}: {path} holds {codes.dtype}, codes are integers"
        raise CorruptFileError(message)
    return codes


def _categorical(
    file: HDF5File, path: str, codes: NDArray[Any], categories: NDArray[Any], ordered: bool
) -> Categorical:
    check_codes(file.name, path, codes, len(categories))
    labels, seen = categories.tolist(), set()
    for label in labels if len(set(labels)) != len(labels) else ():
        if label in seen:
            message = f"{file.name}: {path} has the category {label!r} twice; they must be unique"
            raise CorruptFileError(message)
        seen.add(label)
    if codes.dtype.kind == "u":
        codes = codes.astype(np.int64)
    return Categorical(codes, categories, ordered)


def check_codes(name: str, path: str, codes: NDArray[Any], n_categories: int) -> None:
    """Raise CorruptFileError, with the row, when a code lies outside [-1, n_categories)."""
    is_wrong = codes >= n_categories
    if codes.dtype.kind == "i":
        is_wrong |= codes < -1
    if is_wrong.any():
        row = int(is_wrong.argmax())
        message = (
            f"{name}: {path} has code {codes[row]} in row {row}; codes lie in [-1, {n_categories})"
        )
        raise CorruptFileError(message)


@_reads("nullable-integer", "nullable-boolean")
def _read_nullable(file: HDF5File, path: str) -> Any:
    values, mask = _masked_parts(file, path)
    return np.ma.MaskedArray(values, mask=mask)


@_reads("nullable-string-array")
def _read_nullable_strings(file: HDF5File, path: str) -> NDArray[Any]:
    values, mask = _masked_parts(file, path)
    strings: NDArray[Any] = values
    strings[mask] = None
    return strings


def _masked_parts(file: HDF5File, path: str) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    values = _read_array(file, f"{path}/values")
    mask = _read_array(file, f"{path}/mask").astype(np.bool_)
    if len(values) != len(mask):
        message = f"{file.name}: {path}/mask has {len(mask)} entries, {path}/values {len(values)}"
        raise CorruptFileError(message)
    return values, mask


class Frame:
    """Columns of obs or var, read one by one when they are asked for.

    Notes
    -----
    ``frame["cell_type"]`` gives a NumPy array, a masked array (nullable numbers) or a `Categorical`.
    """

    def __init__(self, file: HDF5File, path: str, axis: str) -> None:
        self._file = file
        self._path = path
        self._axis = axis
        self._is_compound = file.kind(path) == "dataset"
        self._names: list[str] | None = None
        self._compound: NDArray[Any] | None = None
        self._n_rows: int | None = None

    # --- names

    @property
    def index_name(self) -> str:
        """Name of the member that holds the row names."""
        if self._is_compound:
            return str(self._fields()[0])
        name = self._file.scalar_attr(self._path, "_index")
        if name is not None:
            return str(name)
        members = self._file.keys(self._path)
        for candidate in ("_index", "index"):
            if candidate in members:
                return candidate
        message = f"{self._file.name}: {self._path} has no attribute _index, which names its index"
        raise CorruptFileError(message)

    @property
    def columns(self) -> list[str]:
        """Names of the columns, in the order of the frame; the index left out."""
        if self._names is None:
            self._names = self._read_names()
        return list(self._names)

    def _read_names(self) -> list[str]:
        if self._is_compound:
            return [str(name) for name in self._fields()[1:]]
        index = self.index_name
        return [name for name in self.stored_columns if name != index]

    @property
    def stored_columns(self) -> list[str]:
        """Names of the columns as the file lists them; some writers list the index too."""
        if self._is_compound:
            return [str(name) for name in self._fields()[1:]]
        order = self._file.attr(self._path, "column-order")
        if order is None:
            hidden = (self.index_name, "__categories")
            return [name for name in self._file.keys(self._path) if name not in hidden]
        return [str(name) for name in np.atleast_1d(order)] if np.size(order) else []

    def _fields(self) -> tuple[str, ...]:
        info = self._file.dataset(self._path).type
        if info["class"] != "compound":
            message = f"{self._file.name}: {self._path} is a dataset of {info['class']}, a frame is compound"
            raise CorruptFileError(message)
        return tuple(member[0] for member in info["members"])

    def keys(self) -> list[str]:
        """Names of the columns."""
        return self.columns

    def __contains__(self, name: object) -> bool:
        return name in self.columns

    def __iter__(self) -> Any:
        return iter(self.columns)

    def __len__(self) -> int:
        """Rows of the frame."""
        if self._n_rows is None:
            self._n_rows = self._count_rows()
        return self._n_rows

    def _count_rows(self) -> int:
        path = self._path if self._is_compound else f"{self._path}/{self.index_name}"
        if self._file.kind(path) == "group":  # a nullable-string-array is a group
            path = f"{path}/values"
        if path not in self._file:
            members = self._file.keys(self._path)
            message = (
                f"{self._file.name}: {path} does not exist, but {self._path}@_index names it; "
                f"{near_names(self.index_name, members)}"
            )
            raise CorruptFileError(message)
        shape = self._file.dataset(path).shape
        if shape is None or len(shape) != 1:
            message = f"{self._file.name}: {path} has shape {shape}, an index has one dimension"
            raise CorruptFileError(message)
        return shape[0]

    def string_encoding(self, name: str) -> tuple[str, str]:
        """Encoding of a column (or of the index) as stored, "" without one; and its na-value."""
        if self._is_compound:
            return "", "NA"
        path = f"{self._path}/{name}"
        if self._file.kind(path) is None:  # the categories of 0.7 lie elsewhere
            return "", "NA"
        encoding = str(self._file.scalar_attr(path, "encoding-type", default=""))
        return encoding, str(self._file.scalar_attr(path, "na-value", default="NA"))

    # --- values

    @property
    def index(self) -> NDArray[Any]:
        """Row names, shape (n,), objects of str (numbers are turned into text)."""
        if self._is_compound:
            values = self._compound_values()[self.index_name]
        else:
            values = np.asarray(read_column(self._file, f"{self._path}/{self.index_name}"))
        if values.dtype != object:
            values = np.array([str(v) for v in values.tolist()], dtype=object)
        return values

    def __getitem__(self, name: str) -> Column:
        """Read one column.

        Raises
        ------
        KeyNotFoundError
            If there is no such column; near names are offered.
        """
        if name not in self.columns:
            message = (
                f"{self._file.name}: {self._axis} has no column {name!r}; "
                f"{near_names(name, self.columns)}"
            )
            raise KeyNotFoundError(message)
        if self._is_compound:
            return self._compound_column(name)
        if self._file.kind(f"{self._path}/{name}") is None:
            message = (
                f"{self._file.name}: {self._path}/{name} does not exist, but column-order names it"
            )
            raise CorruptFileError(message)
        column = read_column(self._file, f"{self._path}/{name}")
        if len(column) != len(self):
            message = (
                f"{self._file.name}: {self._path}/{name} has {len(column)} entries, "
                f"{self._path} has {len(self)} rows"
            )
            raise CorruptFileError(message)
        return column

    def _compound_values(self) -> NDArray[Any]:
        if self._compound is None:
            self._compound = np.asarray(self._file.read(self._path))
        return self._compound

    def _compound_column(self, name: str) -> Column:
        values = self._compound_values()[name]
        labels = f"/uns/{name}_categories"
        if values.dtype.kind not in "iu" or self._file.kind(labels) != "dataset":
            return values
        categories = np.atleast_1d(self._file.read(labels))
        if values.size and int(values.max()) >= len(categories):
            return values
        return _categorical(self._file, f"{self._path}[{name!r}]", values, categories, False)

    def to_pandas(self) -> Any:
        """Return the whole frame as a ``pandas.DataFrame``."""
        pandas = require("pandas", "Frame.to_pandas")
        data = {}
        for name in self.columns:
            column = self[name]
            data[name] = column.to_pandas() if isinstance(column, Categorical) else _plain(column)
        return pandas.DataFrame(data, index=pandas.Index(self.index), columns=self.columns)

    def __repr__(self) -> str:
        listed = ", ".join(repr(n) for n in self.columns)
        return f"<{self._axis}: {len(self):,} rows; columns {listed or 'none'}>"


def _plain(column: NDArray[Any]) -> Any:
    if isinstance(column, np.ma.MaskedArray):
        out: Any = column.astype(object)
        return out.filled(None)
    return column


def open_frame(file: HDF5File, path: str, axis: str) -> Frame:
    """Open obs or var.

    Raises
    ------
    IOFormatError
        If the file has none.
    """
    if file.kind(path) is None:
        message = f"{file.name} has no {path}: it is HDF5, but no AnnData file"
        raise IOFormatError(message)
    return Frame(file, path, axis)
