"""PreprocessingPipeline.fit: what it learns is what scio.pp computes, and the loader applies it."""

from __future__ import annotations

import json
import pickle
from typing import Any

import anndata
import numpy as np
import pytest
import scipy.sparse as sp

import scio
from scio.data import (
    AnnDataStore,
    CellDataLoader,
    CellDataset,
    GeneVocab,
    PreprocessingPipeline,
    collate_cells,
)
from scio.errors import IOFormatError, KeyNotFoundError, NotFittedError, ScioWarning
from tests.data.conftest import rewrite
from tests.data.helpers import ids

FLAVORS = ("seurat", "cell_ranger", "seurat_v3", "seurat_v3_paper", "pearson_residuals", "poisson")


def bits(array: Any) -> bytes:
    array = np.ascontiguousarray(array)
    return f"{array.dtype}{array.shape}".encode() + array.tobytes()


def in_order(pipeline: PreprocessingPipeline, source: Any, form: str, **options: Any) -> Any:
    """All cells by the loader as one dense float32 matrix, columns as the vocabulary has them."""
    vocab = options.pop("vocab", None)
    dataset = CellDataset(source, vocab, pipeline, **options)
    loader = CellDataLoader(
        dataset, 64, 2, shuffle=False, drop_last=False, form=form, to="numpy", pin_memory=False
    )
    width = dataset.gene_vocab.n_ids - 4
    parts = []
    for batch in loader:
        if form == "dense":
            parts.append(batch["expression"])
        elif form == "csr":
            arrays = (batch["data"], batch["indices"], batch["indptr"])
            parts.append(sp.csr_matrix(arrays, shape=(len(batch["index"]), width)).toarray())
        else:
            dense = np.zeros((len(batch["index"]), width), dtype=np.float32)
            for row, n in enumerate(batch["n_genes"]):
                dense[row, batch["gene_indices"][row, :n] - 4] = batch["expression"][row, :n]
            parts.append(dense)
    return np.concatenate(parts)


def processed(adata: anndata.AnnData, target: float | None) -> np.ndarray:
    """What scio.pp makes of the matrix."""
    matrix = adata.X.copy()
    scaled = scio.pp.normalize_total(matrix, target_sum=target)
    return scio.pp.log1p(scaled).toarray()


# --- genes


@pytest.mark.parametrize("batch_key", [None, "batch"])
@pytest.mark.parametrize("flavor", FLAVORS)
def test_selected_genes_are_those_of_scio_pp(flavor, batch_key, full_adata, full_h5ad):
    pipeline = PreprocessingPipeline(hvg_selection=9, hvg_flavor=flavor, batch_key=batch_key)
    assert pipeline.fit(full_h5ad) is pipeline
    options = {"target_sum": 1e4} if flavor in ("seurat", "cell_ranger") else {}
    table = scio.pp.highly_variable_genes(
        full_adata, flavor=flavor, n_top_genes=9, batch_key=batch_key, inplace=False, **options
    )
    chosen = table.index[table["highly_variable"]]
    assert sorted(pipeline.selected_genes) == sorted(chosen)
    assert len(set(pipeline.selected_genes)) == 9


@pytest.mark.parametrize("flavor", FLAVORS)
def test_genes_are_named_the_best_first(flavor, full_adata):
    """The first k of a larger selection are the selection of k, where k decides nothing else."""
    few = PreprocessingPipeline(hvg_selection=4, hvg_flavor=flavor).fit(full_adata)
    many = PreprocessingPipeline(hvg_selection=11, hvg_flavor=flavor).fit(full_adata)
    assert many.selected_genes[:4] == few.selected_genes


@pytest.mark.parametrize("flavor", FLAVORS)
def test_with_batches_the_order_is_that_by_which_the_flavour_chooses(flavor, full_adata):
    pipeline = PreprocessingPipeline(hvg_selection=9, hvg_flavor=flavor, batch_key="batch")
    pipeline.fit(full_adata)
    options = {"target_sum": 1e4} if flavor in ("seurat", "cell_ranger") else {}
    table = scio.pp.highly_variable_genes(
        full_adata, flavor=flavor, n_top_genes=9, batch_key="batch", inplace=False, **options
    )
    table["index"] = np.arange(len(table))
    keys = {
        "seurat": ["-highly_variable_nbatches", "-dispersions_norm"],
        "cell_ranger": ["-highly_variable_nbatches", "-dispersions_norm"],
        "seurat_v3": ["highly_variable_rank", "-highly_variable_nbatches"],
        "seurat_v3_paper": ["-highly_variable_nbatches", "highly_variable_rank"],
        "pearson_residuals": ["-highly_variable_nbatches", "highly_variable_rank"],
        "poisson": ["-prob_zero_enriched_nbatches", "-prob_zero_enrichment_rank"],
    }[flavor]
    keys = [*keys, "index"]
    ordered = table[table["highly_variable"]].sort_values(
        [key.lstrip("-") for key in keys], ascending=[key[0] != "-" for key in keys]
    )
    assert pipeline.selected_genes == list(ordered.index)


