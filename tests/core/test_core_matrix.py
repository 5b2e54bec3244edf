"""Matrix: rows from files and from memory, by every thread count and source."""

from __future__ import annotations

import gc
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.sparse as sp

from scio import _core
from scio.errors import CorruptFileError, IOFormatError
from tests.core.helpers import N_COLS, N_ROWS, file_matrix, memory_matrix, random_csr, write_csr

ROWS = np.random.default_rng(5).integers(0, N_ROWS, 120)


def assert_rows(got, expected):
    data, indices, indptr = got
    want = sp.csr_array(expected)
    assert (indptr.dtype, indices.dtype) == (np.int64, np.int32)
    np.testing.assert_array_equal(data, want.data)
    np.testing.assert_array_equal(indices, want.indices)
    np.testing.assert_array_equal(indptr, want.indptr)


def all_matrices(counts):
    image = Path(counts.path).read_bytes()
    call = _core.File(lambda at, n: image[at : at + n], nbytes=len(image), name="call")
    shape = counts.csr.shape
    return {
        "file": file_matrix(counts),
        "call": _core.Matrix.open_sparse(call, "/X", shape=shape),
        "file dense": _core.Matrix.open_dense(_core.File(counts.path), "dense"),
        "memory": memory_matrix(counts.csr),
        "memory dense": _core.Matrix.from_dense(counts.csr.toarray()),
    }


@pytest.mark.parametrize("threads", [-1, 0, 1, 3])
def test_every_kind_of_matrix_gives_the_same_rows(counts, threads, no_leak):
    for name, matrix in all_matrices(counts).items():
        assert matrix.shape == (N_ROWS, N_COLS), name
        assert_rows(matrix.take(ROWS, threads=threads), counts.csr[ROWS])
        assert_rows(matrix.read(7, 290, threads=threads), counts.csr[7:290])
        dense = matrix.read_dense(0, N_ROWS, threads=threads)
        np.testing.assert_array_equal(dense, counts.csr.toarray())
        assert matrix.take(ROWS[:0])[2].tolist() == [0]
        assert matrix.read(5, 5)[2].tolist() == [0]
        assert matrix.read_dense(5, 5).shape == (0, N_COLS)


@pytest.mark.parametrize("chunks", [None, 50, 1000])
@pytest.mark.parametrize("order", ["<", ">"])
def test_rows_of_plain_storage_are_read_as_they_lie(tmp_path, chunks, order, no_leak):
    """A few bytes of large chunks: no chunk is read for them, and every index is checked."""
    csr = sp.random_array((4000, 300), density=0.1, format="csr", rng=1, dtype=np.float32)
    csr.sort_indices()
    with h5py.File(tmp_path / "x.h5", "w") as file:
        group = file.create_group("X")
        options = {} if chunks is None else {"chunks": (chunks,), "maxshape": (None,)}
        group.create_dataset("data", data=csr.data.astype(f"{order}f4"), **options)
        group.create_dataset("indices", data=csr.indices.astype(f"{order}i4"), **options)
        group["indptr"] = csr.indptr
    file = _core.File(str(tmp_path / "x.h5"))
    matrix = _core.Matrix.open_sparse(file, "/X", shape=csr.shape)
    for rows in ([3999, 0, 1700, 0], np.arange(7, 4000, 900), [5], range(4000)):
        wanted_rows = np.array(rows)
        assert_rows(matrix.take(wanted_rows), csr[wanted_rows])
    matrix = _core.Matrix.open_sparse(file, "/X", shape=csr.shape)  # nothing is cached
    before = _core.stats()["nbytes_read"]
    matrix.take(np.array([100, 3000]))
    wanted = 8 * (csr.indptr[101] - csr.indptr[100] + csr.indptr[3001] - csr.indptr[3000])
    assert _core.stats()["nbytes_read"] - before == wanted or chunks == 50
    with h5py.File(tmp_path / "x.h5", "r+") as broken:
        broken["X/indices"][csr.indptr[1700] + 3] = 300
    matrix = _core.Matrix.open_sparse(_core.File(str(tmp_path / "x.h5")), "/X", shape=csr.shape)
    assert_rows(matrix.take(np.array([3, 3999])), csr[[3, 3999]])
    with pytest.raises(CorruptFileError, match=r"300.*not in \[0, 300\)"):
        matrix.take(np.array([3, 1700, 3999]))


