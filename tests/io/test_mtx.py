"""read_10x_mtx against scanpy on real folders; other folders and what is refused, by hand."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest
import scanpy
import scipy.io
import scipy.sparse as sp
from anndata.tests.helpers import assert_equal

import scio
from scio.errors import CorruptFileError, IOFormatError, ScioWarning, UnsupportedError

V2 = "scanpy_tests/10x_data/1.2.0/filtered_gene_bc_matrices/hg19_chr21"
V3 = "scanpy_tests/10x_data/3.0.0/filtered_feature_bc_matrix"
UNEQUAL_NAMES = "ignore:Variable names are not unique"

DENSE = np.array([[0, 1, 0, 2], [3, 0, 0, 0], [0, 0, 0, 4]])  # 3 cells x 4 genes
GENES = [
    "E1\tNA\tGene Expression",
    "E2\tb\tAntibody Capture",
    "E3\tc\tPeaks",
    "E4\tb\tGene Expression",
]
HEADER = "%%MatrixMarket matrix coordinate integer general\n"


def make_folder(path: Path, matrix: np.ndarray = DENSE.T, *, prefix: str = "") -> Path:
    path.mkdir(exist_ok=True)
    scipy.io.mmwrite(path / f"{prefix}matrix.mtx", sp.coo_matrix(matrix))
    (path / f"{prefix}features.tsv").write_text("\n".join(GENES) + "\n")
    (path / f"{prefix}barcodes.tsv").write_text("AAA-1\nCCC-1\nGGG-1\n")
    return path


@pytest.mark.filterwarnings(UNEQUAL_NAMES)
@pytest.mark.parametrize(
    "options", [{}, {"gex_only": False, "make_unique": False}, {"var_names": "gene_ids"}]
)
@pytest.mark.parametrize("name", [V2, V3])
def test_equals_scanpy(shared_data, name, options):
    path = shared_data / "tenx" / name
    expected = scanpy.read_10x_mtx(path, **options)
    got = scio.read_10x_mtx(path, **options)
    assert_equal(got, expected, exact=True)
    assert got.X.dtype == expected.X.dtype
    assert got.X.format == "csr"  # scanpy's is CSC
    assert got.X.has_canonical_format


def test_equals_scanpy_at_real_size(shared_data):
    path = shared_data / "tenx/pbmc_1k_v2_filtered_feature_bc_matrix"
    assert_equal(scio.read_10x_mtx(path), scanpy.read_10x_mtx(path), exact=True)


def test_equals_the_h5_of_the_same_run(shared_data):
    h5 = scio.read_10x_h5(shared_data / "tenx" / f"{V3}.h5", dtype="int32", gex_only=False)
    mtx = scio.read_10x_mtx(
        shared_data / "tenx" / V3, dtype="int32", gex_only=False, make_unique=False
    )
    assert mtx.X.dtype == np.int32
    assert (mtx.X != h5.X).nnz == 0
    assert mtx.obs_names.equals(h5.obs_names)


def test_prefix_plain_files_and_names_that_pandas_takes_for_missing(tmp_path):
    adata = scio.read_10x_mtx(make_folder(tmp_path, prefix="s1_"), prefix="s1_", gex_only=False)
    assert adata.var_names.tolist() == ["NA", "b", "c", "b-1"]
    assert adata.var["gene_ids"].tolist() == ["E1", "E2", "E3", "E4"]
    np.testing.assert_array_equal(adata.X.toarray(), DENSE)
    gex = scio.read_10x_mtx(tmp_path, prefix="s1_")
    assert gex.var_names.tolist() == ["NA", "b-1"]
    np.testing.assert_array_equal(gex.X.toarray(), DENSE[:, [0, 3]])
    with pytest.raises(FileNotFoundError, match=r"no matrix\.mtx.*did you mean 's1_matrix\.mtx'"):
        scio.read_10x_mtx(tmp_path, prefix="s2_")


def test_a_matrix_that_lies_the_other_way(tmp_path):
    adata = scio.read_10x_mtx(make_folder(tmp_path, DENSE), gex_only=False)
    np.testing.assert_array_equal(adata.X.toarray(), DENSE)


def test_repeated_entries_are_summed_and_patterns_are_ones(tmp_path):
    folder = make_folder(tmp_path)
    (folder / "matrix.mtx").write_text(f"{HEADER}4 3 2\n1 2 1\n1 2 2\n")
    assert scio.read_10x_mtx(folder).X[1, 0] == 3
    (folder / "matrix.mtx").write_text(f"{HEADER.replace('integer', 'pattern')}4 3 1\n1 2\n")
    assert scio.read_10x_mtx(folder).X[1, 0] == 1


# --- Parse Biosciences


def test_parse_folder(shared_data):
    folder = shared_data / "perturb/parse_example"
    with pytest.raises(IOFormatError, match=r"several matrices \(gene_mat\.mtx, grna_mat\.mtx\)"):
        scio.read_10x_mtx(folder)
    with pytest.warns(ScioWarning, match="no list of cells"):
        adata = scio.read_10x_mtx(folder / "gene_mat.mtx")
    expected = scipy.io.mmread(folder / "gene_mat.mtx")  # its comment: %Rows=cells, Cols=genes
    assert adata.shape == expected.shape == (5000, 266)
    assert (expected.tocsr() != adata.X).nnz == 0
    lines = (folder / "all_genes.csv").read_text().replace('"', "").splitlines()[1:]
    assert adata.var["gene_ids"].tolist() == [line.split(",")[0] for line in lines]
    assert adata.var_names.tolist() == [line.split(",")[1] for line in lines]
    with pytest.raises(CorruptFileError, match="5000 x 3, but beside it lie 266 genes and no list"):
        scio.read_10x_mtx(folder / "grna_mat.mtx")


def test_parse_cells_and_a_matrix_that_fits_both_ways(tmp_path):
    scipy.io.mmwrite(tmp_path / "DGE.mtx", sp.coo_matrix(DENSE[:, :3]))
    (tmp_path / "all_genes.csv").write_text("gene_id,gene_name,genome\nE1,a,x\nE2,b,x\nE3,c,x\n")
    (tmp_path / "cell_metadata.csv").write_text("bc_wells,sample,n\n01,s,5\n02,s,6\n03,t,7\n")
    with pytest.raises(IOFormatError, match=r"DGE\.mtx is 3 x 3: as many genes as cells"):
        scio.read_10x_mtx(tmp_path)
    scipy.io.mmwrite(tmp_path / "DGE.mtx", sp.coo_matrix(DENSE[:2, :3]))
    (tmp_path / "cell_metadata.csv").write_text("bc_wells,sample,n\nw1,s,5\nw2,t,6\n")
    adata = scio.read_10x_mtx(tmp_path)
    np.testing.assert_array_equal(adata.X.toarray(), DENSE[:2, :3])
    assert adata.obs_names.tolist() == ["w1", "w2"]
    assert adata.obs["n"].tolist() == [5, 6]
    assert adata.var["genome"].tolist() == ["x"] * 3


# --- refused


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{HEADER}4 3 1\n5 1 1\n", "Row index out of bounds"),
        (f"{HEADER}4 3 1\n0 1 1\n", "Row index out of bounds"),
        (f"{HEADER}4 3 2\n1 1 1\n", "Truncated"),
        (f"{HEADER}4 3 1\n1 1 1\n1 2 1\n", "Too many lines"),
        (f"{HEADER}4 3 1\n1 x 1\n", "Invalid integer"),
        (f"{HEADER}5 3 1\n1 1 1\n", r"is 5 x 3, but beside it lie 4 genes and 3 cells"),
        ("no banner\n", "Missing banner"),
        ("", "Missing banner"),
    ],
)
def test_malformed_matrices_are_refused(tmp_path, text, message):
    folder = make_folder(tmp_path)
    (folder / "matrix.mtx").write_text(text)
    with pytest.raises(CorruptFileError, match=rf"matrix\.mtx.*{message}"):
        scio.read_10x_mtx(folder)


def test_broken_compression_and_complex_numbers_are_refused(tmp_path):
    folder = make_folder(tmp_path)
    whole = gzip.compress((folder / "matrix.mtx").read_bytes())
    (folder / "matrix.mtx").unlink()
    for broken in (whole[:-12], b"hello", whole[:20] + b"\xff" * 9 + whole[29:]):
        (folder / "matrix.mtx.gz").write_bytes(broken)
        with pytest.raises(CorruptFileError, match=r"matrix\.mtx\.gz"):
            scio.read_10x_mtx(folder)
    (folder / "matrix.mtx.gz").unlink()
    (folder / "matrix.mtx").write_text(
        f"{HEADER.replace('integer', 'complex')}4 3 1\n1 1 1.0 0.0\n"
    )
    with pytest.raises(UnsupportedError, match="complex"):
        scio.read_10x_mtx(folder)


def test_lists_that_are_missing_or_short_are_refused(tmp_path):
    folder = make_folder(tmp_path)
    (folder / "features.tsv").write_text("E1\ta\nE2\nE3\tc\nE4\td\n")
    with pytest.raises(CorruptFileError, match=r"features\.tsv: entry 2 has 1 fields, expected 2"):
        scio.read_10x_mtx(folder)
    (folder / "features.tsv").unlink()
    with pytest.raises(FileNotFoundError, match=r"no features\.tsv or genes\.tsv"):
        scio.read_10x_mtx(folder)
    (folder / "all_genes.csv").write_text("a,b\n1,2\n")
    with pytest.raises(CorruptFileError, match=r"all_genes\.csv: the first line names a, b"):
        scio.read_10x_mtx(folder)
    shutil.rmtree(folder)
    with pytest.raises(FileNotFoundError, match="is no folder"):
        scio.read_10x_mtx(folder)
    with pytest.raises(ValueError, match="'gene_symbols' or 'gene_ids', not 'symbols'"):
        scio.read_10x_mtx(folder, var_names="symbols")
