"""How annbatch does: its conversion and its epochs, each as one JSON line.

Runs in an environment of its own (tools/setup_bench_peers.sh), without scio and without torch; the
matrices it yields stay SciPy's, as SciPy's and scDataset's in the other rows.  The collection is made
with the defaults of annbatch; epochs read X alone, no obs, with the settings that the README of annbatch
shows (chunks of 32, 256 of them) and with the defaults (chunks of 512, 32 of them).
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import time
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any

import timing

SETTINGS = {"readme": (32, 256), "default": (512, 32)}
PACKAGES = ("annbatch", "anndata", "zarr", "zarrs", "numpy", "scipy", "h5py")


def _use_zarrs() -> None:
    import zarr

    zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})


def convert(source: Path, store: Path) -> dict[str, Any]:
    """Write the shuffled collection; time, disk and peak memory."""
    import numpy as np
    from annbatch import DatasetCollection

    _use_zarrs()
    shutil.rmtree(store, ignore_errors=True)
    start = time.perf_counter()
    DatasetCollection(store).add_adatas([source], rng=np.random.default_rng(0))
    taken = time.perf_counter() - start
    disk = sum(f.stat().st_size for f in store.rglob("*") if f.is_file())
    return {
        "seconds_convert": taken,
        "disk_mib": disk / 2**20,
        "source_mib": source.stat().st_size / 2**20,
        "rss_peak": timing.peak_rss_mib(),
    }


def epochs(
    store: Path, form: str, batch_size: int, settings: str, seconds: float, seed: int
) -> dict[str, Any]:
    """Whole epochs of the collection."""
    import anndata
    import numpy as np
    from annbatch import DatasetCollection, Loader

    _use_zarrs()
    chunk_size, n_chunks = SETTINGS[settings]

    def only_x(group: Any) -> anndata.AnnData:
        return anndata.AnnData(X=anndata.io.sparse_dataset(group["X"]))

    def make() -> Any:
        loader = Loader(
            batch_size=batch_size,
            chunk_size=chunk_size,
            preload_nchunks=n_chunks,
            shuffle=True,
            preload_to_gpu=False,
            rng=np.random.default_rng(seed),
        )
        return loader.use_collection(DatasetCollection(store, mode="r"), load_adata=only_x)

    def count(batch: Any) -> int:
        x = batch["X"].toarray() if form == "dense" else batch["X"]
        return int(x.shape[0])

    result = timing.measure(make, count, seconds=seconds)
    return {**result, "entropy": timing.mixing(make(), timing.marker_labels)}


def main() -> None:
    """Do what the arguments say, print RESULT and a JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["convert", "epochs"])
    parser.add_argument("--source", type=Path)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--form", choices=["csr", "dense"], default="csr")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--settings", choices=list(SETTINGS), default="readme")
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.action == "convert":
        result = convert(options.source, options.store)
    else:
        result = epochs(
            options.store,
            options.form,
            options.batch_size,
            options.settings,
            options.seconds,
            options.seed,
        )
    result["versions"] = {name: metadata.version(name) for name in PACKAGES}
    result["versions"]["python"] = platform.python_version()
    print("RESULT " + json.dumps(result))


if __name__ == "__main__":
    main()