def test_the_source_may_be_anything_and_gives_the_same(full_adata, full_h5ad, tmp_path):
    def fitted(source: Any) -> PreprocessingPipeline:
        return PreprocessingPipeline(target_sum=None, hvg_selection=9).fit(source)

    expected = fitted(full_adata)
    halves = [
        rewrite(full_adata[part].copy(), tmp_path / f"{i}.h5ad")
        for i, part in enumerate((slice(0, 90), slice(90, 200)))
    ]
    whole = CellDataset(full_h5ad, None)
    sources = [
        full_h5ad,
        scio.open(full_h5ad),
        AnnDataStore(full_adata),
        whole,
        [full_h5ad],
        halves,
    ]
    for source in sources:
        assert fitted(source) == expected
    dense = full_adata.copy()
    dense.X = dense.X.toarray().astype(np.int32)
    assert fitted(dense) == expected
    by_columns = full_adata.copy()
    by_columns.X = sp.csc_matrix(by_columns.X)
    columns = rewrite(by_columns, tmp_path / "csc.h5ad")
    stored_dense = rewrite(dense, tmp_path / "dense.h5ad")
    for source in (columns, [columns], stored_dense, [stored_dense], [dense], [by_columns]):
        assert fitted(source) == expected
    csr = fitted(scio.CSR.from_scipy(full_adata.X))
    assert csr.selected_genes == [name.removeprefix("gene") for name in expected.selected_genes]


def test_of_a_dataset_the_chosen_cells_count(full_adata, full_h5ad):
    cells = np.arange(200) % 4 != 1
    pipeline = PreprocessingPipeline(target_sum=None, hvg_selection=9)
    pipeline.fit(CellDataset(full_h5ad, None, indices=cells))
    assert pipeline == PreprocessingPipeline(target_sum=None, hvg_selection=9).fit(
        full_adata[cells].copy()
    )
    assert pipeline.fit_info["n_cells"] == 150


def test_genes_are_chosen_from_the_vocabulary_and_totals_are_of_all(full_adata, full_h5ad):
    vocab = GeneVocab.from_genes([f"gene{i}" for i in range(0, 60, 2)])
    pipeline = PreprocessingPipeline(target_sum=None, hvg_selection=9)
    pipeline.fit(CellDataset(full_h5ad, vocab))
    part = full_adata[:, ::2].copy()
    assert (
        pipeline.selected_genes == PreprocessingPipeline(hvg_selection=9).fit(part).selected_genes
    )
    totals = np.asarray(full_adata.X.sum(axis=1)).ravel()
    assert pipeline.total_target == np.median(totals)


def test_files_of_other_genes_are_one_matrix_over_all(full_adata, tmp_path):
    first = full_adata[:120, :50].copy()
    second = full_adata[120:, ::-1][:, :45].copy()
    pipeline = PreprocessingPipeline(target_sum=None, hvg_selection=9)
    pipeline.fit([rewrite(first, tmp_path / "1.h5ad"), second])
    joined = anndata.concat([first, second], join="outer", fill_value=0)
    joined.X = sp.csr_matrix(joined.X)
    assert pipeline == PreprocessingPipeline(target_sum=None, hvg_selection=9).fit(joined)


# --- inside the loader


@pytest.mark.parametrize("form", ["csr", "dense", "tokens"])
@pytest.mark.parametrize("target", [1e4, None])
def test_the_loader_gives_the_bits_of_scio_pp(form, target, full_adata, full_h5ad):
    pipeline = PreprocessingPipeline(target_sum=target, hvg_selection=9).fit(full_h5ad)
    mask = full_adata.var_names.isin(pipeline.selected_genes)
    expected = processed(full_adata, target)[:, mask]
    assert bits(in_order(pipeline, full_h5ad, form)) == bits(expected)
    assert bits(in_order(pipeline, full_adata, form)) == bits(expected)


