"""write_subset: what indexing an AnnData gives, from file to file."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import scio
from scio.errors import CorruptFileError, KeyNotFoundError
from scio.io import subset
from scio.io.subset import estimate_subset, write_subset
from scio.testing import assert_equal
from tests.io.large import canonical, in_layout, small_adata

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*old version of AnnData",
    "ignore:.*without encoding metadata",
    "ignore:.*not unique",
    "ignore:.*are written with",
)

_TOO_LARGE = 3_000_000
_SMALL = 200_000


def _expected(adata: anndata.AnnData, obs: Any, var: Any, path: Path) -> anndata.AnnData:
    """Index, copy, write and read with anndata."""
    part = adata  # one axis after the other: SciPy fails at a mask with a slice of steps
    if obs is not None:
        part = part[obs].copy()
    if var is not None:
        part = part[:, var].copy()
    part.write_h5ad(path, convert_strings_to_categoricals=False)
    return canonical(anndata.read_h5ad(path))


def _assert_subset(source: Path, tmp_path: Path, obs: Any, var: Any, whole: Any = None) -> None:
    whole = anndata.read_h5ad(source) if whole is None else whole
    wanted = _expected(whole, obs, var, tmp_path / "wanted.h5ad")
    write_subset(source, tmp_path / "found.h5ad", obs=obs, var=var)
    assert_equal(canonical(anndata.read_h5ad(tmp_path / "found.h5ad")), wanted)


_REAL = ("h5ad_formats/*.h5ad", "counts/zdata_*.h5ad", "counts/dsb_adt*.h5ad")


@pytest.mark.parametrize("pattern", _REAL)
def test_real_files_equal_anndata(shared_data: Path, tmp_path: Path, pattern: str) -> None:
    rng = np.random.default_rng(1)
    n_done = 0
    for source in sorted(shared_data.glob(pattern)):
        if source.stat().st_size > _TOO_LARGE:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what anndata says of old files
            whole = anndata.read_h5ad(source)
            cells = np.sort(rng.permutation(whole.n_obs)[: whole.n_obs // 2])
            genes = rng.permutation(whole.n_vars)[: max(1, whole.n_vars // 3)]
            _assert_subset(source, tmp_path, cells, genes, whole)
            if source.stat().st_size < _SMALL:
                _assert_subset(source, tmp_path, None, None, whole)
        n_done += 1
    assert n_done > 0, pattern


def _selector(draw: st.DataObject, n: int, names: list[str]) -> Any:
    kind = draw.draw(st.sampled_from(["all", "slice", "mask", "ints", "names"]))
    if kind == "all":
        return None
    if kind == "slice":
        start, stop = draw.draw(st.integers(-n, n)), draw.draw(st.integers(-n, n))
        return slice(start, stop, draw.draw(st.sampled_from([None, 2, 3])))
    if kind == "mask":
        return np.array(draw.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    chosen = np.array(draw.draw(st.permutations(range(n))), dtype=int)[
        : draw.draw(st.integers(1, n))
    ]
    return chosen if kind == "ints" else [names[i] for i in chosen]


@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    phases=[Phase.explicit, Phase.generate],
)
@given(
    draw=st.data(),
    seed=st.integers(1, 5),
    layout=st.sampled_from(["csr", "csc", "dense"]),
    most=st.integers(1, 40),
)
def test_made_files_equal_anndata(
    tmp_path: Path, draw: st.DataObject, seed: int, layout: str, most: int
) -> None:
    adata = small_adata(seed, layout=layout)
    adata.layers["other"] = in_layout(adata.X, "dense" if layout == "dense" else "csc")
    source = tmp_path / "a.h5ad"
    adata.write_h5ad(source)
    obs = _selector(draw, adata.n_obs, list(adata.obs_names))
    var = _selector(draw, adata.n_vars, list(adata.var_names))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subset, "entries_within", lambda *_: most)
        patch.setattr(subset, "_DENSE_COPIES", subset.MAX_MEMORY // (8 * most))  # a few rows
        _assert_subset(source, tmp_path, obs, var)


@pytest.mark.parametrize("layout", ["csr", "csc", "dense"])
def test_repeated_cells_and_genes_are_repeated(tmp_path: Path, layout: str) -> None:
    adata = small_adata(2, layout=layout)
    source, target = tmp_path / "a.h5ad", tmp_path / "b.h5ad"
    adata.write_h5ad(source)
    obs, var = [3, 3, 0, 19], [5, 1, 5]
    write_subset(source, target, obs=obs, var=var)
    with scio.open(target) as file:
        assert file.X.format == layout
        found = file.X.read()
    array = found if layout == "dense" else found.toarray()
    np.testing.assert_array_equal(array, small_adata(2, layout="dense").X[obs][:, var])


def test_rows_keep_the_order_asked_for_and_are_sorted(tmp_path: Path) -> None:
    adata = small_adata(2)
    source, target = tmp_path / "a.h5ad", tmp_path / "b.h5ad"
    adata.write_h5ad(source)
    write_subset(source, target, obs=np.arange(19, -1, -1), var=np.arange(11, -1, -1))
    with scio.open(target) as file:
        assert list(file.obs_names) == list(adata.obs_names[::-1])
        rows = file.X.read()
    np.testing.assert_array_equal(rows.toarray(), adata.X.toarray()[::-1, ::-1])
    for start, stop in zip(rows.indptr[:-1], rows.indptr[1:], strict=True):
        assert np.all(np.diff(rows.indices[start:stop]) > 0)


def test_a_function_of_the_columns_selects(tmp_path: Path) -> None:
    adata = small_adata(2)
    source, target = tmp_path / "a.h5ad", tmp_path / "b.h5ad"
    adata.write_h5ad(source)
    write_subset(
        source, target, obs=lambda obs: np.asarray(obs["ct"]) == "b", var=lambda var: var["q"] > 0.5
    )
    with scio.open(target) as file:
        assert list(file.obs_names) == list(adata.obs_names[adata.obs["ct"] == "b"])
        assert list(file.var_names) == list(adata.var_names[adata.var["q"] > 0.5])
        assert list(file.obs["ct"].categories) == ["b"]
        assert file.uns["ct_colors"].tolist() == [adata.uns["ct_colors"][1]]


def test_a_file_may_replace_itself(tmp_path: Path) -> None:
    path = tmp_path / "a.h5ad"
    adata = small_adata(1)
    adata.write_h5ad(path)
    write_subset(path, path, obs=slice(5))
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5ad"]
    np.testing.assert_array_equal(anndata.read_h5ad(path).X.toarray(), adata.X[:5].toarray())


def test_the_estimate_comes_first(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source, target = tmp_path / "a.h5ad", tmp_path / "b.h5ad"
    adata = small_adata(1)
    adata.write_h5ad(source)
    estimate = estimate_subset(source, obs=slice(10), compression=None)
    raw = adata.raw.X
    assert (estimate.n_obs, estimate.n_vars) == (10, 12)
    assert estimate.nbytes == (adata.X.nnz * 8) // 2 + (raw.nnz * 8) // 2
    assert 0 < estimate.least_nbytes <= estimate.nbytes
    with caplog.at_level(logging.INFO, "scio"):
        write_subset(source, target, obs=slice(10))
    assert "10 x 12" in caplog.text


def test_wrong_requests_name_what_is_wrong(tmp_path: Path) -> None:
    source, target = tmp_path / "a.h5ad", tmp_path / "b.h5ad"
    small_adata(1).write_h5ad(source)
    with pytest.raises(KeyNotFoundError, match=r"obs has no name 'c1_99'.*c1_9"):
        write_subset(source, target, obs=["c1_99"])
    with pytest.raises(IndexError, match="row 20 does not exist"):
        write_subset(source, target, obs=[20])
    with pytest.raises(IndexError, match="mask has 3 entries"):
        write_subset(source, target, var=np.ones(3, bool))
    with h5py.File(source, "r+") as file:
        del file["obsm/pca"]
        file["obsm/pca"] = np.zeros((19, 2))
    with pytest.raises(CorruptFileError, match=r"/obsm/pca has shape \(19, 2\), expected \(20"):
        write_subset(source, target, obs=[1])
    assert not target.exists()
