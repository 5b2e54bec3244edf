"""`scio.write_h5ad`: an AnnData into one file, whole or not at all."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from scio._core import __version__
from scio._storage.atomic import Temporary, check_space
from scio._storage.keys import MARK, marked
from scio.errors import ScioWarning
from scio.io import _coding
from scio.io._from_file import members_of_file
from scio.io._profiles import Profile, WriteReport
from scio.io.h5ad import AnnDataFile
from scio.io.read import opaque_elements
from scio.io.writer import Context, StorageOptions, published_file, write_element


def write_h5ad(
    adata: Any,
    path: str | os.PathLike[str],
    *,
    compression: str | None = "gzip",
    compression_opts: int = 1,
    shuffle: bool = True,
    compat: str | None = None,
    overwrite: bool = True,
    checksums: bool = False,
    convert_strings_to_categoricals: bool = True,
    break_hardlinks: bool = False,
) -> WriteReport:
    """Write an AnnData file, whole or not at all.

    Parameters
    ----------
    adata : anndata.AnnData, AnnDataFile, str or Path
        In memory, a view, or backed (also by the very file at `path`); any matrix may be a dask
        array, which is computed and written block by block.  It is not changed.  Or a file that
        `scio.open` opened, or its path: its strings stay strings, and memory is bounded (but for
        files of anndata 0.7 and before, which are read first).
    path : str or Path
        The file.  It has its old content until the new one is complete and on the disk; whoever
        has it open keeps the old content.  A symbolic link stays, and the file it leads to is
        replaced; owner, mode and extended attributes of an old file are kept where permitted.
    compression : "gzip" or None
        Deflate by all threads, which every HDF5 library reads; None: contiguous arrays, the
        fastest to read.
    compression_opts : int
        Level, 0 to 9.
    shuffle : bool
        Bytes of equal weight beside one another before compression.
    compat : {None, "0.8", "0.11", "0.12"}
        A release of anndata that shall read the file; what it cannot know is left out or changed,
        and stands in the report.  None: the oldest encoding that loses nothing, for each element.
    overwrite : bool
        False: an existing file is an error, decided by the kernel when the file is published.
    checksums : bool
        A checksum per chunk, which HDF5 checks on reading, and the SHA-256 of each array of numbers
        as its attribute.
    convert_strings_to_categoricals : bool
        Write columns of obs, var and raw.var whose strings repeat as categoricals, as
        ``AnnData.write_h5ad`` does; but `adata` keeps its strings.
    break_hardlinks : bool
        Replace a file that has other names (hard links); they keep the old content.

    Returns
    -------
    WriteReport
        One row per element; ``report.losses`` are those that lost something,
        ``report.oldest_reader`` is the oldest anndata that reads the file.

    Raises
    ------
    TypeError
        If something has no encoding (dates, mixed objects, Decimal …): names element, first
        offending row, its type and a conversion that works.
    ValueError
        If names repeat, or a matrix breaks a rule.
    TargetExistsError
        If the file exists and `overwrite` is False.
    IOWriteError
        If writing fails; an old file is unchanged.

    Warns
    -----
    ScioWarning
        If a key holds ``/``: it is written with ``%2F``, which `scio.read_h5ad` turns
        back.  If the file that `adata` comes from had
        elements that scio could not read: they are named, and left out.

    Notes
    -----
    Indices are int32 unless a dimension exceeds 2**31 - 1, ``indptr`` is int32 below 2**31 entries.
    The same content and options give the same bytes.

    Examples
    --------
    >>> import anndata, numpy as np, scio
    >>> adata = anndata.AnnData(np.eye(3, dtype="float32"))
    >>> report = scio.write_h5ad(adata, "eye.h5ad")  # doctest: +SKIP
    >>> report.oldest_reader  # doctest: +SKIP
    '0.8'
    """
    options = StorageOptions(compression, compression_opts, shuffle, checksums)
    report = WriteReport(os.fspath(path), compat)
    context = Context(options, Profile(compat), report, _coding.to_plain)
    with _source(adata) as source:
        if isinstance(source, AnnDataFile):
            members, needed = members_of_file(source), 0
        else:
            members = _coding.members_of(source, convert_strings=convert_strings_to_categoricals)
            needed = least_nbytes(source, options)
        with published_file(path, overwrite=overwrite, break_hardlinks=break_hardlinks) as writer:
            check_space(Temporary(path).target, needed)
            write_element(writer, "/", members, context)
            writer.attr("/", MARK, mark_of(context))
            if isinstance(source, AnnDataFile):
                source.file.core.check_unchanged()
        report.nbytes = os.stat(path).st_size
        _tell_of_unread(source, report)
    return report


@contextlib.contextmanager
def _source(adata: Any) -> Iterator[Any]:
    """The object to write; a path is opened and closed again."""
    if isinstance(adata, (str, os.PathLike)):
        with AnnDataFile(adata) as file, _source(file) as source:
            yield source
        return
    if not isinstance(adata, AnnDataFile) and not hasattr(adata, "obs_names"):
        message = f"adata is a {type(adata).__name__}, expected an anndata.AnnData or a file"
        raise TypeError(message)
    if isinstance(adata, AnnDataFile) and adata.file.scalar_attr("/", "encoding-type") is None:
        yield adata.to_memory()  # before 0.8: parts of one element lie all over the file
        return
    yield adata


def _tell_of_unread(source: Any, report: WriteReport) -> None:
    """What a reader could not read is not in the new file: said once, by name."""
    for opaque in opaque_elements(source):
        report.add(opaque.path, "", loss=f"left out: {opaque.reason}")
    # what a profile leaves out was asked for
    lost = [row for row in report.losses if "compat is" not in row.loss]
    if lost:
        listed = "; ".join(f"{row.element} ({row.loss})" for row in lost)
        warnings.warn(ScioWarning(f"{report.path}: {listed}"), stacklevel=3)


def mark_of(context: Context) -> str:
    """How the file was written, so that it can be written so again; the same text for the same file."""
    options = context.options
    facts = {
        "version": __version__,
        "compat": context.profile.compat,
        "compression": options.compression,
        "compression_opts": options.compression_opts,
        "shuffle": options.shuffle,
        "checksums": options.checksums,
    }
    return json.dumps(marked(facts), sort_keys=True)


# ---- how large the file will be, at least


def least_nbytes(adata: Any, options: StorageOptions) -> int:
    """Bytes that the matrices in memory take in the file: all of them without compression.

    With compression a few pieces are compressed, and half of what they suggest is counted, so that
    no file is refused that would have fitted.
    """
    nbytes = sum(_nbytes_of(matrix, options) for matrix in _matrices(adata))
    return nbytes if options.compression is None else nbytes // 2


def _matrices(adata: Any) -> Iterator[Any]:
    """Matrices that are in memory; of a view, nothing is cut out for this."""
    if adata.is_view:
        return
    if not adata.isbacked:
        yield adata.X
        if adata.raw is not None:
            yield adata.raw.X
    for mapping in (adata.layers, adata.obsm, adata.varm, adata.obsp, adata.varp):
        yield from mapping.values()


def _nbytes_of(matrix: Any, options: StorageOptions) -> int:
    parts = [matrix]
    if isinstance(getattr(matrix, "indptr", None), np.ndarray):
        parts = [matrix.data, matrix.indices]
    arrays = [p for p in parts if type(p) is np.ndarray and p.dtype.kind in "biufc"]
    ratio = functools.partial(_sampled_ratio, level=options.compression_opts)
    return sum(int(a.nbytes * (1.0 if options.compression is None else ratio(a))) for a in arrays)


def _sampled_ratio(array: Any, *, level: int) -> float:
    """Compressed size of four pieces over their size."""
    import zlib

    flat = array.reshape(-1) if array.flags.c_contiguous else np.empty(0, array.dtype)
    step, n_items = len(flat) // 4, 32_768
    if step < n_items:
        return 0.0  # too small to matter
    stored = total = 0
    for start in range(0, 4 * step, step):
        piece = flat[start : start + n_items]
        shuffled = piece.view(np.uint8).reshape(-1, piece.itemsize).T.tobytes()
        stored += len(zlib.compress(shuffled, max(1, level)))
        total += piece.nbytes
    return stored / total
