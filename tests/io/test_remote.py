"""URLs and file objects: equal values, few requests, several at once, errors, pickles."""

from __future__ import annotations

import asyncio
import functools
import http.server
import io
import pickle
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import anndata
import fsspec
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata.tests.helpers import assert_equal
from fsspec.asyn import AsyncFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

import scio
from scio.errors import CorruptFileError, IOFormatError, MissingDependencyError
from scio.io import HDF5File
from scio.io.remote import BlockCache, cache_nbytes, shown_url
from tests.io.test_tenx import MATRIX, write_v3

N_COLUMNS = 100


@pytest.fixture(scope="module")
def adata() -> anndata.AnnData:
    """A file of 8 MB: far longer than what one request brings while opening it."""
    rng = np.random.default_rng(0)
    n_cells = 20_000
    x = sp.random(n_cells, 1000, 0.03, "csr", np.float32, rng)
    kinds = [
        lambda: pd.Categorical(rng.choice(["a", "b", "c"], n_cells)),
        lambda: rng.random(n_cells, dtype=np.float32),
        lambda: rng.integers(0, 99, n_cells),
    ]
    obs = {f"column {i}": kinds[i % 3]() for i in range(N_COLUMNS)}
    index = pd.Index([f"cell {i}" for i in range(n_cells)])
    return anndata.AnnData(x, obs=pd.DataFrame(obs, index=index))


