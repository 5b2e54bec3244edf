"""Threads, signals, forks, pickles, interpreters, the end of the process."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from scio import _core
from tests.core.helpers import LOADER, N_ROWS, file_matrix, gene_map, memory_matrix, random_csr

CSRC = Path(__file__).resolve().parents[2] / "csrc" / "py"

# A file whose bytes come slowly: 61 MiB, at most 8 MiB in `delay` seconds.
SLOW = """
    import io, os, signal, sys, threading, time
    import h5py, numpy as np
    import scio.errors
    from scio import _core
    image = io.BytesIO()
    with h5py.File(image, "w") as f:
        f["x"] = np.zeros((160, 50000))
    image = image.getvalue()
    delay = 0.0
    def read(offset, nbytes):
        time.sleep(delay)
        return image[offset:offset + nbytes]
    file = _core.File(read, nbytes=len(image), name="slow")
    matrix = _core.Matrix.open_dense(file, "x")
    dataset = file.dataset("x")
    dataset.units()
    delay = 0.3
"""


def run(code, *, check=True, **options):
    """Run `code` in a new interpreter; it must end by itself."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True, text=True, timeout=60, check=False, **options,
    )  # fmt: skip
    assert not check or done.returncode == 0, done.stderr
    return done


# --- the GIL


def test_another_thread_works_while_a_long_read_runs(tmp_path):
    path = tmp_path / "big.h5"
    values = np.random.default_rng(0).random((64, 50_000))
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=values, chunks=(1, 50_000), compression=9)
    dataset = _core.File(str(path)).dataset("x")
    dataset.units()
    is_done = threading.Event()
    ticks = 0

    def tick():
        nonlocal ticks
        while not is_done.is_set():
            ticks += 1
            time.sleep(0)

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        before = ticks
        dataset.read(threads=1)
        during = ticks - before
    finally:
        is_done.set()
        thread.join()
    assert during > 20


def test_a_read_of_the_main_thread_uses_all_threads(tmp_path):
    # A long call of the main thread runs beside it; its loops must still spread over the pool.
    path = tmp_path / "big.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset(
            "x", data=np.random.default_rng(0).random((16, 200_000)), chunks=(1, 200_000),
            compression=1,
        )  # fmt: skip
    image = path.read_bytes()
    inside, most = set(), 0

    def read(offset, nbytes):
        nonlocal most
        inside.add(threading.get_ident())
        most = max(most, len(inside))
        time.sleep(0.02)
        inside.discard(threading.get_ident())
        return image[offset : offset + nbytes]

    threads = _core.get_threads()
    _core.set_threads(2)
    try:
        _core.File(read, nbytes=len(image), name="call").dataset("x").read()
    finally:
        _core.set_threads(threads)
    assert most == 2


def test_between_allow_threads_nothing_is_pythons():
    blocks = 0
    for path in CSRC.glob("*.c"):
        text = path.read_text()
        for block in re.findall(r"Py_BEGIN_ALLOW_THREADS(.*?)Py_END_ALLOW_THREADS", text, re.S):
            assert not re.search(r"\bPy[A-Z_]", block), (path.name, block)
            blocks += 1
    assert blocks > 20


def test_the_module_exports_one_symbol():
    nm = shutil.which("nm")
    assert nm is not None
    found = subprocess.run(
        [nm, "-D", "--defined-only", _core.__file__], capture_output=True, text=True, check=True
    )
    names = [
        line.split()[-1] for line in found.stdout.splitlines() if " T " in line or " D " in line
    ]
    assert names == ["PyInit__core"]


# --- Ctrl-C

INTERRUPT = """
    def interrupt_soon():
        time.sleep(0.4)
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)
    sent = []
    threading.Thread(target=interrupt_soon).start()
    try:
        {call}
    except KeyboardInterrupt:
        took = time.monotonic() - sent[0]
        print("interrupted", took < 1.0, took)
    else:
        print("ended by itself")
"""


@pytest.mark.parametrize(
    "call",
    [
        "dataset.read()",
        "dataset.read_raw(threads=1)",
        "matrix.read_dense(0, 160)",
        "matrix.read(0, 160)",
        "matrix.take(np.arange(160))",
    ],
)
def test_ctrl_c_stops_a_long_read_within_a_second(call):
    done = run(textwrap.dedent(SLOW) + textwrap.dedent(INTERRUPT.format(call=call)))
    assert done.stdout.startswith("interrupted True"), done.stdout


