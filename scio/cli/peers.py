"""Other ways to the same batches, behind one face: for ``scio bench --compare`` and benchmarks/.

Each adapter is written as its authors or most users write it, over the same plain ``.h5ad``.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["PEERS", "Peer", "installed"]

MAX_GENES = 2_048
TARGET_SUM = 1e4
N_SPECIAL = 4


@dataclass(frozen=True)
class Peer:
    """A system that is compared.

    Attributes
    ----------
    name : str
        With its settings, e.g. ``"scDataset block 64 fetch 256"``.
    distribution : str
        Its name on PyPI, for `importlib.metadata.version`.
    form : {"csr", "dense", "tokens"}
        What its batches are.  csr: a SciPy matrix (B, genes).  dense: an array or tensor
        (B, genes).  tokens: a dict with ``expression`` (B, L), ``gene_indices`` (B, L),
        ``attention_mask`` (B, L).
    open : callable
        ``(path, batch_size, seed)`` to an iterable of batches.  All that is done once is done in
        the call (reading a matrix into memory, too); each ``iter`` of the result is an epoch.
    count : callable
        Cells of a batch; a batch counted is a batch in memory.
    is_epoch : bool
        Whether an epoch has every cell once.
    needs : tuple of str
        Modules that must be importable.
    """

    name: str
    distribution: str
    form: str
    open: Callable[[Path, int, int], Iterable[Any]]
    count: Callable[[Any], int]
    is_epoch: bool = True
    needs: tuple[str, ...] = ()


def installed(form: str | None = None) -> list[Peer]:
    """Return the peers whose libraries are here.

    Parameters
    ----------
    form : {"csr", "dense", "tokens"}, optional
        Only those of one form.
    """
    return [
        peer
        for peer in PEERS
        if form in (None, peer.form)
        and all(importlib.util.find_spec(module) is not None for module in peer.needs)
    ]


class _Epochs:
    """Makes a fresh generator for each ``iter``: the next epoch."""

    def __init__(self, epoch: Callable[[int], Iterator[Any]], seed: int) -> None:
        self._epoch = epoch
        self._seed = seed

    def __iter__(self) -> Iterator[Any]:
        seed, self._seed = self._seed, self._seed + 1
        return self._epoch(seed)


def _n_rows(batch: Any) -> int:
    return int(batch.shape[0])


def _read_h5ad(path: Path, **options: Any) -> Any:
    import anndata

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # names that are not unique, old encodings
        return anndata.read_h5ad(path, **options)


# --- row by row from the file


def _ann_loader(path: Path, batch_size: int, seed: int) -> Iterable[Any]:
    """Anndata's AnnLoader over a backed file; `.X` of its batch is what reads."""
    import torch
    from anndata.experimental import AnnLoader

    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        loader = AnnLoader(_read_h5ad(path, backed="r"), batch_size=batch_size, shuffle=True)

    def epoch(_seed: int) -> Iterator[Any]:
        for batch in loader:
            yield batch.X

    return _Epochs(epoch, seed)


class _H5Rows:
    """One row per ``__getitem__``, dense: the loop of most tutorials."""

    def __init__(self, path: Path) -> None:
        import h5py

        self._x = h5py.File(path)["X"]
        self._is_sparse = isinstance(self._x, h5py.Group)
        if self._is_sparse:
            kind = str(self._x.attrs.get("encoding-type", self._x.attrs.get("h5sparse_format")))
            if "csc" in kind:
                message = f"{path}: X is stored by columns; this loop reads rows"
                raise ValueError(message)
            shape = self._x.attrs.get("shape", self._x.attrs.get("h5sparse_shape"))
            self._indptr = self._x["indptr"][()]
            self._shape = tuple(int(n) for n in shape)
        else:
            self._shape = self._x.shape

    def __len__(self) -> int:
        return int(self._shape[0])

    def __getitem__(self, i: int) -> Any:
        import torch

        if not self._is_sparse:
            return torch.from_numpy(self._x[i].astype(np.float32))
        a, b = self._indptr[i], self._indptr[i + 1]
        row = np.zeros(self._shape[1], dtype=np.float32)
        row[self._x["indices"][a:b]] = self._x["data"][a:b]
        return torch.from_numpy(row)


def _h5py_rows(path: Path, batch_size: int, seed: int) -> Iterable[Any]:
    import torch

    generator = torch.Generator().manual_seed(seed)
    rows: Any = _H5Rows(path)
    loader: Iterable[Any] = torch.utils.data.DataLoader(
        rows, batch_size=batch_size, shuffle=True, generator=generator
    )
    return loader


# --- blocks from the file


class _BackedRows:
    """The backed matrix with the two methods that scDataset asks for."""

    def __init__(self, path: Path) -> None:
        self._matrix = _read_h5ad(path, backed="r").X

    def __len__(self) -> int:
        return int(self._matrix.shape[0])

    def __getitem__(self, rows: Any) -> Any:
        return _csr(self._matrix[rows])


def _sc_dataset(path: Path, batch_size: int, seed: int, *, block: int, fetch: int) -> Iterable[Any]:
    """ScDataset's block shuffle over the backed matrix, CSR batches."""
    from scdataset import BlockShuffling, scDataset
    from torch.utils.data import DataLoader

    collection = scDataset(
        _BackedRows(path),
        BlockShuffling(block_size=block),
        batch_size=batch_size,
        fetch_factor=fetch,
        seed=seed,
    )
    loader: Iterable[Any] = DataLoader(collection, batch_size=None)
    return loader


