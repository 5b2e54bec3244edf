"""Fast-layout files of a store's sources: written while the first epoch runs, mapped from then on.

One file per source, named by a digest of everything that decides its content.  A file is published by
rename when it is whole and never changed afterwards, so whatever is there under the name is right.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import warnings
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scio import _core
from scio._storage.atomic import Temporary, sweep_stale
from scio.data._sources import DEFAULT_MAX_CSC_NBYTES, FileSource
from scio.errors import IOWriteError, LoaderError, ScioError, ScioWarning
from scio.io import AnnDataFile
from scio.io import open as open_file
from scio.io.fast import (
    FORMAT_VERSION,
    MARK,
    FastMatrix,
    free_nbytes,
    map_matrix,
    plan_matrix,
    var_of,
    warn_of_unread,
    write_skeleton,
)
from scio.io.writer import Table

if TYPE_CHECKING:
    from scio.data.anndata_store import AnnDataStore

N_PROBED_ROWS = 64
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_OVERHEAD_NBYTES = 1 << 20  # headers, and what a guess of the frames misses


@dataclass(slots=True, eq=False)
class _Part:
    """One source and its file."""

    handle: AnnDataFile
    matrix: str
    tracks: list[str]
    first_cell: int
    n_source_cells: int
    rows: NDArray[np.int64] | None  # of the source, ascending; None = all
    path: Path
    identity: str

    @property
    def n_rows(self) -> int:
        return self.n_source_cells if self.rows is None else len(self.rows)

    @property
    def paths(self) -> list[str]:
        """Where the matrices lie in the fast file."""
        return ["/X", *(f"/{track}" for track in self.tracks)]

    def sources(self) -> list[_core.Matrix]:
        """The matrices of the source: the main one, then the tracks."""
        handles = [self.handle.matrix(self.matrix)]
        for track in self.tracks:
            mapping, _, key = track.partition("/")
            handles.append(getattr(self.handle, mapping)[key])
        return [handle._core_matrix(DEFAULT_MAX_CSC_NBYTES) for handle in handles]


class FastCache:
    """Fast-layout files of the sources of a store, for one selection of cells.

    Parameters
    ----------
    directory : Path
        Where the files lie; made when it is needed.
    store : AnnDataStore
        Its sources, its matrix and, where it has them, its ``track_paths`` (such as
        ``"layers/counts"`` or ``"obsm/X_pca"``).
    cells : ndarray of int64, ascending, or None
        Global ids of the cells that are kept, None = all.

    Attributes
    ----------
    reason : str
        Why `is_possible` is False, "" when it is True.

    Notes
    -----
    A file belongs to a source as it is now: real path, size, time, inode, matrices, selection and the
    version of the layout are in its name and, whole, in ``uns/scio``.  Damage of headers and row
    extents is noticed by `is_complete`, a bad column index when its row is read
    (`CorruptFileError`); flipped values are not noticed, as in any file without checksums.
    """

    def __init__(
        self, directory: Path, store: AnnDataStore, cells: NDArray[np.int64] | None
    ) -> None:
        self._directory = Path(directory)
        self.reason = ""
        self._parts: list[_Part] = []
        self._mapped: list[list[_core.Matrix]] | None = None
        self._found: list[tuple[int, ...]] = []  # what the files were when they were mapped
        self._temporaries: list[Temporary] = []
        weakref.finalize(self, _remove_all, self._temporaries, os.getpid())
        tracks = list(getattr(store, "track_paths", []))
        starts = store.starts
        for i, source in enumerate(store._sources):
            if not isinstance(source, FileSource) or not isinstance(
                source._handle.file._source, (str, os.PathLike)
            ):
                self.reason = f"{source.name} is not a file"
            elif store.matrix == "raw/X" and any(t.startswith("layers/") for t in tracks):
                self.reason = "raw/X and layers have different genes, one file cannot hold both"
            if self.reason:
                self._parts = []
                break
            assert isinstance(source, FileSource)
            first, end = int(starts[i]), int(starts[i + 1])
            rows = None
            if cells is not None:
                low, high = np.searchsorted(cells, [first, end])
                rows = np.ascontiguousarray(cells[low:high] - first)
                rows = None if len(rows) == end - first else rows
            self._parts.append(self._part(source._handle, store.matrix, tracks, first, end, rows))

    def _part(
        self,
        handle: AnnDataFile,
        matrix: str,
        tracks: list[str],
        first: int,
        end: int,
        rows: NDArray[np.int64] | None,
    ) -> _Part:
        real = os.path.realpath(handle.file.name)
        nbytes, mtime_ns, inode = handle.file.identity
        digest = "all" if rows is None else hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest()
        identity = json.dumps(
            {
                "format_version": FORMAT_VERSION,
                "inode": inode,
                "matrix": matrix,
                "mtime_ns": mtime_ns,
                "nbytes": nbytes,
                "path": real,
                "selection": digest,
                "tracks": tracks,
            },
            sort_keys=True,
        )
        key = hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:16]
        path = self._directory / f"{Path(real).stem}-{key}.h5ad"
        return _Part(handle, matrix, tracks, first, end - first, rows, path, identity)

    @property
    def is_possible(self) -> bool:
        """Whether every source lies in a file of its own; `reason` says why not."""
        return not self.reason

    @property
    def paths(self) -> list[Path]:
        """The files, one per source, whether they are there or not."""
        return [part.path for part in self._parts]

    # --- reading

    def is_complete(self) -> bool:
        """Whether every file is there, sound, and made from these very sources."""
        if not self.is_possible:
            return False
        try:
            # a mapping of what was cut short since must not be read
            found = [_identity_of(part.path) for part in self._parts]
            if self._mapped is None or found != self._found:
                self._mapped, self._found = [_map(part) for part in self._parts], found
        except (OSError, ValueError, LookupError, ScioError):
            self._mapped = None
            return False  # `start` makes it anew
        return True

    def matrices(self) -> list[list[_core.Matrix]]:
        """Map the files: per source the main matrix and its tracks; row i is the i-th kept cell.

        Raises
        ------
        LoaderError
            If they are not complete.
        """
        if not self.is_complete() or self._mapped is None:
            message = f"the fast-layout files in {self._directory} are not complete"
            raise LoaderError(message)
        return self._mapped

    # --- writing

    def start(self) -> _core.Sink | None:
        """Write the files but for the values, under temporary names; give what takes the values.

        Returns
        -------
        Sink or None
            None when there is too little space, which a `ScioWarning` says.

        Raises
        ------
        IOWriteError
            If the directory or a file cannot be written.
        LoaderError
            If a source cannot be cached.
        """
        if not self.is_possible:
            message = f"no fast-layout files can be made: {self.reason}"
            raise LoaderError(message)
        if self._temporaries:
            message = "the fast-layout files are being written already"
            raise LoaderError(message)
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            sweep_stale(self._directory)
            free = free_nbytes(self._directory)
        except OSError as error:
            raise IOWriteError(error.errno, error.strerror, str(self._directory)) from error
        planned = [self._plan(part) for part in self._parts]
        needed = sum(_needed(part, plan) for part, plan in zip(self._parts, planned, strict=True))
        if needed > free:
            self._warn_of_space(f"{needed / 2**20:,.1f} MiB are needed", free)
            return None
        try:
            sources = [
                self._write(part, plan) for part, plan in zip(self._parts, planned, strict=True)
            ]
            return _core.Sink(sources=sources, n_tracks=len(self._parts[0].paths))
        except BaseException as error:
            self.discard(None)
            if not isinstance(error, IOWriteError) or error.errno not in _NO_SPACE:
                raise
            self._warn_of_space(str(error), free)
            return None

    def _warn_of_space(self, why: str, free: int) -> None:
        message = (
            f"no fast-layout cache: {self._directory} has {free / 2**20:,.1f} MiB free, {why}; "
            "epochs are decoded from the source"
        )
        warnings.warn(ScioWarning(message), stacklevel=3)

    def _plan(self, part: _Part) -> list[FastMatrix]:
        return [
            plan_matrix(path, matrix, part.rows)
            for path, matrix in zip(part.paths, part.sources(), strict=True)
        ]

    def _write(self, part: _Part, plan: list[FastMatrix]) -> dict[str, Any]:
        temporary = Temporary(part.path)
        self._temporaries.append(temporary)
        obs = Table.lazy(part.handle.obs, part.rows)
        var = Table.lazy(var_of(part.handle, part.matrix))
        arrays = write_skeleton(temporary.path, obs=obs, var=var, matrices=plan, mark=part.identity)
        warn_of_unread(part.path, obs, var)
        temporary.lock()
        cells = None if part.rows is None else part.rows + part.first_cell
        return {
            "path": str(temporary.path),
            "cells": cells,
            "n_cells": part.n_rows,
            "first_cell": part.first_cell,
            "arrays": arrays,
        }

    def publish(self, sink: _core.Sink) -> None:
        """Give the files their names, now that every cell has been put.

        Raises
        ------
        LoaderError
            If cells are missing, or the sink closed before; says why.
        IOFormatError
            If a source has changed since it was opened.
        IOWriteError
            If syncing or renaming fails.  In every case nothing half-made is left.
        """
        try:
            if sink.failure is not None:
                message = f"no fast-layout file: {sink.failure}"
                raise LoaderError(message)
            if sink.is_closed or sink.n_put != sink.n_cells:
                message = f"{sink.n_cells - sink.n_put:,} of {sink.n_cells:,} cells are missing"
                raise LoaderError(message)
            for part in self._parts:
                part.handle.file.core.check_unchanged()
            sink.sync()
            sink.close()
            for temporary in self._temporaries:
                temporary.publish()
        finally:
            self.discard(sink)
        self._mapped = None

    def discard(self, sink: _core.Sink | None) -> None:
        """Remove what is being written, and what dead processes left behind."""
        if sink is not None:
            sink.close()
        _remove_all(self._temporaries, os.getpid())
        with contextlib.suppress(OSError):
            sweep_stale(self._directory)


def _remove_all(temporaries: list[Temporary], pid: int) -> None:
    if pid != os.getpid():  # a forked child owns nothing of it
        return
    while temporaries:
        temporaries.pop().remove()


def _needed(part: _Part, plan: list[FastMatrix]) -> int:
    """Bytes of a file; the frames are taken for as large as the source less its matrices."""
    arrays = sum(matrix.nbytes for matrix in plan)
    frames = 64 * (part.n_rows * (1 + len(part.handle.obs.columns)) + plan[0].shape[1])
    return arrays + frames + _OVERHEAD_NBYTES


def _identity_of(path: Path) -> tuple[int, ...]:
    facts = path.stat()
    return facts.st_size, facts.st_mtime_ns, facts.st_ino


def _map(part: _Part) -> list[_core.Matrix]:
    """The matrices of one file; anything wrong is an exception."""
    with open_file(part.path) as file:
        if file.file.read(MARK) != part.identity:
            message = f"{part.path} was made from something else"
            raise LoaderError(message)
        matrices = [map_matrix(file, path) for path in part.paths]
    for matrix in matrices:
        if matrix.shape[0] != part.n_rows:
            message = f"{part.path} has {matrix.shape[0]} rows, expected {part.n_rows}"
            raise LoaderError(message)
        if part.n_rows:
            rows = np.unique(np.linspace(0, part.n_rows - 1, N_PROBED_ROWS).astype(np.int64))
            matrix.take(rows)
    return matrices
