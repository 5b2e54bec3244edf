"""Subset, concatenation and transposition of large files: little memory, and all or nothing."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest

import scio
from scio.io.transpose import transpose_on_disk
from tests.io.large import N_CELLS, N_GENES, run_child, write_large
from tests.mounts import on_tmpfs

_MAX_GROWTH_MIB = 64

# each makes argv[2] of argv[1]
_WORK = {
    "subset": "scio.write_subset(src, dst, obs=slice(1, None), var=np.arange(2999, -1, -2), **bound)",
    "subset of columns": "scio.write_subset(by_gene, dst, var=slice(0, None, 2), compression=None, **bound)",
    "concat": "scio.concat_on_disk([src, src], dst, index_unique='-', compression=None, **bound)",
    "transpose": "transpose_on_disk(src, dst, **bound)",
}

_MEASURE = """
import sys
import numpy as np
import scio
from scio.io.transpose import transpose_on_disk
import scio.io.concat, scio.io.subset, scio._h5write, anndata  # what they load is no part of the work

src, by_gene, dst, work = sys.argv[1:5]
bound = {"max_memory": 16 << 20}

def peak():
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])

with scio.open(src) as f:
    assert f.X.nnz * 8 >= 100_000_000
before = peak()
exec(work)
print((peak() - before) / 1024)
"""


def test_memory_is_bounded(tmp_path: Path) -> None:
    source, by_gene = tmp_path / "large.h5ad", tmp_path / "by_gene.h5ad"
    write_large(source)
    transpose_on_disk(source, by_gene)
    grown = {}
    for name, work in _WORK.items():
        target = tmp_path / "out.h5ad"
        done = run_child(_MEASURE, source, by_gene, target, work)
        assert done.returncode == 0, (name, done.stderr[-2000:])
        grown[name] = float(done.stdout)
        with scio.open(target) as file, scio.open(source) as large:
            assert file.X.nnz > 0
            assert file.shape[0] == {"concat": 2 * N_CELLS, "subset": N_CELLS - 1}.get(
                name, N_CELLS
            )
            if name == "concat":
                middle, wanted = file.X[N_CELLS : N_CELLS + 10], large.X[:10]
                np.testing.assert_array_equal(middle.data, wanted.data)
                np.testing.assert_array_equal(middle.indices, wanted.indices)
            if name == "subset":
                wanted_rows = large.X[21:31].toarray()[:, np.arange(N_GENES - 1, -1, -2)]
                np.testing.assert_array_equal(file.X[20:30].toarray(), wanted_rows)
        target.unlink()
    assert all(0 < growth < _MAX_GROWTH_MIB for growth in grown.values()), grown


_STOPPED = """
import os, signal, sys
import numpy as np
import scio
from scio.io import _streams
from scio.io.transpose import transpose_on_disk

src, dst, work, number = sys.argv[1:5]
by_gene, bound = src, {}
append = _streams.ArrayStream.append

def stop_after(self, rows):
    append(self, rows)
    if len(rows) > 1000:
        os.kill(os.getpid(), int(number))

_streams.ArrayStream.append = stop_after
exec(work)
print("it went on to the end")
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize("work", ["subset", "concat", "transpose"])
def test_a_stopped_process_leaves_the_old_file(
    tmp_path: Path, work: str, number: signal.Signals
) -> None:
    source, target = tmp_path / "large.h5ad", tmp_path / "out.h5ad"
    write_large(source, n_cells=2000)
    target.write_bytes(b"what was there before")
    done = run_child(_STOPPED, source, target, _WORK[work], str(int(number)))
    assert "end" not in done.stdout
    assert target.read_bytes() == b"what was there before"
    names = {path.name for path in tmp_path.iterdir()}
    if number == signal.SIGKILL:
        assert done.returncode == -signal.SIGKILL
        assert len(names) == 3  # the temporary, which the next writer removes
    else:
        assert "KeyboardInterrupt" in done.stderr
        assert names == {"large.h5ad", "out.h5ad"}
    scio.write_subset(source, target, obs=slice(3))
    assert {path.name for path in tmp_path.iterdir()} == {"large.h5ad", "out.h5ad"}
    with scio.open(target) as file:
        assert file.shape == (3, N_GENES)


_FULL = """
import os, sys
import numpy as np
import scio
from scio.errors import IOWriteError
from scio.io.transpose import transpose_on_disk

src, folder, work = sys.argv[1:4]
by_gene, dst, bound = src, os.path.join(folder, "out.h5ad"), {"max_memory": 8 << 20}
with open(dst, "wb") as file:
    file.write(b"what was there before")
try:
    exec(work)
except IOWriteError as error:
    print(error.errno, error)
with open(dst, "rb") as file:
    print(file.read(), os.listdir(folder))
"""


@pytest.mark.parametrize("work", ["subset", "concat", "transpose"])
def test_a_full_disk_leaves_the_old_file(tmp_path: Path, work: str) -> None:
    source, folder = tmp_path / "large.h5ad", tmp_path / "small"
    folder.mkdir()
    write_large(source, n_cells=4000)
    done = run_child(_FULL, source, folder, _WORK[work], prefix=on_tmpfs(folder, "600k"))
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith("28 "), done.stdout  # ENOSPC
    assert "b'what was there before' ['out.h5ad']" in done.stdout