def test_the_description(counts):
    for name, matrix in all_matrices(counts).items():
        is_dense, is_in_file = "dense" in name, "memory" not in name
        assert matrix.kind == ("dense" if is_dense else "csr")
        assert (matrix.is_in_file, matrix.was_csc, matrix.dtype) == (is_in_file, False, "float32")
        assert matrix.nnz == (N_ROWS * N_COLS if is_dense else counts.csr.nnz)
        assert matrix.nbytes > 0
        assert is_dense or matrix.index_dtype == "int32"
    assert file_matrix(counts).name == "counts.h5ad: X"


def test_indptr_is_a_view_that_cannot_be_written(counts, no_leak):
    matrix = file_matrix(counts)
    indptr = matrix.indptr
    assert indptr.base is matrix
    del matrix
    gc.collect()
    np.testing.assert_array_equal(indptr, counts.csr.indptr)
    with pytest.raises(ValueError, match="read-only"):
        indptr[0] = 1
    with pytest.raises(ValueError, match="is dense: it has no indptr"):
        _core.Matrix.open_dense(_core.File(counts.path), "dense").indptr  # noqa: B018


@pytest.mark.parametrize("dtype", ["float64", "int32", "uint8", "bool"])
def test_values_are_cast_on_the_way(counts, dtype):
    for matrix in (file_matrix(counts), memory_matrix(counts.csr)):
        data = matrix.take(ROWS, dtype=dtype)[0]
        assert data.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(data, counts.csr[ROWS].data.astype(dtype))
        assert matrix.read_dense(0, 9, dtype=dtype).dtype == np.dtype(dtype)


def test_columns_are_converted_within_a_limit(tmp_path):
    csr = random_csr(2)
    csc = csr.tocsc()
    with h5py.File(tmp_path / "csc.h5", "w") as file:
        write_csr(
            file, "X", sp.csr_array((csc.data, csc.indices, csc.indptr), shape=(N_COLS, N_ROWS))
        )
    opened = _core.File(str(tmp_path / "csc.h5"))
    matrix = _core.Matrix.open_sparse(opened, "X", shape=csr.shape, is_csc=True)
    assert matrix.was_csc
    assert_rows(matrix.read(0, N_ROWS), csr)
    with pytest.raises(ValueError, match=r"csc\.h5: X"):
        _core.Matrix.open_sparse(opened, "X", shape=csr.shape, is_csc=True, max_nbytes=1000)


def test_a_shape_that_does_not_fit_the_file_is_refused(counts):
    file = _core.File(counts.path)
    with pytest.raises(CorruptFileError, match=r"counts\.h5ad.*X/indptr has 301 entries"):
        _core.Matrix.open_sparse(file, "X", shape=(299, N_COLS))
    with pytest.raises(IOFormatError, match=r"counts\.h5ad"):
        _core.Matrix.open_sparse(file, "X", shape=(N_ROWS, 5)).read(0, N_ROWS)


def test_a_matrix_outlives_its_file(counts, no_leak):
    file = _core.File(counts.path)
    matrix = _core.Matrix.open_sparse(file, "X", shape=counts.csr.shape)
    file.close()
    del file
    gc.collect()
    assert_rows(matrix.take(ROWS), counts.csr[ROWS])


def test_taking_rows_again_and_again_leaves_nothing(counts, no_leak):
    matrix = file_matrix(counts)
    for _ in range(100):
        matrix.take(ROWS[:5])
        with pytest.raises(IndexError):
            matrix.take(np.array([N_ROWS]))
