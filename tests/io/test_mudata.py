"""read_h5mu and write_h5mu against mudata; what is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import h5py
import mudata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata.tests.helpers import assert_equal

import scio
from scio.errors import (
    CorruptFileError,
    IOFormatError,
    KeyNotFoundError,
    ScioWarning,
    TargetExistsError,
    UnsupportedError,
)

REAL = [
    "mudata_v0.1.2_axis0.h5mu",
    "mudata_v0.2.4_axis0.h5mu",
    "mudata_v0.3.10_axis0.h5mu",
    "mudata_v0.4.1_axis0.h5mu",
    "muon_multiome_1000_rna45_atac174.h5mu",
]
# of mudata about its own defaults, and about files that it did not write
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*written without encoding metadata"),
    pytest.mark.filterwarnings(
        "ignore:.*(was not created by|not unique|Cannot join).*:UserWarning"
    ),
]


def assert_same(a: mudata.MuData, b: mudata.MuData, *, exact: bool = True) -> None:
    assert list(a.mod) == list(b.mod)
    assert a.axis == b.axis
    for name in a.mod:
        assert_equal(a.mod[name], b.mod[name], exact=exact)
    for axis in ("obs", "var"):
        pd.testing.assert_frame_equal(getattr(a, axis), getattr(b, axis), check_index_type=exact)
    for name in ("obsm", "varm", "obsp", "varp", "uns", "obsmap", "varmap"):
        mine, theirs = dict(getattr(a, name)), dict(getattr(b, name))
        assert mine.keys() == theirs.keys()
        for key, value in mine.items():
            assert_equal(value, theirs[key], exact=exact)


def as_objects(mdata: mudata.MuData) -> mudata.MuData:
    """Names as plain strings: files of scio hold indexes so, whatever pandas calls them."""
    for adata in mdata.mod.values():
        adata.obs_names, adata.var_names = (
            adata.obs_names.astype(object), adata.var_names.astype(object)
        )  # fmt: skip
        if adata.raw is not None:
            adata.raw.var.index = adata.raw.var.index.astype(object)
    mdata.obs.index, mdata.var.index = (
        mdata.obs.index.astype(object),
        mdata.var.index.astype(object),
    )
    return mdata


def make_mdata(axis: int = 0) -> mudata.MuData:
    """Modalities in an order that is not that of their names, with cells that one of them lacks."""
    rng = np.random.default_rng(0)
    cells = np.array([f"c{i}" for i in range(40)])
    parts = {}
    for name, n_cells, n_genes in (("rna", 40, 12), ("adt", 30, 5)):
        genes = [f"{name}{i}" for i in range(n_genes)]
        x = sp.random(n_cells, n_genes, 0.3, "csr", np.float32, rng)
        own = cells[:n_cells]
        if axis == 1:
            own, genes = (
                np.array([f"{name}-{i}" for i in range(n_cells)]),
                [f"g{i}" for i in range(n_genes)],
            )
        adata = anndata.AnnData(x, obs=pd.DataFrame(index=own), var=pd.DataFrame(index=genes))
        adata.obs["group"] = pd.Categorical(rng.choice(["a", "b"], n_cells))
        adata.obs["text"] = rng.choice(["x", "y"], n_cells).astype(object)
        adata.layers["twice"] = x * 2
        adata.obsm["X_pca"] = rng.normal(size=(n_cells, 3))
        adata.uns["nested"] = {"a": np.arange(3), "b": "text"}
        adata.raw = adata.copy()
        parts[name] = adata
    mdata = mudata.MuData(parts, axis=axis)
    mdata.obs["quality"] = np.arange(mdata.n_obs, dtype=np.float64)
    mdata.obsm["X_joint"] = rng.normal(size=(mdata.n_obs, 2)).astype(np.float32)
    mdata.uns["who"] = "scio"
    return mdata


# --- reading


@pytest.mark.parametrize("name", REAL)
def test_equals_mudata(shared_data, name):
    path = shared_data / "h5mu" / name
    assert_same(scio.read_h5mu(path), mudata.read_h5mu(path))
    assert_same(scio.read_h5mu(path.read_bytes()), mudata.read_h5mu(path))


@pytest.mark.parametrize("name", REAL)
def test_one_modality_alone(shared_data, name):
    path = shared_data / "h5mu" / name
    with h5py.File(path) as f:
        modalities = list(f["mod"])
    for modality in modalities:
        got = scio.read_h5mu(path, modality=modality)
        assert_equal(got, mudata.read_h5ad(path, modality), exact=True)
    with pytest.raises(KeyNotFoundError, match=rf"{name} has no modality 'ran'; .*"):
        scio.read_h5mu(path, modality="ran")


def test_of_the_others_nothing_is_touched(tmp_path):
    path = tmp_path / "x.h5mu"
    mudata.write_h5mu(path, make_mdata())
    with h5py.File(path, "r+") as f:
        del f["mod/adt/X"]
        f["mod/adt"].create_dataset("X", shape=(30, 5), dtype="f4", fillvalue=np.nan)
        f["mod/adt/X"].attrs["encoding-type"] = "of tomorrow"
        f["mod/adt/X"].attrs["encoding-version"] = "9.0.0"
    assert scio.read_h5mu(path, modality="rna").shape == (40, 12)
    with pytest.raises(UnsupportedError, match=r"/mod/adt/X has encoding 'of tomorrow'"):
        scio.read_h5mu(path)


@pytest.mark.parametrize("axis", [0, 1])
def test_what_mudata_writes(tmp_path, axis):
    path = tmp_path / "x.h5mu"
    mudata.write_h5mu(path, make_mdata(axis))
    got = scio.read_h5mu(path)
    assert list(got.mod) == ["rna", "adt"]  # by mod-order
    assert_same(got, mudata.read_h5mu(path))


def test_backed_is_of_mudata(tmp_path):
    path = tmp_path / "x.h5mu"
    mudata.write_h5mu(path, make_mdata())
    mdata = scio.read_h5mu(path, backed="r")
    assert mdata.isbacked
    np.testing.assert_array_equal(mdata["rna"].X[:].toarray(), make_mdata()["rna"].X.toarray())
    mdata.file.close()
    with pytest.raises(ValueError, match="takes no modality="):
        scio.read_h5mu(path, backed="r", modality="rna")


# --- writing


@pytest.mark.parametrize("compression", ["gzip", None])
@pytest.mark.parametrize("axis", [0, 1])
def test_mudata_reads_what_scio_writes(tmp_path, axis, compression):
    mdata = make_mdata(axis)
    report = scio.write_h5mu(mdata, tmp_path / "mine.h5mu", compression=compression)
    assert report.losses == []
    mudata.write_h5mu(tmp_path / "theirs.h5mu", mdata)
    mine = mudata.read_h5mu(tmp_path / "mine.h5mu")
    assert_same(mine, mudata.read_h5mu(tmp_path / "theirs.h5mu"))
    assert_same(scio.read_h5mu(tmp_path / "mine.h5mu"), mine)
    with h5py.File(tmp_path / "mine.h5mu") as a, h5py.File(tmp_path / "theirs.h5mu") as b:
        assert a.userblock_size == b.userblock_size == 512
        assert a["mod"].attrs["mod-order"].tolist() == b["mod"].attrs["mod-order"].tolist()
        assert a["obsmap/adt"].dtype == b["obsmap/adt"].dtype == np.uint32
        assert a["obsm/adt"].dtype == b["obsm/adt"].dtype == bool
        for name in ("encoding-type", "encoding-version", "axis"):
            assert a.attrs[name] == b.attrs[name]
    start = (tmp_path / "mine.h5mu").read_bytes()[:512]
    assert start.rstrip(b"\0").startswith(b"MuData (format-version=0.1.0;creator=scio;")
    assert start.rstrip(b"\0").endswith(b")")


@pytest.mark.parametrize("name", REAL)
def test_real_files_come_through(shared_data, tmp_path, name):
    mdata = mudata.read_h5mu(shared_data / "h5mu" / name)
    scio.write_h5mu(mdata, tmp_path / "x.h5mu")
    assert_same(mudata.read_h5mu(tmp_path / "x.h5mu"), as_objects(mdata), exact=False)


def test_same_content_same_bytes_and_the_object_is_left_alone(tmp_path):
    mdata = make_mdata()
    before = mdata.copy()
    scio.write_h5mu(mdata, tmp_path / "a.h5mu")
    scio.write_h5mu(mdata, tmp_path / "b.h5mu")
    assert (tmp_path / "a.h5mu").read_bytes() == (tmp_path / "b.h5mu").read_bytes()
    assert_same(mdata, before)
    assert mdata["rna"].obs["text"].dtype == object  # mudata's writer makes it categorical


def test_a_name_with_a_slash_comes_back(tmp_path):
    rna = make_mdata()["rna"]
    rna.raw = None
    mdata = mudata.MuData({"a/b": rna})
    with pytest.warns(ScioWarning, match="is written as 'a%2Fb"):
        scio.write_h5mu(mdata, tmp_path / "x.h5mu", convert_strings_to_categoricals=False)
    assert_same(scio.read_h5mu(tmp_path / "x.h5mu"), mdata)


def test_a_view_is_written(tmp_path):
    mdata = make_mdata()
    view = mdata[mdata.obs["quality"] > 20]
    scio.write_h5mu(view, tmp_path / "x.h5mu")
    got = scio.read_h5mu(tmp_path / "x.h5mu")
    assert got.n_obs == view.n_obs == 19
    np.testing.assert_array_equal(got["adt"].X.toarray(), view["adt"].X.toarray())


def test_whole_or_not_at_all(tmp_path):
    path = tmp_path / "x.h5mu"
    path.write_bytes(b"old")
    with pytest.raises(TargetExistsError):
        scio.write_h5mu(make_mdata(), path, overwrite=False)
    mdata = make_mdata()
    mdata["adt"].uns["when"] = pd.Timestamp("2020-01-01")
    with pytest.raises(TypeError, match=r"/mod/adt/uns/when"):
        scio.write_h5mu(mdata, path)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.h5mu"]
    with pytest.raises(TypeError, match=r"mdata is a AnnData, expected a mudata\.MuData"):
        scio.write_h5mu(mdata["rna"], path)
    with pytest.raises(TypeError, match="the modality 'inner' is a MuData"):
        scio.write_h5mu(mudata.MuData({"inner": make_mdata()}), path)


def test_numbers_behind_the_user_block_are_where_they_are_said_to_be(tmp_path):
    from scio._h5write import Writer

    writer = Writer(tmp_path / "x.h5", user_block="MuData")
    offset = writer.reserve("/x", shape=(10,), dtype="int64")
    writer.close()
    with (tmp_path / "x.h5").open("r+b") as f:
        f.seek(offset)
        f.write(np.arange(10, dtype=np.int64).tobytes())
    with h5py.File(tmp_path / "x.h5") as f:
        assert f["x"][()].tolist() == list(range(10))


# --- refused, or told


def _replace(path: str, value: Any) -> Callable[[h5py.File], None]:
    def change(f: h5py.File) -> None:
        attrs = dict(f[path].attrs)
        del f[path]
        f[path] = value
        f[path].attrs.update(attrs)

    return change


def _delete(path: str) -> Callable[[h5py.File], None]:
    return lambda f: f.__delitem__(path)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (_delete("mod"), IOFormatError, r"is HDF5 but no MuData: it has no group mod; .*lie obs"),
        (_delete("mod/rna/obs"), CorruptFileError, r"the modality /mod/rna has no obs"),
        (
            _replace("obsmap/adt", np.full(40, 31, dtype=np.uint32)),
            CorruptFileError,
            r"/obsmap/adt\[0\] is 31, not in \[0, 30\].*count the obs of /mod/adt",
        ),
        (_replace("varmap/rna", np.full(17, -1)), CorruptFileError, r"/varmap/rna\[0\] is -1"),
        (_replace("obsmap/adt", np.zeros(40)), CorruptFileError, r"/obsmap/adt has dtype float64"),
        (
            _replace("obsmap/adt", np.zeros(39, dtype=np.uint32)),
            CorruptFileError,
            r"/obsmap/adt has .*39.*40",
        ),
        (
            lambda f: f.move("obsmap/adt", "obsmap/atac"),
            CorruptFileError,
            r"/obsmap/atac is of no modality; did you mean|/obsmap/atac is of no modality; there are",
        ),
        (_replace("obsm/X_joint", np.zeros((3, 2))), CorruptFileError, r"/obsm/X_joint .*3.*40"),
        (
            _replace("mod/rna/X/indices", np.full(144, 12, dtype=np.int32)),
            CorruptFileError,
            r"/mod/rna/X/indices.*12",
        ),
    ],
)
def test_malformed_files_are_refused(tmp_path, change, error, message):
    path = tmp_path / "broken.h5mu"
    mudata.write_h5mu(path, make_mdata())
    with h5py.File(path, "r+") as f:
        change(f)
    with pytest.raises(error, match=message) as caught:
        scio.read_h5mu(path)
    assert "broken.h5mu" in str(caught.value)


def test_what_is_unknown_is_told_once(tmp_path):
    path = tmp_path / "x.h5mu"
    mudata.write_h5mu(path, make_mdata())
    expected = mudata.read_h5mu(path)
    with h5py.File(path, "r+") as f:
        f["stranger/a"] = 1
        f["mod"].attrs["mod-order"] = ["rna", "gone"]
    with pytest.warns(ScioWarning, match=r"/stranger .*mod-order names gone") as caught:
        got = scio.read_h5mu(path)
    assert len([w for w in caught if w.category is ScioWarning]) == 1
    assert list(got.mod) == ["adt", "rna"]  # as mudata has it
    assert_equal(got["rna"], expected["rna"], exact=True)
    with pytest.raises(UnsupportedError, match="/stranger"):
        scio.read_h5mu(path, strict=True)


def test_a_modality_that_the_order_forgets_is_not_lost(tmp_path, shared_data):
    path: Path = tmp_path / "x.h5mu"
    shutil.copyfile(shared_data / "h5mu" / REAL[3], path)
    with h5py.File(path, "r+") as f:
        f["mod"].attrs["mod-order"] = ["mod2"]
    assert list(scio.read_h5mu(path).mod) == ["mod2", "mod1"]
