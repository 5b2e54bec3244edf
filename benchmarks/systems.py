"""What runs in the child process of one measurement: scio, and every peer that reads the file.

Each function takes plain values and returns a dict of plain values (see `timing.measure`); annbatch has
an environment of its own and is in peer_annbatch.py, the decode limit in bench_decode_limit.py.
"""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import shutil
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import data
import numpy as np
import timing

TOKENS = 2_048
N_CHOSEN = 2_000
STATS = (
    "chunks_decoded",
    "chunks_total",
    "peak_nbytes",
    "cap_nbytes",
    "seconds_wait",
    "n_windows",
    "cache_mib",
)
LATE_IMPORTS = {
    "torch": ("torch.utils.data",),
    "anndata": ("anndata.experimental",),
    "scdataset": ("scdataset.transforms",),
    "scipy": ("scipy.sparse",),
}


def scio_loader(
    path: str,
    form: str,
    batch_size: int,
    seed: int,
    *,
    threads: int,
    n_epochs: int = 1,
    max_memory: str | int | None = None,
    with_cache: bool = False,
) -> dict[str, Any]:
    """CellDataLoader; one loader iterated `n_epochs` times.

    csr: raw values, NumPy arrays.  dense, dense-2000, tokens: normalised, log1p, tensors.
    """
    import scio
    from scio.data import CellDataLoader, CellDataset, GeneVocab, PreprocessingPipeline

    n_cells = scio.open(path).n_obs
    scratch = Path(tempfile.mkdtemp(dir=Path(path).parent))
    n_caches = itertools.count()

    def make(cache: Path | None = None) -> CellDataLoader:
        vocab = None
        if form == "dense-2000":
            names = scio.open(path).var_names
            chosen = np.random.default_rng(0).choice(len(names), N_CHOSEN, replace=False)
            vocab = GeneVocab.from_genes(names[np.sort(chosen)].tolist())
        cells = CellDataset(
            path,
            vocab,
            None if form == "csr" else PreprocessingPipeline(),
            TOKENS if form == "tokens" else None,
            obs_keys=[],
        )
        extra: dict[str, Any] = {}
        if (
            with_cache
        ):  # a folder of its own for each loader, so that none finds the file of another
            extra["cache"] = cache or scratch / str(next(n_caches))
        return CellDataLoader(
            cells,
            batch_size,
            threads,
            form=form.split("-", maxsplit=1)[0],  # type: ignore[arg-type]
            to="numpy" if form == "csr" else "torch",
            drop_last=False,
            seed=seed,
            max_memory=max_memory,
            **extra,
        )

    def describe(loader: Any) -> dict[str, Any]:
        known = {key: loader.stats[key] for key in STATS if key in loader.stats}
        if with_cache:  # whether the file was made, and how large it is
            files = (scratch / "1").rglob("*.h5ad")
            known["cache_mib"] = sum(f.stat().st_size for f in files) / 2**20
        return known

    try:
        result = timing.measure(make, _n_cells, n_epochs=n_epochs, describe=describe)
        if with_cache:  # what a later run finds: the file of the loader that was timed, the second
            start = time.perf_counter()
            loader = make(scratch / "1")
            opened = time.perf_counter() - start
            again = timing.epoch(loader, _n_cells)
            again["seconds_first"] += opened
            result["later_run"] = {**again, **describe(loader), "rss_peak": timing.peak_rss_mib()}
        return {**result, "entropies": _entropies(make(), n_epochs, n_cells, batch_size)}
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _n_cells(batch: Any) -> int:
    return len(batch["index"])


def _entropies(loader: Any, n_epochs: int, n_cells: int, batch_size: int) -> list[float | None]:
    """Entropy of the label in each epoch, from the cells that were really delivered."""
    if batch_size != 64:
        return [None] * n_epochs

    def labels(batch: Any) -> np.ndarray:
        return data.labels_of(np.asarray(batch["index"]), n_cells)

    return [timing.mean_entropy(map(labels, loader)) for _ in range(n_epochs)]


def peer_epoch(
    path: str, form: str, batch_size: int, seed: int, *, name: str, seconds: float
) -> dict[str, Any]:
    """One epoch of a peer, cut off after `seconds`."""
    peer = next(p for p in peers().PEERS if p.name == name and p.form == form)
    # Imports are no part of the time to the first batch; scio's are done by then, too.
    for module in (*peer.needs, *(late for m in peer.needs for late in LATE_IMPORTS.get(m, ()))):
        importlib.import_module(module)

    def make() -> Any:
        return peer.open(Path(path), batch_size, seed)

    result = timing.measure(make, peer.count, seconds=seconds)
    entropy = timing.mixing(make(), timing.marker_labels) if batch_size == 64 else None
    return {**result, "entropies": [entropy]}


def decode_limit(
    path: str, form: str, batch_size: int, seed: int, *, threads: int, what: str
) -> dict[str, Any]:
    """The limit of the file, or H5Dread: the median of three passes after one to warm up."""
    import bench_decode_limit

    del form, batch_size, seed
    if what == "H5Dread":
        rate = bench_decode_limit.h5dread(path, 3)["median"]
    else:
        rate = bench_decode_limit.limit(path, threads, 3)["median"]
    return {
        "seconds_first_batch": None,
        "seconds_epoch": None,
        "epochs": [
            {"cells_per_s": rate, "is_whole": True, "rss_peak": timing.peak_rss_mib(), "batches": 1}
        ],
        "entropies": [None],
    }


def peers() -> ModuleType:
    """Load scio/cli/peers.py by its path: the command line around it needs more packages."""
    found = importlib.util.find_spec("scio")
    assert found is not None
    assert found.submodule_search_locations is not None
    path = Path(found.submodule_search_locations[0]) / "cli" / "peers.py"
    spec = importlib.util.spec_from_file_location("scio_bench_peers", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
