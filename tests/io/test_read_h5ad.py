"""scio.read_h5ad: equal to anndata wherever anndata reads, written expectations where it does not."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import awkward as ak
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import scio
from scio.errors import (
    CorruptFileError,
    IOFormatError,
    KeyNotFoundError,
    ScioError,
    ScioWarning,
    UnsafeFileError,
    UnsupportedError,
)
from scio.io import estimate_memory, opaque_elements, read_element
from tests.conftest import _find_shared_data
from tests.data.conftest import make_adata
from tests.io.compare import anndata_differences

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*old version of AnnData",
    "ignore:.*without encoding metadata",
    "ignore:.*names are not unique",
    "ignore:Moving element from",
    "ignore:Support for Awkward Arrays",
    "ignore:Transforming to str index",
)

SHARED = _find_shared_data()
FILES = sorted(SHARED.rglob("*.h5ad")) if SHARED else []
NAMES = [str(p.relative_to(SHARED)) for p in FILES] if SHARED else []

# What anndata cannot read without hdf5plugin, which some other test may have imported, and the twin
# with the same content that it can: all hold the counts of pbmc68k_reduced, see README.md there.
TWINS = {
    "h5ad_filters/pbmc68k_counts_700x765_blosc_lz4_shuffle.h5ad": "gzip9",
    "h5ad_filters/pbmc68k_counts_700x765_zstd32015.h5ad": "gzip9",
}


def check(got: anndata.AnnData, expected: anndata.AnnData) -> None:
    """Fail with the list of differences."""
    assert anndata_differences(got, expected) == []


# --- real files


@pytest.mark.parametrize("name", NAMES)
def test_equals_anndata(name, shared_data):
    path = shared_data / name
    got = scio.read_h5ad(path)
    if name in TWINS:
        path = path.with_name(f"pbmc68k_counts_700x765_{TWINS[name]}.h5ad")
    check(got, anndata.read_h5ad(path))


def test_there_are_files(shared_data):
    assert len(NAMES) >= 39
    assert set(TWINS) <= set(NAMES)


@pytest.mark.parametrize(
    ("obs", "var"),
    [
        (slice(10, 30), None),
        (slice(None, None, 7), slice(5, 60)),
        (None, [3, 1, 1, -1]),
        (np.arange(700) % 3 == 0, np.array([4, 2])),
        ([], slice(0, 3)),
        ("names", "names"),
        (4, None),
    ],
)
@pytest.mark.parametrize(
    "name",
    [
        "h5ad_formats/anndata_archive_v0.5.0.h5ad",
        "h5ad_formats/anndata_archive_v0.7.8.h5ad",
        "h5ad_formats/anndataR_example_nullable_50x100.h5ad",
        "h5ad_formats/pbmc68k_reduced_enc02.h5ad",
    ],
)
def test_selections_equal_subsets(shared_data, name, obs, var):
    path = shared_data / name
    whole = anndata.read_h5ad(path)
    if isinstance(obs, np.ndarray):
        obs = obs[: whole.n_obs]
    if isinstance(obs, str):
        obs, var = list(whole.obs_names[[7, 2, -1]]), pd.Index(whole.var_names[[9, 8, -1, 1]])
    rows = slice(None) if obs is None else obs
    cols = slice(None) if var is None else var
    got = scio.read_h5ad(path, obs=obs, var=var)
    check(got, whole[rows, cols].copy())


# --- made files


def write(adata: anndata.AnnData, path: Path, **options: Any) -> Path:
    """Write with anndata, which warns about what it changes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adata.write_h5ad(path, **options)
    return path


def edited(tmp_path: Path, edit: Callable[[h5py.File], None], adata: Any = None) -> Path:
    """A small file that h5py has changed afterwards."""
    path = write(make_adata(30, 12) if adata is None else adata, tmp_path / "edited.h5ad")
    with h5py.File(path, "r+") as f:
        edit(f)
    return path


def replace(f: h5py.File, path: str, values: Any, **options: Any) -> None:
    """Put another dataset in the place of one, with its attributes."""
    attributes = dict(f[path].attrs)
    del f[path]
    f.create_dataset(path, data=values, **options)
    f[path].attrs.update(attributes)


