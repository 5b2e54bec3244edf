"""`convert`: 10x, MatrixMarket, loom and MuData to and from AnnData; other compression and types."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scio import _core
from scio._names import near_names
from scio._optional import require
from scio._storage.keys import MARK
from scio.errors import ScioWarning, UnsupportedError
from scio.io import _coding
from scio.io._forms import elements_of, form_of
from scio.io._from_file import from_file, members_of_file
from scio.io._plain import Compressed, DenseParts, Members, SparseParts
from scio.io._profiles import Profile, WriteReport
from scio.io.h5ad import AnnDataFile, MatrixHandle
from scio.io.hdf5 import HDF5File
from scio.io.transpose import transposed
from scio.io.write import mark_of
from scio.io.writer import Context, StorageOptions, published_file, write_element
from scio.matrix import CSR

_BLOCK_NBYTES = 64 << 20
_LAYOUTS = ("csr", "csc")
_NARROW = ("uint8", "int8", "uint16", "int16", "uint32", "int32")


@dataclass(frozen=True, slots=True)
class Change:
    """What became of one element.

    Attributes
    ----------
    source, target : str
        Its paths; ``target`` is "" when it was left out.
    source_type, target_type : str
    loss : str
        What is lost; "" when nothing.
    """

    source: str
    target: str
    source_type: str
    target_type: str
    loss: str = ""


@dataclass(slots=True)
class ConvertReport:
    """What a conversion did: one row per element.

    Attributes
    ----------
    source, target : str
        The files.
    form : str
        What the source was.
    changes : list of Change
    nbytes : int
        Size of the new file.
    """

    source: str
    target: str
    form: str
    changes: list[Change] = field(default_factory=list)
    nbytes: int = 0

    @property
    def losses(self) -> list[Change]:
        """The elements that lost something."""
        return [c for c in self.changes if c.loss]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as a dict that JSON knows."""
        fields = ("source", "target", "source_type", "target_type", "loss")
        rows = [{name: getattr(c, name) for name in fields} for c in self.changes]
        head = {"source": self.source, "target": self.target, "form": self.form}
        return {**head, "nbytes": self.nbytes, "elements": rows}

    def __str__(self) -> str:
        lines = [f"{self.source} ({self.form}) -> {self.target}: {self.nbytes:,} bytes"]
        for c in self.changes:
            types = (
                c.source_type
                if c.source_type == c.target_type
                else (f"{c.source_type} -> {c.target_type}" if c.target else c.source_type)
            )
            loss = f"; lost: {c.loss}" if c.loss else ""
            lines.append(f"  {c.source} -> {c.target or 'nothing'} ({types}){loss}")
        return "\n".join(lines)

    __repr__ = __str__


def convert(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    modality: str | None = None,
    genome: str | None = None,
    compression: str | None = "gzip",
    compression_opts: int = 1,
    shuffle: bool = True,
    checksums: bool = False,
    layout: str | None = None,
    dtype: str | Mapping[str, str] | None = None,
    narrow: bool = False,
    compat: str | None = None,
    overwrite: bool = False,
) -> ConvertReport:
    """Convert a file to ``.h5ad`` or ``.h5mu``, or write it again with other storage.

    Parameters
    ----------
    source : str or Path
        An ``.h5ad``, ``.h5mu``, 10x ``.h5``, loom file, or a MatrixMarket folder; known by content.
    target : str or Path
        Its ending decides: ``.h5ad`` or ``.h5mu``.  It appears whole or not at all.
    modality : str, optional
        Which modality of an ``.h5mu`` becomes the ``.h5ad``; needed when it has several.  When an
        ``.h5mu`` is made of one matrix: the name it gets ("rna" without).
    genome : str, optional
        Of a 10x file with several.
    compression, compression_opts, shuffle, checksums, compat
        As of `scio.write_h5ad`.
    layout : {None, "csr", "csc"}
        What sparse matrices of X, layers and raw become, and X itself when it is dense.
    dtype : str or mapping, optional
        Type of the values of X; or types by matrix: ``{"X": "float32", "layers/counts": "uint16"}``.
    narrow : bool
        The smallest type that holds all values, for every matrix of X, layers and raw not named in
        `dtype`; integers stored as floats become integers.
    overwrite : bool

    Returns
    -------
    ConvertReport
        One row per element: source and target path, change of type, loss.

    Raises
    ------
    ValueError
        If a value does not fit `dtype` (it is named), a modality is not chosen, or the target's
        ending is not known.
    TargetExistsError
        If the target exists and `overwrite` is False.
    IOFormatError
        If the source is nothing that scio knows.
    IOWriteError
        If writing fails; an old file is unchanged.

    Notes
    -----
    From ``.h5ad`` to ``.h5ad``, memory is bounded, but for files of anndata before 0.8, and a dense X
    that becomes CSC.  Other sources are read first.

    Examples
    --------
    >>> import scio
    >>> from scio.io.convert import convert
    >>> convert(scio.datasets.pbmc3k(), "small.h5ad", narrow=True)  # doctest: +SKIP
    """
    source, target = os.fspath(source), os.fspath(target)
    form = form_of(source)
    if not target.endswith((".h5ad", ".h5mu")):
        message = f"{target}: files are written as .h5ad and .h5mu; give it one of these endings"
        raise ValueError(message)
    if layout is not None and layout not in _LAYOUTS:
        message = f"layout is 'csr' or 'csc', not {layout!r}"
        raise ValueError(message)
    options = StorageOptions(compression, compression_opts, shuffle, checksums)
    types = {"X": dtype} if isinstance(dtype, str) else dict(dtype or {})
    change = _Values(source, layout, {k.strip("/"): np.dtype(v) for k, v in types.items()}, narrow)
    written = WriteReport(target, compat)
    context = Context(options, Profile(compat), written, _coding.to_plain)
    if target.endswith(".h5mu"):
        _write_h5mu(source, target, form, modality, genome, change, context, overwrite)
    else:
        _write_h5ad(source, target, form, modality, genome, change, context, overwrite)
    return _report(source, target, form, modality, genome, written)


