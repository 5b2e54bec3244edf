"""Doing a thing a thousand times leaves nothing: no object of Python, no buffer, no memory."""

from __future__ import annotations

import gc
import io
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from scio import _core
from tests.core.helpers import LOADER, N_COLS, N_ROWS, SPEC, gene_map, random_csr, write_csr

CSR = random_csr(0)
ARRAYS = CSR.data, CSR.indices, CSR.indptr.astype(np.int64)
SHAPE = (N_ROWS, N_COLS)
CELLS = np.arange(5)


def make_image():
    image = io.BytesIO()
    pair = np.dtype([("n", "<i4"), ("name", h5py.string_dtype()), ("grid", "<f4", (2, 3))])
    with h5py.File(image, "w") as file:
        file["numbers"] = np.arange(10)
        file["numbers"].attrs["title"] = "x"
        file["text"] = np.array(["a", "b"], object)
        file.create_dataset("pair", (2,), dtype=pair)
        file["committed"] = np.dtype("u2")
        file["soft"] = h5py.SoftLink("/numbers")
        write_csr(file, "X", CSR, chunks=(500,), compression=1)
    return image.getvalue()


IMAGE = make_image()
FILE = _core.File(IMAGE)
MATRIX = _core.Matrix.open_sparse(FILE, "X", shape=SHAPE)
DESCRIPTION = (
    "shape", "maxshape", "dtype", "type", "chunks", "layout", "index", "filters", "fill",
    "n_units", "stored_nbytes",
)  # fmt: skip


def read_through_a_callable():
    file = _core.File(lambda at, n: IMAGE[at : at + n], nbytes=len(IMAGE), name="call")
    file.dataset("numbers").read()
    file.path_of(3)


def run_a_loader():
    options = LOADER | {"id_mask": np.ones(N_COLS + 4, np.uint8), "cells": np.arange(200)}
    options["cell_scale"] = np.ones(N_ROWS)
    loader = _core.Loader([MATRIX], [gene_map()], **options)
    loader.next()
    loader.plan()
    loader.stats()


def resolve_text():
    text = FILE.dataset("text")
    FILE.vlen(text.type, text.read_raw())


USES = {
    "image": lambda: _core.File(IMAGE),
    "callable": read_through_a_callable,
    "links": lambda: FILE.links("/"),
    "attributes": lambda: (FILE.attr_names("numbers"), FILE.attr("numbers", "title")),
    "types": lambda: [FILE.dataset(p).type for p in ("numbers", "text", "pair")],
    "committed": lambda: FILE.type("committed"),
    "vlen": resolve_text,
    "description": lambda: [getattr(FILE.dataset("X/data"), name) for name in DESCRIPTION],
    "read": lambda: FILE.dataset("numbers").read((1,), (2,), dtype="float32"),
    "matrix": lambda: _core.Matrix.open_sparse(FILE, "X", shape=SHAPE).indptr,
    "rows": lambda: (MATRIX.take(CELLS), MATRIX.read(0, 3), MATRIX.read_dense(0, 3)),
    "memory": lambda: _core.Matrix.from_csr(*ARRAYS, shape=SHAPE).take(CELLS),
    "csr": lambda: (
        _core.csr_take(*ARRAYS, CELLS, shape=SHAPE),
        _core.csr_transpose(*ARRAYS, shape=SHAPE),
        _core.csr_validate(*ARRAYS, shape=SHAPE),
    ),
    "csr batch": lambda: _core.collate([MATRIX], [gene_map()], CELLS, **SPEC),
    "token batch": lambda: _core.collate(
        [MATRIX], [gene_map()], CELLS, **(SPEC | {"form": "tokens"})
    ),
    "loader": run_a_loader,
    "info": lambda: (_core.build_info(), _core.stats()),
}
FAILURES = {
    "no object": lambda: FILE.kind("nope"),
    "no path": lambda: _core.File("/no/such/file"),
    "no HDF5": lambda: _core.File(b"x" * 100),
    "callable raises": lambda: _core.File(lambda at, n: 1 / 0, nbytes=9999, name="call"),
    "wrong map": lambda: _core.collate([MATRIX], [gene_map(3)], CELLS, **SPEC),
    "wrong loader": lambda: _core.Loader([MATRIX], [gene_map()], **(LOADER | {"batch_size": -1})),
    "wrong type": lambda: FILE.vlen({}, np.zeros((1, 16), np.uint8)),
    "wrong array": lambda: _core.csr_validate(*ARRAYS[:2], ARRAYS[2][::-1], shape=SHAPE),
    "wrong row": lambda: MATRIX.take(np.array([N_ROWS])),
    "wrong gate": lambda: _core.Matrix.from_csr(*ARRAYS, shape=(N_ROWS, 3)),
}


def resident_kib():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4


def measure(function, n_times):
    for _ in range(n_times):
        function()
    gc.collect()
    return sys.getallocatedblocks(), _core.stats()["live_bufs"], resident_kib()


def assert_nothing_stays(function):
    n_times = 300
    measure(function, n_times)  # whatever is made once, and the arenas of malloc
    blocks, bufs, kib = measure(function, n_times)
    more_blocks, more_bufs, more_kib = measure(function, n_times)
    assert more_bufs == bufs
    assert more_blocks - blocks < n_times // 4
    assert more_kib - kib < 4096


@pytest.mark.parametrize("name", USES)
def test_a_use_leaves_nothing(name):
    assert_nothing_stays(USES[name])


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_leaves_nothing(name):
    def fail():
        with pytest.raises(Exception):  # noqa: B017, PT011  which one is tested elsewhere
            FAILURES[name]()

    assert_nothing_stays(fail)
