"""One planner for each encoding of the AnnData format: headers now, values when the plan has run.

Values are what anndata makes of the element: NumPy, SciPy and pandas objects.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scio import _core
from scio._names import near_names
from scio._optional import require
from scio._storage.keys import key_of_names
from scio.errors import CorruptFileError, UnsafeFileError, UnsupportedError
from scio.io._plan import Deferred, Plan, Rows
from scio.io._select import Notes, OpaqueElement, Wanted
from scio.io.elements import check_codes

_MAX_DEPTH = 64
_I32_MAX = np.iinfo(np.int32).max

# encoding-type -> (kind of object, newest version that is known, method)
_ENCODINGS = {
    "anndata": ("group", (0, 1), "anndata"),
    "raw": ("group", (0, 1), "anndata"),
    "csr_matrix": ("group", (0, 1), "sparse"),
    "csc_matrix": ("group", (0, 1), "sparse"),
    "array": ("dataset", (0, 2), "array"),
    "string-array": ("dataset", (0, 2), "array"),
    "dataframe": ("group", (0, 2), "frame"),
    "categorical": ("group", (0, 2), "categorical"),
    "nullable-integer": ("group", (0, 1), "nullable"),
    "nullable-boolean": ("group", (0, 1), "nullable"),
    "nullable-string-array": ("group", (0, 1), "nullable_strings"),
    "dict": ("group", (0, 1), "mapping"),
    "string": ("dataset", (0, 2), "array"),
    "numeric-scalar": ("dataset", (0, 2), "number"),
    "bytes": ("dataset", (0, 2), "bytes_"),
    "rec-array": ("dataset", (0, 2), "records"),
    "awkward-array": ("group", (0, 1), "awkward"),
    "null": ("dataset", (0, 1), "null"),
}
_SPARSE = {"csr_matrix": "csr", "csc_matrix": "csc", "csr": "csr", "csc": "csc"}


class ElementReader:
    """Plans elements of one file.

    Parameters
    ----------
    plan : Plan
        Takes the datasets.
    wanted : Wanted
        What is read of groups.
    notes : Notes
        Takes what cannot be read.
    """

    def __init__(self, plan: Plan, wanted: Wanted, notes: Notes) -> None:
        self.plan = plan
        self.file = plan.file
        self.wanted = wanted
        self.notes = notes
        self.key = key_of_names(plan.file)
        self.moved: set[str] = set()  # planned elsewhere, left out of the group they lie in
        self._above: list[tuple[int, str]] = []  # the groups that are being planned: address, path

    # --- dispatch

    def element(self, path: str, axes: Sequence[Rows] = ()) -> Deferred:
        """Plan an element of any encoding.

        Parameters
        ----------
        path : str
        axes : sequence of Rows
            What is wanted of its first dimensions.

        Returns
        -------
        callable
            Gives the value once the plan has run.

        Raises
        ------
        CorruptFileError
            If a rule is broken that the headers show.
        UnsupportedError
            If the encoding or a type in it is not known.
        """
        kind = self._kind(path)
        if kind == "dataset":
            return self._of_kind(path, kind, axes)
        with self._inside(path):
            return self._of_kind(path, kind, axes)

    def _of_kind(self, path: str, kind: str, axes: Sequence[Rows]) -> Deferred:
        encoding = self.encoding(path)
        if encoding is None:
            return self._untagged(path, kind, axes)
        if encoding not in _ENCODINGS:
            version = self.file.scalar_attr(path, "encoding-version", "?")
            message = (
                f"{self.file.name}: {path} has encoding {encoding!r} version {version}, "
                "which this release of scio does not read"
            )
            raise UnsupportedError(message)
        wanted_kind, newest, method = _ENCODINGS[encoding]
        if kind != wanted_kind:
            raise self._corrupt(
                path, f"has encoding-type {encoding!r}, expected a {wanted_kind}, found a {kind}"
            )
        self._check_version(path, encoding, newest)
        planned: Deferred = getattr(self, method)(path, axes)
        return planned

    def expected(self, path: str, method: str, axes: Sequence[Rows] = ()) -> Deferred:
        """Plan what the place calls for: "frame" or "mapping", with or without an encoding-type.

        Raises
        ------
        CorruptFileError, UnsupportedError
            As `element`; also when the encoding is another one.
        """
        encoding = self.encoding(path)
        if encoding is None:
            planned: Deferred = getattr(self, method)(path, axes)
            return planned
        known = _ENCODINGS.get(encoding)
        if known is not None and known[2] != method:
            wanted = "dataframe" if method == "frame" else "dict"
            raise self._corrupt(path, f"has encoding-type {encoding!r}, expected {wanted!r}")
        return self.element(path, axes)

    def encoding(self, path: str) -> str | None:
        """Return the encoding-type of an element, None when its writer gave none.

        Raises
        ------
        CorruptFileError
            If the attribute is no string.
        """
        encoding = self.file.scalar_attr(path, "encoding-type")
        if encoding is not None and not isinstance(encoding, str):
            raise self._corrupt(path, f"has encoding-type {encoding}, expected a string")
        return encoding or None

    def flag(self, path: str, name: str) -> bool:
        """Return an attribute that says yes or no; no when it is absent."""
        value = self.file.scalar_attr(path, name, default=False)
        if np.ndim(value) or isinstance(value, str):
            raise self._corrupt(path, f"has attribute {name} {value}, expected true or false")
        return bool(value)

    def _kind(self, path: str) -> str:
        kind = self.file.kind(path)
        if kind is None:
            parent, _, name = path.rpartition("/")
            near = near_names(name, self.file.keys(parent or "/"))
            raise self._corrupt(path, f"does not exist; {near}")
        if kind not in ("group", "dataset"):
            message = f"{self.file.name}: {path} is a {kind}, no element of AnnData"
            raise UnsupportedError(message)
        return kind

    def _check_version(self, path: str, encoding: str, newest: tuple[int, int]) -> None:
        text = str(self.file.scalar_attr(path, "encoding-version", default=""))
        parts = text.split(".")
        if len(parts) < 2 or not (parts[0].isdigit() and parts[1].isdigit()):
            return
        version = (int(parts[0]), int(parts[1]))
        if version[0] > newest[0]:
            message = (
                f"{self.file.name}: {path} has encoding {encoding!r} version {text}; "
                f"this release of scio reads {newest[0]}.x"
            )
            raise UnsupportedError(message)
        if version > newest:
            self.notes.remarks.append(
                f"{path} has encoding {encoding!r} version {text}, newer than "
                f"{newest[0]}.{newest[1]}: read as that"
            )

    def _untagged(self, path: str, kind: str, axes: Sequence[Rows]) -> Deferred:
        """An element of a writer that says nothing: known by its kind and its members."""
        if kind == "dataset":
            return self._untagged_dataset(path, axes)
        names = self.file.attr_names(path)
        if "h5sparse_format" in names:
            return self.sparse(path, axes)
        if "_index" in names:
            return self.frame(path, axes)
        return self.mapping(path, axes)

    def _untagged_dataset(self, path: str, axes: Sequence[Rows]) -> Deferred:
        info = self.file.dataset(path).type
        if info["class"] == "compound" and info["dtype"] is None:
            return self.records(path, axes)
        values = self.plan.values(path, axes)
        if info["class"] != "string" or info["utf8"]:
            return values

        def finish() -> Any:  # fixed ASCII: before 0.7 also scalars, as arrays of one element
            array = np.asarray(values()).astype(np.str_)
            return array.reshape(-1)[0] if array.size == 1 and array.ndim < 2 else array

        return finish

    def _corrupt(self, path: str, text: str, member: str = "") -> CorruptFileError:
        place = f"{path}/{member}" if member else path
        return CorruptFileError(f"{self.file.name}: {place} {text}")

    # --- groups

    @contextmanager
    def tolerant(self, path: str) -> Iterator[None]:
        """What is planned inside may be of a kind that is not known: it is kept as a reference."""
        mark = self.plan.mark()
        try:
            yield
        except UnsupportedError as error:
            self.plan.go_back(mark)
            if self.wanted.names(path.strip("/")):
                raise
            prefix = f"{self.file.name}: {path} "
            self.skip(path, str(error).removeprefix(prefix).removeprefix(f"{prefix[:-1]}: "))

    def skip(self, path: str, reason: str, kind: str | None = None) -> None:
        """Note an element that is not read."""
        attributes = {}
        if kind is None:
            kind = self.file.kind(path) or "unknown"
            for name in self.file.attr_names(path) if kind != "unknown" else ():
                try:
                    attributes[name] = self.file.attr(path, name)
                except (UnsupportedError, CorruptFileError):  # of a thing that is unknown anyway
                    continue
        self.notes.opaque.append(OpaqueElement(self.file.name, path, kind, reason, attributes))

    def members(self, path: str) -> list[str]:
        """Names of the members that lie in the file; soft links are noted and left out.

        Raises
        ------
        UnsafeFileError
            If a member leads out of the file.
        """
        if self.file.kind(path) != "group":
            raise self._corrupt(path, f"is a {self.file.kind(path)}, expected a group")
        names = []
        for name, kind, _, target, target_file in self.file.core.links(path):
            member = f"{path.rstrip('/')}/{name}"
            if not name.isprintable() and any("\ud800" <= c <= "\udfff" for c in name):
                raise self._corrupt(path, f"has a member whose name is not UTF-8: {name!a}")
            if kind == "hard":
                names.append(name)
            elif kind == "soft":
                self.skip(member, f"to {target}", "soft link")
            elif self.wanted.enters(member.strip("/")):
                message = (
                    f"{self.file.name}: {member} is a link that leads out of the file "
                    f"({target_file}: {target}), which scio does not follow"
                )
                raise UnsafeFileError(message)
        return names

    @contextmanager
    def _inside(self, path: str) -> Iterator[None]:
        here = self.file.core.address(path), path
        if self._above and self._above[-1] == here:  # by another way in, nothing is between
            yield
            return
        if any(address == here[0] for address, _ in self._above):
            raise self._corrupt(path, "contains itself")
        if len(self._above) >= _MAX_DEPTH:
            raise self._corrupt(path, f"is {_MAX_DEPTH} groups deep")
        self._above.append(here)
        try:
            yield
        finally:
            self._above.pop()

    def mapping(self, path: str, axes: Sequence[Rows] = ()) -> Deferred:
        """Plan a dict of elements, or (before 0.7) a compound dataset with a field for each."""
        if self.file.kind(path) == "dataset":
            return self._fields(path, axes)
        planned: dict[str, Deferred] = {}
        with self._inside(path):
            for name in self.members(path):
                member = f"{path.rstrip('/')}/{name}"
                if member in self.moved:
                    continue
                with self.tolerant(member):
                    if self.wanted.has(member.strip("/")):
                        planned[name] = self.element(member, axes)
                    elif self._is_entered(member):
                        planned[name] = self.mapping(member, axes)
        return lambda: {self.key(name): value() for name, value in planned.items()}

    def _is_entered(self, path: str) -> bool:
        return (
            self.wanted.enters(path.strip("/"))
            and self.file.kind(path) == "group"
            and self.encoding(path) in (None, "dict")
        )

    def _fields(self, path: str, axes: Sequence[Rows]) -> Deferred:
        records = self.records(path, axes)
        prefix = path.strip("/")

        def finish() -> dict[str, NDArray[Any]]:
            values = records()
            if values is None or values.dtype.names is None:
                return {}
            return {
                name: np.ascontiguousarray(values[name])
                for name in values.dtype.names
                if self.wanted.has(f"{prefix}/{name}")
            }

        return finish

    def anndata(self, path: str, axes: Sequence[Rows] = ()) -> Deferred:
        """Plan an AnnData inside another one."""
        from scio.io._assemble import plan_anndata

        with self._inside(path):
            return plan_anndata(self, path)

    # --- datasets

    def array(self, path: str, axes: Sequence[Rows] = ()) -> Deferred:
        """Plan numbers or strings of any rank."""
        return self.plan.values(path, axes)

    def number(self, path: str, axes: Sequence[Rows] = ()) -> Deferred:
        """Plan a scalar as a Python number."""
        value = self.plan.values(path)
        if self.file.dataset(path).shape not in ((), (1,)):
            shape = self.file.dataset(path).shape
            raise self._corrupt(path, f"has shape {shape}, a number has none")

        def finish() -> Any:
            number = value()
            return number.item() if hasattr(number, "item") else number

        return finish

    def bytes_(self, path: str, axes: Sequence[Rows] = ()) -> Deferred:
        """Plan a scalar of bytes: opaque, a string of any kind, or a sequence of uint8."""
        info = self.file.dataset(path).type
        raw = self.plan.values(path, is_raw=True)

        def finish() -> bytes:
            if info["class"] == "vlen":
                return self.file.core.vlen(info, raw().reshape(1, -1))[1].tobytes()
            value: bytes = raw().tobytes()
            return value.rstrip(b"\0") if info["class"] == "string" else value

        return finish

    def null(self, path: str, axes: Sequence[Rows] = ()) -> Deferred:
        """Plan None."""
        return lambda: None

    def records(self, path: str, axes: Sequence[Rows] = ()) -> Deferred:
        """Plan a compound dataset; fields of fixed strings become NumPy strings, as in anndata."""
        info = self.file.dataset(path).type
        values = self.plan.values(path, axes)
        if info["class"] != "compound":
            raise self._corrupt(path, f"holds {info['class']}, a record array is compound")
        widths = {m[0]: m[2]["itemsize"] for m in info["members"] if m[2]["class"] == "string"}

        def finish() -> Any:
            array = values()
            if array is None or array.dtype.names is None or not widths:
                return array
            fields: list[Any] = [
                (name, f"U{widths[name]}" if name in widths else array.dtype[name])
                for name in array.dtype.names
            ]
            return array.astype(fields)

        return finish

    # --- sparse

    def sparse(self, path: str, axes: Sequence[Rows] = ()) -> Deferred:
        """Plan a CSR or CSC matrix as SciPy's class, both index arrays int32 where they fit."""
        form = self._sparse_format(path)
        shape = self._sparse_shape(path, axes)
        self.plan.check_axes(path, shape, axes)
        data, indices, indptr = self._sparse_members(path)
        major, minor = shape if form == "csr" else shape[::-1]
        nnz = int((data.shape or (0,))[0])
        for name, dataset, expected in (("indices", indices, nnz), ("indptr", indptr, major + 1)):
            if dataset.shape != (expected,):
                raise self._corrupt(
                    path, f"has shape {dataset.shape}, expected ({expected},)", name
                )
            if dataset.type["class"] != "integer":
                raise self._corrupt(path, f"holds {dataset.type['class']}, expected integers", name)
        if any(rows.index is not None for rows in axes):
            return self._sparse_selected(path, form, shape, axes)
        is_narrow = max(major, minor, nnz) <= _I32_MAX
        index_dtype = "int32" if is_narrow else "int64"
        values = self._sparse_data(path, data)
        columns = self.plan.numbers(indices, index_dtype, limit=minor)
        extents = self.plan.numbers(indptr, "int64")

        def finish() -> Any:
            ptr, col = extents(), columns()
            try:
                _core.csr_validate(None, col, ptr, shape=(major, minor), level="structure")
            except CorruptFileError as error:
                message = f"{self.file.name}: {path}/{error}"
                raise CorruptFileError(message) from error
            return _scipy_matrix(form, values(), col, ptr.astype(index_dtype, copy=False), shape)

        return finish

    def dense_as_sparse(self, path: str, axes: Sequence[Rows]) -> Deferred:
        """Plan a dense matrix as CSR, in blocks of rows."""
        shape = self.file.dataset(path).shape or ()
        self.plan.check_axes(path, shape, axes)
        rows, cols = axes

        def finish() -> Any:
            matrix = _core.Matrix.open_dense(self.file.core, path)
            span = rows.range
            if span is not None:
                arrays = matrix.read(*span)
            else:
                assert rows.index is not None
                arrays = matrix.take(rows.index)
            csr = _scipy_matrix("csr", *_narrow(arrays), (len(rows), shape[1]))
            return csr if cols.index is None else csr[:, cols.index]

        return finish

    def _sparse_format(self, path: str) -> str:
        for name in ("encoding-type", "h5sparse_format"):
            text = self.file.scalar_attr(path, name)
            if isinstance(text, str) and text in _SPARSE:
                return _SPARSE[text]
        raise self._corrupt(path, "has no sparse format that is csr or csc")

    def _sparse_shape(self, path: str, axes: Sequence[Rows]) -> tuple[int, int]:
        for name in ("shape", "h5sparse_shape"):
            value = self.file.attr(path, name)
            if value is None:
                continue
            numbers = np.asarray(value).reshape(-1)
            if numbers.dtype.kind not in "iu":
                raise self._corrupt(path, f"has attribute {name} {value}, expected two sizes")
            sizes = [int(v) for v in numbers]
            if len(sizes) != 2 or min(sizes) < 0:
                raise self._corrupt(path, f"has attribute {name} {sizes}, expected two sizes")
            return (sizes[0], sizes[1])
        if len(axes) == 2:
            return (axes[0].n_total, axes[1].n_total)
        raise self._corrupt(path, "has no attribute shape")

    def _sparse_members(self, path: str) -> list[_core.Dataset]:
        present = self.file.keys(path)
        missing = [name for name in ("data", "indices", "indptr") if name not in present]
        if missing:
            raise self._corrupt(
                path, f"lacks {', '.join(missing)}; a sparse matrix has data, indices, indptr"
            )
        members = [self.file.dataset(f"{path}/{name}") for name in ("data", "indices", "indptr")]
        shape = members[0].shape
        if shape is None or len(shape) != 1:
            raise self._corrupt(path, f"has shape {shape}, expected one dimension", "data")
        return members

    def _sparse_data(self, path: str, data: _core.Dataset) -> Deferred:
        if data.dtype is None and data.type["class"] not in ("compound", "complex"):
            raise self._corrupt(path, f"holds {data.type['class']}, expected numbers", "data")
        if data.dtype == "float16":  # SciPy has no such matrix; every float16 is a float32
            return self.plan.numbers(data, "float32")
        return self.plan.values(f"{path}/data")

    def _sparse_selected(
        self, path: str, form: str, shape: tuple[int, int], axes: Sequence[Rows]
    ) -> Deferred:
        """Rows of CSR (columns of CSC) decode only the chunks that hold them."""
        rows = axes[0]
        cols = axes[1] if len(axes) > 1 else Rows(shape[1])
        major, minor = (rows, cols) if form == "csr" else (cols, rows)
        data = self.file.dataset(f"{path}/data")
        share = len(major) / max(1, major.n_total)
        itemsize = np.dtype(data.dtype).itemsize if data.dtype else 16
        self.plan.nbytes += int(share * (data.shape or (0,))[0] * (itemsize + 4))

        def finish() -> Any:
            matrix = _core.Matrix.open_sparse(
                self.file.core, path, shape=(major.n_total, minor.n_total)
            )
            span = major.range
            if span is not None:
                values, indices, indptr = matrix.read(*span)
            else:
                assert major.index is not None
                values, indices, indptr = matrix.take(major.index)
            kept = _scipy_matrix(
                "csr", *_narrow((values, indices, indptr)), (len(major), minor.n_total)
            )
            if minor.index is not None:
                kept = kept[:, minor.index]
            return kept if form == "csr" else kept.T

        return finish

    # --- frames and their columns

    def frame(self, path: str, axes: Sequence[Rows] = ()) -> Deferred:
        """Plan a data frame, as a group or (before 0.7) as a compound dataset."""
        from scio.io._frames import plan_frame

        return plan_frame(self, path, axes[0] if axes else None)

    def categorical(self, path: str, axes: Sequence[Rows] = ()) -> Deferred:
        """Plan labels that are stored as codes."""
        self._require(path, "codes", "categories")
        ordered = self.flag(path, "ordered")
        return self.categories(path, f"{path}/codes", f"{path}/categories", ordered, axes)

    def categories(
        self, path: str, codes_path: str, labels_path: str, ordered: bool, axes: Sequence[Rows]
    ) -> Deferred:
        """Plan a ``pandas.Categorical`` from two elements."""
        pandas = require("pandas", "scio.read_h5ad")
        codes = self.column_values(codes_path, axes)
        if self.file.dataset(codes_path).type["class"] not in ("integer", "enum"):
            found = self.file.dataset(codes_path).type["class"]
            raise self._corrupt(codes_path, f"holds {found}, codes are integers")
        labels = self.element(labels_path)

        def finish() -> Any:
            numbers, names = codes(), labels()
            names = names if hasattr(names, "dtype") and np.ndim(names) else np.atleast_1d(names)
            check_codes(self.file.name, codes_path, numbers, len(names))
            if numbers.dtype.kind != "i":
                numbers = numbers.astype(np.int64)
            try:
                return pandas.Categorical.from_codes(numbers, categories=names, ordered=ordered)
            except ValueError as error:  # equal or missing categories
                raise self._corrupt(labels_path, f"is no set of categories: {error}") from error

        return finish

    def column_values(self, path: str, axes: Sequence[Rows]) -> Deferred:
        """Plan a dataset of one dimension."""
        if self._kind(path) != "dataset":
            raise self._corrupt(path, "is a group, expected a dataset")
        shape = self.file.dataset(path).shape
        if shape is None or len(shape) != 1:
            raise self._corrupt(path, f"has shape {shape}, a column has one dimension")
        return self.plan.values(path, axes)

    def _require(self, path: str, *names: str) -> None:
        present = self.file.keys(path)
        missing = [name for name in names if name not in present]
        if missing:
            raise self._corrupt(path, f"lacks {', '.join(missing)}; it needs {', '.join(names)}")

    def _masked(self, path: str, axes: Sequence[Rows]) -> tuple[Deferred, Deferred]:
        self._require(path, "values", "mask")
        values = self.column_values(f"{path}/values", axes)
        mask = self.column_values(f"{path}/mask", axes)
        n_values = (self.file.dataset(f"{path}/values").shape or (0,))[0]
        n_mask = (self.file.dataset(f"{path}/mask").shape or (0,))[0]
        if n_values != n_mask:
            raise self._corrupt(path, f"has {n_mask} entries, values has {n_values}", "mask")
        if self.file.dataset(f"{path}/mask").type["class"] not in ("integer", "enum", "bitfield"):
            raise self._corrupt(path, "does not hold true and false", "mask")
        return values, lambda: mask().astype(np.bool_, copy=False)

    def nullable(self, path: str, axes: Sequence[Rows] = ()) -> Deferred:
        """Plan numbers or booleans that may be missing, as an array of pandas."""
        pandas = require("pandas", "scio.read_h5ad")
        values, mask = self._masked(path, axes)
        is_bool = self.encoding(path) == "nullable-boolean"

        def finish() -> Any:
            array, missing = values(), mask()
            if is_bool:
                return pandas.arrays.BooleanArray(array.astype(np.bool_, copy=False), missing)
            if array.dtype.kind == "f":
                return pandas.arrays.FloatingArray(array, missing)
            if array.dtype.kind not in "iu":
                raise self._corrupt(path, f"holds {array.dtype}, expected integers", "values")
            return pandas.arrays.IntegerArray(array, missing)

        return finish

    def nullable_strings(self, path: str, axes: Sequence[Rows] = ()) -> Deferred:
        """Plan strings that may be missing, as an array of pandas."""
        pandas = require("pandas", "scio.read_h5ad")
        values, mask = self._masked(path, axes)

        def finish() -> Any:
            strings = values()
            strings[mask()] = None
            return pandas.array(strings, dtype=pandas.StringDtype())

        return finish

    def awkward(self, path: str, axes: Sequence[Rows] = ()) -> Deferred:
        """Plan an awkward array; without the library it is not read."""
        try:
            ak = require("awkward", f"{self.file.name}: {path}")
        except ImportError as error:
            raise UnsupportedError(str(error)) from error
        form = self.file.scalar_attr(path, "form")
        length = self.file.scalar_attr(path, "length")
        if not isinstance(form, str) or not isinstance(length, (int, np.integer)) or length < 0:
            raise self._corrupt(path, "lacks the attributes form and length of an awkward array")
        if axes and int(length) != axes[0].n_total:
            raise self._corrupt(path, f"has length {length}, expected {axes[0].n_total}")
        buffers = {name: self.element(f"{path}/{name}") for name in self.members(path)}

        def finish() -> Any:
            whole = ak.from_buffers(form, int(length), {k: v() for k, v in buffers.items()})
            return whole if not axes or axes[0].index is None else whole[axes[0].index]

        return finish


