"""The cap is kept, by the loader's own count and by the process's; statistics add up."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import anndata
import numpy as np
import pytest
import scipy.sparse as sp

import scio
from scio.data import CellDataLoader, CellDataset, PreprocessingPipeline
from tests.data.conftest import rewrite
from tests.data.test_cache import run

N_GENES = 1000


def make_adata(n_cells: int, nnz: int, seed: int = 0, is_float: bool = False) -> anndata.AnnData:
    """Counts, `nnz` a cell on average; cells of very different lengths."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(nnz // 4, nnz * 7 // 4, n_cells)
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    starts = np.repeat(rng.integers(0, N_GENES - 2 * nnz, n_cells), lengths)
    indices = (starts + np.arange(indptr[-1]) - np.repeat(indptr[:-1], lengths)).astype(np.int32)
    data = rng.integers(1, 200, indptr[-1]).astype(np.float32)
    if is_float:
        data += rng.random(len(data), dtype=np.float32)
    return anndata.AnnData(sp.csr_matrix((data, indices, indptr), shape=(n_cells, N_GENES)))


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    """20,000 cells, 24 MB decoded, 12 MB in compact form."""
    adata = make_adata(20_000, 150, is_float=True)
    return rewrite(adata, tmp_path_factory.mktemp("memory") / "x.h5ad", chunk=10_000)


class Watch:
    """Samples the bytes of all the core's buffers in a thread of its own."""

    def __init__(self) -> None:
        self.base = scio.stats()["live_buf_nbytes"]
        self.peak = 0
        self.n_samples = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.wait(0.0005):
            self.peak = max(self.peak, scio.stats()["live_buf_nbytes"] - self.base)
            self.n_samples += 1

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()


# --- the cap


@pytest.mark.parametrize("form", ["tokens", "dense", "csr"])
@pytest.mark.parametrize("cap", [4, 8, 32])
@pytest.mark.parametrize("shuffle", [True, False])
def test_buffers_never_exceed_the_cap(path, form, cap, shuffle):
    """Also the buffer of the batch in the consumer's hand; with 32 MB the rows stay from epoch 1 on."""
    cells = CellDataset(path, None, PreprocessingPipeline())
    loader = CellDataLoader(
        cells, 64, 2, shuffle, form=form, to="numpy", max_memory=cap << 20, drop_last=False
    )
    with Watch() as watch:
        for epoch in range(2):
            n_cells = 0
            for batch in loader:
                n_cells += len(batch["index"])
            assert n_cells == 20_000
            stats = loader.stats
            assert stats["cap_nbytes"] == cap << 20
            assert 0 < stats["peak_nbytes"] <= cap << 20
            if epoch == 1:
                assert stats["rows"] == ("compact" if cap == 32 else "decoded")
    assert watch.n_samples > 20
    assert (cap << 20) / 100 < watch.peak <= cap << 20
    del batch, loader
    assert scio.stats()["live_buf_nbytes"] <= watch.base


@pytest.mark.parametrize("how", ["slow consumer", "exact", "cache", "tracks", "sampler", "ranks"])
def test_the_cap_holds_in_other_ways_of_use(tmp_path, path, how):
    cap, options, cells = 6 << 20, {}, None
    if how == "exact":
        cap, options = 32 << 20, {"shuffle": "exact"}
    elif how == "cache":
        options = {"cache": tmp_path / "cache"}
    elif how == "tracks":
        adata = make_adata(5000, 150, is_float=True)
        adata.layers["more"] = make_adata(5000, 100, 1, is_float=True).X
        adata.obsm["X_pca"] = np.random.default_rng(0).normal(size=(5000, 20))
        two = rewrite(adata, tmp_path / "two.h5ad", chunk=10_000)
        cells = CellDataset(two, None, layers=["more"], obsm=["X_pca"])
    elif how == "sampler":
        options = {"sampler": np.random.default_rng(0).integers(0, 20_000, 4000).tolist()}
    elif how == "ranks":
        options = {"rank": 1, "world_size": 3}
    loader = CellDataLoader(
        cells or CellDataset(path, None), 64, 2, form="csr", to="numpy", max_memory=cap, **options
    )
    for epoch in range(2):
        with Watch() as watch:
            for i, _batch in enumerate(loader):
                if how == "slow consumer" and i % 20 == 0:
                    time.sleep(0.02)  # everything fills up
        assert 0 < loader.stats["peak_nbytes"] <= cap
        if how == "cache" and epoch == 1:  # mapped pages are counted, but the page cache's
            assert loader.stats["rows"] == "mapped"
            watch.peak -= sum(file.stat().st_size for file in (tmp_path / "cache").iterdir())
        assert watch.peak <= cap
        if epoch == 0:
            assert watch.base + watch.peak > cap / 100  # it did watch


