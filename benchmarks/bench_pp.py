"""How fast counts become chosen genes: scio.pp against scanpy on the same machine in the same run.

Files D1 and D2 of data.py, warm; each work in a fresh process, scanpy's beside it, in turn.  numba's
functions are compiled on a small matrix before the clock starts.
Run: python benchmarks/bench_pp.py [--runs 5] [--only recipe]
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import data
import harness
import numpy as np
import pairs
from pairs import Work, clocked

N_TOP = 2_000
R_CELLS, R_GENES = 3_000, 2_000


def _load(path: str) -> Any:
    import anndata

    return anndata.read_h5ad(path)


def _small(path: str) -> Any:
    import scio

    rows = np.arange(0, scio.open(path).n_obs, 97)[:400]
    return _load(path)[rows].copy()


def _both(module: Any, path: str, work: Callable[[Any, Any], Any]) -> dict[str, Any]:
    """Time `work(module, adata)` after the same on a small part."""
    warnings.simplefilter("ignore")
    work(module, _small(path))
    adata = _load(path)
    return clocked(lambda: work(module, adata))


def _scio() -> Any:
    import scio.pp

    return scio.pp


def _scanpy() -> Any:
    import scanpy

    return scanpy.pp


# --- in memory


def _normalize_hvg(pp: Any, adata: Any) -> None:
    pp.normalize_total(adata, target_sum=1e4)
    pp.log1p(adata)
    pp.highly_variable_genes(adata, flavor="seurat", n_top_genes=N_TOP)


def _seurat_v3(pp: Any, adata: Any) -> None:
    pp.highly_variable_genes(adata, flavor="seurat_v3", n_top_genes=N_TOP)


def _filters(pp: Any, adata: Any) -> None:
    pp.filter_cells(adata, min_genes=200)
    pp.filter_genes(adata, min_cells=3)


def _qc(pp: Any, adata: Any) -> None:
    pp.calculate_qc_metrics(adata, percent_top=None, inplace=True)


def _qc_top(pp: Any, adata: Any) -> None:
    pp.calculate_qc_metrics(adata, inplace=True)


WORKS: dict[str, Callable[[Any, Any], None]] = {
    "normalize_hvg": _normalize_hvg,
    "seurat_v3": _seurat_v3,
    "filters": _filters,
    "qc": _qc,
    "qc_top": _qc_top,
}


def scio_work(path: str, work: str) -> dict[str, Any]:
    """One of WORKS by scio."""
    return _both(_scio(), path, WORKS[work])


def scanpy_work(path: str, work: str) -> dict[str, Any]:
    """One of WORKS by scanpy."""
    return _both(_scanpy(), path, WORKS[work])


def _pearson_scio(pp: Any, adata: Any) -> None:
    pp.highly_variable_genes(adata, flavor="pearson_residuals", n_top_genes=N_TOP)


def scio_pearson(path: str) -> dict[str, Any]:
    """Genes by Pearson residuals, scio."""
    return _both(_scio(), path, _pearson_scio)


def scanpy_pearson(path: str) -> dict[str, Any]:
    """The same by scanpy's experimental function."""
    import scanpy

    return _both(
        scanpy.experimental.pp,
        path,
        lambda pp, a: pp.highly_variable_genes(a, flavor="pearson_residuals", n_top_genes=N_TOP),
    )


# --- from the file


def scio_recipe(path: str) -> dict[str, Any]:
    """File to file: qc, filters, normalise, log1p, genes; streamed, synced."""
    import scio

    warnings.simplefilter("ignore")
    harness.warm(Path(path))
    with tempfile.TemporaryDirectory(dir=Path(path).parent) as folder:
        out = str(Path(folder) / "out.h5ad")

        def work() -> None:
            scio.pp.recipe(
                path, out, min_genes=200, min_cells=3, target_sum=1e4, n_top_genes=N_TOP,
                flavor="seurat",
            )  # fmt: skip

        return clocked(work)


def scio_genes(path: str) -> dict[str, Any]:
    """The same to the list of genes, nothing written."""
    import scio

    warnings.simplefilter("ignore")
    harness.warm(Path(path))
    return clocked(
        lambda: scio.pp.recipe(
            path, min_genes=200, min_cells=3, target_sum=1e4, n_top_genes=N_TOP, flavor="seurat"
        )
    )


