"""One pass over a matrix, from which quality control and every gene selection are answered."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scio import _core
from scio._progress import Progress
from scio._storage.atomic import atomic_path
from scio.errors import IOFormatError, ScioWarning
from scio.pp._groups import (
    EXACT,
    INEXACT,
    MOMENTS,
    Floats,
    Ints,
    add_exact,
    column,
    ddof1,
    join,
    merge,
)
from scio.pp._source import Block, Source, open_source

MAX_VALUE_NBYTES = 256 << 20
_FORMAT = 1


@dataclass(frozen=True, eq=False, repr=False)
class GeneStats:
    """Statistics per gene and batch, and per cell, of one matrix; made by `gene_stats`.

    Every table per gene has the shape (n_batches, n_vars), one row per entry of `batches`.

    Attributes
    ----------
    n_obs, n_vars : int
        Cells and genes.
    var_names : ndarray, shape (n_vars,), objects of str
    batches : list of str, or [None]
        Categories that have cells; ``[None]`` without batches.
    n_cells : ndarray, shape (n_batches,), int64
        Cells of each batch.
    totals : ndarray, shape (n_obs,), float64
        Sum of each cell, exact for integers.
    n_genes : ndarray, shape (n_obs,), int64
        Values of each cell that are not 0.
    batch_codes : ndarray, shape (n_obs,), int32
        Position of each cell's batch in `batches`.
    target_sum : float or None
        What `log_mean` and `log_m2` were scaled to.
    scaled_mean, scaled_m2 : ndarray or None
        Mean, and sum of squares about it, of x / total of the cell.
    log_mean, log_m2 : ndarray or None
        The same of log1p(x * target_sum / total), as `normalize_total` and `log1p` give it in float32.
    fingerprint : dict
        What tells the matrix from another one.
    name : str
        Where it came from.
    """

    var_names: NDArray[Any]
    batches: list[str] | list[None]
    n_cells: Ints
    totals: Floats
    n_genes: Ints
    batch_codes: NDArray[np.int32]
    fingerprint: dict[str, Any]
    name: str
    target_sum: float | None
    factor: float | None  # of expm1; None: values as they are
    facts: dict[str, Any]
    tables: dict[str, NDArray[Any] | None]
    values: tuple[Ints, NDArray[np.uint64], Ints] | None
    _cache: dict[str, Any] = field(default_factory=dict)

    # --- shapes

    @property
    def n_obs(self) -> int:
        """Cells."""
        return len(self.totals)

    @property
    def n_vars(self) -> int:
        """Genes."""
        return len(self.var_names)

    @property
    def _shape(self) -> tuple[int, int]:
        return (len(self.n_cells), self.n_vars)

    def _table(self, key: str) -> NDArray[Any]:
        table = self.tables[key]
        if table is not None:
            return table
        return np.zeros(self._shape, dtype=np.float64 if key in ("mean", "m2", "sum") else np.int64)

    @property
    def is_exact(self) -> bool:
        """Whether all values are integers that are not negative."""
        return self.tables["mean"] is None

    # --- tables per batch and gene

    @property
    def n_positive(self) -> Ints:
        """Cells with x > 0, int64."""
        out: Ints = self._table("exact_n_positive") + self._table("n_positive")
        return out

    @property
    def n_nonzero(self) -> Ints:
        """Cells with x ≠ 0, int64."""
        out: Ints = self._table("exact_n_positive") + self._table("n_nonzero")
        return out

    @property
    def maximum(self) -> Floats:
        """Greatest value, zeros that are not stored included, float64."""
        exact: Floats = self._table("exact_maximum")
        if self.is_exact:
            return exact
        has_zeros = self.n_nonzero < self.n_cells[:, None]
        has_values = self._table("n_nonzero") > 0
        most = np.where(has_values, self._table("maximum"), -np.inf)
        most = np.where(has_zeros, np.maximum(most, 0), most)
        has_exact = self._table("exact_n_positive") > 0
        out: Floats = np.where(has_exact, np.maximum(most, exact), most)
        return out

    @property
    def is_integer(self) -> NDArray[np.bool_]:
        """Whether all values of the gene are integers."""
        out: NDArray[np.bool_] = self._table("is_fractional") == 0
        return out

    def sums(self) -> Floats:
        """Return the sum of each gene, exact for integers, float64."""
        out: Floats = self._exact_moments()[0] + self._table("sum")
        return out

    def means(self, *, pooled: bool = False) -> Floats:
        """Return the mean of each gene, of expm1(x * factor) when that was asked for.

        Parameters
        ----------
        pooled : bool
            Over all cells, shape (n_vars,), instead of per batch.
        """
        return self._spread(pooled=pooled)[0]

    def variances(self, *, pooled: bool = False) -> Floats:
        """Return the variance (ddof 1) of each gene, 0 where there is one cell.

        Parameters
        ----------
        pooled : bool
            Over all cells, shape (n_vars,), instead of per batch.

        Notes
        -----
        Integers: (n Σx² - (Σx)²) / (n (n - 1)) in integers, rounded once.  Others: per 4,096 rows
        about a pivot, joined by Chan's formula in the order of rows.
        """
        return self._spread(pooled=pooled)[1]

    @property
    def scaled_mean(self) -> Floats | None:
        """Mean of x / total of the cell; None when it was not asked for."""
        return self.tables["scaled_mean"]

    @property
    def scaled_m2(self) -> Floats | None:
        """Sum of squares of x / total of the cell about its mean."""
        return self.tables["scaled_m2"]

    @property
    def log_mean(self) -> Floats | None:
        """Mean of log1p(x * target_sum / total); None without a target."""
        return self.tables["log_mean"]

    @property
    def log_m2(self) -> Floats | None:
        """Sum of squares of log1p(x * target_sum / total) about its mean."""
        return self.tables["log_m2"]

    def value_counts(self, i_batch: int = 0) -> tuple[Ints, Ints, Ints] | None:
        """Return how often each non-zero value occurs in a batch.

        Returns
        -------
        indptr : ndarray, shape (n_vars + 1,), int64
            Gene g has the entries ``indptr[g]:indptr[g + 1]``.
        values, counts : ndarray, int64
            Values ascending, and in how many cells.
        None
            If the values are no counts, or so many different ones that their table exceeds 256 MiB.
        """
        if self.values is None:
            return None
        indptr, values, counts = self.values
        first = i_batch * self.n_vars
        part = indptr[first : first + self.n_vars + 1]
        start, stop = int(part[0]), int(part[-1])
        return part - start, values[start:stop].astype(np.int64), counts[start:stop]

    # --- moments

    def _exact_moments(self) -> Floats:
        """(4, n_batches, n_vars): sum, mean, m2, variance of the cells of counts."""
        if "exact" not in self._cache:
            self._cache["exact"] = _core.exact_moments(
                self._table("n_exact"), self._table("exact_sums"), self._table("exact_squares")
            )
        out: Floats = self._cache["exact"]
        return out

    def _spread(self, *, pooled: bool) -> tuple[Floats, Floats]:
        key = "pooled" if pooled else "batches"
        if key not in self._cache:
            self._cache[key] = self._pooled() if pooled else self._per_batch()
        mean, variance = self._cache[key]
        return mean, variance

    def _per_batch(self) -> tuple[Floats, Floats]:
        _, mean, m2, variance = self._exact_moments()
        if self.is_exact:
            return mean, variance
        n, mean, m2 = join(
            (column(self._table("n_exact")), mean, m2),
            (column(self._table("n_inexact")), self._table("mean"), self._table("m2")),
        )
        return mean, ddof1(n, m2)

    def _pooled(self) -> tuple[Floats, Floats]:
        n_exact = self._table("n_exact").sum(keepdims=True)
        sums = add_exact(self._table("exact_sums"))
        squares = add_exact(self._table("exact_squares"))
        _, mean, m2, variance = _core.exact_moments(n_exact, sums, squares)
        if self.is_exact:
            return mean[0], variance[0]
        group = (np.float64(n_exact[0]), mean[0], m2[0])
        inexact = zip(self._table("n_inexact"), self._table("mean"), self._table("m2"), strict=True)
        for n_rows, batch_mean, batch_m2 in inexact:
            group = join(group, (np.float64(n_rows), batch_mean, batch_m2))
        return group[1], ddof1(group[0], group[2])

    # --- what functions that need counts ask

    def check_counts(self, function: str) -> None:
        """Refuse negative values and warn of values that are no integers.

        Raises
        ------
        ValueError
            If a value is negative; names matrix, cell and gene.

        Warns
        -----
        ScioWarning
            If values are no integers; names matrix, maximum, their share and the first one.
        """
        if self.facts["n_negative"]:
            message = f"{function} needs counts, but {self._example('negative')}"
            raise ValueError(message)
        if self.facts["n_fractional"]:
            share = self.facts["n_fractional"] / max(1, self.facts["n_nonzero"])
            most = float(self.maximum.max(initial=0))
            text = (
                f"{function} expects counts, but {share:.1%} of the values of {self.name} are no "
                f"integers (maximum {most:.6g}): {self._example('fractional')}"
            )
            warnings.warn(ScioWarning(text), stacklevel=3)

    def _example(self, kind: str) -> str:
        row, gene, value = self.facts[kind]
        return f"{self.name} has {value:.6g} in cell {row}, gene {str(self.var_names[gene])!r} ({gene})"

    def __repr__(self) -> str:
        batches = "" if self.batches == [None] else f", {len(self.batches)} batches"
        kind = "counts" if self.is_exact else "values that are no counts"
        return f"<GeneStats of {self.name}: {self.n_obs:,} x {self.n_vars:,}{batches}, {kind}>"

    # --- storage

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write everything to a ``.npz`` file, which holds arrays and JSON only.

        Raises
        ------
        TargetExistsError
            If `path` exists and `overwrite` is False.
        IOWriteError
            If writing fails; an old file is unchanged.
        """
        arrays = {f"table.{k}": v for k, v in self.tables.items() if v is not None}
        if self.values is not None:
            names = ("indptr", "values", "counts")
            arrays |= {f"values.{n}": a for n, a in zip(names, self.values, strict=True)}
        arrays |= {
            "n_cells": self.n_cells,
            "totals": self.totals,
            "n_genes": self.n_genes,
            "batch_codes": self.batch_codes,
        }
        about = {
            "format": _FORMAT,
            "var_names": [str(n) for n in self.var_names],
            "batches": self.batches,
            "fingerprint": self.fingerprint,
            "name": self.name,
            "target_sum": self.target_sum,
            "factor": self.factor,
            "facts": self.facts,
        }
        text = np.frombuffer(json.dumps(about).encode(), dtype=np.uint8)
        with atomic_path(path, overwrite=overwrite) as target, target.open("wb") as file:
            np.savez(file, about=text, **arrays)  # type: ignore[arg-type]  # names are given

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> GeneStats:
        """Read what `save` wrote.

        Raises
        ------
        IOFormatError
            If it is another file.
        """
        try:
            with np.load(Path(path), allow_pickle=False) as file:
                arrays = {key: file[key] for key in file.files}
            about = json.loads(arrays.pop("about").tobytes())
            if about["format"] != _FORMAT:
                message = f"{path} has format {about['format']!r}, this scio reads {_FORMAT}"
                raise IOFormatError(message)
            return _from_parts(about, arrays)
        except (KeyError, ValueError, EOFError) as error:
            if isinstance(error, IOFormatError):
                raise
            message = f"{path} holds no gene statistics of scio: {error}"
            raise IOFormatError(message) from error

    @staticmethod
    def merge(parts: Iterable[GeneStats]) -> GeneStats:
        """Return the statistics of several matrices of the same genes, one below the other.

        Batches of one name become one.  Integers are added exactly; doubles are joined in the order
        of `parts`.

        Raises
        ------
        ValueError
            If there are none, or their genes, transforms or targets differ.
        """
        given = list(parts)
        if not given:
            message = "there is nothing to merge"
            raise ValueError(message)
        merged = given[0]
        for other in given[1:]:
            merged = merge(merged, other)
        return merged


