"""What will be read of a file, planned from headers and read in one pass over the threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scio import _core
from scio.errors import CorruptFileError, UnsupportedError
from scio.io import _values

if TYPE_CHECKING:
    from scio.io.hdf5 import HDF5File

Deferred = Callable[[], Any]  # gives the value once the plan has run

_STR_NBYTES = 72  # a Python str of some twenty characters and the pointer to it
_SPARSE_SPAN = 4  # a range that holds fewer than one in so many of the rows asked for is cut up
_MIN_GAP_ROWS = 256


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """A selection along one axis.

    Attributes
    ----------
    n_total : int
        Positions on the axis.
    index : ndarray of int64 or None
        The selected positions, in the order asked for, repeats allowed; None = all.
    """

    n_total: int
    index: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return self.n_total if self.index is None else len(self.index)

    @property
    def range(self) -> tuple[int, int] | None:
        """(start, stop) when the selection is consecutive and rising."""
        if self.index is None:
            return (0, self.n_total)
        n = len(self.index)
        if n == 0:
            return (0, 0)
        start = int(self.index[0])
        is_range = int(self.index[-1]) == start + n - 1 and bool(np.all(np.diff(self.index) == 1))
        return (start, start + n) if is_range else None

    def pieces(self, n_gap_rows: int) -> list[tuple[int, int]]:
        """Consecutive ranges (start, count) that hold all positions, close ones put together."""
        span = self.range
        if span is not None:
            return [(span[0], span[1] - span[0])]
        assert self.index is not None
        low, high = int(self.index.min()), int(self.index.max())
        if high - low < _SPARSE_SPAN * len(self.index):
            return [(low, high - low + 1)]
        wanted = np.unique(self.index)
        cuts = np.flatnonzero(np.diff(wanted) > max(n_gap_rows, _MIN_GAP_ROWS)) + 1
        firsts = wanted[np.concatenate(([0], cuts))]
        lasts = wanted[np.concatenate((cuts - 1, [len(wanted) - 1]))]
        return [(int(a), int(b - a) + 1) for a, b in zip(firsts, lasts, strict=True)]

    def inside(self, pieces: Sequence[tuple[int, int]]) -> NDArray[np.int64] | None:
        """Positions in the concatenation of the pieces; None = all of it as it is."""
        if self.range is not None:
            return None
        assert self.index is not None
        starts = np.array([p[0] for p in pieces], dtype=np.int64)
        counts = np.array([p[1] for p in pieces], dtype=np.int64)
        offsets = np.concatenate(([0], np.cumsum(counts)[:-1]))
        which = np.searchsorted(starts, self.index, side="right") - 1
        positions: NDArray[np.int64] = self.index - starts[which] + offsets[which]
        return positions


@dataclass(slots=True)
class Plan:
    """Boxes of datasets that are read together.

    Attributes
    ----------
    file : HDF5File
    nbytes : int
        Estimate of the memory that the results need.
    """

    file: HDF5File
    nbytes: int = 0
    _requests: list[Any] = field(default_factory=list)
    _results: list[Any] = field(default_factory=list)

    def _add(
        self,
        dataset: _core.Dataset,
        form: str | None,
        itemsize: int,
        box: tuple[tuple[int, ...], tuple[int, ...]] | None,
        limit: int = -1,
    ) -> Deferred:
        start, count = (None, None) if box is None else box
        shape = dataset.shape if count is None else count
        self.nbytes += itemsize * prod(shape or ())
        self._requests.append((dataset, form, start, count, limit))
        i = len(self._requests) - 1

        def take() -> Any:
            value, self._results[i] = self._results[i], None  # the value has one owner
            return value

        return take

    def mark(self) -> tuple[int, int]:
        """Return the state of the plan, for `go_back`."""
        return len(self._requests), self.nbytes

    def go_back(self, mark: tuple[int, int]) -> None:
        """Forget what was planned since then."""
        del self._requests[mark[0] :]
        self.nbytes = mark[1]

    def largest_path(self) -> str:
        """Return the path of the dataset with the most items; the plan must not be empty."""
        largest = max(self._requests, key=lambda r: prod((r[3] or r[0].shape) or ()))
        path: str = largest[0].path
        return path

    def numbers(
        self, dataset: _core.Dataset, dtype: str | None = None, limit: int = -1
    ) -> Deferred:
        """Read a whole dataset of numbers, as stored or cast; `limit`: integers in [0, limit)."""
        itemsize = np.dtype(dtype or dataset.dtype).itemsize
        return self._add(dataset, dtype, itemsize, None, limit)

    def values(self, path: str, axes: Sequence[Rows] = (), *, is_raw: bool = False) -> Deferred:
        """Read a dataset of any type, or what `axes` select of its first dimensions.

        Parameters
        ----------
        path : str
        axes : sequence of Rows
            Selections of the first dimensions, whose lengths must agree.
        is_raw : bool
            Give the stored bytes, uint8 with a last axis of the item's size.

        Returns
        -------
        callable
            Gives an ndarray in native byte order (strings are objects), a scalar for a scalar
            space, None for a null space.

        Raises
        ------
        CorruptFileError
            If the shape does not fit the axes.
        UnsupportedError
            If values of the type or a filter of the dataset cannot be read.
        """
        dataset = self.file.dataset(path)
        if dataset.shape is None:
            return lambda: None
        self.check_axes(path, dataset.shape, axes)
        one = self._form(dataset, path, is_raw)
        if not dataset.shape:
            whole = one(None)
            return lambda: whole()[()]
        if all(rows.index is None for rows in axes):
            return one(None)
        return self._selected(dataset, axes, one)

    def check_axes(self, path: str, shape: tuple[int, ...], axes: Sequence[Rows]) -> None:
        """Raise CorruptFileError when a shape does not fit the axes."""
        wanted = tuple(rows.n_total for rows in axes)
        if shape[: len(axes)] != wanted:
            expected = " x ".join(map(str, wanted)) + (" x …" if len(shape) > len(wanted) else "")
            message = f"{self.file.name}: {path} has shape {shape}, expected {expected}"
            raise CorruptFileError(message)

    def _form(self, dataset: _core.Dataset, path: str, is_raw: bool) -> Callable[..., Deferred]:
        """How boxes of this dataset are read."""
        info = dataset.type
        where = f"{self.file.name}: {path}"
        if info["unsupported"]:
            message = f"{where}: {info['unsupported']} is not read by scio"
            raise UnsupportedError(message)
        check_filters(dataset, where)
        if is_raw:
            return lambda box: self._add(dataset, "raw", info["itemsize"], box)
        if dataset.dtype is not None and (info["class"] != "enum" or info["is_bool"]):
            itemsize = np.dtype(dataset.dtype).itemsize
            return lambda box: self._add(dataset, None, itemsize, box)
        is_text = info["class"] == "string" or (info["class"] == "vlen" and info["vlen"])
        if is_text:
            return lambda box: self._add(dataset, "text", _STR_NBYTES, box)
        _values.numpy_dtype(info)  # raises for what has no value
        factor = 5 if _values.has_objects(info) else 2

        def decoded(box: Any) -> Deferred:
            raw = self._add(dataset, "raw", factor * info["itemsize"], box)
            return lambda: _values.decode(self.file.core, info, raw(), where)

        return decoded

    def _selected(
        self, dataset: _core.Dataset, axes: Sequence[Rows], one: Callable[..., Deferred]
    ) -> Deferred:
        shape = dataset.shape or ()
        start = [0] * len(shape)
        count = list(shape)
        later: list[tuple[int, NDArray[np.int64]]] = []
        for axis, rows in enumerate(axes[1:], 1):  # further axes: the range that holds all of it
            low, n = _hull(rows)
            start[axis], count[axis] = low, n
            if rows.range is None and rows.index is not None:
                later.append((axis, rows.index - low))
        pieces = axes[0].pieces(dataset.chunks[0] if dataset.chunks else 0)
        parts = [one(((low, *start[1:]), (n, *count[1:]))) for low, n in pieces]
        inside = axes[0].inside(pieces)

        def finish() -> NDArray[Any]:
            arrays = [part() for part in parts]
            out: NDArray[Any] = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
            if inside is not None:
                out = out[inside]
            for axis, index in later:
                out = np.take(out, index, axis=axis)
            return out

        return finish

    def run(self, threads: int = -1) -> None:
        """Read everything; the deferred values can be taken then, each once.

        Raises
        ------
        CorruptFileError
            Of the first failure; names file, element and chunk.
        """
        try:
            self._results = _core.read_datasets(self._requests, threads=threads)
        except (IndexError, OverflowError) as error:  # a stored number does not fit its type
            raise CorruptFileError(str(error)) from error
        self._requests = []


def _hull(rows: Rows) -> tuple[int, int]:
    """First position and length of the least range that holds the selection."""
    if rows.index is None:
        return 0, rows.n_total
    if len(rows.index) == 0:
        return 0, 0
    low = int(rows.index.min())
    return low, int(rows.index.max()) - low + 1


def check_filters(dataset: _core.Dataset, where: str) -> None:
    """Raise UnsupportedError when some chunk needs a filter that this build does not have."""
    built_in = _core.build_info()["filters"] if dataset.filters else {}
    for i, (number, name, _, _) in enumerate(dataset.filters):
        if built_in.get(name):
            continue
        units = dataset.units()
        is_needed = (units[:, 0] >= 0) & (units[:, 3] == 0) & (units[:, 2] >> i & 1 == 0)
        if is_needed.any():
            message = (
                f"{where} needs the HDF5 filter {number} ({name}), which this build of scio does "
                "not have; h5repack -f NONE makes a file that it reads"
            )
            raise UnsupportedError(message)
