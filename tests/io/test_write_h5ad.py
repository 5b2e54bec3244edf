"""`scio.write_h5ad`: anndata and h5py read what it writes, for every element, and nothing is touched."""

from __future__ import annotations

import copy
import datetime
import decimal
import hashlib
import json
import warnings
from pathlib import Path

import anndata
import awkward
import dask.array as da
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata.experimental import read_elem_lazy

import scio
from scio._storage.keys import escape_key, unescape_key
from scio.errors import ScioWarning, TargetExistsError
from scio.io import _streams
from scio.io.writer import DenseStream, SparseStream, StorageOptions, new_file
from scio.testing import assert_equal
from tests.io.compare import Comparison
from tests.io.test_writer import odd_obs

pytestmark = pytest.mark.filterwarnings("ignore:Support for Awkward")

NUMBERS = ["bool", *(f"{s}int{b}" for s in ("", "u") for b in (8, 16, 32, 64))]
NUMBERS += ["float16", "float32", "float64", "complex64", "complex128"]


def counts(n_rows: int = 60, n_cols: int = 40, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).poisson(0.4, (n_rows, n_cols))


def small(n_obs: int = 6, n_vars: int = 4) -> anndata.AnnData:
    return anndata.AnnData(
        sp.csr_matrix(counts(n_obs, n_vars).astype("f4")),
        obs=pd.DataFrame(index=[f"c{i}" for i in range(n_obs)]),
        var=pd.DataFrame(index=[f"g{i}" for i in range(n_vars)]),
    )


def full() -> anndata.AnnData:
    """Every element of the format, every type in it."""
    rng = np.random.default_rng(1)
    obs = odd_obs()
    obs["repeats"] = ["s10", "s2", "s2", "s1", "s10"]
    obs["string dtype"] = pd.array(["a", "b", "a", None, "b"], dtype="string")
    obs["objects with none"] = np.array(["x", None, "x", np.nan, "y"], object)
    adata = anndata.AnnData(
        X=sp.random(5, 7, 0.5, format="csr", dtype="f4", random_state=0),
        obs=obs,
        var=pd.DataFrame({"n": np.arange(7)}, index=[f"g{i}" for i in range(7)]),
    )
    adata.raw = adata
    adata.layers["csc"] = sp.csc_matrix(adata.X)
    adata.layers["array"] = sp.csr_array(adata.X.astype("i8"))
    adata.layers["dense"] = np.asfortranarray(rng.normal(size=(5, 7)))
    adata.layers["half"] = rng.normal(size=(5, 7)).astype("f2")
    adata.obsm["pca"] = rng.normal(size=(5, 3)).astype(">f4")
    adata.obsm["cube"] = rng.integers(0, 9, (5, 2, 2), dtype=np.uint8)
    adata.obsm["frame"] = pd.DataFrame({"a": [1, 2, 3, 4, 5], "b": list("vwxyz")}, adata.obs_names)
    adata.obsm["sparse"] = sp.csc_matrix(np.eye(5, 4))
    adata.obsm["ragged"] = awkward.Array([[1, 2], [], [3], [4, 5, 6], [7]])
    adata.varm["loadings"] = rng.normal(size=(7, 2))
    adata.obsp["graph"] = sp.csr_matrix(np.eye(5, dtype="f8"))
    adata.obsp["dense"] = np.ones((5, 5), np.float32)
    adata.varp["graph"] = sp.csr_matrix((7, 7), dtype="f4")
    adata.uns = {
        "text": "größe", "empty text": "", "int": 3, "huge": 2**63, "real": 0.5, "truth": True,
        "np": np.float32(2.5), "i": np.complex128(1 + 2j), "none": None, "dict": {"a": {"b": {}}, "l": [1, 2, 3]},
        "words": np.array(["a", "längere"]), "objects": np.array(["a", ""], object),
        "grid": np.array([["a", "b"], ["c", ""]], object), "list": ["a", "b"], "no items": [],
        "zero d": np.array(7), "zero rows": np.zeros((0, 4), "i1"), "bytes": np.array([b"ab", b"c"]),
        "records": np.array([("g1", 0.5, 3), ("größe", 1.5, 4)], [("n", "O"), ("s", "f4"), ("k", "i8")]),
        "wide records": np.array([("a", b"b")], [("u", "U9"), ("s", "S4")]),
        "frame": pd.DataFrame({"x": [1.5, 2.5]}), "sparse": sp.csr_matrix(np.eye(3)),
        "category": pd.Categorical(["a", None, "b"]), "Int": pd.array([1, None], dtype="Int32"),
        "awkward": awkward.Array([{"x": 1, "y": ["a"]}, {"x": 2, "y": []}]),
    }  # fmt: skip
    return adata


