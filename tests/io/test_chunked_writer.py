"""Chunked datasets and odd values of the writer: h5py, h5dump and our reader agree with what went in."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import scio
from scio import _h5write
from scio.errors import IOWriteError
from scio.io.writer import new_file
from tests.io.compare import Comparison
from tests.io.test_writer import run
from tests.mounts import on_tmpfs

NUMBERS = [
    "?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8",
    "c8", "c16", ">i4", ">u2", ">f2", ">f8", ">c16", "S5",
]  # fmt: skip
PLAIN_RECORD = np.dtype([("a", "i1"), ("b", ">f8"), ("c", "c8"), ("s", "S3"), ("t", "i2", (2, 3))])


def sample(dtype: object, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Values that use the type: its extremes, non-finite floats, text of all lengths."""
    dtype, n = np.dtype(dtype), int(np.prod(shape))
    rng = np.random.default_rng(seed)
    if dtype.names:
        out = np.empty(n, dtype)
        for i, name in enumerate(dtype.names):
            base, inner = dtype[name].subdtype or (dtype[name], ())
            out[name] = sample(base, (n, *inner), i)
        return out.reshape(shape)
    if dtype.kind == "S":
        words = np.array([b"", b"a", b"ab\xff", b"abcde"])
        return words[rng.integers(0, 4, shape)].astype(dtype)
    values = rng.poisson(1.5, shape).astype(dtype)
    flat = values.reshape(-1)
    if dtype.kind in "iu" and n > 1:
        flat[[0, -1]] = np.iinfo(dtype).min, np.iinfo(dtype).max
    if dtype.kind in "fc" and n > 2:
        flat[[0, 1, -1]] = np.nan, -np.inf, 0.1
    return values


def write(path: Path, name: str, array: np.ndarray, cuts=(), threads: int = -1, **options) -> int:
    """One dataset, appended in pieces that end at `cuts`; the bytes that it takes in the file."""
    with new_file(path) as writer:
        dataset = writer.chunked(name, dtype=array.dtype, **{"shape": array.shape, **options})
        for part in np.split(array, sorted(cuts)):
            dataset.append(part, threads=threads)
        return dataset.finish()


def assert_equal(read: np.ndarray, array: np.ndarray) -> None:
    """Equal bits in native order (NaN too), equal shapes, equal types but for the order of bytes."""
    assert read.shape == array.shape
    native = array.dtype.newbyteorder("=")
    assert read.dtype == native
    assert read.tobytes() == array.astype(native).tobytes()


# --- values come back


@pytest.mark.parametrize("dtype", [*NUMBERS, PLAIN_RECORD], ids=str)
def test_every_dtype_in_chunks(tmp_path, dtype):
    path, array = tmp_path / "x.h5", sample(dtype, (101, 7))
    stored = write(path, "/m", array, cuts=(1, 40), chunks=(16, 3), fletcher32=True)
    with h5py.File(path) as file:
        assert_equal(file["m"][()], array)
        assert file["m"].chunks == (16, 3)
        assert (file["m"].shuffle, file["m"].compression_opts, file["m"].fletcher32) == (
            True,
            1,
            True,
        )
        assert file["m"].id.get_storage_size() == stored
        assert h5py.version.hdf5_version_tuple < (1, 10) or file["m"].id.get_num_chunks() == 7 * 3
    assert Comparison(path).run().differences == []


@st.composite
def layouts(draw):
    shape = tuple(draw(st.lists(st.integers(0, 40), min_size=1, max_size=3)))
    chunks = tuple(draw(st.integers(1, 50)) for _ in shape)
    maxshape = tuple(draw(st.sampled_from([None, n, n + 30])) for n in shape)
    cuts = draw(st.lists(st.integers(0, shape[0]), max_size=4))
    options = {
        "chunks": chunks, "maxshape": draw(st.sampled_from([None, maxshape])),
        "deflate": draw(st.sampled_from([None, 0, 1, 2, 6])),
        "shuffle": draw(st.booleans()), "fletcher32": draw(st.booleans()),
    }  # fmt: skip
    grows = options["maxshape"] is not None and options["maxshape"][0] is None
    if draw(st.booleans()) and (grows or options["maxshape"] is None):
        options["shape"] = (None, *shape[1:])
    return shape, cuts, draw(st.sampled_from(["i4", "f4", "u2", "c16"])), options


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(layouts())
def test_any_layout_comes_back(tmp_path, layout):
    shape, cuts, dtype, options = layout
    path, array = tmp_path / "x.h5", sample(dtype, shape)
    path.unlink(missing_ok=True)
    write(path, "/g/m", array, cuts, **options)
    with h5py.File(path) as file:
        dataset = file["g/m"]
        assert_equal(dataset[()], array)
        limits = options["maxshape"] or options.get("shape", shape)
        for n, chunk, asked, limit, found in zip(
            shape, dataset.chunks, options["chunks"], limits, dataset.maxshape, strict=True
        ):
            assert found == (limit or None)  # an axis of size 0 may grow
            assert chunk == (asked if found is None else min(asked, found)), n
        assert dataset.compression_opts == options["deflate"]
        assert (dataset.shuffle, dataset.fletcher32) == (options["shuffle"], options["fletcher32"])
    assert Comparison(path).run().differences == []


