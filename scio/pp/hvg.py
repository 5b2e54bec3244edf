"""Selection of highly variable genes: the public function, its input and its output."""

from __future__ import annotations

import math
import operator
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from scio import _core
from scio._names import near_names
from scio._optional import require
from scio.errors import ScioWarning
from scio.pp import _flavors as flavors
from scio.pp._anndata import get_state, make_actual, put_columns
from scio.pp._source import Source, is_anndata, open_source
from scio.pp.residuals import canonical_blocks, check_residual_arguments

if TYPE_CHECKING:
    import pandas as pd

    from scio.pp.stats import GeneStats

__all__ = ["highly_variable_genes"]

_ALIASES = {"poisson": "poisson_gene_selection"}
_BY_DISPERSION = ("seurat", "cell_ranger")
_ON_COUNTS = ("seurat_v3", "seurat_v3_paper", "pearson_residuals", "poisson_gene_selection")
_FLAVORS = (*_BY_DISPERSION, *_ON_COUNTS, *_ALIASES)
_DEFAULT_K = 2000
_DEFAULT_CUTOFFS = flavors.Cutoffs(0.5, math.inf, 0.0125, 3)
_DEFAULT_BINS = 20
_MIN_CELLS = 2
_TIE_RULE = "equal genes in the order of their index"
_N_NAMED = 5


@dataclass(frozen=True)
class _Asked:
    """The checked arguments."""

    flavor: str
    k: int | None
    cutoffs: flavors.Cutoffs
    span: float
    n_bins: int
    theta: float
    clip: float | None
    check_values: bool
    compat: str | None
    only_expressed: bool | None
    threads: int


@dataclass(frozen=True)
class _Input:
    """Statistics of the batches that count, and where the matrix itself is, if it was given."""

    stats: GeneStats
    source: Source | None
    kept: list[int]  # batches of at least two cells
    is_batched: bool
    threads: int

    @property
    def n_cells(self) -> NDArray[np.int64]:
        return np.asarray(self.stats.n_cells, dtype=np.int64)[self.kept]

    @property
    def labels(self) -> list[str]:
        names = [self.stats.batches[b] for b in self.kept]
        return [f"batch {n!r}" if self.is_batched else "all cells" for n in names]

    @property
    def codes(self) -> NDArray[np.int32]:
        """Number of the batch of every cell among those kept, -1 for a cell of another one."""
        table = np.full(len(self.stats.batches), -1, dtype=np.int32)
        table[self.kept] = np.arange(len(self.kept), dtype=np.int32)
        codes: NDArray[np.int32] = table[self.stats.batch_codes]
        return codes

    def rows(self, table: NDArray[Any]) -> NDArray[Any]:
        """Rows of the batches kept of a (batches x genes) table."""
        return np.asarray(table).reshape(len(self.stats.batches), -1)[self.kept]

    def totals(self) -> list[NDArray[np.float64]]:
        codes = self.codes
        return [self.stats.totals[codes == b] for b in range(len(self.kept))]

    def need_source(self, why: str) -> Source:
        if self.source is None:
            message = (
                f"{why}, which needs the matrix: call highly_variable_genes(matrix, stats=…) with the "
                "matrix that the statistics were made from"
            )
            raise ValueError(message)
        return self.source


