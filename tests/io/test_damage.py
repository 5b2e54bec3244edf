"""Damaged files: no crash, no hang, no value from out of bounds.

A child process walks and reads every variant; the parent sees its exit status, so a signal is a failure
and not the end of the test run.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

CHILD = """
import sys, random, resource
from pathlib import Path
import numpy as np
import scio
from scio.errors import ScioError
from scio.io import HDF5File

REFUSALS = (ScioError, MemoryError, UnicodeError, OverflowError)
import os
if not os.environ.get("SCIO_SANITIZE"):  # AddressSanitizer reserves terabytes of addresses
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
mode, path, first, last, seed = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5])
image = Path(path).read_bytes()
whole = {}

def walk(file, path, seen, depth=0):
    address = file.core.address(path)
    if address in seen or depth > 20:
        return
    seen.add(address)
    for name in file.attr_names(path):
        try:
            file.attr(path, name)
        except REFUSALS:
            pass
    for name in file.keys(path):
        child = path.rstrip("/") + "/" + name
        try:
            kind = file.kind(child)
            if kind == "group":
                walk(file, child, seen, depth + 1)
            elif kind == "dataset":
                dataset = file.dataset(child)
                n_items = int(np.prod(dataset.shape or (0,), dtype=float))
                if n_items < 10_000_000:
                    file.read(child)
        except REFUSALS:
            pass

n_opened = n_refused = 0
for case in range(first, last):
    if mode == "cut":
        data = image[: case * 64]
    else:
        rng = random.Random(seed * 1_000_003 + case)
        data = bytearray(image)
        for _ in range(rng.choice((1, 1, 2, 8))):
            data[rng.randrange(len(data) if mode == "anywhere" else min(len(data), 8192))] ^= 1 << rng.randrange(8)
        data = bytes(data)
    try:
        file = HDF5File(data)
        n_opened += 1
        walk(file, "/", set())
        if "/X" in file:
            f = scio.open(data)
            if f.shape[0] < 1e5 and f.X.nnz < 10_000_000 and f.n_vars < 1e6:
                x = f.X.read()
                if not isinstance(x, np.ndarray):
                    assert x.indices.size == 0 or (x.indices.min() >= 0 and x.indices.max() < x.shape[1])
    except REFUSALS:
        n_refused += 1
print(n_opened, n_refused)
"""

SAMPLES = [
    "h5ad_formats/bpcells_mini_mat.anndata-v0.10.9.h5ad",
    "h5ad_formats/TM_droplet_47x10_h5sparse.h5ad",
    "h5ad_formats/anndata_archive_v0.11.4.h5ad",
    "hdf5_corpus/jhdf/test_chunked_datasets_latest.hdf5",
    "hdf5_corpus/jhdf/test_attribute_latest.hdf5",
    "hdf5_corpus/pyfive/new_style_groups.hdf5",
    "hdf5_corpus/jhdf/var-length-strings-reused.hdf5",
    "tenx/brain_large_70x4000_minimal_v2.h5",
]
N_FLIPS = 400
LIMIT_S = 100


def run_child(mode: str, path: Path, first: int, last: int, seed: int = 0) -> tuple[int, int]:
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", CHILD, mode, str(path), str(first), str(last), str(seed)],
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, (
        f"{path.name} {mode} {first} to {last}: {done.returncode}\n{done.stderr[-2000:]}"
    )
    assert time.perf_counter() - start < LIMIT_S
    opened, refused = done.stdout.split()
    return int(opened), int(refused)


@pytest.mark.parametrize("name", SAMPLES)
def test_truncation_at_every_64_bytes_is_refused(shared_data, name):
    path = shared_data / name
    n_cuts = (path.stat().st_size - 1) // 64 + 1
    opened, refused = run_child("cut", path, 0, n_cuts)
    assert (opened, refused) == (0, n_cuts)


@pytest.mark.parametrize("mode", ["anywhere", "head"])
@pytest.mark.parametrize("name", SAMPLES)
def test_bit_flips_never_crash(shared_data, name, mode):
    opened, refused = run_child(mode, shared_data / name, 0, N_FLIPS)
    assert opened + refused >= N_FLIPS


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_bit_flips_of_a_file_with_every_index(tmp_path, libver):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w", libver=libver) as f:
        for name, chunks, maxshape in (("a", (5,), None), ("b", (5,), (None,)), ("c", (50,), None)):
            f.create_dataset(
                name, data=np.arange(50), chunks=chunks, maxshape=maxshape, compression="gzip"
            )
        f.create_dataset(
            "d", data=np.arange(60).reshape(6, 10), chunks=(2, 3), maxshape=(None, None)
        )
        f["words"] = ["a", "bb", "ccc"]
        table = np.dtype([("a", "i4"), ("s", h5py.string_dtype())])
        f["table"] = np.array([(1, "x"), (2, "yy"), (3, "")], dtype=table)
        for i in range(12):
            f.attrs[f"attribute {i}"] = f"value {i}"
    opened, refused = run_child("anywhere", path, 0, 1500, seed=random.randrange(10**6))
    assert opened + refused >= 1500


def test_a_small_file_that_declares_2_to_the_60_is_refused_before_memory_is_asked_for(tmp_path):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as f:
        f.create_dataset("holes", (2**30, 2**30), "u1", chunks=(1024, 1024))
        f.create_dataset("one chunk", (2**31,), "f8", chunks=(2**27,), maxshape=(None,))
    assert path.stat().st_size < 10_000
    from scio.io import HDF5File

    file = HDF5File(path)
    start = time.perf_counter()
    with pytest.raises((ValueError, MemoryError)):
        file.read("/holes")
    assert file.dataset("/holes").read([2**29, 5], [2, 3]).tolist() == [[0] * 3] * 2
    assert time.perf_counter() - start < 10