def scanpy_recipe(path: str) -> dict[str, Any]:
    """The same steps by scanpy, in memory, without writing."""
    import scanpy

    warnings.simplefilter("ignore")
    harness.warm(Path(path))

    def steps(adata: Any) -> Any:
        scanpy.pp.calculate_qc_metrics(adata, inplace=True)
        _filters(scanpy.pp, adata)
        _normalize_hvg(scanpy.pp, adata)
        return adata

    steps(_small(path))
    return clocked(lambda: steps(scanpy.read_h5ad(path)))


# --- size factors


def _counts(path: str) -> Any:
    adata = _load(path)
    rows = np.linspace(0, adata.n_obs - 1, min(R_CELLS, adata.n_obs)).astype(int)
    x = adata.X[rows]
    genes = np.argsort(-np.asarray(x.sum(0)).ravel(), kind="stable")[:R_GENES]
    return x[:, np.sort(genes)].tocsr()


def scio_factors(path: str) -> dict[str, Any]:
    """Pooled size factors of 3,000 cells, scio."""
    import scio

    warnings.simplefilter("ignore")
    x = _counts(path)
    scio.pp.pooled_size_factors(x[:200])
    return clocked(lambda: scio.pp.pooled_size_factors(x, min_mean=0.1))


SCUTTLE = """
args <- commandArgs(TRUE)
suppressMessages({library(Matrix); library(scuttle)})
x <- as(readMM(args[1]), "CsparseMatrix")
seconds <- system.time(pooledSizeFactors(x, min.mean = 0.1))[["elapsed"]]
cat("SECONDS", seconds, "\\n")
"""


def scuttle_factors(path: str) -> dict[str, Any]:
    """The same by R's scuttle; the clock is R's, of the function alone."""
    import scipy.io

    if shutil.which("Rscript") is None:
        return {"error": "no R (make test-r installs it)"}
    with tempfile.TemporaryDirectory() as folder:
        matrix, script = Path(folder) / "x.mtx", Path(folder) / "x.R"
        scipy.io.mmwrite(matrix, _counts(path).T.tocoo())
        script.write_text(SCUTTLE)
        start = time.perf_counter()
        done = subprocess.run(
            ["Rscript", script, matrix], capture_output=True, text=True, check=False
        )
        words = done.stdout.split()
        if "SECONDS" not in words:
            return {"error": done.stderr.strip().splitlines()[-1][:200]}
    seconds = float(words[words.index("SECONDS") + 1])
    return {
        "seconds": seconds,
        "cpu_seconds": seconds,
        "peak_mib": 0.0,
        "with_start": time.perf_counter() - start,
    }


def works(options: argparse.Namespace) -> list[Work]:
    """The table of the issue."""
    rows = []
    for shape in data.shapes(options.cells):
        none = {"path": str(data.make(shape, None, options.data))}
        gzip = {"path": str(data.make(shape, "gzip", options.data))}

        def memory(
            name: str, work: str, target: float, share: float | None = None, *, _s: str = shape.name,
            _p: dict[str, Any] = none,
        ) -> Work:  # fmt: skip
            both = {**_p, "work": work}
            return Work(name, _s, "scio_work", "scanpy_work", "scanpy", target, both, share)

        rows += [
            memory("normalize_total + log1p + HVG seurat", "normalize_hvg", 6, 0.5),
            memory("HVG seurat_v3", "seurat_v3", 10),
            memory("filter_cells + filter_genes", "filters", 15, 1 / 3),
            memory("calculate_qc_metrics, no percent_top", "qc", 5),
            memory("calculate_qc_metrics, percent_top", "qc_top", 8),
            Work("HVG pearson_residuals", shape.name, "scio_pearson", "scanpy_pearson", "scanpy", 20, none),
            Work("recipe, gzip to genes", shape.name, "scio_genes", "scanpy_recipe", "scanpy", 8, gzip),
            Work("recipe, gzip to file", shape.name, "scio_recipe", "scanpy_recipe", "scanpy", None, gzip),
        ]  # fmt: skip
    first = {"path": str(data.make(data.shapes(options.cells)[0], None, options.data))}
    factors = Work(
        "pooled_size_factors, 3,000 x 2,000", "d1", "scio_factors", "scuttle_factors", "scuttle (R)",
        100, first,
    )  # fmt: skip
    return [*rows, factors]


if __name__ == "__main__":
    pairs.run(__file__, __doc__, works)