@pytest.fixture(scope="module")
def path(adata: anndata.AnnData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("remote") / "x.h5ad"
    adata.write_h5ad(path, compression="gzip")
    assert path.stat().st_size > 8_000_000
    return path


def check(f: scio.io.AnnDataFile, adata: anndata.AnnData) -> None:
    assert f.shape == adata.shape
    assert (f.X.read().to_scipy() != adata.X).nnz == 0
    rows = np.random.default_rng(1).integers(0, adata.n_obs, 50)
    assert (f.X[rows].to_scipy() != adata.X[rows]).nnz == 0
    np.testing.assert_array_equal(f.obs_names, adata.obs_names)
    for name in f.obs.columns[:6]:
        np.testing.assert_array_equal(np.asarray(f.obs[name]), np.asarray(adata.obs[name]))


# --- how many requests


class Counting(io.BytesIO):
    """A file object that remembers its reads."""

    name = "counting.h5ad"

    def __init__(self, image: bytes) -> None:
        super().__init__(image)
        self.lengths: list[int] = []

    def read(self, size: int | None = -1) -> bytes:
        out = super().read(size)
        if size:
            self.lengths.append(len(out))
        return out


def read_metadata(f: scio.io.AnnDataFile) -> None:
    """All that a listing of the file shows: encoding of every column, matrices, names of cells."""
    assert len(f.obs.columns) == N_COLUMNS
    for name in f.obs.columns:
        encoding, _ = f.obs.string_encoding(name)
        assert encoding in {"categorical", "array"}
    assert f.X.nnz > 0
    assert len(f.obs_names) == f.n_obs


def test_metadata_of_100_columns_takes_under_20_requests(path, adata):
    source = Counting(path.read_bytes())
    f = scio.open(source)
    n_to_open = len(source.lengths)
    assert n_to_open <= 8
    read_metadata(f)
    assert len(source.lengths) < 20
    assert len(source.lengths) == f.file.remote.n_requests
    assert sum(source.lengths) == f.file.remote.nbytes_fetched
    check(f, adata)
    assert max(source.lengths) <= 8 << 20
    f.close()


class SlowFileSystem(AsyncFileSystem):
    """One file; every request takes 50 ms, whatever it asks for, and any number run at once."""

    protocol = "slow"
    cachable = False
    image: bytes = b""
    requests: list[tuple[float, float, int]] = []  # noqa: RUF012  one file for all instances

    async def _info(self, path, **_kwargs):
        await asyncio.sleep(0.05)
        return {"name": path, "size": len(self.image), "type": "file", "ETag": "1"}

    async def _cat_file(self, path, start=None, end=None, **_kwargs):
        begin = time.monotonic()
        await asyncio.sleep(0.05)
        self.requests.append((begin, time.monotonic(), end - start))
        return self.image[start:end]


@pytest.fixture
def slow(path: Path) -> Iterator[list[tuple[float, float, int]]]:
    fsspec.register_implementation("slow", SlowFileSystem, clobber=True)
    SlowFileSystem.image = path.read_bytes()
    SlowFileSystem.requests.clear()
    yield SlowFileSystem.requests
    SlowFileSystem.image = b""


def most_at_once(requests: list[tuple[float, float, int]]) -> int:
    events = sorted([(b, 1) for b, _, _ in requests] + [(e, -1) for _, e, _ in requests])
    return int(np.cumsum([change for _, change in events]).max())


def test_a_50_ms_link_has_several_requests_under_way(slow, adata):
    begin = time.monotonic()
    with scio.open("slow://x.h5ad") as f:
        read_metadata(f)
        n_metadata, seconds = len(slow), time.monotonic() - begin
        assert n_metadata < 20
        assert seconds < 20 * 0.05 + 2  # a busy machine adds to it
        check(f, adata)
    assert most_at_once(slow) >= 2
    assert max(nbytes for _, _, nbytes in slow) <= 8 << 20
    serial = sum(end - begin for begin, end, _ in slow)
    spans = sorted((begin, end) for begin, end, _ in slow)
    busy, until = 0.0, 0.0
    for start, end in spans:
        busy += max(0.0, end - max(start, until))
        until = max(until, end)
    assert busy < 0.9 * serial  # time with at least one under way, against one after the other


def test_read_h5ad_over_a_slow_link(slow, adata):
    got = scio.read_h5ad("slow://x.h5ad")
    assert_equal(got, adata)
    n_whole, nbytes = len(slow), sum(n for _, _, n in slow)
    assert nbytes < 1.2 * len(SlowFileSystem.image)
    assert n_whole < 60
    assert most_at_once(slow) >= 2
    slow.clear()
    part = scio.read_h5ad("slow://x.h5ad", elements=["obs/column 1"])
    np.testing.assert_array_equal(part.obs["column 1"], adata.obs["column 1"])
    assert len(slow) < 20


def test_reading_on_takes_ever_longer_requests():
    image = np.random.default_rng(0).bytes(40 << 20)
    lengths: list[int] = []

    def fetch(offset: int, nbytes: int) -> bytes:
        lengths.append(nbytes)
        return image[offset : offset + nbytes]

    for n_parallel in (1, 4):
        lengths.clear()
        cache = BlockCache(fetch, len(image), name="x", n_parallel=n_parallel)
        step = 100_000
        for offset in range(0, len(image) - step, step):
            assert cache.read(offset, step) == image[offset : offset + step]
        assert len(lengths) < 16  # 420 reads
        assert max(lengths) == 8 << 20
        cache.close()


# --- the cache of blocks against plain bytes


@given(
    reads=st.lists(st.tuples(st.integers(0, 4999), st.integers(0, 700)), max_size=60),
    n_parallel=st.sampled_from([1, 3]),
    max_blocks=st.integers(0, 40),
)
@settings(max_examples=60, deadline=None)
def test_any_reads_give_the_bytes(reads, n_parallel, max_blocks):
    image = bytes(np.random.default_rng(5).integers(0, 256, 5000, dtype=np.uint8))
    asked: list[tuple[int, int]] = []

    def fetch(offset: int, nbytes: int) -> bytes:
        asked.append((offset, nbytes))
        return image[offset : offset + nbytes]

    cache = BlockCache(
        fetch, len(image), name="x", n_parallel=n_parallel,
        block_nbytes=64, request_nbytes=256, max_nbytes=64 * max_blocks,
    )  # fmt: skip
    for offset, length in reads:
        nbytes = min(length, len(image) - offset)
        assert bytes(cache.read(offset, nbytes)) == image[offset : offset + nbytes]
        assert cache.held_nbytes <= 64 * max_blocks
    cache.close()
    assert all(offset % 64 == 0 and 0 < nbytes <= 256 for offset, nbytes in asked)


@pytest.mark.parametrize("n_parallel", [1, 4])
def test_many_threads_at_once(n_parallel):
    image = np.random.default_rng(2).bytes(200_000)
    n_wrong: list[int] = []

    def fetch(offset: int, nbytes: int) -> bytes:
        time.sleep(0.0002)
        return image[offset : offset + nbytes]

    cache = BlockCache(
        fetch, len(image), name="x", n_parallel=n_parallel,
        block_nbytes=512, request_nbytes=4096, max_nbytes=16 << 10,
    )  # fmt: skip

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for offset in rng.integers(0, 190_000, 150).tolist():
            nbytes = int(rng.integers(1, 9000))
            if bytes(cache.read(offset, nbytes)) != image[offset : offset + nbytes]:
                n_wrong.append(offset)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert n_wrong == []
    assert cache.held_nbytes <= 16 << 10
    assert cache._coming == {}
    cache.close()


def test_a_block_that_several_wait_for_is_fetched_once():
    asked: list[int] = []
    may_go = threading.Event()

    def fetch(offset: int, nbytes: int) -> bytes:
        asked.append(offset)
        may_go.wait(20)
        return bytes(nbytes)

    cache = BlockCache(fetch, 100, name="x", n_parallel=1, block_nbytes=128)
    threads = [threading.Thread(target=cache.read, args=(0, 10)) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    may_go.set()
    for thread in threads:
        thread.join(20)
    assert asked == [0]


@pytest.mark.parametrize("n_parallel", [1, 3])
def test_a_request_that_fails_is_told_and_tried_again(n_parallel):
    faults: list[BaseException | None] = [OSError("the line is down"), ConnectionError("gone")]

    def fetch(offset: int, nbytes: int) -> bytes:
        if faults:
            raise faults.pop()
        return bytes(nbytes)

    cache = BlockCache(fetch, 64, name="x", n_parallel=n_parallel, block_nbytes=64)
    for text in ("gone", "the line is down"):
        with pytest.raises(OSError, match=text):
            cache.read(0, 10)
    assert cache.read(0, 10) == bytes(10)
    cache.close()
    with pytest.raises(ValueError, match="x was closed"):
        cache.read(0, 10)


def test_a_short_answer_is_an_error():
    cache = BlockCache(lambda offset, nbytes: bytes(nbytes - 1), 1000, name="x.h5ad", n_parallel=1)
    with pytest.raises(OSError, match=r"x\.h5ad: bytes 0 to 1000 wanted, 999 came$"):
        cache.read(0, 10)
    with pytest.raises(OSError, match="999 came"):
        HDF5File(_Lying(b"x" * 1000))


class _Lying(io.BytesIO):
    def read(self, size: int | None = -1) -> bytes:
        return super().read(size)[:-1]


# --- a real server


class _Handler(http.server.BaseHTTPRequestHandler):
    """Serves files of one folder, with ranges unless the path begins with /whole."""

    def __init__(self, *args, folder: Path, log: list[str]) -> None:
        self.folder, self.log = folder, log
        super().__init__(*args)

    def do_HEAD(self):
        self._answer(with_body=False)

    def do_GET(self):
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        name = self.path.partition("?")[0].rpartition("/")[2]
        target = self.folder / name
        if not target.is_file():
            self.send_error(404)
            return
        body = target.read_bytes()
        wanted = self.headers.get("Range")
        self.log.append(f"{self.command} {wanted}")
        if wanted is None or self.path.startswith("/whole"):
            self.send_response(200)
        else:
            first, last = wanted.removeprefix("bytes=").split("-")
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(body)}")
            body = body[int(first) : int(last) + 1]
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{target.stat().st_mtime_ns}"')
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, *_args) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def server(path: Path) -> Iterator[tuple[str, list[str]]]:
    log: list[str] = []
    handler = functools.partial(_Handler, folder=path.parent, log=log)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}", log
        running.shutdown()
        thread.join(20)


