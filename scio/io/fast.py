"""Fast-layout files: AnnData files whose matrices are contiguous and narrow, so that they can be mapped.

anndata reads them as any other file; `scio.data` reads rows of them at random without decoding.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scio import _core
from scio._storage.atomic import Temporary, check_target, sweep_stale, told_of_the_target
from scio.errors import IOWriteError, ScioWarning
from scio.io.writer import Table, new_file, tag_array, write_csr_group, write_element, write_root

if TYPE_CHECKING:
    from scio.io.h5ad import AnnDataFile, MatrixHandle

FORMAT_VERSION = "1"
MARK = "/uns/scio/fast_layout"  # what the file was made from; a file without it is not ours
N_SAMPLED_ROWS = 1024
MAX_CSC_NBYTES = 4 << 30
_BLOCK_ITEMS = 4 << 20  # values held at a time while converting
_MAX_U16 = 65535


@dataclass(frozen=True, slots=True, eq=False)
class FastMatrix:
    """One matrix of a fast-layout file to be: everything but its values.

    Attributes
    ----------
    path : str
        Where it lies in the file, e.g. ``"/X"``.
    shape : tuple of int
        (n_cells, n_columns).
    indptr : ndarray of int64 or None
        Row extents, None when dense.
    data_dtype, indices_dtype : str
        As the file stores them; `indices_dtype` is "" when dense.
    """

    path: str
    shape: tuple[int, int]
    indptr: NDArray[np.int64] | None
    data_dtype: str
    indices_dtype: str

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays in the file."""
        itemsize = np.dtype(self.data_dtype).itemsize
        if self.indptr is None:
            return self.shape[0] * self.shape[1] * itemsize
        nnz = int(self.indptr[-1])
        return nnz * (itemsize + np.dtype(self.indices_dtype).itemsize) + self.indptr.nbytes


def plan_matrix(
    path: str, matrix: _core.Matrix, rows: NDArray[np.int64] | None, *, is_narrow: bool = True
) -> FastMatrix:
    """Choose the form of one matrix: narrow types where nothing is lost.

    Parameters
    ----------
    path : str
        Where it shall lie in the file.
    matrix : Matrix
        The source.
    rows : ndarray of int64, ascending, or None
        The rows that are kept, None = all.
    is_narrow : bool
        False: values as stored.

    Returns
    -------
    FastMatrix
        Values are uint16 when all of the first 1,024 rows are integers in [0, 65535]; a later one
        that is not shows when it is written.
    """
    n_rows = matrix.shape[0] if rows is None else len(rows)
    n_cols = matrix.shape[1]
    sample = np.arange(min(n_rows, N_SAMPLED_ROWS), dtype=np.int64)
    data_dtype = matrix.dtype
    if is_narrow and np.dtype(data_dtype).itemsize > 2:
        values = matrix.take(sample if rows is None else rows[: len(sample)])[0]
        if are_small_counts(values):
            data_dtype = "uint16"
    if matrix.kind == "dense":
        return FastMatrix(path, (n_rows, n_cols), None, data_dtype, "")
    counts = np.diff(matrix.indptr)
    if rows is not None:
        counts = counts[rows]
    indptr = np.zeros(n_rows + 1, dtype=np.int64)
    np.cumsum(counts, out=indptr[1:])
    indices_dtype = (
        "uint16"
        if n_cols <= _MAX_U16 + 1
        else "int32"
        if n_cols <= np.iinfo(np.int32).max
        else "int64"
    )
    return FastMatrix(path, (n_rows, n_cols), indptr, data_dtype, indices_dtype)


def are_small_counts(values: NDArray[Any]) -> bool:
    """Say whether all values are integers that uint16 holds."""
    if not np.all((values >= 0) & (values <= _MAX_U16)):  # False for NaN
        return False
    return values.dtype.kind in "iu" or bool(np.all(values == np.trunc(values)))


def write_skeleton(
    path: Path, *, obs: Table, var: Table, matrices: list[FastMatrix], mark: str
) -> list[dict[str, Any]]:
    """Write a whole file but for the values of its matrices.

    Parameters
    ----------
    path : Path
        The new file.
    obs, var : Table
    matrices : list of FastMatrix
    mark : str
        What the file is made from, kept in ``uns``.

    Returns
    -------
    list of dict
        One per matrix, as an array of ``_core.Sink``: where its values go.

    Raises
    ------
    IOWriteError
        If writing fails.
    """
    arrays = []
    with new_file(path) as writer:
        write_root(writer, obs, var)
        for name in ("layers", "obsm"):
            write_element(writer, f"/{name}", {})
        write_element(writer, "/uns", {"scio": {MARK.rpartition("/")[2]: mark}})
        for matrix in matrices:
            array: dict[str, Any] = {
                "is_dense": matrix.indptr is None,
                "n_cols": matrix.shape[1],
                "indptr": matrix.indptr,
                "data_dtype": matrix.data_dtype,
            }
            if matrix.indptr is None:
                array["data_offset"] = writer.reserve(
                    matrix.path, shape=matrix.shape, dtype=matrix.data_dtype
                )
                tag_array(writer, matrix.path)
            else:
                write_csr_group(writer, matrix.path, matrix.shape)
                writer.dataset(f"{matrix.path}/indptr", matrix.indptr)
                nnz = (int(matrix.indptr[-1]),)
                array["data_offset"] = writer.reserve(
                    f"{matrix.path}/data", shape=nnz, dtype=matrix.data_dtype
                )
                array["indices_dtype"] = matrix.indices_dtype
                array["indices_offset"] = writer.reserve(
                    f"{matrix.path}/indices", shape=nnz, dtype=matrix.indices_dtype
                )
            arrays.append(array)
    return arrays


