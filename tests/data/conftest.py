"""Small files with known values for the loader's tests."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

N_CELLS, N_GENES = 211, 40


def counts(n_cells: int = N_CELLS, n_genes: int = N_GENES, seed: int = 0) -> sp.csr_matrix:
    """Random counts with empty cells and an all-zero gene."""
    rng = np.random.default_rng(seed)
    dense = rng.poisson(0.4, (n_cells, n_genes)).astype(np.float32)
    dense[[3, 17, n_cells - 1]] = 0
    dense[:, 5] = 0
    return sp.csr_matrix(dense)


def make_adata(
    n_cells: int = N_CELLS, n_genes: int = N_GENES, seed: int = 0, prefix: str = "gene"
) -> anndata.AnnData:
    """An AnnData with a categorical, a string, a number and a boolean column."""
    obs = pd.DataFrame(
        {
            "cell_type": pd.Categorical([f"type{i * 4 // n_cells}" for i in range(n_cells)]),
            "batch": [f"b{i % 3}" for i in range(n_cells)],
            "depth": np.arange(n_cells) * 0.5,
            "is_control": np.arange(n_cells) % 2 == 0,
        },
        index=[f"cell{i}" for i in range(n_cells)],
    )
    var = pd.DataFrame(index=[f"{prefix}{i}" for i in range(n_genes)])
    return anndata.AnnData(X=counts(n_cells, n_genes, seed), obs=obs, var=var)


@pytest.fixture(scope="session")
def tiny_adata() -> anndata.AnnData:
    """211 cells x 40 genes in memory."""
    return make_adata()


@pytest.fixture(scope="session")
def tiny_h5ad(tmp_path_factory: pytest.TempPathFactory, tiny_adata: anndata.AnnData) -> Path:
    """The same in a gzip file with chunks of 97 elements, so that cells straddle chunks."""
    path = tmp_path_factory.mktemp("tiny") / "tiny.h5ad"
    rewrite(tiny_adata, path)
    return path


@pytest.fixture(scope="session")
def full_adata() -> anndata.AnnData:
    """200 cells x 60 genes without empty cells, of many sizes, in three clusters."""
    rng = np.random.default_rng(7)
    means = rng.gamma(1.0, 3.0, (3, 60))[np.arange(200) % 3]
    dense = rng.poisson(means * rng.gamma(3.0, 0.5, (200, 1)) + 0.05).astype(np.float32)
    dense[:, 0] += 1
    obs = pd.DataFrame(
        {
            "cluster": pd.Categorical([f"k{i % 3}" for i in range(200)]),
            "batch": pd.Categorical([f"b{i % 2}" for i in range(200)]),
        },
        index=[f"cell{i}" for i in range(200)],
    )
    var = pd.DataFrame(index=[f"gene{i}" for i in range(60)])
    return anndata.AnnData(X=sp.csr_matrix(dense), obs=obs, var=var)


@pytest.fixture(scope="session")
def full_h5ad(tmp_path_factory: pytest.TempPathFactory, full_adata: anndata.AnnData) -> Path:
    """The same in a gzip file."""
    return rewrite(full_adata, tmp_path_factory.mktemp("full") / "full.h5ad")


def rewrite(
    adata: anndata.AnnData,
    path: Path,
    *,
    chunk: int = 97,
    compression: str | None = "gzip",
    index_chunk: int | None = None,
) -> Path:
    """Write with anndata, then store the arrays of a sparse X again in chunks of the given length."""
    import h5py

    adata.write_h5ad(path, compression=compression)
    with h5py.File(path, "r+") as file:
        if not isinstance(file["X"], h5py.Group):
            return path
        for name in ("data", "indices"):
            values = file[f"X/{name}"][()]
            length = (index_chunk or chunk) if name == "indices" else chunk
            del file[f"X/{name}"]
            file["X"].create_dataset(
                name,
                data=values,
                chunks=(min(length, max(1, len(values))),),
                maxshape=(None,),
                compression=compression,
            )
    return path
