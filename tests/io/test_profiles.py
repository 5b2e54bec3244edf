"""`compat=`: which encoding each element gets, and what the report says of it."""

from __future__ import annotations

from pathlib import Path

import anndata
import awkward
import h5py
import numpy as np
import pandas as pd
import pytest

import scio
from scio.io._profiles import COMPATS, Profile, WriteReport, since

pytestmark = pytest.mark.filterwarnings("ignore:Support for Awkward")

NEWER = {"awkward-array", "nullable-string-array", "null"}  # than anndata 0.8


@pytest.fixture
def adata() -> anndata.AnnData:
    """One element of each kind that some reader does not know, and some that all know."""
    obs = pd.DataFrame(
        {
            "missing": pd.array(["b", None, "a", "b"], dtype="string"),
            "complete": pd.array(["p", "q", "p", "q"], dtype="string"),
            "objects": np.array(["x", "y", None, "x"], object),
            "Int": pd.array([1, None, 3, 4], dtype="Int8"),
            "Bool": pd.array([True, None, False, True], dtype="boolean"),
            "labels": pd.Categorical(["u", "v", None, "u"]),
        },
        index=list("wxyz"),
    )
    adata = anndata.AnnData(np.eye(4, 3, dtype="f4"), obs=obs)
    adata.uns = {
        "none": None,
        "nested": {"none": None, "awkward": awkward.Array([[1], []])},
        "half": np.float16(1.5),
        "complex": np.array([1j]),
        "records": np.array([("a", 1)], [("s", "O"), ("n", "i4")]),
    }
    adata.obsm["awkward"] = awkward.Array([[1, 2], [], [3], []])
    return adata


def encodings(path: Path) -> dict[str, str]:
    found = {}
    with h5py.File(path) as file:
        file.visititems(lambda n, item: found.update({n: item.attrs.get("encoding-type", "")}))
    return found


def write(adata: anndata.AnnData, folder: Path, compat: str | None) -> tuple[dict, WriteReport]:
    report = scio.write_h5ad(
        adata, folder / "x.h5ad", compat=compat, convert_strings_to_categoricals=False
    )
    return encodings(folder / "x.h5ad"), report


def test_08_holds_only_what_08_reads(adata, tmp_path):
    found, report = write(adata, tmp_path, "0.8")
    assert not NEWER & set(found.values())
    assert found["obs/missing"] == found["obs/objects"] == "categorical"
    assert found["obs/complete"] == "string-array"
    assert found["obs/Int"] == "nullable-integer"
    assert found["obs/Bool"] == "nullable-boolean"
    assert found["uns/records"] == "rec-array"
    assert found["uns/half"] == "numeric-scalar"
    assert {"uns/none", "uns/nested/none", "uns/nested/awkward", "obsm/awkward"}.isdisjoint(found)
    assert report.oldest_reader == "0.8"
    lost = {row.element: row.loss for row in report.losses}
    assert set(lost) == {
        "/obs/missing", "/obs/objects", "/uns/none", "/uns/nested/none", "/uns/nested/awkward",
        "/obsm/awkward",
    }  # fmt: skip
    assert "1 missing became a categorical" in lost["/obs/missing"]
    assert "0.9, compat is '0.8'" in lost["/obsm/awkward"]
    read = anndata.read_h5ad(tmp_path / "x.h5ad").obs
    assert read["missing"].tolist() == ["b", np.nan, "a", "b"] or read["missing"].isna().sum() == 1
    assert read["missing"].cat.categories.tolist() == ["a", "b"]


def test_011_knows_missing_strings_and_awkward(adata, tmp_path):
    found, report = write(adata, tmp_path, "0.11")
    assert found["obs/missing"] == found["obs/objects"] == "nullable-string-array"
    assert found["uns/nested/awkward"] == found["obsm/awkward"] == "awkward-array"
    assert "uns/none" not in found
    assert {row.element for row in report.losses} == {"/uns/none", "/uns/nested/none"}
    assert report.oldest_reader == "0.11"


@pytest.mark.parametrize("compat", ["0.12", None])
def test_012_and_the_default_lose_nothing(adata, tmp_path, compat):
    found, report = write(adata, tmp_path, compat)
    assert found["uns/none"] == found["uns/nested/none"] == "null"
    assert set(found.values()) >= NEWER
    assert report.losses == []
    assert report.oldest_reader == "0.12"
    read = anndata.read_h5ad(tmp_path / "x.h5ad")
    assert read.obs["missing"].tolist() == ["b", pd.NA, "a", "b"]
    assert read.uns["nested"]["none"] is None
    assert read.obsm["awkward"].to_list() == [[1, 2], [], [3], []]


def test_the_default_is_the_oldest_that_loses_nothing(adata, tmp_path):
    for key in ("none", "nested"):
        del adata.uns[key]
    del adata.obsm["awkward"]
    report = scio.write_h5ad(adata, tmp_path / "x.h5ad")  # strings become categoricals
    assert report.oldest_reader == "0.8"
    assert not NEWER & set(encodings(tmp_path / "x.h5ad").values())


@pytest.mark.parametrize("compat", [None, *COMPATS])
def test_what_no_profile_writes(adata, tmp_path, compat):
    scio.write_h5ad(adata, tmp_path / "x.h5ad", compat=compat)
    with h5py.File(tmp_path / "x.h5ad") as file:
        assert set(file) <= {
            "X",
            "obs",
            "var",
            "uns",
            "obsm",
            "varm",
            "obsp",
            "varp",
            "layers",
            "raw",
        }
        items: list[h5py.Dataset] = []
        file.visititems(lambda _, i: items.append(i) if isinstance(i, h5py.Dataset) else None)
        assert {item.compression for item in items} <= {None, "gzip"}
        assert file.id.get_create_plist().get_version()[0] == 0  # superblock of HDF5 1.0 to 1.8
        ordered = file["obs/labels"].attrs
        assert ordered.get_id("ordered").dtype.kind == "b"  # the enumeration; int8 fails in 0.8


def test_every_element_has_a_row(adata, tmp_path):
    found, report = write(adata, tmp_path, None)
    rows = {row.element.strip("/"): row.encoding for row in report.elements}
    members = {"codes", "categories", "values", "mask", "data", "indices", "indptr"}
    wanted = {
        name: encoding
        for name, encoding in found.items()
        if not members & {name.rpartition("/")[2]} and "/node" not in name
    }
    assert {name: rows.get(name) for name in wanted} == wanted
    assert rows[""] == "anndata"
    assert report.nbytes == (tmp_path / "x.h5ad").stat().st_size


def test_the_report_can_be_read(adata, tmp_path):
    _, report = write(adata, tmp_path, "0.8")
    text = str(report)
    assert "read by anndata 0.8 and later" in text
    assert "lost: /uns/none: left out: None is read since anndata 0.12" in text
    assert repr(report).endswith("6 losses>")
    _, report = write(adata, tmp_path, None)
    assert "/uns/none: null, since anndata 0.12" in str(report)


def test_profiles_know_their_releases():
    assert [Profile(c).allows("null") for c in (None, *COMPATS)] == [True, False, False, True]
    assert since("categorical") == "0.8"
    with pytest.raises(ValueError, match=r"not '0\.10'"):
        Profile("0.10")
