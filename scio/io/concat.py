"""Files of cells or genes behind one another, in bounded memory.

What is small goes through ``anndata.concat`` itself: the frames, uns, and what the join does to
names.  The matrices of cells and genes are streamed: every window of the result is made of windows
of the files.
"""

from __future__ import annotations

import contextlib
import functools
import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scio._optional import require
from scio.errors import ScioWarning, UnsupportedError
from scio.io import _coding
from scio.io._pieces import Piece, dense_blocks, sparse_blocks
from scio.io._plain import DenseParts, Members, SparseParts
from scio.io._windows import (
    MAX_MEMORY,
    check_memory,
    least_stored,
    plain,
    publish,
    stored_matrix,
)
from scio.io.h5ad import AnnDataFile, MatrixHandle
from scio.io.read import read_element, read_h5ad
from scio.io.writer import StorageOptions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scio.io._profiles import WriteReport

_AXES = {"obs": 0, 0: 0, "var": 1, 1: 1}
_NAMES = ("obs", "var")
_MERGES = (None, "same", "unique", "first", "only")

Merge = str | Callable[[Any], Any] | None


def concat_on_disk(
    in_files: Iterable[Any] | Mapping[str, Any],
    out_file: str | os.PathLike[str],
    *,
    axis: str | int = "obs",
    join: str = "inner",
    merge: Merge = None,
    uns_merge: Merge = None,
    label: str | None = None,
    keys: Iterable[Any] | None = None,
    index_unique: str | None = None,
    fill_value: Any = None,
    pairwise: bool = False,
    max_memory: int = MAX_MEMORY,
    compression: str | None = "gzip",
    compression_opts: int = 1,
    shuffle: bool = True,
    checksums: bool = False,
    overwrite: bool = True,
) -> WriteReport:
    """Write the concatenation of files to a new one, in bounded memory.

    Parameters
    ----------
    in_files : iterable or mapping of str, Path or AnnDataFile
        The files, in order; the keys of a mapping are `keys`.
    out_file : str or Path
        The new file; it has its old content until the new one is complete.
    axis : {"obs", 0, "var", 1}
        Cells behind cells, or genes behind genes.
    join : {"inner", "outer"}
        What of the other axis, of layers and of columns is kept: what all have, or what any has.
    merge : {None, "same", "unique", "first", "only"} or callable
        Which elements along the other axis are kept, as of ``anndata.concat``.
    uns_merge : as `merge`
        The same for uns.
    label : str, optional
        Column that tells the file of each cell, by its key.
    keys : iterable, optional
        Names of the files; by default their numbers.
    index_unique : str, optional
        Names become ``name + index_unique + key``.
    fill_value : number, optional
        What stands where an outer join leaves a hole: by default NaN in dense matrices and frames, 0
        in sparse ones, which take no other.
    pairwise : bool
        Keep obsp (varp), as blocks along the diagonal.
    max_memory : int
        Bytes for the parts of matrices at work.  Besides, the frames of all files are held (and uns
        with `uns_merge`, varm and varp with `merge`), and 24 bytes per cell and gene.
    compression, compression_opts, shuffle, checksums, overwrite
        As `scio.write_h5ad`.

    Returns
    -------
    WriteReport

    Raises
    ------
    ValueError
        If there are no files, or an option has no such value.
    TypeError
        If `keys` come twice.
    UnsupportedError
        If only some files have X; or a sparse matrix would be filled with something else than 0; or a
        dense one of booleans with NaN.
    IOWriteError
        If writing fails; an old file is unchanged.

    Warns
    -----
    ScioWarning
        If only some of the files have raw, which is left out then.

    Notes
    -----
    The content is that of ``anndata.concat``; as there, one sparse matrix among several makes the
    result sparse, and sparse results are CSR.  CSC matrices are turned into rows in a temporary file
    beside `out_file`.  Explicit zeros and entries that stand twice are kept.  Columns of booleans in
    which a join leaves holes become nullable booleans; anndata makes objects of them, which no file
    holds.

    Examples
    --------
    >>> import scio
    >>> path = scio.datasets.pbmc3k()
    >>> report = scio.concat_on_disk({"a": path, "b": path}, "two.h5ad", label="batch")  # doctest: +SKIP
    """
    options = StorageOptions(compression, compression_opts, shuffle, checksums)
    check_memory(max_memory)
    _check_options(axis, join, merge, uns_merge)
    if isinstance(in_files, Mapping):
        if keys is not None:
            message = "keys come twice: in the mapping of files, and as keys="
            raise TypeError(message)
        keys = list(in_files)
        in_files = in_files.values()
    sources = list(in_files)
    if not sources:
        message = "there are no files to concatenate"
        raise ValueError(message)
    anndata_options = {
        "axis": axis,
        "join": join,
        "merge": merge,
        "uns_merge": uns_merge,
        "label": label,
        "keys": None if keys is None else list(keys),
        "index_unique": index_unique,
        "fill_value": fill_value,
    }
    folder = Path(os.path.realpath(out_file)).parent
    with contextlib.ExitStack() as stack:
        files = [
            s if isinstance(s, AnnDataFile) else stack.enter_context(AnnDataFile(s))
            for s in sources
        ]
        work = _Concat(files, anndata_options, pairwise, max_memory, stack, folder)
        members = work.members()
        return publish(
            out_file,
            members,
            plain,
            options=options,
            overwrite=overwrite,
            needed=work.least_nbytes(options),
            sources=files,
        )