def highly_variable_genes(
    source: Any,
    *,
    layer: str | None = None,
    n_top_genes: int | None = None,
    min_disp: float = 0.5,
    max_disp: float = math.inf,
    min_mean: float = 0.0125,
    max_mean: float = 3,
    span: float = 0.3,
    n_bins: int = 20,
    theta: float = 100,
    clip: float | None = None,
    flavor: str = "seurat",
    subset: bool = False,
    inplace: bool = True,
    batch_key: str | None = None,
    check_values: bool = True,
    filter_unexpressed_genes: bool | None = None,
    target_sum: float | None = None,
    stats: GeneStats | None = None,
    compat: Literal["scanpy"] | None = None,
    threads: int = -1,
) -> pd.DataFrame | None:
    """Choose the genes that vary more between cells than their mean lets expect.

    Parameters
    ----------
    source : AnnData, matrix, path, handle or GeneStats, shape (n_cells, n_genes)
        Logged values for the flavours ``seurat`` and ``cell_ranger``, counts for the others.
        Files are streamed.  Statistics made by `gene_stats` answer without reading anything again.
    layer : str, optional
        Layer instead of X.
    n_top_genes : int, optional
        How many genes to choose, exactly; 2,000 for flavours on counts unless given.  None for
        ``seurat`` and ``cell_ranger``: all genes inside the cut-offs.
    min_disp, max_disp, min_mean, max_mean : float
        Cut-offs, exclusive, of normalised dispersion and of the column ``means``; ignored with
        `n_top_genes`.
    span : float in (0, 1]
        Share of the genes in a window of loess (``seurat_v3``).
    n_bins : int
        Bins of ``seurat``; has no meaning for ``cell_ranger``.
    theta : float > 0
        Overdispersion of ``pearson_residuals``; infinity is Poisson.
    clip : float >= 0, optional
        Limit of residuals; the root of the number of cells of the batch unless given.
    flavor : str
        ``seurat``, ``cell_ranger``, ``seurat_v3``, ``seurat_v3_paper``, ``pearson_residuals`` or
        ``poisson_gene_selection`` (``poisson``).
    subset : bool
        Keep only the chosen genes, in the AnnData or in the table returned.
    inplace : bool
        Write columns into ``var`` of an AnnData; False returns them.
    batch_key : str, optional
        Column of obs: genes are ranked in each batch, and the ranks are combined.
    check_values : bool
        Warn of non-integers where counts are needed, and of counts where logs are.
    filter_unexpressed_genes : bool, optional
        Leave genes without any value above 0 out of the bins; None: where there are batches, as
        scanpy does.
    target_sum : float, optional
        For ``seurat`` and ``cell_ranger``: the matrix holds counts, which are normalised to this
        total and logged on the way.
    stats : GeneStats, optional
        Statistics of this very matrix (checked), so that it is read once less.
    compat : "scanpy", optional
        Reproduce scanpy's lists: all genes tied at the cut, ties between batches by name.
    threads : int
        -1: all.  Results do not depend on it.

    Returns
    -------
    None or pandas.DataFrame, one row a gene
        The columns of scanpy, for an AnnData with ``inplace=True`` in ``var``:
        ``means``, ``variances``, ``dispersions``, ``dispersions_norm``, ``variances_norm``,
        ``residual_variances``, ``highly_variable``, ``highly_variable_rank``,
        ``highly_variable_nbatches``, ``highly_variable_intersection``, as far as the flavour has
        them; those of scvi-tools for ``poisson_gene_selection``.
        What was done, and the genes tied with the last one chosen, is in ``uns["scio"]["hvg"]``, and
        in ``attrs["scio"]`` of a table.

    Raises
    ------
    ValueError
        If an argument is out of range, the matrix holds NaN, infinities, only zeros, or negative
        values where counts are needed, or has fewer than 2 cells.
    KeyNotFoundError
        If there is no such layer or column.

    Warns
    -----
    ScioWarning
        If values are not of the kind that the flavour needs, a batch is left out, fewer genes than
        asked for can be ranked, or loess had to deviate from its degree or its windows.

    Notes
    -----
    Equal genes are taken in the order of their index, batches in any order give the same result, and
    neither depends on threads, storage or data type.
    Formulas, sources and tolerances: docs/reference/preprocessing.md.

    Examples
    --------
    >>> import numpy as np
    >>> counts = np.random.default_rng(0).poisson(1.0, (50, 20))
    >>> table = highly_variable_genes(counts, flavor="seurat_v3", n_top_genes=5)
    >>> int(table["highly_variable"].sum())
    5
    """
    asked = _check_arguments(
        flavor,
        n_top_genes,
        flavors.Cutoffs(min_disp, max_disp, min_mean, max_mean),
        span=span,
        n_bins=n_bins,
        theta=theta,
        clip=clip,
        check_values=check_values,
        compat=compat,
        only_expressed=filter_unexpressed_genes,
        threads=threads,
    )
    given, statistics = _split(source, layer, stats, batch_key)
    if asked.flavor in _BY_DISPERSION:
        found, read = _by_dispersion(asked, given, statistics, source, layer, batch_key, target_sum)
    else:
        if target_sum is not None:
            message = f"target_sum has no meaning for flavor {asked.flavor!r}"
            raise ValueError(message)
        found, read = _on_counts(asked, given, statistics, source, batch_key)
    if not read.is_batched:
        for name in ("highly_variable_nbatches", "highly_variable_intersection"):
            found.columns.pop(name, None)
    if compat == "scanpy" and len(found.near_ties):
        message = (
            f"{len(found.near_ties)} genes beyond the cut differ from the last one chosen by less "
            f"than 1e-6 relative ({_name_some(read.stats.var_names, found.near_ties)}); scanpy may "
            "take them instead"
        )
        warnings.warn(ScioWarning(message), stacklevel=2)
    note = _note(asked, found, read, layer, batch_key, target_sum)
    if inplace and is_anndata(source):
        _write(source, found, asked.flavor, note, layer, subset=subset)
        return None
    return _frame(found, read.stats.var_names, note, subset=subset)


