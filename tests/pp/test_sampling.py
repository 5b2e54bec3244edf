"""sample and subsample: seeded, the same everywhere, with scanpy's arguments."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp

import scio
from tests.pp.matrices import FORMS, counts, densify

EXPECTED = [4, 15, 12, 5, 16, 13]
EXPECTED_REPLACED = [5, 10, 5, 0, 4, 7]


def test_the_draws_are_these_on_every_machine():
    _, rows = scio.pp.sample(np.zeros((20, 1)), n=6)
    _, again = scio.pp.sample(np.zeros((20, 1)), n=6, replace=True, rng=3)
    assert (rows.tolist(), again.tolist()) == (EXPECTED, EXPECTED_REPLACED)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("axis", ["obs", "var"])
@pytest.mark.parametrize("replace", [False, True])
def test_the_subset_is_what_the_positions_say(form, axis, replace):
    if form in {"coo", "csc"} and replace:
        form = "csr"
    x = counts()
    matrix = FORMS[form](x) if form != "coo" else sp.csr_matrix(x)
    part, taken = scio.pp.sample(matrix, 0.4, axis=axis, rng=5, replace=replace)
    expected = x[taken] if axis == "obs" else x[:, taken]
    np.testing.assert_array_equal(densify(part), expected)
    assert len(taken) == int(0.4 * x.shape[axis == "var"])
    assert (len(set(taken.tolist())) == len(taken)) is not replace


def test_every_cell_is_as_likely_as_any_other():
    x = np.zeros((10, 1))
    n_drawn = np.zeros(10)
    for seed in range(2000):
        n_drawn[scio.pp.sample(x, n=3, rng=seed)[1]] += 1
    assert np.all(np.abs(n_drawn - 600) < 5 * np.sqrt(600 * 0.7))


def test_an_anndata_is_subset_in_place_or_copied():
    adata = ad.AnnData(sp.csr_matrix(counts()))
    adata.obsm["p"] = np.arange(60)[:, None]
    made = scio.pp.sample(adata, n=10, copy=True)
    assert (made.n_obs, adata.n_obs) == (10, 60)
    assert scio.pp.sample(adata, n=10) is None
    np.testing.assert_array_equal(adata.X.toarray(), made.X.toarray())
    np.testing.assert_array_equal(adata.X.toarray(), counts()[adata.obsm["p"][:, 0]])
    scio.pp.sample(adata, n=7, axis="var")
    assert adata.shape == (10, 7)


def test_subsample_is_sample():
    x = counts()
    np.testing.assert_array_equal(
        scio.pp.subsample(x, 0.5, random_state=4)[1], scio.pp.sample(x, 0.5, rng=4)[1]
    )
    assert scio.pp.subsample(x, n_obs=3)[0].shape == (3, 40)


def test_generators_give_a_seed():
    x = counts()
    one = scio.pp.sample(x, n=5, rng=np.random.default_rng(1))[1]
    two = scio.pp.sample(x, n=5, rng=np.random.default_rng(1))[1]
    np.testing.assert_array_equal(one, two)
    assert len(scio.pp.sample(x, n=5, rng=None)[1]) == 5


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({}, TypeError, "exactly one"),
        ({"n": 1, "fraction": 0.1}, TypeError, "exactly one"),
        ({"n": 61}, ValueError, "61 of 60"),
        ({"n": -1}, ValueError, "-1 of 60"),
        ({"fraction": 1.5}, ValueError, "fraction is 1.5"),
        ({"fraction": -0.5, "replace": True}, ValueError, "fraction is -0.5"),
        ({"n": 1, "rng": 1.5}, TypeError, "rng is float"),
        ({"n": 1, "rng": -1}, ValueError, "seed is -1"),
        ({"n": 1, "axis": "cells"}, ValueError, "axis is 'cells'"),
    ],
)
def test_arguments_that_are_not_allowed(options, error, text):
    with pytest.raises(error, match=text):
        scio.pp.sample(counts(), **options)


def test_none_drawn_and_nothing_to_draw_from():
    assert scio.pp.sample(counts(), n=0)[0].shape == (0, 40)
    assert scio.pp.sample(np.zeros((0, 3)), 0.5)[0].shape == (0, 3)
    with pytest.raises(ValueError, match="1 of 0"):
        scio.pp.sample(np.zeros((0, 3)), n=1, replace=True)
