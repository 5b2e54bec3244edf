"""Layers, obsm, label codes and other dtypes in batches, against plain reads of anndata."""

from __future__ import annotations

import functools

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

from scio.data import CellDataLoader, CellDataset, PreprocessingPipeline, collate_cells
from scio.errors import IOFormatError, UnsupportedError
from tests.data.conftest import rewrite
from tests.data.helpers import epoch_bytes, facts
from tests.data.test_dataloader import dense_rows

N_CELLS, N_GENES = 333, 50
LAYERS = ["norm", "wide", "int", "csc", "dense", "bool"]
OBSM = ["X_pca", "X_int", "X_one"]
LABELS = ["a", "b", None, "c d"]


def make_adata() -> anndata.AnnData:
    """Every kind of layer and embedding, none with the sparsity of X."""
    rng = np.random.default_rng(0)

    def layer(density: float, seed: int) -> sp.csr_matrix:
        return sp.random(N_CELLS, N_GENES, density, format="csr", random_state=seed)

    x = layer(0.2, 1).astype(np.float32)
    x.data = np.ceil(x.data * 300).astype(np.float32)
    integers = layer(0.25, 2)
    integers.data = np.ceil(integers.data * 70_000)
    obs = pd.DataFrame(
        {
            "lab": pd.Categorical([LABELS[i % 4] for i in range(N_CELLS)]),
            "depth": rng.random(N_CELLS),
        },
        index=[f"cell{i}" for i in range(N_CELLS)],
    )
    return anndata.AnnData(
        x,
        obs=obs,
        var=pd.DataFrame(index=[f"gene{i}" for i in range(N_GENES)]),
        layers={
            "norm": layer(0.3, 3),
            "wide": layer(0.9, 4).astype(np.float32),
            "int": integers.astype(np.int32),
            "csc": layer(0.1, 5).tocsc(),
            "dense": rng.normal(size=(N_CELLS, N_GENES)).astype(np.float32),
            "bool": layer(0.15, 6).astype(bool),
        },
        obsm={
            "X_pca": rng.normal(size=(N_CELLS, 7)),
            "X_int": rng.integers(0, 1000, (N_CELLS, 3)),
            "X_one": rng.normal(size=(N_CELLS, 1)).astype(np.float32),
        },
    )


@pytest.fixture(scope="module")
def adata() -> anndata.AnnData:
    return make_adata()


@pytest.fixture(scope="module")
def path(adata, tmp_path_factory):
    return rewrite(adata, tmp_path_factory.mktemp("tracks") / "x.h5ad", chunk=97)


def dense(values) -> np.ndarray:
    """A matrix of any kind as float32."""
    return np.asarray(values.toarray() if sp.issparse(values) else values).astype(np.float32)


def check(batch, adata, form, dtype="float32") -> list[int]:
    """Compare layers, obsm and codes of one batch with the AnnData; returns the cells."""
    cells = np.asarray(batch["index"])
    for key in OBSM:
        expected = np.asarray(adata.obsm[key])[cells].astype(np.float32).astype(dtype)
        assert batch["obsm"][key].dtype == dtype
        np.testing.assert_array_equal(batch["obsm"][key], expected)
    for key in LAYERS:
        expected, got = dense(adata.layers[key])[cells].astype(dtype), batch["layers"][key]
        if form == "csr":
            assert got["data"].dtype == dtype
            arrays = (got["data"].astype(np.float32), got["indices"], got["indptr"])
            assert (np.diff(got["indptr"]) == (expected != 0).sum(axis=1)).all()
            got = sp.csr_matrix(arrays, shape=expected.shape).toarray().astype(dtype)
            np.testing.assert_array_equal(got, expected)
        elif form == "dense":
            assert got.dtype == dtype
            np.testing.assert_array_equal(got, expected)
        else:
            assert got.shape == batch["expression"].shape
            assert got.dtype == dtype
            for row, n in enumerate(batch["n_genes"]):
                genes = batch["gene_indices"][row, :n] - 4
                np.testing.assert_array_equal(got[row, :n], expected[row, genes])
    return cells.tolist()


