"""Pooled size factors against R's stored and live results, an oracle, and what must hold of them."""

from __future__ import annotations

import shutil
import subprocess
import warnings
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import scio
from scio import _core
from scio.errors import KeyNotFoundError, ScioWarning
from scio.pp import _curve, clean_size_factors, pooled_size_factors
from scio.pp import size_factors as module
from tests.plain import size_factors as plain


def made_counts(n_cells: int, n_genes: int, seed: int = 0, mean: float = 2.0) -> np.ndarray:
    """Counts of cells of very different sizes, two genes of which never occur."""
    rng = np.random.default_rng(seed)
    genes = rng.gamma(0.8, mean / 0.8, n_genes)
    genes[[1, n_genes - 1]] = 0
    cells = rng.gamma(3, 1 / 3, n_cells) + 0.1
    counts = rng.poisson(genes * cells[:, None])
    counts[:, 0] += 1  # no empty cell
    return counts


@pytest.fixture(scope="module")
def counts() -> np.ndarray:
    return made_counts(230, 60)


# --- stored values of scran 1.26.2

STORED = {
    "pbmc3k": ("pbmc3k_2638x13714_counts", 1e-11, 0),
    "paul15": ("paul15_2730x3451_dense_anndata06", 1e-11, 0),
    "kang": ("kang_ifnb_2000x9015_counts", 1e-9, 3),
    "worm_l2": ("worm_l2_sci_5340x5000_counts", 1e-9, 2),
}


@pytest.mark.parametrize("name", STORED)
def test_factors_are_those_of_scran(shared_data, name):
    file, tolerance, n_replaced = STORED[name]
    table = pd.read_csv(shared_data / "expected" / f"{name}_scran1262_cells.csv.gz", index_col=0)
    path = shared_data / "counts" / f"{file}.h5ad"

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        got = pooled_size_factors(path, clusters=table["quickcluster"].to_numpy())

    assert sum(int(str(w.message).split(": ")[1].split()[0]) for w in caught) == n_replaced
    error = np.abs(got / table["scran_sf"].to_numpy() - 1)
    assert np.count_nonzero(error > tolerance) <= n_replaced
    assert error.max() < (1e-5 if n_replaced else tolerance)
    with scio.open(path) as file:
        counts = file.X.read()
    counts = counts.to_scipy() if isinstance(counts, scio.CSR) else counts
    totals = np.asarray(counts.sum(1, dtype=np.float64)).ravel()
    np.testing.assert_array_equal(totals, table["sum"])
    np.testing.assert_allclose(totals / totals.mean(), table["lib_sf"], rtol=1e-11)


# --- the oracle


@pytest.mark.parametrize("n_cells", [100, 101, 102])
def test_factors_are_those_of_dense_least_squares(n_cells):
    counts = made_counts(n_cells, 50, seed=n_cells)
    got = pooled_size_factors(counts)
    # a window of 101 or 100 cells of 102 and 100 leaves frequencies to the weak equations alone
    np.testing.assert_allclose(got, plain.pooled_size_factors(counts), rtol=1e-9)


@pytest.mark.parametrize("max_cluster_size", [3000, 40, None])
def test_clusters_parts_and_sizes_are_those_of_the_oracle(counts, max_cluster_size):
    labels = np.array(list("cabbb"))[np.arange(230) * 7 % 5]
    options = {"sizes": [5, 8, 21, 30], "max_cluster_size": max_cluster_size, "min_mean": 0.4}
    got = pooled_size_factors(counts, clusters=labels, **options)
    expected = plain.pooled_size_factors(counts, clusters=labels, **options)
    np.testing.assert_allclose(got, expected, rtol=1e-9)
    assert got.mean() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("n", [40, 97, 101, 128, 199, 300])
def test_transforms_solve_what_dense_least_squares_solve(n):
    rng = np.random.default_rng(n)
    sizes = np.array([s for s in range(21, 102, 5) if s <= n])
    medians = sizes[:, None] * rng.uniform(0.7, 1.3, (len(sizes), n))
    got = _core.pooling_solve(medians, sizes, weak=0.02)
    np.testing.assert_allclose(got, plain.solve_dense(medians, sizes, 0.02), rtol=0, atol=2e-10)
    np.testing.assert_allclose(got, plain.solve_fft(medians, sizes, 0.02), rtol=0, atol=1e-11)


