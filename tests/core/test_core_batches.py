"""collate and Loader: batches against plain NumPy, and how a loader ends."""

from __future__ import annotations

import gc
import threading
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.sparse as sp

from scio import _core
from scio.errors import CorruptFileError, LoaderCancelled
from tests.core.helpers import (
    LOADER,
    N_COLS,
    N_ROWS,
    SPEC,
    file_matrix,
    gene_map,
    memory_matrix,
    random_csr,
)

CELLS = np.random.default_rng(3).permutation(2 * N_ROWS)[:100]


def plain_dense(csr, *, library_size=False, log1p=False):
    """What a batch must hold, in float64 with one rounding per step, as the rules say."""
    dense = csr.toarray().astype(np.float64)
    if library_size:
        total = dense.sum(axis=1, keepdims=True)
        dense = np.divide(dense * 1e4, total, out=np.zeros_like(dense), where=total > 0)
    return np.log1p(dense.astype(np.float32).astype(np.float64)) if log1p else dense


def batch_dense(batch):
    """The dense form of a csr or dense batch."""
    if batch["form"] == "dense":
        return batch["expression"]
    arrays = batch["data"], batch["indices"], batch["indptr"]
    return sp.csr_array(arrays, shape=batch["shape"]).toarray()


def drain(loader):
    batches = []
    while (batch := loader.next()) is not None:
        batches.append(batch)
    return batches


def filled(matrices, options, max_nbytes=1 << 24):
    """A compact store of all cells, filled by a pass in file order that makes no batches."""
    store = _core.Compact(sum(m.shape[0] for m in matrices), 1, max_nbytes)
    fill = _core.Loader(
        matrices, [gene_map()] * len(matrices), **(options | {"shuffle": "none", "fill": True})
    )
    fill.attach(compact=store)
    drain(fill)
    fill.close()
    return store


# --- collate


@pytest.mark.parametrize("form", ["csr", "dense"])
@pytest.mark.parametrize("rule", [{}, {"library_size": True, "log1p": True}])
def test_cells_of_two_matrices_come_in_the_order_asked_for(counts, form, rule, no_leak):
    both = sp.vstack([counts.csr, random_csr(9)]).tocsr()
    matrices = [file_matrix(counts), memory_matrix(random_csr(9))]
    batch = _core.collate(matrices, [gene_map()] * 2, CELLS, **(SPEC | {"form": form} | rule))
    assert (batch["n_cells"], batch["width"], batch["is_padding"]) == (100, N_COLS, None)
    np.testing.assert_array_equal(batch["index"], CELLS)
    want = plain_dense(both[CELLS], **rule)
    np.testing.assert_allclose(batch_dense(batch), want, rtol=3e-7)


def test_tokens(counts):
    csr = counts.csr
    cells = np.array([5, 0, 5])
    batch = _core.collate(
        [file_matrix(counts)], [gene_map()], cells, **(SPEC | {"form": "tokens", "pad_value": -1.0})
    )
    n_genes = np.diff(csr.indptr)[cells]
    assert batch["n_genes"].tolist() == n_genes.tolist()
    assert batch["width"] == n_genes.max()
    assert list(batch) == [
        "form", "n_cells", "width", "index", "is_padding",
        "expression", "gene_indices", "attention_mask", "n_genes",
    ]  # fmt: skip
    for row, cell in enumerate(cells):
        n = n_genes[row]
        want = csr[[cell]]
        np.testing.assert_array_equal(batch["gene_indices"][row, :n], want.indices + 4)
        np.testing.assert_array_equal(batch["expression"][row, :n], want.data)
        assert not batch["gene_indices"][row, n:].any()
        assert (batch["expression"][row, n:] == -1.0).all()
    np.testing.assert_array_equal(batch["attention_mask"].sum(axis=1), n_genes)
    dtypes = {k: v.dtype.name for k, v in batch.items() if isinstance(v, np.ndarray)}
    assert dtypes == {
        "index": "int64", "expression": "float32", "gene_indices": "int64",
        "attention_mask": "int64", "n_genes": "int64",
    }  # fmt: skip