def write_both(adata: anndata.AnnData, folder: Path, **options) -> tuple[Path, Path]:
    """(ours, theirs): by scio and by anndata."""
    ours, theirs = folder / "ours.h5ad", folder / "theirs.h5ad"
    scio.write_h5ad(adata, ours, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with anndata.settings.override(allow_write_nullable_strings=True):
            adata.copy().write_h5ad(theirs)
    return ours, theirs


def assert_reads_equal(ours: Path, theirs: Path) -> None:
    assert_equal(anndata.read_h5ad(ours), anndata.read_h5ad(theirs))


# --- elements


@pytest.mark.parametrize("compression", ["gzip", None])
def test_every_element_reads_as_anndata_writes_it(tmp_path, compression):
    assert_reads_equal(*write_both(full(), tmp_path, compression=compression))


def test_h5py_reads_the_same_values_as_scio(tmp_path):
    scio.write_h5ad(full(), tmp_path / "x.h5ad", checksums=True)
    comparison = Comparison(tmp_path / "x.h5ad").run()
    assert comparison.differences == []
    assert comparison.refused == {}
    assert comparison.n_datasets > 80


def test_the_encodings_are_those_of_anndata(tmp_path):
    ours, theirs = write_both(full(), tmp_path)

    def encodings(path: Path) -> dict[str, tuple]:
        found = {}

        def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
            marks = (item.attrs.get("encoding-type"), item.attrs.get("encoding-version"))
            dtype = item.dtype.kind if isinstance(item, h5py.Dataset) else "group"
            found[name] = (*marks, dtype)

        with h5py.File(path) as file:
            visit("/", file)
            file.visititems(visit)
        return found

    mine, wanted = encodings(ours), encodings(theirs)
    assert mine.pop("/")[0] == "anndata"
    wanted.pop("/")
    assert set(mine) == set(wanted)
    assert {name: (mine[name], wanted[name]) for name in mine if mine[name] != wanted[name]} == {}


@pytest.mark.parametrize("dtype", NUMBERS)
def test_every_type_of_number(tmp_path, dtype):
    values = counts().astype(dtype)
    adata = anndata.AnnData(np.ones((60, 40), "f4"), obsm={"dense": values})
    if dtype not in {"float16"}:  # SciPy has no such matrices
        adata.layers["csr"], adata.layers["csc"] = sp.csr_matrix(values), sp.csc_array(values)
    adata.uns["scalar"] = values[0, 0]
    adata.obs["column"] = values[:, 0]
    path = tmp_path / "x.h5ad"
    scio.write_h5ad(adata, path)
    read = anndata.read_h5ad(path)
    np.testing.assert_array_equal(read.obsm["dense"], values)
    assert read.obsm["dense"].dtype == dtype
    assert read.obs["column"].dtype == dtype
    assert read.uns["scalar"] == values[0, 0]
    for name, layer in read.layers.items():
        assert layer.dtype == dtype
        assert layer.format == name
        np.testing.assert_array_equal(layer.toarray(), values)


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (4, 0), (1, 1)])
@pytest.mark.parametrize("kind", ["csr", "csc", "dense", "none"])
def test_empty_everything(tmp_path, shape, kind):
    X = {"dense": np.zeros(shape), "none": None}.get(kind)
    if kind in {"csr", "csc"}:
        X = sp.random(*shape, 0.0, format=kind)
    adata = anndata.AnnData(X, shape=shape if X is None else None)
    adata.obs["all missing"] = pd.Categorical([None] * shape[0], categories=[])
    adata.obsm["nothing"] = np.zeros((shape[0], 0))
    assert_reads_equal(*write_both(adata, tmp_path))
    with h5py.File(tmp_path / "ours.h5ad") as file:
        assert ("X" in file) == (kind != "none")


def test_other_sparse_formats_and_rows(tmp_path):
    adata = small()
    adata.uns["coo"] = sp.coo_matrix(np.eye(3))
    adata.uns["line"] = sp.coo_array(np.array([0, 2.0, 0]))
    unsorted = sp.csr_matrix((np.array([1.0, 2, 3]), [3, 0, 3], [0, 3]), shape=(1, 4))
    adata.uns["as stored"] = unsorted
    scio.write_h5ad(adata, tmp_path / "x.h5ad")
    read = anndata.read_h5ad(tmp_path / "x.h5ad").uns
    np.testing.assert_array_equal(read["coo"].toarray(), np.eye(3))
    assert read["line"].shape == (1, 3)
    assert read["as stored"].indices.tolist() == [3, 0, 3]


def test_masked_arrays(tmp_path):
    adata = small()
    adata.uns["ints"] = np.ma.MaskedArray([1, 2, 3], mask=[0, 1, 0])
    adata.uns["complete"] = np.ma.MaskedArray([1.5, 2.5], mask=[0, 0])
    scio.write_h5ad(adata, tmp_path / "x.h5ad")
    read = anndata.read_h5ad(tmp_path / "x.h5ad").uns
    assert read["ints"].tolist() == [1, pd.NA, 3]
    np.testing.assert_array_equal(read["complete"], [1.5, 2.5])


