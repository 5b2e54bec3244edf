"""filter_cells and filter_genes against the plain engine and scanpy, and what an AnnData keeps."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

import scio
from scio import _core
from scio.errors import ScioWarning
from tests.plain import filters as plain
from tests.pp.matrices import DTYPES, FORMS, counts, densify

FILTERS = [
    ("filter_cells", "min_counts", 400),
    ("filter_cells", "max_counts", 400),
    ("filter_cells", "min_genes", 12),
    ("filter_cells", "max_genes", 12),
    ("filter_genes", "min_counts", 700),
    ("filter_genes", "max_counts", 700),
    ("filter_genes", "min_cells", 20),
    ("filter_genes", "max_cells", 20),
]


def expected_of(x: np.ndarray, function: str, name: str, value: float):
    rows = x if function == "filter_cells" else x.T
    numbers = plain.counts(rows) if name.endswith("_counts") else plain.detected(rows)
    return (numbers >= value if name.startswith("min") else numbers <= value), numbers


@pytest.mark.parametrize(("function", "name", "value"), FILTERS)
@pytest.mark.parametrize("form", FORMS)
def test_every_form_has_the_mask_and_numbers_of_the_plain_engine(form, function, name, value):
    for dtype in ("float32", "int32"):
        x = counts(dtype=dtype)
        mask, numbers = getattr(scio.pp, function)(FORMS[form](x), **{name: value})
        expected_mask, expected = expected_of(x, function, name, value)
        np.testing.assert_array_equal(mask, expected_mask)
        np.testing.assert_array_equal(numbers, expected)
        assert 0 < mask.sum() < len(mask)
        assert numbers.dtype == (np.float64 if name.endswith("_counts") else np.int64)


@pytest.mark.parametrize("dtype", [*DTYPES, "bool", "uint64", "uint32", "int8"])
def test_every_dtype(dtype):
    x = counts(dtype=dtype)
    for function, name, value in FILTERS:
        mask, numbers = getattr(scio.pp, function)(x, **{name: value})
        expected_mask, expected = expected_of(x.astype(np.float64), function, name, value)
        np.testing.assert_array_equal(mask, expected_mask)
        np.testing.assert_array_equal(numbers, expected)


def test_totals_beyond_single_and_double_precision_are_exact():
    x = np.full((5000, 2), 2**20 + 1, dtype=np.float32)
    np.testing.assert_array_equal(
        scio.pp.filter_genes(sp.csr_matrix(x), min_counts=1)[1], [5000 * (2**20 + 1)] * 2
    )
    big = np.array([[2**53, 1], [1, 2**53], [1, 1]], dtype=np.int64)
    np.testing.assert_array_equal(
        scio.pp.filter_genes(sp.csr_matrix(big), min_counts=1)[1], [2**53 + 2] * 2
    )
    np.testing.assert_array_equal(
        scio.pp.filter_cells(np.array([[2**63, 2**63]], np.uint64), min_counts=1)[1], [2.0**64]
    )


def test_negative_values_are_not_detected():
    x = np.array([[-1.0, 2.0], [0.0, -3.0]])
    np.testing.assert_array_equal(scio.pp.filter_cells(x, min_genes=1)[1], [1, 0])
    np.testing.assert_array_equal(scio.pp.filter_genes(x, min_cells=1)[1], [0, 1])


@pytest.mark.parametrize("what", ["positive", "sum"])
@pytest.mark.parametrize("scaled", [1, 0.3])
def test_bits_do_not_depend_on_threads_and_storage(what, scaled):
    dtype = "float32" if scaled == 1 else "float64"
    x = counts(9000, 20, seed=3, dtype=dtype) * np.dtype(dtype).type(scaled)
    m = sp.csr_matrix(x)
    arrays = (m.data, m.indices, m.indptr.astype(np.int64))
    inline = _core.column_sums(*arrays, what, shape=m.shape, threads=0)[0]
    for threads in (1, 2, 7):
        more = _core.column_sums(*arrays, what, shape=m.shape, threads=threads)[0]
        assert more.tobytes() == inline.tobytes()
    dense = _core.column_sums(x, None, None, what, shape=m.shape)[0]
    assert dense.tobytes() == inline.tobytes()


def whole(x=None):
    """An AnnData with something of everything."""
    x = counts(seed=8) if x is None else x
    n, g = x.shape
    rng = np.random.default_rng(1)
    adata = ad.AnnData(
        sp.csr_matrix(x),
        obs=pd.DataFrame(
            {"batch": pd.Categorical(["a", "b"] * (n // 2))}, index=map(str, range(n))
        ),
        var=pd.DataFrame({"kind": ["x"] * g}, index=[f"g{i}" for i in range(g)]),
    )
    adata.raw = adata.copy()
    adata.layers["counts"] = adata.X
    adata.layers["dense"] = x.copy()
    adata.layers["csc"] = sp.csc_matrix(x)
    adata.obsm["p"] = rng.random((n, 3))
    adata.obsm["frame"] = pd.DataFrame({"u": np.arange(n)}, index=adata.obs_names)
    adata.varm["l"] = rng.random((g, 2))
    adata.obsp["near"] = sp.random(n, n, density=0.1, format="csr", random_state=1)
    adata.varp["near"] = rng.random((g, g))
    adata.uns["colors"] = ["red"]
    return adata


def assert_same(ours: ad.AnnData, theirs: ad.AnnData):
    pd.testing.assert_frame_equal(ours.obs, theirs.obs, check_dtype=False)
    pd.testing.assert_frame_equal(ours.var, theirs.var, check_dtype=False)
    for name in ("layers", "obsm", "varm", "obsp", "varp"):
        assert set(getattr(ours, name)) == set(getattr(theirs, name))
        for key in getattr(ours, name):
            a, b = getattr(ours, name)[key], getattr(theirs, name)[key]
            assert type(a) is type(b)
            np.testing.assert_array_equal(densify(a), densify(b))
    assert type(ours.X) is type(theirs.X)
    assert ours.X.dtype == theirs.X.dtype
    assert ours.X.indices.dtype == theirs.X.indices.dtype
    np.testing.assert_array_equal(ours.X.toarray(), theirs.X.toarray())
    np.testing.assert_array_equal(ours.raw.X.toarray(), theirs.raw.X.toarray())
    assert ours.uns["colors"] == theirs.uns["colors"]
    assert not ours.is_view


@pytest.mark.parametrize(("function", "name", "value"), FILTERS)
def test_an_anndata_becomes_what_scanpy_makes_of_it(function, name, value):
    ours, theirs = whole(), whole()
    assert getattr(scio.pp, function)(ours, **{name: value}) is None
    getattr(sc.pp, function)(theirs, **{name: value})
    assert ours.shape not in {(0, 0), whole().shape}
    assert_same(ours, theirs)


def test_nothing_is_written_into_the_arrays_of_before():
    adata = whole()
    matrix, before = adata.X, adata.X.toarray()
    scio.pp.filter_genes(adata, min_cells=20)
    np.testing.assert_array_equal(matrix.toarray(), before)
    assert not np.shares_memory(adata.X.data, matrix.data)


def test_copy_and_inplace_false():
    adata = whole()
    made = scio.pp.filter_cells(adata, min_genes=12, copy=True)
    mask, numbers = scio.pp.filter_cells(adata, min_genes=12, inplace=False)
    assert adata.shape == whole().shape
    assert "n_genes" not in adata.obs
    np.testing.assert_array_equal(made.obs["n_genes"], numbers[mask])


def test_when_all_are_kept_only_the_column_is_new():
    adata = whole()
    matrix = adata.X
    scio.pp.filter_cells(adata, min_genes=0)
    assert adata.X is matrix
    assert "n_genes" in adata.obs


def test_a_view_is_filtered_on_its_own():
    adata = whole()
    part = adata[10:30]
    scio.pp.filter_cells(part, min_genes=12)
    assert not part.is_view
    assert adata.shape == whole().shape
    view = adata[10:30]
    with pytest.warns(ScioWarning, match="view"):
        scio.pp.filter_cells(view, min_genes=0)


def test_none_left():
    adata = whole()
    scio.pp.filter_cells(adata, min_genes=10**6)
    assert adata.n_obs == 0
    adata = whole()
    scio.pp.filter_genes(adata, min_cells=10**6)
    assert adata.n_vars == 0


@pytest.mark.parametrize("compression", [None, "gzip"])
@pytest.mark.parametrize("scaled", [1, 0.3])
def test_a_file_gives_the_bits_of_memory(tmp_path, compression, scaled):
    # doubles, whose sums depend on the order
    dtype = "float32" if scaled == 1 else "float64"
    x = sp.csr_matrix(counts(9000, 30, seed=2, dtype=dtype) * np.dtype(dtype).type(scaled))
    path = tmp_path / "x.h5ad"
    ad.AnnData(x).write_h5ad(path, compression=compression)
    for function, name, value in FILTERS:
        in_memory = getattr(scio.pp, function)(x, **{name: value})
        from_file = getattr(scio.pp, function)(path, **{name: value})
        for a, b in zip(from_file, in_memory, strict=True):
            assert a.dtype == b.dtype
            assert a.tobytes() == b.tobytes()
    with scio.open(path) as file:
        assert scio.pp.filter_cells(file, min_genes=5)[0].shape == (9000,)


# --- the subset itself


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_subsets_equal_scipy(data):
    n, g = data.draw(st.tuples(st.integers(0, 12), st.integers(0, 12)))
    x = (np.random.default_rng(data.draw(st.integers(0, 99))).random((n, g)) < 0.5).astype(
        data.draw(st.sampled_from(["uint8", "int16", "float32", "float64"]))
    )
    m = data.draw(st.sampled_from([FORMS["csr64"], FORMS["csr"]]))(x)
    rows = data.draw(st.none() | st.lists(st.integers(0, n - 1), max_size=15)) if n else None
    kept = np.flatnonzero(data.draw(st.lists(st.booleans(), min_size=g, max_size=g)))
    columns = np.full(g, -1, np.int32)
    columns[kept] = np.arange(len(kept))
    out = _core.csr_subset(
        m.data, m.indices, m.indptr.astype(np.int64),
        None if rows is None else np.array(rows, np.int64), columns, len(kept), shape=m.shape,
    )  # fmt: skip
    expected = x[:, kept] if rows is None else x[np.array(rows, int)][:, kept]
    assert out[1].dtype == m.indices.dtype
    made = scio.CSR(*out, shape=expected.shape)  # the gate looks at it
    np.testing.assert_array_equal(made.toarray(), expected)


def test_subsets_refuse_what_does_not_exist():
    m = sp.csr_matrix(counts())
    arrays = (m.data, m.indices, m.indptr.astype(np.int64))
    with pytest.raises(IndexError, match=r"rows\[1\] is 60"):
        _core.csr_subset(*arrays, np.array([0, 60]), None, 40, shape=m.shape)
    columns = np.r_[0, 1, 2, 40, np.arange(36)].astype(np.int32)
    with pytest.raises(ValueError, match=r"columns\[3\] is 40"):
        _core.csr_subset(*arrays, None, columns, 40, shape=m.shape)
    m.indices[5] = 99
    with pytest.raises(ValueError, match=r"indices\[5\]"):
        _core.csr_subset(*arrays, None, np.arange(40, dtype=np.int32), 40, shape=m.shape)


# --- bad input


def test_exactly_one_limit():
    with pytest.raises(ValueError, match=r"exactly one of min_counts, min_genes.* not none"):
        scio.pp.filter_cells(counts())
    with pytest.raises(ValueError, match="not min_counts, min_genes"):
        scio.pp.filter_cells(counts(), min_counts=1, min_genes=1)
    with pytest.raises(ValueError, match="min_cells, max_counts, max_cells"):
        scio.pp.filter_genes(counts())


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("form", ["csr", "dense", "scio", "csc"])
def test_values_that_are_not_finite_are_named(form, value):
    x = counts()
    x[2, 9] = value
    for function, name, limit in FILTERS:
        with pytest.raises(ValueError, match="row 2, column 9"):
            getattr(scio.pp, function)(FORMS[form](x), **{name: limit})
    adata = whole(x)
    with pytest.raises(ValueError, match=r"cell '2' \(row 2\), gene 'g9'"):
        scio.pp.filter_genes(adata, min_cells=3)


def test_broken_indices_are_refused():
    m = sp.csr_matrix(counts())
    m.indices[7] = -3
    for function, name, limit in FILTERS:
        with pytest.raises(ValueError, match="ind"):
            getattr(scio.pp, function)(m, **{name: limit})
