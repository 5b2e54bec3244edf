"""One measurement in a process of its own: a JSON request on stdin, a JSON result on a pipe.

The descriptor of the pipe is the only argument; stdout is left to libraries that print.
The parent keeps stdin open; when it ends, however it ends, so does this process.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

TOKEN_GENES = 2_048
READ_NBYTES = 1 << 20  # decoded bytes of one call: small enough to stay in a core's cache


def main() -> None:
    """Answer one request."""
    request = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        result = _WORK[request["work"]](request)
    except Exception as error:  # told to the parent, whatever it was
        result = {"error": f"{type(error).__name__}: {error}", "message": str(error)}
    with open(int(sys.argv[1]), "w", encoding="utf-8") as out:
        json.dump(result, out)
    os._exit(0)  # no waiting for what peers left running


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


def _status_nbytes(key: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    return 0


# --- opening and decoding


def _opening(request: dict[str, Any]) -> dict[str, Any]:
    """Time of `scio.open` and of one loader, which reads indptr and gene names and plans."""
    import scio
    import scio.data  # the time of imports is none of the file's

    path = request["path"]
    opened, planned = [], []
    for _ in range(request["n_runs"]):
        begin = time.perf_counter()
        with scio.open(path):
            opened.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        _make_loader({**request, "form": "csr"})
        planned.append(time.perf_counter() - begin)
    return {"open_seconds": opened, "loader_seconds": planned}


def _decode(request: dict[str, Any]) -> dict[str, Any]:
    """Decode every chunk of X once, by all threads, each into memory that it uses again."""
    import scio

    scio.set_threads(request["threads"])
    handle = scio.open(request["path"])
    x = handle.X
    paths = [f"{x.path}/{n}" for n in ("data", "indices")] if x.format != "dense" else [x.path]
    datasets = [handle.file.dataset(path) for path in paths]
    pieces = [(d, start, count) for d in datasets for start, count in _pieces(d)]
    nbytes = sum(int(d.stored_nbytes) for d in datasets)
    decoded = sum(d.type["itemsize"] * _product(d.shape or ()) for d in datasets)
    seconds = []
    with ThreadPoolExecutor(max(1, request["threads"])) as pool:
        for run in range(request["n_runs"] + 1):
            begin = time.perf_counter()
            for _ in pool.map(lambda p: p[0].read(p[1], p[2], threads=0) is None, pieces):
                pass
            if run:  # the first one warms caches and allocator
                seconds.append(time.perf_counter() - begin)
    sizes = {"cells": handle.n_obs, "stored_nbytes": nbytes, "decoded_nbytes": decoded}
    return {"seconds": seconds, **sizes}


def _product(sizes: Iterable[int]) -> int:
    product = 1
    for size in sizes:
        product *= int(size)
    return product


def _pieces(dataset: Any) -> list[tuple[list[int], list[int]]]:
    """Boxes of whole chunks, about READ_NBYTES decoded each, side by side along the first axis."""
    shape: tuple[int, ...] = dataset.shape or ()
    if _product(shape) == 0:
        return []
    row_nbytes = dataset.type["itemsize"] * _product(shape[1:])
    chunk = dataset.chunks[0] if dataset.chunks else 1
    step = max(1, READ_NBYTES // max(1, row_nbytes * chunk)) * chunk
    rest = [0] * (len(shape) - 1)
    return [
        ([start, *rest], [min(step, shape[0] - start), *shape[1:]])
        for start in range(0, shape[0], step)
    ]


# --- epochs


def _make_loader(request: dict[str, Any]) -> Any:
    from scio.data import CellDataLoader, CellDataset, PreprocessingPipeline

    form = request["form"]
    is_normalised = form in ("tokens", "dense_log1p")
    cells = CellDataset(
        request["path"],
        None,
        PreprocessingPipeline() if is_normalised else None,
        TOKEN_GENES if form == "tokens" else None,
        obs_keys=[request["key"]] if request.get("key") else [],
    )
    return CellDataLoader(
        cells,
        request["batch_size"],
        request["threads"],
        drop_last=False,
        seed=request["seed"],
        form="dense" if is_normalised and form != "tokens" else form,
        max_memory=request["max_memory"],
        to="numpy",
    )


def _scio(request: dict[str, Any]) -> dict[str, Any]:
    """Epochs of scio's own loader, made for this measurement."""
    import scio
    import scio.data  # before the first look at memory and clock

    scio.set_threads(request["threads"])
    base = _status_nbytes("VmRSS")
    begin = time.perf_counter()
    loader = _make_loader(request)
    opened = time.perf_counter() - begin
    epochs = []
    for _ in range(request["n_epochs"]):
        epoch = _epoch(loader, lambda batch: len(batch["index"]), request["limit_seconds"])
        epoch["stats"] = {k: v for k, v in loader.stats.items() if isinstance(v, (int, float))}
        epochs.append(epoch)
        if not epoch["is_whole"]:
            break
    return {"open_seconds": opened, "epochs": epochs, **_memory(base)}


def _peer(request: dict[str, Any]) -> dict[str, Any]:
    """Epochs of a peer."""
    from scio.cli.peers import PEERS

    peer = next(p for p in PEERS if p.name == request["peer"])
    for module in peer.needs:
        __import__(module)
    base = _status_nbytes("VmRSS")
    begin = time.perf_counter()
    batches = peer.open(Path(request["path"]), request["batch_size"], request["seed"])
    opened = time.perf_counter() - begin
    epochs = []
    for _ in range(request["n_epochs"]):
        epochs.append(_epoch(batches, peer.count, request["limit_seconds"]))
        if not epochs[-1]["is_whole"]:
            break
    return {"open_seconds": opened, "epochs": epochs, **_memory(base)}


def _epoch(batches: Iterable[Any], count: Callable[[Any], int], limit: float) -> dict[str, Any]:
    """Take the batches of one epoch, at most `limit` seconds (0: to the end)."""
    begin = time.perf_counter()
    cells, first, is_whole = 0, None, True
    iterator = iter(batches)
    for batch in iterator:
        cells += count(batch)
        now = time.perf_counter() - begin
        first = now if first is None else first
        if limit and now > limit:
            is_whole = False
            break
    seconds = time.perf_counter() - begin
    if not is_whole and hasattr(iterator, "close"):
        iterator.close()
    return {
        "cells": cells,
        "seconds": seconds,
        "first_batch_seconds": first,
        "is_whole": is_whole,
    }


def _memory(base: int) -> dict[str, int]:
    return {"base_rss_nbytes": base, "peak_rss_nbytes": _status_nbytes("VmHWM")}


# --- mixing


def _mixing(request: dict[str, Any]) -> dict[str, Any]:
    """Mixing of the first epoch, and of the second one after the first was taken."""
    loader = _make_loader({**request, "form": "csr"})
    parts = {"first_epoch": loader.mixing(request["key"])}
    if request["n_epochs"] > 1:
        taken = _epoch(loader, lambda batch: len(batch["index"]), request["limit_seconds"])
        if taken["is_whole"]:
            parts["later_epochs"] = loader.mixing(request["key"])
    return {
        name: {"entropy": m.entropy, "perfect": m.perfect, "ratio": m.ratio}
        for name, m in parts.items()
    }


_WORK: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "opening": _opening,
    "decode": _decode,
    "scio": _scio,
    "peer": _peer,
    "mixing": _mixing,
}

if __name__ == "__main__":
    main()
