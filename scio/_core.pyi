"""The C core, as Python sees it.  Private: the public face is in the modules of ``scio``."""

from collections.abc import Callable, Sequence
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

__version__: str

def build_info() -> dict[str, Any]:
    """Return compiler, version, CPU level, filters with their libraries, threads."""

def stats() -> dict[str, int]:
    """Return the counters of ``base/stats.h``."""

def set_threads(n_threads: int, /) -> None:
    """Resize the process-wide pool; 0 runs everything in the caller."""

def get_threads() -> int:
    """Return the size of the process-wide pool."""

def cpu_count() -> int:
    """Return the CPUs that this process may use."""

def philox_u64(seed: int, stream: int, index: int, /) -> int:
    """Return one value of the counter-based generator."""

def permutation(seed: int, stream: int, n_items: int, /) -> NDArray[np.int64]:
    """Return a seeded permutation of range(n_items)."""

def random_below(seed: int, stream: int, bound: int, n_items: int, /) -> NDArray[np.int64]:
    """Return n_items seeded integers, uniform in [0, bound)."""

def log1p(x: NDArray[np.float32], /) -> NDArray[np.float32]:
    """Return ln(1 + x), the kernel of the loader (new array)."""

def loess(
    x: NDArray[np.float64], y: NDArray[np.float64], span: float, /
) -> tuple[NDArray[np.float64], NDArray[np.uint8], tuple[int, int, int, int]]:
    """Return the fit at every x, flags per point, and counts of what happened."""
    # flags: 1 singular values dropped, 2 window enlarged, 4 degree lowered; counts: vertices, then
    # how many of them had each flag.

def elementary(function: str, x: NDArray[np.float64], /) -> NDArray[np.float64]:
    """Return ln, ln_1p or exp of every x, the same bits on every machine."""

