"""``scio convert IN OUT``: other formats, other storage."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
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


class Layout(StrEnum):
    """What a file is converted to."""

    fast = "fast"
    csr = "csr"
    csc = "csc"


class Compression(StrEnum):
    """How arrays are stored."""

    gzip = "gzip"
    none = "none"


class Compat(StrEnum):
    """A release of anndata that shall read the file."""

    v08 = "0.8"
    v011 = "0.11"
    v012 = "0.12"


@reports_errors
def convert(
    source: Annotated[
        str, file_argument("IN", "An .h5ad, .h5mu, 10x .h5, .loom, or a MatrixMarket folder.")
    ],
    target: Annotated[str, file_argument("OUT", "New .h5ad or .h5mu.")],
    layout: Annotated[
        Layout | None,
        typer.Option(
            help="csr, csc; fast: contiguous, narrow, not compressed, for training.",
            show_default=False,
        ),
    ] = None,
    matrix: Annotated[
        str, typer.Option(help="With fast: 'X', 'layers/<key>' or 'raw/X', which becomes X.")
    ] = "X",
    modality: Annotated[
        str | None, typer.Option(help="Which modality of an .h5mu.", show_default=False)
    ] = None,
    genome: Annotated[
        str | None, typer.Option(help="Which genome of a 10x file.", show_default=False)
    ] = None,
    compression: Annotated[Compression, typer.Option(help="Of the arrays.")] = Compression.gzip,
    level: Annotated[int, typer.Option(min=0, max=9, help="Of gzip.")] = 1,
    shuffle: Annotated[bool, typer.Option(help="Bytes of equal weight together.")] = True,
    checksums: Annotated[bool, typer.Option("--checksums", help="One per chunk.")] = False,
    dtype: Annotated[
        list[str] | None,
        typer.Option(
            help="Type of X, or MATRIX=TYPE; may be repeated. A value that does not fit is an error.",
            show_default=False,
        ),
    ] = None,
    narrow: Annotated[
        bool, typer.Option("--narrow", help="The smallest types that hold all values.")
    ] = False,
    compat: Annotated[
        Compat | None,
        typer.Option(help="A release of anndata that shall read it.", show_default=False),
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write a file in another format or with other storage; tell what became of each element."""
    check_path(source)
    check_target(source, target, overwrite=overwrite)
    if layout is Layout.fast:
        _convert_fast(source, target, matrix, overwrite=overwrite)
        return
    from scio.io.convert import convert as run

    report = run(
        source,
        target,
        modality=modality,
        genome=genome,
        compression=None if compression is Compression.none else compression.value,
        compression_opts=level,
        shuffle=shuffle,
        checksums=checksums,
        layout=None if layout is None else layout.value,
        dtype=_types(dtype or []),
        narrow=narrow,
        compat=None if compat is None else compat.value,
        overwrite=overwrite,
    )
    print(json.dumps(report.to_dict()) if as_json else report)


def _types(texts: list[str]) -> dict[str, str]:
    """``uint16`` and ``layers/counts=uint16`` as types by matrix."""
    import numpy as np

    out: dict[str, str] = {}
    for text in texts:
        name, _, dtype = text.rpartition("=")
        try:
            kind: Any = np.dtype(dtype)
        except TypeError as error:
            message = f"{dtype!r} is no type of numbers; write float32, uint16 …"
            raise ValueError(message) from error
        if kind.kind not in "iufb":
            message = f"{dtype!r} is no type of numbers; write float32, uint16 …"
            raise ValueError(message)
        out[name or "X"] = dtype
    return out


def _convert_fast(source: str, target: str, matrix: str, *, overwrite: bool) -> None:
    from scio.io.fast import convert as convert_fast

    convert_fast(
        Path(source),
        Path(target),
        matrix=matrix,
        progress=sys.stderr.isatty(),
        overwrite=overwrite,
    )
