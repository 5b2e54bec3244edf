"""Highly variable genes: what was chosen, and from what."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from scio._names import near_names
from scio.errors import KeyNotFoundError
from scio.plot._figure import GREY, PALETTE, Table, check_positive, drawing, points

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# column -> label; what the flavour ranks genes by stands before what it is made from
_LABELS = {
    "dispersions_norm": "normalised dispersion",
    "variances_norm": "standardised variance",
    "residual_variances": "variance of Pearson residuals",
    "prob_zero_enrichment": "enrichment of zeros",
    "dispersions": "dispersion",
    "variances": "variance",
}


def highly_variable_genes(
    adata_or_table: Any,
    *,
    column: str | None = None,
    log: bool = False,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | os.PathLike[str] | None = None,
) -> Axes:
    """Mean of every gene against its variability, the chosen genes marked.

    Parameters
    ----------
    adata_or_table : AnnData, DataFrame or mapping of str to array-like
        After `scio.pp.highly_variable_genes`: ``var``, or the table it returned, with
        ``highly_variable``, ``means`` and a column of `column`.
    column : str, optional
        What is drawn upwards.  None: the first there is of ``dispersions_norm``,
        ``variances_norm``, ``residual_variances``, ``prob_zero_enrichment``, ``dispersions``,
        ``variances``.
    log : bool
        Logarithmic axes; genes that are not above 0 in both have no place there.
    ax : matplotlib Axes, optional
        Where to draw; None makes a figure.
    show : bool, optional
        Open a window and wait.  None: shown when pyplot is interactive, as in notebooks.
    save : path, optional
        A file; its ending is the format.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    KeyNotFoundError
        If a column is missing.
    ValueError
        If `log` and no gene is above 0.
    """
    table = Table(adata_or_table, "var")
    advice = "; call scio.pp.highly_variable_genes first"
    chosen = np.asarray(table.column("highly_variable", advice=advice)).astype(bool)
    means = table.numbers("means", advice=advice)
    column = column or next((name for name in _LABELS if name in table.names), None)
    if column is None:
        message = f"no column to draw: expected one of {', '.join(_LABELS)}; " + near_names(
            "dispersions", table.names
        )
        raise KeyNotFoundError(message)
    values = table.numbers(column, advice=advice)
    is_drawn = np.isfinite(means) & np.isfinite(values)
    with drawing(ax, show=show, save=save, size=(4.5, 3.5)) as axes:
        if log:
            is_drawn &= (means > 0) & (values > 0)
            check_positive(axes, means[is_drawn], values[is_drawn])
        for name, mask, colour in (
            ("other genes", ~chosen, GREY),
            ("highly variable genes", chosen, PALETTE[0]),
        ):
            shown = mask & is_drawn
            label = f"{name} ({np.count_nonzero(mask):,})"
            points(axes, means[shown], values[shown], color=colour, label=label)
        axes.set_xlabel("mean")
        axes.set_ylabel(_LABELS.get(column, column))
        axes.legend(loc="best", markerscale=2)
        return axes
