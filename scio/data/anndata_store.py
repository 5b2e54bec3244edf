"""One or several files as one list of cells over one vocabulary."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scio import _core
from scio._names import near_names
from scio.data._metadata import MetadataColumn, merge_columns, resolve_keys
from scio.data._sources import Source, open_sources
from scio.data.gene_vocab import N_SPECIAL, GeneVocab
from scio.matrix import CSR, row_index


class AnnDataStore:
    """Cells of one or several sources, aligned to one vocabulary.

    Parameters
    ----------
    adata : AnnData, str, Path, AnnDataFile or a list of these
        Sources; a file is opened lazily: headers, gene names and the obs columns asked for.
    gene_vocab : GeneVocab, optional
        None: the genes of the sources, in order of appearance.
    obs_keys : list of str, "all" or None
        obs columns that travel with the cells; None: ``cell_type`` and ``batch`` where present.
    matrix : str
        ``"X"``, ``"layers/<key>"`` or ``"raw/X"``.
    layers, obsm : sequence of str
        Keys of further matrices that travel with the cells: layers of the shape of `matrix`, obsm
        of any width.

    Raises
    ------
    ValueError
        If a source shares no gene with the vocabulary (five names of each side are shown), or the
        list is empty.
    KeyError
        If no source has an obs key; near names are offered.

    Notes
    -----
    Opening makes one int32 map per source (column to vocabulary id, -1 for none).  The matrix is not
    read.  Pickles carry paths and options; a forked process opens files again.
    """

    def __init__(
        self,
        adata: Any,
        gene_vocab: GeneVocab | None = None,
        *,
        obs_keys: Any = None,
        matrix: str = "X",
        layers: Sequence[str] = (),
        obsm: Sequence[str] = (),
    ) -> None:
        self._sources: list[Source] = open_sources(adata, matrix)
        names = [[str(g) for g in source.genes()] for source in self._sources]
        self.gene_vocab = gene_vocab or _union_vocab(names)
        self.matrix = matrix
        self.gene_maps: list[NDArray[np.int32]] = [
            _checked_map(self.gene_vocab, genes, source.name)
            for genes, source in zip(names, self._sources, strict=True)
        ]
        lengths = [source.shape[0] for source in self._sources]
        self._starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        self.obs_keys = resolve_keys(self._sources, obs_keys)
        self._columns: dict[str, MetadataColumn] = {}
        self.track_paths = [*_paths("layers", layers), *_paths("obsm", obsm)]
        for source in self._sources:
            for path in self.track_paths:
                source.core_track(path)  # a wrong key is reported here

    def keep_genes(self, names: Collection[str]) -> None:
        """Make the vocabulary of the sources' own genes smaller; for `CellDataset`.

        Raises
        ------
        ValueError
            If a source has none of `names`.
        """
        wanted = set(names)
        genes = [gene for gene in self.gene_vocab.genes if gene in wanted]
        self.gene_vocab = GeneVocab.from_genes(genes)
        self.gene_maps = [
            _checked_map(self.gene_vocab, [str(g) for g in source.genes()], source.name)
            for source in self._sources
        ]

    def __len__(self) -> int:
        """Cells over all sources."""
        return int(self._starts[-1])

    @property
    def n_datasets(self) -> int:
        """Sources."""
        return len(self._sources)

    @property
    def starts(self) -> NDArray[np.int64]:
        """Global id of the first cell of each source, and the number of cells at the end."""
        return self._starts

    @property
    def names(self) -> list[str]:
        """Name of each source, for messages."""
        return [source.name for source in self._sources]

    def measured(self, source: int) -> NDArray[np.bool_]:
        """Tell which vocabulary genes a source measured: zero is not the same as unmeasured.

        Returns
        -------
        ndarray, shape (len(vocabulary) without special tokens,), bool
            In the order of ``gene_vocab.genes``.
        """
        ids = self.gene_maps[source]
        mask = np.zeros(self.gene_vocab.n_ids, dtype=np.bool_)
        mask[ids[ids >= 0]] = True
        return mask[self.gene_vocab.encode(self.gene_vocab.genes)]

    def core_matrices(self) -> list[_core.Matrix]:
        """The core's matrices in this process."""
        return [source.core_matrix() for source in self._sources]

    def core_tracks(self) -> list[_core.Matrix]:
        """Further matrices in this process, in the order of `track_paths`, source by source."""
        return [s.core_track(path) for s in self._sources for path in self.track_paths]

    def track_arguments(self) -> dict[str, Any]:
        """Arguments of ``_core.Loader`` for the further matrices; empty without any."""
        if not self.track_paths:
            return {}
        is_layer = [path.startswith("layers/") for path in self.track_paths]
        return {"extras": self.core_tracks(), "extra_is_layer": np.array(is_layer)}

    def by_key(self, extras: Sequence[Any]) -> dict[str, dict[str, Any]]:
        """Sort what the core gives for the further matrices: ``layers``, ``obsm``, then their keys."""
        out: dict[str, dict[str, Any]] = {}
        for path, extra in zip(self.track_paths, extras, strict=True):
            kind, _, key = path.partition("/")
            out.setdefault(kind, {})[key] = extra
        return out

    @property
    def sources(self) -> list[Source]:
        """The sources, in the order of their cells."""
        return self._sources

    def column(self, key: str) -> MetadataColumn:
        """One obs column over all sources, read once."""
        if key not in self._columns:
            self._columns[key] = merge_columns(self._sources, key)
        return self._columns[key]

    def obs(self, key: str) -> Any:
        """Values of an obs column for all cells: a list of labels or an array of numbers."""
        return self.column(key).take(np.arange(len(self), dtype=np.int64))

    def obs_columns(self) -> list[str]:
        """Names of the obs columns that some source has."""
        return list(dict.fromkeys(n for source in self._sources for n in source.obs_columns()))

    def metadata(self, cell: int) -> dict[str, Any]:
        """Values of the obs keys for one cell."""
        return {key: self.column(key).item(cell) for key in self.obs_keys}

    def read_rows(self, indices: Any, *, aligned: bool = False) -> CSR:
        """Read cells in any order, repeats allowed.

        Parameters
        ----------
        indices : int array, slice or mask
            Global cell ids.
        aligned : bool
            True: columns are the genes of the vocabulary (in the order of ``gene_vocab.genes``),
            float32.  False: columns are the genes of the source, values as stored; the cells must
            then come from sources with equally many genes.

        Returns
        -------
        CSR, shape (n_selected, n_genes)

        Raises
        ------
        IndexError
            If a cell does not exist.
        ValueError
            If sources with other numbers of genes are mixed without `aligned`.
        """
        cells = row_index(indices, len(self))
        if aligned:
            return self._read_aligned(cells)
        owner = np.searchsorted(self._starts, cells, side="right") - 1
        used = np.unique(owner)
        widths = {self._sources[i].shape[1] for i in used}
        if len(widths) > 1:
            message = f"the cells come from sources of {sorted(widths)} genes: use aligned=True"
            raise ValueError(message)
        parts = []
        for i in used:
            local = cells[owner == i] - self._starts[i]
            arrays = self._sources[i].core_matrix().take(np.ascontiguousarray(local))
            parts.append(CSR._wrap(arrays, (len(local), self._sources[i].shape[1])))
        if len(parts) == 1:
            return parts[0]
        return _interleave(parts, owner, used, self._sources[0].shape[1])

    def _read_aligned(self, cells: NDArray[np.int64]) -> CSR:
        batch = _core.collate(
            self.core_matrices(),
            self.gene_maps,
            cells,
            form="csr",
            n_ids=self.gene_vocab.n_ids,
            first_id=N_SPECIAL,
            library_size=False,
            target_sum=1.0,
            log1p=False,
            id_mask=None,
            max_genes=0,
            select="most_expressed",
            seed=0,
            epoch=0,
            pad_id=0,
            pad_value=0.0,
        )
        return CSR._wrap((batch["data"], batch["indices"], batch["indptr"]), batch["shape"])

    def get_cell(self, i: int) -> tuple[NDArray[np.float32], NDArray[np.int64], dict[str, Any]]:
        """Read one cell: raw values that are not zero, their vocabulary ids, its obs values.

        Returns
        -------
        expression : ndarray, shape (n,), float32
        gene_indices : ndarray, shape (n,), int64
            Ascending.
        metadata : dict
        """
        cell = row_index(int(i), len(self))
        row = self._read_aligned(cell)
        ids = row.indices.astype(np.int64) + N_SPECIAL
        return row.data, ids, self.metadata(int(cell[0]))

    def __repr__(self) -> str:
        return (
            f"AnnDataStore({len(self):,} cells of {self.n_datasets} source"
            f"{'s' if self.n_datasets != 1 else ''}, matrix {self.matrix!r}, {self.gene_vocab!r})"
        )


