"""The recipe: the same bits as its steps in memory, few decodes, bounded memory, whole or no output."""

from __future__ import annotations

import filecmp
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import scio
from scio import _core
from scio.errors import (
    IOFormatError,
    IOWriteError,
    KeyNotFoundError,
    ScioWarning,
    TargetExistsError,
)
from scio.pp._recipe import RecipeResult
from scio.pp._source import BLOCK_ROWS, open_source
from scio.pp._streams import Subset
from tests.mounts import on_tmpfs

ROOT = Path(__file__).resolve().parents[2]
N_OBS, N_VARS = 2 * BLOCK_ROWS + 700, 150
FILTERS = {"min_genes": 12, "max_counts": 700, "min_cells": 400}


TOPS = (10, 50)


def run(path: Any, out: Any = None, **given: Any) -> RecipeResult:
    return scio.pp.recipe(path, out, **{"percent_top": TOPS, "n_top_genes": 40, **given})


def make(n_obs: int = N_OBS, seed: int = 0, dtype: str = "float32") -> anndata.AnnData:
    """Counts with rare genes, poor cells, two batches and one without cells."""
    rng = np.random.default_rng(seed)
    rates = rng.gamma(0.4, 1.0, N_VARS)
    rates[:30] = 0.02
    depth = rng.gamma(2.0, 1.0, n_obs)
    x = rng.poisson(np.outer(depth, rates)).astype(dtype)
    batch = pd.Categorical(rng.choice(["b", "a"], n_obs), categories=["b", "none", "a"])
    obs = pd.DataFrame({"batch": batch, "n": np.arange(n_obs)}, [f"c{i}" for i in range(n_obs)])
    names = [f"{'MT-' if i % 9 == 0 else ''}g{i}" for i in range(N_VARS)]
    var = pd.DataFrame({"ribo": np.arange(N_VARS) % 7 == 0}, names)
    adata = anndata.AnnData(sp.csr_matrix(x), obs=obs, var=var)
    adata.obsm["place"] = rng.random((n_obs, 2))
    adata.uns["title"] = "made"
    return adata


@pytest.fixture(scope="module")
def adata() -> anndata.AnnData:
    return make()


@pytest.fixture(scope="module")
def path(adata: anndata.AnnData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("recipe") / "counts.h5ad"
    adata.write_h5ad(made, compression="gzip")
    return made


def save(adata: anndata.AnnData, path: Path, chunk: int = 2000) -> Path:
    adata.write_h5ad(path)
    with h5py.File(path, "r+") as file:
        for name in ("data", "indices"):
            values = file[f"X/{name}"][:]
            del file[f"X/{name}"]
            file.create_dataset(f"X/{name}", data=values, chunks=(chunk,), compression="gzip")
    return path


def compose(
    adata: anndata.AnnData,
    *,
    filters: dict[str, Any],
    target_sum: float | None,
    flavor: str,
    batch_key: str | None,
    n_top_genes: int = 40,
) -> anndata.AnnData:
    """The recipe as single steps of scio.pp in memory."""
    adata = adata.copy()
    adata.var["mt"] = adata.var_names.str.startswith("MT-")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ScioWarning)
        scio.pp.calculate_qc_metrics(adata, qc_vars=["mt", "ribo"], percent_top=TOPS, inplace=True)
        for name, value in filters.items():
            if name == "min_gene_counts":
                scio.pp.filter_genes(adata, min_counts=value)
            elif name == "min_cells":
                scio.pp.filter_genes(adata, min_cells=value)
            else:
                scio.pp.filter_cells(adata, **{name: value})
        counts = adata.X.copy()
        given: dict[str, Any] = {
            "flavor": flavor,
            "n_top_genes": n_top_genes,
            "batch_key": batch_key,
        }
        if flavor in ("seurat", "cell_ranger"):
            target = target_sum
            if target is None:
                target = scio.pp.normalize_total(adata, inplace=False)["norm_factor"]
                totals = np.asarray(counts.sum(1), dtype=np.float64).ravel()
                target = float(np.median(totals[totals > 0]))
            given["target_sum"] = target
        scio.pp.highly_variable_genes(adata, **given)
        scio.pp.normalize_total(adata, target_sum=target_sum)
        scio.pp.log1p(adata)
    adata.layers["counts"] = counts
    return adata