@pytest.fixture(scope="module")
def rich() -> anndata.AnnData:
    """Nearly everything that anndata writes."""
    rng = np.random.default_rng(1)
    adata = make_adata(40, 15)
    n = adata.n_obs
    adata.obs["unused"] = pd.Categorical(["a"] * n, categories=["b", "a", "c"], ordered=True)
    adata.obs["none"] = pd.Categorical([None] * n, categories=[3, 1])
    adata.obs["Int"] = pd.array([None if i % 3 else i for i in range(n)], dtype="Int32")
    adata.obs["bool"] = pd.array([None if i % 5 else True for i in range(n)], dtype="boolean")
    adata.obs["text"] = pd.array([None if i % 4 else f"ä{i}" for i in range(n)], dtype="string")
    adata.obs["half"] = rng.random(n).astype(np.float16)
    adata.layers["csc"] = sp.csc_matrix(adata.X)
    adata.layers["dense"] = adata.X.toarray().astype(np.int64)
    adata.obsm["X_pca"] = rng.random((n, 3))
    adata.obsm["cube"] = rng.random((n, 3, 2)).astype(np.float32)
    adata.obsm["sparse"] = sp.random(n, 9, 0.3, "csr", random_state=0)
    adata.obsm["frame"] = pd.DataFrame({"q": range(n)}, index=adata.obs_names)
    adata.obsm["ragged"] = ak.Array([[float(i)] * (i % 4) for i in range(n)])
    adata.obsp["graph"] = sp.random(n, n, 0.1, "csr", random_state=0)
    adata.varp["dense"] = rng.random((15, 15))
    adata.raw = make_adata(40, 25)
    adata.raw.varm["PCs"] = rng.random((25, 2))
    adata.uns = {
        "nested": {"deep": {"x": 1, "y": "text", "empty": {}}, "flag": True, "none": None},
        "complex": np.complex64(1 + 2j),
        "complexes": np.array([1j, 2]),
        "half": np.float16(0.5),
        "floats": np.arange(3, dtype=np.float16),
        "big": np.arange(4, dtype=">i4"),
        "strings": np.array(["a", "", "ü"], dtype=object),
        "strings2d": np.array([["a", "b"], ["c", "d"]], dtype=object),
        "none": None,
        "awkward": ak.Array([{"a": [1, 2], "b": "x"}, {"a": [], "b": "y"}]),
        "records": np.array([("a", 1.5), ("b", 2.5)], dtype=[("name", "O"), ("score", "f4")]),
        "frame": pd.DataFrame({"c": pd.Categorical(["u", "v"])}, index=["r", "s"]),
        "inner": make_adata(20, 6),
        "empty": np.zeros((0, 3)),
        "cell_type_colors": np.array(["red", "green", "blue", "black"], dtype=object),
    }
    return adata


@pytest.fixture(scope="module")
def rich_path(rich, tmp_path_factory) -> Path:
    return write(rich, tmp_path_factory.mktemp("rich") / "rich.h5ad", compression="gzip")


def test_every_encoding(rich_path):
    expected = anndata.read_h5ad(rich_path)
    got = scio.read_h5ad(rich_path)
    check(got, expected)
    assert type(got.uns["nested"]["deep"]["x"]) is int
    assert got.uns["none"] is None
    assert got.obs["half"].dtype == np.float16
    assert opaque_elements(got) == ()
    check(scio.read_h5ad(rich_path, threads=1), expected)
    check(scio.read_h5ad(rich_path.read_bytes()), expected)
    with rich_path.open("rb") as stream:
        check(scio.read_h5ad(stream), expected)
    with scio.open(rich_path) as handle:
        check(handle.to_memory(), expected)
        check(scio.read_h5ad(handle), expected)
    for rows, cols in (([5, 3, 39, 3], slice(2, 9)), (slice(3, 20, 2), None)):
        selected = scio.read_h5ad(rich_path, obs=rows, var=cols)
        check(selected, expected[rows, slice(None) if cols is None else cols].copy())


def test_comparison_sees_changes(rich_path):
    """The oracle of this file is no rubber stamp."""

    def column(name: str, change: Callable[[pd.Series], Any]) -> Callable[[Any], None]:
        return lambda a: setattr(a, "obs", a.obs.assign(**{name: change(a.obs[name])}))

    changes: list[Callable[[anndata.AnnData], Any]] = [
        lambda a: a.X.data.__setitem__(0, 99),
        lambda a: a.X.indices.__setitem__(slice(0, 2), a.X.indices[1::-1].copy()),
        column("depth", lambda c: c.astype(np.float32)),
        column("unused", lambda c: c.cat.remove_unused_categories()),
        column("none", lambda c: c.cat.set_categories([1, 3])),
        column("bool", lambda c: c.fillna(False)),
        lambda a: a.uns["nested"]["deep"].__setitem__("x", 1.0),
        lambda a: a.uns["strings"].__setitem__(1, None),
        lambda a: a.uns["records"]["score"].__setitem__(1, 0),
        lambda a: a.uns.pop("none"),
        lambda a: a.uns["inner"].obs.pop("depth"),
        lambda a: a.obsm.__setitem__("ragged", a.obsm["ragged"][::-1]),
        lambda a: a.obsm["cube"].__setitem__((0, 0, 0), 7),
        lambda a: a.layers.__setitem__("csc", a.layers["csc"].tocsr()),
        lambda a: a.raw.X.data.__setitem__(0, 99),
        lambda a: setattr(a, "obs_names", [*a.obs_names[1:], "x"]),
    ]
    for i, change in enumerate(changes):
        got = scio.read_h5ad(rich_path)
        change(got)
        assert anndata_differences(got, anndata.read_h5ad(rich_path)), i


def test_handle_opens_the_same_elements(rich_path):
    expected = anndata.read_h5ad(rich_path)
    f = scio.open(rich_path)
    assert sorted(f.uns) == sorted(expected.uns)
    assert f.uns["nested"]["deep"]["y"] == "text"
    assert f.uns["nested"]["deep"]["empty"].keys() == []
    assert f.uns["none"] is None
    assert f.uns["half"] == 0.5
    assert f.uns["frame"]["c"].labels().tolist() == ["u", "v"]
    assert f.uns["awkward"].to_list() == expected.uns["awkward"].to_list()
    assert f.obsm["ragged"].to_list() == expected.obsm["ragged"].to_list()
    np.testing.assert_array_equal(f.obsm["cube"], expected.obsm["cube"])
    np.testing.assert_array_equal(
        f.obsm["sparse"][3:5].toarray(), expected.obsm["sparse"][3:5].toarray()
    )
    np.testing.assert_array_equal(f.raw.varm["PCs"].read(), expected.raw.varm["PCs"])
    assert "uns: " in repr(f)
    with pytest.raises(KeyNotFoundError, match="'nested'"):
        f.uns["nestde"]
    assert read_element(rich_path, "uns/inner").shape == (20, 6)


