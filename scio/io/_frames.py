"""Data frames of a file: their index, their columns, their legacy forms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from scio._optional import require
from scio.errors import CorruptFileError
from scio.io._plan import Deferred, Rows
from scio.io.elements import Frame

if TYPE_CHECKING:
    from scio.io._encodings import ElementReader


def plan_frame(reader: ElementReader, path: str, rows: Rows | None) -> Deferred:
    """Plan the wanted columns of a frame, and its index always.

    Parameters
    ----------
    reader : ElementReader
    path : str
    rows : Rows or None
        The rows that are wanted, None = all.

    Returns
    -------
    callable
        Gives a ``pandas.DataFrame``.

    Raises
    ------
    CorruptFileError
        If index or columns do not fit together.
    """
    head = Frame(reader.file, path, path.strip("/"))
    if rows is None:
        rows = Rows(len(head))
    elif len(head) != rows.n_total:
        message = f"{reader.file.name}: {path} has {len(head)} rows, expected {rows.n_total}"
        raise CorruptFileError(message)
    if reader.file.kind(path) == "dataset":
        return _plan_compound(reader, path, rows)
    return _plan_group(reader, head, path, rows)


def _plan_group(reader: ElementReader, head: Frame, path: str, rows: Rows) -> Deferred:
    pandas = require("pandas", "scio.read_h5ad")
    prefix = path.strip("/")
    index_name = head.index_name
    index = plan_column(reader, f"{path}/{index_name}", rows)
    columns: dict[str, Deferred] = {}
    for name in head.stored_columns:
        member = f"{path}/{name}"
        if reader.wanted.has(f"{prefix}/{name}"):
            with reader.tolerant(member):
                columns[name] = plan_column(reader, member, rows)

    def finish() -> Any:
        values = {reader.key(name): column() for name, column in columns.items()}
        frame = pandas.DataFrame(values, index=index(), columns=list(values) or None)
        if index_name != "_index":
            frame.index.name = reader.key(index_name)
        return frame

    return finish


def plan_column(reader: ElementReader, path: str, rows: Rows) -> Deferred:
    """Plan one column, or the index, in any encoding that has one dimension."""
    file = reader.file
    kind = file.kind(path)
    if reader.encoding(path) is not None:
        return _one_dimension(reader, path, rows)
    if kind == "dataset" and "categories" in file.attr_names(path):
        return _plan_reference(reader, path, rows)
    if kind == "group":
        members = set(file.keys(path))
        if {"codes", "categories"} <= members:
            return reader.categorical(path, (rows,))
        if {"values", "mask"} <= members:
            return reader.nullable(path, (rows,))
    return _one_dimension(reader, path, rows)


def _one_dimension(reader: ElementReader, path: str, rows: Rows) -> Deferred:
    if reader.file.kind(path) == "dataset":
        shape = reader.file.dataset(path).shape
        if shape is None or len(shape) != 1:
            message = f"{reader.file.name}: {path} has shape {shape}, a column has one dimension"
            raise CorruptFileError(message)
    value = reader.element(path, (rows,))
    return lambda: _at_least_one(value())


def _at_least_one(value: Any) -> Any:
    return value if np.ndim(value) else np.atleast_1d(np.asarray(value, dtype=object))


def _plan_reference(reader: ElementReader, path: str, rows: Rows) -> Deferred:
    """A column of 0.7: codes, with a reference to the labels."""
    target = reader.file.attr_reference(path, "categories")
    if target is None:
        message = f"{reader.file.name}: {path}@categories is no reference to an object of this file"
        raise CorruptFileError(message)
    ordered = reader.flag(target, "ordered")
    return reader.categories(path, path, target, ordered, (rows,))


def _plan_compound(reader: ElementReader, path: str, rows: Rows) -> Deferred:
    """A frame before 0.7: the first field is the index."""
    pandas = require("pandas", "scio.read_h5ad")
    prefix = path.strip("/")
    records = reader.records(path, (rows,))

    def finish() -> Any:
        values = records()
        index, *names = values.dtype.names
        kept = [name for name in names if reader.wanted.has(f"{prefix}/{name}")]
        frame = pandas.DataFrame({name: _field(values[name]) for name in kept})
        frame.index = pandas.Index(_field(values[index]), name=index)
        return frame[kept]

    return finish


def _field(values: Any) -> Any:
    return values.astype(object) if values.dtype.kind == "U" else np.ascontiguousarray(values)