def residual_zero_sums(
    fractions: NDArray[np.float64],
    totals: NDArray[np.float64],
    n_cells: NDArray[np.float64],
    /,
    *,
    shift_total: float,
    clip: float,
    inverse_theta: float,
    threads: int = -1,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return shifts and the sums of residuals of zeros over distinct totals."""

def residual_corrections(
    data: NDArray[Any],
    indices: NDArray[Any],
    indptr: NDArray[np.int64],
    cell_totals: NDArray[np.float64],
    batches: NDArray[np.int32] | None,
    fractions: NDArray[np.float64],
    shifts: NDArray[np.float64],
    clips: NDArray[np.float64],
    sums: NDArray[np.float64],
    /,
    *,
    shape: tuple[int, int],
    inverse_theta: float,
    threads: int = -1,
) -> None:
    """Add to sums what the stored values of a block of rows change."""

def residual_rows(
    data: NDArray[Any],
    indices: NDArray[Any],
    indptr: NDArray[np.int64],
    cell_totals: NDArray[np.float64],
    fractions: NDArray[np.float64],
    out: NDArray[Any],
    /,
    *,
    shape: tuple[int, int],
    clip: float,
    inverse_theta: float,
    threads: int = -1,
) -> None:
    """Fill out with the dense Pearson residuals of a block of rows."""

def poisson_absence(
    fractions: NDArray[np.float64],
    totals: NDArray[np.float64],
    n_cells: NDArray[np.float64],
    /,
    *,
    threads: int = -1,
) -> NDArray[np.float64]:
    """Return the mean probability of a zero of every fraction over all cells."""

def clipped_sums(
    data: NDArray[Any],
    indices: NDArray[Any],
    indptr: NDArray[np.int64],
    batches: NDArray[np.int32] | None,
    means: NDArray[np.float64],
    clips: NDArray[np.float64],
    sums: NDArray[np.float64],
    /,
    *,
    shape: tuple[int, int],
    threads: int = -1,
) -> None:
    """Add to sums the squares about the mean of clipped stored values."""

@final
class File:
    """An HDF5 file opened by scio's own parser; objects are named by path."""

    def __new__(
        cls,
        source: str | bytes | memoryview | Callable[[int, int], bytes | memoryview],
        /,
        *,
        nbytes: int = -1,
        name: str = "",
        salvage: bool = False,
    ) -> File: ...
    # str = path of a file; bytes-like = an image in memory (kept alive, not copied); a callable
    # read(offset, nbytes) -> bytes needs nbytes= and name=.  salvage: what is left of a truncated file.
    @property
    def name(self) -> str: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def identity(self) -> tuple[int, int, int]: ...  # size, mtime in ns, inode
    @property
    def superblock(self) -> dict[str, int]: ...
    @property
    def pid(self) -> int: ...  # process that opened it; other processes must open their own
    def check_unchanged(self) -> None:
        """Raise IOFormatError when the path no longer is the file that was opened."""
    def address(self, path: str, /) -> int:
        """Return the identity of an object: equal addresses are one object."""
    def kind(self, path: str, /) -> str:
        """Return "group", "dataset", "type" or "unknown"."""
    def path_of(self, address: int, /) -> str | None:
        """Return a path that leads to the object (for object references), or None."""
    def links(self, path: str, /) -> list[tuple[str, str, int | None, str | None, str | None]]:
        """Return (name, "hard" | "soft" | "external" | "user", address, target, target_file)."""
    def attr_names(self, path: str, /) -> list[str]:
        """Return the names of the attributes, by name."""
    def attr(
        self, path: str, name: str, /
    ) -> tuple[dict[str, Any], tuple[int, ...] | None, NDArray[np.uint8]]:
        """Return (type description, shape or None for a null space, raw bytes)."""
    def text_attr(self, path: str, name: str, /) -> str | None:
        """Return an attribute that is one string, None when there is none; TypeError else."""
    def dataset(self, path: str, /) -> Dataset:
        """Describe the dataset at path; reads headers only."""
    def type(self, path: str, /) -> dict[str, Any]:
        """Return the description of a committed datatype."""
    def vlen(
        self, type: dict[str, Any], records: NDArray[np.uint8], /
    ) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        """Resolve records of shape (n, itemsize): offsets (n + 1) and payload bytes."""
    def close(self) -> None: ...

# Type description (a dict, all keys always there unless said):
#   class: "integer" "float" "time" "string" "bitfield" "opaque" "compound" "reference" "enum"
#          "vlen" "array" "complex"
#   itemsize: int; dtype: numpy name or None ("int32"; "bool" for boolean enums);
#   order: "<" or ">"; signed: bool; is_bool: bool; unsupported: str ("" when readable)
#   string and vlen string: padding 0|1|2, utf8: bool, vlen: bool
#   compound: members: list of (name, offset, description); enum: names: list[str], values: list[int]
#   vlen, array, enum, complex: base: description; array: dims: tuple; opaque: tag: str;
#   reference: kind: int

@final
class Dataset:
    """One dataset; keeps its file alive."""

    @property
    def path(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...] | None: ...  # None = null dataspace
    @property
    def maxshape(self) -> tuple[int | None, ...] | None: ...
    @property
    def dtype(self) -> str | None: ...  # numpy name, None when it needs the type description
    @property
    def type(self) -> dict[str, Any]: ...
    @property
    def chunks(self) -> tuple[int, ...] | None: ...
    @property
    def layout(self) -> str: ...  # "compact" "contiguous" "chunked"
    @property
    def index(self) -> str: ...
    @property
    def filters(self) -> list[tuple[int, str, int, tuple[int, ...]]]: ...  # id, name, flags, client
    @property
    def fill(self) -> bytes | None: ...
    @property
    def n_units(self) -> int: ...
    @property
    def stored_nbytes(self) -> int: ...  # sum over written units (walks the index)
    def units(self) -> NDArray[np.int64]:
        """Return (n_units, 4) int64: position (-1 = never written), nbytes, mask, is_raw."""
    def read(
        self,
        start: Sequence[int] | None = None,
        count: Sequence[int] | None = None,
        *,
        dtype: str | None = None,
        threads: int = -1,
    ) -> NDArray[Any]:
        """Read a box as numbers: native byte order, the stored dtype unless `dtype` is given."""
    def read_raw(
        self,
        start: Sequence[int] | None = None,
        count: Sequence[int] | None = None,
        *,
        threads: int = -1,
    ) -> NDArray[np.uint8]:
        """Read a box as stored: uint8 of shape count + (itemsize,)."""

@final
class Matrix:
    """A row-readable matrix (cells x genes), in a file or in memory."""

    @classmethod
    def open_sparse(
        cls,
        file: File,
        path: str,
        /,
        *,
        shape: tuple[int, int],
        is_csc: bool = False,
        max_nbytes: int = -1,
    ) -> Matrix: ...
    @classmethod
    def open_dense(cls, file: File, path: str, /) -> Matrix: ...
    @classmethod
    def map_sparse(cls, file: File, path: str, /, *, shape: tuple[int, int]) -> Matrix:
        """Map a CSR group whose arrays are contiguous; it counts as a matrix in memory."""
    @classmethod
    def map_dense(cls, file: File, path: str, /) -> Matrix:
        """Map a contiguous 2-D dataset."""
    @classmethod
    def from_csr(
        cls,
        data: NDArray[Any],
        indices: NDArray[Any],
        indptr: NDArray[np.int64],
        /,
        *,
        shape: tuple[int, int],
        name: str = "matrix in memory",
    ) -> Matrix: ...
    @classmethod
    def from_dense(cls, data: NDArray[Any], /, *, name: str = "matrix in memory") -> Matrix: ...
    @property
    def shape(self) -> tuple[int, int]: ...
    @property
    def nnz(self) -> int: ...
    @property
    def dtype(self) -> str: ...
    @property
    def index_dtype(self) -> str: ...
    @property
    def kind(self) -> str: ...  # "csr" or "dense"
    @property
    def was_csc(self) -> bool: ...
    @property
    def is_in_file(self) -> bool: ...
    @property
    def is_mapped(self) -> bool: ...  # in memory that is a file; indices are checked when touched
    @property
    def name(self) -> str: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def indptr(self) -> NDArray[np.int64]: ...  # read-only view; CSR only
    def take(
        self, rows: NDArray[np.int64], /, *, dtype: str | None = None, threads: int = -1
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]]:
        """Return data, indices, indptr of rows in any order."""
    def read(
        self, start: int, stop: int, /, *, dtype: str | None = None, threads: int = -1
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]]:
        """Return data, indices, indptr of rows [start, stop)."""
    def read_dense(
        self, start: int, stop: int, /, *, dtype: str | None = None, threads: int = -1
    ) -> NDArray[Any]:
        """Return rows [start, stop) dense."""