def test_windows_of_all_cells_leave_the_rest_to_the_weak_equations():
    medians = np.full((1, 21), 21.0)
    got = _core.pooling_solve(medians, np.array([21]), weak=0.5)
    np.testing.assert_allclose(got, 1, rtol=1e-8)


# --- the same bits


def spellings(counts: np.ndarray) -> dict[str, object]:
    rng = np.random.default_rng(1)
    csr = sp.csr_matrix(counts)
    shuffled = csr.copy()
    for i in range(csr.shape[0]):
        at = slice(*csr.indptr[i : i + 2])
        order = rng.permutation(csr.indptr[i + 1] - csr.indptr[i])
        shuffled.indices[at], shuffled.data[at] = csr.indices[at][order], csr.data[at][order]
    double = sp.coo_matrix(
        (
            np.r_[csr.data - 1, np.ones(csr.nnz)],
            (np.r_[csr.tocoo().row, csr.tocoo().row], np.r_[csr.indices, csr.indices]),
        ),
        shape=csr.shape,
    )
    wide = csr.astype(np.float32)
    wide.indices, wide.indptr = wide.indices.astype(np.int64), wide.indptr.astype(np.int64)
    return {
        "float32": csr.astype(np.float32),
        "float64": csr.astype(np.float64),
        "int16": csr.astype(np.int16),
        "uint8": csr.astype(np.uint8),
        "int64 indices": wide,
        "CSC": csr.tocsc(),
        "dense": counts.astype(np.float32),
        "Fortran order": np.asfortranarray(counts),
        "unsorted": shuffled,
        "duplicates, some zero": double,
        "AnnData": anndata.AnnData(csr.astype(np.float32)),
    }


def test_storage_and_dtype_change_no_bit(counts):
    labels = np.arange(230) % 2
    expected = pooled_size_factors(sp.csr_matrix(counts), clusters=labels)
    for name, source in spellings(counts).items():
        got = pooled_size_factors(source, clusters=labels, inplace=False)
        assert got.tobytes() == expected.tobytes(), name


@pytest.mark.parametrize("chunk", [None, 50])
def test_a_file_gives_the_bits_of_memory(tmp_path, counts, chunk):
    path = tmp_path / "counts.h5ad"
    adata = anndata.AnnData(sp.csr_matrix(counts, dtype=np.float32))
    adata.obs["group"] = pd.Categorical([f"g{i % 2}" for i in range(230)])
    adata.write_h5ad(path, compression=None if chunk is None else "gzip")
    expected = pooled_size_factors(adata, clusters="group", inplace=False)
    assert pooled_size_factors(path, clusters="group").tobytes() == expected.tobytes()
    with scio.open(path) as file:
        assert pooled_size_factors(file, clusters="group").tobytes() == expected.tobytes()


def test_several_passes_change_no_bit(monkeypatch, counts):
    labels = np.arange(230) % 4
    options = {"clusters": labels, "sizes": [5, 8, 21]}
    expected = pooled_size_factors(counts, **options)
    takes = []
    take = _core.pooling_take
    monkeypatch.setattr(module, "PASS_NBYTES", 2 * 12 * np.count_nonzero(counts[labels == 0]) + 900)
    monkeypatch.setattr(_core, "pooling_take", lambda *a, **k: takes.append(1) or take(*a, **k))
    assert pooled_size_factors(counts, **options).tobytes() == expected.tobytes()
    assert 2 <= len(takes) <= 4


def test_threads_change_no_bit(counts):
    many = np.tile(counts, (4, 1))  # several blocks of starts
    expected = pooled_size_factors(many, threads=0)
    before = scio.get_threads()
    try:
        for n in (1, 2, 7):
            scio.set_threads(n)
            assert pooled_size_factors(many, threads=n).tobytes() == expected.tobytes()
            assert pooled_size_factors(many).tobytes() == expected.tobytes()
    finally:
        scio.set_threads(before)


# --- properties


