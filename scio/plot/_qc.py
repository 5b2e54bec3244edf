"""Quality control of cells: distributions of one number, and two numbers against each other."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scio.errors import KeyNotFoundError
from scio.plot._figure import GREY, PALETTE, Table, check_positive, drawing, points

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ADVICE = "; scio.pp.calculate_qc_metrics makes the usual ones"


def qc_violin(
    adata_or_table: Any,
    key: str = "total_counts",
    *,
    groupby: str | None = None,
    log: bool = False,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | os.PathLike[str] | None = None,
) -> Axes:
    """Distribution of a number of every cell, by group.

    A violin shows the density, the bar the middle half of the cells, the dot their median.

    Parameters
    ----------
    adata_or_table : AnnData, DataFrame or mapping of str to array-like
        ``obs``, or a table like it.
    key : str
        Column of numbers; cells without a number (NaN) are left out.
    groupby : str, optional
        Column of labels: one violin each.
    log : bool
        Show log10(1 + value).
    ax, show, save
        As in `highly_variable_genes`.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    KeyNotFoundError
        If there is no such column.
    TypeError
        If it holds no numbers.
    ValueError
        If no cell has a number, or `log` and one is below 0.
    """
    table = Table(adata_or_table, "obs")
    values = table.numbers(key, advice=_ADVICE)
    known = np.isfinite(values)
    if not known.any():
        message = f"no cell has a number in column {key!r}"
        raise ValueError(message)
    if log:
        if values[known].min() < 0:
            message = f"column {key!r} holds {values[known].min():g}, log=True needs 0 or more"
            raise ValueError(message)
        values = np.log10(1 + values)
    groups = [("", np.ones(len(values), dtype=np.bool_))]
    if groupby is not None:
        groups = [(name, mask) for name, mask in table.groups(groupby) if (mask & known).any()]
    with drawing(ax, show=show, save=save, size=(1.6 + 0.7 * len(groups), 3.5)) as axes:
        for i, (_, mask) in enumerate(groups):
            _draw_violin(axes, i, values[mask & known], PALETTE[i % len(PALETTE)])
        axes.set_xticks(range(len(groups)), [name for name, _ in groups])
        axes.set_xlim(-0.6, len(groups) - 0.4)
        axes.set_xlabel(groupby or "")
        axes.set_ylabel(f"log10(1 + {key})" if log else key)
        return axes


def _draw_violin(axes: Axes, place: int, values: NDArray[np.float64], colour: str) -> None:
    if len(values) > 1:  # one value has no density
        bodies: Any = axes.violinplot(values, positions=[place], widths=0.8, showextrema=False)
        for body in bodies["bodies"]:
            body.set(facecolor=colour, edgecolor="none", alpha=0.6)
    low, middle, high = np.percentile(values, [25, 50, 75])
    axes.vlines(place, low, high, color="black", linewidth=3)
    axes.plot(place, middle, "o", color="white", markersize=3, zorder=4)


def qc_scatter(
    adata_or_table: Any,
    x: str = "total_counts",
    y: str = "n_genes_by_counts",
    *,
    color: str | None = None,
    log: bool = False,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | os.PathLike[str] | None = None,
) -> Axes:
    """Two numbers of every cell against each other.

    Parameters
    ----------
    adata_or_table : AnnData, DataFrame or mapping of str to array-like
        ``obs``, or a table like it.
    x, y : str
        Columns of numbers.
    color : str, optional
        A third column: numbers get a colour bar, labels a legend.
    log : bool
        Logarithmic axes; cells that are not above 0 in both have no place there.
    ax, show, save
        As in `highly_variable_genes`.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    KeyNotFoundError
        If there is no such column.
    TypeError
        If `x` or `y` holds no numbers.
    ValueError
        If `color` has more labels than the eight colours, or `log` and no cell is above 0.
    """
    table = Table(adata_or_table, "obs")
    across, up = table.numbers(x, advice=_ADVICE), table.numbers(y, advice=_ADVICE)
    with drawing(ax, show=show, save=save, size=(4.5, 3.5)) as axes:
        is_drawn = np.isfinite(across) & np.isfinite(up)
        if log:
            is_drawn &= (across > 0) & (up > 0)
            check_positive(axes, across[is_drawn], up[is_drawn])
        if color is None:
            points(axes, across[is_drawn], up[is_drawn], color=PALETTE[0])
        else:
            _draw_coloured(axes, table, color, across, up, is_drawn)
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        return axes


def _draw_coloured(
    axes: Axes,
    table: Table,
    color: str,
    across: NDArray[np.float64],
    up: NDArray[np.float64],
    is_drawn: NDArray[np.bool_],
) -> None:
    try:
        shades = table.numbers(color)
    except KeyNotFoundError:
        raise
    except TypeError:
        groups = table.groups(color)
        if len(groups) > len(PALETTE):
            message = f"column {color!r} has {len(groups)} labels, {len(PALETTE)} can be told apart"
            raise ValueError(message) from None
        for (name, mask), colour in zip(groups, PALETTE, strict=False):
            shown = mask & is_drawn
            points(axes, across[shown], up[shown], color=colour, label=name)
        axes.legend(title=color, markerscale=2)
        return
    without = is_drawn & ~np.isfinite(shades)
    points(axes, across[without], up[without], color=GREY)
    shown = is_drawn & np.isfinite(shades)
    cloud = points(axes, across[shown], up[shown], c=shades[shown], cmap="cividis")
    axes.figure.colorbar(cloud, ax=axes, label=color)
