"""Which plan each epoch has and where its rows come from: compact store, memory, or decoded again."""

from __future__ import annotations

import os
import pickle
import re

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import scio
from scio.data import CellDataLoader, CellDataset, PreprocessingPipeline
from scio.errors import ScioWarning
from tests.data.conftest import N_CELLS, N_GENES, make_adata, rewrite
from tests.data.helpers import batch_bytes, break_chunk, epoch_bytes, facts, ids
from tests.data.test_dataloader import dense_rows, reference

ALL = list(range(N_CELLS))


def make(source, batch_size=16, threads=2, **arguments) -> CellDataLoader:
    """A loader of NumPy batches, all cells unless told otherwise."""
    arguments = {"form": "csr", "to": "numpy", "drop_last": False, **arguments}
    cells = source if isinstance(source, CellDataset) else CellDataset(source, None)
    return CellDataLoader(cells, batch_size, threads, **arguments)


def check_values(batches, adata, form="csr") -> list[int]:
    """Compare with the matrix in memory; returns the cells."""
    dense = np.asarray(adata.X.toarray() if sp.issparse(adata.X) else adata.X)
    seen = []
    for batch in batches:
        np.testing.assert_array_equal(
            dense_rows(batch, form, dense.shape[1]), dense[batch["index"]]
        )
        seen += batch["index"].tolist()
    return seen


# --- the plan follows from the number of the epoch and the data


@pytest.mark.parametrize("form", ["tokens", "dense", "csr"])
@pytest.mark.parametrize("compression", ["gzip", None])
@pytest.mark.parametrize("batch_size", [1, 16, 64, 500])
def test_the_first_epoch_is_decoded_once_and_later_ones_are_exact(
    tiny_adata, tmp_path, form, compression, batch_size
):
    path = rewrite(tiny_adata, tmp_path / "x.h5ad", compression=compression, index_chunk=61)
    loader = make(
        CellDataset(path, None, PreprocessingPipeline()), batch_size, form=form, block_bytes=500
    )
    expected = reference(tiny_adata).astype(np.float32)
    n_chunks = sum(len(scio.open(path).file.dataset(f"X/{n}").units()) for n in ("data", "indices"))
    orders = []
    for epoch in range(3):
        seen = []
        for batch in loader:
            rows = dense_rows(batch, form, N_GENES)
            np.testing.assert_array_max_ulp(rows, expected[batch["index"]], 1)
            seen += batch["index"].tolist()
        assert sorted(seen) == ALL
        if epoch == 0:
            assert facts(loader) == ("block", "decoded", n_chunks, n_chunks)
        else:
            assert facts(loader)[:3] == ("exact", "compact", 0)
            assert loader.stats["nbytes_read"] == 0
        orders.append(seen)
    assert orders[0] != orders[1] != orders[2] != orders[0]
    far = np.abs(np.diff(orders[2]))
    assert 0.8 * N_CELLS / 3 < far.mean() < 1.2 * N_CELLS / 3  # a third: neighbours are strangers