def _narrow(
    arrays: tuple[NDArray[Any], NDArray[Any], NDArray[Any]],
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """(data, indices, indptr) in types that SciPy has, both index arrays int32 where they fit."""
    data, indices, indptr = arrays
    if data.dtype == np.float16:
        data = data.astype(np.float32)
    is_narrow = indices.dtype.itemsize <= np.dtype(np.int32).itemsize and len(data) <= _I32_MAX
    if not is_narrow and len(indices) <= _I32_MAX:
        is_narrow = int(indices.max(initial=0)) <= _I32_MAX
    dtype = np.dtype(np.int32 if is_narrow else np.int64)
    return data, indices.astype(dtype, copy=False), indptr.astype(dtype, copy=False)


def _scipy_matrix(
    form: str,
    data: NDArray[Any],
    indices: NDArray[Any],
    indptr: NDArray[Any],
    shape: tuple[int, int],
) -> Any:
    """SciPy's object over arrays that have been checked; nothing is looked at or copied again."""
    sparse = require("scipy.sparse", "scio.read_h5ad")
    anndata = require("anndata", "scio.read_h5ad")
    is_array = getattr(anndata.settings, "use_sparse_array_on_read", False)
    matrix = getattr(sparse, f"{form}_{'array' if is_array else 'matrix'}")(shape, dtype=data.dtype)
    matrix.data, matrix.indices, matrix.indptr = data, indices, indptr
    return matrix