def assert_same_bits(found: anndata.AnnData, expected: anndata.AnnData) -> None:
    for matrix, other in (
        (found.X, expected.X),
        (found.layers["counts"], expected.layers["counts"]),
    ):
        assert matrix.dtype == other.dtype
        for part in ("data", "indices", "indptr"):
            a, b = getattr(matrix, part), getattr(other, part)
            assert np.array_equal(a, b), part
    # categories of obs that lost their cells are dropped by anndata's own subset
    found.obs["batch"] = found.obs["batch"].cat.remove_unused_categories()
    expected.obs["batch"] = expected.obs["batch"].cat.remove_unused_categories()
    pd.testing.assert_frame_equal(found.obs, expected.obs, check_exact=True)
    pd.testing.assert_frame_equal(found.var, expected.var, check_exact=True)
    assert np.array_equal(found.obsm["place"], expected.obsm["place"])
    assert found.uns["hvg"] == expected.uns["hvg"]
    assert found.uns["log1p"] == expected.uns["log1p"]
    assert found.uns["title"] == "made"
    state = dict(found.uns["scio"]["state"]["X"])
    assert state == {"log1p": True, "target_sum": expected.uns["scio"]["state"]["X"]["target_sum"]}
    ours, theirs = found.uns["scio"]["hvg"], expected.uns["scio"]["hvg"]
    assert ours["fingerprint"] == theirs["fingerprint"]
    assert np.array_equal(ours["tied"], theirs["tied"])
    assert ours["flavor"] == theirs["flavor"]


@pytest.mark.parametrize(
    ("flavor", "target_sum", "filters", "batch_key", "n_passes"),
    [
        ("seurat", 1e4, FILTERS, None, 2),
        ("seurat", 1e4, {}, "batch", 1),
        ("seurat", 1e4, {"max_counts": 400, "min_cells": 0}, None, 1),
        ("cell_ranger", 1e4, {"min_genes": 12}, None, 1),
        ("seurat", None, {"min_counts": 30}, "batch", 2),
        ("seurat", None, FILTERS, None, 3),
        ("seurat", None, {}, None, 2),
        ("cell_ranger", 1e4, FILTERS, "batch", 2),
        ("cell_ranger", None, {"min_gene_counts": 500}, None, 3),
        ("seurat_v3", 1e4, {"max_genes": 60, "min_gene_counts": 500}, "batch", 2),
        ("pearson_residuals", 1e4, {}, None, 2),
        ("poisson", 1e4, FILTERS, None, 2),
    ],
)
def test_the_same_bits_as_the_single_steps(
    adata: anndata.AnnData,
    path: Path,
    tmp_path: Path,
    flavor: str,
    target_sum: float | None,
    filters: dict[str, Any],
    batch_key: str | None,
    n_passes: int,
) -> None:
    out = tmp_path / "out.h5ad"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ScioWarning)
        done = run(
            path,
            out,
            qc_vars={"mt": "MT-", "ribo": None},
            target_sum=target_sum,
            n_top_genes=40,
            flavor=flavor,
            batch_key=batch_key,
            keep_counts="counts",
            **filters,
        )
    expected = compose(
        adata, filters=filters, target_sum=target_sum, flavor=flavor, batch_key=batch_key
    )
    assert 0 < expected.n_obs <= N_OBS
    if filters:
        assert expected.shape != adata.shape
    assert_same_bits(anndata.read_h5ad(out), expected)
    assert done.n_passes == n_passes
    assert done.highly_variable.sum() == 40
    assert list(done.var.index[done.highly_variable]) == list(
        expected.var_names[expected.var["highly_variable"]]
    )
    assert done.left_out == []
    assert "genes chosen        40" in repr(done)
    assert scio.verify(out).exit_code == 0