# ---- values


class _Values:
    """What happens to the matrices on their way."""

    def __init__(
        self, name: str, layout: str | None, types: dict[str, np.dtype[Any]], narrow: bool
    ) -> None:
        self.name, self.layout, self.types, self.narrow = name, layout, types, narrow

    @property
    def is_idle(self) -> bool:
        return self.layout is None and not self.types and not self.narrow

    def _check_types(self, members: Members) -> None:
        parts = members.members
        known = [f"layers/{name}" for name in parts.get("layers") or ()]
        known += ["X"] if parts.get("X") is not None else []
        known += ["raw/X"] if parts.get("raw") is not None else []
        absent = [name for name in self.types if name not in known]
        if absent:
            near = near_names(absent[0], known)
            message = f"{self.name}: dtype names {absent[0]!r}, no matrix of the file; {near}"
            raise ValueError(message)

    def members(self, members: Members) -> Members:
        """X, layers and raw/X of an AnnData, changed when they are written."""
        self._check_types(members)
        parts = dict(members.members)
        for key in ("X", "layers", "raw"):
            value = parts.get(key)
            if value is None:
                continue
            if key == "X":
                parts["X"] = self._later("X", value)
            elif key == "layers":
                parts["layers"] = _LazyLayers(value, self)
            else:
                inner = dict(value.members)
                if inner.get("X") is not None:
                    inner["X"] = self._later("raw/X", inner["X"])
                parts["raw"] = Members("raw", inner)
        return Members("anndata", parts)

    def _later(self, name: str, value: Any) -> Callable[[], Any]:
        return lambda: self.matrix(name, value() if callable(value) else value)

    def matrix(self, name: str, value: Any) -> Any:
        """A matrix in its new layout and type."""
        if value is None:
            return None
        is_stored = isinstance(value, MatrixHandle) and value.format in _LAYOUTS
        if self.layout is not None and is_stored and value.format != self.layout:
            value = transposed(value)  # from file to file
        parts = _parts_of(value, name)
        if isinstance(parts, (SparseParts, DenseParts)):
            parts = self._laid_out(name, parts)
        wanted = self.types.get(name)
        if wanted is None and self.narrow:
            wanted = _narrowest(parts)
        if wanted is None or wanted == parts.dtype:
            return parts
        return _cast(parts, wanted, f"{self.name}: {name}")

    def _laid_out(self, name: str, parts: SparseParts | DenseParts) -> SparseParts | DenseParts:
        if self.layout is None or (isinstance(parts, DenseParts) and name != "X"):
            return parts
        if isinstance(parts, DenseParts):
            parts = _sparse_of(parts)
        return parts if parts.is_csc == (self.layout == "csc") else _turned(parts)


class _LazyLayers(dict[str, Any]):
    """Layers that are changed one by one, when they are written."""

    def __init__(self, layers: Any, values: _Values) -> None:
        super().__init__(dict.fromkeys(layers.keys()))
        self._layers, self._values = layers, values

    def items(self) -> Any:
        """Pairs of name and value."""
        return (
            (name, self._values.matrix(f"layers/{name}", value))
            for name, value in self._layers.items()
        )


