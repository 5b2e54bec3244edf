"""Fast-layout files of sources: written row by row, mapped, refused when anything does not fit."""

from __future__ import annotations

import gc
import multiprocessing
import os
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import scio
from scio import _core
from scio.data._cache import FastCache
from scio.data.anndata_store import AnnDataStore
from scio.errors import CorruptFileError, IOFormatError, IOWriteError, LoaderError
from tests.data.conftest import N_CELLS, make_adata, rewrite
from tests.mounts import on_tmpfs


def put(cache: FastCache, sink: _core.Sink, cells: np.ndarray, seed: int = 0) -> None:
    """Put cells as a loader does: in any order, some twice, from the sources' matrices."""
    order = np.random.default_rng(seed).permutation(np.concatenate([cells, cells[::7]]))
    for i, part in enumerate(cache._parts):
        first = part.first_cell
        mine = order[(order >= first) & (order < first + part.n_source_cells)]
        for batch in np.array_split(mine, 5):
            rows = np.ascontiguousarray(batch - first)
            tracks = []
            for matrix in part.sources():
                if matrix.kind == "dense":
                    whole = matrix.read_dense(0, matrix.shape[0])
                    tracks.append(np.ascontiguousarray(whole[rows]))
                else:
                    tracks.append(matrix.take(rows))
            sink.put(i, np.ascontiguousarray(batch), tracks)


def make(directory: Path, store: AnnDataStore, cells: np.ndarray | None = None) -> FastCache:
    """A cache that was written and published."""
    cache = FastCache(directory, store, cells)
    sink = cache.start()
    assert sink is not None
    put(cache, sink, np.arange(len(store)) if cells is None else cells)
    assert len(sink.missing()) == 0
    cache.publish(sink)
    return cache


def dense_of(matrix: _core.Matrix) -> np.ndarray:
    return matrix.read_dense(0, matrix.shape[0])


def temporaries(directory: Path) -> list[str]:
    return [name for name in os.listdir(directory) if ".scio-" in name]


@pytest.fixture
def store(tiny_h5ad: Path) -> AnnDataStore:
    return AnnDataStore(str(tiny_h5ad))


# --- what is written


def test_a_whole_source_is_written_and_mapped(store, tiny_h5ad, tiny_adata, tmp_path):
    cache = FastCache(tmp_path / "new", store, None)
    assert cache.is_possible
    assert not cache.is_complete()
    cache = make(tmp_path / "new", store)
    assert cache.is_complete()
    assert FastCache(tmp_path / "new", store, None).is_complete()
    [[matrix]] = cache.matrices()
    assert matrix.is_mapped
    assert not matrix.is_in_file
    assert (matrix.dtype, matrix.index_dtype) == ("uint16", "uint16")
    assert matrix.nbytes < 8192
    np.testing.assert_array_equal(dense_of(matrix), tiny_adata.X.toarray())
    [path] = cache.paths
    assert os.listdir(tmp_path / "new") == [path.name]
    assert path.name.startswith("tiny-")
    mine, theirs = anndata.read_h5ad(path), anndata.read_h5ad(tiny_h5ad)
    pd.testing.assert_frame_equal(mine.obs, theirs.obs)
    pd.testing.assert_frame_equal(mine.var, theirs.var)
    np.testing.assert_array_equal(mine.X.toarray(), theirs.X.toarray())


def test_pbmc3k_equals_its_source_for_anndata(tmp_path):
    source = scio.datasets.pbmc3k()
    cache = make(tmp_path, AnnDataStore(source))
    mine, theirs = anndata.read_h5ad(cache.paths[0]), anndata.read_h5ad(source)
    pd.testing.assert_frame_equal(mine.obs, theirs.obs)
    pd.testing.assert_frame_equal(mine.var, theirs.var)
    assert (mine.X != theirs.X).nnz == 0
    assert mine.X.dtype == np.uint16


