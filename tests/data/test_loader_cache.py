"""CellDataLoader(cache=...): written while the first epoch runs, mapped from then on, never wrong."""

from __future__ import annotations

import hashlib
import os
import shutil
import warnings

import anndata
import numpy as np
import pytest
import scipy.sparse as sp

from scio.data import CellDataLoader, CellDataset
from scio.errors import IOFormatError, ScioError, ScioWarning
from tests.data.conftest import rewrite
from tests.data.helpers import break_chunk, epoch_bytes, facts, ids
from tests.data.test_cache import run
from tests.data.test_dataloader import dense_rows
from tests.mounts import on_tmpfs

N_CELLS, N_GENES, CAP = 4000, 200, 2_500_000


def make_adata(is_float: bool = True) -> anndata.AnnData:
    """400,000 values: more than CAP in compact form."""
    x = sp.random(N_CELLS, N_GENES, density=0.5, format="csr", dtype=np.float32, random_state=0)
    if not is_float:
        x.data = np.ceil(x.data * 900).astype(np.float32)
    adata = anndata.AnnData(X=x)
    adata.obs["kind"] = [f"k{i % 5}" for i in range(N_CELLS)]
    adata.obs["kind"] = adata.obs["kind"].astype("category")
    adata.var_names = [f"gene{i}" for i in range(N_GENES)]
    adata.obs_names = [f"cell{i}" for i in range(N_CELLS)]
    return adata


@pytest.fixture(scope="module")
def adata():
    return make_adata()


@pytest.fixture(scope="module")
def path(adata, tmp_path_factory):
    return rewrite(adata, tmp_path_factory.mktemp("source") / "x.h5ad", chunk=1000)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


def make(source, folder, batch_size=32, threads=2, **arguments) -> CellDataLoader:
    arguments = {"form": "csr", "to": "numpy", "drop_last": False, "max_memory": CAP, **arguments}
    cells = source if isinstance(source, CellDataset) else CellDataset(source, None)
    return CellDataLoader(cells, batch_size, threads, cache=folder, **arguments)


def check_values(loader, adata, form="csr") -> list[int]:
    dense = np.asarray(adata.X.toarray())
    seen = []
    for batch in loader:
        np.testing.assert_array_equal(dense_rows(batch, form, N_GENES), dense[batch["index"]])
        seen += batch["index"].tolist()
    return seen


# --- the epochs


