"""Cells and genes of a file into a new file, in bounded memory."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from scio._progress import Progress
from scio.errors import CorruptFileError, UnsupportedError
from scio.io._assemble import _drop_unused, make_rows
from scio.io._coding import members_of
from scio.io._encodings import ElementReader
from scio.io._from_file import LazyMembers
from scio.io._plain import DenseParts, Members, SparseParts, Table, Unread
from scio.io._plan import Plan, Rows
from scio.io._select import Notes, Wanted
from scio.io._windows import (
    MAX_MEMORY,
    check_memory,
    choose_columns,
    cut,
    entries_within,
    least_stored,
    plain,
    publish,
    stored_rows,
    windows_of_dense,
)
from scio.io.elements import Categorical, Frame
from scio.io.h5ad import AnnDataFile, MatrixHandle
from scio.io.writer import StorageOptions, index_dtype_for

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray

    from scio.io._plain import SparseBlock
    from scio.io._profiles import WriteReport
    from scio.io.h5ad import _Mapping

_LOG = logging.getLogger("scio")
_WINDOW_COPIES = 5  # read, checked, chosen, sorted, on their way into the file
_DENSE_COPIES = 4
_SPARSE = ("csr", "csc")
_ENCODINGS = frozenset({"csr_matrix", "csc_matrix"})


@dataclass(frozen=True, slots=True)
class SubsetEstimate:
    """What `write_subset` will do, from headers and the extents of rows.

    Attributes
    ----------
    n_obs, n_vars : int
        Cells and genes of the new file.
    nbytes : int
        About the bytes of its matrices, without compression.
    least_nbytes : int
        Bytes that must be free on the disk: a lower bound of the new file.
    """

    n_obs: int
    n_vars: int
    nbytes: int
    least_nbytes: int

    def __str__(self) -> str:
        return (
            f"{self.n_obs:,} x {self.n_vars:,}, about {self.nbytes / 2**20:,.1f} MiB of matrices, "
            f"at least {self.least_nbytes / 2**20:,.1f} MiB on the disk"
        )


def write_subset(
    src: str | os.PathLike[str] | AnnDataFile,
    dst: str | os.PathLike[str],
    *,
    obs: Any = None,
    var: Any = None,
    max_memory: int = MAX_MEMORY,
    compression: str | None = "gzip",
    compression_opts: int = 1,
    shuffle: bool = True,
    checksums: bool = False,
    overwrite: bool = True,
) -> WriteReport:
    """Write the chosen cells and genes of a file to another one, in bounded memory.

    Parameters
    ----------
    src : str, Path or AnnDataFile
        The file; it may be `dst`.
    dst : str or Path
        The new file; it has its old content until the new one is complete.
    obs, var : slice, boolean mask, integers, names, str, int or callable, optional
        Cells and genes, in this order; repeats are allowed.  A callable gets the frame of the file
        (``file.obs``) and returns one of the others:
        ``lambda obs: np.asarray(obs["louvain"]) == "B cells"``.
    max_memory : int
        Bytes for the parts of matrices at work.  Besides, 16 bytes per cell and gene, one column of
        obs or var, and one element of uns are held at a time.
    compression, compression_opts, shuffle, checksums, overwrite
        As `scio.write_h5ad`.

    Returns
    -------
    WriteReport

    Raises
    ------
    KeyNotFoundError, IndexError, TypeError
        If a selector names what does not exist, or is none.
    CorruptFileError
        If the file breaks a rule of the format.
    IOWriteError
        If writing fails, or the disk has less room than `estimate_subset` says; an old file is
        unchanged.

    Notes
    -----
    The content is that of ``anndata.read_h5ad(src)[obs, var].copy()``: X, layers, obsm, varm, obsp
    and varp are cut, raw keeps its genes, categories that are no longer used go, with their colours
    in uns.  Matrices keep their layout; of a CSC matrix, only the chosen genes are read.  Cells in an
    order far from that of the file are read window by window, which decodes the file several times.
    Files of anndata 0.7 and before are read into memory first.

    Examples
    --------
    >>> import scio
    >>> report = scio.write_subset(scio.datasets.pbmc3k(), "few.h5ad", obs=slice(100))  # doctest: +SKIP
    """
    options = StorageOptions(compression, compression_opts, shuffle, checksums)
    check_memory(max_memory)
    with contextlib.ExitStack() as stack:
        file = src if isinstance(src, AnnDataFile) else stack.enter_context(AnnDataFile(src))
        work = _Subset(file, obs, var, max_memory)
        estimate = work.estimate(options)
        _LOG.info("%s to %s: %s", file.name, dst, estimate)
        adata = None
        if file.file.scalar_attr("/", "encoding-type") is None:
            adata = file.to_memory(obs=work.rows["obs"].index, var=work.rows["var"].index)
            members = members_of(adata, convert_strings=False)
        else:
            members = work.members()
        return publish(
            dst,
            members,
            plain,
            options=options,
            overwrite=overwrite,
            needed=estimate.least_nbytes,
            sources=[file],
            told=adata,
        )


def estimate_subset(
    src: str | os.PathLike[str] | AnnDataFile,
    *,
    obs: Any = None,
    var: Any = None,
    compression: str | None = "gzip",
) -> SubsetEstimate:
    """Say how large the file of `write_subset` will be, without reading a matrix.

    Parameters
    ----------
    src, obs, var, compression
        As `write_subset`.

    Examples
    --------
    >>> import scio
    >>> from scio.io.subset import estimate_subset
    >>> estimate_subset(scio.datasets.pbmc3k(), obs=slice(100)).n_obs
    100
    """
    with contextlib.ExitStack() as stack:
        file = src if isinstance(src, AnnDataFile) else stack.enter_context(AnnDataFile(src))
        return _Subset(file, obs, var, MAX_MEMORY).estimate(StorageOptions(compression))


class _Subset:
    """The elements of a file, cut when they are written."""

    def __init__(self, file: AnnDataFile, obs: Any, var: Any, max_memory: int) -> None:
        self.file = file
        self.is_selected = obs is not None or var is not None
        self.max_memory = max_memory
        self.rows = {"obs": self._rows("obs", obs), "var": self._rows("var", var)}

    def _rows(self, axis: str, selector: Any) -> Rows:
        frame: Frame = getattr(self.file, axis)
        chosen = selector(frame) if callable(selector) else selector
        return make_rows(chosen, len(frame), lambda: frame.index, f"{self.file.name}: {axis}")

    def estimate(self, options: StorageOptions) -> SubsetEstimate:
        """Add up the parts of X, the layers and raw.X."""
        obs, var = self.rows["obs"], self.rows["var"]
        handles = [(h, var) for h in self._matrices()]
        if self.file.raw is not None:
            raw = self.file.raw
            handles.append((raw.X, Rows(raw.shape[1])))
        total = least = 0
        for handle, columns in handles:
            fraction = len(obs) / max(1, obs.n_total) * len(columns) / max(1, columns.n_total)
            nbytes = handle.nnz * (handle.dtype.itemsize + (4 if handle.format in _SPARSE else 0))
            total += int(nbytes * fraction)
            # parts differ in density: a quarter of the mean is asked for
            least += least_stored(handle, fraction if fraction >= 1 else fraction / 4, options)
        return SubsetEstimate(len(obs), len(var), total, least)

    def _matrices(self) -> list[MatrixHandle]:
        found = [self.file.X] if self.file.has_x else []
        layers = self.file.layers
        return found + [h for h in map(layers.__getitem__, layers) if isinstance(h, MatrixHandle)]

    # --- elements

    def members(self) -> Members:
        """Give all elements, in the order of writing."""
        obs, var = self.rows["obs"], self.rows["var"]
        file = self.file
        members: dict[str, Any] = {"obs": self._table("obs"), "var": self._table("var")}
        members["uns"] = _Uns(self)
        for name, axes in (
            ("obsm", (obs,)),
            ("varm", (var,)),
            ("obsp", (obs, obs)),
            ("varp", (var, var)),
            ("layers", (obs, var)),
        ):
            members[name] = _Parts(self, getattr(file, name), axes)
        raw = file.raw
        if raw is not None:
            parts = {"var": Table.lazy(raw.var), "varm": LazyMembers(raw.varm)}
            matrix = self.part(raw.X, (obs, Rows(raw.shape[1])))
            members["raw"] = Members("raw", {**parts, "X": matrix})
        if file.has_x:
            members["X"] = self.part(file.X, (obs, var))
        return Members("anndata", members)

    def _table(self, axis: str) -> Table:
        table = Table.lazy(getattr(self.file, axis), self.rows[axis].index)
        if self.is_selected:
            columns = {n: functools.partial(_used_only, c) for n, c in table.columns.items()}
            return Table(table.index, dict(columns), table.index_name, table.unread)
        return table

    def part(self, handle: MatrixHandle, axes: tuple[Rows, Rows]) -> SparseParts | DenseParts:
        """Cut a matrix of two dimensions."""
        if handle.format not in _SPARSE:
            return self.dense(handle.path, axes)
        is_csc = handle.format == "csc"
        shape = (len(axes[0]), len(axes[1]))
        blocks = functools.partial(self._sparse_blocks, handle, axes)
        return SparseParts(is_csc, shape, handle.dtype, blocks)

    def _sparse_blocks(
        self, handle: MatrixHandle, axes: tuple[Rows, Rows]
    ) -> Iterator[SparseBlock]:
        major, minor = axes[::-1] if handle.format == "csc" else axes
        matrix = stored_rows(handle)
        lengths = np.diff(matrix.indptr)
        if major.index is not None:
            lengths = lengths[major.index]
        extents = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        most = entries_within(self.max_memory, handle.dtype.itemsize + 8, _WINDOW_COPIES)
        dtype = index_dtype_for(len(minor))
        name = handle.path.strip("/")
        with Progress(len(major), unit="rows", what=name) as progress:
            for start, stop in cut(extents, most):
                if major.range is not None:
                    first = major.range[0]
                    arrays = matrix.read(first + start, first + stop)
                else:
                    assert major.index is not None
                    arrays = matrix.take(np.ascontiguousarray(major.index[start:stop]))
                if minor.index is not None:
                    shape = (stop - start, minor.n_total)
                    arrays = choose_columns(arrays, minor.index, shape)
                data, indices, indptr = arrays
                yield data, indices.astype(dtype, copy=False), np.diff(indptr)
                progress.update(stop - start)

    def dense(self, path: str, axes: Sequence[Rows]) -> DenseParts:
        """Cut a dense dataset along its first dimension, and the second if there are two axes."""
        dataset = self.file.file.dataset(path)
        shape = dataset.shape or ()
        rows, columns = axes[0], axes[1].index if len(axes) > 1 else None

        def blocks() -> Iterator[NDArray[Any]]:
            index = np.arange(rows.n_total) if rows.index is None else rows.index
            for block in windows_of_dense(dataset, index, self.max_memory // _DENSE_COPIES):
                yield block if columns is None else block[:, columns]

        out = (len(rows), *shape[1:]) if columns is None else (len(rows), len(columns))
        return DenseParts(out, np.dtype(dataset.dtype), blocks)

    def element(self, path: str, axes: Sequence[Rows]) -> Any:
        """Read the part of an element of any encoding."""
        file = self.file.file
        plan, notes = Plan(file), Notes(file.name)
        value = ElementReader(plan, Wanted(None), notes).element(path, axes)
        notes.tell(strict=False)
        plan.run(-1)
        found = value()
        if self.is_selected and hasattr(found, "columns"):
            _drop_unused(found, {})
        return found


def _used_only(column: Any) -> Any:
    """What anndata does to a column of a subset: categories that are not used go."""
    value = column() if callable(column) else column
    if not isinstance(value, Categorical):
        return value
    used = np.unique(value.codes[value.codes >= 0]).astype(np.int64)
    if len(used) == len(value.categories):
        return value
    places = np.full(len(value.categories) + 1, -1, dtype=np.int64)  # the last is for missing
    places[used] = np.arange(len(used))
    return Categorical(places[value.codes.astype(np.int64)], value.categories[used], value.ordered)


class _Parts(LazyMembers):
    """Members of a mapping, each cut when it is written."""

    def __init__(self, work: _Subset, members: _Mapping, axes: Sequence[Rows]) -> None:
        super().__init__(members)
        self._work, self._axes = work, axes

    def _fetch(self, name: str) -> Any:
        work, members = self._work, self._members
        file = work.file.file
        if members._is_compound:
            return members[name][slice(None) if (i := self._axes[0].index) is None else i]
        path = members._paths.get(name, f"{members._path}/{name}")
        try:
            if file.kind(path) == "group":
                if file.scalar_attr(path, "encoding-type") in _ENCODINGS:
                    return self._sparse(path)
            else:
                dataset = file.dataset(path)
                is_plain = dataset.dtype is not None and not dataset.type["unsupported"]
                if is_plain and dataset.shape is not None and len(dataset.shape) > 1:
                    self._check_shape(path, dataset.shape)
                    return work.dense(path, self._axes)
            return work.element(path, self._axes)
        except UnsupportedError as error:
            return Unread(str(error))

    def _sparse(self, path: str) -> Any:
        handle = MatrixHandle(self._work.file.file, path)
        self._check_shape(path, handle.shape)
        columns = self._axes[1] if len(self._axes) > 1 else Rows(handle.n_cols)
        return self._work.part(handle, (self._axes[0], columns))

    def _check_shape(self, path: str, shape: tuple[int, ...]) -> None:
        for rows, n in zip(self._axes, shape, strict=False):
            if rows.n_total != n:
                wanted = ", ".join(f"{r.n_total:,}" for r in self._axes)
                message = (
                    f"{self._work.file.name}: {path} has shape {shape}, expected ({wanted}, …)"
                )
                raise CorruptFileError(message)


class _Uns(LazyMembers):
    """uns as it is, but for the colours of categories that are not used any more."""

    def __init__(self, work: _Subset) -> None:
        super().__init__(work.file.uns)
        self._work = work

    def _fetch(self, name: str) -> Any:
        value = super()._fetch(name)
        column = name.removesuffix("_colors")
        if not self._work.is_selected or column == name:
            return value
        for axis in ("obs", "var"):
            frame = getattr(self._work.file, axis)
            if column in frame:
                value = _colors(value, frame[column], self._work.rows[axis])
        return value

    def items(self) -> Any:
        """Pairs of name and value; colours that fit no category are left out, as by anndata."""
        return ((name, value) for name, value in super().items() if value is not _DROPPED)


_DROPPED = object()


def _colors(colors: Any, column: Any, rows: Rows) -> Any:
    if not isinstance(column, Categorical) or colors is _DROPPED:
        return colors
    if np.ndim(colors) == 0:
        return np.array(colors)[None]
    if len(colors) != len(column.categories):
        return _DROPPED
    codes = column.codes if rows.index is None else column.codes[rows.index]
    is_used = np.zeros(len(colors), dtype=np.bool_)
    is_used[codes[codes >= 0].astype(np.int64)] = True
    return np.array(colors)[is_used]