RESIDENT = """
    import json, sys, threading
    import scio
    from scio.data import CellDataLoader, CellDataset, PreprocessingPipeline
    path, cap, form, batch_size, cache = sys.argv[1:]

    def rss():
        return int(open("/proc/self/statm").read().split()[1]) * 4096

    cells = CellDataset(path, None, PreprocessingPipeline())
    base, peak, stop = rss(), 0, threading.Event()

    def watch():
        global peak
        while not stop.wait(0.001):
            peak = max(peak, rss())

    thread = threading.Thread(target=watch)
    thread.start()
    loader = CellDataLoader(cells, int(batch_size), 2, form=form, to="numpy", drop_last=False,
                            max_memory=int(cap), cache=cache or None)
    rows = []
    for _ in range(2):
        assert sum(len(batch["index"]) for batch in loader) == len(cells)
        rows.append(loader.stats["rows"])
    stop.set()
    thread.join()
    print(json.dumps({"base": base, "peak": peak, "rows": rows,
                      "counted": loader.stats["peak_nbytes"]}))
"""


@pytest.mark.parametrize(
    ("cap", "form"), [(4, "csr"), (8, "csr"), (8, "tokens"), (8, "dense"), (32, "csr")]
)
def test_the_process_grows_by_the_cap_and_little_more(path, form, cap):
    """What the cap does not count: plan, indptr and maps (a few bytes a cell), threads, Python."""
    facts = json.loads(run(RESIDENT, path, cap << 20, form, 64, "").stdout)
    assert facts["peak"] - facts["base"] < (cap << 20) + 12e6, facts
    assert facts["rows"] == ["decoded", "compact" if cap == 32 else "decoded"]


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    """100,000 cells, 160 MB decoded."""
    adata = make_adata(100_000, 200)
    return rewrite(
        adata, tmp_path_factory.mktemp("large") / "x.h5ad", chunk=20_000, compression=None
    )


@pytest.mark.parametrize(("form", "batch_size"), [("csr", 64), ("tokens", 4096), ("dense", 1024)])
def test_100_000_cells_under_500_mb_resident(large, form, batch_size):
    """With a cap of 200 MB: Python with torch, which scio.data loads, takes 230 MB of them."""
    facts = json.loads(run(RESIDENT, large, 200 << 20, form, batch_size, "").stdout)
    assert facts["peak"] < 500e6, facts
    assert facts["rows"] == ["decoded", "compact"]


def test_100_000_cells_from_a_mapped_file(large, tmp_path):
    facts = json.loads(run(RESIDENT, large, 24 << 20, "csr", 64, tmp_path / "cache").stdout)
    assert facts["rows"] == ["decoded", "mapped"]
    mapped = sum(p.stat().st_size for p in (tmp_path / "cache").iterdir())
    # Pages of the file count as resident while the system has room for them; they are not ours.
    assert facts["peak"] - facts["base"] - mapped < (24 << 20) + 40e6, facts


# --- leaks


LEAKS = """
    import gc, os, sys
    import scio
    from scio.data import CellDataLoader, CellDataset
    path, cache, n_uses = sys.argv[1:]
    cells = CellDataset(path, None)

    def facts():
        gc.collect()
        return (len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd")),
                scio.stats()["live_bufs"],
                len(os.listdir(cache)) if cache else 0,
                sum(1 for _ in open("/proc/self/maps")),
                int(open("/proc/self/statm").read().split()[1]) * 4096)

    def use(n):
        for i in range(n):
            loader = CellDataLoader(cells, 16, 2, form="csr", to="numpy", drop_last=False,
                                    max_memory="1.6MB" if cache else None, cache=cache or None)
            for _ in loader:  # epoch 0 fills the store or the file
                if i % 4 == 0:
                    break
            next(iter(loader))  # an exact epoch is broken off
            if i % 4 != 0:
                assert loader.stats["rows"] == ("mapped" if cache else "compact")

    use(60)
    before = facts()
    use(int(n_uses))
    print(*before, *facts())
"""


