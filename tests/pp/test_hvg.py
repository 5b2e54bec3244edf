"""Gene selection: stored values of Seurat and Cell Ranger, scanpy live, plain ones, and properties."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import scio
from scio.errors import KeyNotFoundError, ScioWarning
from scio.pp import GeneStats, gene_stats, highly_variable_genes
from scio.pp import _flavors as flavors
from tests.plain import hvg as plain

pd = pytest.importorskip("pandas")
sparse = pytest.importorskip("scipy.sparse")
anndata = pytest.importorskip("anndata")

FLAVORS = ["seurat", "cell_ranger", "seurat_v3", "seurat_v3_paper", "pearson_residuals", "poisson"]
ON_COUNTS = FLAVORS[2:]
DATASETS = {
    "pbmc3k": "pbmc3k_2638x13714_counts",
    "kang": "kang_ifnb_2000x9015_counts",
    "paul15": "paul15_2730x3451_dense_anndata06",
    "worm_l2": "worm_l2_sci_5340x5000_counts",
}


def make_counts(seed: int, n_cells: int = 300, n_genes: int = 120) -> NDArray[np.int64]:
    """Overdispersed counts, with an empty gene, a constant one and two that are equal."""
    rng = np.random.default_rng(seed)
    depth = rng.lognormal(0, 0.4, (n_cells, 1))
    mean = rng.lognormal(-0.5, 1.3, n_genes)
    scatter = rng.gamma(2, 0.5, (n_cells, n_genes)) ** rng.uniform(0, 1.5, n_genes)
    counts = rng.poisson(depth * mean * scatter)
    counts[:, 0], counts[:, 1], counts[:, 2] = 0, 2, counts[:, 3]
    return counts


def logged(counts: NDArray[Any], dtype: Any = np.float64) -> NDArray[Any]:
    totals = counts.sum(axis=1, keepdims=True)
    return np.log1p(counts / np.where(totals == 0, 1, totals) * 100).astype(dtype)


def make_adata(values: NDArray[Any], labels: Any = None) -> Any:
    obs = pd.DataFrame(index=[f"cell{i}" for i in range(values.shape[0])])
    if labels is not None:
        obs["batch"] = pd.Categorical(labels)
    var = pd.DataFrame(index=[f"gene{i:04d}" for i in range(values.shape[1])])
    return anndata.AnnData(sparse.csr_matrix(values), obs=obs, var=var)


def select(source: Any, flavor: str, **others: Any) -> Any:
    """A table; counts are logged first where the flavour needs it."""
    if flavor in ("seurat", "cell_ranger"):
        others.setdefault("target_sum", 100)
    others.setdefault("n_top_genes", 20)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ScioWarning)  # loess on so few genes has to deviate
        return highly_variable_genes(source, flavor=flavor, inplace=False, **others)


def same(a: Any, b: Any) -> None:
    """Equal to the bit, names apart."""
    assert list(a.columns) == list(b.columns)
    for name in a.columns:
        assert a[name].dtype == b[name].dtype, name
        assert a[name].to_numpy().tobytes() == b[name].to_numpy().tobytes(), name


# --- stored values


@pytest.mark.parametrize("name", DATASETS)
def test_seurat_vst(shared_data: Path, name: str) -> None:
    table = highly_variable_genes(
        shared_data / "counts" / f"{DATASETS[name]}.h5ad", flavor="seurat_v3", n_top_genes=2000
    )
    stored = pd.read_csv(shared_data / "expected" / f"{name}_seurat430_vst.csv.gz", index_col=0)
    assert len(table) == len(stored)
    for ours, theirs in (
        ("means", "vst.mean"),
        ("variances", "vst.variance"),
        ("variances_norm", "vst.variance.standardized"),
    ):
        np.testing.assert_allclose(table[ours], stored[theirs], rtol=1e-9)
    assert table["highly_variable"].sum() == 2000
    n_tied = {"pbmc3k": 4, "worm_l2": 21}.get(name)
    if n_tied is not None:
        assert len(table.attrs["scio"]["tied"]) == n_tied
    order = np.lexsort([-table["variances_norm"].to_numpy()])
    assert set(np.flatnonzero(table["highly_variable"])) == set(order[:2000])


@pytest.mark.parametrize("name", DATASETS)
def test_seurat_trend(shared_data: Path, name: str) -> None:
    """The expected variances of loess on real counts."""
    stats = gene_stats(shared_data / "counts" / f"{DATASETS[name]}.h5ad", scaled=False)
    stored = pd.read_csv(shared_data / "expected" / f"{name}_seurat430_vst.csv.gz", index_col=0)
    means, variances = stats.means()[0], stats.variances()[0]
    trend = flavors.fit_trend(means, variances, stats.n_obs, 0.3, "all cells")
    expected = np.where(variances > 0, stored["vst.variance.expected"], np.nan)
    np.testing.assert_allclose(trend.spreads**2, expected, rtol=1e-9)
    assert trend.diagnostics["n_pseudo_inverses"] == 0


@pytest.mark.parametrize("name", DATASETS)
def test_seurat_mean_var_plot(shared_data: Path, name: str) -> None:
    """Means and dispersions as they are; Seurat's own bins are a little wider at the top."""
    stats = gene_stats(shared_data / "counts" / f"{DATASETS[name]}.h5ad", target_sum=1e4)
    file = shared_data / "expected" / f"{name}_seurat430_mvp20bins.csv.gz"
    stored = pd.read_csv(file, index_col=0)
    table = highly_variable_genes(stats, flavor="seurat")
    absent = stats.n_nonzero[0] == 0
    np.testing.assert_allclose(table["means"][~absent], stored["mvp.mean"][~absent], rtol=1e-9)
    dispersions = np.nan_to_num(table["dispersions"].to_numpy())
    np.testing.assert_allclose(dispersions, stored["mvp.dispersion"], rtol=0, atol=1e-9)
    means = np.where(absent, 0, table["means"])
    bins = flavors.seurat_bins(means, 20, widen_both=True)
    centres, spreads = flavors.means_and_spreads(dispersions, bins, 20)
    is_alone = np.bincount(bins, minlength=20)[bins] == 1
    scaled = np.where(is_alone, np.nan, (dispersions - centres[bins]) / spreads[bins])
    np.testing.assert_allclose(scaled, stored["mvp.dispersion.scaled"], rtol=0, atol=2e-8)