def test_threads_windows_and_types_change_no_bit(
    adata: anndata.AnnData, path: Path, tmp_path: Path
) -> None:
    outs = [tmp_path / f"{i}.h5ad" for i in range(3)]
    for given in ({"min_counts": 1, "max_counts": 400}, FILTERS):  # in one pass and in two
        first = run(path, outs[0], threads=1, **given)
        run(path, outs[1], threads=2, max_memory="13MB", **given)
        run(path, outs[2], threads=0, max_memory="1GB", **given)
        assert filecmp.cmp(outs[0], outs[1], shallow=False)
        assert filecmp.cmp(outs[0], outs[2], shallow=False)
    other = adata.copy()
    other.X = other.X.astype("int16")
    ints = save(other, tmp_path / "ints.h5ad")
    again = run(ints, **FILTERS)
    pd.testing.assert_frame_equal(first.obs, again.obs, check_exact=True)
    pd.testing.assert_frame_equal(first.var, again.var, check_exact=True)


def test_fractions_and_duplicates_keep_their_bits(adata: anndata.AnnData, tmp_path: Path) -> None:
    other = adata.copy()
    other.X = other.X.astype("float64")
    other.X.data *= np.linspace(0.5, 1.5, other.X.nnz)
    halves = sp.csr_matrix(  # each value twice, as halves
        (np.repeat(other.X.data / 2, 2), np.repeat(other.X.indices, 2), 2 * other.X.indptr),
        shape=other.shape,
    )
    for matrix in (other.X, halves):
        other.X = matrix
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            source, out = save(other, tmp_path / "in.h5ad"), tmp_path / "out.h5ad"
        with pytest.warns(ScioWarning, match=r"a recipe expects counts, but .* in\.h5ad: X"):
            run(source, out, n_top_genes=40, keep_counts="counts", **FILTERS)
        found = anndata.read_h5ad(out)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = compose(
                other, filters=FILTERS, target_sum=1e4, flavor="seurat", batch_key=None
            )
        assert np.array_equal(found.X.data, expected.X.data)
        assert found.X.dtype == np.float64
        for name in ("means", "dispersions", "highly_variable"):
            assert np.array_equal(found.var[name], expected.var[name], equal_nan=True), name


def test_it_agrees_with_scanpy(tmp_path: Path) -> None:
    import scanpy as sc

    path, out = scio.datasets.pbmc3k(), tmp_path / "out.h5ad"
    scio.pp.recipe(path, out, min_genes=200, min_cells=3, n_top_genes=2000)
    found = anndata.read_h5ad(out)
    expected = anndata.read_h5ad(path)
    sc.pp.calculate_qc_metrics(expected, inplace=True)
    sc.pp.filter_cells(expected, min_genes=200)
    sc.pp.filter_genes(expected, min_cells=3)
    sc.pp.normalize_total(expected, target_sum=1e4)
    sc.pp.log1p(expected)
    sc.pp.highly_variable_genes(expected, n_top_genes=2000, flavor="seurat")
    assert list(found.obs_names) == list(expected.obs_names)
    assert list(found.var_names) == list(expected.var_names)
    np.testing.assert_allclose(found.X.data, expected.X.data, rtol=5e-7)
    assert np.array_equal(found.X.indices, expected.X.indices)
    for name in expected.obs.columns:
        np.testing.assert_allclose(found.obs[name], expected.obs[name], rtol=2e-6, err_msg=name)
    for name in expected.var.columns.drop(["gene_ids", "highly_variable"]):
        np.testing.assert_allclose(
            found.var[name].astype(float), expected.var[name], rtol=2e-5, atol=2e-5, err_msg=name
        )
    both = found.var["highly_variable"].to_numpy() & expected.var["highly_variable"].to_numpy()
    assert both.sum() >= 1998


def test_the_file_is_decoded_once_or_twice(adata: anndata.AnnData, tmp_path: Path) -> None:
    path = save(adata, tmp_path / "in.h5ad", chunk=250)
    n_chunks = 2 * -(-adata.X.nnz // 250)
    n_sampled = 64 * 2 * 2 * 2  # fingerprint: rows, arrays, chunks a row may touch, of two matrices
    assert n_chunks > 4 * n_sampled
    cases: list[tuple[int, dict[str, Any]]] = [
        (1, {}),
        (1, {"out": tmp_path / "1.h5ad"}),
        (1, {"min_cells": 0, "max_counts": 400, "out": tmp_path / "3.h5ad"}),  # only cells are
        (2, {"out": tmp_path / "2.h5ad", **FILTERS}),
        (2, {**FILTERS}),
    ]
    for n_passes, given in cases:
        before = _core.stats()["chunks_decoded"]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ScioWarning)
            done = run(path, n_top_genes=40, **given)
        decoded = _core.stats()["chunks_decoded"] - before
        assert done.n_passes == n_passes
        assert 0 <= decoded - n_passes * n_chunks <= n_sampled


