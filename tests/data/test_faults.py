"""Damage under the loader: broken chunks, files that change or vanish; never wrong data."""

from __future__ import annotations

import os
import re
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path

import anndata
import h5py
import numpy as np
import pytest

from scio.data import CellDataLoader, CellDataset
from scio.errors import CorruptFileError, IOFormatError, ScioWarning
from tests.data.conftest import make_adata, rewrite
from tests.data.test_dataloader import _break_chunk, dense_rows

CHUNK = 50
SHUFFLES = [True, False, "exact", "block"]


@pytest.fixture
def layered(tmp_path: Path) -> tuple[Path, anndata.AnnData]:
    """211 cells in chunks of 50 elements, with a layer and an obsm of other values."""
    adata = make_adata()
    adata.layers["counts"] = adata.X * 2
    adata.obsm["pca"] = np.random.default_rng(0).normal(size=(211, 5)).astype(np.float32)
    path = rewrite(adata, tmp_path / "x.h5ad", chunk=CHUNK)
    with h5py.File(path, "r+") as file:
        layer = file["layers/counts"]
        for name in ("data", "indices"):
            values = layer[name][()]
            del layer[name]
            layer.create_dataset(
                name, data=values, chunks=(CHUNK,), maxshape=(None,), compression="gzip"
            )
        values = file["obsm/pca"][()]
        del file["obsm/pca"]
        file["obsm"].create_dataset("pca", data=values, chunks=(8, 5), compression="gzip")
    return path, adata


@pytest.fixture(scope="module")
def long_adata() -> anndata.AnnData:
    """20,000 cells, which a small cap reads in many windows."""
    return make_adata(20_000, 40)


def cells_of_chunk(adata: anndata.AnnData, number: int) -> set[int]:
    """Cells from the first to the last that has an element in a chunk of `CHUNK`."""
    indptr = adata.X.indptr
    first, end = number * CHUNK, (number + 1) * CHUNK
    inside = [i for i in range(len(indptr) - 1) if max(indptr[i], first) < min(indptr[i + 1], end)]
    return set(range(inside[0], inside[-1] + 1))


def loader_of(path: Path, **settings) -> CellDataLoader:
    of_cells = {
        name: settings.pop(name) for name in ("layers", "obsm", "indices") if name in settings
    }
    cells = CellDataset(path, None, **of_cells)
    settings.setdefault("form", "csr")
    return CellDataLoader(cells, 16, 2, to="numpy", drop_last=False, **settings)


# --- broken chunks

BROKEN = [
    ("/X/data", {}),
    ("/X/indices", {}),
    ("/layers/counts/data", {"layers": ["counts"]}),
    ("/layers/counts/indices", {"layers": ["counts"]}),
]


@pytest.mark.parametrize("form", ["tokens", "dense", "csr"])
@pytest.mark.parametrize("order", [*SHUFFLES, "sampler", "few"])
@pytest.mark.parametrize(("dataset", "tracks"), BROKEN)
def test_an_error_names_file_dataset_chunk_and_cells(layered, form, order, dataset, tracks):
    path, adata = layered
    _break_chunk(path, dataset, 4)
    cells = sorted(cells_of_chunk(adata, 4))
    asked = {"sampler": range(211), "few": [100, cells[0], 3]}.get(order)
    settings = {"shuffle": order} if asked is None else {"sampler": asked}
    loader = loader_of(path, form=form, **tracks, **settings)
    with pytest.raises(CorruptFileError) as caught:
        list(loader)
    text = str(caught.value)
    assert "x.h5ad" in text
    assert f"{dataset}: chunk (4,)" in text
    if order != "few":
        assert f"cells {cells[0]} to {cells[-1]}" in text
    # what can be read is still read
    rest = np.arange(cells[-1] + 10, 211)
    batches = list(loader_of(path, indices=rest, form=form, **tracks))
    assert sum(len(batch["index"]) for batch in batches) == len(rest)


def test_a_broken_chunk_of_a_dense_matrix_is_named(layered):
    path, _ = layered
    _break_chunk(path, "/obsm/pca", 3)
    with pytest.raises(CorruptFileError, match=r"x\.h5ad.*/obsm/pca: chunk \(3, 0\)"):
        list(loader_of(path, obsm=["pca"]))
    assert sum(len(batch["index"]) for batch in loader_of(path)) == 211


@pytest.mark.parametrize("form", ["tokens", "dense", "csr"])
@pytest.mark.parametrize("order", [*SHUFFLES, "sampler"])
@pytest.mark.parametrize(("dataset", "tracks"), BROKEN)
def test_skipping_leaves_out_exactly_the_cells_of_the_chunk(layered, form, order, dataset, tracks):
    path, adata = layered
    _break_chunk(path, dataset, 4)
    lost = cells_of_chunk(adata, 4)
    expected = adata.X.toarray()
    settings = {"sampler": range(211)} if order == "sampler" else {"shuffle": order}
    loader = loader_of(path, form=form, on_error="skip", **tracks, **settings)
    for epoch in range(3):
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            batches = list(loader)
        assert [str(w.message) for w in seen] == [
            f"{len(lost)} cells of broken chunks were skipped"
        ]
        assert all(w.category is ScioWarning for w in seen)
        assert loader.stats["skipped_cells"] == len(lost)
        cells = np.concatenate([batch["index"] for batch in batches])
        assert sorted(cells) == sorted(set(range(211)) - lost)
        assert loader.stats["cells"] == len(cells)
        for batch in batches:
            np.testing.assert_array_equal(dense_rows(batch, form, 40), expected[batch["index"]])
            if tracks and form == "dense":
                np.testing.assert_array_equal(
                    batch["layers"]["counts"], 2 * expected[batch["index"]]
                )
        if epoch:
            assert loader.stats["rows"] == "compact"


