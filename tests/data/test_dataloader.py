"""CellDataLoader: coverage, values, order, determinism, memory, faults; each against plain NumPy."""

from __future__ import annotations

import itertools

import anndata
import numpy as np
import pytest
import scipy.sparse as sp
import torch

import scio
from scio.data import CellDataLoader, CellDataset, GeneVocab, PreprocessingPipeline, collate_cells
from scio.errors import CorruptFileError, IOFormatError, ScioWarning
from tests.data.conftest import make_adata, rewrite

THREADS = [0, 1, 2, 7]


def reference(adata: anndata.AnnData, target: float | None = 1e4, log: bool = True) -> np.ndarray:
    """Normalised values in float64, rounded where the contract rounds."""
    dense = np.asarray(adata.X.toarray() if sp.issparse(adata.X) else adata.X, dtype=np.float64)
    if target is not None:
        total = dense.sum(axis=1, keepdims=True)
        dense = np.where(total == 0, dense, dense * (target / np.where(total == 0, 1, total)))
        dense = dense.astype(np.float32).astype(np.float64)
    return np.log1p(dense) if log else dense


def dense_rows(batch: dict, form: str, n_genes: int) -> np.ndarray:
    """Any form of batch as (B, n_genes)."""
    if form == "dense":
        return np.asarray(batch["expression"])
    if form == "csr":
        arrays = tuple(np.asarray(batch[k]) for k in ("data", "indices", "indptr"))
        return sp.csr_matrix(arrays, shape=batch["shape"]).toarray()
    out = np.zeros((len(batch["index"]), n_genes), dtype=np.float32)
    for row, n in enumerate(batch["n_genes"]):
        out[row, np.asarray(batch["gene_indices"][row][:n]) - 4] = batch["expression"][row][:n]
        assert (np.asarray(batch["gene_indices"][row][n:]) == 0).all()
        assert np.asarray(batch["attention_mask"][row]).sum() == n
    return out


@pytest.mark.parametrize("form", ["tokens", "dense", "csr"])
@pytest.mark.parametrize("shuffle", [True, False, "exact"])
@pytest.mark.parametrize("threads", THREADS)
def test_every_cell_once_with_the_values_of_the_file(tiny_h5ad, tiny_adata, form, shuffle, threads):
    cells = CellDataset(tiny_h5ad, None, PreprocessingPipeline())
    loader = CellDataLoader(cells, 16, threads, shuffle, drop_last=False, form=form, to="numpy")
    expected = reference(tiny_adata).astype(np.float32)
    seen: list[int] = []
    for batch in loader:
        np.testing.assert_array_max_ulp(dense_rows(batch, form, 40), expected[batch["index"]], 1)
        labels = tiny_adata.obs["cell_type"].to_numpy()[batch["index"]]
        assert batch["metadata"]["cell_type"] == labels.tolist()
        seen += batch["index"].tolist()
    assert sorted(seen) == list(range(211))
    assert len(loader) == 14
    assert (seen == sorted(seen)) is (shuffle is False)


@pytest.mark.parametrize("compression", ["gzip", "lzf", None])
@pytest.mark.parametrize(("chunk", "index_chunk"), [(97, 97), (97, 61), (10, 33), (10_000, 10_000)])
def test_each_chunk_is_decoded_once_an_epoch(tiny_adata, tmp_path, compression, chunk, index_chunk):
    path = rewrite(
        tiny_adata,
        tmp_path / "x.h5ad",
        chunk=chunk,
        index_chunk=index_chunk,
        compression=compression,
    )
    cells = CellDataset(path, None)
    for form, shuffle in itertools.product(("tokens", "dense", "csr"), (True, False)):
        loader = CellDataLoader(cells, 10, 2, shuffle, drop_last=False, form=form, to="numpy")
        seen = [i for batch in loader for i in batch["index"].tolist()]
        assert sorted(seen) == list(range(211))
        assert loader.stats["chunks_decoded"] == loader.stats["chunks_total"] > 0


