"""Cases in which other libraries had bugs: by behaviour, on files that h5py makes.

Each test says what a file looks like and what a reader must give back; scio is asked through
`HDF5File`, `scio.open` and `scio.read_h5ad`, whichever applies.
"""

from __future__ import annotations

from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import scio
from scio.io import HDF5File
from scio.testing import DTYPES, assert_equal

NUMBERS = [*DTYPES, *(f">{d}" for d in ("i2", "u4", "i8", "f2", "f4", "f8", "c16"))]


def values_of(dtype: str, n: int = 24) -> np.ndarray:
    """Numbers whose bytes all matter: a wrong byte order or width cannot go unseen."""
    kind = np.dtype(dtype).newbyteorder("=")
    if kind.kind == "b":
        return np.arange(n) % 3 == 0
    if kind.kind in "iu":
        facts = np.iinfo(kind)
        steps = np.linspace(float(facts.min), float(facts.max) * 0.99, n)
        return steps.astype(kind).astype(dtype)
    values = np.linspace(-100, 100, n).astype(kind)
    return (values * (1 + 2j) if kind.kind == "c" else values).astype(dtype)


def csr_file(path: Path, *, shape=(6, 9), data="f4", indices="i4", indptr="i4", **options):
    """An AnnData file whose X has just these types, and the matrix."""
    rng = np.random.default_rng(0)
    matrix = sp.csr_matrix(rng.poisson(0.6, shape).astype(np.float64))
    adata = anndata.AnnData(sp.csr_matrix(shape, dtype="f4"))
    adata.write_h5ad(path)
    with h5py.File(path, "r+") as f:
        for name, dtype in (("data", data), ("indices", indices), ("indptr", indptr)):
            del f[f"X/{name}"]
            f["X"].create_dataset(name, data=getattr(matrix, name).astype(dtype), **options)
    return matrix


# --- numbers


@pytest.mark.parametrize("layout", ["contiguous", "chunked", "filtered", "scalar"])
@pytest.mark.parametrize("dtype", NUMBERS)
def test_numbers_of_every_type_and_byte_order(tmp_path, dtype, layout):
    values = values_of(dtype)
    options = {
        "contiguous": {},
        "chunked": {"chunks": (7,)},
        "filtered": {"chunks": (7,), "compression": "gzip", "shuffle": True, "fletcher32": True},
        "scalar": {},
    }[layout]
    data = values[-1] if layout == "scalar" else values
    with h5py.File(tmp_path / "x.h5", "w") as f:
        f.create_dataset("d", data=data, dtype=dtype, **options)
    read = HDF5File(tmp_path / "x.h5").read("/d")
    assert np.asarray(read).dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(read, data)


@pytest.mark.parametrize("indptr", ["i4", "i8", "u8", ">i8", "u2"])
@pytest.mark.parametrize("indices", ["i4", "i8", "u4", ">u2", "u1"])
def test_index_types_make_no_difference(tmp_path, indices, indptr):
    path = tmp_path / "x.h5ad"
    expected = csr_file(path, indices=indices, indptr=indptr)
    read = scio.read_h5ad(path).X
    assert read.indices.dtype == read.indptr.dtype == np.int32
    np.testing.assert_array_equal(read.toarray(), expected.toarray())
    with scio.open(path) as f:
        rows = f.X[[4, 0, 4]]
        np.testing.assert_array_equal(rows.to_scipy().toarray(), expected[[4, 0, 4]].toarray())


def test_rows_are_looked_up_by_64_bit_positions(tmp_path):
    """A file whose indptr goes beyond 2**32: what is stored is three rows, the rest a hole."""
    path, n_before = tmp_path / "x.h5ad", 2**32
    csr_file(path)
    with h5py.File(path, "r+") as f:
        for name in ("data", "indices"):
            del f[f"X/{name}"]
            made = f["X"].create_dataset(
                name, (n_before + 4,), "f4" if name == "data" else "i4", chunks=(2**20,)
            )
            made[n_before:] = [5, 6, 7, 8]
        del f["X/indptr"]
        f["X/indptr"] = np.array(
            [0, n_before, n_before, n_before + 3, n_before + 4] + [n_before + 4] * 2
        )
    with scio.open(path) as f:
        rows = f.X[2:6]
        np.testing.assert_array_equal(rows.indptr, [0, 3, 4, 4, 4])
        np.testing.assert_array_equal(rows.data, [5, 6, 7, 8])
        np.testing.assert_array_equal(f.X[[3]].indices, [8])


