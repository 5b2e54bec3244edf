"""How fast files become objects and objects files: scio against anndata, scanpy and memory itself.

Files D1 and D2 of data.py, warm; each work in a fresh process, the peer's beside it, in turn.
Run: python benchmarks/bench_io.py [--runs 5] [--only write]
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

import data
import harness
import numpy as np
import pairs
from pairs import Work, clocked

N_ROWS = 1_000
N_COLUMNS = 100


# --- whole files


def _nbytes(adata: Any) -> dict[str, Any]:
    x = adata.X
    parts = (x.data, x.indices, x.indptr) if hasattr(x, "indptr") else (np.asarray(x),)
    return {"result_mib": sum(p.nbytes for p in parts) / 2**20}


def scio_read(path: str) -> dict[str, Any]:
    """The whole AnnData by scio."""
    import anndata  # noqa: F401

    import scio

    harness.warm(Path(path))
    scio.read_h5ad(scio.datasets.pbmc3k())
    return clocked(lambda: scio.read_h5ad(path), keep=_nbytes)


def anndata_read(path: str) -> dict[str, Any]:
    """The same by anndata."""
    import anndata

    import scio

    harness.warm(Path(path))
    anndata.read_h5ad(scio.datasets.pbmc3k())
    return clocked(lambda: anndata.read_h5ad(path), keep=_nbytes)


def copy_of_memory(path: str) -> dict[str, Any]:
    """Fresh memory filled from memory: as many bytes as the matrix has."""
    import anndata

    x = anndata.read_h5ad(path).X
    return clocked(lambda: [x.data.copy(), x.indices.copy(), x.indptr.copy()])


def scio_10x(path: str) -> dict[str, Any]:
    """A 10x v3 file by scio."""
    import anndata  # noqa: F401

    import scio

    harness.warm(Path(path))
    return clocked(lambda: scio.read_10x_h5(path), keep=_nbytes)


def scanpy_10x(path: str) -> dict[str, Any]:
    """The same by scanpy."""
    import scanpy

    harness.warm(Path(path))
    return clocked(lambda: scanpy.read_10x_h5(path), keep=_nbytes)


# --- parts of files


def scio_columns(path: str) -> dict[str, Any]:
    """Open a file, list the names and types of its obs columns and the names of its cells, by scio."""
    import scio

    harness.warm(Path(path))

    def work() -> Any:
        with scio.open(path) as handle:
            return list(handle.obs.columns), handle.obs.index

    return clocked(work, repeat=3)


def scio_obs(path: str) -> dict[str, Any]:
    """The whole frame, all values."""
    import pandas  # noqa: F401

    import scio

    harness.warm(Path(path))

    def work() -> Any:
        with scio.open(path) as handle:
            return handle.obs.to_pandas()

    return clocked(work, repeat=3)


def anndata_obs(path: str) -> dict[str, Any]:
    """A backed AnnData, which reads the whole frame when it is opened."""
    import anndata

    harness.warm(Path(path))

    def work() -> Any:
        backed = anndata.read_h5ad(path, backed="r")
        frame = backed.obs
        backed.file.close()
        return list(frame.columns), frame.index, frame

    return clocked(work, repeat=3)


def _rows(n_obs: int) -> np.ndarray:
    return np.sort(np.random.default_rng(0).choice(n_obs, min(N_ROWS, n_obs), replace=False))


def scio_rows(path: str) -> dict[str, Any]:
    """Random rows of an open file, by scio."""
    import scio

    harness.warm(Path(path))
    handle = scio.open(path)
    rows = _rows(handle.n_obs)
    handle.X.take(rows[:2]) if hasattr(handle.X, "take") else handle.X[rows[:2]]
    return clocked(lambda: handle.X[rows])


def anndata_rows(path: str) -> dict[str, Any]:
    """The same of a backed AnnData."""
    import anndata

    harness.warm(Path(path))
    backed = anndata.read_h5ad(path, backed="r")
    rows = _rows(backed.n_obs)
    backed[rows[:2]].to_memory()
    return clocked(lambda: backed.X[rows])


# --- writing


def _write(path: str, write: Any) -> dict[str, Any]:
    import anndata

    adata = anndata.read_h5ad(path)
    x = adata.X
    with tempfile.TemporaryDirectory(dir=Path(path).parent) as folder:
        target = os.path.join(folder, "out.h5ad")
        write(adata[:100].copy(), target)
        result = clocked(lambda: write(adata, target))
        size = os.path.getsize(target)
    raw = x.data.nbytes + x.indices.nbytes + x.indptr.nbytes
    return {**result, "file_mib": size / 2**20, "raw_mib": raw / 2**20}


def scio_write(path: str, compression: str | None) -> dict[str, Any]:
    """A whole AnnData by scio, atomic and synced."""
    import scio

    return _write(path, lambda a, out: scio.write_h5ad(a, out, compression=compression))


def anndata_write(path: str, compression: str | None) -> dict[str, Any]:
    """The same by anndata, which does not sync."""
    return _write(path, lambda a, out: a.write_h5ad(out, compression=compression))


def plain_write(path: str, compression: str | None) -> dict[str, Any]:
    """The arrays of X by write(2), then fsync: what the disk gives."""

    def write(adata: Any, out: str) -> None:
        with open(out, "wb", buffering=0) as file:
            for part in (adata.X.data, adata.X.indices, adata.X.indptr):
                part.tofile(file)
            os.fsync(file.fileno())

    return _write(path, write)


# --- files that only this needs


def make_10x(source: Path) -> Path:
    """The same counts as Cell Ranger writes them: v3, int32 and int64, shuffle and gzip."""
    path = source.with_name(f"{source.stem}-10x.h5")
    if path.exists():
        return path
    import anndata
    import h5py

    x = anndata.read_h5ad(source).X
    partial = path.with_suffix(".partial")
    options = {"chunks": (80_000,), "compression": "gzip", "compression_opts": 4, "shuffle": True}
    names = np.array([f"gene{i}" for i in range(x.shape[1])], dtype="S")
    with h5py.File(partial, "w") as file:
        matrix = file.create_group("matrix")
        matrix.create_dataset("data", data=x.data.astype(np.int32), **options)
        matrix.create_dataset("indices", data=x.indices.astype(np.int64), **options)
        matrix.create_dataset("indptr", data=x.indptr.astype(np.int64), **options)
        matrix["shape"] = np.array([x.shape[1], x.shape[0]], dtype=np.int32)
        matrix["barcodes"] = np.array([f"cell{i}-1" for i in range(x.shape[0])], dtype="S")
        features = matrix.create_group("features")
        features["id"] = features["name"] = names
        features["feature_type"] = np.full(len(names), b"Gene Expression")
        features["genome"] = np.full(len(names), b"GRCh38")
        features["_all_tag_keys"] = np.array([b"genome"])
    partial.rename(path)
    return path


def make_columns(folder: Path, n_cells: int) -> Path:
    """A file whose obs has 100 columns: floats, integers, categories."""
    path = folder / f"columns-{n_cells}.h5ad"
    if path.exists():
        return path
    import anndata
    import pandas as pd

    rng = np.random.default_rng(0)
    columns: dict[str, Any] = {}
    for i in range(N_COLUMNS):
        kinds = (
            rng.random(n_cells),
            rng.integers(0, 1000, n_cells),
            pd.Categorical(rng.integers(0, 20, n_cells).astype(str)),
        )
        columns[f"c{i}"] = kinds[i % 3]
    obs = pd.DataFrame(columns, index=[f"cell{i}" for i in range(n_cells)])
    anndata.AnnData(obs=obs, var=pd.DataFrame(index=["g"])).write_h5ad(path)
    return path


def works(options: argparse.Namespace) -> list[Work]:
    """The table of the issue."""
    rows = []
    for shape in data.shapes(options.cells):
        gzip = data.make(shape, "gzip", options.data)
        none = data.make(shape, None, options.data)
        g, n = {"path": str(gzip)}, {"path": str(none)}
        name = shape.name
        rows += [
            Work("read_h5ad", f"{name} gzip", "scio_read", "anndata_read", "anndata", 4.5, g),
            Work("read_h5ad", f"{name} none", "scio_read", "anndata_read", "anndata", 2.0, n),
            Work("read_h5ad", f"{name} none", "scio_read", "copy_of_memory", "copy", 0.6, n),
            Work("1,000 random rows", f"{name} gzip", "scio_rows", "anndata_rows", "backed", 4, g),
            Work("1,000 random rows", f"{name} none", "scio_rows", "anndata_rows", "backed", 10, n),
            Work(
                "write_h5ad", f"{name} gzip", "scio_write", "anndata_write", "anndata", 15,
                {**n, "compression": "gzip"},
            ),
            Work(
                "write_h5ad", f"{name} none", "scio_write", "plain_write", "write + fsync", 1.0,
                {**n, "compression": None},
            ),
        ]  # fmt: skip
    first = data.shapes(options.cells)[0]
    tenx = {"path": str(make_10x(data.make(first, "gzip", options.data)))}
    columns = {"path": str(make_columns(options.data, first.n_cells))}
    return [
        *rows,
        Work("read_10x_h5", "d1 10x v3", "scio_10x", "scanpy_10x", "scanpy", 4.0, tenx),
        Work(
            "open, list 100 columns", "columns", "scio_columns", "anndata_obs", "backed", 5, columns
        ),
        Work(
            "open, all of 100 columns",
            "columns",
            "scio_obs",
            "anndata_obs",
            "backed",
            None,
            columns,
        ),
    ]


if __name__ == "__main__":
    pairs.run(__file__, __doc__, works)