@pytest.mark.parametrize("form", ["csr", "dense", "tokens"])
def test_with_a_vocabulary_the_other_genes_are_left_out(form, full_adata, full_h5ad):
    vocab = GeneVocab.from_genes(reversed([*full_adata.var_names, "elsewhere"]))
    pipeline = PreprocessingPipeline(hvg_selection=9).fit(full_h5ad)
    expected = np.zeros((200, 61), dtype=np.float32)
    expected[:, 1:] = (
        processed(full_adata, 1e4)
        * full_adata.var_names.isin(pipeline.selected_genes).astype(np.float32)
    )[:, ::-1]
    assert bits(in_order(pipeline, full_h5ad, form, vocab=vocab)) == bits(expected)


@pytest.mark.parametrize("form", ["csr", "dense", "tokens"])
@pytest.mark.parametrize("log", [True, False])
def test_size_factors_are_applied_to_the_bit(form, log, full_adata, full_h5ad):
    pipeline = PreprocessingPipeline("scran", log1p=log, clusters="cluster").fit(full_h5ad)
    factors = scio.pp.pooled_size_factors(full_adata, clusters="cluster", inplace=False)
    assert bits(pipeline.size_factors) == bits(factors)
    scaled = (full_adata.X.toarray().astype(np.float64) * (1 / factors)[:, None]).astype(np.float32)
    expected = scio.pp.log1p(scaled) if log else scaled
    assert bits(in_order(pipeline, full_h5ad, form)) == bits(expected)
    wide = full_adata.copy()
    wide.X = wide.X.astype(np.float64)[:, :]
    assert bits(in_order(pipeline, wide, form)) == bits(expected)


def test_size_factors_follow_the_cells_in_any_order_number_and_file(full_adata, tmp_path):
    pipeline = PreprocessingPipeline("scran").fit(full_adata)
    expected = in_order(pipeline, full_adata, "dense")
    order = np.random.default_rng(0).permutation(200)[:130]
    assert bits(in_order(pipeline, full_adata[order].copy(), "dense")) == bits(expected[order])
    files = [
        rewrite(full_adata[part].copy(), tmp_path / f"{i}.h5ad")
        for i, part in enumerate((slice(0, 90), slice(90, 200)))
    ]
    assert bits(in_order(pipeline, files, "csr")) == bits(expected)
    of_files = PreprocessingPipeline("scran").fit(files)
    assert bits(of_files.size_factors) == bits(pipeline.size_factors)
    assert bits(in_order(of_files, files[::-1], "csr")) == bits(
        np.concatenate([expected[90:], expected[:90]])
    )


def test_shuffled_batches_and_items_of_torch_have_the_same_values(full_adata, full_h5ad):
    pipeline = PreprocessingPipeline("scran", hvg_selection=9).fit(full_h5ad)
    expected = in_order(pipeline, full_adata, "dense")
    dataset = CellDataset(full_h5ad, None, pipeline)
    loader = CellDataLoader(dataset, 32, 2, form="dense", to="numpy", drop_last=False, seed=4)
    for batch in loader:
        assert bits(batch["expression"]) == bits(expected[batch["index"]])
    assert sorted(ids(loader)) == list(range(200))
    for copy in (dataset, pickle.loads(pickle.dumps(dataset))):
        batch = collate_cells([copy[i] for i in (7, -1, 120)])
        for row, cell in enumerate((7, 199, 120)):
            n = int(batch["n_genes"][row])
            got = np.zeros(9, dtype=np.float32)
            got[np.asarray(batch["gene_indices"][row, :n]) - 4] = batch["expression"][row, :n]
            assert bits(got) == bits(expected[cell])


def test_layers_come_as_stored_whatever_the_factor(full_adata):
    adata = full_adata.copy()
    adata.layers["counts"] = adata.X.copy()
    pipeline = PreprocessingPipeline("scran").fit(adata)
    dataset = CellDataset(adata, None, pipeline, layers=["counts"])
    loader = CellDataLoader(
        dataset, 50, 0, shuffle=False, form="dense", to="numpy", pin_memory=False
    )
    got = np.concatenate([batch["layers"]["counts"] for batch in loader])
    assert bits(got) == bits(adata.X.toarray())


