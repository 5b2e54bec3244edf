"""`scio.repair`: a sound file from what is left of a broken one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scio import _core
from scio._storage.keys import MARK
from scio.errors import IOFormatError, ScioError, UnsupportedError
from scio.io import _coding
from scio.io._encodings import _ENCODINGS, _SPARSE
from scio.io._foreign import keep_columns, positions
from scio.io._forms import form_of_file
from scio.io._plain import DenseParts, Members, NullableStrings, SparseParts, Table
from scio.io._profiles import Profile, WriteReport
from scio.io._renamed import RenamedFile
from scio.io._report import Report
from scio.io._storage_check import FAILURES, _grid, boxes
from scio.io.elements import Categorical, Frame, read_column
from scio.io.read import read_element, read_h5ad
from scio.io.verify import verify
from scio.io.write import mark_of
from scio.io.writer import Context, StorageOptions, published_file, write_element
from scio.matrix import CSR

if TYPE_CHECKING:
    from scio.io.hdf5 import HDF5File

_BLOCK_ENTRIES = 4 << 20
_BROKEN = (*FAILURES, ScioError, MemoryError)
Mask = NDArray[np.bool_]


@dataclass(slots=True)
class RepairReport(Report):
    """What was repaired (level "note") and what was lost (level "error").

    Attributes
    ----------
    target : str
        The new file.
    n_rows_lost : int
        Cells of the source that the new file does not have.
    """

    target: str = ""
    n_rows_lost: int = 0

    @property
    def lost(self) -> list[Any]:
        """What the new file lacks of the source."""
        return self.of("error")

    @property
    def repaired(self) -> list[Any]:
        """What was put right without loss."""
        return self.of("note")

    @property
    def verdict(self) -> str:
        """Return "complete" or "incomplete"."""
        return "incomplete" if self.lost else "complete"

    def repair(self, path: str, found: str) -> None:
        """Note what was put right."""
        self.add(path, "repaired", found, level="note")

    def lose(self, path: str, found: str) -> None:
        """Note what is lost."""
        self.add(path, "lost", found)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as a dict that JSON knows."""
        return {
            "source": self.file,
            "target": self.target,
            "verdict": self.verdict,
            "n_rows_lost": self.n_rows_lost,
            "findings": [f.to_dict() for f in self.findings],
        }


def repair(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    *,
    sum_duplicates: bool = False,
    compression: str | None = "gzip",
    overwrite: bool = False,
) -> RepairReport:
    """Write a sound ``.h5ad`` from a broken one, which is not changed.

    Parameters
    ----------
    src, dst : str or Path
        The broken file and the new one, which appears whole or not at all.
    sum_duplicates : bool
        Sum values that share row and column; otherwise they are kept as they are.
    compression : "gzip" or None
    overwrite : bool
        Replace an existing `dst`.

    Returns
    -------
    RepairReport
        ``report.repaired`` and ``report.lost``, by element.

    Raises
    ------
    IOFormatError
        If the source is no HDF5 file, or nothing of an AnnData is left of it.
    ValueError
        If both are one file.
    TargetExistsError
        If `dst` exists and `overwrite` is False.

    Notes
    -----
    Put right: rows of sparse matrices that are not sorted; ``indptr`` that wrapped at 32 bits;
    encodings that are missing or contradict what is there; shapes that are missing; categories that
    repeat; codes whose labels lie in ``__categories`` but are not attached (hdf5r); the layouts of
    old releases.

    Lost, and told: of truncated files, and of chunks that do not decode, the cells of X that are
    incomplete are left out, from every element; an element (column, layer, obsm …) that lacks some of
    the remaining cells is left out as a whole; codes without a category become missing; entries
    whose index is out of range are left out.  Names of cells that are lost become positions.

    Examples
    --------
    >>> import scio
    >>> report = scio.repair("broken.h5ad", "sound.h5ad")  # doctest: +SKIP
    >>> report.lost  # doctest: +SKIP
    """
    src, dst = os.fspath(src), os.fspath(dst)
    if os.path.exists(dst) and os.path.exists(src) and os.path.samefile(src, dst):
        message = f"{dst} is the file to repair; give another name"
        raise ValueError(message)
    report = RepairReport(src, target=dst)
    file = RenamedFile(src)
    try:
        if file.core.superblock["end"] > file.core.nbytes:
            missing = file.core.superblock["end"] - file.core.nbytes
            report.lose("/", f"truncated: the last {missing:,} bytes are not there")
        options = StorageOptions(compression)
        context = Context(options, Profile(), WriteReport(dst), _coding.to_plain)
        members = _members(file, report, sum_duplicates)
        with published_file(dst, overwrite=overwrite) as writer:
            write_element(writer, "/", members, context)
            writer.attr("/", MARK, mark_of(context))
        for path, names in file.renamed.items():
            report.repair(path, f"names of members were lost, and found again: {', '.join(names)}")
        for row in context.report.losses:
            report.lose(row.element, row.loss)
    finally:
        file.close()
    for finding in verify(dst).of("error"):
        report.lose(finding.path, f"still {finding.rule}: {finding.found}")
    report.findings.sort(key=lambda f: f.path)
    return report


