"""The clock that every system is measured by: no import but NumPy, so it runs in any environment."""

from __future__ import annotations

import itertools
import resource
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

N_LABELS = 8
WARM_SECONDS = 0.5
MIXING_SECONDS = 3.0


def peak_rss_mib() -> float:
    """Largest resident size of this process and of its largest child that ended, MiB."""
    status = Path("/proc/self/status").read_text()
    own = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return (int(own.split()[1]) + child) / 1024


def epoch(
    batches: Iterable[Any], count: Callable[[Any], int], seconds: float = np.inf
) -> dict[str, Any]:
    """Take batches to the end, or until `seconds` have passed; what is kept of a batch is its count."""
    cpu = time.process_time()
    start = time.perf_counter()
    first, n_cells, n_batches, is_whole = 0.0, 0, 0, True
    for batch in batches:
        n_cells += count(batch)
        n_batches += 1
        now = time.perf_counter() - start
        first = first or now
        if now > seconds:
            is_whole = False
            break
    taken = time.perf_counter() - start
    return {
        "cells_per_s": n_cells / taken if n_batches else 0.0,
        "cells": n_cells,
        "batches": n_batches,
        "seconds": taken,
        "seconds_first": first,
        "cpu_seconds": time.process_time() - cpu,
        "is_whole": is_whole,
    }


def measure(
    make: Callable[[], Iterable[Any]],
    count: Callable[[Any], int],
    *,
    seconds: float = np.inf,
    n_epochs: int = 1,
    describe: Callable[[Iterable[Any]], dict[str, Any]] = lambda _made: {},
) -> dict[str, Any]:
    """Measure a loader that `make` opens and that may be iterated `n_epochs` times.

    The first opening gives the time to the first batch and warms the process for `WARM_SECONDS`; the
    second one is timed: from nothing to the end of its first epoch, and each epoch for itself.
    `describe` is called after each epoch and tells what the loader knows of it.
    """
    start = time.perf_counter()
    made = make()
    opened = time.perf_counter() - start
    warm = epoch(made, count, WARM_SECONDS)
    seconds_first_batch = opened + warm["seconds_first"]
    del made
    rss_before = peak_rss_mib()
    start = time.perf_counter()
    made = make()
    epochs = []
    seconds_epoch = None
    for number in range(n_epochs):
        one = epoch(made, count, seconds)
        if number == 0 and one["is_whole"]:
            seconds_epoch = time.perf_counter() - start
        epochs.append({**one, **describe(made), "rss_peak": peak_rss_mib()})
    return {
        "seconds_first_batch": seconds_first_batch,
        "seconds_epoch": seconds_epoch,
        "epochs": epochs,
        "rss_before": rss_before,
    }


def mean_entropy(labels_of_batches: Iterable[np.ndarray]) -> float | None:
    """Mean entropy of the labels within a batch, bits; None without batches."""
    values = []
    for labels in labels_of_batches:
        shares = np.bincount(labels) / len(labels)
        shares = shares[shares > 0]
        values.append(float(-(shares * np.log2(shares)).sum()))
    return float(np.mean(values)) if values else None


def marker_labels(batch: Any) -> np.ndarray | None:
    """Labels of a batch of raw values, read from the marker gene (the last one, see data.py).

    Takes a SciPy matrix, a dense array or tensor, or an object or dict that holds one as ``X``.  None
    when the values are not the marker's, as after a normalisation.
    """
    x = batch.get("X", batch.get("x")) if isinstance(batch, dict) else getattr(batch, "X", batch)
    if isinstance(x, (tuple, list)):
        x = x[0]
    if not hasattr(x, "shape") or len(x.shape) != 2:
        return None
    if hasattr(x, "to_dense") and getattr(x, "is_sparse_csr", False):
        x = x.to_dense()
    column = x[:, [-1]] if hasattr(x, "nnz") else x[:, -1]
    values = np.asarray(column.toarray() if hasattr(column, "toarray") else column).reshape(-1)
    whole = np.round(values).astype(np.int64)
    if np.any(values != whole) or whole.min() < 1 or whole.max() > N_LABELS:
        return None
    return whole - 1


def mixing(batches: Iterable[Any], labels: Callable[[Any], np.ndarray | None]) -> float | None:
    """Mean entropy over the batches of `MIXING_SECONDS`; None if labels cannot be told."""
    start = time.perf_counter()
    soon = itertools.takewhile(lambda _b: time.perf_counter() - start < MIXING_SECONDS, batches)
    found = []
    for batch in soon:
        one = labels(batch)
        if one is None:
            return None
        found.append(one)
    return mean_entropy(found)