def test_twice_the_counts_twice_the_factor(counts):
    sizes = [5, 10, 20]
    before = pooled_size_factors(counts, sizes=sizes)
    doubled = counts.copy()
    order = np.argsort(counts.sum(1))
    largest = order[-1]  # keeps its place on the ring
    doubled[largest] *= 2
    after = pooled_size_factors(doubled, sizes=sizes)
    ratio = (after[largest] / after[order[:20]]) / (before[largest] / before[order[:20]])
    # means of genes feel the weight of one cell only as shares, which stay; the target mean does not
    np.testing.assert_allclose(ratio, 2, rtol=1e-9)


def test_permuted_cells_and_genes_permute_factors(counts):
    rng = np.random.default_rng(3)
    apart = counts[np.unique(counts.sum(1), return_index=True)[1]]  # equal totals keep file order
    cells, genes = rng.permutation(len(apart)), rng.permutation(apart.shape[1])
    expected = pooled_size_factors(apart)
    np.testing.assert_allclose(pooled_size_factors(apart[cells]), expected[cells], rtol=1e-10)
    np.testing.assert_allclose(pooled_size_factors(apart[:, genes]), expected, rtol=1e-10)


def test_names_of_clusters_do_not_matter(counts):
    codes = np.arange(230) % 3
    expected = pooled_size_factors(counts, clusters=codes)
    for names in (np.array(["z", "a", "m"]), np.array([7.5, -1.0, 0.0])):
        got = pooled_size_factors(counts, clusters=names[codes])
        assert got.tobytes() == expected.tobytes()
    got = pooled_size_factors(counts, clusters=pd.Categorical(codes, categories=[2, 9, 1, 0]))
    assert got.tobytes() == expected.tobytes()