def _epochs(loader: CellDataLoader, n: int) -> list[list[bytes]]:
    return [
        [
            b"".join(
                np.asarray(v).tobytes()
                for k, v in sorted(b.items())
                if k not in ("metadata", "shape")
            )
            for b in loader
        ]
        for _ in range(n)
    ]


@pytest.mark.parametrize("form", ["tokens", "dense", "csr"])
def test_batches_are_the_same_bytes_for_any_number_of_threads(tiny_h5ad, form):
    cells = CellDataset(
        tiny_h5ad, None, PreprocessingPipeline(), max_genes=6, selection="random_expressed"
    )
    results = []
    for threads in THREADS:
        scio.set_threads(max(threads, 1))
        loader = CellDataLoader(cells, 16, 0, seed=3, form=form, to="numpy", block_bytes=2000)
        loader.num_workers = threads
        results.append(_epochs(loader, 2))
    scio.set_threads(scio._core.cpu_count())
    assert results[0] == results[1] == results[2] == results[3]
    assert results[0][0] != results[0][1]


def test_seed_and_epoch_fix_the_order(tiny_h5ad):
    cells = CellDataset(tiny_h5ad, None)

    def order(seed: int, epoch: int) -> list[int]:
        loader = CellDataLoader(cells, 16, 2, seed=seed, form="csr", to="numpy")
        loader.set_epoch(epoch)
        return [i for batch in loader for i in batch["index"].tolist()]

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(2, 0)
    assert order(1, 0) != order(1, 1)
    loader = CellDataLoader(cells, 16, 2, seed=1, form="csr", to="numpy")
    runs = [[i for b in loader for i in b["index"].tolist()] for _ in range(2)]
    assert runs == [order(1, 0), order(1, 1)]


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("drop_last", [True, False])
def test_ranks_share_the_cells_and_have_equal_counts(tiny_adata, tmp_path, world_size, drop_last):
    path = rewrite(tiny_adata, tmp_path / "x.h5ad", chunk=31)
    cells = CellDataset(path, None)
    loaders = [
        CellDataLoader(
            cells,
            8,
            2,
            drop_last=drop_last,
            form="csr",
            to="numpy",
            block_bytes=500,
            rank=rank,
            world_size=world_size,
        )
        for rank in range(world_size)
    ]
    lengths = {len(loader) for loader in loaders}
    assert len(lengths) == 1
    real, counts = [], []
    for loader in loaders:
        batches = list(loader)
        counts.append(len(batches))
        for batch in batches:
            padding = batch.get("is_padding", np.zeros(len(batch["index"]), dtype=bool))
            real += batch["index"][~padding].tolist()
    assert set(counts) == lengths
    assert len(real) == len(set(real))
    if not drop_last:
        assert sorted(real) == list(range(211))


def test_subsets_read_only_their_blocks(tiny_adata, tmp_path):
    path = rewrite(tiny_adata, tmp_path / "x.h5ad", chunk=20)
    cells = CellDataset(path, None, indices=np.arange(10, 20))
    loader = CellDataLoader(cells, 4, 1, drop_last=False, form="csr", to="numpy", block_bytes=100)
    seen = [i for b in loader for i in b["index"].tolist()]
    assert sorted(seen) == list(range(10, 20))
    whole = CellDataLoader(CellDataset(path, None), 4, 1, form="csr", to="numpy", block_bytes=100)
    list(whole)
    assert loader.stats["chunks_decoded"] < whole.stats["chunks_decoded"] / 4


@pytest.mark.parametrize("kind", ["csr", "csc", "dense", "memory csr", "memory dense"])
def test_other_kinds_of_matrix(tiny_adata, tmp_path, kind):
    x = tiny_adata.X
    converted = {"csc": x.tocsc(), "dense": x.toarray(), "memory dense": x.toarray()}.get(kind, x)
    adata = anndata.AnnData(X=converted, obs=tiny_adata.obs, var=tiny_adata.var)
    source = adata if kind.startswith("memory") else rewrite(adata, tmp_path / "x.h5ad")
    cells = CellDataset(source, None, PreprocessingPipeline())
    expected = reference(tiny_adata).astype(np.float32)
    loader = CellDataLoader(cells, 16, 2, drop_last=False, form="dense", to="numpy")
    seen = []
    for batch in loader:
        np.testing.assert_array_max_ulp(batch["expression"], expected[batch["index"]], 1)
        seen += batch["index"].tolist()
    assert sorted(seen) == list(range(211))


