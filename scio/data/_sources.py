"""One matrix with its genes and cell columns, wherever it lies: a file, a handle, an AnnData."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scio import _core
from scio._names import near_names
from scio.errors import IOFormatError, KeyNotFoundError, UnsupportedError
from scio.io import AnnDataFile, Categorical
from scio.io import open as open_file
from scio.io.h5ad import MatrixHandle

if TYPE_CHECKING:
    from scio.io.elements import Column

DEFAULT_MAX_CSC_NBYTES = 4 << 30
SMALL_TRACK_NBYTES = 4 << 20  # dense layers and obsm up to this size are held in memory


class Source(ABC):
    """A matrix (cells x genes), its gene names and its obs columns.

    Parameters
    ----------
    adata : AnnData, str, Path or AnnDataFile
        Where the data are.
    matrix : str
        ``"X"``, ``"layers/<key>"`` or ``"raw/X"``.
    """

    name: str
    shape: tuple[int, int]

    @abstractmethod
    def core_matrix(self) -> _core.Matrix:
        """The core's matrix in this process."""

    @abstractmethod
    def core_track(self, path: str) -> _core.Matrix:
        """A further matrix of the same cells in this process: ``layers/<key>``, ``obsm/<key>``."""

    @property
    def identity(self) -> dict[str, Any]:
        """What a saved state remembers of the source, to be compared by equality."""
        matrix = self.core_matrix()
        parts: dict[str, Any] = {
            "n_cells": self.shape[0],
            "n_genes": self.shape[1],
            "nnz": matrix.nnz,
        }
        if matrix.kind == "csr":
            parts["rows"] = hashlib.sha256(matrix.indptr.tobytes()).hexdigest()[:16]
        return parts

    @abstractmethod
    def check_unchanged(self) -> None:
        """Raise `IOFormatError` when the file is not the one that was opened any more."""

    @abstractmethod
    def genes(self) -> NDArray[Any]:
        """Gene names of the matrix's columns, objects of str."""

    @abstractmethod
    def cells(self) -> NDArray[Any]:
        """Names of the cells, objects of str."""

    @abstractmethod
    def obs_columns(self) -> list[str]:
        """Names of the obs columns."""

    @abstractmethod
    def obs(self, key: str) -> Column:
        """One obs column."""


class FileSource(Source):
    """A matrix in a file."""

    def __init__(self, handle: AnnDataFile, matrix: str) -> None:
        self._handle = handle
        self._matrix_name = matrix
        self._open()

    def _open(self) -> None:
        self._tracks: dict[str, MatrixHandle] = {}
        self._small: dict[str, _core.Matrix] = {}
        self._pid = -1
        self._matrix = self._handle.matrix(self._matrix_name)
        self.name = self._handle.name
        self.shape = self._matrix.shape
        if self.shape[0] != self._handle.n_obs:
            message = f"{self.name}: {self._matrix.path} has {self.shape[0]} rows, obs {self._handle.n_obs}"
            raise IOFormatError(message)

    def __getstate__(self) -> dict[str, Any]:
        return {"handle": self._handle, "matrix": self._matrix_name}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._handle, self._matrix_name = state["handle"], state["matrix"]
        self._open()

    def core_matrix(self) -> _core.Matrix:
        return self._matrix._core_matrix(DEFAULT_MAX_CSC_NBYTES)

    def core_track(self, path: str) -> _core.Matrix:
        if path not in self._tracks:
            self._tracks[path] = self._open_track(path)
        handle = self._tracks[path]
        nbytes = handle.shape[0] * handle.shape[1] * handle.dtype.itemsize
        if handle.format != "dense" or nbytes > SMALL_TRACK_NBYTES:
            return handle._core_matrix(DEFAULT_MAX_CSC_NBYTES)
        # One chunk of a small embedding holds thousands of cells: read whole, it does not force
        # the blocks of the plan to be as long.
        if self._pid != os.getpid():
            self._small, self._pid = {}, os.getpid()
        if path not in self._small:
            name = f"{self.name}: {path}"
            self._small[path] = _core.Matrix.from_dense(np.asarray(handle.read()), name=name)
        return self._small[path]

    def _open_track(self, path: str) -> MatrixHandle:
        kind, _, key = path.partition("/")
        element = (self._handle.layers if kind == "layers" else self._handle.obsm)[key]
        if not isinstance(element, MatrixHandle):
            message = f"{self.name}: {path} is a {type(element).__name__}, not a matrix"
            raise UnsupportedError(message)
        expected = self.shape if kind == "layers" else (self.shape[0], element.shape[1])
        if element.shape != expected:
            message = f"{self.name}: {path} has shape {element.shape}, expected {expected}"
            raise IOFormatError(message)
        return element

    @property
    def identity(self) -> dict[str, Any]:
        return {**super().identity, "nbytes": self._handle.file.core.nbytes}

    def check_unchanged(self) -> None:
        self._handle.file.core.check_unchanged()

    @property
    def handle(self) -> AnnDataFile:
        """The open file."""
        return self._handle

    def genes(self) -> NDArray[Any]:
        if self._matrix_name == "raw/X":
            raw = self._handle.raw
            assert raw is not None
            return raw.var_names
        return self._handle.var_names

    def cells(self) -> NDArray[Any]:
        return self._handle.obs_names

    def obs_columns(self) -> list[str]:
        return self._handle.obs.columns

    def obs(self, key: str) -> Column:
        return self._handle.obs[key]