@pytest.fixture
def pbmc68k(shared_data: Path) -> Any:
    """raw/X of pbmc68k_reduced, normalised to 1e4 and logged once more."""
    import scanpy

    file = shared_data / "h5ad_formats" / "pbmc68k_reduced_enc02.h5ad"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adata = anndata.read_h5ad(file).raw.to_adata()
        scanpy.pp.normalize_total(adata, target_sum=1e4)
        adata.uns.pop("log1p", None)
        scanpy.pp.log1p(adata)
    return adata


@pytest.mark.parametrize(
    ("file", "flavor", "k", "tolerances"),
    [
        ("seurat_hvg.csv", "seurat", None, (2e-5, 2e-5, 2e-5)),
        ("cell_ranger_hvg.csv", "cell_ranger", 100, (1e-6, 1e-6, 1e-5)),
    ],
)
def test_stored_dispersions(
    shared_data: Path,
    pbmc68k: Any,
    file: str,
    flavor: str,
    k: int | None,
    tolerances: tuple[float, float, float],
) -> None:
    stored = pd.read_csv(shared_data / "expected" / file, index_col=0)
    table = highly_variable_genes(pbmc68k, flavor=flavor, n_top_genes=k, inplace=False)
    for name, atol in zip(("means", "dispersions", "dispersions_norm"), tolerances, strict=True):
        np.testing.assert_allclose(table[name], stored[name], rtol=atol, atol=atol)
    np.testing.assert_array_equal(table["highly_variable"], stored["highly_variable"])


