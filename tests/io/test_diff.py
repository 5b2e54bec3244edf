"""`scio.diff`: what differs is told with element, rule and position; how it is stored is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pytest
import scipy.sparse as sp

import scio
from scio.errors import CorruptFileError, IOFormatError
from scio.io import diff as diff_module
from tests.io.broken import N_OBS, N_VARS, at, attribute, removed, replaced, write_sound


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sound(tmp_path_factory.mktemp("a") / "a.h5ad", compression="gzip")


@pytest.fixture
def changed(first: Path, tmp_path: Path) -> Callable[..., Path]:
    def change(*changes: Callable[[h5py.File], Any]) -> Path:
        path = tmp_path / "b.h5ad"
        path.write_bytes(first.read_bytes())
        with h5py.File(path, "r+") as file:
            for apply in changes:
                apply(file)
        return path

    return change


def told(report: diff_module.DiffReport) -> set[tuple[str, str]]:
    return {(f.path, f.rule) for f in report.findings}


def reordered(file: h5py.File) -> None:
    file["obs"].attrs["column-order"] = file["obs"].attrs["column-order"][::-1]


def other_category_order(file: h5py.File) -> None:
    """The same labels for every cell, by other codes."""
    labels, codes = file["obs/kind/categories"], file["obs/kind/codes"]
    labels[...] = labels[...][::-1]
    codes[...] = 2 - codes[...]


CASES: dict[str, tuple[Callable[[h5py.File], Any], set[tuple[str, str]]]] = {
    "only in A": (removed("obsm/pca"), {("/obsm/pca", "only in A")}),
    "only in B": (lambda f: f.create_group("uns/new"), {("/uns/new", "only in B")}),
    "attribute only in B": (attribute("uns/deep", "k", 1), {("/uns/deep@k", "only in B")}),
    "attribute": (attribute("obs/kind", "ordered", False), {("/obs/kind@ordered", "attribute")}),
    "dtype": (replaced("obs/depth", lambda v: v.astype("f4")), {("/obs/depth", "dtype")}),
    "dtype of sparse": (replaced("X/data", lambda v: v.astype("f8")), {("/X/data", "dtype")}),
    "shape": (replaced("obsm/pca", lambda v: v[:, :3]), {("/obsm/pca", "shape")}),
    "shape of sparse": (attribute("X", "shape", [N_OBS, N_VARS + 1]), {("/X", "shape")}),
    "encoding": (attribute("uns/title", "encoding-version", "0.1.0"), {("/uns/title", "encoding")}),
    "kind": (
        lambda f: (f.__delitem__("uns/seed"), f.create_group("uns/seed")),
        {("/uns/seed", "kind")},
    ),
    "order of columns": (reordered, {("/obs", "order")}),
    "order of categories": (other_category_order, {("/obs/kind", "order")}),
    "another category": (
        replaced("obs/kind/categories", at(1, "z"), dtype=h5py.string_dtype()),
        {("/obs/kind/categories", "categories"), ("/obs/kind", "values")},
    ),
    "a code": (replaced("obs/kind/codes", at(11, 0)), {("/obs/kind", "values")}),
    "a number": (replaced("layers/dense", at((3, 4), -7.0)), {("/layers/dense", "values")}),
    "a string": (
        replaced("obs/name", at(9, "x"), dtype=h5py.string_dtype()),
        {("/obs/name", "values")},
    ),
    "a scalar": (replaced("uns/seed", lambda v: 4), {("/uns/seed", "values")}),
    "a value of CSR": (replaced("X/data", at(40, 9.0)), {("/X", "values")}),
    "a value of CSC": (replaced("layers/csc/data", at(40, 9.0)), {("/layers/csc", "values")}),
    "a mask": (replaced("obs/count/mask", at(1, True)), {("/obs/count/mask", "values")}),
}


@pytest.mark.parametrize("name", CASES)
def test_a_difference_is_told_alone(changed: Callable[..., Path], first: Path, name: str) -> None:
    change, expected = CASES[name]
    report = scio.diff(first, changed(change))
    assert told(report) == expected, report
    assert not report.is_equal
    assert report.exit_code == 1


def test_a_file_equals_itself(first: Path) -> None:
    report = scio.diff(first, first)
    assert report.is_equal, report
    assert report.exit_code == 0
    assert scio.diff(first, first, as_stored=True).is_equal


def test_positions_and_counts(changed: Callable[..., Path], first: Path) -> None:
    def change(file: h5py.File) -> None:
        file["layers/dense"][3, 4] = -7
        file["layers/dense"][50, 0] = -8

    finding = scio.diff(first, changed(change)).findings[0]
    assert finding.found == "[3, 4] -7.0 (2 differ)"
    assert finding.expected.startswith("[3, 4] ")


@pytest.mark.parametrize("path", ["X", "layers/csc"])
def test_positions_in_sparse_matrices(
    changed: Callable[..., Path], first: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diff_module, "_BLOCK_ENTRIES", 5)  # many blocks
    adata = anndata.read_h5ad(first)
    matrix = sp.coo_matrix(adata.X if path == "X" else adata.layers["csc"].T.tocsr())
    stored = sp.csr_matrix(matrix)
    row = int(np.searchsorted(stored.indptr, 40, side="right")) - 1
    column = int(stored.indices[40])
    place = (row, column) if path == "X" else (column, row)
    finding = scio.diff(first, changed(replaced(f"{path}/data", at(40, 9.0)))).findings[0]
    assert finding.found == f"[{place[0]}, {place[1]}] 9.0"


def test_nan_equals_nan_and_tolerances(
    changed: Callable[..., Path], first: Path, tmp_path: Path
) -> None:
    nan = changed(replaced("obsm/pca", at((2, 2), np.nan)))
    again = tmp_path / "again.h5ad"
    again.write_bytes(nan.read_bytes())
    assert scio.diff(nan, again).is_equal
    assert told(scio.diff(first, nan)) == {("/obsm/pca", "values")}
    assert not scio.diff(first, nan, rtol=1, atol=1).is_equal  # NaN is near nothing
    near = changed(replaced("obsm/pca", lambda v: v + 1e-9), replaced("X/data", lambda v: v + 1e-6))
    assert told(scio.diff(first, near)) == {("/obsm/pca", "values"), ("/X", "values")}
    assert scio.diff(first, near, atol=1e-5).is_equal
    assert scio.diff(first, near, rtol=1e-3).is_equal
    assert scio.diff(first, near, values=False).is_equal


def test_any_value_is_right_under_a_mask(changed: Callable[..., Path], first: Path) -> None:
    assert scio.diff(first, changed(replaced("obs/count/values", at(0, 77)))).is_equal
    report = scio.diff(first, changed(replaced("obs/count/values", at(1, 77))))
    assert told(report) == {("/obs/count/values", "values")}


def test_storage_makes_no_difference(first: Path, tmp_path: Path) -> None:
    other = write_sound(tmp_path / "plain.h5ad")
    report = scio.diff(first, other)
    assert report.is_equal, report

    def big_endian(values: Any) -> Any:
        return values.astype(values.dtype.newbyteorder(">"))

    with h5py.File(other, "r+") as file:
        replaced("obsm/pca", big_endian, chunks=(5, 2))(file)
    assert scio.diff(first, other).is_equal


def test_sparse_matrices_are_compared_as_matrices(first: Path, tmp_path: Path) -> None:
    """Unsorted rows, duplicates and stored zeros are the same matrix; not so as stored."""
    path = tmp_path / "b.h5ad"
    path.write_bytes(first.read_bytes())
    with h5py.File(path, "r+") as file:
        old = sp.csr_matrix(
            (file["X/data"][()], file["X/indices"][()], file["X/indptr"][()]), (N_OBS, N_VARS)
        )
        data, indices, indptr = [], [], [0]
        for row in range(N_OBS):
            part = old.data[old.indptr[row] : old.indptr[row + 1]]
            where = old.indices[old.indptr[row] : old.indptr[row + 1]]
            absent = np.setdiff1d(np.arange(N_VARS), where)[:1]
            data += [part[::-1] - 1, np.ones(len(part)), np.zeros(len(absent))]
            indices += [where[::-1], where, absent]
            indptr.append(indptr[-1] + 2 * len(part) + len(absent))
        for name, values in (("data", np.concatenate(data)), ("indices", np.concatenate(indices))):
            dtype = file[f"X/{name}"].dtype
            del file[f"X/{name}"]
            file[f"X/{name}"] = values.astype(dtype)
        file["X/indptr"][...] = indptr
    assert scio.diff(first, path).is_equal
    assert {p for p, _ in told(scio.diff(first, path, as_stored=True))} == {
        "/X/data",
        "/X/indices",
        "/X/indptr",
    }


@pytest.mark.parametrize("form", ["csc", "dense"])
def test_other_formats_of_a_matrix(first: Path, tmp_path: Path, form: str) -> None:
    adata = anndata.read_h5ad(first)
    adata.X = adata.X.tocsc() if form == "csc" else adata.X.toarray()
    adata.strings_to_categoricals = lambda *_: None
    path = tmp_path / "b.h5ad"
    adata.write_h5ad(path)
    assert told(scio.diff(first, path)) == {("/X", "encoding")}
    dense = sp.csr_matrix(adata.X).toarray()
    row, column = (int(i[-1]) for i in dense.nonzero())
    with h5py.File(path, "r+") as file:
        if form == "csc":
            file["X/data"][-1] = 77
            row = int(file["X/indices"][-1])
            column = int(np.flatnonzero(dense.any(axis=0))[-1])
        else:
            file["X"][row, column] = 77
    report = scio.diff(first, path)
    assert told(report) == {("/X", "encoding"), ("/X", "values")}
    assert report.findings[1].found == f"[{row}, {column}] 77.0"


def test_bad_files_raise(first: Path, changed: Callable[..., Path], tmp_path: Path) -> None:
    text = tmp_path / "text.h5ad"
    text.write_text("no HDF5")
    with pytest.raises(IOFormatError, match="text"):
        scio.diff(first, text)
    with pytest.raises(CorruptFileError, match="X/indptr"):
        scio.diff(first, changed(replaced("X/indptr", at(5, 10_000))))
    with pytest.raises(CorruptFileError, match="kind/codes"):
        scio.diff(first, changed(replaced("obs/kind/codes", at(5, 100))))


def test_shared_files_equal_themselves(shared_data: Path) -> None:
    paths = sorted(shared_data.glob("h5ad_formats/*.h5ad")) + sorted(shared_data.glob("h5mu/*"))
    assert len(paths) > 25
    for path in paths:
        report = scio.diff(path, path)
        assert report.is_equal, report


def test_to_dict(first: Path, changed: Callable[..., Path]) -> None:
    facts = scio.diff(first, changed(replaced("uns/seed", lambda v: 4))).to_dict()
    assert facts["differences"] == [{"path": "/uns/seed", "rule": "values", "a": "3", "b": "4"}]
    assert facts["is_equal"] is False