def test_factors_follow_the_true_sizes_where_totals_are_misled():
    rng = np.random.default_rng(4)
    truth = rng.gamma(4, 0.25, 400)
    genes = rng.gamma(1, 3, 300)
    counts = rng.poisson(genes * truth[:, None])
    counts[:200, :30] *= 12  # half of the cells: a tenth of the genes goes wild
    got = pooled_size_factors(counts, clusters=np.arange(400) // 200)
    error = np.log(got / truth)
    by_totals = np.log(counts.sum(1) / truth)
    assert abs(error[:200].mean() - error[200:].mean()) < 0.02
    assert abs(by_totals[:200].mean() - by_totals[200:].mean()) > 0.5


def test_genes_below_min_mean_have_no_say(counts):
    noisy = np.hstack([counts, np.zeros((230, 40), dtype=counts.dtype)])
    noisy[::29, 60:] = 1  # average 0.04 and less
    changed = noisy.copy()
    changed[::29, 60:] = 0
    changed[1::29, 60:] = 1  # the same totals over all, other cells
    kept = module._checked_sizes(range(21, 102, 5))
    assert len(kept) == 17
    means = (noisy / noisy.sum(1)[:, None]).mean(0) * noisy.sum(1).mean()
    assert means[60:].max() < 0.1
    got = pooled_size_factors(noisy)
    np.testing.assert_allclose(got, plain.pooled_size_factors(noisy), rtol=1e-9)


def test_results_are_written_into_an_anndata(counts):
    adata = anndata.AnnData(sp.csr_matrix(counts, dtype=np.float32))
    adata.layers["counts"] = adata.X.copy()
    adata.X = adata.X * 0.5
    assert pooled_size_factors(adata, layer="counts", key_added="sf") is None
    expected = pooled_size_factors(counts)
    assert adata.obs["sf"].to_numpy().tobytes() == expected.tobytes()
    assert pooled_size_factors(adata, layer="counts", inplace=False).tobytes() == expected.tobytes()
    assert list(adata.obs) == ["sf"]


# --- edges


def test_no_window_fits_library_sizes_with_a_warning(counts):
    few = counts[:20]
    with pytest.warns(ScioWarning, match="cluster 'all cells' has 20 cells and no window"):
        got = pooled_size_factors(few)
    np.testing.assert_allclose(got, few.sum(1) / few.sum(1).mean(), rtol=1e-14)


def test_clusters_of_one_cell_get_library_sizes(counts):
    labels = np.where(np.arange(230) < 228, "many", np.arange(230).astype(str))
    with pytest.warns(ScioWarning) as caught:
        got = pooled_size_factors(counts, clusters=labels)
    messages = [str(w.message) for w in caught]
    assert [m.split("'")[1] for m in messages if "and no window" in m] == ["228", "229"]
    # most genes of a cell may be zero, and with them the median ratio
    assert all("and no window" in m or "shares too few genes" in m for m in messages)
    assert (got > 0).all()
    assert np.isfinite(got).all()


def test_no_cells_no_factors():
    assert pooled_size_factors(np.zeros((0, 5))).shape == (0,)
    assert pooled_size_factors(np.zeros((0, 5)), clusters=np.array([], dtype=str)).shape == (0,)


def test_a_min_mean_that_no_gene_reaches(counts):
    with pytest.warns(ScioWarning, match="no gene above min_mean"):
        got = pooled_size_factors(counts, min_mean=1e9)
    np.testing.assert_allclose(got, counts.sum(1) / counts.sum(1).mean(), rtol=1e-14)


def test_clusters_without_common_genes_take_the_ratio_of_sums():
    left, right = made_counts(60, 30, seed=8), 3 * made_counts(60, 30, seed=9)
    counts = np.block([[left, np.zeros_like(left)], [np.zeros_like(right), right]])
    with pytest.warns(ScioWarning, match="shares too few genes with 'a'"):
        got = pooled_size_factors(counts, clusters=np.repeat(["a", "b"], 60))
    assert got[60:].mean() / got[:60].mean() == pytest.approx(
        right.sum(1).mean() / left.sum(1).mean(), rel=0.3
    )


@pytest.mark.parametrize(
    ("total", "expected"), [(50_000, 0.1), (50_002, None), (99_998, None), (100_000, 1.0)]
)
def test_min_mean_follows_the_median_library(total, expected):
    counts = made_counts(150, 60)
    counts[:, 0] += total - counts.sum(1)
    assert np.median(counts.sum(1)) == total
    if expected is None:
        with pytest.warns(ScioWarning, match="between those of UMIs and reads"):
            got = pooled_size_factors(counts)
    else:
        got = pooled_size_factors(counts)
    same = pooled_size_factors(counts, min_mean=expected or 0.1)
    assert got.tobytes() == same.tobytes()
    other = pooled_size_factors(counts, min_mean=1.1 - (expected or 0.1))
    assert got.tobytes() != other.tobytes()


def negative_counts() -> np.ndarray:
    """Small cells beside a few large ones, sparse: some factors come out negative."""
    rng = np.random.default_rng(11)
    genes = rng.gamma(0.5, 1.2, 120)
    cells = rng.gamma(0.35, 1 / 0.35, 160) + 0.02
    counts = rng.poisson(genes * cells[:, None])
    counts[:, 0] += counts.sum(1) == 0
    return counts


def test_negative_factors_are_replaced_or_kept():
    counts = negative_counts()
    with pytest.warns(ScioWarning, match="kept, since positive=False"):
        kept = pooled_size_factors(counts, positive=False)
    with pytest.warns(ScioWarning, match="replaced by clean_size_factors"):
        got = pooled_size_factors(counts)
    assert (kept < 0).any()
    assert (got > 0).all()
    expected = plain.pooled_size_factors(counts)
    replaced = kept < 0
    np.testing.assert_allclose(got[~replaced], expected[~replaced], rtol=1e-9)
    np.testing.assert_allclose(got[replaced], expected[replaced], rtol=1e-6)


# --- cleaning


def test_a_curve_is_found_again():
    factors = np.linspace(0.1, 4, 60)
    detected = 900 * factors / (0.7 * factors + 1)
    spoilt = factors.copy()
    spoilt[[3, 30]] = [0, -2]
    got = clean_size_factors(spoilt, detected)
    np.testing.assert_allclose(got, factors, rtol=1e-9)
    assert spoilt[3] == 0


def test_cleaning_is_that_of_the_oracle():
    rng = np.random.default_rng(5)
    for _ in range(5):
        factors = rng.gamma(2, 0.5, 80)
        detected = np.rint(700 * factors / (0.9 * factors + 1) * rng.uniform(0.8, 1.2, 80)) + 1
        factors[rng.integers(0, 80, 4)] *= -1
        got = clean_size_factors(factors, detected)
        np.testing.assert_allclose(got, plain.clean_size_factors(factors, detected), rtol=1e-7)
        assert (got > 0).all()


def test_cells_beyond_the_curve_get_the_largest_factor():
    factors = np.linspace(0.1, 4, 60)
    detected = 900 * factors / (0.7 * factors + 1)
    detected[0], factors[0] = 5000, -1
    assert clean_size_factors(factors, detected)[0] == 4


@pytest.mark.parametrize(
    ("factors", "detected"),
    [
        ([1, 2, -1], [5, 9, 3]),  # two points
        ([1, 1, 1, 1, 0], [5, 5, 5, 5, 3]),  # no factor below the median
        ([1, 2, 3, 0], [1, 4, 9, 3]),  # nothing below the line
    ],
)
def test_without_a_curve_the_smallest_positive_factor_is_taken(factors, detected):
    assert clean_size_factors(factors, detected)[-1] == 1


def test_a_cell_without_genes_gets_the_smallest_factor():
    factors = np.linspace(0.1, 4, 60)
    detected = 900 * factors / (0.7 * factors + 1)
    detected[10], factors[10] = 0, 0
    assert clean_size_factors(factors, detected)[10] == factors[0]


def test_positive_factors_stay():
    factors = np.array([0.5, 1.5])
    got = clean_size_factors(factors, [3, 4])
    assert got.tolist() == [0.5, 1.5]
    assert not np.shares_memory(got, factors)


def test_own_logarithm_and_exponential():
    x = np.r_[np.geomspace(1e-300, 1e300, 4001), np.nextafter(1, [0, 2]), np.linspace(0.5, 2, 1001)]
    np.testing.assert_allclose(_curve.log_of(x), np.log(x), rtol=4e-16, atol=1e-320)
    for y in np.linspace(-600, 600, 4001):
        assert _curve.exp_of(float(y)) == pytest.approx(np.exp(y), rel=8e-16, abs=0)


# --- bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sizes": []}, "sizes is empty"),
        ({"sizes": [21, 0]}, "sizes holds 0, expected 1 or more"),
        ({"sizes": [21, 26, 21]}, "sizes holds 21 more than once"),
        ({"max_cluster_size": 0}, "max_cluster_size is 0"),
        ({"min_mean": -1}, "min_mean is -1"),
        ({"min_mean": float("nan")}, "min_mean is nan"),
        ({"clusters": np.zeros(5, int)}, "clusters has 5 labels, the matrix 230 cells"),
        ({"clusters": np.array([None] * 3 + ["a"] * 227)}, "clusters is missing for 3 cells"),
        ({"layer": "counts"}, "layers/counts needs an AnnData"),
        ({"threads": -2}, "threads is -2"),
    ],
)
def test_bad_arguments_are_named(counts, options, message):
    with pytest.raises(ValueError, match=message):
        pooled_size_factors(counts, **options)


