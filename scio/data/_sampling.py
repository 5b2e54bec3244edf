"""What all samplers share: epochs and places that can be resumed, and random numbers by counter.

Randomness is the core's Philox; where many small permutations are needed at once, Philox makes a key
and the finalizer of SplitMix64 spreads it over counters (Steele et al., "Fast splittable pseudorandom
number generators", OOPSLA 2014, doi:10.1145/2660193.2660195).
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from scio import _core
from scio.data._arguments import check_least, rank_and_world
from scio.data._state import differences
from scio.data.dataset import CellDataset
from scio.errors import ScioWarning

_N_LISTED = 1 << 16  # positions turned into Python numbers at once

_Step = TypeVar("_Step")


class EpochSampler(ABC, Generic[_Step]):
    """Epochs, places and states, the same for every sampler; a step is what one ``next`` gives.

    Each iterator is the next epoch unless `set_epoch` said which.  It counts from its first step on:
    torch's DataLoader makes iterators that it never uses.
    """

    def __init__(self, seed: int, num_replicas: int | None, rank: int | None) -> None:
        self.seed = int(seed)
        _core.philox_u64(self.seed, 0, 0)  # refuses what is no uint64
        self.rank, self.num_replicas = rank_and_world(rank, num_replicas)
        self._next = (0, 0)  # epoch and place where the next iterator begins
        self._cursor: list[int] | None = None  # epoch and place of the newest unfinished iterator

    @abstractmethod
    def _steps(self, epoch: int, place: int) -> Iterator[_Step]: ...

    @abstractmethod
    def _settings(self) -> dict[str, Any]:
        """What fixes the steps, besides the rank: one rank's state serves all."""

    @abstractmethod
    def __len__(self) -> int: ...

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
        check_least("epoch", epoch, 0)
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
            found = (
                sorted(state_dict) if isinstance(state_dict, Mapping) else type(state_dict).__name__
            )
            message = f"a state of {own['sampler']} has the keys {sorted(own)}, not {found}"
            raise ValueError(message)
        changed = differences(
            {"sampler": state_dict["sampler"], **state_dict["settings"]},
            {"sampler": own["sampler"], **own["settings"]},
        )
        if changed:
            message = f"the state belongs to another sampler: {'; '.join(changed)}"
            raise ValueError(message)
        epoch, place = int(state_dict["epoch"]), int(state_dict["place"])
        if epoch < 0 or not 0 <= place <= len(self):
            message = (
                f"the state is at epoch {epoch}, place {place}; an epoch has {len(self)} places"
            )
            raise ValueError(message)
        self._next, self._cursor = (epoch, place), None


class PositionSampler(EpochSampler[int]):
    """A sampler whose steps are positions in the dataset, one at a time."""

    @abstractmethod
    def positions(self, epoch: int) -> NDArray[np.int64]:
        """Return a whole epoch of this rank at once; the state does not move.

        Returns
        -------
        ndarray, shape (len(self),), int64
            Positions in the dataset.
        """

    def _steps(self, epoch: int, place: int) -> Iterator[int]:
        positions = self.positions(epoch)
        for a in range(place, len(positions), _N_LISTED):
            yield from positions[a : a + _N_LISTED].tolist()


# --- labels


def labels_of(dataset: CellDataset, key: str) -> NDArray[np.int64]:
    """Label of each cell of the dataset, 0 to n - 1; cells without one have the last."""
    thing: Any = dataset
    if not isinstance(thing, CellDataset):
        message = f"the sampler takes a CellDataset, not a {type(thing).__name__}"
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


# --- random numbers


def mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Finalizer of SplitMix64: every bit of the input changes half of the output."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def permutations(keys: NDArray[np.uint64], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Permutations of range(sizes[i]) seeded by keys[i], behind one another.

    Counters are hashed with the key of their block and sorted block by block.  The block takes as many
    high bits as it needs; a tie of the others keeps its order, so the result is the same everywhere.
    """
    starts = np.repeat(np.cumsum(sizes) - sizes, sizes)
    nth = np.arange(len(starts), dtype=np.int64) - starts
    hashed = mix(np.repeat(keys, sizes) ^ mix(nth.astype(np.uint64)))
    n_bits = np.uint64(len(sizes).bit_length())
    block = np.repeat(np.arange(len(sizes), dtype=np.uint64), sizes)
    order = np.argsort((block << (np.uint64(64) - n_bits)) | (hashed >> n_bits), kind="stable")
    return order - starts


def uniforms(key: int, n_items: int) -> NDArray[np.float64]:
    """Numbers in the open interval (0, 1): Philox4x64, the bits of its counter from 0 on."""
    bits = np.random.Philox(key=key).random_raw(n_items)
    return ((bits >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
