"""AnnDataStore and CellDataset: values, alignment, selection, errors."""

from __future__ import annotations

import pickle

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

import scio
from scio.data import AnnDataStore, CellDataset, GeneVocab, PreprocessingPipeline
from scio.errors import KeyNotFoundError, ScioWarning
from tests.data.conftest import make_adata, rewrite


def item_of_reference(row: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values that are not zero and their ids, by ascending id."""
    keep = (row != 0) & (ids >= 0)
    order = np.argsort(ids[keep], kind="stable")
    return row[keep][order], ids[keep][order]


def test_is_a_torch_dataset(tiny_h5ad):
    assert isinstance(CellDataset(tiny_h5ad, None), torch.utils.data.Dataset)


def test_items_hold_raw_values_and_ids(tiny_h5ad, tiny_adata):
    cells = CellDataset(tiny_h5ad, None)
    assert len(cells) == tiny_adata.n_obs
    dense = tiny_adata.X.toarray()
    ids = np.arange(tiny_adata.n_vars) + 4
    for i in (0, 1, 3, 100, -1):
        item = cells[i]
        values, genes = item_of_reference(dense[i], ids)
        np.testing.assert_array_equal(item["expression"].numpy(), values)
        np.testing.assert_array_equal(item["gene_indices"].numpy(), genes)
        assert item["expression"].dtype == torch.float32
        assert item["gene_indices"].dtype == torch.int64
        assert item["n_genes"] == len(values)
        assert item["metadata"] == {
            "cell_type": tiny_adata.obs["cell_type"].iloc[i],
            "batch": tiny_adata.obs["batch"].iloc[i],
        }


def test_empty_cell_is_an_item_of_length_0(tiny_h5ad):
    item = CellDataset(tiny_h5ad, None, PreprocessingPipeline())[3]
    assert item["n_genes"] == 0
    assert item["expression"].shape == (0,)


def test_index_out_of_range(tiny_h5ad):
    cells = CellDataset(tiny_h5ad, None)
    for i in (len(cells), -len(cells) - 1):
        with pytest.raises(IndexError, match="211 cells"):
            cells[i]


@pytest.mark.parametrize(
    "dtype",
    [
        "int8",
        "uint8",
        "int16",
        "uint16",
        "int32",
        "uint32",
        "int64",
        "uint64",
        "float32",
        "float64",
        "bool",
    ],
)
@pytest.mark.parametrize("kind", ["csr", "csc", "dense"])
def test_every_dtype_and_format_gives_the_same_values(dtype, kind, tiny_adata, tmp_path):
    dense = tiny_adata.X.toarray().astype(dtype)
    x = {"csr": sp.csr_matrix, "csc": sp.csc_matrix, "dense": np.asarray}[kind](dense)
    adata = anndata.AnnData(X=x, obs=tiny_adata.obs, var=tiny_adata.var)
    path = rewrite(adata, tmp_path / "x.h5ad")
    expected, names = PreprocessingPipeline()(dense.astype(np.float32), list(tiny_adata.var_names))
    assert names == list(tiny_adata.var_names)
    for source in (path, adata):
        cells = CellDataset(source, None, PreprocessingPipeline())
        items = cells.__getitems__(list(range(len(cells))))
        got = np.zeros(dense.shape, dtype=np.float32)
        for row, item in enumerate(items):
            got[row, item["gene_indices"].numpy() - 4] = item["expression"].numpy()
        np.testing.assert_array_max_ulp(got, expected.astype(np.float32), 1)


def test_unsorted_and_duplicate_indices_are_summed(tmp_path):
    data = np.float32([1, 2, 3, 4, 5])
    indices = np.int32([3, 1, 3, 0, 0])
    indptr = np.int64([0, 3, 3, 5])
    x = sp.csr_matrix((data, indices, indptr), shape=(3, 4))
    adata = anndata.AnnData(X=x)
    path = tmp_path / "x.h5ad"
    adata.write_h5ad(path)
    cells = CellDataset(path, None)
    assert cells[0]["expression"].tolist() == [2, 4]
    assert cells[0]["gene_indices"].tolist() == [5, 7]
    assert cells[1]["n_genes"] == 0
    assert cells[2]["expression"].tolist() == [9]


def test_negative_values_and_nan_are_kept_and_stored_zeros_are_not():
    x = sp.csr_matrix((np.float32([-1, 0, np.nan]), np.int32([0, 1, 2]), [0, 3]), shape=(1, 3))
    item = CellDataset(anndata.AnnData(X=x), None)[0]
    np.testing.assert_array_equal(item["expression"].numpy(), np.float32([-1, np.nan]))
    assert item["gene_indices"].tolist() == [4, 6]


def test_library_size_is_taken_over_all_genes_of_the_source():
    adata = anndata.AnnData(X=np.float32([[10, 0, 30, 60]]), var=pd.DataFrame(index=list("abcd")))
    item = CellDataset(adata, GeneVocab.from_genes(["a", "c"]), PreprocessingPipeline())[0]
    np.testing.assert_array_equal(item["expression"].numpy().round(2), np.float32([6.91, 8.01]))


@pytest.fixture
def two_files(tmp_path):
    a = make_adata(60, 30, seed=1)
    b = make_adata(50, 30, seed=2)
    b.var_names = [f"gene{i + 10}" for i in range(30)][::-1]
    b.obs = b.obs.drop(columns="is_control")
    return [rewrite(a, tmp_path / "a.h5ad"), rewrite(b, tmp_path / "b.h5ad", compression=None)], (
        a,
        b,
    )


def test_several_files_with_other_genes_share_one_vocabulary(two_files):
    paths, adatas = two_files
    vocab = GeneVocab.from_genes([f"gene{i}" for i in range(5, 38)])
    cells = CellDataset(paths, vocab)
    assert len(cells) == 110
    for i in range(len(cells)):
        adata = adatas[0] if i < 60 else adatas[1]
        row = adata.X[i if i < 60 else i - 60].toarray().ravel()
        ids = np.array([vocab[g] if g in vocab.genes else -1 for g in adata.var_names])
        values, genes = item_of_reference(row, ids)
        np.testing.assert_array_equal(cells[i]["expression"].numpy(), values)
        np.testing.assert_array_equal(cells[i]["gene_indices"].numpy(), genes)


def test_measured_tells_zero_from_unmeasured(two_files):
    store = AnnDataStore(two_files[0], GeneVocab.from_genes(["gene0", "gene15", "gene39"]))
    assert store.measured(0).tolist() == [True, True, False]
    assert store.measured(1).tolist() == [False, True, True]


def test_a_key_that_only_some_sources_have_is_none_elsewhere(two_files):
    with pytest.warns(ScioWarning, match="1 of 2 sources"):
        cells = CellDataset(two_files[0], None, obs_keys=["is_control", "depth"])
    assert cells[0]["metadata"] == {"is_control": True, "depth": 0.0}
    assert cells[60]["metadata"] == {"is_control": None, "depth": 0.0}


def test_obs_keys(tiny_h5ad):
    assert CellDataset(tiny_h5ad, None, obs_keys=[])[0]["metadata"] == {}
    everything = CellDataset(tiny_h5ad, None, obs_keys="all")[0]["metadata"]
    assert list(everything) == ["cell_type", "batch", "depth", "is_control"]
    assert everything["depth"] == 0.0
    assert everything["is_control"] is True
    with pytest.raises(KeyNotFoundError, match="'cell_type'"):
        CellDataset(tiny_h5ad, None, obs_keys=["celltype"])


@pytest.mark.parametrize("selection", ["most_expressed", "first", "random_expressed"])
def test_max_genes_selection(selection, tiny_h5ad, tiny_adata):
    cells = CellDataset(tiny_h5ad, None, max_genes=4, selection=selection, seed=7)
    dense = tiny_adata.X.toarray()
    seen = set()
    for i, item in enumerate(cells.__getitems__(list(range(100)))):
        values, genes = item_of_reference(dense[i], np.arange(40) + 4)
        k = min(4, len(values))
        assert item["n_genes"] == k
        picked = item["gene_indices"].numpy()
        assert (np.diff(picked) > 0).all()
        if selection == "first":
            np.testing.assert_array_equal(picked, genes[:k])
        elif selection == "most_expressed":
            order = np.lexsort((genes, -values))[:k]
            np.testing.assert_array_equal(picked, np.sort(genes[order]))
        else:
            assert set(picked) <= set(genes)
            seen.add(tuple(picked))
        np.testing.assert_array_equal(item["expression"].numpy(), dense[i, picked - 4])
    if selection == "random_expressed":
        again = CellDataset(tiny_h5ad, None, max_genes=4, selection=selection, seed=7)
        assert again[5]["gene_indices"].tolist() == cells[5]["gene_indices"].tolist()
        cells.set_epoch(1)
        changed = sum(
            cells[i]["gene_indices"].tolist() != again[i]["gene_indices"].tolist()
            for i in range(50)
        )
        assert changed > 10


def test_indices_masks_and_queries_choose_cells(tiny_h5ad, tiny_adata):
    mask = np.arange(211) % 7 == 0
    assert (
        CellDataset(tiny_h5ad, None, indices=mask).cells.tolist() == np.flatnonzero(mask).tolist()
    )
    assert CellDataset(tiny_h5ad, None, indices=[5, -1, 5]).cells.tolist() == [5, 210]
    wanted = np.flatnonzero(
        (tiny_adata.obs["cell_type"] == "type1") & (tiny_adata.obs["batch"] != "b0")
    )
    by_mapping = CellDataset(
        tiny_h5ad, None, obs_query={"cell_type": "type1", "batch": ["b1", "b2"]}
    )
    by_text = CellDataset(tiny_h5ad, None, obs_query="cell_type == 'type1' and batch != 'b0'")
    assert by_mapping.cells.tolist() == by_text.cells.tolist() == wanted.tolist()
    assert by_mapping[0]["index"] == wanted[0]
    with pytest.raises(KeyError, match="type1"):
        CellDataset(tiny_h5ad, None, obs_query={"cell_type": "typ1"})
    with pytest.raises(IndexError, match="211"):
        CellDataset(tiny_h5ad, None, indices=[211])


def test_split_covers_all_cells_once_and_keeps_groups(tiny_h5ad, tiny_adata):
    cells = CellDataset(tiny_h5ad, None)
    parts = cells.split({"train": 0.7, "test": 0.3}, seed=1)
    union = np.concatenate([p.cells for p in parts.values()])
    assert sorted(union.tolist()) == list(range(211))
    assert abs(len(parts["train"]) / 211 - 0.7) < 0.02
    again = cells.split({"train": 0.7, "test": 0.3}, seed=1)
    assert again["train"].cells.tolist() == parts["train"].cells.tolist()
    grouped = cells.split({"train": 0.5, "test": 0.5}, seed=3, by="cell_type")
    labels = [set(tiny_adata.obs["cell_type"].iloc[p.cells]) for p in grouped.values()]
    assert not labels[0] & labels[1]
    with pytest.raises(ValueError, match="sum to at most 1"):
        cells.split({"a": 0.9, "b": 0.2}, seed=0)


def test_layers_and_raw(tmp_path):
    adata = make_adata(30, 10)
    adata.layers["double"] = adata.X * 2
    adata.raw = make_adata(30, 20)
    path = tmp_path / "x.h5ad"
    adata.write_h5ad(path)
    for source in (path, adata):
        double = CellDataset(source, None, matrix="layers/double")[0]
        single = CellDataset(source, None)[0]
        assert (double["expression"] == single["expression"] * 2).all()
        assert len(CellDataset(source, None, matrix="raw/X").gene_vocab.genes) == 20
        with pytest.raises(KeyNotFoundError, match="double"):
            CellDataset(source, None, matrix="layers/doubel")
        with pytest.raises(ValueError, match="layers/<key>"):
            CellDataset(source, None, matrix="counts")


def test_no_shared_gene_shows_both_sides(tiny_h5ad):
    with pytest.raises(ValueError, match=r"gene0, gene1.*ENSG1") as caught:
        CellDataset(tiny_h5ad, GeneVocab.from_genes(["ENSG1", "ENSG2"]))
    assert "shares no gene" in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"adata": []}, ValueError, "empty"),
        ({"adata": 5}, TypeError, "AnnData"),
        ({"max_genes": 0}, ValueError, "max_genes"),
        ({"selection": "best"}, ValueError, "most_expressed"),
        ({"indices": [0], "obs_query": {"batch": "b0"}}, ValueError, "not both"),
        ({"adata": "no such file.h5ad"}, FileNotFoundError, "no such file"),
    ],
)
def test_wrong_arguments(tiny_h5ad, arguments, error, text):
    with pytest.raises(error, match=text):
        CellDataset(**({"adata": tiny_h5ad, "gene_vocab": None} | arguments))


def test_read_rows_in_any_order_with_repeats(two_files):
    paths, adatas = two_files
    store = AnnDataStore(paths)
    rows = np.array([100, 3, 3, 59, 60, 0])
    got = store.read_rows(rows)
    stacked = np.vstack([a.X.toarray() for a in adatas])
    np.testing.assert_array_equal(got.toarray(), stacked[rows])
    aligned = store.read_rows(rows, aligned=True).toarray()
    for out, row in zip(aligned, rows, strict=True):
        adata = adatas[0] if row < 60 else adatas[1]
        expected = (
            pd.Series(stacked[row], index=adata.var_names).reindex(store.gene_vocab.genes).fillna(0)
        )
        np.testing.assert_array_equal(out, expected.to_numpy(dtype=np.float32))


def test_get_cell(tiny_h5ad, tiny_adata):
    expression, genes, metadata = AnnDataStore(tiny_h5ad).get_cell(10)
    values, ids = item_of_reference(tiny_adata.X[10].toarray().ravel(), np.arange(40) + 4)
    np.testing.assert_array_equal(expression, values)
    np.testing.assert_array_equal(genes, ids)
    assert metadata["cell_type"] == "type0"


def test_pickle_carries_path_and_options(tiny_h5ad):
    cells = CellDataset(tiny_h5ad, None, PreprocessingPipeline(), max_genes=5)
    text = pickle.dumps(cells)
    assert len(text) < 20_000
    again = pickle.loads(text)
    assert torch.equal(again[7]["expression"], cells[7]["expression"])


def test_opening_never_reads_the_matrix(tmp_path):
    big = anndata.AnnData(
        X=sp.random(20_000, 500, density=0.2, format="csr", dtype=np.float32, random_state=0)
    )
    path = tmp_path / "big.h5ad"
    big.write_h5ad(path)
    before = scio.stats()["nbytes_read"]
    CellDataset(path, None)
    assert scio.stats()["nbytes_read"] - before < 500_000 < path.stat().st_size