def test_handle_on_legacy_files(shared_data):
    path = shared_data / "h5ad_formats/anndata_archive_v0.5.0.h5ad"
    expected = anndata.read_h5ad(path)
    f = scio.open(path)
    assert sorted(f.obsm) == sorted(expected.obsm)
    np.testing.assert_array_equal(f.obsm["X_pca"], expected.obsm["X_pca"])
    assert sorted(f.obsp) == sorted(expected.obsp)
    np.testing.assert_array_equal(
        f.obsp["distances"][:5].toarray(), expected.obsp["distances"][:5].toarray()
    )


# --- types and shapes without a sample


def _bytes(f: h5py.File) -> None:
    for name, value in (("fixed", np.bytes_(b"ab\xff")), ("opaque", np.void(b"\0\1\2"))):
        d = f.create_dataset(f"uns/{name}", data=value)
        d.attrs.update({"encoding-type": "bytes", "encoding-version": "0.2.0"})
    d = f.create_dataset("uns/vlen", data=b"xy\xfe", dtype=h5py.string_dtype("ascii"))
    d.attrs.update({"encoding-type": "bytes", "encoding-version": "0.2.0"})


def test_bytes(tmp_path):
    """anndata has a reader of bytes that no file reaches: expectation by the format's table."""
    adata = scio.read_h5ad(edited(tmp_path, _bytes))
    assert adata.uns["fixed"] == b"ab\xff"
    assert adata.uns["opaque"] == b"\0\1\2"
    assert adata.uns["vlen"] == b"xy\xfe"


@pytest.mark.parametrize(
    "dtype", ["i1", "u1", "i2", ">i2", "u2", "u4", ">u8", "f2", ">f4", "f8", "?"]
)
def test_types_of_values(tmp_path, dtype):
    rng = np.random.default_rng(0)
    values = rng.integers(0, 2, 30 * 12).reshape(30, 12)

    def edit(f: h5py.File) -> None:
        data = f["X/data"][()]
        replace(f, "X/data", data.astype(dtype), chunks=(7,), maxshape=(None,), compression=1)
        d = f.create_dataset("layers/dense", data=values.astype(dtype))
        d.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})

    path = edited(tmp_path, edit)
    got = scio.read_h5ad(path)
    native = np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(got.layers["dense"], values.astype(native))
    assert got.layers["dense"].dtype == native
    if dtype == "f2":  # SciPy has no such matrix and anndata fails: widened, which loses nothing
        assert got.X.dtype == np.float32
        np.testing.assert_array_equal(got.X.toarray(), make_adata(30, 12).X.toarray())
        return
    if dtype.startswith(">"):  # SciPy has no such matrix and anndata fails: native order
        assert got.X.dtype == native
        np.testing.assert_array_equal(got.X.toarray(), make_adata(30, 12).X.toarray())
        return
    check(got, anndata.read_h5ad(path))


@pytest.mark.parametrize("indptr", ["i4", "i8", "u4", ">u8"])
@pytest.mark.parametrize("indices", ["u1", "u2", "i4", "i8", ">i8", "u8"])
def test_types_of_indices(tmp_path, indices, indptr):
    def edit(f: h5py.File) -> None:
        replace(f, "X/indices", f["X/indices"][()].astype(indices), chunks=(5,), compression=1)
        replace(f, "X/indptr", f["X/indptr"][()].astype(indptr))

    matrix = scio.read_h5ad(edited(tmp_path, edit)).X
    assert matrix.indices.dtype == np.int32
    assert matrix.indptr.dtype == np.int32
    assert (matrix != make_adata(30, 12).X).nnz == 0
    matrix.check_format(full_check=True)


def test_slash_in_column_names(tmp_path):
    """Before 0.13 anndata wrote them as nested members that column-order names by path."""
    adata = make_adata(30, 12)
    adata.obs["a/b"] = np.arange(30)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = write(adata, tmp_path / "slash.h5ad")
    got = scio.read_h5ad(path)
    check(got, anndata.read_h5ad(path))
    assert got.obs["a/b"].tolist() == list(range(30))
    assert scio.read_h5ad(path, elements="obs/a/b").obs.columns.tolist() == ["a/b"]


def test_many_columns(tmp_path):
    names = [f"column{i:04d}" for i in range(4500)]
    with h5py.File(tmp_path / "wide.h5ad", "w") as f:
        f.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        for axis, n, columns in (("obs", 4, names), ("var", 2, [])):
            g = f.create_group(axis, track_order=True)
            g.attrs.update({"encoding-type": "dataframe", "encoding-version": "0.2.0"})
            g.attrs["_index"] = "_index"
            g.attrs["column-order"] = np.array(columns, dtype=h5py.string_dtype())
            g["_index"] = [f"{axis}{i}" for i in range(n)]
            for i, name in enumerate(columns):
                g[name] = np.arange(n) + i
    adata = scio.read_h5ad(tmp_path / "wide.h5ad")
    assert adata.obs.columns.tolist() == names
    assert adata.obs["column4499"].tolist() == [4499, 4500, 4501, 4502]
    assert adata.X is None


