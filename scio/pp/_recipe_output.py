"""The file that a recipe writes: matrix block by block, then the frames and what was done."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scio import _core
from scio._storage.keys import MARK
from scio.io import AnnDataFile, Frame, WriteReport, _coding
from scio.io._from_file import LazyMembers
from scio.io._plain import DenseParts, Members, Table
from scio.io._profiles import Profile
from scio.io._streams import tag
from scio.io.h5ad import MatrixHandle
from scio.io.write import mark_of
from scio.io.writer import Context, SparseStream, StorageOptions, index_dtype_for, write_element
from scio.pp._matrix import Rows
from scio.pp._source import BLOCK_ROWS, Block, Source

if TYPE_CHECKING:
    from scio._h5write import Writer

_REPLACED = ("hvg", "log1p", "scio")  # entries of uns that tell of the old matrix
_BLOCK_NBYTES = 64 << 20

Columns = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Kept:
    """Cells and genes of the input that stay."""

    cells: NDArray[np.bool_]
    genes: NDArray[np.bool_]


class Output:
    """One file in the making.

    Parameters
    ----------
    writer : Writer
        Of the unpublished file.
    name : str
        Its path, for the report.
    options : StorageOptions
    log1p : bool
        Whether the logarithm is taken.
    counts_layer : str, optional
        Layer that gets the counts as they are.
    """

    def __init__(
        self,
        writer: Writer,
        name: str,
        options: StorageOptions,
        *,
        log1p: bool,
        counts_layer: str | None,
        threads: int,
    ) -> None:
        self._writer = writer
        self._context = Context(options, Profile(None), WriteReport(name), _coding.to_plain)
        self._log1p, self._counts_layer, self._threads = log1p, counts_layer, threads
        self._target = 0.0
        self._place: NDArray[np.int32] | None = None  # of each gene among those written
        self._values: SparseStream | None = None
        self._counts: SparseStream | None = None
        self.n_empty = 0
        self._is_bad = False

    @property
    def is_streamed(self) -> bool:
        """Whether the matrix is in the file."""
        return self._values is not None

    def begin(
        self,
        source: Source,
        target: float,
        genes: NDArray[np.bool_] | None = None,
        *,
        n_obs: int | None,
    ) -> None:
        """Make room for `n_obs` cells (None: as many as come) and all or some genes of `source`."""
        self._target, self._n_vars = target, source.n_vars
        self._dtype = "float64" if source.dtype == np.float64 else "float32"
        n_written = source.n_vars
        if genes is not None:
            n_written = int(genes.sum())
            self._place = np.where(genes, np.cumsum(genes) - 1, -1).astype(np.int32)
        shape = (n_obs, n_written)
        self._values = self._stream("/X", shape, self._dtype)
        if self._counts_layer is not None:
            self._writer.group("/layers")
            tag(self._writer, "/layers", "dict", "0.1.0")
            self._counts = self._stream(f"/layers/{self._counts_layer}", shape, source.dtype)

    def _stream(self, path: str, shape: tuple[int | None, int], dtype: Any) -> SparseStream:
        return SparseStream(
            self._writer,
            path,
            shape=shape,
            data_dtype=dtype,
            index_dtype=index_dtype_for(shape[1]),
            options=self._context.options,
        )

    def add(self, block: Block) -> None:
        """Normalise and write the next rows; values that no count has are left to the statistics."""
        assert self._values is not None
        rows = rows_of(block, self._n_vars)
        totals, _, facts = _core.row_totals(*rows.arrays, shape=rows.shape, threads=self._threads)
        self._is_bad |= facts["first_infinite"] >= 0 or facts["first_negative"] >= 0
        if self._is_bad:
            return
        self.n_empty += int(np.count_nonzero(totals == 0))
        if self._counts is not None:
            _append(self._counts, *self._written(rows))
        if facts["has_duplicates"]:
            rows = rows.summed()
        data, indices, indptr = self._written(rows)
        values = _core.normalize_log1p(
            data,
            indptr,
            totals,
            self._target,
            self._log1p,
            dtype=self._dtype,
            threads=self._threads,
        )
        _append(self._values, values, indices, indptr)

    def _written(self, rows: Rows) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]]:
        """data, indices, indptr of the genes that are written."""
        assert rows.indices is not None
        assert rows.indptr is not None
        data, indices, indptr = rows.data, rows.indices, rows.indptr
        if self._place is not None:
            n_written = int(self._place.max(initial=-1)) + 1
            data, indices, indptr = _core.csr_subset(
                data, indices, indptr, None, self._place, n_written, shape=rows.shape
            )
        # the core checked that they are below the number of genes
        return data, indices.astype(np.int32, copy=False), indptr

    def finish(
        self, file: AnnDataFile, kept: Kept, obs: Columns, var: Columns, uns: dict[str, Any]
    ) -> list[str]:
        """Write everything but the matrix; return the elements that were left out."""
        assert self._values is not None
        assert not self._is_bad
        self._values.finish()
        if self._counts is not None:
            self._counts.finish()
        rows, columns = np.flatnonzero(kept.cells), np.flatnonzero(kept.genes)
        left_out: list[str] = []
        members: dict[str, Any] = {
            "obs": _table(file.obs, rows, obs),
            "var": _table(file.var, columns, var),
            "uns": {k: v for k, v in LazyMembers(file.uns).items() if k not in _REPLACED} | uns,
            "obsm": _members(file.obsm, "obsm", kept.cells, left_out),
            "varm": _members(file.varm, "varm", kept.genes, left_out),
            "obsp": {},
            "varp": {},
        }
        if self._counts is None:
            members["layers"] = {}
        for name in ("obsp", "varp", "layers"):
            left_out += [f"{name}/{key}" for key in getattr(file, name)]
        if file.raw is not None:
            left_out.append("raw")
        write_element(self._writer, "/", Members("anndata", members), self._context)
        self._writer.attr("/", MARK, mark_of(self._context))
        left_out += [row.element.strip("/") for row in self._context.report.losses]
        return left_out


def _append(
    stream: SparseStream,
    data: NDArray[Any],
    indices: NDArray[Any],
    indptr: NDArray[np.int64],
) -> None:
    """In steps of 4,096 rows, so that the bytes of the file do not depend on windows."""
    for start in range(0, len(indptr) - 1, BLOCK_ROWS):
        part = indptr[start : start + BLOCK_ROWS + 1]
        first, last = int(part[0]), int(part[-1])
        stream.append(data[first:last], indices[first:last], np.diff(part))


def rows_of(block: Block, n_vars: int) -> Rows:
    """Return a block as the core's functions take it."""
    indices = block.indices
    if indices.dtype not in (np.int32, np.int64):
        indices = indices.astype(np.int64)
    return Rows(None, "", block.data, indices, block.indptr, (block.n_rows, n_vars))