@final
class Sink:
    """Rows of cells, in any order, into files whose skeleton is there; thread-safe."""

    def __new__(cls, *, sources: list[dict[str, Any]], n_tracks: int = 1) -> Sink: ...
    # a source: path, n_cells, cells (int64, ascending; None = first_cell ...), first_cell, arrays;
    # an array of its list, one per track: is_dense, n_cols, indptr (CSR), data_offset,
    # indices_offset, data_dtype, indices_dtype
    @property
    def n_put(self) -> int: ...
    @property
    def n_cells(self) -> int: ...
    @property
    def is_closed(self) -> bool: ...
    @property
    def failure(self) -> str | None: ...
    def put(self, i_source: int, cells: NDArray[np.int64], tracks: list[Any], /) -> None:
        """Put cells of one source: for each track (data, indices, indptr) or a 2-D array."""
    def missing(self) -> NDArray[np.int64]:
        """Return the global ids of the cells that nobody has put yet."""
    def sync(self) -> None:
        """Bring what was put to the disk; raises if anything failed so far."""
    def close(self) -> None:
        """Wait for the puts at work and close the files."""

def text_array(
    offsets: NDArray[np.int64], payload: NDArray[np.uint8], where: str, /
) -> NDArray[Any]:
    """Return the strings payload[offsets[i]:offsets[i + 1]] as an array of objects."""

def fixed_text_array(fields: NDArray[np.uint8], padding: int, where: str, /) -> NDArray[Any]:
    """Return fields of shape (n, itemsize) as an array of strings; padding as HDF5 numbers it."""