# --- arguments


def check_flavor(flavor: str, n_top_genes: int | None) -> None:
    """Raise what `highly_variable_genes` raises for these two, before anything is read."""
    _check_arguments(
        flavor,
        n_top_genes,
        _DEFAULT_CUTOFFS,
        span=0.3,
        n_bins=_DEFAULT_BINS,
        theta=100,
        clip=None,
        check_values=True,
        compat=None,
        only_expressed=None,
        threads=-1,
    )


def _check_arguments(flavor: str, k: int | None, cutoffs: flavors.Cutoffs, **others: Any) -> _Asked:
    if flavor not in _FLAVORS:
        message = f"flavor is {flavor!r}; {near_names(str(flavor), _FLAVORS)}"
        raise ValueError(message)
    flavor = _ALIASES.get(flavor, flavor)
    if k is not None:
        k = _whole("n_top_genes", k)
    elif flavor in _ON_COUNTS:
        k = _DEFAULT_K
    if not 0 < others["span"] <= 1:
        message = f"span is {others['span']!r}, expected a number in (0, 1]"
        raise ValueError(message)
    n_bins = _whole("n_bins", others["n_bins"])
    check_residual_arguments(others["theta"], others["clip"])
    if others["compat"] not in (None, "scanpy"):
        message = f"compat is {others['compat']!r}, expected None or 'scanpy'"
        raise ValueError(message)
    if k is not None and flavor in _BY_DISPERSION and cutoffs != _DEFAULT_CUTOFFS:
        _warn("n_top_genes is given, so min_disp, max_disp, min_mean and max_mean are ignored")
    if flavor == "cell_ranger" and n_bins != _DEFAULT_BINS:
        _warn("flavor 'cell_ranger' bins by percentiles; n_bins has no meaning for it")
    return _Asked(flavor, k, cutoffs, **(others | {"n_bins": n_bins}))


def _whole(name: str, value: Any) -> int:
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        value = int(value)
    try:
        number = operator.index(value)
    except TypeError:
        message = f"{name} is {value!r}, expected an int"
        raise TypeError(message) from None
    if isinstance(value, (bool, np.bool_)):
        message = f"{name} is {value!r}, expected an int"
        raise TypeError(message)
    if number < 1:
        message = f"{name} is {number}, expected 1 or more"
        raise ValueError(message)
    return number


def _warn(message: str, stacklevel: int = 4) -> None:
    warnings.warn(ScioWarning(message), stacklevel=stacklevel)


# --- input


