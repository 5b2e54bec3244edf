"""Which cells come next: balanced by label, whole shards to ranks, or drawn by weight.

Every sampler is a pure function of its settings, the epoch and the rank: no global generator, no
hidden stream, so that any place of any epoch can be made again without what came before it.
Randomness is the core's Philox; where many small permutations are needed at once, Philox makes a key
and the finalizer of SplitMix64 spreads it over counters (Steele et al., "Fast splittable pseudorandom
number generators", OOPSLA 2014, doi:10.1145/2660193.2660195).
"""

from __future__ import annotations

import hashlib
import heapq
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from scio import _core
from scio.data.anndata_store import AnnDataStore
from scio.data.dataloader import _check_choice, _check_least, _rank_and_world
from scio.data.dataset import CellDataset
from scio.errors import ScioWarning

__all__ = [
    "BatchAwareSampler",
    "DistributedShardSampler",
    "WeightedCellSampler",
    "max_label_deviation",
]

# Streams of the generator, one per purpose, so that equal seeds do not give related draws.
_STREAM_LABELS, _STREAM_PASSES, _STREAM_SHARDS, _STREAM_WEIGHTS = 0x5A01, 0x5A02, 0x5A03, 0x5A04
_LEAST_CHUNK = 1 << 18  # slots planned at once: enough that NumPy's overhead does not count
_N_LISTED = 1 << 16  # positions turned into Python numbers at once
_UNEVEN = 0.1  # share of padding or loss from which a warning is due

_Step = TypeVar("_Step")


class _EpochSampler(Generic[_Step]):
    """Epochs, places and states, the same for every sampler; a step is what one ``next`` gives.

    Each iterator is the next epoch unless `set_epoch` said which.  It counts from its first step on:
    torch's DataLoader makes iterators that it never uses.
    """

    def __init__(self, seed: int, num_replicas: int | None, rank: int | None) -> None:
        self.seed = int(seed)
        _core.philox_u64(self.seed, 0, 0)  # refuses what is no uint64
        self.rank, self.num_replicas = _rank_and_world(rank, num_replicas)
        self._next = (0, 0)  # epoch and place where the next iterator begins
        self._cursor: list[int] | None = None  # epoch and place of the newest unfinished iterator

    def _steps(self, epoch: int, place: int) -> Iterator[_Step]:
        raise NotImplementedError

    def _settings(self) -> dict[str, Any]:
        """What fixes the steps, besides the rank: one rank's state serves all."""
        raise NotImplementedError

    def __len__(self) -> int:
        raise NotImplementedError

    def __iter__(self) -> Iterator[_Step]:
        epoch, place = self._next
        cursor = [epoch, place]
        self._next, self._cursor = (epoch + 1, 0), cursor
        for step in self._steps(epoch, place):
            cursor[1] += 1
            yield step
        if self._cursor is cursor:
            self._cursor = None

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next ``iter``; the one after it is ``epoch + 1``.

        The epoch of a state that was just loaded keeps its place: trainers call `set_epoch` on resume.
        """
        _check_least("epoch", epoch, 0)
        if int(epoch) != self._next[0]:
            self._next = (int(epoch), 0)
        self._cursor = None

    def state_dict(self) -> dict[str, Any]:
        """Return epoch, place and settings: plain numbers and texts, the same keys at every step."""
        epoch, place = self._next if self._cursor is None else self._cursor
        return {
            "sampler": type(self).__name__,
            "epoch": epoch,
            "place": place,
            "settings": self._settings(),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue where a state was taken: the next ``iter`` gives the rest of that epoch.

        Parameters
        ----------
        state_dict : mapping
            Of `state_dict`, from any rank.

        Raises
        ------
        ValueError
            If it was taken with other settings or other data; each difference is named.
        """
        own = self.state_dict()
        if not isinstance(state_dict, Mapping) or set(state_dict) != set(own):
            found = sorted(state_dict) if isinstance(state_dict, Mapping) else type(state_dict).__name__
            message = f"a state of {own['sampler']} has the keys {sorted(own)}, not {found}"
            raise ValueError(message)
        differences = _differences(
            {"sampler": state_dict["sampler"], **state_dict["settings"]},
            {"sampler": own["sampler"], **own["settings"]},
        )
        if differences:
            message = f"the state belongs to another sampler: {'; '.join(differences)}"
            raise ValueError(message)
        epoch, place = int(state_dict["epoch"]), int(state_dict["place"])
        if epoch < 0 or not 0 <= place <= len(self):
            message = (
                f"the state is at epoch {epoch}, place {place}; an epoch has {len(self)} places"
            )
            raise ValueError(message)
        self._next, self._cursor = (epoch, place), None


