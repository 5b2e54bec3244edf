"""What the commands share: errors as one line and an exit code, options, printing."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from scio.cli import _text
from scio.errors import ScioError


def reports_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Turn what goes wrong with files and settings into one line and exit code 1."""
    return reports_errors_as(1)(command)


def reports_errors_as(code: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Turn what goes wrong with files and settings into one line and an exit code."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def run(*args: Any, **options: Any) -> None:
            try:
                command(*args, **options)
            except BrokenPipeError:
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # no second complaint at exit
                raise typer.Exit(code) from None
            except KeyboardInterrupt:
                print("scio: stopped", file=sys.stderr)
                raise typer.Exit(130) from None
            except (ScioError, OSError, ValueError, MemoryError) as error:
                print(f"scio: {message_of(error)}", file=sys.stderr)
                raise typer.Exit(code) from None

        return run

    return decorate


def message_of(error: BaseException) -> str:
    """Return the message with its notes, without a repr; never an empty line."""
    parts = [str(error) or type(error).__name__, *getattr(error, "__notes__", [])]
    return "; ".join(" ".join(part.split()) for part in parts)


def check_path(file: str) -> str:
    """Refuse stdin, by name."""
    if file == "-":
        message = "an HDF5 file is read at random places, which a pipe cannot do; give a path"
        raise typer.BadParameter(message, param_hint="FILE")
    return file


def check_target(source: str, target: str, *, overwrite: bool) -> None:
    """Refuse a target that is the source, or is there and shall not be replaced."""
    if os.path.exists(target):
        if os.path.exists(source) and os.path.samefile(source, target):
            message = f"{target} is the file to read; give another name"
            raise ValueError(message)
        if not overwrite:
            message = f"{target} exists; --overwrite replaces it"
            raise FileExistsError(message)


def print_one(facts: Any, tables: list[_text.Table], *, as_json: bool) -> None:
    """Print one result as JSON or as tables."""
    if as_json:
        print(json.dumps(facts))
    else:
        _text.show(tables)


def file_argument(name: str, text: str) -> Any:
    """Return the argument that is a path."""
    return typer.Argument(metavar=name, help=text, show_default=False)


File = Annotated[str, file_argument("FILE", "An .h5ad.")]
Json = Annotated[bool, typer.Option("--json", help="JSON in place of text.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the target.")]
