"""Cells as a map-style dataset: for torch's own DataLoader, and the plan of `CellDataLoader`."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from scio import _core
from scio._names import near_names
from scio._optional import require
from scio.data.anndata_store import AnnDataStore
from scio.data.gene_vocab import N_SPECIAL, GeneVocab
from scio.data.preprocessing import PreprocessingPipeline
from scio.matrix import row_index

# A dataset for torch must be one of torch's; without torch the class stands on its own.
if TYPE_CHECKING or importlib.util.find_spec("torch") is None:
    _Base = object
else:
    from torch.utils.data import Dataset as _Base

SELECTIONS = ("most_expressed", "random_expressed", "first")
Selection = Literal["most_expressed", "random_expressed", "first"]


class CellDataset(_Base):
    """Cells of one or several files, aligned, normalised and cut to their expressed genes.

    Parameters
    ----------
    adata : AnnData, str, Path, AnnDataFile or a list of these
        Sources, as `AnnDataStore` takes them.
    gene_vocab : GeneVocab or None
        None: the genes of the sources, in order of appearance; those that the pipeline selected,
        when it selects genes.
    preprocessing : PreprocessingPipeline, optional
        None: raw values.  Genes that a fitted pipeline did not select are left out.
    max_genes : int, optional
        At most so many genes per cell, chosen by `selection`.
    obs_keys : list of str, "all" or None
        obs columns in ``metadata``; None: ``cell_type`` and ``batch`` where present.
    matrix : str
        ``"X"``, ``"layers/<key>"`` or ``"raw/X"``.
    selection : {"most_expressed", "random_expressed", "first"}
        Which genes stay when there are more than `max_genes`: the largest values (ties by
        vocabulary id), a choice seeded by seed, epoch and cell, or the first of the vocabulary.
    indices : int array, slice or mask, optional
        Cells to use, by global id; nothing is read of the others but chunks that they share.
    obs_query : str or mapping, optional
        ``{"cell_type": ["B", "T"], "batch": "a"}``, or an expression for ``pandas.DataFrame.query``.
    seed : int
        Of ``"random_expressed"``.
    layers, obsm : sequence of str
        Keys of further matrices of the same cells; their rows come with each item, and with each
        batch of a `CellDataLoader` from the same plan, as stored (neither scaled nor logged).

    Raises
    ------
    ValueError, KeyError, IndexError
        For wrong arguments; near names or the legal range are given.
    NotFittedError
        If the pipeline needs `fit`; a dataset never fits on its own.

    Warns
    -----
    ScioWarning
        If genes that the pipeline selected are not among those of the sources or the vocabulary.

    Notes
    -----
    Works in ``torch.utils.data.DataLoader(dataset, collate_fn=collate_cells, …)`` with any number of
    fork or spawn workers; torch fetches a batch with ``__getitems__``, which decodes each chunk once.
    `CellDataLoader` is the fast way.

    Examples
    --------
    >>> import scio
    >>> from scio.data import CellDataset, PreprocessingPipeline
    >>> cells = CellDataset(scio.datasets.pbmc3k(), None, PreprocessingPipeline())
    >>> len(cells), cells[0]["n_genes"]
    (2700, 781)
    """

    def __init__(
        self,
        adata: Any,
        gene_vocab: GeneVocab | None,
        preprocessing: PreprocessingPipeline | None = None,
        max_genes: int | None = None,
        *,
        obs_keys: Any = None,
        matrix: str = "X",
        selection: Selection = "most_expressed",
        indices: Any = None,
        obs_query: str | Mapping[str, Any] | None = None,
        seed: int = 0,
        layers: Sequence[str] = (),
        obsm: Sequence[str] = (),
    ) -> None:
        if max_genes is not None and max_genes < 1:
            message = f"max_genes is at least 1 or None, not {max_genes!r}"
            raise ValueError(message)
        if selection not in SELECTIONS:
            message = f"selection is one of {SELECTIONS}, not {selection!r}"
            raise ValueError(message)
        self.preprocessing = preprocessing or PreprocessingPipeline(normalize=None, log1p=False)
        self.preprocessing.check_fitted()
        self.store = AnnDataStore(
            adata, gene_vocab, obs_keys=obs_keys, matrix=matrix, layers=layers, obsm=obsm
        )
        self.max_genes = max_genes
        self.selection = selection
        self.seed = int(seed)
        self.epoch = 0
        self._cells = _select(self.store, indices, obs_query)
        self._id_mask = self._masked(has_vocab=gene_vocab is not None)
        self._cell_scale = self.preprocessing.cell_scale(self.store, self.cells)

    def _masked(self, *, has_vocab: bool) -> NDArray[np.uint8] | None:
        """Ids that the fitted selection keeps; a vocabulary that nobody gave is made of them."""
        selected = self.preprocessing.selected_genes
        if selected is None:
            return None
        self.preprocessing.check_genes(self.store)
        if not has_vocab:
            self.store.keep_genes(selected)
            return None
        mask = np.zeros(self.gene_vocab.n_ids, dtype=np.uint8)
        mask[self.gene_vocab.encode([gene for gene in selected if gene in self.gene_vocab])] = 1
        return mask

    @property
    def gene_vocab(self) -> GeneVocab:
        """The vocabulary whose ids the items hold."""
        return self.store.gene_vocab

    @property
    def cells(self) -> NDArray[np.int64]:
        """Global ids of the cells of this dataset, ascending."""
        return np.arange(len(self.store), dtype=np.int64) if self._cells is None else self._cells

    @property
    def has_all_cells(self) -> bool:
        """Whether no cell was left out."""
        return self._cells is None

    def __len__(self) -> int:
        return len(self.store) if self._cells is None else len(self._cells)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which seeds ``"random_expressed"``."""
        self.epoch = int(epoch)

    def categories(self, key: str) -> list[Any]:
        """Labels of an obs column, in the order of the codes that a loader's ``obs_codes`` gives.

        Raises
        ------
        KeyError
            If no source has the column; near names are offered.
        ValueError
            If it holds numbers.
        """
        table = self.store.column(key).table
        if table is None:
            message = f"obs column {key!r} holds numbers, which have no codes"
            raise ValueError(message)
        labels: list[Any] = table[:-1].tolist()
        return labels

    def subset(self, cells: NDArray[np.int64]) -> CellDataset:
        """Return a dataset of other cells (global ids) over the same open store."""
        other = object.__new__(CellDataset)
        other.__dict__.update(self.__dict__)
        other._cells = np.unique(row_index(cells, len(self.store)))
        if self._cell_scale is not None and np.isnan(self._cell_scale[other._cells]).any():
            other._cell_scale = self.preprocessing.cell_scale(self.store, other._cells)
        return other

    def split(
        self, fractions: Mapping[str, float], *, seed: int, by: str | None = None
    ) -> dict[str, CellDataset]:
        """Divide the cells at random.

        Parameters
        ----------
        fractions : mapping of str to float
            Name of each part and its share, e.g. ``{"train": 0.8, "test": 0.2}``; the sum is at most
            1.
        seed : int
            The same seed gives the same parts.
        by : str, optional
            obs column whose groups stay whole, e.g. ``"donor"``.

        Returns
        -------
        dict of str to CellDataset
            Over the same open files; no cell is in two of them.

        Raises
        ------
        ValueError
            If the fractions are no shares, or a part would be empty.
        """
        shares = {name: float(share) for name, share in fractions.items()}
        if not shares or min(shares.values()) <= 0 or sum(shares.values()) > 1 + 1e-9:
            message = f"fractions are above 0 and sum to at most 1, not {dict(fractions)}"
            raise ValueError(message)
        cells = self.cells
        codes = np.arange(len(cells)) if by is None else self.store.column(by).codes()[cells]
        groups, membership = np.unique(codes, return_inverse=True)
        order = _core.permutation(int(seed), 0x5911, len(groups))
        sizes = np.bincount(membership.reshape(-1), minlength=len(groups))[order]
        bounds = np.cumsum(sizes) / max(1, len(cells))
        parts: dict[str, CellDataset] = {}
        low = 0.0
        for name, share in shares.items():
            high = low + share
            middle = bounds - sizes / (2 * max(1, len(cells)))
            chosen = np.zeros(len(groups), dtype=np.bool_)
            chosen[order[(middle >= low) & (middle < high)]] = True
            picked = cells[chosen[membership.reshape(-1)]]
            if len(picked) == 0:
                message = (
                    f"part {name!r} of share {share} would be empty: {len(groups)} groups in all"
                )
                raise ValueError(message)
            parts[name] = self.subset(picked)
            low = high
        return parts

    # --- items

    def collate_arguments(self) -> dict[str, Any]:
        """Arguments of the core that say what happens to a cell."""
        pipeline = self.preprocessing
        return {
            "n_ids": self.gene_vocab.n_ids,
            "library_size": pipeline.normalize == "library_size",
            "target_sum": pipeline.total_target or 1.0,
            "cell_scale": self._cell_scale,
            "log1p": pipeline.takes_log,
            "id_mask": self._id_mask,
            "max_genes": self.max_genes or 0,
            "select": self.selection,
            "seed": self.seed,
            "epoch": self.epoch,
            "pad_id": GeneVocab.pad_token_id,
        }

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return one cell; negative positions count from the end.

        Returns
        -------
        dict
            ``expression`` (n_genes,) float32 and ``gene_indices`` (n_genes,) int64, tensors when torch
            is installed, else arrays, by ascending vocabulary id; ``n_genes`` int; ``metadata`` dict;
            ``index`` int.  With layers: ``layers``, key to (n_genes,) float32 at the genes of
            ``gene_indices``; with obsm: ``obsm``, key to (width,) float32.

        Raises
        ------
        IndexError
            If there is no such cell.
        """
        n_cells = len(self)
        if not -n_cells <= index < n_cells:
            message = f"cell {index} does not exist: the dataset has {n_cells} cells"
            raise IndexError(message)
        return self.__getitems__([int(index)])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Return several cells, each chunk decoded once."""
        positions = row_index(np.asarray(indices, dtype=np.int64), len(self))
        cells = np.ascontiguousarray(positions if self._cells is None else self._cells[positions])
        if not len(cells):
            return []
        if self.store.track_paths:
            return self._items_with_tracks(cells)
        batch = _core.collate(
            self.store.core_matrices(),
            self.store.gene_maps,
            cells,
            form="csr",
            first_id=0,
            pad_value=0.0,
            **self.collate_arguments(),
        )
        bounds = batch["indptr"].tolist()
        values, ids = _as_tensors(batch["data"], batch["indices"].astype(np.int64))
        return [
            {"expression": values[a:b], "gene_indices": ids[a:b], **self._facts(cell, b - a)}
            for a, b, cell in zip(bounds[:-1], bounds[1:], cells.tolist(), strict=True)
        ]

    def _items_with_tracks(self, cells: NDArray[np.int64]) -> list[dict[str, Any]]:
        """Items with layers and obsm: one batch of the core's loader, taken apart."""
        store = self.store
        core = _core.Loader(
            store.core_matrices(),
            store.gene_maps,
            cells=None,
            form="tokens",
            first_id=FIRST_GENE_ID,
            pad_value=0.0,
            batch_size=len(cells),
            drop_last=False,
            shuffle="given",
            given_cells=cells,
            given_offsets=np.array([0, len(cells)], dtype=np.int64),
            rank=0,
            world_size=1,
            max_memory=_ITEMS_MAX_NBYTES,
            block_bytes=0,
            threads=_core.cpu_count(),
            prefetch=1,
            skip_errors=False,
            first_batch=0,
            **store.track_arguments(),
            **self.collate_arguments(),
        )
        batch = core.next()
        core.close()
        assert batch is not None
        values, ids, *extras = _as_tensors(
            batch["expression"], batch["gene_indices"], *batch["extras"]
        )
        tracks = store.by_key(extras)
        items = []
        for row, (cell, n_genes) in enumerate(
            zip(cells.tolist(), batch["n_genes"].tolist(), strict=True)
        ):
            item = {"expression": values[row, :n_genes], "gene_indices": ids[row, :n_genes]}
            item.update(self._facts(cell, n_genes))
            if "layers" in tracks:
                item["layers"] = {k: v[row, :n_genes] for k, v in tracks["layers"].items()}
            if "obsm" in tracks:
                item["obsm"] = {k: v[row] for k, v in tracks["obsm"].items()}
            items.append(item)
        return items

    def _facts(self, cell: int, n_genes: int) -> dict[str, Any]:
        return {"n_genes": n_genes, "metadata": self.store.metadata(cell), "index": cell}

    def __repr__(self) -> str:
        return f"CellDataset({len(self):,} cells, {self.store!r}, {self.preprocessing!r})"