def test_a_selection_over_two_sources(tiny_h5ad, tmp_path):
    other = rewrite(make_adata(50, 30, seed=3, prefix="other"), tmp_path / "other.h5ad")
    store = AnnDataStore([str(tiny_h5ad), str(other)])
    cells = np.sort(np.random.default_rng(1).choice(N_CELLS + 50, 90, replace=False))
    cells = cells.astype(np.int64)
    cache = make(tmp_path / "cache", store, cells)
    (first,), (second,) = cache.matrices()
    low = cells[cells < N_CELLS]
    high = cells[cells >= N_CELLS] - N_CELLS
    np.testing.assert_array_equal(dense_of(first), make_adata().X.toarray()[low])
    expected = make_adata(50, 30, seed=3, prefix="other").X.toarray()[high]
    np.testing.assert_array_equal(dense_of(second), expected)
    read = anndata.read_h5ad(cache.paths[1])
    assert read.obs_names.tolist() == [f"cell{i}" for i in high]
    pd.testing.assert_frame_equal(read.obs, anndata.read_h5ad(other).obs.iloc[high])
    assert not FastCache(tmp_path / "cache", store, cells[:-1]).is_complete()
    assert not FastCache(tmp_path / "cache", store, None).is_complete()


def test_selecting_every_cell_is_selecting_none(store, tmp_path):
    make(tmp_path, store)
    assert FastCache(tmp_path, store, np.arange(N_CELLS, dtype=np.int64)).is_complete()


@pytest.mark.parametrize("is_empty", [True, False])
def test_few_cells(store, tmp_path, is_empty):
    cells = np.array([], dtype=np.int64) if is_empty else np.array([3], dtype=np.int64)
    cache = make(tmp_path, store, cells)
    assert cache.is_complete()
    assert cache.matrices()[0][0].shape == (len(cells), 40)


def test_layers_and_obsm_travel_along(tmp_path):
    adata = make_adata()
    adata.layers["twice"] = adata.X * 2
    adata.layers["dense"] = adata.X.toarray() + 0.5
    adata.obsm["pca"] = np.random.default_rng(0).random((N_CELLS, 3))
    adata.write_h5ad(tmp_path / "src.h5ad", compression="gzip")
    store = AnnDataStore(str(tmp_path / "src.h5ad"))
    store.track_paths = ["layers/twice", "layers/dense", "obsm/pca"]  # type: ignore[attr-defined]
    cells = np.arange(0, N_CELLS, 2, dtype=np.int64)
    cache = make(tmp_path / "cache", store, cells)
    [[X, twice, dense, pca]] = cache.matrices()
    np.testing.assert_array_equal(dense_of(X), adata.X.toarray()[cells])
    np.testing.assert_array_equal(dense_of(twice), adata.X.toarray()[cells] * 2)
    np.testing.assert_array_equal(dense_of(dense), adata.layers["dense"][cells])
    np.testing.assert_array_equal(dense_of(pca), adata.obsm["pca"][cells])
    assert [m.dtype for m in (X, twice, dense, pca)] == ["uint16", "uint16", "float32", "float64"]
    read = anndata.read_h5ad(cache.paths[0])
    np.testing.assert_array_equal(read.obsm["pca"], adata.obsm["pca"][cells])
    np.testing.assert_array_equal(read.layers["twice"].toarray(), adata.X.toarray()[cells] * 2)
    assert not FastCache(
        tmp_path / "cache", AnnDataStore(str(tmp_path / "src.h5ad")), cells
    ).is_complete()


