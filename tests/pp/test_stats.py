"""gene_stats against Seurat's stored values, exact integers and a plain oracle; bits, merging, files."""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import scio
from scio import _core
from scio.errors import IOFormatError, KeyNotFoundError, ScioWarning, TargetExistsError
from scio.pp import GeneStats, _source, gene_stats
from scio.pp import stats as module
from scio.pp._source import BLOCK_ROWS
from tests.plain import stats as plain

N_OBS, N_VARS = 2 * BLOCK_ROWS + 500, 31
TABLES = ("n_positive", "n_nonzero", "maximum", "is_integer")


@pytest.fixture(scope="module")
def counts() -> np.ndarray:
    rng = np.random.default_rng(5)
    made = rng.poisson(0.5, (N_OBS, N_VARS)) * rng.integers(1, 40, N_VARS)
    made[:, 3] = 0
    made[17] = 0
    made[:, 4] = 2
    made[18] = 0
    made[18, 4] = 2
    return made


@pytest.fixture(scope="module")
def labels() -> np.ndarray:
    return np.random.default_rng(6).choice(["left", "right", "top"], N_OBS)


def assert_same(a: GeneStats, b: GeneStats) -> None:
    """Every number has the same bits."""
    assert a.batches == b.batches
    assert a.facts == b.facts
    assert a.fingerprint == b.fingerprint
    for key in ("n_cells", "totals", "n_genes", "batch_codes", *TABLES):
        np.testing.assert_array_equal(getattr(a, key), getattr(b, key), err_msg=key)
    for key, table in a.tables.items():
        other = b.tables[key]
        assert (table is None) == (other is None), key
        np.testing.assert_array_equal(table, other, err_msg=key)
    for pooled in (False, True):
        np.testing.assert_array_equal(a.means(pooled=pooled), b.means(pooled=pooled))
        np.testing.assert_array_equal(a.variances(pooled=pooled), b.variances(pooled=pooled))
    assert (a.values is None) == (b.values is None)
    for x, y in zip(a.values or (), b.values or (), strict=True):
        np.testing.assert_array_equal(x, y)


# --- stored values of Seurat 4.3.0 and Seurat 3

STORED = {
    "pbmc3k": "pbmc3k_2638x13714_counts",
    "kang": "kang_ifnb_2000x9015_counts",
    "paul15": "paul15_2730x3451_dense_anndata06",
    "worm_l2": "worm_l2_sci_5340x5000_counts",
}


@pytest.mark.parametrize("name", STORED)
def test_means_and_variances_are_those_of_seurat(shared_data, name):
    table = pd.read_csv(shared_data / "expected" / f"{name}_seurat430_vst.csv.gz", index_col=0)
    got = gene_stats(shared_data / "counts" / f"{STORED[name]}.h5ad", scaled=False)

    assert got.is_exact
    assert got.n_vars == len(table)
    np.testing.assert_allclose(got.means()[0], table["vst.mean"], rtol=1e-9)
    np.testing.assert_allclose(got.variances()[0], table["vst.variance"], rtol=1e-9)


def test_moments_of_the_packaged_cells_are_those_of_seurat_3(shared_data):
    table = pd.read_csv(shared_data / "expected" / "seurat_hvg_v3.csv.gz", index_col=0)
    source = scio.open(scio.datasets.pbmc3k())
    matrix = sp.csr_matrix(source.X[:].to_scipy())
    matrix = matrix[matrix.getnnz(axis=1) >= 200]
    matrix = matrix[:, matrix.getnnz(axis=0) >= 3]
    got = gene_stats(matrix, scaled=False)

    assert got.n_vars == len(table) == 13714
    np.testing.assert_allclose(got.means()[0], table["mean"], rtol=1e-13)
    np.testing.assert_allclose(got.variances()[0], table["variance"], rtol=1e-12)


# --- against the oracle


