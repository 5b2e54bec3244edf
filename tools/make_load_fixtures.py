"""Writes ``tests/c/data/load_matrices.h5`` and ``load_tracks.h5``, for the C tests of ``csrc/load``.

Every entry follows from its row and column by `mix`, which the tests compute too, so the files hold no
value that is not expected independently.  Run it as ``python tools/make_load_fixtures.py``; the result
is the same bytes for the same h5py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

FOLDER = Path(__file__).resolve().parent.parent / "tests" / "c" / "data"
TARGET = FOLDER / "load_matrices.h5"
TRACKS_TARGET = FOLDER / "load_tracks.h5"
GZIP: dict[str, Any] = {"compression": "gzip", "compression_opts": 4}
MASK = 0xFFFFFFFF


def mix(row: int, n_cols: int, salt: int) -> np.ndarray:
    """One 32-bit hash for each column of a row (multiply and shift, all modulo 2**32)."""
    h = (np.arange(n_cols, dtype=np.uint64) * 40503 + row * 2654435761 + salt * 97) & MASK
    h ^= h >> np.uint64(15)
    h = (h * 0x2C1B3C6D) & MASK
    h ^= h >> np.uint64(12)
    h = (h * 0x297A2D39) & MASK
    return h ^ (h >> np.uint64(15))


def per_mille(row: int) -> int:
    """How full a row is: some are empty, some hold every column."""
    if row % 17 == 3:
        return 0
    if row % 29 == 5:
        return 1001
    return 40 + row % 50


def row_values(row: int, n_cols: int, salt: int, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Columns and values of one row."""
    h = mix(row, n_cols, salt)
    cols = np.flatnonzero(h % 1000 < per_mille(row))
    values = ((h[cols] >> np.uint64(8)) % 5 + 1).astype(np.float64)
    if kind == "eighths":
        values = ((h[cols] >> np.uint64(8)) % 1000 + 1) / 8
    if kind == "wide":
        values[(cols % 10 == 3) & (row % 20 == 0)] = 300
        values[(cols % 10 == 5) & (row % 31 == 11)] = 0.5
    return cols, values


def csr(
    n_rows: int, n_cols: int, salt: int, kind: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Data, indices and indptr of a matrix."""
    rows = [row_values(row, n_cols, salt, kind) for row in range(n_rows)]
    indptr = np.concatenate([[0], np.cumsum([len(cols) for cols, _ in rows])])
    return np.concatenate([v for _, v in rows]), np.concatenate([c for c, _ in rows]), indptr


def write_group(
    file: h5py.File,
    name: str,
    arrays: tuple[np.ndarray, np.ndarray, np.ndarray],
    dtypes: tuple[str, str],
    data: dict[str, Any],
    indices: dict[str, Any],
) -> None:
    """One sparse group with its own storage for data and indices."""
    group = file.create_group(name)
    group.create_dataset("data", data=arrays[0].astype(dtypes[0]), **data)
    group.create_dataset("indices", data=arrays[1].astype(dtypes[1]), **indices)
    group.create_dataset("indptr", data=arrays[2].astype("<i8"))


def write_dense(
    file: h5py.File,
    name: str,
    shape: tuple[int, int],
    salt: int,
    dtype: str,
    kwargs: dict[str, Any],
) -> None:
    """One dense dataset."""
    dense = np.zeros(shape)
    for row in range(shape[0]):
        cols, values = row_values(row, shape[1], salt, "small")
        dense[row, cols] = values
    file.create_dataset(name, data=dense.astype(dtype), **kwargs)


def write_tracks() -> None:
    """More matrices of the 150 rows of ``f4``: layers and the like."""
    with h5py.File(TRACKS_TARGET, "w", libver=("earliest", "v110"), track_order=False) as file:
        # the entries of f4 with other values, and with chunks of another length
        same = csr(150, 300, 2, "eighths")
        chunks: dict[str, Any] = {"chunks": (100,), **GZIP}
        write_group(file, "layer", same, ("<f4", "<i4"), chunks, chunks)
        # other entries; chunks of data and indices of two lengths
        other = csr(150, 90, 14, "small")
        write_group(file, "spliced", other, ("<i2", "<i8"), {"chunks": (30,)}, {"chunks": (45,)})
        write_dense(file, "embedding", (150, 20), 11, "<f4", {"chunks": (40, 7), **GZIP})
        write_dense(file, "embedding_plain", (150, 5), 12, "<f8", {})
        write_dense(file, "bands", (150, 20), 13, ">i2", {"chunks": (4, 20)})


def main() -> None:
    """Write the files."""
    write_tracks()
    shuffled: dict[str, Any] = {"shuffle": True, **GZIP}
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(TARGET, "w", libver=("earliest", "v110"), track_order=False) as file:
        # chunks of data and indices that do not divide one another, as h5py chooses them for f8 and i4
        write_group(
            file,
            "f8",
            csr(120, 300, 1, "eighths"),
            ("<f8", "<i4"),
            {"chunks": (331,), **GZIP},
            {"chunks": (661,), **GZIP},
        )
        # chunks shorter than the full rows
        write_group(
            file,
            "f4",
            csr(150, 300, 2, "small"),
            ("<f4", "<i4"),
            {"chunks": (64,), **GZIP},
            {"chunks": (64,), **GZIP},
        )
        # values that need uint16 and float32 here and there; 64-bit indices, shuffled
        write_group(
            file,
            "wide",
            csr(150, 90, 3, "wide"),
            ("<f4", "<i8"),
            {"chunks": (100,)},
            {"chunks": (70,), **shuffled},
        )
        write_group(file, "plain", csr(80, 90, 4, "small"), ("<f4", "<i4"), {}, {})
        write_group(
            file,
            "swapped",
            csr(80, 90, 5, "small"),
            (">f4", ">i4"),
            {"chunks": (50,)},
            {"chunks": (90,)},
        )
        # the columns of csr(90, 150, 6), that is a matrix of 150 rows
        write_group(
            file,
            "csc",
            csr(90, 150, 6, "small"),
            ("<f4", "<i4"),
            {"chunks": (64,), **GZIP},
            {"chunks": (64,), **GZIP},
        )
        for name, dtype, salt, kwargs in (
            ("dense", "<f4", 7, {"chunks": (16, 7), **GZIP}),
            ("dense_plain", "<f8", 8, {}),
            ("dense_swapped", ">i2", 9, {"chunks": (5, 20)}),
        ):
            write_dense(file, name, (45, 20), salt, dtype, kwargs)
        # broken on purpose
        bad = csr(20, 30, 10, "small")
        group = file.create_group("short_indptr")
        group["data"], group["indices"], group["indptr"] = bad[0], bad[1].astype("<i4"), bad[2][:-1]
        group = file.create_group("column_out_of_range")
        cols = bad[1].astype("<i4")
        cols[17] = 30
        group["data"], group["indices"], group["indptr"] = bad[0].astype("<f4"), cols, bad[2]
        group = file.create_group("uneven")
        group["data"], group["indices"], group["indptr"] = bad[0][:-1], cols, bad[2]
        group = file.create_group("falling")
        falling = bad[2].copy()
        falling[4], falling[5] = falling[5] + 1, falling[5]
        group["data"], group["indices"], group["indptr"] = bad[0], bad[1].astype("<i4"), falling


if __name__ == "__main__":
    main()
