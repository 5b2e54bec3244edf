"""CSR functions against SciPy; arrays of the caller are never trusted."""

from __future__ import annotations

import gc
import sys

import numpy as np
import pytest
import scipy.sparse as sp

from scio import _core
from scio.errors import CorruptFileError
from tests.core.helpers import random_csr


def parts(csr):
    return csr.data, csr.indices, csr.indptr.astype(np.int64)


def assert_same(got, expected):
    data, indices, indptr = got
    want = sp.csr_array(expected)
    np.testing.assert_array_equal(data, want.data)
    np.testing.assert_array_equal(indices, want.indices)
    np.testing.assert_array_equal(indptr, want.indptr)
    assert indptr.dtype == np.int64


@pytest.mark.parametrize("dtype", ["float32", "float64", "int8", "uint16", "int64", "bool"])
@pytest.mark.parametrize("index_dtype", ["int32", "int64"])
def test_gather_transpose_and_dense_are_scipys(dtype, index_dtype, no_leak):
    csr = random_csr(3, (50, 30)).astype(dtype)
    csr.indices = csr.indices.astype(index_dtype)
    arrays = parts(csr)
    rows = np.random.default_rng(0).integers(0, 50, 80)
    assert_same(_core.csr_take(*arrays, rows, shape=csr.shape), csr[rows])
    assert_same(_core.csr_transpose(*arrays, shape=csr.shape), csr.T.tocsr())
    dense = _core.csr_to_dense(*arrays, shape=csr.shape)
    assert dense.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(dense, csr.toarray())
    assert_same(_core.csr_from_dense(dense), csr)


def test_nan_is_a_value_and_duplicates_are_summed():
    dense = np.array([[0.0, np.nan], [0.0, 0.0]])
    data, indices, indptr = _core.csr_from_dense(dense)
    assert (np.isnan(data).tolist(), indices.tolist(), indptr.tolist()) == ([True], [1], [0, 1, 1])
    twice = np.float32([1, 2]), np.int32([1, 1]), np.array([0, 2])
    assert _core.csr_validate(*twice, shape=(1, 2)) == (True, True)
    assert _core.csr_to_dense(*twice, shape=(1, 2)).tolist() == [[0, 3]]


def test_the_gate_has_levels():
    broken = np.float32([1, 2]), np.int32([9, 0]), np.array([0, 2])
    for level in ("shape", "structure"):
        assert _core.csr_validate(*broken, shape=(1, 3), level=level) == (False, False)
    with pytest.raises(CorruptFileError, match=r"indices\[0\] is 9"):
        _core.csr_validate(*broken, shape=(1, 3))
    assert _core.csr_validate(None, np.int32([2, 0]), broken[2], shape=(1, 3)) == (False, False)
    with pytest.raises(CorruptFileError, match=r"indptr\[1\]"):
        _core.csr_validate(None, broken[1], np.array([0, 1, 0, 2]), shape=(3, 3), level="structure")


@pytest.mark.parametrize(
    ("indices", "indptr"),
    [
        ([0, 3, 1], [0, 2, 3]),
        ([0, -1, 1], [0, 2, 3]),
        ([0, 2, 1], [0, 2, 4]),
        ([0, 2, 1], [0, 9, 3]),
    ],
)
def test_arrays_that_were_changed_behind_our_back_are_caught(indices, indptr):
    arrays = np.float32([1, 2, 3]), np.int32(indices), np.array(indptr, np.int64)
    for function in (_core.csr_transpose, _core.csr_to_dense):
        with pytest.raises(CorruptFileError, match=r"ind(ices|ptr)\["):
            function(*arrays, shape=(2, 3))


def test_a_gather_checks_the_extents_of_its_rows():
    arrays = np.float32([1, 2, 3]), np.int32([0, 2, 1]), np.array([0, 2, 10**12, 3])
    assert_same(_core.csr_take(*arrays, np.array([0]), shape=(3, 3)), [[1, 0, 2]])
    for row in (1, 2):
        with pytest.raises(CorruptFileError, match=r"indptr\[\d\] is"):
            _core.csr_take(*arrays, np.array([0, row]), shape=(3, 3))
    for row in (-1, 3):
        with pytest.raises(IndexError, match=str(row)):
            _core.csr_take(*arrays, np.array([row]), shape=(3, 3))


def test_arguments_are_borrowed_not_kept():
    arrays = parts(random_csr(0))
    before = [sys.getrefcount(a) for a in arrays]
    for _ in range(10):
        _core.csr_to_dense(*arrays, shape=(300, 40))
        _core.csr_transpose(*arrays, shape=(300, 40))
    assert [sys.getrefcount(a) for a in arrays] == before


def test_a_matrix_keeps_arrays_and_gives_them_back(no_leak):
    arrays = parts(random_csr(0))
    before = [sys.getrefcount(a) for a in arrays]
    matrix = _core.Matrix.from_csr(*arrays, shape=(300, 40), name="mine")
    assert sys.getrefcount(arrays[0]) > before[0]
    assert matrix.name == "mine"
    del matrix
    gc.collect()
    assert [sys.getrefcount(a) for a in arrays] == before
    with pytest.raises(CorruptFileError):
        _core.Matrix.from_csr(*arrays, shape=(300, 39))
    assert [sys.getrefcount(a) for a in arrays] == before


def test_random_numbers_and_permutations_are_functions_of_their_arguments():
    assert _core.philox_u64(1, 2, 3) == _core.philox_u64(1, 2, 3)
    assert (
        len({_core.philox_u64(s, t, i) for s in (0, 1) for t in (0, 1) for i in range(50)}) == 200
    )
    order = _core.permutation(7, 0, 1000)
    assert order.dtype == np.int64
    np.testing.assert_array_equal(np.sort(order), np.arange(1000))
    assert not np.array_equal(order, _core.permutation(8, 0, 1000))
    assert _core.permutation(7, 0, 0).shape == (0,)


def test_log1p_is_within_one_ulp_of_float64():
    x = np.concatenate([np.linspace(0, 1e4, 9999), [0.0, 1e-30, 1e30, -0.5, -1.0]])
    x = x.astype(np.float32).reshape(2, 1, -1)
    got = _core.log1p(x)
    with np.errstate(divide="ignore"):
        want = np.log1p(x.astype(np.float64)).astype(np.float32)
    assert (got.shape, got.dtype) == (x.shape, np.float32)
    np.testing.assert_array_max_ulp(got, want, maxulp=1)
    assert _core.log1p(np.float32([])).size == 0
