"""Statistics on a cluster of processes: the same bits as on one machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anndata
import distributed
import pandas as pd
import pytest

import scio
from tests.pp.test_recipe import make, save


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        yield cluster.scheduler_address


def test_a_cluster_changes_no_bit_and_tells_what_is_wrong(address: str, tmp_path: Path) -> None:
    paths = []
    for i, n_obs in enumerate((4500, 300, 900)):
        part = make(n_obs, i)
        part.obs_names = [f"{i}-{name}" for name in part.obs_names]
        paths.append(save(part, tmp_path / f"{i}.h5ad"))
    given: dict[str, Any] = {
        "percent_top": (10,), "min_genes": 12, "min_cells": 200, "n_top_genes": 40,
        "batch_key": "batch",
    }  # fmt: skip
    for flavor, target_sum in (("seurat", None), ("cell_ranger", 1e4)):
        more = {**given, "flavor": flavor, "target_sum": target_sum}
        far = scio.pp.recipe(paths, tmp_path / "far", dask=address, **more)
        near = scio.pp.recipe(paths, tmp_path / "near", **more)
        pd.testing.assert_frame_equal(far.obs, near.obs, check_exact=True)
        pd.testing.assert_frame_equal(far.var, near.var, check_exact=True)
        assert far.target_sum == near.target_sum
        for path in paths:
            names = [tmp_path / folder / path.name for folder in ("far", "near")]
            assert names[0].read_bytes() == names[1].read_bytes()

    with distributed.Client(address, set_as_default=False) as client:
        again = scio.pp.recipe(paths, dask=client, **more)
        assert client.status == "running"
        pd.testing.assert_frame_equal(again.var, near.var, check_exact=True)
        assert client.run(lambda: "scio.pp._recipe" in __import__("sys").modules)
    bad = anndata.read_h5ad(paths[1])
    bad.X.data[5] = -1
    save(bad, paths[1])
    with pytest.raises(ValueError, match=r"a recipe needs counts, but 1\.h5ad: X has -1 in cell 0"):
        scio.pp.recipe(paths, dask=address, **more)


def test_other_things_are_no_cluster(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="dask is a int, expected an address"):
        scio.pp.recipe(scio.datasets.pbmc3k(), dask=3)