def _split(
    source: Any, layer: str | None, stats: GeneStats | None, batch_key: str | None
) -> tuple[Source | None, GeneStats | None]:
    """The matrix and the statistics, as far as they were given."""
    from scio.pp.stats import GeneStats

    if isinstance(source, GeneStats):
        if layer is not None or stats is not None or batch_key is not None:
            message = (
                "layer, stats and batch_key have no meaning for a GeneStats, whose batches are those "
                "it was made with"
            )
            raise ValueError(message)
        return None, source
    given = open_source(source, layer=layer)
    if stats is not None:
        given.check_fingerprint(stats.fingerprint, "stats")
        if (batch_key is not None) != _has_batches(stats):
            message = f"batch_key is {batch_key!r}, but stats were made for {stats.batches!r}"
            raise ValueError(message)
    return given, stats


def _has_batches(stats: GeneStats) -> bool:
    return list(stats.batches) != [None]


def _input(stats: GeneStats, source: Source | None, threads: int) -> _Input:
    """Leave small batches out; errors for what has nothing to choose from."""
    place = stats.name
    is_batched = _has_batches(stats)
    n_cells = np.asarray(stats.n_cells)
    kept = [b for b in range(len(stats.batches)) if n_cells[b] >= _MIN_CELLS]
    if not kept:
        what = "no batch of at least 2 cells" if is_batched else f"{int(n_cells.sum())} cells"
        message = f"{place}: {what}; a variance needs 2"
        raise ValueError(message)
    small = [repr(stats.batches[b]) for b in range(len(stats.batches)) if b not in kept]
    if small:
        shown = ", ".join(small[:_N_NAMED]) + (" …" if len(small) > _N_NAMED else "")
        _warn(f"{place}: {len(small)} batches of one cell were left out: {shown}", 6)
    if stats.n_vars and not np.any(stats.n_nonzero):
        message = f"{place}: all {stats.n_obs:,} x {stats.n_vars:,} values are 0"
        raise ValueError(message)
    return _Input(stats, source, kept, is_batched, threads)


def _check_counts(read: _Input, asked: _Asked, adata: Any) -> None:
    """Negative values are an error where counts are needed, non-integers a warning."""
    facts = read.stats.facts
    if not (facts["n_negative"] or (facts["n_fractional"] and asked.check_values)):
        return
    try:
        read.stats.check_counts(f"flavor {asked.flavor!r}")
    except ValueError as error:
        if is_anndata(adata):
            error.add_note(_other_layers(adata))
        raise


def _other_layers(adata: Any) -> str:
    where = [f"layers[{name!r}]" for name in adata.layers]
    where += ["raw"] if getattr(adata, "raw", None) is not None else []
    return f"other matrices of this AnnData: {', '.join(where) or 'none'}"


def _name_some(names: NDArray[Any], genes: NDArray[np.int64]) -> str:
    shown = ", ".join(repr(str(names[g])) for g in genes[:_N_NAMED])
    return shown + (" …" if len(genes) > _N_NAMED else "")


# --- flavours on counts


def _on_counts(
    asked: _Asked,
    given: Source | None,
    stats: GeneStats | None,
    adata: Any,
    batch_key: str | None,
) -> tuple[flavors.Table, _Input]:
    from scio.pp.stats import gene_stats

    if stats is None:
        stats = gene_stats(given, batch_key=batch_key, scaled=False, threads=asked.threads)
    read = _input(stats, given, asked.threads)
    _check_counts(read, asked, adata)
    k = _DEFAULT_K if asked.k is None else asked.k
    if asked.flavor == "poisson_gene_selection":
        n_cells = read.n_cells[:, None]
        absent = (n_cells - read.rows(stats.n_nonzero)) / n_cells
        sums = read.rows(stats.sums())
        return flavors.by_poisson(absent, sums, read.totals(), k, threads=asked.threads), read
    columns = {"means": stats.means(pooled=True), "variances": stats.variances(pooled=True)}
    if asked.flavor == "pearson_residuals":
        scores = _residual_variances(read, asked.theta, asked.clip)
        columns["residual_variances"] = flavors.mean_over_batches(scores)
        table = flavors.by_ranks(scores, k, median_first=False, columns=columns)
        return table, read
    scores, diagnostics = _standardised_variances(read, asked.span)
    table = flavors.by_ranks(scores, k, median_first=asked.flavor == "seurat_v3", columns=columns)
    table.columns["variances_norm"] = flavors.mean_over_batches(scores)
    table.columns.pop("highly_variable_intersection")
    table.diagnostics = diagnostics
    return table, read


