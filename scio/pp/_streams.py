"""Sources made of sources: chosen cells and genes of one, and one that somebody looks at on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scio import _core
from scio.pp._source import BLOCK_ROWS, Block, Source

_Arrays = tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]]


class Subset(Source):
    """Chosen cells and genes of a source, in its order.

    Blocks begin at multiples of 4,096 of the cells *kept*, so that statistics have the same bits as
    those of a matrix that was cut in memory.

    Parameters
    ----------
    source : Source
    cells : ndarray of bool, shape (n_obs,)
    genes : ndarray of bool, shape (n_vars,)
    n_rows : int, optional
        Rows of `source` that are read at a time, a multiple of 4,096.
    """

    def __init__(
        self,
        source: Source,
        cells: NDArray[np.bool_],
        genes: NDArray[np.bool_],
        *,
        n_rows: int | None = None,
    ) -> None:
        self._source, self._n_rows = source, n_rows
        self._is_kept = cells
        self._genes = np.flatnonzero(genes)
        self._place: NDArray[np.int32] | None = None
        if not genes.all():
            self._place = np.full(len(genes), -1, dtype=np.int32)
            self._place[self._genes] = np.arange(len(self._genes), dtype=np.int32)
        self.n_obs, self.n_vars = int(np.count_nonzero(cells)), len(self._genes)
        self.dtype, self.name, self.is_file = source.dtype, source.name, source.is_file

    @cached_property
    def _rows(self) -> NDArray[np.int64]:
        return np.flatnonzero(self._is_kept).astype(np.int64)

    @cached_property
    def obs_names(self) -> NDArray[Any]:
        names: NDArray[Any] = self._source.obs_names[self._rows]
        return names

    @cached_property
    def var_names(self) -> NDArray[Any]:
        names: NDArray[Any] = self._source.var_names[self._genes]
        return names

    def _columns(self, axis: str) -> list[str]:
        return self._source._columns(axis)

    def _column(self, axis: str, key: str) -> Any:
        return self._source._column(axis, key)[self._rows if axis == "obs" else self._genes]

    def blocks(self, n_rows: int | None = None, *, check: bool = True) -> Iterator[Block]:
        """Iterate over the cells kept; see `Source.blocks`."""
        rows = Rows4096(self.n_vars)
        for block in self._source.blocks(self._n_rows, check=False):
            for piece in rows.push(self.cut(block)):
                yield from _split(piece, n_rows, self.n_vars, check=check)
            del block
        for piece in rows.flush():
            yield from _split(piece, n_rows, self.n_vars, check=check)

    def cut(self, block: Block) -> _Arrays:
        """Return data, indices, indptr of what stays of a block of the source."""
        kept = self._is_kept[block.start : block.stop]
        rows = None if kept.all() else np.flatnonzero(kept).astype(np.int64)
        if rows is None and self._place is None:
            return block.data, block.indices, block.indptr
        return _core.csr_subset(
            block.data,
            _core_indices(block.indices),
            block.indptr,
            rows,
            self._place,
            self.n_vars,
            shape=(block.n_rows, self._source.n_vars),
        )

    def take(self, rows: NDArray[np.int64]) -> _Arrays:
        data, indices, indptr = self._source.take(self._rows[rows])
        if self._place is None:
            return data, indices, indptr
        shape = (len(rows), self._source.n_vars)
        return _core.csr_subset(
            data, _core_indices(indices), indptr, None, self._place, self.n_vars, shape=shape
        )


class Watched(Source):
    """A source whose blocks are shown to somebody before they go on to the consumer.

    Parameters
    ----------
    source : Source
    watchers : functions of a Block
    n_rows : int, optional
        Rows that are read at a time when the consumer does not say, a multiple of 4,096.
    """

    def __init__(
        self, source: Source, *watchers: Callable[[Block], None], n_rows: int | None = None
    ) -> None:
        self._source, self._watchers, self._n_rows = source, watchers, n_rows
        self.n_obs, self.n_vars = source.shape
        self.dtype, self.name, self.is_file = source.dtype, source.name, source.is_file

    @cached_property
    def obs_names(self) -> NDArray[Any]:
        return self._source.obs_names

    @cached_property
    def var_names(self) -> NDArray[Any]:
        return self._source.var_names

    def _columns(self, axis: str) -> list[str]:
        return self._source._columns(axis)

    def _column(self, axis: str, key: str) -> Any:
        return self._source._column(axis, key)

    def blocks(self, n_rows: int | None = None, *, check: bool = True) -> Iterator[Block]:
        """Iterate over all rows; see `Source.blocks`."""
        for block in self._source.blocks(self._n_rows if n_rows is None else n_rows, check=check):
            for watcher in self._watchers:
                watcher(block)
            yield block
            del block

    def take(self, rows: NDArray[np.int64]) -> _Arrays:
        return self._source.take(rows)


class Rows4096:
    """Rows that come in any number leave as blocks that begin at multiples of 4,096."""

    def __init__(self, n_vars: int) -> None:
        self._n_vars, self._start = n_vars, 0
        self._waiting: list[_Arrays] = []  # fewer than 4,096 rows in all
        self._n_waiting = 0

    def push(self, arrays: _Arrays) -> Iterator[Block]:
        """Take data, indices, indptr of the next rows; give what is complete."""
        begin, n_new = 0, len(arrays[2]) - 1
        if self._n_waiting:
            begin = min(n_new, BLOCK_ROWS - self._n_waiting)
            self._wait(arrays, 0, begin)
            if self._n_waiting == BLOCK_ROWS:
                yield from self.flush()
        whole = begin + (n_new - begin) // BLOCK_ROWS * BLOCK_ROWS
        if whole > begin:
            yield self._block(_slice(arrays, begin, whole))
        if whole < n_new:
            self._wait(arrays, whole, n_new)

    def flush(self) -> Iterator[Block]:
        """Give what still waits, however few rows."""
        waiting, self._waiting, self._n_waiting = self._waiting, [], 0
        if waiting:
            yield self._block(_joined(waiting))

    def _wait(self, arrays: _Arrays, start: int, stop: int) -> None:
        self._waiting.append(_slice(arrays, start, stop, copy=True))
        self._n_waiting += stop - start

    def _block(self, arrays: _Arrays) -> Block:
        start = self._start
        self._start += len(arrays[2]) - 1
        return Block(start, self._start, *arrays, False)


def _split(block: Block, n_rows: int | None, n_vars: int, *, check: bool) -> Iterator[Block]:
    """A block in pieces of `n_rows`, checked."""
    arrays = (block.data, block.indices, block.indptr)
    for first in range(0, block.n_rows, n_rows or block.n_rows):
        last = min(first + (n_rows or block.n_rows), block.n_rows)
        part = _slice(arrays, first, last)
        is_canonical = False
        if check:
            is_sorted, has_duplicates = _core.csr_validate(*part, shape=(last - first, n_vars))
            is_canonical = is_sorted and not has_duplicates
        yield Block(block.start + first, block.start + last, *part, is_canonical)


def _core_indices(indices: NDArray[Any]) -> NDArray[Any]:
    return indices if indices.dtype in (np.int32, np.int64) else indices.astype(np.int64)


def _slice(arrays: _Arrays, start: int, stop: int, *, copy: bool = False) -> _Arrays:
    data, indices, indptr = arrays
    part = indptr[start : stop + 1]
    first, last = int(part[0]), int(part[-1])
    part = part - first if first else part
    data, indices = data[first:last], indices[first:last]
    return (data.copy(), indices.copy(), part.copy()) if copy else (data, indices, part)


def _joined(parts: list[_Arrays]) -> _Arrays:
    if len(parts) == 1:
        return parts[0]
    counts = [np.diff(indptr) for _, _, indptr in parts]
    indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.concatenate(counts))])
    return (
        np.concatenate([data for data, _, _ in parts]),
        np.concatenate([indices for _, indices, _ in parts]),
        indptr,
    )