def test_unknown_columns_and_layers_are_named_with_near_ones(counts):
    adata = anndata.AnnData(counts.astype(np.float32))
    adata.obs["cluster"] = "a"
    with pytest.raises(KeyNotFoundError, match="'clusters'; did you mean 'cluster'"):
        pooled_size_factors(adata, clusters="clusters")
    with pytest.raises(KeyNotFoundError, match="layer"):
        pooled_size_factors(adata, layer="raw")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (-1.0, "cell 5, gene 7 is -1, expected a count: none is negative"),
        (np.nan, "cell 5, gene 7 is -?nan, expected a count: all are finite"),
        (np.inf, "cell 5, gene 7 is inf"),
    ],
)
def test_what_is_no_count_is_named(counts, value, message):
    bad = counts.astype(np.float32)
    bad[5, 7] = value
    with pytest.raises(ValueError, match=message) as caught:
        pooled_size_factors(bad)
    assert "matrix in memory" in caught.value.__notes__[0]


def test_empty_cells_are_named(counts):
    adata = anndata.AnnData(counts.astype(np.float32))
    adata.X[[2, 9]] = 0
    with pytest.raises(ValueError, match=r"2 of 230 cells have no counts: '2' \(cell 2\), '9'"):
        pooled_size_factors(adata)
    assert "size_factors" not in adata.obs
    with pytest.raises(ValueError, match="230 of 230 cells have no counts"):
        pooled_size_factors(np.zeros((230, 4)))


