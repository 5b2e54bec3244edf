"""From a file of counts to chosen genes and a normalised file, in one or two decodes."""

from __future__ import annotations

import contextlib
import json
import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scio import _core
from scio._optional import require
from scio.data._arguments import nbytes
from scio.errors import IOFormatError, ScioWarning
from scio.io import AnnDataFile, read_element
from scio.io.writer import StorageOptions, published_file
from scio.pp import hvg
from scio.pp._matrix import Rows
from scio.pp._recipe_output import Kept, Output, rows_of
from scio.pp._source import BLOCK_ROWS, Block, Source, open_source
from scio.pp._streams import Subset, Watched
from scio.pp.normalize import _check_target, median_of_totals
from scio.pp.qc import DEFAULT_TOPS, checked_tops, count_cells, gene_columns
from scio.pp.stats import Feed, GeneStats

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["RecipeResult", "recipe", "repeat_recipe"]

Columns = dict[str, NDArray[Any]]
Path = str | os.PathLike[str]
Each = Callable[[Callable[..., Any], list[tuple[Any, ...]]], list[Any]]

_CELL_LIMITS = {"n_genes": ("min_genes", "max_genes"), "n_counts": ("min_counts", "max_counts")}
_WINDOWS_HELD = 6  # a window as decoded, cut, normalised, and the one before that a loop still holds
_TABLE_NBYTES = 512  # per gene (and batch), the threads' own tables included


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
        return any(getattr(self, n) is not None for pair in _CELL_LIMITS.values() for n in pair)

    @property
    def filters_genes(self) -> bool:
        """Whether genes may be left out."""
        return self.min_cells is not None or self.min_gene_counts is not None

    @property
    def needs_target(self) -> bool:
        """Whether the statistics need the target."""
        return self.flavor == "cell_ranger"


@dataclass(frozen=True)
class _Work:
    """How the work is done, which does not change results."""

    threads: int
    max_memory: int
    progress: bool


@dataclass
class _Survey:
    """What the first pass over one file finds."""

    obs: Columns
    stats: GeneStats
    cells: NDArray[np.bool_]
    n_cells: NDArray[np.int64]  # of each gene, among the cells kept
    sums: NDArray[np.float64]


