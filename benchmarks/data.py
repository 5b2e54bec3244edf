"""The two benchmark files D1 and D2: seeded, made from the counts of pbmc3k, as anndata writes them.

D1: 100,000 cells x 13,714 genes, about 756 non-zeros a cell.
D2: 50,000 cells x 20,000 genes, about 2,202 non-zeros a cell.
Each cell is the sum of `n_summed` real cells drawn with replacement, thinned binomially, so that counts
and their correlation stay those of real data and no two cells are equal.  Cells are sorted by the obs
column ``label`` (8 values), the worst case for mixing.

The last gene is a marker: its value is the number of the cell's label, from 1.  It tells the label of
any cell of any loader's raw batch, so that the mixing of all is measured by one means.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from timing import N_LABELS

import scio


@dataclass(frozen=True)
class Shape:
    """What a benchmark file looks like."""

    name: str
    n_cells: int
    n_genes: int
    n_summed: int
    nnz_per_cell: int


D1 = Shape("d1", 100_000, 13_714, 1, 756)
D2 = Shape("d2", 50_000, 20_000, 4, 2_202)
ROWS_AT_ONCE = 5_000


DIRECTORY = Path(__file__).resolve().parent.parent / "build" / "bench"


def shapes(n_cells: int | None = None) -> list[Shape]:
    """D1 and D2, or the same with `n_cells` each."""
    both = [D1, D2]
    return both if n_cells is None else [replace(s, n_cells=n_cells) for s in both]


def make(
    shape: Shape, compression: str | None, directory: Path = DIRECTORY, *, seed: int = 0
) -> Path:
    """Write the file unless it is there; return its path."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{shape.name}-{compression or 'none'}-{shape.n_cells}.h5ad"
    if path.exists():
        return path
    import anndata
    import pandas as pd

    labels = labels_of(np.arange(shape.n_cells), shape.n_cells)
    matrix = _with_marker(_counts(shape, seed), labels)
    obs = pd.DataFrame(
        {"label": pd.Categorical([f"plate{i}" for i in labels])},
        index=[f"cell{i}" for i in range(shape.n_cells)],
    )
    var = pd.DataFrame(index=[f"gene{i}" for i in range(shape.n_genes)])
    partial = path.with_suffix(".partial")
    anndata.AnnData(X=matrix, obs=obs, var=var).write_h5ad(partial, compression=compression)
    partial.rename(path)
    return path


def labels_of(cells: np.ndarray, n_cells: int) -> np.ndarray:
    """Return the label of each cell, 0 to 7; cells are sorted by it."""
    return cells * N_LABELS // n_cells


def _with_marker(matrix, labels: np.ndarray):  # noqa: ANN001, ANN202
    import scipy.sparse as sp

    marker = sp.csr_matrix((labels + 1).astype(matrix.dtype).reshape(-1, 1))
    return sp.hstack([matrix[:, :-1], marker], format="csr")


def _counts(shape: Shape, seed: int):  # noqa: ANN202  a SciPy matrix
    import scipy.sparse as sp

    source = scio.open(scio.datasets.pbmc3k()).X.read().to_scipy().tocsc()
    expressed = np.argsort(-np.diff(source.indptr), kind="stable")[: shape.n_genes]
    base = sp.csr_matrix(source[:, np.sort(expressed)])
    rng = np.random.default_rng(seed)
    keep = _thinning(base, shape, rng)
    parts = []
    for start in range(0, shape.n_cells, ROWS_AT_ONCE):
        n_rows = min(ROWS_AT_ONCE, shape.n_cells - start)
        block = _sum_rows(base, n_rows, shape.n_summed, rng)
        block.data = rng.binomial(block.data.astype(np.int64), keep).astype(np.float32)
        block.eliminate_zeros()
        parts.append(block)
    return sp.vstack(parts, format="csr")


def _sum_rows(base, n_rows: int, n_summed: int, rng):  # noqa: ANN001, ANN202
    import scipy.sparse as sp

    total = base[rng.integers(0, base.shape[0], n_rows)]
    for _ in range(n_summed - 1):
        total = total + base[rng.integers(0, base.shape[0], n_rows)]
    total = sp.csr_matrix(total)
    total.sort_indices()
    return total


def _thinning(base, shape: Shape, rng) -> float:  # noqa: ANN001
    """Find the binomial share that gives the wanted number of non-zeros (bisection on a sample)."""
    sample = _sum_rows(base, 1_000, shape.n_summed, rng).data
    low, high = 0.01, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        expected = (1 - (1 - middle) ** sample).sum() / 1_000
        low, high = (middle, high) if expected < shape.nnz_per_cell else (low, middle)
    return high