def test_over_http(server, path, adata):
    url, log = server
    log.clear()
    with scio.open(f"{url}/x.h5ad?token=secret") as f:
        read_metadata(f)
        assert 0 < sum(entry.startswith("GET") for entry in log) < 20
        check(f, adata)
        assert_equal(scio.read_h5ad(f), adata)
        assert f.name == f"{url}/x.h5ad"  # the query may be a secret
        again = pickle.loads(pickle.dumps(f))
        assert again.file is not f.file
        check(again, adata)
        again.close()
    assert len(log) < 80  # 60 % of 8 MB twice, by far fewer requests than chunks


def test_10x_over_http(server, path):
    url, _ = server
    write_v3(path.parent / "tenx.h5")
    adata = scio.read_10x_h5(f"{url}/tenx.h5", gex_only=False)
    np.testing.assert_array_equal(adata.X.toarray(), MATRIX.toarray())
    image = (path.parent / "tenx.h5").read_bytes()
    (path.parent / "short.h5").write_bytes(image[:-100])
    with pytest.raises(CorruptFileError, match=r"short\.h5.*truncated"):
        scio.read_10x_h5(f"{url}/short.h5")


def test_a_server_without_ranges_or_without_the_file(server):
    url, _ = server
    with pytest.raises(OSError, match="the server does not know ranges"):
        scio.open(f"{url}/whole/x.h5ad")
    with pytest.raises(FileNotFoundError):
        scio.open(f"{url}/missing.h5ad")
    with pytest.raises(OSError, match=r"127\.0\.0\.1:9/x"):  # nobody listens there
        scio.open("http://127.0.0.1:9/x.h5ad")