def test_neither_threads_nor_cuts_show_in_the_file(tmp_path):
    array = sample("f4", (50_000, 3))
    plans = [((), 1), ((), 0), ((), 2), ((), 7), (range(0, 50_000, 777), -1), ((1, 49_999), 2)]
    before = scio.get_threads()
    files = set()
    try:
        for i, (cuts, threads) in enumerate(plans):
            scio.set_threads(max(threads, 2))
            path = tmp_path / f"{i}.h5"
            write(path, "/m", array, cuts, threads, chunks=(1000, 2), shape=(None, 3))
            files.add(path.read_bytes())
    finally:
        scio.set_threads(before)
    assert len(files) == 1
    assert len(files.pop()) < array.nbytes / 3


def test_noise_is_stored_with_a_mask_of_zero(tmp_path):
    """Deflate makes it longer; a reader that knows nothing of masks still gets it right."""
    array = np.frombuffer(np.random.default_rng(0).bytes(100_000), "u1")
    for level in (0, 1, 6):
        path = tmp_path / f"{level}.h5"
        assert write(path, "/m", array, chunks=(30_000,), deflate=level) > 100_000
        with h5py.File(path) as file:
            assert_equal(file["m"][()], array)
            assert [file["m"].id.get_chunk_info(i).filter_mask for i in range(4)] == [0] * 4


@pytest.mark.parametrize("columns", [7, 3])
@pytest.mark.parametrize("deflate", [None, 1])
def test_the_edge_is_padded_with_zeros(tmp_path, columns, deflate):
    """Rows that are not there show when somebody makes the dataset longer."""
    path = tmp_path / "x.h5"
    array = np.ones((45, 7), "i4")
    write(path, "/m", array, chunks=(20, columns), shape=(None, 7), deflate=deflate, cuts=(20, 41))
    with h5py.File(path, "r+") as file:
        file["m"].resize((80, 7))
        assert file["m"][()].tolist() == [[1] * 7] * 45 + [[0] * 7] * 35


def test_the_order_of_items_in_memory_does_not_matter(tmp_path):
    array = sample("i4", (60, 50))
    for i, odd in enumerate((array.T.copy().T, array[::-1][::-1], array.astype(">i4"))):
        assert not odd.flags.c_contiguous or odd.dtype.byteorder == ">" or i == 1
        write(tmp_path / f"{i}.h5", "/m", odd, chunks=(16, 16))
        with h5py.File(tmp_path / f"{i}.h5") as file:
            assert_equal(file["m"][()], array)


TEXT_RECORD = np.array(
    [(1, "größe", b"ab", 2 + 1j, [[1, 2], [3, 4]], "o"), (-1, "", b"", 0, [[0, 0]] * 2, "日本")],
    dtype=np.dtype(
        [("n", ">i4"), ("u", "U5"), ("s", "S3"), ("c", "c16"), ("t", "i2", (2, 2)), ("o", "O")],
        align=True,
    ),
)
VALUES = {
    "record": TEXT_RECORD, "empty record": TEXT_RECORD[:0], "lone record": TEXT_RECORD[0],
    "nested": np.array([((1, 2.5), True)], [("p", [("x", "i1"), ("y", "f4")]), ("b", "?")]),
    "bytes": b"abc", "no bytes": b"", "bytes array": np.array([[b"a", b"bcd"]]),
    "complex": 1 - 2j, "half": np.float16(1.5), "lone": np.int16(-3), "truth": np.bool_(True),
    "grid of text": np.array([["a", "größe"], ["", "日本"]], object), "U": np.array(["a", "bc"]),
    "lone text": np.array("größe"), "no text": np.empty((0, 3), object), "words": ["x", ""],
    "big end": np.arange(3, dtype=">u4"), "strided": np.arange(10.0)[::3], "no floats": np.array([]),
    "fortran": np.asfortranarray(np.arange(6, dtype="c8").reshape(2, 3)),
}  # fmt: skip


