"""Counts per cell brought to one total, and their logarithm."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from scio import _core
from scio._names import near_names
from scio.errors import KeyNotFoundError, ScioWarning
from scio.matrix import CSR
from scio.pp._anndata import get_matrix, get_state, make_actual, put_matrix, put_state
from scio.pp._matrix import (
    Rows,
    _is_base_alone,
    are_arrays_alone,
    as_rows,
    elements_sharing,
    is_sole_owner,
)
from scio.pp._source import is_anndata

__all__ = ["log1p", "normalize_total"]

Out = Literal["new", "inplace", "view"]
_OUTS = ("new", "inplace", "view")
_COMPATS = (None, "scanpy")
_FLOATS = ("float32", "float64")
_CHUNK = 1 << 20


def normalize_total(
    adata: Any,
    *,
    target_sum: float | None = None,
    exclude_highly_expressed: bool = False,
    max_fraction: float = 0.05,
    key_added: str | None = None,
    layer: str | None = None,
    inplace: bool = True,
    copy: bool = False,
    out: Out = "new",
    dtype: str | None = None,
    compat: Literal["scanpy"] | None = None,
) -> Any:
    """Scale every cell to the same total count.

    Parameters
    ----------
    adata : AnnData, CSR, SciPy sparse matrix or ndarray, shape (n_cells, n_genes)
        Counts; not changed (an AnnData gets a new matrix in their place).
    target_sum : float, optional
        Total t of every cell afterwards.  None: the median of the totals that are not 0; of an even
        number of cells the mean of the two in the middle.
    exclude_highly_expressed : bool
        Leave genes out of the totals that hold more than `max_fraction` of some cell.
    max_fraction : float, in [0, 1]
        See there.
    key_added : str, optional
        Column of obs for total / t.
    layer : str, optional
        Layer of the AnnData instead of X.
    inplace : bool
        AnnData: replace the matrix.  False: return a dict and change nothing.
    copy : bool
        AnnData: return a changed copy.
    out : {"new", "inplace", "view"}
        "new": new values; "inplace": write into the old ones, refused when something else uses them;
        "view": new values on the ``indices`` and ``indptr`` of the old matrix, which must then not be
        changed in place.
    dtype : {"float32", "float64"}, optional
        Of the result.  None: float64 for float64, else float32.
    compat : {"scanpy"}, optional
        Divide by the total in single precision, as scanpy does (at most 2 ulp away).

    Returns
    -------
    None, AnnData, matrix or dict
        None (the AnnData was changed); the changed copy with `copy`; for a matrix one of its kind (CSR
        for CSC and other sparse formats); with ``inplace=False`` a dict: ``X`` the matrix,
        ``norm_factor`` total / t, float64 of shape (n_cells,), and with `exclude_highly_expressed`
        ``highly_expressed``, bool of shape (n_genes,).

    Raises
    ------
    ValueError
        If a value is negative, NaN or infinite (cell and gene are named), all totals are 0 and
        `target_sum` is None, an argument has a value that is not allowed, or ``out="inplace"`` cannot
        be done.
    KeyNotFoundError
        If there is no such layer.
    CorruptFileError
        If the arrays of a sparse matrix break a rule.

    Warns
    -----
    ScioWarning
        For cells of total 0, which stay as they are; for values that are no integers; for a matrix
        that was normalised or logged before.

    Notes
    -----
    y = fl32(double(x) * (t / s)), s the exact total of the cell: quotient and product in double, one
    rounding.  Duplicate entries are summed first.  The same bits for every storage, type and number of
    threads, and in the loader (`PreprocessingPipeline`).
    With excluded genes the whole row is scaled by t / s', s' the total over the other genes.

    **Source**: library-size normalisation as in scanpy 1.11 ``normalize_total`` and Seurat's
    LogNormalize (t = 1e4, then `log1p`); excluded genes after Weinreb et al. 2017
    (doi:10.1093/bioinformatics/btx792).

    Examples
    --------
    >>> import numpy as np, scio
    >>> counts = np.array([[3, 3, 3, 6, 6], [1, 1, 1, 2, 2], [1, 22, 1, 2, 2]])
    >>> scio.pp.normalize_total(
    ...     counts, target_sum=1, exclude_highly_expressed=True, max_fraction=0.2
    ... )
    array([[ 0.5,  0.5,  0.5,  1. ,  1. ],
           [ 0.5,  0.5,  0.5,  1. ,  1. ],
           [ 0.5, 11. ,  0.5,  1. ,  1. ]], dtype=float32)
    """
    _check_target(target_sum)
    if not 0 <= max_fraction <= 1:
        message = f"max_fraction is {max_fraction}, expected a number from 0 to 1"
        raise ValueError(message)
    _check_choices(out, dtype, compat)
    if copy and not inplace:
        message = "copy=True and inplace=False exclude each other"
        raise ValueError(message)
    fraction = max_fraction if exclude_highly_expressed else None
    if isinstance(adata, (str, os.PathLike)):
        _refuse_path(adata, "normalize_total")
    if not is_anndata(adata):
        _refuse_for_matrix(adata, layer=layer, key_added=key_added)
        owner = _Owner(adata, None)
        made = _normalize(as_rows(adata), target_sum, fraction, out, dtype, compat, owner)
        return made["X"] if inplace else made
    if copy:
        adata = adata.copy()
    if inplace:
        make_actual(adata)
    owner = _Owner(adata, layer)
    rows = as_rows(get_matrix(adata, layer=layer), owner.name)
    state = get_state(adata, layer=layer)
    made = _normalize(
        rows, target_sum, fraction, out if inplace else "new", dtype, compat, owner, state
    )
    if not inplace:
        return made
    if key_added is not None:
        adata.obs[key_added] = made["norm_factor"]
    put_matrix(adata, made["X"], layer=layer)
    put_state(adata, {**state, "target_sum": made["target_sum"]}, layer=layer)
    return adata if copy else None


def log1p(
    data: Any,
    *,
    base: float | None = None,
    copy: bool = False,
    chunked: bool | None = None,
    chunk_size: int | None = None,
    layer: str | None = None,
    obsm: str | None = None,
    out: Out = "new",
    dtype: str | None = None,
    compat: Literal["scanpy"] | None = None,
) -> Any:
    """Take the logarithm of 1 + x of every value.

    Parameters
    ----------
    data : AnnData, CSR, SciPy sparse matrix or ndarray, shape (n_cells, n_genes)
        Values above -1; not changed (an AnnData gets a new matrix in their place).
    base : float, optional
        Base of the logarithm, above 0 and not 1.  None: e.
    copy : bool
        AnnData: return a changed copy.
    chunked, chunk_size : optional
        Accepted for scanpy's sake, and without effect: no more memory than the result is used.
    layer, obsm : str, optional
        Layer, or element of obsm, instead of X.
    out, dtype
        As for `normalize_total`.
    compat : {"scanpy"}, optional
        float64 for integers.

    Returns
    -------
    None, AnnData or matrix
        None (the AnnData was changed); the changed copy with `copy`; for a matrix one of its kind.

    Raises
    ------
    ValueError
        If a value is -1 or less, NaN or infinite: row and column are named.  If an argument has a
        value that is not allowed.
    KeyNotFoundError
        If there is no such layer.

    Warns
    -----
    ScioWarning
        If the same matrix was logged before.

    Notes
    -----
    ln(1 + x) within 1 ulp of the exact value in the type of the result: float32 within 0.514 ulp
    (all 2^32 values were tried), float64 within 0.8 ulp.  With a base, ln(1 + x) / ln(base) in double,
    rounded once.  Own routines, since those of libm differ between versions and machines.
    The state is noted in ``uns["scio"]["state"]``, for X also in ``uns["log1p"]``.

    **Source**: argument reduction and the series of atanh, see ``csrc/kernels/log1p_template.h`` and
    ``csrc/preprocess/log1p_f64.c``; arguments as scanpy 1.11 ``log1p``.

    Examples
    --------
    >>> import numpy as np, scio
    >>> scio.pp.log1p(np.array([[0, 1], [3, 7]]), base=2)
    array([[0., 1.],
           [2., 3.]], dtype=float32)
    """
    del chunked, chunk_size
    _check_choices(out, dtype, compat)
    if base is not None and not (base > 0 and base != 1 and math.isfinite(base)):
        message = f"base is {base}, expected a number above 0 that is not 1, or None for e"
        raise ValueError(message)
    if layer is not None and obsm is not None:
        message = f"layer={layer!r} and obsm={obsm!r} exclude each other"
        raise ValueError(message)
    if isinstance(data, (str, os.PathLike)):
        _refuse_path(data, "log1p")
    if not is_anndata(data):
        _refuse_for_matrix(data, layer=layer, obsm=obsm)
        owner = _Owner(data, None)
        return _log(as_rows(data, by_rows=False), base, out, dtype, compat, owner)
    adata = data.copy() if copy else data
    make_actual(adata)
    if obsm is not None:
        owner = _Owner(adata, None, obsm)
        rows = as_rows(owner.matrix(), owner.name, by_rows=False)
        adata.obsm[obsm] = _log(rows, base, out, dtype, compat, owner)
        return adata if copy else None
    owner = _Owner(adata, layer)
    state = get_state(adata, layer=layer)
    if state.get("log1p"):
        _warn(f"{owner.name} was logged before; the logarithm is taken a second time")
    rows = as_rows(get_matrix(adata, layer=layer), owner.name, by_rows=False)
    put_matrix(adata, _log(rows, base, out, dtype, compat, owner), layer=layer)
    put_state(adata, {**state, "log1p": True, "base": base}, layer=layer)
    if layer is None:
        adata.uns["log1p"] = {"base": base}
    return adata if copy else None


# --- the two steps


def _normalize(
    rows: Rows,
    target_sum: float | None,
    max_fraction: float | None,
    out: str,
    dtype: str | None,
    compat: str | None,
    owner: _Owner,
    state: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    totals, _, facts = _core.row_totals(*rows.arrays, shape=rows.shape)
    check_counts(rows, facts, owner, state)
    result_dtype = _result_dtype(rows, dtype)
    if facts["has_duplicates"]:
        rows = rows.summed()
    high = None
    if max_fraction is not None:
        high = _core.high_columns(*rows.arrays, totals, max_fraction, shape=rows.shape)
        totals, _, _ = _core.row_totals(*rows.arrays, shape=rows.shape, left_out=high)
    target = median_of_totals(totals, rows.name) if target_sum is None else float(target_sum)
    n_zero = int(np.count_nonzero(totals == 0))
    if n_zero:
        first = int(np.flatnonzero(totals == 0)[0])
        _warn(
            f"{rows.name}: {n_zero:,} cells have a total of 0 and stay as they are; the first is "
            f"{owner.row(first)}"
        )
    place = owner.room(rows, out, result_dtype)
    if compat == "scanpy":
        values = _divide(rows, totals, target, result_dtype)
        if place is not None:
            place[...] = values
            values = place
    else:
        values = _core.normalize_log1p(
            rows.data, rows.indptr, totals, target, False, dtype=result_dtype, out=place
        )
    made: dict[str, Any] = {
        "X": owner.result(rows, values, out),
        "norm_factor": totals / target,
        "target_sum": target,
    }
    if high is not None:
        made["highly_expressed"] = high
    return made


def _log(
    rows: Rows,
    base: float | None,
    out: str,
    dtype: str | None,
    compat: str | None,
    owner: _Owner,
) -> Any:
    is_integer = rows.data.dtype.kind in "biu"
    if compat == "scanpy" and dtype is None and is_integer:
        dtype = "float64"
    result_dtype = _result_dtype(rows, dtype)
    if rows.indices is not None:
        is_sorted, has_duplicates = _core.csr_validate(*_sparse(rows), shape=rows.shape)
        del is_sorted
        if has_duplicates:
            rows = rows.summed()
    place = owner.room(rows, out, result_dtype)
    if place is not None:
        _check_above_minus_one(rows, owner)  # before anything is overwritten
    try:
        values = _core.normalize_log1p(
            rows.data,
            rows.indptr,
            None,
            1.0,
            True,
            base=0.0 if base is None else float(base),
            dtype=result_dtype,
            out=place,
        )
    except ValueError:
        _check_above_minus_one(rows, owner)
        raise
    return owner.result(rows, values, out)


def _sparse(rows: Rows) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]]:
    assert rows.indices is not None
    assert rows.indptr is not None
    return rows.data, rows.indices, rows.indptr


def median_of_totals(totals: NDArray[np.float64], name: str) -> float:
    """Median of the totals that are not 0, the default target of normalisation.

    Raises
    ------
    ValueError
        If all are 0.
    """
    ordered = np.sort(totals[totals != 0])
    if len(ordered) == 0:
        message = f"{name}: all {len(totals):,} cells have a total of 0; give target_sum"
        raise ValueError(message)
    half = len(ordered) // 2
    if len(ordered) % 2:
        return float(ordered[half])
    return float((ordered[half - 1] + ordered[half]) / 2)


def _divide(
    rows: Rows, totals: NDArray[np.float64], target: float, dtype: str
) -> NDArray[np.floating[Any]]:
    """What scanpy computes: f = fl(fl(s) / fl(t)), y = fl(x / f), 0 taken for 1."""
    kind = np.dtype(dtype)
    factors = totals.astype(kind) / kind.type(target)
    factors[factors == 0] = 1
    divided: NDArray[np.floating[Any]] = rows.data.astype(kind)
    divided /= factors[:, None] if rows.indptr is None else np.repeat(factors, np.diff(rows.indptr))
    return divided


# --- checks


def check_counts(
    rows: Rows, facts: Mapping[str, Any], owner: _Owner, state: Mapping[str, Any] | None = None
) -> None:
    """Raise for values that no count has, and warn about those that may not be counts.

    Parameters
    ----------
    rows : Rows
    facts : mapping
        Of ``_core.row_totals``.
    owner : object
        Names cells and genes.
    state : mapping, optional
        What was noted of the matrix.

    Raises
    ------
    ValueError
        If a value is NaN, infinite or negative.
    """
    check_finite(rows, facts, owner)
    if facts["first_negative"] >= 0:
        place, value = _value_at(rows, facts["first_negative"])
        message = f"{rows.name}: {owner.entry(*place)} is {value}; counts are not negative"
        raise ValueError(message)
    if state and (state.get("log1p") or state.get("target_sum") is not None):
        done = "logged" if state.get("log1p") else f"normalised to {state['target_sum']:g}"
        _warn(f"{rows.name} was {done} before; counts are expected here")
    elif facts["first_fraction"] >= 0:
        place, value = _value_at(rows, facts["first_fraction"])
        share = facts["n_fractions"] / max(1, rows.data.size)
        _warn(
            f"{rows.name}: counts are expected, but {share:.2%} of the stored values are no integers "
            f"(the first: {owner.entry(*place)} is {value}; the maximum is {facts['maximum']:g})"
        )


def check_finite(rows: Rows, facts: Mapping[str, Any], owner: _Owner) -> None:
    """Raise ValueError naming cell and gene when a value is NaN or infinite."""
    if facts["first_infinite"] >= 0:
        place, value = _value_at(rows, facts["first_infinite"])
        message = f"{rows.name}: {owner.entry(*place)} is {value}, expected a finite number"
        raise ValueError(message)


def _check_above_minus_one(rows: Rows, owner: _Owner) -> None:
    flat = rows.data.reshape(-1)
    for start in range(0, len(flat), _CHUNK):
        part = flat[start : start + _CHUNK]
        bad = np.flatnonzero(~((part > -1) & np.isfinite(part)))
        if len(bad):
            place, value = _value_at(rows, start + int(bad[0]))
            message = (
                f"{rows.name}: {owner.entry(*place)} is {value}; log1p takes finite values above -1"
            )
            raise ValueError(message)


def _value_at(rows: Rows, position: int) -> tuple[tuple[int, int], Any]:
    return rows.place(position), rows.data.reshape(-1)[position].item()


def _check_target(target_sum: float | None) -> None:
    if target_sum is not None and not (target_sum > 0 and math.isfinite(target_sum)):
        message = f"target_sum is {target_sum}, expected a number above 0, or None for the median"
        raise ValueError(message)


def _check_choices(out: str, dtype: str | None, compat: str | None) -> None:
    if out not in _OUTS:
        message = f"out is {out!r}, expected one of {', '.join(map(repr, _OUTS))}"
        raise ValueError(message)
    if dtype is not None and str(np.dtype(dtype)) not in _FLOATS:
        message = f"dtype is {dtype}, expected float32 or float64"
        raise ValueError(message)
    if compat not in _COMPATS:
        message = f"compat is {compat!r}, expected None or 'scanpy'"
        raise ValueError(message)


def _refuse_path(path: Any, function: str) -> None:
    message = (
        f"{function} changes a matrix in memory, and {os.fspath(path)!r} is a path; "
        "scio.pp.recipe(path, out=…) writes a normalised file"
    )
    raise TypeError(message)


def _refuse_for_matrix(matrix: Any, **arguments: Any) -> None:
    for name, value in arguments.items():
        if value is not None:
            message = f"{name}={value!r} needs an AnnData, not {type(matrix).__name__}"
            raise ValueError(message)


def _result_dtype(rows: Rows, dtype: str | None) -> str:
    if dtype is not None:
        return str(np.dtype(dtype))
    return "float64" if rows.data.dtype == np.float64 else "float32"


def _warn(message: str) -> None:
    warnings.warn(ScioWarning(message), stacklevel=4)


# --- whose matrix it is


class _Owner:
    """Where a matrix comes from: names for messages, and what a result may share with it.

    Must be made before anything else refers to the matrix (references are counted).
    """

    def __init__(self, holder: Any, layer: str | None, obsm: str | None = None) -> None:
        self.holder = holder
        self.is_anndata = is_anndata(holder)
        self.layer, self.obsm = layer, obsm
        place = "X" if layer is None else f"layers[{layer!r}]"
        place = place if obsm is None else f"obsm[{obsm!r}]"
        self.name = f"AnnData: {place}" if self.is_anndata else "matrix in memory"
        self._is_alone = self._look()

    def matrix(self) -> Any:
        if not self.is_anndata:
            return self.holder
        if self.obsm is not None:
            return self.holder.obsm[self.obsm]
        return get_matrix(self.holder, layer=self.layer)

    def _look(self) -> bool:
        if not self.is_anndata:
            matrix = self.holder
            if isinstance(matrix, np.ndarray):
                return _is_base_alone(matrix)
            return isinstance(matrix, CSR) or (
                hasattr(matrix, "indptr") and are_arrays_alone(matrix)
            )
        if self.obsm is not None:
            if self.obsm not in self.holder.obsm:
                near = near_names(self.obsm, self.holder.obsm)
                message = f"obsm has no element {self.obsm!r}; {near}"
                raise KeyNotFoundError(message)
            return is_sole_owner(self.holder.obsm, self.obsm)
        if self.layer is None:
            matrix = self.holder.X
            known = hasattr(matrix, "indptr") or isinstance(matrix, np.ndarray)
            del matrix
            return known and is_sole_owner(self.holder)
        if self.layer not in self.holder.layers:
            get_matrix(self.holder, layer=self.layer)  # raises
        return is_sole_owner(self.holder.layers, self.layer)

    def _sharers(self) -> list[str]:
        return elements_sharing(self.holder, self.matrix()) if self.is_anndata else []

    def room(self, rows: Rows, out: str, dtype: str) -> NDArray[Any] | None:
        """Where the result is written; None is new memory.

        Raises
        ------
        ValueError
            If it shall be in place and cannot.
        """
        if out != "inplace":
            return None
        stored = rows.matrix if isinstance(rows.matrix, np.ndarray) else rows.matrix.data
        if str(rows.data.dtype) != dtype or not np.may_share_memory(rows.data, stored):
            message = (
                f"{rows.name} cannot be changed in place: its {rows.matrix.dtype} values are not the "
                f"{dtype} of the result, in order of the rows and each once"
            )
            raise ValueError(message)
        sharers = self._sharers()
        if sharers or not self._is_alone:
            who = ", ".join(sharers) or "something outside"
            message = f"{rows.name} cannot be changed in place: {who} shares its memory"
            raise ValueError(message)
        return rows.data

    def result(self, rows: Rows, values: NDArray[Any], out: str) -> Any:
        """Return a matrix of the kind of the old one over the values."""
        if out == "inplace":
            return self.matrix()
        may_share = out == "view" or (self.is_anndata and self._is_alone and not self._sharers())
        return rows.wrap(values, share=may_share)

    def row(self, row: int) -> str:
        """Name a cell."""
        if not self.is_anndata:
            return f"row {row}"
        return f"{str(self.holder.obs_names[row])!r} (row {row})"

    def entry(self, row: int, column: int) -> str:
        """Name a cell and a gene."""
        if not self.is_anndata:
            return f"the value in row {row}, column {column}"
        if self.obsm is not None:
            return f"the value of cell {self.row(row)}, column {column}"
        gene = str(self.holder.var_names[column])
        return f"the value of cell {self.row(row)}, gene {gene!r} (column {column})"