def gene_stats(
    source: Any,
    *,
    layer: str | None = None,
    use_raw: bool = False,
    batch_key: str | Sequence[Any] | NDArray[Any] | None = None,
    target_sum: float | None = None,
    scaled: bool = True,
    expm1: float | None = None,
    threads: int = -1,
    progress: bool = True,
) -> GeneStats:
    """Read a matrix once and keep what quality control and gene selections ask for.

    Parameters
    ----------
    source : AnnData, CSR, SciPy sparse matrix, ndarray, path or handle, shape (n_cells, n_genes)
        A file is streamed in windows of bounded size.
    layer : str, optional
        The layer instead of X.
    use_raw : bool
        ``raw.X`` instead of X.
    batch_key : str or array-like, shape (n_cells,), optional
        Column of obs (or the labels) by whose categories genes are counted apart.
    target_sum : float, optional
        Also the moments of log1p(x * target_sum / total of the cell).
    scaled : bool
        Also the moments of x / total of the cell, which the flavour "seurat" needs on counts.
    expm1 : float, optional
        Mean and variance of expm1(x * expm1) instead of those of x: for logged data, with the
        natural logarithm of the base.
    threads : int
        -1: all; 0: in the caller.
    progress : bool
        A bar while a file is read (tqdm, on a terminal).

    Returns
    -------
    GeneStats

    Raises
    ------
    ValueError
        If a value is NaN or infinite (names matrix, cell and gene), a label is missing, or
        `target_sum` is not above 0.
    KeyNotFoundError
        If there is no such layer or column.

    Notes
    -----
    Cells whose values all are integers below 2^48 and not negative are counted exactly; results do
    not depend on threads, windows, storage or dtype.  Other cells are summed in double per block of
    4,096 rows and batch, and blocks join in order.

    **Source**: mean and variance by exact integers or by pivots joined with the formula of Chan, Golub
    and LeVeque (doi:10.1080/00031305.1983.10483115); checked against the means and variances that
    Seurat 4.3.0 stores.

    Examples
    --------
    >>> import scio
    >>> stats = scio.pp.gene_stats(scio.datasets.pbmc3k())
    >>> stats
    <GeneStats of pbmc3k.h5ad: X: 2,700 x 32,738, counts>
    >>> int(stats.totals.sum()), int(stats.maximum.max())
    (6390631, 419)
    """
    given = open_source(source, layer=layer, use_raw=use_raw)
    feed = Feed.of(
        given,
        batch_key=batch_key,
        target_sum=target_sum,
        scaled=scaled,
        expm1=expm1,
        threads=threads,
    )
    feed.run(is_shown=progress)
    return feed.result()