def assert_same_value(read: object, value: object) -> None:
    expected = np.asarray(value)
    if expected.dtype.names:
        for name in expected.dtype.names:
            assert_same_value(np.asarray(read)[name], expected[name])
    elif expected.dtype.kind in "UO":
        texts = np.asarray(read, dtype=object)
        assert texts.shape == expected.shape
        found = [t.decode() if isinstance(t, bytes) else t for t in texts.reshape(-1).tolist()]
        assert found == expected.reshape(-1).tolist()
    else:
        assert_equal(np.asarray(read), expected)


@pytest.mark.parametrize("name", VALUES)
def test_values_of_every_kind(tmp_path, name):
    path, value = tmp_path / "x.h5", VALUES[name]
    with new_file(path) as writer:
        writer.dataset("/x", value)
        writer.attr("/x", "a", value)
    with h5py.File(path) as file:
        assert_same_value(file["x"][()], value)
        assert_same_value(file["x"].attrs["a"], value)
    assert Comparison(path).run().differences == []


def test_null_and_the_booleans_of_h5py(tmp_path):
    path = tmp_path / "x.h5"
    with new_file(path) as writer:
        writer.dataset("/none", None)
        writer.attr("/none", "none", None)
        writer.attr("/none", "flag", True)
    with h5py.File(path) as file:
        for null in (file["none"][()], file["none"].attrs["none"]):
            assert null == h5py.Empty("f4")
        assert file["none"].attrs["flag"].dtype == bool


def test_h5dump_takes_it_all(tmp_path):
    dump = shutil.which("h5dump")
    assert dump, "hdf5-tools is not installed"
    path = tmp_path / "x.h5"
    with new_file(path) as writer:
        for name, value in VALUES.items():
            writer.dataset(f"/{name}", value)
            writer.attr(f"/{name}", "a", value)
        for dtype in NUMBERS:
            array = sample(dtype, (40, 5))
            dataset = writer.chunked(
                f"/chunked/{dtype}", shape=(None, 5), dtype=dtype, chunks=(16, 2), fletcher32=True
            )
            dataset.append(array)
        writer.chunked("/chunked/empty", shape=(0, 3), dtype="i4", chunks=(5, 5))
    done = subprocess.run([dump, "-p", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.count("COMPRESSION DEFLATE { LEVEL 1 }") == len(NUMBERS) + 1
    assert Comparison(path).run().differences == []


# --- what goes wrong


@pytest.fixture
def writer(tmp_path):
    writer = _h5write.Writer(tmp_path / "x.h5")
    yield writer
    writer.discard()


GRID = {"shape": (4, 3), "dtype": "i4", "chunks": (2, 2)}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"shape": ()}, TypeError, "shape is no tuple of 1 to 8"),
        ({"shape": [4, 3]}, TypeError, "shape is no tuple"),
        ({"shape": (4, None)}, ValueError, r"shape\[1\] is not known"),
        ({"shape": (4, -1)}, ValueError, r"shape\[1\] is -1"),
        ({"chunks": (2,)}, TypeError, "chunks is not a tuple of 2"),
        ({"chunks": (2, None)}, TypeError, "NoneType"),
        ({"chunks": (2, 0)}, ValueError, r"chunks\[1\] is 0"),
        ({"maxshape": (3, 3)}, ValueError, r"maxshape\[0\] is 3, less than shape\[0\], 4"),
        ({"deflate": 10}, ValueError, "deflate is 10"),
        ({"deflate": "gzip"}, TypeError, "str"),
        ({"shuffle": 1}, TypeError, "shuffle is int"),
        ({"dtype": "O"}, TypeError, "text of any length"),
        ({"dtype": "M8[s]"}, TypeError, "dtype datetime64.* is not written"),
        ({"dtype": [("x", "g")]}, TypeError, "dtype .* is not written"),
        (
            {"dtype": "S70000", "shape": (None, 70000), "chunks": (70000, 70000)},
            ValueError,
            "chunk of",
        ),
    ],
)
def test_wrong_options_are_refused_and_harm_nothing(writer, options, error, message):
    with pytest.raises(error, match=message):
        writer.chunked("/x", **{**GRID, **options})
    writer.chunked("/x", **GRID).append(np.zeros((4, 3), "i4"))
    writer.close()