@pytest.mark.parametrize("kind", ["dense", "csc", "raw", "float", "unsorted"])
def test_other_sources(tmp_path, kind):
    adata = make_adata()
    expected = adata.X.toarray()
    matrix = "X"
    if kind == "dense":
        adata.X = expected
    elif kind == "csc":
        adata.X = adata.X.tocsc()
    elif kind == "raw":
        adata.raw = adata
        adata, matrix = adata[:, :10].copy(), "raw/X"
    elif kind == "float":
        adata.X = adata.X * np.float32(0.37)
        expected = adata.X.toarray()
    else:
        adata.X.indices = adata.X.indices.copy()
        for start, stop in zip(adata.X.indptr[:-1], adata.X.indptr[1:], strict=True):
            adata.X.indices[start:stop] = adata.X.indices[start:stop][::-1]
        expected = adata.X.toarray()
    adata.write_h5ad(tmp_path / "src.h5ad")
    store = AnnDataStore(str(tmp_path / "src.h5ad"), matrix=matrix)
    cache = make(tmp_path / "cache", store)
    [[mapped]] = cache.matrices()
    np.testing.assert_array_equal(dense_of(mapped), expected)
    assert mapped.kind == ("dense" if kind == "dense" else "csr")
    assert mapped.dtype == ("float32" if kind == "float" else "uint16")
    read = anndata.read_h5ad(cache.paths[0])
    assert read.shape == expected.shape
    np.testing.assert_array_equal(read.X.toarray() if sp.issparse(read.X) else read.X, expected)