def _parts_of(value: Any, name: str) -> SparseParts | DenseParts:
    """Any matrix as blocks."""
    if isinstance(value, MatrixHandle):
        value = from_file(value)
    elif not isinstance(value, (SparseParts, DenseParts, Compressed, CSR, np.ndarray)):
        value = _coding.to_plain(value, f"/{name}")
    if isinstance(value, (SparseParts, DenseParts)):
        return value
    if isinstance(value, np.ndarray):
        return _dense_of(value)
    is_csc = getattr(value, "is_csc", False)
    counts = np.diff(value.indptr)
    return SparseParts(
        is_csc, value.shape, value.data.dtype, lambda: iter([(value.data, value.indices, counts)])
    )


def _dense_of(array: NDArray[Any]) -> DenseParts:
    step = max(1, _BLOCK_NBYTES // max(1, int(np.prod(array.shape[1:])) * array.itemsize))
    return DenseParts(
        array.shape,
        array.dtype,
        lambda: (array[i : i + step] for i in range(0, len(array), step)),
    )


def _sparse_of(parts: DenseParts) -> SparseParts:
    def blocks() -> Iterator[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]]:
        for rows in parts.blocks():
            data, indices, indptr = _core.csr_from_dense(np.ascontiguousarray(rows))
            yield data, indices, np.diff(indptr)

    return SparseParts(False, (parts.shape[0], parts.shape[1]), parts.dtype, blocks)


def _turned(parts: SparseParts) -> SparseParts:
    """CSR to CSC or back, in memory."""
    n_major, n_minor = parts.shape[:: -1 if parts.is_csc else 1]

    def blocks() -> Iterator[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]]:
        every = list(parts.blocks())
        data = np.concatenate([b[0] for b in every]) if every else np.empty(0, parts.dtype)
        indices = np.concatenate([b[1] for b in every]) if every else np.empty(0, np.int32)
        counts = np.concatenate([np.zeros(1, np.int64), *(b[2] for b in every)])
        del every
        turned = _core.csr_transpose(data, indices, np.cumsum(counts), shape=(n_major, n_minor))
        yield turned[0], turned[1], np.diff(turned[2])

    return SparseParts(not parts.is_csc, parts.shape, parts.dtype, blocks)


def _values_of(parts: SparseParts | DenseParts) -> Iterator[NDArray[Any]]:
    for block in parts.blocks():
        yield np.asarray(block if isinstance(parts, DenseParts) else block[0])


def _narrowest(parts: SparseParts | DenseParts) -> np.dtype[Any]:
    """The smallest type that holds all values; looks at each."""
    if parts.dtype.kind not in "iuf":
        return parts.dtype
    low, high = 0.0, 0.0
    is_whole, fits32 = True, True
    for values in _values_of(parts):
        if not values.size:
            continue
        if values.dtype.kind == "f":
            is_whole &= bool((np.isfinite(values) & (values == np.trunc(values))).all())
            if not is_whole and values.dtype.itemsize > 4:
                with np.errstate(over="ignore"):
                    single = values.astype(np.float32)
                fits32 &= bool(np.array_equal(single, values, equal_nan=True))
        if is_whole:
            low, high = min(low, int(values.min())), max(high, int(values.max()))
    if not is_whole:
        return np.dtype(np.float32) if fits32 and parts.dtype.itemsize > 4 else parts.dtype
    for name in _NARROW:
        facts = np.iinfo(name)
        if facts.min <= low and high <= facts.max:
            smallest = np.dtype(name)
            return smallest if smallest.itemsize < parts.dtype.itemsize else parts.dtype
    return parts.dtype


def _cast(parts: SparseParts | DenseParts, dtype: np.dtype[Any], where: str) -> Any:
    def cast(values: NDArray[Any], n_before: int) -> NDArray[Any]:
        with np.errstate(invalid="ignore", over="ignore"):
            out = values.astype(dtype)
        same = out == values
        if dtype.kind == "f":  # rounding is what a shorter float is for, overflow is not
            same |= (np.isfinite(out) & np.isfinite(values)) | (np.isnan(out) & np.isnan(values))
        if dtype.kind in "iu":  # what wraps may compare equal: 2.0**63 becomes 2**63 - 1
            facts = np.iinfo(dtype)
            top: Any = (
                2.0 ** (facts.max.bit_length()) if values.dtype.kind == "f" else facts.max + 1
            )
            same &= (values >= facts.min) & (values < top)
        if not same.all():
            at = int(np.argmin(same))
            message = (
                f"{where} has the value {values.reshape(-1)[at]} (entry {n_before + at}), which "
                f"does not fit {dtype.name}"
            )
            raise ValueError(message)
        return out

    def sparse() -> Iterator[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]]:
        n = 0
        for data, indices, counts in parts.blocks():
            yield cast(data, n), indices, counts
            n += len(data)

    def dense() -> Iterator[NDArray[Any]]:
        n = 0
        for rows in parts.blocks():
            yield cast(np.asarray(rows), n)
            n += np.asarray(rows).size

    if isinstance(parts, SparseParts):
        return SparseParts(parts.is_csc, parts.shape, dtype, sparse)
    return DenseParts(parts.shape, dtype, dense)