def test_a_mask_keeps_genes_and_a_map_drops_them(counts):
    ids = gene_map()
    ids[::2] = -1
    mask = np.ones(N_COLS + 4, np.uint8)
    mask[4:20] = 0
    batch = _core.collate(
        [file_matrix(counts)],
        [ids],
        np.arange(N_ROWS),
        **(SPEC | {"form": "dense", "id_mask": mask}),
    )
    want = counts.csr.toarray()
    want[:, ::2] = 0
    want[:, :16] = 0
    np.testing.assert_array_equal(batch["expression"], want)


def test_batches_belong_to_the_consumer(counts, no_leak):
    batch = _core.collate([file_matrix(counts)], [gene_map()], np.arange(9), **SPEC)
    for value in batch.values():
        if isinstance(value, np.ndarray):
            assert value.flags.writeable
            value[:] = 1
    del batch, value
    with pytest.raises(IndexError):
        _core.collate([file_matrix(counts)], [gene_map()], np.array([0, N_ROWS]), **SPEC)


def test_no_cells_give_an_empty_batch(counts):
    batch = _core.collate([file_matrix(counts)], [gene_map()], np.empty(0, np.int64), **SPEC)
    assert (batch["n_cells"], batch["indptr"].tolist()) == (0, [0])


# --- Loader


@pytest.mark.parametrize("shuffle", ["none", "block", "exact"])
@pytest.mark.parametrize("threads", [-1, 0, 1, 3])
def test_an_epoch_has_every_cell_once_in_the_order_of_the_plan(counts, shuffle, threads, no_leak):
    matrices = [file_matrix(counts), memory_matrix(random_csr(9))]
    both = sp.vstack([counts.csr, random_csr(9)]).tocsr()
    options = LOADER | {"shuffle": shuffle, "threads": threads}
    if shuffle == "exact":
        options["resident"] = filled(matrices, options)
    loader = _core.Loader(matrices, [gene_map()] * 2, **options)
    cells, offsets = loader.plan()
    assert loader.n_batches == len(offsets) - 1 == 10
    batches = drain(loader)
    assert [b["n_cells"] for b in batches] == np.diff(offsets).tolist()
    np.testing.assert_array_equal(np.concatenate([b["index"] for b in batches]), cells)
    np.testing.assert_array_equal(np.sort(cells), np.arange(2 * N_ROWS))
    for batch in batches:
        np.testing.assert_array_equal(batch_dense(batch), both[batch["index"]].toarray())
    assert loader.next() is None
    stats = loader.stats()
    assert (stats["cells"], stats["batches"]) == (2 * N_ROWS, 10)
    loader.close()
    assert loader.stats()["cells"] == 2 * N_ROWS
    del batches, batch, loader, cells, offsets, options


def test_an_exact_plan_says_that_its_rows_are_nowhere(counts):
    loader = _core.Loader([file_matrix(counts)], [gene_map()], **(LOADER | {"shuffle": "exact"}))
    assert sorted(loader.plan()[0]) == list(range(N_ROWS))
    with pytest.raises(ValueError, match=r"cell \d+ is not resident"):
        loader.next()


def test_given_batches(counts, no_leak):
    cells = np.array([7, 7, 299, 0, 5], np.int64)
    loader = _core.Loader(
        [file_matrix(counts)], [gene_map()],
        **(LOADER | {"shuffle": "given", "given_cells": cells, "given_offsets": np.array([0, 2, 5])}),
    )  # fmt: skip
    assert [b["index"].tolist() for b in drain(loader)] == [[7, 7], [299, 0, 5]]
    del loader


def test_ranks_wrap_and_say_so(counts):
    batches = []
    for rank in range(3):
        loader = _core.Loader(
            [file_matrix(counts)], [gene_map()],
            **(LOADER | {"rank": rank, "world_size": 3, "batch_size": 32}),
        )  # fmt: skip
        batches.append(drain(loader))
    assert len({len(b) for b in batches}) == 1
    everything = [b for rank in batches for b in rank]
    own = [
        b["index"] if b["is_padding"] is None else b["index"][~b["is_padding"]] for b in everything
    ]
    np.testing.assert_array_equal(np.sort(np.concatenate(own)), np.arange(N_ROWS))
    assert {b["is_padding"].dtype for b in everything if b["is_padding"] is not None} <= {
        np.dtype(bool)
    }