def check_against_plain(got: GeneStats, dense: np.ndarray, labels: Any = None) -> None:
    x = np.asarray(dense, dtype=np.float64)
    names = [None] if labels is None else got.batches
    for i, name in enumerate(names):
        rows = x if name is None else x[np.asarray(labels) == name]
        mean, variance = plain.moments(rows)
        scale = 1e-12 * np.abs(rows).max(initial=1) ** 2
        np.testing.assert_allclose(got.means()[i], mean, rtol=1e-12, atol=scale)
        np.testing.assert_allclose(got.variances()[i], variance, rtol=1e-10, atol=scale)
        np.testing.assert_allclose(got.sums()[i], rows.sum(axis=0), rtol=1e-12, atol=scale)
        np.testing.assert_array_equal(got.n_positive[i], (rows > 0).sum(axis=0))
        np.testing.assert_array_equal(got.n_nonzero[i], (rows != 0).sum(axis=0))
        np.testing.assert_array_equal(got.maximum[i], rows.max(axis=0) if len(rows) else 0)
        np.testing.assert_array_equal(got.is_integer[i], (rows == np.rint(rows)).all(axis=0))
        assert got.n_cells[i] == len(rows)
    np.testing.assert_allclose(got.totals, x.sum(axis=1), rtol=1e-13, atol=1e-300)
    np.testing.assert_array_equal(got.n_genes, (x != 0).sum(axis=1))


def check_values(got: GeneStats, dense: np.ndarray, labels: Any = None) -> None:
    for i, name in enumerate(got.batches):
        rows = dense if name is None else dense[np.asarray(labels) == name]
        found = got.value_counts(i)
        assert found is not None
        indptr, values, n = found
        assert len(indptr) == got.n_vars + 1
        for g in range(got.n_vars):
            expected = np.unique(rows[:, g][rows[:, g] != 0], return_counts=True)
            np.testing.assert_array_equal(values[indptr[g] : indptr[g + 1]], expected[0])
            np.testing.assert_array_equal(n[indptr[g] : indptr[g + 1]], expected[1])


def test_counts_are_exact(counts, labels):
    got = gene_stats(sp.csr_matrix(counts), batch_key=labels)

    assert got.is_exact
    check_against_plain(got, counts, labels)
    check_values(got, counts, labels)
    mean, variance = plain.exact_moments(counts)
    np.testing.assert_array_equal(got.means(pooled=True), mean)
    np.testing.assert_allclose(got.variances(pooled=True), variance, rtol=4e-16)
    assert got.variances()[:, 4].tolist() == [0, 0, 0]
    assert got.variances(pooled=True)[3] == 0


def test_scaled_and_logged_moments(counts):
    got = gene_stats(sp.csr_matrix(counts), target_sum=1e4)
    totals = np.where(got.totals == 0, 1, got.totals)[:, None]
    scaled = counts / totals
    logged = np.log1p((counts * (1e4 / totals)).astype(np.float32)).astype(np.float64)

    for mean, m2, values, rtol in (
        (got.scaled_mean, got.scaled_m2, scaled, 1e-11),
        (got.log_mean, got.log_m2, logged, 2e-6),
    ):
        assert mean is not None
        assert m2 is not None
        expected = plain.moments(values)
        np.testing.assert_allclose(mean[0], expected[0], rtol=rtol)
        np.testing.assert_allclose(m2[0] / (N_OBS - 1), expected[1], rtol=rtol, atol=1e-30)
    assert gene_stats(sp.csr_matrix(counts), scaled=False).scaled_mean is None


def test_log_moments_are_those_of_the_logged_matrix(counts):
    """Fused = composed: the kernels of the loader make the same float32 values."""
    got = gene_stats(sp.csr_matrix(counts), target_sum=1e4)
    matrix = sp.csr_matrix(counts.astype(np.float32))
    factors = np.repeat(1e4 / np.where(got.totals == 0, 1, got.totals), np.diff(matrix.indptr))
    matrix.data = _core.log1p((matrix.data * factors).astype(np.float32))
    composed = gene_stats(matrix)

    assert not composed.is_exact
    np.testing.assert_allclose(composed.means()[0], got.log_mean[0], rtol=1e-14)
    np.testing.assert_allclose(
        composed.variances()[0], got.log_m2[0] / (N_OBS - 1), rtol=1e-12, atol=1e-18
    )


def test_expm1_takes_logs_back(counts):
    logged = np.log1p(counts.astype(np.float64)) / np.log(2)
    got = gene_stats(sp.csr_matrix(logged), expm1=np.log(2))
    mean, variance = plain.moments(counts)

    np.testing.assert_allclose(got.means()[0], mean, rtol=1e-12)
    np.testing.assert_allclose(got.variances()[0], variance, rtol=1e-12, atol=1e-20)
    np.testing.assert_array_equal(got.n_positive[0], (counts > 0).sum(axis=0))
    assert got.value_counts() is None
    assert got.scaled_mean is None