@pytest.mark.parametrize("source", ["file", "memory"])
@pytest.mark.parametrize("form", ["tokens", "dense", "csr"])
@pytest.mark.parametrize("shuffle", [True, False, "exact", "block"])
def test_values_are_those_of_anndata_in_every_epoch(adata, path, source, form, shuffle):
    cells = CellDataset(
        path if source == "file" else adata, None, layers=LAYERS, obsm=OBSM, obs_keys=["lab"]
    )
    loader = CellDataLoader(
        cells, 50, 2, shuffle, False, form=form, to="numpy", obs_codes=["lab"], block_bytes=2000
    )
    codes = adata.obs["lab"].cat.codes.to_numpy()
    for epoch in range(2):
        seen = []
        for batch in loader:
            seen += check(batch, adata, form)
            np.testing.assert_array_equal(
                dense_rows(batch, form, N_GENES), dense(adata.X)[batch["index"]]
            )
            assert batch["codes"]["lab"].tolist() == codes[batch["index"]].tolist()
            assert batch["metadata"]["lab"] == [LABELS[i % 4] for i in batch["index"]]
        assert sorted(seen) == list(range(N_CELLS))
        plan, rows, n_decoded, n_chunks = facts(loader)
        if source == "memory":
            assert (rows, n_decoded) == ("memory", 0)
        elif epoch == 0:
            assert n_decoded == n_chunks > 0
        else:
            assert (rows, n_decoded) == ("compact", 0)
        assert (plan == "exact") is (shuffle == "exact" or (shuffle is True and epoch > 0))


def test_each_chunk_of_each_matrix_is_decoded_once(adata, path, monkeypatch):
    import scio

    # small dense ones are read whole when they are opened; here they go through the plan
    monkeypatch.setattr("scio.data._sources.SMALL_TRACK_NBYTES", 0)
    file = scio.open(path).file
    arrays = ["X/data", "X/indices"]
    for key in ("norm", "wide", "int", "bool"):
        arrays += [f"layers/{key}/data", f"layers/{key}/indices"]
    arrays += ["layers/dense", *(f"obsm/{key}" for key in OBSM)]
    n_chunks = sum(len(file.dataset(name).units()) for name in arrays)
    cells = CellDataset(path, None, layers=[k for k in LAYERS if k != "csc"], obsm=OBSM)
    loader = CellDataLoader(cells, 10, 2, form="csr", to="numpy", drop_last=False)
    before = scio.stats()["chunks_decoded"]
    assert sum(len(b["index"]) for b in loader) == N_CELLS
    assert facts(loader) == ("block", "decoded", n_chunks, n_chunks)
    assert scio.stats()["chunks_decoded"] - before == n_chunks


def test_threads_and_order_of_epochs_change_no_byte(path):
    cells = CellDataset(path, None, max_genes=9, layers=LAYERS, obsm=OBSM)
    results = []
    for threads, order in ((0, [0, 1, 2]), (1, [2, 0, 1]), (2, [1, 2, 0]), (7, [0, 2, 1])):
        loader = CellDataLoader(cells, 32, 0, to="numpy", obs_codes=["lab"], block_bytes=2000)
        loader.num_workers = threads
        epochs = {}
        for epoch in order:
            loader.set_epoch(epoch)
            epochs[epoch] = epoch_bytes(loader)
        results.append(epochs)
    assert results[0] == results[1] == results[2] == results[3]


@pytest.mark.parametrize("form", ["tokens", "dense", "csr"])
def test_samplers_bring_layers_and_obsm_along(adata, path, form):
    cells = CellDataset(path, None, layers=LAYERS, obsm=OBSM)
    order = np.random.default_rng(0).integers(0, N_CELLS, 200).tolist()
    for sampler, rows in ((order, "compact"), ([330, 2, 2], "decoded")):
        loader = CellDataLoader(
            cells, 3, 2, form=form, to="numpy", sampler=sampler, drop_last=False
        )
        for _ in range(2):
            assert [i for b in loader for i in check(b, adata, form)] == sampler
            assert facts(loader)[:2] == ("given", rows)


def test_layers_are_neither_scaled_nor_logged_and_align_to_the_vocabulary(tmp_path):
    one, other = make_adata()[:, :30].copy(), make_adata()[:100, ::-1].copy()
    paths = [str(rewrite(a, tmp_path / f"{i}.h5ad")) for i, a in enumerate((one, other))]
    cells = CellDataset(
        paths, None, PreprocessingPipeline(), layers=["norm", "dense"], obsm=["X_pca"]
    )
    genes = cells.gene_vocab.genes
    frames = {
        key: pd.concat(
            [pd.DataFrame(dense(a.layers[key]), columns=a.var_names) for a in (one, other)]
        )
        .reindex(columns=genes)
        .fillna(0)
        .to_numpy(np.float32)
        for key in ("norm", "dense")
    }
    pca = np.concatenate([one.obsm["X_pca"], other.obsm["X_pca"]]).astype(np.float32)
    loader = CellDataLoader(cells, 40, 2, form="dense", to="numpy", drop_last=False)
    for _ in range(2):
        n_cells = 0
        for batch in loader:
            for key, expected in frames.items():
                np.testing.assert_array_equal(batch["layers"][key], expected[batch["index"]])
            np.testing.assert_array_equal(batch["obsm"]["X_pca"], pca[batch["index"]])
            n_cells += len(batch["index"])
        assert n_cells == N_CELLS + 100