@pytest.mark.parametrize("is_float", [True, False])
def test_written_in_the_first_epoch_and_mapped_from_the_second(tmp_path, folder, is_float):
    adata = make_adata(is_float)
    path = rewrite(adata, tmp_path / "x.h5ad", chunk=1000)
    cap = CAP if is_float else 2_000_000
    loader = make(path, folder, max_memory=cap)
    seen = []
    for batch in loader:
        assert not list(folder.glob("x-*.h5ad"))  # not before it is whole
        seen += batch["index"].tolist()
    assert sorted(seen) == list(range(N_CELLS))
    plan, rows, n_decoded, n_chunks = facts(loader)
    assert (plan, rows) == ("block", "decoded")
    assert n_decoded == n_chunks == 2 * (adata.X.nnz // 1000)
    [file] = folder.iterdir()
    for _ in range(2):
        order = check_values(loader, adata)
        assert sorted(order) == list(range(N_CELLS))
        assert facts(loader)[:3] == ("exact", "mapped", 0)
        assert loader.stats["peak_nbytes"] <= cap
    roomy = make(path, None, max_memory="100MB")
    roomy.set_epoch(2)
    assert ids(roomy) == order  # the same permutation, wherever the rows are
    assert facts(roomy)[:2] == ("exact", "compact")
    back = anndata.read_h5ad(file)
    np.testing.assert_array_equal(back.X.toarray(), adata.X.toarray())
    assert back.obs["kind"].tolist() == adata.obs["kind"].tolist()
    assert back.var_names.tolist() == adata.var_names.tolist()
    assert back.obs_names.tolist() == adata.obs_names.tolist()


@pytest.mark.parametrize("form", ["tokens", "dense", "csr"])
@pytest.mark.parametrize("shuffle", [True, "block", "exact", False])
def test_later_loaders_map_it_from_the_start_and_give_the_same_batches(path, folder, form, shuffle):
    first = make(path, folder, form=form, shuffle=shuffle)
    expected = [epoch_bytes(first) for _ in range(2)]
    if shuffle != "exact":
        plain = make(path, None, form=form, shuffle=shuffle)
        assert epoch_bytes(plain) == expected[0]
    second = make(path, folder, form=form, shuffle=shuffle, threads=0)
    for epoch in range(2):
        assert epoch_bytes(second) == expected[epoch]
        assert facts(second)[1:3] == ("mapped", 0)
        assert facts(second)[0] == {
            True: "exact" if epoch else "block", "block": "block", "exact": "exact", False: "none"
        }[shuffle]  # fmt: skip
    assert len(list(folder.iterdir())) == 1


CHILD = """
    import hashlib, sys
    from tests.data.helpers import epoch_bytes
    from tests.data.test_loader_cache import facts, make
    loader = make(sys.argv[1], sys.argv[2])
    for _ in range(2):
        print(hashlib.sha256(b"".join(epoch_bytes(loader))).hexdigest(), *facts(loader))
"""


def test_another_process_uses_it(path, folder):
    loader = make(path, folder)
    digests = [hashlib.sha256(b"".join(epoch_bytes(loader))).hexdigest() for _ in range(2)]
    lines = [line.split() for line in run(CHILD, path, folder).stdout.splitlines()]
    assert [line[0] for line in lines] == digests
    assert [line[1:4] for line in lines] == [["block", "mapped", "0"], ["exact", "mapped", "0"]]


def test_exact_and_samplers_fill_it_before_the_first_batch(path, adata, folder):
    loader = make(path, folder, shuffle="exact")
    next(iter(loader))
    assert facts(loader)[:3] == ("exact", "mapped", 2 * (adata.X.nnz // 1000))
    assert len(list(folder.iterdir())) == 1
    shutil.rmtree(folder)
    order = np.random.default_rng(0).integers(0, N_CELLS, 1600).tolist()
    loader = make(path, folder, sampler=order)
    for epoch in range(2):
        assert check_values(loader, adata) == order
        assert facts(loader)[:2] == ("given", "mapped")
        assert (loader.stats["chunks_decoded"] == 0) is (epoch > 0)


def test_what_fits_the_memory_needs_no_file(path, folder):
    loader = make(path, folder, max_memory="100MB")
    ids(loader)
    ids(loader)
    assert facts(loader)[:2] == ("exact", "compact")
    assert not folder.exists() or not list(folder.iterdir())


def test_left_out_cells_are_written_before_the_file_gets_its_name(path, adata, folder):
    loader = make(path, folder, 512, drop_last=True, max_memory="6MB", shuffle="block")
    loader = make(path, folder, 300, drop_last=True)
    left_out = N_CELLS % 300
    assert len(ids(loader)) == N_CELLS - left_out
    [file] = folder.iterdir()
    np.testing.assert_array_equal(anndata.read_h5ad(file).X.toarray(), adata.X.toarray())
    assert len(set(check_values(loader, adata))) == N_CELLS - left_out
    assert facts(loader)[:3] == ("exact", "mapped", 0)


def test_layers_and_obsm_are_in_it(tmp_path, folder):
    adata = make_adata()
    rng = np.random.default_rng(0)
    adata.layers["norm"] = sp.random(N_CELLS, N_GENES, 0.1, format="csr", random_state=1)
    adata.obsm["X_pca"] = rng.normal(size=(N_CELLS, 4))
    path = rewrite(adata, tmp_path / "x.h5ad", chunk=1000)
    cells = CellDataset(path, None, layers=["norm"], obsm=["X_pca"])
    loader = make(cells, folder, form="dense", max_memory="4MB")
    norm = adata.layers["norm"].toarray().astype(np.float32)
    for epoch in range(2):
        for batch in loader:
            np.testing.assert_array_equal(batch["layers"]["norm"], norm[batch["index"]])
            expected = adata.obsm["X_pca"][batch["index"]].astype(np.float32)
            np.testing.assert_array_equal(batch["obsm"]["X_pca"], expected)
        assert facts(loader)[:2] == (("exact", "mapped") if epoch else ("block", "decoded"))
    [file] = folder.iterdir()
    back = anndata.read_h5ad(file)
    np.testing.assert_array_equal(back.layers["norm"].toarray(), adata.layers["norm"].toarray())
    np.testing.assert_array_equal(back.obsm["X_pca"], adata.obsm["X_pca"])


def test_each_rank_has_a_file_of_its_cells(path, adata, folder):
    for _ in range(2):  # later runs find them
        loaders = [make(path, folder, rank=r, world_size=3, max_memory="2MB") for r in range(3)]
        for _epoch in range(2):
            union = [i for loader in loaders for i in check_values(loader, adata)]
            assert sorted(set(union)) == list(range(N_CELLS))
            assert len(union) < N_CELLS + 3 * 32  # padding of the last batches
        assert {facts(loader)[:2] for loader in loaders} == {("exact", "mapped")}
        assert len(list(folder.iterdir())) == 3
    sizes = [anndata.read_h5ad(file).n_obs for file in folder.iterdir()]
    assert sum(sizes) == N_CELLS


def test_subsets_and_several_files(path, adata, tmp_path, folder):
    other = rewrite(make_adata(False), tmp_path / "y.h5ad", chunk=1000)
    both = CellDataset([str(path), str(other)], None, indices=np.arange(500, 2 * N_CELLS, 2))
    loader = make(both, folder)
    stacked = sp.vstack([adata.X, make_adata(False).X]).toarray()
    for _ in range(2):
        seen = []
        for batch in loader:
            np.testing.assert_array_equal(
                dense_rows(batch, "csr", N_GENES), stacked[batch["index"]]
            )
            seen += batch["index"].tolist()
        assert sorted(seen) == both.cells.tolist()
    assert facts(loader)[:3] == ("exact", "mapped", 0)
    assert sorted(anndata.read_h5ad(f).n_obs for f in folder.iterdir()) == [1750, 2000]


# --- what goes wrong


def test_a_source_that_was_touched_is_another_source(adata, tmp_path, folder):
    path = rewrite(adata, tmp_path / "x.h5ad", chunk=1000)
    ids(make(path, folder))
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000))
    loader = make(path, folder)
    check_values(loader, adata)
    assert facts(loader)[:2] == ("block", "decoded")
    assert len(list(folder.iterdir())) == 2


def test_a_source_that_changes_under_a_mapped_epoch_is_an_error(adata, tmp_path, folder):
    path = rewrite(adata, tmp_path / "x.h5ad", chunk=1000)
    loader = make(path, folder)
    ids(loader)
    ids(loader)
    assert facts(loader)[:2] == ("exact", "mapped")
    os.utime(path, ns=(0, 0))
    with pytest.raises(IOFormatError, match="changed"):
        ids(loader)


def test_an_epoch_that_is_broken_off_leaves_nothing(path, folder):
    loader = make(path, folder)
    iterator = iter(loader)
    next(iterator)
    assert list(folder.iterdir())  # it is being written
    del iterator, loader
    assert not list(folder.iterdir())
    run(
        "import sys; from tests.data.test_loader_cache import make\n"
        "iterator = iter(make(sys.argv[1], sys.argv[2])); next(iterator)",
        path, folder,
    )  # fmt: skip
    assert not list(folder.iterdir())


def test_after_a_broken_off_epoch_the_next_one_completes_it(path, adata, folder):
    loader = make(path, folder)
    for i, _ in enumerate(loader):
        if i == 20:
            break
    assert sorted(check_values(loader, adata)) == list(range(N_CELLS))
    assert facts(loader)[:2] == ("exact", "mapped")
    assert len(list(folder.iterdir())) == 1


def test_a_file_deleted_between_epochs_costs_time_but_no_value(path, adata, folder):
    loader = make(path, folder)
    expected = [epoch_bytes(loader) for _ in range(3)]
    [file] = folder.iterdir()
    file.unlink()
    for epoch in (1, 2, 0):
        loader.set_epoch(epoch)
        assert epoch_bytes(loader) == expected[epoch]
    other = make(path, folder)
    assert [epoch_bytes(other) for _ in range(3)] == expected
    assert facts(other)[:2] == ("exact", "mapped")
    assert len(list(folder.iterdir())) == 1  # made again


def test_a_file_cut_short_between_epochs_is_an_error_or_is_made_again(path, folder):
    """Reading a mapping behind the end of its file would kill the process."""
    done = run(
        """
        import os, sys, pathlib
        from scio.errors import ScioError
        from tests.data.helpers import epoch_bytes
        from tests.data.test_loader_cache import make
        path, folder = sys.argv[1], pathlib.Path(sys.argv[2])
        loader = make(path, folder)
        expected = [epoch_bytes(loader) for _ in range(2)]
        [file] = folder.iterdir()
        os.truncate(file, file.stat().st_size // 2)
        loader.set_epoch(1)
        try:
            assert epoch_bytes(loader) == expected[1]
            print("equal")
        except ScioError as error:
            print("error", error)
        other = make(path, folder)
        assert [epoch_bytes(other) for _ in range(2)] == expected
        print("made again")
        """,
        path,
        folder,
    )
    assert "made again" in done.stdout


def test_broken_chunks_of_the_source_are_no_part_of_a_file(adata, tmp_path, folder):
    path = rewrite(adata, tmp_path / "x.h5ad", chunk=1000)
    break_chunk(path, "/X/data", 40)
    loader = make(path, folder, on_error="skip")
    dense = adata.X.toarray()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            seen = []
            for batch in loader:
                np.testing.assert_array_equal(
                    dense_rows(batch, "csr", N_GENES), dense[batch["index"]]
                )
                seen += batch["index"].tolist()
            assert N_CELLS - 15 <= len(set(seen)) == len(seen) < N_CELLS
            assert loader.stats["skipped_cells"] == N_CELLS - len(seen)
    texts = [str(w.message) for w in caught if issubclass(w.category, ScioWarning)]
    assert sum("were skipped" in text for text in texts) == 3
    assert sum("no fast-layout file" in text for text in texts) == 1
    assert not list(folder.iterdir())


def test_sources_in_memory_and_directories_that_are_files(path, adata, tmp_path):
    loader = make(adata, tmp_path / "never")
    for _ in range(2):
        check_values(loader, adata)
    assert facts(loader)[:2] == ("exact", "memory")
    assert not (tmp_path / "never").exists()
    (tmp_path / "file").write_text("")
    loader = make(path, tmp_path / "file")
    with pytest.warns(ScioWarning, match="no fast-layout"):
        check_values(loader, adata)
    check_values(loader, adata)
    assert facts(loader)[:2] == ("block", "decoded")


DISK = """
    import os, sys, warnings
    from scio.errors import ScioWarning
    from tests.data.test_loader_cache import N_CELLS, facts, ids, make
    path, folder, how = sys.argv[1:]
    if how == "lie":  # the disk is smaller than it says
        import scio.data._cache
        scio.data._cache.free_nbytes = lambda directory: 1 << 40
    loader = make(path, folder)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            assert sorted(ids(loader)) == list(range(N_CELLS))
            assert facts(loader)[:2] == ("block", "decoded"), facts(loader)
    messages = [str(w.message) for w in caught if issubclass(w.category, ScioWarning)]
    assert len(messages) == 1, messages
    assert "no fast-layout" in messages[0], messages
    assert os.listdir(folder) == []
    print(messages[0])
"""


@pytest.mark.parametrize(
    ("how", "size", "text"),
    [
        ("space", "1m", "needed"),
        ("lie", "256k", "space left"),
        ("lie", "2m", "space left"),
        ("read-only", "64m", "Read-only"),
    ],
)
def test_a_small_or_read_only_disk_is_one_warning_and_training_goes_on(
    path, tmp_path, how, size, text
):
    disk = tmp_path / "disk"
    disk.mkdir()
    command = on_tmpfs(disk, size, is_read_only=how == "read-only")
    assert text in run(DISK, path, disk, how, command=command).stdout


def test_damage_of_a_published_file_is_never_wrong_data(path, adata, folder):
    """Headers or row extents that are damaged: made again.  A bad index: an error."""
    ids(make(path, folder))
    [file] = folder.iterdir()
    whole = file.read_bytes()
    for position in (0, 3000, len(whole) // 2):
        damaged = bytearray(whole)
        damaged[position : position + 64] = b"\xff" * 64
        file.write_bytes(bytes(damaged))
        loader = make(path, folder, shuffle=False)
        try:
            got = list(loader)
        except ScioError:
            continue
        indptr = np.concatenate([np.diff(b["indptr"]) for b in got])
        np.testing.assert_array_equal(indptr, np.diff(adata.X.indptr))