def test_bytes_come_back(tmp_path):
    adata = small()
    adata.uns["bytes"] = b"a\0b\xff"
    scio.write_h5ad(adata, tmp_path / "x.h5ad")
    assert anndata.read_h5ad(tmp_path / "x.h5ad").uns["bytes"] == b"a\0b\xff"


def test_an_anndata_inside_uns(tmp_path):
    adata = small()
    adata.uns["inner"] = small(3, 2)
    scio.write_h5ad(adata, tmp_path / "x.h5ad")
    assert_equal(anndata.read_h5ad(tmp_path / "x.h5ad").uns["inner"], adata.uns["inner"])


def test_a_column_with_the_name_of_the_index(tmp_path):
    adata = small()
    adata.obs.index.name = "id"
    adata.obs["id"] = adata.obs_names
    adata.obs["more"] = 1
    assert_reads_equal(*write_both(adata, tmp_path))
    adata.obs["id"] = "other"
    with pytest.raises(ValueError, match="/obs is named 'id', as is a column"):
        scio.write_h5ad(adata, tmp_path / "x.h5ad")


def test_the_readers_of_this_package_read_it(tmp_path):
    scio.write_h5ad(full(), tmp_path / "x.h5ad")
    with scio.open(tmp_path / "x.h5ad") as file:
        assert file.obs["text"].labels().tolist() == full().obs["text"].tolist() if hasattr(
            file.obs["text"], "labels") else file.obs["text"].tolist() == full().obs["text"].tolist()  # fmt: skip
        np.testing.assert_array_equal(file.X.read().toarray(), full().X.toarray())
        assert file.X.dtype == np.float32


def test_real_files_survive(tmp_path, shared_data):
    for name in ("krumsiek11_augmented_v0-8.h5ad", "anndata_archive_v0.7.8.h5ad",
                 "anndataR_example_nullable_50x100.h5ad", "pbmc68k_reduced_enc02.h5ad"):  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            adata = anndata.read_h5ad(shared_data / "h5ad_formats" / name)
            ours, theirs = write_both(adata, tmp_path)
            assert_reads_equal(ours, theirs)


# --- storage


def test_matrices_are_chunked_compressed_and_can_grow(tmp_path):
    X = sp.random(500, 400, 0.4, format="csr", dtype="f4", random_state=0)
    adata = anndata.AnnData(X, layers={"dense": X.toarray()})
    scio.write_h5ad(adata, tmp_path / "x.h5ad")
    with h5py.File(tmp_path / "x.h5ad", "r+") as file:
        for name in ("data", "indices", "indptr"):
            item = file["X"][name]
            assert (item.compression, item.compression_opts, item.shuffle) == ("gzip", 1, True)
            assert item.maxshape == (None,)
            assert not item.fletcher32
        assert file["X/data"].chunks == file["X/indices"].chunks == (32768,)
        assert file["X/indices"].dtype == file["X/indptr"].dtype == np.int32
        assert file["layers/dense"].chunks == (81, 400)
        assert file["obs/_index"].chunks is None
        mark = json.loads(file.attrs["scio"])
        assert mark["compression"] == "gzip"
        anndata.io.sparse_dataset(file["X"]).append(X[:3])  # which is what maxshape is for
    assert anndata.read_h5ad(tmp_path / "x.h5ad", backed="r").file["X/indptr"].shape == (504,)


@pytest.mark.parametrize("level", [0, 4, 9])
def test_levels_of_compression(tmp_path, level):
    adata = small(300, 50)
    scio.write_h5ad(adata, tmp_path / "x.h5ad", compression_opts=level, shuffle=False)
    assert_equal(anndata.read_h5ad(tmp_path / "x.h5ad").X, adata.X)
    with h5py.File(tmp_path / "x.h5ad") as file:
        assert (file["X/data"].compression_opts, file["X/data"].shuffle) == (level, False)


@pytest.mark.parametrize(
    "shape",
    [
        (1,),
        (10**7,),
        (100, 50),
        (3, 10**6),
        (10**6, 3),
        (7, 300, 300),
        (2, 3, 10**7),
        (10**6, 1, 1),
    ],
)
def test_chunks_are_neither_tiny_nor_huge(shape):
    for itemsize in (1, 4, 16):
        chunk = _streams._chunk_of(shape, itemsize, can_grow=False)
        assert all(1 <= c <= n for c, n in zip(chunk, shape, strict=True))
        nbytes = int(np.prod(chunk)) * itemsize
        assert nbytes <= 1 << 20
        assert nbytes >= min(32 << 10, int(np.prod(shape)) * itemsize)


def test_a_frame_may_have_any_names(tmp_path):
    adata = small()
    adata.obsm["frame"] = pd.DataFrame(
        {n: range(6) for n in ("indptr", "data", "shape")}, adata.obs_names
    )
    assert_reads_equal(*write_both(adata, tmp_path))