def test_empty_everything(tmp_path):
    for shape in ((0, 0), (0, 3), (3, 0)):
        adata = anndata.AnnData(
            sp.csr_matrix(shape, dtype=np.float32),
            obs=pd.DataFrame(index=[f"c{i}" for i in range(shape[0])]),
            var=pd.DataFrame(index=[f"g{i}" for i in range(shape[1])]),
            obsm={"dense": np.zeros((shape[0], 0))},
            layers={"dense": np.zeros(shape)},
        )
        adata.obs["label"] = pd.Categorical([None] * shape[0], categories=[])
        adata.uns["frame"] = pd.DataFrame()
        path = write(adata, tmp_path / "empty.h5ad")
        check(scio.read_h5ad(path), anndata.read_h5ad(path))
        check(scio.read_h5ad(path, obs=[], var=[]), anndata.read_h5ad(path)[[], []].copy())


def test_x_as_null_dataset(tmp_path):
    def edit(f: h5py.File) -> None:
        del f["X"]
        d = f.create_dataset("X", data=h5py.Empty("f4"))
        d.attrs.update({"encoding-type": "null", "encoding-version": "0.1.0"})

    assert scio.read_h5ad(edited(tmp_path, edit)).X is None


def test_chunks_that_were_never_written(tmp_path):
    def edit(f: h5py.File) -> None:
        d = f.create_dataset(
            "layers/holes", (30, 12), "f4", chunks=(7, 5), fillvalue=2.5, compression=1
        )
        d[3, 4] = 1
        d.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
        d = f.create_dataset("layers/nothing", (30, 12), "i2", fillvalue=-1)
        d.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})

    path = edited(tmp_path, edit)
    check(scio.read_h5ad(path), anndata.read_h5ad(path))


def test_as_sparse_and_backed(tmp_path, rich_path):
    adata = anndata.AnnData(np.float32([[0, 1], [2, 0], [0, 0]]))
    path = write(adata, tmp_path / "dense.h5ad")
    for form in (sp.csr_matrix, sp.csc_matrix):
        got = scio.read_h5ad(path, as_sparse="X", as_sparse_fmt=form)
        check(got, anndata.read_h5ad(path, as_sparse=["X"], as_sparse_fmt=form))
    with pytest.raises(ValueError, match="layers/x"):
        scio.read_h5ad(path, as_sparse=["layers/x"])
    backed = scio.read_h5ad(rich_path, backed="r")
    assert backed.isbacked
    np.testing.assert_array_equal(
        backed.X[3:5].toarray(), scio.read_h5ad(rich_path).X[3:5].toarray()
    )
    backed.file.close()
    with pytest.raises(ValueError, match="elements="):
        scio.read_h5ad(rich_path, backed="r", elements="X")
    with pytest.raises(TypeError, match="path"):
        scio.read_h5ad(b"", backed="r")


# --- elements=


def stored(path: Path, dataset: str) -> list[tuple[int, int]]:
    """Where the chunks of a dataset lie."""
    units = scio.io.HDF5File(path).dataset(dataset).units()
    return [(int(p), int(p + n)) for p, n, _, _ in units if p >= 0]


def decoded_nbytes(path: Path, dataset: str) -> int:
    """Bytes that come out of all chunks of a dataset."""
    d = scio.io.HDF5File(path).dataset(dataset)
    return d.n_units * int(np.prod(d.chunks)) * d.type["itemsize"]


@pytest.fixture(scope="module")
def spread(tmp_path_factory) -> Path:
    """Several compressed matrices and columns, each of some chunks."""
    rng = np.random.default_rng(0)
    n = 20_000
    obs = pd.DataFrame({"a": rng.random(n), "b": rng.random(n)}, index=[f"c{i}" for i in range(n)])
    adata = anndata.AnnData(sp.random(n, 10, 0.5, "csr", rng=rng, dtype=np.float32), obs=obs)
    adata.layers["counts"] = adata.X.copy()
    adata.layers["more"] = adata.X.copy()
    adata.obsm["X_pca"] = rng.random((n, 2))
    adata.uns = {"big": rng.random(n), "small": {"x": 1, "y": 2}}
    return write(adata, tmp_path_factory.mktemp("spread") / "spread.h5ad", compression="gzip")


BIG = ["X", "layers/counts", "layers/more", "obs/a", "obs/b", "obsm/X_pca", "uns/big"]


def datasets_of(path: Path, element: str) -> list[str]:
    """The datasets of an array or a sparse matrix."""
    file = scio.io.HDF5File(path)
    if file.kind(element) == "dataset":
        return [element]
    return [f"{element}/{name}" for name in ("data", "indices", "indptr")]


@pytest.fixture(scope="module")
def n_decoded_for_names(spread) -> int:
    before = scio.stats()["nbytes_decoded"]
    scio.read_h5ad(spread, elements=[])
    return scio.stats()["nbytes_decoded"] - before