def test_logged_data_are_warned_of(counts):
    with pytest.warns(
        ScioWarning,
        match=r"expects counts, but \d.*% of .* \(maximum .*\): .* in cell 0, gene '0' \(0\); is it logged",
    ):
        pooled_size_factors(np.log1p(counts))


@pytest.mark.parametrize(
    ("factors", "detected", "message"),
    [
        ([1, 2], [1], "size_factors has shape"),
        ([1, np.nan], [1, 1], r"size_factors\[1\] is nan"),
        ([1, 0], [1, np.inf], r"detected\[1\] is inf"),
        ([0, -1], [1, 1], "none of 2 size factors is positive"),
    ],
)
def test_cleaning_refuses_what_it_cannot_use(factors, detected, message):
    with pytest.raises(ValueError, match=message):
        clean_size_factors(factors, detected)


def test_the_core_checks_what_it_is_given(counts):
    csr = sp.csr_matrix(counts, dtype=np.float32)
    arrays = (csr.data, csr.indices, csr.indptr.astype(np.int64), np.zeros(230, np.int32))
    sums = np.zeros((1, 60))
    options = {"shape": (230, 60), "first_row": 0}
    frozen = np.zeros((1, 60))
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="maxima is read-only"):
        _core.pooling_scan(*arrays, sums, frozen, **options)
    with pytest.raises(ValueError, match="sums has 59 columns, expected 60"):
        _core.pooling_scan(*arrays, np.zeros((1, 59)), sums, **options)
    with pytest.raises(ValueError, match="parts has 229 items, expected 230"):
        _core.pooling_scan(*arrays[:3], np.zeros(229, np.int32), sums, sums, **options)
    with pytest.raises(ValueError, match="counts has 1 items, expected 2"):
        _core.pooling_medians(
            np.zeros(2, int), np.zeros(1, int), np.zeros(0, np.int32), np.zeros(0), np.ones(1, int),
            n_genes=3,
        )  # fmt: skip
    with pytest.raises(ValueError, match=r"sizes\[0\] is 3, expected 1 to 2"):
        _core.pooling_solve(np.ones((1, 2)), np.array([3]), weak=1.0)


# --- R, live

SCRIPT = """
suppressPackageStartupMessages(library(scuttle))
arguments <- commandArgs(trailingOnly = TRUE)
counts <- t(as.matrix(read.csv(arguments[1], header = FALSE)))
clusters <- scan(arguments[2], quiet = TRUE)
factors <- suppressWarnings(pooledSizeFactors(counts, clusters = clusters))
cat(sprintf("%.17g", factors), sep = "\\n")
"""


@pytest.mark.r
@pytest.mark.parametrize("made", [made_counts(420, 150, seed=2), negative_counts()])
def test_factors_are_those_of_scuttle_run_now(tmp_path: Path, made):
    program = shutil.which("Rscript")
    assert program is not None, "no Rscript; make test-r installs it"
    clusters = np.arange(len(made)) * 3 // (2 * len(made))
    np.savetxt(tmp_path / "counts.csv", made, fmt="%d", delimiter=",")
    np.savetxt(tmp_path / "clusters.txt", clusters, fmt="%d")
    (tmp_path / "run.R").write_text(SCRIPT)
    done = subprocess.run(
        [program, "run.R", "counts.csv", "clusters.txt"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    expected = np.array(done.stdout.split(), dtype=np.float64)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        got = pooled_size_factors(made, clusters=clusters)
    error = np.abs(got / expected - 1)
    n_replaced = sum(int(str(w.message).split(": ")[1].split()[0]) for w in caught)
    # where factors were replaced, R's less exact fit moves the mean by which all are divided
    scale = np.median(got / expected)
    assert np.count_nonzero(np.abs(got / expected / scale - 1) > 1e-10) <= n_replaced
    assert error.max() < (1e-5 if n_replaced else 1e-10)