def _check_options(axis: Any, join: Any, merge: Any, uns_merge: Any) -> None:
    if axis not in _AXES:
        message = f"axis is 'obs' (0) or 'var' (1), not {axis!r}"
        raise ValueError(message)
    if join not in ("inner", "outer"):
        message = f"join is 'inner' or 'outer', not {join!r}"
        raise ValueError(message)
    for name, value in (("merge", merge), ("uns_merge", uns_merge)):
        if not callable(value) and value not in _MERGES:
            message = f"{name} is a function or one of {_MERGES}, not {value!r}"
            raise ValueError(message)


# ---- which elements


class _Concat:
    """The elements of the result."""

    def __init__(
        self,
        files: list[AnnDataFile],
        options: dict[str, Any],
        pairwise: bool,
        max_memory: int,
        stack: contextlib.ExitStack,
        folder: Path,
    ) -> None:
        self.files, self.options, self.pairwise = files, options, pairwise
        self.axis = _AXES[options["axis"]]
        self.name, self.other = _NAMES[self.axis], _NAMES[1 - self.axis]
        self.is_outer = options["join"] == "outer"
        self.max_memory, self._stack, self._folder = max_memory, stack, folder
        self._streamed: list[tuple[MatrixHandle, float]] = []

    def least_nbytes(self, options: StorageOptions) -> int:
        """A lower bound of the bytes of the streamed matrices in the new file."""
        return sum(least_stored(handle, share, options) for handle, share in self._streamed)

    def _keys_of(self, mappings: list[Any]) -> list[str]:
        """Names that all have, or any has, in the order of the first."""
        names = list(dict.fromkeys(key for m in mappings for key in m))
        return names if self.is_outer else [n for n in names if all(n in m for m in mappings)]

    def members(self) -> Any:
        """Give all elements, in the order of writing."""
        anndata = require("anndata", "scio.concat_on_disk")
        aligned = [getattr(file, f"{self.name}m") for file in self.files]
        streamed = {
            key: found
            for key in self._keys_of(aligned)
            if (found := _matrices_of(aligned, key)) is not None
        }
        frames = [self._frames(file, streamed) for file in self.files]
        whole = anndata.concat(frames, **self.options)
        self._n = [len(getattr(a, self.name)) for a in frames]
        places = _places(
            [getattr(a, f"{self.other}_names") for a in frames],
            getattr(whole, f"{self.other}_names"),
        )
        for frame in (whole.obs, whole.var):
            _name_missing(frame)
        members = _coding.members_of(whole, convert_strings=False)
        elements = members.members
        n_other = len(getattr(whole, self.other))
        elements[f"{self.name}m"] = {
            **dict(getattr(whole, f"{self.name}m")),
            **{key: self._aligned(key, handles) for key, handles in streamed.items()},
        }
        if self.pairwise:
            elements[f"{self.name}p"] = self._pairs()
        elements["layers"] = self._layers(places, n_other)
        self._add_raw(elements)
        xs = [file.X if file.has_x else None for file in self.files]
        elements.pop("X")
        if all(x is not None for x in xs):
            elements["X"] = self._joined("X", xs, self._n, places, n_other)
        elif any(x is not None for x in xs):
            without = [f.name for f, x in zip(self.files, xs, strict=True) if x is None]
            message = f"only some files have X; it is missing in {', '.join(without)}"
            raise UnsupportedError(message)
        return members

    def _frames(self, file: AnnDataFile, streamed: dict[str, Any]) -> Any:
        """All that is small of a file, as an AnnData without matrices."""
        elements = ["obs", "var"]
        if self.options["uns_merge"] is not None:
            elements.append("uns")
        if self.options["merge"] is not None:
            elements += [f"{self.other}m", f"{self.other}p"]
        aligned = getattr(file, f"{self.name}m")
        loaded = [key for key in aligned if key not in streamed]
        if aligned._is_compound and loaded:
            elements.append(f"{self.name}m")
        else:
            elements += [f"{self.name}m/{key}" for key in loaded]
        adata = read_h5ad(file, elements=elements)
        for key in streamed:  # a pattern may have brought it
            getattr(adata, f"{self.name}m").pop(key, None)
        return adata

    def _layers(self, places: list[Any], n_other: int) -> dict[str, Any]:
        mappings = [file.layers for file in self.files]
        out = {}
        for key in self._keys_of(mappings):
            handles = _matrices_of(mappings, key)
            if handles is None:
                message = f"layers/{key} is no matrix of numbers in all files"
                raise UnsupportedError(message)
            out[key] = self._joined(f"layers/{key}", handles, self._n, places, n_other)
        return out

    def _joined(
        self,
        name: str,
        handles: list[MatrixHandle | None],
        counts: list[int],
        places: list[Any],
        n_other: int,
    ) -> SparseParts | DenseParts:
        """A matrix of cells and genes."""
        pieces = []
        for handle, n, at in zip(handles, counts, places, strict=True):
            missing = (n, 0) if self.axis == 0 else (0, n)
            pieces.append(
                Piece(None, missing, np.empty(0, np.int64))
                if handle is None
                else Piece(handle, handle.shape, at)
            )
        return self._stacked(name, pieces, self.axis, n_other)

    def _aligned(self, key: str, handles: list[MatrixHandle | None]) -> SparseParts | DenseParts:
        """An element of obsm (varm): rows behind rows, as many columns as all, or any, have."""
        choose = max if self.is_outer else min
        n_columns = choose(handle.n_cols for handle in handles if handle is not None)
        pieces = []
        for handle, n in zip(handles, self._n, strict=True):
            if handle is None:
                pieces.append(Piece(None, (n, 0), np.empty(0, np.int64)))
                continue
            at = np.arange(handle.n_cols)
            at[n_columns:] = -1
            same = handle.n_cols == n_columns
            pieces.append(Piece(handle, handle.shape, None if same else at))
        return self._stacked(f"{self.name}m/{key}", pieces, 0, n_columns)

    def _pairs(self) -> dict[str, Any]:
        """Blocks along the diagonal: rows behind rows, with columns that nobody shares."""
        mappings = [getattr(file, f"{self.name}p") for file in self.files]
        starts = np.cumsum([0, *self._n])
        out: dict[str, Any] = {}
        for key in self._keys_of(mappings):
            handles = _matrices_of(mappings, key)
            if handles is None:
                message = f"{self.name}p/{key} is no matrix of numbers in all files"
                raise UnsupportedError(message)
            pieces = [
                Piece(handle, (n, n), start + np.arange(n))
                if handle is not None
                else Piece(None, (n, 0), np.empty(0, np.int64))
                for handle, n, start in zip(handles, self._n, starts[:-1], strict=True)
            ]
            name = f"{self.name}p/{key}"
            out[key] = self._stacked(name, pieces, 0, int(starts[-1]), is_pair=True)
        return out

    def _add_raw(self, elements: dict[str, Any]) -> None:
        raws = [file.raw for file in self.files]
        with_raw = [raw for raw in raws if raw is not None]
        if len(with_raw) != len(raws):
            if with_raw:
                without = [f.name for f, r in zip(self.files, raws, strict=True) if r is None]
                message = f"raw is left out, since it is missing in {', '.join(without)}"
                warnings.warn(ScioWarning(message), stacklevel=4)
            return
        anndata = require("anndata", "scio.concat_on_disk")
        frames = []
        for file, raw in zip(self.files, with_raw, strict=True):
            varm = {}
            if self.axis == 1 and raw.varm._file.kind(raw.varm._path) == "group":
                varm = read_element(file.file, raw.varm._path)
            obs, var = _empty_frame(file.obs_names), read_element(file.file, raw.var._path)
            frames.append(anndata.AnnData(obs=obs, var=var, varm=varm))
        options = {k: v for k, v in self.options.items() if k not in ("merge", "uns_merge")}
        whole = anndata.concat(frames, **options)
        places = _places(
            [getattr(a, f"{self.other}_names") for a in frames],
            getattr(whole, f"{self.other}_names"),
        )
        n = [len(getattr(a, self.name)) for a in frames]
        n_other = len(getattr(whole, self.other))
        matrix = self._joined("raw/X", [raw.X for raw in with_raw], n, places, n_other)
        var = _coding.table_of(whole.var, "/raw/var", is_axis=True)
        elements["raw"] = Members("raw", {"var": var, "varm": dict(whole.varm), "X": matrix})

    # --- matrices

    def _stacked(
        self, name: str, pieces: list[Piece], axis: int, n_other: int, *, is_pair: bool = False
    ) -> SparseParts | DenseParts:
        """Pieces behind one another along an axis; the other one has `n_other` positions."""
        total = sum(piece.shape[axis] for piece in pieces)
        shape = (total, n_other) if axis == 0 else (n_other, total)
        fill_value = self.options["fill_value"]
        is_sparse = is_pair or any(piece.is_sparse for piece in pieces)
        is_filled = not is_pair and any(piece.has_holes(n_other) for piece in pieces)
        if is_sparse and is_filled and fill_value not in (None, 0):
            message = (
                f"{name} is sparse, and fill_value is {fill_value!r}: holes of sparse matrices are "
                "0; make it dense, or leave fill_value out"
            )
            raise UnsupportedError(message)
        for piece in pieces:
            if piece.handle is not None:
                kept = 1.0 if piece.places is None else float(np.mean(piece.places >= 0))
                self._streamed.append((piece.handle, kept if kept >= 1 else kept / 4))
        if is_sparse:
            # what anndata puts in the place of nothing is float64, but for pairs
            dtype = np.result_type(
                *[np.float64 if p.is_nothing and not is_pair else p.dtype for p in pieces]
            )
            blocks = functools.partial(
                sparse_blocks, name, pieces, axis, shape, dtype, self.max_memory, self._folder
            )
            return SparseParts(False, shape, dtype, blocks)
        fill = np.nan if fill_value is None else fill_value
        dtype = _dense_dtype(name, pieces, n_other, fill)
        blocks_of = functools.partial(
            dense_blocks, name, pieces, axis, shape, dtype, fill, self.max_memory
        )
        return DenseParts(shape, dtype, blocks_of)


