"""Matrices of one content in every form that scio.pp takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp

import scio

DTYPES = ["uint8", "int16", "uint16", "int32", "int64", "float16", "float32", "float64"]


def counts(
    n_rows: int = 60, n_cols: int = 40, seed: int = 0, dtype: str = "float32", most: int = 90
) -> np.ndarray:
    """Small integers, a third of them not 0, some empty cells and genes."""
    rng = np.random.default_rng(seed)
    x = rng.integers(1, most, (n_rows, n_cols)) * (rng.random((n_rows, n_cols)) < 0.33)
    x[rng.integers(0, n_rows, 2)] = 0
    x[:, rng.integers(0, n_cols, 2)] = 0
    return x.astype(dtype)


def csr64(x: np.ndarray) -> sp.csr_matrix:
    m = sp.csr_matrix(x)
    m.indices, m.indptr = m.indices.astype(np.int64), m.indptr.astype(np.int64)
    return m


def shuffled(x: np.ndarray) -> sp.csr_matrix:
    """CSR whose columns are in no order."""
    m = sp.csr_matrix(x)
    rng = np.random.default_rng(7)
    for r in range(m.shape[0]):
        part = slice(m.indptr[r], m.indptr[r + 1])
        order = rng.permutation(m.indptr[r + 1] - m.indptr[r])
        m.indices[part], m.data[part] = m.indices[part][order], m.data[part][order]
    m.has_sorted_indices = False
    return m


def with_zeros(x: np.ndarray) -> sp.csr_matrix:
    """CSR with every fourth entry of the matrix stored, zero or not."""
    rows, cols = np.nonzero((x != 0) | (np.arange(x.size).reshape(x.shape) % 4 == 0))
    m = sp.csr_matrix((x.shape[0], x.shape[1]), dtype=x.dtype)
    indptr = np.zeros(x.shape[0] + 1, dtype=np.int32)
    np.cumsum(np.bincount(rows, minlength=x.shape[0]), out=indptr[1:])
    m = sp.csr_matrix((x[rows, cols], cols.astype(np.int32), indptr), shape=x.shape)
    assert m.nnz > np.count_nonzero(x)
    return m


def with_duplicates(x: np.ndarray) -> sp.csr_matrix:
    """CSR in which every even number is stored as two halves."""
    m = sp.csr_matrix(x)
    is_even = (m.data.astype(np.float64) % 2 == 0) & (m.data > 0)
    n_stored = 1 + is_even.astype(np.int64)
    data = np.repeat(np.where(is_even, (m.data / 2).astype(m.dtype), m.data), n_stored)
    row_of = np.repeat(np.arange(m.shape[0]), np.diff(m.indptr))
    indptr = np.zeros(m.shape[0] + 1, dtype=np.int32)
    np.cumsum(np.bincount(np.repeat(row_of, n_stored), minlength=m.shape[0]), out=indptr[1:])
    made = sp.csr_matrix((data, np.repeat(m.indices, n_stored), indptr), shape=m.shape)
    assert made.nnz > m.nnz
    return made


FORMS: dict[str, Callable[[np.ndarray], Any]] = {
    "dense": np.ascontiguousarray,
    "fortran": np.asfortranarray,
    "strided": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
    "csr": sp.csr_matrix,
    "csr_array": sp.csr_array,
    "csr64": csr64,
    "csc": sp.csc_matrix,
    "coo": sp.coo_matrix,
    "shuffled": shuffled,
    "with_zeros": with_zeros,
    "with_duplicates": with_duplicates,
    "scio": scio.CSR.from_dense,
}


def densify(matrix: Any) -> np.ndarray:
    """Dense, with duplicates summed."""
    return np.asarray(matrix.toarray() if hasattr(matrix, "toarray") else matrix)