def test_raw_and_layers_come_together(tmp_path):
    adata = make_adata()
    adata.raw = adata
    adata = adata[:, :20].copy()
    path = rewrite(adata, tmp_path / "x.h5ad")
    for source in (path, adata):
        cells = CellDataset(source, None, matrix="layers/norm", layers=["dense"])
        [batch] = CellDataLoader(cells, N_CELLS, 2, False, form="dense", to="numpy")
        np.testing.assert_array_equal(batch["expression"], dense(adata.layers["norm"]))
        np.testing.assert_array_equal(batch["layers"]["dense"], adata.layers["dense"])
        with pytest.raises((IOFormatError, ValueError), match=r"norm.*shape.*20.*50"):
            CellDataset(source, None, matrix="raw/X", layers=["norm"])


# --- errors


@pytest.mark.parametrize("source", ["file", "memory"])
def test_a_missing_key_is_answered_with_near_ones(adata, path, source):
    data = path if source == "file" else adata
    with pytest.raises(KeyError, match=r"'nrom'.*'norm'"):
        CellDataset(data, None, layers=["nrom"])
    with pytest.raises(KeyError, match=r"'X_pcs'.*'X_pca'"):
        CellDataset(data, None, obsm=["X_pcs"])
    with pytest.raises(KeyError, match=r"'lib'.*'lab'"):
        CellDataLoader(CellDataset(data, None), obs_codes=["lib"])


@pytest.mark.parametrize("source", ["file", "memory"])
def test_wrong_arguments_are_named(adata, path, source):
    data = path if source == "file" else adata
    with pytest.raises(TypeError, match=r"layers is a list of keys.*norm"):
        CellDataset(data, None, layers="norm")
    with pytest.raises(TypeError, match=r"obsm is a list of keys"):
        CellDataset(data, None, obsm=[3])
    with pytest.raises(ValueError, match="twice"):
        CellDataset(data, None, layers=["norm", "norm"])
    with pytest.raises(ValueError, match="holds numbers"):
        CellDataLoader(CellDataset(data, None), obs_codes=["depth"])
    with pytest.raises(TypeError, match="obs_codes is a list"):
        CellDataLoader(CellDataset(data, None), obs_codes="lab")


@pytest.mark.parametrize("kind", ["shape", "dataframe"])
def test_elements_that_are_no_matrix_of_the_cells_are_refused(tmp_path, kind):
    import h5py

    adata = make_adata()
    if kind == "dataframe":
        adata.obsm["X_bad"] = pd.DataFrame({"a": ["x"] * N_CELLS}, index=adata.obs_names)
    adata.write_h5ad(tmp_path / "x.h5ad")
    if kind == "shape":
        with h5py.File(tmp_path / "x.h5ad", "r+") as file:
            del file["obsm/X_one"], file["layers/dense"]
            for name, shape in (("obsm/X_bad", (5, 2)), ("layers/dense", (N_CELLS, 49))):
                file[name] = np.zeros(shape)
                file[name].attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
        with pytest.raises(IOFormatError, match=r"layers/dense has shape \(333, 49\).*\(333, 50\)"):
            CellDataset(tmp_path / "x.h5ad", None, layers=["dense"])
    with pytest.raises((IOFormatError, UnsupportedError), match="obsm/X_bad"):
        CellDataset(tmp_path / "x.h5ad", None, obsm=["X_bad"])


def test_a_key_that_one_of_two_files_lacks_names_the_file(path, tmp_path):
    other = make_adata()
    del other.layers["norm"]
    other.write_h5ad(tmp_path / "other.h5ad")
    with pytest.raises(KeyError, match=r"other\.h5ad"):
        CellDataset([str(path), str(tmp_path / "other.h5ad")], None, layers=["norm"])


# --- codes


