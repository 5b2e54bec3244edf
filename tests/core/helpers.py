"""Matrices, files and argument sets that the tests of the binding share."""

from __future__ import annotations

from typing import Any, NamedTuple

import h5py
import numpy as np
import scipy.sparse as sp

from scio import _core

N_ROWS, N_COLS = 300, 40


class Counts(NamedTuple):
    """One matrix in a file, and what it must read as."""

    path: str
    csr: sp.csr_array


def random_csr(seed: int, shape: tuple[int, int] = (N_ROWS, N_COLS)) -> sp.csr_array:
    """Counts 1 to 9, one entry in five, sorted rows."""
    rng = np.random.default_rng(seed)
    dense = rng.integers(1, 10, shape) * (rng.random(shape) < 0.2)
    return sp.csr_array(dense.astype(np.float32))


def write_csr(file: h5py.File, name: str, csr: sp.csr_array, **options: Any) -> None:
    """Write a CSR group as anndata does."""
    group = file.create_group(name)
    group.attrs["encoding-type"] = "csr_matrix"
    group.attrs["encoding-version"] = "0.1.0"
    group.attrs["shape"] = np.array(csr.shape)
    group.create_dataset("data", data=csr.data, **options)
    group.create_dataset("indices", data=csr.indices, **options)
    group.create_dataset("indptr", data=csr.indptr)


SPEC: dict[str, Any] = {
    "form": "csr",
    "n_ids": N_COLS + 4,
    "first_id": 4,
    "library_size": False,
    "target_sum": 1e4,
    "log1p": False,
    "id_mask": None,
    "max_genes": 0,
    "select": "most_expressed",
    "seed": 0,
    "epoch": 0,
    "pad_id": 0,
    "pad_value": 0.0,
}
LOADER: dict[str, Any] = {
    **SPEC,
    "cells": None,
    "batch_size": 64,
    "drop_last": False,
    "shuffle": "block",
    "rank": 0,
    "world_size": 1,
    "max_memory": 0,
    "block_bytes": 0,
    "threads": -1,
    "prefetch": 0,
    "skip_errors": False,
    "first_batch": 0,
}


def gene_map(n_cols: int = N_COLS) -> np.ndarray:
    """Column i is id i + 4."""
    return np.arange(4, n_cols + 4, dtype=np.int32)


def memory_matrix(csr: sp.csr_array) -> _core.Matrix:
    """The matrix in memory, as the core takes it."""
    return _core.Matrix.from_csr(
        csr.data, csr.indices, csr.indptr.astype(np.int64), shape=csr.shape
    )


def file_matrix(counts: Counts) -> _core.Matrix:
    """The matrix of the file."""
    return _core.Matrix.open_sparse(_core.File(counts.path), "X", shape=counts.csr.shape)
