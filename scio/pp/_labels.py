"""Names of rows and labels of cells, in whatever they come."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scio.io import Categorical


def numbered(n: int) -> NDArray[Any]:
    """Names "0", "1", … for what has none."""
    return np.array([str(i) for i in range(n)], dtype=object)


def column_of(column: Any) -> Any:
    """A column of pandas, or an array, as a NumPy array or a Categorical."""
    if str(getattr(column, "dtype", "")) == "category":
        labels = getattr(column, "cat", column)
        return Categorical(np.asarray(labels.codes), np.asarray(labels.categories))
    if hasattr(column, "to_numpy"):
        values = column.to_numpy()
        if values.dtype == object and hasattr(column, "isna"):
            values = values.copy()
            values[np.asarray(column.isna())] = None
        return values
    return np.asarray(column) if not isinstance(column, Categorical) else column


def codes_of(column: Any) -> tuple[NDArray[np.int32], list[str]]:
    """Codes, -1 where missing, and the names of the labels; sorted when they are no categories."""
    if isinstance(column, Categorical):
        return column.codes.astype(np.int32), [str(c) for c in column.categories]
    values = np.ma.getdata(column).tolist()
    masked = np.ma.getmaskarray(column).tolist()
    labels = [None if m or is_missing(v) else v for v, m in zip(values, masked, strict=True)]
    distinct: set[Any] = set(labels) - {None}
    try:
        ordered = sorted(distinct)
    except TypeError:  # labels of several types
        ordered = sorted(distinct, key=str)
    position = {v: i for i, v in enumerate(ordered)} | {None: -1}
    return np.array([position[v] for v in labels], dtype=np.int32), [str(v) for v in ordered]


def is_missing(value: Any) -> bool:
    """Say whether a label is None or NaN."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def names_of(frame: Any) -> NDArray[Any]:
    """Names of the rows of a pandas frame, objects of str."""
    return np.array([str(n) for n in frame.index], dtype=object)
