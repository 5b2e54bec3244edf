"""For tests of bounded memory: a file that is larger decoded than what its readers may take."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp

from scio.io.writer import SparseStream, StorageOptions, Table, new_file, write_root

ROOT = Path(__file__).resolve().parents[2]
N_CELLS, N_GENES, N_PER_CELL = 20_000, 3_000, 625  # 100 MB as float32 and int32


def write_large(path: Path, *, n_cells: int = N_CELLS) -> None:
    """Write a CSR matrix of `N_PER_CELL` values a cell, block by block."""
    rng = np.random.default_rng(0)
    names = [
        np.array([f"{a}{i}" for i in range(n)], object)
        for a, n in zip("cg", (n_cells, N_GENES), strict=True)
    ]
    with new_file(path) as writer:
        write_root(writer, Table(names[0], {}), Table(names[1], {}))
        stream = SparseStream(
            writer,
            "/X",
            shape=(n_cells, N_GENES),
            data_dtype=np.float32,
            index_dtype=np.int32,
            options=StorageOptions(),
        )
        columns = np.arange(0, 4 * N_PER_CELL, 4, dtype=np.int32)
        for _ in range(0, n_cells, 1000):
            shifts = rng.integers(0, N_GENES - 4 * N_PER_CELL, (1000, 1), dtype=np.int32)
            data = rng.integers(1, 9, 1000 * N_PER_CELL).astype(np.float32)
            stream.append(data, (columns + shifts).reshape(-1), np.full(1000, N_PER_CELL))
        stream.finish()


def run_child(
    code: str, *arguments: str | Path, prefix: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run Python code in a child; `arguments` are ``sys.argv[1:]``."""
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [*prefix, sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "PYTHONPATH": paths},
    )


def small_adata(
    seed: int,
    *,
    n_obs: int = 20,
    genes: list[str] | None = None,
    layout: str = "csr",
    dtype: str = "float32",
) -> anndata.AnnData:
    """An AnnData with something in every place."""
    rng = np.random.default_rng(seed)
    genes = genes if genes is not None else [f"g{i}" for i in range(12)]
    n_vars = len(genes)
    counts = sp.random(n_obs, n_vars, density=0.3, format="csr", random_state=seed)
    counts.data = counts.data * 9 + 1
    counts = counts.astype(dtype)
    obs = pd.DataFrame(
        {
            "ct": pd.Categorical(rng.choice(list("abcd")[: 2 + seed % 3], n_obs)),
            "score": rng.random(n_obs),
            "n": pd.array(rng.integers(0, 5, n_obs), dtype="Int64"),
        },
        index=[f"c{seed}_{i}" for i in range(n_obs)],
    )
    if seed % 2:
        obs["flag"] = rng.random(n_obs) > 0.5
    var = pd.DataFrame({"q": rng.random(n_vars), "same": [len(g) for g in genes]}, index=genes)
    adata = anndata.AnnData(in_layout(counts, layout), obs=obs, var=var)
    adata.obsm["pca"] = rng.random((n_obs, 3 + seed % 2)).astype(np.float32)
    adata.obsm["frame"] = pd.DataFrame({"k": rng.random(n_obs)}, index=adata.obs_names)
    adata.obsm["cube"] = rng.random((n_obs, 2, 3))
    adata.obsm["columns"] = sp.random(n_obs, 4, density=0.5, format="csc", random_state=seed)
    if seed % 2:
        adata.obsm["only"] = sp.random(n_obs, 4, density=0.5, format="csr", random_state=seed)
    adata.obsp["graph"] = sp.random(n_obs, n_obs, density=0.2, format="csr", random_state=seed)
    adata.varm["loadings"] = rng.random((n_vars, 2))
    adata.varp["pairs"] = rng.random((n_vars, n_vars))
    adata.uns["x"] = {"a": 1, "b": seed}
    adata.uns["ct_colors"] = np.array(
        [f"#{i:06x}" for i in range(len(obs["ct"].cat.categories))], object
    )
    raw = sp.random(n_obs, 5, density=0.5, format="csr", dtype=np.float32, random_state=seed)
    raw_names = [f"r{i + seed % 2}" for i in range(5)]
    adata.raw = anndata.AnnData(
        raw, obs=obs[[]], var=pd.DataFrame({"w": range(5)}, index=raw_names)
    )
    return adata


def in_layout(matrix: sp.spmatrix, layout: str) -> sp.spmatrix | np.ndarray:
    """Turn a matrix into csr, csc or dense."""
    if layout == "dense":
        return matrix.toarray() if sp.issparse(matrix) else matrix
    return matrix.asformat(layout)


def canonical(adata: anndata.AnnData, *, to: str | None = None) -> anndata.AnnData:
    """Entries of sparse matrices in order, int32 indices, no zeros: what they mean, not how they lie."""

    def change(matrix: object) -> object:
        if not sp.issparse(matrix):
            return matrix
        matrix = matrix.copy() if to is None else matrix.asformat(to, copy=True)
        matrix.sum_duplicates()
        matrix.eliminate_zeros()
        matrix.indices, matrix.indptr = (
            matrix.indices.astype(np.int32),
            matrix.indptr.astype(np.int32),
        )
        return matrix

    if adata.X is not None:
        adata.X = change(adata.X)
    for mapping in (adata.layers, adata.obsm, adata.varm, adata.obsp, adata.varp):
        for key in list(mapping):
            mapping[key] = change(mapping[key])
    if adata.raw is not None:
        adata.raw._X = change(adata.raw.X)
    return adata