@pytest.fixture(scope="module")
def pbmc3k() -> Any:
    """The 2,700 cells and 13,714 genes of seurat_hvg_v3.csv, in its order."""
    with scio.open(scio.datasets.pbmc3k()) as file:
        counts, names = file.X.read().to_scipy(), file.var_names
    kept = np.bincount(counts.indices, minlength=counts.shape[1]) >= 3
    adata = make_adata(counts[:, kept], np.minimum(np.arange(2700) // 500, 4))
    adata.var["gene"] = names[kept]
    return adata


def test_seurat_v3_of_pbmc3k(shared_data: Path, pbmc3k: Any) -> None:
    stored = pd.read_csv(shared_data / "expected" / "seurat_hvg_v3.csv.gz", index_col=0)
    table = highly_variable_genes(pbmc3k, flavor="seurat_v3", inplace=False)
    for ours, theirs in (
        ("means", "mean"),
        ("variances", "variance"),
        ("variances_norm", "variance.standardized"),
    ):
        np.testing.assert_allclose(table[ours], stored[theirs], rtol=1e-11)


def test_select_integration_features(shared_data: Path, pbmc3k: Any) -> None:
    """Of the 2,000 genes that Seurat selects over five batches of cells, almost all."""
    stored = pd.read_csv(shared_data / "expected" / "seurat_hvg_v3_batch.csv", index_col=0)
    table = highly_variable_genes(
        pbmc3k, flavor="seurat_v3_paper", batch_key="batch", inplace=False
    )
    chosen = set(pbmc3k.var["gene"][table["highly_variable"].to_numpy()])
    assert len(chosen & set(stored["x"])) > 0.99 * 2000


# --- scanpy, live


def scanpy_select(adata: Any, flavor: str, **others: Any) -> Any:
    """A table of scanpy, None where it stops (scikit-misc refuses small or tied data)."""
    import scanpy

    call = scanpy.pp.highly_variable_genes
    if flavor == "pearson_residuals":
        call = scanpy.experimental.pp.highly_variable_genes
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return call(adata.copy(), flavor=flavor, inplace=False, **others)
        except ValueError:
            return None


def agree(ours: Any, theirs: Any, rtol: float, values: str) -> None:
    """Columns alike; the same genes but for those whose value is that of the last one."""
    for name in theirs.columns:
        if name in ("gene_name", "highly_variable", "mean_bin"):
            continue
        if name.startswith("highly_variable"):
            continue  # ranks and numbers of batches follow from ties, whose order is scanpy's secret
        np.testing.assert_allclose(ours[name], theirs[name], rtol=rtol, atol=rtol, err_msg=name)
    differ = (ours["highly_variable"] != theirs["highly_variable"]).to_numpy()
    if differ.any():
        scores = ours[values].to_numpy()
        last = scores[ours["highly_variable"]].min()
        np.testing.assert_allclose(scores[differ], last, rtol=1e-6)


@given(
    seed=st.integers(0, 2**32),
    flavor=st.sampled_from(["seurat", "cell_ranger"]),
    k=st.sampled_from([None, 1, 20, 110]),
    dtype=st.sampled_from([np.float32, np.float64]),
    base=st.sampled_from([None, 2.0]),
)
@settings(max_examples=12, deadline=None)
def test_scanpy_dispersions(
    seed: int, flavor: str, k: int | None, dtype: Any, base: float | None
) -> None:
    values = logged(make_counts(seed, 80), dtype) / (np.log(base) if base else 1)
    adata = make_adata(values.astype(dtype))
    adata.uns["log1p"] = {"base": base}
    theirs = scanpy_select(adata, flavor, n_top_genes=k)
    assume(theirs is not None)
    ours = highly_variable_genes(
        adata, flavor=flavor, n_top_genes=k, inplace=False, compat="scanpy"
    )
    zero_spread = np.isinf(theirs["dispersions_norm"]) | theirs["dispersions_norm"].isna()
    assume(not zero_spread.any() or flavor == "seurat")  # there scanpy's 0/0 is NaN, ours 0
    agree(ours, theirs, 2e-4 if dtype == np.float32 else 1e-8, "dispersions_norm")


@given(seed=st.integers(0, 2**32), flavor=st.sampled_from(ON_COUNTS[:3]), k=st.integers(1, 150))
@settings(max_examples=12, deadline=None)
def test_scanpy_counts(seed: int, flavor: str, k: int) -> None:
    adata = make_adata(make_counts(seed, 100, 150).astype(np.float32))
    theirs = scanpy_select(adata, flavor, n_top_genes=k)
    assume(theirs is not None)
    ours = select(adata, flavor, n_top_genes=k)
    name = "residual_variances" if flavor == "pearson_residuals" else "variances_norm"
    agree(ours, theirs, 1e-6, name)  # scanpy squares float32 values


@pytest.mark.parametrize("flavor", FLAVORS[:5])
def test_scanpy_batches(flavor: str) -> None:
    counts = make_counts(11, 400, 200)
    labels = np.repeat(["a", "b", "c"], [150, 150, 100])
    values = logged(counts) if flavor in FLAVORS[:2] else counts.astype(np.float64)
    adata = make_adata(values[:, 3:], labels)  # without the genes that are equal or constant
    # its clip is that of the first batch for all, unless one is given
    clip = {"clip": 9.0} if flavor == "pearson_residuals" else {}
    theirs = scanpy_select(adata, flavor, n_top_genes=30, batch_key="batch", **clip)
    assert theirs is not None
    ours = select(
        adata,
        flavor,
        n_top_genes=30,
        batch_key="batch",
        target_sum=None,
        compat="scanpy",
        **clip,
    )
    ours = ours[[c for c in ours.columns if c in theirs.columns]]
    assert set(theirs.columns) - set(ours.columns) <= {"gene_name"}
    for name in ours.columns:
        np.testing.assert_allclose(
            ours[name].astype(float), theirs[name].astype(float), rtol=1e-8, atol=1e-9, err_msg=name
        )
        if name != "highly_variable_nbatches":
            assert ours[name].dtype == theirs[name].dtype, name


def test_scanpy_keeps_every_gene_that_ties() -> None:
    values = logged(make_counts(4))
    values[:, 10:14] = values[:, [9]]  # five genes of one norm
    adata = make_adata(values)
    norms = highly_variable_genes(adata, inplace=False)["dispersions_norm"].to_numpy()
    k = int((norms > norms[9]).sum()) + 2
    exact = highly_variable_genes(adata, n_top_genes=k, inplace=False)
    assert exact["highly_variable"].sum() == k
    assert list(exact.attrs["scio"]["tied"]) == [9, 10, 11, 12, 13]
    assert exact["highly_variable"].to_numpy()[9:14].tolist() == [True, True, False, False, False]
    compatible = highly_variable_genes(adata, n_top_genes=k, inplace=False, compat="scanpy")
    assert compatible["highly_variable"].sum() == k + 3
    theirs = scanpy_select(adata, "seurat", n_top_genes=k)
    np.testing.assert_array_equal(compatible["highly_variable"], theirs["highly_variable"])


# --- the plain ones


@pytest.mark.parametrize("n_batches", [1, 3])
@pytest.mark.parametrize("flavor", FLAVORS)
def test_plain_ones(flavor: str, n_batches: int) -> None:
    counts = make_counts(7, 330, 140)
    labels = np.arange(330) % n_batches
    values = logged(counts) if flavor in FLAVORS[:2] else counts.astype(np.float64)
    batches = [values[labels == b] for b in range(n_batches)]
    adata = make_adata(values, labels)
    ours = select(
        adata,
        flavor,
        n_top_genes=25,
        target_sum=None,
        batch_key="batch",
    )
    if flavor in FLAVORS[:2]:
        expected = plain.by_dispersion(batches, 25, flavor)
        columns = {"dispersions_norm": "norm", "means": "means", "dispersions": "dispersions"}
    elif flavor == "poisson":
        expected = plain.poisson(batches, 25)
        columns = {
            "prob_zero_enrichment": "norm",
            "observed_fraction_zeros": "observed",
            "expected_fraction_zeros": "expected",
            "prob_zero_enrichment_rank": "rank",
            "prob_zero_enriched_nbatches": "nbatches",
        }
    else:
        is_paper = flavor == "seurat_v3_paper"
        expected = (
            plain.pearson(batches, 25)
            if flavor == "pearson_residuals"
            else plain.seurat_v3(batches, 25, paper=is_paper)
        )
        name = "residual_variances" if flavor == "pearson_residuals" else "variances_norm"
        columns = {
            name: "norm",
            "highly_variable_rank": "rank",
            "highly_variable_nbatches": "nbatches",
        }
    for ours_name, plain_name in columns.items():
        np.testing.assert_allclose(
            ours[ours_name], expected[plain_name], rtol=1e-9, atol=1e-12, err_msg=ours_name
        )
    np.testing.assert_array_equal(ours["highly_variable"], expected["chosen"])


@given(seed=st.integers(0, 2**32), n_cells=st.integers(2, 12), n_genes=st.integers(1, 15))
@settings(max_examples=40, deadline=None)
def test_tiny_matrices_give_numbers(seed: int, n_cells: int, n_genes: int) -> None:
    """A handful of tied genes: every flavour answers, without NaN where a variance exists."""
    counts = np.random.default_rng(seed).integers(0, 3, (n_cells, n_genes))
    assume(counts.any())
    for flavor in FLAVORS:
        table = select(counts, flavor, n_top_genes=5)
        assert table["highly_variable"].sum() <= min(5, n_genes)
        if flavor in ON_COUNTS:
            assert table["highly_variable"].sum() == min(5, n_genes)
            score = {"poisson": "prob_zero_enrichment", "pearson_residuals": "residual_variances"}
            assert np.isfinite(table[score.get(flavor, "variances_norm")]).all()


# --- properties


@pytest.mark.parametrize("flavor", FLAVORS)
def test_same_bits(flavor: str, tmp_path: Path) -> None:
    """Threads, storage, types, memory or file."""
    counts = make_counts(21, 5000, 60)  # more than one block of 4,096 rows
    labels = np.arange(5000) % 3
    expected = select(make_adata(counts, labels), flavor, batch_key="batch", threads=1)
    for threads in (2, 7):
        adata = make_adata(counts, labels)
        same(expected, select(adata, flavor, batch_key="batch", threads=threads))
    adata = make_adata(counts, labels)
    for values in (
        counts.astype(np.int16),
        counts.astype(np.uint16),
        np.asfortranarray(counts, dtype=np.float32),
        sparse.csc_matrix(counts.astype(np.float64)),
        sparse.csr_array(counts.astype(np.int32)),
    ):
        adata.X = values
        same(expected, select(adata, flavor, batch_key="batch"))
    file = tmp_path / "counts.h5ad"
    adata.write_h5ad(file, compression="gzip")
    same(expected, select(file, flavor, batch_key="batch"))
    with scio.open(file) as handle:
        same(expected, select(handle, flavor, batch_key="batch"))


@pytest.mark.parametrize("flavor", FLAVORS)
def test_stored_zeros_duplicates_and_order_of_a_row_do_not_matter(flavor: str) -> None:
    counts = make_counts(22, 60, 50)
    plain_matrix = sparse.csr_matrix(counts)
    rows, columns = np.divmod(np.arange(counts.size), counts.shape[1])
    whole = np.concatenate([counts.reshape(-1) - counts.reshape(-1) // 2, counts.reshape(-1) // 2])
    coo = sparse.coo_matrix(
        (whole[::-1], (np.tile(rows, 2)[::-1], np.tile(columns, 2)[::-1])), shape=counts.shape
    )
    order = np.argsort(coo.row, kind="stable")
    indptr = np.concatenate([[0], np.cumsum(np.bincount(coo.row))])
    messy = sparse.csr_matrix((coo.data[order], coo.col[order], indptr), shape=counts.shape)
    assert messy.nnz == 2 * counts.size
    same(select(plain_matrix, flavor), select(messy, flavor))


@pytest.mark.parametrize("flavor", FLAVORS)
def test_permuted_cells_and_genes(flavor: str) -> None:
    counts = make_counts(23)
    rng = np.random.default_rng(0)
    table = select(counts, flavor)
    moved = select(counts[rng.permutation(len(counts))], flavor)
    if flavor in ("seurat_v3", "seurat_v3_paper", "poisson"):
        same(table, moved)
    else:
        for name in table.columns:
            np.testing.assert_allclose(
                table[name].astype(float), moved[name].astype(float), rtol=1e-11, atol=1e-13
            )
    order = rng.permutation(counts.shape[1])
    moved = select(counts[:, order], flavor).iloc[np.argsort(order)]
    ranks = [c for c in table.columns if "rank" in c or "highly" in c]
    values = [c for c in table.columns if c not in ranks]
    same(table[values], moved[values])
    # genes that tie follow their new order
    differ = table["highly_variable"].to_numpy() != moved["highly_variable"].to_numpy()
    assert set(np.flatnonzero(differ)) <= set(table.attrs["scio"]["tied"])


@pytest.mark.parametrize("flavor", FLAVORS)
def test_batches_by_any_name_in_any_order(flavor: str) -> None:
    counts = make_counts(24)
    labels = np.arange(300) % 3
    table = select(make_adata(counts, labels), flavor, batch_key="batch")
    renamed = pd.Categorical.from_codes(2 - labels, ["x", "b", "aa"])
    other = make_adata(counts, renamed)
    other.obs["batch"] = other.obs["batch"].cat.add_categories(["nobody"])
    same(table, select(other, flavor, batch_key="batch"))
    one = select(make_adata(counts, np.zeros(300, dtype=int)), flavor, batch_key="batch")
    none = select(make_adata(counts), flavor, filter_unexpressed_genes=True)
    shared = [c for c in none.columns if c in one.columns]
    same(one[shared], none[shared])


@pytest.mark.parametrize("flavor", FLAVORS)
def test_a_batch_twice(flavor: str) -> None:
    """The values stay, the number of batches doubles."""
    counts = make_counts(25)
    once = select(make_adata(counts, np.zeros(300, dtype=int)), flavor, batch_key="batch")
    doubled = make_adata(np.concatenate([counts, counts]), np.repeat([0, 1], 300))
    twice = select(doubled, flavor, batch_key="batch")
    nbatches = "prob_zero_enriched_nbatches" if flavor == "poisson" else "highly_variable_nbatches"
    np.testing.assert_array_equal(twice[nbatches], 2 * once[nbatches])
    for name in once.columns:
        if name not in (nbatches, "variances"):
            np.testing.assert_allclose(
                twice[name].astype(float), once[name].astype(float), rtol=1e-13, err_msg=name
            )


def test_a_batch_of_one_cell_is_left_out() -> None:
    counts = make_counts(26)
    labels = np.array(["a"] * 150 + ["b"] * 149 + ["lonely"])
    with pytest.warns(ScioWarning, match="1 batches of one cell were left out: 'lonely'"):
        table = highly_variable_genes(
            make_adata(counts, labels),
            flavor="pearson_residuals",
            n_top_genes=20,
            batch_key="batch",
            inplace=False,
        )
    without = select(make_adata(counts[:299], labels[:299]), "pearson_residuals", batch_key="batch")
    names = [c for c in table.columns if c not in ("means", "variances")]  # these are of all cells
    same(table[names], without[names])
    assert table["highly_variable_nbatches"].max() == 2


@pytest.mark.parametrize("flavor", FLAVORS)
def test_names_do_not_matter(flavor: str) -> None:
    counts = make_counts(27)
    adata = make_adata(counts, np.arange(300) % 2)
    expected = select(adata, flavor, batch_key="batch")
    adata.var_names = ["same"] * adata.n_vars
    same(expected, select(adata, flavor, batch_key="batch"))


@pytest.mark.parametrize("flavor", FLAVORS)
def test_statistics_answer_without_the_matrix(flavor: str) -> None:
    counts = make_counts(28)
    adata = make_adata(counts, np.arange(300) % 2)
    stats = gene_stats(adata, batch_key="batch", target_sum=100)
    expected = select(adata, flavor, batch_key="batch")
    same(expected, select(adata, flavor, stats=stats, batch_key="batch", target_sum=None))
    if flavor == "pearson_residuals":
        with pytest.raises(ValueError, match="needs the matrix: call highly_variable_genes"):
            select(stats, flavor)
        return
    same(expected, select(stats, flavor, target_sum=None))


def test_statistics_of_another_matrix() -> None:
    stats = gene_stats(make_counts(1))
    with pytest.raises(ValueError, match="stats does not belong to"):
        select(make_counts(2), "seurat_v3", stats=stats)


def test_counts_that_are_no_integers_take_a_second_pass() -> None:
    """Halves of counts: sums of clipped values are taken from the matrix, and scale."""
    counts = make_counts(29).astype(np.float64)
    counts[7, 40] = 501  # clipped
    with pytest.warns(ScioWarning, match="no integers"):
        halves = highly_variable_genes(counts / 2, flavor="seurat_v3", n_top_genes=20)
    whole = select(counts, "seurat_v3")
    np.testing.assert_allclose(halves["variances"], whole["variances"] / 4, rtol=1e-13)
    np.testing.assert_allclose(halves["variances_norm"], whole["variances_norm"], rtol=1e-9)
    expected = plain.seurat_v3([counts / 2], 20)
    np.testing.assert_allclose(halves["variances_norm"], expected["norm"], rtol=1e-9)
    stats = gene_stats(counts / 2)
    with pytest.warns(ScioWarning), pytest.raises(ValueError, match="second pass, which needs"):
        highly_variable_genes(stats, flavor="seurat_v3")


def test_large_counts() -> None:
    """65,535 in uint16, totals above 2^24, squares above 2^53."""
    counts = make_counts(30, 3000, 40).astype(np.uint16)
    counts[:, 5] = np.where(np.arange(3000) % 2, 65535, 65000)
    table = select(counts, "seurat_v3")
    expected = plain.seurat_v3([counts.astype(np.float64)], 20)
    np.testing.assert_allclose(table["variances_norm"], expected["norm"], rtol=1e-9)
    np.testing.assert_array_equal(table["highly_variable"], expected["chosen"])


@pytest.mark.parametrize("flavor", ["seurat_v3", "pearson_residuals"])
def test_all_genes_asked_for(flavor: str) -> None:
    counts = make_counts(31)
    assert select(counts, flavor, n_top_genes=120)["highly_variable"].all()
    with pytest.warns(ScioWarning, match="n_top_genes is 121, but only 120 of 120 genes"):
        table = highly_variable_genes(counts, flavor="pearson_residuals", n_top_genes=121)
    assert table["highly_variable"].all()


def test_a_gene_without_a_value_is_never_chosen() -> None:
    values = logged(make_counts(32))
    values[:, 1] = 0.7  # constant: its dispersion is missing
    with pytest.warns(ScioWarning, match="genes have a value to be ranked by"):
        table = highly_variable_genes(make_adata(values), n_top_genes=120, inplace=False)
    np.testing.assert_array_equal(table["highly_variable"], table["dispersions_norm"].notna())
    assert not table["highly_variable"].iloc[1]


def test_constant_genes_of_seurat_v3_come_last() -> None:
    table = select(make_counts(33), "seurat_v3", n_top_genes=118)
    assert np.flatnonzero(~table["highly_variable"]).tolist() == [0, 1]
    assert (table["variances_norm"].iloc[:2] == 0).all()


def test_genes_that_all_are_equal() -> None:
    counts = np.repeat(make_counts(34)[:, [5]], 30, axis=1)
    for flavor in ON_COUNTS:
        table = select(counts, flavor, n_top_genes=4)
        assert np.flatnonzero(table["highly_variable"]).tolist() == [0, 1, 2, 3]
        assert len(table.attrs["scio"]["tied"]) == 30


# --- an AnnData


@pytest.mark.parametrize("flavor", FLAVORS)
def test_what_is_written(flavor: str, tmp_path: Path) -> None:
    counts = make_counts(41)
    adata = make_adata(counts if flavor in ON_COUNTS else logged(counts))
    adata.layers["counts"] = sparse.csr_matrix(counts)
    layer = "counts" if flavor in ON_COUNTS else None
    table = select(adata, flavor, layer=layer, target_sum=None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ScioWarning)
        result = highly_variable_genes(adata, flavor=flavor, n_top_genes=20, layer=layer)
    assert result is None
    for name in table.columns:
        expected = table[name].to_numpy()
        if name == "dispersions_norm":
            assert adata.var[name].dtype == np.float32
            expected = expected.astype(np.float32)
        np.testing.assert_array_equal(adata.var[name].to_numpy(), expected)
    full = "poisson_gene_selection" if flavor == "poisson" else flavor
    assert adata.uns["hvg"]["flavor"] == full
    note = adata.uns["scio"]["hvg"]
    assert (note["flavor"], note["layer"]) == (full, layer or "X")
    assert note["parameters"]["n_top_genes"] == 20
    assert note["version"] == scio.__version__
    adata.write_h5ad(tmp_path / "written.h5ad")
    again = anndata.read_h5ad(tmp_path / "written.h5ad")
    assert again.uns["scio"]["hvg"]["fingerprint"] == note["fingerprint"]


def test_subset() -> None:
    counts = make_counts(42)
    adata = make_adata(counts)
    table = select(adata, "pearson_residuals", subset=True)
    assert len(table) == 20
    assert table["highly_variable"].all()
    highly_variable_genes(adata, flavor="pearson_residuals", n_top_genes=20, subset=True)
    assert list(adata.var_names) == list(table.index)


def test_a_view_becomes_an_adata_of_its_own() -> None:
    adata = make_adata(make_counts(43))
    view = adata[:200]
    with pytest.warns(ScioWarning, match="view of an AnnData"):
        highly_variable_genes(view, flavor="pearson_residuals", n_top_genes=20)
    assert "highly_variable" in view.var
    assert "highly_variable" not in adata.var


def test_the_base_of_the_logarithm_is_undone(tmp_path: Path) -> None:
    """For X as scanpy notes it, in memory and in a file; the natural logarithm has none."""
    values = logged(make_counts(44))
    natural = make_adata(values)
    natural.uns["log1p"] = {}
    expected = highly_variable_genes(natural, inplace=False)
    binary = make_adata(values / np.log(2))
    wrong = highly_variable_genes(binary, inplace=False)
    binary.uns["log1p"] = {"base": 2.0}
    right = highly_variable_genes(binary, inplace=False)
    for name in ("means", "dispersions", "dispersions_norm"):
        np.testing.assert_allclose(right[name], expected[name], rtol=1e-9)
    assert not np.allclose(wrong["means"], expected["means"])
    binary.write_h5ad(tmp_path / "binary.h5ad")
    same(right, highly_variable_genes(tmp_path / "binary.h5ad"))


@pytest.mark.parametrize("flavor", ["seurat", "cell_ranger"])
def test_counts_with_a_target_are_logged_on_the_way(flavor: str) -> None:
    counts = make_counts(45)
    direct = select(counts, flavor, target_sum=100)
    stepwise = highly_variable_genes(
        make_adata(logged(counts, np.float32)), flavor=flavor, n_top_genes=20, inplace=False
    )
    np.testing.assert_allclose(direct["means"], stepwise["means"], rtol=3e-7)
    np.testing.assert_allclose(direct["dispersions"], stepwise["dispersions"], atol=3e-6)
    np.testing.assert_array_equal(direct["highly_variable"], stepwise["highly_variable"])


# --- bad input


def refused(source: Any, match: str, error: type[Exception] = ValueError, **others: Any) -> None:
    others = {"flavor": "seurat_v3", "inplace": False} | others
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ScioWarning)
        with pytest.raises(error, match=match):
            highly_variable_genes(source, **others)


@pytest.mark.parametrize(
    ("arguments", "match", "error"),
    [
        ({"n_top_genes": 0}, "n_top_genes is 0, expected 1 or more", ValueError),
        ({"n_top_genes": -3}, "n_top_genes is -3, expected 1 or more", ValueError),
        ({"n_top_genes": 2.5}, "n_top_genes is 2.5, expected an int", TypeError),
        ({"n_top_genes": True}, "n_top_genes is True, expected an int", TypeError),
        ({"flavor": "seuratv3"}, "flavor is 'seuratv3'; did you mean 'seurat_v3'", ValueError),
        ({"span": 0.0}, r"span is 0.0, expected a number in \(0, 1\]", ValueError),
        ({"theta": 0.0}, "theta is 0.0, expected a number above 0", ValueError),
        ({"clip": -1.0}, "clip is -1.0, expected a number of at least 0", ValueError),
        ({"n_bins": 0}, "n_bins is 0, expected 1 or more", ValueError),
        ({"compat": "seurat"}, "compat is 'seurat', expected None or 'scanpy'", ValueError),
        ({"target_sum": 1e4}, "target_sum has no meaning for flavor 'seurat_v3'", ValueError),
        ({"target_sum": -1.0, "flavor": "seurat"}, "target_sum is -1.0", ValueError),
        ({"batch_key": "bach"}, "no column 'bach'; did you mean 'batch'", KeyNotFoundError),
        ({"layer": "count"}, "did you mean 'counts'", KeyNotFoundError),
    ],
)
def test_arguments(arguments: dict[str, Any], match: str, error: type[Exception]) -> None:
    adata = make_adata(make_counts(51), np.arange(300) % 2)
    adata.layers["counts"] = adata.X
    refused(adata, match, error, **arguments)


@pytest.mark.parametrize("flavor", FLAVORS)
def test_matrices_without_anything_to_choose_from(flavor: str) -> None:
    others = {} if flavor in ON_COUNTS else {"target_sum": 100.0}
    refused(np.zeros((5, 4)), "all 5 x 4 values are 0", flavor=flavor, **others)
    refused(np.ones((1, 4)), "1 cells; a variance needs 2", flavor=flavor, **others)
    refused(np.ones((0, 4)), "0 cells; a variance needs 2", flavor=flavor, **others)
    labels = ["a", "b", "c"]
    refused(
        make_adata(np.ones((3, 4)), labels),
        "no batch of at least 2 cells",
        flavor=flavor,
        batch_key="batch",
        **others,
    )
    assert len(select(np.ones((5, 0)), flavor)) == 0


@pytest.mark.parametrize("flavor", FLAVORS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers(flavor: str, value: float) -> None:
    values = make_counts(52).astype(np.float64)
    values[7, 9] = value
    refused(make_adata(values), "cell 'cell7' .*, gene 'gene0009'", flavor=flavor)


def test_values_that_are_no_counts() -> None:
    counts = make_counts(53)
    adata = make_adata(logged(counts, np.float32))
    adata.layers["counts"] = sparse.csr_matrix(counts)
    with pytest.warns(ScioWarning, match=r"AnnData: X are no integers \(maximum "):
        highly_variable_genes(adata, flavor="pearson_residuals", n_top_genes=5)
    select(adata, "pearson_residuals", check_values=False)
    negative = make_adata(-counts.astype(np.float64))
    negative.layers["counts"] = sparse.csr_matrix(counts)
    with pytest.raises(ValueError, match="needs counts") as caught:
        highly_variable_genes(negative, flavor="seurat_v3")
    assert caught.value.__notes__ == ["other matrices of this AnnData: layers['counts']"]


def test_counts_where_logs_are_needed() -> None:
    adata = make_adata(make_counts(54))
    with pytest.warns(ScioWarning, match=r"X holds integers up to \d+, which look like counts"):
        highly_variable_genes(adata, n_top_genes=5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        highly_variable_genes(adata, n_top_genes=5, check_values=False)
    refused(make_adata(make_counts(54) * 500), "expm1 of it overflows", flavor="seurat")


def test_arguments_without_effect_warn() -> None:
    adata = make_adata(logged(make_counts(55)))
    with pytest.warns(ScioWarning, match="min_mean and max_mean are ignored"):
        highly_variable_genes(adata, n_top_genes=5, min_disp=1)
    with pytest.warns(ScioWarning, match="n_bins has no meaning"):
        highly_variable_genes(adata, flavor="cell_ranger", n_top_genes=5, n_bins=10)


def test_statistics_keep_their_own_layer_and_batches() -> None:
    stats = gene_stats(make_counts(56))
    assert isinstance(stats, GeneStats)
    refused(stats, "have no meaning for a GeneStats", batch_key="batch")
    refused(stats, "make them of counts, with", flavor="seurat")
