"""read_10x_h5 against scanpy on real files; what scanpy cannot read, and what is refused, by hand."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scanpy
import scipy.sparse as sp
from anndata.tests.helpers import assert_equal

import scio
from scio.errors import CorruptFileError, IOFormatError, ScioWarning
from scio.io._foreign import keep_columns

REAL = [
    ("pbmc1k_citeseq_LT_cellranger6_892x36611.h5", None),
    ("scanpy_tests/10x_data/1.2.0/filtered_gene_bc_matrices_h5.h5", None),
    ("scanpy_tests/10x_data/1.2.0/multiple_genomes.h5", "another_genome"),
    ("scanpy_tests/10x_data/3.0.0/filtered_feature_bc_matrix.h5", None),
    ("scanpy_tests/10x_data/3.0.0/filtered_feature_bc_matrix.h5", "GRCh38_chr21"),
    ("scanpy_tests/visium_data/1.0.0/filtered_feature_bc_matrix.h5", None),
    ("scanpy_tests/visium_data/2.1.0/raw_probe_bc_matrix.h5", None),
    ("seurat_visium_2695x100.h5", None),
]
UNEQUAL_NAMES = "ignore:(Variable|Observation) names are not unique"

MATRIX = sp.csr_matrix(
    np.array([[0, 1, 0, 2], [3, 0, 0, 0], [0, 0, 0, 0]], dtype=np.int32)
)  # 3 cells x 4 features


def write_v3(path: Path, **changes: Any) -> Path:
    """A sound file, then members replaced; None removes one, a key may hold "/"."""
    members: dict[str, Any] = {
        "data": MATRIX.data,
        "indices": MATRIX.indices.astype(np.int64),
        "indptr": MATRIX.indptr.astype(np.int64),
        "shape": np.array(MATRIX.shape[::-1], dtype=np.int32),
        "barcodes": np.array([b"AAA-1", b"CCC-1", b"GGG-1"]),
        "features/id": np.array([b"E1", b"E2", b"E3", b"E4"]),
        "features/name": np.array([b"a", b"b", b"c", b"d"]),
        "features/feature_type": np.array(
            [b"Gene Expression", b"Antibody Capture", b"Gene Expression", b"Gene Expression"]
        ),
        "features/genome": np.array([b"x", b"x", b"y", b"x"]),
        "features/_all_tag_keys": np.array([b"genome"]),
    }
    members.update(changes)
    with h5py.File(path, "w") as f:
        for name, value in members.items():
            if value is not None:
                f[name if name.startswith("/") else f"matrix/{name}"] = value
    return path


@pytest.mark.filterwarnings(UNEQUAL_NAMES)
@pytest.mark.parametrize("gex_only", [True, False])
@pytest.mark.parametrize(("name", "genome"), REAL)
def test_equals_scanpy(shared_data, name, genome, gex_only):
    path = shared_data / "tenx" / name
    expected = scanpy.read_10x_h5(path, genome=genome, gex_only=gex_only)
    got = scio.read_10x_h5(path, genome=genome, gex_only=gex_only)
    assert got.uns.keys() == ({"target_sets"} if "probe" in name else set())
    got.uns.clear()  # scanpy leaves the target sets out
    assert_equal(got, expected, exact=True)
    assert type(got.X) is type(expected.X)
    for part in ("data", "indices", "indptr"):  # order of entries and types, too
        mine, theirs = getattr(got.X, part), getattr(expected.X, part)
        assert mine.dtype == theirs.dtype
        np.testing.assert_array_equal(mine, theirs)


def test_probe_sets_are_those_of_the_file(shared_data):
    path = shared_data / "tenx/scanpy_tests/visium_data/2.1.0/raw_probe_bc_matrix.h5"
    adata = scio.read_10x_h5(path, gex_only=False)
    with h5py.File(path) as f:
        for name, stored in f["matrix/features/target_sets"].items():
            np.testing.assert_array_equal(adata.uns["target_sets"][name], stored[()])


# --- what scanpy fails on: the expectation is what h5py finds in the file


def _arrays(path: Path, group: str) -> sp.csr_matrix:
    with h5py.File(path) as f:
        g = f[group]
        shape = tuple(int(n) for n in g["shape"][()][::-1])
        return sp.csr_matrix((g["data"][()], g["indices"][()], g["indptr"][()]), shape=shape)


def test_v2_without_names_has_positions(shared_data):
    path = shared_data / "tenx/brain_large_70x4000_minimal_v2.h5"
    with pytest.warns(ScioWarning, match="positions name") as caught:
        adata = scio.read_10x_h5(path)
    assert len(caught) == 2  # cells, genes
    assert adata.obs_names.tolist() == [str(i) for i in range(70)]
    assert adata.var_names[-1] == "3999"
    assert adata.X.dtype == np.float32
    assert (_arrays(path, "mm10") != adata.X).nnz == 0


def test_uint32_and_names_only(shared_data):
    path = shared_data / "tenx/liger_ctrl_300x266_hdf5r_uint32idx.h5"
    adata = scio.read_10x_h5(path)
    assert (_arrays(path, "matrix") != adata.X).nnz == 0
    assert adata.X.dtype == np.float64
    assert list(adata.var.columns) == []
    with h5py.File(path) as f:
        assert adata.var_names.tolist() == f["matrix/features/name"].asstr()[()].tolist()


def test_a_scalar_genome_stands_for_all(shared_data):
    path = shared_data / "tenx/scprep_pytables_v3_100x100.h5"
    adata = scio.read_10x_h5(path)
    assert (_arrays(path, "matrix") != adata.X).nnz == 0
    with h5py.File(path) as f:
        assert set(adata.var["genome"]) == {f["matrix/features/genome"].asstr()[()]}
    assert adata.shape == scio.read_10x_h5(path, genome=adata.var["genome"].iloc[0]).shape


def test_dtype_keeps_counts_or_changes_them(tmp_path):
    path = write_v3(tmp_path / "x.h5")
    for dtype in ("int32", np.int32, "uint8", "float64"):
        adata = scio.read_10x_h5(path, dtype=dtype, gex_only=False)
        assert adata.X.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(adata.X.toarray(), MATRIX.toarray())


def test_filters_follow_the_features(tmp_path):
    path = write_v3(
        tmp_path / "x.h5", **{"features/target_sets/s": np.array([0, 1, 3], dtype=np.uint32)}
    )
    gex = scio.read_10x_h5(path)
    assert gex.var_names.tolist() == ["a", "c", "d"]
    np.testing.assert_array_equal(gex.X.toarray(), MATRIX.toarray()[:, [0, 2, 3]])
    assert gex.uns["target_sets"]["s"].tolist() == [0, 2]  # a and d; b is left out
    both = scio.read_10x_h5(path, genome="x")
    assert both.var_names.tolist() == ["a", "d"]
    with pytest.raises(ValueError, match="no genome 'hg19'; there are 'x', 'y'"):
        scio.read_10x_h5(path, genome="hg19")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("is_prefix", [True, False])
def test_columns_that_are_kept(share, is_prefix):
    rng = np.random.default_rng(4)
    whole = sp.random(50, 40, 0.2, "csr", np.float32, rng)
    mask = rng.random(40) < share
    mask = np.sort(mask)[::-1] if is_prefix else mask
    kept = keep_columns(scio.CSR.from_scipy(whole), mask)
    expected = whole[:, np.flatnonzero(mask)]
    assert kept.shape == expected.shape
    np.testing.assert_array_equal(kept.indptr, expected.indptr)
    np.testing.assert_array_equal(kept.toarray(), expected.toarray())


def test_from_memory_and_from_an_object(tmp_path):
    image = write_v3(tmp_path / "x.h5").read_bytes()
    for source in (image, io.BytesIO(image)):
        assert scio.read_10x_h5(source).shape == (3, 3)


def test_several_genomes_must_be_chosen_from(shared_data):
    path = shared_data / "tenx/scanpy_tests/10x_data/1.2.0/multiple_genomes.h5"
    with pytest.raises(ValueError, match=r"multiple_genomes.*another_genome, hg19_chr21"):
        scio.read_10x_h5(path)
    with pytest.raises(ValueError, match="did you mean 'hg19_chr21'"):
        scio.read_10x_h5(path, genome="hg19_chr22")


# --- CellBender: no sample exists, the layouts are those of versions 0.2 and 0.3


def test_cellbender_2_lies_in_the_matrix_group(tmp_path):
    path = write_v3(
        tmp_path / "x.h5",
        latent_cell_probability=np.array([0.9, 0.1, 0.5]),
        latent_gene_encoding=np.arange(6.0).reshape(3, 2),
        ambient_expression=np.array([0.1, 0.2, 0.3, 0.4]),
        training_elbo_per_epoch=np.arange(5.0),
        lambda_multiplier=2.0,
        latent_scale=np.arange(7.0),  # has not one entry per cell
    )
    with pytest.warns(ScioWarning, match=r"one entry per cell \(3\): /matrix/latent_scale"):
        adata = scio.read_10x_h5(path)
    assert adata.obs["latent_cell_probability"].tolist() == [0.9, 0.1, 0.5]
    assert adata.obsm["latent_gene_encoding"].shape == (3, 2)
    assert adata.var["ambient_expression"].tolist() == [0.1, 0.3, 0.4]  # the antibody is left out
    assert adata.uns["cellbender"]["lambda_multiplier"] == 2.0
    assert len(adata.uns["cellbender"]["training_elbo_per_epoch"]) == 5


def test_cellbender_3_has_groups_at_the_root(tmp_path):
    path = write_v3(
        tmp_path / "x.h5",
        **{
            "/droplet_latents/cell_probability": np.array([0.9, 0.1, 0.5]),
            "/droplet_latents/gene_expression_encoding": np.zeros((3, 4)),
            "/global_latents/ambient_expression": np.array([0.1, 0.2, 0.3, 0.4]),
            "/global_latents/swapping_fraction_dist_params": np.array([1.0, 2.0]),
            "/metadata/estimator": b"mckp",
        },
    )
    adata = scio.read_10x_h5(path)
    assert adata.obs["cell_probability"].tolist() == [0.9, 0.1, 0.5]
    assert adata.obsm["gene_expression_encoding"].shape == (3, 4)
    assert adata.var["ambient_expression"].tolist() == [0.1, 0.3, 0.4]
    bender = adata.uns["cellbender"]
    assert bender["global_latents"]["swapping_fraction_dist_params"].tolist() == [1.0, 2.0]
    assert bender["metadata"]["estimator"] in ("mckp", b"mckp")


# --- refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": None}, r"/matrix lacks data; a 10x matrix has data, indices, indptr and shape"),
        ({"indptr": None, "shape": None}, r"/matrix lacks indptr, shape"),
        ({"shape": np.array([4, 3, 1])}, r"/matrix/shape is int64 of shape \(3,\)"),
        ({"shape": np.array([-4, 3])}, r"/matrix/shape .*\[-4, 3\]; expected two sizes"),
        ({"shape": np.array([4, 2])}, r"/matrix/indptr has 4 entries, expected 3"),
        ({"data": MATRIX.data[:2]}, r"data has 2 items and /matrix/indices has 3"),
        ({"indices": np.array([1, 3, 4])}, r"/matrix/indices: indices\[2\] is 4, not in \[0, 4\)"),
        (
            {"indices": np.array([1, -3, 0])},
            r"/matrix/indices: indices\[1\] is -3, not in \[0, 4\)",
        ),
        (
            {"indptr": np.array([0, 2, 1, 3])},
            r"/matrix/indptr: indptr\[2\] is 1, less than indptr\[1\]",
        ),
        ({"barcodes": np.array([b"A"])}, r"/matrix/barcodes has shape \(1,\), expected \(3,\)"),
        ({"features/name": np.array([b"A"])}, r"features/name has shape \(1,\), expected \(4,\)"),
        ({"features/genome": np.array([b"A"])}, r"features/genome has shape \(1,\)"),
        (
            {
                f"features/{n}": None
                for n in ("id", "name", "feature_type", "genome", "_all_tag_keys")
            },
            r"/matrix has no features",
        ),
        ({"features/target_sets/s": np.array([4])}, r"target_sets/s names feature 4"),
    ],
)
def test_malformed_files_are_refused(tmp_path, changes, message):
    path = write_v3(tmp_path / "broken.h5", **changes)
    with pytest.raises(CorruptFileError, match=message) as caught:
        scio.read_10x_h5(path)
    assert "broken.h5" in str(caught.value)


def test_other_hdf5_is_no_10x_file(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as f:
        f["obs/a"] = [1]
    with pytest.raises(IOFormatError, match=r"x\.h5 is HDF5 but no 10x file.*lie obs"):
        scio.read_10x_h5(tmp_path / "x.h5")
    with pytest.raises(FileNotFoundError):
        scio.read_10x_h5(tmp_path / "missing.h5")