def test_the_loader_gives_the_same_batches_from_a_mapped_file(store, tmp_path):
    """The general proof: one plan, rows decoded from the source or taken from the mapped matrix."""
    [[mapped]] = make(tmp_path, store).matrices()
    spec = {
        "cells": None, "n_ids": store.gene_vocab.n_ids, "first_id": 4, "library_size": True,
        "target_sum": 1e4, "log1p": True, "id_mask": None, "select": "most_expressed", "seed": 3,
        "epoch": 0, "pad_id": 0, "pad_value": 0.0, "batch_size": 16, "drop_last": False,
        "shuffle": "block", "rank": 0, "world_size": 1, "max_memory": 0, "block_bytes": 0,
        "threads": 2, "prefetch": 2, "skip_errors": False, "first_batch": 0,
    }  # fmt: skip
    for form, max_genes in (("tokens", 8), ("dense", 0), ("csr", 0)):
        loaders = [
            _core.Loader(
                store.core_matrices(),
                store.gene_maps,
                form=form,
                max_genes=max_genes,
                **spec,
                **rows,
            )
            for rows in ({}, {"mapped": [mapped]})
        ]
        n_batches = 0
        while (theirs := loaders[0].next()) is not None:
            mine = loaders[1].next()
            for key, value in theirs.items():
                np.testing.assert_array_equal(mine[key], value, err_msg=key)
            n_batches += 1
        assert n_batches == -(-N_CELLS // 16)
        assert loaders[1].next() is None


# --- what is not possible


def test_sources_in_memory_cannot_be_cached(tiny_adata, tiny_h5ad, tmp_path):
    for source in (tiny_adata, scio.open(tiny_h5ad.read_bytes()), [str(tiny_h5ad), tiny_adata]):
        cache = FastCache(tmp_path / "never", AnnDataStore(source), None)
        assert not cache.is_possible
        assert not cache.is_complete()
        assert "not a file" in cache.reason
        with pytest.raises(LoaderError, match="not a file"):
            cache.start()
    assert not (tmp_path / "never").exists()


def test_raw_with_layers_does_not_fit_one_file(tmp_path):
    adata = make_adata()
    adata.raw = adata
    adata.layers["a"] = adata.X
    adata.write_h5ad(tmp_path / "src.h5ad")
    store = AnnDataStore(str(tmp_path / "src.h5ad"), matrix="raw/X")
    store.track_paths = ["layers/a"]  # type: ignore[attr-defined]
    assert not FastCache(tmp_path, store, None).is_possible


# --- what goes wrong while writing


def test_missing_cells_are_not_published(store, tmp_path):
    cache = FastCache(tmp_path, store, None)
    sink = cache.start()
    put(cache, sink, np.arange(5, N_CELLS, dtype=np.int64))
    assert sink.missing().tolist() == [0, 1, 2, 3, 4]
    assert sink.n_put == N_CELLS - 5
    with pytest.raises(LoaderError, match=f"5 of {N_CELLS} cells are missing"):
        cache.publish(sink)
    assert os.listdir(tmp_path) == []
    assert make(tmp_path, store).is_complete()


def test_a_late_value_that_does_not_fit_is_no_cache(tmp_path):
    """The first 1,024 cells say uint16, a later one does not: no file, and the reason."""
    values = np.ones((1100, 4), np.float32)
    values[1050, 2] = 0.5
    anndata.AnnData(X=sp.csr_matrix(values)).write_h5ad(tmp_path / "src.h5ad")
    cache = FastCache(tmp_path / "cache", AnnDataStore(str(tmp_path / "src.h5ad")), None)
    sink = cache.start()
    put(cache, sink, np.arange(1100, dtype=np.int64))
    assert sink.is_closed
    assert "cell 1050" in sink.failure
    assert "uint16" in sink.failure
    with pytest.raises(LoaderError, match="cell 1050"):
        cache.publish(sink)
    assert os.listdir(tmp_path / "cache") == []


def test_discard_and_dropping_leave_nothing(store, tmp_path):
    cache = FastCache(tmp_path, store, None)
    sink = cache.start()
    assert len(temporaries(tmp_path)) == 1
    with pytest.raises(LoaderError, match="already"):
        cache.start()
    cache.discard(sink)
    assert os.listdir(tmp_path) == []
    assert sink.is_closed
    n_open = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        FastCache(tmp_path, store, None).start()
        gc.collect()
        assert os.listdir(tmp_path) == []
    assert len(os.listdir("/proc/self/fd")) <= n_open


def run(
    code: str, *args: object, command: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*command, sys.executable, "-c", textwrap.dedent(code), *map(str, args)],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (done.returncode, done.stderr)
    return done


FILL_DISK = """
    import os, sys, warnings
    import numpy as np
    from scio.data._cache import FastCache
    from scio.data.anndata_store import AnnDataStore
    from scio.errors import IOWriteError, LoaderError
    from tests.data.test_cache import put
    folder, source, how = sys.argv[1:]
    cache = FastCache(folder, AnnDataStore(source), None)
    if how == "space":
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert cache.start() is None
        assert "are needed" in str(caught[0].message), caught
    elif how == "lie":  # the disk is smaller than it says
        import scio.data._cache
        scio.data._cache.free_nbytes = lambda directory: 1 << 40
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert cache.start() is None
        assert "space left" in str(caught[0].message), caught
    else:
        try:
            cache.start()
        except IOWriteError as error:
            assert error.errno == 30, error
        else:
            raise AssertionError
    assert os.listdir(folder) == []
"""


@pytest.mark.parametrize(
    ("how", "size"), [("space", "1m"), ("lie", "256k"), ("lie", "5m"), ("read-only", "64m")]
)
def test_a_small_or_read_only_disk(tmp_path, how, size):
    """A real tmpfs: the process goes on, nothing is left, and it exits as it should."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = on_tmpfs(folder, size, is_read_only=how == "read-only")
    run(FILL_DISK, folder, scio.datasets.pbmc3k(), how, command=command)


def test_a_killed_run_leaves_nothing_that_counts(store, tiny_h5ad, tmp_path):
    code = """
        import os, signal, sys
        import numpy as np
        from scio.data._cache import FastCache
        from scio.data.anndata_store import AnnDataStore
        from tests.data.test_cache import put
        cache = FastCache(sys.argv[1], AnnDataStore(sys.argv[2]), None)
        sink = cache.start()
        put(cache, sink, np.arange(100))
        print("half", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), tmp_path, tiny_h5ad],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == -9
    assert done.stdout == "half\n"
    [stale] = temporaries(tmp_path)
    assert os.listdir(tmp_path) == [stale]
    assert not FastCache(tmp_path, store, None).is_complete()
    cache = make(tmp_path, store)
    assert os.listdir(tmp_path) == [cache.paths[0].name]


def _hold(path: str, ready: object, done: object) -> None:
    cache = FastCache(Path(path), AnnDataStore(scio.datasets.pbmc3k()), None)
    cache.start()
    ready.set()  # type: ignore[attr-defined]
    done.wait(90)  # type: ignore[attr-defined]