def test_without_compression_arrays_are_contiguous(tmp_path):
    scio.write_h5ad(full(), tmp_path / "x.h5ad", compression=None)
    with h5py.File(tmp_path / "x.h5ad") as file:
        chunked = []
        file.visititems(
            lambda name, item: chunked.append(name) if getattr(item, "chunks", None) else None
        )
        assert chunked == []


def test_checksums_are_those_of_the_values(tmp_path):
    X = sp.random(300, 200, 0.3, format="csr", dtype="f4", random_state=0)
    adata = anndata.AnnData(X, obsm={"pca": np.arange(900.0).reshape(300, 3)})
    for compression in ("gzip", None):
        scio.write_h5ad(adata, tmp_path / "x.h5ad", compression=compression, checksums=True)
        with h5py.File(tmp_path / "x.h5ad") as file:
            for path in ("X/data", "X/indices", "X/indptr", "obsm/pca"):
                assert file[path].fletcher32
                digest = hashlib.sha256(file[path][()].tobytes()).hexdigest()
                assert file[path].attrs["scio-sha256"] == digest
        assert_equal(anndata.read_h5ad(tmp_path / "x.h5ad").X, X)


def test_the_same_content_gives_the_same_bytes(tmp_path):
    for name in ("a.h5ad", "b.h5ad"):
        scio.write_h5ad(full(), tmp_path / name, checksums=True)
    assert (tmp_path / "a.h5ad").read_bytes() == (tmp_path / "b.h5ad").read_bytes()


def test_wide_indices_where_they_must_be(tmp_path, monkeypatch):
    monkeypatch.setattr(_streams, "_INT32_MAX", 10)
    scio.write_h5ad(small(20, 9), tmp_path / "x.h5ad")
    with h5py.File(tmp_path / "x.h5ad") as file:
        assert file["X/indptr"].dtype == np.int64
        assert file["X/indices"].dtype == np.int32
    assert_equal(anndata.read_h5ad(tmp_path / "x.h5ad").X.toarray(), small(20, 9).X.toarray())
    adata = small(4, 30)
    adata.X = sp.csr_matrix(
        (adata.X.data, adata.X.indices.astype("i8"), adata.X.indptr.astype("i8"))
    )
    scio.write_h5ad(adata, tmp_path / "x.h5ad")
    with h5py.File(tmp_path / "x.h5ad") as file:
        assert file["X/indices"].dtype == np.int64


def test_a_file_with_wider_indices_than_needed_is_copied(tmp_path):
    adata = small(4, 30)
    adata.X = sp.csr_matrix(
        (adata.X.data, adata.X.indices.astype("i8"), adata.X.indptr.astype("i8")), shape=adata.shape
    )
    adata.write_h5ad(tmp_path / "x.h5ad")
    with h5py.File(tmp_path / "x.h5ad", "r+") as file:
        wide = file["X/indices"][:].astype("i8")
        del file["X/indices"]
        file["X/indices"] = wide
    scio.write_h5ad(tmp_path / "x.h5ad", tmp_path / "y.h5ad")
    with h5py.File(tmp_path / "y.h5ad") as file:
        assert file["X/indices"].dtype == np.int32
    assert_equal(anndata.read_h5ad(tmp_path / "y.h5ad").X.toarray(), adata.X.toarray())


def test_options_that_mean_nothing_are_refused(tmp_path):
    for options, text in (
        ({"compression": "lzf"}, "'gzip' or None, not 'lzf'"),
        ({"compression_opts": 10}, "0 to 9"),
        ({"compat": "0.7"}, r"'0\.8', '0\.11', '0\.12'"),
    ):
        with pytest.raises(ValueError, match=text):
            scio.write_h5ad(small(), tmp_path / "x.h5ad", **options)
    with pytest.raises(TypeError, match="adata is a DataFrame, expected"):
        scio.write_h5ad(pd.DataFrame(), tmp_path / "x.h5ad")
    assert list(tmp_path.iterdir()) == []


# --- the caller's object


def test_the_object_stays_as_it_is(tmp_path):
    adata = full()
    before = copy.deepcopy(adata)
    ids = {k: id(v) for k, v in adata.layers.items()}
    scio.write_h5ad(adata, tmp_path / "x.h5ad")
    assert_equal(adata, before)
    pd.testing.assert_frame_equal(adata.obs, before.obs)
    pd.testing.assert_frame_equal(adata.raw.var, before.raw.var)
    assert adata.obs["repeats"].dtype == object
    assert {k: id(v) for k, v in adata.layers.items()} == ids
    view = adata[1:4, ::2]
    scio.write_h5ad(view, tmp_path / "view.h5ad")
    assert view.is_view


def test_strings_stay_strings_when_asked(tmp_path):
    adata = full()
    scio.write_h5ad(adata, tmp_path / "x.h5ad", convert_strings_to_categoricals=False)
    read = anndata.read_h5ad(tmp_path / "x.h5ad").obs
    assert read["repeats"].dtype == object
    assert read["string dtype"].dtype == "string"
    assert read["objects with none"].isna().tolist() == [False, True, False, True, False]


