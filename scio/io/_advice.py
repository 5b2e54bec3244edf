"""What to say of values that AnnData files cannot hold: where they are, and what to write instead."""

from __future__ import annotations

from typing import Any

import numpy as np

_OF_VALUES = {
    "datetime": "value.isoformat()",
    "date": "value.isoformat()",
    "timedelta": "value.total_seconds()",
    "Timestamp": "value.isoformat()",
    "Timedelta": "value.total_seconds()",
    "Decimal": "str(value)",
    "set": "sorted(value)",
    "frozenset": "sorted(value)",
    "Series": "value.to_frame()",
    "NAType": "None",
}


def no_value(value: Any, path: str) -> str:
    """Say that one value has no encoding."""
    kind = type(value).__name__
    message = f"{path} is a {kind}, which has no encoding in AnnData files"
    advice = _OF_VALUES.get(kind)
    return f"{message}; write {advice}" if advice else message


_OF_OBJECTS = {
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


def no_object(path: str, flat: list[Any], position: int, shape: tuple[int, ...]) -> str:
    """Name the first offending value, its row, its type, and a conversion that works."""
    value = flat[position]
    kind = type(value).__name__
    where = f"row {position}"
    if len(shape) > 1:
        where = f"position {tuple(map(int, np.unravel_index(position, shape)))}"
    advice = _OF_OBJECTS.get(kind, "astype(str)")
    if isinstance(value, (int, np.integer)) and any(isinstance(v, str) for v in flat):
        advice = "astype(str), since there are strings, too"
    return (
        f"{path} holds a {kind} in {where}, {value!r:.60}, which AnnData files cannot hold; a column "
        f"of objects holds strings, or None where one is missing. Convert it: {advice}"
    )


def no_column(array: Any, path: str) -> str:
    """Say that an extension array has no encoding: its first row, and a conversion."""
    name = str(array.dtype)
    is_there = np.flatnonzero(~np.asarray(array.isna()))
    row = int(is_there[0]) if len(is_there) else 0
    advice = "astype(str)"
    if name.startswith("datetime64"):
        advice = "astype(str), or .astype('int64') for nanoseconds"
    elif name.startswith("timedelta64"):
        advice = ".dt.total_seconds()"
    elif name.startswith("Float"):
        row = int(np.flatnonzero(np.asarray(array.isna()))[0])
        advice = "astype('float64'), where NaN is what is missing"
    elif name.startswith("Sparse"):
        advice = ".sparse.to_dense()"
    elif name.startswith("interval") or name.startswith("period"):
        advice = "astype(str)"
        if path.endswith("/categories"):
            advice = ".cat.rename_categories(str)"
    elif "[pyarrow]" in name:
        advice = ".convert_dtypes(dtype_backend='numpy_nullable')"
    found = f"{type(array[row]).__name__} in row {row}" if len(array) else "no rows"
    return (
        f"{path} has dtype {name} ({found}), which AnnData files cannot hold. Convert it: {advice}"
    )