FIRST_GENE_ID = N_SPECIAL
_ITEMS_MAX_NBYTES = 1 << 40  # whoever asks for items by number says how many


def _as_tensors(*arrays: NDArray[Any]) -> tuple[Any, ...]:
    if _Base is object:
        return arrays
    torch = require("torch", "CellDataset")
    return tuple(torch.from_numpy(array) for array in arrays)


def _select(
    store: AnnDataStore, indices: Any, obs_query: str | Mapping[str, Any] | None
) -> NDArray[np.int64] | None:
    if indices is not None and obs_query is not None:
        message = "give indices or obs_query, not both"
        raise ValueError(message)
    if indices is not None:
        return np.unique(row_index(indices, len(store)))
    if obs_query is None:
        return None
    mask = (
        _query_text(store, obs_query)
        if isinstance(obs_query, str)
        else _query_mapping(store, obs_query)
    )
    cells = np.flatnonzero(mask).astype(np.int64)
    if len(cells) == 0:
        message = f"obs_query {obs_query!r} selects no cell of {len(store)}"
        raise ValueError(message)
    return cells


def _query_mapping(store: AnnDataStore, query: Mapping[str, Any]) -> NDArray[np.bool_]:
    mask = np.ones(len(store), dtype=np.bool_)
    for key, wanted in query.items():
        column = store.column(key)
        accepted = [wanted] if isinstance(wanted, (str, int, float, bool)) else list(wanted)
        if column.table is None:
            mask &= np.isin(np.ma.getdata(column.values), accepted)
            mask &= ~np.ma.getmaskarray(column.values)
            continue
        known = column.table[:-1].tolist()
        for value in accepted:
            if value not in known:
                names = [str(k) for k in known]
                message = f"no cell has {key} {value!r}; {near_names(str(value), names)}"
                raise KeyError(message)
        mask &= np.isin(column.values, [known.index(value) for value in accepted])
    return mask


def _query_text(store: AnnDataStore, query: str) -> NDArray[np.bool_]:
    pandas = require("pandas", "obs_query as text")
    names = [n for n in store.obs_columns() if n in query]
    frame = pandas.DataFrame({name: store.obs(name) for name in names}, index=range(len(store)))
    chosen = frame.query(query, engine="python").index.to_numpy()
    mask = np.zeros(len(store), dtype=np.bool_)
    mask[chosen] = True
    return mask
