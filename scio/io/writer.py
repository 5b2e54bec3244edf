"""New files of AnnData elements: what the writers of scio share.

The face of ``scio._h5write``, which loads libhdf5 when it is first needed.  Elements are the plain
values of `scio.io._plain`; what other libraries made is turned into them by `scio.io._coding`, and
`scio.io._encoders` writes each with its encoding.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from scio._storage.atomic import atomic_temporary
from scio.io._encoders import Context, member_path, write_element
from scio.io._plain import NullableStrings, Table
from scio.io._streams import (
    DenseStream,
    SparseStream,
    StorageOptions,
    index_dtype_for,
    tag,
    tag_array,
    write_csr_group,
)

if TYPE_CHECKING:
    from scio._h5write import Writer

__all__ = [
    "Context",
    "DenseStream",
    "NullableStrings",
    "SparseStream",
    "StorageOptions",
    "Table",
    "index_dtype_for",
    "member_path",
    "new_file",
    "published_file",
    "tag_array",
    "write_csr_group",
    "write_element",
    "write_root",
    "write_tables",
]


@contextlib.contextmanager
def new_file(path: str | os.PathLike[str], *, user_block: str | None = None) -> Iterator[Writer]:
    """Give a writer of a new file at `path`; it is closed and synced when the block ends well.

    `user_block` is text that stands in the 512 bytes in front of what is HDF5.

    Raises
    ------
    IOWriteError
        If the file exists, or anything could not be written; the file is of no use then.
    """
    from scio import _h5write

    if user_block is None:
        writer = _h5write.Writer(path)
    else:
        writer = _h5write.Writer(path, user_block=user_block)
    try:
        yield writer
        writer.close()
    finally:
        writer.discard()


@contextlib.contextmanager
def published_file(
    path: str | os.PathLike[str],
    *,
    overwrite: bool = True,
    break_hardlinks: bool = False,
    user_block: str | None = None,
) -> Iterator[Writer]:
    """Give a writer of a file that appears at `path`, whole, when the block ends well.

    Raises
    ------
    TargetExistsError
        If the file exists and `overwrite` is False.
    IOWriteError
        If anything could not be written; an old file is unchanged.
    """
    with (
        atomic_temporary(path, overwrite=overwrite, break_hardlinks=break_hardlinks) as temporary,
        new_file(temporary.path, user_block=user_block) as writer,
    ):
        temporary.lock()
        yield writer


def write_tables(
    path: str | os.PathLike[str],
    *,
    obs: Table,
    var: Table,
    X: Any = None,
    layers: Mapping[str, Any] | None = None,
    obsm: Mapping[str, Any] | None = None,
    uns: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    context: Context | None = None,
) -> None:
    """Write an AnnData file from plain elements, whole or not at all.

    Parameters
    ----------
    path : str or Path
    obs, var : Table
    X, layers, obsm : CSR or ndarray
    uns : mapping
        Strings, numbers, arrays, and mappings of these.
    overwrite : bool
        Replace an existing file.
    context : Context, optional
        By default arrays are uncompressed and contiguous.

    Raises
    ------
    TargetExistsError
        If the file exists and `overwrite` is False.
    IOWriteError
        If writing fails; an old file is unchanged.
    TypeError
        If something has no encoding; the message names it.
    """
    with published_file(path, overwrite=overwrite) as writer:
        write_root(writer, obs, var, context)
        if X is not None:
            write_element(writer, "/X", X, context)
        for name, members in (("layers", layers), ("obsm", obsm), ("uns", uns)):
            write_element(writer, f"/{name}", members or {}, context)


def write_root(writer: Writer, obs: Table, var: Table, context: Context | None = None) -> None:
    """Write the mark of an AnnData file and its two frames."""
    tag(writer, "/", "anndata", "0.1.0")
    write_element(writer, "/obs", obs, context)
    write_element(writer, "/var", var, context)