@pytest.mark.parametrize(
    "dtype", ["int8", "uint8", "int16", "uint16", "int32", "int64", "uint64", "float64", "bool"]
)
def test_dtypes(dtype, tiny_adata, tmp_path):
    adata = anndata.AnnData(X=tiny_adata.X.astype(dtype), obs=tiny_adata.obs, var=tiny_adata.var)
    path = rewrite(adata, tmp_path / "x.h5ad", chunk=50, index_chunk=70)
    loader = CellDataLoader(
        CellDataset(path, None, PreprocessingPipeline()), 16, 2, form="dense", to="numpy"
    )
    expected = reference(adata).astype(np.float32)
    for batch in loader:
        np.testing.assert_array_max_ulp(batch["expression"], expected[batch["index"]], 1)


def test_several_files_with_other_genes(tmp_path):
    a, b = make_adata(60, 30, seed=1), make_adata(50, 25, seed=2)
    b.var_names = [f"gene{i + 10}" for i in range(25)][::-1]
    paths = [rewrite(a, tmp_path / "a.h5ad"), rewrite(b, tmp_path / "b.h5ad", compression=None)]
    vocab = GeneVocab.from_genes([f"gene{i}" for i in range(5, 33)])
    cells = CellDataset(paths, vocab, PreprocessingPipeline())
    expected = np.zeros((110, 28), dtype=np.float32)
    for start, adata in ((0, a), (60, b)):
        values = reference(adata).astype(np.float32)
        for column, gene in enumerate(adata.var_names):
            if gene in vocab:
                expected[start : start + len(values), vocab[gene] - 4] = values[:, column]
    seen = []
    for batch in CellDataLoader(cells, 16, 2, drop_last=False, form="dense", to="numpy"):
        np.testing.assert_array_max_ulp(batch["expression"], expected[batch["index"]], 1)
        seen += batch["index"].tolist()
    assert sorted(seen) == list(range(110))


def test_token_width_is_the_batch_maximum_or_max_genes(tiny_h5ad):
    cells = CellDataset(tiny_h5ad, None)
    for batch in CellDataLoader(cells, 16, 2, to="numpy"):
        assert batch["expression"].shape[1] == batch["n_genes"].max()
    for batch in CellDataLoader(cells, 16, 2, max_genes=30, to="numpy", pad_value=-1.0):
        assert batch["expression"].shape == (16, 30)
        assert (batch["expression"][batch["attention_mask"] == 0] == -1).all()
        assert batch["expression"].dtype == np.float32
        assert batch["gene_indices"].dtype == batch["attention_mask"].dtype == np.int64


def test_tensors_share_memory_with_the_core_and_are_never_overwritten(tiny_h5ad):
    loader = CellDataLoader(CellDataset(tiny_h5ad, None), 16, 2, form="csr")
    kept = list(loader)
    assert all(isinstance(batch["data"], torch.Tensor) for batch in kept)
    copies = [batch["data"].clone() for batch in kept]
    list(loader)
    assert all(torch.equal(batch["data"], copy) for batch, copy in zip(kept, copies, strict=True))


