"""Arrays of bounded memory on their way into a file: chunk sizes, compression, checksums.

Chunks hold 32,768 entries of a sparse matrix (64 to 256 KiB decoded), the same number for ``data``
and ``indices``, so that a range of rows touches the same chunks of both; and about 128 KiB of whole
rows of a dense array.  That is large enough to be worth a request and a thread's turn, and small
enough that a random row decodes little.  Arrays without compression are contiguous: they can be read
into place, or mapped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scio._h5write import Writer

CHUNK_ITEMS = 32_768
_MIN_CHUNK_ITEMS = 1024  # of arrays that may grow later
_CHUNK_NBYTES = 128 << 10
_MAX_ROW_NBYTES = 1 << 20  # a longer row is cut
_SMALL_NBYTES = 4096  # below, the index of the chunks is larger than what compression saves
_BLOCK_NBYTES = 32 << 20  # of an array that must be converted while it is written
DIGEST = "scio-sha256"
_INT32_MAX = int(np.iinfo(np.int32).max)


@dataclass(frozen=True, slots=True)
class StorageOptions:
    """How arrays of numbers are stored.

    Attributes
    ----------
    compression : "gzip" or None
        Deflate, which every HDF5 reads.  Never LZF, which R and plain libhdf5 cannot read.
    compression_opts : int
        Level, 0 to 9.
    shuffle : bool
        Bytes of equal weight beside one another before compression; smaller for nearly all numbers.
    checksums : bool
        A fletcher32 checksum per chunk, and the SHA-256 of each array as its attribute
        ``scio-sha256``; arrays without compression become chunked for it.
    """

    compression: str | None = "gzip"
    compression_opts: int = 1
    shuffle: bool = True
    checksums: bool = False

    def __post_init__(self) -> None:
        if self.compression not in {"gzip", None}:
            message = (
                f"compression is 'gzip' or None, not {self.compression!r}: "
                "every HDF5 library reads those, other filters need plug-ins that R and Java lack"
            )
            raise ValueError(message)
        if not 0 <= self.compression_opts <= 9:
            message = f"compression_opts is a level from 0 to 9, not {self.compression_opts!r}"
            raise ValueError(message)

    @property
    def is_plain(self) -> bool:
        """Nothing is done to the bytes."""
        return self.compression is None and not self.checksums


PLAIN = StorageOptions(compression=None)


def check_dtype(path: str, dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype that the file will have: native byte order.

    Raises
    ------
    TypeError
        If AnnData files have no encoding for it; names a conversion.
    """
    if dtype.kind in "biu" or (dtype.kind == "f" and dtype.itemsize <= 8):
        return dtype.newbyteorder("=")
    if dtype.kind == "c" and dtype.itemsize <= 16:
        return dtype.newbyteorder("=")
    advice = {
        "f": "astype('float64')",
        "c": "astype('complex128')",
        "M": "astype(str), or astype('int64') for its ticks",
        "m": "astype('int64') for its ticks",
    }.get(dtype.kind, "one of its parts")
    message = f"{path} has dtype {dtype}, which AnnData files cannot hold; write {advice}"
    raise TypeError(message)


def as_native(path: str, array: NDArray[Any]) -> NDArray[Any]:
    """The array as the core takes it: native byte order, C order; itself where possible."""
    native = array.astype(check_dtype(path, array.dtype), copy=False)
    return native if native.ndim == 0 else np.ascontiguousarray(native)


