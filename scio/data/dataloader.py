"""Batches in order from the core's pipeline, and the same collation for a list of items."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from scio import _core
from scio._optional import require
from scio.data.dataset import FIRST_GENE_ID, CellDataset
from scio.data.gene_vocab import GeneVocab
from scio.errors import ScioWarning

FORMS = ("tokens", "dense", "csr")
_ARRAYS = {
    "tokens": ("expression", "gene_indices", "attention_mask", "n_genes", "index"),
    "dense": ("expression", "index"),
    "csr": ("data", "indices", "indptr", "index"),
}
_SHUFFLES: dict[Any, str] = {True: "block", False: "none", "block": "block", "exact": "exact"}
_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
DEFAULT_MAX_NBYTES = 512 << 20

Form = Literal["tokens", "dense", "csr"]


@dataclass(frozen=True, slots=True)
class Mixing:
    """How well batches are mixed with respect to a label.

    Attributes
    ----------
    entropy : float
        Mean entropy of the label within a batch, bits.
    perfect : float
        The same for a perfect shuffle of all cells, bits.
    ratio : float
        ``entropy / perfect``; 1 when the label has one value only.
    """

    entropy: float
    perfect: float

    @property
    def ratio(self) -> float:
        """Entropy against that of a perfect shuffle."""
        return self.entropy / self.perfect if self.perfect > 0 else 1.0


class CellDataLoader:
    """Iterate over a `CellDataset` in batches, decoded and collated by the core's threads.

    Parameters
    ----------
    dataset : CellDataset
    batch_size : int
        Cells per batch.
    num_workers : int
        Threads of the core that may work for this loader, at most the CPUs of the process; 0 does the
        work in the thread that iterates.  The batches never depend on it.
    shuffle : bool, "block" or "exact"
        True and "block": blocks of chunks in random order, cells permuted within a window as large as
        `max_memory` allows.  "exact": one permutation of all cells; everything is decoded before the
        first batch.  False: file order.
    drop_last : bool
        Full batches only.
    pin_memory : bool
        Copy batches to pinned memory; only with CUDA present, silently without effect elsewhere.
    seed : int
        Of the shuffle and of "random_expressed".
    max_genes : int, optional
        Width of the token batches; None: that of the dataset, else the longest cell of each batch.
    form : {"tokens", "dense", "csr"}
        What a batch holds, see Notes.
    sampler, batch_sampler : iterable, optional
        Positions in the dataset, or lists of them; take the place of `shuffle` (the second also of
        `batch_size` and `drop_last`).
    rank, world_size : int, optional
        None: from torch.distributed if initialised, then from RANK and WORLD_SIZE, else 0 and 1.
    max_memory : int or str, optional
        Hard cap of the loader's memory, bytes or "2GB"; None: 512 MiB.  A larger one mixes better.
    block_bytes : int, optional
        Decoded bytes of a block; None: chosen from the cap.
    on_error : {"raise", "skip"}
        "skip" leaves the cells of a broken chunk out and counts them.
    to : {"torch", "numpy"}
        Tensors or arrays.
    pad_value : float
        Fills ``expression`` behind the last gene of a cell.

    Raises
    ------
    ValueError
        For wrong arguments; a cap too small names the least that works.

    Notes
    -----
    "tokens": ``expression`` (B, L) float32, ``gene_indices`` (B, L) int64, ``attention_mask`` (B, L)
    int64 (1 real, 0 pad), ``n_genes`` (B,) int64.  "dense": ``expression`` (B, n_genes of the
    vocabulary) float32.  "csr": ``data`` float32, ``indices`` int32, ``indptr`` int64, ``shape``; its
    columns and those of "dense" are ``gene_vocab.genes``, without special tokens (column j is id j + 4).  All with ``index``
    (B,) int64, the global cell id, and ``metadata``: key to a list of labels or an array of numbers.

    Each ``iter`` is the next epoch unless `set_epoch` said which; the batches follow from files,
    settings, seed and epoch alone, whatever the threads.

    Examples
    --------
    >>> import scio
    >>> from scio.data import CellDataLoader, CellDataset
    >>> cells = CellDataset(scio.datasets.pbmc3k(), None)
    >>> loader = CellDataLoader(cells, batch_size=100, form="csr", to="numpy")
    >>> len(loader), next(iter(loader))["shape"]
    (27, (100, 32643))
    """

    def __init__(
        self,
        dataset: CellDataset,
        batch_size: int = 64,
        num_workers: int = 4,
        shuffle: bool | Literal["block", "exact"] = True,
        drop_last: bool = True,
        pin_memory: bool = True,
        *,
        seed: int = 0,
        max_genes: int | None = None,
        form: Form = "tokens",
        sampler: Iterable[int] | None = None,
        batch_sampler: Iterable[Sequence[int]] | None = None,
        rank: int | None = None,
        world_size: int | None = None,
        max_memory: int | str | None = None,
        block_bytes: int | None = None,
        on_error: Literal["raise", "skip"] = "raise",
        to: Literal["torch", "numpy"] = "torch",
        pad_value: float = 0.0,
    ) -> None:
        _check_choice("form", form, FORMS)
        _check_choice("on_error", on_error, ("raise", "skip"))
        _check_choice("to", to, ("torch", "numpy"))
        if shuffle not in _SHUFFLES:
            message = f"shuffle is True, False, 'block' or 'exact', not {shuffle!r}"
            raise ValueError(message)
        if sampler is not None and batch_sampler is not None:
            message = "give sampler or batch_sampler, not both"
            raise ValueError(message)
        _check_least("batch_size", batch_size, 1)
        _check_least("num_workers", num_workers, 0)
        if max_genes is not None:
            _check_least("max_genes", max_genes, 1)
        if len(dataset) == 0:
            message = "the dataset has no cells"
            raise ValueError(message)
        self.dataset = dataset
        self.batch_size = int(batch_size)
        self.num_workers = min(int(num_workers), _core.cpu_count())
        self.shuffle = shuffle
        self.drop_last = bool(drop_last)
        self.pin_memory = bool(pin_memory)
        self.seed = int(seed)
        self.max_genes = max_genes if max_genes is not None else dataset.max_genes
        self.form = form
        self.sampler = sampler
        self.batch_sampler = batch_sampler
        self.rank, self.world_size = _rank_and_world(rank, world_size)
        self.max_memory = _nbytes("max_memory", max_memory) or DEFAULT_MAX_NBYTES
        self.block_bytes = _nbytes("block_bytes", block_bytes)
        self.on_error = on_error
        self.to = to
        self.pad_value = float(pad_value)
        self.stats: dict[str, float] = {}
        self._epoch = 0
        self._lengths: dict[int, int] = {}
        if not self._is_given:
            self._make(0)  # a cap that is too small is reported here, not at the first batch

    @property
    def _is_given(self) -> bool:
        return self.sampler is not None or self.batch_sampler is not None

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next ``iter``; the one after it is ``epoch + 1``."""
        _check_least("epoch", epoch, 0)
        self._epoch = int(epoch)

    def __len__(self) -> int:
        """Number of batches of this rank in the next epoch."""
        if self._is_given:
            sized: Any = self.batch_sampler if self.batch_sampler is not None else self.sampler
            if self.batch_sampler is not None:
                return len(sized)
            whole, rest = divmod(len(sized), self.batch_size)
            return whole + (rest > 0 and not self.drop_last)
        if self._epoch not in self._lengths:
            self._lengths = {self._epoch: self._make(self._epoch).n_batches}
        return self._lengths[self._epoch]

    def _make(self, epoch: int) -> _core.Loader:
        """Make the plan of an epoch; nothing is read yet."""
        store = self.dataset.store
        arguments = self.dataset.collate_arguments()
        arguments.update(seed=self.seed, epoch=epoch, max_genes=self.max_genes or 0)
        shuffle = "given" if self._is_given else _SHUFFLES[self.shuffle]
        given = self._given_batches() if self._is_given else (None, None)
        return _core.Loader(
            store.core_matrices(),
            store.gene_maps,
            cells=None if self.dataset.has_all_cells else self.dataset.cells,
            form=self.form,
            first_id=FIRST_GENE_ID,
            pad_value=self.pad_value,
            batch_size=self.batch_size,
            drop_last=self.drop_last,
            shuffle=shuffle,
            rank=self.rank,
            world_size=self.world_size,
            max_memory=self.max_memory,
            block_bytes=self.block_bytes,
            threads=self.num_workers,
            prefetch=0,
            skip_errors=self.on_error == "skip",
            first_batch=0,
            given_cells=given[0],
            given_offsets=given[1],
            **arguments,
        )

    def _given_batches(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Cells and offsets of the batches that a sampler asks for."""
        if self.batch_sampler is not None:
            batches = [np.asarray(list(b), dtype=np.int64) for b in self.batch_sampler]
        else:
            assert self.sampler is not None
            positions = np.fromiter(self.sampler, dtype=np.int64)
            self._check_positions(positions)
            n_whole = len(positions) // self.batch_size * self.batch_size
            if self.drop_last:
                positions = positions[:n_whole]
            batches = np.split(positions, range(self.batch_size, len(positions), self.batch_size))
        cells = np.concatenate(batches) if batches else np.empty(0, dtype=np.int64)
        self._check_positions(cells)
        offsets = np.cumsum([0] + [len(b) for b in batches], dtype=np.int64)
        return np.ascontiguousarray(self.dataset.cells[cells]), offsets

    def _check_positions(self, positions: NDArray[np.int64]) -> None:
        n_cells = len(self.dataset)
        if len(positions) and not 0 <= positions.min() <= positions.max() < n_cells:
            wrong = positions.min() if positions.min() < 0 else positions.max()
            message = f"a sampler gave position {wrong}: the dataset has {n_cells} cells"
            raise IndexError(message)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Hand out the batches of the next epoch."""
        epoch, self._epoch = self._epoch, self._epoch + 1
        loader = self._make(epoch)
        try:
            while (batch := loader.next()) is not None:
                self.stats = _with_rate(loader.stats())
                yield self._finish(batch)
            self.stats = _with_rate(loader.stats())
            if self.stats["skipped_cells"]:
                warnings.warn(
                    f"{int(self.stats['skipped_cells'])} cells of broken chunks were skipped",
                    ScioWarning,
                    stacklevel=2,
                )
        finally:
            loader.close()

    def _finish(self, batch: dict[str, Any]) -> dict[str, Any]:
        out = {name: batch[name] for name in _ARRAYS[self.form]}
        if batch.get("is_padding") is not None:
            out["is_padding"] = batch["is_padding"]
        if self.to == "torch":
            out = _tensors(out, pin=self.pin_memory)
        if self.form == "csr":
            out["shape"] = batch["shape"]
        cells = batch["index"]
        store = self.dataset.store
        out["metadata"] = {key: store.column(key).take(cells) for key in store.obs_keys}
        return out

    def mixing(self, key: str) -> Mixing:
        """Measure from the plan alone how well the batches mix a label.

        Parameters
        ----------
        key : str
            obs column; nothing else is read.

        Returns
        -------
        Mixing
            Of the next epoch.
        """
        cells, offsets = self._make(self._epoch).plan()
        codes = self.dataset.store.column(key).codes()
        n_labels = int(codes.max()) + 2
        shuffled = cells[_core.permutation(self.seed, 0x313, len(cells))]
        return Mixing(
            _mean_entropy(codes[cells] + 1, offsets, n_labels),
            _mean_entropy(codes[shuffled] + 1, offsets, n_labels),
        )

    def __repr__(self) -> str:
        return (
            f"CellDataLoader({len(self):,} batches of {self.batch_size} {self.form} from "
            f"{len(self.dataset):,} cells, {self.num_workers} threads, shuffle={self.shuffle!r})"
        )


def _with_rate(stats: dict[str, float]) -> dict[str, float]:
    return {**stats, "cells_per_second": stats["cells"] / max(stats["seconds"], 1e-9)}


def _tensors(arrays: dict[str, Any], *, pin: bool) -> dict[str, Any]:
    torch = require("torch", "CellDataLoader(to='torch')")
    out = {name: torch.from_numpy(array) for name, array in arrays.items()}
    if pin and torch.cuda.is_available():
        out = {name: tensor.pin_memory() for name, tensor in out.items()}
    return out


def _mean_entropy(codes: NDArray[np.int64], offsets: NDArray[np.int64], n_labels: int) -> float:
    """Mean over batches of the entropy of the codes within a batch, bits."""
    total = 0.0
    n_batches = len(offsets) - 1
    for a, b in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        counts = np.bincount(codes[a:b], minlength=n_labels)
        shares = counts[counts > 0] / max(1, b - a)
        total -= float((shares * np.log2(shares)).sum())
    return total / max(1, n_batches)


def _check_choice(name: str, value: Any, allowed: Sequence[str]) -> None:
    if value not in allowed:
        message = f"{name} is one of {tuple(allowed)}, not {value!r}"
        raise ValueError(message)


def _check_least(name: str, value: int, least: int) -> None:
    if value < least:
        message = f"{name} is at least {least}, not {value!r}"
        raise ValueError(message)


def _nbytes(name: str, value: int | str | None) -> int:
    """Bytes of 1_000_000, "500MB", "2 GiB"; 0 for None, which lets the core choose."""
    if value is None:
        return 0
    if isinstance(value, str):
        text = value.strip().upper()
        digits = text.rstrip("KMGIB ")
        unit = text[len(digits) :].strip()
        try:
            nbytes = float(digits) * _UNITS[unit]
        except (ValueError, KeyError):
            message = f"{name} is a number of bytes or a text like '500MB' or '2GiB', not {value!r}"
            raise ValueError(message) from None
    else:
        nbytes = float(value)
    if not nbytes >= 1 or math.isinf(nbytes):
        message = f"{name} is above 0, not {value!r}"
        raise ValueError(message)
    return int(nbytes)


def _rank_and_world(rank: int | None, world_size: int | None) -> tuple[int, int]:
    if (rank is None) != (world_size is None):
        message = "give rank and world_size together, or neither"
        raise ValueError(message)
    if rank is None or world_size is None:
        rank, world_size = _environment_rank()
    if world_size < 1 or not 0 <= rank < world_size:
        message = f"rank lies in [0, world_size), not rank={rank}, world_size={world_size}"
        raise ValueError(message)
    return int(rank), int(world_size)


def _environment_rank() -> tuple[int, int]:
    import sys

    distributed = getattr(sys.modules.get("torch"), "distributed", None)
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def collate_cells(
    batch: Sequence[dict[str, Any]], pad_value: float = 0.0, *, max_genes: int | None = None
) -> dict[str, Any]:
    """Put items of a `CellDataset` together: the ``collate_fn`` of torch's own DataLoader.

    Parameters
    ----------
    batch : list of dict
        Items.
    pad_value : float
        Fills ``expression`` behind the last gene of a cell.
    max_genes : int, optional
        Width; None: the longest item.

    Returns
    -------
    dict
        A token batch as `CellDataLoader` gives it: tensors when torch is installed, else arrays.

    Raises
    ------
    ValueError
        If the list is empty, or an item is longer than `max_genes`.
    """
    if not batch:
        message = "there is no item to collate"
        raise ValueError(message)
    lengths = np.array([item["n_genes"] for item in batch], dtype=np.int64)
    longest = int(lengths.max())
    width = longest if max_genes is None else int(max_genes)
    if longest > width:
        message = (
            f"an item has {longest} genes, max_genes is {width}: give max_genes to the dataset"
        )
        raise ValueError(message)
    shape = (len(batch), width)
    expression = np.full(shape, pad_value, dtype=np.float32)
    gene_indices = np.full(shape, GeneVocab.pad_token_id, dtype=np.int64)
    for row, item in enumerate(batch):
        expression[row, : item["n_genes"]] = item["expression"]
        gene_indices[row, : item["n_genes"]] = item["gene_indices"]
    arrays = {
        "expression": expression,
        "gene_indices": gene_indices,
        "attention_mask": (np.arange(width) < lengths[:, None]).astype(np.int64),
        "n_genes": lengths,
        "index": np.array([item["index"] for item in batch], dtype=np.int64),
    }
    is_torch = type(batch[0]["expression"]).__module__.startswith("torch")
    out: dict[str, Any] = _tensors(arrays, pin=False) if is_torch else dict(arrays)
    keys = batch[0]["metadata"].keys()
    out["metadata"] = {key: _column([item["metadata"][key] for item in batch]) for key in keys}
    return out


def _column(values: list[Any]) -> Any:
    is_number = all(isinstance(v, (int, float)) for v in values)
    return np.array(values) if is_number else values
