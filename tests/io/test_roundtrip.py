"""Any AnnData there can be: scio and anndata write it, scio and anndata read it, all are equal.

The examples are the same on every run; SCIO_EXAMPLES asks for more of them, chosen anew.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import anndata
import hypothesis
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import scio
from scio.testing import anndatas, assert_equal, columns, dense_arrays, frames, sparse_matrices, uns

N_EXAMPLES = int(os.environ.get("SCIO_EXAMPLES", "0"))
steady = settings(
    max_examples=N_EXAMPLES or 20,
    derandomize=not N_EXAMPLES,
    # to make a failure small takes minutes: asked for by hand
    phases=list(hypothesis.Phase) if N_EXAMPLES else [hypothesis.Phase.generate],
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*names are not unique", "ignore:overflow encountered", "ignore:invalid value"
)


def write(adata: anndata.AnnData, path: Path, **options: Any) -> Path:
    scio.write_h5ad(adata, path, convert_strings_to_categoricals=False, **options)
    return path


@steady
@given(adata=anndatas(), compression=st.sampled_from(["gzip", None]), checksums=st.booleans())
def test_what_scio_writes_anndata_and_scio_read(tmp_path_factory, adata, compression, checksums):
    folder = tmp_path_factory.mktemp("x")
    path = write(adata, folder / "x.h5ad", compression=compression, checksums=checksums)
    assert_equal(anndata.read_h5ad(path), adata, where="anndata")
    assert_equal(scio.read_h5ad(path), adata, where="scio")


@steady
@given(adata=anndatas(), compression=st.sampled_from(["gzip", "lzf", None]))
def test_what_anndata_writes_scio_reads(tmp_path_factory, adata, compression):
    path = tmp_path_factory.mktemp("x") / "x.h5ad"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with anndata.settings.override(allow_write_nullable_strings=True):
            adata.write_h5ad(path, compression=compression)
    assert_equal(scio.read_h5ad(path), anndata.read_h5ad(path))


@steady
@given(adata=anndatas(), compression=st.sampled_from(["gzip", None]))
def test_the_same_object_gives_the_same_bytes_and_so_does_what_is_read(
    tmp_path_factory, adata, compression
):
    folder = tmp_path_factory.mktemp("x")
    first = write(adata, folder / "1.h5ad", compression=compression)
    second = write(adata.copy(), folder / "2.h5ad", compression=compression)
    assert first.read_bytes() == second.read_bytes()
    read = write(scio.read_h5ad(first), folder / "3.h5ad", compression=compression)
    again = write(scio.read_h5ad(read), folder / "4.h5ad", compression=compression)
    assert read.read_bytes() == again.read_bytes()
    from_file = folder / "5.h5ad"
    scio.write_h5ad(first, from_file, compression=compression)
    assert_equal(scio.read_h5ad(from_file), scio.read_h5ad(first))


# --- the strategies themselves


def found(strategy: Any, is_it: Any) -> None:
    """Fail unless the strategy comes upon such a case."""
    hypothesis.find(
        strategy,
        is_it,
        settings=settings(
            max_examples=400, derandomize=True, database=None, deadline=None,
            phases=[hypothesis.Phase.generate], suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip


CASES = {
    "no cells": (anndatas(), lambda a: a.n_obs == 0 and a.n_vars > 0),
    "no X": (anndatas(), lambda a: a.X is None),
    "raw": (anndatas(), lambda a: a.raw is not None and a.raw.shape[1] != a.n_vars),
    "graph": (anndatas(), lambda a: len(a.obsp) > 0),
    "frame in obsm": (
        anndatas(),
        lambda a: any(isinstance(v, pd.DataFrame) for v in a.obsm.values()),
    ),
    "nested uns": (uns(), lambda u: any(isinstance(v, dict) and v for v in u.values())),
    "records": (
        uns(),
        lambda u: any(isinstance(v, np.ndarray) and v.dtype.names for v in u.values()),
    ),
    "unsorted": (sparse_matrices((4, 6)), lambda m: not m.has_sorted_indices),
    "csc": (sparse_matrices((4, 6)), lambda m: m.format == "csc"),
    "wide indices": (sparse_matrices((4, 6)), lambda m: m.indices.dtype == np.int64),
    "big-endian": (dense_arrays((3, 2)), lambda a: not a.dtype.isnative),
    "Fortran order": (dense_arrays((3, 2)), lambda a: not a.flags.c_contiguous),
    "ordered": (columns(4), lambda c: isinstance(c, pd.Categorical) and c.ordered),
    "unused": (
        columns(4),
        lambda c: isinstance(c, pd.Categorical) and len(c.categories) > len(set(c.codes) - {-1}),
    ),
    "missing": (columns(4), lambda c: isinstance(c, pd.Categorical) and -1 in c.codes),
    "nullable": (columns(4), lambda c: isinstance(c, pd.arrays.IntegerArray) and c.isna().any()),
    "named index": (frames(2), lambda f: f.index.name is not None),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_strategies_reach(case):
    found(*CASES[case])


# --- the comparison: every difference is seen, and where it is is said


def sample() -> anndata.AnnData:
    adata = anndata.AnnData(
        sp.csr_matrix(np.array([[0, 1.0], [2, 0], [np.nan, 3]])),
        obs=pd.DataFrame(
            {
                "c": pd.Categorical(["a", None, "b"], categories=["a", "b", "z"]),
                "i": pd.array([1, None, 3], dtype="Int32"),
                "t": np.array(["x", "y", "z"], object),
            },
            index=["o1", "o2", "o3"],
        ),
        obsm={"pca": np.array([[0.0, 1], [2, 3], [4, 5]])},
        uns={"a": {"b": 1, "r": np.array([("x", 1)], [("n", "O"), ("k", "i8")])}, "t": "text"},
    )
    adata.raw = adata
    return adata


def column(adata: anndata.AnnData, name: str, values: Any) -> None:
    obs = adata.obs
    obs[name] = values


CHANGES = {
    "/X/data": lambda a: a.X.data.__setitem__(0, 9),
    "/X/indices": lambda a: a.X.indices.__setitem__(0, 0),
    "/obs/c/codes": lambda a: column(a, "c", a.obs["c"].cat.set_categories(["a", "z", "b"]).cat.rename_categories(["a", "b", "z"])),
    "/obs/c": lambda a: column(a, "c", a.obs["c"].cat.as_ordered()),
    "/obs/i/mask": lambda a: column(a, "i", pd.array([1, 2, 3], dtype="Int32")),
    "/obs/i": lambda a: column(a, "i", pd.array([1, None, 3], dtype="Int64")),
    "/obs/t": lambda a: column(a, "t", ["x", "y", "w"]),
    "/obs": lambda a: a.obs.insert(0, "new", 1),
    "/obs index": lambda a: setattr(a, "obs_names", ["o1", "o2", "oo"]),
    "/obsm/pca": lambda a: a.obsm["pca"].__setitem__((0, 0), -0.0),
    "/uns/a/b": lambda a: a.uns["a"].__setitem__("b", True),
    "/uns/a/r/k": lambda a: a.uns["a"]["r"].__setitem__("k", 2),
    "/uns/t": lambda a: a.uns.__setitem__("t", "Text"),
    "/uns": lambda a: a.uns.pop("t"),
    "/layers": lambda a: a.layers.__setitem__("l", a.X),
    "/raw": lambda a: setattr(a, "raw", None),
}  # fmt: skip


@pytest.mark.parametrize("place", CHANGES)
def test_the_comparison_sees(place):
    adata = sample()
    assert_equal(adata, sample())
    CHANGES[place](adata)
    with pytest.raises(AssertionError, match=f"^{place}: "):
        assert_equal(adata, sample())