@pytest.mark.parametrize(
    ("elements", "touched"),
    [
        ("X", ["X"]),
        (["obs/b"], ["obs/b"]),
        (["obs"], ["obs/a", "obs/b"]),
        (["layers/*", "uns/small/x"], ["layers/counts", "layers/more"]),
        (["layers/c*", "obs/[ac]"], ["layers/counts", "obs/a"]),
        ("uns", ["uns/big"]),
        ([], []),
    ],
)
def test_only_named_elements_are_touched(tmp_path, spread, elements, touched, n_decoded_for_names):
    # every chunk of what is not named is garbage: to touch it is to fail
    image = bytearray(spread.read_bytes())
    for element in set(BIG) - set(touched):
        for dataset in datasets_of(spread, element):
            for start, stop in stored(spread, dataset):
                image[start:stop] = b"\xaa" * (stop - start)
    path = tmp_path / "x.h5ad"
    path.write_bytes(image)
    before = scio.stats()["nbytes_decoded"]
    got = scio.read_h5ad(path, elements=elements)
    n_decoded = scio.stats()["nbytes_decoded"] - before - n_decoded_for_names
    named = [d for element in touched for d in datasets_of(spread, element)]
    assert n_decoded == sum(decoded_nbytes(spread, d) for d in named)
    with pytest.raises(CorruptFileError):
        scio.read_h5ad(path)
    whole = anndata.read_h5ad(spread)
    assert got.obs_names.equals(whole.obs_names)
    assert got.obs.columns.tolist() == [c for c in "ab" if f"obs/{c}" in touched]
    assert sorted(got.layers) == sorted(t.split("/")[1] for t in touched if t[:6] == "layers")
    assert (got.X is not None) == ("X" in touched)
    if "uns/small/x" in elements:
        assert dict(got.uns) == {"small": {"x": 1}}
    if elements == "uns":
        assert got.uns["small"] == {"x": 1, "y": 2}


def test_rows_touch_only_their_chunks(spread, n_decoded_for_names):
    before = scio.stats()["nbytes_decoded"]
    got = scio.read_h5ad(spread, elements=["X", "obs/a"], obs=slice(100, 200))
    n_decoded = scio.stats()["nbytes_decoded"] - before
    assert got.obs["a"].tolist() == anndata.read_h5ad(spread).obs["a"][100:200].tolist()
    all_of_it = sum(decoded_nbytes(spread, d) for d in ("X/data", "X/indices", "X/indptr", "obs/a"))
    extents = decoded_nbytes(spread, "X/indptr")  # these are needed whole
    assert n_decoded < n_decoded_for_names + extents + (all_of_it - extents) / 4


def test_names_of_nothing(spread):
    adata = scio.read_h5ad(spread, elements=["obsp", "varm", "layers/none*", "uns/*/z*"])
    assert (len(adata.obsp), len(adata.layers), len(adata.obs.columns)) == (0, 0, 0)
    for name in ("X/data", "raw", "uns/none", "obs/c"):
        with pytest.raises(KeyNotFoundError, match=re.escape(repr(name))):
            scio.read_h5ad(spread, elements=["obs", name])


def test_wrong_names(spread):
    with pytest.raises(KeyNotFoundError, match="'layers/counts'"):
        scio.read_h5ad(spread, elements=["layers/count"])
    with pytest.raises(KeyNotFoundError, match="obs has no name 'nobody'"):
        scio.read_h5ad(spread, obs=["c1", "nobody"])
    with pytest.raises(IndexError, match="row 20000"):
        scio.read_h5ad(spread, obs=[20000])
    with pytest.raises(IndexError, match="mask has 3"):
        scio.read_h5ad(spread, var=[True, False, True])


# --- memory


def test_estimate_and_refusal(spread, monkeypatch):
    nbytes = estimate_memory(spread)
    adata = scio.read_h5ad(spread)
    matrices = [adata.X, *adata.layers.values()]
    exact = sum(m.data.nbytes + m.indices.nbytes + m.indptr.nbytes for m in matrices)
    assert exact < nbytes < 2 * exact + 20_000 * 200
    assert estimate_memory(spread, elements="obs/a") < nbytes / 2
    assert scio.open(spread).estimate_memory(elements="obs/a") == estimate_memory(
        spread, elements="obs/a"
    )
    assert estimate_memory(spread, obs=slice(0, 10), elements="X") < 100_000
    monkeypatch.setattr("scio.io.read._available_memory", lambda: 1000)
    before = scio.stats()["nbytes_decoded"]
    with pytest.raises(MemoryError, match=r"spread\.h5ad needs about .* elements="):
        scio.read_h5ad(spread)
    assert scio.stats()["nbytes_decoded"] == before


def test_available_memory_is_plausible():
    from scio.io.read import _available_memory

    assert 1 << 20 < _available_memory() < 1 << 50


PEAK = """
import resource, sys, scio
import numpy as np, anndata
scio.read_h5ad(sys.argv[2])
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
adata = scio.read_h5ad(sys.argv[1])
result = sum(a.nbytes for a in (adata.X.data, adata.X.indices, adata.X.indptr))
assert result > 70 << 20, result
print((peak() - before - result) / result)
"""


@pytest.mark.skipif(bool(__import__("os").environ.get("SCIO_SANITIZE")), reason="ASan's own memory")
def test_peak_is_the_result(tmp_path, spread):
    n, per_row = 10_000, 1_000
    with h5py.File(tmp_path / "large.h5ad", "w") as f:
        for axis, length in (("obs", n), ("var", 2000)):
            g = f.create_group(axis)
            g.attrs["_index"] = "_index"
            g.attrs["column-order"] = np.zeros(0)
            g.create_dataset("_index", data=np.arange(length).astype("S"))
        g = f.create_group("X")
        g.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0"})
        g.attrs["shape"] = (n, 2000)
        row = np.arange(0, 2000, 2, dtype=np.int32)
        options = {"chunks": (100_000,), "compression": "gzip", "compression_opts": 1}
        g.create_dataset("indices", data=np.tile(row, n), **options)
        g.create_dataset("data", data=np.ones(n * per_row, np.float32), **options)
        g.create_dataset("indptr", data=np.arange(0, n * per_row + 1, per_row))
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PEAK, str(tmp_path / "large.h5ad"), str(spread)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert float(run.stdout) < 0.10