def test_categories_come_in_natural_order(tmp_path):
    scio.write_h5ad(full(), tmp_path / "x.h5ad")
    categories = anndata.read_h5ad(tmp_path / "x.h5ad").obs["repeats"].cat.categories
    assert list(categories) == ["s1", "s2", "s10"]


# --- views, files, dask


@pytest.fixture
def block_sizes(monkeypatch) -> list[int]:
    """Bytes of each block that goes through a stream: how much is in memory at a time."""
    sizes: list[int] = []
    for stream in (SparseStream, DenseStream):

        def append(self, first, *rest, original=stream.append):
            sizes.append(first.nbytes)
            original(self, first, *rest)

        monkeypatch.setattr(stream, "append", append)
    return sizes


@pytest.mark.parametrize(
    "rows", [slice(1, 4), [4, 0, 2], np.array([True, False, True, True, False])]
)
def test_views(tmp_path, rows):
    view = full()[rows, ["g3", "g0", "g6"]]
    ours, theirs = write_both(view, tmp_path)
    assert_reads_equal(ours, theirs)
    assert view.is_view


@pytest.mark.parametrize("kind", ["csr", "csc", "dense"])
def test_backed(tmp_path, kind, monkeypatch, block_sizes):
    monkeypatch.setattr("scio.io._coding._BLOCK_ENTRIES", 100)
    monkeypatch.setattr("scio.io._coding._BLOCK_NBYTES", 3000)
    monkeypatch.setattr("scio.io._coding._MAX_BLOCK_ROWS", 7)
    X = counts().astype("f4")
    X = X if kind == "dense" else sp.csr_matrix(X).asformat(kind)
    memory = anndata.AnnData(
        X, obs=pd.DataFrame({"a": np.arange(60)}, [f"c{i}" for i in range(60)])
    )
    memory.raw = memory
    memory.write_h5ad(tmp_path / "src.h5ad")
    for selection in (
        (slice(None), slice(None)),
        (slice(3, 50), slice(2, 30)),
        ([5, 1, 9], [0, 4]),
    ):
        backed = anndata.read_h5ad(tmp_path / "src.h5ad", backed="r")
        is_whole = selection[0] == slice(None)
        scio.write_h5ad(backed if is_whole else backed[selection], tmp_path / "dst.h5ad")
        wanted = memory if is_whole else memory[selection].copy()
        read = anndata.read_h5ad(tmp_path / "dst.h5ad")
        assert_equal(read.X, wanted.X)
        assert getattr(read.X, "format", "dense") == kind
        pd.testing.assert_frame_equal(read.obs, wanted.obs)
        assert_equal(read.raw.X, wanted.raw.X)
        assert len(block_sizes) > 4 or not is_whole
        assert max(block_sizes) <= 3000  # of 9,600
        block_sizes.clear()
        backed.file.close()


def test_writing_over_the_file_that_is_open(tmp_path):
    path = tmp_path / "x.h5ad"
    small(60, 40).write_h5ad(path)
    backed = anndata.read_h5ad(path, backed="r+")
    handle = scio.open(path)
    old = backed.X[:].toarray()
    backed.obs["new"] = 1
    scio.write_h5ad(backed[10:], path)
    assert anndata.read_h5ad(path).shape == (50, 40)
    assert "new" in anndata.read_h5ad(path).obs
    np.testing.assert_array_equal(backed.X[:].toarray(), old)  # the open handles keep the old file
    np.testing.assert_array_equal(handle.X.read().toarray(), old)
    backed.file.close()


@pytest.mark.parametrize("kind", ["csr", "csc", "dense"])
def test_dask_is_computed_block_by_block(tmp_path, kind):
    dense = counts(50, 30).astype("f4")
    n_made, axis = [], 1 if kind == "csc" else 0

    def make(block: np.ndarray) -> object:
        n_made.append(block.shape)
        return block if kind == "dense" else sp.csr_matrix(block).asformat(kind)

    meta = None if kind == "dense" else sp.random(0, 0, format=kind, dtype="f4")
    chunks = (-1, 7) if axis else (11, -1)
    lazy = da.from_array(dense, chunks=chunks).map_blocks(make, dtype="f4", meta=meta)
    n_made.clear()
    adata = anndata.AnnData(
        lazy, layers={"two": lazy * 2}, obsm={"dense": da.ones((50, 4), chunks=9)}
    )
    scio.write_h5ad(adata, tmp_path / "x.h5ad")
    assert isinstance(adata.X, da.Array)
    assert max(shape[axis] for shape in n_made) <= 11
    read = anndata.read_h5ad(tmp_path / "x.h5ad")
    assert getattr(read.X, "format", "dense") == kind
    for mine, wanted in ((read.X, dense), (read.layers["two"], dense * 2)):
        np.testing.assert_array_equal(mine if kind == "dense" else mine.toarray(), wanted)
    assert read.obsm["dense"].sum() == 200


