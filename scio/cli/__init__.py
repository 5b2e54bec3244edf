"""The command line: ``scio info``, ``scio bench``, ``scio convert`` (extra ``cli``)."""

from __future__ import annotations

import sys

from scio._optional import require
from scio.errors import MissingDependencyError

__all__ = ["main"]


def main() -> None:
    """Run the command line; the entry point of ``scio`` and of ``python -m scio.cli``.

    Raises
    ------
    SystemExit
        0: done; 1: the work failed, or typer is not installed; 2: wrong usage; 130: Ctrl-C.
    """
    try:
        for module in ("typer", "rich"):
            require(module, "the command line")
    except MissingDependencyError as error:
        print(f"scio: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    from scio.cli.app import app

    app(prog_name="scio")