def warn_of_unread(path: Path, obs: Table, var: Table) -> None:
    """Name the columns of the source that the file does without."""
    reasons = [*obs.unread.values(), *var.unread.values()]
    if reasons:
        message = f"left out of {path}, since they cannot be read: {'; '.join(reasons)}"
        warnings.warn(ScioWarning(message), stacklevel=3)


def map_matrix(file: AnnDataFile, path: str) -> _core.Matrix:
    """Map one matrix of a fast-layout file.

    Raises
    ------
    IOFormatError
        If it is not contiguous, or breaks a rule.
    """
    core = file.file.core
    if core.kind(path) == "dataset":
        return _core.Matrix.map_dense(core, path)
    shape = np.asarray(file.file.attr(path, "shape")).reshape(-1)
    return _core.Matrix.map_sparse(core, path, shape=(int(shape[0]), int(shape[1])))


def free_nbytes(directory: Path) -> int:
    """Bytes that may still be written into a directory."""
    facts = os.statvfs(directory)
    return facts.f_bavail * facts.f_frsize


def convert(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    *,
    matrix: str = "X",
    progress: bool = True,
    overwrite: bool = False,
) -> None:
    """Write the fast-layout form of a file: obs, var and one matrix, which becomes X.

    Parameters
    ----------
    src : str or Path
        Any AnnData file that scio reads.
    dst : str or Path
        The file to make; it appears whole or not at all.
    matrix : str
        ``"X"``, ``"layers/<key>"`` or ``"raw/X"``.
    progress : bool
        Show a bar when tqdm is installed.
    overwrite : bool
        Replace an existing file.

    Raises
    ------
    TargetExistsError
        If `dst` exists and `overwrite` is False.
    IOWriteError
        If writing fails or there is too little space; an old file is unchanged.
    ScioError
        If the source cannot be read.

    Notes
    -----
    Values become uint16 where all of them are integers in [0, 65535], and stay as stored otherwise;
    column indices become uint16 up to 65,536 columns.  Memory is bounded, whatever the size.
    """
    from scio.io.h5ad import open as open_file

    temporary = Temporary(dst)
    check_target(temporary.target, overwrite=overwrite)
    sweep_stale(temporary.target.parent)
    with open_file(src) as file:
        handle = file.matrix(matrix)
        obs, var = Table.lazy(file.obs), Table.lazy(var_of(file, matrix))
        for is_narrow in (True, False):
            try:
                with told_of_the_target(temporary):
                    is_whole = _fill(
                        temporary, handle, obs, var, is_narrow=is_narrow, progress=progress
                    )
                if is_whole:
                    file.file.core.check_unchanged()
                    temporary.publish(overwrite=overwrite)
                    warn_of_unread(temporary.target, obs, var)
                    return
            finally:
                temporary.remove()


def var_of(file: AnnDataFile, matrix: str) -> Any:
    """The frame of a matrix's columns."""
    if matrix == "raw/X" and file.raw is not None:
        return file.raw.var
    return file.var


def _fill(
    temporary: Temporary,
    handle: MatrixHandle,
    obs: Table,
    var: Table,
    *,
    is_narrow: bool,
    progress: bool,
) -> bool:
    """Write the whole file under its temporary name; False when narrow values did not do."""
    core = handle._core_matrix(MAX_CSC_NBYTES)
    planned = plan_matrix("/X", core, None, is_narrow=is_narrow)
    free = free_nbytes(temporary.target.parent)
    if planned.nbytes > free:
        message = f"{planned.nbytes:,} bytes are needed, {free:,} are free"
        raise IOWriteError(errno.ENOSPC, message, str(temporary.target))
    arrays = write_skeleton(temporary.path, obs=obs, var=var, matrices=[planned], mark="converted")
    source = {"path": str(temporary.path), "n_cells": core.shape[0], "arrays": arrays}
    sink = _core.Sink(sources=[source])
    try:
        for start, stop in _blocks(planned, progress=progress):
            rows = np.arange(start, stop, dtype=np.int64)
            dense = core.kind == "dense"
            sink.put(0, rows, [core.read_dense(start, stop) if dense else core.read(start, stop)])
            if sink.is_closed:
                break
        try:
            sink.sync()  # raises what closed it
        except (ValueError, IndexError):
            if is_narrow and planned.data_dtype != core.dtype:
                return False  # a value that the narrow type does not hold; a full disk is no such
            raise
    finally:
        sink.close()
    return True


def _blocks(matrix: FastMatrix, *, progress: bool) -> Iterator[tuple[int, int]]:
    """Ranges of rows of bounded size."""
    n_rows, n_cols = matrix.shape
    bar: Any = None
    if progress:
        with contextlib.suppress(ImportError):
            bar = importlib.import_module("tqdm").tqdm(total=n_rows, unit=" cells")
    try:
        start = 0
        while start < n_rows:
            if matrix.indptr is None:
                stop = start + max(1, _BLOCK_ITEMS // max(1, n_cols))
            else:
                most = matrix.indptr[start] + _BLOCK_ITEMS
                stop = int(np.searchsorted(matrix.indptr, most, side="right")) - 1
            stop = min(max(stop, start + 1), n_rows)
            yield start, stop
            if bar is not None:
                bar.update(stop - start)
            start = stop
    finally:
        if bar is not None:
            bar.close()
