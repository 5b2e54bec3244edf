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
    scio = adata.uns.get("scio")
    states = scio.get("state") if isinstance(scio, Mapping) else None
    state = states.get(_state_key(layer)) if isinstance(states, Mapping) else None
    found = dict(state) if isinstance(state, Mapping) else {}
    if layer is None and "log1p" in adata.uns and "log1p" not in found:
        known = adata.uns["log1p"]
        found["log1p"] = True
        base = known.get("base") if isinstance(known, Mapping) else None
        if base is not None:
            found["base"] = float(base)
    return found


def put_state(adata: Any, state: Mapping[str, Any], *, layer: str | None = None) -> None:
    """Note the state of a matrix under ``uns["scio"]["state"]``, replacing what was there."""
    scio = adata.uns.get("scio")
    scio = dict(scio) if isinstance(scio, Mapping) else {}
    states = scio.get("state")
    states = dict(states) if isinstance(states, Mapping) else {}
    states[_state_key(layer)] = {k: v for k, v in state.items() if v is not None}
    scio["state"] = states
    adata.uns["scio"] = scio


def _state_key(layer: str | None) -> str:
    return "X" if layer is None else f"layers/{layer}"