def test_lazy_elements_of_an_open_file(tmp_path):
    small(60, 40).write_h5ad(tmp_path / "src.h5ad")
    with h5py.File(tmp_path / "src.h5ad") as file:
        adata = small(60, 40)
        adata.X = read_elem_lazy(file["X"], chunks=(13, 40))
        scio.write_h5ad(adata, tmp_path / "x.h5ad")
    assert_equal(anndata.read_h5ad(tmp_path / "x.h5ad").X, small(60, 40).X)


@pytest.mark.parametrize("kind", ["csr", "csc", "dense"])
def test_files_are_copied_in_bounded_memory(tmp_path, kind, monkeypatch, block_sizes):
    monkeypatch.setattr("scio.io._from_file._BLOCK_ENTRIES", 10)
    monkeypatch.setattr("scio.io._from_file._BLOCK_NBYTES", 80)
    adata = full()
    for name in ("bytes", "wide records"):  # scio reads bytes of fixed length as text
        del adata.uns[name]
    adata.X = adata.X.toarray() if kind == "dense" else adata.X.asformat(kind)
    _, src = write_both(adata, tmp_path)
    scio.write_h5ad(src, tmp_path / "dst.h5ad", checksums=True)
    assert_reads_equal(tmp_path / "dst.h5ad", src)
    assert len(block_sizes) > 20
    assert max(block_sizes) <= 80  # of 280
    with scio.open(src) as file:
        scio.write_h5ad(file, src, compression=None)  # over its own source
    assert_reads_equal(src, tmp_path / "dst.h5ad")


def test_real_files_of_every_age_become_modern_ones(tmp_path, shared_data):
    for name in ("anndata_archive_v0.5.0.h5ad", "bpcells_mini_mat.anndata-v0.6.22.h5ad",
                 "anndata_archive_v0.7.0.h5ad", "bpcells_written_100x200_uint32idx.h5ad",
                 "x_none_2638x1838.h5ad"):  # fmt: skip
        src = shared_data / "h5ad_formats" / name
        report = scio.write_h5ad(src, tmp_path / "dst.h5ad")
        assert report.losses == []
        wanted = scio.read_h5ad(src)
        read = anndata.read_h5ad(tmp_path / "dst.h5ad")
        pd.testing.assert_frame_equal(read.obs, wanted.obs)
        pd.testing.assert_frame_equal(read.var, wanted.var)
        assert set(read.uns) == set(wanted.uns)
        for mine, want in (
            (read.X, wanted.X),
            *((read.obsm[k], v) for k, v in wanted.obsm.items()),
        ):
            assert_equal(mine, want)


def test_what_could_not_be_read_is_named(tmp_path):
    path = tmp_path / "src.h5ad"
    small().write_h5ad(path)
    with h5py.File(path, "r+") as file:
        strange = file["uns"].create_group("strange")
        strange.attrs.update({"encoding-type": "from the future", "encoding-version": "9.0.0"})
        file["obs/bad"] = np.arange(6)
        file["obs/bad"].attrs["encoding-type"] = "unheard of"
        file["obs"].attrs["column-order"] = ["bad"]
    with pytest.warns(ScioWarning):
        adata = scio.read_h5ad(path)
    for source in (adata, path):
        with pytest.warns(ScioWarning, match=r"/uns/strange \(left out"):
            report = scio.write_h5ad(source, tmp_path / "dst.h5ad")
        assert {row.element for row in report.losses} >= {"/uns/strange", "/obs/bad"}
        assert list(anndata.read_h5ad(tmp_path / "dst.h5ad").uns) == []


# --- what has no encoding


def with_column(values) -> anndata.AnnData:
    adata = small()
    adata.obs["bad"] = values
    return adata