def test_a_loader_owns_what_it_needs(counts, no_leak):
    loader = _core.Loader(
        [file_matrix(counts)], [gene_map()],
        **(LOADER | {"cells": np.arange(0, N_ROWS, 2), "id_mask": np.ones(N_COLS + 4, np.uint8)}),
    )  # fmt: skip
    gc.collect()
    batches = drain(loader)
    assert sum(b["n_cells"] for b in batches) == N_ROWS // 2
    del batches, loader


@pytest.mark.parametrize("n_taken", [0, 1, 3])
def test_a_loader_dropped_early_leaves_nothing(counts, n_taken, no_leak):
    for _ in range(20):
        loader = _core.Loader([file_matrix(counts)], [gene_map()], **LOADER)
        for _ in range(n_taken):
            assert loader.next() is not None
        del loader


def test_close_twice_and_use_after_close(counts):
    loader = _core.Loader([file_matrix(counts)], [gene_map()], **LOADER)
    loader.next()
    loader.close()
    loader.close()
    loader.cancel()
    for use in (loader.next, loader.plan):
        with pytest.raises(ValueError, match="the loader is closed"):
            use()
    assert loader.stats()["batches"] >= 1
    assert loader.n_batches == 5


def slow_matrix(counts, delay):
    image = Path(counts.path).read_bytes()
    event = threading.Event()

    def read(offset, nbytes):
        if event.is_set():
            threading.Event().wait(delay)
        return image[offset : offset + nbytes]

    file = _core.File(read, nbytes=len(image), name="slow")
    matrix = _core.Matrix.open_sparse(file, "X", shape=counts.csr.shape)
    event.set()
    return matrix


@pytest.mark.parametrize("stop", ["cancel", "close"])
def test_another_thread_can_stop_a_loader_that_waits(counts, stop, no_leak):
    loader = _core.Loader([slow_matrix(counts, 0.5)], [gene_map()], **LOADER)
    threading.Timer(0.1, getattr(loader, stop)).start()
    with pytest.raises(LoaderCancelled, match="cancelled"):
        drain(loader)
    with pytest.raises((LoaderCancelled, ValueError), match=r"cancelled|closed"):
        loader.next()
    del loader


def test_only_one_thread_takes_batches(counts):
    loader = _core.Loader([slow_matrix(counts, 0.5)], [gene_map()], **LOADER)
    failures = []

    def take():
        try:
            loader.next()
        except ValueError as error:
            failures.append(str(error))

    threads = [threading.Thread(target=take) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert failures == ["another thread waits in Loader.next: one at a time"] * 2


def broken_file(counts):
    with h5py.File(counts.path) as file:
        chunk = file["X/data"].id.get_chunk_info(2)
    with Path(counts.path).open("r+b") as raw:
        raw.seek(chunk.byte_offset + chunk.size // 2)
        raw.write(b"\xff" * 8)
    return file_matrix(counts)


def test_a_broken_chunk_ends_the_epoch_with_its_place(counts, no_leak):
    loader = _core.Loader([broken_file(counts)], [gene_map()], **(LOADER | {"shuffle": "none"}))
    with pytest.raises(CorruptFileError, match=r"counts\.h5ad.*X"):
        drain(loader)
    with pytest.raises((ValueError, LoaderCancelled)):
        loader.next()
    del loader


def test_cells_of_a_broken_chunk_can_be_left_out(counts):
    loader = _core.Loader([broken_file(counts)], [gene_map()], **(LOADER | {"skip_errors": True}))
    n_cells = sum(b["n_cells"] for b in drain(loader))
    assert 0 < n_cells < N_ROWS
    assert loader.stats()["skipped_cells"] == N_ROWS - n_cells


def test_a_cycle_through_a_loader_is_collected(counts, no_leak):
    class Owner:
        pass

    for _ in range(5):
        owner = Owner()
        image = Path(counts.path).read_bytes()
        file = _core.File(
            lambda at, n, o=owner, i=image: i[at : at + n], nbytes=len(image), name="call"
        )
        owner.loader = _core.Loader(
            [_core.Matrix.open_sparse(file, "X", shape=counts.csr.shape)], [gene_map()], **LOADER
        )
        owner.loader.next()
        del owner, file
