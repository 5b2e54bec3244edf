"""scio.CSR and the dense utilities, against SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import scio
from scio.data._utils import get_nonzero_indices_and_values, get_row_as_dense, sparse_to_dense
from scio.errors import CorruptFileError

# torch's own note, once a process: it calls its CSR a beta
pytestmark = pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")


def random_csr(n_rows: int = 30, n_cols: int = 20, dtype: str = "float32") -> sp.csr_matrix:
    x = sp.random(n_rows, n_cols, density=0.2, format="csr", random_state=1)
    x.data = np.ceil(x.data * 100).astype(dtype)
    return x.astype(dtype)


def test_nothing_is_copied_on_the_way_in_and_out():
    x = random_csr()
    m = scio.CSR(x.data, x.indices, x.indptr, shape=x.shape)
    assert np.shares_memory(m.data, x.data)
    assert np.shares_memory(m.indices, x.indices)
    assert np.shares_memory(m.to_scipy().data, x.data)
    assert np.shares_memory(m.to_torch().values().numpy(), x.data)
    assert np.shares_memory(np.from_dlpack(m.data), x.data)
    assert torch.from_dlpack(m.indices).data_ptr() == x.indices.ctypes.data
    assert (m.nnz, m.shape, m.dtype, len(m)) == (x.nnz, x.shape, np.float32, 30)
    assert "30 x 20" in repr(m)


@pytest.mark.parametrize(
    "dtype", ["bool", "int8", "uint16", "int32", "int64", "float32", "float64"]
)
def test_conversions_equal_scipy(dtype):
    x = random_csr(dtype=dtype)
    m = scio.CSR.from_scipy(x)
    np.testing.assert_array_equal(m.toarray(), x.toarray())
    np.testing.assert_array_equal(m.T.toarray(), x.T.toarray())
    np.testing.assert_array_equal(scio.CSR.from_dense(x.toarray()).toarray(), x.toarray())
    np.testing.assert_array_equal(m.to_scipy().toarray(), x.toarray())
    if dtype != "uint16":  # torch has no sparse arithmetic for it
        np.testing.assert_array_equal(m.to_torch().to_dense().numpy(), x.toarray())


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_rows_equal_scipy(data):
    x = random_csr()
    m = scio.CSR.from_scipy(x)
    rows = data.draw(
        st.one_of(
            st.lists(st.integers(-30, 29), max_size=40).map(np.array),
            st.lists(st.booleans(), min_size=30, max_size=30).map(np.array),
            st.builds(
                slice, st.integers(-40, 40), st.integers(-40, 40), st.sampled_from([None, 1, 2, -1])
            ),
        )
    )
    if isinstance(rows, np.ndarray) and rows.size == 0:
        rows = rows.astype(np.int64)
    np.testing.assert_array_equal(m[rows].toarray(), x.toarray()[rows])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            lambda d, i, p: (d, i, np.array([0, 2, 1, 4])),
            r"indptr\[2\] is 1, less than indptr\[1\]",
        ),
        (lambda d, i, p: (d, i, np.array([1, 2, 3, 4])), r"indptr\[0\] is 1"),
        (lambda d, i, p: (d, i, np.array([0, 2, 3, 5])), "5"),
        (lambda d, i, p: (d, np.int32([0, 1, 2, 3]), p), r"indices\[3\] is 3"),
        (lambda d, i, p: (d, np.int32([0, -1, 2, 1]), p), r"indices\[1\] is -1"),
        (lambda d, i, p: (d[:-1], i, p), "3"),
    ],
)
def test_broken_arrays_are_refused_with_place_and_rule(change, text):
    good = (np.ones(4, "f4"), np.int32([0, 1, 2, 1]), np.array([0, 2, 3, 4]))
    scio.CSR(*good, shape=(3, 3))
    with pytest.raises(CorruptFileError, match=text):
        scio.CSR(*change(*good), shape=(3, 3))


def test_duplicates_are_summed_and_unsorted_rows_are_kept():
    m = scio.CSR(np.float32([1, 2, 4]), np.int32([2, 0, 2]), np.int64([0, 3]), shape=(1, 3))
    assert m.toarray().tolist() == [[2, 0, 5]]
    assert m[0].indices.tolist() == [2, 0, 2]


def test_dense_utilities():
    x = random_csr()
    dense = x.toarray()
    for matrix in (x, scio.CSR.from_scipy(x), dense):
        np.testing.assert_array_equal(sparse_to_dense(matrix), dense)
        np.testing.assert_array_equal(get_row_as_dense(matrix, -1), dense[-1])
        indices, values = get_nonzero_indices_and_values(matrix, 4)
        np.testing.assert_array_equal(indices, np.flatnonzero(dense[4]))
        np.testing.assert_array_equal(values, dense[4][indices])
    with pytest.raises(IndexError, match="30 rows"):
        get_row_as_dense(scio.CSR.from_scipy(x), 30)