def read_datasets(
    requests: Sequence[tuple[Dataset, str | None, Sequence[int] | None, Sequence[int] | None, int]],
    /,
    *,
    threads: int = -1,
) -> list[NDArray[Any]]:
    """Read boxes of datasets of one file together; see scio/_core.pyi."""

# A request: dataset; form None = numbers as stored, a dtype = cast, "raw" = bytes (last axis
# itemsize), "text" = strings; start and count of the box, None = all; limit: every value of a 1-D
# integer dataset lies in [0, limit), -1 = not looked at.

def csr_validate(
    data: NDArray[Any] | None,
    indices: NDArray[Any],
    indptr: NDArray[np.int64],
    /,
    *,
    shape: tuple[int, int],
    level: str = "full",
) -> tuple[bool, bool]:
    """Run the gate; return (is_sorted, has_duplicates) ((False, False) below "full")."""

def csr_take(
    data: NDArray[Any],
    indices: NDArray[Any],
    indptr: NDArray[np.int64],
    rows: NDArray[np.int64],
    /,
    *,
    shape: tuple[int, int],
) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]]:
    """Gather rows of validated arrays."""

def csr_transpose(
    data: NDArray[Any],
    indices: NDArray[Any],
    indptr: NDArray[np.int64],
    /,
    *,
    shape: tuple[int, int],
) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]]:
    """Return the arrays of the transpose."""

def csr_to_dense(
    data: NDArray[Any],
    indices: NDArray[Any],
    indptr: NDArray[np.int64],
    /,
    *,
    shape: tuple[int, int],
) -> NDArray[Any]:
    """Return the dense matrix; duplicates are summed."""

def csr_from_dense(dense: NDArray[Any], /) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]]:
    """Return data, indices, indptr of the values that are not zero."""

# Functions of scio.pp.  A matrix is (data, indices, indptr) or, with None for the last two, a C-ordered
# array of two dimensions.

def row_totals(
    data: NDArray[Any],
    indices: NDArray[Any] | None,
    indptr: NDArray[np.int64] | None,
    /,
    *,
    shape: tuple[int, int],
    left_out: NDArray[np.bool_] | None = None,
    threads: int = -1,
) -> tuple[NDArray[np.float64], NDArray[np.int64], dict[str, Any]]:
    """Return the sums of rows, how many values are above 0, and facts about the values."""

# facts: is_canonical, has_duplicates: bool; first_infinite, first_negative, first_fraction: place in
# data or -1; n_fractions: int; maximum: float, -inf when there is none

def high_columns(
    data: NDArray[Any],
    indices: NDArray[Any] | None,
    indptr: NDArray[np.int64] | None,
    totals: NDArray[np.float64],
    max_fraction: float,
    /,
    *,
    shape: tuple[int, int],
    threads: int = -1,
) -> NDArray[np.bool_]:
    """Return which columns exceed max_fraction of the total of some row."""

def normalize_log1p(
    data: NDArray[Any],
    indptr: NDArray[np.int64] | None,
    totals: NDArray[np.float64] | None,
    target: float,
    log: bool,
    /,
    *,
    base: float = 0.0,
    dtype: str | None = None,
    out: NDArray[Any] | None = None,
    threads: int = -1,
) -> NDArray[Any]:
    """Return x * (target / total) of its row, then ln(1 + that); totals None: no scaling."""

def scale_values(
    data: NDArray[Any],
    indices: NDArray[Any] | None,
    indptr: NDArray[np.int64] | None,
    mean: NDArray[np.float64] | None,
    std: NDArray[np.float64],
    /,
    *,
    shape: tuple[int, int],
    rows: NDArray[np.bool_] | None = None,
    max_value: float = ...,
    dtype: str | None = None,
    out: NDArray[Any] | None = None,
    threads: int = -1,
) -> NDArray[Any]:
    """Return (x - mean) / std of its column; a sparse matrix with a mean becomes dense."""

def column_sums(
    data: NDArray[Any],
    indices: NDArray[Any] | None,
    indptr: NDArray[np.int64] | None,
    what: str,
    /,
    *,
    shape: tuple[int, int],
    threads: int = -1,
) -> tuple[NDArray[Any], bool]:
    """Return "positive" counts or the "sum" of columns, and whether rows are canonical."""

