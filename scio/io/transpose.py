"""CSR to CSC and back, from file to file, in bounded memory.

The matrix is read once, in windows of rows as they are stored.  Each window is transposed in memory
and appended to a temporary file as a *run*: its entries by column, with the extents of the columns.
Then the columns are put together from the runs, as many at a time as the memory allows; a run holds
the part of each column as one stretch, and the runs come in the order of the rows, so every column
has its rows in rising order, and entries of one cell and gene keep theirs.  What fits into one window
needs no runs.

The other way, several passes over the file that keep some columns each, needs no temporary file but
decodes the whole matrix once per pass: a hundred times for a matrix a hundred times the memory.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from scio import _core
from scio._names import near_names
from scio._progress import Progress
from scio._storage.atomic import Temporary, check_space
from scio.errors import CorruptFileError, IOWriteError, KeyNotFoundError, UnsupportedError
from scio.io._coding import members_of
from scio.io._from_file import members_of_file
from scio.io._plain import SparseBlock, SparseParts
from scio.io._windows import (
    MAX_MEMORY,
    SparseArrays,
    check_memory,
    cut,
    entries_within,
    least_stored,
    plain,
    publish,
    stored_rows,
)
from scio.io.h5ad import AnnDataFile, MatrixHandle
from scio.io.hdf5 import HDF5File
from scio.io.writer import SparseStream, StorageOptions, index_dtype_for, new_file

if TYPE_CHECKING:
    from scio.io._profiles import WriteReport

_LAYOUTS = ("csr", "csc")
_WINDOW_COPIES = 5  # read, checked, transposed, on their way into the file
_BUCKET_COPIES = 4  # gathered, with their places, on their way into the file


def transpose_on_disk(
    src: str | os.PathLike[str] | AnnDataFile,
    dst: str | os.PathLike[str],
    *,
    element: str | Iterable[str] | None = "X",
    to: str = "csc",
    max_memory: int = MAX_MEMORY,
    compression: str | None = "gzip",
    compression_opts: int = 1,
    shuffle: bool = True,
    checksums: bool = False,
    overwrite: bool = True,
) -> WriteReport:
    """Copy an AnnData file with matrices in the other sparse layout, in bounded memory.

    Parameters
    ----------
    src : str, Path or AnnDataFile
        The file; it may be `dst`.
    dst : str or Path
        The new file; it has its old content until the new one is complete.
    element : str, iterable of str or None
        ``"X"``, ``"layers/<key>"``, ``"raw/X"``; None: all of these that are sparse.  Everything else
        is copied as it is.
    to : {"csc", "csr"}
        The layout: by gene or by cell.  What has it already is copied.
    max_memory : int
        Bytes for the entries at work.  Besides, 24 bytes per row and column of the matrix are needed
        (8 in every window), and one whole row or column at a time.
    compression, compression_opts, shuffle, checksums, overwrite
        As `scio.write_h5ad`.

    Returns
    -------
    WriteReport

    Raises
    ------
    KeyNotFoundError
        If there is no such element.
    UnsupportedError
        If it is dense: sparse layouts are turned into one another.
    CorruptFileError
        If it breaks a rule of the format.
    IOWriteError
        If writing fails, also for want of room for the temporary file, which lies beside `dst` and
        takes as much as the matrix without compression; an old file is unchanged.

    Notes
    -----
    Exact: values and their types are kept, also explicit zeros and entries that stand twice; the
    result is that of ``scipy.sparse``'s ``tocsc`` and ``tocsr``.  Files of anndata 0.7 and before are
    read into memory first.

    Examples
    --------
    >>> import scio
    >>> from scio.io.transpose import transpose_on_disk
    >>> report = transpose_on_disk(scio.datasets.pbmc3k(), "by_gene.h5ad")  # doctest: +SKIP
    >>> scio.open("by_gene.h5ad").X.format  # doctest: +SKIP
    'csc'
    """
    if to not in _LAYOUTS:
        message = f"to is 'csc' or 'csr', not {to!r}"
        raise ValueError(message)
    options = StorageOptions(compression, compression_opts, shuffle, checksums)
    max_memory = check_memory(max_memory)
    with contextlib.ExitStack() as stack:
        file = src if isinstance(src, AnnDataFile) else stack.enter_context(AnnDataFile(src))
        wanted = _wanted(file, element)
        convert = _converter(wanted, to, max_memory, Path(os.path.realpath(dst)).parent)
        adata = None
        if file.file.scalar_attr("/", "encoding-type") is None:
            adata = file.to_memory()
            members = members_of(adata, convert_strings=False)
        else:
            members = members_of_file(file)
        needed = sum(least_stored(handle, 1.0, options) for handle in _matrices(file).values())
        return publish(
            dst,
            members,
            convert,
            options=options,
            overwrite=overwrite,
            needed=needed,
            sources=[file],
            told=adata,
        )


def _matrices(file: AnnDataFile) -> dict[str, MatrixHandle]:
    """Matrices of cells and genes, by the names that `element` takes."""
    found = {"X": file.X} if file.has_x else {}
    found |= {f"layers/{key}": file.layers[key] for key in file.layers}
    if file.raw is not None:
        found["raw/X"] = file.raw.X
    return found


def _wanted(file: AnnDataFile, element: str | Iterable[str] | None) -> set[str]:
    matrices = _matrices(file)
    if element is None:
        return {name for name, handle in matrices.items() if handle.format != "dense"}
    names = [element] if isinstance(element, str) else list(element)
    for name in names:
        if name not in matrices:
            message = f"{file.name} has no matrix {name!r}; {near_names(name, matrices)}"
            raise KeyNotFoundError(message)
        if matrices[name].format == "dense":
            message = (
                f"{file.name}: {name} is dense; only the sparse layouts csr and csc are turned "
                "into one another"
            )
            raise UnsupportedError(message)
    return set(names)


def _converter(
    wanted: set[str], to: str, max_memory: int, folder: Path
) -> Callable[[Any, str], Any]:
    def convert(value: Any, path: str) -> Any:
        if path.strip("/") in wanted:
            if isinstance(value, MatrixHandle) and value.format != to:
                return transposed(value, max_memory=max_memory, folder=folder)
            if hasattr(value, "asformat"):  # SciPy's: of a file that had to be read
                value = value.asformat(to)
        return plain(value, path)

    return convert


def transposed(
    handle: MatrixHandle,
    *,
    max_memory: int = MAX_MEMORY,
    folder: str | os.PathLike[str] | None = None,
) -> SparseParts:
    """Give a sparse matrix of a file in blocks of the other layout.

    Parameters
    ----------
    handle : MatrixHandle
        CSR or CSC.
    max_memory : int
        Bytes for the entries at work.
    folder : str or Path, optional
        Where the temporary file lies, which has no name and is gone with the process; by default
        where `tempfile` puts them.

    Returns
    -------
    SparseParts
        CSC of a CSR matrix, CSR of a CSC matrix.
    """
    if handle.format not in _LAYOUTS:
        message = f"{handle._file.name}: {handle.path} is {handle.format}, no sparse matrix"
        raise UnsupportedError(message)
    check_memory(max_memory)
    return SparseParts(
        handle.format == "csr",
        handle.shape,
        handle.dtype,
        lambda: _blocks(handle, max_memory, folder),
    )


@contextlib.contextmanager
def transposed_handle(
    handle: MatrixHandle, *, max_memory: int = MAX_MEMORY, folder: str | os.PathLike[str]
) -> Iterator[MatrixHandle]:
    """Give a handle on the matrix in the other layout, in a file that has lost its name."""
    parts = transposed(handle, max_memory=max_memory, folder=folder)
    # named as what a killed writer leaves behind, which the next one removes
    temporary = Temporary(Path(folder, "transposed"))
    try:
        with new_file(temporary.path) as writer:
            temporary.lock()
            stream = SparseStream(
                writer,
                "/X",
                shape=parts.shape,
                data_dtype=parts.dtype,
                index_dtype=index_dtype_for(parts.shape[0 if parts.is_csc else 1]),
                options=StorageOptions(compression=None),
                is_csc=parts.is_csc,
            )
            for data, indices, counts in parts.blocks():
                stream.append(data, indices, counts)
            stream.finish()
        file = HDF5File(str(temporary.path))
    finally:
        temporary.remove()
    try:
        yield MatrixHandle(file, "/X", parts.shape)
    finally:
        file.close()


# ---- runs


def _blocks(
    handle: MatrixHandle, max_memory: int, folder: str | os.PathLike[str] | None
) -> Iterator[SparseBlock]:
    matrix = stored_rows(handle)
    n_rows, n_cols = matrix.shape
    itemsize = handle.dtype.itemsize
    # a window holds at least as many entries as there are columns, whose extents it carries
    most = max(n_cols, entries_within(max_memory, itemsize + 8, _WINDOW_COPIES))
    windows = cut(matrix.indptr, most)
    what = f"transposing {handle.path.strip('/')}"
    with Progress(2 * handle.nnz, unit="entries", what=what) as progress:
        if len(windows) <= 1:
            data, indices, indptr = _transposed_window(handle, matrix, 0, n_rows)
            progress.update(2 * handle.nnz)
            yield data, indices, np.diff(indptr)
            return
        runs = _Runs(handle, matrix, folder)
        with runs.file:
            for start, stop in windows:
                progress.update(runs.append(start, stop))
            most = entries_within(max_memory, itemsize + 8, _BUCKET_COPIES)
            totals = np.concatenate([np.zeros(1, np.int64), np.cumsum(runs.n_per_column)])
            for start, stop in cut(totals, most):
                block = runs.gather(start, stop)
                progress.update(len(block[0]))
                yield block


def _transposed_window(
    handle: MatrixHandle, matrix: _core.Matrix, start: int, stop: int
) -> SparseArrays:
    """Rows [start, stop) by column; indices are rows of the whole matrix."""
    try:
        data, indices, indptr = matrix.read(start, stop)
    except CorruptFileError as error:
        error.add_note(f"{handle._file.name}: {handle.path}, from {start} on")
        raise
    dtype = index_dtype_for(max(matrix.shape))
    shape = (stop - start, matrix.shape[1])
    by_column = _core.csr_transpose(data, indices.astype(dtype, copy=False), indptr, shape=shape)
    rows = by_column[1].astype(index_dtype_for(matrix.shape[0]), copy=False)
    if start:
        rows += rows.dtype.type(start)
    return by_column[0], rows, by_column[2]


class _Runs:
    """Windows by column, one behind the other in a temporary file."""

    def __init__(
        self, handle: MatrixHandle, matrix: _core.Matrix, folder: str | os.PathLike[str] | None
    ) -> None:
        self._handle, self._matrix = handle, matrix
        self._folder = Path(tempfile.gettempdir() if folder is None else folder)
        self._places: list[tuple[int, int]] = []  # where a run begins, its entries
        self._row_dtype = index_dtype_for(matrix.shape[0])
        self.n_per_column = np.zeros(matrix.shape[1], dtype=np.int64)
        nbytes = handle.nnz * (handle.dtype.itemsize + self._row_dtype.itemsize)
        check_space(self._folder / "temporary", nbytes)
        self.file: BinaryIO = tempfile.TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115  the caller closes it

    def append(self, start: int, stop: int) -> int:
        """Write rows [start, stop); return how many entries they have."""
        data, rows, indptr = _transposed_window(self._handle, self._matrix, start, stop)
        self.n_per_column += np.diff(indptr)
        self._places.append((self.file.tell(), len(data)))
        for array in (indptr, rows, data):
            self._write(array)
        return len(data)

    def _write(self, array: NDArray[Any]) -> None:
        left = array.view(np.uint8).data
        try:
            while left:
                left = left[self.file.write(left) :]
        except OSError as error:
            text = f"{error.strerror} (the temporary file of a transposition)"
            raise IOWriteError(error.errno, text, str(self._folder)) from error

    def gather(self, start: int, stop: int) -> SparseBlock:
        """Put columns [start, stop) together."""
        counts = self.n_per_column[start:stop]
        total = int(counts.sum())
        data = np.empty(total, dtype=self._handle.dtype)
        rows = np.empty(total, dtype=self._row_dtype)
        ends = np.cumsum(counts) - counts  # where the next entry of each column goes
        n_columns = len(self.n_per_column)
        for place, n_entries in self._places:
            extents = self._read(np.int64, place + 8 * start, stop - start + 1)
            first, n_here = int(extents[0]), int(extents[-1] - extents[0])
            if n_here == 0:
                continue
            at = place + 8 * (n_columns + 1)
            to = np.arange(n_here) + np.repeat(ends - extents[:-1] + first, np.diff(extents))
            rows[to] = self._read(self._row_dtype, at + first * self._row_dtype.itemsize, n_here)
            at += n_entries * self._row_dtype.itemsize
            data[to] = self._read(data.dtype, at + first * data.itemsize, n_here)
            ends += np.diff(extents)
        return data, rows, counts

    def _read(self, dtype: Any, offset: int, n_items: int) -> NDArray[Any]:
        out = np.empty(n_items, dtype=dtype)
        left = out.view(np.uint8).data
        while left:
            n_read = os.preadv(self.file.fileno(), [left], offset)
            if n_read == 0:
                message = f"the temporary file of a transposition in {self._folder} ends too early"
                raise CorruptFileError(message)
            left, offset = left[n_read:], offset + n_read
        return out
