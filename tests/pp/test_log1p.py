"""log1p against extended precision, scanpy, itself over storages, and what it notes."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import scanpy as sc
import scipy.sparse as sp

import scio
from scio import _core
from scio.errors import KeyNotFoundError, ScioWarning
from tests.plain import normalize as plain
from tests.pp.matrices import DTYPES, FORMS, counts, densify


@pytest.mark.parametrize("base", [None, 2, 10, 0.5])
@pytest.mark.parametrize("dtype", DTYPES)
def test_values_are_within_one_unit_of_the_exact_ones(dtype, base):
    x = counts(dtype=dtype)
    got = scio.pp.log1p(x, base=base)
    assert got.dtype == (np.float64 if dtype == "float64" else np.float32)
    # the divisor of a base is itself off by half a unit
    assert plain.ulps(got, plain.exact_log1p(x, base)) < (1 if dtype != "float64" else 2.5)


@pytest.mark.parametrize("base", [None, 10])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", ["int32", "float32", "float64"])
def test_every_form_has_the_same_bits(form, dtype, base):
    x = counts(dtype=dtype)
    made = scio.pp.log1p(FORMS[form](x), base=base)
    assert densify(made).tobytes() == scio.pp.log1p(x, base=base).tobytes()


def test_float32_is_the_kernel_of_the_loader():
    x = np.linspace(-0.99, 1e6, 5000, dtype=np.float32).reshape(50, 100)
    np.testing.assert_array_equal(scio.pp.log1p(x), _core.log1p(x))


def test_integers_and_floats_of_the_same_counts_agree():
    x = counts()
    expected = scio.pp.log1p(x)
    for dtype in DTYPES[:-1]:
        np.testing.assert_array_equal(scio.pp.log1p(x.astype(dtype)), expected)


@pytest.mark.parametrize("threads", [1, 2, 7])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bits_do_not_depend_on_threads(dtype, threads):
    x = np.random.default_rng(1).random((700, 900)).astype(dtype) * 50
    one = _core.normalize_log1p(x, None, None, 1.0, True, threads=0)
    more = _core.normalize_log1p(x, None, None, 1.0, True, threads=threads)
    assert one.tobytes() == more.tobytes()


@pytest.mark.parametrize("form", ["csr", "csc", "dense"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
@pytest.mark.parametrize("base", [None, 2])
def test_scanpy_agrees(form, dtype, base):
    x = counts(dtype=dtype)
    theirs = ad.AnnData(FORMS[form](x.copy()))
    if form == "csc" and dtype == "int32":
        theirs.X = theirs.X.astype(np.float64)
    sc.pp.log1p(theirs, base=base)
    ours = ad.AnnData(FORMS[form](x.copy()))
    scio.pp.log1p(ours, base=base, compat="scanpy")
    assert ours.uns["log1p"] == theirs.uns["log1p"] == {"base": base}
    tolerance = 1e-15 if dtype != "float32" else 3e-7
    if dtype == "int32" and form != "dense" and theirs.X.dtype == np.float32:
        tolerance = 3e-7
    np.testing.assert_allclose(densify(ours.X), densify(theirs.X), rtol=tolerance)
    if dtype == "int32":
        assert ours.X.dtype == np.float64


def test_csc_and_fortran_order_stay_what_they_are():
    x = counts()
    made = scio.pp.log1p(sp.csc_matrix(x))
    assert type(made) is sp.csc_matrix
    turned = scio.pp.log1p(np.asfortranarray(x))
    assert turned.flags.f_contiguous
    np.testing.assert_array_equal(turned, made.toarray())


def test_the_input_is_left_alone_unless_asked_for():
    x = sp.csr_matrix(counts())
    before = x.copy()
    scio.pp.log1p(x)
    np.testing.assert_array_equal(x.toarray(), before.toarray())
    made = scio.pp.log1p(x, out="inplace")
    assert made is x
    np.testing.assert_array_equal(x.toarray(), scio.pp.log1p(before).toarray())


def make():
    x = counts(seed=8)
    return ad.AnnData(
        sp.csr_matrix(x),
        obs={"obs_names": [f"c{i}" for i in range(x.shape[0])]},
        var={"var_names": [f"g{i}" for i in range(x.shape[1])]},
    )


def test_state_is_kept_for_each_layer_and_a_second_log_warns():
    adata = make()
    adata.layers["counts"] = adata.X
    before = adata.X.toarray()
    scio.pp.log1p(adata)
    scio.pp.log1p(adata, layer="counts", base=2)  # another matrix: no warning
    np.testing.assert_array_equal(adata.X.toarray(), scio.pp.log1p(before))
    np.testing.assert_array_equal(adata.layers["counts"].toarray(), scio.pp.log1p(before, base=2))
    assert adata.uns["log1p"] == {"base": None}
    state = adata.uns["scio"]["state"]
    assert state == {"X": {"log1p": True}, "layers": {"counts": {"log1p": True, "base": 2}}}
    with pytest.warns(ScioWarning, match=r"AnnData: X was logged before"):
        scio.pp.log1p(adata)
    with pytest.warns(ScioWarning, match=r"layers\['counts'\] was logged before"):
        scio.pp.log1p(adata, layer="counts")


def test_a_log_by_scanpy_is_known():
    adata = make()
    sc.pp.log1p(adata)
    with pytest.warns(ScioWarning, match="logged before"):
        scio.pp.log1p(adata)


def test_obsm_and_copy():
    adata = make()
    adata.obsm["p"] = np.ones((adata.n_obs, 2))
    made = scio.pp.log1p(adata, obsm="p", copy=True)
    np.testing.assert_allclose(made.obsm["p"], np.log(2))
    np.testing.assert_array_equal(adata.obsm["p"], 1)
    np.testing.assert_array_equal(made.X.toarray(), adata.X.toarray())
    assert "log1p" not in made.uns


def test_values_that_have_no_logarithm_are_named():
    adata = make()
    adata.X = adata.X.toarray()
    adata.X[4, 7] = -1
    with pytest.raises(
        ValueError, match=r"cell 'c4' \(row 4\), gene 'g7' \(column 7\) is -1.0; log"
    ):
        scio.pp.log1p(adata)
    for value in (np.nan, np.inf, -np.inf, -3):
        x = counts()
        x[4, 7] = value
        for form in ("dense", "fortran", "csr", "csc", "scio"):
            with pytest.raises(ValueError, match="row 4, column 7"):
                scio.pp.log1p(FORMS[form](x))
    y = np.array([[1.0, -1.5]])
    with pytest.raises(ValueError, match="row 0, column 1"):
        scio.pp.log1p(y, out="inplace")
    np.testing.assert_array_equal(y, [[1.0, -1.5]])
    with pytest.raises(ValueError, match="not finite"):
        scio.pp.log1p(np.array([[1e300]]), dtype="float32")


@pytest.mark.parametrize("base", [0, 1, -2, float("inf"), float("nan")])
def test_bases_that_are_none(base):
    with pytest.raises(ValueError, match="base is"):
        scio.pp.log1p(counts(), base=base)


def test_arguments_that_are_not_allowed():
    adata = make()
    with pytest.raises(KeyNotFoundError, match="no layer"):
        scio.pp.log1p(adata, layer="x")
    with pytest.raises(KeyNotFoundError, match="no element"):
        scio.pp.log1p(adata, obsm="x")
    with pytest.raises(ValueError, match="exclude"):
        scio.pp.log1p(adata, layer="a", obsm="b")
    with pytest.raises(ValueError, match="needs an AnnData"):
        scio.pp.log1p(counts(), obsm="b")


def test_empty_matrices():
    for shape in ((0, 5), (5, 0), (0, 0)):
        assert scio.pp.log1p(np.zeros(shape, np.float32)).shape == shape
        assert scio.pp.log1p(sp.csr_matrix(shape, dtype=np.float32)).shape == shape