LOADER_CALL = """[None for _ in iter(_core.Loader([matrix], [np.arange(50000, dtype=np.int32)],
            cells=None, form="csr", n_ids=50000, first_id=0, library_size=False, target_sum=1e4,
            log1p=False, id_mask=None, max_genes=0, select="first", seed=0, epoch=0, pad_id=0,
            pad_value=0.0, batch_size=4, drop_last=False, shuffle="block", rank=0, world_size=1,
            max_memory=0, block_bytes=0, threads={threads}, prefetch=0, skip_errors=False,
            first_batch=0).next, None)]"""


@pytest.mark.parametrize("threads", [-1, 0])
def test_ctrl_c_stops_a_loader_within_a_second(threads):
    call = LOADER_CALL.format(threads=threads)
    done = run(textwrap.dedent(SLOW) + textwrap.dedent(INTERRUPT).format(call=call))
    assert done.stdout.startswith("interrupted True"), done.stdout


def test_a_signal_handler_that_does_not_raise_does_not_stop_a_read():
    code = """
    seen = []
    signal.signal(signal.SIGUSR1, lambda *_: seen.append(1))
    delay = 0.4
    threading.Timer(0.1, lambda: os.kill(os.getpid(), signal.SIGUSR1)).start()
    got = dataset.read()
    print(seen, got.shape)
    """
    assert run(textwrap.dedent(SLOW) + textwrap.dedent(code)).stdout == "[1] (160, 50000)\n"


# --- the end


LOADER_ONLY = (
    LOADER_CALL.split("iter(", 1)[1]
    .rsplit(".next", 1)[0]
    .replace("max_memory=0", "max_memory=100 << 20")
)


@pytest.mark.parametrize(
    "use",
    [
        "loader.next()",  # the next window is being read
        "threading.Thread(target=take, daemon=True).start()",
    ],
)
def test_the_process_ends_while_a_loader_reads(use):
    # Its threads wait for the GIL of an interpreter that goes away.
    slow = "delay = 1.0\ntime.sleep(0.3)"  # now all of them are inside a read
    start = f"""
delay = 0.05
loader = {LOADER_ONLY.format(threads=-1)}
def take():
    try:
        loader.next()
    except scio.errors.LoaderCancelled:
        pass
"""
    last = "class Last:\n  def __del__(self): print('cleared')\nlast = Last(); print('end')"
    done = run(f"{textwrap.dedent(SLOW)}\n{start}\n{use}\n{slow}\n{last}")
    assert (done.stdout, done.stderr) == ("end\ncleared\n", "")


def test_a_module_that_is_forgotten_and_imported_again_works():
    code = """
    import gc, sys, scio
    from scio import _core
    first = _core.File
    scio._core = None
    del sys.modules["scio._core"], _core
    gc.collect()
    from scio import _core
    import scio._core as again
    again.permutation(0, 0, 10)
    print(again.stats()["live_bufs"])
    """
    assert run(code).stdout == "0\n"


# --- fork


def in_child(function):
    """Run `function` in a forked child and give what it returned."""
    receiver, sender = multiprocessing.get_context("fork").Pipe(duplex=False)
    pid = os.fork()
    if pid == 0:  # pragma: no cover - the child is not measured
        status = 1
        try:
            sender.send(function())
            status = 0
        except BaseException as error:
            sender.send(f"{type(error).__name__}: {error}")
        finally:
            os._exit(status)
    assert receiver.poll(30), "the child hangs"
    answer = receiver.recv()
    os.waitpid(pid, 0)
    return answer