def _sc_dataset_dense(
    path: Path, batch_size: int, seed: int, *, block: int, fetch: int
) -> Iterable[Any]:
    """ScDataset over the backed AnnData with its own transform to dense."""
    from scdataset import BlockShuffling, scDataset
    from scdataset.transforms import adata_to_mindex
    from torch.utils.data import DataLoader

    collection = scDataset(
        _read_h5ad(path, backed="r"),
        BlockShuffling(block_size=block),
        batch_size=batch_size,
        fetch_factor=fetch,
        fetch_transform=adata_to_mindex,
        batch_transform=_only_x,
        seed=seed,
    )
    loader: Iterable[Any] = DataLoader(collection, batch_size=None)
    return loader


def _only_x(batch: Any) -> Any:
    return batch["X"]


# --- from memory


def _csr(matrix: Any) -> Any:
    import scipy.sparse as sp

    return sp.csr_matrix(matrix)  # arrays of a CSR matrix are shared, not copied


def _orders(n_cells: int, batch_size: int, seed: int) -> Iterator[Any]:
    order = np.random.default_rng(seed).permutation(n_cells)
    for start in range(0, n_cells, batch_size):
        yield order[start : start + batch_size]


def _scipy(path: Path, batch_size: int, seed: int, *, form: str) -> Iterable[Any]:
    """``X[idx]`` of a matrix in memory, one exact permutation an epoch."""
    x = _csr(_read_h5ad(path).X)

    def epoch(seed: int) -> Iterator[Any]:
        for rows in _orders(x.shape[0], batch_size, seed):
            batch = x[rows]
            yield batch if form == "csr" else _dense(batch, is_log=form == "log1p")

    return _Epochs(epoch, seed)


def _dense(batch: Any, *, is_log: bool) -> Any:
    if not is_log:
        return batch.toarray()
    import torch

    dense = torch.from_numpy(batch.toarray()).to(torch.float32)
    total = dense.sum(dim=1, keepdim=True)
    total[total == 0] = 1  # an empty cell stays zero
    return dense.mul_(TARGET_SUM / total).log1p_()


def _numpy_tokens(path: Path, batch_size: int, seed: int) -> Iterable[Any]:
    """Make tokens cell by cell in NumPy from a matrix in memory: normalise, log1p, top-k, pad."""
    x = _csr(_read_h5ad(path).X)
    gene_ids = np.arange(x.shape[1], dtype=np.int64) + N_SPECIAL

    def cell(i: int) -> tuple[Any, Any]:
        a, b = x.indptr[i], x.indptr[i + 1]
        values, ids = x.data[a:b].astype(np.float32), gene_ids[x.indices[a:b]]
        total = values.sum()
        if total > 0:
            values = np.log1p(values * np.float32(TARGET_SUM / total))
        if len(values) > MAX_GENES:
            best = np.argsort(-values, kind="stable")[:MAX_GENES]
            values, ids = values[best], ids[best]
        return values, ids

    def epoch(seed: int) -> Iterator[Any]:
        for rows in _orders(x.shape[0], batch_size, seed):
            cells = [cell(i) for i in rows]
            width = max(len(values) for values, _ in cells)
            expression = np.zeros((len(cells), width), dtype=np.float32)
            gene_indices = np.zeros((len(cells), width), dtype=np.int64)
            mask = np.zeros((len(cells), width), dtype=np.int64)
            for row, (values, ids) in enumerate(cells):
                expression[row, : len(values)] = values
                gene_indices[row, : len(ids)] = ids
                mask[row, : len(ids)] = 1
            yield {"expression": expression, "gene_indices": gene_indices, "attention_mask": mask}

    return _Epochs(epoch, seed)


def _n_tokens(batch: Any) -> int:
    return len(batch["expression"])


_IN_MEMORY = ("anndata", "scipy")
_SC_DATASET = ("scdataset", "anndata", "scipy", "torch")

PEERS: tuple[Peer, ...] = (
    Peer(
        "AnnLoader (backed)", "anndata", "dense", _ann_loader, _n_rows, needs=("anndata", "torch")
    ),
    Peer("h5py row by row", "h5py", "dense", _h5py_rows, _n_rows, needs=("h5py", "torch")),
    Peer(
        "scDataset block 4 fetch 16",
        "scDataset",
        "dense",
        partial(_sc_dataset_dense, block=4, fetch=16),
        _n_rows,
        needs=_SC_DATASET,
    ),
    Peer(
        "scDataset block 64 fetch 256",
        "scDataset",
        "csr",
        partial(_sc_dataset, block=64, fetch=256),
        _n_rows,
        needs=_SC_DATASET,
    ),
    Peer(
        "scDataset block 1024 fetch 256",
        "scDataset",
        "csr",
        partial(_sc_dataset, block=1024, fetch=256),
        _n_rows,
        needs=_SC_DATASET,
    ),
    Peer(
        "SciPy X[idx] in memory",
        "scipy",
        "csr",
        partial(_scipy, form="csr"),
        _n_rows,
        needs=_IN_MEMORY,
    ),
    Peer(
        "SciPy X[idx].toarray() in memory",
        "scipy",
        "dense",
        partial(_scipy, form="dense"),
        _n_rows,
        needs=_IN_MEMORY,
    ),
    Peer(
        "SciPy X[idx].toarray() in memory, norm + log1p in torch",
        "scipy",
        "dense",
        partial(_scipy, form="log1p"),
        _n_rows,
        needs=(*_IN_MEMORY, "torch"),
    ),
    Peer(
        "NumPy token collate in memory",
        "numpy",
        "tokens",
        _numpy_tokens,
        _n_tokens,
        needs=_IN_MEMORY,
    ),
)
