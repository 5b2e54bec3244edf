"""The passes of one recipe in their order, and what they come to."""

from __future__ import annotations

import contextlib
import json
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scio import _core
from scio._optional import require
from scio.errors import ScioWarning
from scio.io import AnnDataFile
from scio.io.writer import StorageOptions, published_file
from scio.pp import hvg
from scio.pp._recipe_output import Kept, Output
from scio.pp._recipe_passes import (
    Columns,
    Early,
    Settings,
    Survey,
    Work,
    feed_of,
    flag_of,
    statistics,
    survey_file,
    survey_source,
    window,
)
from scio.pp._source import Source, open_source
from scio.pp._streams import Subset, Watched
from scio.pp.normalize import median_of_totals
from scio.pp.qc import gene_columns
from scio.pp.stats import GeneStats

if TYPE_CHECKING:
    import pandas as pd

Each = Callable[[Callable[..., Any], list[tuple[Any, ...]]], list[Any]]


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


def one_by_one(function: Callable[..., Any], calls: list[tuple[Any, ...]]) -> list[Any]:
    return [function(*call) for call in calls]


class Run:
    """One call of `recipe`."""

    def __init__(
        self,
        paths: Sequence[str | os.PathLike[str]],
        outs: list[str],
        settings: Settings,
        work: Work,
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
        quality.check_counts("a recipe")
        cells = np.concatenate([survey.cells for survey in surveys])
        self._check_left(quality, cells, genes)
        assert stats is None or genes.all()
        target = s.target_sum
        if target is None and genes.all():
            target = median_of_totals(quality.totals[cells], quality.name)
        if stats is None:
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
        flags = {k: flag_of(sources[0], k, v) for k, v in s.qc_vars.items() if v is not None}
        var = {**flags, **var}
        left_out = self._finish(files, sources, surveys, kept, outputs, var, chosen, note, target)
        return self._result(sources, surveys, genes, var, chosen, stats, target, left_out)

    def _first_pass(
        self, files: list[AnnDataFile], sources: list[Source], outputs: list[Output]
    ) -> tuple[list[Survey], GeneStats | None]:
        """Quality control; of one file, also all that can be had if nothing is filtered."""
        s, work = self.settings, self.work
        self.n_passes += 1
        if len(files) > 1 or self.each is not one_by_one:
            calls = [(path, s, work) for path in self.paths]
            return self.each(survey_file, calls), None
        early = self._early(sources[0], outputs)
        survey = survey_source(files[0], sources[0], s, work, early)
        return [survey], None if early is None else early.result(survey.cells)

    def _early(self, source: Source, outputs: list[Output]) -> Early | None:
        """What the first pass may do besides quality control."""
        s = self.settings
        is_known = s.target_sum is not None
        if (s.needs_target and not is_known) or s.min_gene_counts is not None:
            return None
        if s.filters_cells and s.batch_key is not None:
            return None  # batches may lose all cells
        output = outputs[0] if outputs and is_known and not s.subset else None
        return Early(source, feed_of(source, s, s.target_sum, self.work), output, s)

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
        is_local = len(sources) == 1 and self.each is one_by_one
        is_open = bool(outputs) and not outputs[0].is_streamed
        if not (is_local and is_open and target is not None and not s.subset):
            stats = self._merged(kept, target)
            if target is None:
                target = median_of_totals(stats.totals, stats.name)
            return stats, target
        part = self._part(sources[0], kept[0])
        outputs[0].begin(part, target, n_obs=part.n_obs)
        watched = Watched(part, outputs[0].add)
        feed = feed_of(watched, s, target, work)
        self.n_passes += 1
        feed.run(is_shown=work.progress)
        return feed.result(), target

    def _merged(self, kept: list[Kept], target: float | None) -> GeneStats:
        self.n_passes += 1
        calls = [
            (path, part, self.settings, target, self.work)
            for path, part in zip(self.paths, kept, strict=True)
        ]
        return GeneStats.merge(self.each(statistics, calls))

    def _part(self, source: Source, kept: Kept) -> Subset:
        return Subset(source, kept.cells, kept.genes, n_rows=window(source, self.work))

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
        surveys: list[Survey],
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
            file.file.core.check_unchanged()
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
        written = genes[kept.genes] if self.settings.subset else None
        output.begin(part, target, written, n_obs=part.n_obs)
        for block in part.blocks(check=False):
            output.add(block)

    def _uns(self, surveys: list[Survey], note: dict[str, Any], target: float) -> dict[str, Any]:
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
        surveys: list[Survey],
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
