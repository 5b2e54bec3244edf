"""Size factors against library sizes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from scio.plot._figure import GREY, PALETTE, Table, check_positive, drawing, points
from scio.pp._source import is_anndata

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def size_factors(
    adata_or_pair: Any,
    *,
    key: str = "size_factors",
    total: str = "total_counts",
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | os.PathLike[str] | None = None,
) -> Axes:
    """Size factor of every cell against its library size, both logarithmic.

    On the line lie cells whose factor is their library size over the mean one; how far the others
    are off shows what composition does.

    Parameters
    ----------
    adata_or_pair : AnnData, or (size_factors, totals)
        Two columns of obs, or two arrays of shape (n_cells,).
    key, total : str
        Those columns: of `scio.pp.pooled_size_factors` and `scio.pp.calculate_qc_metrics`.
    ax, show, save
        As in `highly_variable_genes`.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    KeyNotFoundError
        If there is no such column.
    ValueError
        If the arrays differ in length, or no cell has both above 0.
    """
    if is_anndata(adata_or_pair):
        table = Table(adata_or_pair, "obs")
        factors = table.numbers(key, advice="; call scio.pp.pooled_size_factors first")
        totals = table.numbers(total, advice="; call scio.pp.calculate_qc_metrics first")
    else:
        factors, totals = (np.asarray(values, dtype=np.float64) for values in adata_or_pair)
    if factors.ndim != 1 or factors.shape != totals.shape:
        message = f"size factors have shape {factors.shape}, totals {totals.shape}"
        raise ValueError(message)
    is_drawn = (factors > 0) & (totals > 0) & np.isfinite(factors) & np.isfinite(totals)
    with drawing(ax, show=show, save=save, size=(4.5, 3.5)) as axes:
        check_positive(axes, totals[is_drawn], factors[is_drawn])
        points(axes, totals[is_drawn], factors[is_drawn], color=PALETTE[0])
        ends = np.array([totals[is_drawn].min(), totals[is_drawn].max()])
        axes.plot(
            ends,
            ends * (factors[is_drawn].mean() / totals[is_drawn].mean()),
            color=GREY,
            label="library size / mean",
        )
        axes.set_xlabel("library size")
        axes.set_ylabel("size factor")
        axes.legend()
        return axes
