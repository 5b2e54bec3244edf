"""Elements of a file that scio has open, on their way into another one, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scio._core import csr_validate
from scio._storage.keys import key_of_names
from scio.errors import CorruptFileError, UnsupportedError
from scio.io._plain import DenseParts, Members, SparseParts, Table, Unread
from scio.io._streams import index_dtype_for
from scio.io.elements import Frame
from scio.io.h5ad import AnnDataFile, MatrixHandle, Raw, _Mapping
from scio.io.read import read_element

_BLOCK_ENTRIES = 8 << 20
_BLOCK_NBYTES = 64 << 20


def from_file(value: Any) -> Any:
    """Turn a lazy element of a file into what the writer takes; None for anything else."""
    if isinstance(value, AnnDataFile):
        return members_of_file(value)
    if isinstance(value, MatrixHandle):
        return _dense(value) if value.format == "dense" else _sparse(value)
    if isinstance(value, Raw):
        return _raw(value)
    return LazyMembers(value) if isinstance(value, _Mapping) else None


def members_of_file(file: AnnDataFile) -> Members:
    """Turn an open file into its elements, in the order of writing."""
    members: dict[str, Any] = {"obs": Table.lazy(file.obs), "var": Table.lazy(file.var)}
    for name in ("uns", "obsm", "varm", "obsp", "varp", "layers"):
        members[name] = LazyMembers(getattr(file, name))
    if file.raw is not None:
        members["raw"] = _raw(file.raw)
    if file.has_x:
        members["X"] = _in_memory_if_odd(file.X)
    return Members("anndata", members)


def _raw(raw: Raw) -> Members:
    return Members(
        "raw",
        {"var": Table.lazy(raw.var), "varm": LazyMembers(raw.varm), "X": _in_memory_if_odd(raw.X)},
    )


class LazyMembers(dict[str, Any]):
    """Members of a mapping that are fetched one by one, when they are written."""

    def __init__(self, members: Any) -> None:
        super().__init__(dict.fromkeys(members.keys()))
        self._members = members
        is_stored = isinstance(members, _Mapping)
        self._key = key_of_names(members._file) if is_stored else str

    def _fetch(self, name: str) -> Any:
        try:
            value = self._members[name]
            if isinstance(value, Frame):  # with its index as stored, which need not be strings
                return read_element(value._file, value._path)
            return _in_memory_if_odd(value) if isinstance(value, MatrixHandle) else value
        except UnsupportedError as error:
            return Unread(str(error))

    def items(self) -> Any:
        """Pairs of name and value."""
        return ((self._key(name), self._fetch(name)) for name in self)


def _in_memory_if_odd(handle: MatrixHandle) -> Any:
    """The handle itself; the matrix when its values are none that a handle gives in blocks."""
    data = handle._member("data")
    if data.dtype is None and data.type["class"] in {"complex", "compound"}:
        return read_element(handle._file, handle.path)
    return handle


def _dense(handle: MatrixHandle) -> DenseParts:
    n_rows = max(1, _BLOCK_NBYTES // max(1, handle.n_cols * handle.dtype.itemsize))

    def blocks() -> Iterator[NDArray[Any]]:
        for start in range(0, handle.n_rows, n_rows):
            yield handle[start : start + n_rows]  # type: ignore[misc]  # dense gives arrays

    return DenseParts(handle.shape, handle.dtype, blocks)


def _sparse(handle: MatrixHandle) -> SparseParts:
    """A sparse matrix as it is stored, CSR or CSC, checked block by block."""
    is_csc = handle.format == "csc"
    n_minor = handle.shape[0 if is_csc else 1]
    dtype = index_dtype_for(n_minor)  # the file may have wider ones

    def blocks() -> Iterator[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]]:
        file, path = handle._file, handle.path
        data, indices = file.dataset(f"{path}/data"), file.dataset(f"{path}/indices")
        indptr = _indptr(handle, 1 if is_csc else 0)
        start = 0
        while start < len(indptr) - 1:
            most = indptr[start] + _BLOCK_ENTRIES
            stop = max(start + 1, int(np.searchsorted(indptr, most, side="right")) - 1)
            at, count = [int(indptr[start])], [int(indptr[stop] - indptr[start])]
            block = data.read(at, count), indices.read(at, count)
            extents = indptr[start : stop + 1] - indptr[start]
            try:
                csr_validate(
                    np.zeros(count[0], np.int8), block[1], extents, shape=(stop - start, n_minor)
                )
            except CorruptFileError as error:
                message = f"{file.name}: {path}, from row {start}: {error}"
                raise CorruptFileError(message) from error
            yield block[0], block[1].astype(dtype, copy=False), np.diff(extents)
            start = stop

    return SparseParts(is_csc, handle.shape, handle.dtype, blocks)


def _indptr(handle: MatrixHandle, axis: int) -> NDArray[np.int64]:
    raw = handle._file.dataset(f"{handle.path}/indptr").read()
    indptr = raw.astype(np.int64)
    falls = np.flatnonzero(np.diff(indptr) < 0)
    found = ""
    if len(indptr) != handle.shape[axis] + 1:
        found = f"has {len(indptr):,} entries, the shape says {handle.shape[axis] + 1:,}"
    elif indptr[0] != 0 or indptr[-1] != handle.nnz:
        found = f"runs from {indptr[0]} to {indptr[-1]}, there are {handle.nnz} values"
    elif len(falls):
        i = int(falls[0])
        found = f"[{i + 1}] is {indptr[i + 1]}, less than [{i}], which is {indptr[i]}"
    if found:
        message = f"{handle._file.name}: {handle.path}/indptr {found}"
        raise CorruptFileError(message)
    return indptr
