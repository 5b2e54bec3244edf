"""Genes brought to mean 0 and standard deviation 1."""

from __future__ import annotations

import math
import os
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scio import _core
from scio._names import near_names
from scio.errors import KeyNotFoundError, ScioWarning
from scio.pp._anndata import get_state, make_actual, put_matrix, put_state
from scio.pp._matrix import Rows, as_rows
from scio.pp._source import is_anndata
from scio.pp.normalize import (
    _check_choices,
    _Owner,
    _refuse_for_matrix,
    _refuse_path,
    _result_dtype,
    check_finite,
)

__all__ = ["ScaleParams", "scale", "scale_params"]

_GIB = 2**30


@dataclass(frozen=True, slots=True)
class ScaleParams:
    """What brings genes to mean 0 and standard deviation 1, to be applied batch by batch.

    Attributes
    ----------
    mean : ndarray, shape (n_genes,), float64
    inverse_std : ndarray, shape (n_genes,), float64
        1 / standard deviation; 1 for a constant gene.
    max_value : float or None
        Limit on both sides.
    """

    mean: NDArray[np.float64]
    inverse_std: NDArray[np.float64]
    max_value: float | None = None

    def __call__(self, expression: Any) -> Any:
        """Scale a dense block, shape (…, n_genes), of NumPy or torch; new memory, same type.

        Computed as (x - mean) * inverse_std in the type of the block: within some units of the last
        place of `scale`, which divides in double.
        """
        if isinstance(expression, np.ndarray):
            kind = expression.dtype if expression.dtype.kind == "f" else np.dtype(np.float32)
            mean, inverse = self.mean.astype(kind), self.inverse_std.astype(kind)
            scaled = (expression.astype(kind) - mean) * inverse
            return (
                scaled if self.max_value is None else scaled.clip(-self.max_value, self.max_value)
            )
        mean = expression.new_tensor(self.mean)
        scaled = (expression - mean) * expression.new_tensor(self.inverse_std)
        return scaled if self.max_value is None else scaled.clamp(-self.max_value, self.max_value)


def scale(
    data: Any,
    *,
    zero_center: bool = True,
    max_value: float | None = None,
    copy: bool = False,
    layer: str | None = None,
    obsm: str | None = None,
    mask_obs: NDArray[np.bool_] | str | None = None,
    dtype: str | None = None,
) -> Any:
    """Shift and scale every gene to mean 0 and standard deviation 1.

    Parameters
    ----------
    data : AnnData, CSR, SciPy sparse matrix or ndarray, shape (n_cells, n_genes)
        Not changed (an AnnData gets a new matrix in its place).
    zero_center : bool
        Subtract the mean.  A sparse matrix becomes dense then; False only divides and keeps it sparse.
    max_value : float, optional
        Values above become it; with `zero_center` values below its negative become that.
    copy : bool
        AnnData: return a changed copy.
    layer, obsm : str, optional
        Layer, or element of obsm, instead of X.
    mask_obs : ndarray of bool, shape (n_cells,), or str, optional
        Cells (or a column of obs that says which) from which mean and deviation are taken, and which
        are scaled; the others stay as they are.
    dtype : {"float32", "float64"}, optional
        Of the result.  None: float64 for float64, else float32.

    Returns
    -------
    None, AnnData or matrix
        None (the AnnData was changed); the changed copy with `copy`; for a matrix one of its kind, or
        an ndarray where a sparse one was centred.
        An AnnData gets ``var["mean"]`` and ``var["std"]`` (float64, 1 where a gene is constant), or
        ``"mean of M"`` and ``"std of M"`` for ``mask_obs="M"``, ``"mean with mask"`` for an array.

    Raises
    ------
    ValueError
        If a value is NaN or infinite, or an argument has a value that is not allowed.
    KeyNotFoundError
        If there is no such layer, element or column.
    MemoryError
        If the dense result is larger than the memory that is free.

    Warns
    -----
    ScioWarning
        When a sparse matrix becomes dense; names the size.

    Notes
    -----
    y = (x - mean) / std in double, rounded once; the standard deviation has n - 1 in the denominator
    and is exact for integers, so that of a constant gene is 0 (and taken for 1), never a remnant of
    rounding.  The same bits for every storage, type and number of threads.

    **Source**: scanpy 1.11 ``scale``; mean and variance as `gene_stats`.  Seurat's ScaleData clips
    the upper side only, and without centring divides by the root mean square.

    Examples
    --------
    >>> import numpy as np, scio
    >>> scio.pp.scale(np.array([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0]]))
    array([[-1.,  0.],
           [ 0.,  0.],
           [ 1.,  0.]])
    """
    _check_choices("new", dtype, None)
    _check_max(max_value)
    if layer is not None and obsm is not None:
        message = f"layer={layer!r} and obsm={obsm!r} exclude each other"
        raise ValueError(message)
    if isinstance(data, (str, os.PathLike)):
        _refuse_path(data, "scale")
    if not is_anndata(data):
        _refuse_for_matrix(data, layer=layer, obsm=obsm)
        rows = as_rows(data)
        mask = _mask_of(mask_obs, rows, None)
        return _scale(rows, zero_center, max_value, mask, dtype, _Owner(data, None))[0]
    adata = data.copy() if copy else data
    make_actual(adata)
    owner = _Owner(adata, layer, obsm)
    rows = as_rows(owner.matrix(), owner.name)
    mask = _mask_of(mask_obs, rows, adata)
    scaled, mean, std = _scale(rows, zero_center, max_value, mask, dtype, owner)
    if obsm is not None:
        adata.obsm[obsm] = scaled
        return adata if copy else None
    suffix = (
        "" if mask is None else f" of {mask_obs}" if isinstance(mask_obs, str) else " with mask"
    )
    adata.var[f"mean{suffix}"] = mean
    adata.var[f"std{suffix}"] = std
    put_matrix(adata, scaled, layer=layer)
    state = get_state(adata, layer=layer)
    put_state(adata, {**state, "scaled": True, "max_value": max_value}, layer=layer)
    return adata if copy else None


