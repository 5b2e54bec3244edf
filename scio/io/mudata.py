"""MuData files (``.h5mu``): several AnnData of the same cells or genes, and what they share."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from scio._core import __version__
from scio._names import near_names
from scio._optional import require
from scio._storage.atomic import Temporary, check_space
from scio._storage.keys import MARK
from scio.errors import CorruptFileError, IOFormatError, KeyNotFoundError
from scio.io import _coding
from scio.io._assemble import plan_anndata
from scio.io._encoders import member_path
from scio.io._encodings import ElementReader
from scio.io._plan import Deferred, Plan, Rows
from scio.io._profiles import Profile, WriteReport
from scio.io._select import Notes, Wanted
from scio.io.elements import Frame
from scio.io.hdf5 import HDF5File
from scio.io.read import _check_memory
from scio.io.write import least_nbytes, mark_of
from scio.io.writer import Context, StorageOptions, published_file, write_element

if TYPE_CHECKING:
    from scio._h5write import Writer

FORMAT_VERSION = "0.1.0"
_AXES = {"obs": 0, "var": 1}
_MEMBERS = ("obs", "var", "obsm", "varm", "obsp", "varp", "uns", "obsmap", "varmap")


def read_h5mu(
    filename: Any,
    backed: str | bool | None = None,
    *,
    modality: str | None = None,
    strict: bool = False,
    threads: int = -1,
) -> Any:
    """Read a ``.h5mu`` as ``mudata.read_h5mu`` does, all modalities in one pass on all cores.

    Parameters
    ----------
    filename : str, Path, URL, bytes-like or binary file object
        The file, as mudata or muon (0.1 to 0.4), R or Julia wrote it; its user block is not needed.
    backed : None, bool or {"r", "r+"}
        Other than None and False: scio checks the structure, then mudata opens the file and the
        matrices stay in it.
    modality : str, optional
        Read this one alone, as an AnnData; nothing of the others is touched.
    strict : bool
        Raise `UnsupportedError` instead of a warning when something cannot be read.
    threads : int
        Threads that decode, -1 = all.

    Returns
    -------
    mudata.MuData or anndata.AnnData
        An AnnData when `modality` was given.

    Raises
    ------
    IOFormatError
        If the file is HDF5 but holds no modalities.
    CorruptFileError
        If a rule is broken; the message names file, element, found and expected.
    KeyNotFoundError
        If there is no such modality; near names are offered.
    MissingDependencyError
        If mudata is not installed (a single modality needs anndata only).

    Warns
    -----
    ScioWarning
        Once for a file, with all elements that were not read.

    Notes
    -----
    Modalities come in the order of the attribute ``mod-order``, else by name.  Maps (``obsmap``,
    ``varmap``) are checked against the lengths of the modalities.

    Examples
    --------
    >>> import scio
    >>> mdata = scio.read_h5mu("multiome.h5mu")  # doctest: +SKIP
    >>> rna = scio.read_h5mu("multiome.h5mu", modality="rna")  # doctest: +SKIP
    """
    file = HDF5File(filename)
    try:
        reader = _Reader(file)
        is_backed = backed is not None and backed is not False
        if is_backed and (modality is not None or not isinstance(filename, (str, os.PathLike))):
            message = "backed= opens a whole file by its path: it takes no modality="
            raise ValueError(message)
        value = reader.plan(modality)
        reader.notes.tell(strict=strict)
        if not is_backed:
            _check_memory(file.name, reader.elements.plan)
            reader.elements.plan.run(threads)
            result = value()
            file.core.check_unchanged()
            return result
    finally:
        file.close()
    return require("mudata", "scio.read_h5mu").read_h5mu(os.fspath(filename), backed=backed)


class _Reader:
    """Plans one file: all of it, or one modality."""

    def __init__(self, file: HDF5File) -> None:
        self.file = file
        self.notes = Notes(file.name)
        self.elements = ElementReader(Plan(file), Wanted(None), self.notes)
        if file.kind("/mod") != "group":
            found = ", ".join(file.keys("/")) or "no objects"
            message = (
                f"{file.name} is HDF5 but no MuData: it has no group mod; at its root lie {found}"
            )
            raise IOFormatError(message)
        # name -> path of its group
        self.paths = {self.elements.key(name): f"/mod/{name}" for name in self._modalities()}
        self.lengths = {name: self._lengths(path) for name, path in self.paths.items()}

    def _modalities(self) -> list[str]:
        names = self.elements.members("/mod")
        order = self.file.attr("/mod", "mod-order")
        if order is None:
            return names
        wanted = [str(name) for name in np.atleast_1d(order)]
        absent = [name for name in wanted if name not in names]
        if absent:
            self.notes.remarks.append(
                f"/mod@mod-order names {', '.join(absent)}, which the file does not have: "
                "modalities come by name"
            )
            return names
        return [*dict.fromkeys(wanted), *(name for name in names if name not in wanted)]

    def _lengths(self, path: str) -> tuple[int, int]:
        found = []
        for axis in _AXES:
            if self.file.kind(f"{path}/{axis}") is None:
                message = f"{self.file.name}: the modality {path} has no {axis}"
                raise CorruptFileError(message)
            found.append(len(Frame(self.file, f"{path}/{axis}", axis)))
        return found[0], found[1]

    def plan(self, modality: str | None) -> Deferred:
        if modality is not None:
            if modality not in self.paths:
                near = near_names(modality, self.paths)
                message = f"{self.file.name} has no modality {modality!r}; {near}"
                raise KeyNotFoundError(message)
            return plan_anndata(self.elements, self.paths[modality])
        planned = {n: plan_anndata(self.elements, path) for n, path in self.paths.items()}
        shared = self._plan_shared()
        axis = self.file.scalar_attr("/", "axis")

        def finish() -> Any:
            mudata = require("mudata", "scio.read_h5mu")
            values = {name: value() for name, value in shared.items()}
            for name in _AXES:
                self._check_maps(name, values.get(f"{name}map") or {})
            modalities = {name: value() for name, value in planned.items()}
            if axis is not None:
                values["axis"] = int(axis)
            return mudata.MuData(modalities, **values)

        return finish

    def _plan_shared(self) -> dict[str, Deferred]:
        """Frames, arrays and maps that lie beside the modalities."""
        planned: dict[str, Deferred] = {}
        names = self.elements.members("/")
        rows: dict[str, Rows] = {}
        for axis in _AXES:
            if axis in names:
                rows[axis] = Rows(len(Frame(self.file, f"/{axis}", axis)))
                planned[axis] = self.elements.frame(f"/{axis}", (rows[axis],))
        for name in names:
            if name in ("mod", *_AXES):
                continue
            if name not in _MEMBERS:
                self.elements.skip(f"/{name}", "no part of the MuData format")
                continue
            of = rows.get(name[:3])
            is_graph = name in ("obsp", "varp")
            axes = () if of is None else (of, of) if is_graph else (of,)
            planned[name] = self.elements.mapping(f"/{name}", axes)
        return planned

    def _check_maps(self, axis: str, maps: dict[str, Any]) -> None:
        for name, positions in maps.items():
            path = f"/{axis}map/{name}"
            if name not in self.lengths:
                near = near_names(name, self.paths)
                message = f"{self.file.name}: {path} is of no modality; {near}"
                raise CorruptFileError(message)
            n_items = self.lengths[name][_AXES[axis]]
            at = np.asarray(positions)
            if at.dtype.kind not in "iu":
                message = f"{self.file.name}: {path} has dtype {at.dtype}, expected integers"
                raise CorruptFileError(message)
            wrong = np.flatnonzero((at < 0) | (at > n_items))
            if len(wrong):
                found = at.reshape(-1)[wrong[0]]
                message = (
                    f"{self.file.name}: {path}[{wrong[0]}] is {found}, not in [0, {n_items}]: "
                    f"0 is absent, others count the {axis} of {self.paths[name]} from 1"
                )
                raise CorruptFileError(message)


# ---- writing


def write_h5mu(
    mdata: Any,
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
    """Write a MuData file, whole or not at all.

    Parameters
    ----------
    mdata : mudata.MuData
        In memory, a view, or backed; it is not changed.
    path : str or Path
        The file; it has its old content until the new one is complete and on the disk.
    compression, compression_opts, shuffle, compat, overwrite, checksums
        As of `scio.write_h5ad`, for every element.
    convert_strings_to_categoricals, break_hardlinks
        As of `scio.write_h5ad`.

    Returns
    -------
    WriteReport
        One row per element.

    Raises
    ------
    TypeError
        If `mdata` is no MuData, a modality is no AnnData, or something has no encoding.
    TargetExistsError
        If the file exists and `overwrite` is False.
    IOWriteError
        If writing fails; an old file is unchanged.

    Notes
    -----
    The file begins with the user block that marks MuData files; ``mod-order`` keeps the order of
    the modalities.  Shared frames are written with all their columns; mudata leaves out those that
    repeat a modality's.

    Examples
    --------
    >>> import scio
    >>> report = scio.write_h5mu(mdata, "multiome.h5mu")  # doctest: +SKIP
    """
    options = StorageOptions(compression, compression_opts, shuffle, checksums)
    _check_mudata(mdata)
    report = WriteReport(os.fspath(path), compat)
    context = Context(options, Profile(compat), report, _coding.to_plain)
    block = f"MuData (format-version={FORMAT_VERSION};creator=scio;creator-version={__version__})"
    with published_file(
        path, overwrite=overwrite, break_hardlinks=break_hardlinks, user_block=block
    ) as writer:
        nbytes = sum(least_nbytes(adata, options) for adata in mdata.mod.values())
        check_space(Temporary(path).target, nbytes)
        _write_shared(writer, mdata, context, convert_strings_to_categoricals)
        _write_modalities(writer, mdata, context, convert_strings_to_categoricals)
        _tag_root(writer, mdata, mark_of(context))
    report.nbytes = os.stat(path).st_size
    return report


def _check_mudata(mdata: Any) -> None:
    if not hasattr(mdata, "mod") or not hasattr(mdata, "obsmap"):
        message = f"mdata is a {type(mdata).__name__}, expected a mudata.MuData"
        raise TypeError(message)
    for name, adata in mdata.mod.items():
        if hasattr(adata, "mod") or not hasattr(adata, "layers"):
            kind = type(adata).__name__
            message = f"the modality {name!r} is a {kind}; files hold modalities that are AnnData"
            raise TypeError(message)


def _write_shared(writer: Writer, mdata: Any, context: Context, convert_strings: bool) -> None:
    for axis in _AXES:
        frame = getattr(mdata, axis)
        table = _coding.table_of(frame, f"/{axis}", convert_strings=convert_strings, is_axis=True)
        write_element(writer, f"/{axis}", table, context)
    for name in _MEMBERS:
        if name not in _AXES:
            write_element(writer, f"/{name}", dict(getattr(mdata, name)), context)


def _write_modalities(writer: Writer, mdata: Any, context: Context, convert_strings: bool) -> None:
    writer.group("/mod")
    order = []
    for name, adata in mdata.mod.items():
        path = member_path("/mod", name, context)
        members = _coding.members_of(adata, path, convert_strings=convert_strings)
        write_element(writer, path, members, context)
        writer.attr(path, "encoder", "scio")
        writer.attr(path, "encoder-version", __version__)
        order.append(path.rpartition("/")[2])
    writer.attr("/mod", "mod-order", order)


def _tag_root(writer: Writer, mdata: Any, mark: str) -> None:
    marks = {
        "encoding-type": "MuData",
        "encoding-version": FORMAT_VERSION,
        "encoder": "scio",
        "encoder-version": __version__,
        "axis": int(mdata.axis),
        MARK: mark,
    }
    for name, value in marks.items():
        writer.attr("/", name, value)
