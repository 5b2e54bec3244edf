"""The commands; imported only when typer is there."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from typing import Annotated

import typer

from scio import __version__, _core
from scio.cli import _machine, _text
from scio.cli._common import File, Json, check_path, print_one, reports_errors
from scio.cli.convert import convert
from scio.cli.diff import diff
from scio.cli.ls import ls
from scio.cli.preprocess import preprocess
from scio.cli.repair import repair
from scio.cli.verify import verify

app = typer.Typer(
    name="scio",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Labelled scientific matrices, from disk to training batches.",
    epilog="Exit codes: 0 done, 1 the work failed, 2 wrong usage, 130 Ctrl-C.",
)


class Form(StrEnum):
    """What batches are measured."""

    all = "all"
    csr = "csr"
    dense = "dense"
    tokens = "tokens"


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        print(f"scio {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Labelled scientific matrices, from disk to training batches."""


@app.command()
@reports_errors
def info(
    file: Annotated[
        str | None, typer.Argument(metavar="[FILE]", help="An .h5ad.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Describe a file without reading its data; without FILE: this installation."""
    from scio.cli import info as facts

    if file is None:
        machine = _machine.describe()
        print_one(machine, facts.machine_tables(machine), as_json=as_json)
        return
    from scio.io import open as open_file

    with open_file(check_path(file)) as handle:
        description = facts.describe(handle)
    print_one(description, facts.tables(description), as_json=as_json)


@app.command()
@reports_errors
def bench(
    file: File,
    batch_size: Annotated[int, typer.Option(min=1, help="Cells in a batch.")] = 64,
    form: Annotated[Form, typer.Option(help="What batches are.")] = Form.all,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="Threads; all cores when not given.", show_default=False),
    ] = None,
    max_memory: Annotated[
        str | None,
        typer.Option(help="Cap of the loader, e.g. 2GB.", show_default=False),
    ] = None,
    runs: Annotated[int, typer.Option(min=1, help="Runs, each in a new process.")] = 5,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of a run.")] = 2,
    key: Annotated[
        str | None, typer.Option(help="obs column whose mixing is told.", show_default=False)
    ] = None,
    seconds: Annotated[
        float, typer.Option(min=0, help="Cut an epoch off after so long; 0: never.")
    ] = 60.0,
    compare: Annotated[
        bool, typer.Option("--compare", help="Measure installed peers too.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON record a line.")] = False,
) -> None:
    """Measure how fast a file becomes batches, on a warm page cache."""
    from scio.cli import bench as work

    settings = work.Settings(
        path=check_path(file),
        batch_size=batch_size,
        forms=work.FORMS if form is Form.all else (form.value,),
        threads=threads or _core.cpu_count(),
        max_memory=max_memory,
        n_runs=runs,
        n_epochs=epochs,
        key=key,
        is_compared=compare,
        limit_seconds=seconds,
    )
    records = []
    with work.progress() as tell:
        for record in work.measure(settings, tell):
            records.append(record)
            if as_json:
                print(json.dumps(record), flush=True)
    if not as_json:
        _text.show(work.tables(records))
    own = [r for r in records if r["record"] != "epochs" or r["system"] == "scio"]
    failures = [r["error"] for r in own if "error" in r]
    for failure in dict.fromkeys(failures):
        print(f"scio: {failure}", file=sys.stderr)
    if failures:
        raise typer.Exit(1)


for command in (verify, diff, ls, convert, repair, preprocess):
    app.command()(command)