def _paths(kind: str, keys: Sequence[str]) -> list[str]:
    if isinstance(keys, str):
        message = f"{kind} is a list of keys, such as [{keys!r}], not a text"
        raise TypeError(message)
    for key in keys:
        if not isinstance(key, str) or not key:
            message = f"{kind} is a list of keys, such as ['counts'], not one with {key!r}"
            raise TypeError(message)
    if len(set(keys)) < len(keys):
        message = f"{kind} names a key twice: {list(keys)}"
        raise ValueError(message)
    return [f"{kind}/{key}" for key in keys]


def _union_vocab(names: list[list[str]]) -> GeneVocab:
    union = dict.fromkeys(gene for genes in names for gene in genes)
    return GeneVocab.from_genes(union)


def _checked_map(vocab: GeneVocab, genes: list[str], name: str) -> NDArray[np.int32]:
    mapping = vocab.source_map(genes)
    if not (mapping >= 0).any():
        message = (
            f"{name} shares no gene with the vocabulary: it has {', '.join(genes[:5])}, the "
            f"vocabulary {', '.join(vocab.genes[:5])} (symbols against Ensembl ids?)"
        )
        if genes and vocab.genes:
            message += f"; {near_names(genes[0], vocab.genes)}"
        raise ValueError(message)
    return mapping


def _interleave(
    parts: list[CSR], owner: NDArray[np.int64], used: NDArray[np.int64], n_cols: int
) -> CSR:
    """Put rows of several gathers back into the order asked for."""
    data = np.concatenate([p.data for p in parts])
    indices = np.concatenate([p.indices for p in parts])
    counts = np.concatenate([np.diff(p.indptr) for p in parts])
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    stacked = np.concatenate([np.flatnonzero(owner == i) for i in used])
    order = np.empty(len(stacked), dtype=np.int64)
    order[stacked] = np.arange(len(stacked), dtype=np.int64)
    return CSR(data, indices, indptr, shape=(len(stacked), n_cols))[order]
