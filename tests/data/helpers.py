"""What several tests of the loader do with batches."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

import scio


def batch_bytes(batch: dict[str, Any]) -> bytes:
    """All arrays of a batch, those of layers and obsm included, as one byte string."""
    parts = []
    for key in sorted(batch):
        value = batch[key]
        if isinstance(value, dict) and key != "metadata":
            parts.append(batch_bytes(value))
        elif key not in ("metadata", "shape"):
            array = np.asarray(value)
            parts.append(f"{key} {array.dtype} {array.shape} ".encode() + array.tobytes())
    return b"".join(parts)


def epoch_bytes(loader: Iterable[dict[str, Any]]) -> list[bytes]:
    """One epoch, batch by batch."""
    return [batch_bytes(batch) for batch in loader]


def ids(loader: Iterable[dict[str, Any]]) -> list[int]:
    """The cells of one epoch in the order in which they came."""
    return [i for batch in loader for i in np.asarray(batch["index"]).tolist()]


def facts(loader: Any) -> tuple[str, str, int, int]:
    """Plan, origin of the rows, chunks decoded and chunks in all of the epoch that ran last."""
    stats = loader.stats
    return stats["plan"], stats["rows"], stats["chunks_decoded"], stats["chunks_total"]


def break_chunk(path: Path, dataset: str, number: int) -> None:
    """Flip bytes in the middle of a stored chunk."""
    position, nbytes = scio.open(path).file.dataset(dataset).units()[number, :2]
    with open(path, "r+b") as file:
        file.seek(int(position) + int(nbytes) // 2)
        piece = file.read(4)
        file.seek(-4, 1)
        file.write(bytes(b ^ 0xFF for b in piece))


def max_label_deviation(codes: Any, offsets: Any) -> int:
    """Largest difference between the counts of two labels within one batch.

    `codes` are the labels of the cells, batch after batch; `offsets` says where each batch begins.
    A label that a batch does not hold counts as 0.
    """
    n_labels = int(codes.max(initial=-1)) + 1
    if n_labels == 0:
        return 0
    worst = 0
    for start, stop in itertools.pairwise(offsets):
        counts = np.bincount(codes[start:stop], minlength=n_labels)
        worst = max(worst, int(counts.max() - counts.min()))
    return worst
