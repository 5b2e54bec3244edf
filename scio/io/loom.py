"""Reading ``.loom``: a dense matrix genes x cells, which is turned over band by band."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from scio import _core
from scio._names import near_names
from scio._optional import require
from scio.errors import CorruptFileError, IOFormatError, KeyNotFoundError
from scio.io._foreign import csr_matrix, make_adata, note, positions
from scio.io.hdf5 import HDF5File
from scio.matrix import CSR

BAND_CELLS = 64  # loom's own chunks are 64 x 64
_BAND_NBYTES = 64 << 20  # the most that a wider band may take, where chunks are wider
_DEFAULT_X = "spliced"


def read_loom(
    filename: Any,
    *,
    sparse: bool = True,
    cleanup: bool = False,
    X_name: str = _DEFAULT_X,
    obs_names: str = "CellID",
    obsm_mapping: Mapping[str, Iterable[str]] | None = None,
    var_names: str = "Gene",
    varm_mapping: Mapping[str, Iterable[str]] | None = None,
    dtype: DTypeLike = "float32",
    unescape: bool = False,
    threads: int = -1,
) -> Any:
    """Read a ``.loom`` of version 2 or 3; loompy is not needed.

    Parameters
    ----------
    filename : str, Path, URL, bytes-like or binary file object
        The file.
    sparse : bool
        Give X and layers as CSR, else as arrays.
    cleanup : bool
        Move columns with one value only to ``uns["loom-obs"]`` and ``uns["loom-var"]``.
    X_name : str
        Layer that becomes X, the main matrix then being the layer "matrix"; ``""`` is the main
        matrix, and so is the default when there is no layer of that name.
    obs_names, var_names : str
        Attributes that name cells and genes; without them positions do, with a warning.
    obsm_mapping, varm_mapping : mapping of str to names, optional
        Attributes that together make one element of ``obsm`` (``varm``), one column each.
    dtype : dtype
        Type of X; layers keep theirs.
    unescape : bool
        Decode HTML entities, by which some writers spell what is not ASCII (loompy always does).
    threads : int
        Threads that decode; -1 is all of the pool.

    Returns
    -------
    anndata.AnnData
        ``obs`` and ``var`` from the attributes of rank 1, ``obsm`` and ``varm`` from those of rank 2
        with several columns, ``obsp`` and ``varp`` from the graphs (CSR; edges that are named twice
        are summed).

    Raises
    ------
    IOFormatError
        If the file is HDF5 but no loom.
    CorruptFileError
        If a layer, attribute or edge does not fit the matrix.
    KeyNotFoundError
        If a layer or attribute that was named does not exist.
    MissingDependencyError
        If anndata is not installed.

    Notes
    -----
    Names, arguments and results are those of ``anndata.io.read_loom`` (0.12), which leaves graphs
    out and needs loompy.  The matrix is decoded and turned over in bands of 64 cells (or as many as
    its chunks have, up to 64 MiB), so no more than that is held besides the result.

    Examples
    --------
    >>> import scio
    >>> adata = scio.read_loom("spliced.loom")  # doctest: +SKIP
    """
    file = HDF5File(filename)
    try:
        reader = _Reader(file, sparse, threads)
        x, layers = reader.matrices(X_name, np.dtype(dtype))
        obs = _Axis(reader, "col", reader.n_cells, obs_names, unescape)
        var = _Axis(reader, "row", reader.n_genes, var_names, unescape)
        obsm, varm = obs.take_wide(obsm_mapping), var.take_wide(varm_mapping)
        adata = make_adata(
            x,
            obs_names=obs.names(),
            var_names=var.names(),
            obs=obs.columns,
            var=var.columns,
            layers=layers,
            obsm=obsm,
            varm=varm,
            obsp=obs.graphs(),
            varp=var.graphs(),
        )
    finally:
        file.close()
    if obs_names in obs.found:
        adata.obs_names.name = obs_names
    if var_names in var.found:
        adata.var_names.name = var_names
    if cleanup:
        _clean_up(adata)
    return adata


def _clean_up(adata: Any) -> None:
    for axis in ("obs", "var"):
        frame = getattr(adata, axis)
        constant = {name: frame[name].iloc[0] for name in frame if frame[name].nunique() == 1}
        if constant:
            adata.uns[f"loom-{axis}"] = constant
            setattr(adata, axis, frame.drop(columns=list(constant)))


class _Reader:
    """The matrices of one file."""

    def __init__(self, file: HDF5File, sparse: bool, threads: int) -> None:
        self.file = file
        self.sparse = sparse
        self.threads = threads
        if file.kind("/matrix") != "dataset":
            found = ", ".join(file.keys("/")) or "no objects"
            message = f"{file.name} is HDF5 but no loom: it has no dataset matrix; at its root lie {found}"
            raise IOFormatError(message)
        self.shape = self._shape("/matrix")
        self.n_genes, self.n_cells = self.shape

    def _shape(self, path: str) -> tuple[int, int]:
        dataset = self.file.dataset(path)
        shape = dataset.shape
        if shape is None or len(shape) != 2 or dataset.dtype is None:
            message = f"{self.file.name}: {path} is {dataset.type['class']} of shape {shape}, expected numbers, genes x cells"
            raise CorruptFileError(message)
        return shape[0], shape[1]

    def matrices(self, x_name: str, dtype: np.dtype[Any]) -> tuple[Any, dict[str, Any]]:
        """X, and all layers; the main matrix is one of them when it is not X."""
        has_layers = self.file.kind("/layers") == "group"
        names = self.file.keys("/layers") if has_layers else []
        if x_name not in names and x_name not in ("", _DEFAULT_X):
            message = f"{self.file.name} has no layer {x_name!r}; {near_names(x_name, names)}"
            raise KeyNotFoundError(message)
        for name in names:
            found = self._shape(f"/layers/{name}")
            if found != self.shape:
                message = (
                    f"{self.file.name}: /layers/{name} has shape {found}, /matrix {self.shape}"
                )
                raise CorruptFileError(message)
        layers = {name: self._read(f"/layers/{name}") for name in names}
        main = self._read("/matrix")
        if x_name not in names:
            return main.astype(dtype, copy=False), layers
        layers = {"matrix": main, **layers}
        return layers[x_name].astype(dtype, copy=False), layers

    def _read(self, path: str) -> Any:
        dataset = self.file.dataset(path)
        bands = self._bands(dataset)
        if self.sparse:
            return csr_matrix(_gather(bands, np.dtype(dataset.dtype), self.n_cells, self.n_genes))
        out = np.empty((self.n_cells, self.n_genes), dtype=dataset.dtype)
        for first, band in bands:
            out[first : first + len(band)] = band
        return out

    def _bands(self, dataset: _core.Dataset) -> Iterator[tuple[int, NDArray[Any]]]:
        """The matrix cells x genes, some cells at a time: the first of them, and their rows."""
        width = BAND_CELLS
        if dataset.chunks is not None:
            chunk = dataset.chunks[1]
            wide = -(-width // chunk) * chunk
            if wide * self.n_genes * np.dtype(dataset.dtype).itemsize <= _BAND_NBYTES:
                width = wide
        for first in range(0, self.n_cells if self.n_genes else 0, width):
            count = min(width, self.n_cells - first)
            box = dataset.read((0, first), (self.n_genes, count), threads=self.threads)
            yield first, np.ascontiguousarray(box.T)


def _gather(
    bands: Iterator[tuple[int, NDArray[Any]]], dtype: np.dtype[Any], n_rows: int, n_cols: int
) -> CSR:
    """CSR of bands of rows; its arrays grow in place, so that nothing is held twice."""
    data, indices = np.empty(0, dtype=dtype), np.empty(0, dtype=np.int32)
    indptr = np.zeros(n_rows + 1, dtype=np.int64)
    nnz = 0
    for first, band in bands:
        values, columns, ends = _core.csr_from_dense(band)
        need = nnz + len(values)
        if need > len(data):
            for array in (data, indices):
                array.resize(need + need // 4, refcheck=False)  # realloc: large blocks are remapped
        data[nnz:need] = values
        indices[nnz:need] = columns
        indptr[first + 1 : first + len(ends)] = ends[1:] + nnz
        nnz = need
    if n_cols == 0:
        indptr[:] = 0
    data.resize(nnz, refcheck=False)
    indices.resize(nnz, refcheck=False)
    return CSR._wrap((data, indices, indptr), (n_rows, n_cols))


class _Axis:
    """Attributes and graphs of cells (col) or genes (row)."""

    def __init__(self, reader: _Reader, side: str, n: int, names: str, unescape: bool) -> None:
        self.file = reader.file
        self.side = side
        self.n = n
        self.index = names
        group = f"/{side}_attrs"
        self.found: dict[str, NDArray[Any]] = {}
        for name in self.file.keys(group) if self.file.kind(group) == "group" else []:
            self.found[name] = self._read(f"{group}/{name}", unescape)
        self.wide: dict[str, Any] = {}
        self.columns: dict[str, Any] = {}
        for name, values in self.found.items():
            if values.ndim > 1 and values.shape[1] != 1:
                self.wide[name] = values
            elif name != names:
                self.columns[name] = values.reshape(self.n)

    def _read(self, path: str, unescape: bool) -> NDArray[Any]:
        values = np.asarray(self.file.read(path))
        if values.ndim == 0 or values.shape[0] != self.n or values.size % max(self.n, 1):
            axis = "cell" if self.side == "col" else "gene"
            message = (
                f"{self.file.name}: {path} has shape {values.shape}, expected {self.n} entries, "
                f"one per {axis}"
            )
            raise CorruptFileError(message)
        if unescape and values.dtype == object:
            flat = [html.unescape(text) for text in values.reshape(-1).tolist()]
            values = np.array(flat, dtype=object).reshape(values.shape)
        return values

    def names(self) -> NDArray[Any]:
        """Names of the cells or genes."""
        if self.index in self.found:
            return self.found[self.index].reshape(-1).astype(str).astype(object)
        note(
            f"{self.file.name}: /{self.side}_attrs has no {self.index}; positions are the names; "
            f"{near_names(self.index, self.found)}"
        )
        return positions(self.n)

    def take_wide(self, mapping: Mapping[str, Iterable[str]] | None) -> dict[str, Any]:
        """Elements with several columns: attributes of rank 2, and what the caller puts together."""
        made: dict[str, Any] = {}
        for key, names in (mapping or {}).items():
            parts = []
            for name in names:
                if name not in self.columns:
                    message = (
                        f"{self.file.name}: /{self.side}_attrs has no {name!r} of rank 1; "
                        f"{near_names(name, self.columns)}"
                    )
                    raise KeyNotFoundError(message)
                parts.append(self.columns.pop(name))
            made[key] = np.array(parts).T
        return {**made, **self.wide}

    def graphs(self) -> dict[str, Any]:
        """Graphs as CSR of shape (n, n): a, b, w are from, to and weight of each edge."""
        group = f"/{self.side}_graphs"
        if self.file.kind(group) != "group":
            return {}
        sparse = require("scipy.sparse", "read_loom")
        graphs = {}
        for name in self.file.keys(group):
            path = f"{group}/{name}"
            missing = [m for m in ("a", "b", "w") if self.file.kind(f"{path}/{m}") != "dataset"]
            if missing:
                message = (
                    f"{self.file.name}: {path} lacks {', '.join(missing)}; a graph has a, b and w"
                )
                raise CorruptFileError(message)
            a, b, w = (np.asarray(self.file.read(f"{path}/{m}")) for m in ("a", "b", "w"))
            if not a.shape == b.shape == w.shape or a.ndim != 1:
                message = f"{self.file.name}: {path}/a, b, w have shapes {a.shape}, {b.shape}, {w.shape}, expected one length"
                raise CorruptFileError(message)
            self._check_ends(path, {"a": a, "b": b})
            graphs[name] = sparse.csr_matrix((w, (a, b)), shape=(self.n, self.n))
        return graphs

    def _check_ends(self, path: str, ends: dict[str, NDArray[Any]]) -> None:
        for member, at in ends.items():
            if at.size and at.dtype.kind not in "iu":
                message = (
                    f"{self.file.name}: {path}/{member} has dtype {at.dtype}, expected integers"
                )
                raise CorruptFileError(message)
            wrong = np.flatnonzero((at < 0) | (at >= self.n))
            if len(wrong):
                message = (
                    f"{self.file.name}: {path}/{member}[{wrong[0]}] is {at[wrong[0]]}, "
                    f"not in [0, {self.n})"
                )
                raise CorruptFileError(message)