INTERRUPT = """
import os, signal, sys, threading, time, scio, h5py, numpy as np
path = sys.argv[1]
scio.set_threads(1)
started = threading.Event()
def stop():
    time.sleep(0.4)
    stop.at = time.monotonic()
    os.kill(os.getpid(), signal.SIGINT)
import anndata
threading.Thread(target=stop).start()
try:
    scio.read_h5ad(path)
except KeyboardInterrupt:
    print(time.monotonic() - stop.at)
else:
    print("finished")
"""


def test_interrupt(tmp_path):
    """Ctrl-C in the middle of a long read: within a second, and the process goes on."""
    with h5py.File(tmp_path / "slow.h5ad", "w") as f:
        for axis, length in (("obs", 10), ("var", 10)):
            g = f.create_group(axis)
            g.attrs["_index"] = "_index"
            g.attrs["column-order"] = np.zeros(0)
            g["_index"] = np.arange(length).astype("S")
        # 2 GiB in chunks with one pattern: seconds of work in little space
        d = f.create_dataset("uns/long", (512, 1 << 20), "f4", chunks=(1, 1 << 20), compression=1)
        d[0] = np.arange(1 << 20)
        mask, chunk = d.id.read_direct_chunk((0, 0))
        for i in range(1, 512):
            d.id.write_direct_chunk((i, 0), chunk, mask)
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", INTERRUPT, str(tmp_path / "slow.h5ad")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() != "finished"
    assert float(run.stdout) < 1
    assert run.returncode != -signal.SIGINT


# --- what is not known