def _chunk_of(shape: tuple[int, ...], itemsize: int, *, can_grow: bool) -> tuple[int, ...]:
    """Chunk of an array: a function of its shape alone, so that the same content gives the same file."""
    if len(shape) == 1:
        least = _MIN_CHUNK_ITEMS if can_grow else 1
        return (max(least, min(shape[0], CHUNK_ITEMS)),)
    # whole trailing axes as long as they fit, then pieces of the next one, then ones
    room = max(1, _MAX_ROW_NBYTES // itemsize)
    chunk: list[int] = []
    for n in reversed(shape[1:]):
        take = max(1, min(n, room))
        chunk.append(take)
        room = max(1, room // take)
    row_nbytes = int(np.prod(chunk, dtype=np.int64)) * itemsize
    n_rows = max(1, min(shape[0], _CHUNK_NBYTES // max(1, row_nbytes)))
    return (n_rows, *reversed(chunk))


class ArrayStream:
    """One dataset of numbers that grows along its first axis.

    Parameters
    ----------
    writer : scio._h5write.Writer
    path : str
    shape : tuple of int
        ``shape[0]`` may be None: then it is what was appended.
    dtype : numpy.dtype
    options : StorageOptions
    can_grow : bool
        Whether other programs may append later (anndata does, to sparse matrices).
    """

    def __init__(
        self,
        writer: Writer,
        path: str,
        *,
        shape: tuple[int | None, ...],
        dtype: Any,
        options: StorageOptions,
        can_grow: bool = False,
    ) -> None:
        self._path = path
        self._writer = writer
        self._dtype = check_dtype(path, np.dtype(dtype))
        self._n_rows, self._expected = 0, shape[0]
        self._row_shape = tuple(int(n) for n in shape[1:] if n is not None)
        is_open = shape[0] is None
        first = CHUNK_ITEMS if shape[0] is None else int(shape[0])
        chunks = _chunk_of((first, *self._row_shape), self._dtype.itemsize, can_grow=can_grow)
        self._digest = hashlib.sha256() if options.checksums else None
        deflate = options.compression_opts if options.compression is not None else None
        self._chunked = writer.chunked(
            path,
            shape=(shape[0], *self._row_shape),
            dtype=self._dtype.name,
            chunks=chunks,
            maxshape=(None, *self._row_shape) if is_open or can_grow else None,
            shuffle=options.shuffle and deflate is not None and self._dtype.itemsize > 1,
            deflate=deflate,
            fletcher32=options.checksums,
        )

    def append(self, rows: NDArray[Any]) -> None:
        """Append any number of rows, shape (n, ...)."""
        if rows.shape[1:] != self._row_shape:
            message = f"{self._path}: rows have shape {rows.shape[1:]}, expected {self._row_shape}"
            raise ValueError(message)
        for block in _native_blocks(self._path, rows, self._dtype):
            self._chunked.append(block)
            if self._digest is not None:
                self._digest.update(block.reshape(-1).view(np.uint8).data)
        self._n_rows += len(rows)

    def finish(self) -> None:
        """End the dataset.

        Raises
        ------
        ValueError
            If other than the promised rows were appended.
        """
        if self._expected is not None and self._n_rows != self._expected:
            message = f"{self._path}: {self._n_rows:,} rows came, {self._expected:,} were promised"
            raise ValueError(message)
        self._chunked.finish()
        if self._digest is not None:
            self._writer.attr(self._path, DIGEST, self._digest.hexdigest())


def _native_blocks(path: str, rows: NDArray[Any], dtype: np.dtype[Any]) -> Iterator[NDArray[Any]]:
    """The rows as the core takes them; converted piece by piece when they are not."""
    if rows.dtype == dtype and rows.flags.c_contiguous:
        yield np.asarray(rows)
        return
    if rows.dtype != dtype and not np.can_cast(rows.dtype, dtype, "safe"):
        message = f"{path}: {rows.dtype} came, which does not fit {dtype}"
        raise TypeError(message)
    n_items = max(1, int(np.prod(rows.shape[1:], dtype=np.int64)))
    step = max(1, _BLOCK_NBYTES // (n_items * dtype.itemsize))
    for start in range(0, len(rows), step):
        yield np.ascontiguousarray(rows[start : start + step], dtype=dtype)


def write_numbers(
    writer: Writer,
    path: str,
    array: NDArray[Any],
    options: StorageOptions,
    *,
    can_grow: bool = False,
) -> None:
    """Write a whole array of numbers as one dataset without encoding.

    Parameters
    ----------
    writer : scio._h5write.Writer
    path : str
    array : ndarray
        Any rank, byte order and layout.
    options : StorageOptions
    can_grow : bool
        Whether other programs may append later; means nothing without compression.

    Raises
    ------
    TypeError
        If the dtype has no encoding.
    """
    dtype = check_dtype(path, array.dtype)
    is_small = array.nbytes < _SMALL_NBYTES and not can_grow and not options.checksums
    if array.ndim == 0 or options.is_plain or is_small or 0 in array.shape[1:]:
        writer.dataset(path, as_native(path, array))
        return
    if array.size == 0 and not can_grow:
        writer.dataset(path, as_native(path, array))
        return
    stream = ArrayStream(
        writer, path, shape=array.shape, dtype=dtype, options=options, can_grow=can_grow
    )
    stream.append(array)
    stream.finish()


# ---- matrices


def tag(writer: Writer, path: str, encoding: str, version: str) -> None:
    """Mark an object with its encoding."""
    writer.attr(path, "encoding-type", encoding)
    writer.attr(path, "encoding-version", version)


def tag_array(writer: Writer, path: str) -> None:
    """Mark a dataset as a dense array."""
    tag(writer, path, "array", "0.2.0")


def write_csr_group(writer: Writer, path: str, shape: tuple[int, int]) -> None:
    """Write the group of a CSR matrix without its three arrays."""
    begin_sparse(writer, path, is_csc=False)
    writer.attr(path, "shape", np.array(shape, dtype=np.int64))


def begin_sparse(writer: Writer, path: str, is_csc: bool) -> str:
    """Make the group of a sparse matrix; return its encoding."""
    encoding = "csc_matrix" if is_csc else "csr_matrix"
    writer.group(path)
    tag(writer, path, encoding, "0.1.0")
    return encoding


class SparseStream:
    """A sparse matrix that is written in blocks of consecutive rows (columns for CSC).

    Parameters
    ----------
    writer : scio._h5write.Writer
    path : str
    shape : tuple of int
        (n_rows, n_cols); the axis of the blocks may be None: then it is what was appended.
    data_dtype, index_dtype : dtype
        Of ``data`` and ``indices``; see `index_dtype_for`.
    options : StorageOptions
    is_csc : bool
        Blocks are columns, indices are rows.

    Notes
    -----
    ``indptr`` is kept in memory (8 bytes per row) and written by `finish`: int32 when the entries
    allow, else int64.
    """

    def __init__(
        self,
        writer: Writer,
        path: str,
        *,
        shape: tuple[int | None, int | None],
        data_dtype: Any,
        index_dtype: Any,
        options: StorageOptions,
        is_csc: bool = False,
    ) -> None:
        self._writer, self._path, self._options = writer, path, options
        self._shape, self._is_csc = shape, is_csc
        self._counts: list[NDArray[np.int64]] = []
        begin_sparse(writer, path, is_csc)
        self._data = self._stream("data", data_dtype)
        self._indices = self._stream("indices", index_dtype)

    def _stream(self, name: str, dtype: Any) -> ArrayStream:
        return ArrayStream(
            self._writer,
            f"{self._path}/{name}",
            shape=(None,),
            dtype=dtype,
            options=self._options,
            can_grow=True,
        )

    def append(self, data: NDArray[Any], indices: NDArray[Any], row_nnz: NDArray[Any]) -> None:
        """Append rows.

        Parameters
        ----------
        data, indices : ndarray, shape (nnz of the block,)
        row_nnz : ndarray, shape (n_rows of the block,)
            Entries of each row.
        """
        counts = np.asarray(row_nnz, dtype=np.int64)
        if not len(data) == len(indices) == int(counts.sum()):
            message = (
                f"{self._path}: a block has {len(data):,} values, {len(indices):,} indices and "
                f"{int(counts.sum()):,} entries in its rows"
            )
            raise ValueError(message)
        self._counts.append(counts)
        self._data.append(data)
        self._indices.append(indices)

    def finish(self) -> None:
        """Write indptr and shape.

        Raises
        ------
        ValueError
            If other than the promised rows were appended.
        """
        self._data.finish()
        self._indices.finish()
        counts = np.concatenate([np.zeros(1, np.int64), *self._counts])
        indptr = np.cumsum(counts)
        n_major, n_minor = self._shape[:: -1 if self._is_csc else 1]
        if n_major is not None and n_major != len(indptr) - 1:
            message = f"{self._path}: {len(indptr) - 1:,} rows came, {n_major:,} were promised"
            raise ValueError(message)
        if n_minor is None:
            message = (
                f"{self._path}: the shape {self._shape} lacks the axis that is not appended to"
            )
            raise ValueError(message)
        write_indptr(self._writer, self._path, indptr, self._options)
        shape = np.array([len(indptr) - 1, n_minor], dtype=np.int64)
        self._writer.attr(self._path, "shape", shape[::-1].copy() if self._is_csc else shape)


class DenseStream:
    """A dense array that is written in blocks along its first axis.

    Parameters
    ----------
    writer : scio._h5write.Writer
    path : str
    shape : tuple of int
        ``shape[0]`` may be None: then it is what was appended.
    dtype : dtype
    options : StorageOptions
    """

    def __init__(
        self,
        writer: Writer,
        path: str,
        *,
        shape: tuple[int | None, ...],
        dtype: Any,
        options: StorageOptions,
    ) -> None:
        self._writer, self._path = writer, path
        self._stream = ArrayStream(writer, path, shape=shape, dtype=dtype, options=options)

    def append(self, rows: NDArray[Any]) -> None:
        """Append rows, shape (n, ...)."""
        self._stream.append(rows)

    def finish(self) -> None:
        """End the dataset; ValueError if other than the promised rows were appended."""
        self._stream.finish()
        tag_array(self._writer, self._path)


def index_dtype_for(n_minor: int) -> np.dtype[Any]:
    """Type of indices below `n_minor`: int32 where they fit, else int64, never unsigned."""
    return np.dtype(np.int32 if n_minor <= _INT32_MAX else np.int64)


def write_indptr(writer: Writer, path: str, indptr: NDArray[Any], options: StorageOptions) -> None:
    """Write the extents of the rows: int32 when the number of entries allows, else int64."""
    dtype = np.int32 if int(indptr[-1]) <= _INT32_MAX else np.int64
    write_numbers(writer, f"{path}/indptr", indptr.astype(dtype), options, can_grow=True)