def csr_subset(
    data: NDArray[Any],
    indices: NDArray[Any] | None,
    indptr: NDArray[np.int64] | None,
    rows: NDArray[np.int64] | None,
    columns: NDArray[np.int32] | None,
    n_cols: int,
    /,
    *,
    shape: tuple[int, int],
    threads: int = -1,
) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]]:
    """Return rows (None: all) with columns sent to new places (-1: left out; None: all stay)."""

def pooling_scan(
    data: NDArray[Any],
    indices: NDArray[Any],
    indptr: NDArray[np.int64],
    parts: NDArray[np.int32],
    sums: NDArray[np.float64],
    maxima: NDArray[np.float64],
    /,
    *,
    shape: tuple[int, int],
    first_row: int,
) -> tuple[NDArray[np.float64], int, int, float, tuple[int, int, float]]:
    """Return totals, number of values, number of fractions, maximum, (row, column, first fraction).

    Values over totals are added to `sums` and raise `maxima`, both (n_parts, n_columns).
    """

def pooling_take(
    data: NDArray[Any],
    indices: NDArray[Any],
    indptr: NDArray[np.int64],
    parts: NDArray[np.int32],
    totals: NDArray[np.float64],
    positions: NDArray[np.int32],
    averages: NDArray[np.float64],
    magics: NDArray[np.float64],
    genes: NDArray[np.int32],
    values: NDArray[np.float64],
    /,
    *,
    shape: tuple[int, int],
    first_row: int,
    n_used: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Append ratios of kept genes to `genes` and `values`; return starts, counts, n_used."""

def pooling_medians(
    starts: NDArray[np.int64],
    counts: NDArray[np.int64],
    genes: NDArray[np.int32],
    values: NDArray[np.float64],
    sizes: NDArray[np.int64],
    /,
    *,
    n_genes: int,
    threads: int = -1,
) -> NDArray[np.float64]:
    """Return the medians over genes of the sums over windows of the ring, (n_sizes, n_cells)."""

def pooling_solve(
    medians: NDArray[np.float64], sizes: NDArray[np.int64], /, *, weak: float, threads: int = -1
) -> NDArray[np.float64]:
    """Return the least squares solution of the pooled equations, (n_cells,)."""

def collate(
    matrices: Sequence[Matrix],
    maps: Sequence[NDArray[np.int32]],
    cells: NDArray[np.int64],
    /,
    *,
    form: str,
    n_ids: int,
    first_id: int,
    library_size: bool,
    target_sum: float,
    log1p: bool,
    id_mask: NDArray[np.uint8] | None,
    max_genes: int,
    select: str,
    seed: int,
    epoch: int,
    pad_id: int,
    pad_value: float,
    dtype: str | None = None,
    index_dtype: str | None = None,
    cell_scale: NDArray[np.float64] | None = None,
    threads: int = -1,
) -> dict[str, Any]:
    """Read the cells (global ids over the matrices) and collate them into one batch."""

@final
class Compact:
    """Decoded rows that stay in memory; a Loader fills it (`attach`) and reads it (`resident`)."""

    def __new__(cls, n_cells: int, n_tracks: int, max_nbytes: int, /) -> Compact: ...
    @property
    def n_cells(self) -> int: ...
    @property
    def nbytes(self) -> int: ...  # held now
    @property
    def max_nbytes(self) -> int: ...
    @property
    def is_full(self) -> bool: ...  # some row did not fit, nothing more is kept
    def missing(self, cells: NDArray[np.int64] | None = None, /) -> NDArray[np.int64]:
        """Return which of the cells (None: all) are not held."""

@final
class Loader:
    """One epoch of batches, in order; `close` or dropping it stops everything."""

    def __new__(
        cls,
        matrices: Sequence[Matrix],
        maps: Sequence[NDArray[np.int32]],
        /,
        *,
        cells: NDArray[np.int64] | None,
        form: str,
        n_ids: int,
        first_id: int,
        library_size: bool,
        target_sum: float,
        log1p: bool,
        id_mask: NDArray[np.uint8] | None,
        max_genes: int,
        select: str,
        seed: int,
        epoch: int,
        pad_id: int,
        pad_value: float,
        batch_size: int,
        drop_last: bool,
        shuffle: str,
        rank: int,
        world_size: int,
        max_memory: int,
        block_bytes: int,
        threads: int,
        prefetch: int,
        skip_errors: bool,
        first_batch: int,
        given_cells: NDArray[np.int64] | None = None,
        given_offsets: NDArray[np.int64] | None = None,
        dtype: str | None = None,
        index_dtype: str | None = None,
        cell_scale: NDArray[np.float64] | None = None,
        keep: bool = False,
        kept: int = 0,
        fill: bool = False,
        extras: Sequence[Matrix] | None = None,
        extra_is_layer: NDArray[np.bool_] | None = None,
        resident: Compact | None = None,
        mapped: Sequence[Matrix] | None = None,
        mapped_cells: NDArray[np.int64] | None = None,
    ) -> Loader: ...
    # form: "tokens" "dense" "csr"; select: "most_expressed" "random_expressed" "first";
    # shuffle: "none" "block" "exact" "given"
    @property
    def n_batches(self) -> int: ...
    @property
    def keep_nbytes(self) -> int: ...  # what is left for a Compact of all cells; 0: none fits
    @property
    def keep_least_nbytes(self) -> int: ...
    @property
    def keep_most_nbytes(self) -> int: ...
    def attach(self, *, compact: Compact | None = None, sink: Sink | None = None) -> None:
        """Put every decoded row there too; before the first `next`."""
    def next(self, *, timeout: float | None = None) -> dict[str, Any] | None:
        """Return the next batch, None at the end; waits without the GIL, Ctrl-C within 100 ms.

        TimeoutError when none comes within `timeout` seconds.
        """
    def stats(self) -> dict[str, Any]: ...
    def plan(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return (cells, offsets): global ids of every batch, without reading data."""
    def cancel(self) -> None: ...
    def close(self) -> None: ...

@final
class GeneStats:
    """Statistics of genes and cells from one pass over rows; one thread at a time."""

    def __new__(
        cls,
        n_genes: int,
        n_batches: int,
        /,
        *,
        scaled: bool = False,
        target_sum: float = 0.0,
        transform: str = "none",
        factor: float = 1.0,
        flags: NDArray[np.uint64] | None = None,
        n_flags: int = 0,
        tops: NDArray[np.int64] | None = None,
        max_value_nbytes: int = 268435456,
    ) -> GeneStats: ...
    def add(
        self,
        data: NDArray[Any],
        indices: NDArray[Any],
        indptr: NDArray[np.int64],
        /,
        *,
        batches: NDArray[np.int32] | None = None,
        threads: int = -1,
    ) -> tuple[
        NDArray[np.float64],
        NDArray[np.int64],
        NDArray[np.float64] | None,
        NDArray[np.float64] | None,
    ]:
        """Add the next rows; return (totals, n_detected, top_sums, flag_sums)."""
    def facts(self) -> dict[str, Any]:
        """Return counts of values that are no counts, and the first of each."""
    def result(self) -> dict[str, Any]:
        """Return the tables."""
    def values(
        self,
    ) -> tuple[NDArray[np.int64], NDArray[np.uint64], NDArray[np.int64]] | None:
        """Return (indptr, values, counts) by batch and gene, None when they were given up."""

def exact_moments(
    n_rows: NDArray[np.int64], sums: NDArray[np.uint64], squares: NDArray[np.uint64], /
) -> NDArray[np.float64]:
    """Return (sum, mean, m2, variance) of integers from their exact sums, shape (4, B, G)."""

# A batch: "form", "n_cells", "width", "index" int64 (B,), "is_padding" bool (B,) or None and
#   tokens: expression float32 (B, L), gene_indices int64 (B, L), attention_mask int64 (B, L),
#           n_genes int64 (B,)
#   dense:  expression float32 (B, width)
#   csr:    data float32, indices int32, indptr int64, shape (B, width)
#   with extras: "extras": a tuple in their order: array (B, width), or dict data, indices, indptr
#   With fill=True there are no arrays.
