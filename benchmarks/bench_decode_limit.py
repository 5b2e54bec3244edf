"""How fast all cores can inflate a file's own chunks, and how near scio comes.

The limit: the stored chunks of ``X/data`` and ``X/indices`` lie in memory, every thread inflates its
share with libdeflate into one reused buffer, nothing else is done (``benchmarks/decode_limit.c``).
Baseline: ``H5Dread`` through h5py into fresh arrays, one thread by nature.
Read the answer as cells per second; shuffled CSR batches of scio stand in `bench_loader`.
"""

from __future__ import annotations

import argparse
import ctypes
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import data
import harness
import numpy as np

import scio

ROOT = Path(__file__).resolve().parent.parent


def _library() -> ctypes.CDLL:
    """Compile the C loop that inflates given chunks in n threads."""
    target = Path(tempfile.mkdtemp()) / "decode_limit.so"
    source = ROOT / "benchmarks" / "decode_limit.c"
    subprocess.run(
        [
            "gcc",
            "-O3",
            "-shared",
            "-fPIC",
            str(source),
            "-o",
            str(target),
            "-ldeflate",
            "-lpthread",
        ],
        check=True,
    )
    return ctypes.CDLL(str(target))


def stored_chunks(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Read the stored bytes of all chunks: bytes, offsets, decoded sizes, number of cells."""
    handle = scio.open(path)
    pieces, decoded = [], []
    raw = np.memmap(path, dtype=np.uint8, mode="r")
    for name in ("data", "indices"):
        dataset = handle.file.dataset(f"/X/{name}")
        size = dataset.chunks[0] * np.dtype(dataset.dtype).itemsize
        for position, nbytes, _mask, _is_raw in dataset.units():
            pieces.append(np.array(raw[position : position + nbytes]))
            decoded.append(size)
    offsets = np.concatenate([[0], np.cumsum([len(p) for p in pieces])]).astype(np.int64)
    return np.concatenate(pieces), offsets, np.array(decoded, dtype=np.int64), handle.n_obs


def limit(path: str, n_threads: int, n_runs: int) -> dict[str, Any]:
    """Cells per second of inflating alone."""
    library = _library()
    stored, offsets, decoded, n_cells = stored_chunks(Path(path))
    pointer = ctypes.c_void_p

    def work() -> float:
        start = time.perf_counter()
        code = library.decode_all(
            pointer(stored.ctypes.data),
            pointer(offsets.ctypes.data),
            pointer(decoded.ctypes.data),
            ctypes.c_long(len(decoded)),
            ctypes.c_int(n_threads),
        )
        if code != 0:
            message = f"decode_all failed with {code}"
            raise RuntimeError(message)
        return n_cells / (time.perf_counter() - start)

    work()
    return harness.run_times(work, n_runs)


def h5dread(path: str, n_runs: int) -> dict[str, Any]:
    """Cells per second of H5Dread of data and indices, whole, by h5py."""
    import h5py

    def work() -> float:
        with h5py.File(path) as file:
            start = time.perf_counter()
            file["X/data"][()]
            file["X/indices"][()]
            return (file["X/indptr"].shape[0] - 1) / (time.perf_counter() - start)

    work()
    return harness.run_times(work, n_runs)


def scio_read(path: str, n_threads: int, n_runs: int) -> dict[str, Any]:
    """Cells per second of scio.open(path).X.read(), whole, checked CSR arrays."""
    scio.set_threads(n_threads)

    def work() -> float:
        with scio.open(path) as handle:
            start = time.perf_counter()
            handle.X.read()
            return handle.n_obs / (time.perf_counter() - start)

    work()
    return harness.run_times(work, n_runs)


def main() -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument(
        "--cells", type=int, help="cells of each file; without it those of D1 and D2"
    )
    parser.add_argument("--data", type=Path, default=data.DIRECTORY, help="folder of the files")
    options = parser.parse_args()
    print(harness.machine())
    rows = []
    for shape in data.shapes(options.cells):
        path = str(data.make(shape, "gzip", options.data))
        for name, function, arguments in (
            ("limit: libdeflate, 1 thread", "limit", {"n_threads": 1}),
            ("limit: libdeflate, 2 threads", "limit", {"n_threads": 2}),
            ("H5Dread (h5py)", "h5dread", {}),
            ("scio X.read(), 1 thread", "scio_read", {"n_threads": 1}),
            ("scio X.read(), 2 threads", "scio_read", {"n_threads": 2}),
        ):
            result = harness.in_child(
                __file__, function, {"path": path, "n_runs": options.runs, **arguments}
            )
            row = {"file": shape.name, "what": name, **result}
            rows.append(row)
            print(
                f"{shape.name} {name:32s} {row.get('median', 0):12,.0f} cells/s "
                f"[{row.get('least', 0):,.0f} … {row.get('largest', 0):,.0f}] {row.get('error', '')}"
            )
    if options.cells is None:
        print("saved", harness.save("decode_limit", rows).name)


if __name__ == "__main__":
    main()
