"""What `PreprocessingPipeline.fit` learns, computed by `scio.pp` over one or several sources."""

from __future__ import annotations

import datetime
import os
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from scio import _core
from scio.data._fitted import CellFactors, Fitted
from scio.data.anndata_store import AnnDataStore
from scio.data.dataset import CellDataset
from scio.errors import ScioWarning
from scio.pp._source import WINDOW_NBYTES, _rows_of, open_source
from scio.pp._source import Source as Matrix
from scio.pp.hvg import highly_variable_genes
from scio.pp.normalize import median_of_totals
from scio.pp.size_factors import pooled_size_factors
from scio.pp.stats import gene_stats

if TYPE_CHECKING:
    from scio.data._sources import Source
    from scio.data.preprocessing import PreprocessingPipeline

_Arrays = tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]]
_DEFAULT_TARGET = 1e4
_N_NAMED = 3


class JoinedMatrix(Matrix):
    """Chosen cells of several sources, one below the other, over the genes of all of them.

    Parameters
    ----------
    sources : sequence of Source
    cells : ndarray of int64, optional
        Global ids, ascending; None: all.
    genes : set of str, optional
        Keep the first column of each of these names; None: every column, also of repeated names.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        cells: NDArray[np.int64] | None = None,
        genes: set[str] | None = None,
    ) -> None:
        self._sources = list(sources)
        lengths = [source.shape[0] for source in sources]
        self._starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        self._cells = cells
        self._maps, names = _column_maps(sources, genes)
        self.n_obs = int(self._starts[-1]) if cells is None else len(cells)
        self.n_vars = len(names)
        matrices = [source.core_matrix() for source in sources]
        self.dtype = np.result_type(*(matrix.dtype for matrix in matrices))
        more = f" and {len(sources) - 1} more" if len(sources) > 1 else ""
        self.name = f"{sources[0].name}{more}"
        self.is_file = True  # rows come in windows, whatever lies behind them
        self._names = names
        n_rows, nnz = int(self._starts[-1]), sum(int(matrix.nnz) for matrix in matrices)
        self._row_nbytes = (self.dtype.itemsize + 4) * (nnz // max(1, n_rows) + 1)

    @property
    def obs_names(self) -> NDArray[Any]:
        """Names of the chosen cells."""
        names = np.concatenate([source.cells() for source in self._sources])
        return names if self._cells is None else names[self._cells]

    @property
    def var_names(self) -> NDArray[Any]:
        """Names of the columns."""
        return self._names

    def _window_stop(self, start: int) -> int:
        return start + _rows_of(WINDOW_NBYTES, self._row_nbytes)

    def _read(self, start: int, stop: int) -> _Arrays:
        return self.take(np.arange(start, stop, dtype=np.int64))

    def take(self, rows: NDArray[np.int64]) -> _Arrays:
        """Return data, indices, indptr of a few rows, ascending."""
        cells = rows if self._cells is None else self._cells[rows]
        owner = np.searchsorted(self._starts, cells, side="right") - 1
        parts = [self._take(i, cells[owner == i] - self._starts[i]) for i in np.unique(owner)]
        if len(parts) == 1:
            return parts[0]
        counts = np.concatenate([np.zeros(1, np.int64), *(np.diff(p[2]) for p in parts)])
        data = np.concatenate([p[0].astype(self.dtype, copy=False) for p in parts])
        return data, np.concatenate([p[1] for p in parts]), np.cumsum(counts)

    def _take(self, i: int, rows: NDArray[np.int64]) -> _Arrays:
        matrix = self._sources[i].core_matrix()
        is_range = len(rows) > 0 and int(rows[-1] - rows[0]) + 1 == len(rows)
        data, indices, indptr = (
            matrix.read(int(rows[0]), int(rows[-1]) + 1)
            if is_range
            else matrix.take(np.ascontiguousarray(rows))
        )
        columns = self._maps[i][indices]
        kept = columns >= 0
        if kept.all():
            return data, columns, indptr
        before = np.concatenate([np.zeros(1, np.int64), np.cumsum(kept, dtype=np.int64)])
        return data[kept], columns[kept], before[indptr]

    def _columns(self, axis: str) -> list[str]:
        columns = [source.obs_columns() for source in self._sources] if axis == "obs" else []
        return list(dict.fromkeys(name for names in columns for name in names))

    def _column(self, axis: str, key: str) -> Any:
        from scio.data._metadata import merge_columns

        column = merge_columns(self._sources, key)
        cells = np.arange(self._starts[-1]) if self._cells is None else self._cells
        values = column.take(cells)
        return np.array(values, dtype=object) if column.table is not None else values


def _column_maps(
    sources: Sequence[Source], genes: set[str] | None
) -> tuple[list[NDArray[np.int32]], NDArray[Any]]:
    """Column of the joined matrix of each column of each source; -1 where it is left out.

    A name that a source has twice stands for two columns.
    """
    place: dict[tuple[str, int], int] = {}
    maps = []
    for source in sources:
        seen: dict[str, int] = {}
        columns = np.full(source.shape[1], -1, dtype=np.int32)
        for column, gene in enumerate(map(str, source.genes())):
            seen[gene] = seen.get(gene, 0) + 1
            if genes is None or (gene in genes and seen[gene] == 1):
                columns[column] = place.setdefault((gene, seen[gene]), len(place))
        maps.append(columns)
    return maps, np.array([name for name, _ in place], dtype=object)


class _Given:
    """The source of a fit: its matrix, that of the genes to choose from, and its parts."""

    def __init__(self, source: Any) -> None:
        self.parts: list[tuple[str, Matrix]]
        if isinstance(source, (list, tuple)):
            source = AnnDataStore(source, obs_keys=[])
        if not isinstance(source, (AnnDataStore, CellDataset)):
            self.matrix = self.candidates = open_source(source)
            self.parts = [(self.matrix.name, self.matrix)]
            return
        store = source if isinstance(source, AnnDataStore) else source.store
        is_whole = isinstance(source, AnnDataStore) or source.has_all_cells
        cells = None if is_whole else cast("CellDataset", source).cells
        self.matrix = JoinedMatrix(store.sources, cells)
        self.candidates = self.matrix
        known = set(store.gene_vocab.genes)
        if any(str(name) not in known for name in self.matrix.var_names):
            self.candidates = JoinedMatrix(store.sources, cells, known)
        self.parts = [
            (part.name, JoinedMatrix([part], local))
            for part, local in zip(store.sources, _by_source(store, cells), strict=True)
            if local is None or len(local)
        ]


def _by_source(
    store: AnnDataStore, cells: NDArray[np.int64] | None
) -> list[NDArray[np.int64] | None]:
    """Rows of each source among the chosen cells; None for all."""
    if cells is None:
        return [None] * store.n_datasets
    bounds = np.searchsorted(cells, store.starts)
    return [cells[bounds[i] : bounds[i + 1]] - store.starts[i] for i in range(store.n_datasets)]


def learn(pipeline: PreprocessingPipeline, source: Any, factors_for: Any) -> Fitted:
    """Learn what a pipeline needs; see `PreprocessingPipeline.fit`."""
    given = _Given(source)
    target = pipeline.target_sum
    if pipeline.normalize == "library_size" and target is None:
        totals = gene_stats(given.matrix, scaled=False).totals
        target = median_of_totals(totals, given.matrix.name)
    selected = None
    if pipeline.hvg_selection is not None:
        selected = _select_genes(pipeline, given.candidates, target)
    factors: tuple[CellFactors, ...] = ()
    if pipeline.normalize == "scran":
        factors = _learn_factors(pipeline, given if factors_for is None else _Given(factors_for))
    return Fitted(selected, target, factors, _info(pipeline, given))


def _select_genes(
    pipeline: PreprocessingPipeline, matrix: Matrix, target: float | None
) -> tuple[str, ...]:
    """Names of the selected genes, the best first."""
    flavor, batch_key = pipeline.hvg_flavor, pipeline.batch_key
    arguments: dict[str, Any] = {}
    if flavor in ("seurat", "cell_ranger") and pipeline.takes_scale_or_log:
        arguments["target_sum"] = target or _DEFAULT_TARGET
    table = highly_variable_genes(
        matrix,
        flavor=flavor,
        n_top_genes=pipeline.hvg_selection,
        batch_key=batch_key,
        inplace=False,
        **arguments,
    )
    assert table is not None
    chosen = np.flatnonzero(table["highly_variable"].to_numpy())
    names = [str(name) for name in matrix.var_names]
    ordered = chosen[_best_first(table, flavor)[chosen].argsort(kind="stable")]
    return _distinct([names[i] for i in ordered], names, ordered, matrix.name)


def _best_first(table: Any, flavor: str) -> NDArray[np.int64]:
    """Place of every gene in the order by which its flavour chooses (preprocessing.md 8 to 12)."""
    n_genes = len(table)

    def rising(key: str) -> NDArray[np.float64]:
        out: NDArray[np.float64] = table[key].to_numpy(dtype=np.float64)
        return out

    n_batches = "prob_zero_enriched_nbatches" if flavor == "poisson" else "highly_variable_nbatches"
    batches = -rising(n_batches) if n_batches in table else np.zeros(n_genes)
    if flavor in ("seurat", "cell_ranger"):
        keys = [batches, -rising("dispersions_norm")]
    elif flavor == "poisson":
        keys = [batches, -rising("prob_zero_enrichment_rank")]
    else:
        keys = [batches, rising("highly_variable_rank")]
        keys = keys[::-1] if flavor == "seurat_v3" else keys
    order = np.lexsort((np.arange(n_genes), *reversed(keys)))
    place = np.empty(n_genes, dtype=np.int64)
    place[order] = np.arange(n_genes)
    return place


def _distinct(
    selected: list[str], names: list[str], columns: NDArray[np.int64], where: str
) -> tuple[str, ...]:
    """Leave out genes whose name belongs to a column before theirs."""
    first: dict[str, int] = {}
    for column, name in enumerate(names):
        first.setdefault(name, column)
    kept = [n for n, c in zip(selected, columns.tolist(), strict=True) if first[n] == c]
    lost = [n for n, c in zip(selected, columns.tolist(), strict=True) if first[n] != c]
    if lost:
        message = (
            f"{where}: {len(lost)} of the selected genes have the name of an earlier column "
            f"({', '.join(map(repr, lost[:_N_NAMED]))}) and are left out, since genes are known by "
            "their names; make the names unique before"
        )
        warnings.warn(ScioWarning(message), stacklevel=6)
    return tuple(kept)


def _learn_factors(pipeline: PreprocessingPipeline, given: _Given) -> tuple[CellFactors, ...]:
    factors = pooled_size_factors(given.matrix, clusters=pipeline.clusters)
    assert factors is not None
    bounds = np.cumsum([0] + [matrix.n_obs for _, matrix in given.parts])
    return tuple(
        CellFactors(
            name=name,
            cells=tuple(_unique_names(matrix, name)),
            values=np.array(factors[start:stop]),
            fingerprint=matrix.fingerprint(),
        )
        for (name, matrix), start, stop in zip(given.parts, bounds[:-1], bounds[1:], strict=True)
    )


def _unique_names(matrix: Matrix, name: str) -> list[str]:
    cells = [str(cell) for cell in matrix.obs_names]
    if len(set(cells)) < len(cells):
        values, counts = np.unique(np.array(cells, dtype=object), return_counts=True)
        message = (
            f"{name}: size factors belong to cells, which are known by their names, and "
            f"{values[counts > 1][0]!r} is there {counts.max()} times; make obs_names unique"
        )
        raise ValueError(message)
    return cells


def _info(pipeline: PreprocessingPipeline, given: _Given) -> dict[str, Any]:
    return {
        "sources": [
            {"name": os.path.basename(name), "n_cells": matrix.n_obs, "n_genes": matrix.n_vars}
            for name, matrix in given.parts
        ],
        "n_cells": given.matrix.n_obs,
        "n_genes": given.matrix.n_vars,
        "fingerprint": given.matrix.fingerprint(),
        "hvg_flavor": pipeline.hvg_flavor if pipeline.hvg_selection is not None else None,
        "version": _core.__version__,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def fingerprint_of(source: Source, rows: NDArray[np.int64]) -> dict[str, Any]:
    """What tells the values of some cells of a source from others."""
    return JoinedMatrix([source], rows).fingerprint()