def test_a_subset_holds_the_chosen_genes(path: Path, tmp_path: Path) -> None:
    full, part = tmp_path / "full.h5ad", tmp_path / "part.h5ad"
    for out, subset in ((full, False), (part, True)):
        run(path, out, n_top_genes=40, subset=subset, keep_counts="counts", **FILTERS)
    expected = anndata.read_h5ad(full)
    expected = expected[:, expected.var["highly_variable"]].copy()
    found = anndata.read_h5ad(part)
    assert found.shape[1] == 40
    assert abs(found.X - expected.X).nnz == 0
    assert abs(found.layers["counts"] - expected.layers["counts"]).nnz == 0
    pd.testing.assert_frame_equal(found.var, expected.var, check_exact=True)


def test_chosen_rows_of_a_source_are_blocks_of_4096(adata: anndata.AnnData, path: Path) -> None:
    rng = np.random.default_rng(5)
    for share in (0.1, 0.45, 0.8, 1.0):
        cells, genes = rng.random(N_OBS) < share, rng.random(N_VARS) < 0.7
        part = Subset(open_source(str(path)), cells, genes, n_rows=BLOCK_ROWS)
        blocks = list(part.blocks())
        assert [b.start for b in blocks] == [*range(0, part.n_obs, BLOCK_ROWS)][: len(blocks)]
        assert all(b.n_rows % BLOCK_ROWS == 0 for b in blocks[:-1])
        assert blocks[-1].stop == part.n_obs == cells.sum()
        dense = np.vstack(
            [
                scio.CSR(b.data, b.indices, b.indptr, shape=(b.n_rows, part.n_vars)).toarray()
                for b in blocks
            ]
        )
        expected = adata[cells, genes]
        assert np.array_equal(dense, expected.X.toarray())
        assert part.fingerprint() == open_source(expected.copy()).fingerprint()


# --- again, from the file alone


