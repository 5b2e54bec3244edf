"""Results put back into an AnnData, as scanpy does it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scio._names import near_names
from scio._optional import require
from scio.errors import KeyNotFoundError, ScioWarning
from scio.pp._source import is_anndata


def make_actual(adata: Any) -> None:
    """Turn a view into an AnnData of its own before something is written into it.

    Warns
    -----
    ScioWarning
        If it was a view, since its data are copied.
    """
    if adata.is_view:
        warnings.warn(
            ScioWarning("this is a view of an AnnData; it was made an AnnData of its own (a copy)"),
            stacklevel=3,
        )
        adata._init_as_actual(adata.copy())


def require_anndata(thing: Any, function: str) -> None:
    """Raise TypeError when `thing` is no AnnData in memory."""
    if not is_anndata(thing):
        message = f"{function} writes into an AnnData, not into {type(thing).__name__}"
        raise TypeError(message)


def get_matrix(adata: Any, *, layer: str | None = None) -> Any:
    """Return X or a layer of an AnnData, as it is stored.

    Raises
    ------
    KeyNotFoundError
        If there is no such layer; near names are offered.
    ValueError
        If the AnnData has no X.
    """
    if layer is None:
        if adata.X is None:
            message = f"the AnnData has no X; layers: {', '.join(adata.layers) or 'none'}"
            raise ValueError(message)
        return adata.X
    if layer not in adata.layers:
        message = f"the AnnData has no layer {layer!r}; {near_names(layer, adata.layers)}"
        raise KeyNotFoundError(message)
    return adata.layers[layer]


def put_matrix(adata: Any, values: Any, *, layer: str | None = None) -> None:
    """Replace X or a layer; the old matrix is left as it is."""
    if layer is None:
        adata.X = values
    else:
        adata.layers[layer] = values


def with_data(matrix: Any, data: NDArray[Any]) -> Any:
    """Return a SciPy matrix of the kind of `matrix` with other values.

    `indices` and `indptr` are shared, `data` is taken as it is.

    Parameters
    ----------
    matrix : SciPy CSR or CSC
    data : ndarray, shape (nnz,)
    """
    made = type(matrix)((data, matrix.indices, matrix.indptr), shape=matrix.shape, copy=False)
    for flag in ("has_sorted_indices", "has_canonical_format"):
        known = getattr(matrix, f"_{flag}", None)
        if known is not None:
            setattr(made, flag, known)
    return made


def put_columns(frame: Any, columns: Mapping[str, NDArray[Any]]) -> None:
    """Write columns into obs or var by position; an old column of the name is replaced."""
    pandas = require("pandas", "writing columns")
    for name, values in columns.items():
        column = values
        if not isinstance(values, pandas.Categorical):
            column = np.asarray(values)
        if name in frame.columns:
            frame[name] = pandas.Series(column, index=frame.index)
        else:
            frame.insert(len(frame.columns), name, column)


def get_state(adata: Any, *, layer: str | None = None) -> dict[str, Any]:
    """Return what scio noted of a matrix: ``log1p``, ``base``, ``target_sum`` …; empty if nothing.

    ``uns["log1p"]``, as scanpy writes it, counts for X.
    """
    found = state_of(adata.uns.get("scio"), layer)
    if layer is None and "log1p" in adata.uns and "log1p" not in found:
        known = adata.uns["log1p"]
        found["log1p"] = True
        base = known.get("base") if isinstance(known, Mapping) else None
        if base is not None:
            found["base"] = float(base)
    return found


def state_of(scio: Any, layer: str | None) -> dict[str, Any]:
    """Return what ``uns["scio"]`` says of X or a layer; empty if nothing."""
    found = scio
    for key in ("state", *_state_keys(layer)):
        found = found.get(key) if isinstance(found, Mapping) else None
    return dict(found) if isinstance(found, Mapping) else {}


def put_state(adata: Any, state: Mapping[str, Any], *, layer: str | None = None) -> None:
    """Note the state of a matrix, replacing what was there.

    That of X is in ``uns["scio"]["state"]["X"]``, that of a layer in
    ``uns["scio"]["state"]["layers"][layer]``.
    """
    noted = {k: v for k, v in state.items() if v is not None}
    adata.uns["scio"] = _with(adata.uns.get("scio"), ("state", *_state_keys(layer)), noted)


def _with(mapping: Any, keys: tuple[str, ...], value: Any) -> dict[str, Any]:
    """A copy of nested mappings with another value in it."""
    copy = dict(mapping) if isinstance(mapping, Mapping) else {}
    first, *others = keys
    copy[first] = _with(copy.get(first), tuple(others), value) if others else value
    return copy


def _state_keys(layer: str | None) -> tuple[str, ...]:
    return ("X",) if layer is None else ("layers", layer)
