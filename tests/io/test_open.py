"""scio.open: facts, rows, columns, legacy layouts, errors, pickles and forks."""

from __future__ import annotations

import gzip
import io
import multiprocessing
import pickle
import shutil
import threading
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import scio
from scio.errors import CorruptFileError, IOFormatError, KeyNotFoundError, UnsafeFileError
from scio.io import Categorical
from tests.data.conftest import make_adata, rewrite


@pytest.fixture(scope="module")
def adata() -> anndata.AnnData:
    adata = make_adata(100, 30)
    adata.layers["dense"] = adata.X.toarray() + 1
    adata.layers["csc"] = adata.X.tocsc()
    adata.obsm["X_pca"] = np.arange(500, dtype=np.float32).reshape(100, 5)
    adata.obsm["frame"] = pd.DataFrame({"a": np.arange(100)}, index=adata.obs_names)
    adata.raw = make_adata(100, 50)
    adata.obs["nullable"] = pd.array([None if i % 5 == 0 else i for i in range(100)], dtype="Int64")
    adata.obs["missing"] = pd.Categorical([None if i % 4 == 0 else "x" for i in range(100)])
    return adata


@pytest.fixture(scope="module")
def path(adata: anndata.AnnData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rewrite(adata, tmp_path_factory.mktemp("open") / "x.h5ad")


def test_facts_come_from_headers(path):
    f = scio.open(path)
    assert f.shape == (100, 30)
    assert (f.n_obs, f.n_vars) == (100, 30)
    assert f.X.shape == (100, 30)
    assert f.X.dtype == np.float32
    assert f.X.format == "csr"
    assert f.X.chunks == (97,)
    assert f.X.filters == ("deflate",)
    assert f.X.nnz == scio.open(path).X.read().nnz
    assert f.layers.keys() == ["csc", "dense"]
    assert f.layers["dense"].format == "dense"
    assert f.layers["csc"].format == "csc"
    assert f.obsm["X_pca"].shape == (100, 5)
    assert f.obsm["frame"].columns == ["a"]
    assert f.raw.shape == (100, 50)


def test_repr_tells_what_a_person_wants(path):
    text = repr(scio.open(path))
    for part in (
        "100 x 30",
        "csr",
        "float32",
        "deflate",
        "'cell_type'",
        "'X_pca'",
        "raw: 100 x 50",
    ):
        assert part in text
    assert "non-zeros" in repr(scio.open(path).X)


@pytest.mark.parametrize("name", ["X", "layers/dense", "layers/csc", "raw/X"])
def test_rows_equal_anndata(path, adata, name):
    handle = scio.open(path).matrix(name)
    expected = {
        "X": adata.X.toarray(),
        "raw/X": adata.raw.X.toarray(),
        "layers/dense": adata.layers["dense"],
        "layers/csc": adata.X.toarray(),
    }[name]
    for rows in (
        slice(None),
        slice(10, 20),
        slice(5, 5),
        slice(0, 100, 7),
        [3, 3, 99, 0],
        -1,
        7,
        np.arange(100) % 3 == 0,
        np.array([], dtype=int),
    ):
        got = handle[rows]
        dense = got if isinstance(got, np.ndarray) else got.toarray()
        index = [rows] if isinstance(rows, int) else rows
        np.testing.assert_array_equal(dense, expected[index])
    whole = handle.read()
    np.testing.assert_array_equal(
        whole if isinstance(whole, np.ndarray) else whole.toarray(), expected
    )
    for rows in ([100], [-101], [0.5], np.zeros((2, 2), dtype=int), np.ones(99, dtype=bool)):
        with pytest.raises((IndexError, TypeError)):
            handle[rows]


def test_columns_in_current_encoding(path, adata):
    f = scio.open(path)
    assert f.obs.columns == list(adata.obs.columns)
    assert f.obs_names.tolist() == adata.obs_names.tolist()
    assert f.var_names.tolist() == adata.var_names.tolist()
    cell_type = f.obs["cell_type"]
    assert isinstance(cell_type, Categorical)
    assert cell_type.labels().tolist() == adata.obs["cell_type"].tolist()
    assert cell_type.to_pandas().equals(adata.obs["cell_type"].array)
    assert f.obs["depth"].dtype == np.float64
    np.testing.assert_array_equal(f.obs["depth"], adata.obs["depth"])
    assert f.obs["is_control"].dtype == np.bool_
    np.testing.assert_array_equal(f.obs["is_control"], adata.obs["is_control"])
    nullable = f.obs["nullable"]
    np.testing.assert_array_equal(np.ma.getmaskarray(nullable), adata.obs["nullable"].isna())
    assert nullable[1] == 1
    assert f.obs["missing"].labels()[:2].tolist() == [None, "x"]
    assert list(np.asarray(f.obs["batch"])) == adata.obs["batch"].tolist()
    with pytest.raises(KeyNotFoundError, match="'cell_type'"):
        f.obs["celltype"]
    frame = f.obs.to_pandas()
    assert frame.index.tolist() == adata.obs_names.tolist()
    assert frame["cell_type"].tolist() == adata.obs["cell_type"].tolist()


@pytest.mark.filterwarnings("ignore")  # anndata's own, about old files
def test_columns_in_07_encoding_and_older(shared_data):
    for version in ("0.7.0", "0.7.8", "0.5.0"):
        file = shared_data / f"h5ad_formats/anndata_archive_v{version}.h5ad"
        f = scio.open(file)
        expected = anndata.read_h5ad(file)
        assert f.shape == expected.shape
        assert f.obs_names.tolist() == expected.obs_names.tolist()
        assert f.obs.columns == list(expected.obs.columns)
        for name in f.obs.columns:
            got, column = f.obs[name], expected.obs[name]
            if isinstance(got, Categorical):
                assert (
                    got.labels().tolist()
                    == column.astype(object).where(column.notna(), None).tolist()
                )
            else:
                np.testing.assert_array_equal(got, column.to_numpy())
        x = f.X.read()
        x = x if isinstance(x, np.ndarray) else x.toarray()
        theirs = expected.X.toarray() if sp.issparse(expected.X) else expected.X
        np.testing.assert_array_equal(x, theirs)
        assert f.raw.shape == expected.raw.shape


@pytest.mark.filterwarnings("ignore")  # anndata's own, about old files
def test_every_sample_h5ad_opens_with_the_shape_and_values_of_anndata(shared_data):
    n_compared = 0
    for folder in ("counts", "perturb", "h5ad_formats", "h5ad_filters"):
        for file in sorted((shared_data / folder).glob("*.h5ad")):
            f = scio.open(file)
            repr(f)
            try:
                expected = anndata.read_h5ad(file)
            except Exception:
                continue
            assert f.shape == expected.shape, file.name
            assert f.var_names.tolist() == [str(v) for v in expected.var_names], file.name
            if expected.X is None:
                with pytest.raises(IOFormatError, match="has no X"):
                    f.X  # noqa: B018
                continue
            x = f.X.read()
            dense = x if isinstance(x, np.ndarray) else x.toarray()
            theirs = expected.X.toarray() if sp.issparse(expected.X) else np.asarray(expected.X)
            np.testing.assert_array_equal(dense, theirs, err_msg=file.name)
            n_compared += 1
    assert n_compared > 25


def test_sources_bytes_and_file_objects(path, adata):
    expected = adata.X.toarray()
    data = path.read_bytes()
    with path.open("rb") as stream:
        for source in (str(path), path, data, memoryview(data), io.BytesIO(data), stream):
            np.testing.assert_array_equal(scio.open(source).X.read().toarray(), expected)
    with pytest.raises(TypeError, match="binary"):
        scio.open(io.StringIO("text")).X.read()
    with pytest.raises(TypeError, match="int"):
        scio.open(5)


def test_pickle_carries_the_path_and_checks_the_file(path, tmp_path):
    f = scio.open(path)
    again = pickle.loads(pickle.dumps(f))
    assert again.X[0].nnz == f.X[0].nnz
    copy = tmp_path / "copy.h5ad"
    shutil.copy(path, copy)
    text = pickle.dumps(scio.open(copy))
    rewrite(make_adata(seed=5), copy)
    with pytest.raises(IOFormatError, match="replaced"):
        pickle.loads(text)
    with pytest.raises(TypeError, match="by path"):
        pickle.dumps(scio.open(io.BytesIO(path.read_bytes())))


def _sum_in_child(f, queue) -> None:
    queue.put([float(f.X[[i, 99 - i]].data.sum()) for i in range(50)])


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_handle_works_in_a_child(path, method):
    f = scio.open(path)
    expected = [float(f.X[[i, 99 - i]].data.sum()) for i in range(50)]
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    child = context.Process(target=_sum_in_child, args=(f, queue))
    child.start()
    assert queue.get(timeout=60) == expected
    child.join(60)
    assert child.exitcode == 0


def test_many_threads_share_one_handle(path, adata):
    f, failures = scio.open(path), []
    expected = adata.X.toarray()

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(30):
            rows = rng.integers(0, 100, 5)
            if not np.array_equal(f.X[rows].toarray(), expected[rows]):
                failures.append(seed)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_relative_path_outlives_chdir(path, monkeypatch, tmp_path):
    monkeypatch.chdir(path.parent)
    f = scio.open(path.name)
    text = pickle.dumps(f)
    monkeypatch.chdir(tmp_path)
    assert pickle.loads(text).X[0].nnz == f.X[0].nnz
    assert f.obs["depth"][1] == 0.5


def test_close_and_context_manager(path):
    with scio.open(path) as f:
        f.X[0]
    with pytest.raises(ValueError, match="closed"):
        f.obs["depth"]
    f.close()


# --- bad input


def _copy_with(path: Path, target: Path, change) -> Path:
    shutil.copy(path, target)
    with h5py.File(target, "r+") as file:
        change(file)
    return target


def _replace(file: h5py.File, name: str, values: np.ndarray) -> None:
    del file[name]
    file[name] = values


def test_no_file_and_a_directory(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.h5ad"):
        scio.open(tmp_path / "none.h5ad")
    with pytest.raises(IsADirectoryError):
        scio.open(tmp_path)


@pytest.mark.parametrize(
    ("content", "text"),
    [(b"", "empty"), (b"hello world\n" * 100, "text"), (bytes(range(256)) * 10, "HDF5")],
)
def test_not_hdf5_says_what_it_looks_like(tmp_path, content, text):
    target = tmp_path / "x.h5ad"
    target.write_bytes(content)
    with pytest.raises(IOFormatError, match=text):
        scio.open(target)


def test_a_gzip_of_the_file_and_a_truncated_one(path, tmp_path):
    packed = tmp_path / "x.h5ad.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(IOFormatError, match="gzip"):
        scio.open(packed)
    cut = tmp_path / "cut.h5ad"
    cut.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CorruptFileError, match="truncated"):
        scio.open(cut)


def test_hdf5_without_obs_and_without_x(path, tmp_path):
    bare = tmp_path / "bare.h5"
    with h5py.File(bare, "w") as file:
        file["a"] = 1
    with pytest.raises(IOFormatError, match="no AnnData"):
        scio.open(bare)
    no_x = _copy_with(path, tmp_path / "no_x.h5ad", lambda f: f.__delitem__("X"))
    f = scio.open(no_x)
    assert f.shape == (100, 30)
    with pytest.raises(IOFormatError, match=r"has no X; it has layers/csc"):
        f.X  # noqa: B018


BREAKS = {
    "X of rank 3": (lambda f: _replace(f, "X", np.zeros((2, 3, 4))), "rank"),
    "indptr decreases": (lambda f: f["X/indptr"].__setitem__(5, 0), r"indptr\[5\] is 0"),
    "indptr too short": (lambda f: _replace(f, "X/indptr", f["X/indptr"][:-1]), "expected 101"),
    "indptr beyond nnz": (lambda f: f["X/indptr"].__setitem__(100, 10**6), "1000000"),
    "indptr negative": (lambda f: f["X/indptr"].__setitem__(0, -1), r"indptr\[0\] is -1"),
    "index too large": (lambda f: f["X/indices"].__setitem__(7, 30), r"30"),
    "index negative": (lambda f: f["X/indices"].__setitem__(7, -2), r"-2"),
    "data shorter than indices": (lambda f: _replace(f, "X/data", f["X/data"][:-1]), "data"),
    "shape disagrees": (lambda f: f["X"].attrs.__setitem__("shape", [100, 31]), r"\(100, 31\)"),
    "indices are floats": (
        lambda f: _replace(f, "X/indices", f["X/indices"][:].astype("f4")),
        "float32",
    ),
    "no indices": (lambda f: f["X"].__delitem__("indices"), "lacks indices"),
    "unknown encoding": (lambda f: f["X"].attrs.__setitem__("encoding-type", "coo"), "coo"),
}


@pytest.mark.parametrize("name", list(BREAKS))
def test_a_broken_matrix_is_refused_with_place_and_rule(path, tmp_path, name):
    change, text = BREAKS[name]
    target = _copy_with(path, tmp_path / "broken.h5ad", change)
    with pytest.raises(IOFormatError, match=text) as caught:
        scio.open(target).X.read()
    assert "broken.h5ad" in str(caught.value)
    with pytest.raises(IOFormatError, match=text):
        scio.open(target).X[list(range(100))]


def test_codes_out_of_range(path, tmp_path):
    target = _copy_with(
        path, tmp_path / "x.h5ad", lambda f: f["obs/cell_type/codes"].__setitem__(3, 9)
    )
    with pytest.raises(CorruptFileError, match=r"code 9 in row 3.*\[-1, 4\)"):
        scio.open(target).obs["cell_type"]


def test_external_links_and_virtual_data_are_refused(path, tmp_path):
    def link(f):
        f["layers/away"] = h5py.ExternalLink("/etc/passwd", "/x")

    target = _copy_with(path, tmp_path / "x.h5ad", link)
    with pytest.raises((UnsafeFileError, KeyNotFoundError)):
        scio.open(target).layers["away"]
