"""Figures: where axes come from, how they look, where they go."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from scio._names import near_names
from scio._optional import require
from scio.errors import KeyNotFoundError
from scio.io import Categorical
from scio.pp._source import is_anndata

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PALETTE = (
    "#0072B2",  # blue
    "#E69F00",  # orange
    "#009E73",  # green
    "#CC79A7",  # purple
    "#56B4E9",  # sky
    "#D55E00",  # vermilion
    "#F0E442",  # yellow
    "#000000",
)
"""Colours of Okabe and Ito (https://jfly.uni-koeln.de/color), those that differ most first."""

GREY = "#999999"
N_POINTS_OF_VECTORS = 20_000  # beyond it points become pixels, also in a PDF

_STYLE = {
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.family": "DejaVu Sans",  # comes with matplotlib, so a picture is the same everywhere
    "font.size": 9.0,
    "legend.frameon": False,
    "savefig.dpi": 200,
}


@contextmanager
def drawing(
    ax: Axes | None,
    *,
    show: bool | None,
    save: str | os.PathLike[str] | None,
    size: tuple[float, float],
) -> Iterator[Axes]:
    """Give axes to draw into, then save and show their figure.

    Axes of the caller keep the caller's style.  A figure of our own is known to pyplot, which keeps
    it until it is closed, only when it is to be shown: ``show=True``, or None while pyplot is
    interactive, as it is in a notebook.
    """
    matplotlib = require("matplotlib", "scio.plot")
    require("matplotlib.figure", "scio.plot")
    if ax is not None:
        yield ax
        _hand_out(ax, show=bool(show), save=save)
        return
    pyplot = sys.modules.get("matplotlib.pyplot")
    is_shown = show or (show is None and pyplot is not None and matplotlib.is_interactive())
    make = (
        require("matplotlib.pyplot", "show=True").figure if is_shown else matplotlib.figure.Figure
    )
    with matplotlib.rc_context(_STYLE):
        own = make(figsize=size, layout="constrained").subplots()
        yield own
        _hand_out(own, show=bool(show), save=save)


def _hand_out(ax: Axes, *, show: bool, save: str | os.PathLike[str] | None) -> None:
    figure: Any = ax.figure
    if save is not None:
        figure.savefig(os.fspath(save))
    if show:
        require("matplotlib.pyplot", "show=True").show()


def points(ax: Axes, x: Any, y: Any, **style: Any) -> Any:
    """Draw a cloud of dots, as pixels when there are many."""
    style = {"s": 6.0, "linewidths": 0, "rasterized": len(x) > N_POINTS_OF_VECTORS} | style
    return ax.scatter(x, y, **style)


def check_positive(ax: Axes, *values: NDArray[Any]) -> None:
    """Make both axes logarithmic, or say why not."""
    if any(not np.nanmax(v, initial=0.0) > 0 for v in values):
        message = "no value is above 0, so none has a place on a logarithmic axis"
        raise ValueError(message)
    ax.set_xscale("log")
    ax.set_yscale("log")


# --- columns


class Table:
    """Columns of an AnnData's obs or var, of a data frame, or of a mapping of arrays."""

    def __init__(self, source: Any, axis: str) -> None:
        self._frame = getattr(source, axis) if is_anndata(source) else source
        self._name = f"AnnData.{axis}" if is_anndata(source) else "the table"
        if hasattr(self._frame, "columns"):
            self.names = [str(c) for c in self._frame.columns]
        elif isinstance(self._frame, Mapping):
            self.names = [str(c) for c in self._frame]
        else:
            message = (
                f"got a {type(source).__name__}, expected an AnnData, a data frame or a mapping "
                "of names to arrays"
            )
            raise TypeError(message)

    def column(self, name: str, *, advice: str = "") -> Any:
        """Return an array, or codes and categories as `Categorical`."""
        if name not in self.names:
            message = f"{self._name} has no column {name!r}; {near_names(name, self.names)}{advice}"
            raise KeyNotFoundError(message)
        column = self._frame[name]
        if str(getattr(column, "dtype", "")) == "category":
            labels = getattr(column, "cat", column)
            return Categorical(np.asarray(labels.codes), np.asarray(labels.categories))
        return column if isinstance(column, Categorical) else np.asarray(column)

    def numbers(self, name: str, *, advice: str = "") -> NDArray[np.float64]:
        """Return a column of numbers, float64; missing ones are NaN."""
        column = self.column(name, advice=advice)
        try:
            return cast("NDArray[np.float64]", np.asarray(column, dtype=np.float64))
        except (TypeError, ValueError):
            message = f"{self._name}: column {name!r} holds no numbers"
            raise TypeError(message) from None

    def groups(self, name: str) -> list[tuple[str, NDArray[np.bool_]]]:
        """Return names and masks of the groups that have members, in order of their categories."""
        column = self.column(name)
        if not isinstance(column, Categorical):
            labels = np.array([str(v) for v in column.tolist()])
            return [(str(v), labels == v) for v in np.unique(labels)]
        masks = [(str(c), column.codes == i) for i, c in enumerate(column.categories)]
        return [(label, mask) for label, mask in masks if mask.any()]
