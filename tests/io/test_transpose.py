"""CSR to CSC and back on disk: what SciPy makes, byte for byte, in any number of windows."""

from __future__ import annotations

from pathlib import Path

import anndata
import h5py
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import scio
from scio.errors import CorruptFileError, IOWriteError, KeyNotFoundError, UnsupportedError
from scio.io import transpose
from scio.io.transpose import transpose_on_disk
from scio.testing import assert_equal
from tests.io.large import in_layout, small_adata

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*old version of AnnData", "ignore:.*without encoding metadata", "ignore:.*not unique"
)

_REAL = (
    "counts/worm_l2_*.h5ad",
    "counts/zdata_pmid31273297_256x36601_counts.h5ad",  # explicit zeros, uint16
    "perturb/perturbench_devel_5961x500_lognorm.h5ad",  # unsorted, float64
    "h5ad_formats/cellxgene_schema_example_valid.h5ad",  # int64 indices
    "h5ad_formats/anndata_archive_v0.7.0.h5ad",  # read into memory first
)


def _arrays_of(path: Path, element: str = "X") -> list[np.ndarray]:
    with h5py.File(path) as file:
        return [file[f"{element}/{name}"][:] for name in ("data", "indices", "indptr")]


def _assert_stored(path: Path, wanted: sp.spmatrix, element: str = "X") -> None:
    for mine, name in zip(_arrays_of(path, element), ("data", "indices", "indptr"), strict=True):
        theirs = getattr(wanted, name)
        np.testing.assert_array_equal(mine, theirs)
        assert mine.dtype == theirs.dtype or name != "data"


@pytest.fixture(params=[None, 5000])
def windows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """All at once, and in windows of so many entries."""
    if request.param is not None:
        monkeypatch.setattr(transpose, "entries_within", lambda *_: request.param)


@pytest.mark.parametrize("pattern", _REAL)
def test_real_files_equal_scipy(
    shared_data: Path, tmp_path: Path, pattern: str, windows: None
) -> None:
    (source, *_) = sorted(shared_data.glob(pattern))
    whole = anndata.read_h5ad(source)
    by_gene, back = tmp_path / "csc.h5ad", tmp_path / "csr.h5ad"
    transpose_on_disk(source, by_gene)
    _assert_stored(by_gene, whole.X.tocsc())
    transpose_on_disk(by_gene, back, to="csr")
    _assert_stored(back, whole.X.tocsc().tocsr())
    copy = anndata.read_h5ad(back)
    copy.X = whole.X  # the same but for the order in a row
    assert_equal(copy, whole)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    seed=st.integers(0, 1000),
    shape=st.tuples(st.integers(0, 12), st.integers(0, 9)),
    dtype=st.sampled_from(["bool", "uint8", "int16", "float32", "float64", "int64"]),
    most=st.integers(1, 20),
    layout=st.sampled_from(["csr", "csc"]),
    is_twice=st.booleans(),
)
def test_made_matrices_equal_scipy(
    tmp_path: Path,
    seed: int,
    shape: tuple[int, int],
    dtype: str,
    most: int,
    layout: str,
    is_twice: bool,
) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 4, shape[0] if layout == "csr" else shape[1])
    n_minor = shape[1] if layout == "csr" else shape[0]
    if n_minor == 0:
        counts[:] = 0
    indptr = np.concatenate([[0], np.cumsum(counts)])
    indices = rng.integers(0, max(1, n_minor), indptr[-1]).astype(np.int32)
    data = rng.integers(0, 3, indptr[-1]).astype(dtype)  # zeros, unsorted, some twice
    if not is_twice:
        data[:] = 1
    kind = sp.csr_matrix if layout == "csr" else sp.csc_matrix
    matrix = kind((data, indices, indptr), shape=shape)
    other = "csc" if layout == "csr" else "csr"
    source, target = tmp_path / "a.h5ad", tmp_path / "b.h5ad"
    anndata.AnnData(matrix).write_h5ad(source)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transpose, "entries_within", lambda *_: most)
        transpose_on_disk(source, target, to=other, compression=None)
    with scio.open(target) as file:
        assert file.X.format == other
    _assert_stored(target, matrix.asformat(other))


def test_elements_are_chosen_and_all_else_is_kept(tmp_path: Path) -> None:
    adata = small_adata(1)
    adata.layers["a"], adata.layers["d"] = adata.X.tocsc(), adata.X.toarray()
    source, target = tmp_path / "a.h5ad", tmp_path / "b.h5ad"
    adata.write_h5ad(source)
    wanted = anndata.read_h5ad(source)

    transpose_on_disk(source, target, element=["raw/X", "layers/a"], to="csc")
    found = anndata.read_h5ad(target)
    assert [found.X.format, found.layers["a"].format, found.raw.X.format] == ["csr", "csc", "csc"]
    found.raw._X = found.raw.X.tocsr()
    assert_equal(found, wanted)

    transpose_on_disk(source, target, element=None, to="csr")
    found = anndata.read_h5ad(target)
    assert [found.X.format, found.layers["a"].format, found.raw.X.format] == ["csr"] * 3
    found.layers["a"] = found.layers["a"].tocsc()
    assert_equal(found, wanted)


def test_a_file_may_replace_itself(tmp_path: Path) -> None:
    path = tmp_path / "a.h5ad"
    adata = small_adata(1)
    adata.write_h5ad(path)
    transpose_on_disk(path, path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5ad"]
    _assert_stored(path, adata.X.tocsc())


def test_wrong_requests_name_what_is_wrong(tmp_path: Path) -> None:
    source, target = tmp_path / "a.h5ad", tmp_path / "b.h5ad"
    adata = small_adata(1)
    adata.layers["dense"] = in_layout(adata.X, "dense")
    adata.write_h5ad(source)
    with pytest.raises(KeyNotFoundError, match=r"no matrix 'layers/dens'.*layers/dense"):
        transpose_on_disk(source, target, element="layers/dens")
    with pytest.raises(UnsupportedError, match="layers/dense is dense"):
        transpose_on_disk(source, target, element="layers/dense")
    with pytest.raises(ValueError, match="'csc' or 'csr', not 'coo'"):
        transpose_on_disk(source, target, to="coo")
    with pytest.raises(ValueError, match="max_memory is 100 bytes"):
        transpose_on_disk(source, target, max_memory=100)
    with pytest.raises(IOWriteError, match="overwrite is False"):
        transpose_on_disk(source, source, overwrite=False)
    assert not target.exists()


def test_a_broken_matrix_is_refused(tmp_path: Path, windows: None) -> None:
    source, target = tmp_path / "a.h5ad", tmp_path / "b.h5ad"
    small_adata(1, n_obs=4000).write_h5ad(source)
    with h5py.File(source, "r+") as file:
        file["X/indices"][13_000] = 12
    with pytest.raises(CorruptFileError, match=r"12.*12"):
        transpose_on_disk(source, target)
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5ad"]