class Feed:
    """Statistics in the making: blocks are added in order, then `result` is called.

    Parameters
    ----------
    source : Source
    core : _core.GeneStats
    threads : int
    codes : ndarray, shape (n_obs,), int32, optional
        Batch of every cell.
    batches : list of str, or [None]
        Their names.
    target_sum, factor : float, optional
        What `core` was made with.
    """

    def __init__(
        self,
        source: Source,
        core: _core.GeneStats,
        *,
        threads: int,
        codes: NDArray[np.int32] | None = None,
        batches: list[str] | list[None] | None = None,
        target_sum: float | None = None,
        factor: float | None = None,
    ) -> None:
        self.source, self.core, self._threads = source, core, threads
        self._codes = np.zeros(source.n_obs, dtype=np.int32) if codes is None else codes
        self._batches = [None] if batches is None else batches
        self._target_sum, self._factor = target_sum, factor
        self._parts: list[tuple[Floats, Ints, Floats | None, Floats | None]] = []

    @classmethod
    def of(
        cls,
        source: Source,
        *,
        batch_key: str | Sequence[Any] | NDArray[Any] | None = None,
        target_sum: float | None = None,
        scaled: bool = True,
        expm1: float | None = None,
        threads: int = -1,
    ) -> Feed:
        """Begin what `gene_stats` computes."""
        _check_numbers(target_sum, expm1)
        codes, batches = _batches(source, batch_key)
        core = _core.GeneStats(
            source.n_vars,
            max(1, len(batches)),
            scaled=scaled and expm1 is None,
            target_sum=0.0 if target_sum is None else float(target_sum),
            transform="none" if expm1 is None else "expm1",
            factor=1.0 if expm1 is None else float(expm1),
            max_value_nbytes=MAX_VALUE_NBYTES,
        )
        return cls(
            source,
            core,
            threads=threads,
            codes=codes,
            batches=batches,
            target_sum=None if target_sum is None else float(target_sum),
            factor=None if expm1 is None else float(expm1),
        )

    def add(self, block: Block) -> None:
        """Add the next rows; their arrays need not have been checked."""
        batches = None
        if len(self._batches) > 1:
            batches = self._codes[block.start : block.stop]
        self._parts.append(
            self.core.add(
                block.data, block.indices, block.indptr, batches=batches, threads=self._threads
            )
        )

    def run(self, *, is_shown: bool) -> None:
        """Add all rows of the source."""
        source = self.source
        with Progress(
            source.n_obs, unit="cells", what="statistics", is_shown=is_shown and source.is_file
        ) as bar:
            for block in source.blocks(check=False):
                self.add(block)
                bar.update(block.n_rows)

    def narrow(self, source: Source, cells: NDArray[np.bool_]) -> None:
        """Say that only these cells of the first source came, which are `source`."""
        self.source, self._codes = source, self._codes[cells]

    def cells(self) -> tuple[Floats, Ints, Floats | None, Floats | None]:
        """Return totals, detected genes, sums of top genes and of gene sets of every cell.

        Raises
        ------
        ValueError
            If a value is NaN or infinite.
        """
        first = self.core.facts()["not_finite"]
        if first is not None:
            row, gene, value = first
            message = (
                f"{self.source.name} holds {value} in cell {str(self.source.obs_names[row])!r} "
                f"({row}), gene {str(self.source.var_names[gene])!r} ({gene}); expected finite numbers"
            )
            raise ValueError(message)
        if not self._parts:
            empty, no_rows = np.zeros(1, dtype=np.int64), np.zeros(0, dtype=np.int32)
            self._parts = [self.core.add(np.zeros(0, dtype=np.float32), no_rows, empty)]
        if len(self._parts) > 1:
            totals, n_genes, tops, flags = zip(*self._parts, strict=True)
            self._parts = [
                (
                    np.concatenate(totals),
                    np.concatenate(n_genes),
                    None if tops[0] is None else np.concatenate(tops),
                    None if flags[0] is None else np.concatenate(flags),
                )
            ]
        return self._parts[0]

    def result(self, *, with_values: bool = True) -> GeneStats:
        """Return the statistics; without `with_values`, no table of how often values occur.

        Raises
        ------
        ValueError
            If a value is NaN or infinite.
        """
        totals, n_genes, _, _ = self.cells()
        return GeneStats(
            var_names=self.source.var_names,
            batches=self._batches,
            n_cells=np.bincount(self._codes, minlength=len(self._batches)).astype(np.int64),
            totals=totals,
            n_genes=n_genes,
            batch_codes=self._codes,
            fingerprint=self.source.fingerprint(),
            name=self.source.name,
            target_sum=self._target_sum,
            factor=self._factor,
            facts=self.core.facts(),
            tables=self.core.result(),
            values=self.core.values() if with_values else None,
        )