def test_one_cell_and_one_block_by_call_have_the_values_of_the_loader(full_adata):
    names = [str(name) for name in full_adata.var_names]
    counts = full_adata.X.toarray()
    for dtype in (np.float32, np.int16):
        pipeline = PreprocessingPipeline(target_sum=None, hvg_selection=9).fit(full_adata)
        got, kept = pipeline(counts.astype(dtype), names)
        assert kept == [name for name in names if name in set(pipeline.selected_genes)]
        assert bits(got) == bits(in_order(pipeline, full_adata, "dense"))
        assert bits(pipeline(counts[5].astype(dtype), names)[0]) == bits(got[5])
    scran = PreprocessingPipeline("scran").fit(full_adata)
    got, _ = scran(counts, names, size_factor=scran.size_factors)
    assert bits(got) == bits(in_order(scran, full_adata, "dense"))
    with pytest.raises(ValueError, match="needs size_factor="):
        scran(counts, names)
    with pytest.raises(ValueError, match="numbers above 0"):
        scran(counts[0], names, size_factor=0.0)
    with pytest.raises(ValueError, match="totals or size factors"):
        scran(counts, names, size_factor=np.ones(3))


# --- data it was not fitted for


def test_selected_genes_that_are_missing_are_named(full_adata):
    pipeline = PreprocessingPipeline(hvg_selection=9).fit(full_adata)
    lost = pipeline.selected_genes[2]
    rest = full_adata[:, full_adata.var_names != lost].copy()
    with pytest.warns(ScioWarning, match=f"1 of the 9 genes .* of AnnData.*: {lost}$"):
        dataset = CellDataset(rest, None, pipeline)
    assert len(dataset.gene_vocab.genes) == 8
    other = full_adata.copy()
    other.var_names = [f"ENSG{i}" for i in range(60)]
    with pytest.raises(ValueError, match=r"fitted on other genes \(here are ENSG0"):
        CellDataset(other, None, pipeline)


def test_size_factors_of_other_cells_are_refused(full_adata):
    pipeline = PreprocessingPipeline("scran").fit(full_adata)
    other = full_adata[:20].copy()
    other.obs_names = [*other.obs_names[:17], "x", "y", "z"]
    with pytest.raises(
        ValueError, match=r"3 of its 20 cells: found 'x', 'y', 'z', expected cells of .*'cell0'"
    ):
        CellDataset(other, None, pipeline)
    assert len(CellDataset(other, None, pipeline, indices=np.arange(17))) == 17
    dataset = CellDataset(other, None, pipeline, indices=np.arange(5))
    assert len(dataset.subset(np.arange(10))) == 10
    with pytest.raises(ValueError, match="found 'x'"):
        dataset.subset(np.array([17]))
    counts = full_adata.copy()
    counts.X = counts.X * 2
    with pytest.raises(ValueError, match="but other counts"):
        CellDataset(counts, None, pipeline)


def test_cells_whose_names_do_not_tell_them_apart_are_refused(full_adata):
    twins = full_adata.copy()
    twins.obs_names = ["cell0", *twins.obs_names[:-1]]
    with pytest.raises(ValueError, match="'cell0' is there 2 times"):
        PreprocessingPipeline("scran").fit(twins)
    same = [full_adata[:60].copy(), full_adata[60:120].copy(), full_adata[120:180].copy()]
    for part in same:
        part.obs_names = [f"c{i}" for i in range(60)]
    pipeline = PreprocessingPipeline("scran").fit(same)
    assert len(in_order(pipeline, same, "dense")) == 180  # by their place in the list
    assert len(in_order(pipeline, same[:2], "dense")) == 120
    with pytest.raises(ValueError, match="but other counts"):
        CellDataset(same[1], None, pipeline)


def test_genes_of_one_name_are_known_by_the_first(full_adata):
    twins = full_adata.copy()
    best = PreprocessingPipeline(hvg_selection=9).fit(full_adata).selected_genes
    column = full_adata.var_names.get_loc(best[0])
    names = list(twins.var_names)
    names[column] = names[0] if column else names[1]
    twins.var_names = names
    with pytest.warns(ScioWarning, match="have the name of an earlier column"):
        pipeline = PreprocessingPipeline(hvg_selection=9).fit(twins)
    assert set(pipeline.selected_genes) <= set(best) | {names[column]}
    assert len(pipeline.selected_genes) == 8


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"hvg_selection": 5, "batch_key": "batches"}, KeyNotFoundError, "batch"),
        ({"normalize": "scran", "clusters": "clusters"}, KeyNotFoundError, "cluster"),
    ],
)
def test_unknown_columns_are_told_with_near_names(options, error, text, full_adata):
    with pytest.raises(error, match=f"did you mean '{text}'"):
        PreprocessingPipeline(**options).fit(full_adata)