def test_a_recipe_is_repeated_from_its_file(path: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first.h5ad", tmp_path / "second.h5ad"
    done = run(
        path,
        first,
        qc_vars={"mt": "MT-"},
        percent_top=(10, 20),
        target_sum=None,
        n_top_genes=33,
        flavor="seurat_v3",
        batch_key="batch",
        **FILTERS,
    )
    again = scio.pp.repeat_recipe(first, second)
    assert filecmp.cmp(first, second, shallow=False)
    assert again.parameters == done.parameters
    pd.testing.assert_frame_equal(again.var, done.var, check_exact=True)
    note = anndata.read_h5ad(first).uns["scio"]["recipe"]
    assert note["version"] == scio.__version__
    assert json.loads(note["parameters"])["n_top_genes"] == 33


def test_a_recipe_is_not_repeated_on_other_data(path: Path, tmp_path: Path) -> None:
    first = tmp_path / "first.h5ad"
    run(path, first, n_top_genes=40, **FILTERS)
    moved = tmp_path / "moved.h5ad"
    moved.write_bytes(path.read_bytes())
    assert scio.pp.repeat_recipe(first, source=moved).highly_variable.sum() == 40
    other = save(make(seed=9), tmp_path / "other.h5ad")
    with pytest.raises(ValueError, match=r"the recipe of .*first.h5ad does not belong to other"):
        scio.pp.repeat_recipe(first, source=other)
    with pytest.raises(IOFormatError, match=r"counts.h5ad: uns\['scio'\]\['recipe'\]"):
        scio.pp.repeat_recipe(path)


def test_what_else_the_file_holds_is_kept_or_named(adata: anndata.AnnData, tmp_path: Path) -> None:
    rich = adata.copy()
    rich.uns["a/b"] = {"c": np.arange(3)}
    rich.obs["pct/x"] = np.arange(N_OBS) / 7
    rich.varm["loads"] = np.arange(2.0 * N_VARS).reshape(-1, 2)
    rich.obsm["graph"] = sp.csr_matrix(np.eye(N_OBS, 3))
    rich.obsm["frame"] = pd.DataFrame({"u": np.arange(N_OBS)}, index=rich.obs_names)
    rich.layers["other"] = rich.X.copy()
    rich.raw = rich.copy()
    source, out = tmp_path / "in.h5ad", tmp_path / "out.h5ad"
    with pytest.warns(ScioWarning, match="written as"):
        scio.write_h5ad(rich, source)
    with pytest.warns(ScioWarning, match="written as"):
        done = run(source, out, **FILTERS)
    assert sorted(done.left_out) == ["layers/other", "obsm/graph", "raw"]
    assert "left out     " in repr(done)
    found = scio.read_h5ad(out)
    kept = rich[done.cells, done.genes]
    assert np.array_equal(found.uns["a/b"]["c"], np.arange(3))
    assert np.array_equal(found.obs["pct/x"], kept.obs["pct/x"])
    assert np.array_equal(found.varm["loads"], kept.varm["loads"])
    assert np.array_equal(found.obsm["frame"]["u"], kept.obsm["frame"]["u"])
    assert found.raw is None


# --- several files


def test_several_files_are_one_matrix(tmp_path: Path) -> None:
    parts = [make(n, seed) for n, seed in ((900, 1), (BLOCK_ROWS + 50, 2), (300, 3))]
    for i, part in enumerate(parts):
        part.obs_names = [f"{i}-{name}" for name in part.obs_names]
    paths = [save(part, tmp_path / f"{i}.h5ad") for i, part in enumerate(parts)]
    whole = anndata.concat(parts, merge="same")
    given: dict[str, Any] = {"min_genes": 12, "min_cells": 300, "n_top_genes": 40}
    one = save(whole, tmp_path / "whole.h5ad")
    for flavor in ("seurat", "seurat_v3"):
        found = run(paths, tmp_path / "out", flavor=flavor, batch_key="batch", **given)
        expected = run(one, flavor=flavor, batch_key="batch", **given)
        assert np.array_equal(found.highly_variable, expected.highly_variable)
        assert np.array_equal(found.cells, expected.cells)
        exact = flavor == "seurat_v3"  # doubles are joined file by file
        pd.testing.assert_frame_equal(found.var, expected.var, check_exact=exact, rtol=1e-12)
        pd.testing.assert_frame_equal(
            found.obs.drop(columns="file"), expected.obs, check_exact=True
        )
    for i, part in enumerate(parts):
        written = anndata.read_h5ad(tmp_path / "out" / f"{i}.h5ad")
        kept = found.cells[found.obs["file"] == os.path.abspath(paths[i])]
        assert list(written.obs_names) == list(part.obs_names[kept])
        assert written.var["highly_variable"].sum() == 40
        totals = np.expm1(written.X.toarray().astype(float)).sum(1)
        np.testing.assert_allclose(totals, 1e4, rtol=1e-5)


def test_several_files_need_the_same_genes_and_other_names(path: Path, tmp_path: Path) -> None:
    other = make(300, 4)
    other.var_names = [*other.var_names[:5], "odd", *other.var_names[6:]]
    odd = save(other, tmp_path / "odd.h5ad")
    with pytest.raises(
        ValueError, match=r"odd.h5ad: X and counts.h5ad: X have other genes: gene 5 is"
    ):
        run([path, odd])
    with pytest.raises(ValueError, match=r"several inputs have the name 'counts.h5ad'"):
        run([path, path], tmp_path / "out")
    with pytest.raises(ValueError, match="path names no file"):
        run([])
    for thing in (other, [path, other]):
        with pytest.raises(TypeError, match="recipe reads files, not a AnnData"):
            run(thing)


# --- bad input


def refused(
    adata: anndata.AnnData, tmp_path: Path, error: type[Exception], match: str, **given: Any
) -> None:
    """The recipe fails with these words, and the old output stays."""
    source, out = tmp_path / "bad.h5ad", tmp_path / "out.h5ad"
    adata.write_h5ad(source)
    out.write_text("old")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ScioWarning)
        with pytest.raises(error, match=match):
            run(source, out, **given)
    assert out.read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.h5ad", "out.h5ad"]