def test_partly_integer_and_negative_matrices(counts, labels):
    mixed = counts.astype(np.float64)
    mixed[5000:5200] += 0.25 * (mixed[5000:5200] > 0)
    check_against_plain(gene_stats(sp.csr_matrix(mixed), batch_key=labels), mixed, labels)
    mixed[9:40] *= -1
    check_against_plain(gene_stats(sp.csr_matrix(mixed), batch_key=labels), mixed, labels)
    negative = -1 - np.abs(mixed)
    got = gene_stats(negative)
    check_against_plain(got, negative)
    assert (got.maximum == negative.max(axis=0)).all()
    assert (got.maximum < 0).all()


# --- the same bits

FORMS: dict[str, Any] = {
    "csr": sp.csr_matrix,
    "csc": sp.csc_matrix,
    "dense": lambda x: x,
    "fortran": np.asfortranarray,
    "wide indices": lambda x: scio.CSR(
        sp.csr_matrix(x).data,
        sp.csr_matrix(x).indices.astype(np.int64),
        sp.csr_matrix(x).indptr,
        shape=x.shape,
    ),
}
ALL_DTYPES = ("int16", "uint16", "int32", "int64", "uint64", "float32", "float64")


@pytest.mark.parametrize("content", ["counts", "fractions"])
def test_bits_do_not_depend_on_storage_type_or_threads(counts, labels, content):
    dense = counts if content == "counts" else np.round(np.sqrt(counts) * 64) / 64
    dtypes = ALL_DTYPES if content == "counts" else ("float32", "float64")
    options: dict[str, Any] = {"batch_key": labels, "target_sum": 1e4}
    expected = gene_stats(sp.csr_matrix(dense.astype(np.float64)), threads=1, **options)
    n_threads = _core.get_threads()
    _core.set_threads(16)
    try:
        for i, dtype in enumerate(dtypes):
            for j, form in enumerate(FORMS):
                threads = (1, 2, 7, 16, 0)[(i + j) % 5]
                got = gene_stats(FORMS[form](dense.astype(dtype)), threads=threads, **options)
                assert_same(expected, got)
    finally:
        _core.set_threads(n_threads)


def test_explicit_zeros_change_no_bit_of_doubles(counts):
    """Totals that are not exact, too: they are those that normalising divides by."""
    dense = np.log1p(counts[:600].astype(np.float64))
    kept = scio.CSR.from_scipy(sp.csr_matrix(np.where(dense == 0, 1.0, dense)))
    kept.data[(dense == 0).reshape(-1)] = 0
    expected, got = gene_stats(dense, batch_key=None), gene_stats(kept)

    assert kept.nnz == dense.size
    assert_same(expected, got)
    totals = _core.row_totals(kept.data, kept.indices, kept.indptr, shape=kept.shape)[0]
    np.testing.assert_array_equal(got.totals, totals)


@pytest.mark.parametrize("storage", ["csr", "csc", "dense"])
def test_files_give_the_bits_of_memory_in_any_window(
    counts, labels, storage, tmp_path, monkeypatch
):
    adata = anndata.AnnData(
        FORMS[storage](counts.astype(np.float32)),
        obs=pd.DataFrame({"batch": labels}, index=[f"c{i}" for i in range(N_OBS)]),
    )
    path = tmp_path / "made.h5ad"
    adata.write_h5ad(path, compression="gzip")
    expected = gene_stats(adata, batch_key="batch")
    windows = []
    for nbytes in (_source.WINDOW_NBYTES, 1000):
        monkeypatch.setattr(_source, "WINDOW_NBYTES", nbytes)
        windows += [len(list(_source.open_source(path).blocks()))]
        got = gene_stats(path, batch_key="batch")
        assert_same(expected, got)
        assert got.name == "made.h5ad: X"
    assert windows == [1, 3]


def test_permuted_cells_and_genes(counts, labels):
    rng = np.random.default_rng(8)
    cells, genes = rng.permutation(N_OBS), rng.permutation(N_VARS)
    a = gene_stats(counts, batch_key=labels)
    b = gene_stats(counts[cells][:, genes], batch_key=labels[cells])

    np.testing.assert_array_equal(a.variances()[:, genes], b.variances())
    np.testing.assert_array_equal(a.means(pooled=True)[genes], b.means(pooled=True))
    np.testing.assert_array_equal(a.maximum[:, genes], b.maximum)
    np.testing.assert_array_equal(a.totals[cells], b.totals)
    np.testing.assert_allclose(a.scaled_m2[:, genes], b.scaled_m2, rtol=1e-11)