def test_samplers_take_the_place_of_shuffle(tiny_h5ad, tiny_adata):
    cells = CellDataset(tiny_h5ad, None)
    order = np.random.default_rng(0).integers(0, 211, 50)
    loader = CellDataLoader(
        cells, 16, 2, drop_last=False, sampler=order.tolist(), form="dense", to="numpy"
    )
    batches = list(loader)
    assert len(batches) == len(loader) == 4
    np.testing.assert_array_equal(np.concatenate([b["index"] for b in batches]), order)
    dense = tiny_adata.X.toarray()
    np.testing.assert_array_equal(np.vstack([b["expression"] for b in batches]), dense[order])
    groups = [[5, 1], [7], [210, 0, 3]]
    by_batch = CellDataLoader(cells, batch_sampler=groups, form="csr", to="numpy")
    assert [b["index"].tolist() for b in by_batch] == groups
    with pytest.raises(ValueError, match="not both"):
        CellDataLoader(cells, sampler=[0], batch_sampler=[[0]])
    with pytest.raises(IndexError, match="211 cells"):
        list(CellDataLoader(cells, sampler=[211]))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"num_workers": -1}, "num_workers"),
        ({"form": "coo"}, "tokens"),
        ({"shuffle": "yes"}, "shuffle"),
        ({"to": "jax"}, "torch"),
        ({"max_memory": "lots"}, "max_memory"),
        ({"max_memory": 1000}, "least|at least"),
        ({"rank": 2, "world_size": 2}, "rank"),
        ({"rank": 0}, "together"),
        ({"on_error": "ignore"}, "raise"),
    ],
)
def test_wrong_arguments_are_value_errors(tiny_h5ad, arguments, text):
    with pytest.raises(ValueError, match=text):
        CellDataLoader(CellDataset(tiny_h5ad, None), **arguments)


def test_the_cap_that_is_too_small_names_one_that_works(tiny_h5ad):
    import re

    cells = CellDataset(tiny_h5ad, None)
    with pytest.raises(ValueError, match=r"\d") as caught:
        CellDataLoader(cells, max_memory=1000, form="csr")
    numbers = [int(n.replace(",", "")) for n in re.findall(r"\d[\d,]*", str(caught.value))]
    least = max(numbers)
    loader = CellDataLoader(cells, max_memory=least, form="csr", to="numpy", drop_last=False)
    assert sorted(i for b in loader for i in b["index"].tolist()) == list(range(211))
    assert loader.stats["peak_nbytes"] <= least


def test_no_cells():
    empty = anndata.AnnData(X=sp.csr_matrix((0, 5), dtype=np.float32))
    with pytest.raises(ValueError, match="no cells"):
        CellDataLoader(CellDataset(empty, None))