def _name_missing(frame: Any) -> None:
    """Booleans of which some are missing, which pandas holds as objects, get the type for that."""
    infer = require("pandas", "scio.concat_on_disk").api.types.infer_dtype
    for name in frame.columns:
        if frame[name].dtype == object and infer(frame[name], skipna=True) == "boolean":
            frame[name] = frame[name].astype("boolean")


def _empty_frame(names: NDArray[Any]) -> Any:
    pandas = require("pandas", "scio.concat_on_disk")
    return pandas.DataFrame(index=pandas.Index(names))


def _matrices_of(mappings: list[Any], key: str) -> list[MatrixHandle | None] | None:
    """The matrices of a name, None where there is none; None when one of them is something else."""
    out: list[MatrixHandle | None] = []
    for mapping in mappings:
        handle = stored_matrix(mapping, key) if key in mapping else None
        if handle is None and key in mapping:
            return None
        out.append(handle)
    return out


def _places(olds: list[Any], new: Any) -> list[NDArray[np.int64] | None]:
    return [
        None if new.equals(old) else new.get_indexer(old).astype(np.int64, copy=False)
        for old in olds
    ]


def _dense_dtype(name: str, pieces: list[Piece], n_other: int, fill: Any) -> np.dtype[Any]:
    """The type that pandas gives a matrix with holes, and NumPy several of them."""
    take = require("pandas", "scio.concat_on_disk").api.extensions.take
    dtypes = []
    for piece in pieces:
        dtype = piece.dtype
        if piece.has_holes(n_other):
            one = np.zeros(1, dtype)
            dtype = (
                np.asarray(fill).dtype
                if piece.is_nothing
                else take(one, np.array([-1]), allow_fill=True, fill_value=fill).dtype
            )
        dtypes.append(dtype)
    found = np.result_type(*dtypes)
    if found.kind not in "biufc":
        message = (
            f"{name} holds {', '.join(sorted({str(p.dtype) for p in pieces if p.handle}))}, which has "
            f"no place for the fill_value {fill!r}"
        )
        raise UnsupportedError(message)
    return found