def test_what_another_process_writes_is_not_swept(store, tmp_path):
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(str(tmp_path), ready, done))
    process.start()
    try:
        assert ready.wait(90)
        [theirs] = temporaries(tmp_path)
        cache = make(tmp_path, store)
        assert sorted(os.listdir(tmp_path)) == sorted([theirs, cache.paths[0].name])
        # a lock keeps it even where the pid says nothing (another host, another container)
        os.rename(tmp_path / theirs, tmp_path / theirs.replace(f"-{process.pid}-", "-999999999-"))
        make(tmp_path, store)
        assert len(temporaries(tmp_path)) == 1
    finally:
        done.set()
        process.join(90)
    FastCache(tmp_path, store, None).discard(None)
    assert temporaries(tmp_path) == []


def test_two_runs_write_the_same_key(store, tiny_adata, tmp_path):
    caches = [FastCache(tmp_path, store, None) for _ in range(2)]
    sinks = [cache.start() for cache in caches]
    assert len(temporaries(tmp_path)) == 2
    for i in range(2):
        put(caches[i], sinks[i], np.arange(N_CELLS), seed=i)
    caches[0].publish(sinks[0])
    [[early]] = caches[0].matrices()
    caches[1].publish(sinks[1])
    [[late]] = caches[1].matrices()
    for matrix in (early, late):
        np.testing.assert_array_equal(dense_of(matrix), tiny_adata.X.toarray())
    assert os.listdir(tmp_path) == [caches[0].paths[0].name]


def test_a_source_that_changes_meanwhile_is_not_published(tiny_h5ad, tmp_path):
    source = tmp_path / "src.h5ad"
    shutil.copy(tiny_h5ad, source)
    cache = FastCache(tmp_path / "cache", AnnDataStore(str(source)), None)
    sink = cache.start()
    put(cache, sink, np.arange(N_CELLS))
    os.utime(source)
    with pytest.raises(IOFormatError, match="changed while open"):
        cache.publish(sink)
    assert os.listdir(tmp_path / "cache") == []


# --- what is found


def test_a_changed_source_is_another_source(tiny_h5ad, tmp_path):
    source = tmp_path / "src.h5ad"
    shutil.copy(tiny_h5ad, source)
    make(tmp_path / "cache", AnnDataStore(str(source)))
    assert FastCache(tmp_path / "cache", AnnDataStore(str(source)), None).is_complete()
    link = tmp_path / "link.h5ad"
    link.symlink_to(source)
    assert FastCache(tmp_path / "cache", AnnDataStore(str(link)), None).is_complete()
    time.sleep(0.01)
    os.utime(source)
    assert not FastCache(tmp_path / "cache", AnnDataStore(str(source)), None).is_complete()


def garble(path: Path, offset: int, count: int = 64) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xa5" * count)


