"""Deep equality of AnnData objects and of anything that is an element of one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from scio._optional import require

_MAPPINGS = ("layers", "obsm", "varm", "obsp", "varp")
_SHOWN = 120


def assert_equal(actual: Any, expected: Any, *, where: str = "") -> None:
    """Raise unless two AnnData objects, or two elements of one, are equal in every part.

    Equal are values (NaN and NaN, too; 0.0 and -0.0 are not), dtypes, classes, shapes, names and
    the order of cells, genes and columns; of sparse matrices, what is stored in which order.

    Parameters
    ----------
    actual, expected : anndata.AnnData, or what lies in one
        Arrays, SciPy matrices, frames, categoricals, nullable and awkward arrays, mappings,
        numbers, strings, None.
    where : str
        Stands before the element's path in messages.

    Raises
    ------
    AssertionError
        At the first difference; names the element, as in ``/obs/cell_type``.

    Notes
    -----
    Three things are free because files do not keep them: the order of keys, the byte order of
    numbers, and the width of ``indices`` and ``indptr``.

    Examples
    --------
    >>> import numpy as np
    >>> from scio.testing import assert_equal
    >>> assert_equal({"a": np.array([1.0, np.nan])}, {"a": np.array([1.0, np.nan])})
    >>> assert_equal({"a": np.zeros(2)}, {"a": np.zeros(3)})
    Traceback (most recent call last):
        ...
    AssertionError: /a: shape (2,), expected (3,)
    """
    if type(expected).__name__ == "AnnData" and hasattr(expected, "obs_names"):
        _anndata(actual, expected, where)
    elif isinstance(expected, Mapping):
        _mapping(actual, expected, where)
    else:
        _element(actual, expected, where)


def _fail(where: str, text: str) -> None:
    message = f"{where or '/'}: {text}"
    raise AssertionError(message)


def _check(where: str, what: str, actual: Any, expected: Any) -> None:
    if actual != expected:
        _fail(where, f"{what} {actual!s:.{_SHOWN}}, expected {expected!s:.{_SHOWN}}")


def _is_of(value: Any, module: str) -> bool:
    return any(base.__module__.partition(".")[0] == module for base in type(value).__mro__)


def _anndata(actual: Any, expected: Any, where: str) -> None:
    if not hasattr(actual, "obs_names"):
        _fail(where, f"{type(actual).__name__}, expected AnnData")
    _check(where, "shape", actual.shape, expected.shape)
    for name in ("X", "obs", "var", "uns"):
        assert_equal(getattr(actual, name), getattr(expected, name), where=f"{where}/{name}")
    for name in _MAPPINGS:
        mine, wanted = dict(getattr(actual, name)), dict(getattr(expected, name))
        _mapping(mine, wanted, f"{where}/{name}")
    _check(f"{where}/raw", "presence", actual.raw is not None, expected.raw is not None)
    if expected.raw is not None:
        for name in ("X", "var"):
            mine, wanted = getattr(actual.raw, name), getattr(expected.raw, name)
            assert_equal(mine, wanted, where=f"{where}/raw/{name}")
        _mapping(dict(actual.raw.varm), dict(expected.raw.varm), f"{where}/raw/varm")


def _mapping(actual: Any, expected: Mapping[Any, Any], where: str) -> None:
    if not isinstance(actual, Mapping):
        _fail(where, f"{type(actual).__name__}, expected a mapping")
    _check(where, "keys", sorted(actual, key=str), sorted(expected, key=str))
    for key, value in expected.items():
        assert_equal(actual[key], value, where=f"{where}/{key}")


def _element(actual: Any, expected: Any, where: str) -> None:
    if type(actual) is not type(expected):
        _fail(where, f"{type(actual).__name__}, expected {type(expected).__name__}")
    if isinstance(expected, np.ndarray):
        _array(actual, expected, where)
    elif _is_of(expected, "pandas"):  # first: a column may be called indptr
        _pandas(actual, expected, where)
    elif hasattr(expected, "indptr"):
        _sparse(actual, expected, where)
    elif _is_of(expected, "awkward"):
        _check(where, "type", str(actual.type), str(expected.type))
        _check(where, "values", actual.to_list(), expected.to_list())
    else:
        # two NaN are alike, alone and as parts of a complex number
        _array(np.array([actual], object), np.array([expected], object), where)


def _sparse(actual: Any, expected: Any, where: str) -> None:
    _check(where, "shape", actual.shape, expected.shape)
    _array(actual.data, expected.data, f"{where}/data")
    for name in ("indptr", "indices"):
        mine = np.asarray(getattr(actual, name), np.int64)
        _array(mine, np.asarray(getattr(expected, name), np.int64), f"{where}/{name}")


def _array(actual: Any, expected: Any, where: str) -> None:
    mine, wanted = actual.dtype.newbyteorder("="), expected.dtype.newbyteorder("=")
    _check(where, "shape", actual.shape, expected.shape)
    _check(where, "dtype", mine, wanted)
    if wanted.names is not None:
        for name in wanted.names:
            _array(actual[name], expected[name], f"{where}/{name}")
        return
    unequal = ~_alike(actual, expected)
    if unequal.any():
        place = tuple(int(i) for i in np.argwhere(unequal)[0])
        shown = f"{list(place)} " if place else ""
        text = f"{shown}is {actual[place]!r:.{_SHOWN}}, expected {expected[place]!r:.{_SHOWN}}"
        _fail(where, f"{text}; {int(unequal.sum())} of {expected.size} differ")


def _alike(actual: Any, expected: Any) -> Any:
    """Where two arrays of one shape and dtype hold the same."""
    kind = expected.dtype.kind
    if kind == "c":
        return _alike(actual.real, expected.real) & _alike(actual.imag, expected.imag)
    if kind == "f":
        with np.errstate(invalid="ignore"):  # a signalling NaN says so when it is compared
            both_nan = np.isnan(actual) & np.isnan(expected)
            same_sign = np.signbit(actual) == np.signbit(expected)
            return both_nan | ((actual == expected) & same_sign)
    if kind == "O":
        pairs = zip(actual.ravel(), expected.ravel(), strict=True)
        found = [_is_same_object(a, b) for a, b in pairs]
        return np.array(found, np.bool_).reshape(expected.shape)
    return np.asarray(actual == expected)


def _is_same_object(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(b, (float, complex, np.inexact)):
        return bool(_alike(np.asarray(a)[None], np.asarray(b)[None])[0])
    if isinstance(b, np.ndarray):
        return a.shape == b.shape and a.dtype == b.dtype and bool(_alike(a, b).all())
    return a is b or bool(a == b)


def _pandas(actual: Any, expected: Any, where: str) -> None:
    pandas = require("pandas", "scio.testing.assert_equal")
    if isinstance(expected, pandas.DataFrame):
        _check(where, "columns", list(actual.columns), list(expected.columns))
        _pandas(actual.index, expected.index, f"{where} index")
        for i, name in enumerate(expected.columns):
            _pandas(actual.iloc[:, i].array, expected.iloc[:, i].array, f"{where}/{name}")
        return
    if isinstance(expected, (pandas.Index, pandas.Series)):
        _check(where, "name", actual.name, expected.name)
        _pandas(actual.array, expected.array, where)
        return
    if isinstance(expected, pandas.Categorical):
        _check(where, "ordered", actual.ordered, expected.ordered)
        _pandas(actual.categories.array, expected.categories.array, f"{where}/categories")
        _array(np.asarray(actual.codes), np.asarray(expected.codes), f"{where}/codes")
        return
    _check(where, "dtype", actual.dtype, expected.dtype)
    if isinstance(expected, pandas.api.extensions.ExtensionArray) and hasattr(expected, "_mask"):
        missing = np.asarray(expected.isna())
        _array(np.asarray(actual.isna()), missing, f"{where}/mask")
        _array(actual[~missing].to_numpy(), expected[~missing].to_numpy(), where)
        return
    _array(np.asarray(actual), np.asarray(expected), where)