class MemorySource(Source):
    """A matrix of an AnnData in memory; its arrays are borrowed, not copied where dtypes allow."""

    def __init__(self, adata: Any, matrix: str) -> None:
        self.name = "AnnData in memory"
        self._obs = adata.obs
        values, names = _matrix_of(adata, matrix)
        self._genes = np.array([str(g) for g in names], dtype=object)
        self._arrays = _arrays_of(values, matrix)
        self.shape = (int(values.shape[0]), int(values.shape[1]))
        self._layers, self._obsm = adata.layers, adata.obsm
        self._core: dict[str, _core.Matrix] = {}
        self._pid = -1

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        state.update(_core={}, _pid=-1)
        return state

    def check_unchanged(self) -> None:
        """Nothing to ask: what lies in memory is looked at when it is used."""

    def core_matrix(self) -> _core.Matrix:
        return self._core_of("", self.shape, lambda: self._arrays)

    def core_track(self, path: str) -> _core.Matrix:
        kind, _, key = path.partition("/")
        mapping = self._layers if kind == "layers" else self._obsm
        if key not in mapping:
            message = f"{self.name}: no {key!r} in {kind}; {near_names(key, mapping)}"
            raise KeyNotFoundError(message)
        values = mapping[key]
        if hasattr(values, "to_numpy"):
            values = values.to_numpy()
        shape = self.shape if kind == "layers" else (self.shape[0], int(values.shape[1]))
        if tuple(values.shape) != shape:
            message = f"{self.name}: {path} has shape {tuple(values.shape)}, expected {shape}"
            raise ValueError(message)
        return self._core_of(path, shape, lambda: _arrays_of(values, path))

    def _core_of(
        self, path: str, shape: tuple[int, int], arrays: Callable[[], tuple[NDArray[Any], ...]]
    ) -> _core.Matrix:
        if self._pid != os.getpid():
            self._core, self._pid = {}, os.getpid()
        if path not in self._core:
            parts = arrays()
            name = f"{self.name}: {path}" if path else self.name
            if len(parts) == 1:
                self._core[path] = _core.Matrix.from_dense(parts[0], name=name)
            else:
                data, indices, indptr = parts
                self._core[path] = _core.Matrix.from_csr(
                    data, indices, indptr, shape=shape, name=name
                )
        return self._core[path]

    def genes(self) -> NDArray[Any]:
        return self._genes

    def cells(self) -> NDArray[Any]:
        return np.array([str(name) for name in self._obs.index], dtype=object)

    def obs_columns(self) -> list[str]:
        return [str(c) for c in self._obs.columns]

    def obs(self, key: str) -> Column:
        if key not in self._obs.columns:
            message = (
                f"{self.name}: obs has no column {key!r}; {near_names(key, self.obs_columns())}"
            )
            raise KeyNotFoundError(message)
        column = self._obs[key]
        if str(column.dtype) == "category":
            categories = np.asarray(column.cat.categories)
            return Categorical(np.asarray(column.cat.codes), categories, bool(column.cat.ordered))
        return np.asarray(column)