# --- storage


def test_arrays_of_which_only_a_part_was_ever_written(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as f:
        part = f.create_dataset(
            "part", (20, 10), "i4", chunks=(4, 4), fillvalue=-7, compression="gzip"
        )
        part[5:9, 3:9] = np.arange(24).reshape(4, 6)
        f.create_dataset("late", (1000,), "f8", fillvalue=0.25)  # contiguous, not even allocated
        text = f.create_dataset("text", (6,), h5py.string_dtype(), chunks=(2,))
        text[2] = "größe"
        expected = {name: f[name][()] for name in f}
    file = HDF5File(tmp_path / "x.h5")
    for name in ("part", "late"):
        np.testing.assert_array_equal(file.read(f"/{name}"), expected[name])
    assert [str(v) for v in file.read("/text")] == ["", "", "größe", "", "", ""]
    np.testing.assert_array_equal(
        file.dataset("/part").read([7, 2], [5, 5]), expected["part"][7:12, 2:7]
    )


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_arrays_that_grew_and_shrank(tmp_path, libver):
    with h5py.File(tmp_path / "x.h5", "w", libver=libver) as f:
        grown = f.create_dataset("grown", (3, 4), "i8", chunks=(2, 3), maxshape=(None, None))
        grown[:] = 1
        grown.resize((9, 7))
        grown[8, 6] = 2
        shrunk = f.create_dataset("shrunk", data=np.arange(40), chunks=(6,), maxshape=(None,))
        shrunk.resize((13,))
        gone = f.create_dataset("gone", data=np.arange(9.0), chunks=(2,), maxshape=(None,))
        gone.resize((0,))
        back = f.create_dataset(
            "back", data=np.arange(20), chunks=(4,), maxshape=(None,), fillvalue=3
        )
        back.resize((5,))
        back.resize((20,))  # what was cut away is the fill value now
        expected = {name: f[name][()] for name in f}
    file = HDF5File(tmp_path / "x.h5")
    for name, values in expected.items():
        read = file.read(f"/{name}")
        assert read.shape == values.shape
        np.testing.assert_array_equal(read, values, err_msg=name)


def test_chunks_larger_than_the_array(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as f:
        f.create_dataset(
            "d",
            data=np.arange(6).reshape(2, 3),
            chunks=(64, 64),
            maxshape=(None, None),
            compression="gzip",
        )
    np.testing.assert_array_equal(HDF5File(tmp_path / "x.h5").read("/d"), [[0, 1, 2], [3, 4, 5]])


@pytest.mark.parametrize("shape", [(0,), (0, 5), (5, 0), (0, 0), (3, 0, 2)])
@pytest.mark.parametrize("is_chunked", [False, True])
def test_arrays_without_items(tmp_path, shape, is_chunked):
    options = {"chunks": tuple(max(1, s) for s in shape), "maxshape": (None,) * len(shape)}
    with h5py.File(tmp_path / "x.h5", "w") as f:
        f.create_dataset("d", shape, "f4", **(options if is_chunked else {}))
        f.create_dataset("t", shape, h5py.string_dtype(), **(options if is_chunked else {}))
        f["null"] = h5py.Empty("f4")
    file = HDF5File(tmp_path / "x.h5")
    assert file.read("/d").shape == shape
    assert np.shape(file.read("/t")) == shape
    assert file.read("/null") is None


# --- rows


MASKS = {
    "none": np.zeros(50, bool),
    "all": np.ones(50, bool),
    "first": np.arange(50) == 0,
    "last": np.arange(50) == 49,
    "runs": np.isin(np.arange(50) // 7, [0, 3, 6]),
    "every other": np.arange(50) % 2 == 1,
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("kind", ["csr", "csc", "dense"])
def test_masks_of_rows(tmp_path, kind, mask):
    dense = np.random.default_rng(1).poisson(0.5, (50, 12)).astype("f4")
    X = dense if kind == "dense" else sp.csr_matrix(dense).asformat(kind)
    path = tmp_path / "x.h5ad"
    anndata.AnnData(X).write_h5ad(path, compression="gzip")
    adata = scio.read_h5ad(path, obs=MASKS[mask])
    got = adata.X.toarray() if sp.issparse(adata.X) else adata.X
    np.testing.assert_array_equal(got, dense[MASKS[mask]])
    assert list(adata.obs_names) == [str(i) for i in np.flatnonzero(MASKS[mask])]


def test_masks_of_another_length_are_refused(tmp_path):
    path = tmp_path / "x.h5ad"
    anndata.AnnData(np.ones((5, 3), "f4")).write_h5ad(path)
    for length in (0, 4, 6):
        with pytest.raises((IndexError, ValueError), match=str(length)):
            scio.read_h5ad(path, obs=np.ones(length, bool))


@pytest.mark.filterwarnings("ignore:Observation names are not unique")
def test_rows_in_any_order_and_more_than_once(tmp_path):
    path = tmp_path / "x.h5ad"
    expected = csr_file(path, chunks=(3,), compression="gzip").toarray()
    rows = np.array([5, 0, 0, 3, 5, 2, -1])
    np.testing.assert_array_equal(scio.read_h5ad(path, obs=rows).X.toarray(), expected[rows])
    with pytest.raises(IndexError):
        scio.read_h5ad(path, obs=[6])


# --- names


def test_frames_wider_than_one_object_header(tmp_path):
    """column-order beyond 64 KiB lies elsewhere; that anndata reads it, test_writer.py shows."""
    n, path = 4_100, tmp_path / "x.h5ad"
    columns = {f"a column with a long name {i}": [i, -i] for i in range(n)}
    adata = anndata.AnnData(np.zeros((2, 1), "f4"), obs=pd.DataFrame(columns, index=["x", "y"]))
    scio.write_h5ad(adata, path)
    assert_equal(scio.read_h5ad(path), adata)
    with scio.open(path) as f:
        assert f.obs.columns == list(columns)


def test_a_slash_in_a_key_is_no_group(tmp_path):
    adata = anndata.AnnData(
        np.zeros((2, 1), "f4"), obs=pd.DataFrame({"a/b": [1, 2]}, index=["x", "y"])
    )
    adata.obsm["p/q/r"] = np.ones((2, 2))
    adata.uns["n/m"] = {"/": 1, "a": {"b/": "c"}}
    with pytest.warns(scio.errors.ScioWarning, match="%2F"):
        scio.write_h5ad(adata, tmp_path / "x.h5ad")
    assert_equal(scio.read_h5ad(tmp_path / "x.h5ad"), adata)
    with h5py.File(tmp_path / "x.h5ad") as f:
        assert list(f["obsm"]) == ["p%2Fq%2Fr"]
        assert all("/" not in name for name in f["uns/n%2Fm"])


@pytest.mark.parametrize(
    "name", ["größe", "名前", "😀", "a b\tc\n", ".hidden", "-", "x" * 300, "\u202e"]
)
def test_names_of_any_letters(tmp_path, name):
    adata = anndata.AnnData(
        np.zeros((1, 1), "f4"), obs=pd.DataFrame({name: [name]}, index=[name]), uns={name: name}
    )
    scio.write_h5ad(adata, tmp_path / "x.h5ad", convert_strings_to_categoricals=False)
    assert_equal(scio.read_h5ad(tmp_path / "x.h5ad"), adata)
    assert_equal(anndata.read_h5ad(tmp_path / "x.h5ad"), adata)