def test_renamed_batches_change_names_only(counts, labels):
    a = gene_stats(counts, batch_key=labels)
    renamed = np.where(labels == "left", "z", np.where(labels == "top", "a", "m"))
    b = gene_stats(counts, batch_key=renamed)

    order = [b.batches.index(name) for name in ("z", "m", "a")]
    assert a.batches == ["left", "right", "top"]
    np.testing.assert_array_equal(a.variances(), b.variances()[order])
    np.testing.assert_array_equal(a.scaled_mean, b.scaled_mean[order])
    np.testing.assert_allclose(a.means(pooled=True), b.means(pooled=True), rtol=1e-15)


def test_one_batch_is_no_batch(counts):
    a, b = gene_stats(counts), gene_stats(counts, batch_key=["only"] * N_OBS)

    assert a.batches == [None]
    assert b.batches == ["only"]
    np.testing.assert_array_equal(a.variances(), b.variances())
    np.testing.assert_array_equal(a.scaled_m2, b.scaled_m2)


def test_categories_without_cells_are_left_out(counts):
    codes = np.where(np.arange(N_OBS) % 2, 3, 1)
    labels = pd.Categorical.from_codes(codes, ["a", "b", "c", "d"])
    got = gene_stats(counts, batch_key=labels)

    assert got.batches == ["b", "d"]
    assert got.batch_codes[:3].tolist() == [0, 1, 0]


# --- edges


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0), (1, 3)])
def test_empty_matrices_and_one_cell(shape):
    got = gene_stats(np.ones(shape), target_sum=100)

    assert (got.n_obs, got.n_vars) == shape
    assert got.variances().tolist() == [[0.0] * shape[1]]
    assert got.variances(pooled=True).tolist() == [0.0] * shape[1]
    assert got.totals.tolist() == [float(shape[1])] * shape[0]
    assert (
        got.value_counts()[0].tolist()
        == list(range(shape[1] + 1) if shape[0] else [0] * 4)[: shape[1] + 1]
    )


def test_sums_beyond_float32_and_double():
    ones = np.full((2, 1), 2**24, dtype=np.float32)
    assert gene_stats(np.vstack([ones, [[1]]]).astype(np.float32)).sums()[0, 0] == 2**25 + 1
    many = [[2**47 + i] for i in range(70)]
    got = gene_stats(np.array(many, dtype=np.int64))
    total = sum(v[0] for v in many)
    assert total > 2**53
    mean, variance = plain.exact_moments(np.array(many, dtype=object))
    assert got.sums()[0, 0] == float(total)
    assert got.means()[0, 0] == mean[0]
    assert got.variances()[0, 0] == variance[0]
    assert got.is_exact
    assert got.values is None


def test_squares_beyond_64_bits():
    values = np.array([[2**32 - 1], [2**32 - 2], [2**31]], dtype=np.uint32)
    got = gene_stats(values)

    mean, variance = plain.exact_moments(values)
    assert got.means()[0, 0] == mean[0]
    assert got.variances()[0, 0] == variance[0]
    assert got.value_counts()[1].tolist() == [2**31, 2**32 - 2, 2**32 - 1]


def test_the_greatest_uint16():
    got = gene_stats(np.full((5000, 2), 65535, dtype=np.uint16))

    assert got.sums()[0].tolist() == [5000 * 65535] * 2
    assert got.variances()[0].tolist() == [0, 0]
    assert got.value_counts()[1].tolist() == [65535, 65535]


def test_integers_too_large_to_square_are_summed_as_doubles():
    values = np.array([[2**60], [2**60], [2**59]], dtype=np.int64)
    got = gene_stats(values)

    assert not got.is_exact
    assert got.is_integer.all()
    np.testing.assert_allclose(got.variances()[0], plain.exact_moments(values)[1], rtol=1e-14)