def test_wrong_arrays_are_refused_and_harm_nothing(writer):
    dataset = writer.chunked("/x", **GRID)
    for array, error, message in [
        ([[1, 2, 3]], TypeError, "array is list"),
        (np.zeros(3, "i4"), ValueError, "array has 1 dimensions, the dataset 2"),
        (np.zeros((1, 4), "i4"), ValueError, r"array.shape\[1\] is 4, the dataset's is 3"),
        (np.zeros((1, 3)), TypeError, "array is float64, the dataset is int32"),
        (np.zeros((1, 3), "u4"), TypeError, "array is uint32, the dataset is int32"),
        (np.zeros((5, 3), "i4"), ValueError, "5 rows after 0 are more than the 4 of the dataset"),
    ]:
        with pytest.raises(error, match=message):
            dataset.append(array)
    dataset.append(np.zeros((4, 3), "i4"))
    dataset.finish()
    with pytest.raises(ValueError, match="the dataset was finished"):
        dataset.append(np.zeros((0, 3), "i4"))
    writer.close()
    with pytest.raises(ValueError, match="the writer was closed"):
        dataset.finish()


def test_rows_that_lack_are_an_error_at_the_end(writer):
    dataset = writer.chunked("/x", **GRID)
    dataset.append(np.zeros((3, 3), "i4"))
    with pytest.raises(ValueError, match=r"x\.h5: /x: 3 rows were appended to a dataset of 4"):
        writer.close()


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (np.array([("a",), (3,)], [("o", "O")]), TypeError, "item 1 is int, expected str"),
        (np.array([("a\0b",)], [("o", "O")]), ValueError, "NUL"),
        (np.array(["a", None], object), TypeError, "item 1 is NoneType"),
        (np.array(["\ud800"], object), ValueError, "UTF-8"),
        (np.zeros(2, "M8[s]"), TypeError, "dtype datetime64"),
        (np.zeros(2, "g"), TypeError, "is not written"),
        (np.zeros((1,) * 9), ValueError, "9 dimensions"),
        ({}, TypeError, "value is dict"),
    ],
)
def test_values_without_a_form_are_refused(writer, value, error, message):
    with pytest.raises(error, match=message):
        writer.dataset("/x", value)
    writer.dataset("/x", 1)
    writer.close()


APPEND = """
    import sys
    import numpy as np
    from scio import _h5write
    from scio.errors import IOWriteError
    writer = _h5write.Writer(sys.argv[1])
    noise = np.frombuffer(np.random.default_rng(0).bytes(3 << 20), "u4")
    if sys.argv[2] == "contiguous":
        work = lambda: writer.dataset("/x", np.tile(noise, 8))
    else:
        dataset = writer.chunked("/x", shape=(None,), dtype="u4", chunks=(16384,),
                                 deflate=eval(sys.argv[2]))
        work = lambda: dataset.append(noise)
    for step in (work, work, writer.close):
        try:
            step()
            print("ok")
        except IOWriteError as error:
            print(error.errno, "No space left" in str(error))
    if sys.argv[3:] == ["discard"]:
        writer.discard()
"""


@pytest.mark.parametrize("deflate", ["None", "1", "contiguous"])
def test_a_full_disk_is_an_ordinary_error(tmp_path, deflate):
    folder = tmp_path / "disk"
    folder.mkdir()
    for end in ("discard", "leave it to the end of the process"):
        path = folder / f"{len(end)}.h5"
        done = run(APPEND, path, deflate, end, command=on_tmpfs(folder, "2m"))
        assert done.stdout.split("\n") == ["28 True"] * 3 + [""]


def test_a_process_may_end_with_a_writer_open(tmp_path):
    run(
        """
        import sys
        import numpy as np
        from scio import _h5write
        writer = _h5write.Writer(sys.argv[1])
        dataset = writer.chunked("/x", shape=(None,), dtype="f4", chunks=(1000,))
        dataset.append(np.zeros(5_000_500, "f4"))
        sys.keep = writer, dataset
        """,
        tmp_path / "x.h5",
    )


class Stop(Exception):
    """What a signal handler raises."""


@contextlib.contextmanager
def interrupted_after(seconds: float):
    """A handler raises in the block after some time; it must come out within a second of it."""

    def stop(*_: object) -> None:
        raise Stop

    old = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    begin = time.monotonic()
    try:
        with pytest.raises(Stop):
            yield
        assert time.monotonic() - begin < seconds + 1.5
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