@dataclass(frozen=True, repr=False)
class RecipeResult:
    """What a recipe found and did.

    Attributes
    ----------
    obs : pandas.DataFrame, one row a cell of the input
        Columns of `calculate_qc_metrics`, those of `filter_cells`, and ``kept``; with several inputs
        also ``file``.
    var : pandas.DataFrame, one row a gene of the input
        Columns of `calculate_qc_metrics`, ``kept``, and those of `highly_variable_genes`, which are
        NaN, 0 or False for genes that were left out.
    cells, genes : ndarray of bool, shape (n_cells,) and (n_genes,)
        What was kept.
    highly_variable : ndarray of bool, shape (n_genes,)
        The genes chosen.
    target_sum : float
        Total of a cell after normalisation.
    stats : GeneStats
        Statistics of the cells and genes kept, from which other flavours can be had without reading.
    parameters : dict
        The arguments that results depend on.
    inputs, outputs : list of str
        Paths.
    left_out : list of str
        Elements of the inputs that the outputs lack.
    n_passes : int
        How often the input was decoded.
    """

    obs: pd.DataFrame
    var: pd.DataFrame
    cells: NDArray[np.bool_]
    genes: NDArray[np.bool_]
    highly_variable: NDArray[np.bool_]
    target_sum: float
    stats: GeneStats
    parameters: dict[str, Any]
    inputs: list[str]
    outputs: list[str]
    left_out: list[str] = field(default_factory=list)
    n_passes: int = 0

    def __repr__(self) -> str:
        lines = [
            f"recipe of {', '.join(self.inputs)} in {self.n_passes} "
            f"{'pass' if self.n_passes == 1 else 'passes'}",
            f"  cells kept   {int(self.cells.sum()):>9,} of {len(self.cells):,}",
            f"  genes kept   {int(self.genes.sum()):>9,} of {len(self.genes):,}",
            f"  genes chosen {int(self.highly_variable.sum()):>9,} by {self.parameters['flavor']}",
            f"  target sum   {self.target_sum:>9,g}",
        ]
        lines += [f"  written      {path}" for path in self.outputs]
        if self.left_out:
            lines.append(f"  left out     {', '.join(self.left_out)}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold: numbers of cells and genes, parameters, names of chosen genes."""
        return {
            "inputs": self.inputs,
            "outputs": self.outputs,
            "n_cells": len(self.cells),
            "n_cells_kept": int(self.cells.sum()),
            "n_genes": len(self.genes),
            "n_genes_kept": int(self.genes.sum()),
            "target_sum": self.target_sum,
            "n_passes": self.n_passes,
            "left_out": self.left_out,
            "parameters": self.parameters,
            "highly_variable": [str(n) for n in self.var.index[self.highly_variable]],
        }


def recipe(
    path: Path | Sequence[Path],
    out: Path | None = None,
    *,
    layer: str | None = None,
    qc_vars: str | Sequence[str] | Mapping[str, str | None] = (),
    percent_top: Sequence[int] | None = DEFAULT_TOPS,
    min_genes: int | None = None,
    min_counts: float | None = None,
    max_genes: int | None = None,
    max_counts: float | None = None,
    min_cells: int | None = None,
    min_gene_counts: float | None = None,
    target_sum: float | None = 1e4,
    log1p: bool = True,
    n_top_genes: int | None = 2000,
    flavor: str = "seurat",
    batch_key: str | None = None,
    subset: bool = False,
    keep_counts: str | None = None,
    compression: str | None = "gzip",
    compression_opts: int = 1,
    overwrite: bool = True,
    threads: int = -1,
    max_memory: int | str | None = None,
    dask: Any = None,
    progress: bool = True,
) -> RecipeResult:
    """Quality control, filters, normalisation, logarithm and gene selection of a file of counts.

    Parameters
    ----------
    path : str, Path, or sequence of these
        An ``.h5ad`` of counts.  Several files of the same genes are treated as one matrix, one below
        the other.
    out : str or Path, optional
        The ``.h5ad`` to write; for several inputs a folder, which gets one file per input under its
        name.  None: tables only.
    layer : str, optional
        The layer with the counts, instead of X.
    qc_vars : str, sequence of str, or mapping
        Boolean columns of var, or a mapping of new columns to the beginnings of gene names, as
        ``{"mt": "MT-"}``; totals over these genes are taken.
    percent_top : sequence of int, optional
        As in `calculate_qc_metrics`.
    min_genes, min_counts, max_genes, max_counts : number, optional
        Cells outside these inclusive limits are left out, as by `filter_cells`.
    min_cells, min_gene_counts : number, optional
        Genes below are left out, as by `filter_genes`, counted over the cells kept.
    target_sum : float, optional
        Total of a cell after normalisation; None: the median of the totals.
    log1p : bool
        Take ln(1 + x) of the normalised values.
    n_top_genes, flavor, batch_key
        As in `highly_variable_genes`; the flavours ``seurat`` and ``cell_ranger`` get the counts with
        `target_sum`.
    subset : bool
        Write the chosen genes only.
    keep_counts : str, optional
        A layer of the output that gets the counts as they are.
    compression, compression_opts
        Of the output, as in `scio.write_h5ad`.
    overwrite : bool
        False: an existing output is an error.
    threads : int
        -1: all.
    max_memory : int or str, optional
        Bytes, or a text like ``"2GB"``, that windows and tables shall stay below.
    dask : str or distributed.Client, optional
        Address of a Dask scheduler, or a client: statistics of several files are taken by its
        workers, which must see the files under the same paths.
    progress : bool
        A bar per pass (tqdm, on a terminal).

    Returns
    -------
    RecipeResult

    Raises
    ------
    ValueError
        If an argument is out of range, values are negative, NaN, infinite or all 0, the matrix is
        noted as normalised or logged and its values are no integers, nothing is left after the
        filters, or several files have different genes.
    KeyNotFoundError
        If there is no such layer or column; near names are offered.
    IOWriteError
        If the output cannot be written; an old file is unchanged.

    Warns
    -----
    ScioWarning
        If values are no integers, or cells have a total of 0.

    Notes
    -----
    The same bits as `calculate_qc_metrics`, `filter_cells`, `filter_genes`,
    ``highly_variable_genes(…, target_sum=…)`` on the counts left, `normalize_total` and `log1p` give one
    after another in memory, for any number of threads and any `max_memory`.  The file is decoded once
    when nothing is filtered, else twice; once more for ``target_sum=None`` with filtered genes, for
    ``subset=True``, for flavour ``pearson_residuals``, and to write several files.
    ``uns["scio"]["recipe"]`` of the output holds parameters, version and inputs; `repeat_recipe` runs
    it again.

    Examples
    --------
    >>> import scio
    >>> done = scio.pp.recipe(scio.datasets.pbmc3k(), min_genes=200, min_cells=3)
    >>> int(done.genes.sum()), int(done.highly_variable.sum())
    (13714, 2000)
    """
    paths = [path] if isinstance(path, (str, os.PathLike)) else list(path)
    settings = Settings(
        layer=layer,
        qc_vars=_named_sets(qc_vars),
        percent_top=None if percent_top is None else [int(k) for k in percent_top],
        min_genes=min_genes,
        min_counts=min_counts,
        max_genes=max_genes,
        max_counts=max_counts,
        min_cells=min_cells,
        min_gene_counts=min_gene_counts,
        target_sum=None if target_sum is None else float(target_sum),
        log1p=log1p,
        n_top_genes=n_top_genes,
        flavor=flavor,
        batch_key=batch_key,
        subset=subset,
        keep_counts=keep_counts,
        compression=compression,
        compression_opts=compression_opts,
    )
    _check_arguments(settings)
    work = _Work(threads, nbytes("max_memory", max_memory), progress)
    outs = _outputs(paths, out, is_single=isinstance(path, (str, os.PathLike)))
    if dask is None:
        return _Run(paths, outs, settings, work, _one_by_one, overwrite=overwrite).go()
    from scio.pp._dask import cluster

    with cluster(dask) as each:
        return _Run(paths, outs, settings, work, each, overwrite=overwrite).go()


def repeat_recipe(
    file: Path,
    out: Path | None = None,
    *,
    source: Path | Sequence[Path] | None = None,
    **options: Any,
) -> RecipeResult:
    """Run the recipe again that a file was written by.

    Parameters
    ----------
    file : str or Path
        What `recipe` wrote.
    out : str or Path, optional
        As in `recipe`.
    source : str, Path, or sequence of these, optional
        Where the inputs are now; by default where they were.
    **options
        `overwrite`, `threads`, `max_memory`, `dask`, `progress` of `recipe`.

    Returns
    -------
    RecipeResult

    Raises
    ------
    IOFormatError
        If the file does not know its recipe.
    ValueError
        If an input is not the one it was.

    Warns
    -----
    ScioWarning
        If another version of scio wrote the file.
    """
    name = os.fspath(file)
    with AnnDataFile(name) as handle:
        known = "/uns/scio/recipe" in handle.file
        note = read_element(handle.file, "/uns/scio/recipe") if known else None
    try:
        if not isinstance(note, Mapping):
            raise KeyError("recipe")
        parameters, inputs = json.loads(note["parameters"]), json.loads(note["inputs"])
        version = str(note["version"])
    except (KeyError, ValueError) as error:
        message = f"{name}: uns['scio']['recipe'] does not tell how the file was made ({error})"
        raise IOFormatError(message) from error
    if version != _core.__version__:
        text = f"{name} was written by scio {version}, this is {_core.__version__}; results may differ"
        warnings.warn(ScioWarning(text), stacklevel=2)
    paths: Any = [i["path"] for i in inputs] if source is None else source
    given = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    if len(given) != len(inputs):
        message = f"{name} was made from {len(inputs)} files, source names {len(given)}"
        raise ValueError(message)
    for where, was in zip(given, inputs, strict=True):
        with AnnDataFile(os.fspath(where)) as handle:
            found = open_source(handle, layer=parameters["layer"])
            found.check_fingerprint(was["fingerprint"], f"the recipe of {name}")
    return recipe(given[0] if len(given) == 1 else given, out, **parameters, **options)


# --- arguments


def _check_arguments(s: Settings) -> None:
    _check_target(s.target_sum)
    for name in ("min_genes", "min_counts", "max_genes", "max_counts", "min_cells", "min_gene_counts"):
        value = getattr(s, name)
        if value is not None and not value >= 0:
            message = f"{name} is {value!r}, expected a number of 0 or more"
            raise ValueError(message)
    hvg.check_flavor(s.flavor, s.n_top_genes)
    if s.keep_counts is not None and (not s.keep_counts or "/" in s.keep_counts):
        message = f"keep_counts is {s.keep_counts!r}, expected the name of a layer"
        raise ValueError(message)
    StorageOptions(s.compression, s.compression_opts)


def _named_sets(qc_vars: str | Sequence[str] | Mapping[str, str | None]) -> dict[str, str | None]:
    if isinstance(qc_vars, Mapping):
        return {str(k): v for k, v in qc_vars.items()}
    return dict.fromkeys([qc_vars] if isinstance(qc_vars, str) else qc_vars)


def _outputs(paths: list[Path], out: Path | None, *, is_single: bool) -> list[str]:
    if not paths:
        message = "path names no file"
        raise ValueError(message)
    if out is None:
        return []
    if is_single:
        outs = [os.fspath(out)]
    else:
        os.makedirs(out, exist_ok=True)
        outs = [os.path.join(os.fspath(out), os.path.basename(os.fspath(p))) for p in paths]
    if len(set(outs)) < len(outs):
        message = f"several inputs have the name {_first_double(outs)!r}, and {out} can hold one of them"
        raise ValueError(message)
    for target in outs:
        for source in paths:
            if os.path.exists(target) and os.path.exists(source) and os.path.samefile(source, target):
                message = f"{target} is a file to read; give another output"
                raise ValueError(message)
    return outs


def _first_double(names: list[str]) -> str:
    return next(os.path.basename(n) for i, n in enumerate(names) if n in names[:i])


def _one_by_one(function: Callable[..., Any], calls: list[tuple[Any, ...]]) -> list[Any]:
    return [function(*call) for call in calls]


# --- passes over one file: functions of a path, so that they can run elsewhere


def _survey(path: str, s: Settings, work: _Work) -> _Survey:
    with AnnDataFile(path) as file:
        return _survey_source(file, open_source(file, layer=s.layer), s, work)


def _survey_source(
    file: AnnDataFile,
    source: Source,
    s: Settings,
    work: _Work,
    watchers: Iterable[Callable[[Block], None]] = (),
) -> _Survey:
    """Quality control, and which cells stay."""
    if s.batch_key is not None:
        source._checked_column("obs", s.batch_key)
    flags = {name: _flag(source, name, start) for name, start in s.qc_vars.items()}
    tops = checked_tops(None if s.percent_top is None else tuple(s.percent_top), source)
    gate = _Gate(source.n_obs, source.n_vars, s, work.threads)
    seen = list(watchers) + ([gate] if s.filters_cells else [])
    watched = Watched(source, *seen, n_rows=_window(source, work))
    obs, stats = count_cells(watched, tops, flags, threads=work.threads, progress=work.progress)
    _check_values(file, stats, s.layer)
    for column, limits in _CELL_LIMITS.items():
        if any(getattr(s, name) is not None for name in limits):
            obs[column] = stats.n_genes if column == "n_genes" else stats.totals
    n_cells = stats.n_positive[0] - gate.n_cells_dropped
    return _Survey(obs, stats, gate.cells, n_cells, stats.sums()[0] - gate.sums_dropped)


class _Gate:
    """Decides for each cell as it passes, and counts the genes of those that are turned away."""

    def __init__(self, n_obs: int, n_vars: int, s: Settings, threads: int) -> None:
        self.cells = np.ones(n_obs, dtype=np.bool_)
        self.n_cells_dropped = np.zeros(n_vars, dtype=np.int64)
        self.sums_dropped = np.zeros(n_vars, dtype=np.float64)
        self._settings, self._threads = s, threads

    def __call__(self, block: Block) -> None:
        n_vars = len(self.n_cells_dropped)
        rows = rows_of(block, n_vars)
        totals, n_genes, _ = _core.row_totals(
            *rows.arrays, shape=rows.shape, threads=self._threads
        )
        kept = np.ones(block.n_rows, dtype=np.bool_)
        for numbers, (low, high) in zip((n_genes, totals), _CELL_LIMITS.values(), strict=True):
            least, most = getattr(self._settings, low), getattr(self._settings, high)
            kept &= True if least is None else numbers >= least
            kept &= True if most is None else numbers <= most
        self.cells[block.start : block.stop] = kept
        if kept.all():
            return
        dropped = np.flatnonzero(~kept).astype(np.int64)
        arrays = _core.csr_subset(*rows.arrays, dropped, None, n_vars, shape=rows.shape)
        part = Rows(None, "", *arrays, (len(dropped), n_vars))
        for what, sums in (("positive", self.n_cells_dropped), ("sum", self.sums_dropped)):
            numbers, is_canonical = _core.column_sums(*part.arrays, what, shape=part.shape)
            if not is_canonical:
                part = part.summed()
                numbers, _ = _core.column_sums(*part.arrays, what, shape=part.shape)
            sums += numbers


def _flag(source: Source, name: str, start: str | None) -> NDArray[np.bool_]:
    if start is None:
        return source.var_flags(name)
    return np.array([str(n).startswith(start) for n in source.var_names], dtype=np.bool_)


def _check_values(file: AnnDataFile, stats: GeneStats, layer: str | None) -> None:
    """Refuse what is no matrix of counts, and warn of what may be none."""
    done = _noted(file, layer)
    if done and stats.facts["n_fractional"]:
        others = [f"layers/{key}" for key in file.layers] + (["raw/X"] if file.raw is not None else [])
        message = (
            f"a recipe needs counts, but {stats.name} was {done}: its values are no integers, the "
            f"maximum is {float(stats.maximum.max(initial=0)):.6g}; other matrices of the file: "
            f"{', '.join(others) or 'none'}"
        )
        raise ValueError(message)
    stats.check_counts("a recipe")


def _noted(file: AnnDataFile, layer: str | None) -> str:
    """What the file says was done to the matrix; empty if nothing."""
    scio = read_element(file.file, "/uns/scio") if "scio" in file.uns else None
    states = scio.get("state") if isinstance(scio, Mapping) else None
    key = "X" if layer is None else f"layers/{layer}"
    state = states.get(key) if isinstance(states, Mapping) else None
    state = state if isinstance(state, Mapping) else {}
    if state.get("log1p"):
        return f"logged (uns['scio']['state'][{key!r}])"
    if layer is None and "log1p" in file.uns:
        return "logged (uns['log1p'])"
    if "target_sum" in state:
        return f"normalised to {float(state['target_sum']):g} (uns['scio']['state'][{key!r}])"
    return ""


def _feed(source: Source, s: Settings, target: float | None, work: _Work) -> Feed:
    return Feed.of(
        source,
        batch_key=s.batch_key,
        target_sum=target if s.needs_target else None,
        scaled=s.flavor == "seurat",
        threads=work.threads,
    )


def _statistics(
    path: str, kept: Kept, s: Settings, target: float | None, work: _Work
) -> GeneStats:
    """Statistics of the cells and genes kept of one file."""
    with AnnDataFile(path) as file:
        source = open_source(file, layer=s.layer)
        part = Subset(source, kept.cells, kept.genes, n_rows=_window(source, work))
        feed = _feed(part, s, target, work)
        feed.run(is_shown=work.progress)
        return feed.result()


def _window(source: Source, work: _Work) -> int | None:
    """Rows to read at a time."""
    if not work.max_memory:
        return None
    tables = source.n_vars * _TABLE_NBYTES
    handle: Any = source
    row = handle._handle.nnz / max(1, source.n_obs) * (source.dtype.itemsize + 4)
    least = int(BLOCK_ROWS * row * _WINDOWS_HELD) + tables
    if least > work.max_memory:
        message = (
            f"max_memory is {work.max_memory:,} bytes; {source.name} needs at least {least:,}: "
            f"tables of {source.n_vars:,} genes and windows of {BLOCK_ROWS:,} cells"
        )
        raise ValueError(message)
    room = work.max_memory - tables
    return max(1, int(room / max(1.0, row * _WINDOWS_HELD * BLOCK_ROWS))) * BLOCK_ROWS


# --- the whole


class _Run:
    """One call of `recipe`."""

    def __init__(
        self,
        paths: list[Path],
        outs: list[str],
        settings: Settings,
        work: _Work,
        each: Each,
        *,
        overwrite: bool,
    ) -> None:
        self.paths = [os.path.abspath(os.fspath(p)) for p in paths]
        self.outs, self.settings, self.work, self.each = outs, settings, work, each
        self.overwrite = overwrite
        self.n_passes = 0

    def go(self) -> RecipeResult:
        with contextlib.ExitStack() as stack:
            files = [stack.enter_context(AnnDataFile(p)) for p in self.paths]
            sources = [open_source(f, layer=self.settings.layer) for f in files]
            _check_same_genes(sources)
            outputs = [self._open_output(stack, out) for out in self.outs]
            return self._go(files, sources, outputs)

    def _open_output(self, stack: contextlib.ExitStack, out: str) -> Output:
        s = self.settings
        writer = stack.enter_context(published_file(out, overwrite=self.overwrite))
        options = StorageOptions(s.compression, s.compression_opts)
        return Output(
            writer,
            out,
            options,
            log1p=s.log1p,
            counts_layer=s.keep_counts,
            threads=self.work.threads,
        )

    def _go(
        self, files: list[AnnDataFile], sources: list[Source], outputs: list[Output]
    ) -> RecipeResult:
        s = self.settings
        surveys, stats = self._first_pass(files, sources, outputs)
        n_cells, sums = surveys[0].n_cells, surveys[0].sums
        for other in surveys[1:]:
            n_cells, sums = n_cells + other.n_cells, sums + other.sums
        genes = np.ones(len(n_cells), dtype=np.bool_)
        genes &= True if s.min_cells is None else n_cells >= s.min_cells
        genes &= True if s.min_gene_counts is None else sums >= s.min_gene_counts
        kept = [Kept(survey.cells, genes) for survey in surveys]
        quality = GeneStats.merge([survey.stats for survey in surveys])
        cells = np.concatenate([survey.cells for survey in surveys])
        self._check_left(quality, cells, genes)
        is_all = bool(cells.all() and genes.all())
        target = s.target_sum
        if target is None and genes.all():
            target = median_of_totals(quality.totals[cells], quality.name)
        if stats is None or not is_all:
            stats, target = self._second_pass(sources, kept, outputs, target)
        elif target is None:
            target = median_of_totals(stats.totals, stats.name)
        assert target is not None
        chosen, note = self._choose(stats, sources, kept, target)
        var = gene_columns(quality)
        if s.filters_genes:
            filtered = {"n_cells": n_cells, "n_counts": sums}
            wanted = {"n_cells": s.min_cells, "n_counts": s.min_gene_counts}
            var |= {k: v for k, v in filtered.items() if wanted[k] is not None}
        flags = {k: _flag(sources[0], k, v) for k, v in s.qc_vars.items() if v is not None}
        var = {**flags, **var}
        left_out = self._finish(files, sources, surveys, kept, outputs, var, chosen, note, target)
        return self._result(sources, surveys, genes, var, chosen, stats, target, left_out)

    def _first_pass(
        self, files: list[AnnDataFile], sources: list[Source], outputs: list[Output]
    ) -> tuple[list[_Survey], GeneStats | None]:
        """Quality control; of one file, also all that can be had if nothing is filtered."""
        s, work = self.settings, self.work
        self.n_passes += 1
        if len(files) > 1 or self.each is not _one_by_one:
            calls = [(path, s, work) for path in self.paths]
            return self.each(_survey, calls), None
        is_filtered = s.filters_cells or s.filters_genes
        watchers: list[Callable[[Block], None]] = []
        feed = None
        if not (s.needs_target and s.target_sum is None) and not (is_filtered and outputs):
            feed = _feed(sources[0], s, s.target_sum, work)
            watchers.append(feed.add)
        if feed is not None and outputs and s.target_sum is not None and not s.subset:
            outputs[0].begin(sources[0], s.target_sum)
            watchers.append(outputs[0].add)
        survey = _survey_source(files[0], sources[0], s, work, watchers)
        return [survey], None if feed is None else feed.result()

    def _second_pass(
        self,
        sources: list[Source],
        kept: list[Kept],
        outputs: list[Output],
        target: float | None,
    ) -> tuple[GeneStats, float]:
        """Statistics of what is left; of one file, with a known target, also its output."""
        s, work = self.settings, self.work
        if target is None and s.needs_target:
            totals = self._merged(kept, 1.0)
            target = median_of_totals(totals.totals, totals.name)
        is_local = len(sources) == 1 and self.each is _one_by_one
        if not (is_local and outputs and target is not None and not s.subset):
            stats = self._merged(kept, target)
            if target is None:
                target = median_of_totals(stats.totals, stats.name)
            return stats, target
        part = self._part(sources[0], kept[0])
        outputs[0].begin(part, target)
        watched = Watched(part, outputs[0].add)
        feed = _feed(watched, s, target, work)
        self.n_passes += 1
        feed.run(is_shown=work.progress)
        return feed.result(), target

    def _merged(self, kept: list[Kept], target: float | None) -> GeneStats:
        self.n_passes += 1
        calls = [
            (path, part, self.settings, target, self.work)
            for path, part in zip(self.paths, kept, strict=True)
        ]
        return GeneStats.merge(self.each(_statistics, calls))

    def _part(self, source: Source, kept: Kept) -> Subset:
        return Subset(source, kept.cells, kept.genes, n_rows=_window(source, self.work))

    def _check_left(
        self, quality: GeneStats, cells: NDArray[np.bool_], genes: NDArray[np.bool_]
    ) -> None:
        s = self.settings
        asked = {k: v for k, v in asdict(s).items() if k.startswith(("min_", "max_"))}
        limits = ", ".join(f"{k}={v:g}" for k, v in asked.items() if v is not None)
        if len(cells) and not cells.any():
            message = (
                f"{quality.name}: no cell is left by {limits}; cells have "
                f"{int(quality.n_genes.min())} to {int(quality.n_genes.max())} genes and "
                f"{quality.totals.min():g} to {quality.totals.max():g} counts"
            )
            raise ValueError(message)
        if len(genes) and not genes.any():
            message = f"{quality.name}: no gene is left by {limits}"
            raise ValueError(message)

    def _choose(
        self, stats: GeneStats, sources: list[Source], kept: list[Kept], target: float
    ) -> tuple[pd.DataFrame, dict[str, Any]]:
        s = self.settings
        arguments: dict[str, Any] = {
            "flavor": s.flavor,
            "n_top_genes": s.n_top_genes,
            "check_values": False,  # the first pass did
            "threads": self.work.threads,
        }
        if s.flavor in ("seurat", "cell_ranger"):
            arguments["target_sum"] = target
        has_values = stats.values is not None
        if s.flavor == "pearson_residuals" or (s.flavor.startswith("seurat_v3") and not has_values):
            if len(sources) > 1:
                message = (
                    f"flavor {s.flavor!r} reads the matrix once more, which is done for one file only; "
                    "concatenate the files, or take another flavor"
                )
                raise ValueError(message)
            self.n_passes += 1
            part = self._part(sources[0], kept[0])
            frame = hvg.highly_variable_genes(
                part, stats=stats, batch_key=s.batch_key, inplace=False, **arguments
            )
        else:
            frame = hvg.highly_variable_genes(stats, inplace=False, **arguments)
        assert frame is not None
        return frame, dict(frame.attrs["scio"])

    def _finish(
        self,
        files: list[AnnDataFile],
        sources: list[Source],
        surveys: list[_Survey],
        kept: list[Kept],
        outputs: list[Output],
        var: Columns,
        chosen: pd.DataFrame,
        note: dict[str, Any],
        target: float,
    ) -> list[str]:
        """Write what is still missing of every output."""
        s = self.settings
        left_out: list[str] = []
        if outputs and not outputs[0].is_streamed:
            self.n_passes += 1
        is_chosen = chosen["highly_variable"].to_numpy()
        genes = kept[0].genes.copy() if kept else np.ones(0, np.bool_)
        columns = {name: values[genes] for name, values in var.items()} | _hvg_columns(chosen)
        if s.subset:
            genes[genes] = is_chosen
            columns = {name: values[is_chosen] for name, values in columns.items()}
        uns = self._uns(surveys, note, target)
        for file, source, survey, part, output in zip(
            files, sources, surveys, kept, outputs, strict=False
        ):
            if not output.is_streamed:
                self._stream(output, source, part, genes, target)
            if output.n_empty:
                text = f"{source.name}: {output.n_empty:,} cells have a total of 0 and stay as they are"
                warnings.warn(ScioWarning(text), stacklevel=5)
            obs = {name: values[part.cells] for name, values in survey.obs.items()}
            left_out += output.finish(file, Kept(part.cells, genes), obs, columns, uns)
        return list(dict.fromkeys(left_out))

    def _stream(
        self,
        output: Output,
        source: Source,
        kept: Kept,
        genes: NDArray[np.bool_],
        target: float,
    ) -> None:
        """A pass that only writes; totals are those of all genes kept, also where a subset is written."""
        part = self._part(source, kept)
        output.begin(part, target, genes[kept.genes] if self.settings.subset else None)
        for block in part.blocks(check=False):
            output.add(block)

    def _uns(
        self, surveys: list[_Survey], note: dict[str, Any], target: float
    ) -> dict[str, Any]:
        s = self.settings
        for key in ("tied", "near_ties"):
            if key in note:
                note[key] = np.asarray(note[key], dtype=np.int64)
        if "loess" in note:
            note["loess"] = {k: np.asarray(v) for k, v in note["loess"].items()}
        if "parts" in note["fingerprint"]:
            note["fingerprint"]["parts"] = json.dumps(note["fingerprint"]["parts"])
        note["parameters"] |= {} if s.batch_key is None else {"batch_key": s.batch_key}
        flavor: dict[str, Any] = {"flavor": note["flavor"]}
        if s.flavor == "pearson_residuals":
            flavor["computed_on"] = "adata.X"
        inputs = [
            {"path": p, "fingerprint": survey.stats.fingerprint}
            for p, survey in zip(self.paths, surveys, strict=True)
        ]
        state: dict[str, Any] = {"target_sum": target} | ({"log1p": True} if s.log1p else {})
        ours = {
            "state": {"X": state},
            "hvg": note,
            "recipe": {
                "version": _core.__version__,
                "parameters": json.dumps(asdict(s), sort_keys=True),
                "inputs": json.dumps(inputs, sort_keys=True),
            },
        }
        return {"hvg": flavor, "scio": ours} | ({"log1p": {"base": None}} if s.log1p else {})

    def _result(
        self,
        sources: list[Source],
        surveys: list[_Survey],
        genes: NDArray[np.bool_],
        var: Columns,
        chosen: pd.DataFrame,
        stats: GeneStats,
        target: float,
        left_out: list[str],
    ) -> RecipeResult:
        pandas = require("pandas", "scio.pp.recipe")
        frames = []
        for path, source, survey in zip(self.paths, sources, surveys, strict=True):
            frame = pandas.DataFrame(survey.obs, index=pandas.Index(source.obs_names))
            frame["kept"] = survey.cells
            if len(sources) > 1:
                frame["file"] = path
            frames.append(frame)
        table = pandas.DataFrame(var, index=pandas.Index(sources[0].var_names))
        table["kept"] = genes
        for name, values in _hvg_columns(chosen).items():
            table[name] = _spread(values, genes)
        return RecipeResult(
            obs=pandas.concat(frames),
            var=table,
            cells=np.concatenate([survey.cells for survey in surveys]),
            genes=genes,
            highly_variable=_spread(chosen["highly_variable"].to_numpy(), genes),
            target_sum=float(target),
            stats=stats,
            parameters=asdict(self.settings),
            inputs=self.paths,
            outputs=self.outs,
            left_out=left_out,
            n_passes=self.n_passes,
        )


def _hvg_columns(chosen: pd.DataFrame) -> Columns:
    columns = {str(name): chosen[name].to_numpy() for name in chosen.columns}
    if "dispersions_norm" in columns:  # as in var of an AnnData
        columns["dispersions_norm"] = columns["dispersions_norm"].astype(np.float32)
    return columns


def _spread(values: NDArray[Any], genes: NDArray[np.bool_]) -> NDArray[Any]:
    """Values of the genes kept among all genes."""
    out = np.full(len(genes), np.nan if values.dtype.kind == "f" else 0, dtype=values.dtype)
    out[genes] = values
    return out


def _check_same_genes(sources: list[Source]) -> None:
    first = sources[0]
    for other in sources[1:]:
        if np.array_equal(first.var_names, other.var_names):
            continue
        found = f"{other.n_vars:,} genes, not {first.n_vars:,}"
        if other.n_vars == first.n_vars:
            at = int(np.flatnonzero(first.var_names != other.var_names)[0])
            found = f"gene {at} is {other.var_names[at]!r}, not {first.var_names[at]!r}"
        message = f"{other.name} and {first.name} have other genes: {found}"
        raise ValueError(message)
