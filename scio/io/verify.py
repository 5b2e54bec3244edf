"""`scio.verify`: say whether a file is sound."""

from __future__ import annotations

import os
from typing import Any

from scio.errors import IOFormatError
from scio.io._element_check import ElementCheck
from scio.io._report import Finding, Report
from scio.io._storage_check import StorageCheck
from scio.io.hdf5 import HDF5File

__all__ = ["Finding", "Report", "verify"]


def verify(
    path: Any, *, deep: bool = False, timeout: float | None = None, memory: int | None = None
) -> Report:
    """Say whether a file is sound, element by element; it does not stop at the first finding.

    Parameters
    ----------
    path : str, Path, URL, bytes-like or binary file object
        An ``.h5ad``, ``.h5mu``, 10x ``.h5`` or loom file; of other HDF5 files the storage is checked.
    deep : bool
        Also read the attributes that nobody asks for, and do everything in a child process with
        limits, which may not write: a file that kills or hangs its reader is a finding.  Needs a
        path.
    timeout : float, optional
        Seconds that the child may take, of the clock; by default a minute and what 10 MB/s take.
        Only with `deep`.
    memory : int, optional
        Bytes that the child may take; by default half of what is available, at least 1 GiB.
        Only with `deep`.

    Returns
    -------
    Report
        ``report.is_sound``, ``report.findings`` with path, rule, level (error, warning, note), found
        and expected.

    Raises
    ------
    FileNotFoundError, IsADirectoryError, PermissionError
        As the operating system says.
    ValueError
        If `timeout` or `memory` are given without `deep`, or `deep` without a path.

    Notes
    -----
    Checked are: superblock and length of the file; links; headers; that every chunk decodes to its
    length, with its checksum where there is one; text (UTF-8, lengths); and the rules of the format:
    encodings, shapes that agree, ``indptr``, indices in range, sorted and distinct, codes and
    categories, masks, names of columns.  Memory: 32 MiB for a block of each dataset in turn, 16
    bytes for each cell and gene.

    Examples
    --------
    >>> import scio
    >>> report = scio.verify(scio.datasets.pbmc3k())
    >>> report.is_sound
    True
    """
    if not deep:
        if timeout is not None or memory is not None:
            message = "timeout and memory limit the child process of deep=True"
            raise ValueError(message)
        return check_file(path)
    if not isinstance(path, (str, os.PathLike)):
        message = (
            f"deep=True reads in another process, which needs a path, not {type(path).__name__}"
        )
        raise ValueError(message)
    from scio.io._isolated import verify_isolated

    return verify_isolated(os.fspath(path), timeout=timeout, memory=memory)


def check_file(source: Any, *, is_deep: bool = False) -> Report:
    """Check in this process."""
    try:
        file = HDF5File(source)
    except IOFormatError as error:
        report = Report(str(source) if isinstance(source, (str, os.PathLike)) else "the file")
        report.is_readable = False
        text = str(error).removeprefix(f"{report.file}: ")
        rule = "truncated" if "truncated" in text else "file"
        report.add("/", rule, text, "a whole HDF5 file")
        return report
    try:
        return _check(file, is_deep=is_deep)
    finally:
        file.close()


def _check(file: HDF5File, *, is_deep: bool) -> Report:
    report = Report(file.name)
    storage = StorageCheck(file, report, is_deep=is_deep)
    storage.walk()
    elements = ElementCheck(storage, report)
    elements.root()
    storage.decode()
    elements.explain()
    _note_superblock(file, report)
    if file.remote is None:
        try:
            file.core.check_unchanged()
        except IOFormatError as error:
            report.add("/", "changed", str(error), "a file that nobody writes")
    report.findings.sort(key=lambda f: f.path)
    return report


def _note_superblock(file: HDF5File, report: Report) -> None:
    end, nbytes = file.core.superblock["end"], file.core.nbytes
    if end < nbytes:
        report.add(
            "/", "file", f"{nbytes - end:,} bytes after the end of the HDF5 part", level="note"
        )