def _differences(theirs: Mapping[str, Any], own: Mapping[str, Any]) -> list[str]:
    return [
        f"{key} is {theirs.get(key)!r} in the state, {own.get(key)!r} here"
        for key in dict.fromkeys([*own, *theirs])
        if theirs.get(key) != own.get(key)
    ]


class BatchAwareSampler(_EpochSampler[list[int]]):
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
        _check_least("batch_size", batch_size, 1)
        _check_choice("exhausted", exhausted, ("cycle", "stop"))
        self.batch_key = batch_key
        self.batch_size = int(batch_size)
        self.shuffle = bool(shuffle)
        self.drop_last = bool(drop_last)
        self.exhausted = exhausted
        labels = _labels(dataset, batch_key)
        self._digest = _digest(labels)
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
        return np.concatenate(list(self._pieces(epoch, 0))), offsets

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
        return self._members[self._starts[label] + rank_in_label]

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
        keys = _mix(_mix(block_label.astype(np.uint64) + key) + block_pass.astype(np.uint64))
        shuffled = _permutations(keys, sizes)
        starts = np.cumsum(sizes) - sizes
        return shuffled[starts[first_block[label] + again - first_pass[label]] + nth]

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


class _PositionSampler(_EpochSampler[int]):
    """A sampler whose steps are positions in the dataset, one at a time."""

    def positions(self, epoch: int) -> NDArray[np.int64]:
        """Return a whole epoch of this rank at once; the state does not move.

        Returns
        -------
        ndarray, shape (len(self),), int64
            Positions in the dataset.
        """
        raise NotImplementedError

    def _steps(self, epoch: int, place: int) -> Iterator[int]:
        positions = self.positions(epoch)
        for a in range(place, len(positions), _N_LISTED):
            yield from positions[a : a + _N_LISTED].tolist()


class DistributedShardSampler(_PositionSampler):
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
            "shards": _digest(self._sizes),
        }

    def __repr__(self) -> str:
        return (
            f"DistributedShardSampler({len(self):,} cells, {len(self.shards)} of "
            f"{len(self._sizes)} shards, rank {self.rank} of {self.num_replicas})"
        )


class WeightedCellSampler(_PositionSampler):
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
            labels = _labels(dataset, by)
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
        n_draws = len(self) * self.num_replicas
        key = _core.philox_u64(self.seed, _STREAM_WEIGHTS, epoch)
        if self.replacement:
            cumulated = np.cumsum(self._weights)
            drawn = _uniforms(key, n_draws)[self.rank :: self.num_replicas] * cumulated[-1]
            last = int(np.flatnonzero(self._weights)[-1])  # a product may round up to the total
            return np.minimum(np.searchsorted(cumulated, drawn, side="right"), last)
        drawable = np.flatnonzero(self._weights)
        keys = np.log(_uniforms(key, len(drawable))) / self._weights[drawable]
        order = np.argsort(-keys, kind="stable")[:n_draws]
        return drawable[order[self.rank :: self.num_replicas]]

    def _settings(self) -> dict[str, Any]:
        return {
            "n_samples": self.n_samples,
            "replacement": self.replacement,
            "seed": self.seed,
            "num_replicas": self.num_replicas,
            "n_cells": len(self._weights),
            "weights": _digest(self._weights),
        }

    def __repr__(self) -> str:
        return (
            f"WeightedCellSampler({len(self):,} draws from {len(self._weights):,} cells, "
            f"replacement={self.replacement})"
        )