def test_codes_name_their_categories_over_files_with_other_ones(adata, tmp_path):
    one, other = make_adata(), make_adata()[:90].copy()
    other.obs["lab"] = pd.Categorical(["z" if i % 2 else "b" for i in range(90)])
    paths = [str(rewrite(a, tmp_path / f"{i}.h5ad")) for i, a in enumerate((one, other))]
    cells = CellDataset(paths, None, obs_keys=["lab"])
    names = cells.categories("lab")
    assert sorted(names) == ["a", "b", "c d", "z"]
    loader = CellDataLoader(
        cells, 20, 2, form="csr", to="numpy", obs_codes=["lab"], drop_last=False
    )
    for batch in loader:
        codes = batch["codes"]["lab"]
        assert codes.dtype == np.int64
        labels = [None if c < 0 else names[c] for c in codes]
        assert labels == batch["metadata"]["lab"]
    with pytest.raises(KeyError, match="lab"):
        cells.categories("lap")


# --- dtypes


@pytest.mark.parametrize("form", ["tokens", "dense", "csr"])
@pytest.mark.parametrize("source", ["file", "memory"])
def test_float16_is_the_nearest_of_the_float32_value(adata, path, form, source):
    data = path if source == "file" else adata
    half = adata.copy()
    half.layers["int"].data %= 2000  # float16 holds no more than 65504
    data = half if source == "memory" else rewrite(half, path.with_name(f"half-{form}.h5ad"))
    cells = CellDataset(data, None, PreprocessingPipeline(), layers=LAYERS, obsm=OBSM)
    arguments = {"shuffle": True, "drop_last": False, "form": form, "to": "numpy"}
    single = CellDataLoader(cells, 64, 2, **arguments)
    loader = CellDataLoader(cells, 64, 2, dtype="float16", index_dtype="int32", **arguments)
    for _ in range(2):
        for batch, wide in zip(loader, single, strict=True):
            check(batch, half, form, "float16")
            key = "data" if form == "csr" else "expression"
            assert batch[key].dtype == np.float16
            np.testing.assert_array_equal(batch[key], wide[key].astype(np.float16))
            np.testing.assert_array_equal(batch["index"], wide["index"])
            assert batch["index"].dtype == np.int64
            if form == "tokens":
                for name in ("gene_indices", "attention_mask"):
                    assert batch[name].dtype == np.int32
                    np.testing.assert_array_equal(batch[name], wide[name])


def test_tensors_have_the_dtypes_asked_for(path):
    cells = CellDataset(path, None, layers=["norm"], obsm=["X_pca"])
    batch = next(iter(CellDataLoader(cells, 20, 2, dtype="float16", index_dtype="int32")))
    assert batch["expression"].dtype == batch["layers"]["norm"].dtype == torch.float16
    assert batch["obsm"]["X_pca"].dtype == torch.float16
    assert batch["gene_indices"].dtype == batch["attention_mask"].dtype == torch.int32


# --- one by one


@pytest.mark.parametrize("max_genes", [None, 6])
def test_items_hold_layers_and_obsm(adata, path, max_genes):
    for source in (path, adata):
        cells = CellDataset(
            source, None, PreprocessingPipeline(), max_genes, layers=LAYERS, obsm=OBSM
        )
        for item in [cells[7], *cells.__getitems__([300, 2, 2])]:
            genes = item["gene_indices"].numpy() - 4
            assert list(item["layers"]) == LAYERS
            assert list(item["obsm"]) == OBSM
            for key in LAYERS:
                expected = dense(adata.layers[key])[item["index"], genes]
                np.testing.assert_array_equal(item["layers"][key].numpy(), expected)
            for key in OBSM:
                expected = adata.obsm[key][item["index"]].astype(np.float32)
                np.testing.assert_array_equal(item["obsm"][key].numpy(), expected)
    assert "layers" not in CellDataset(path, None)[0]


@pytest.mark.parametrize("workers", [0, 2])
def test_collate_cells_gives_the_batches_of_the_loader(path, workers):
    cells = CellDataset(
        path, None, PreprocessingPipeline(), max_genes=8, layers=LAYERS, obsm=OBSM, obs_keys=["lab"]
    )
    collate = functools.partial(collate_cells, pad_value=-1.5)
    theirs = torch.utils.data.DataLoader(
        cells, batch_size=32, collate_fn=collate, num_workers=workers
    )
    ours = CellDataLoader(cells, 32, 2, False, False, pad_value=-1.5)
    for a, b in zip(theirs, ours, strict=True):
        width = a["expression"].shape[1]
        assert torch.equal(a["expression"], b["expression"][:, :width])
        assert list(a["layers"]) == LAYERS
        for key in LAYERS:
            assert torch.equal(a["layers"][key], b["layers"][key][:, :width]), key
        for key in OBSM:
            assert torch.equal(a["obsm"][key], b["obsm"][key])
        assert a["metadata"] == b["metadata"]