def _matrix_of(adata: Any, matrix: str) -> tuple[Any, Any]:
    if matrix == "X":
        if adata.X is None:
            message = "the AnnData has no X"
            raise ValueError(message)
        return adata.X, adata.var_names
    if matrix == "raw/X":
        if adata.raw is None:
            message = "the AnnData has no raw"
            raise KeyNotFoundError(message)
        return adata.raw.X, adata.raw.var_names
    prefix, _, key = matrix.partition("/")
    if prefix != "layers" or not key:
        message = f"matrix is 'X', 'layers/<key>' or 'raw/X', not {matrix!r}"
        raise ValueError(message)
    if key not in adata.layers:
        message = f"the AnnData has no layer {key!r}; {near_names(key, adata.layers)}"
        raise KeyNotFoundError(message)
    return adata.layers[key], adata.var_names


def _arrays_of(values: Any, matrix: str) -> tuple[NDArray[Any], ...]:
    """Dense: one array.  Sparse: data, indices, indptr of CSR, whatever the format was."""
    if isinstance(values, np.ndarray):
        return (_native(values),)
    if not hasattr(values, "tocsr"):
        message = (
            f"{matrix} is a {type(values).__name__}; scio reads NumPy arrays and SciPy sparse "
            "matrices from memory (give the path of a backed file instead)"
        )
        raise TypeError(message)
    csr = values.tocsr()
    return (
        _native(csr.data),
        _native(csr.indices),
        np.ascontiguousarray(csr.indptr, dtype=np.int64),
    )


def _native(array: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))


def open_source(adata: Any, matrix: str = "X") -> Source:
    """Make a source of an AnnData, a path or a handle.

    Raises
    ------
    TypeError
        If `adata` is none of these.
    """
    if isinstance(adata, (str, os.PathLike)):
        return FileSource(open_file(adata), matrix)
    if isinstance(adata, AnnDataFile):
        return FileSource(adata, matrix)
    if hasattr(adata, "obs") and hasattr(adata, "var_names") and hasattr(adata, "X"):
        if getattr(adata, "isbacked", False):
            return FileSource(open_file(str(adata.filename)), matrix)
        return MemorySource(adata, matrix)
    message = (
        "data come as an AnnData, a path of an .h5ad or a handle of scio.open, "
        f"not as {type(adata).__name__}"
    )
    raise TypeError(message)


def open_sources(adata: Any, matrix: str) -> list[Source]:
    """Make the sources of one thing or of a list of them.

    Raises
    ------
    ValueError
        If the list is empty.
    """
    things = list(adata) if isinstance(adata, (list, tuple)) else [adata]
    if not things:
        message = "the list of files is empty"
        raise ValueError(message)
    return [open_source(thing, matrix) for thing in things]


def gene_names(adata: Any, key: str = "var_names") -> Sequence[str]:
    """Return the gene names of an AnnData, path or handle, from var_names or a column of var."""
    if isinstance(adata, (str, os.PathLike)):
        adata = open_file(adata)
    if key == "var_names":
        return [str(name) for name in adata.var_names]
    if isinstance(adata, AnnDataFile):
        return [str(name) for name in np.asarray(adata.var[key])]
    if key not in adata.var.columns:
        columns = [str(c) for c in adata.var.columns]
        message = f"var has no column {key!r}; {near_names(key, columns)}"
        raise KeyNotFoundError(message)
    return [str(name) for name in adata.var[key]]