def scale_params(
    data: Any,
    *,
    max_value: float | None = None,
    layer: str | None = None,
    mask_obs: NDArray[np.bool_] | str | None = None,
) -> ScaleParams:
    """Learn mean and standard deviation of every gene, to scale batches instead of the matrix.

    Parameters
    ----------
    data : AnnData, CSR, SciPy sparse matrix, ndarray, or path / handle of `scio.open`
        Shape (n_cells, n_genes).  A file is streamed.
    max_value, layer, mask_obs
        As for `scale`.

    Returns
    -------
    ScaleParams
        A callable: ``params(batch)``.

    Raises
    ------
    ValueError, KeyNotFoundError
        As for `scale`.

    Examples
    --------
    >>> import numpy as np, scio
    >>> params = scio.pp.scale_params(np.array([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0]]))
    >>> params(np.float32([[3, 5]]))
    array([[1., 0.]], dtype=float32)
    """
    _check_max(max_value)
    mean, std = _moments(data, mask_obs, layer)
    return ScaleParams(mean, 1.0 / std, max_value)


def _scale(
    rows: Rows,
    zero_center: bool,
    max_value: float | None,
    mask: NDArray[np.bool_] | None,
    dtype: str | None,
    owner: _Owner,
) -> tuple[Any, NDArray[np.float64], NDArray[np.float64]]:
    result_dtype = _result_dtype(rows, dtype)
    _, _, facts = _core.row_totals(*rows.arrays, shape=rows.shape)
    check_finite(rows, facts, owner)
    if facts["has_duplicates"]:
        rows = rows.summed()
    if zero_center and rows.is_sparse:
        _check_dense(rows, result_dtype)
    mean, std = _moments(rows.matrix, mask, None)
    values = _core.scale_values(
        *rows.arrays,
        mean if zero_center else None,
        std,
        shape=rows.shape,
        rows=mask,
        max_value=math.inf if max_value is None else float(max_value),
        dtype=result_dtype,
    )
    if zero_center and rows.is_sparse:
        return values, mean, std
    return rows.wrap(values, share=False), mean, std


def _moments(
    source: Any, mask: NDArray[np.bool_] | str | None, layer: str | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation (0 taken for 1) of every gene over the masked cells."""
    from scio.pp._source import open_source
    from scio.pp.stats import gene_stats

    opened = open_source(source, layer=layer)
    if mask is None:
        stats = gene_stats(opened, scaled=False)
        mean, variance = stats.means(pooled=True), stats.variances(pooled=True)
    else:
        flags = _flags(mask, opened.n_obs, opened.obs_column if isinstance(mask, str) else None)
        stats = gene_stats(opened, batch_key=np.where(flags, "in", "out"), scaled=False)
        i_batch = list(stats.batches).index("in")
        mean, variance = stats.means()[i_batch], stats.variances()[i_batch]
    std = np.sqrt(variance)  # IEEE: the same everywhere
    std[std == 0] = 1.0
    return np.ascontiguousarray(mean), np.ascontiguousarray(std)


def _mask_of(mask: Any, rows: Rows, adata: Any) -> NDArray[np.bool_] | None:
    if mask is None:
        return None
    if not isinstance(mask, str):
        return _flags(mask, rows.shape[0], None)
    if adata is None:
        message = f"mask_obs={mask!r} needs an AnnData, not {type(rows.matrix).__name__}"
        raise ValueError(message)
    if mask not in adata.obs:
        message = f"obs has no column {mask!r}; {near_names(mask, map(str, adata.obs.columns))}"
        raise KeyNotFoundError(message)
    return _flags(adata.obs[mask].to_numpy(), rows.shape[0], None)


def _flags(mask: Any, n_obs: int, column: Any) -> NDArray[np.bool_]:
    if column is not None:
        values = column(mask)
        if isinstance(values, tuple):
            codes, categories = values
            values = np.array([c == "True" for c in categories])[codes]
        mask = values
    flags = np.ascontiguousarray(mask)
    if flags.dtype != np.bool_ or flags.shape != (n_obs,):
        message = f"mask_obs is {flags.dtype} of shape {flags.shape}, expected bool of ({n_obs},)"
        raise ValueError(message)
    if not flags.any():
        message = "mask_obs leaves no cell"
        raise ValueError(message)
    return flags


def _check_max(max_value: float | None) -> None:
    if max_value is not None and not max_value > 0:
        message = f"max_value is {max_value}, expected a number above 0, or None"
        raise ValueError(message)


def _check_dense(rows: Rows, dtype: str) -> None:
    n_rows, n_cols = rows.shape
    nbytes = n_rows * n_cols * np.dtype(dtype).itemsize
    size = f"{n_rows:,} x {n_cols:,} {dtype}, {nbytes / _GIB:.2f} GiB"
    free = _free_memory()
    if free is not None and nbytes > free:
        message = (
            f"{rows.name}: centring makes it dense ({size}), and {free / _GIB:.2f} GiB are free; use "
            "zero_center=False, fewer genes, or scale_params(), which scales batch by batch"
        )
        raise MemoryError(message)
    warnings.warn(
        ScioWarning(f"{rows.name}: centring makes a sparse matrix dense: {size}"), stacklevel=4
    )


def _free_memory() -> int | None:
    """Bytes that can be had without swapping, as the kernel says; None where it does not."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        return None
    return None