def test_explicit_zeros_unsorted_rows_and_duplicates():
    data = np.float32([1, 0, 2, 3, 0, 4, 1])
    indices = np.int32([2, 1, 0, 1, 1, 1, 2])
    matrix = scio.CSR(data, indices, np.int64([0, 3, 3, 7]), shape=(3, 3))
    got = gene_stats(matrix)

    assert_same(gene_stats(matrix.toarray()), got)
    assert got.n_positive[0].tolist() == [1, 1, 2]
    assert got.value_counts()[1].tolist() == [2, 7, 1]
    np.testing.assert_array_equal(matrix.data, data)


def test_values_are_given_up_above_the_budget(counts, monkeypatch):
    kept = gene_stats(counts)
    assert kept.value_counts() is not None
    monkeypatch.setattr(module, "MAX_VALUE_NBYTES", 16 * 100)
    got = gene_stats(counts)

    assert got.value_counts() is None
    np.testing.assert_array_equal(kept.variances(), got.variances())
    np.testing.assert_array_equal(kept.maximum, got.maximum)


@settings(max_examples=60, deadline=None)
@given(
    dense=hnp.arrays(
        st.sampled_from([np.int8, np.uint16, np.int64, np.float32, np.float64]),
        hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=9),
        elements=st.sampled_from([0, 0, 0, 1, 2, 15, 16, 17, 100]),
    ),
    quarters=st.booleans(),
    seed=st.integers(0, 3),
)
def test_any_small_matrix_is_what_the_oracle_says(dense, quarters, seed):
    if quarters and dense.dtype.kind == "f":
        dense = dense / dense.dtype.type(4)
    labels = np.random.default_rng(seed).integers(0, 3, len(dense)).astype(str)
    got = gene_stats(dense, batch_key=labels)
    check_against_plain(got, dense, labels)
    if got.is_exact:
        check_values(got, dense, labels)
    assert_same(got, gene_stats(sp.csc_matrix(dense), batch_key=labels, threads=1))


# --- merging, saving


def test_merged_parts_are_the_whole(counts, labels):
    for dense in (counts, counts + 0.5 * (counts == 3)):
        whole = gene_stats(dense, batch_key=labels)
        cuts = [0, 1, BLOCK_ROWS, 5000, N_OBS]
        got = GeneStats.merge(
            gene_stats(dense[a:b], batch_key=labels[a:b]) for a, b in itertools.pairwise(cuts)
        )
        order = [got.batches.index(name) for name in whole.batches]
        for key in TABLES:
            np.testing.assert_array_equal(getattr(whole, key), getattr(got, key)[order])
        np.testing.assert_array_equal(whole.totals, got.totals)
        names = np.array(got.batches)[got.batch_codes]
        np.testing.assert_array_equal(names, labels)
        np.testing.assert_allclose(got.variances()[order], whole.variances(), rtol=1e-12)
        np.testing.assert_allclose(got.scaled_m2[order], whole.scaled_m2, rtol=1e-12)
        np.testing.assert_allclose(got.means(pooled=True), whole.means(pooled=True), rtol=1e-13)
        assert got.n_obs == N_OBS
        if whole.is_exact:
            np.testing.assert_array_equal(got.variances()[order], whole.variances())
            for i, at in enumerate(order):
                for x, y in zip(whole.value_counts(i), got.value_counts(at), strict=True):
                    np.testing.assert_array_equal(x, y)


def test_merging_carries_from_one_half_to_the_other():
    """The lower 64 bits of the squares overflow when the parts are added."""
    values = np.array([[2**47 - 1]] * 70, dtype=np.int64)
    whole = gene_stats(values)
    got = GeneStats.merge([gene_stats(values[:30]), gene_stats(values[30:])])

    np.testing.assert_array_equal(whole.tables["exact_squares"], got.tables["exact_squares"])
    np.testing.assert_array_equal(whole.tables["exact_sums"], got.tables["exact_sums"])
    assert got.variances()[0, 0] == 0


def test_only_what_belongs_together_is_merged(counts):
    part = gene_stats(counts[:100])
    named = anndata.AnnData(counts[:100].astype(np.float32))
    named.var_names = [f"gene {i}" for i in range(N_VARS)]
    with pytest.raises(ValueError, match="gene 0 is '0' and 'gene 0'"):
        GeneStats.merge([part, gene_stats(named)])
    with pytest.raises(ValueError, match="their numbers differ"):
        GeneStats.merge([part, gene_stats(counts[:100, :5])])
    with pytest.raises(ValueError, match="different target_sum: None and 10"):
        GeneStats.merge([part, gene_stats(counts[:100], target_sum=10)])
    with pytest.raises(ValueError, match="has batches, the other has none"):
        GeneStats.merge([part, gene_stats(counts[:100], batch_key=["a"] * 100)])
    with pytest.raises(ValueError, match="nothing to merge"):
        GeneStats.merge([])


