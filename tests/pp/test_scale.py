"""scale against exact rationals, itself over storages, and scanpy."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import scanpy as sc
import scipy.sparse as sp
import torch

import scio
from scio import _core
from scio.errors import KeyNotFoundError, ScioWarning
from tests.plain import scale as plain
from tests.pp.matrices import FORMS, counts, densify

pytestmark = pytest.mark.filterwarnings("ignore:.*makes a sparse matrix dense")


def expected_of(x, **options):
    mask = options.get("mask")
    mean, variance = plain.moments(x if mask is None else x[mask])
    std = np.sqrt(variance)
    std[std == 0] = 1
    return plain.scale(x, mean, std, **options), mean, std


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", ["uint8", "int32", "float32", "float64"])
@pytest.mark.parametrize("zero_center", [True, False])
def test_every_form_and_dtype_has_the_bits_of_the_plain_engine(form, dtype, zero_center):
    x = counts(dtype=dtype)
    made = scio.pp.scale(FORMS[form](x), zero_center=zero_center, max_value=0.4)
    expected, _, _ = expected_of(x, zero_center=zero_center, max_value=0.4)
    assert not zero_center or {-np.float32(0.4), np.float32(0.4)} <= set(np.float32(expected).flat)
    assert densify(made).tobytes() == np.ascontiguousarray(expected).tobytes()
    assert isinstance(made, np.ndarray) is (zero_center or form in {"dense", "fortran", "strided"})


@pytest.mark.parametrize("zero_center", [True, False])
@pytest.mark.parametrize("form", ["csr", "dense"])
def test_cells_outside_the_mask_stay_as_they_are(form, zero_center):
    x = counts()
    mask = np.arange(len(x)) % 3 != 0
    made = densify(scio.pp.scale(FORMS[form](x), zero_center=zero_center, mask_obs=mask))
    expected, _, _ = expected_of(x, zero_center=zero_center, mask=mask)
    np.testing.assert_array_equal(made, expected)
    np.testing.assert_array_equal(made[~mask], x[~mask])


def test_a_constant_gene_has_deviation_one_and_becomes_zero():
    x = np.full((5000, 3), 0.1, dtype=np.float32)
    x[:, 1] = 1e7 + 1
    x[::2, 2] = 5
    made = scio.pp.scale(x)
    np.testing.assert_array_equal(made[:, :2], 0)
    assert np.isfinite(made).all()
    adata = ad.AnnData(x)
    scio.pp.scale(adata)
    np.testing.assert_array_equal(adata.var["std"][:2], 1)
    np.testing.assert_array_equal(adata.var["mean"][:2], x[0, :2].astype(np.float64))


def test_one_cell():
    np.testing.assert_array_equal(scio.pp.scale(np.float32([[3, 4]])), [[0, 0]])


@pytest.mark.parametrize("threads", [1, 2, 7])
@pytest.mark.parametrize("mean", [True, False])
def test_bits_do_not_depend_on_threads(threads, mean):
    x = sp.csr_matrix(counts(3000, 300) * np.float32(0.3))
    arrays = (x.data, x.indices, x.indptr.astype(np.int64))
    rng = np.random.default_rng(2)
    averages, std = rng.random(300), rng.random(300) + 0.1
    options = {"shape": x.shape, "max_value": 3.0}
    one = _core.scale_values(*arrays, averages if mean else None, std, threads=0, **options)
    more = _core.scale_values(*arrays, averages if mean else None, std, threads=threads, **options)
    assert one.tobytes() == more.tobytes()


@pytest.mark.parametrize("form", ["csr", "dense"])
@pytest.mark.parametrize("zero_center", [True, False])
@pytest.mark.parametrize("max_value", [None, 1.5])
@pytest.mark.filterwarnings("ignore:zero-centering a sparse")
def test_scanpy_agrees(form, zero_center, max_value):
    x = counts(200, 30, seed=3, dtype="float64")
    theirs, ours = (ad.AnnData(FORMS[form](x.copy())) for _ in range(2))
    options = {"zero_center": zero_center, "max_value": max_value}
    sc.pp.scale(theirs, **options)
    scio.pp.scale(ours, **options)
    np.testing.assert_allclose(densify(ours.X), densify(theirs.X), rtol=1e-10, atol=1e-12)
    for column in ("mean", "std"):
        np.testing.assert_allclose(ours.var[column], theirs.var[column], rtol=1e-10)
    assert isinstance(ours.X, np.ndarray) == isinstance(theirs.X, np.ndarray)


def test_an_anndata_keeps_its_counts_and_gets_its_columns():
    x = counts()
    adata = ad.AnnData(sp.csr_matrix(x), obs={"good": np.arange(len(x)) % 2 == 0})
    adata.layers["counts"] = adata.X
    before = adata.X
    scio.pp.scale(adata, zero_center=False, mask_obs="good")
    np.testing.assert_array_equal(before.toarray(), x)
    assert list(adata.var.columns) == ["mean of good", "std of good"]
    scio.pp.scale(adata, layer="counts", mask_obs=adata.obs["good"].to_numpy())
    assert {"mean with mask", "std with mask"} <= set(adata.var.columns)
    expected, mean, _ = expected_of(x, mask=adata.obs["good"].to_numpy())
    np.testing.assert_array_equal(adata.layers["counts"], expected)
    np.testing.assert_array_equal(adata.var["mean of good"], mean)
    made = scio.pp.scale(adata, copy=True)
    assert made is not adata


def test_params_scale_batches_of_numpy_and_torch(tmp_path):
    x = counts()
    adata = ad.AnnData(sp.csr_matrix(x))
    adata.write_h5ad(tmp_path / "x.h5ad")
    params = scio.pp.scale_params(tmp_path / "x.h5ad", max_value=2)
    expected, mean, std = expected_of(x, max_value=2)
    np.testing.assert_array_equal(params.mean, mean)
    np.testing.assert_array_equal(params.inverse_std, 1 / std)
    np.testing.assert_allclose(params(x[3:7]), expected[3:7], rtol=1e-5, atol=1e-6)
    batch = params(torch.from_numpy(x[3:7]))
    np.testing.assert_allclose(batch.numpy(), expected[3:7], rtol=1e-5, atol=1e-6)
    assert params(x[0].astype(np.float64)).dtype == np.float64


@pytest.mark.filterwarnings("default")
def test_a_sparse_matrix_that_becomes_dense_warns_with_its_size():
    with pytest.warns(ScioWarning, match=r"dense: 60 x 40 float32, 0\.00 GiB"):
        scio.pp.scale(sp.csr_matrix(counts()))


def test_a_dense_result_that_does_not_fit_is_refused():
    x = scio.CSR(
        np.ones(1, np.float32), np.zeros(1, np.int32), np.r_[0, np.ones(60_000)].astype(int),
        shape=(60_000, 2**31 - 1),
    )  # fmt: skip
    with pytest.raises(MemoryError, match=r"GiB are free; use zero_center=False"):
        scio.pp.scale(x)


def test_bad_input():
    x = counts()
    x[3, 4] = np.nan
    with pytest.raises(ValueError, match="row 3, column 4 is nan"):
        scio.pp.scale(x)
    adata = ad.AnnData(counts())
    with pytest.raises(KeyNotFoundError, match="no column 'good'"):
        scio.pp.scale(adata, mask_obs="good")
    with pytest.raises(KeyNotFoundError, match="no layer"):
        scio.pp.scale(adata, layer="x")
    with pytest.raises(ValueError, match="leaves no cell"):
        scio.pp.scale(counts(), mask_obs=np.zeros(60, bool))
    with pytest.raises(ValueError, match=r"expected bool of \(60,\)"):
        scio.pp.scale(counts(), mask_obs=np.ones(60))
    with pytest.raises(ValueError, match="max_value is -1"):
        scio.pp.scale(counts(), max_value=-1)
    with pytest.raises(TypeError, match="path"):
        scio.pp.scale("x.h5ad")
