"""Fixtures of the tests of the binding."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from scio import _core
from tests.core.helpers import Counts, random_csr, write_csr


@pytest.fixture
def counts(tmp_path: Path) -> Counts:
    """A gzip-compressed CSR matrix at /X and its dense form at /dense."""
    path = tmp_path / "counts.h5ad"
    csr = random_csr(1)
    with h5py.File(path, "w") as file:
        write_csr(file, "X", csr, chunks=(500,), compression="gzip")
        file.create_dataset("dense", data=csr.toarray(), chunks=(50, 7), compression="gzip")
    return Counts(str(path), csr)


@pytest.fixture
def sample(tmp_path: Path) -> str:
    """One dataset, attribute or link of each kind that the binding describes."""
    path = tmp_path / "sample.h5"
    text = h5py.string_dtype()
    with h5py.File(path, "w") as file:
        file["int32"] = np.arange(12, dtype=np.int32).reshape(3, 4)
        file["big"] = np.arange(5, dtype=">f8")
        file["bool"] = np.array([True, False, True])
        file["scalar"] = np.float32(1.5)
        file["null"] = h5py.Empty("f4")
        file["text"] = np.array(["a", "", "große", "x" * 300], dtype=object)
        file["fixed"] = np.array([b"ab", b"c"], dtype="S4")
        file["ragged"] = np.empty(0)
        del file["ragged"]
        ragged = file.create_dataset("ragged", (3,), dtype=h5py.vlen_dtype(np.int16))
        for i in range(3):
            ragged[i] = np.arange(i, dtype=np.int16)
        colour = h5py.enum_dtype({"RED": -1, "GREEN": 7}, basetype=np.int8)
        file.create_dataset("enum", data=np.array([7, -1], np.int8), dtype=colour)
        pair = np.dtype([("n", "<i4"), ("name", text), ("grid", "<f4", (2, 3))])
        record = file.create_dataset("compound", (2,), dtype=pair)
        record[0] = (1, "one", np.ones((2, 3)))
        record[1] = (2, "two", np.zeros((2, 3)))
        file.create_dataset(
            "chunked",
            data=np.arange(100.0),
            chunks=(30,),
            maxshape=(None,),
            compression="gzip",
            shuffle=True,
            fillvalue=-1.0,
        )
        file.create_group("group/inner")
        file["group/inner/leaf"] = np.arange(3)
        file["soft"] = h5py.SoftLink("/int32")
        file["external"] = h5py.ExternalLink("other.h5", "/x")
        file["committed"] = np.dtype("<u2")
        file["int32"].attrs["title"] = "hello"
        file["int32"].attrs["numbers"] = np.array([1, 2, 3], np.int64)
        file["int32"].attrs["nothing"] = h5py.Empty("i4")
        file["int32"].attrs["points_to"] = file["group/inner/leaf"].ref
    return str(path)


@pytest.fixture
def open_file(sample: str) -> Iterator[_core.File]:
    """The sample, opened by the core."""
    file = _core.File(sample)
    yield file
    file.close()


@pytest.fixture
def no_leak() -> Iterator[Callable[[], None]]:
    """Assert at the end that no buffer and no source lives that did not live before."""

    def count() -> tuple[int, int]:
        gc.collect()
        stats = _core.stats()
        return stats["live_bufs"], stats["live_sources"]

    before = count()

    def check() -> None:
        assert count() == before

    yield check
    check()