# ---- reading and writing


def _write_h5ad(
    source: str,
    target: str,
    form: str,
    modality: str | None,
    genome: str | None,
    change: _Values,
    context: Context,
    overwrite: bool,
) -> None:
    if form == "h5ad":
        with AnnDataFile(source) as file:
            is_old = file.file.scalar_attr("/", "encoding-type") is None
            value = file.to_memory() if is_old else file
            members = (
                _coding.members_of(value, convert_strings=False)
                if is_old
                else members_of_file(file)
            )
            _publish(target, change.members(members), context, overwrite)
            file.file.core.check_unchanged()
        return
    adata = _read(source, form, modality, genome)
    members = _coding.members_of(adata, convert_strings=False)
    _publish(target, change.members(members), context, overwrite)


def _publish(target: str, members: Members, context: Context, overwrite: bool) -> None:
    with published_file(target, overwrite=overwrite) as writer:
        write_element(writer, "/", members, context)
        writer.attr("/", MARK, mark_of(context))


def _write_h5mu(
    source: str,
    target: str,
    form: str,
    modality: str | None,
    genome: str | None,
    change: _Values,
    context: Context,
    overwrite: bool,
) -> None:
    """Write a MuData file, of all modalities or of one matrix."""
    from scio.io.mudata import read_h5mu, write_h5mu

    mudata = require("mudata", "converting to .h5mu")
    if not change.is_idle:
        message = "layout, dtype and narrow are for .h5ad targets: convert the modality first"
        raise UnsupportedError(message)
    name = modality or "rna"
    if form == "h5mu" and modality is None:
        mdata = read_h5mu(source)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", category=FutureWarning)  # mudata's own
            mdata = mudata.MuData({name: _read(source, form, modality, genome)})
    options = context.options
    report = write_h5mu(
        mdata,
        target,
        compression=options.compression,
        compression_opts=options.compression_opts,
        shuffle=options.shuffle,
        checksums=options.checksums,
        compat=context.profile.compat,
        overwrite=overwrite,
        convert_strings_to_categoricals=False,
    )
    context.report.elements.extend(report.elements)


def _read(source: str, form: str, modality: str | None, genome: str | None) -> Any:
    """Read a source of another form into an AnnData, with the types of its values."""
    from scio.io import loom, mtx, mudata, read, tenx

    if form == "h5ad":
        return read.read_h5ad(source)
    if form == "h5mu":
        return mudata.read_h5mu(source, modality=_modality(source, modality))
    if form == "mtx":
        return mtx.read_10x_mtx(source, make_unique=False, gex_only=False)
    if form == "loom":
        with_dtype = _dtype_at(source, "/matrix")
        return loom.read_loom(source, dtype=with_dtype)
    with warnings.catch_warnings():
        # repeated names are kept, as the file has them
        warnings.filterwarnings("ignore", category=ScioWarning, message=".*not unique.*")
        return tenx.read_10x_h5(source, genome=genome, gex_only=False, dtype=_tenx_dtype(source))


def _dtype_at(source: str, path: str) -> str:
    file = HDF5File(source)
    try:
        return file.dataset(path).dtype or "float32"
    finally:
        file.close()


def _tenx_dtype(source: str) -> str:
    file = HDF5File(source)
    try:
        paths = [p for p in ("/matrix", *(f"/{n}" for n in file.keys("/"))) if f"{p}/data" in file]
        return str(file.dataset(f"{paths[0]}/data").dtype) if paths else "float32"
    finally:
        file.close()


def _modality(source: str, modality: str | None) -> str:
    if modality is not None:
        return modality
    file = HDF5File(source)
    try:
        names = file.keys("/mod") if file.kind("/mod") == "group" else []
    finally:
        file.close()
    if len(names) != 1:
        listed = ", ".join(names) or "none"
        message = f"{source} has the modalities {listed}; an .h5ad holds one: choose with modality="
        raise ValueError(message)
    return names[0]


