"""Reading what is no local file: fsspec URLs and binary file objects, through a cache of blocks.

The core asks for many small pieces of metadata and for runs of chunks; over a network each request
costs tens of milliseconds whatever its size.  So blocks are fetched whole, kept, and read ahead where
reading goes on in order; several requests run at once where the file system can do that.
"""

from __future__ import annotations

import os
import re
import threading
import urllib.parse
import urllib.request
import zlib
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from scio._optional import require
from scio.errors import MissingDependencyError, UnsupportedError

BLOCK_NBYTES = 256 << 10  # as long as the core's own blocks of metadata
REQUEST_NBYTES = 8 << 20  # the most that one request asks for
CACHE_MB = 64  # kept of one source, unless SCIO_REMOTE_CACHE_MB says otherwise
N_PARALLEL = 8  # requests at once
_TAIL_BLOCKS = 4  # fetched when opening: writers put tables of contents last
_N_STREAMS = 32
_SKIPPED_BLOCKS = 4  # what a stream may leave out: fetching them takes less than a request
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(://|::)")
# what file systems call the thing that changes when the file does
_VERSIONS = ("ETag", "etag", "LastModified", "last_modified", "mtime", "created")

Fetch = Callable[[int, int], bytes]


def cache_nbytes() -> int:
    """Bytes that are kept of each remote source: SCIO_REMOTE_CACHE_MB, 64 MiB without it; 0 is none.

    Raises
    ------
    ValueError
        If the variable is no number.
    """
    text = os.environ.get("SCIO_REMOTE_CACHE_MB", str(CACHE_MB))
    if not text.isdecimal():
        message = f"SCIO_REMOTE_CACHE_MB is {text!r}, expected a whole number of MiB"
        raise ValueError(message)
    return int(text) << 20


@dataclass(frozen=True, slots=True)
class RemotePath:
    """A path on an fsspec file system; pickles as the file system does."""

    fs: Any
    path: str

    @property
    def name(self) -> str:
        """The path with its protocol."""
        return shown_url(str(self.fs.unstrip_protocol(self.path)))


def is_url(source: Any) -> bool:
    """Whether a source is text that names a protocol: "s3://…", "simplecache::https://…"."""
    return isinstance(source, str) and _URL.match(source) is not None


def shown_url(url: str) -> str:
    """Give the URL for messages: without user, password and query, which may hold secrets."""
    head, separator, rest = url.rpartition("://")
    if not separator:
        return url
    rest = rest.partition("?")[0].partition("#")[0]
    host, slash, path = rest.partition("/")
    return f"{head}://{host.rpartition('@')[2]}{slash}{path}"


def resolve(source: Any) -> Any:
    """Bring a source to one of the forms that are opened and pickled.

    Parameters
    ----------
    source : str, Path, URL, bytes-like, fsspec ``OpenFile`` or file, UPath, or file object

    Returns
    -------
    str, bytes-like, RemotePath or file object
        An absolute path for what is local, ``file://`` too; a URL as it came.
    """
    if is_url(source):
        parts = urllib.parse.urlsplit(source)
        if parts.scheme.lower() != "file" or "::" in source:
            return source
        return os.path.abspath(urllib.request.url2pathname(parts.path))
    fs, path = getattr(source, "fs", None), getattr(source, "path", None)
    if fs is not None and isinstance(path, str) and hasattr(fs, "cat_file"):
        if getattr(source, "compression", None) is not None:
            return source.open() if hasattr(source, "open") else source
        if _is_local(fs):
            return os.path.abspath(path)
        if getattr(fs, "async_impl", False) or not hasattr(source, "read"):
            return RemotePath(fs, path)
    if isinstance(source, (str, os.PathLike)):
        return os.path.abspath(os.fsdecode(source))  # a later chdir must not lead elsewhere
    return source


def _is_local(fs: Any) -> bool:
    protocol = fs.protocol
    return "file" in ((protocol,) if isinstance(protocol, str) else protocol)


def open_url(url: str) -> RemotePath:
    """Find the file system of a URL.

    Raises
    ------
    MissingDependencyError
        If fsspec, or what it needs for this protocol, is not installed.
    ValueError
        If fsspec does not know the protocol.
    """
    fsspec = require("fsspec", f"reading {shown_url(url)}")
    try:
        fs, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        message = f"{shown_url(url)} needs a library that is not installed: {error}"
        raise MissingDependencyError(message) from error
    except ValueError as error:
        message = f"{shown_url(url)} cannot be opened: {error}"
        raise ValueError(message) from error
    return RemotePath(fs, path)


def open_remote(source: str | RemotePath) -> BlockCache:
    """Open a URL for reading at offsets.

    Raises
    ------
    OSError
        If it cannot be reached; FileNotFoundError and PermissionError where the protocol says so.
    UnsupportedError
        If the server does not say how long the file is.
    """
    remote = open_url(source) if isinstance(source, str) else source
    fs, path = remote.fs, remote.path
    name = shown_url(source) if isinstance(source, str) else remote.name
    info = _ask(name, fs.info, path)
    if info.get("type") == "directory":
        raise IsADirectoryError(None, "is a directory", name)
    nbytes = info.get("size")
    if nbytes is None:
        message = (
            f"{name}: the server does not say how long the file is, so no part of it can be read"
        )
        raise UnsupportedError(message)
    version = [str(info[key]) for key in _VERSIONS if info.get(key) is not None]
    return BlockCache(
        lambda offset, count: bytes(_ask(name, fs.cat_file, path, offset, offset + count)),
        int(nbytes),
        name=name,
        version=zlib.crc32(repr(version).encode()),
        n_parallel=N_PARALLEL if getattr(fs, "async_impl", False) else 1,
    )


def _ask(name: str, function: Callable[..., Any], *args: Any) -> Any:
    try:
        return function(*args)
    except OSError as error:
        if type(error).__module__ == "builtins":
            raise
        message = f"{name}: {type(error).__name__}: {error}"
        raise OSError(message) from error
    except Exception as error:  # libraries of protocols have exceptions of their own
        message = f"{name}: {type(error).__name__}: {error}"
        raise OSError(message) from error


def open_object(source: Any, name: str) -> BlockCache:
    """Open a binary file object; it is read under a lock, by whichever thread needs a block.

    Raises
    ------
    TypeError
        If it is no binary file object.
    """
    if not all(hasattr(source, method) for method in ("read", "seek", "tell")):
        message = (
            "a file is given as a path, a URL, as bytes or as a binary file object with read, seek "
            f"and tell, not as {type(source).__name__}"
        )
        raise TypeError(message)
    empty = source.read(0)
    if not isinstance(empty, bytes):
        message = f"{name} gives {type(empty).__name__}, not bytes: open it in binary mode"
        raise TypeError(message)
    lock = threading.Lock()
    with lock:
        source.seek(0, os.SEEK_END)
        nbytes = source.tell()

    def fetch(offset: int, count: int) -> bytes:
        with lock:
            source.seek(offset)
            pieces = []
            while count > 0:
                piece = source.read(count)
                if not piece:
                    break
                pieces.append(piece)
                count -= len(piece)
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    return BlockCache(fetch, nbytes, name=name, n_parallel=1)


class _Run:
    """Neighbouring blocks that one request fetches; the future gives them as a list of bytes."""

    __slots__ = ("blocks", "start", "stop")

    def __init__(self, start: int, stop: int) -> None:
        self.start, self.stop = start, stop
        self.blocks: Future[list[bytes]] = Future()


class BlockCache:
    """Reads at offsets of something slow, through aligned blocks; any number of threads.

    Parameters
    ----------
    fetch : callable
        ``fetch(offset, nbytes) -> bytes``; called by several threads when `n_parallel` > 1.
    nbytes : int
        Length of the whole.
    name : str
        For messages.
    version : int
        Something that changes when the content does.
    n_parallel : int
        Requests at once; with 1 the thread that needs a block fetches it, and what is read ahead
        lengthens its request.
    block_nbytes, request_nbytes, max_nbytes : int
        Length of a block, most of a request, most that is kept (None: `cache_nbytes`).

    Attributes
    ----------
    n_requests, nbytes_fetched : int
        What was asked for so far.
    """

    def __init__(
        self,
        fetch: Fetch,
        nbytes: int,
        *,
        name: str,
        version: int = 0,
        n_parallel: int = N_PARALLEL,
        block_nbytes: int = BLOCK_NBYTES,
        request_nbytes: int = REQUEST_NBYTES,
        max_nbytes: int | None = None,
    ) -> None:
        self.nbytes = nbytes
        self.name = name
        self.identity = (nbytes, version, 0)
        self.n_requests = 0
        self.nbytes_fetched = 0
        self._fetch = fetch
        self._block_nbytes = block_nbytes
        self._n_blocks = -(-nbytes // block_nbytes)
        self._run_blocks = max(1, request_nbytes // block_nbytes)
        self._max_nbytes = cache_nbytes() if max_nbytes is None else max_nbytes
        # what is read ahead must still be there when it is wanted
        self._ahead_blocks = min(self._run_blocks, self._max_nbytes // block_nbytes // 4)
        self._pool = ThreadPoolExecutor(n_parallel, "scio-remote") if n_parallel > 1 else None
        self._lock = threading.Lock()
        # under the lock:
        self._blocks: OrderedDict[int, bytes] = OrderedDict()  # the least recently used first
        self._held_nbytes = 0
        self._coming: dict[int, _Run] = {}
        # block -> (from where, how many): what to read ahead once that block is touched
        self._streams: OrderedDict[int, tuple[int, int]] = OrderedDict()
        self._closed = False
        if self._pool is not None and self._ahead_blocks > 0:
            with self._lock:
                tail = self._missing(max(1, self._n_blocks - _TAIL_BLOCKS), self._n_blocks)
            self._start(tail)

    @property
    def held_nbytes(self) -> int:
        """Bytes of the blocks that are kept."""
        return self._held_nbytes

    def close(self) -> None:
        """Let go of blocks and threads; requests under way end unheard."""
        with self._lock:
            self._closed = True
            self._blocks.clear()
            self._held_nbytes = 0
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def read(self, offset: int, nbytes: int) -> bytes | memoryview:
        """Read ``[offset, offset + nbytes)``, which lies inside the file.

        Raises
        ------
        OSError
            If a request fails or gives another number of bytes.
        """
        if nbytes == 0:
            return b""
        size = self._block_nbytes
        first, stop = offset // size, (offset + nbytes - 1) // size + 1
        with self._lock:
            if self._closed:
                message = f"{self.name} was closed"
                raise ValueError(message)
            found = {i: self._blocks[i] for i in range(first, stop) if i in self._blocks}
            for i in found:
                self._blocks.move_to_end(i)
            others = {self._coming[i] for i in range(first, stop) if i in self._coming}
            needed, ahead = self._plan(first, stop)
        self._start(needed[1:] + ahead)
        if needed:
            self._run(needed[0])
        for run in {*others, *needed}:
            found.update(zip(range(run.start, run.stop), run.blocks.result(), strict=True))
        begin = offset - first * size
        if stop - first == 1:
            return memoryview(found[first])[begin : begin + nbytes]
        end = offset + nbytes - (stop - 1) * size
        pieces = [found[i] for i in range(first, stop)]
        pieces[0], pieces[-1] = pieces[0][begin:], pieces[-1][:end]
        return b"".join(pieces)

    # --- what to fetch (under the lock)

    def _plan(self, first: int, stop: int) -> tuple[list[_Run], list[_Run]]:
        """Runs that the reader waits for, and runs that it will want if it goes on like this.

        A stream is known by the block where it would go on.  Each time it does, or skips a little,
        twice as much is read ahead: while the reader works, or as a longer request when it has to
        fetch itself.
        """
        lacking = [i for i in range(first, stop) if i not in self._blocks]
        if self._pool is None:
            if not lacking:
                return [], []
            _, n_blocks = self._stream_at(lacking[0], lacking[0] + 1) or (stop, 0)
            most = max(stop, lacking[0] + self._run_blocks)  # one request in all
            end = self._next_missing(min(stop + n_blocks, most))
            self._watch(end, end, n_blocks)
            return self._missing(first, end, until=stop), []
        needed = self._missing(first, stop)
        stream = self._stream_at(first, stop)
        if stream is None:
            if needed:
                self._watch(stop, stop, 0)
            return needed, []
        begin, n_blocks = max(stream[0], stop), stream[1]
        self._watch(begin, begin + n_blocks, n_blocks)
        return needed, self._missing(begin, min(begin + n_blocks, self._n_blocks))

    def _stream_at(self, first: int, stop: int) -> tuple[int, int] | None:
        """Take the stream that goes on in [first, stop): from where and how much to read ahead."""
        for block in self._streams:
            if first - _SKIPPED_BLOCKS <= block < stop:
                return self._streams.pop(block)
        return None

    def _watch(self, block: int, begin: int, n_blocks: int) -> None:
        """When `block` is touched, read ahead from `begin`, twice as many blocks as this time."""
        self._streams[block] = (begin, min(max(1, 2 * n_blocks), self._ahead_blocks))
        if len(self._streams) > _N_STREAMS:
            self._streams.popitem(last=False)

    def _next_missing(self, block: int) -> int:
        while block in self._blocks or block in self._coming:
            block += 1
        return min(block, self._n_blocks)

    def _missing(self, first: int, stop: int, until: int | None = None) -> list[_Run]:
        """Runs of the blocks that are neither here nor coming, which come from now on.

        With `until`, none that begins there or later: the rest is only worth a longer request.
        """
        runs: list[_Run] = []
        for i in range(first, stop):
            if i in self._blocks or i in self._coming:
                continue
            last = runs[-1] if runs else None
            if last is not None and last.stop == i and i - last.start < self._run_blocks:
                last.stop = i + 1
            elif until is None or i < until:
                last = _Run(i, i + 1)
                runs.append(last)
            else:
                break
            self._coming[i] = last
        return runs

    # --- fetching

    def _start(self, runs: list[_Run]) -> None:
        for run in runs:
            if self._pool is None:
                self._run(run)
                continue
            try:
                self._pool.submit(self._run_quietly, run)
            except RuntimeError as error:  # closed meanwhile
                self._give_up(run, error)

    def _run_quietly(self, run: _Run) -> None:
        """Run, in a thread of the pool: whoever waits gets the error from the future."""
        try:
            self._run(run)
        except Exception:
            return

    def _run(self, run: _Run) -> None:
        """Fetch one run; whoever waits for it gets the blocks, or the error."""
        size = self._block_nbytes
        offset = run.start * size
        wanted = min(run.stop * size, self.nbytes) - offset
        try:
            data = self._fetch(offset, wanted)
            if len(data) != wanted:
                message = (
                    f"{self.name}: bytes {offset} to {offset + wanted} wanted, {len(data)} came"
                    + (": the server does not know ranges" if len(data) == self.nbytes else "")
                )
                raise OSError(message)
        except BaseException as error:
            self._give_up(run, error)
            raise
        blocks = [data[at : at + size] for at in range(0, wanted, size)]
        with self._lock:
            self.n_requests += 1
            self.nbytes_fetched += wanted
            for i, block in enumerate(blocks, run.start):
                self._coming.pop(i, None)
                self._keep(i, block)
        run.blocks.set_result(blocks)

    def _keep(self, i: int, block: bytes) -> None:
        if self._closed:
            return
        self._blocks[i] = block
        self._held_nbytes += len(block)
        while self._held_nbytes > self._max_nbytes:
            self._held_nbytes -= len(self._blocks.popitem(last=False)[1])

    def _give_up(self, run: _Run, error: BaseException) -> None:
        with self._lock:
            for i in range(run.start, run.stop):
                self._coming.pop(i, None)
        if not isinstance(error, Exception):  # an interrupt is of the thread that got it
            error = OSError(f"{self.name}: reading was interrupted")
        run.blocks.set_exception(error)
