"""calculate_qc_metrics against scanpy and a plain oracle, is_outlier against its formula."""

from __future__ import annotations

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

from scio import _core
from scio.errors import KeyNotFoundError, ScioWarning
from scio.pp import calculate_qc_metrics, is_outlier
from tests.plain import stats as plain

N_OBS, N_VARS = 5000, 560


def made(kind: str) -> anndata.AnnData:
    rng = np.random.default_rng(7)
    dense = rng.poisson(0.3, (N_OBS, N_VARS)) * rng.integers(1, 9, N_VARS)
    if kind == "large":
        dense *= rng.integers(1, 900, N_VARS)
    dense = dense.astype(np.float64)
    if kind == "logged":
        dense = np.log1p(dense)
    dense[3] = 0
    dense[:, 5] = 0
    var = {"mt": np.arange(N_VARS) < 13, "none": np.zeros(N_VARS, dtype=bool)}
    return anndata.AnnData(
        sp.csr_matrix(dense),
        obs=pd.DataFrame(index=[f"c{i}" for i in range(N_OBS)]),
        var=pd.DataFrame(var, index=[f"g{i}" for i in range(N_VARS)]),
    )


@pytest.fixture(scope="module")
def counts() -> anndata.AnnData:
    return made("counts")


def assert_tables(got: Any, expected: dict[str, np.ndarray], rtol: float) -> None:
    assert list(got.columns) == list(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(got[name], values, rtol=rtol, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("kind", ["counts", "large", "logged"])
def test_tables_are_those_of_scanpy(kind):
    scanpy = pytest.importorskip("scanpy")
    adata = made(kind)
    options: dict[str, Any] = {"qc_vars": ["mt", "none"], "percent_top": (1, 50, 500, N_VARS)}
    obs, var = calculate_qc_metrics(adata, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = scanpy.pp.calculate_qc_metrics(adata, **options)

    for got, theirs in zip((obs, var), expected, strict=True):
        assert got.index.equals(theirs.index)
        assert_tables(got, {c: theirs[c].to_numpy() for c in theirs}, 1e-12)
    assert obs.dtypes.astype(str).tolist() == ["int64"] + ["float64"] * (len(obs.columns) - 1)
    assert var["n_cells_by_counts"].dtype == np.int64
    assert np.isnan(obs["pct_counts_mt"].iloc[3])
    assert np.isnan(obs["pct_counts_in_top_50_genes"].iloc[3])


def test_inplace_writes_the_columns_that_scanpy_writes(counts):
    scanpy = pytest.importorskip("scanpy")
    ours, theirs = counts.copy(), counts.copy()
    options: dict[str, Any] = {"qc_vars": "mt", "expr_type": "umis", "var_type": "features"}
    assert calculate_qc_metrics(ours, inplace=True, log1p=False, **options) is None
    options["qc_vars"] = ["mt"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scanpy.pp.calculate_qc_metrics(theirs, inplace=True, log1p=False, **options)

    assert ours.obs.columns.tolist() == theirs.obs.columns.tolist()
    assert ours.var.columns.tolist() == theirs.var.columns.tolist()
    assert "total_umis_mt" in ours.obs
    calculate_qc_metrics(ours, inplace=True, log1p=False, **options)  # replaces
    assert ours.obs.columns.tolist() == theirs.obs.columns.tolist()


def test_counts_are_exact_where_scanpy_stops(tmp_path):
    dense = np.full((3, 2), 2**24, dtype=np.float32)
    dense[2] = 1
    _, var = calculate_qc_metrics(dense, percent_top=None)

    assert var["total_counts"].tolist() == [2**25 + 1] * 2


def test_explicit_zeros_do_not_count_and_stay():
    matrix = sp.csr_matrix(np.array([[1, 2, 3], [0, 4, 0]], dtype=np.float32))
    matrix.data[1] = 0
    obs, var = calculate_qc_metrics(anndata.AnnData(matrix), percent_top=None)

    assert obs["n_genes_by_counts"].tolist() == [2, 1]
    assert var["n_cells_by_counts"].tolist() == [1, 1, 1]
    assert matrix.nnz == 4


@settings(max_examples=50, deadline=None)
@given(
    dense=hnp.arrays(
        st.sampled_from([np.uint8, np.int32, np.float32, np.float64]),
        hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12),
        elements=st.sampled_from([0, 0, 1, 2, 3, 100, 200]),
    ),
    shift=st.sampled_from([0, 0.25, -2.5]),
)
def test_any_small_matrix_is_what_the_oracle_says(dense, shift):
    if dense.dtype.kind == "f":
        dense = dense + dense.dtype.type(shift) * (dense > 0)
    n_vars = dense.shape[1]
    tops = tuple(sorted({1, (n_vars + 1) // 2, n_vars}))
    flags = np.arange(n_vars) % 2 == 0
    names = [f"g{i}" for i in range(n_vars)]
    adata = anndata.AnnData(dense, var=pd.DataFrame({"even": flags}, index=names))
    with np.errstate(all="ignore"):
        obs, var = calculate_qc_metrics(adata, qc_vars=["even"], percent_top=tops)
        assert_tables(obs, plain.qc_of_cells(dense, tops, {"even": flags}), 1e-12)
        assert_tables(var, plain.qc_of_genes(dense), 1e-12)


def test_bits_do_not_depend_on_storage_or_threads(tmp_path, counts):
    expected = calculate_qc_metrics(counts, qc_vars=["mt"], threads=1)
    path = Path(tmp_path / "made.h5ad")
    counts.write_h5ad(path, compression="gzip")
    dense, columns = counts.copy(), counts.copy()
    dense.X = counts.X.toarray().astype(np.uint16)
    columns.X = sp.csc_matrix(counts.X).astype(np.float32)
    n_threads = _core.get_threads()
    _core.set_threads(7)
    try:
        for source, threads in ((path, 7), (dense, 2), (columns, 0), (counts, -1)):
            for a, b in zip(
                expected, calculate_qc_metrics(source, qc_vars=["mt"], threads=threads), strict=True
            ):
                pd.testing.assert_frame_equal(a, b, check_exact=True, check_index_type=False)
    finally:
        _core.set_threads(n_threads)


def test_layers_and_raw(counts):
    adata = counts[:100].copy()
    adata.layers["twice"] = adata.X * 2
    adata.raw = adata
    adata = adata[:, :40].copy()
    obs, var = calculate_qc_metrics(adata, layer="twice", percent_top=None)
    np.testing.assert_array_equal(obs["total_counts"], 2 * adata.X.toarray().sum(axis=1))
    obs, var = calculate_qc_metrics(adata, use_raw=True)
    assert len(var) == N_VARS
    np.testing.assert_array_equal(obs["total_counts"], counts.X[:100].toarray().sum(axis=1))


def test_a_view_is_made_an_anndata_of_its_own(counts):
    view = counts[:50]
    with pytest.warns(ScioWarning, match="view"):
        calculate_qc_metrics(view, inplace=True)
    assert "total_counts" in view.obs
    assert "total_counts" not in counts.obs


def test_too_few_genes_for_the_tops():
    dense = np.ones((4, 120))
    with pytest.warns(ScioWarning, match="120 genes: percent_top leaves out 200, 500"):
        obs, _ = calculate_qc_metrics(dense)
    assert "pct_counts_in_top_100_genes" in obs
    assert "pct_counts_in_top_200_genes" not in obs
    for bad in ((121,), (0,), (50, 1000)):
        with pytest.raises(ValueError, match="has 120 genes, each must be"):
            calculate_qc_metrics(dense, percent_top=bad)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_empty_matrices(shape):
    obs, var = calculate_qc_metrics(np.zeros(shape), percent_top=None)

    assert (len(obs), len(var)) == shape
    assert obs["total_counts"].tolist() == [0.0] * shape[0]
    assert np.isnan(var["mean_counts"]).all()  # 0 / 0 without cells


def test_bad_input_is_refused(counts, tmp_path):
    with pytest.raises(KeyNotFoundError, match="did you mean 'mt'"):
        calculate_qc_metrics(counts, qc_vars=["mito", "MT"])
    with pytest.raises(
        TypeError, match=r"calculate_qc_metrics\(inplace=True\) writes into an AnnData"
    ):
        calculate_qc_metrics(np.ones((2, 2)), inplace=True)
    with pytest.raises(ValueError, match="at most 64"):
        calculate_qc_metrics(
            anndata.AnnData(np.ones((2, 2)), var={f"v{i}": [True, False] for i in range(65)}),
            qc_vars=[f"v{i}" for i in range(65)],
            percent_top=None,
        )
    bad = np.ones((3, 2))
    bad[1, 1] = np.nan
    with pytest.raises(ValueError, match="nan in cell '1'"):
        calculate_qc_metrics(bad, percent_top=None)
    with pytest.warns(FutureWarning, match="parallel"):
        calculate_qc_metrics(np.ones((2, 2)), percent_top=None, parallel=True)


# --- outliers


@pytest.mark.parametrize("side", ["both", "lower", "higher"])
@pytest.mark.parametrize("log", [False, True])
def test_outliers_are_those_of_the_formula(side, log):
    rng = np.random.default_rng(9)
    values = np.exp(rng.normal(3, 1, 500))
    values[:4] = [1e5, 1e-3, 2e5, 1e4]
    batch = rng.choice(["a", "b"], 500)
    for nmads in (1, 3):
        got = is_outlier(values, nmads=nmads, type=side, log=log, batch=batch)
        expected = plain.is_outlier(values, nmads, side, log=log, batch=batch)
        np.testing.assert_array_equal(got, expected)
        assert got.dtype == np.bool_
        if log or side != "lower":  # nothing lies 3 deviations below a median near 0
            assert 0 < got.sum() < 250
    everything = is_outlier(values, type=side, log=log)
    expected = plain.is_outlier(values, 3, side, log=log, batch=["x"] * 500)
    np.testing.assert_array_equal(everything, expected)


def test_bounds_of_outliers_are_strict():
    bound = 3 * 1.4826  # median 0, median distance 1
    for far, expected in ((bound, False), (np.nextafter(bound, np.inf), True)):
        got = is_outlier([-1, 0, 1, -1, 1, far, -far])
        assert got.tolist() == [False] * 5 + [expected] * 2
    flat = [5, 5, 5, 5, 5.1]  # no spread: all else is far
    assert is_outlier(flat).tolist() == [False] * 4 + [True]


def test_missing_values_and_zeros_under_a_log():
    assert is_outlier([1, 1.1, np.nan, 0.9, 40]).tolist() == [False, False, False, False, True]
    assert is_outlier([np.nan, np.nan]).tolist() == [False, False]
    assert is_outlier([]).tolist() == []
    assert is_outlier([10, 11, 0, 12, 9], log=True, type="lower").tolist() == [
        False,
        False,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("values", "options", "text"),
    [
        ([[1]], {}, "2 dimensions"),
        ([1], {"type": "up"}, "type is 'up'"),
        ([1], {"nmads": -1}, "nmads is -1"),
        ([1], {"nmads": np.nan}, "nmads is nan"),
        ([1, -1], {"log": True}, r"values\[1\] is -1"),
        ([1, 2], {"batch": ["a"]}, "1 labels"),
        ([1, 2], {"batch": ["a", None]}, "missing for 1 cells"),
    ],
)
def test_bad_arguments_of_is_outlier(values, options, text):
    with pytest.raises(ValueError, match=text):
        is_outlier(values, **options)
