"""The lazy handle on an ``.h5ad``: opening reads headers, never the matrix."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scio import _core
from scio._names import near_names
from scio.errors import CorruptFileError, IOFormatError, KeyNotFoundError, UnsupportedError
from scio.io.elements import Frame, open_frame
from scio.io.hdf5 import HDF5File
from scio.matrix import CSR, row_index

_SPARSE_FORMATS = {"csr_matrix": "csr", "csc_matrix": "csc", "csr": "csr", "csc": "csc"}
_MATRIX_RANK = 2


def open(source: Any) -> AnnDataFile:
    """Open an ``.h5ad`` without reading it.

    Parameters
    ----------
    source : str, Path, bytes-like or binary file object
        The file, as anndata (0.5 to 0.13), R packages or Julia wrote it.

    Returns
    -------
    AnnDataFile
        A lazy handle: picklable, safe after a fork, a context manager.

    Raises
    ------
    FileNotFoundError, IsADirectoryError, PermissionError
        As the operating system says.
    IOFormatError
        If it is no HDF5 file (the message says what it looks like), or HDF5 but no AnnData.
    CorruptFileError
        If it is truncated or a rule of the format is broken.

    Examples
    --------
    >>> import scio
    >>> f = scio.open(scio.datasets.pbmc3k())
    >>> f.shape
    (2700, 32738)
    >>> f.X[:2]
    scio.CSR 2 x 32,738, 2,133 stored float32 values, int32 indices, 0.0 MiB
    """
    return AnnDataFile(source)


class MatrixHandle:
    """A matrix inside a file: X, a layer, raw.X, or a 2-D element of obsm.

    Indexing with rows reads only the chunks that hold them; `read` reads all.  Methods may be called
    from any thread.
    """

    def __init__(self, file: HDF5File, path: str, shape: tuple[int, int] | None = None) -> None:
        self._file = file
        self._path = path
        self._expected = shape
        self._matrix: _core.Matrix | None = None
        self._pid = -1
        self._is_group = file.kind(path) == "group"
        self.format = self._find_format()
        self.shape = self._find_shape()
        self._check_shape()

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        state.update(_matrix=None, _pid=-1)
        return state

    def _fail(self, text: str) -> CorruptFileError:
        return CorruptFileError(f"{self._file.name}: {self._path} {text}")

    def _find_format(self) -> str:
        if not self._is_group:
            return "dense"
        for name in ("encoding-type", "h5sparse_format"):
            value = self._file.scalar_attr(self._path, name)
            if value is not None:
                if str(value) not in _SPARSE_FORMATS:
                    message = (
                        f"{self._file.name}: {self._path} has {name} {value!r}; "
                        "scio reads csr_matrix, csc_matrix and dense arrays"
                    )
                    raise UnsupportedError(message)
                return _SPARSE_FORMATS[str(value)]
        msg = "is a group without encoding-type: neither a sparse nor a dense matrix"
        raise self._fail(msg)

    def _find_shape(self) -> tuple[int, int]:
        if not self._is_group:
            shape = self._file.dataset(self._path).shape
            if shape is None or len(shape) != _MATRIX_RANK:
                found = (
                    "a null dataset" if shape is None else f"of rank {len(shape)}, shape {shape}"
                )
                msg = f"is {found}; a matrix has rank 2"
                raise self._fail(msg)
            return (shape[0], shape[1])
        members = set(self._file.keys(self._path))
        missing = [name for name in ("data", "indices", "indptr") if name not in members]
        if missing:
            msg = f"lacks {', '.join(missing)}; a sparse matrix has data, indices, indptr"
            raise self._fail(msg)
        for name in ("shape", "h5sparse_shape"):
            value = self._file.attr(self._path, name)
            if value is not None:
                numbers = [int(v) for v in np.asarray(value).reshape(-1)]
                if len(numbers) != _MATRIX_RANK or min(numbers) < 0:
                    msg = f"has attribute {name} {numbers}, expected two sizes"
                    raise self._fail(msg)
                return (numbers[0], numbers[1])
        if self._expected is not None:
            return self._expected
        msg = "has no attribute shape"
        raise self._fail(msg)

    def _check_shape(self) -> None:
        if self._expected is not None and self.shape != self._expected:
            msg = f"has shape {self.shape}, the frames obs and var say {self._expected}"
            raise self._fail(msg)

    # --- facts from headers

    def _member(self, name: str) -> _core.Dataset:
        return self._file.dataset(f"{self._path}/{name}" if self._is_group else self._path)

    @property
    def path(self) -> str:
        """Where the matrix lies in the file."""
        return self._path

    @property
    def n_rows(self) -> int:
        """Rows (cells)."""
        return self.shape[0]

    @property
    def n_cols(self) -> int:
        """Columns (genes)."""
        return self.shape[1]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values."""
        name = self._member("data").dtype
        if name is None:
            msg = "holds values that are no numbers"
            raise self._fail(msg)
        return np.dtype(name)

    @property
    def nnz(self) -> int:
        """Stored entries; all of them when dense."""
        if not self._is_group:
            return self.shape[0] * self.shape[1]
        shape = self._member("data").shape
        return 0 if shape is None or not shape else shape[0]

    @property
    def chunks(self) -> tuple[int, ...] | None:
        """Chunk of the dataset (of ``data`` when sparse), None when contiguous."""
        return self._member("data").chunks

    @property
    def filters(self) -> tuple[str, ...]:
        """Names of the filters of the values, e.g. ``("deflate",)``."""
        return tuple(f[1] for f in self._member("data").filters)

    def __repr__(self) -> str:
        n_rows, n_cols = self.shape
        parts = [f"{self.format} {n_rows:,} x {n_cols:,} {self.dtype}"]
        if self.format != "dense":
            density = self.nnz / max(1, n_rows * n_cols)
            parts.append(f"{self.nnz:,} non-zeros ({density:.2%})")
        chunks = self.chunks
        parts.append(
            "contiguous" if chunks is None else f"chunks of {' x '.join(map(str, chunks))}"
        )
        parts.append("+".join(self.filters) or "not compressed")
        return f"<{self._path.strip('/')}: {', '.join(parts)}>"

    # --- reading

    def _core_matrix(self, max_nbytes: int = -1) -> _core.Matrix:
        """The core's matrix of this process; opening it reads indptr."""
        if self._matrix is None or self._pid != os.getpid():
            if self._is_group:
                self._matrix = _core.Matrix.open_sparse(
                    self._file.core,
                    self._path,
                    shape=self.shape,
                    is_csc=self.format == "csc",
                    max_nbytes=max_nbytes,
                )
            else:
                self._matrix = _core.Matrix.open_dense(self._file.core, self._path)
            self._pid = os.getpid()
        return self._matrix

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> CSR | NDArray[Any]:
        """Read rows: a slice, an int array, a mask or an int (which gives one row).

        Returns
        -------
        CSR or ndarray
            As the matrix is stored: CSR for csr and csc, an array (n_rows, n_cols) for dense.
        """
        n_rows, n_cols = self.shape
        if isinstance(rows, slice) and rows.step in (None, 1):
            start, stop, _ = rows.indices(n_rows)
            return self._read_range(start, max(start, stop))
        index = row_index(rows, n_rows)
        arrays = self._core_matrix().take(index)
        out = CSR._wrap(arrays, (len(index), n_cols))
        return out.toarray() if self.format == "dense" else out

    def _read_range(self, start: int, stop: int) -> CSR | NDArray[Any]:
        matrix = self._core_matrix()
        if self.format == "dense":
            return matrix.read_dense(start, stop)
        return CSR._wrap(matrix.read(start, stop), (stop - start, self.shape[1]))

    def read(self) -> CSR | NDArray[Any]:
        """Read the whole matrix, decoded by all threads into its final memory."""
        return self._read_range(0, self.shape[0])


