"""Random subsets of cells or genes, the same on every machine."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from scio import _core
from scio.matrix import CSR
from scio.pp._matrix import subset_anndata, subset_matrix
from scio.pp._source import is_anndata

__all__ = ["sample", "subsample"]

_STREAM = 0x73616D706C65  # "sample": apart from the streams of the loader
_AXES = {"obs": 0, "var": 1, 0: 0, 1: 1}


def sample(
    data: Any,
    fraction: float | None = None,
    *,
    n: int | None = None,
    rng: int | np.random.Generator | None = 0,
    copy: bool = False,
    replace: bool = False,
    axis: Literal["obs", 0, "var", 1] = "obs",
) -> Any:
    """Choose cells or genes at random.

    Parameters
    ----------
    data : AnnData, CSR, SciPy sparse matrix or ndarray, shape (n_cells, n_genes)
    fraction : float, optional
        Share of the cells (genes); ``int(fraction * n_cells)`` are taken.  Above 1 only with `replace`.
    n : int, optional
        Their number instead.
    rng : int, numpy.random.Generator or None
        Seed.  A generator gives one; None takes one from the operating system.
    copy : bool
        AnnData: return a new one and leave `data` as it is.
    replace : bool
        Whether a cell may be drawn again.
    axis : {"obs", "var"}
        Cells or genes.

    Returns
    -------
    None, AnnData, or (matrix, indices)
        None: the AnnData was subset in place; the subset with `copy`; for a matrix the subset (new
        memory) and the positions taken, ndarray of shape (n,), int64, in the order drawn.

    Raises
    ------
    TypeError
        If not exactly one of `fraction` and `n` is given.
    ValueError
        If there are fewer cells than asked for (without `replace`), or a number is negative.

    Notes
    -----
    Positions are the beginning of a permutation (Fisher-Yates), or with `replace` independent draws,
    from the counter-based generator Philox4x32-10 (Salmon et al. 2011, doi:10.1145/2063384.2063405):
    they depend on seed, size and `replace` alone, not on machine or version of NumPy.  Arguments are
    those of scanpy 1.11's ``sample``, whose draws differ.

    Examples
    --------
    >>> import numpy as np, scio
    >>> counts = np.arange(12.0).reshape(6, 2)
    >>> part, rows = scio.pp.sample(counts, n=3)
    >>> part.shape, rows.dtype
    ((3, 2), dtype('int64'))
    """
    i_axis = _axis(axis)
    size = int(data.shape[i_axis])
    indices = _draw(size, _number(fraction, n, size, replace=replace), _seed(rng), replace=replace)
    if is_anndata(data):
        if getattr(data, "isbacked", False) and not copy:
            message = "sampling in place needs an AnnData in memory; this one is backed by a file"
            raise NotImplementedError(message)
        subset = subset_anndata(data, **{"obs" if i_axis == 0 else "var": indices})
        if copy:
            return subset
        data._init_as_actual(subset)
        return None
    if isinstance(data, CSR) and i_axis == 1 and np.any(np.diff(indices) <= 0):
        turned = data.T[indices]  # rows of the transpose may come in any order
        return turned.T, indices
    rows, columns = (indices, None) if i_axis == 0 else (None, indices)
    return subset_matrix(data, rows, columns), indices


def subsample(
    data: Any,
    fraction: float | None = None,
    *,
    n_obs: int | None = None,
    random_state: int = 0,
    copy: bool = False,
) -> Any:
    """Choose cells at random without repetition: `sample` under its older name.

    Parameters
    ----------
    data : AnnData, CSR, SciPy sparse matrix or ndarray, shape (n_cells, n_genes)
    fraction : float, optional
        Share of the cells, at most 1.
    n_obs : int, optional
        Their number instead.
    random_state : int
        Seed.
    copy : bool
        AnnData: return a new one.

    Returns
    -------
    None, AnnData, or (matrix, indices)
        As `sample`.

    See Also
    --------
    sample : says more.
    """
    return sample(data, fraction, n=n_obs, rng=random_state, copy=copy)


def _axis(axis: Any) -> int:
    if axis not in _AXES:
        message = f"axis is {axis!r}, expected 'obs' (0) or 'var' (1)"
        raise ValueError(message)
    return _AXES[axis]


def _seed(rng: Any) -> int:
    if isinstance(rng, np.random.Generator):
        return int(rng.integers(0, 2**63))
    if rng is None:
        return int(np.random.SeedSequence().generate_state(1, np.uint64)[0])
    if isinstance(rng, (bool, float)) or not hasattr(rng, "__index__"):
        message = f"rng is {type(rng).__name__}, expected an int, a numpy Generator or None"
        raise TypeError(message)
    seed = int(rng)
    if not 0 <= seed < 2**64:
        message = f"the seed is {seed}, expected a number from 0 to 2**64 - 1"
        raise ValueError(message)
    return seed


def _number(fraction: float | None, n: int | None, size: int, *, replace: bool) -> int:
    if (fraction is None) == (n is None):
        message = "exactly one of fraction and n says how many are drawn"
        raise TypeError(message)
    if fraction is not None:
        if not (fraction >= 0 and (replace or fraction <= 1)):
            most = "0 or more" if replace else "a number from 0 to 1 (above 1 needs replace=True)"
            message = f"fraction is {fraction}, expected {most}"
            raise ValueError(message)
        n = int(fraction * size)
    assert n is not None
    if n < 0 or (n > size and not replace) or (n > 0 and size == 0):
        message = f"{n} of {size} cannot be drawn" + ("" if replace else " without replace=True")
        raise ValueError(message)
    return int(n)


def _draw(size: int, n: int, seed: int, *, replace: bool) -> NDArray[np.int64]:
    if n == 0:
        return np.empty(0, dtype=np.int64)
    if replace:
        return _core.random_below(seed, _STREAM, size, n)
    return _core.permutation(seed, _STREAM, size)[:n].copy()