def max_label_deviation(codes: NDArray[np.int64], offsets: NDArray[np.int64]) -> int:
    """Largest difference between the counts of two labels within one batch.

    Parameters
    ----------
    codes : ndarray, shape (n_slots,), int64
        Label of each cell, batch after batch, from 0 on.
    offsets : ndarray, shape (n_batches + 1,), int64
        Where each batch begins.

    Returns
    -------
    int
        0 or 1 for a `BatchAwareSampler`; a label that a batch does not hold counts as 0.
    """
    n_labels, n_batches = int(codes.max(initial=-1)) + 1, len(offsets) - 1
    if n_labels == 0 or n_batches == 0:
        return 0
    at_once, worst = max(1, _LEAST_CHUNK // n_labels), 0
    for a in range(0, n_batches, at_once):
        cuts = offsets[a : a + at_once + 1]
        batch = np.repeat(np.arange(len(cuts) - 1), np.diff(cuts))
        flat = np.bincount(
            batch * n_labels + codes[cuts[0] : cuts[-1]], minlength=(len(cuts) - 1) * n_labels
        )
        counts = flat.reshape(-1, n_labels)
        worst = max(worst, int((counts.max(axis=1) - counts.min(axis=1)).max()))
    return worst


# --- labels, shards, weights


def _labels(dataset: CellDataset, key: str) -> NDArray[np.int64]:
    """Label of each cell of the dataset, 0 to n - 1; cells without one have the last."""
    if not isinstance(dataset, CellDataset):
        message = f"the sampler takes a CellDataset, not a {type(dataset).__name__}"
        raise TypeError(message)
    if len(dataset) == 0:
        message = "the dataset has no cells"
        raise ValueError(message)
    column = dataset.store.column(key)
    codes = column.codes()
    if column.table is None and column.values.dtype.kind == "f":
        codes = np.where(np.isnan(np.ma.getdata(column.values)), -1, codes)
    codes = codes[dataset.cells]
    n_missing = int(np.count_nonzero(codes < 0))
    if n_missing:
        warnings.warn(
            f"{n_missing} of {len(codes)} cells have no {key!r}: they are a group of their own",
            ScioWarning,
            stacklevel=3,
        )
        codes = np.where(codes < 0, codes.max() + 1, codes)
    used = np.bincount(codes) > 0
    if np.count_nonzero(used) == 1:
        warnings.warn(
            f"all cells have one and the same {key!r}: there is nothing to balance",
            ScioWarning,
            stacklevel=3,
        )
    labels = (np.cumsum(used) - 1)[codes]
    # Sixteen bits are sorted by radix, in linear time.
    return labels.astype(np.uint16) if labels.max() < 1 << 16 else labels


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


def _digest(array: NDArray[Any]) -> str:
    values = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return hashlib.blake2b(values.tobytes(), digest_size=8).hexdigest()


# --- random numbers


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Finalizer of SplitMix64: every bit of the input changes half of the output."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _permutations(keys: NDArray[np.uint64], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Permutations of range(sizes[i]) seeded by keys[i], behind one another.

    Counters are hashed with the key of their block and sorted block by block.  The block takes as many
    high bits as it needs; a tie of the others keeps its order, so the result is the same everywhere.
    """
    starts = np.repeat(np.cumsum(sizes) - sizes, sizes)
    nth = np.arange(len(starts), dtype=np.int64) - starts
    hashed = _mix(np.repeat(keys, sizes) ^ _mix(nth.astype(np.uint64)))
    n_bits = np.uint64(len(sizes).bit_length())
    block = np.repeat(np.arange(len(sizes), dtype=np.uint64), sizes)
    order = np.argsort((block << (np.uint64(64) - n_bits)) | (hashed >> n_bits), kind="stable")
    return order - starts


def _uniforms(key: int, n_items: int) -> NDArray[np.float64]:
    """Numbers in the open interval (0, 1): Philox4x64, the bits of its counter from 0 on."""
    bits = np.random.Philox(key=key).random_raw(n_items)
    return ((bits >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