class _Mapping:
    """Elements by name: layers, obsm, varm, obsp, varp, uns, and the dicts in uns.

    Nothing is read until an element is asked for, and of matrices and frames not even then.
    """

    def __init__(
        self, file: HDF5File, path: str, shape: tuple[int, int] | None, paths: dict[str, str]
    ) -> None:
        self._file = file
        self._path = path
        self._shape = shape
        self._paths = paths  # where further elements lie: old files keep graphs in uns

    @property
    def _is_compound(self) -> bool:
        return self._file.kind(self._path) == "dataset"  # obsm and varm before 0.6

    def keys(self) -> list[str]:
        """Names of the elements."""
        kind = self._file.kind(self._path)
        if kind == "group":
            names = self._file.keys(self._path)
        elif kind == "dataset":
            names = [m[0] for m in self._file.dataset(self._path).type.get("members", ())]
        else:
            names = []
        return names + [name for name in self._paths if name not in names]

    def __iter__(self) -> Any:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self.keys())

    def __contains__(self, key: object) -> bool:
        return key in self.keys()

    def __getitem__(self, key: str) -> Any:
        """Open one element.

        Returns
        -------
        MatrixHandle, Frame, mapping or value
            Sparse matrices and (not in uns) 2-D arrays as `MatrixHandle`, frames as `Frame`, dicts as
            a mapping like this one; everything else is read.
        """
        names = self.keys()
        if key not in names:
            name = self._path.strip("/")
            message = f"{self._file.name}: no {key!r} in {name}; {near_names(key, names)}"
            raise KeyNotFoundError(message)
        if self._is_compound:
            return np.ascontiguousarray(self._file.read(self._path)[key])
        return self._open(self._paths.get(key, f"{self._path}/{key}"))

    def _open(self, path: str) -> Any:
        file, is_uns = self._file, self._path.startswith("/uns")
        if file.kind(path) == "group":
            encoding = file.scalar_attr(path, "encoding-type")
            attributes = file.attr_names(path)
            if encoding in _SPARSE_FORMATS or "h5sparse_format" in attributes:
                return MatrixHandle(file, path, self._shape)
            if encoding == "dataframe" or "_index" in attributes:
                return Frame(file, path, path.strip("/"))
            if encoding in (None, "", "dict"):
                return _Mapping(file, path, None, {})
        elif not is_uns:
            dataset = file.dataset(path)
            shape = dataset.shape
            if shape is not None and len(shape) == _MATRIX_RANK and dataset.dtype is not None:
                return MatrixHandle(file, path, self._shape)
        from scio.io.read import read_element

        return read_element(file, path)

    def __repr__(self) -> str:
        listed = ", ".join(repr(k) for k in self.keys())
        return f"<{self._path.strip('/')}: {listed or 'empty'}>"