@pytest.mark.parametrize("how", ["compact", "cache"])
def test_loaders_with_resident_rows_leave_nothing(tmp_path, how):
    n_cells, n_uses = (300, 1000) if how == "compact" else (5000, 120)
    path = rewrite(make_adata(n_cells, 60, is_float=True), tmp_path / "x.h5ad", chunk=2000)
    cache = tmp_path / "cache" if how == "cache" else ""
    numbers = [int(n) for n in run(LEAKS, path, cache, n_uses).stdout.split()]
    before, after = numbers[: len(numbers) // 2], numbers[len(numbers) // 2 :]
    assert after[:4] == before[:4]
    assert after[4] <= before[4] + 8  # mappings: the allocator may take some
    assert after[5] - before[5] < 12_000_000


# --- statistics


NUMBERS = {
    "cells", "batches", "skipped_cells", "seconds", "cells_per_second", "seconds_wait",
    "seconds_consumer", "seconds_decode", "seconds_gather", "seconds_collate", "nbytes_read",
    "chunks_decoded", "chunks_total", "n_windows", "n_blocks", "peak_nbytes", "cap_nbytes",
}  # fmt: skip


def check_stats(stats: dict, n_cells: int, n_batches: int, wall: float) -> None:
    assert set(stats) == NUMBERS | {"plan", "rows"}
    assert all(f"``{name}``" in CellDataLoader.stats.__doc__ for name in stats)
    assert all(stats[name] >= 0 for name in NUMBERS)
    assert (stats["cells"], stats["batches"]) == (n_cells, n_batches)
    assert 0 < stats["seconds"] <= wall
    assert stats["seconds_wait"] <= stats["seconds"]
    total = stats["seconds_wait"] + stats["seconds_consumer"]
    assert total == pytest.approx(stats["seconds"])
    assert stats["cells_per_second"] == pytest.approx(n_cells / stats["seconds"])
    assert stats["chunks_decoded"] <= stats["chunks_total"]
    assert stats["peak_nbytes"] <= stats["cap_nbytes"]
    # times of threads: never more than all of them could have worked (and those of scio's pool)
    threads = scio._core.cpu_count() + 1
    work = stats["seconds_decode"] + stats["seconds_gather"] + stats["seconds_collate"]
    assert work <= wall * threads


@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.parametrize("shuffle", [True, "exact", False])
def test_statistics_are_whole_and_add_up_while_iterating_too(path, threads, shuffle):
    cells = CellDataset(path, None, PreprocessingPipeline())
    loader = CellDataLoader(
        cells, 100, threads, shuffle, form="csr", to="numpy", max_memory="48MB", drop_last=False
    )
    assert loader.stats == {}
    chunks = sum(len(scio.open(path).file.dataset(f"X/{n}").units()) for n in ("data", "indices"))
    for epoch in range(2):
        start = time.perf_counter()
        n_cells = 0
        for n_batches, batch in enumerate(loader, 1):
            n_cells += len(batch["index"])
            if n_batches % 40 == 1:
                check_stats(loader.stats, n_cells, n_batches, time.perf_counter() - start)
        stats = loader.stats
        check_stats(stats, 20_000, 200, time.perf_counter() - start)
        is_decoded = epoch == 0
        assert stats["chunks_decoded"] == (chunks if is_decoded else 0)
        assert (stats["nbytes_read"] > 1_000_000) is is_decoded
        assert (stats["seconds_decode"] > 0) is is_decoded
        assert stats["seconds_gather"] > 0
        assert stats["seconds_collate"] > 0
        assert stats["n_blocks"] > 0 or not is_decoded or shuffle == "exact"
        assert stats["n_windows"] >= 1
        assert loader.stats == stats  # they stand still behind the end


def test_statistics_tell_who_waits_for_whom(path):
    cells = CellDataset(path, None)
    slow = CellDataLoader(cells, 500, 2, form="csr", to="numpy")
    for _ in slow:
        time.sleep(0.01)
    assert slow.stats["seconds_consumer"] >= 40 * 0.01
    assert slow.stats["seconds_consumer"] > slow.stats["seconds_wait"]
    inline = CellDataLoader(cells, 500, 0, form="csr", to="numpy")
    for _ in inline:
        pass
    stats = inline.stats
    work = stats["seconds_decode"] + stats["seconds_gather"] + stats["seconds_collate"]
    assert stats["seconds_wait"] >= 0.9 * work  # all of the work is done while it waits


def test_bytes_read_are_those_of_the_chunks(path):
    loader = CellDataLoader(CellDataset(path, None), 64, 2, form="csr", to="numpy")
    for _ in loader:
        pass
    file = scio.open(path).file
    stored = sum(file.dataset(f"X/{n}").stored_nbytes for n in ("data", "indices"))
    assert loader.stats["nbytes_read"] == stored