def test_bad_counts_are_refused_and_leave_the_pipeline_unfitted(full_adata):
    adata = full_adata.copy()
    adata.X = adata.X.copy()
    adata.X.data[3] = -1
    pipeline = PreprocessingPipeline(hvg_selection=5)
    with pytest.raises(ValueError, match="needs counts"):
        pipeline.fit(adata)
    assert not pipeline.is_fitted
    empty = full_adata.copy()
    empty.X = sp.csr_matrix(empty.shape, dtype=np.float32)
    with pytest.raises(ValueError, match="total of 0"):
        PreprocessingPipeline(target_sum=None).fit(empty)
    with pytest.raises(ValueError, match="200 of 200 cells have no counts"):
        PreprocessingPipeline("scran").fit(empty)
    with pytest.raises(NotFittedError, match=r"call fit\(\)"):
        CellDataset(full_adata, None, pipeline)


def test_fewer_genes_than_asked_for_are_all_taken_with_a_warning(full_adata):
    with pytest.warns(ScioWarning, match="60"):
        pipeline = PreprocessingPipeline(hvg_selection=500).fit(full_adata)
    assert len(pipeline.selected_genes) == 60


# --- saved and loaded


@pytest.mark.parametrize(
    "options",
    [
        {"hvg_selection": 9, "hvg_flavor": "poisson", "batch_key": "batch"},
        {"normalize": "scran", "clusters": "cluster", "hvg_selection": 3},
        {"target_sum": None},
    ],
)
def test_a_saved_pipeline_is_the_same_to_the_bit(options, full_adata, tmp_path):
    pipeline = PreprocessingPipeline(**options).fit(full_adata)
    pipeline.save(tmp_path / "p.json")
    again = PreprocessingPipeline.load(tmp_path / "p.json")
    assert again == pipeline
    assert again.content_hash == pipeline.content_hash
    assert again.to_dict() == pipeline.to_dict()
    assert again.fit_info == pipeline.fit_info
    assert again.fit_info["n_genes"] == 60
    assert bits(in_order(again, full_adata, "csr")) == bits(in_order(pipeline, full_adata, "csr"))
    assert again != PreprocessingPipeline(**options)


def test_a_saved_pipeline_that_lacks_what_it_needs_is_refused(full_adata, tmp_path):
    content = PreprocessingPipeline(hvg_selection=3).fit(full_adata).to_dict()
    content["fitted"]["selected_genes"] = None
    (tmp_path / "p.json").write_text(json.dumps(content))
    with pytest.raises(IOFormatError, match="fitted lacks selected_genes"):
        PreprocessingPipeline.load(tmp_path / "p.json")
    content = PreprocessingPipeline("scran").fit(full_adata).to_dict()
    content["fitted"]["size_factors"][0]["values"][7] = 0.0
    (tmp_path / "p.json").write_text(json.dumps(content))
    with pytest.raises(IOFormatError, match="one number above 0"):
        PreprocessingPipeline.load(tmp_path / "p.json")


def test_a_state_belongs_to_what_was_learned(full_adata):
    def loader(pipeline: PreprocessingPipeline) -> CellDataLoader:
        return CellDataLoader(CellDataset(full_adata, None, pipeline), 10, 0, to="numpy")

    vocab_free = {"normalize": "scran"}
    first = PreprocessingPipeline(**vocab_free).fit(full_adata)
    state = json.loads(json.dumps(loader(first).state_dict()))
    assert len(json.dumps(state)) < 4000  # a hash of the factors, not the factors
    loader(PreprocessingPipeline(**vocab_free).fit(full_adata)).load_state_dict(state)
    second = PreprocessingPipeline(**vocab_free, clusters="cluster").fit(full_adata)
    second.clusters = None  # the arguments are the same, what was learned is not
    with pytest.raises(ValueError, match="preprocessing was"):
        loader(second).load_state_dict(state)