def shape_of(file: HDF5File, path: str) -> tuple[int, ...] | None:
    """Shape of a dense or sparse matrix from headers, None when it does not say."""
    if file.kind(path) == "dataset":
        return file.dataset(path).shape
    for name in ("shape", "h5sparse_shape"):
        value = file.attr(path, name)
        if value is not None:
            numbers = np.ravel(value)
            return tuple(numbers.tolist()) if numbers.dtype.kind in "iu" else None
    return None


class Raw:
    """The matrix and the genes that were kept before filtering."""

    def __init__(self, file: HDF5File, x_path: str, var_path: str, n_obs: int) -> None:
        self._file = file
        self.var = open_frame(file, var_path, "raw.var")
        self.X = MatrixHandle(file, x_path, (n_obs, len(self.var)))
        self.varm = _Mapping(file, x_path.removesuffix("X") + "varm", None, {})

    @property
    def shape(self) -> tuple[int, int]:
        """(n_obs, genes of raw)."""
        return self.X.shape

    @property
    def var_names(self) -> NDArray[Any]:
        """Names of the genes of raw, shape (n_vars,), objects of str."""
        return self.var.index

    def __repr__(self) -> str:
        return f"<raw: {self.X!r}>"


class AnnDataFile:
    """A lazy handle on an AnnData file; made by `scio.open`.

    Attributes
    ----------
    obs, var : Frame
        Columns of cells and genes, read when asked for.
    layers, obsm, varm, obsp, varp, uns : mapping
        Elements by name.
    raw : Raw or None
    """

    def __init__(self, source: Any) -> None:
        self.file = source if isinstance(source, HDF5File) else HDF5File(source)
        self._open_parts()

    def _open_parts(self) -> None:
        self.obs = open_frame(self.file, "/obs", "obs")
        self.var = open_frame(self.file, "/var", "var")
        self._x: MatrixHandle | None = None
        self._names: dict[str, NDArray[Any]] = {}
        if self.has_x:
            self._x = MatrixHandle(self.file, "/X", self.shape)

    def __getstate__(self) -> dict[str, Any]:
        return {"file": self.file}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.file = state["file"]
        self._open_parts()

    @property
    def name(self) -> str:
        """Path, or a description of the object it was opened from."""
        return self.file.name

    @property
    def n_obs(self) -> int:
        """Cells."""
        return len(self.obs)

    @property
    def n_vars(self) -> int:
        """Genes."""
        return len(self.var)

    @property
    def shape(self) -> tuple[int, int]:
        """(n_obs, n_vars)."""
        return (self.n_obs, self.n_vars)

    @property
    def has_x(self) -> bool:
        """Whether the file has a matrix X (it may be absent, or a null dataset)."""
        kind = self.file.kind("/X")
        return kind == "group" or (kind == "dataset" and self.file.dataset("/X").shape is not None)

    @property
    def X(self) -> MatrixHandle:
        """The matrix X.

        Raises
        ------
        IOFormatError
            If the file has no X; layers and raw are named.
        """
        if self._x is None:
            others = [f"layers/{k}" for k in self.layers] + (["raw/X"] if self.raw else [])
            message = (
                f"{self.name} has no X; it has {', '.join(others) or 'no other matrix either'}"
            )
            raise IOFormatError(message)
        return self._x

    @property
    def raw(self) -> Raw | None:
        """What was kept before filtering, or None."""
        for x_path, var_path in (("/raw/X", "/raw/var"), ("/raw.X", "/raw.var")):
            if x_path in self.file and var_path in self.file:
                return Raw(self.file, x_path, var_path, self.n_obs)
        return None

    @property
    def obs_names(self) -> NDArray[Any]:
        """Names of the cells, shape (n_obs,), objects of str."""
        return self._index("obs")

    @property
    def var_names(self) -> NDArray[Any]:
        """Names of the genes, shape (n_vars,), objects of str."""
        return self._index("var")

    def _index(self, axis: str) -> NDArray[Any]:
        if axis not in self._names:
            self._names[axis] = getattr(self, axis).index
        return self._names[axis]

    @property
    def layers(self) -> _Mapping:
        """Matrices of the shape of X."""
        return _Mapping(self.file, "/layers", self.shape, {})

    @property
    def obsm(self) -> _Mapping:
        """Elements with one row per cell."""
        return _Mapping(self.file, "/obsm", None, {})

    @property
    def varm(self) -> _Mapping:
        """Elements with one row per gene."""
        return _Mapping(self.file, "/varm", None, {})

    @property
    def obsp(self) -> _Mapping:
        """Matrices cells x cells."""
        shape = (self.n_obs, self.n_obs)
        paths = {}
        for name in ("distances", "connectivities"):  # before 0.7
            path = f"/uns/neighbors/{name}"
            if path in self.file and shape_of(self.file, path) == shape:
                paths[name] = path
        return _Mapping(self.file, "/obsp", shape, paths)

    @property
    def varp(self) -> _Mapping:
        """Matrices genes x genes."""
        return _Mapping(self.file, "/varp", (self.n_vars, self.n_vars), {})

    @property
    def uns(self) -> _Mapping:
        """Everything else, a tree of dicts."""
        return _Mapping(self.file, "/uns", None, {})

    def to_memory(self, **options: Any) -> Any:
        """Read into an ``anndata.AnnData``; options as of `scio.read_h5ad`."""
        from scio.io.read import read_h5ad

        return read_h5ad(self, **options)

    def estimate_memory(self, **options: Any) -> int:
        """Bytes that `to_memory` with the same `elements`, `obs` and `var` would take."""
        from scio.io.read import estimate_memory

        return estimate_memory(self, **options)

    def matrix(self, name: str = "X") -> MatrixHandle:
        """Open a matrix by the name that loaders take.

        Parameters
        ----------
        name : str
            ``"X"``, ``"layers/<key>"`` or ``"raw/X"``.

        Raises
        ------
        ValueError
            If the name has another form.
        KeyNotFoundError
            If the file has no such matrix; near names are offered.
        """
        if name == "X":
            return self.X
        if name == "raw/X":
            raw = self.raw
            if raw is None:
                message = f"{self.name} has no raw"
                raise KeyNotFoundError(message)
            return raw.X
        prefix, _, key = name.partition("/")
        if prefix != "layers" or not key:
            message = f"matrix is 'X', 'layers/<key>' or 'raw/X', not {name!r}"
            raise ValueError(message)
        handle: MatrixHandle = self.layers[key]
        return handle

    def close(self) -> None:
        """Close the file; further reads raise ValueError."""
        self.file.close()

    def __enter__(self) -> AnnDataFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        lines = [f"scio file {self.name!r}: n_obs x n_vars = {self.n_obs:,} x {self.n_vars:,}"]
        lines.append(f"    X: {self._x!r}" if self._x is not None else "    X: none")
        for axis in ("obs", "var"):
            columns = getattr(self, axis).columns
            if columns:
                lines.append(f"    {axis}: {', '.join(repr(c) for c in columns)}")
        for name in ("uns", "layers", "obsm", "varm", "obsp", "varp"):
            keys = getattr(self, name).keys()
            if keys:
                lines.append(f"    {name}: {', '.join(repr(k) for k in keys)}")
        if self.raw is not None:
            lines.append(f"    raw: {self.raw.shape[0]:,} x {self.raw.shape[1]:,}")
        return "\n".join(lines)
