"""The fault shim and the processes that run under it."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import scio

HERE = Path(__file__).resolve().parent
FLAGS = ("-std=c11", "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror")


def sample() -> anndata.AnnData:
    """Small, and yet with chunked and contiguous arrays, strings and a categorical."""
    rng = np.random.default_rng(0)
    names = [f"cell{i}" for i in range(20)]
    return anndata.AnnData(
        sp.csr_matrix(rng.poisson(1.5, (20, 100)).astype("f4")),
        obs=pd.DataFrame({"kind": pd.Categorical(rng.choice(list("ab"), 20))}, index=names),
        uns={"text": "größe"},
    )


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """libfault.so, built from the source beside this."""
    path = tmp_path_factory.mktemp("shim") / "libfault.so"
    compiler = os.environ.get("CC", "cc").split()
    subprocess.run([*compiler, *FLAGS, str(HERE / "libfault.c"), "-o", str(path)], check=True)
    return path


def read_log(path: Path) -> list[tuple[str, str, str, int, bytes]]:
    """What libfault wrote down: (op, path, second path, offset, data)."""
    image, at, found = path.read_bytes(), 0, []
    head = struct.Struct("=cqIIQ")
    while at < len(image):
        op, offset, n_path, n_path2, n_data = head.unpack_from(image, at)
        at += head.size
        texts = image[at : at + n_path], image[at + n_path : at + n_path + n_path2]
        at += n_path + n_path2
        found.append((op.decode(), *(t.decode() for t in texts), offset, image[at : at + n_data]))
        at += n_data
    return found


class Faults:
    """A server of writers under the shim: `sweep` runs one, forked anew for every k."""

    def __init__(self, shim: Path, folder: Path, *arguments: str) -> None:
        self.folder, self.work = folder, folder / "work"
        scio.write_h5ad(sample(), folder / "source.h5ad")
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "server.py"), str(folder), *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "LD_PRELOAD": str(shim), "OPENBLAS_NUM_THREADS": "1"},
        )  # fmt: skip
        assert self._read() == "ready\n"

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def ask(self, **request: Any) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._read()
        assert answer, f"the server ended with {self._process.wait(timeout=10)}"
        return json.loads(answer)

    def sweep(self, writer: str, call: str, ks: range | list[int], **how: Any) -> list[dict]:
        """One row for each k; fails unless the fault was reached in every one of them."""
        rows = self.ask(writer=writer, call=call, ks=list(ks), **how)
        if how.get("mode") != "kill":  # who is killed cannot tell; its status does
            assert [row["k"] for row in rows if row["n_hits"] == 0 and row["k"] > 0] == []
        return rows

    def count(self, writer: str, call: str, **how: Any) -> tuple[int, str]:
        """How many such calls a run makes that nothing disturbs, and the new file's digest."""
        (row,) = self.sweep(writer, call, [0], **how)
        assert row["status"] == 0, row
        assert row["others"] == []
        return row["n_calls"], row["sha256"]

    def close(self) -> None:
        assert self._process.stdin is not None
        with self._process:  # closes both pipes and waits
            self._process.stdin.close()
        assert self._process.returncode == 0


def _served(shim: Path, folder: Path, *arguments: str) -> Iterator[Faults]:
    faults = Faults(shim, folder, *arguments)
    yield faults
    faults.close()


@pytest.fixture(scope="module")
def faults(shim: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faults]:
    """Writers from file to file."""
    yield from _served(shim, tmp_path_factory.mktemp("faults"))


@pytest.fixture(scope="module")
def object_faults(shim: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faults]:
    """Writers of objects in memory."""
    yield from _served(shim, tmp_path_factory.mktemp("faults"), "objects")
