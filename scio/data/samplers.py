"""Which cells come next: balanced by label, whole shards to ranks, or drawn by weight.

Every sampler is a pure function of its settings, the epoch and the rank: no global generator, no
hidden stream, so that any place of any epoch can be made again without what came before it.
"""

from __future__ import annotations

import heapq
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from scio import _core
from scio.data._arguments import check_choice, check_least
from scio.data._sampling import (
    EpochSampler,
    PositionSampler,
    labels_of,
    mix,
    permutations,
    uniforms,
)
from scio.data._state import digest
from scio.data.anndata_store import AnnDataStore
from scio.data.dataset import CellDataset
from scio.errors import ScioWarning

__all__ = [
    "BatchAwareSampler",
    "DistributedShardSampler",
    "WeightedCellSampler",
]

# Streams of the generator, one per purpose, so that equal seeds do not give related draws.
_STREAM_LABELS, _STREAM_PASSES, _STREAM_SHARDS, _STREAM_WEIGHTS = 0x5A01, 0x5A02, 0x5A03, 0x5A04
_LEAST_CHUNK = 1 << 18  # slots planned at once: enough that NumPy's overhead does not count
_UNEVEN = 0.1  # share of padding or loss from which a warning is due


class BatchAwareSampler(EpochSampler[list[int]]):
    """Batches in which every label has the same number of cells, or one more.

    Parameters
    ----------
    dataset : CellDataset
    batch_key : str
        obs column of the labels; it need not be among the dataset's ``obs_keys``.  Cells without a
        label are a group of their own.
    batch_size : int
        Cells per batch.  Labels that do not all fit into a batch take turns.
    shuffle : bool
        Cells of a label in a new order every time they are drawn, labels in a new order every epoch.
        False: both as in the dataset.
    seed : int
    drop_last : bool
        Leave out a last batch that is not full.  In "cycle" every batch is full either way.
    exhausted : {"cycle", "stop"}
        What happens when a label has no cells left: "cycle" draws them again, reshuffled, until every
        cell of the data was seen; "stop" ends the epoch when the smallest label is used up.
    num_replicas, rank : int, optional
        None: from torch.distributed if initialised, then from WORLD_SIZE and RANK, else 1 and 0.

    Raises
    ------
    KeyError
        If there is no such column; near names are offered.
    ValueError
        For wrong arguments, or when "stop" leaves no batch.

    Warns
    -----
    ScioWarning
        Once, with their number, when cells have no label; when there is one label only.

    Notes
    -----
    Works as ``batch_sampler`` of `CellDataLoader` and of torch's DataLoader.
    The labels stand in a circle that is walked step by step: any run of consecutive steps, a batch or
    an epoch, holds counts that differ by at most one.  Each rank walks from a place of its own and
    takes every ``num_replicas``-th cell of a label, so that ranks share no cell within a round.
    All ranks have the same number of batches.  An epoch of "cycle" has about (number of labels) x
    (cells of the largest label) cells; it is planned in pieces of the size of the data.

    Examples
    --------
    >>> from scio.data import BatchAwareSampler, CellDataLoader
    >>> sampler = BatchAwareSampler(cells, "donor", 64)  # doctest: +SKIP
    >>> loader = CellDataLoader(cells, batch_sampler=sampler)  # doctest: +SKIP
    """

    def __init__(
        self,
        dataset: CellDataset,
        batch_key: str = "batch",
        batch_size: int = 64,
        *,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = True,
        exhausted: Literal["cycle", "stop"] = "cycle",
        num_replicas: int | None = None,
        rank: int | None = None,
    ) -> None:
        super().__init__(seed, num_replicas, rank)
        check_least("batch_size", batch_size, 1)
        check_choice("exhausted", exhausted, ("cycle", "stop"))
        self.batch_key = batch_key
        self.batch_size = int(batch_size)
        self.shuffle = bool(shuffle)
        self.drop_last = bool(drop_last)
        self.exhausted = exhausted
        labels = labels_of(dataset, batch_key)
        self._digest = digest(labels)
        self._counts = np.bincount(labels).astype(np.int64)
        self._starts = np.cumsum(self._counts) - self._counts
        self._members = np.argsort(labels, kind="stable")  # positions, label after label
        self._n_slots, self._n_batches = self._lengths()

    @property
    def n_labels(self) -> int:
        """Labels, the group of cells without one included."""
        return len(self._counts)

    def _lengths(self) -> tuple[int, int]:
        """Cells and batches of this rank per epoch; the same on every rank."""
        if self.exhausted == "cycle":
            rounds = -(-int(self._counts.max()) // self.num_replicas)
            n_batches = -(-rounds * self.n_labels // self.batch_size)
            return n_batches * self.batch_size, n_batches
        smallest = int(self._counts.min())
        n_slots = smallest // self.num_replicas * self.n_labels
        n_batches = n_slots // self.batch_size if self.drop_last else -(-n_slots // self.batch_size)
        if n_batches == 0:
            message = (
                f"exhausted='stop' gives no batch: the smallest of {self.n_labels} labels of "
                f"{self.batch_key!r} has {smallest} cells, batch_size is {self.batch_size}, "
                f"num_replicas {self.num_replicas}; take exhausted='cycle' or a smaller batch_size"
            )
            raise ValueError(message)
        return min(n_slots, n_batches * self.batch_size), n_batches

    def __len__(self) -> int:
        """Batches of this rank per epoch."""
        return self._n_batches

    def batches(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return a whole epoch of this rank at once; the state does not move.

        Returns
        -------
        positions : ndarray, shape (n_slots,), int64
            Positions in the dataset, batch after batch.
        offsets : ndarray, shape (len(self) + 1,), int64
            Where each batch begins.
        """
        offsets = np.minimum(
            np.arange(self._n_batches + 1, dtype=np.int64) * self.batch_size, self._n_slots
        )
        positions: NDArray[np.int64] = np.concatenate(list(self._pieces(epoch, 0)))
        return positions, offsets

    def _steps(self, epoch: int, place: int) -> Iterator[list[int]]:
        for piece in self._pieces(epoch, place):
            positions = piece.tolist()
            for a in range(0, len(positions), self.batch_size):
                yield positions[a : a + self.batch_size]

    def _pieces(self, epoch: int, place: int) -> Iterator[NDArray[np.int64]]:
        """Positions from batch `place` on, some whole batches at a time."""
        n_planned = max(len(self._members), _LEAST_CHUNK) // self.num_replicas
        step = max(self.batch_size, n_planned // self.batch_size * self.batch_size)
        for start in range(place * self.batch_size, self._n_slots, step):
            yield self._positions(epoch, start, min(start + step, self._n_slots))

    def _positions(self, epoch: int, start: int, stop: int) -> NDArray[np.int64]:
        """Positions of the slots [start, stop) of this rank's walk around the labels."""
        n_labels, first = self.n_labels, self.rank * self.batch_size % self.n_labels
        turn, seat = np.divmod(np.arange(first + start, first + stop, dtype=np.int64), n_labels)
        label = seat
        if self.shuffle:
            stream = _core.philox_u64(self.seed, _STREAM_LABELS, epoch)
            label = _core.permutation(self.seed, stream, n_labels)[seat]
        # The seats before `first` are reached one turn later: their first draw is in turn 1.
        draw = (turn - (seat < first)) * self.num_replicas + self.rank
        again, rank_in_label = np.divmod(draw, self._counts[label])
        if self.shuffle:
            rank_in_label = self._reshuffled(epoch, label, again, rank_in_label, draw)
        positions: NDArray[np.int64] = self._members[self._starts[label] + rank_in_label]
        return positions

    def _reshuffled(
        self,
        epoch: int,
        label: NDArray[np.int64],
        again: NDArray[np.int64],
        nth: NDArray[np.int64],
        draw: NDArray[np.int64],
    ) -> NDArray[np.int64]:
        """Replace "the nth cell of the label" by the nth of a permutation per label and pass."""
        first_pass = int(draw.min()) // self._counts
        n_passes = int(draw.max()) // self._counts - first_pass + 1
        first_block = np.cumsum(n_passes) - n_passes
        block_label = np.repeat(np.arange(self.n_labels), n_passes)
        block_pass = np.arange(len(block_label)) + np.repeat(first_pass - first_block, n_passes)
        sizes = np.repeat(self._counts, n_passes)
        key = np.uint64(_core.philox_u64(self.seed, _STREAM_PASSES, epoch))
        keys = mix(mix(block_label.astype(np.uint64) + key) + block_pass.astype(np.uint64))
        shuffled = permutations(keys, sizes)
        starts = np.cumsum(sizes) - sizes
        found: NDArray[np.int64] = shuffled[
            starts[first_block[label] + again - first_pass[label]] + nth
        ]
        return found

    def _settings(self) -> dict[str, Any]:
        return {
            "batch_key": self.batch_key,
            "batch_size": self.batch_size,
            "shuffle": self.shuffle,
            "seed": self.seed,
            "drop_last": self.drop_last,
            "exhausted": self.exhausted,
            "num_replicas": self.num_replicas,
            "n_cells": len(self._members),
            "labels": self._digest,
        }

    def __repr__(self) -> str:
        return (
            f"BatchAwareSampler({len(self):,} batches of {self.batch_size}, {self.n_labels} labels "
            f"of {self.batch_key!r}, exhausted={self.exhausted!r})"
        )


class DistributedShardSampler(PositionSampler):
    """Whole shards to ranks: a rank reads its own files and no others.

    Parameters
    ----------
    store : AnnDataStore, CellDataset or list of int
        Its sources are the shards; or the number of cells of each shard.
    num_replicas, rank : int, optional
        None: from torch.distributed if initialised, then from WORLD_SIZE and RANK, else 1 and 0.
    shuffle : bool
        The cells of a rank in one new permutation every epoch.  False: shard after shard.
    seed : int
    drop_last : bool
        True: every rank gives as many cells as the one that has fewest.  False: as many as the one that
        has most; the others begin again, and `is_padding` tells those cells.

    Raises
    ------
    ValueError
        If there are fewer shards with cells than ranks.

    Warns
    -----
    ScioWarning
        If more than a tenth of the cells would be repeated or left out because shards are uneven.

    Notes
    -----
    Works as ``sampler`` of torch's DataLoader and of `CellDataLoader`, under DDP and FSDP.
    The largest shard goes first, each to the rank that has fewest cells so far (the LPT rule of Graham,
    "Bounds on multiprocessing timing anomalies", 1969, doi:10.1137/0117039), ties by number.
    A rank keeps its shards in every epoch, so that a node caches only its own.
    """

    def __init__(
        self,
        store: AnnDataStore | CellDataset | Sequence[int],
        num_replicas: int | None = None,
        rank: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
    ) -> None:
        super().__init__(seed, num_replicas, rank)
        self.shuffle = bool(shuffle)
        self.drop_last = bool(drop_last)
        self._sizes = _shard_sizes(store)
        hands = _deal(self._sizes, self.num_replicas)
        totals = [int(self._sizes[hand].sum()) for hand in hands]
        self.shards = hands[self.rank]
        self._n_own = totals[self.rank]
        self._n_steps = min(totals) if self.drop_last else max(totals)
        self._warn_if_uneven(sum(totals))

    def _warn_if_uneven(self, n_cells: int) -> None:
        lost = n_cells - self._n_steps * self.num_replicas
        if abs(lost) > _UNEVEN * n_cells:
            what = f"{lost} cells are left out" if lost > 0 else f"{-lost} cells come twice"
            warnings.warn(
                f"{what} in every epoch of {n_cells}, because {len(self._sizes)} shards of "
                f"{self._sizes.min()} to {self._sizes.max()} cells cannot be dealt evenly to "
                f"{self.num_replicas} ranks: make more and smaller shards",
                ScioWarning,
                stacklevel=3,
            )

    def __len__(self) -> int:
        """Cells of this rank per epoch, the same on every rank."""
        return self._n_steps

    @property
    def n_padding(self) -> int:
        """Cells of this rank that come a second time in an epoch."""
        return max(0, self._n_steps - self._n_own)

    def is_padding(self, place: int | NDArray[np.int64]) -> Any:
        """Tell whether the cell at a place of this rank's epoch is a repetition.

        Parameters
        ----------
        place : int or int array
            Counted from 0 in the order in which the cells come.

        Returns
        -------
        bool or bool ndarray
        """
        return place >= self._n_own

    def positions(self, epoch: int) -> NDArray[np.int64]:
        """Return a whole epoch of this rank at once; the state does not move."""
        starts = np.cumsum(self._sizes) - self._sizes
        own = np.concatenate(
            [np.arange(starts[s], starts[s] + self._sizes[s], dtype=np.int64) for s in self.shards]
        )
        if self.shuffle:
            stream = _core.philox_u64(self.seed, _STREAM_SHARDS, epoch)
            own = own[_core.permutation(self.seed, stream ^ self.rank, len(own))]
        return np.resize(own, self._n_steps)  # begins again where it is too short

    def _settings(self) -> dict[str, Any]:
        return {
            "shuffle": self.shuffle,
            "seed": self.seed,
            "drop_last": self.drop_last,
            "num_replicas": self.num_replicas,
            "n_cells": int(self._sizes.sum()),
            "n_shards": len(self._sizes),
            "shards": digest(self._sizes),
        }

    def __repr__(self) -> str:
        return (
            f"DistributedShardSampler({len(self):,} cells, {len(self.shards)} of "
            f"{len(self._sizes)} shards, rank {self.rank} of {self.num_replicas})"
        )


class WeightedCellSampler(PositionSampler):
    """Cells drawn at random, each with a probability proportional to its weight.

    Parameters
    ----------
    dataset : CellDataset
    weights : array, shape (len(dataset),), optional
        Finite, at least 0, not all 0.
    n_samples : int, optional
        Draws per epoch over all ranks; every rank gets ``n_samples // num_replicas``.  None: as many as
        the dataset has cells, or, without replacement, cells of weight above 0.
    by : str, optional
        In place of `weights`: an obs column; a cell weighs one over the number of cells of its label,
        so that every label is drawn equally often.
    replacement : bool
        Whether a cell may come again within an epoch.
    seed : int
    num_replicas, rank : int, optional
        None: from torch.distributed if initialised, then from WORLD_SIZE and RANK, else 1 and 0.

    Raises
    ------
    ValueError
        For wrong arguments; a wrong weight is named with its position.
    KeyError
        If there is no column `by`; near names are offered.

    Notes
    -----
    The draws of an epoch form one sequence, of which rank r takes every ``num_replicas``-th from r on.
    With replacement: a uniform number is looked up in the cumulated weights.  Without: each cell gets
    the key ln(u) / weight and the largest keys win, in the order of the keys (Efraimidis and Spirakis,
    "Weighted random sampling with a reservoir", 2006, doi:10.1016/j.ipl.2005.11.003).
    """

    def __init__(
        self,
        dataset: CellDataset,
        weights: Any = None,
        n_samples: int | None = None,
        *,
        by: str | None = None,
        replacement: bool = True,
        seed: int = 0,
        num_replicas: int | None = None,
        rank: int | None = None,
    ) -> None:
        super().__init__(seed, num_replicas, rank)
        if (weights is None) == (by is None):
            message = "give either weights or by"
            raise ValueError(message)
        if by is not None:
            labels = labels_of(dataset, by)
            weights = 1.0 / np.bincount(labels)[labels]
        self._weights = _checked_weights(weights, len(dataset))
        self.replacement = bool(replacement)
        n_drawable = int(np.count_nonzero(self._weights))
        if n_samples is None:
            n_samples = len(dataset) if self.replacement else n_drawable
        self.n_samples = int(n_samples)
        if self.n_samples < self.num_replicas:
            message = f"n_samples is at least 1 per rank ({self.num_replicas}), not {n_samples!r}"
            raise ValueError(message)
        if not self.replacement and self.n_samples > n_drawable:
            message = (
                f"n_samples={self.n_samples} without replacement, but only {n_drawable} cells have "
                "a weight above 0"
            )
            raise ValueError(message)

    def __len__(self) -> int:
        """Draws of this rank per epoch."""
        return self.n_samples // self.num_replicas

    def positions(self, epoch: int) -> NDArray[np.int64]:
        """Return a whole epoch of this rank at once; the state does not move."""
        n_draws = len(self) * self.num_replicas
        key = _core.philox_u64(self.seed, _STREAM_WEIGHTS, epoch)
        if self.replacement:
            cumulated = np.cumsum(self._weights)
            drawn = uniforms(key, n_draws)[self.rank :: self.num_replicas] * cumulated[-1]
            last = int(np.flatnonzero(self._weights)[-1])  # a product may round up to the total
            found: NDArray[np.int64] = np.searchsorted(cumulated, drawn, side="right").clip(
                max=last
            )
            return found
        drawable = np.flatnonzero(self._weights)
        keys = np.log(uniforms(key, len(drawable))) / self._weights[drawable]
        order = np.argsort(-keys, kind="stable")[:n_draws]
        positions: NDArray[np.int64] = drawable[order[self.rank :: self.num_replicas]]
        return positions

    def _settings(self) -> dict[str, Any]:
        return {
            "n_samples": self.n_samples,
            "replacement": self.replacement,
            "seed": self.seed,
            "num_replicas": self.num_replicas,
            "n_cells": len(self._weights),
            "weights": digest(self._weights),
        }

    def __repr__(self) -> str:
        return (
            f"WeightedCellSampler({len(self):,} draws from {len(self._weights):,} cells, "
            f"replacement={self.replacement})"
        )


# --- shards, weights


def _shard_sizes(store: AnnDataStore | CellDataset | Sequence[int]) -> NDArray[np.int64]:
    if isinstance(store, CellDataset):
        bounds = np.searchsorted(store.cells, store.store.starts)
        return np.diff(bounds).astype(np.int64)
    if isinstance(store, AnnDataStore):
        return np.diff(store.starts)
    sizes = np.asarray(store)
    if sizes.ndim != 1 or sizes.dtype.kind not in "iu" or len(sizes) == 0 or sizes.min() < 0:
        message = (
            "the shards come as an AnnDataStore, a CellDataset or a list of their numbers of cells, "
            f"not {store!r}"
        )
        raise ValueError(message)
    return sizes.astype(np.int64)


def _deal(sizes: NDArray[np.int64], n_ranks: int) -> list[list[int]]:
    """Shards of each rank, ascending: the largest first, to the rank with fewest cells."""
    n_used = int(np.count_nonzero(sizes))
    if n_used < n_ranks:
        message = (
            f"{n_used} shards with cells cannot be dealt whole to {n_ranks} ranks: make at least as "
            "many shards as ranks, or let CellDataLoader deal blocks of cells"
        )
        raise ValueError(message)
    hands: list[list[int]] = [[] for _ in range(n_ranks)]
    heap = [(0, rank) for rank in range(n_ranks)]
    for shard in np.argsort(-sizes, kind="stable")[:n_used].tolist():
        n_cells, rank = heap[0]
        hands[rank].append(shard)
        heapq.heapreplace(heap, (n_cells + int(sizes[shard]), rank))
    return [sorted(hand) for hand in hands]


def _checked_weights(weights: Any, n_cells: int) -> NDArray[np.float64]:
    array = np.asarray(weights, dtype=np.float64)
    if array.shape != (n_cells,):
        message = f"weights have shape {array.shape}, the dataset has {n_cells} cells"
        raise ValueError(message)
    wrong = np.flatnonzero(~(np.isfinite(array) & (array >= 0)))
    if len(wrong):
        message = (
            f"weight {wrong[0]} is {array[wrong[0]]}; weights are finite and at least 0 "
            f"({len(wrong)} are not)"
        )
        raise ValueError(message)
    if not array.any():
        message = "all weights are 0"
        raise ValueError(message)
    return array
