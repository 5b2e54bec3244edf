"""``scio repair SRC DST``: a sound file from what is left of a broken one."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from scio.cli._common import (
    Json,
    Overwrite,
    check_path,
    check_target,
    file_argument,
    reports_errors_as,
)


@reports_errors_as(2)
def repair(
    source: Annotated[str, file_argument("SRC", "The broken .h5ad; it is not changed.")],
    target: Annotated[str, file_argument("DST", "The new one.")],
    sum_duplicates: Annotated[
        bool, typer.Option("--sum-duplicates", help="Sum values that share row and column.")
    ] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write a sound file. Exit codes: 0 nothing is lost, 1 something is, 2 nothing was written."""
    from scio.io.repair import repair as run

    check_path(source)
    check_target(source, target, overwrite=overwrite)
    report = run(source, target, sum_duplicates=sum_duplicates, overwrite=overwrite)
    print(json.dumps(report.to_dict()) if as_json else report)
    raise typer.Exit(1 if report.lost else 0)