# ---- the report


def _report(
    source: str,
    target: str,
    form: str,
    modality: str | None,
    genome: str | None,
    written: WriteReport,
) -> ConvertReport:
    report = ConvertReport(source, target, form, nbytes=os.stat(target).st_size)
    new = HDF5File(target)
    try:
        targets = elements_of(new)
    finally:
        new.close()
    for path in list(targets):  # one dataset of old files may have become a group
        targets.setdefault(path.rpartition("/")[0] or "/", "group")
    for path, kind in _sources(source, form).items():
        found = next((t for t in _candidates(path, form, modality, targets) if t in targets), "")
        loss = "" if found else _why_lost(path, form, modality, written)
        report.changes.append(Change(path, found, kind, targets.get(found, ""), loss))
    known = {c.source for c in report.changes}
    for row in written.losses:
        if row.element not in known:
            report.changes.append(Change(row.element, "", "", "", row.loss))
    return report


def _sources(source: str, form: str) -> dict[str, str]:
    if form == "mtx":
        return {"matrix": "csc_matrix", "barcodes": "string", "features": "string"}
    file = HDF5File(source)
    try:
        return elements_of(file)
    finally:
        file.close()


def _candidates(
    path: str, form: str, modality: str | None, targets: Mapping[str, str]
) -> Iterator[str]:
    """Where an element of the source may lie in the target."""
    base = next((f"/mod/{n.split('/')[2]}" for n in targets if n.startswith("/mod/")), "")
    last = path.rpartition("/")[2]
    if form in ("h5ad", "h5mu"):
        if form == "h5mu" and not base:
            parts = path.split("/", 3)
            if parts[1] == "mod" and (modality is None or parts[2] == modality):
                inside = f"/{parts[3]}" if len(parts) > 3 else "/"
                yield inside
                yield from _old_places(inside, "")
            return
        yield path if form == "h5mu" else base + path
        yield from _old_places(path, base)
        return
    if form == "mtx":
        places = {"matrix": "/X", "barcodes": "/obs/_index", "features": "/var/_index"}
        yield base + places[path]
    elif form == "10x":
        yield from (base + p for p in _tenx_places(path, last))
    else:
        yield from (base + p for p in _loom_places(path, last))


def _old_places(path: str, base: str) -> Iterator[str]:
    """Files of anndata 0.7 and before."""
    if path.startswith("/raw."):
        yield f"{base}/raw/{path[5:]}"
    if path.startswith("/uns/neighbors/"):
        yield f"{base}/obsp/{path.rpartition('/')[2]}"
    if "/__categories/" in path:
        yield base + path.replace("/__categories/", "/")
    if path.startswith("/uns/") and path.endswith("_categories"):
        name = path[5 : -len("_categories")]
        yield from (f"{base}/{axis}/{name}" for axis in ("obs", "var"))


def _tenx_places(path: str, last: str) -> Iterator[str]:
    names = {"genes": "gene_ids", "id": "gene_ids", "feature_type": "feature_types"}
    if last == "barcodes":
        yield "/obs/_index"
    elif path.count("/") == 1:
        yield "/X"
    elif last in ("name", "gene_names"):
        yield "/var/_index"
    else:
        yield f"/var/{names.get(last, last)}"
        yield f"/obs/{last}"
        yield f"/obsm/{last}"
        yield f"/uns/{last}"


def _loom_places(path: str, last: str) -> Iterator[str]:
    group = path.strip("/").split("/")[0]
    axes = {"row_attrs": "var", "col_attrs": "obs", "row_graphs": "varp", "col_graphs": "obsp"}
    if group == "matrix":
        yield "/X"
        yield "/layers/matrix"
    elif group == "layers":
        yield f"/layers/{last}"
        yield "/X"
    elif group in ("row_attrs", "col_attrs"):
        axis = axes[group]
        yield f"/{axis}/{last}"
        yield f"/{axis}m/{last}"
    elif group in axes:
        yield f"/{axes[group]}/{path.strip('/').split('/')[1]}"


def _why_lost(path: str, form: str, modality: str | None, written: WriteReport) -> str:
    row = next((w for w in written.losses if w.element == path), None)
    if row is not None:
        return row.loss
    if form == "h5mu" and path.startswith("/mod/"):
        return "another modality"
    if form == "h5mu":
        return "shared by the modalities"
    if path.endswith("_all_tag_keys"):
        return "a list of the members' names"
    return "has no place in the target"