def test_a_long_append_can_be_interrupted(writer):
    array = sample("f4", (4_000_000,))
    dataset = writer.chunked("/x", shape=(None,), dtype="f4", chunks=(16384,), deflate=9)
    with interrupted_after(0.2):
        dataset.append(array)
    with pytest.raises(IOWriteError, match="interrupted"):
        dataset.append(array)
    with pytest.raises(IOWriteError, match="interrupted"):
        writer.close()


# --- threads and processes


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_as_many_threads_as_scio_has(tmp_path, threads):
    """The writer's module has a pool of its own, which follows SCIO_THREADS and set_threads."""
    code = """
        import os, sys
        import numpy as np
        import scio
        from scio import _h5write
        def names():
            return sorted(open(f"/proc/self/task/{t}/comm").read().strip()
                          for t in os.listdir("/proc/self/task"))
        if sys.argv[2] == "set":
            scio.set_threads(int(sys.argv[3]))
        n_before = sum(n.startswith("scio") for n in names())
        writer = _h5write.Writer(sys.argv[1])
        dataset = writer.chunked("/x", shape=(None,), dtype="f4", chunks=(10_000,))
        dataset.append(np.ones(3_000_000, "f4"), threads=0)
        assert sum(n.startswith("scio") for n in names()) == n_before, names()
        dataset.append(np.ones(3_000_000, "f4"))
        print(sum(n.startswith("scio") for n in names()) - n_before)
        writer.close()
    """
    for how in ("set", "environment"):
        env = dict(os.environ, SCIO_THREADS="2" if how == "set" else str(threads))
        done = run(code, tmp_path / f"{how}.h5", how, threads, env=env)
        assert int(done.stdout) == (threads if threads > 1 else 0)  # one thread is the caller's


def test_a_forked_child_writes_with_threads_of_its_own(tmp_path):
    run(
        """
        import os, sys
        import numpy as np
        import h5py
        from scio import _h5write
        def write(path):
            writer = _h5write.Writer(path)
            writer.chunked("/x", shape=(None,), dtype="i4", chunks=(999,)).append(np.arange(10**6, dtype="i4"))
            writer.close()
        write(sys.argv[1] + "/parent.h5")
        pid = os.fork()
        if pid == 0:
            write(sys.argv[1] + "/child.h5")
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        a, b = (open(f"{sys.argv[1]}/{n}.h5", "rb").read() for n in ("parent", "child"))
        assert a == b
        """,
        tmp_path,
    )


def test_forks_in_the_middle_of_an_append(tmp_path):
    """No child inherits libhdf5's lock, or ours, from a thread that it does not have."""
    run(
        """
        import os, signal, sys, threading
        import numpy as np
        from scio import _h5write
        signal.alarm(60)
        def write(path, n):
            writer = _h5write.Writer(path)
            dataset = writer.chunked("/x", shape=(None,), dtype="i4", chunks=(64,), deflate=None)
            dataset.append(np.arange(n, dtype="i4"))
            writer.close()
        thread = threading.Thread(target=write, args=(sys.argv[1] + "/long.h5", 6_000_000))
        thread.start()
        n_during = 0
        for i in range(20):
            pid = os.fork()
            if pid == 0:
                signal.alarm(10)
                write(f"{sys.argv[1]}/{i}.h5", 1000)
                os._exit(0)
            n_during += thread.is_alive()
            assert os.waitpid(pid, 0)[1] == 0
        thread.join()
        assert n_during > 2, n_during
        """,
        tmp_path,
    )
    with h5py.File(tmp_path / "long.h5") as file:
        assert_equal(file["x"][()], np.arange(6_000_000, dtype="i4"))


def test_one_thread_at_a_time_and_h5py_beside_it(tmp_path):
    array = sample("i4", (2_000_000,))
    stop = threading.Event()

    def use_h5py() -> None:
        i = 0
        while not stop.is_set() and i < 200:
            with h5py.File(tmp_path / "h5py.h5", "w") as file:
                file.create_dataset("x", data=array[:50_000], compression="gzip")
            i += 1

    writer = _h5write.Writer(tmp_path / "x.h5")
    dataset = writer.chunked("/x", shape=array.shape, dtype="i4", chunks=(4096,), deflate=6)
    other, appending = (
        threading.Thread(target=f) for f in (use_h5py, lambda: dataset.append(array))
    )
    other.start()
    appending.start()
    time.sleep(0.02)
    with pytest.raises(ValueError, match="at work in another thread"):
        dataset.append(array[:1])  # 8 MB at level 6 take longer than this
    appending.join()
    stop.set()
    other.join()
    writer.close()
    with h5py.File(tmp_path / "x.h5") as file:
        assert_equal(file["x"][()], array)