BAD_COLUMNS = {
    "datetime": (pd.date_range("2020", periods=6), r"datetime64.*Timestamp in row 0.*astype\(str\)"),
    "zone": (pd.date_range("2020", periods=6, tz="UTC"), r"datetime64\[ns, UTC\].*astype\(str\)"),
    "timedelta": (pd.to_timedelta(range(6), "s"), r"timedelta64.*total_seconds"),
    "period": (pd.period_range("2020", periods=6, freq="D"), r"period.*astype\(str\)"),
    "interval": (pd.interval_range(0, 6), r"interval.*Interval in row 0.*astype\(str\)"),
    "cut": (pd.cut(np.arange(6.0), 2), r"/categories.*interval.*rename_categories"),
    "mixed": (["a", "b", 3, "c", 4, 5], r"int in row 2, 3,.*astype\(str\), since"),
    "objects": (np.array([1, 2, None, 4, 5, 6], object), r"int in row 0, 1,.*astype\('Int64'\)"),
    "maybe": (np.array([True, None, False] * 2, object), r"bool in row 0.*astype\('boolean'\)"),
    "decimal": ([decimal.Decimal(1)] * 6, r"Decimal in row 0.*astype\('float64'\)"),
    "late": (["a"] * 5 + [datetime.date(2020, 1, 1)], r"date in row 5.*astype\(str\)"),
    "bytes": ([b"a"] * 6, r"bytes in row 0.*decode"),
    "lists": ([[1], [2]] * 3, r"list in row 0.*awkward"),
    "Float64": (pd.array([1.5, None] * 3, dtype="Float64"), r"Float64.*row 1.*astype\('float64'\)"),
    "sparse": (pd.arrays.SparseArray([0, 1] * 3), r"Sparse.*to_dense"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_COLUMNS)
def test_columns_without_encoding_are_named(tmp_path, name):
    values, text = BAD_COLUMNS[name]
    (tmp_path / "x.h5ad").write_bytes(b"old")
    with pytest.raises(TypeError, match=f"/obs/bad.*{text}"):
        scio.write_h5ad(with_column(values), tmp_path / "x.h5ad")
    assert [p.name for p in tmp_path.iterdir()] == ["x.h5ad"]
    assert (tmp_path / "x.h5ad").read_bytes() == b"old"


CONVERSIONS = {
    "datetime": lambda s: s.astype(str),
    "timedelta": lambda s: s.dt.total_seconds(),
    "interval": lambda s: s.astype(str),
    "cut": lambda s: s.cat.rename_categories(str),
    "mixed": lambda s: s.astype(str),
    "objects": lambda s: s.astype("Int64"),
    "maybe": lambda s: s.astype("boolean"),
    "decimal": lambda s: s.astype("float64"),
    "bytes": lambda s: s.str.decode("utf-8"),
    "Float64": lambda s: s.astype("float64"),
    "sparse": lambda s: s.sparse.to_dense(),
}


@pytest.mark.parametrize("name", CONVERSIONS)
def test_the_conversions_that_are_advised_work(tmp_path, name):
    adata = with_column(BAD_COLUMNS[name][0])
    adata.obs["bad"] = CONVERSIONS[name](adata.obs["bad"])
    scio.write_h5ad(adata, tmp_path / "x.h5ad")
    assert len(anndata.read_h5ad(tmp_path / "x.h5ad").obs["bad"]) == 6


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({1: 2}, "key 1 of type int"),
        ({"": 2}, "empty text"),
        (datetime.datetime(2020, 1, 1), "datetime.*isoformat"),
        ({"a", "b"}, "set.*sorted"),
        ([1, "a"], "list of mixed types"),
        ([[1], [2, 3]], "ragged list"),
        (2**80, "beyond 64 bits"),
        (np.longdouble(1), "float128.*float64"),
        (np.array(["2020"], "M8[D]"), r"datetime64\[D\].*astype\(str\)"),
        (np.ma.MaskedArray([[1.5]], mask=[[1]]), r"masked array of float64.*\(0, 0\).*filled"),
        (b"a\0", "frombuffer"),
        (pd.Series([1]), "Series.*to_frame"),
        (pd.DataFrame({0: [1]}), "column named 0.*rename"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "several columns named 'a'"),
        (pd.DataFrame({"_index": [1]}), "'_index'"),
        (pd.DataFrame({"a": [1]}, pd.MultiIndex.from_tuples([(1, 2)])), "2 levels.*reset_index"),
        (pd.DataFrame({"a": [1, 2]}, ["x", None]), "index of /uns/bad holds a NoneType in row 1"),
        (pd.Timestamp(0), "Timestamp.*isoformat"),
        (pd.NA, "NAType.*None"),
        (np.array([["a", None]], object), r"2 dimensions.*\(0, 1\)"),
        (np.array([("a", 1), (2, 2)], [("x", "O"), ("y", int)]), r"\['x'\] holds a int in row 1"),
        (object(), "object, which has no encoding"),
    ],
)  # fmt: skip
def test_values_without_encoding_are_named(tmp_path, value, text):
    adata = small()
    adata.uns["bad"] = value
    with pytest.raises((TypeError, ValueError), match=f"(?s){text}") as caught:
        scio.write_h5ad(adata, tmp_path / "x.h5ad")
    told = [str(caught.value), *getattr(caught.value, "__notes__", [])]
    assert any("/uns/bad" in line for line in told)
    assert list(tmp_path.iterdir()) == []


def test_a_broken_matrix_is_refused(tmp_path):
    adata = small()
    adata.X.indices[0] = 99
    with pytest.raises(ValueError, match="99") as caught:
        scio.write_h5ad(adata, tmp_path / "x.h5ad")
    assert "/X was not written" in caught.value.__notes__


@pytest.mark.parametrize("bad", ["a\0b", "\ud800"])
def test_texts_that_no_file_can_hold(tmp_path, bad):
    with pytest.raises(ValueError, match="item 5") as caught:
        scio.write_h5ad(with_column([*"abcde", bad]), tmp_path / "x.h5ad")
    assert any("/obs/bad" in note for note in caught.value.__notes__)


# --- keys


