"""Storage that does not answer: timeout, Ctrl-C and the end of the process all the same."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from tests.data.conftest import make_adata, rewrite
from tests.data.processes import child, output

# A file object whose reads block for good once `stop` is set.
HANGS = """
import gc, io, os, signal, sys, threading, time
import scio
from scio.data import CellDataLoader, CellDataset
from scio.errors import WorkerDiedError

os.environ["SCIO_REMOTE_CACHE_MB"] = "0"   # every read shall come to the object

class Hanging(io.BytesIO):
    name = "remote.h5ad"
    def __init__(self, data):
        super().__init__(data)
        self.is_stuck, self.free, self.n_stuck = False, threading.Event(), 0
    def read(self, n=-1):
        if self.is_stuck:
            self.n_stuck += 1
            self.free.wait()
            self.n_stuck -= 1
        return super().read(n)

path, sound = sys.argv[1:3]
source = Hanging(open(path, "rb").read())
cells = CellDataset(scio.open(source), None)
n_cells = len(cells)

def loader_of(data=cells, **settings):
    settings = {"form": "csr", "to": "numpy", "drop_last": False, "max_memory": 2_300_000,
                "shuffle": "block", "block_bytes": 2_000, **settings}
    return CellDataLoader(data, 16, **settings)

def check(data, n):
    # enough loaders to find a pool that has lost a thread
    for _ in range(4):
        assert sum(len(b["index"]) for b in loader_of(CellDataset(data, None))) == n
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A file whose bytes hang, another that is sound."""
    folder: Path = tmp_path_factory.mktemp("files")
    rewrite(make_adata(20_000, 40), folder / "slow.h5ad", chunk=500)
    rewrite(make_adata(), folder / "sound.h5ad")
    return str(folder / "slow.h5ad"), str(folder / "sound.h5ad")


@pytest.mark.parametrize("settings", ["shuffle='block'", "shuffle='exact', max_memory='64MB'"])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_timeout_is_an_error_and_the_process_goes_on(files, settings, threads):
    out = output(
        HANGS
        + f"""
scio.set_threads({threads})                # with one, a read that hangs has the whole pool
threads = scio.get_threads()
loader = loader_of(timeout=0.5, {settings})
if loader.shuffle == "block":
    iterator = iter(loader)
    next(iterator)
    source.is_stuck = True
else:
    source.is_stuck = True
    iterator = iter(loader)
start = time.monotonic()
try:
    for _ in iterator:
        pass
except WorkerDiedError as error:
    took = time.monotonic() - start
    assert "remote.h5ad" in str(error) and "timeout=0.5" in str(error), error
else:
    raise SystemExit("no error")
assert took < 5, took
assert source.n_stuck > 0
n_live = scio.stats()["live_threads"]
assert scio.get_threads() == threads
check(sound, 211)                      # other files are read although threads hang
source.is_stuck = False
source.free.set()                      # the storage answers after all
for _ in range(500):
    if source.n_stuck == 0 and scio.stats()["live_threads"] <= threads:
        break
    time.sleep(0.01)
assert source.n_stuck == 0
assert scio.stats()["live_threads"] <= threads, scio.stats()
check(sound, 211)
del iterator, loader
for _ in range(3):                     # what was given up is freed by whoever comes next
    loader = loader_of()
    n = sum(len(b["index"]) for b in loader)
    assert n == n_cells, n
del loader
gc.collect()
print(took, scio.stats()["live_bufs"])
""",
        *files,
    )
    assert float(out.split()[0]) < 5


EXITS = {
    "end": "",
    "sys.exit": "sys.exit(0)",
    "error": "raise RuntimeError('mine')",
    "cycle": "loader.me = loader, iterator; del loader, iterator",
}


@pytest.mark.parametrize("end", EXITS)
def test_the_process_ends_while_storage_hangs(files, end):
    process = child(
        HANGS
        + f"""
loader = loader_of(timeout=0.3)
iterator = iter(loader)
next(iterator)
source.is_stuck = True
try:
    for _ in iterator:
        pass
except WorkerDiedError:
    print("timeout", flush=True)
{EXITS[end]}
""",
        *files,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "timeout\n"
    start = time.monotonic()
    _, err = process.communicate(timeout=60)
    assert time.monotonic() - start < 8
    assert process.returncode == (end == "error"), err
    assert ("mine" in err) if end == "error" else err == ""


@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.parametrize("where", ["block", "exact"])
def test_ctrl_c_stops_a_loader_whose_storage_hangs(files, threads, where):
    process = child(
        HANGS
        + f"""
loader = loader_of(num_workers={threads}, shuffle="{where}", max_memory="64MB")
source.is_stuck = True
print("ready", flush=True)
try:
    for _ in loader:
        pass
except KeyboardInterrupt:
    print("interrupted", flush=True)
check(sound, 211)
print("works", flush=True)
""",
        *files,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.5)
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "interrupted\n"
    took = time.monotonic() - start
    out, err = process.communicate(timeout=60)
    assert out == "works\n", err
    assert process.returncode == 0
    assert took < 5.0  # a second is the promise, see the median of test_signals
