"""Reading an ``.h5ad`` into an AnnData: planned as a whole, decoded by all threads."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scio._optional import require
from scio.io._assemble import plan_anndata
from scio.io._encodings import ElementReader
from scio.io._plan import Deferred, Plan
from scio.io._select import Notes, OpaqueElement, Wanted
from scio.io.h5ad import AnnDataFile
from scio.io.hdf5 import HDF5File

if TYPE_CHECKING:
    import anndata

__all__ = ["OpaqueElement", "estimate_memory", "opaque_elements", "read_element", "read_h5ad"]

_OPAQUE = "_scio_opaque"  # on an AnnData: what its file had besides


def read_h5ad(
    filename: Any,
    backed: str | bool | None = None,
    *,
    elements: Iterable[str] | str | None = None,
    obs: Any = None,
    var: Any = None,
    as_sparse: Sequence[str] | str = (),
    as_sparse_fmt: Any = None,
    chunk_size: int = 6000,
    strict: bool = False,
    threads: int = -1,
) -> anndata.AnnData:
    """Read an ``.h5ad`` as ``anndata.read_h5ad`` does, on all cores.

    Parameters
    ----------
    filename : str, Path, bytes-like, binary file object or AnnDataFile
        The file, as anndata (0.5 to 0.13), R packages or Julia wrote it.
    backed : None, bool or {"r", "r+"}
        ``"r"`` (or True, which means ``"r+"`` as in anndata): the structure is checked by scio, then
        anndata opens the file; X stays in the file and is read by anndata and h5py.  For rows at
        random on all cores use `scio.open`, whose handles are no AnnData.
    elements : str or iterable of str, optional
        Paths such as ``"X"``, ``"obs/louvain"``, ``"layers/*"``, ``"uns"``: only these and what is
        below them is read, with the names of cells and genes, which an AnnData always has.
        Any of ``raw`` brings ``raw/X``.
    obs, var : slice, boolean mask, integers, names, int or str, optional
        Cells and genes that are read, in this order; the result is that of indexing the AnnData.
    as_sparse : sequence of {"X", "raw/X"}
        Dense matrices that become sparse while they are read.
    as_sparse_fmt : type, optional
        ``scipy.sparse.csr_matrix`` (default) or ``csc_matrix``.
    chunk_size : int
        Accepted for anndata's sake; blocks are chosen by scio.
    strict : bool
        Raise `UnsupportedError` instead of a warning when something in the file cannot be read.
    threads : int
        Threads that decode, -1 = all.

    Returns
    -------
    anndata.AnnData
        As anndata 0.12 reads it: dtypes as stored, in native byte order; sparse matrices with int32
        indices where they fit, else int64.

    Raises
    ------
    IOFormatError, CorruptFileError, UnsupportedError, UnsafeFileError
        If the file is no AnnData file, breaks a rule, holds what is not known or leads out of itself;
        the message names file and element.
    KeyNotFoundError
        If `elements`, `obs` or `var` name something that does not exist; near names are offered.
    MemoryError
        If the result is larger than the memory that is available; says how large.

    Warns
    -----
    ScioWarning
        Once for a file, with all elements that were not read; `opaque_elements` gives them.

    Examples
    --------
    >>> import scio
    >>> adata = scio.read_h5ad(scio.datasets.pbmc3k())
    >>> adata.shape
    (2700, 32738)
    >>> scio.read_h5ad(scio.datasets.pbmc3k(), elements=["obs"], obs=slice(0, 10)).shape
    (10, 32738)
    """
    if backed is not None and backed is not False:
        if not (elements is None and obs is None and var is None and not as_sparse):
            message = (
                "backed= opens the whole file: it takes no elements=, obs=, var= or as_sparse="
            )
            raise ValueError(message)
        return _read_backed(filename, backed)
    as_sparse = _sparse_names(as_sparse)
    file, is_ours = _open(filename)
    try:
        plan, notes, value = _plan(file, elements, obs, var, as_sparse)
        notes.tell(strict=strict)
        _check_memory(file.name, plan)
        plan.run(threads)
        adata = value()
        file.core.check_unchanged()
    finally:
        if is_ours:
            file.close()
    _convert(adata, as_sparse, as_sparse_fmt)
    if notes.opaque:
        setattr(adata, _OPAQUE, tuple(notes.opaque))
    return adata


def _open(source: Any) -> tuple[HDF5File, bool]:
    if isinstance(source, AnnDataFile):
        return source.file, False
    return (source, False) if isinstance(source, HDF5File) else (HDF5File(source), True)


def _plan(
    file: HDF5File, elements: Any, obs: Any, var: Any, as_sparse: Sequence[str] = ()
) -> tuple[Plan, Notes, Deferred]:
    wanted, notes, plan = Wanted(elements), Notes(file.name), Plan(file)
    reader = ElementReader(plan, wanted, notes)
    value = plan_anndata(reader, obs=obs, var=var, as_sparse=as_sparse)
    wanted.check(file.name)
    return plan, notes, value


def _sparse_names(names: Sequence[str] | str) -> list[str]:
    known = {"X": "X", "raw/X": "raw/X", "raw.X": "raw/X"}
    listed = [names] if isinstance(names, str) else list(names)
    for name in listed:
        if name not in known:
            message = f"as_sparse takes 'X' and 'raw/X', not {name!r}"
            raise ValueError(message)
    return [known[name] for name in listed]


def _convert(adata: Any, as_sparse: Sequence[str], form: Any) -> None:
    if not as_sparse or form is None or form.__name__.startswith("csr"):
        return
    if "X" in as_sparse and adata.X is not None:
        adata.X = form(adata.X)
    if "raw/X" in as_sparse and adata.raw is not None:
        adata.raw._X = form(adata.raw.X)


def _read_backed(filename: Any, backed: str | bool) -> anndata.AnnData:
    module = require("anndata", "scio.read_h5ad(backed=…)")
    if not isinstance(filename, (str, os.PathLike)):
        message = f"backed= needs a path, not {type(filename).__name__}"
        raise TypeError(message)
    with AnnDataFile(filename) as handle:  # structure: headers, names, shape of X
        plan, notes, _ = _plan(handle.file, None, None, None)
        notes.tell(strict=True)
        del plan
    adata: anndata.AnnData = module.read_h5ad(Path(filename), backed=backed)
    return adata


def opaque_elements(adata: Any) -> tuple[OpaqueElement, ...]:
    """Return what the file of an AnnData held besides, which `read_h5ad` did not read.

    Parameters
    ----------
    adata : anndata.AnnData
        As `read_h5ad` gave it; copies and subsets of it do not know.

    Returns
    -------
    tuple of OpaqueElement
    """
    found: tuple[OpaqueElement, ...] = getattr(adata, _OPAQUE, ())
    return found


def read_element(source: Any, path: str, *, threads: int = -1) -> Any:
    """Read one element of any encoding.

    Parameters
    ----------
    source : str, Path, bytes-like, binary file object, HDF5File or AnnDataFile
    path : str
        Where it lies, e.g. ``"/uns/pca"``.
    threads : int
        Threads that decode, -1 = all.

    Returns
    -------
    object
        What anndata makes of it: an array, a SciPy matrix, a frame, a dict, a number, a string, None.

    Raises
    ------
    CorruptFileError, UnsupportedError
        As `read_h5ad`.
    """
    file, is_ours = _open(source)
    try:
        plan, notes = Plan(file), Notes(file.name)
        path = "/" + path.strip("/")
        value = ElementReader(plan, Wanted(None), notes).element(path)
        notes.tell(strict=False)
        plan.run(threads)
        return value()
    finally:
        if is_ours:
            file.close()


def estimate_memory(
    source: Any, *, elements: Iterable[str] | str | None = None, obs: Any = None, var: Any = None
) -> int:
    """Estimate from headers what `read_h5ad` with the same arguments would take.

    Parameters
    ----------
    source : str, Path, bytes-like, binary file object, HDF5File or AnnDataFile
    elements, obs, var
        As of `read_h5ad`.

    Returns
    -------
    int
        Bytes; numbers are exact, a string counts 72 bytes.

    Examples
    --------
    >>> import scio
    >>> from scio.io import estimate_memory
    >>> estimate_memory(scio.datasets.pbmc3k()) // 2**20
    20
    """
    file, is_ours = _open(source)
    try:
        return _plan(file, elements, obs, var)[0].nbytes
    finally:
        if is_ours:
            file.close()


def _check_memory(name: str, plan: Plan) -> None:
    available = _available_memory()
    if available is not None and plan.nbytes > available:
        message = (
            f"{name} needs about {plan.nbytes / 2**30:.1f} GiB of memory (most of it "
            f"{plan.largest_path()}), {available / 2**30:.1f} GiB are available: read less with elements=, obs= or var=, or rows with scio.open"
        )
        raise MemoryError(message)


def _available_memory() -> int | None:
    """Bytes that this process may still take, None when nobody says."""
    found = []
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                found.append(int(line.split()[1]) * 1024)
    except OSError:
        return None
    group = Path("/sys/fs/cgroup")
    try:
        limit = (group / "memory.max").read_text().strip()
        if limit != "max":
            stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            used = int((group / "memory.current").read_text()) - int(stat.get("inactive_file", 0))
            found.append(max(0, int(limit) - used))
    except (OSError, ValueError):
        pass
    return min(found) if found else None
