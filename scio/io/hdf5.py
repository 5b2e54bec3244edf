"""One HDF5 file, read by scio's own parser: picklable, fork-safe, values as NumPy arrays."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scio import _core
from scio._names import near_names
from scio.errors import CorruptFileError, IOFormatError, KeyNotFoundError, UnsupportedError
from scio.io import _values
from scio.io.remote import (
    BlockCache,
    RemotePath,
    is_url,
    open_object,
    open_remote,
    resolve,
    shown_url,
)


class HDF5File:
    """An HDF5 file opened for reading.

    Parameters
    ----------
    source : str, Path, URL, bytes-like or binary file object
        A path; a URL that fsspec knows (or its ``OpenFile``, or a file of it); an image of a file in
        memory; or an object with ``read``, ``seek`` and ``tell``, which must stay open and is read
        under a lock.
    salvage : bool
        Open what is left of a truncated file, too: what lies beyond its end fails when it is read.

    Attributes
    ----------
    remote : BlockCache or None
        What counts the requests when the source is a URL or an object.

    Notes
    -----
    A pickle carries the path or URL only, and a process that was forked opens the file again by it,
    so no descriptor is shared.  Files in memory travel as their bytes; file objects do not pickle.
    Methods may be called from any thread.
    """

    def __init__(self, source: Any, *, salvage: bool = False) -> None:
        self._source = resolve(source)
        self._is_salvage = salvage
        self.name = _source_name(self._source)
        self._core: _core.File | None = None
        self.remote: BlockCache | None = None
        self._pid = -1
        self._identity: tuple[int, int, int] | None = None
        self._closed = False
        self.core  # noqa: B018  opening reports a bad file at once

    @property
    def core(self) -> _core.File:
        """The parser's handle in this process."""
        if self._closed:
            message = f"{self.name} was closed"
            raise ValueError(message)
        if self._core is None or self._pid != os.getpid():
            core, remote = _open_core(self._source, self.name, self._is_salvage)
            identity = core.identity if remote is None else remote.identity
            if self._identity is not None and identity != self._identity:
                message = f"{self.name} was replaced since it was opened: size or time changed"
                raise IOFormatError(message)
            self._core, self.remote, self._pid, self._identity = core, remote, os.getpid(), identity
        return self._core

    @property
    def identity(self) -> tuple[int, int, int]:
        """Size in bytes, modification time in ns, inode, as found when it was opened.

        Of something remote: size, a number that stands for its version (ETag, time …), 0.
        """
        core = self.core
        return core.identity if self.remote is None else self.remote.identity

    def close(self) -> None:
        """Close the file; further reads raise ValueError."""
        if self._core is not None and self._pid == os.getpid():
            self._core.close()
            if self.remote is not None:
                self.remote.close()
        self._core = None
        self._closed = True

    def __getstate__(self) -> dict[str, Any]:
        if not isinstance(self._source, (str, bytes, RemotePath)):
            message = (
                f"{self.name} was opened from an object; only files opened by path or URL can be "
                "pickled"
            )
            raise TypeError(message)
        facts = {"source": self._source, "identity": self._identity}
        return {**facts, "is_salvage": self._is_salvage}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._source, self._is_salvage = state["source"], state["is_salvage"]
        self.name = _source_name(self._source)
        self._core, self.remote, self._pid, self._closed = None, None, -1, False
        self._identity = state["identity"]

    def __repr__(self) -> str:
        return f"<scio HDF5 file {self.name!r}{' (closed)' if self._closed else ''}>"

    def kind(self, path: str) -> str | None:
        """Return "group", "dataset", "type" or "unknown"; None when there is no such object."""
        try:
            return self.core.kind(path)
        except KeyNotFoundError:
            return None

    def __contains__(self, path: str) -> bool:
        return self.kind(path) is not None

    def keys(self, path: str) -> list[str]:
        """Names of the members of a group, links that lead out of the file left out.

        Raises
        ------
        CorruptFileError
            If there is something else than a group.
        """
        with _kinds_of_objects():
            links = self.core.links(path)
        return [link[0] for link in links if link[1] in ("hard", "soft")]

    def attr_names(self, path: str) -> list[str]:
        """Names of the attributes of an object."""
        return self.core.attr_names(path)

    def attr(self, path: str, name: str, default: Any = None) -> Any:
        """Value of an attribute: str, number, ndarray or None for a null space.

        A one-element array counts as a scalar where the other writers of AnnData use it so; this
        method gives what is stored, `scalar_attr` unwraps.
        """
        try:
            info, shape, raw = self.core.attr(path, name)
        except KeyNotFoundError:
            return default
        if shape is None:
            return None
        items = raw.reshape(*shape, info["itemsize"])
        values = _values.decode(self.core, info, items, f"{self.name}: {path}@{name}")
        return values if shape else values[()]

    def scalar_attr(self, path: str, name: str, default: Any = None) -> Any:
        """Value of an attribute that stands for one thing, whatever rank its writer gave it."""
        try:
            text = self.core.text_attr(path, name)
        except TypeError:  # no string
            value = self.attr(path, name, default)
            return (
                value.reshape(-1)[0] if isinstance(value, np.ndarray) and value.size == 1 else value
            )
        except KeyNotFoundError:  # no such object
            return default
        return default if text is None else text

    def attr_reference(self, path: str, name: str) -> str | None:
        """Path of the object that a reference attribute points to."""
        try:
            info, shape, raw = self.core.attr(path, name)
        except KeyNotFoundError:
            return None
        if shape is None or info["class"] != "reference" or raw.size == 0:
            return None
        address = _values.reference_address(raw.reshape(-1)[: info["itemsize"]])
        return None if address is None else self.core.path_of(address)

    def dataset(self, path: str) -> _core.Dataset:
        """Describe a dataset.

        Raises
        ------
        KeyNotFoundError
            If there is nothing at `path`; near names are offered.
        CorruptFileError
            If there is something else than a dataset.
        """
        try:
            with _kinds_of_objects():
                return self.core.dataset(path)
        except KeyNotFoundError as error:
            parent, _, name = path.rstrip("/").rpartition("/")
            if self.kind(parent or "/") == "group":
                message = f"{self.name}: {path} does not exist; {near_names(name, self.keys(parent or '/'))}"
                raise KeyNotFoundError(message) from error
            raise

    def read(self, path: str) -> Any:
        """Read a whole dataset of any type.

        Returns
        -------
        ndarray, scalar or None
            Numbers in native byte order; strings as objects; a scalar for a scalar space, None for a
            null space.
        """
        dataset = self.dataset(path)
        if dataset.shape is None:
            return None
        info = dataset.type
        where = f"{self.name}: {path}"
        if info["unsupported"]:
            message = f"{where}: {info['unsupported']} is not read by scio"
            raise UnsupportedError(message)
        if dataset.dtype is not None and info["class"] != "enum":
            values: NDArray[Any] = dataset.read()
        elif info["is_bool"]:
            values = dataset.read()
        else:
            values = _values.decode(self.core, info, dataset.read_raw(), where)
        return values if dataset.shape else values[()]


@contextmanager
def _kinds_of_objects() -> Iterator[None]:
    """The core calls a group where a dataset was asked for a wrong type; here the file is wrong."""
    try:
        yield
    except TypeError as error:
        raise CorruptFileError(str(error)) from error


def _source_name(source: Any) -> str:
    if isinstance(source, str):
        return shown_url(source) if is_url(source) else source
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"<{len(source)} bytes in memory>"
    return str(getattr(source, "name", "<file object>"))


def _open_core(source: Any, name: str, salvage: bool) -> tuple[_core.File, BlockCache | None]:
    if isinstance(source, str) and not is_url(source):
        return _core.File(source, salvage=salvage), None
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _core.File(memoryview(source).cast("B"), name=name, salvage=salvage), None
    is_remote = isinstance(source, (str, RemotePath))
    cache = open_remote(source) if is_remote else open_object(source, name)
    return _core.File(cache.read, nbytes=cache.nbytes, name=name, salvage=salvage), cache