def _members(file: HDF5File, report: RepairReport, sum_duplicates: bool) -> Members:
    names = _keys(file, "/")
    try:
        form = form_of_file(file)
    except FAILURES:
        form = "hdf5"
    if form not in ("h5ad", "hdf5") or not {"obs", "var", "X", "layers", "raw"} & set(names):
        message = f"{file.name}: nothing of an AnnData is left at its root ({', '.join(names) or 'empty'})"
        raise IOFormatError(message)
    salvage = _Salvage(file, report, sum_duplicates)
    if any(salvage.is_compound(f"/{axis}") for axis in ("obs", "var")):
        members = _coding.members_of(read_h5ad(file), convert_strings=False)
        report.repair("/", "the layout of anndata before 0.7 was turned into today's")
        return members
    return salvage.members(names)


def _keys(file: HDF5File, path: str) -> list[str]:
    """Names of members; none of a group that cannot be listed."""
    try:
        return file.keys(path)
    except FAILURES:
        return []


class _Salvage:
    """Elements of a file of anndata 0.7 or later, as far as they can be read."""

    def __init__(self, file: HDF5File, report: RepairReport, sum_duplicates: bool) -> None:
        self.file = file
        self.report = report
        self.sum_duplicates = sum_duplicates
        self._gone: set[str] = set()
        self.is_truncated = file.core.superblock["end"] > file.core.nbytes

    def is_compound(self, path: str) -> bool:
        """Whether this is a data frame as anndata before 0.7 wrote it."""
        if self.kind(path) != "dataset":
            return False
        dataset = self.file.dataset(path)
        return dataset.type["class"] == "compound" and len(dataset.shape or ()) == 1

    # --- the whole

    def members(self, names: list[str]) -> Members:
        obs, var = self._frame("/obs"), self._frame("/var")
        x = self._matrix("/X") if self.kind("/X") is not None else None
        if obs is None and var is None and x is None:
            message = f"{self.file.name}: neither X nor obs nor var can be read: nothing is left"
            raise IOFormatError(message)
        n_obs = self._length(obs, x, 0)
        n_vars = self._length(var, x, 1)
        keep = np.ones(n_obs, np.bool_)
        if x is not None:
            keep &= _fitted(x.row_mask(), n_obs)
            if x.shape[1] != n_vars:
                self.report.lose("/X", f"has {x.shape[1]} columns, var has {n_vars}: left out")
                x, keep = None, np.ones(n_obs, np.bool_)
        self.report.n_rows_lost = int((~keep).sum())
        if not keep.all():
            self.report.lose("/X", f"{_ranges(~keep)} of {n_obs:,} cells are incomplete: left out")
        every = np.ones(n_vars, np.bool_)
        out: dict[str, Any] = {
            "obs": self._table("/obs", obs, keep),
            "var": self._table("/var", var, every),
            "uns": self._dict("/uns"),
        }
        axes = {"obsm": (keep,), "varm": (every,), "obsp": (keep, keep), "varp": (every, every)}
        axes["layers"] = (keep, every)
        for name, masks in axes.items():
            out[name] = self._mapping(f"/{name}", masks)
        raw = self._raw(keep) if "raw" in names else None
        if raw is not None:
            out["raw"] = raw
        if x is not None:
            out["X"] = x.parts(keep)
        return Members("anndata", out)

    def _frame(self, path: str) -> _FrameParts | None:
        try:
            return _FrameParts(self, path) if self.kind(path) is not None else None
        except _BROKEN as error:
            self.lose(path, error)
            return None

    def _length(self, frame: _FrameParts | None, x: _Matrix | None, axis: int) -> int:
        if frame is not None and frame.n_rows is not None:
            return frame.n_rows
        if x is not None:
            return x.shape[axis]
        if frame is not None and frame.columns:
            return max(len(c) for c in frame.columns.values())
        return 0

    def kind(self, path: str) -> str | None:
        try:
            return self.file.kind(path)
        except FAILURES as error:
            if path not in self._gone:
                self.lose(path, error)
            self._gone.add(path)
            return None

    def lose(self, path: str, error: BaseException | str) -> None:
        text = str(error).removeprefix(f"{self.file.name}: ").removeprefix(f"{path}: ")
        self.report.lose(path, text)

    def _table(self, path: str, frame: _FrameParts | None, keep: Mask) -> Table:
        if frame is None:
            self.report.lose(path, "not there: rows are named by position, without columns")
            return Table(positions(len(keep))[keep], {})
        return frame.table(keep)

    # --- what an element is

    def encoding(self, path: str) -> str:
        """The encoding that an element has by its structure, where that is clear."""
        try:
            tag = self.file.scalar_attr(path, "encoding-type")
        except FAILURES:
            tag = None
        structure = self._structure(path)
        known = isinstance(tag, str) and tag in _ENCODINGS
        fits = known and _ENCODINGS[str(tag)][0] == self.file.kind(path)
        if structure and (not fits or str(tag) != structure):
            if tag is not None or self.file.scalar_attr(path, "h5sparse_format") is None:
                is_old = structure == "dataframe" and tag is None
                said = "no encoding-type" if tag is None else f"encoding-type {tag!r:.40}"
                if not is_old:
                    self.report.repair(path, f"{said}, by its members it is {structure!r}")
            return structure
        return str(tag) if fits else ""

    def _structure(self, path: str) -> str:
        if self.file.kind(path) != "group":
            return ""
        members = set(_keys(self.file, path))
        if {"data", "indices", "indptr"} <= members:
            return self._sparse_format(path)
        if {"codes", "categories"} <= members:
            return "categorical"
        if {"values", "mask"} <= members:
            info = self.file.dataset(f"{path}/values").type
            if info["dtype"] is None:
                return "nullable-string-array"
            return "nullable-boolean" if info["is_bool"] else "nullable-integer"
        try:
            return "dataframe" if "_index" in self.file.attr_names(path) else ""
        except FAILURES:
            return ""

    def _sparse_format(self, path: str) -> str:
        """The tag, unless the length of indptr says otherwise."""
        for name in ("encoding-type", "h5sparse_format"):
            tag = str(self.file.scalar_attr(path, name, ""))
            if tag in _SPARSE:
                break
        else:
            tag = "csr_matrix"
        shape = self.file.attr(path, "shape")
        length = self.file.dataset(f"{path}/indptr").shape
        if shape is not None and np.size(shape) == 2 and length:
            n_rows, n_cols = (int(v) for v in np.ravel(shape))
            if n_rows != n_cols:
                if length[0] == n_cols + 1 and _SPARSE[tag] == "csr":
                    return "csc_matrix"
                if length[0] == n_rows + 1 and _SPARSE[tag] == "csc":
                    return "csr_matrix"
        return f"{_SPARSE[tag]}_matrix"

    # --- elements

    def _mapping(self, path: str, masks: tuple[Mask, ...]) -> dict[str, Any]:
        if self.kind(path) != "group":
            return {}
        try:
            names = self.file.keys(path)
        except FAILURES as error:
            self.lose(path, error)
            return {}
        out = {}
        for name in names:
            member = f"{path}/{name}"
            try:
                value = self._aligned(member, masks)
            except _BROKEN as error:
                self.lose(member, error)
                continue
            if value is not None:
                out[name] = value
        return out

    def _aligned(self, path: str, masks: tuple[Mask, ...]) -> Any:
        """An element whose first axes are those of the masks; None when rows of it are lost."""
        encoding = self.encoding(path)
        if encoding == "dataframe":
            frame = _FrameParts(self, path)
            self._check_length(path, frame.n_rows, masks[0])
            return frame.table(masks[0])
        is_matrix = encoding in _SPARSE or self.file.kind(path) == "dataset"
        if not is_matrix:
            value = read_element(self.file, path)
            self._check_length(path, len(value), masks[0])
            return value[masks[0]]
        shape = self.file.dataset(path).shape if self.file.kind(path) == "dataset" else None
        if shape is not None and len(shape) != 2:
            self._check_length(path, shape[0] if shape else None, masks[0])
            return np.asarray(self.file.read(path))[masks[0]]
        matrix = _Matrix(self, path, masks if len(masks) == 2 else None)
        for n, mask in zip(matrix.shape, masks, strict=False):
            self._check_length(path, n, mask)
        if not matrix.row_mask()[masks[0]].all():
            message = "rows of the remaining cells cannot be read"
            raise IOFormatError(message)
        return matrix.parts(masks[0], masks[1] if len(masks) == 2 else None)

    @staticmethod
    def _check_length(path: str, n: int | None, mask: Mask) -> None:
        if n != len(mask):
            message = f"has {n} rows, expected {len(mask)}: left out"
            raise IOFormatError(message)

    def _matrix(self, path: str) -> _Matrix | None:
        try:
            if self.file.kind(path) == "dataset" and self.file.dataset(path).shape is None:
                return None
            return _Matrix(self, path, None)
        except _BROKEN as error:
            self.lose(path, error)
            return None

    def _raw(self, keep: Mask) -> Members | None:
        names = _keys(self.file, "/raw")
        if not {"X", "var"} <= set(names):
            if self.kind("/raw") == "group":
                self.report.lose(
                    "/raw", f"has {', '.join(names) or 'nothing'}; X and var are needed"
                )
            return None
        try:
            frame = _FrameParts(self, "/raw/var")
            if frame.n_rows is None:
                return None
            every = np.ones(frame.n_rows, np.bool_)
            x = self._aligned("/raw/X", (keep, every))
            varm = self._mapping("/raw/varm", (every,))
            return Members("raw", {"var": frame.table(every), "varm": varm, "X": x})
        except _BROKEN as error:
            self.lose("/raw", error)
            return None

    def _dict(self, path: str, above: tuple[int, ...] = ()) -> dict[str, Any]:
        out: dict[str, Any] = {}
        if self.kind(path) != "group":
            return out
        address = self.file.core.address(path)
        if address in above:
            message = "contains itself: left out"
            raise IOFormatError(message)
        above = (*above, address)
        for name in _keys(self.file, path):
            member = f"{path}/{name}"
            try:
                encoding = self.encoding(member)
                is_dict = self.file.kind(member) == "group" and encoding in ("", "dict")
                tag = self.file.scalar_attr(member, "encoding-type")
                if is_dict and tag not in (None, "", "dict"):
                    message = f"has encoding-type {tag!r}, which scio does not read"
                    raise UnsupportedError(message)
                if encoding in _SPARSE:
                    out[name] = _Matrix(self, member, None).parts()
                elif encoding == "dataframe":
                    out[name] = _FrameParts(self, member).table()
                else:
                    out[name] = (
                        self._dict(member, above) if is_dict else read_element(self.file, member)
                    )
            except _BROKEN as error:
                self.lose(member, error)
        return out

    # --- which items of a dataset can be read

    def readable(self, dataset: _core.Dataset) -> Mask:
        """Items along the first axis whose every chunk decodes."""
        shape = dataset.shape or ()
        out = np.ones(shape[0] if shape else 1, np.bool_)
        if dataset.chunks is None:
            return self._contiguous(dataset, out)
        if self.is_truncated:
            self._forget_holes(dataset, out)
        for start, count in boxes(dataset):
            rows = slice(start[0], start[0] + count[0])
            if not out[rows].any():
                continue
            try:
                dataset.read_raw(start, count)
            except FAILURES:
                for at, size in _grid(start, count, dataset.chunks):
                    try:
                        dataset.read_raw(at, size)
                    except FAILURES:
                        out[at[0] : at[0] + size[0]] = False
        return out

    def _contiguous(self, dataset: _core.Dataset, out: Mask) -> Mask:
        units = dataset.units()
        written = units[units[:, 0] >= 0]
        if len(written) and dataset.shape:
            row = int(dataset.type["itemsize"]) * int(np.prod(dataset.shape[1:]))
            n_there = max(0, self.file.core.nbytes - int(written[0, 0])) // max(1, row)
            out[n_there:] = False
        return out

    @staticmethod
    def _forget_holes(dataset: _core.Dataset, out: Mask) -> None:
        """Chunks that the index does not name: of a truncated file, they were lost with it."""
        assert dataset.shape is not None
        assert dataset.chunks is not None
        grid = [-(-n // c) for n, c in zip(dataset.shape, dataset.chunks, strict=True)]
        is_hole = (dataset.units()[:, 0] < 0).reshape(grid)
        bad = is_hole.reshape(grid[0], -1).any(axis=1)
        out[np.repeat(bad, dataset.chunks[0])[: len(out)]] = False


class _Matrix:
    """A matrix, dense or sparse, and which of its rows can be read."""

    def __init__(self, salvage: _Salvage, path: str, masks: tuple[Mask, ...] | None) -> None:
        self.salvage, self.file, self.path = salvage, salvage.file, path
        self.report = salvage.report
        self._facts = [False, False, 0]  # unsorted, duplicates, entries out of range
        if self.file.kind(path) == "dataset":
            dataset = self.file.dataset(path)
            if dataset.shape is None or len(dataset.shape) != 2 or dataset.dtype is None:
                message = f"is a dataset of shape {dataset.shape}: no matrix"
                raise IOFormatError(message)
            self.is_sparse, self.is_csc = False, False
            self.shape = (dataset.shape[0], dataset.shape[1])
            self.dtype = np.dtype(dataset.dtype)
            self._rows = salvage.readable(dataset)
            return
        encoding = salvage.encoding(path)
        if encoding not in _SPARSE:
            message = "is a group that is no sparse matrix"
            raise IOFormatError(message)
        self.is_sparse, self.is_csc = True, _SPARSE[encoding] == "csc"
        self._open_sparse(masks)

    # --- sparse

    def _open_sparse(self, masks: tuple[Mask, ...] | None) -> None:
        data, indices = (self.file.dataset(f"{self.path}/{n}") for n in ("data", "indices"))
        self.dtype = np.dtype(data.dtype or "V1")
        if self.dtype.kind not in "biuf":
            message = f"data holds {data.type['class']}, expected numbers"
            raise IOFormatError(message)
        n_values = min((data.shape or (0,))[0], (indices.shape or (0,))[0])
        stored = self.file.read(f"{self.path}/indptr")
        self.indptr, is_whole = self._indptr(np.asarray(stored), n_values)
        n_major = len(self.indptr) - 1
        items = salvage_items(self.salvage, data, n_values) & salvage_items(
            self.salvage, indices, n_values
        )
        bad = np.concatenate([[0], np.cumsum(~items)])
        end = np.minimum(self.indptr, n_values)
        self._major = (bad[end[1:]] == bad[end[:-1]]) & (self.indptr[1:] <= n_values)
        self._major &= is_whole
        self.n_minor = self._minor(masks)
        self.shape = (self.n_minor, n_major) if self.is_csc else (n_major, self.n_minor)
        if self.is_csc and not self._major.all():
            message = "columns cannot be read; by columns, every row is incomplete"
            raise IOFormatError(message)
        self._rows = np.ones(self.n_minor, np.bool_) if self.is_csc else self._major
        self._tell_unsorted()

    def _minor(self, masks: tuple[Mask, ...] | None) -> int:
        """Length of the axis that indptr does not give."""
        axis = 0 if self.is_csc else 1
        for name in ("shape", "h5sparse_shape"):
            value = self.file.attr(self.path, name)
            if value is not None and np.size(value) == 2:
                sizes = [int(v) for v in np.ravel(value)]
                if sizes[1 - axis] != len(self.indptr) - 1:
                    found = f"attribute {name} is {sizes}, indptr has {len(self.indptr) - 1} rows"
                    self.report.repair(self.path, found)
                if sizes[axis] >= 0:
                    return sizes[axis]
        self.report.repair(self.path, "no attribute shape")
        if masks is not None:
            return len(masks[axis])
        path = "/obs" if self.is_csc else "/var"
        try:
            return len(Frame(self.file, path, "frame"))
        except _BROKEN:
            found = f"{path} is lost, too: as many as the indices need"
            self.report.lose(self.path, found)
            return self._n_needed()

    def _n_needed(self) -> int:
        """One more than the largest index that can be read."""
        dataset = self.file.dataset(f"{self.path}/indices")
        n = 0
        for start, count in boxes(dataset):
            try:
                n = max(n, int(dataset.read(start, count).max(initial=-1)) + 1)
            except FAILURES:
                continue
        return n

    def _indptr(self, stored: NDArray[Any], n_values: int) -> tuple[NDArray[np.int64], Mask]:
        """Indptr in 64 bits, and which rows it still describes."""
        if stored.dtype.kind not in "iu":
            self.report.repair(f"{self.path}/indptr", f"{stored.dtype} became int64")
        indptr = stored.astype(np.int64)
        if len(indptr) and 0 <= indptr[-1] < n_values:
            n_behind = n_values - int(indptr[-1])
            found = f"{n_behind:,} values lie behind its end: left out"
            self.report.lose(f"{self.path}/indptr", found)
        if len(indptr) == 0:
            return np.zeros(1, np.int64), np.zeros(0, np.bool_)
        falls = np.diff(indptr) < 0
        is_whole = np.ones(len(indptr) - 1, np.bool_)
        if not falls.any() and indptr[0] == 0:
            return indptr, is_whole
        if stored.dtype.itemsize == 4:  # a count that wrapped: the steps are right modulo 2**32
            steps = np.diff(indptr) % (1 << 32)
            wide = np.concatenate([[0], np.cumsum(steps)])
            if indptr[0] == 0 and int(wide[-1]) == n_values:
                self.report.repair(f"{self.path}/indptr", "wrapped at 32 bits, unwrapped")
                return wide, is_whole
        first = int(falls.argmax()) if falls.any() else len(is_whole)
        if indptr[0] != 0:
            first = 0
        is_whole[first:] = False
        indptr[first + 1 :] = indptr[first]
        at = first + 1 if falls.any() else 0
        self.report.lose(f"{self.path}/indptr", f"[{at}] is wrong: rows from {first} on are lost")
        return np.maximum(indptr, 0), is_whole

    def _tell_unsorted(self) -> None:
        for _ in self._blocks(np.flatnonzero(self._major)):
            pass
        is_unsorted, has_duplicates, n_outside = self._facts
        if n_outside:
            self.report.lose(
                f"{self.path}/indices", f"{n_outside:,} entries out of range: left out"
            )
        if is_unsorted:
            self.report.repair(self.path, "rows were sorted")
        if has_duplicates and self.salvage.sum_duplicates:
            self.report.repair(self.path, "duplicates were summed")

    def _blocks(
        self, major: NDArray[np.int64]
    ) -> Iterator[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]]:
        """Rows (columns of CSC) in order, sorted, without entries out of range."""
        data, indices = (self.file.dataset(f"{self.path}/{n}") for n in ("data", "indices"))
        cuts = np.flatnonzero(np.diff(major) != 1) + 1
        for run in np.split(major, cuts):
            start, end = (int(run[0]), int(run[-1]) + 1) if len(run) else (0, 0)
            while start < end:
                most = self.indptr[start] + _BLOCK_ENTRIES
                stop = int(np.searchsorted(self.indptr[: end + 1], most, side="right")) - 1
                stop = min(end, max(start + 1, stop))
                at, n = int(self.indptr[start]), int(self.indptr[stop] - self.indptr[start])
                if n:
                    values, places = data.read([at], [n]), indices.read([at], [n])
                else:
                    values, places = np.empty(0, self.dtype), np.empty(0, np.int64)
                counts = np.diff(self.indptr[start : stop + 1])
                yield self._clean(values, places, counts)
                start = stop

    def _clean(
        self, data: NDArray[Any], indices: NDArray[Any], counts: NDArray[np.int64]
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]]:
        rows = np.repeat(np.arange(len(counts)), counts)
        places = indices.astype(np.int64)
        if indices.dtype.kind == "u":
            is_in = indices < self.n_minor
        else:
            is_in = (places >= 0) & (places < self.n_minor)
        if not is_in.all():
            self._facts[2] += int((~is_in).sum())
            data, places, rows = data[is_in], places[is_in], rows[is_in]
        keys = rows * self.n_minor + places
        steps = np.diff(keys)
        if (steps < 0).any():
            self._facts[0] = True
            order = np.argsort(keys, kind="stable")
            data, keys, places, rows = data[order], keys[order], places[order], rows[order]
            steps = np.diff(keys)
        if (steps == 0).any():
            self._facts[1] = True
            if self.salvage.sum_duplicates:
                starts = np.flatnonzero(np.concatenate([[True], steps != 0]))
                data = np.add.reduceat(data, starts, dtype=data.dtype)
                places, rows = places[starts], rows[starts]
        width = np.int32 if self.n_minor <= np.iinfo(np.int32).max else np.int64
        return data, places.astype(width), np.bincount(rows, minlength=len(counts))

    # --- both

    def row_mask(self) -> Mask:
        """Rows that can be read whole."""
        return self._rows

    def parts(self, rows: Mask | None = None, columns: Mask | None = None) -> Any:
        """The matrix, or the rows and columns of it that are kept."""
        rows = self._rows if rows is None else rows & _fitted(self._rows, len(rows))
        if columns is not None and not columns.all():
            return self._cut(rows, columns)
        n_rows = int(rows.sum())
        if not self.is_sparse:
            return DenseParts((n_rows, self.shape[1]), self.dtype, lambda: self._dense(rows))
        if self.is_csc and n_rows != self.shape[0]:
            return self._cut(rows, np.ones(self.shape[1], np.bool_))
        major = np.flatnonzero(self._major if self.is_csc else rows)
        shape = (n_rows, self.shape[1])
        return SparseParts(self.is_csc, shape, self.dtype, lambda: self._blocks(major))

    def _dense(self, rows: Mask) -> Iterator[NDArray[Any]]:
        dataset = self.file.dataset(self.path)
        step = max(1, (32 << 20) // max(1, self.shape[1] * self.dtype.itemsize))
        for run in np.split(
            np.flatnonzero(rows), np.flatnonzero(np.diff(np.flatnonzero(rows)) != 1) + 1
        ):
            for at in range(0, len(run), step):
                n = min(step, len(run) - at)
                yield dataset.read([int(run[at]), 0], [n, self.shape[1]])

    def _cut(self, rows: Mask, columns: Mask) -> Any:
        """Rows and columns of a matrix that is held in memory: graphs of cells."""
        if not self.is_sparse:
            whole = (
                np.concatenate([*self._dense(rows)])
                if rows.any()
                else (np.empty((0, self.shape[1]), self.dtype))
            )
            return np.ascontiguousarray(whole[:, columns])
        major = np.flatnonzero(self._major if self.is_csc else rows)
        every = list(self._blocks(major))
        if not every:
            return CSR._wrap(
                (
                    np.empty(0, self.dtype),
                    np.empty(0, np.int32),
                    np.zeros(len(major) + 1, np.int64),
                ),
                (len(major), int(columns.sum())),
            )
        data, indices, counts = (np.concatenate([b[i] for b in every]) for i in range(3))
        indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        if self.is_csc:
            shape = (len(major), self.shape[0])
            turned = _core.csr_transpose(data, indices, indptr, shape=shape)
            matrix = CSR._wrap(turned, self.shape)
            return keep_columns(matrix[np.flatnonzero(rows)], columns)
        matrix = CSR._wrap((data, indices, indptr), (len(major), self.shape[1]))
        return keep_columns(matrix, columns)


class _FrameParts:
    """A data frame, as far as it can be read."""

    def __init__(self, salvage: _Salvage, path: str) -> None:
        self.salvage, self.file, self.path = salvage, salvage.file, path
        self.report = salvage.report
        if self.file.kind(path) != "group":
            message = f"is a {self.file.kind(path)}, no data frame"
            raise IOFormatError(message)
        members = _keys(self.file, path)
        self.index_name = self._index_name(members)
        self.index: Any = None
        if self.index_name:
            self.index = self._read(f"{path}/{self.index_name}", self._index)
        self.columns: dict[str, Any] = {}
        for name in self._order(members):
            column = self._read(f"{path}/{name}", self._column)
            if column is not None:
                self.columns[name] = column
        lengths = [len(c) for c in self.columns.values()]
        self.n_rows: int | None = None if self.index is None else len(self.index)
        if self.n_rows is None and lengths:
            self.n_rows = max(set(lengths), key=lengths.count)

    def _read(self, path: str, read: Callable[[str], Any]) -> Any:
        try:
            return read(path)
        except _BROKEN as error:
            self.salvage.lose(path, error)
            return None

    def _index_name(self, members: list[str]) -> str:
        try:
            tag = self.file.scalar_attr(self.path, "_index")
        except FAILURES:
            tag = None
        if isinstance(tag, str) and tag in members:
            return tag
        name = next((n for n in ("_index", "index") if n in members), "")
        said = "no attribute _index" if tag is None else f"_index is {tag!r}, no member"
        if name:
            self.report.repair(self.path, f"{said}; {name!r} is taken")
        else:
            self.report.lose(self.path, f"{said}: rows are named by position")
        return name

    def _order(self, members: list[str]) -> list[str]:
        hidden = {self.index_name, "__categories"}
        try:
            order = self.file.attr(self.path, "column-order")
        except FAILURES:
            order = None
        if order is None:
            self.report.repair(self.path, "no column-order; columns come by name")
            return [n for n in members if n not in hidden]
        names = [str(n) for n in np.ravel(order)] if np.size(order) else []
        absent = [n for n in names if self.file.kind(f"{self.path}/{n}") is None]
        if absent:
            self.report.lose(self.path, f"column-order names {', '.join(absent)}, no members")
        if len(set(names)) < len(names):
            self.report.repair(self.path, "column-order names a column twice")
        return [n for n in dict.fromkeys(names) if n not in absent and n not in hidden]

    def _index(self, path: str) -> Any:
        values = np.asarray(read_column(self.file, path))
        if values.dtype != object:
            values = np.array([str(v) for v in values.tolist()], dtype=object)
        return values

    def _column(self, path: str) -> Any:
        if self.salvage.is_truncated:
            self._check_there(path)
        encoding = self.salvage.encoding(path)
        if encoding == "categorical":
            return self._categorical(path)
        if encoding.startswith("nullable"):
            values = np.asarray(self.file.read(f"{path}/values"))
            mask = np.asarray(self.file.read(f"{path}/mask")).astype(np.bool_)
            if mask.shape != values.shape:
                message = f"its mask has {len(mask)} entries, its values {len(values)}: left out"
                raise IOFormatError(message)
            if encoding != "nullable-string-array":
                return np.ma.MaskedArray(values, mask=mask)
            values[mask] = None
            na_value = str(self.file.scalar_attr(path, "na-value", "NA"))
            return NullableStrings(values, na_value)
        labels = self._unattached(path)
        if labels is not None:
            return labels
        if encoding in ("", "array", "string-array"):
            return read_column(self.file, path)
        return read_element(self.file, path)

    def _check_there(self, path: str) -> None:
        paths = [path]
        if self.file.kind(path) == "group":
            paths = [f"{path}/{n}" for n in self.file.keys(path)]
        for one in paths:
            if self.file.kind(one) == "dataset":
                dataset = self.file.dataset(one)
                if dataset.shape and not self.salvage.readable(dataset).all():
                    message = "is incomplete: left out"
                    raise IOFormatError(message)

    def _categorical(self, path: str) -> Categorical:
        labels = np.asarray(read_column(self.file, f"{path}/categories"))
        codes = np.asarray(self.file.read(f"{path}/codes"))
        ordered = bool(self.file.scalar_attr(path, "ordered", default=False))
        return self._sound(path, codes, labels, ordered)

    def _sound(
        self, path: str, codes: NDArray[Any], labels: NDArray[Any], ordered: bool
    ) -> Categorical:
        if codes.dtype.kind not in "iu":
            message = f"codes are {codes.dtype}, expected integers: left out"
            raise IOFormatError(message)
        wrong = (codes >= len(labels)) | (codes < -1 if codes.dtype.kind == "i" else False)
        codes = codes.astype(np.int64)
        if wrong.any():
            found = f"{int(wrong.sum())} codes have no category: they are missing now"
            self.report.lose(f"{path}/codes", found)
            codes[wrong] = -1
        first: dict[Any, int] = {}
        target = [first.setdefault(label, len(first)) for label in labels.tolist()]
        if len(first) < len(labels):
            self.report.repair(f"{path}/categories", "categories that repeat were put together")
            codes = np.array([*target, -1], np.int64)[codes]
            kept = np.empty(len(first), dtype=labels.dtype)
            kept[:] = list(first)
            labels = kept
        return Categorical(codes, labels, ordered)

    def _unattached(self, path: str) -> Categorical | None:
        """Codes whose labels lie in __categories, attached (0.7) or not (hdf5r)."""
        parent, _, name = path.rpartition("/")
        labels_path = f"{parent}/__categories/{name}"
        if self.file.kind(labels_path) != "dataset" or self.file.kind(path) != "dataset":
            return None
        codes = np.asarray(self.file.read(path))
        labels = np.atleast_1d(self.file.read(labels_path))
        if codes.dtype.kind not in "iu" or (codes.size and int(codes.max()) >= len(labels)):
            return None
        if "categories" not in self.file.attr_names(path):
            self.report.repair(path, f"codes got their labels, which lie in {labels_path}")
        ordered = bool(self.file.scalar_attr(labels_path, "ordered", default=False))
        return self._sound(path, codes, labels, ordered)

    def table(self, keep: Mask | None = None) -> Table:
        """The frame, its kept rows; columns of another length are left out."""
        n_rows = len(keep) if keep is not None else (self.n_rows or 0)
        keep = keep if keep is not None else np.ones(n_rows, np.bool_)
        columns = {}
        for name, column in self.columns.items():
            if len(column) != n_rows:
                found = f"has {len(column)} entries, expected {n_rows}: left out"
                self.report.lose(f"{self.path}/{name}", found)
            else:
                columns[name] = column[keep]
        index = self.index
        if index is None or len(index) != n_rows:
            if index is not None:
                self.report.lose(f"{self.path}/{self.index_name}", f"has {len(index)} entries")
            index = positions(n_rows)
        return Table(index[keep], columns, self.index_name or "_index")


def salvage_items(salvage: _Salvage, dataset: _core.Dataset, n_items: int) -> Mask:
    """Which of the first n items of a 1-D dataset can be read."""
    return salvage.readable(dataset)[:n_items]


def _fitted(mask: Mask, n: int) -> Mask:
    """A mask of another length: what is not there is not kept."""
    out = np.zeros(n, np.bool_)
    out[: min(n, len(mask))] = mask[:n]
    return out


def _ranges(mask: Mask) -> str:
    """Rows in words: ``"17 (rows 183 to 199)"``."""
    rows = np.flatnonzero(mask)
    return f"{len(rows):,} (rows {rows[0]} to {rows[-1]})" if len(rows) else "0"