@pytest.mark.parametrize("filters", [{}, {"min_cells": 1}, {"max_genes": 20, "min_cells": 1}])
@pytest.mark.parametrize(
    ("value", "words"),
    [
        (-2.0, r"a recipe needs counts, but bad.h5ad: X has -2 in cell 3, gene 'g1'"),
        (np.nan, r"bad.h5ad: X holds nan in cell 'c3' \(3\), gene 'g1'"),
        (np.inf, r"bad.h5ad: X holds inf in cell 'c3' \(3\), gene 'g1'"),
    ],
)
def test_values_that_are_no_counts_are_refused(
    tmp_path: Path, value: float, words: str, filters: dict[str, Any]
) -> None:
    adata = make(200, 5)
    dense = adata.X.toarray()
    dense[3, 1] = value
    adata.X = sp.csr_matrix(dense)
    refused(adata, tmp_path, ValueError, words, **filters)


@pytest.mark.parametrize("layer", [None, "deep"])
def test_normalised_and_logged_matrices_are_refused(tmp_path: Path, layer: str | None) -> None:
    adata = make(200, 5)
    adata.layers["deep"] = adata.X.copy()
    scio.pp.normalize_total(adata, target_sum=1e4, layer=layer)
    place = "X" if layer is None else "layers/deep"
    words = rf"bad.h5ad: {place} was normalised to 10000 .* no integers, the maximum is"
    refused(adata, tmp_path, ValueError, words, layer=layer)
    scio.pp.log1p(adata, layer=layer)
    words = (
        rf"a recipe needs counts, but bad.h5ad: {place} was logged .* other matrices .*layers/deep"
    )
    refused(adata, tmp_path, ValueError, words, layer=layer)


def test_logged_by_scanpy_is_refused_but_counts_beside_it_are_not(tmp_path: Path) -> None:
    import scanpy as sc

    adata = make(200, 5)
    adata.layers["counts"] = adata.X.copy()
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    refused(adata, tmp_path, ValueError, r"was logged \(uns\['log1p'\]\).*layers/counts")
    done = run(tmp_path / "bad.h5ad", layer="counts", n_top_genes=40)
    assert done.stats.is_exact


@pytest.mark.parametrize(
    ("error", "words", "given"),
    [
        (KeyNotFoundError, r"bad.h5ad: X: obs has no column 'bach'.*batch", {"batch_key": "bach"}),
        (KeyNotFoundError, r"bad.h5ad: no 'count' in layers.*counts", {"layer": "count"}),
        (KeyNotFoundError, r"var has no column 'mt'", {"qc_vars": "mt"}),
        (ValueError, r"n_top_genes is 0, expected 1 or more", {"n_top_genes": 0}),
        (ValueError, r"n_top_genes is -1", {"n_top_genes": -1}),
        (ValueError, r"flavor is 'surat'.*seurat", {"flavor": "surat"}),
        (ValueError, r"target_sum is 0", {"target_sum": 0}),
        (ValueError, r"min_genes is -3", {"min_genes": -3}),
        (ValueError, r"no cell is left by min_genes=100000; cells have", {"min_genes": 10**5}),
        (ValueError, r"no gene is left by min_cells=5000", {"min_cells": 5000}),
        (ValueError, r"percent_top has 999", {"percent_top": [999]}),
        (ValueError, r"keep_counts is 'a/b'", {"keep_counts": "a/b"}),
        (ValueError, r"compression is 'gzip' or None", {"compression": "lzf"}),
        (
            ValueError,
            r"max_memory is 1,000 bytes; bad.h5ad: X needs at least",
            {"max_memory": 1000},
        ),
    ],
)
def test_bad_arguments_name_what_is_wrong(
    tmp_path: Path, error: type[Exception], words: str, given: dict[str, Any]
) -> None:
    adata = make(200, 5)
    adata.layers["counts"] = adata.X.copy()
    refused(adata, tmp_path, error, words, **given)


