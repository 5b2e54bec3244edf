"""How well batches are mixed: computed from a plan and a label, nothing is read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scio import _core

GOOD_MIXING = 0.95  # of the entropy of a perfect shuffle
_STREAM = 0x313  # of the perfect shuffle to compare with


@dataclass(frozen=True, slots=True)
class Mixing:
    """How well batches are mixed with respect to a label.

    Attributes
    ----------
    entropy : float
        Mean entropy of the label within a batch, bits.
    perfect : float
        The same for a perfect shuffle of all cells, bits.
    largest_gap : int
        Longest stretch of batches in a row without some label, of those labels that have at least as
        many cells as there are batches.
    ratio : float
        ``entropy / perfect``; 1 when the label has one value only.
    """

    entropy: float
    perfect: float
    largest_gap: int = 0

    @property
    def ratio(self) -> float:
        """Entropy against that of a perfect shuffle."""
        return self.entropy / self.perfect if self.perfect > 0 else 1.0


def measure_mixing(labels: NDArray[np.int64], offsets: NDArray[np.int64], *, seed: int) -> Mixing:
    """Compare batches with a perfect shuffle of the same cells.

    Parameters
    ----------
    labels : ndarray, shape (n_slots,), int64
        Code of each cell, batch after batch; -1 is a label of its own.
    offsets : ndarray, shape (n_batches + 1,), int64
        Where each batch begins.
    seed : int
        Of the perfect shuffle.
    """
    codes = labels + 1
    n_labels = int(codes.max(initial=0)) + 1
    shuffled = codes[_core.permutation(seed, _STREAM, len(codes))]
    return Mixing(
        _mean_entropy(codes, offsets, n_labels),
        _mean_entropy(shuffled, offsets, n_labels),
        _largest_gap(codes, offsets, n_labels),
    )


def _mean_entropy(codes: NDArray[np.int64], offsets: NDArray[np.int64], n_labels: int) -> float:
    """Mean over batches of the entropy of the codes within a batch, bits."""
    total = 0.0
    n_batches = len(offsets) - 1
    for a, b in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        counts = np.bincount(codes[a:b], minlength=n_labels)
        shares = counts[counts > 0] / max(1, b - a)
        total -= float((shares * np.log2(shares)).sum())
    return total / max(1, n_batches)


def _largest_gap(codes: NDArray[np.int64], offsets: NDArray[np.int64], n_labels: int) -> int:
    """Longest stretch of batches without some label of which there is one for each batch."""
    n_batches = len(offsets) - 1
    batch_of = np.repeat(np.arange(n_batches), np.diff(offsets))
    longest = 0
    for label in range(n_labels):
        where = batch_of[codes == label]
        if len(where) >= max(1, n_batches):
            steps = np.diff(np.concatenate([[-1], np.unique(where), [n_batches]])) - 1
            longest = max(longest, int(steps.max()))
    return longest
