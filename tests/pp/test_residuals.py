"""Pearson residuals: plain ones, scanpy live, bits, memory and bad input."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from scio import _core
from scio.errors import ScioWarning
from scio.pp import _flavors as flavors
from scio.pp import (
    highly_variable_genes,
    iterate_pearson_residuals,
    normalize_pearson_residuals,
)
from scio.pp import residuals as module
from tests.plain.residuals import poisson_enrichment, residual_variances, residuals

sparse = pytest.importorskip("scipy.sparse")
anndata = pytest.importorskip("anndata")


def make_counts(seed: int, n_cells: int = 200, n_genes: int = 60) -> NDArray[np.int64]:
    rng = np.random.default_rng(seed)
    mean = rng.lognormal(-1, 1.5, n_genes) * rng.lognormal(0, 0.5, (n_cells, 1))
    counts = rng.poisson(mean * rng.gamma(1, 1, (n_cells, n_genes)))
    counts[:, 0] = 0
    counts[3] = 0
    return counts


@given(
    seed=st.integers(0, 2**32),
    theta=st.sampled_from([0.01, 1.0, 100.0, np.inf]),
    clip=st.sampled_from([None, 0.0, 0.7, 1e6]),
)
@settings(max_examples=25, deadline=None)
def test_plain_ones(seed: int, theta: float, clip: float | None) -> None:
    """Every entry, and the variances that never see most of them."""
    counts = make_counts(seed).astype(np.float64)
    expected = residuals(counts, theta, clip)
    made = normalize_pearson_residuals(counts, theta=theta, clip=clip)
    np.testing.assert_allclose(made, expected, rtol=1e-12, atol=1e-13)
    table = highly_variable_genes(
        counts, flavor="pearson_residuals", theta=theta, clip=clip, n_top_genes=5
    )
    np.testing.assert_allclose(
        table["residual_variances"], residual_variances(counts, theta, clip), rtol=1e-9, atol=1e-14
    )


def test_variances_of_many_cells() -> None:
    """Of more than one block of rows, with few distinct totals."""
    counts = np.minimum(make_counts(2, 9000, 20), 3)
    table = highly_variable_genes(counts, flavor="pearson_residuals", n_top_genes=5)
    expected = residual_variances(counts.astype(np.float64))
    np.testing.assert_allclose(table["residual_variances"], expected, rtol=1e-12)


def test_poisson_absence() -> None:
    counts = make_counts(3).astype(np.float64)
    cells = flavors.Distinct.of(counts.sum(axis=1))
    fractions = flavors.fractions_of(counts.sum(axis=0))
    absent = _core.poisson_absence(fractions, cells.values, cells.counts)
    np.testing.assert_allclose(absent, poisson_enrichment(counts)[1], rtol=1e-13)


def test_scanpy() -> None:
    scanpy = pytest.importorskip("scanpy")
    counts = make_counts(4).astype(np.float64)
    counts = counts[counts.sum(axis=1) > 0][:, counts.sum(axis=0) > 0]
    adata = anndata.AnnData(sparse.csr_matrix(counts))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = scanpy.experimental.pp.normalize_pearson_residuals(adata, inplace=False)
    ours = normalize_pearson_residuals(adata, inplace=False)
    assert set(ours) == set(theirs)
    np.testing.assert_allclose(ours["X"], theirs["X"], rtol=1e-11, atol=1e-12)
    assert ours["clip"] == np.sqrt(len(counts))  # scanpy notes the argument, None
    assert (ours["theta"], ours["computed_on"]) == (theirs["theta"], theirs["computed_on"])


def test_same_bits(tmp_path: Path) -> None:
    """Threads, storage, types, memory, file and iterator."""
    counts = make_counts(5, 4500, 30)
    expected = normalize_pearson_residuals(counts.astype(np.float32), threads=1)
    assert expected.dtype == np.float32
    adata = anndata.AnnData(sparse.csr_matrix(counts))
    adata.write_h5ad(tmp_path / "counts.h5ad", compression="gzip")
    for source, threads in (
        (counts, 2),
        (counts.astype(np.uint16), 7),
        (sparse.csc_matrix(counts.astype(np.int32)), 2),
        (sparse.csr_matrix(counts), -1),
        (tmp_path / "counts.h5ad", 2),
    ):
        made = normalize_pearson_residuals(source, threads=threads)
        assert made.dtype == np.float32
        assert made.tobytes() == expected.tobytes()
    wide = normalize_pearson_residuals(counts.astype(np.float64))
    assert wide.dtype == np.float64
    assert wide.astype(np.float32).tobytes() == expected.tobytes()


def test_rows_one_part_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = make_counts(6, 500, 30)
    monkeypatch.setattr(module, "_ITERATED_NBYTES", 7 * 30 * 4)
    parts = list(iterate_pearson_residuals(sparse.csr_matrix(counts)))
    assert [len(p) for p in parts[:3]] == [7, 7, 7]
    assert np.concatenate(parts).tobytes() == normalize_pearson_residuals(counts).tobytes()


def test_an_adata() -> None:
    counts = sparse.csr_matrix(make_counts(7).astype(np.float32))
    adata = anndata.AnnData(counts.copy(), layers={"counts": counts})
    expected = normalize_pearson_residuals(counts)
    copied = normalize_pearson_residuals(adata, copy=True)
    assert adata.X.nnz == counts.nnz
    np.testing.assert_array_equal(copied.X, expected)
    assert normalize_pearson_residuals(adata, layer="counts", theta=7.0) is None
    assert adata.layers["counts"].shape == counts.shape
    note = adata.uns["pearson_residuals_normalization"]
    assert note == {"theta": 7.0, "clip": np.sqrt(200), "computed_on": "counts"}
    assert counts.nnz == adata.X.nnz  # what came in is as it was


def test_duplicates_and_disorder_in_a_row() -> None:
    counts = make_counts(8, 40, 20)
    canonical = sparse.csr_matrix(counts)
    halves = canonical.data // 2
    data = np.stack([canonical.data - halves, halves], axis=1).reshape(-1)[::-1].copy()
    indices = np.repeat(canonical.indices, 2)[::-1].copy()
    indptr = (2 * (canonical.indptr[-1] - canonical.indptr[::-1])).copy()
    messy = sparse.csr_matrix((data, indices, indptr), shape=counts.shape)  # rows from the last on
    made = normalize_pearson_residuals(messy)
    assert made.tobytes() == normalize_pearson_residuals(counts[::-1].copy()).tobytes()


def test_a_result_that_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "free_nbytes", lambda: 10_000)
    with pytest.raises(MemoryError, match=r"200 x 60 float32 need 0.0 GiB.* select genes first"):
        normalize_pearson_residuals(make_counts(9))
    monkeypatch.undo()
    assert module.free_nbytes() is None or module.free_nbytes() > 0


@pytest.mark.parametrize(
    ("counts", "arguments", "match"),
    [
        (make_counts(1), {"theta": 0.0}, "theta is 0.0, expected a number above 0"),
        (make_counts(1), {"theta": np.nan}, "theta is nan"),
        (make_counts(1), {"clip": -0.1}, "clip is -0.1, expected"),
        (make_counts(1), {"copy": True, "inplace": False}, "choose one of them"),
        (-make_counts(1), {}, "needs counts"),
        (np.zeros((3, 2)), {}, "all 3 x 2 values are 0"),
        (np.zeros((0, 2)), {}, "has no cells"),
        (np.full((3, 2), np.nan), {}, "expected finite numbers"),
    ],
)
def test_bad_input(counts: NDArray[Any], arguments: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        normalize_pearson_residuals(counts, **arguments)


def test_values_that_are_no_integers_warn_unless_told_not_to() -> None:
    counts = make_counts(10) / 3
    with pytest.warns(ScioWarning, match="no integers"):
        made = normalize_pearson_residuals(counts)
    np.testing.assert_allclose(made, residuals(counts), rtol=1e-11, atol=1e-12)
    normalize_pearson_residuals(counts, check_values=False)


# --- the core refuses what would lead it out of its arrays

CSR = (np.ones(2), np.array([0, 1], dtype=np.int32), np.array([0, 1, 2]))


def corrections(**changes: Any) -> None:
    given = {
        "csr": CSR,
        "totals": np.ones(2),
        "batches": np.zeros(2, dtype=np.int32),
        "fractions": np.ones((1, 2)),
        "shifts": np.zeros((1, 2)),
        "clips": np.ones(1),
        "sums": np.zeros((1, 2, 2)),
    } | changes
    csr, *rest = given.values()
    _core.residual_corrections(*csr, *rest, shape=(2, 2), inverse_theta=0.01)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"totals": np.ones(3)}, "cell_totals has 3 items, expected 2"),
        ({"batches": np.array([0, 1], dtype=np.int32)}, "batch 1 of cell 1, there are 1"),
        ({"batches": np.array([0, -2], dtype=np.int32)}, "batch -2 of cell 1"),
        ({"fractions": np.ones((1, 3))}, "a table of 1 x 3, expected batches x 2 genes"),
        ({"clips": np.ones(2)}, "clips has 2 items, expected 1"),
        ({"sums": np.zeros((1, 2, 1))}, "sums has 2 items, expected 4"),
        ({"csr": (CSR[0], np.array([0, 2], dtype=np.int32), CSR[2])}, "row 1: columns do not"),
        ({"csr": (CSR[0], CSR[1] - 1, CSR[2])}, "row 0: columns do not"),
        ({"csr": (CSR[0], CSR[1], np.array([0, 3, 2]))}, "indptr"),
        ({"csr": (CSR[0], CSR[1].astype(np.int16), CSR[2])}, "indices are int16, expected int32"),
    ],
)
def test_the_core_checks_its_arrays(changes: dict[str, Any], match: str) -> None:
    with pytest.raises((ValueError, IndexError, TypeError), match=match):
        corrections(**changes)


def test_the_core_writes_into_no_read_only_array() -> None:
    sums = np.zeros((1, 2, 2))
    sums.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        corrections(sums=sums)
    out = np.zeros((2, 2), dtype=np.int64)
    with pytest.raises(TypeError, match="out is int64, expected float32 or float64"):
        _core.residual_rows(
            *CSR, np.ones(2), np.ones(2), out, shape=(2, 2), clip=1.0, inverse_theta=0.0
        )