def _check_numbers(target_sum: float | None, expm1: float | None) -> None:
    for name, value in (("target_sum", target_sum), ("expm1", expm1)):
        if value is not None and not (value > 0 and np.isfinite(value)):
            message = f"{name} is a number above 0 or None, not {value!r}"
            raise ValueError(message)
    if target_sum is not None and expm1 is not None:
        message = "target_sum is for counts, expm1 for logged data: give one of them"
        raise ValueError(message)


def _batches(
    source: Source, batch_key: str | Sequence[Any] | NDArray[Any] | None
) -> tuple[NDArray[np.int32], list[str] | list[None]]:
    """Codes into the categories that have cells, and these."""
    if batch_key is None:
        return np.zeros(source.n_obs, dtype=np.int32), [None]
    codes, categories = source.batches(batch_key)
    n_cells = np.bincount(codes, minlength=len(categories))
    place = np.cumsum(n_cells > 0, dtype=np.int32) - np.int32(1)
    kept = [c for c, n in zip(categories, n_cells, strict=True) if n]
    return np.ascontiguousarray(place[codes], dtype=np.int32), kept


# --- loading


def _from_parts(about: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> GeneStats:
    keys = ["n_exact", "n_inexact", *EXACT, *INEXACT, *(k for pair in MOMENTS for k in pair)]
    tables = {key: arrays.get(f"table.{key}") for key in keys}
    needed = ("n_exact", "n_inexact", *EXACT)
    missing = [key for key in needed if tables[key] is None]
    if missing:
        message = f"it lacks {', '.join(missing)}"
        raise ValueError(message)
    names = [f"values.{n}" for n in ("indptr", "values", "counts")]
    values = (arrays[names[0]], arrays[names[1]], arrays[names[2]]) if names[0] in arrays else None
    facts = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in about["facts"].items()
    }
    return GeneStats(
        var_names=np.array(about["var_names"], dtype=object),
        batches=about["batches"],
        n_cells=arrays["n_cells"],
        totals=arrays["totals"],
        n_genes=arrays["n_genes"],
        batch_codes=arrays["batch_codes"],
        fingerprint=about["fingerprint"],
        name=about["name"],
        target_sum=about["target_sum"],
        factor=about["factor"],
        facts=facts,
        tables=tables,
        values=values,
    )
