"""``scio diff A B``: where two files differ."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from scio.cli._common import Json, check_path, file_argument, reports_errors_as


@reports_errors_as(2)
def diff(
    a: Annotated[str, file_argument("A", "A file.")],
    b: Annotated[str, file_argument("B", "Another one.")],
    no_values: Annotated[
        bool, typer.Option("--no-values", help="Headers only: names, shapes, types, orders.")
    ] = False,
    rtol: Annotated[float, typer.Option(min=0, help="Relative tolerance of numbers.")] = 0.0,
    atol: Annotated[float, typer.Option(min=0, help="Absolute tolerance of numbers.")] = 0.0,
    as_stored: Annotated[
        bool, typer.Option("--as-stored", help="Sparse matrices array by array.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Say where two files differ. Exit codes: 0 equal, 1 different, 2 unreadable."""
    from scio.io.diff import diff as run

    report = run(
        check_path(a),
        check_path(b),
        values=not no_values,
        rtol=rtol,
        atol=atol,
        as_stored=as_stored,
    )
    print(json.dumps(report.to_dict()) if as_json else report)
    raise typer.Exit(report.exit_code)
