"""read_loom: expectations with h5py, since loompy, which anndata's reader needs, is not maintained."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.sparse as sp

import scio
from scio.errors import CorruptFileError, IOFormatError, KeyNotFoundError, ScioWarning

N_GENES, N_CELLS = 70, 150  # more than one chunk each way, the last ones cut


@pytest.fixture(scope="module")
def dense() -> np.ndarray:
    rng = np.random.default_rng(3)
    return (rng.poisson(0.3, (N_GENES, N_CELLS)) * rng.choice([1, 2.5], (N_GENES, 1))).astype("f8")


def write_loom(path: Path, dense: np.ndarray, *, version: int = 2, **changes: Any) -> Path:
    """A sound file, then members replaced; None removes one."""
    n_genes, n_cells = dense.shape
    text = h5py.string_dtype()
    members: dict[str, Any] = {
        "matrix": dense,
        "layers/spliced": dense * 2,
        "layers/unspliced": np.minimum(dense, 3).astype(np.uint16),
        "row_attrs/Gene": np.array([f"g{i}" for i in range(n_genes)], dtype="S"),
        "row_attrs/Accession": np.array([f"E{i}" for i in range(n_genes)], dtype=text),
        "row_attrs/loadings": np.arange(3.0 * n_genes).reshape(n_genes, 3),
        "col_attrs/CellID": np.array([f"c&#228;{i}" for i in range(n_cells)], dtype="S"),
        "col_attrs/x": np.arange(n_cells, dtype=np.float32),
        "col_attrs/y": -np.arange(n_cells, dtype=np.float32),
        "col_attrs/batch": np.ones((n_cells, 1), dtype=np.int64),
        "col_attrs/pca": np.arange(2.0 * n_cells).reshape(n_cells, 2),
        "col_graphs/knn/a": np.array([0, 0, 5], dtype=np.int64),
        "col_graphs/knn/b": np.array([1, 1, n_cells - 1], dtype=np.int64),
        "col_graphs/knn/w": np.array([1.0, 0.5, 2.0]),
        "row_graphs/net/a": np.array([3], dtype=np.uint32),
        "row_graphs/net/b": np.array([4], dtype=np.uint32),
        "row_graphs/net/w": np.array([7], dtype=np.float32),
    }
    members.update(changes)
    with h5py.File(path, "w") as f:
        for name, value in members.items():
            if value is None:
                continue
            options: dict[str, Any] = {}
            if name == "matrix" or name.startswith("layers/"):
                options = {"chunks": (64, 64), "compression": "gzip", "compression_opts": 2}
                options["maxshape"] = (value.shape[0], None)
            f.create_dataset(name, data=value, **options)
        if version == 3:
            f["attrs/LOOM_SPEC_VERSION"] = "3.0.0"
        else:
            f.attrs["LOOM_SPEC_VERSION"] = "2.0.1"
    return path


def as_dense(matrix: Any) -> np.ndarray:
    return matrix.toarray() if sp.issparse(matrix) else matrix


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("version", [2, 3])
def test_all_members(tmp_path, dense, version, sparse):
    adata = scio.read_loom(write_loom(tmp_path / "x.loom", dense, version=version), sparse=sparse)
    assert sp.issparse(adata.X) == sparse
    assert adata.X.dtype == np.float32
    np.testing.assert_array_equal(as_dense(adata.X), (dense.T * 2).astype(np.float32))
    assert set(adata.layers) == {"matrix", "spliced", "unspliced"}
    assert adata.layers["matrix"].dtype == np.float64
    assert adata.layers["unspliced"].dtype == np.uint16
    np.testing.assert_array_equal(as_dense(adata.layers["matrix"]), dense.T)
    if sparse:
        assert adata.X.nnz == np.count_nonzero(dense)
        adata.X.check_format(full_check=True)
    assert adata.obs_names[3] == "c&#228;3"
    assert (adata.obs_names.name, adata.var_names.name) == ("CellID", "Gene")
    assert list(adata.obs.columns) == ["batch", "x", "y"]
    assert adata.obs["batch"].tolist() == [1] * N_CELLS
    assert adata.var["Accession"].tolist() == [f"E{i}" for i in range(N_GENES)]
    assert adata.obsm["pca"].shape == (N_CELLS, 2)
    assert adata.varm["loadings"][1].tolist() == [3.0, 4.0, 5.0]
    knn = np.zeros((N_CELLS, N_CELLS))
    knn[0, 1], knn[5, -1] = 1.5, 2.0
    np.testing.assert_array_equal(adata.obsp["knn"].toarray(), knn)
    assert adata.varp["net"][3, 4] == 7


def test_arguments(tmp_path, dense):
    path = write_loom(tmp_path / "x.loom", dense)
    adata = scio.read_loom(
        path, X_name="", obs_names="x", var_names="Accession", dtype="float64", cleanup=True,
        obsm_mapping={"X_umap": ["y", "batch"]}, unescape=True,
    )  # fmt: skip
    np.testing.assert_array_equal(adata.X.toarray(), dense.T)
    assert adata.X.dtype == np.float64
    assert set(adata.layers) == {"spliced", "unspliced"}
    assert adata.obs_names[2] == "2.0"
    assert adata.var_names[2] == "E2"
    assert adata.obs["CellID"].iloc[3] == "cä3"
    np.testing.assert_array_equal(adata.obsm["X_umap"][5], [-5, 1])
    assert adata.uns == {}  # nothing is constant any more
    cleaned = scio.read_loom(path, cleanup=True)
    assert cleaned.uns["loom-obs"] == {"batch": 1}
    assert "batch" not in cleaned.obs
    with pytest.raises(KeyNotFoundError, match="no layer 'splice'; did you mean 'spliced'"):
        scio.read_loom(path, X_name="splice")
    with pytest.raises(KeyNotFoundError, match=r"col_attrs has no 'z' of rank 1"):
        scio.read_loom(path, obsm_mapping={"u": ["z"]})


def test_real_file(shared_data):
    path = shared_data / "loom/mpfc_starmap_3704x158.loom"
    with pytest.warns(ScioWarning, match="col_attrs has no CellID") as caught:
        adata = scio.read_loom(path)
    assert len(caught) == 1
    with h5py.File(path) as f:
        np.testing.assert_array_equal(adata.X.toarray(), f["matrix"][()].T.astype(np.float32))
        assert adata.var_names.tolist() == f["row_attrs/Gene"][()].astype(str).tolist()
        assert adata.obs["Clusters"].tolist() == f["col_attrs/Clusters"][()].astype(str).tolist()
        np.testing.assert_array_equal(adata.obs["BatchID"], f["col_attrs/BatchID"][:, 0])
        space = f["col_attrs/Spatial_coordinates"][()]
        np.testing.assert_array_equal(adata.obsm["Spatial_coordinates"], space)
    assert adata.obs_names[:2].tolist() == ["0", "1"]


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (1, 1), (3, 64), (3, 65)])
@pytest.mark.parametrize("sparse", [True, False])
def test_small_shapes(tmp_path, shape, sparse):
    with h5py.File(tmp_path / "x.loom", "w") as f:
        f["matrix"] = np.arange(shape[0] * shape[1], dtype=np.int32).reshape(shape)
        f["row_attrs/Gene"] = np.array([f"g{i}" for i in range(shape[0])], dtype="S4")
        f["col_attrs/CellID"] = np.array([f"c{i}" for i in range(shape[1])], dtype="S4")
    adata = scio.read_loom(tmp_path / "x.loom", sparse=sparse)
    assert adata.shape == shape[::-1]
    expected = np.arange(shape[0] * shape[1]).reshape(shape).T
    np.testing.assert_array_equal(as_dense(adata.X), expected)


MEMORY = """
import resource, sys, warnings
import scio
warnings.simplefilter("ignore")
scio.read_loom(sys.argv[1])  # what is loaded once is loaded
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
adata = scio.read_loom(sys.argv[2])
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(adata.X.nnz, after - before)
"""


def test_memory_is_a_band_not_the_matrix(tmp_path, dense):
    n_genes, n_cells = 1000, 12_000
    with h5py.File(tmp_path / "large.loom", "w") as f:
        matrix = f.create_dataset(
            "matrix", (n_genes, n_cells), "f8", chunks=(64, 64), compression="gzip"
        )
        matrix[:, ::100] = 1.0  # 96 MB dense, 1.4 MB sparse
    small = write_loom(tmp_path / "small.loom", dense)
    command = [sys.executable, "-c", MEMORY, str(small), str(tmp_path / "large.loom")]
    out = subprocess.run(command, check=True, capture_output=True, text=True, timeout=100)
    nnz, grown_kib = map(int, out.stdout.split())
    assert nnz == n_genes * n_cells // 100
    assert grown_kib < 24 << 10


# --- refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"matrix": np.zeros((70, 149))}, r"/layers/spliced has shape \(70, 150\), /matrix \(70, 149\)"),
        ({"layers/unspliced": np.zeros((70, 64))}, r"/layers/unspliced has shape \(70, 64\)"),
        ({"col_attrs/x": np.zeros(70)}, r"/col_attrs/x has shape \(70,\), expected 150 entries, one per cell"),
        ({"row_attrs/Gene": np.zeros(150)}, r"/row_attrs/Gene has shape \(150,\), expected 70 entries, one per gene"),
        ({"col_attrs/x": 1.0}, r"/col_attrs/x has shape \(\)"),
        ({"col_graphs/knn/w": None}, r"/col_graphs/knn lacks w"),
        ({"col_graphs/knn/w": np.zeros(2)}, r"/col_graphs/knn/a, b, w have shapes \(3,\), \(3,\), \(2,\)"),
        ({"col_graphs/knn/b": np.array([1, 2, 150])}, r"/col_graphs/knn/b\[2\] is 150, not in \[0, 150\)"),
        ({"row_graphs/net/a": np.array([-1])}, r"/row_graphs/net/a\[0\] is -1, not in \[0, 70\)"),
        ({"row_graphs/net/a": np.array([1.0])}, r"/row_graphs/net/a has dtype float64, expected integers"),
    ],
)  # fmt: skip
def test_malformed_files_are_refused(tmp_path, dense, changes, message):
    path = write_loom(tmp_path / "broken.loom", dense, **changes)
    with pytest.raises(CorruptFileError, match=message) as caught:
        scio.read_loom(path)
    assert "broken.loom" in str(caught.value)


def test_other_hdf5_is_no_loom(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as f:
        f["matrix/data"] = [1]
    with pytest.raises(IOFormatError, match=r"x\.h5 is HDF5 but no loom.*lie matrix"):
        scio.read_loom(tmp_path / "x.h5")
    with h5py.File(tmp_path / "y.loom", "w") as f:
        f["matrix"] = np.array([["a"]], dtype="S")
    with pytest.raises(CorruptFileError, match=r"/matrix is string of shape \(1, 1\)"):
        scio.read_loom(tmp_path / "y.loom")
