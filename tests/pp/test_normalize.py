"""normalize_total against the plain engine (bits), the loader (bits), scanpy, and by hand."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import scanpy as sc
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

import scio
from scio import _core
from scio.errors import KeyNotFoundError, ScioWarning
from tests.plain import normalize as plain
from tests.pp.matrices import DTYPES, FORMS, counts, densify

pytestmark = pytest.mark.filterwarnings("ignore:.*have a total of 0 and stay as they are")


def normalized(matrix, **options):
    return densify(scio.pp.normalize_total(matrix, **options))


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


# --- values


NOT_SCIPY = ["dense", "fortran", "strided", "scio"]  # SciPy has no sparse float16
CASES = [(form, dtype) for form in FORMS for dtype in DTYPES]


@pytest.mark.parametrize(
    ("form", "dtype"), [(f, d) for f, d in CASES if d != "float16" or f in NOT_SCIPY]
)
def test_every_form_and_dtype_has_the_bits_of_the_plain_engine(form, dtype):
    x = counts(dtype=dtype)
    expected, _ = plain.normalize(x, 1e4)
    assert same_bits(normalized(FORMS[form](x), target_sum=1e4), expected)


@pytest.mark.parametrize("form", [f for f in FORMS if f != "with_duplicates"])
def test_fractions_have_the_bits_of_the_plain_engine(form):
    x = counts(seed=3) * np.float32(0.37)
    expected, _ = plain.normalize(x, 1e4)
    with pytest.warns(ScioWarning, match="no integers"):
        assert same_bits(normalized(FORMS[form](x), target_sum=1e4), expected)


def test_by_hand_as_the_specification_has_it():
    x = np.array([[3, 3, 3, 6, 6], [1, 1, 1, 2, 2], [1, 22, 1, 2, 2]])
    made = scio.pp.normalize_total(
        sp.csr_matrix(x),
        target_sum=1,
        exclude_highly_expressed=True,
        max_fraction=0.2,
        inplace=False,
    )
    rows = [[0.5, 0.5, 0.5, 1, 1], [0.5, 0.5, 0.5, 1, 1], [0.5, 11, 0.5, 1, 1]]
    np.testing.assert_array_equal(made["X"].toarray(), np.float32(rows))
    np.testing.assert_array_equal(made["highly_expressed"], [False, True, False, True, True])
    np.testing.assert_array_equal(made["norm_factor"], [6, 2, 2])


@pytest.mark.parametrize("form", ["csr", "csc", "dense", "with_zeros", "with_duplicates", "scio"])
@pytest.mark.parametrize("target", [None, 100.0])
def test_highly_expressed_genes_are_left_out(form, target):
    x = counts(dtype="int32", seed=5)
    expected, factor = plain.normalize(x, target, max_fraction=0.2)
    made = scio.pp.normalize_total(
        FORMS[form](x),
        target_sum=target,
        exclude_highly_expressed=True,
        max_fraction=0.2,
        inplace=False,
    )
    assert same_bits(densify(made["X"]), expected)
    np.testing.assert_array_equal(made["norm_factor"], factor)
    assert 0 < made["highly_expressed"].sum() < x.shape[1]


def test_the_default_target_is_the_median_of_totals_that_are_not_zero():
    x = np.array([[0, 0], [1, 0], [2, 3], [4, 4], [9, 9]], dtype=np.float32)  # 1, 5, 8, 18
    made = scio.pp.normalize_total(x, inplace=False)
    np.testing.assert_array_equal(made["norm_factor"] * 6.5, [0, 1, 5, 8, 18])
    np.testing.assert_array_equal(made["X"][0], [0, 0])
    assert made["X"][1, 0] == np.float32(6.5)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 12),
    st.integers(0, 9),
    st.integers(0, 2**31),
    st.sampled_from(["int32", "float32", "float64"]),
)
def test_any_small_matrix_equals_the_plain_engine(n_rows, n_cols, seed, dtype):
    rng = np.random.default_rng(seed)
    x = (rng.integers(0, 4, (n_rows, n_cols)) * rng.integers(0, 2, (n_rows, n_cols))).astype(dtype)
    expected, _ = plain.normalize(x, 7.0)
    assert same_bits(normalized(x, target_sum=7.0), expected)
    assert same_bits(normalized(sp.csr_matrix(x), target_sum=7.0), expected)


def test_totals_above_2_to_the_53_are_exact():
    big = 2**53 + 1
    x = np.array([[big, 1, 0], [3, 0, 2**24 + 1]], dtype=np.int64)
    made = scio.pp.normalize_total(sp.csr_matrix(x), target_sum=2.0, inplace=False)
    np.testing.assert_array_equal(made["norm_factor"] * 2, [2**53 + 2, 2**24 + 4])


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_bits_do_not_depend_on_threads(threads):
    x = sp.csr_matrix(counts(3000, 300, seed=1) * np.float32(0.3))
    indptr = x.indptr.astype(np.int64)
    totals, n_positive, facts = _core.row_totals(
        x.data, x.indices, indptr, shape=x.shape, threads=threads
    )
    inline = _core.row_totals(x.data, x.indices, indptr, shape=x.shape, threads=0)
    assert same_bits(totals, inline[0])
    assert same_bits(n_positive, inline[1])
    assert facts == inline[2]
    arguments = (x.data, indptr, totals, 1e4, True)
    assert same_bits(
        _core.normalize_log1p(*arguments, threads=threads),
        _core.normalize_log1p(*arguments, threads=0),
    )


LOADED = [
    (dtype, form, is_fractional)
    for dtype in ("uint8", "uint16", "int32", "float32", "float64")
    for form in ("csr", "shuffled", "with_zeros", "with_duplicates")
    for is_fractional in (False, True)
    if not is_fractional or (dtype.startswith("float") and form != "with_duplicates")
]


@pytest.mark.parametrize(("dtype", "form", "is_fractional"), LOADED)
def test_the_loader_gives_the_same_bits(dtype, form, is_fractional):
    x = counts(200, 50, seed=2, dtype=dtype) * np.dtype(dtype).type(0.3 if is_fractional else 1)
    m = FORMS[form](x.astype(dtype))
    indptr = m.indptr.astype(np.int64)
    matrix = _core.Matrix.from_csr(m.data, m.indices, indptr, shape=m.shape)
    columns = np.arange(x.shape[1], dtype=np.int32)
    batch = _core.collate(
        [matrix], [columns], np.arange(x.shape[0]), form="dense", n_ids=x.shape[1], first_id=0,
        library_size=True, target_sum=1e4, log1p=True, id_mask=None, max_genes=0, select="first",
        seed=0, epoch=0, pad_id=0, pad_value=0.0,
    )  # fmt: skip
    loaded = next(v for v in batch.values() if getattr(v, "ndim", 0) == 2)
    with np.errstate(all="raise"):
        options = {"dtype": "float32", "target_sum": 1e4}
        if is_fractional:
            with pytest.warns(ScioWarning, match="no integers"):
                made = scio.pp.normalize_total(m, **options)
        else:
            made = scio.pp.normalize_total(m, **options)
        made = scio.pp.log1p(made)
    assert same_bits(densify(made), loaded)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
@pytest.mark.parametrize("form", ["csr", "dense"])
def test_scanpy_gives_the_same_within_2_ulp_and_with_compat_the_same_bits(dtype, form):
    x = counts(300, 60, seed=4, dtype=dtype)
    x[:, 0] += 1  # no empty cell
    theirs = ad.AnnData(FORMS[form](x.copy()))
    sc.pp.normalize_total(theirs, target_sum=1e4)
    ours = normalized(FORMS[form](x), target_sum=1e4)
    exact, _ = plain.normalize(x.astype(np.float64), 1e4)
    assert plain.ulps(densify(theirs.X), exact.astype(np.longdouble)) <= 2.01
    assert plain.ulps(ours, exact.astype(np.longdouble)) <= 1
    compat = normalized(FORMS[form](x), target_sum=1e4, compat="scanpy")
    np.testing.assert_array_equal(compat, densify(theirs.X))


def test_fused_with_the_logarithm_equals_the_two_steps():
    x = sp.csr_matrix(counts(500, 60, seed=6))
    totals = np.asarray(x.sum(axis=1), dtype=np.float64).ravel()
    fused = _core.normalize_log1p(x.data, x.indptr.astype(np.int64), totals, 1e4, True)
    two = scio.pp.log1p(scio.pp.normalize_total(x, target_sum=1e4))
    assert same_bits(fused, two.data)


# --- AnnData


def make(x=None, **parts):
    x = counts(seed=8) if x is None else x
    return ad.AnnData(
        sp.csr_matrix(x),
        obs={"obs_names": [f"c{i}" for i in range(x.shape[0])]},
        var={"var_names": [f"g{i}" for i in range(x.shape[1])]},
        **parts,
    )


def test_in_place_on_an_anndata_leaves_the_old_matrix_alone():
    adata = make()
    adata.layers["counts"] = adata.X
    old, before = adata.X, adata.X.copy()
    assert scio.pp.normalize_total(adata, target_sum=1e4, key_added="factor") is None
    expected, factor = plain.normalize(before.toarray(), 1e4)
    np.testing.assert_array_equal(adata.X.toarray(), expected)
    np.testing.assert_array_equal(adata.obs["factor"], factor)
    assert adata.layers["counts"] is old
    np.testing.assert_array_equal(old.toarray(), before.toarray())
    assert not np.shares_memory(adata.X.indices, old.indices)  # eliminate_zeros() works in place
    adata.X.eliminate_zeros()
    adata.X.data[:] = -1
    np.testing.assert_array_equal(old.toarray(), before.toarray())
    assert adata.uns["scio"]["state"]["X"] == {"target_sum": 1e4}


def test_a_matrix_that_nobody_else_holds_hands_its_structure_on():
    adata = make()
    place = adata.X.indices.ctypes.data
    scio.pp.normalize_total(adata)
    assert adata.X.indices.ctypes.data == place
    held = adata.X
    scio.pp.log1p(adata)
    assert not np.shares_memory(adata.X.indices, held.indices)


def test_a_layer_is_normalised_and_x_stays():
    adata = make()
    adata.layers["a"] = adata.X.copy()
    before = adata.X.toarray()
    scio.pp.normalize_total(adata, layer="a", target_sum=10)
    np.testing.assert_array_equal(adata.layers["a"].toarray(), plain.normalize(before, 10)[0])
    np.testing.assert_array_equal(adata.X.toarray(), before)
    assert {k: set(v) for k, v in adata.uns["scio"]["state"].items()} == {"layers": {"a"}}


def test_copy_and_inplace_false_change_nothing():
    adata = make()
    before = adata.X.toarray()
    made = scio.pp.normalize_total(adata, target_sum=1, copy=True)
    result = scio.pp.normalize_total(adata, target_sum=1, inplace=False)
    np.testing.assert_array_equal(made.X.toarray(), result["X"].toarray())
    np.testing.assert_array_equal(adata.X.toarray(), before)
    assert "scio" not in adata.uns
    with pytest.raises(ValueError, match="exclude each other"):
        scio.pp.normalize_total(adata, copy=True, inplace=False)


def test_a_view_becomes_an_anndata_of_its_own():
    adata = make()
    part = adata[5:20]
    before = adata.X.toarray()
    with pytest.warns(ScioWarning, match="view"):
        scio.pp.normalize_total(part, target_sum=1e4)
    assert not part.is_view
    np.testing.assert_array_equal(part.X.toarray(), plain.normalize(before[5:20], 1e4)[0])
    np.testing.assert_array_equal(adata.X.toarray(), before)


def test_out_inplace_writes_into_the_old_values_unless_they_are_shared():
    adata = make()
    place, before = adata.X.data.ctypes.data, adata.X.toarray()
    scio.pp.normalize_total(adata, target_sum=1e4, out="inplace")
    assert adata.X.data.ctypes.data == place
    np.testing.assert_array_equal(adata.X.toarray(), plain.normalize(before, 1e4)[0])
    adata = make()
    adata.layers["counts"] = adata.X
    with pytest.raises(ValueError, match=r"layers\['counts'\] shares its memory"):
        scio.pp.normalize_total(adata, out="inplace")
    adata = make()
    outside = adata.X.data
    with pytest.raises(ValueError, match="something outside shares"):
        scio.pp.normalize_total(adata, out="inplace")
    np.testing.assert_array_equal(outside, adata.X.data)
    with pytest.raises(ValueError, match="its int32 values are not the float32"):
        scio.pp.normalize_total(make(counts(dtype="int32")), out="inplace")


def test_out_view_shares_the_structure():
    x = sp.csr_matrix(counts())
    view = scio.pp.normalize_total(x, target_sum=1e4, out="view")
    new = scio.pp.normalize_total(x, target_sum=1e4)
    assert np.shares_memory(view.indices, x.indices)
    assert not np.shares_memory(new.indices, x.indices)
    assert same_bits(view.data, new.data)


def test_kinds_of_matrices_are_kept():
    x = counts()
    for form, kind in [("csr", sp.csr_matrix), ("csr_array", sp.csr_array), ("csc", sp.csr_matrix)]:
        assert type(scio.pp.normalize_total(FORMS[form](x))) is kind
    assert isinstance(scio.pp.normalize_total(scio.CSR.from_dense(x)), scio.CSR)
    assert scio.pp.normalize_total(x, dtype="float64").dtype == np.float64


def test_explicit_zeros_stay_stored():
    x = FORMS["with_zeros"](counts())
    assert scio.pp.normalize_total(x).nnz == x.nnz


# --- bad input


def test_bad_values_are_named_with_cell_and_gene():
    x = counts(seed=8)
    x[3, 5] = -2
    with pytest.raises(ValueError, match=r"'c3' \(row 3\), gene 'g5' \(column 5\) is -2.0; counts"):
        scio.pp.normalize_total(make(x))
    x[3, 5] = np.nan
    with pytest.raises(ValueError, match=r"cell 'c3' .*gene 'g5'.* is nan, expected a finite"):
        scio.pp.normalize_total(make(x))
    x[3, 5] = np.inf
    for form in ("dense", "csr", "csc", "scio", "fortran"):
        with pytest.raises(ValueError, match="row 3, column 5 is inf"):
            scio.pp.normalize_total(FORMS[form](x))


@pytest.mark.filterwarnings("default")
def test_what_is_no_count_warns_once_and_says_where():
    x = counts(seed=8)
    x[2, 1] = 0.5
    with pytest.warns(ScioWarning, match=r"'c2' .*'g1' .*is 0.5; the maximum is") as seen:
        scio.pp.normalize_total(make(x), target_sum=1)
    assert sum("integers" in str(w.message) for w in seen) == 1
    adata = make()
    scio.pp.normalize_total(adata, target_sum=1e4)
    with pytest.warns(ScioWarning, match="was normalised to 10000 before"):
        scio.pp.normalize_total(adata)
    scio.pp.log1p(adata)
    with pytest.warns(ScioWarning, match="was logged before"):
        scio.pp.normalize_total(adata)


@pytest.mark.filterwarnings("default")
def test_empty_cells_warn_and_all_empty_cells_raise():
    with pytest.warns(ScioWarning, match=r"1 cells have a total of 0 .* the first is 'c1'"):
        scio.pp.normalize_total(make(np.float32([[1, 0], [0, 0], [1, 1]])))
    with pytest.raises(ValueError, match="all 3 cells have a total of 0; give target_sum"):
        scio.pp.normalize_total(np.zeros((3, 4)))
    with pytest.warns(ScioWarning, match="3 cells"):
        np.testing.assert_array_equal(
            scio.pp.normalize_total(np.zeros((3, 4)), target_sum=1), np.zeros((3, 4))
        )


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"target_sum": 0}, "target_sum is 0"),
        ({"target_sum": float("nan")}, "target_sum is nan"),
        ({"max_fraction": 1.5}, "max_fraction is 1.5"),
        ({"out": "elsewhere"}, "out is 'elsewhere'"),
        ({"dtype": "int32"}, "dtype is int32"),
        ({"compat": "seurat"}, "compat is 'seurat'"),
        ({"layer": "a"}, "layer='a' needs an AnnData"),
        ({"key_added": "a"}, "key_added='a' needs an AnnData"),
    ],
)
def test_arguments_that_are_not_allowed(options, text):
    with pytest.raises(ValueError, match=text):
        scio.pp.normalize_total(counts(), **options)


def test_unknown_layers_paths_and_things():
    adata = make()
    adata.layers["counts"] = adata.X.copy()
    with pytest.raises(KeyNotFoundError, match="did you mean 'counts'"):
        scio.pp.normalize_total(adata, layer="count")
    with pytest.raises(TypeError, match="recipe"):
        scio.pp.normalize_total("cells.h5ad")
    with pytest.raises(TypeError, match="scio takes an AnnData"):
        scio.pp.normalize_total([[1, 2]])
    with pytest.raises(TypeError, match="complex128"):
        scio.pp.normalize_total(np.ones((2, 2), dtype=complex))
    with pytest.raises(ValueError, match="1 dimensions"):
        scio.pp.normalize_total(np.ones(3))


def test_a_matrix_with_broken_indices_is_refused():
    x = sp.csr_matrix(counts())
    x.indices[7] = 4000
    with pytest.raises(ValueError, match="4000"):
        scio.pp.normalize_total(x)


@pytest.mark.parametrize("form", ["csr", "dense", "shuffled", "with_zeros", "csc"])
def test_gene_stats_has_the_same_totals(form):
    x = counts(300, 80, seed=1, dtype="float64") * 0.37
    x[::7] = np.round(x[::7])
    m = FORMS[form](x)
    made = scio.pp.gene_stats(m)
    with pytest.warns(ScioWarning, match="no integers"):
        factors = scio.pp.normalize_total(m, target_sum=1.0, inplace=False)["norm_factor"]
    assert same_bits(made.totals, factors)
    np.testing.assert_array_equal(factors, plain.totals_of(x))
