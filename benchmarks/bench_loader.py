"""How many cells per second reach a model from a plain, unshuffled ``.h5ad``.

Every system reads the same file (as anndata wrote it) and gives shuffled batches of one form; each runs
in a process of its own, warm page cache, one warm-up pass, then whole epochs or `--seconds`.
Peers: SciPy ``X[idx]`` on a matrix in memory (after loading), one h5py row per ``__getitem__`` in a torch
DataLoader, anndata's AnnLoader (backed), scDataset 0.3.0 (block 64 fetch 256; block 4 fetch 16).
Entropy: of the label by which the file is sorted, in batches of 64; a perfect shuffle has the value in
the column "perfect".
Read the answer as ratios within one run: the machine is shared and noisy.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import data
import harness
import numpy as np


def _measure(
    make: Callable[[], Iterator[Any]], n_cells_of: Callable[[Any], int], n_runs: int, limit_s: float
) -> dict[str, Any]:
    """Rate over whole epochs, each cut off after limit_s; the first pass is warm-up."""
    rates, first = [], []
    for run in range(n_runs + 1):
        start = time.perf_counter()
        cells, first_batch = 0, None
        for batch in make():
            now = time.perf_counter() - start
            first_batch = now if first_batch is None else first_batch
            cells += n_cells_of(batch)
            if now > limit_s:
                break
        if run:
            rates.append(cells / (time.perf_counter() - start))
            first.append(first_batch)
    result = harness.run_times(iter(rates).__next__, n_runs)
    return {
        **result,
        "first_batch_s": float(np.median(first)),
        "peak_rss_mib": harness.peak_rss_mib(),
    }


def scio_loader(
    path: str,
    form: str,
    batch_size: int,
    threads: int,
    n_runs: int,
    limit_s: float,
    genes: int = 0,
    memory: str | None = None,
    max_genes: int = 0,
) -> dict[str, Any]:
    """CellDataLoader; a new loader per epoch, so every epoch decodes the file."""
    import scio
    from scio.data import CellDataLoader, CellDataset, GeneVocab, PreprocessingPipeline

    pipeline = PreprocessingPipeline() if form != "csr" else None
    vocab = None
    if genes:
        vocab = GeneVocab.from_genes(scio.open(path).var_names[:genes].tolist())
    cells = CellDataset(path, vocab, pipeline, max_genes or None, obs_keys=[])
    loader = CellDataLoader(cells, batch_size, threads, form=form, to="numpy", max_memory=memory)
    result = _measure(lambda: iter(loader), lambda b: len(b["index"]), n_runs, limit_s)
    mixing = loader.mixing("label")
    stats = {k: round(v, 3) for k, v in loader.stats.items()}
    return {**result, "entropy": mixing.entropy, "perfect": mixing.perfect, "stats": stats}


def scipy_memory(
    path: str, form: str, batch_size: int, n_runs: int, limit_s: float
) -> dict[str, Any]:
    """X[idx] on a matrix in memory, one exact permutation."""
    import scio

    x = scio.open(path).X.read().to_scipy()
    rng = np.random.default_rng(0)

    def epoch() -> Iterator[Any]:
        order = rng.permutation(x.shape[0])
        for start in range(0, x.shape[0] - batch_size + 1, batch_size):
            batch = x[order[start : start + batch_size]]
            yield batch.toarray() if form == "dense" else batch

    return _measure(epoch, lambda b: b.shape[0], n_runs, limit_s)


def h5py_rows(path: str, batch_size: int, n_runs: int, limit_s: float) -> dict[str, Any]:
    """The usual loop: one h5py row per __getitem__, torch DataLoader, dense."""
    import h5py
    import torch

    class Rows(torch.utils.data.Dataset):
        def __init__(self) -> None:
            self.file = h5py.File(path)
            self.x = self.file["X"]
            self.indptr = self.x["indptr"][()]
            self.n_genes = int(self.x.attrs["shape"][1])

        def __len__(self) -> int:
            return len(self.indptr) - 1

        def __getitem__(self, i: int) -> torch.Tensor:
            a, b = self.indptr[i], self.indptr[i + 1]
            row = np.zeros(self.n_genes, dtype=np.float32)
            row[self.x["indices"][a:b]] = self.x["data"][a:b]
            return torch.from_numpy(row)

    loader = torch.utils.data.DataLoader(Rows(), batch_size=batch_size, shuffle=True)
    return _measure(lambda: iter(loader), len, n_runs, limit_s)


def ann_loader(path: str, batch_size: int, n_runs: int, limit_s: float) -> dict[str, Any]:
    """Anndata's AnnLoader on a backed file, dense batches."""
    import anndata
    from anndata.experimental import AnnLoader

    backed = anndata.read_h5ad(path, backed="r")
    loader = AnnLoader(backed, batch_size=batch_size, shuffle=True)
    return _measure(lambda: iter(loader), lambda b: b.X.shape[0], n_runs, limit_s)  # X reads


