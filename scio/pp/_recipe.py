"""From a file of counts to chosen genes and a normalised file, in one or two decodes."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from scio import _core
from scio.data._arguments import nbytes
from scio.errors import IOFormatError, ScioWarning
from scio.io import AnnDataFile, read_element
from scio.io.writer import StorageOptions
from scio.pp import hvg
from scio.pp._recipe_passes import Settings, Work
from scio.pp._recipe_run import RecipeResult, Run, one_by_one
from scio.pp._source import is_anndata, open_source
from scio.pp.normalize import _check_target
from scio.pp.qc import DEFAULT_TOPS

__all__ = ["RecipeResult", "recipe", "repeat_recipe"]

Path = str | os.PathLike[str]


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
    TypeError
        If `path` is no path.

    Warns
    -----
    ScioWarning
        If values are no integers, or cells have a total of 0.

    Notes
    -----
    The same bits as `calculate_qc_metrics`, `filter_cells`, `filter_genes`,
    ``highly_variable_genes(…, target_sum=…)`` on the counts left, `normalize_total` and `log1p` give one
    after another in memory, for any number of threads and any `max_memory`.  The file is decoded once
    when no gene is left out (which the first window must show, and cells may be left out without
    `batch_key` only), else twice; once more for ``target_sum=None`` where genes are left out, for
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
    paths = _paths_of(path)
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
    work = Work(threads, nbytes("max_memory", max_memory), progress)
    outs = _outputs(paths, out, is_single=isinstance(path, (str, os.PathLike)))
    if dask is None:
        return Run(paths, outs, settings, work, one_by_one, overwrite=overwrite).go()
    from scio.pp._dask import cluster

    with cluster(dask) as each:
        return Run(paths, outs, settings, work, each, overwrite=overwrite).go()


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
    note = note if isinstance(note, Mapping) else {}
    try:
        parameters, inputs = json.loads(note["parameters"]), json.loads(note["inputs"])
        version = str(note["version"])
    except (KeyError, ValueError) as error:
        message = f"{name}: uns['scio']['recipe'] does not tell how the file was made ({error})"
        raise IOFormatError(message) from error
    if version != _core.__version__:
        text = (
            f"{name} was written by scio {version}, this is {_core.__version__}; results may differ"
        )
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


def _paths_of(path: Any) -> list[Path]:
    paths = [path] if isinstance(path, (str, os.PathLike)) or is_anndata(path) else list(path)
    for given in paths:
        if not isinstance(given, (str, os.PathLike)):
            message = (
                f"recipe reads files, not a {type(given).__name__}; in memory call the steps one "
                "after another: calculate_qc_metrics, filter_cells, filter_genes, normalize_total, …"
            )
            raise TypeError(message)
    if not paths:
        message = "path names no file"
        raise ValueError(message)
    return paths


def _check_arguments(s: Settings) -> None:
    _check_target(s.target_sum)
    for name in (
        "min_genes",
        "min_counts",
        "max_genes",
        "max_counts",
        "min_cells",
        "min_gene_counts",
    ):
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
    if out is None:
        return []
    if is_single:
        outs = [os.fspath(out)]
    else:
        os.makedirs(out, exist_ok=True)
        outs = [os.path.join(os.fspath(out), os.path.basename(os.fspath(p))) for p in paths]
    if len(set(outs)) < len(outs):
        message = (
            f"several inputs have the name {_first_double(outs)!r}, and {out} can hold one of them"
        )
        raise ValueError(message)
    for target in outs:
        for source in paths:
            if (
                os.path.exists(target)
                and os.path.exists(source)
                and os.path.samefile(source, target)
            ):
                message = f"{target} is a file to read; give another output"
                raise ValueError(message)
    return outs


def _first_double(names: list[str]) -> str:
    return next(os.path.basename(n) for i, n in enumerate(names) if n in names[:i])