@pytest.mark.parametrize(
    "damage", ["empty", "cut", "half", "header", "indptr", "mark", "shape", "text"]
)
def test_a_damaged_file_is_not_used_and_is_replaced(store, tiny_adata, tmp_path, damage):
    [path] = make(tmp_path, store).paths
    nbytes = path.stat().st_size
    if damage == "empty":
        path.write_bytes(b"")
    elif damage == "cut":
        os.truncate(path, nbytes - 1)
    elif damage == "half":
        os.truncate(path, nbytes // 2)
    elif damage == "header":
        garble(path, 0)
    elif damage == "indptr":
        with h5py.File(path) as file:
            offset = file["X/indptr"].id.get_offset()
        garble(path, offset + 80)
    elif damage == "text":
        path.write_text("not HDF5" * 1000)
    else:
        with h5py.File(path, "r+") as file:
            if damage == "mark":
                del file["uns/scio/fast_layout"]
                file["uns/scio/fast_layout"] = "something else"
            else:
                file["X"].attrs["shape"] = np.array([N_CELLS - 1, 40])
    assert not FastCache(tmp_path, store, None).is_complete()
    with pytest.raises(LoaderError, match="not complete"):
        FastCache(tmp_path, store, None).matrices()
    cache = make(tmp_path, store)
    assert cache.is_complete()
    np.testing.assert_array_equal(dense_of(cache.matrices()[0][0]), tiny_adata.X.toarray())


def test_a_bad_index_is_an_error_when_its_row_is_read(tmp_path):
    """Not every index is looked at when the file is opened; every row is when it is used."""
    source = scio.datasets.pbmc3k()
    store = AnnDataStore(source)
    cache = make(tmp_path, store)
    with h5py.File(cache.paths[0]) as file:
        offset = file["X/indices"].id.get_offset()
        row = 1300
        at = int(file["X/indptr"][row])
    garble(cache.paths[0], offset + 2 * at, 2)  # 0xa5a5 = 42405, the file has 32,738 genes
    cache = FastCache(tmp_path, store, None)
    assert cache.is_complete()
    [[matrix]] = cache.matrices()
    matrix.take(np.array([row - 1, row + 1]))
    with pytest.raises(CorruptFileError, match=r"X/indices.*42405"):
        matrix.take(np.array([row]))
    with pytest.raises(CorruptFileError, match=r"X/indices.*42405"):
        matrix.read(0, matrix.shape[0])
    settings = {
        "form": "csr", "n_ids": store.gene_vocab.n_ids, "first_id": 4, "library_size": False,
        "target_sum": 1e4, "log1p": False, "id_mask": None, "max_genes": 0,
        "select": "most_expressed", "seed": 0, "epoch": 0, "pad_id": 0, "pad_value": 0.0,
    }  # fmt: skip
    with pytest.raises(CorruptFileError, match="X/indices"):
        _core.collate([matrix], store.gene_maps, np.array([row]), **settings)
    rest = {
        "cells": None, "batch_size": 64, "drop_last": False, "rank": 0, "world_size": 1,
        "max_memory": 0, "block_bytes": 0, "threads": 2, "prefetch": 2, "skip_errors": False,
        "first_batch": 0, "shuffle": "exact",
    }  # fmt: skip
    loader = _core.Loader([matrix], store.gene_maps, **settings, **rest)
    with pytest.raises(CorruptFileError, match="X/indices"):
        list(iter(loader.next, None))
    loader.close()


def test_a_sink_takes_rows_from_many_threads(store, tiny_adata, tmp_path):
    import threading

    cache = FastCache(tmp_path, store, None)
    sink = cache.start()
    threads = [
        threading.Thread(target=put, args=(cache, sink, np.arange(N_CELLS), seed))
        for seed in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sink.n_put == sink.n_cells == N_CELLS
    cache.publish(sink)
    np.testing.assert_array_equal(dense_of(cache.matrices()[0][0]), tiny_adata.X.toarray())


def test_wrong_arguments_of_a_sink_are_named(store, tmp_path):
    with pytest.raises(TypeError, match="lacks the argument path"):
        _core.Sink(sources=[{"n_cells": 1, "arrays": [{}]}])
    with pytest.raises(TypeError, match="no keyword argument colour"):
        _core.Sink(sources=[{"path": "x", "n_cells": 1, "arrays": [{}], "colour": 1}])
    with pytest.raises(TypeError, match="list of 2 dicts"):
        _core.Sink(sources=[{"path": "x", "n_cells": 1, "arrays": [{}]}], n_tracks=2)
    array = {"is_dense": True, "n_cols": 2, "data_offset": 0, "data_dtype": "float32"}
    with pytest.raises(IOWriteError):
        _core.Sink(sources=[{"path": str(tmp_path / "no"), "n_cells": 1, "arrays": [array]}])
    cache = FastCache(tmp_path, store, None)
    sink = cache.start()
    with pytest.raises(ValueError, match="indptr"):
        sink.put(0, np.array([1, 2]), [(np.ones(3), np.zeros(3, np.int32), np.array([0, 3]))])
    with pytest.raises(ValueError, match="no list of 1"):
        sink.put(0, np.array([1]), [])
    assert sink.failure is None
    cache.discard(sink)
