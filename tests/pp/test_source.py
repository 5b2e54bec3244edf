"""Sources: the same rows, names and columns whatever the data come in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import scio
from scio.errors import CorruptFileError, KeyNotFoundError, ScioWarning
from scio.pp import _anndata, _source
from scio.pp._source import BLOCK_ROWS, Source, open_source

N_OBS, N_VARS = 2 * BLOCK_ROWS + 300, 23


@pytest.fixture(scope="module")
def dense() -> np.ndarray:
    rng = np.random.default_rng(3)
    return (rng.poisson(0.4, (N_OBS, N_VARS)) * rng.integers(1, 30, N_VARS)).astype(np.float32)


@pytest.fixture(scope="module")
def adata(dense: np.ndarray) -> anndata.AnnData:
    rng = np.random.default_rng(4)
    batch = pd.Categorical(rng.choice(["x", "y"], N_OBS), categories=["empty", "x", "y"])
    obs = pd.DataFrame(
        {
            "batch": batch,
            "text": rng.choice(["q", "r"], N_OBS),
            "number": np.arange(N_OBS) / 2,
            "flag": np.arange(N_OBS) % 3 == 0,
            "holes": pd.Categorical.from_codes(np.where(np.arange(N_OBS) == 7, -1, 0), ["only"]),
        },
        index=[f"c{i}" for i in range(N_OBS)],
    )
    var = pd.DataFrame(
        {"mt": np.arange(N_VARS) % 5 == 0, "length": np.arange(N_VARS)},
        index=[f"g{i}" for i in range(N_VARS)],
    )
    made = anndata.AnnData(sp.csr_matrix(dense), obs=obs, var=var)
    made.layers["twice"] = sp.csc_matrix(dense * 2)
    made.raw = made.copy()
    return made


@pytest.fixture(scope="module")
def path(adata: anndata.AnnData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("source") / "made.h5ad"
    adata.write_h5ad(made, compression="gzip")
    return made


def whole(source: Source, n_rows: int | None = None) -> np.ndarray:
    parts = []
    for block in source.blocks(n_rows):
        assert block.start % BLOCK_ROWS == 0
        assert block.indptr[0] == 0
        assert len(block.data) == len(block.indices) == block.indptr[-1]
        shape = (block.n_rows, source.n_vars)
        parts.append(scio.CSR(block.data, block.indices, block.indptr, shape=shape).toarray())
    return np.vstack(parts)


FORMS: dict[str, Any] = {
    "csr": sp.csr_matrix,
    "csr_array": sp.csr_array,
    "csc": sp.csc_matrix,
    "coo": sp.coo_array,
    "lil": sp.lil_matrix,
    "dense": np.asarray,
    "fortran": np.asfortranarray,
    "strided": lambda d: np.repeat(d, 2, axis=1)[:, ::2],
    "swapped": lambda d: d.astype(">i4"),
    "scio": lambda d: scio.CSR.from_scipy(sp.csr_matrix(d)),
    "uint16": lambda d: sp.csr_matrix(d.astype(np.uint16)),
    "matrix": lambda d: d.view(np.matrix),
    "torch": lambda d: pytest.importorskip("torch").from_numpy(d.copy()),
}


@pytest.mark.parametrize("form", FORMS)
def test_matrices_in_memory_give_the_same_rows_and_fingerprint(dense, form):
    source = open_source(FORMS[form](dense))

    assert source.shape == dense.shape
    assert not source.is_file
    np.testing.assert_array_equal(whole(source), dense)
    np.testing.assert_array_equal(whole(source, BLOCK_ROWS), dense)
    assert source.fingerprint() == open_source(sp.csr_matrix(dense)).fingerprint()
    assert source.var_names.tolist() == [str(i) for i in range(N_VARS)]


def test_a_csr_in_memory_is_borrowed(dense):
    matrix = sp.csr_matrix(dense)
    blocks = list(open_source(matrix).blocks(BLOCK_ROWS))

    assert [b.start for b in blocks] == [0, BLOCK_ROWS, 2 * BLOCK_ROWS]
    assert all(np.shares_memory(b.data, matrix.data) for b in blocks)
    assert all(np.shares_memory(b.indices, matrix.indices) for b in blocks)
    assert len(list(open_source(matrix).blocks())) == 1


@pytest.mark.parametrize("kind", ["path", "str", "handle", "memory", "backed"])
def test_frames_come_along(dense, adata, path, kind):
    made = {
        "path": lambda: path,
        "str": lambda: str(path),
        "handle": lambda: scio.open(path),
        "memory": lambda: adata,
        "backed": lambda: anndata.read_h5ad(path, backed="r"),
    }[kind]()
    source = open_source(made)

    np.testing.assert_array_equal(whole(source), dense)
    assert source.is_file == (kind != "memory")
    assert source.name == ("AnnData: X" if kind == "memory" else "made.h5ad: X")
    assert source.fingerprint() == open_source(dense).fingerprint()
    assert source.obs_names[[0, -1]].tolist() == ["c0", f"c{N_OBS - 1}"]
    assert source.var_names[2] == "g2"
    np.testing.assert_array_equal(source.obs_column("number"), np.arange(N_OBS) / 2)
    codes, names = source.obs_column("batch")
    assert names == ["empty", "x", "y"]
    np.testing.assert_array_equal(codes, adata.obs["batch"].cat.codes)
    codes, names = source.batches("text")
    assert [names[c] for c in codes] == adata.obs["text"].tolist()
    assert source.obs_column("flag")[1] == ["False", "True"]
    np.testing.assert_array_equal(source.var_flags("mt"), adata.var["mt"])
    np.testing.assert_array_equal(whole(open_source(made, use_raw=True)), dense)
    if kind != "backed":
        layer = open_source(made, layer="twice")
        np.testing.assert_array_equal(whole(layer), dense * 2)
        assert layer.fingerprint() != source.fingerprint()


def test_a_matrix_handle_has_no_frames(dense, path):
    source = open_source(scio.open(path).X)

    np.testing.assert_array_equal(whole(source), dense)
    with pytest.raises(KeyNotFoundError, match="obs has no column 'batch'"):
        source.obs_column("batch")


def test_windows_of_a_file_are_bounded(dense, adata, path, tmp_path, monkeypatch):
    monkeypatch.setattr(_source, "WINDOW_NBYTES", 1000)
    stored_dense = tmp_path / "dense.h5ad"
    anndata.AnnData(dense).write_h5ad(stored_dense)
    for made in (path, stored_dense, dense):
        source = open_source(made)
        assert [b.start for b in source.blocks()] == [0, BLOCK_ROWS, 2 * BLOCK_ROWS]
        np.testing.assert_array_equal(whole(source), dense)
    monkeypatch.setattr(_source, "WINDOW_NBYTES", 5 * N_VARS * 8 * BLOCK_ROWS)
    assert len(list(open_source(path).blocks())) == 1


def test_blocks_say_whether_rows_are_canonical():
    data, indptr = np.ones(3, dtype=np.float32), np.array([0, 3])
    facts = []
    for columns in ([0, 1, 2], [2, 0, 1], [0, 1, 1]):
        matrix = scio.CSR(data, np.array(columns, dtype=np.int32), indptr, shape=(1, 3))
        facts += [next(open_source(matrix).blocks()).is_canonical]
        assert not next(open_source(matrix).blocks(check=False)).is_canonical

    assert facts == [True, False, False]


def test_coo_keeps_duplicates_that_overflow_their_type():
    matrix = sp.coo_array((np.array([200, 100], dtype=np.uint8), ([1, 1], [2, 2])), shape=(2, 4))
    block = next(open_source(matrix).blocks())

    assert block.data.tolist() == [200, 100]
    assert block.indices.tolist() == [2, 2]
    assert block.indptr.tolist() == [0, 0, 2]


def test_fingerprint_ignores_explicit_zeros_and_halves():
    plain = scio.CSR(np.float32([4]), np.int32([1]), np.int64([0, 1, 1]), shape=(2, 3))
    split = scio.CSR(np.float64([3, 0, 1]), np.int64([1, 0, 1]), np.int64([0, 3, 3]), shape=(2, 3))
    other = scio.CSR(np.float32([5]), np.int32([1]), np.int64([0, 1, 1]), shape=(2, 3))

    expected = open_source(plain).fingerprint()
    assert open_source(split).fingerprint() == expected
    assert open_source(other).fingerprint() != expected
    open_source(split).check_fingerprint(expected, "stats")
    with pytest.raises(ValueError, match=r"stats does not belong to matrix in memory: the shape"):
        open_source(other).check_fingerprint(expected, "stats")
    with pytest.raises(ValueError, match=r"made from 2 cells x 3 genes, this matrix has 2 x 4"):
        open_source(np.zeros((2, 4))).check_fingerprint(expected, "stats")


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0, 0)])
def test_empty_matrices(shape):
    for make in (np.zeros, sp.csr_matrix):
        source = open_source(make(shape))
        assert source.shape == shape
        assert source.fingerprint()["n_obs"] == shape[0]
        assert sum(b.n_rows for b in source.blocks()) == shape[0]


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: [1, 2], TypeError, "is a list; scio takes an AnnData"),
        (lambda: np.zeros(3), ValueError, "has 1 dimensions, a matrix has 2"),
        (lambda: np.zeros((2, 2), dtype=complex), TypeError, "holds complex128"),
        (lambda: np.array([["a"]]), TypeError, "holds <U1"),
        (lambda: sp.csr_matrix(np.ones((2, 2), dtype=complex)), TypeError, "holds complex128"),
        (lambda: sp.csc_matrix(np.ones((2, 2), dtype=np.longdouble)), TypeError, "holds float128"),
        (lambda: Path("/nowhere/made.h5ad"), FileNotFoundError, "made.h5ad"),
    ],
)
def test_what_is_no_matrix_is_refused(make, error, text):
    with pytest.raises(error, match=text):
        open_source(make())


def test_bad_arrays_are_refused(dense):
    matrix = sp.csr_matrix(dense)
    matrix.indices[5] = N_VARS
    with pytest.raises(CorruptFileError, match=rf"indices\[5\] is {N_VARS}"):
        list(open_source(matrix).blocks())
    matrix.indptr[1] = -1
    with pytest.raises(CorruptFileError, match=r"indptr\[1\] is -1"):
        open_source(matrix)


def test_wrong_names_offer_near_ones(adata, path):
    for made in (adata, path):
        with pytest.raises(KeyNotFoundError, match="did you mean 'twice'"):
            open_source(made, layer="twise")
        with pytest.raises(KeyNotFoundError, match="did you mean 'batch'"):
            open_source(made).batches("bach")
        with pytest.raises(KeyNotFoundError, match="did you mean 'mt'"):
            open_source(made).var_flags("MT")
        with pytest.raises(TypeError, match=r"var\['length'\] holds other values"):
            open_source(made).var_flags("length")
        with pytest.raises(ValueError, match=r"missing for 1 cells, the first is 'c7' \(cell 7\)"):
            open_source(made).batches("holes")
        with pytest.raises(ValueError, match="exclude each other"):
            open_source(made, layer="twice", use_raw=True)
        with pytest.raises(ValueError, match="expected a multiple of 4,096"):
            next(open_source(made).blocks(100))
    with pytest.raises(ValueError, match="layers/a needs an AnnData or a file"):
        open_source(np.zeros((2, 2)), layer="a")
    with pytest.raises(ValueError, match="has 3 labels, the matrix 2 cells"):
        open_source(np.zeros((2, 2))).batches(["a", "b", "c"])
    bare = anndata.AnnData(np.ones((2, 2)))
    with pytest.raises(KeyNotFoundError, match="no raw"):
        open_source(bare, use_raw=True)
    del bare.X
    with pytest.raises(ValueError, match="no X"):
        open_source(bare)


def test_labels_of_any_kind():
    source = open_source(np.zeros((4, 1)))

    codes, names = source.batches(np.array([3, 1, 3, 2]))
    assert names == ["1", "2", "3"]
    assert codes.tolist() == [2, 0, 2, 1]
    codes, names = source.batches(["b", 1, "a", 1])
    assert names == ["1", "a", "b"]
    codes, names = source.batches(pd.Series(["u", "v", "u", "v"], dtype="string"))
    assert codes.tolist() == [0, 1, 0, 1]
    with pytest.raises(ValueError, match="missing for 2 cells"):
        source.batches(pd.Series(["u", None, "u", np.nan]))


# --- writing into an AnnData


def test_a_view_becomes_an_anndata_of_its_own(adata):
    view = adata[:5]
    with pytest.warns(ScioWarning, match="view"):
        _anndata.make_actual(view)
    assert not view.is_view
    _anndata.make_actual(view)  # no second warning


def test_matrices_columns_and_states_are_put():
    made = anndata.AnnData(sp.csr_matrix(np.eye(3, dtype=np.float32)))
    made.layers["a"] = made.X.copy()
    old = made.X
    new = _anndata.with_data(old, old.data * 2)
    _anndata.put_matrix(made, new)
    _anndata.put_matrix(made, new, layer="b")
    assert np.shares_memory(made.X.indices, old.indices)
    assert old.data.tolist() == [1, 1, 1]
    assert _anndata.get_matrix(made).data.tolist() == [2, 2, 2]
    assert _anndata.get_matrix(made, layer="b") is made.layers["b"]
    with pytest.raises(KeyNotFoundError, match="no layer 'c'"):
        _anndata.get_matrix(made, layer="c")

    _anndata.put_columns(made.obs, {"n": np.arange(3), "f": np.ones(3, dtype=bool)})
    _anndata.put_columns(made.obs, {"n": np.arange(3) * 0.5})
    assert made.obs.columns.tolist() == ["n", "f"]
    assert made.obs["n"].tolist() == [0, 0.5, 1]

    _anndata.put_state(made, {"log1p": True, "base": None}, layer="a")
    assert _anndata.get_state(made, layer="a") == {"log1p": True}
    assert _anndata.get_state(made) == {}
    made.uns["log1p"] = {"base": 2}
    assert _anndata.get_state(made) == {"log1p": True, "base": 2.0}
    with pytest.raises(TypeError, match="writes into an AnnData, not into ndarray"):
        _anndata.require_anndata(np.zeros(2), "log1p")