def sc_dataset(
    path: str, block: int, fetch: int, batch_size: int, n_runs: int, limit_s: float
) -> dict[str, Any]:
    """ScDataset's block shuffle on the backed matrix, CSR batches."""
    import anndata
    from scdataset import BlockShuffling, scDataset
    from torch.utils.data import DataLoader

    class Rows:
        """The backed matrix with the two methods that scDataset asks for."""

        def __init__(self) -> None:
            self.matrix = anndata.read_h5ad(path, backed="r").X

        def __len__(self) -> int:
            return int(self.matrix.shape[0])

        def __getitem__(self, rows: Any) -> Any:
            return self.matrix[rows]

    collection = scDataset(
        Rows(), BlockShuffling(block_size=block), batch_size=batch_size, fetch_factor=fetch
    )
    loader = DataLoader(collection, batch_size=None)
    return _measure(lambda: iter(loader), lambda b: b.shape[0], n_runs, limit_s)


def cases(batch_size: int) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Name, function, arguments."""
    common = {"batch_size": batch_size}
    for threads in (1, 2):
        yield (
            f"scio CSR, {threads} thread(s)",
            "scio_loader",
            {**common, "form": "csr", "threads": threads},
        )
    yield (
        "scio tokens 2,048, norm + log1p",
        "scio_loader",
        {**common, "form": "tokens", "threads": 2, "max_genes": 2048},
    )
    yield (
        "scio dense 2,000 genes, norm + log1p",
        "scio_loader",
        {**common, "form": "dense", "threads": 2, "genes": 2000},
    )
    yield "SciPy X[idx] in memory, CSR", "scipy_memory", {**common, "form": "csr"}
    yield "scDataset block 64 fetch 256, CSR", "sc_dataset", {**common, "block": 64, "fetch": 256}
    yield "scDataset block 4 fetch 16, CSR", "sc_dataset", {**common, "block": 4, "fetch": 16}
    yield "AnnLoader (backed), dense", "ann_loader", common
    yield "h5py row by row, dense", "h5py_rows", common


def _report(
    file: str, compression: str | None, name: str, result: dict[str, Any]
) -> dict[str, Any]:
    """Print one line of the table and return it as a row."""
    parts = [
        f"{file} {compression or 'none':5s} {name:38s} {result.get('median', 0):10,.0f} cells/s"
    ]
    parts.append(f"[{result.get('least', 0):,.0f} … {result.get('largest', 0):,.0f}]")
    if "first_batch_s" in result:
        parts.append(f"first batch {result['first_batch_s']:.2f} s")
        parts.append(f"{result['peak_rss_mib']:,.0f} MiB")
    if "entropy" in result:
        parts.append(f"entropy {result['entropy']:.3f} of {result['perfect']:.3f}")
    parts.append(result.get("error", ""))
    print("  ".join(parts), flush=True)
    return {"file": file, "compression": compression, "what": name, **result}


def main() -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="cut an epoch of a slow peer off"
    )
    parser.add_argument(
        "--quick", action="store_true", help="a tenth of the cells, three runs of 5 s"
    )
    parser.add_argument("--only", default="", help="only cases whose name contains this")
    parser.add_argument("--files", nargs="*", default=["d1", "d2"])
    options = parser.parse_args()
    if options.quick:
        options.runs, options.seconds = 3, 5.0
    print(harness.machine())
    rows: list[dict[str, Any]] = []
    shapes = [s for s in data.shapes(quick=options.quick) if s.name in options.files]
    for shape, compression in itertools.product(shapes, ("gzip", None)):
        path = str(data.make(shape, compression))
        if compression:
            limit = {"path": path, "n_threads": 2, "n_runs": options.runs}
            script = str(Path(__file__).with_name("bench_decode_limit.py"))
            result = harness.in_child(script, "limit", limit)
            rows.append(_report(shape.name, compression, "limit: libdeflate, 2 threads", result))
        for name, function, settings in cases(64):
            if options.only not in name:
                continue
            common = {"path": path, "n_runs": options.runs, "limit_s": options.seconds}
            result = harness.in_child(__file__, function, {**common, **settings})
            rows.append(_report(shape.name, compression, name, result))
    name = "_".join(["loader", *options.files, *(["quick"] if options.quick else [])])
    print("saved", harness.save(name, rows).name)


if __name__ == "__main__":
    main()