def _table(frame: Frame, rows: NDArray[np.int64], columns: Columns) -> Table:
    table = Table.lazy(frame, rows)
    table.columns.update(columns)
    return table


def _members(
    mapping: Any, name: str, kept: NDArray[np.bool_], left_out: list[str]
) -> dict[str, Any]:
    """Rows of dense arrays and frames; the rest is named in `left_out`."""
    out: dict[str, Any] = {}
    for key in mapping:
        value = mapping[key]
        if isinstance(value, Frame):
            out[key] = Table.lazy(value, np.flatnonzero(kept))
        elif isinstance(value, MatrixHandle) and value.format == "dense":
            out[key] = _rows_of(value, kept)
        elif isinstance(value, np.ndarray):
            out[key] = value[kept]
        else:
            left_out.append(f"{name}/{key}")
    return out


def _rows_of(handle: MatrixHandle, kept: NDArray[np.bool_]) -> DenseParts:
    step = max(1, _BLOCK_NBYTES // max(1, handle.n_cols * handle.dtype.itemsize))

    def blocks() -> Iterator[NDArray[Any]]:
        for start in range(0, handle.n_rows, step):
            rows: Any = handle[start : start + step]
            yield rows[kept[start : start + step]]

    return DenseParts((int(kept.sum()), handle.n_cols), handle.dtype, blocks)