@pytest.mark.parametrize(
    "key",
    ["a/b", "/", "a%b", "a%2Fb", "100%25", "%252F", ".", "..", "...", "a.b", "%", "%2", "é/%2E"],
)
def test_keys_survive_the_escape(key):
    name = escape_key(key)
    assert "/" not in name
    assert name not in {".", ".."}
    assert unescape_key(name) == key


def test_keys_with_slashes_are_told_and_never_nest(tmp_path):
    adata = small()
    adata.obs["a/b"] = np.arange(6)
    adata.uns["x/y"] = {"pct%mito": 1}
    adata.layers["l/m"] = adata.X
    with pytest.warns(ScioWarning) as caught:
        report = scio.write_h5ad(adata, tmp_path / "x.h5ad")
    told = [str(w.message) for w in caught]
    assert len(told) == 3
    for key in ("a/b", "x/y", "l/m"):
        assert any(repr(key) in text for text in told)
    assert [row.note for row in report.elements if row.note]
    with h5py.File(tmp_path / "x.h5ad") as file:
        assert list(file["obs"].attrs["column-order"]) == ["a%2Fb"]
        assert set(file["obs"]) == {"_index", "a%2Fb"}
        assert list(file["uns"]) == ["x%2Fy"]
        assert list(file["uns/x%2Fy"]) == ["pct%mito"]
    assert anndata.read_h5ad(tmp_path / "x.h5ad").obs["a%2Fb"].tolist() == list(range(6))


def test_keys_come_back_from_our_files_and_stay_in_others(tmp_path):
    adata = small()
    adata.obs["a/b"], adata.obs["c%2Fd"] = np.arange(6), np.arange(6)
    adata.obs.index.name = "i/j"
    adata.uns["x/y"] = {"..": 1}
    adata.layers["l/m"] = adata.X
    with pytest.warns(ScioWarning, match="is written as"):
        scio.write_h5ad(adata, tmp_path / "x.h5ad")
    with pytest.warns(ScioWarning, match="is written as"):
        scio.write_h5ad(tmp_path / "x.h5ad", tmp_path / "copy.h5ad")
    for name in ("x.h5ad", "copy.h5ad"):
        read = scio.read_h5ad(tmp_path / name)
        assert list(read.obs.columns) == ["a/b", "c%2Fd"]
        assert read.obs.index.name == "i/j"
        assert read.uns == {"x/y": {"..": 1}}
        assert list(read.layers) == ["l/m"]
    plain = small()
    plain.uns["c%2Fd"] = 1
    plain.write_h5ad(tmp_path / "theirs.h5ad")
    assert list(scio.read_h5ad(tmp_path / "theirs.h5ad").uns) == ["c%2Fd"]


# --- streams


def test_streams_of_unknown_length(tmp_path):
    X = sp.random(100, 30, 0.3, format="csr", dtype="f8", random_state=0)
    options = StorageOptions(checksums=True)
    with new_file(tmp_path / "x.h5") as writer:
        for is_csc, name in ((False, "csr"), (True, "csc")):
            stream = SparseStream(
                writer, f"/{name}", shape=(30, None) if is_csc else (None, 30),
                data_dtype="f8", index_dtype="i4", options=options, is_csc=is_csc,
            )  # fmt: skip
            for start in range(0, 100, 9):
                block = X[start : start + 9]
                stream.append(block.data, block.indices, np.diff(block.indptr))
            stream.finish()
        dense = DenseStream(writer, "/dense", shape=(None, 30), dtype="f4", options=options)
        for start in range(0, 100, 9):
            dense.append(X[start : start + 9].toarray().astype("f4"))
        dense.finish()
    with h5py.File(tmp_path / "x.h5") as file:
        assert_equal(anndata.io.read_elem(file["csr"]), X)
        assert_equal(anndata.io.read_elem(file["csc"]), X.T.tocsc())
        np.testing.assert_array_equal(anndata.io.read_elem(file["dense"]), X.toarray().astype("f4"))


def test_streams_that_break_their_promise(tmp_path):
    one = np.ones(1)

    def write(*block: object) -> None:
        with new_file(tmp_path / "x.h5") as writer:
            stream = SparseStream(
                writer,
                "/X",
                shape=(2, 3),
                data_dtype="f8",
                index_dtype="i4",
                options=StorageOptions(),
            )
            stream.append(*block)
            stream.finish()

    for text, block in (
        ("1 values, 1 indices and 2 entries", (one, one.astype("i4"), [2])),
        ("1 rows came, 2 were promised", (one, one.astype("i4"), [1])),
        ("float64 came, which does not fit int32", (one, one, [1])),
    ):
        with pytest.raises((ValueError, TypeError), match=text):
            write(*block)
        (tmp_path / "x.h5").unlink()


def test_overwrite_false(tmp_path):
    path = tmp_path / "x.h5ad"
    scio.write_h5ad(small(), path, overwrite=False)
    old = path.read_bytes()
    with pytest.raises(TargetExistsError, match=r"x\.h5ad"):
        scio.write_h5ad(small(9, 9), path, overwrite=False)
    assert path.read_bytes() == old