def test_a_file_that_was_replaced_is_not_taken_for_the_old_one(server, path, tmp_path):
    url, _ = server
    target = path.parent / "changing.h5ad"
    anndata.AnnData(np.eye(3, dtype=np.float32)).write_h5ad(target)
    text = pickle.dumps(scio.open(f"{url}/changing.h5ad"))
    anndata.AnnData(np.ones((3, 3), dtype=np.float32)).write_h5ad(target)
    with pytest.raises(IOFormatError, match="replaced"):
        pickle.loads(text)


# --- other ways to name a file


def test_urls_of_fsspec_and_its_objects(path, adata):
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/folder/x.h5ad", path.read_bytes())
    sources = [
        "memory://folder/x.h5ad",
        fsspec.open("memory://folder/x.h5ad"),
        path.as_uri(),
        fsspec.open(str(path)),
    ]
    for source in sources:
        f = scio.open(source)
        check(f, adata)
        check(pickle.loads(pickle.dumps(f)), adata)
    assert scio.open(path.as_uri()).file.remote is None  # a local file is read as one
    with fsspec.open("memory://folder/x.h5ad") as stream:
        check(scio.open(stream), adata)
    memory.rm("/folder", recursive=True)
    with pytest.raises(FileNotFoundError):
        scio.open("memory://folder/x.h5ad")


def test_a_compressed_file_is_read_through_its_object(path, tmp_path):
    import gzip

    small = write_v3(tmp_path / "x.h5")
    (tmp_path / "x.h5.gz").write_bytes(gzip.compress(small.read_bytes()))
    adata = scio.read_10x_h5(fsspec.open(str(tmp_path / "x.h5.gz"), compression="gzip"))
    assert adata.shape == (3, 3)


def test_what_is_missing_is_named(monkeypatch):
    fsspec.register_implementation(
        "ghost", "no_such_module.FileSystem", clobber=True, errtxt="Install ghostfs"
    )
    with pytest.raises(MissingDependencyError, match=r"ghost://x needs .* Install ghostfs"):
        scio.open("ghost://x")
    with pytest.raises(ValueError, match=r"spook://x cannot be opened: .*spook"):
        scio.open("spook://x")
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'scio\[remote\]'"):
        scio.open("s3://bucket/x.h5ad")


def test_names_do_not_tell_secrets():
    assert shown_url("https://user:word@host/a/b.h5ad?X-Sig=1#x") == "https://host/a/b.h5ad"
    assert shown_url("s3://bucket/a@b.h5ad") == "s3://bucket/a@b.h5ad"


def test_the_size_of_the_cache_is_a_setting(monkeypatch):
    assert cache_nbytes() == 64 << 20
    monkeypatch.setenv("SCIO_REMOTE_CACHE_MB", "8")
    assert cache_nbytes() == 8 << 20
    monkeypatch.setenv("SCIO_REMOTE_CACHE_MB", "8MB")
    with pytest.raises(ValueError, match="SCIO_REMOTE_CACHE_MB is '8MB', expected a whole number"):
        cache_nbytes()