def _break_chunk(path, dataset: str, number: int) -> None:
    position, nbytes = scio.open(path).file.dataset(dataset).units()[number, :2]
    with open(path, "r+b") as file:
        file.seek(int(position) + int(nbytes) // 2)
        piece = file.read(4)
        file.seek(-4, 1)
        file.write(bytes(b ^ 0xFF for b in piece))


def test_a_broken_chunk_is_named_or_skipped(tiny_adata, tmp_path):
    path = rewrite(tiny_adata, tmp_path / "x.h5ad", chunk=50)
    _break_chunk(path, "/X/data", 4)
    cells = CellDataset(path, None)
    with pytest.raises(CorruptFileError, match=r"x\.h5ad.*X/data.*chunk"):
        list(CellDataLoader(cells, 16, 2, form="csr"))
    loader = CellDataLoader(
        cells, 16, 2, drop_last=False, form="csr", to="numpy", on_error="skip", block_bytes=200
    )
    with pytest.warns(ScioWarning, match="skipped"):
        batches = list(loader)
    seen = [i for b in batches for i in b["index"].tolist()]
    assert len(seen) == len(set(seen)) < 211
    assert loader.stats["skipped_cells"] == 211 - len(seen)
    dense = tiny_adata.X.toarray()
    for batch in batches:
        np.testing.assert_array_equal(dense_rows(batch, "csr", 40), dense[batch["index"]])


def test_a_file_replaced_while_open_is_an_error(tiny_adata, tmp_path):
    path = rewrite(tiny_adata, tmp_path / "x.h5ad")
    cells = CellDataset(path, None)
    loader = CellDataLoader(cells, 16, 2, form="csr", to="numpy")
    list(loader)
    other = rewrite(make_adata(seed=9), tmp_path / "y.h5ad")
    other.replace(path)
    with pytest.raises(IOFormatError, match=r"changed|replaced"):
        list(loader)


def test_a_truncated_file_is_an_error(tiny_adata, tmp_path):
    path = rewrite(tiny_adata, tmp_path / "x.h5ad")
    cells = CellDataset(path, None)
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size // 2)
    with pytest.raises(IOFormatError, match=r"changed|replaced|truncated"):
        list(CellDataLoader(cells, 16, 2, form="csr", to="numpy"))


def test_an_iterator_dropped_halfway_leaves_nothing(tiny_h5ad):
    cells = CellDataset(tiny_h5ad, None)
    loader = CellDataLoader(cells, 4, 2, form="csr", to="numpy", block_bytes=500)
    next(iter(loader))
    before = scio.stats()["live_bufs"]
    for _ in range(20):
        iterator = iter(loader)
        next(iterator)
        del iterator
    assert scio.stats()["live_bufs"] <= before


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than cores
@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("workers", [0, 1, 2, 3])
def test_torch_dataloader_gives_the_same_values(tiny_h5ad, method, workers):
    cells = CellDataset(tiny_h5ad, None, PreprocessingPipeline(), max_genes=10)
    cells[0]  # opened and used before the fork
    context = method if workers else None
    loader = torch.utils.data.DataLoader(
        cells,
        batch_size=32,
        num_workers=workers,
        collate_fn=collate_cells,
        multiprocessing_context=context,
    )
    ours = CellDataLoader(cells, 32, 2, False, drop_last=False)
    for theirs, mine in zip(loader, ours, strict=True):
        width = theirs["expression"].shape[1]
        assert torch.equal(theirs["expression"], mine["expression"][:, :width])
        assert torch.equal(theirs["gene_indices"], mine["gene_indices"][:, :width])
        assert torch.equal(theirs["n_genes"], mine["n_genes"])
        assert torch.equal(theirs["index"], mine["index"])
        assert theirs["metadata"] == mine["metadata"]


def test_collate_cells_pads_and_refuses(tiny_h5ad):
    cells = CellDataset(tiny_h5ad, None)
    batch = collate_cells([cells[0], cells[3]], pad_value=-2.0, max_genes=40)
    assert batch["expression"].shape == (2, 40)
    assert (batch["expression"][1] == -2).all()
    assert batch["n_genes"].tolist() == [cells[0]["n_genes"], 0]
    with pytest.raises(ValueError, match="no item"):
        collate_cells([])
    with pytest.raises(ValueError, match="max_genes"):
        collate_cells([cells[0]], max_genes=1)


def test_mixing_is_measured_from_the_plan(tiny_h5ad):
    cells = CellDataset(tiny_h5ad, None)
    loaders = [CellDataLoader(cells, 16, 2, shuffle, form="csr") for shuffle in (True, False)]
    cells.store.column("cell_type")
    before = scio.stats()["chunks_decoded"]
    mixed, plain = (loader.mixing("cell_type") for loader in loaders)
    assert scio.stats()["chunks_decoded"] == before
    assert mixed.ratio > 0.9
    assert plain.ratio < 0.3


def test_memory_cap_is_held(tmp_path):
    x = sp.random(6000, 300, density=0.5, format="csr", dtype=np.float32, random_state=0)
    path = rewrite(anndata.AnnData(X=x), tmp_path / "x.h5ad", chunk=2000)
    loader = CellDataLoader(
        CellDataset(path, None), 32, 2, drop_last=False, form="csr", to="numpy", max_memory="3MB"
    )
    before, peak, seen = scio.stats()["live_buf_nbytes"], 0, 0
    for batch in loader:
        peak = max(peak, scio.stats()["live_buf_nbytes"] - before)
        seen += len(batch["index"])
    assert seen == 6000
    assert loader.stats["peak_nbytes"] <= 3_000_000
    assert peak <= 3_000_000
    assert x.data.nbytes > 3_000_000