def _standardised_variances(
    read: _Input, span: float
) -> tuple[NDArray[np.float64], list[dict[str, Any]]]:
    """Norms of seurat_v3, shape (n_batches, n_genes)."""
    stats = read.stats
    means, variances = read.rows(stats.means()), read.rows(stats.variances())
    n_cells = read.n_cells
    trends = [
        flavors.fit_trend(means[b], variances[b], int(n_cells[b]), span, label)
        for b, label in enumerate(read.labels)
    ]
    n_zeros = n_cells[:, None] - read.rows(stats.n_nonzero)
    counts = [stats.value_counts(b) for b in read.kept]
    if any(c is None for c in counts):
        clips = np.stack([t.clips for t in trends])
        squares = n_zeros * means**2 + _clipped_squares(read, means, clips)
    else:
        squares = np.stack(
            [
                flavors.counted_squares(c, means[b], trends[b].clips, n_zeros[b])
                for b, c in enumerate(counts)
                if c is not None
            ]
        )
    maxima = read.rows(stats.maximum)
    norms = [
        flavors.standardised_variances(squares[b], variances[b], maxima[b], t, int(n_cells[b]))
        for b, t in enumerate(trends)
    ]
    return np.stack(norms), [t.diagnostics for t in trends]


def _clipped_squares(
    read: _Input, means: NDArray[np.float64], clips: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The same sums by a second pass, for values that were not counted."""
    source = read.need_source("values that are no small counts are clipped in a second pass")
    sums = np.zeros(means.shape)
    finite = np.ascontiguousarray(np.where(np.isnan(clips), np.inf, clips))
    codes = read.codes
    for block in canonical_blocks(source):
        _core.clipped_sums(
            block.data,
            block.indices,
            block.indptr,
            codes[block.start : block.stop],
            np.ascontiguousarray(means),
            finite,
            sums,
            shape=(block.n_rows, source.n_vars),
            threads=read.threads,
        )
    return sums


def _residual_variances(read: _Input, theta: float, clip: float | None) -> NDArray[np.float64]:
    """Variances of Pearson residuals, shape (n_batches, n_genes)."""
    source = read.need_source("Pearson residuals are taken of every value")
    stats = read.stats
    model = flavors.PearsonModel.of(
        read.rows(stats.sums()), read.totals(), theta=theta, clip=clip, threads=read.threads
    )
    codes = read.codes
    for block in canonical_blocks(source):
        rows = slice(block.start, block.stop)
        _core.residual_corrections(
            block.data,
            block.indices,
            block.indptr,
            np.ascontiguousarray(stats.totals[rows]),
            codes[rows],
            model.fractions,
            model.shifts,
            model.clips,
            model.sums,
            shape=(block.n_rows, source.n_vars),
            inverse_theta=model.inverse_theta,
            threads=read.threads,
        )
    return model.variances(read.n_cells)


# --- flavours on logged values


def _by_dispersion(
    asked: _Asked,
    given: Source | None,
    stats: GeneStats | None,
    adata: Any,
    layer: str | None,
    batch_key: str | None,
    target_sum: float | None,
) -> tuple[flavors.Table, _Input]:
    if target_sum is not None and not 0 < target_sum < math.inf:
        message = f"target_sum is {target_sum!r}, expected a number above 0"
        raise ValueError(message)
    flavor: Literal["seurat", "cell_ranger"] = (
        "seurat" if asked.flavor == "seurat" else "cell_ranger"
    )
    if target_sum is not None or (stats is not None and stats.target_sum is not None):
        read, means, variances = _moments_of_counts(
            asked, given, stats, adata, batch_key, target_sum
        )
    else:
        read, means, variances = _moments_of_logs(asked, given, stats, adata, layer, batch_key)
    moments = flavors.Moments(means, variances, read.rows(read.stats.n_positive) > 0)
    table = flavors.by_dispersion(
        moments,
        flavor=flavor,
        n_top_genes=asked.k,
        cutoffs=asked.cutoffs,
        n_bins=asked.n_bins,
        only_expressed=(read.is_batched if asked.only_expressed is None else asked.only_expressed),
        is_batched=read.is_batched,
        compat=asked.compat,
        names=read.stats.var_names,
    )
    return table, read


def _moments_of_counts(
    asked: _Asked,
    given: Source | None,
    stats: GeneStats | None,
    adata: Any,
    batch_key: str | None,
    target_sum: float | None,
) -> tuple[_Input, NDArray[np.float64], NDArray[np.float64]]:
    """Moments of counts normalised to a target; logged ones for cell_ranger."""
    from scio.pp.stats import gene_stats

    if stats is None:
        stats = gene_stats(given, batch_key=batch_key, target_sum=target_sum, threads=asked.threads)
    target = stats.target_sum if target_sum is None else target_sum
    if target != stats.target_sum and asked.flavor == "cell_ranger":
        message = (
            f"target_sum is {target_sum!r}, but the statistics were made for {stats.target_sum!r}, "
            "and flavor 'cell_ranger' cannot change that"
        )
        raise ValueError(message)
    read = _input(stats, given, asked.threads)
    _check_counts(read, asked, adata)
    is_logged = asked.flavor == "cell_ranger"
    means = stats.log_mean if is_logged else stats.scaled_mean
    squares = stats.log_m2 if is_logged else stats.scaled_m2
    if means is None or squares is None or target is None:
        message = f"{stats.name}: the statistics were made with scaled=False or without target_sum"
        raise ValueError(message)
    scale = 1.0 if is_logged else float(target)
    free = (read.n_cells - 1)[:, None]
    return read, read.rows(means) * scale, read.rows(squares) * scale**2 / free


def _moments_of_logs(
    asked: _Asked,
    given: Source | None,
    stats: GeneStats | None,
    adata: Any,
    layer: str | None,
    batch_key: str | None,
) -> tuple[_Input, NDArray[np.float64], NDArray[np.float64]]:
    """Moments of logged values as they are, or with the logarithm undone."""
    from scio.pp import stats as module

    if asked.flavor == "cell_ranger":
        if stats is None:
            stats = module.gene_stats(
                given, batch_key=batch_key, scaled=False, threads=asked.threads
            )
    elif given is None or stats is not None:
        message = (
            "flavor 'seurat' cannot undo the logarithm in statistics: make them of counts, with "
            "gene_stats(…, target_sum=1e4), or pass the matrix without stats"
        )
        raise ValueError(message)
    else:
        base = log_base(adata, given, layer)
        factor = 1.0 if base is None else float(flavors.elementary("ln", np.array([base]))[0])
        stats = module.gene_stats(given, batch_key=batch_key, threads=asked.threads, expm1=factor)
    read = _input(stats, given, asked.threads)
    with np.errstate(over="ignore", invalid="ignore"):
        is_finite = np.isfinite(stats.variances()).all() and np.isfinite(stats.means()).all()
    if not is_finite:
        message = (
            f"{stats.name} has values up to {np.max(stats.maximum):.6g}, and expm1 of it overflows; "
            "flavor 'seurat' needs logged values"
        )
        raise ValueError(message)
    if asked.check_values and np.all(stats.is_integer) and np.max(stats.maximum, initial=0) > 0:
        place = stats.name
        _warn(
            f"{place} holds integers up to {np.max(stats.maximum):.6g}, which look like counts; "
            f"flavor {asked.flavor!r} needs logged values: call scio.pp.log1p first, or give "
            "target_sum",
            5,
        )
    return read, read.rows(stats.means()), read.rows(stats.variances())


def log_base(adata: Any, source: Source, layer: str | None) -> float | None:
    """Base of the logarithm that a matrix was taken with, as noted beside it; None: natural."""
    if is_anndata(adata):
        base = get_state(adata, layer=layer).get("base")
    else:
        base = _base_in_file(getattr(getattr(source, "_file", None), "file", None), layer)
    if base is None:
        return None
    if not (math.isfinite(base) and base > 0 and base != 1):
        message = f"{source.name}: the base of its logarithm is noted as {base!r}"
        raise ValueError(message)
    return float(base)


def _base_in_file(file: Any, layer: str | None) -> float | None:
    state = "X" if layer is None else f"layers/{layer}"
    places = [f"/uns/scio/state/{state}/base", *(["/uns/log1p/base"] if layer is None else [])]
    for place in places:
        if file is None or place not in file:
            continue
        if file.scalar_attr(place, "encoding-type") == "null":
            return None
        return float(np.asarray(file.read(place)).reshape(-1)[0])
    return None


# --- output


def _note(
    asked: _Asked,
    found: flavors.Table,
    read: _Input,
    layer: str | None,
    batch_key: str | None,
    target_sum: float | None,
) -> dict[str, Any]:
    """What was done, in values that every version of anndata writes."""
    parameters: dict[str, Any] = {
        "n_top_genes": asked.k,
        "batch_key": batch_key,
        "target_sum": target_sum,
        "compat": asked.compat,
    }
    if asked.flavor in _BY_DISPERSION:
        cutoffs = asked.cutoffs if asked.k is None else None
        parameters |= vars(cutoffs) if cutoffs is not None else {}
        parameters |= {"n_bins": asked.n_bins} if asked.flavor == "seurat" else {}
    elif asked.flavor == "pearson_residuals":
        parameters |= {"theta": float(asked.theta), "clip": asked.clip}
    elif asked.flavor != "poisson_gene_selection":
        parameters |= {"span": float(asked.span)}
    note: dict[str, Any] = {
        "flavor": asked.flavor,
        "layer": "X" if layer is None else layer,
        "parameters": {k: v for k, v in parameters.items() if v is not None},
        "tie_rule": _TIE_RULE,
        "version": _core.__version__,
        "fingerprint": dict(read.stats.fingerprint),
        "tied": np.asarray(found.tied),
    }
    if len(found.near_ties):
        note["near_ties"] = found.near_ties
    if found.diagnostics:
        keys = found.diagnostics[0]
        note["loess"] = {k: np.array([d[k] for d in found.diagnostics]) for k in keys}
    return note


def _ordered(found: flavors.Table) -> dict[str, NDArray[Any]]:
    return {**found.columns, "highly_variable": found.chosen}


def _write(
    adata: Any,
    found: flavors.Table,
    flavor: str,
    note: dict[str, Any],
    layer: str | None,
    *,
    subset: bool,
) -> None:
    make_actual(adata)
    columns = _ordered(found)
    if "dispersions_norm" in columns:
        columns["dispersions_norm"] = columns["dispersions_norm"].astype(np.float32)
    put_columns(adata.var, columns)
    adata.uns["hvg"] = {"flavor": flavor}
    if flavor == "pearson_residuals":
        adata.uns["hvg"]["computed_on"] = layer if layer else "adata.X"
    ours = dict(adata.uns.get("scio", {}))
    ours["hvg"] = note
    adata.uns["scio"] = ours
    if subset:
        adata._inplace_subset_var(found.chosen)


def _frame(
    found: flavors.Table, names: NDArray[Any], note: dict[str, Any], *, subset: bool
) -> pd.DataFrame:
    pandas = require("pandas", "highly_variable_genes with inplace=False")
    frame: pd.DataFrame = pandas.DataFrame(_ordered(found), index=pandas.Index(names))
    frame.attrs["scio"] = _plain(note)
    return frame.loc[found.chosen] if subset else frame


def _plain(value: Any) -> Any:
    """Arrays as lists: pandas compares ``attrs`` with ``==`` whenever it joins frames."""
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    return value.tolist() if isinstance(value, np.ndarray) else value
