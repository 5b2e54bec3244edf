"""``scio preprocess IN OUT``: from counts to chosen genes and a normalised file."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated, Any

import typer

from scio.cli._common import (
    Json,
    Overwrite,
    check_path,
    check_target,
    file_argument,
    reports_errors,
)


class Compression(StrEnum):
    """How arrays are stored."""

    gzip = "gzip"
    none = "none"


def _limit(text: str) -> Any:
    return typer.Option(min=0, help=text, show_default=False)


@reports_errors
def preprocess(
    sources: Annotated[
        list[str], file_argument("IN...", "An .h5ad of counts; several are one matrix.")
    ],
    target: Annotated[str, file_argument("OUT", "New .h5ad; for several inputs a folder of them.")],
    hvg: Annotated[int, typer.Option(help="How many genes to choose.")] = 2000,
    flavor: Annotated[str, typer.Option(help="How they are chosen.")] = "seurat",
    batch_key: Annotated[
        str | None, typer.Option(help="obs column: genes are ranked in each batch.")
    ] = None,
    layer: Annotated[str | None, typer.Option(help="Layer with the counts; else X.")] = None,
    min_genes: Annotated[int | None, _limit("Least genes of a cell.")] = None,
    max_genes: Annotated[int | None, _limit("Most genes of a cell.")] = None,
    min_counts: Annotated[float | None, _limit("Least counts of a cell.")] = None,
    max_counts: Annotated[float | None, _limit("Most counts of a cell.")] = None,
    min_cells: Annotated[int | None, _limit("Least cells of a gene.")] = None,
    min_gene_counts: Annotated[float | None, _limit("Least counts of a gene.")] = None,
    qc_var: Annotated[
        list[str] | None,
        typer.Option(
            help="Boolean var column, or NAME=BEGINNING of gene names (mt=MT-); may be repeated.",
            show_default=False,
        ),
    ] = None,
    target_sum: Annotated[
        str, typer.Option(help="Total of a cell after normalisation: a number, or 'median'.")
    ] = "10000",
    log1p: Annotated[bool, typer.Option(help="Take ln(1 + x).")] = True,
    subset: Annotated[bool, typer.Option("--subset", help="Write the chosen genes only.")] = False,
    keep_counts: Annotated[
        str | None, typer.Option(metavar="LAYER", help="Layer that gets the counts.")
    ] = None,
    compression: Annotated[Compression, typer.Option(help="Of the arrays.")] = Compression.gzip,
    level: Annotated[int, typer.Option(min=0, max=9, help="Of gzip.")] = 1,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads; all cores when not given.")
    ] = None,
    max_memory: Annotated[
        str | None, typer.Option(help="Cap of windows and tables, e.g. 2GB.", show_default=False)
    ] = None,
    dask: Annotated[
        str | None,
        typer.Option(
            metavar="SCHEDULER",
            help="Statistics of several files by a Dask cluster.",
        ),
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Quality control, filters, normalisation, ln(1 + x), chosen genes: a new file."""
    from scio.pp import recipe

    for source in sources:
        check_target(check_path(source), target, overwrite=overwrite or len(sources) > 1)
    named: dict[str, str | None] = {}
    for text in qc_var or []:
        name, mark, start = text.partition("=")
        if not name or (mark and not start):
            message = f"--qc-var is NAME or NAME=BEGINNING, not {text!r}"
            raise ValueError(message)
        named[name] = start if mark else None
    done = recipe(
        sources[0] if len(sources) == 1 else sources,
        target,
        layer=layer,
        qc_vars=named,
        min_genes=min_genes,
        max_genes=max_genes,
        min_counts=min_counts,
        max_counts=max_counts,
        min_cells=min_cells,
        min_gene_counts=min_gene_counts,
        target_sum=_target(target_sum),
        log1p=log1p,
        n_top_genes=hvg,
        flavor=flavor,
        batch_key=batch_key,
        subset=subset,
        keep_counts=keep_counts,
        compression=None if compression is Compression.none else "gzip",
        compression_opts=level,
        overwrite=overwrite,
        threads=-1 if threads is None else threads,
        max_memory=max_memory,
        dask=dask,
    )
    print(json.dumps(done.to_dict()) if as_json else done)


def _target(text: str) -> float | None:
    if text == "median":
        return None
    try:
        return float(text)
    except ValueError:
        message = f"--target-sum is a number or 'median', not {text!r}"
        raise ValueError(message) from None