def test_what_drop_last_left_out_is_all_that_later_epochs_decode(tiny_h5ad, tiny_adata):
    loader = make(tiny_h5ad, 64, drop_last=True, block_bytes=500)
    assert len(loader) == 3
    left_out = sorted(set(ALL) - set(ids(loader)))
    assert len(left_out) == N_CELLS - 3 * 64
    indptr = tiny_adata.X.indptr
    elements = np.concatenate([np.arange(indptr[i], indptr[i + 1]) for i in left_out])
    n_chunks = 2 * len(np.unique(elements // 97))  # of data, of indices
    first = check_values(loader, tiny_adata)
    assert facts(loader)[:3] == ("exact", "compact", n_chunks)
    assert 0 < n_chunks < 2 * -(-tiny_adata.X.nnz // 97)
    assert len(set(first)) == 3 * 64
    second = check_values(loader, tiny_adata)
    assert facts(loader)[:3] == ("exact", "compact", 0)
    assert set(first) != set(second)  # an exact epoch drops others each time


def test_block_never_becomes_exact_but_decodes_no_more(tiny_h5ad, tiny_adata):
    loader = make(tiny_h5ad, shuffle="block", block_bytes=500)
    orders = [check_values(loader, tiny_adata) for _ in range(3)]
    assert facts(loader)[0] == "block"
    assert loader.stats["chunks_decoded"] == 0
    fresh = make(tiny_h5ad, shuffle="block", block_bytes=500)
    fresh.set_epoch(2)
    assert check_values(fresh, tiny_adata) == orders[2] != orders[1]
    assert facts(fresh)[:2] == ("block", "decoded")


def test_without_shuffle_every_epoch_is_in_file_order(tiny_h5ad, tiny_adata):
    loader = make(tiny_h5ad, shuffle=False, block_bytes=500)
    for epoch in range(3):
        assert check_values(loader, tiny_adata) == ALL
        assert facts(loader)[:2] == ("none", "decoded" if epoch == 0 else "compact")
    assert loader.stats["chunks_decoded"] == 0


def test_exact_decodes_everything_before_the_first_batch(tiny_h5ad, tiny_adata):
    loader = make(tiny_h5ad, shuffle="exact", block_bytes=500)
    iterator = iter(loader)
    first = next(iterator)
    plan, rows, n_decoded, _ = facts(loader)
    assert (plan, rows) == ("exact", "compact")
    assert n_decoded == 2 * -(-tiny_adata.X.nnz // 97)
    assert sorted(check_values([first, *iterator], tiny_adata)) == ALL
    assert sorted(check_values(loader, tiny_adata)) == ALL
    assert facts(loader)[:3] == ("exact", "compact", 0)


# --- the same batches whatever is resident


@pytest.mark.parametrize("form", ["tokens", "dense", "csr"])
@pytest.mark.parametrize("shuffle", [True, "exact", "block", False])
def test_batches_depend_on_the_epoch_alone(tiny_h5ad, form, shuffle):
    """Threads, the epochs that ran before, broken off or whole, and resident rows change no byte."""
    cells = CellDataset(
        tiny_h5ad, None, PreprocessingPipeline(), max_genes=6, selection="random_expressed"
    )
    arguments = {"form": form, "shuffle": shuffle, "seed": 5, "block_bytes": 700}
    loader = make(cells, threads=0, **arguments)
    expected = [epoch_bytes(loader) for _ in range(4)]
    assert shuffle is False or len({tuple(e) for e in expected}) == 4
    for threads, order in ((0, [3]), (1, [3, 0, 1]), (2, [2, 2, 0, 3]), (7, [0, 3, 1, 2])):
        loader = make(cells, threads=0, **arguments)
        loader.num_workers = threads  # more than there are CPUs
        for epoch in order:
            loader.set_epoch(epoch)
            assert epoch_bytes(loader) == expected[epoch], (threads, order, epoch)
    for n_taken in (1, 5):
        loader = make(cells, **arguments)
        iterator = iter(loader)
        taken = [batch_bytes(next(iterator)) for _ in range(n_taken)]
        assert taken == expected[0][:n_taken]
        del iterator
        assert epoch_bytes(loader) == expected[1]
        loader.set_epoch(0)
        assert epoch_bytes(loader) == expected[0]


def test_exact_epochs_are_the_same_from_file_and_from_memory(tiny_h5ad, tiny_adata):
    from_file, from_memory = make(tiny_h5ad), make(tiny_adata)
    for loader in (from_file, from_memory):
        loader.set_epoch(2)
    assert epoch_bytes(from_file) == epoch_bytes(from_memory)
    assert facts(from_file)[:2] == ("exact", "compact")
    assert facts(from_memory) == ("exact", "memory", 0, 0)


def test_breaking_out_of_epochs_costs_each_chunk_once_more_at_most(tiny_h5ad, tiny_adata):
    loader = make(tiny_h5ad, 8, block_bytes=500)
    n_chunks = 2 * -(-tiny_adata.X.nnz // 97)
    for _ in range(2):
        for i, _batch in enumerate(loader):
            if i == 3:
                break
    assert facts(loader)[:2] == ("exact", "compact")  # the rest was decoded before epoch 1
    assert 0 < loader.stats["chunks_decoded"] <= n_chunks
    assert sorted(check_values(loader, tiny_adata)) == ALL
    assert facts(loader)[:3] == ("exact", "compact", 0)


def test_iterators_of_one_loader_and_of_two_over_one_dataset_do_not_disturb(tiny_h5ad, tiny_adata):
    cells = CellDataset(tiny_h5ad, None)
    lone = make(cells, block_bytes=500)
    expected = [epoch_bytes(lone) for _ in range(4)]
    one, other = make(cells, block_bytes=500), make(cells, block_bytes=500)
    other.set_epoch(1)
    pairs = zip(one, other, strict=True)
    got = [(batch_bytes(a), batch_bytes(b)) for a, b in pairs]
    assert [a for a, _ in got] == expected[0]
    assert [b for _, b in got] == expected[1]
    nested = make(cells, block_bytes=500)
    first = []
    for batch in nested:
        first.append(batch_bytes(batch))
        if len(first) == 3:
            assert epoch_bytes(nested) == expected[1]
    assert first == expected[0]
    assert epoch_bytes(nested) == expected[2]


# --- the cap


@pytest.fixture(scope="module")
def wide(tmp_path_factory) -> anndata.AnnData:
    """6,000 cells x 300 genes, half of it floats: 4 or more bytes a value, 6 with its index."""
    x = sp.random(6000, 300, density=0.5, format="csr", dtype=np.float32, random_state=0)
    adata = anndata.AnnData(X=x)
    adata.uns["path"] = str(rewrite(adata, tmp_path_factory.mktemp("wide") / "x.h5ad", chunk=2000))
    return adata


def test_what_does_not_fit_is_decoded_each_epoch_and_nothing_is_kept(wide):
    loader = make(wide.uns["path"], 32, max_memory="3MB")
    before = scio.stats()["live_buf_nbytes"]
    for epoch in range(3):
        peak, seen = 0, []
        for batch in loader:
            peak = max(peak, scio.stats()["live_buf_nbytes"] - before)
            seen += batch["index"].tolist()
        assert sorted(seen) == list(range(6000))
        plan, rows, n_decoded, n_chunks = facts(loader)
        assert (plan, rows) == ("block", "decoded")
        assert n_decoded == n_chunks > 0, epoch
        assert 0 < loader.stats["peak_nbytes"] <= 3_000_000 == loader.stats["cap_nbytes"]
        assert peak <= 3_000_000
        del batch
        assert scio.stats()["live_buf_nbytes"] - before < 100_000  # neither windows nor a store


@pytest.mark.parametrize("kind", ["float", "counts"])
@pytest.mark.parametrize("cap", [2_500_000, 3_500_000])
def test_exact_that_does_not_fit_names_a_cap_that_is_enough(wide, tmp_path, kind, cap):
    path, adata = wide.uns["path"], wide
    if kind == "counts":
        adata = anndata.AnnData(X=wide.X.copy())
        adata.X.data[:] = np.ceil(adata.X.data * 9)
        path = rewrite(adata, tmp_path / "x.h5ad", chunk=2000)
    loader = make(path, 32, shuffle="exact", max_memory=cap)
    with pytest.raises(ValueError, match="an exact shuffle keeps all cells") as caught:
        next(iter(loader))
    assert f"max_memory={cap:,}" in str(caught.value)
    enough = int(re.search(r"max_memory=([\d,]+) is enough", str(caught.value))[1].replace(",", ""))
    assert cap < enough < 4 * 8 * wide.X.nnz
    loader = make(path, 32, shuffle="exact", max_memory=enough)
    assert sorted(check_values(loader, adata)) == list(range(6000))
    assert loader.stats["peak_nbytes"] <= enough


def test_a_full_store_is_given_back_and_does_not_come_again(wide):
    """The size in compact form is known after epoch 0: later epochs do not try once more."""
    loader = make(wide.uns["path"], 32, max_memory="9MB")
    assert loader.make_core(0, "block").keep_nbytes > 2_700_000  # room for three bytes a value
    before = scio.stats()["live_buf_nbytes"]
    ids(loader)
    assert loader.state_dict()["fits"] is False
    assert scio.stats()["live_buf_nbytes"] - before < 100_000
    ids(loader)
    assert loader.stats["plan"] == "block"
    assert loader.stats["chunks_decoded"] == loader.stats["chunks_total"]


# --- ranks


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("form", ["tokens", "csr"])
def test_ranks_keep_their_own_cells_in_exact_epochs(tiny_h5ad, tiny_adata, drop_last, form):
    loaders = [
        make(tiny_h5ad, 8, drop_last=drop_last, form=form, block_bytes=300, rank=r, world_size=3)
        for r in range(3)
    ]
    own: list[set[int]] = [set() for _ in loaders]
    for epoch in range(4):
        counts, union = set(), []
        for rank, loader in enumerate(loaders):
            seen = []
            n_batches = 0
            for batch in loader:
                check_values([batch], tiny_adata, form)
                real = ~batch.get("is_padding", np.zeros(len(batch["index"]), dtype=bool))
                seen += batch["index"][real].tolist()
                n_batches += 1
            counts.add(n_batches)
            assert len(seen) == len(set(seen))
            if epoch:
                assert facts(loader)[:2] == ("exact", "compact")
            if epoch > 1:
                assert loader.stats["chunks_decoded"] == 0
            own[rank] |= set(seen)
            union += seen
        assert len(counts) == 1
        assert len(union) == len(set(union))
        assert drop_last or sorted(union) == ALL
    assert not (own[0] & own[1])
    assert not (own[0] & own[2])
    assert not (own[1] & own[2])


def test_a_rank_reads_only_its_own_chunks(tmp_path):
    x = sp.random(16_000, 300, density=0.5, format="csr", dtype=np.float32, random_state=0)
    path = rewrite(anndata.AnnData(X=x), tmp_path / "x.h5ad", chunk=2000, compression=None)
    totals = []
    for rank in range(3):
        loader = make(path, 32, rank=rank, world_size=3)
        ids(loader)
        totals.append(loader.stats["chunks_decoded"])
        assert loader.stats["chunks_decoded"] == loader.stats["chunks_total"]
    n_chunks = 2 * -(-x.nnz // 2000)
    assert n_chunks <= sum(totals) < 1.25 * n_chunks  # those of cells at a cut are for two
    assert max(totals) < 0.45 * n_chunks


def test_ranks_of_which_only_some_fit_share_the_cells_all_the_same(tmp_path):
    """Each rank finds out for itself whether its cells fit; the union must not depend on it."""
    x = sp.random(3000, 200, density=0.5, format="csr", dtype=np.float32, random_state=0)
    x.data[: x.nnz // 2] = 1  # narrow rows here, wide ones there
    path = rewrite(anndata.AnnData(X=x), tmp_path / "x.h5ad", chunk=1000)

    def loaders(cap):
        return [
            make(path, 16, max_memory=cap, block_bytes=8_000, rank=r, world_size=2)
            for r in range(2)
        ]

    def plans(cap):
        found = []
        for loader in loaders(cap):
            loader.set_epoch(1)
            next(iter(loader))
            found.append(loader.stats["plan"])
        return found

    low, high = 1_500_000, 8_000_000  # neither fits, both fit
    assert plans(low) == ["block", "block"]
    assert plans(high) == ["exact", "exact"]
    while len(set(found := plans((low + high) // 2))) == 1:
        low, high = ((low + high) // 2, high) if "block" in found else (low, (low + high) // 2)
    both = loaders((low + high) // 2)
    for _ in range(3):
        union = [i for loader in both for i in ids(loader)]
        assert sorted(union) == list(range(3000))
        assert len({loader.stats["batches"] for loader in both}) == 1
    assert {loader.stats["plan"] for loader in both} == {"block", "exact"}


# --- samplers


def test_samplers_take_their_rows_from_the_store(tiny_h5ad, tiny_adata):
    order = np.random.default_rng(0).integers(0, N_CELLS, 300).tolist()
    loader = make(tiny_h5ad, sampler=order)
    for epoch in range(2):
        assert check_values(loader, tiny_adata) == order
        assert facts(loader)[:2] == ("given", "compact")
        assert (loader.stats["chunks_decoded"] == 0) is (epoch > 0)
    batches = [[5, 5, 7], [N_CELLS - 1], [0, 3, 17, 100], *[[i] for i in range(50)]]
    loader = make(tiny_h5ad, batch_sampler=batches, form="dense")
    for _ in range(2):
        got = list(loader)
        assert [b["index"].tolist() for b in got] == batches
        check_values(got, tiny_adata, "dense")
    assert facts(loader)[:3] == ("given", "compact", 0)


def test_a_sampler_of_few_cells_decodes_only_theirs(tiny_h5ad, tiny_adata):
    loader = make(tiny_h5ad, sampler=[7, 200])
    before = scio.stats()["chunks_decoded"]
    for _ in range(2):
        assert check_values(loader, tiny_adata) == [7, 200]
        assert facts(loader)[:2] == ("given", "decoded")
        assert scio.stats()["chunks_decoded"] - before <= 8


def test_samplers_work_where_the_store_does_not_fit(wide):
    order = np.random.default_rng(1).permutation(6000)[:640].tolist()
    loader = make(wide.uns["path"], 32, sampler=order, max_memory="3MB")
    for _ in range(2):
        assert check_values(loader, wide) == order
        assert facts(loader)[:2] == ("given", "decoded")
        assert loader.stats["peak_nbytes"] <= 3_000_000


# --- sources


@pytest.mark.parametrize("kind", ["memory", "csc memory", "dense memory", "csc", "dense"])
@pytest.mark.parametrize("form", ["tokens", "csr"])
def test_other_sources_have_the_same_plans(tiny_adata, tmp_path, kind, form):
    adata = tiny_adata.copy()
    if "csc" in kind:
        adata.X = sp.csc_matrix(adata.X)
    elif "dense" in kind:
        adata.X = adata.X.toarray()
    source = adata if "memory" in kind else rewrite(adata, tmp_path / "x.h5ad")
    loader = make(source, form=form)
    for epoch in range(3):
        assert sorted(check_values(loader, tiny_adata, form)) == ALL
        assert loader.stats["plan"] == ("exact" if epoch else "block")
        if kind == "dense":
            assert loader.stats["rows"] == ("compact" if epoch else "decoded")
        else:
            assert loader.stats["rows"] == "memory"  # a CSC file was converted into memory
        assert loader.stats["chunks_decoded"] == (loader.stats["chunks_total"] if not epoch else 0)


def test_files_with_other_gene_orders_share_an_exact_epoch(tmp_path):
    one = make_adata(90, 30, seed=1)
    other = make_adata(120, 50, seed=2)[:, ::-1].copy()
    paths = [rewrite(a, tmp_path / f"{i}.h5ad") for i, a in enumerate((one, other))]
    cells = CellDataset([str(p) for p in paths], None)
    genes = cells.gene_vocab.genes
    frames = [pd.DataFrame(a.X.toarray(), columns=a.var_names) for a in (one, other)]
    expected = pd.concat(frames).reindex(columns=genes).fillna(0).to_numpy(np.float32)
    loader = make(cells, 20, block_bytes=400)
    for epoch in range(2):
        seen = []
        for batch in loader:
            rows = dense_rows(batch, "csr", len(genes))
            np.testing.assert_array_equal(rows, expected[batch["index"]])
            seen.append(batch["index"])
        assert sorted(np.concatenate(seen).tolist()) == list(range(210))
        assert facts(loader)[:2] == (("exact", "compact") if epoch else ("block", "decoded"))
    assert all((batch < 90).any() and (batch >= 90).any() for batch in seen[:-1])


@pytest.mark.parametrize("how", ["indices", "query", "split"])
def test_subsets_keep_only_their_cells(tiny_h5ad, tiny_adata, how):
    wanted = {
        "indices": {"indices": np.arange(0, 40)},
        "query": {"obs_query": {"cell_type": "type3"}},
        "split": {},
    }[how]
    cells = CellDataset(tiny_h5ad, None, **wanted)
    if how == "split":
        cells = cells.split({"a": 0.2, "b": 0.8}, seed=1)["a"]
    loader = make(cells, 8, block_bytes=300)
    whole = make(tiny_h5ad, 8, block_bytes=300)
    for some_loader, n_epochs in ((loader, 3), (whole, 1)):
        for _ in range(n_epochs):
            seen = check_values(some_loader, tiny_adata)
    assert sorted(check_values(loader, tiny_adata)) == cells.cells.tolist()
    assert facts(loader)[:3] == ("exact", "compact", 0)
    compact = loader._residence._compact
    assert sorted(set(ALL) - set(compact.missing().tolist())) == cells.cells.tolist()
    assert len(seen) == N_CELLS
    if how != "split":
        loader = make(cells, 8, block_bytes=300)
        ids(loader)
        assert loader.stats["chunks_decoded"] < whole.stats["chunks_decoded"] / 2


# --- faults


def test_skipped_cells_are_counted_in_each_epoch(tiny_adata, tmp_path):
    path = rewrite(tiny_adata, tmp_path / "x.h5ad", chunk=50)
    break_chunk(path, "/X/data", 4)
    indptr = tiny_adata.X.indptr
    broken = [i for i in ALL if indptr[i] < 250 and indptr[i + 1] > 200]
    for shuffle in (True, "exact", "block", False):
        loader = make(path, on_error="skip", shuffle=shuffle, block_bytes=200)
        for epoch in range(3):
            with pytest.warns(ScioWarning, match=f"{len(broken)} cells of broken chunks"):
                seen = check_values(loader, tiny_adata)
            assert sorted(seen) == sorted(set(ALL) - set(broken)), (shuffle, epoch)
            assert loader.stats["skipped_cells"] == len(broken), (shuffle, epoch)
            assert loader.stats["cells"] == len(seen)
        if shuffle is True:
            assert loader.stats["plan"] == "exact"


# --- processes


def test_a_loader_with_a_full_store_can_be_pickled(tiny_h5ad):
    loader = make(tiny_h5ad, block_bytes=500)
    expected = [epoch_bytes(loader) for _ in range(3)]
    loader.set_epoch(1)
    text = pickle.dumps(loader)
    assert len(text) < 100_000  # settings, no rows
    other = pickle.loads(text)
    assert epoch_bytes(other) == expected[1]
    assert epoch_bytes(other) == expected[2]
    assert facts(other)[:3] == ("exact", "compact", 0)
    assert epoch_bytes(loader) == expected[1]


def test_a_child_of_fork_uses_the_store_of_its_parent(tiny_h5ad):
    loader = make(tiny_h5ad, block_bytes=500)
    expected = [epoch_bytes(loader) for _ in range(3)]
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = b"failed"
        try:
            loader.set_epoch(1)
            if epoch_bytes(loader) == expected[1] and loader.stats["chunks_decoded"] == 0:
                status = b"equal"
        finally:
            os.write(write_end, status)
            os._exit(0)
    os.close(write_end)
    assert os.read(read_end, 100) == b"equal"
    os.close(read_end)
    assert os.waitpid(pid, 0)[1] == 0
    loader.set_epoch(2)
    assert epoch_bytes(loader) == expected[2]
