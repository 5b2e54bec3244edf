"""What a recipe asks of one file: passes over it, as functions of a path that can run elsewhere."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scio import _core
from scio.io import AnnDataFile, read_element
from scio.pp._anndata import state_of
from scio.pp._matrix import Rows
from scio.pp._recipe_output import Kept, Output, rows_of
from scio.pp._source import BLOCK_ROWS, Block, Source, open_source
from scio.pp._streams import Rows4096, Subset, Watched
from scio.pp.qc import checked_tops, count_cells
from scio.pp.stats import Feed, GeneStats

Columns = dict[str, NDArray[Any]]

CELL_LIMITS = {"n_genes": ("min_genes", "max_genes"), "n_counts": ("min_counts", "max_counts")}
_WINDOWS_HELD = (
    6  # a window as decoded, cut, normalised, and the one before that a loop still holds
)
_GENE_NBYTES = 512  # of tables per gene (and batch), the threads' own included
_CELL_NBYTES = 400  # of columns and names per cell


@dataclass(frozen=True)
class Settings:
    """Every argument that the results depend on: what a file remembers of its recipe."""

    layer: str | None
    qc_vars: dict[str, str | None]
    percent_top: list[int] | None
    min_genes: int | None
    min_counts: float | None
    max_genes: int | None
    max_counts: float | None
    min_cells: int | None
    min_gene_counts: float | None
    target_sum: float | None
    log1p: bool
    n_top_genes: int | None
    flavor: str
    batch_key: str | None
    subset: bool
    keep_counts: str | None
    compression: str | None
    compression_opts: int

    @property
    def filters_cells(self) -> bool:
        """Whether cells may be left out."""
        return any(getattr(self, n) is not None for pair in CELL_LIMITS.values() for n in pair)

    @property
    def filters_genes(self) -> bool:
        """Whether genes may be left out."""
        return self.min_cells is not None or self.min_gene_counts is not None

    @property
    def needs_target(self) -> bool:
        """Whether the statistics need the target."""
        return self.flavor == "cell_ranger"


@dataclass(frozen=True)
class Work:
    """How the work is done, which does not change results."""

    threads: int
    max_memory: int
    progress: bool


@dataclass
class Survey:
    """What the first pass over one file finds."""

    obs: Columns
    stats: GeneStats
    cells: NDArray[np.bool_]
    n_cells: NDArray[np.int64]  # of each gene, among the cells kept
    sums: NDArray[np.float64]


def survey_file(path: str, s: Settings, work: Work) -> Survey:
    with AnnDataFile(path) as file:
        return survey_source(file, open_source(file, layer=s.layer), s, work)


def survey_source(
    file: AnnDataFile,
    source: Source,
    s: Settings,
    work: Work,
    early: Early | None = None,
) -> Survey:
    """Quality control, and which cells stay."""
    if s.batch_key is not None:
        source._checked_column("obs", s.batch_key)
    flags = {name: flag_of(source, name, start) for name, start in s.qc_vars.items()}
    tops = checked_tops(None if s.percent_top is None else tuple(s.percent_top), source)
    gate = Gate(source.n_obs, source.n_vars, s, work.threads)
    watchers: list[Callable[[Block], None]] = [gate] if s.filters_cells else []
    if early is not None:
        watchers.append(functools.partial(early.add, gate))
    watched = Watched(source, *watchers, n_rows=window(source, work))
    obs, stats = count_cells(watched, tops, flags, threads=work.threads, progress=work.progress)
    _check_state(file, stats, s.layer)
    if stats.facts["n_negative"]:
        stats.check_counts("a recipe")
    for column, limits in CELL_LIMITS.items():
        if any(getattr(s, name) is not None for name in limits):
            obs[column] = stats.n_genes if column == "n_genes" else stats.totals
    n_cells = stats.n_positive[0] - gate.n_cells_dropped
    return Survey(obs, stats, gate.cells, n_cells, stats.sums()[0] - gate.sums_dropped)


class Gate:
    """Decides for each cell as it passes, and counts the genes of those that are turned away."""

    def __init__(self, n_obs: int, n_vars: int, s: Settings, threads: int) -> None:
        self.cells = np.ones(n_obs, dtype=np.bool_)
        self.n_cells_dropped = np.zeros(n_vars, dtype=np.int64)
        self.sums_dropped = np.zeros(n_vars, dtype=np.float64)
        self._settings, self._threads = s, threads

    def __call__(self, block: Block) -> None:
        n_vars = len(self.n_cells_dropped)
        rows = rows_of(block, n_vars)
        totals, n_genes, facts = _core.row_totals(
            *rows.arrays, shape=rows.shape, threads=self._threads
        )
        if facts["first_infinite"] >= 0:
            return  # quality control will say where
        kept = np.ones(block.n_rows, dtype=np.bool_)
        for numbers, (low, high) in zip((n_genes, totals), CELL_LIMITS.values(), strict=True):
            least, most = getattr(self._settings, low), getattr(self._settings, high)
            kept &= True if least is None else numbers >= least
            kept &= True if most is None else numbers <= most
        self.cells[block.start : block.stop] = kept
        if kept.all():
            return
        dropped = np.flatnonzero(~kept).astype(np.int64)
        arrays = _core.csr_subset(*rows.arrays, dropped, None, n_vars, shape=rows.shape)
        part = Rows(None, "", *arrays, (len(dropped), n_vars))
        numbers, is_canonical = _core.column_sums(*part.arrays, "positive", shape=part.shape)
        if not is_canonical:
            part = part.summed()
            numbers, _ = _core.column_sums(*part.arrays, "positive", shape=part.shape)
        self.n_cells_dropped += numbers.astype(np.int64)
        self.sums_dropped += _core.column_sums(*part.arrays, "sum", shape=part.shape)[0]


class Early:
    """Statistics and output in the first pass, where it is certain early that no gene will go.

    Genes are only left out for being in too few cells.  When none is after the first window, none
    will be in the end.

    Parameters
    ----------
    source : Source
    feed : Feed
        Gets the cells kept.
    output : Output, optional
        Gets them, too.
    settings : Settings
    """

    def __init__(
        self, source: Source, feed: Feed, output: Output | None, settings: Settings
    ) -> None:
        self._source, self._feed, self._output = source, feed, output
        self._settings = settings
        self._rows = Rows4096(source.n_vars)
        self._everything = np.ones(source.n_vars, dtype=np.bool_)
        self._is_given_up = False

    def add(self, gate: Gate, block: Block) -> None:
        """Take the next rows of the source, of which `gate` has decided."""
        least = self._settings.min_cells
        if block.start == 0 and least is not None:
            rows = rows_of(block, self._source.n_vars)
            _, _, facts = _core.row_totals(*rows.arrays, shape=rows.shape)
            if facts["first_infinite"] >= 0 or facts["has_duplicates"]:
                self._is_given_up = True
                return
            numbers, _ = _core.column_sums(*rows.arrays, "positive", shape=rows.shape)
            self._is_given_up = bool(np.any(numbers - gate.n_cells_dropped < least))
        if self._is_given_up:
            return
        if block.start == 0 and self._output is not None:
            assert self._settings.target_sum is not None
            self._output.begin(self._source, self._settings.target_sum, n_obs=None)
        part = Subset(self._source, gate.cells, self._everything)
        self._pass_on(self._rows.push(part.cut(block)))

    def _pass_on(self, blocks: Iterable[Block]) -> None:
        for block in blocks:
            self._feed.add(block)
            if self._output is not None:
                self._output.add(block)

    def result(self, cells: NDArray[np.bool_]) -> GeneStats | None:
        """Return the statistics of the cells kept; None when they could not be taken."""
        if self._is_given_up or not cells.any():
            return None  # of no cells, which is refused later
        self._pass_on(self._rows.flush())
        self._feed.narrow(Subset(self._source, cells, self._everything), cells)
        return self._feed.result()


def flag_of(source: Source, name: str, start: str | None) -> NDArray[np.bool_]:
    if start is None:
        return source.var_flags(name)
    return np.array([str(n).startswith(start) for n in source.var_names], dtype=np.bool_)


def _check_state(file: AnnDataFile, stats: GeneStats, layer: str | None) -> None:
    """Refuse what the file itself says are no counts."""
    done = _noted(file, layer)
    if done and stats.facts["n_fractional"]:
        others = [f"layers/{key}" for key in file.layers] + (
            ["raw/X"] if file.raw is not None else []
        )
        message = (
            f"a recipe needs counts, but {stats.name} was {done}: its values are no integers, the "
            f"maximum is {float(stats.maximum.max(initial=0)):.6g}; other matrices of the file: "
            f"{', '.join(others) or 'none'}"
        )
        raise ValueError(message)


def _noted(file: AnnDataFile, layer: str | None) -> str:
    """What the file says was done to the matrix; empty if nothing."""
    scio = read_element(file.file, "/uns/scio") if "scio" in file.uns else None
    state = state_of(scio, layer)
    if state.get("log1p"):
        return "logged (uns['scio']['state'])"
    if layer is None and "log1p" in file.uns:
        return "logged (uns['log1p'])"
    if "target_sum" in state:
        return f"normalised to {float(state['target_sum']):g} (uns['scio']['state'])"
    return ""


def feed_of(source: Source, s: Settings, target: float | None, work: Work) -> Feed:
    return Feed.of(
        source,
        batch_key=s.batch_key,
        target_sum=target if s.needs_target else None,
        scaled=s.flavor == "seurat",
        threads=work.threads,
    )


def statistics(path: str, kept: Kept, s: Settings, target: float | None, work: Work) -> GeneStats:
    """Statistics of the cells and genes kept of one file."""
    with AnnDataFile(path) as file:
        source = open_source(file, layer=s.layer)
        part = Subset(source, kept.cells, kept.genes, n_rows=window(source, work))
        feed = feed_of(part, s, target, work)
        feed.run(is_shown=work.progress)
        return feed.result()


def window(source: Source, work: Work) -> int | None:
    """Rows to read at a time."""
    if not work.max_memory:
        return None
    tables = source.n_vars * _GENE_NBYTES + source.n_obs * _CELL_NBYTES
    handle: Any = source
    row = handle._handle.nnz / max(1, source.n_obs) * (source.dtype.itemsize + 4)
    least = int(BLOCK_ROWS * row * _WINDOWS_HELD) + tables
    if least > work.max_memory:
        message = (
            f"max_memory is {work.max_memory:,} bytes; {source.name} needs at least {least:,}: "
            f"tables of {source.n_obs:,} cells and {source.n_vars:,} genes, windows of {BLOCK_ROWS:,} cells"
        )
        raise ValueError(message)
    room = work.max_memory - tables
    return max(1, int(room / max(1.0, row * _WINDOWS_HELD * BLOCK_ROWS))) * BLOCK_ROWS