@pytest.mark.parametrize("number", [4, 4000])  # among the rows that are probed first, and later
def test_a_cache_is_not_made_of_a_file_with_a_broken_chunk(long_adata, tmp_path, number):
    path = rewrite(long_adata, tmp_path / "x.h5ad", chunk=CHUNK)
    _break_chunk(path, "/X/data", number)
    lost = cells_of_chunk(long_adata, number)
    cache = tmp_path / "cache"
    least = least_memory(path)
    loader = loader_of(path, on_error="skip", cache=cache, max_memory=least)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for _ in range(3):
            cells = sorted(i for batch in loader for i in batch["index"])
            assert cells == sorted(set(range(20_000)) - lost)
    texts = [str(w.message) for w in seen]
    reason = "chunk (4,)" if number == 4 else f"{len(lost)} of 20,000 cells are missing"
    assert [text for text in texts if "no fast-layout file" in text and reason in text] == texts[:1]
    assert texts[1:] == [f"{len(lost)} cells of broken chunks were skipped"] * 3
    assert list(cache.glob("*")) + list(cache.glob(".*")) == []


def least_memory(path: Path) -> int:
    """The least cap of a loader over the file: too small for a compact store."""
    with pytest.raises(ValueError, match="at least") as caught:
        loader_of(path, max_memory=1000)
    return max(int(n.replace(",", "")) for n in re.findall(r"\d[\d,]+", str(caught.value)))


# --- files that change


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of our own."""
    assert os.geteuid() == 0, "mounting needs root"
    where = tmp_path / "mnt"
    where.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", where], check=True)
    yield where
    while os.path.ismount(where):
        subprocess.run(["umount", "-l", where], check=True)


def replace(path: Path) -> None:
    other = rewrite(make_adata(seed=9), path.with_name("other.h5ad"), chunk=CHUNK)
    other.replace(path)


def rewrite_in_place(path: Path) -> None:
    """Other bytes, the same size, the same inode."""
    before = path.stat()
    with open(path, "r+b") as file:
        file.seek(before.st_size // 2)
        file.write(b"\0" * 512)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000))
    assert path.stat().st_size == before.st_size
    assert path.stat().st_ino == before.st_ino


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def grow(path: Path) -> None:
    with open(path, "ab") as file:
        file.write(b"more")


def unmount(path: Path) -> None:
    subprocess.run(["umount", "-l", path.parent], check=True)


CHANGES = [
    (replace, "replaced by another file"),
    (rewrite_in_place, "written to"),
    (truncate, "changed while open|truncated"),
    (grow, "changed while open: it had"),
    (Path.unlink, "vanished"),
    (unmount, "vanished|replaced"),
]


@pytest.mark.parametrize(("change", "text"), CHANGES)
@pytest.mark.parametrize("order", [*SHUFFLES, "sampler", "few"])
def test_a_file_that_changes_between_epochs_is_an_error(mounted, change, text, order):
    path = rewrite(make_adata(), mounted / "x.h5ad", chunk=CHUNK)
    asked = {"sampler": range(211), "few": [5, 100, 3]}.get(order)
    loader = loader_of(path, **({"shuffle": order} if asked is None else {"sampler": asked}))
    list(loader)
    list(loader)
    # rows that are resident would still be right, but the file that the user sees is another
    assert loader.stats["rows"] == ("decoded" if order == "few" else "compact")
    change(path)
    for _ in range(2):
        with pytest.raises(IOFormatError, match=rf"x\.h5ad.*({text})"):
            list(loader)


@pytest.mark.parametrize(("change", "text"), CHANGES)
def test_a_mapped_cache_does_not_outlive_its_source(mounted, tmp_path, change, text):
    path = rewrite(make_adata(), mounted / "x.h5ad", chunk=CHUNK)
    cache = tmp_path / "cache"
    loader = loader_of(path, cache=cache, max_memory=least_memory(path))
    list(loader)
    list(loader)
    assert loader.stats["rows"] == "mapped"
    change(path)
    with pytest.raises(IOFormatError, match=rf"x\.h5ad.*({text})"):
        list(loader)
    if change is replace:  # the new file has a cache of its own, with its own values
        loader = loader_of(path, cache=cache, max_memory=least_memory(path))
        expected = make_adata(seed=9).X.toarray()
        for _ in range(2):
            for batch in loader:
                np.testing.assert_array_equal(
                    dense_rows(batch, "csr", 40), expected[batch["index"]]
                )
        assert loader.stats["rows"] == "mapped"
        assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize(("change", "text"), CHANGES)
@pytest.mark.parametrize("order", [True, False, "sampler"])
@pytest.mark.parametrize("compression", ["gzip", None])
def test_a_file_that_changes_in_an_epoch_never_gives_wrong_data(
    mounted, long_adata, change, text, order, compression
):
    expected = long_adata.X.toarray()
    path = rewrite(long_adata, mounted / "x.h5ad", chunk=CHUNK, compression=compression)
    order_of = {"sampler": np.arange(20_000)[::-40]} if order == "sampler" else {"shuffle": order}
    cap = least_memory(path) + 200_000  # ten windows
    loader = loader_of(path, block_bytes=2000, max_memory=cap, **order_of)
    iterator = iter(loader)
    batches = [next(iterator)]
    change(path)
    with pytest.raises(IOFormatError, match=rf"x\.h5ad.*({text})"):
        batches.extend(iterator)
    assert len(batches) < len(loader)
    for batch in batches:
        np.testing.assert_array_equal(dense_rows(batch, "csr", 40), expected[batch["index"]])
