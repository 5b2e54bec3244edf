"""torch's own DataLoader over a CellDataset: workers that die, hang or have too little shared memory."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.data.conftest import make_adata, rewrite


def with_shared_memory(size: str, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a Python program that has a /dev/shm of its own."""
    assert os.geteuid() == 0, "mounting needs root"
    script = f'mount -t tmpfs -o size={size} tmpfs /dev/shm && exec "$0" "$@"'
    return subprocess.run(
        [
            "unshare",
            "-m",
            "sh",
            "-c",
            script,
            sys.executable,
            "-c",
            textwrap.dedent(code),
            *arguments,
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> str:
    """600 cells of about 660 genes: 256 of them are a batch of 3.5 MB."""
    path: Path = tmp_path_factory.mktemp("wide") / "wide.h5ad"
    return str(rewrite(make_adata(600, 2000), path, chunk=5000))


# --- workers that die

FAULTY = """
import gc, io, multiprocessing, os, re, signal, sys, threading, time, warnings
import numpy as np, torch
from torch.utils.data import DataLoader
import scio
from scio.data import CellDataset, collate_cells
warnings.filterwarnings("ignore", "This DataLoader will create")
# how long torch waits for a worker that it has told to end
torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL = 0.5
ITEM, TIMEOUT = 100, 1.5
# What torch raises too when a worker dies before its last batches were fetched from it.
GONE = (ConnectionError, EOFError, FileNotFoundError)

os.environ["SCIO_REMOTE_CACHE_MB"] = "0"   # every read shall come to the object

class Source(io.BytesIO):
    name = "remote.h5ad"
    is_stuck = False
    def read(self, n=-1):
        if self.is_stuck:
            threading.Event().wait()
        return super().read(n)

class Faulty(CellDataset):
    fault = None
    def __getitems__(self, indices):
        if ITEM in indices and self.fault is not None:
            self.fault()
        return super().__getitems__(indices)

source = Source(open(sys.argv[1], "rb").read())
cells = Faulty(scio.open(source), None)
list(cells.__getitems__([0, 1]))   # used before the fork

def die():
    os.kill(os.getpid(), signal.SIGKILL)
def complain():
    raise ArithmeticError("of the user")
def leave():
    os._exit(0)
def hang():
    source.is_stuck = True

def loader(workers, persistent):
    return DataLoader(cells, 8, num_workers=workers, persistent_workers=persistent,
                      collate_fn=collate_cells, timeout=TIMEOUT, multiprocessing_context="fork")

def run(fault, error, text, workers, persistent):
    cells.fault = fault
    loading = loader(workers, persistent)
    seen, start = 0, time.monotonic()
    iterator = iter(loading)
    try:
        for batch in iterator:
            seen += len(batch["index"])
            last = time.monotonic()
    except (error, *GONE) as caught:
        took = time.monotonic() - start
        assert re.search(text, str(caught)) or isinstance(caught, GONE), caught
    else:
        raise SystemExit(f"no error of {fault.__name__}")
    assert seen <= ITEM, seen
    assert took < 10 * TIMEOUT, (fault.__name__, took)
    del iterator, loading
    gc.collect()
    for _ in range(300):
        if not multiprocessing.active_children():
            break
        time.sleep(0.01)
    assert not multiprocessing.active_children(), fault.__name__
    assert not os.listdir("/dev/shm"), os.listdir("/dev/shm")
    return took
"""


@pytest.mark.parametrize(
    ("fault", "error", "text"),
    [
        ("die", "RuntimeError", "exited unexpectedly|killed by signal"),
        ("complain", "ArithmeticError", "of the user"),
        ("leave", "RuntimeError", "exited unexpectedly"),
        ("hang", "RuntimeError", "timed out"),
    ],
)
def test_a_worker_that_fails_is_an_error_in_time_and_leaves_nothing(tiny_h5ad, fault, error, text):
    done = with_shared_memory(
        "64m",
        FAULTY
        + f"""
for workers, persistent in ((1, True), (2, False), (3, True)):
    took = run({fault}, {error}, {text!r}, workers, persistent)
    print("ok", flush=True)
cells.fault = None
for workers in (0, 2):
    found = [b["index"] for b in DataLoader(cells, 8, num_workers=workers, collate_fn=collate_cells)]
    assert torch.equal(torch.cat(found), torch.arange(211))
assert not os.listdir("/dev/shm")
""",
        str(tiny_h5ad),
    )
    assert done.returncode == 0, (done.stdout, done.stderr[-3000:])
    assert done.stdout.split() == ["ok"] * 3


# --- shared memory that is too small

LOAD = """
import gc, os, sys, warnings
import torch
from torch.utils.data import DataLoader
from scio.data import CellDataLoader, CellDataset, collate_cells
from scio.errors import LoaderError
warnings.filterwarnings("ignore", "This DataLoader will create")
cells = CellDataset(sys.argv[1], None)
torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL = 0.5  # torch's wait for workers to end
free = os.statvfs("/dev/shm")
assert free.f_blocks * free.f_frsize == 1 << 20

def load(size, workers, sharing="file_descriptor", **settings):
    torch.multiprocessing.set_sharing_strategy(sharing)
    gc.collect()   # the last loader, which its error keeps
    n = 0
    for batch in DataLoader(cells, size, num_workers=workers, collate_fn=collate_cells,
                            timeout=60 * (workers > 0), **settings):
        n += len(batch["index"])
        assert batch["expression"].sum() > 0
    return n
"""


@pytest.mark.parametrize("sharing", ["file_descriptor", "file_system"])
def test_too_little_shared_memory_is_an_error_that_says_what_to_do(wide, sharing):
    done = with_shared_memory(
        "1m",
        LOAD
        + f"""
for size, workers in ((256, 2), (24, 3)):
    try:
        n = load(size, workers, "{sharing}", prefetch_factor=4)
    except LoaderError as error:
        text = str(error)
        for part in ("/dev/shm has", "free", "bytes of shared memory", "--shm-size",
                     "num_workers=0", "CellDataLoader"):
            assert part in text, (part, text)
        print("error")
    else:
        assert n == 600
        print("loaded")
""",
        wide,
    )
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr[-3000:])
    assert done.stdout.split()[0] == "error"
    assert len(done.stdout.split()) == 2
    assert "Bus error" not in done.stderr


def test_what_fits_or_needs_no_shared_memory_is_loaded(wide):
    done = with_shared_memory(
        "1m",
        LOAD
        + """
assert load(4, 1) == load(256, 0) == 600
assert sum(len(b["index"]) for b in CellDataLoader(cells, 256, 2, drop_last=False)) == 600
assert not os.listdir("/dev/shm")
""",
        wide,
    )
    assert done.returncode == 0, (done.returncode, done.stderr[-3000:])