def test_saved_statistics_are_loaded(counts, labels, tmp_path):
    path = tmp_path / "made.npz"
    for dense in (counts, counts * 0.5):
        made = gene_stats(dense, batch_key=labels, target_sum=1e4)
        made.save(path, overwrite=True)
        got = GeneStats.load(path)
        assert_same(made, got)
        assert got.name == made.name
        assert got.target_sum == 1e4
        assert got.var_names.tolist() == made.var_names.tolist()
    with pytest.raises(TargetExistsError):
        made.save(path)
    assert [p.name for p in tmp_path.iterdir()] == ["made.npz"]


def test_other_files_are_no_statistics(tmp_path):
    path = tmp_path / "other.npz"
    np.savez(path, a=np.zeros(3))
    with pytest.raises(IOFormatError, match="holds no gene statistics"):
        GeneStats.load(path)
    path.write_bytes(b"no zip at all")
    with pytest.raises(IOFormatError, match="holds no gene statistics"):
        GeneStats.load(path)
    with pytest.raises(FileNotFoundError):
        GeneStats.load(tmp_path / "absent.npz")


# --- bad input


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("storage", ["csr", "dense", "csc"])
def test_values_that_are_not_finite_are_named(storage, value):
    dense = np.ones((5000, 4))
    dense[4500, 2] = dense[4600, 1] = value
    adata = anndata.AnnData(FORMS[storage](dense))
    adata.obs_names = [f"cell{i}" for i in range(5000)]
    adata.var_names = list("abcd")
    with pytest.raises(
        ValueError,
        match=r"AnnData: X holds -?(nan|inf) in cell 'cell4500' \(4500\), gene 'c' \(2\)",
    ):
        gene_stats(adata)


def test_counts_are_asked_for(counts):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gene_stats(counts).check_counts("seurat_v3")
    dense = counts[:10].astype(np.float64)
    dense[3, 2], dense[4, 1] = 1.5, 800
    with pytest.warns(
        ScioWarning, match=r"maximum 800\): matrix in memory has 1.5 in cell 3, gene '2'"
    ):
        gene_stats(dense).check_counts("seurat_v3")
    dense[5, 6] = -2
    with pytest.raises(
        ValueError, match=r"seurat_v3 needs counts, but .* has -2 in cell 5, gene '6'"
    ):
        gene_stats(dense).check_counts("seurat_v3")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"target_sum": 0}, "target_sum is a number above 0"),
        ({"target_sum": np.inf}, "target_sum is a number above 0"),
        ({"expm1": -1}, "expm1 is a number above 0"),
        ({"expm1": 1, "target_sum": 1}, "give one of them"),
        ({"batch_key": ["a"]}, "has 1 labels, the matrix 2 cells"),
        ({"layer": "a"}, "layers/a needs an AnnData"),
    ],
)
def test_bad_arguments_are_refused(options, text):
    with pytest.raises(ValueError, match=text):
        gene_stats(np.ones((2, 2)), **options)


def test_an_unknown_batch_key_offers_near_ones():
    adata = anndata.AnnData(np.ones((2, 2)), obs={"batch": ["a", "b"]})
    with pytest.raises(KeyNotFoundError, match="did you mean 'batch'"):
        gene_stats(adata, batch_key="batsh")


def test_bars_are_shown_on_request(counts, tmp_path, monkeypatch, capsys):
    pytest.importorskip("tqdm")
    path = Path(tmp_path / "made.h5ad")
    anndata.AnnData(counts[:50].astype(np.float32)).write_h5ad(path)
    monkeypatch.setenv("SCIO_PROGRESS", "1")
    gene_stats(path)
    assert "statistics" in capsys.readouterr().err
    gene_stats(path, progress=False)
    gene_stats(counts[:50])
    monkeypatch.setenv("SCIO_PROGRESS", "0")
    gene_stats(path)
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("SCIO_PROGRESS", "yes")
    with pytest.raises(ValueError, match="SCIO_PROGRESS is 'yes'"):
        gene_stats(path)
