"""What a pipeline has learned, and to which data it belongs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scio.data.anndata_store import AnnDataStore

_N_NAMED = 3


@dataclass(frozen=True, eq=False)
class CellFactors:
    """Size factors of the cells of one source.

    Attributes
    ----------
    name : str
        Where they come from.
    cells : tuple of str
        Names, each once.
    values : ndarray, shape (n_cells,), float64
    fingerprint : dict
        Of the counts of these cells.
    """

    name: str
    cells: tuple[str, ...]
    values: NDArray[np.float64]
    fingerprint: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """For JSON, which keeps every bit of a double."""
        return {
            "name": self.name,
            "cells": list(self.cells),
            "values": self.values.tolist(),
            "fingerprint": self.fingerprint,
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> CellFactors:
        """Undo `to_dict`; ValueError where it cannot be one."""
        values = np.array(content["values"], dtype=np.float64)
        cells = tuple(content["cells"])
        if values.shape != (len(cells),) or not (np.isfinite(values) & (values > 0)).all():
            message = (
                f"size factors of {content['name']}: {len(cells)} cells and {len(values)} values, "
                "expected one number above 0 for each cell"
            )
            raise ValueError(message)
        return cls(str(content["name"]), cells, values, dict(content["fingerprint"]))


@dataclass(frozen=True, eq=False)
class Fitted:
    """What `PreprocessingPipeline.fit` learned.

    Attributes
    ----------
    selected_genes : tuple of str or None
        The best first.
    target_sum : float or None
        Of "library_size".
    factors : tuple of CellFactors
        One for each source; empty without "scran".
    info : dict
        Where it comes from.
    """

    selected_genes: tuple[str, ...] | None
    target_sum: float | None
    factors: tuple[CellFactors, ...]
    info: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        genes = self.selected_genes
        return {
            "selected_genes": None if genes is None else list(genes),
            "target_sum": self.target_sum,
            "size_factors": [factors.to_dict() for factors in self.factors],
            "fit_info": self.info,
        }

    def without_place(self) -> dict[str, Any]:
        """Return the same without names of files, date and version."""
        content = self.to_dict()
        content["fit_info"] = None
        for part in content["size_factors"]:
            part["name"] = None
        return content

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Fitted:
        """Undo `to_dict`; KeyError, TypeError or ValueError where it cannot be one."""
        genes = content["selected_genes"]
        target = content["target_sum"]
        return cls(
            None if genes is None else tuple(str(gene) for gene in genes),
            None if target is None else float(target),
            tuple(CellFactors.from_dict(part) for part in content["size_factors"]),
            dict(content["fit_info"]),
        )

    def factors_of(self, store: AnnDataStore, cells: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the size factor of every cell of a store, NaN for those not among `cells`.

        Raises
        ------
        ValueError
            If the pipeline was fitted on other cells.
        """
        factors = np.full(len(store), np.nan)
        bounds = np.searchsorted(cells, store.starts)
        for i, source in enumerate(store.sources):
            mine = cells[bounds[i] : bounds[i + 1]]
            if not len(mine):
                continue
            rows = mine - store.starts[i]
            names = [str(name) for name in source.cells()[rows]]
            part = self._part(names, source.name, i)
            if tuple(names) == part.cells:
                _check_values(part, source, rows)
            value = dict(zip(part.cells, part.values.tolist(), strict=True))
            factors[mine] = [value[name] for name in names]
        return factors

    def _part(self, names: list[str], where: str, i_source: int) -> CellFactors:
        """Factors of all these cells; of several, those of the same place in the list."""
        if len(set(names)) < len(names):
            message = f"{where}: names of cells repeat, so that size factors cannot be told apart"
            raise ValueError(message)
        lacking = [set(names).difference(part.cells) for part in self.factors]
        fitting = [i for i, missing in enumerate(lacking) if not missing]
        if len(fitting) == 1 or i_source in fitting:
            return self.factors[i_source if i_source in fitting else fitting[0]]
        if fitting:
            found = ", ".join(self.factors[i].name for i in fitting)
            message = (
                f"{where}: its cells have the names of those of {found}, so that it cannot be told "
                "whose size factors they are; make obs_names unique over the files"
            )
            raise ValueError(message)
        nearest = min(range(len(self.factors)), key=lambda i: len(lacking[i]))
        part, missing = self.factors[nearest], lacking[nearest]
        first = [name for name in names if name in missing][:_N_NAMED]
        message = (
            f"{where}: the pipeline has no size factors for {len(missing):,} of its {len(names):,} "
            f"cells: found {', '.join(map(repr, first))}, expected cells of {part.name} "
            f"({', '.join(map(repr, part.cells[:_N_NAMED]))}, …); size factors belong to cells, "
            "fit the pipeline on these"
        )
        raise ValueError(message)


def _check_values(part: CellFactors, source: Any, rows: NDArray[np.int64]) -> None:
    """Same names, other counts: refused where that can be told."""
    from scio.data._fit import fingerprint_of

    if source.shape[1] != part.fingerprint.get("n_vars"):
        return  # a part of the genes of the same cells
    if fingerprint_of(source, rows) != part.fingerprint:
        message = (
            f"{source.name}: its cells have the names of those of {part.name}, on which the pipeline "
            "was fitted, but other counts; fit the pipeline on these"
        )
        raise ValueError(message)