def test_unknown_things_are_references(tmp_path):
    def edit(f: h5py.File) -> None:
        f["__DATA_TYPES__/enum"] = np.dtype("i4")
        f.create_group("stereopy").attrs["bin"] = 50
        for path in ("uns/odd", "obsm/odd", "obs/odd"):
            g = f.create_group(path)
            g.attrs.update({"encoding-type": "quantum", "encoding-version": "0.1.0"})
        f["obs"].attrs["column-order"] = [*f["obs"].attrs["column-order"], "odd"]
        f["uns/link"] = h5py.SoftLink("/X")
        d = f.create_dataset("uns/newer", data=np.arange(3))
        d.attrs.update({"encoding-type": "array", "encoding-version": "0.9.0"})
        d = f.create_dataset("uns/newest", data=np.arange(3))
        d.attrs.update({"encoding-type": "array", "encoding-version": "1.0.0"})

    path = edited(tmp_path, edit)
    with pytest.raises(Exception, match=r"stereopy|__DATA_TYPES__|quantum|argument"):
        anndata.read_h5ad(path)
    with pytest.warns(ScioWarning) as caught:
        adata = scio.read_h5ad(path)
    ours = [w for w in caught if issubclass(w.category, ScioWarning)]
    assert len(ours) == 1
    assert ours[0].filename == __file__
    text = str(ours[0].message)
    places = ["/__DATA_TYPES__", "/stereopy", "/uns/odd", "/obsm/odd", "/obs/odd", "/uns/link"]
    places.append("/uns/newest")
    assert sorted(o.path for o in opaque_elements(adata)) == sorted(places)
    assert all(place in text for place in [*places, "/uns/newer", "quantum", "0.9.0"])
    stereo = next(o for o in opaque_elements(adata) if o.path == "/stereopy")
    assert (stereo.kind, stereo.attributes) == ("group", {"bin": 50})
    assert list(adata.uns) == ["newer"]
    assert adata.obs.columns.tolist() == make_adata(30, 12).obs.columns.tolist()
    with pytest.raises(UnsupportedError, match="/stereopy"):
        scio.read_h5ad(path, strict=True)
    with pytest.raises(UnsupportedError, match=r"/obs/odd.*quantum.*0\.1\.0"):
        scio.read_h5ad(path, elements=["obs/odd"])
    with pytest.warns(ScioWarning, match="/obs/odd"):
        scio.read_h5ad(path, elements=["obs"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scio.read_h5ad(path, elements=["X"])


def test_unknown_x_is_refused(tmp_path):
    path = edited(tmp_path, lambda f: f["X"].attrs.update({"encoding-type": "quantum"}))
    with pytest.raises(UnsupportedError, match=r"/X has encoding 'quantum'"):
        scio.read_h5ad(path)
    path = edited(tmp_path, lambda f: f["obs"].attrs.update({"encoding-version": "1.0.0"}))
    with pytest.raises(UnsupportedError, match=r"/obs has encoding 'dataframe' version 1\.0\.0"):
        scio.read_h5ad(path)


def test_filter_that_is_not_built_in_loses_one_column(tmp_path):
    def edit(f: h5py.File) -> None:
        d = f["obs/depth"][()]
        replace(f, "obs/depth", d.astype(np.int32), chunks=(10,), scaleoffset=0)

    path = edited(tmp_path, edit)
    with pytest.warns(ScioWarning, match=r"/obs/depth .*scaleoffset"):
        adata = scio.read_h5ad(path)
    assert "depth" not in adata.obs
    assert adata.obs["is_control"].tolist() == make_adata(30, 12).obs["is_control"].tolist()


def test_awkward_without_the_library(rich_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "awkward", None)
    with pytest.warns(ScioWarning, match=r"/obsm/ragged .*awkward"):
        adata = scio.read_h5ad(rich_path)
    assert "ragged" not in adata.obsm


# --- damage: every message names file and element


def _set(path: str, index: Any, value: Any) -> Callable[[h5py.File], None]:
    return lambda f: f[path].__setitem__(index, value)


def _attribute(path: str, name: str, value: Any) -> Callable[[h5py.File], None]:
    return lambda f: f[path].attrs.__setitem__(name, value)


def _utf8(f: h5py.File) -> None:
    values = np.array([b"ok"] * 29 + [b"b\xffd"], dtype=h5py.string_dtype("utf-8", 3))
    replace(f, "obs/_index", values)


def _link(f: h5py.File) -> None:
    f["uns/away"] = h5py.ExternalLink("other.h5", "/X")


def _cycle(f: h5py.File) -> None:
    f.create_group("uns/a")
    f["uns/a/again"] = f["uns/a"]


def _drop(path: str) -> Callable[[h5py.File], None]:
    return lambda f: f.__delitem__(path)


DAMAGE = {
    "index too large": (
        _set("X/indices", 3, 12),
        CorruptFileError,
        r"/X/indices.*indices\[3\] is 12",
    ),
    "index negative": (
        _set("X/indices", 0, -1),
        CorruptFileError,
        r"/X/indices.*indices\[0\] is -1",
    ),
    "indptr decreases": (_set("X/indptr", 4, 0), CorruptFileError, r"/X/indptr\[4\] is 0"),
    "indptr starts": (_set("X/indptr", 0, 1), CorruptFileError, r"/X/indptr\[0\] is 1"),
    "indptr ends": (_set("X/indptr", -1, 10**6), CorruptFileError, r"/X/indptr\[30\] is 1000000"),
    "index wraps int32": (
        lambda f: replace(f, "X/indices", f["X/indices"][()].astype("i8") + 2**32),
        CorruptFileError,
        r"/X/indices",
    ),
    "data short": (lambda f: f["X/data"].resize((5,)), CorruptFileError, r"/X/indices has shape"),
    "no indptr": (_drop("X/indptr"), CorruptFileError, r"/X lacks indptr"),
    "shape": (_attribute("X", "shape", [30, 13]), CorruptFileError, r"/X has shape \(30, 13\)"),
    "float indices": (
        lambda f: replace(f, "X/indices", f["X/indices"][()].astype("f4")),
        CorruptFileError,
        r"/X/indices holds float",
    ),
    "code too large": (
        _set("obs/cell_type/codes", 7, 4),
        CorruptFileError,
        r"/obs/cell_type/codes has code 4 in row 7",
    ),
    "code below -1": (
        _set("obs/cell_type/codes", 7, -2),
        CorruptFileError,
        r"/obs/cell_type/codes has code -2 in row 7",
    ),
    "equal categories": (
        _set("obs/cell_type/categories", 1, "type0"),
        CorruptFileError,
        r"/obs/cell_type/categories is no set",
    ),
    "short column": (
        lambda f: replace(f, "obs/depth", np.zeros(29)),
        CorruptFileError,
        r"/obs/depth has shape \(29,\), expected 30",
    ),
    "flat column": (
        lambda f: replace(f, "obs/depth", np.zeros((30, 2))),
        CorruptFileError,
        r"/obs/depth has shape \(30, 2\), a column",
    ),
    "column lost": (_drop("obs/depth"), CorruptFileError, r"/obs/depth does not exist"),
    "index lost": (_drop("obs/_index"), CorruptFileError, r"/obs/_index"),
    "no obs": (_drop("obs"), IOFormatError, r"no /obs"),
    "not utf-8": (_utf8, CorruptFileError, r"/obs/_index\[29\] is not UTF-8: b'b\\xffd'"),
    "kind": (
        _attribute("obs/depth", "encoding-type", "categorical"),
        CorruptFileError,
        r"/obs/depth has encoding-type 'categorical', expected a group",
    ),
    "encoding is a number": (
        _attribute("uns", "encoding-type", 3),
        CorruptFileError,
        r"/uns has encoding-type 3",
    ),
    "external link": (_link, UnsafeFileError, r"/uns/away .*other\.h5"),
    "cycle": (_cycle, CorruptFileError, r"/uns/a/again contains itself"),
    "both raws": (
        lambda f: (f.create_group("raw/var"), f.create_group("raw.X")),
        CorruptFileError,
        r"both /raw and /raw\.X",
    ),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_named(tmp_path, case):
    edit, error, text = DAMAGE[case]
    path = edited(tmp_path, edit)
    with pytest.raises(error, match=re.escape(str(path))) as caught:
        scio.read_h5ad(path)
    assert re.search(text, str(caught.value)), caught.value


def test_damaged_chunk_is_named(tmp_path):
    path = write(make_adata(300, 12), tmp_path / "chunk.h5ad", compression="gzip")
    start, stop = stored(path, "/X/data")[0]
    image = bytearray(path.read_bytes())
    image[start:stop] = b"\xaa" * (stop - start)
    path.write_bytes(image)
    with pytest.raises(CorruptFileError, match=r"chunk\.h5ad.*/X/data: chunk"):
        scio.read_h5ad(path)
    assert scio.read_h5ad(path, elements=["obs"]).n_obs == 300


@pytest.mark.filterwarnings("ignore")
def test_random_damage_is_refused_or_read(rich_path):
    """Bytes changed anywhere: an error of scio's own or an AnnData, never anything else."""
    image, rng = rich_path.read_bytes(), np.random.default_rng(7)
    n_refused = 0
    for _ in range(150):
        damaged = bytearray(image)
        for at in rng.integers(0, len(image), rng.choice([1, 2, 20])):
            damaged[at] = rng.choice([damaged[at] ^ (1 << rng.integers(8)), 0, 255])
        try:
            scio.read_h5ad(bytes(damaged))
        except (ScioError, MemoryError):
            n_refused += 1
    assert 10 < n_refused < 140


def test_file_that_changes_meanwhile(tmp_path, rich_path, monkeypatch):
    path = tmp_path / "x.h5ad"
    shutil.copy(rich_path, path)
    from scio.io import _plan

    run = _plan.Plan.run

    def run_and_replace(self: Any, threads: int = -1) -> None:
        run(self, threads)
        path.write_bytes(rich_path.read_bytes() + b"more")

    monkeypatch.setattr(_plan.Plan, "run", run_and_replace)
    with pytest.raises(IOFormatError, match="changed"):
        scio.read_h5ad(path)


# --- the core's functions


def test_text_array():
    from scio import _core

    words = ["", "a", "ä", "日本", "a", "long" * 50, "a", "x\0y"] * 700
    raw = [w.encode() for w in words]
    offsets = np.concatenate(([0], np.cumsum([len(r) for r in raw])))
    payload = np.frombuffer(b"".join(raw), np.uint8)
    out = _core.text_array(offsets, payload, "here")
    assert out.tolist() == words
    assert out[1] is out[4]  # one object for a label that repeats
    with pytest.raises(ValueError, match=r"offsets\[0\]"):
        _core.text_array(np.array([0, 9]), payload[:3].copy(), "here")
    with pytest.raises(ValueError, match=r"offsets\[1\]"):
        _core.text_array(np.array([0, 2, 1]), payload[:3].copy(), "here")
    with pytest.raises(CorruptFileError, match=r"here\[1\] is not UTF-8: b'\\xff'"):
        _core.text_array(np.array([0, 1, 2]), np.array([65, 255], np.uint8), "here")
    unique = [f"{i:08d}" for i in range(20_000)]  # nothing repeats: sharing is given up
    fields = np.array(unique, dtype="S8").view(np.uint8).reshape(-1, 8)
    assert _core.fixed_text_array(fields, 1, "here").tolist() == unique
    padded = np.frombuffer(b"ab  a\0b\0    ", np.uint8).reshape(3, 4)
    assert _core.fixed_text_array(padded, 2, "here").tolist() == ["ab", "a\0b", ""]
    assert _core.fixed_text_array(padded, 0, "here").tolist() == ["ab  ", "a", "    "]


@pytest.mark.parametrize("chunks", [None, (100_003,)])
@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_limits_reach_every_value(tmp_path, chunks, dtype):
    """Long lines are cut into jobs, each of which looks at its own stretch."""
    from scio import _core

    n = 3_000_000
    path = tmp_path / "line.h5"
    with h5py.File(path, "w") as f:
        f.create_dataset("d", data=np.arange(n, dtype=np.int32) % 1000, chunks=chunks)
    positions = (0, 1, 99_999, 1_048_575, 1_048_576, 2_097_152, n - 1)
    for position in positions:
        with h5py.File(path, "r+") as f:
            f["d"][position] = 1000
        dataset = _core.File(str(path)).dataset("/d")
        with pytest.raises(CorruptFileError, match=rf"/d: indices\[{position}\] is 1000"):
            _core.read_datasets([(dataset, dtype, None, None, 1000)])
        start = max(0, position - 5)
        with pytest.raises(CorruptFileError, match=rf"indices\[{position - start}\] is 1000"):
            _core.read_datasets([(dataset, dtype, (start,), None, 1000)])
        (values,) = _core.read_datasets([(dataset, dtype, None, None, 1001)])
        assert values[position] == 1000
        with h5py.File(path, "r+") as f:
            f["d"][position] = 0


def test_read_datasets_checks_requests(rich_path):
    from scio import _core

    f = _core.File(str(rich_path))
    data, names = f.dataset("/X/data"), f.dataset("/obs/_index")
    assert _core.read_datasets([]) == []
    for request, error in (
        ((data, None, None, None), TypeError),
        (("x", None, None, None, -1), TypeError),
        ((data, 3, None, None, -1), TypeError),
        ((data, "float128", None, None, -1), ValueError),
        ((data, "text", None, None, -1), TypeError),
        ((names, None, None, None, -1), TypeError),
        ((data, None, (0,), (10**9,), -1), IndexError),
        ((data, "int32", None, None, 0), CorruptFileError),
        ((f.dataset("/layers/dense"), None, None, None, 5), ValueError),
    ):
        with pytest.raises(error):
            _core.read_datasets([request])
    other = _core.File(str(rich_path)).dataset("/X/data")
    with pytest.raises(ValueError, match="one file"):
        _core.read_datasets([(data, None, None, None, -1), (other, None, None, None, -1)])
    live = scio.stats()["live_bufs"]
    for threads in (0, 1, -1):
        got = _core.read_datasets(
            [
                (data, "float64", (5,), (30,), -1),
                (names, "text", (2,), (3,), -1),
                (data, "raw", None, None, -1),
            ],
            threads=threads,
        )
        np.testing.assert_array_equal(got[0], data.read((5,), (30,), dtype="float64"))
        assert got[1].tolist() == ["cell2", "cell3", "cell4"]
        assert got[2].shape == (*data.shape, 4)
    del got
    assert scio.stats()["live_bufs"] == live