def refusals(*uses):
    """What each use raises, in the child."""
    found = []
    for use in uses:
        try:
            use()
        except RuntimeError as error:
            found.append(str(error))
        else:
            found.append("worked")
    return found


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_child_is_told_to_open_again(counts):
    file = _core.File(counts.path)
    matrix, memory = file_matrix(counts), memory_matrix(counts.csr)
    loader = _core.Loader([matrix], [gene_map()], **LOADER)
    loader.next()
    dataset = file.dataset("X/data")

    def child():
        used = refusals(
            lambda: file.kind("/"),
            dataset.read,
            lambda: matrix.read(0, 1),
            loader.next,
            loader.stats,
            lambda: _core.Loader([matrix], [gene_map()], **LOADER),
        )
        file.close()
        loader.close()
        again = file_matrix(counts)
        here = _core.Loader([again], [gene_map()], **LOADER)
        n_cells = sum(b["n_cells"] for b in iter(here.next, None))
        return used, memory.read(0, N_ROWS)[0].sum(), n_cells

    used, total, n_cells = in_child(child)
    assert all(re.search(r"was made in process \d+ .* open it again here", text) for text in used)
    assert (total, n_cells) == (counts.csr.data.sum(), N_ROWS)
    assert sum(b["n_cells"] for b in iter(loader.next, None)) == N_ROWS - 64  # the parent goes on


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_child_that_drops_everything_does_not_touch_the_parents_threads(counts):
    things = [file_matrix(counts), _core.File(counts.path).dataset("X/data")]
    things.append(_core.Loader([things[0]], [gene_map()], **LOADER))
    things[2].next()

    def child():
        things.clear()
        import gc

        gc.collect()
        return "dropped"

    assert in_child(child) == "dropped"
    assert things[2].next()["n_cells"] == 64


# --- pickle, interpreters, environment


def test_handles_refuse_to_be_pickled(counts):
    matrix = file_matrix(counts)
    file = _core.File(counts.path)
    loader = _core.Loader([matrix], [gene_map()], **LOADER)
    for handle in (file, file.dataset("X/data"), matrix, loader):
        name = type(handle).__name__
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            with pytest.raises(
                TypeError, match=rf"cannot pickle scio\._core\.{name}: .*open it again"
            ):
                pickle.dumps(handle, protocol)
        with pytest.raises(TypeError, match="cannot pickle"):
            copy.copy(handle)


def test_a_subinterpreter_is_refused_and_the_main_one_goes_on():
    code = """
    import numpy, scio
    try:
        import _interpreters as interpreters
    except ImportError:
        import _xxsubinterpreters as interpreters
    there = interpreters.create()
    script = "try: import scio._core\\nexcept ImportError: pass\\nelse: raise SystemError('imported')"
    print(interpreters.run_string(there, script))
    interpreters.destroy(there)
    print(len(scio._core.permutation(0, 0, 10)))
    """
    assert run(code).stdout == "None\n10\n"


@pytest.mark.parametrize(
    ("name", "code", "legal"),
    [
        ("SCIO_CPU", "import scio", "avx2"),
        ("SCIO_THREADS", "import scio; scio.get_threads()", "0 to"),
    ],
)
def test_a_misspelt_setting_is_an_error_that_lists_what_is_legal(name, code, legal):
    done = run(code, check=False, env={**os.environ, name: "fast"})
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f'ValueError: {name} is "fast"')
    assert legal in last


def test_settings_are_shown():
    code = "import scio; b = scio.build_info(); print(b['cpu_level'], b['threads'], scio.get_threads())"
    env = {**os.environ, "SCIO_CPU": "base", "SCIO_THREADS": "3"}
    assert run(code, env=env).stdout == "base 3 3\n"
    info = _core.build_info()
    assert info["filters"]["deflate"].startswith("libdeflate 1.")
    assert info["filters"]["lzf"] is True
    assert info["filters"]["szip"] is False
    assert info["cpu_count"] == _core.cpu_count() >= 1


def test_no_threads_run_everything_in_the_caller(counts):
    threads = _core.get_threads()
    _core.set_threads(0)
    try:
        assert _core.get_threads() == 0
        assert file_matrix(counts).read(0, N_ROWS)[0].sum() == counts.csr.data.sum()
        loader = _core.Loader([memory_matrix(random_csr(0))], [gene_map()], **LOADER)
        assert sum(b["n_cells"] for b in iter(loader.next, None)) == N_ROWS
    finally:
        _core.set_threads(threads)


def test_python_threads_read_at_once(counts):
    matrix = file_matrix(counts)
    file = _core.File(counts.path)
    failures = []

    def work(seed):
        rng = np.random.default_rng(seed)
        try:
            for _ in range(20):
                rows = rng.integers(0, N_ROWS, 30)
                data, _, _ = matrix.take(rows)
                np.testing.assert_array_equal(data, counts.csr[rows].data)
                assert file.path_of(file.address("X/data")) == "/X/data"
                assert file.dataset("dense").read((0, 0), (10, 10)).shape == (10, 10)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert signal.getsignal(signal.SIGINT) is not None
