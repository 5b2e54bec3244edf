"""Small AnnData files with bytes that are wrong: every element is read, only our errors come.

In one process, so that a sanitizer sees each read; the C parsers alone are fuzzed by the programs
beside this file.  The seed is fixed; SCIO_FUZZ_CASES=100000 SCIO_FUZZ_SEED=7 asks for a long run.
"""

from __future__ import annotations

import os
import random
import resource
import struct
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import scio
from scio.errors import ScioError

N_CASES = int(os.environ.get("SCIO_FUZZ_CASES", "300"))  # of each image and kind of damage
SEED = int(os.environ.get("SCIO_FUZZ_SEED", "1"))
LIMIT_S = 5
MAX_GROWTH_NBYTES = 600 << 20
IS_SANITIZED = bool(os.environ.get("SCIO_SANITIZE"))  # with memory and time of its own

WILD = [0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1]  # fmt: skip


def sample() -> anndata.AnnData:
    """As few bytes as an object with each kind of element can have."""
    names = ["a", "b", "c"]
    adata = anndata.AnnData(
        sp.csr_matrix(np.array([[0, 1.0], [2, 0], [3, 4]])),
        obs=pd.DataFrame(
            {"k": pd.Categorical(["x", None, "y"]), "i": pd.array([1, None, 3], dtype="Int8")},
            index=names,
        ),
    )
    adata.obsm["p"] = np.ones((3, 2), np.float32)
    adata.uns = {"d": {"t": "text"}, "n": 3, "r": np.array([("x", 1)], [("n", "O"), ("k", "i2")])}
    return adata


def flip(image: bytearray, rng: random.Random) -> bytes:
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        image[rng.randrange(len(image))] ^= 1 << rng.randrange(8)
    return bytes(image)


def cut(image: bytearray, rng: random.Random) -> bytes:
    return bytes(image[: rng.randrange(len(image))]) + bytes(rng.choice((0, 0, 64, 100_000)))


def splice(image: bytearray, rng: random.Random) -> bytes:
    """One piece of the file over another, or put in, or taken out."""
    length = rng.choice((4, 8, 16, 64, 512))
    source, at = rng.randrange(len(image) - length), rng.randrange(len(image) - length)
    n_gone = rng.choice((length, length, 0))
    image[at : at + n_gone] = image[source : source + rng.choice((length, length, 0))]
    return bytes(image)


def wild(image: bytearray, rng: random.Random) -> bytes:
    """Sizes, addresses and counts become extreme ones."""
    for _ in range(rng.choice((1, 1, 2))):
        width = rng.choice((1, 2, 4, 8))
        at = rng.randrange(0, len(image) - 8)
        value = rng.choice(WILD) & (2 ** (8 * width) - 1)
        image[at : at + width] = struct.pack("<Q", value)[:width]
    return bytes(image)


MUTATIONS = {f.__name__: f for f in (flip, cut, splice, wild)}


def read_everything(image: bytes) -> None:
    """The eager and the lazy way."""
    scio.read_h5ad(image)
    with scio.open(image) as file:
        for frame in (file.obs, file.var):
            frame.to_pandas()
        file.X[: min(file.n_obs, 100)]
        for mapping in (file.layers, file.obsm, file.uns):
            for name in mapping:
                mapping[name]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("images")
    scio.write_h5ad(sample(), folder / "ours.h5ad", checksums=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sample().write_h5ad(folder / "anndata.h5ad", compression="gzip")
    return {path.stem: path.read_bytes() for path in Path(folder).iterdir()}


@pytest.mark.parametrize("kind", MUTATIONS)
@pytest.mark.parametrize("writer", ["ours", "anndata"])
def test_only_our_errors_come(images, writer, kind):
    mutate: Callable[[bytearray, random.Random], bytes] = MUTATIONS[kind]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seen: Counter[str] = Counter()
    for case in range(N_CASES):
        rng = random.Random(f"{SEED} {kind} {writer} {case}")
        image = mutate(bytearray(images[writer]), rng)
        start = time.perf_counter()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                read_everything(image)
            seen["read"] += 1
        except (ScioError, MemoryError) as error:
            seen[type(error).__name__] += 1
        except Exception as error:
            error.add_note(f"SCIO_FUZZ_SEED={SEED}, {kind} of {writer}, case {case}")
            raise
        assert IS_SANITIZED or time.perf_counter() - start < LIMIT_S, (kind, writer, case)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) << 10
    assert IS_SANITIZED or grown < MAX_GROWTH_NBYTES
    assert seen["CorruptFileError"] > 0, seen
    assert kind == "cut" or seen["read"] > 0, seen
