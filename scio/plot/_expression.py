"""Which genes the counts of a cell go to."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scio import _core
from scio.plot._figure import PALETTE, drawing
from scio.pp._source import Source, open_source

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def highest_expr_genes(
    source: Any,
    n_top: int = 30,
    *,
    layer: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | os.PathLike[str] | None = None,
) -> Axes:
    """Genes with the highest mean share of a cell's counts.

    A box shows the middle half of the cells, its line the median, the whisker reaches from the 5th
    to the 95th percentile.  Cells without counts take no part.

    Parameters
    ----------
    source : AnnData, CSR, SciPy sparse matrix, ndarray, path or handle, shape (n_cells, n_genes)
        Counts.  A file is read twice.
    n_top : int
        How many genes; of equal means the first gene comes first.
    layer : str, optional
        The layer of an AnnData or a file instead of X.
    ax, show, save
        As in `highly_variable_genes`.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ValueError
        If `n_top` is below 1, a value is negative or not finite, or no cell has counts.

    Notes
    -----
    Memory: 4 bytes for each cell and gene shown.
    """
    if n_top < 1:
        message = f"n_top is {n_top}, expected 1 or more genes"
        raise ValueError(message)
    matrix = open_source(source, layer=layer)
    totals, sums = _shares(matrix)
    n_cells = np.count_nonzero(totals)
    if n_cells == 0:
        message = f"{matrix.name}: none of {matrix.n_obs:,} cells has counts"
        raise ValueError(message)
    genes = np.argsort(-sums, kind="stable")[:n_top]
    shares = _shares_of(matrix, totals, genes)
    marks = np.percentile(shares, [5, 25, 50, 75, 95], axis=0)
    with drawing(ax, show=show, save=save, size=(4.5, 1 + 0.2 * len(genes))) as axes:
        _draw_boxes(axes, marks)
        axes.plot(100 * sums[genes] / n_cells, range(len(genes)), "o", color="black", markersize=2)
        axes.set_yticks(range(len(genes)), [str(matrix.var_names[g]) for g in genes])
        axes.set_ylim(len(genes) - 0.4, -0.6)
        axes.set_xlim(left=0)
        axes.set_xlabel("% of the counts of a cell")
        return axes


def _draw_boxes(axes: Axes, marks: NDArray[np.floating[Any]]) -> None:
    places = np.arange(marks.shape[1])
    axes.hlines(places, marks[0], marks[4], color="black", linewidth=0.8)
    axes.barh(places, marks[3] - marks[1], left=marks[1], height=0.6, color=PALETTE[4], zorder=2)
    axes.vlines(marks[2], places - 0.3, places + 0.3, color="black", linewidth=1.2, zorder=3)


def _shares(source: Source) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Totals of cells and, for each gene, the sum of its shares of them."""
    totals = np.zeros(source.n_obs)
    sums, maxima = np.zeros((1, source.n_vars)), np.zeros((1, source.n_vars))
    for block in source.blocks(check=False):
        totals[block.start : block.stop] = _core.pooling_scan(
            block.data,
            block.indices,
            block.indptr,
            np.zeros(block.n_rows, dtype=np.int32),
            sums,
            maxima,
            shape=(block.n_rows, source.n_vars),
            first_row=block.start,
        )[0]
    return totals, sums[0]


def _shares_of(
    source: Source, totals: NDArray[np.float64], genes: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Per cent of the chosen genes in each cell that has counts, shape (n_cells, n_chosen)."""
    position = np.full(source.n_vars, -1)
    position[genes] = np.arange(len(genes))
    shares = np.zeros((source.n_obs, len(genes)), dtype=np.float32)
    for block in source.blocks():
        columns = position[block.indices]
        rows = np.repeat(np.arange(block.start, block.stop), np.diff(block.indptr))
        shown = np.flatnonzero((columns >= 0) & (totals[rows] > 0))
        rows, columns = rows[shown], columns[shown]
        parts = 100.0 * block.data[shown].astype(np.float64) / totals[rows]
        np.add.at(shares, (rows, columns), parts.astype(np.float32))
    return shares[totals > 0]