def test_zeros_only_and_missing_labels_are_refused(tmp_path: Path) -> None:
    adata = make(200, 5)
    adata.obs["batch"] = adata.obs["batch"].where(np.arange(200) != 7)
    words = r"obs\['batch'\] is missing for 1 cells, the first is 'c7'"
    refused(adata, tmp_path, ValueError, words, batch_key="batch")
    adata.X = sp.csr_matrix(adata.shape, dtype="float32")
    refused(adata, tmp_path, ValueError, r"bad.h5ad: X: all 200 x 150 values are 0")
    refused(adata, tmp_path, ValueError, r"all 200 cells have a total of 0", target_sum=None)


def test_a_batch_that_loses_its_cells_is_no_batch(tmp_path: Path) -> None:
    adata = make(400, 5)
    poor = np.flatnonzero(np.asarray(adata.X.sum(1)).ravel() < 40)
    batch = adata.obs["batch"].astype(str).to_numpy().copy()
    batch[poor] = "poor"
    adata.obs["batch"] = batch
    source = save(adata, tmp_path / "in.h5ad")
    done = run(source, min_counts=40, n_top_genes=40, batch_key="batch")
    assert done.stats.batches == ["a", "b"]


def test_outputs_that_cannot_be(path: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.h5ad"
    out.write_text("old")
    with pytest.raises(TargetExistsError):
        run(path, out, overwrite=False)
    assert out.read_text() == "old"
    with pytest.raises(IOWriteError, match="no folder"):
        run(path, tmp_path / "nowhere" / "out.h5ad")
    with pytest.raises(ValueError, match="is a file to read"):
        run(path, path)


CHILD = """
import pathlib, sys, scio
out = pathlib.Path(sys.argv[2])
if sys.argv[3] == "old":
    out.write_text("old")
try:
    scio.pp.recipe(sys.argv[1], sys.argv[2], percent_top=None, n_top_genes=40)
except OSError as error:
    print(type(error).__name__, error.errno)
print({p.name: p.read_text() for p in out.parent.iterdir()})
"""


@pytest.mark.parametrize("how", ["read-only", "full", "full, old"])
def test_a_full_or_closed_disk_is_told(path: Path, tmp_path: Path, how: str) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    command = on_tmpfs(disk, "256k", is_read_only=how == "read-only")
    done = subprocess.run(
        [*command, sys.executable, "-c", CHILD, path, disk / "out.h5ad", how[-3:]],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=100,
        check=False,
    )
    code = 30 if how == "read-only" else 28
    left = "{'out.h5ad': 'old'}" if how.endswith("old") else "{}"
    assert done.stdout.splitlines() == [f"IOWriteError {code}", left], done.stderr


MEMORY = """
import pathlib, sys, scio
def status(key):  # of this program alone; ru_maxrss begins with the peak of the one that forked it
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(key))
scio.pp.recipe(scio.datasets.pbmc3k(), n_top_genes=40)  # imports, pools
pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak is what it is now
before = status("VmRSS")
scio.pp.recipe(sys.argv[1], sys.argv[2], min_genes=1, min_cells=2, n_top_genes=40, max_memory=sys.argv[3])
print(status("VmHWM") - before)
"""


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """105 MB of values are decoded, cut, normalised and written below a cap of 100 MB."""
    n_obs, n_vars, per_row = 8 * BLOCK_ROWS, 2000, 400
    rng = np.random.default_rng(0)
    block = np.sort(
        rng.integers(0, n_vars // per_row, (512, per_row))
        + np.arange(per_row) * (n_vars // per_row)
    )
    indices = np.tile(block, (n_obs // 512, 1)).ravel().astype(np.int32)
    data = np.tile(rng.integers(1, 9, 512 * per_row), n_obs // 512).astype(np.float32)
    matrix = sp.csr_matrix((data, indices, np.arange(n_obs + 1) * per_row), shape=(n_obs, n_vars))
    assert matrix.data.nbytes + matrix.indices.nbytes > 99 << 20
    path = tmp_path / "large.h5ad"
    scio.write_h5ad(anndata.AnnData(matrix), path)
    grown = []
    for cap in ("100MB", "1GB"):
        done = subprocess.run(
            [sys.executable, "-c", MEMORY, path, tmp_path / "out.h5ad", cap],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            timeout=100,
            check=True,
        )
        grown.append(int(done.stdout))
    assert grown[0] < 100e6, grown
    assert grown[1] > 150e6, grown  # one window: the measure sees what is held
