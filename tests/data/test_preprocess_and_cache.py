"""preprocess_and_cache: the file has the values of the loader, and the pipeline that made it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import anndata
import numpy as np
import pytest
import scipy.sparse as sp

import scio
from scio.data import PreprocessingPipeline, preprocess_and_cache
from scio.errors import IOFormatError, KeyNotFoundError, TargetExistsError
from tests.data.conftest import rewrite
from tests.data.test_fit import bits, in_order
from tests.mounts import on_tmpfs

PIPELINES = {
    "default": {},
    "median and genes": {"target_sum": None, "hvg_selection": 9},
    "scran": {"normalize": "scran", "clusters": "cluster", "hvg_selection": 9, "log1p": False},
    "log only": {"normalize": None},
    "nothing": {"normalize": None, "log1p": False},
}


@pytest.mark.parametrize("kind", ["csr", "dense", "csc", "int32", "in memory"])
@pytest.mark.parametrize("options", PIPELINES.values(), ids=list(PIPELINES))
def test_the_file_has_the_bits_of_the_loader(options, kind, full_adata, tmp_path):
    adata = full_adata.copy()
    if kind == "dense":
        adata.X = adata.X.toarray()
    elif kind == "csc":
        adata.X = sp.csc_matrix(adata.X)
    elif kind == "int32":
        adata.X = adata.X.astype(np.int32)
    source = adata if kind == "in memory" else rewrite(adata, tmp_path / "in.h5ad")
    pipeline = PreprocessingPipeline(**options)
    out = preprocess_and_cache(source, tmp_path / "out.h5ad", pipeline)
    assert out == tmp_path / "out.h5ad"
    assert pipeline.is_fitted != pipeline.needs_fit  # the argument is not changed
    fitted = PreprocessingPipeline(**options).fit(full_adata)
    got = anndata.read_h5ad(out)
    kept = fitted.selected_genes or list(full_adata.var_names)
    assert set(got.var_names) == set(kept)
    assert list(got.var_names) == [g for g in full_adata.var_names if g in set(kept)]
    assert got.X.dtype == np.float32
    assert bits(got.X.toarray()) == bits(in_order(fitted, full_adata, "dense"))
    assert PreprocessingPipeline.load(out) == fitted
    assert PreprocessingPipeline.load(out).is_fitted
    raw = CellsOf(out, got)
    raw.check(fitted)
    totals = np.asarray(full_adata.X.sum(axis=1, dtype=np.float64)).ravel()
    np.testing.assert_array_equal(got.obs["scio_total_counts"], totals)
    assert ("scio_size_factor" in got.obs) == (fitted.size_factors is not None)
    if fitted.size_factors is not None:
        np.testing.assert_array_equal(got.obs["scio_size_factor"], fitted.size_factors)
    assert ("highly_variable" in got.var) == (fitted.selected_genes is not None)
    assert got.obs["cluster"].equals(full_adata.obs["cluster"])


class CellsOf:
    """The written file read by a loader that changes nothing, and its record."""

    def __init__(self, path: Path, got: anndata.AnnData) -> None:
        self.path, self.got = path, got

    def check(self, fitted: PreprocessingPipeline) -> None:
        plain = PreprocessingPipeline(None, log1p=False)
        assert bits(in_order(plain, self.path, "dense")) == bits(self.got.X.toarray())
        record = self.got.uns["scio"]["preprocessing"]
        assert record["normalize"] == (fitted.normalize or "none")
        assert record["hvg_selection"] == (fitted.hvg_selection or "none")
        assert bool(record["log1p"]) is fitted.log1p
        assert PreprocessingPipeline.from_dict(json.loads(record["json"])) == fitted
        assert json.loads(record["fit_info"]).get("n_cells") == fitted.fit_info.get("n_cells")
        assert ("log1p" in self.got.uns) is fitted.takes_log


def test_scanpy_takes_the_file_for_logged(full_h5ad, tmp_path):
    got = anndata.read_h5ad(preprocess_and_cache(full_h5ad, tmp_path / "out.h5ad"))
    assert got.uns["log1p"] == {"base": None}
    with pytest.warns(scio.errors.ScioWarning, match="was logged before"):
        scio.pp.log1p(got)


def test_float64_stays_and_duplicates_are_summed(full_adata, tmp_path):
    adata = full_adata.copy()
    x = adata.X.astype(np.float64)
    doubled = sp.csr_matrix(
        (np.repeat(x.data / 2, 2), np.repeat(x.indices, 2), x.indptr * 2), shape=x.shape
    )
    adata.X = doubled
    got = anndata.read_h5ad(preprocess_and_cache(adata, tmp_path / "out.h5ad"))
    expected = scio.pp.log1p(scio.pp.normalize_total(x, target_sum=1e4))
    assert bits(got.X.toarray()) == bits(expected.toarray())


def test_columns_of_obs_may_be_chosen(full_h5ad, tmp_path):
    got = anndata.read_h5ad(
        preprocess_and_cache(full_h5ad, tmp_path / "a.h5ad", obs_keys=["batch"])
    )
    assert list(got.obs) == ["batch", "scio_total_counts"]
    got = anndata.read_h5ad(preprocess_and_cache(full_h5ad, tmp_path / "b.h5ad", obs_keys=[]))
    assert list(got.obs) == ["scio_total_counts"]
    with pytest.raises(KeyNotFoundError, match="did you mean 'batch'"):
        preprocess_and_cache(full_h5ad, tmp_path / "c.h5ad", obs_keys=["batsh"])
    with pytest.raises(TypeError, match=r"\['batch'\]"):
        preprocess_and_cache(full_h5ad, tmp_path / "c.h5ad", obs_keys="batch")
    assert not (tmp_path / "c.h5ad").exists()


def test_a_pipeline_that_was_fitted_elsewhere_is_applied_or_refused(full_adata, tmp_path):
    pipeline = PreprocessingPipeline("scran", hvg_selection=9).fit(full_adata)
    part = full_adata[50:90].copy()
    got = anndata.read_h5ad(preprocess_and_cache(part, tmp_path / "out.h5ad", pipeline))
    assert bits(got.X.toarray()) == bits(in_order(pipeline, full_adata, "dense")[50:90])
    part.obs_names = [f"x{i}" for i in range(40)]
    with pytest.raises(ValueError, match="fit the pipeline on these"):
        preprocess_and_cache(part, tmp_path / "other.h5ad", pipeline)
    assert os.listdir(tmp_path) == ["out.h5ad"]


def test_an_existing_file_is_kept_unless_told_otherwise(full_h5ad, tmp_path, monkeypatch):
    path = tmp_path / "out.h5ad"
    path.write_bytes(b"old")
    monkeypatch.setattr(PreprocessingPipeline, "fit", None)  # refused before any work
    with pytest.raises(TargetExistsError):
        preprocess_and_cache(full_h5ad, path, PreprocessingPipeline(hvg_selection=3))
    assert path.read_bytes() == b"old"
    preprocess_and_cache(full_h5ad, path, overwrite=True)
    assert scio.open(path).shape == (200, 60)


def test_a_file_may_replace_its_source(full_adata, tmp_path):
    path = rewrite(full_adata, tmp_path / "x.h5ad")
    expected = in_order(PreprocessingPipeline(), full_adata, "dense")
    preprocess_and_cache(path, path, overwrite=True)
    assert bits(anndata.read_h5ad(path).X.toarray()) == bits(expected)


def test_values_that_are_not_finite_leave_nothing_behind(full_adata, tmp_path):
    adata = full_adata.copy()
    adata.X = adata.X.copy()
    adata.X.data[adata.X.indptr[7]] = np.nan
    with pytest.raises(ValueError, match="nan in cell 'cell7'"):
        preprocess_and_cache(adata, tmp_path / "out.h5ad")
    assert os.listdir(tmp_path) == []


def test_the_cache_is_found_again_by_content_and_parameters(full_adata, tmp_path):
    cache = tmp_path / "cache"
    first = rewrite(full_adata, tmp_path / "a.h5ad")
    made = preprocess_and_cache(first, cache=cache)
    assert made.parent == cache / "processed"
    mark = os.stat(made)
    moved = tmp_path / "b.h5ad"
    moved.write_bytes(first.read_bytes())
    again = preprocess_and_cache(moved, cache=cache)
    assert again == made
    assert os.stat(again).st_mtime_ns == mark.st_mtime_ns
    paths = {made}
    other = full_adata.copy()
    other.X = other.X.copy()
    other.X.data[5] += 1
    named = full_adata.copy()
    named.obs_names = [f"n{i}" for i in range(200)]
    for source, pipeline, keys in (
        (rewrite(other, tmp_path / "c.h5ad"), None, "all"),
        (first, PreprocessingPipeline(target_sum=1e6), "all"),
        (first, PreprocessingPipeline(hvg_selection=9), "all"),
        (first, None, ["batch"]),
        (full_adata, None, "all"),
        (other, None, "all"),
        (named, None, "all"),
    ):
        out = preprocess_and_cache(source, None, pipeline, cache=cache, obs_keys=keys)
        assert out == preprocess_and_cache(source, None, pipeline, cache=cache, obs_keys=keys)
        assert out not in paths
        paths.add(out)
    preprocess_and_cache(first, cache=cache, overwrite=True)
    assert os.stat(made).st_ino != mark.st_ino


def test_the_cache_of_the_user_is_where_platformdirs_says(full_h5ad, tmp_path, monkeypatch):
    import platformdirs

    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda name: str(tmp_path / name))
    made = preprocess_and_cache(full_h5ad)
    assert made.parent == tmp_path / "scio" / "processed"


def test_what_is_no_file_of_cells_is_refused(tmp_path):
    with pytest.raises(TypeError, match="not as csr_matrix"):
        preprocess_and_cache(sp.eye(3, format="csr"), tmp_path / "x.h5ad")
    with pytest.raises(FileNotFoundError):
        preprocess_and_cache(tmp_path / "nowhere.h5ad", tmp_path / "x.h5ad")
    (tmp_path / "plain.json").write_text("[]")
    with pytest.raises(IOFormatError, match="no saved pipeline"):
        PreprocessingPipeline.load(tmp_path / "plain.json")


def test_a_file_without_a_record_is_no_saved_pipeline(full_h5ad):
    with pytest.raises(IOFormatError, match="has no /uns/scio/preprocessing/json"):
        PreprocessingPipeline.load(full_h5ad)


def test_a_full_disk_leaves_the_old_file_and_nothing_else(full_adata, tmp_path):
    obs = full_adata.obs.iloc[np.tile(np.arange(200), 40)].reset_index(drop=True)
    obs.index = [f"cell{i}" for i in range(len(obs))]
    wide = anndata.AnnData(sp.vstack([full_adata.X] * 40, format="csr"), obs, full_adata.var)
    source = rewrite(wide, tmp_path / "in.h5ad")
    small = tmp_path / "small"
    small.mkdir()
    script = f"""
import os
import subprocess
import sys
from pathlib import Path
from scio.data import preprocess_and_cache
from scio.errors import IOWriteError
target = Path({str(small / "out.h5ad")!r})
target.write_bytes(b"old")
try:
    preprocess_and_cache({str(source)!r}, target, overwrite=True, compression=None)
except IOWriteError as error:
    print("refused:", error)
print(target.read_bytes(), os.listdir(target.parent))
"""
    command = [*on_tmpfs(small, "1m"), sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    refused, left = done.stdout.splitlines()
    assert refused.startswith("refused:")
    assert "No space left" in refused
    assert left == "b'old' ['out.h5ad']"
