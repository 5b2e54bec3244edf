"""``scio verify FILE``: say whether a file is sound."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from scio.cli._common import File, Json, check_path, reports_errors_as


@reports_errors_as(2)
def verify(
    file: File,
    deep: Annotated[
        bool, typer.Option("--deep", help="In a child process with limits; all attributes, too.")
    ] = False,
    timeout: Annotated[
        float | None,
        typer.Option(min=0, help="Seconds of the child, with --deep.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Say whether a file is sound. Exit codes: 0 sound, 1 unsound, 2 unreadable."""
    from scio.io.verify import verify as run

    report = run(check_path(file), deep=deep, timeout=timeout)
    print(json.dumps(report.to_dict()) if as_json else report)
    raise typer.Exit(report.exit_code)
