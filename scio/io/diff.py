"""`scio.diff`: where two files differ, element by element, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scio import _core
from scio.errors import CorruptFileError, UnsupportedError
from scio.io import _values
from scio.io._encodings import _SPARSE
from scio.io._report import Report
from scio.io._storage_check import boxes
from scio.io._streams import DIGEST
from scio.io.h5ad import AnnDataFile, MatrixHandle, shape_of
from scio.io.hdf5 import HDF5File

_BLOCK_ENTRIES = 4 << 20
# who wrote it and how, not what; and what is compared under names of its own
_SKIPPED = frozenset(
    {"encoder", "encoder-version", "scio", DIGEST, "encoding-type", "encoding-version"}
    | {"shape", "h5sparse_shape", "h5sparse_format", "column-order", "_index", "ordered"}
)


@dataclass(slots=True)
class DiffReport(Report):
    """Where two files differ: `expected` of a finding is what the first has, `found` the second.

    Attributes
    ----------
    other : str
        Name of the second file.
    """

    other: str = ""

    @property
    def is_equal(self) -> bool:
        """Whether nothing differs."""
        return not self.findings

    @property
    def is_sound(self) -> bool:
        """As `is_equal`."""
        return self.is_equal

    @property
    def exit_code(self) -> int:
        """0 equal, 1 different."""
        return 0 if self.is_equal else 1

    @property
    def verdict(self) -> str:
        """Return "equal" or "different"."""
        return "equal" if self.is_equal else "different"

    def to_dict(self) -> dict[str, Any]:
        """Return everything as a dict that JSON knows."""
        findings = [f.to_dict() for f in self.findings]
        return {
            "a": self.file,
            "b": self.other,
            "is_equal": self.is_equal,
            "differences": [
                {"path": f["path"], "rule": f["rule"], "a": f["expected"], "b": f["found"]}
                for f in findings
            ],
        }

    def _lines(self) -> Iterator[str]:
        yield f"{self.file} and {self.other}: {self.verdict}"
        for f in self.findings:
            yield f"  {f.path}: {f.rule}: {f.expected or 'absent'} in A, {f.found or 'absent'} in B"


def diff(
    a: Any,
    b: Any,
    *,
    values: bool = True,
    rtol: float = 0.0,
    atol: float = 0.0,
    as_stored: bool = False,
) -> DiffReport:
    """Compare two files of AnnData, MuData or any HDF5.

    Parameters
    ----------
    a, b : str, Path, URL, bytes-like, binary file object, HDF5File or AnnDataFile
    values : bool
        False: names, kinds, encodings, shapes, dtypes and orders only, from headers.
    rtol, atol : float
        Numbers are equal when ``|a - b| <= atol + rtol * |b|``; NaN equals NaN.
    as_stored : bool
        Compare sparse matrices array by array.  By default they are compared as matrices:
        duplicates are summed, the order in a row and stored zeros do not matter.

    Returns
    -------
    DiffReport
        One finding per difference: path, rule ("only in A", "kind", "encoding", "shape", "dtype",
        "order", "attribute", "values" …), and what is on both sides; of values the first position
        and how many differ.

    Raises
    ------
    IOFormatError
        If a file cannot be read, or a rule of the format keeps an element from being read.

    Notes
    -----
    How arrays are stored (chunks, filters, byte order) makes no difference, nor who wrote the file.
    Memory: two blocks of 32 MiB and their comparison; the ``indptr`` of a sparse matrix; a matrix
    that is stored by columns in one file and by rows in the other is turned over in memory.

    Examples
    --------
    >>> import scio
    >>> path = scio.datasets.pbmc3k()
    >>> scio.diff(path, path).is_equal
    True
    """
    opened = [_open(a), _open(b)]
    try:
        report = DiffReport(opened[0][0].name, other=opened[1][0].name)
        _Diff(opened[0][0], opened[1][0], report, values, rtol, atol, as_stored).element("/")
        return report
    finally:
        for file, is_ours in opened:
            if is_ours:
                file.close()


def _open(source: Any) -> tuple[HDF5File, bool]:
    if isinstance(source, AnnDataFile):
        return source.file, False
    return (source, False) if isinstance(source, HDF5File) else (HDF5File(source), True)


class _Diff:
    def __init__(
        self,
        a: HDF5File,
        b: HDF5File,
        report: DiffReport,
        values: bool,
        rtol: float,
        atol: float,
        as_stored: bool,
    ) -> None:
        self.files = (a, b)
        self.report = report
        self.values, self.rtol, self.atol, self.as_stored = values, rtol, atol, as_stored
        self._above: set[tuple[int, int]] = set()

    def _tell(self, path: str, rule: str, a: Any, b: Any) -> None:
        self.report.add(path, rule, _text(b), _text(a))

    def _differ(self, path: str, rule: str, pair: tuple[Any, ...]) -> bool:
        if pair[0] == pair[1]:
            return False
        self._tell(path, rule, *pair)
        return True

    # --- elements

    def element(self, path: str) -> None:
        kinds = tuple(f.kind(path) for f in self.files)
        tags = tuple(_tag(f, path) for f in self.files)
        if _is_matrix(kinds[0], tags[0]) and _is_matrix(kinds[1], tags[1]) and tags[0] != tags[1]:
            self._differ(path, "encoding", tags)
            self._other_format(path)
            return
        if self._differ(path, "kind", kinds):
            return
        self._differ(path, "encoding", tags)
        self._attributes(path)
        if kinds[0] == "dataset":
            self._dataset(path)
        elif kinds[0] == "group":
            self._group(path, tags[0].split(" ")[0])

    def _attributes(self, path: str) -> None:
        names = [[n for n in f.attr_names(path) if n not in _SKIPPED] for f in self.files]
        for name in sorted({*names[0], *names[1]}):
            if name not in names[0] or name not in names[1]:
                side = "A" if name in names[0] else "B"
                self._only(f"{path}@{name}", side, "an attribute")
                continue
            try:
                pair = [f.attr(path, name) for f in self.files]
            except UnsupportedError:  # references
                continue
            if not _same_values(*pair):
                self._tell(f"{path}@{name}", "attribute", *pair)

    def _only(self, path: str, side: str, what: str) -> None:
        a, b = (what, "") if side == "A" else ("", what)
        self._tell(path, f"only in {side}", a, b)

    def _group(self, path: str, encoding: str) -> None:
        addresses = (self.files[0].core.address(path), self.files[1].core.address(path))
        if addresses in self._above:  # a cycle
            return
        self._above.add(addresses)
        members = [set(f.keys(path)) for f in self.files]
        is_sparse = encoding in _SPARSE and {"data", "indices", "indptr"} <= members[0] & members[1]
        if is_sparse and not self.as_stored:
            self._sparse(path, encoding)
        elif encoding == "categorical" and {"codes", "categories"} <= members[0] & members[1]:
            self._categorical(path)
        elif encoding.startswith("nullable") and {"values", "mask"} <= members[0] & members[1]:
            self.element(f"{path}/mask")
            self._dataset(f"{path}/values", [f"{path}/mask"] * 2)
        else:
            if is_sparse:
                self._differ(path, "shape", self._shapes(path))
            if encoding == "dataframe" or "_index" in self.files[0].attr_names(path):
                self._frame_order(path)
            self._members(path, members)
        self._above.discard(addresses)

    def _members(self, path: str, members: list[set[str]]) -> None:
        for name in sorted(members[0] | members[1]):
            member = f"{path.rstrip('/')}/{name}"
            if name in members[0] and name in members[1]:
                self.element(member)
            else:
                side = int(name not in members[0])
                what = _tag(self.files[side], member) or str(self.files[side].kind(member))
                self._only(member, "AB"[side], what)

    def _frame_order(self, path: str) -> None:
        self._differ(
            path, "index", (self._scalar(0, path, "_index"), self._scalar(1, path, "_index"))
        )
        orders = []
        for file in self.files:
            order = file.attr(path, "column-order")
            orders.append([str(n) for n in np.ravel(order)] if np.size(order) else [])
        if orders[0] != orders[1] and set(orders[0]) == set(orders[1]):
            i = next(i for i, (p, q) in enumerate(zip(*orders, strict=False)) if p != q)
            a, b = (f"column {i} is {order[i]!r}" for order in orders)
            self._tell(path, "order", a, b)

    def _scalar(self, side: int, path: str, name: str, default: Any = None) -> Any:
        return self.files[side].scalar_attr(path, name, default)

    def _shapes(self, path: str) -> tuple[Any, Any]:
        return shape_of(self.files[0], path), shape_of(self.files[1], path)

    # --- categoricals

    def _categorical(self, path: str) -> None:
        ordered = tuple(bool(self._scalar(i, path, "ordered", False)) for i in (0, 1))
        self._differ(f"{path}@ordered", "attribute", ordered)
        labels = [self._labels(f, f"{path}/categories") for f in self.files]
        if labels[0] != labels[1]:
            if set(labels[0]) == set(labels[1]):
                at = next(
                    i for i, (p, q) in enumerate(zip(*labels, strict=True)) if not _same(p, q)
                )
                a, b = (f"category {at} is {part[at]!r}" for part in labels)
                self._tell(path, "order", a, b)
            else:
                only = [[v for v in labels[i] if v not in set(labels[1 - i])] for i in (0, 1)]
                a, b = (f"{len(p)} of its own{f', first {p[0]!r}' if p else ''}" for p in only)
                self._tell(f"{path}/categories", "categories", a, b)
        known = {label: i for i, label in enumerate(labels[0])}
        table = np.array(
            [known.get(label, -2 - i) for i, label in enumerate(labels[1])] + [-1], dtype=np.int64
        )
        codes = [f.dataset(f"{path}/codes") for f in self.files]
        if self._differ(path, "shape", (codes[0].shape, codes[1].shape)) or not self.values:
            return
        n_bad = 0
        first: tuple[int, Any, Any] | None = None
        for start, count in boxes(codes[0]):
            x, y = (c.read(start, count).astype(np.int64) for c in codes)
            if (y >= len(labels[1])).any() or (y < -1).any():
                message = f"{self.files[1].name}: {path}/codes lie outside its {len(labels[1])} categories"
                raise CorruptFileError(message)
            is_other = x != table[y]
            if is_other.any():
                i = int(is_other.argmax())
                first = first or (start[0] + i, _label(labels[0], x[i]), _label(labels[1], y[i]))
                n_bad += int(is_other.sum())
        if first is not None:
            self._tell_values(path, f"row {first[0]}", first[1], first[2], n_bad)

    def _labels(self, file: HDF5File, path: str) -> list[Any]:
        if file.kind(path) == "group":
            path = f"{path}/values"
        return list(np.ravel(file.read(path)).tolist())

    # --- datasets

    def _dataset(self, path: str, masks: list[str] | None = None) -> None:
        """Compare two datasets; under masks, any value is as good as another."""
        pair = (self.files[0].dataset(path), self.files[1].dataset(path))
        types = tuple(_type_text(d.type) for d in pair)
        self._differ(path, "dtype", types)
        if self._differ(path, "shape", (pair[0].shape, pair[1].shape)) or not self.values:
            return
        if pair[0].shape is None or "reference" in types:
            return
        is_text = [_values.has_objects(d.type) for d in pair]
        if is_text[0] != is_text[1] or pair[0].type["unsupported"] or pair[1].type["unsupported"]:
            return
        n_bad, first = 0, None
        for start, count in boxes(pair[0]):
            a, b = (self._block(i, pair[i], start, count) for i in (0, 1))
            if masks is not None:
                hidden = [self.files[i].dataset(m).read(start, count) for i, m in enumerate(masks)]
                b = np.where(hidden[0].astype(np.bool_) & hidden[1].astype(np.bool_), a, b)
            at, n = self._compare(a, b)
            if n and first is None:
                place = tuple(int(s) + int(p) for s, p in zip(start, at, strict=True))
                first = (place, a[at], b[at])
            n_bad += n
        if first is not None:
            at_text = ", ".join(map(str, first[0]))
            self._tell_values(path, f"[{at_text}]" if at_text else "", first[1], first[2], n_bad)

    def _tell_values(self, path: str, place: str, a: Any, b: Any, n_bad: int) -> None:
        more = f" ({n_bad:,} differ)" if n_bad > 1 else ""
        spaced = f"{place} " if place else ""
        self._tell(path, "values", f"{spaced}{_shown(a)}", f"{spaced}{_shown(b)}{more}")

    def _block(
        self, side: int, dataset: _core.Dataset, start: tuple[int, ...], count: tuple[int, ...]
    ) -> NDArray[Any]:
        info = dataset.type
        box = (start, count) if start else ()
        if dataset.dtype is not None and (info["class"] != "enum" or info["is_bool"]):
            return np.asarray(dataset.read(*box))
        raw = dataset.read_raw(*box)
        file = self.files[side]
        return np.asarray(_values.decode(file.core, info, raw, f"{file.name}: {dataset.path}"))

    def _compare(self, a: NDArray[Any], b: NDArray[Any]) -> tuple[tuple[int, ...], int]:
        """Position of the first difference, and how many there are."""
        if a.shape != b.shape:
            return (0,) * a.ndim, max(1, a.size)
        is_other = self._is_other(a, b)
        n = int(np.count_nonzero(is_other))
        if not n:
            return (), 0
        return tuple(int(i) for i in np.unravel_index(int(is_other.argmax()), a.shape)), n

    def _is_other(self, a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.bool_]:
        if a.dtype.names is not None:
            if a.dtype.names != b.dtype.names:
                return np.ones(a.shape, np.bool_)
            out = np.zeros(a.shape, np.bool_)
            for name in a.dtype.names:
                part = self._is_other(a[name], b[name])
                out |= part.reshape(*a.shape, -1).any(axis=-1)
            return out
        if "O" in (a.dtype.kind, b.dtype.kind):
            pairs = zip(a.reshape(-1).tolist(), b.reshape(-1).tolist(), strict=True)
            return np.fromiter(
                (not _same_values(p, q) for p, q in pairs), np.bool_, a.size
            ).reshape(a.shape)
        is_other: NDArray[np.bool_] = np.asarray(a != b)
        if not is_other.any():
            return is_other
        if a.dtype.kind in "fc" or b.dtype.kind in "fc":
            is_other &= ~(np.isnan(a) & np.isnan(b))
        if (self.rtol or self.atol) and a.dtype.kind in "iufc" and b.dtype.kind in "iufc":
            with np.errstate(invalid="ignore", over="ignore"):
                wide = np.result_type(a, b, np.float64)
                gap = np.abs(a.astype(wide) - b.astype(wide))
                is_other &= ~(gap <= self.atol + self.rtol * np.abs(b.astype(wide)))
        return is_other

    # --- matrices

    def _sparse(self, path: str, encoding: str) -> None:
        dtypes = tuple(f.dataset(f"{path}/data").dtype for f in self.files)
        self._differ(f"{path}/data", "dtype", dtypes)
        shapes = self._shapes(path)
        if self._differ(path, "shape", shapes) or not self.values or shapes[0] is None:
            return
        is_csc = _SPARSE[encoding] == "csc"
        shape = (shapes[0][1], shapes[0][0]) if is_csc else (shapes[0][0], shapes[0][1])
        # columns of a CSC matrix are rows of its transpose
        pair = [
            _core.Matrix.open_sparse(f.core, path, shape=shape, is_csc=False) for f in self.files
        ]
        self._by_blocks(
            path,
            shape,
            pair[0].indptr + pair[1].indptr,
            lambda i, start, stop: pair[i].read(start, stop),
            is_csc=is_csc,
        )

    def _other_format(self, path: str) -> None:
        """CSR, CSC and dense against one another."""
        handles = []
        for file in self.files:
            shape = shape_of(file, path)
            if shape is None or len(shape) != 2:
                self._tell(path, "shape", *self._shapes(path))
                return
            handles.append(MatrixHandle(file, path, (shape[0], shape[1])))
        self._differ(f"{path}", "dtype", (handles[0].dtype.name, handles[1].dtype.name))
        shapes = (handles[0].shape, handles[1].shape)
        if self._differ(path, "shape", shapes) or not self.values:
            return

        def read(i: int, start: int, stop: int) -> tuple[Any, Any, Any]:
            rows: Any = handles[i][start:stop]
            if isinstance(rows, np.ndarray):
                return _core.csr_from_dense(np.ascontiguousarray(rows))
            return rows.data, rows.indices, rows.indptr

        n_rows, n_cols = shapes[0]
        self._by_blocks(
            path, shapes[0], np.arange(n_rows + 1, dtype=np.int64) * 2 * n_cols, read, is_csc=False
        )

    def _by_blocks(
        self, path: str, shape: tuple[int, int], load: NDArray[np.int64], read: Any, *, is_csc: bool
    ) -> None:
        n_bad, first, start = 0, None, 0
        while start < shape[0]:
            most = load[start] + 2 * _BLOCK_ENTRIES
            stop = max(start + 1, int(np.searchsorted(load, most, side="right")) - 1)
            a, b = (read(i, start, stop) for i in (0, 1))
            if not all(np.array_equal(p, q) for p, q in zip(a, b, strict=True)):
                parts = (_canonical(block, shape[1]) for block in (a, b))
                keys, x, y = _aligned(*parts)
                is_other = self._is_other(x, y)
                if is_other.any() and first is None:
                    i = int(is_other.argmax())
                    row, column = divmod(int(keys[i]), max(1, shape[1]))
                    place = (column, start + row) if is_csc else (start + row, column)
                    first = (place, x[i], y[i])
                n_bad += int(is_other.sum())
            start = stop
        if first is not None:
            at = f"[{first[0][0]}, {first[0][1]}]"
            self._tell_values(path, at, first[1], first[2], n_bad)


def _canonical(
    block: tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]], n_minor: int
) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Positions and values: ascending, duplicates summed, zeros gone."""
    data, indices, indptr = block
    rows = np.repeat(np.arange(len(indptr) - 1, dtype=np.int64), np.diff(indptr))
    keys = rows * n_minor + indices
    if len(keys) > 1 and not (keys[1:] > keys[:-1]).all():
        order = np.argsort(keys, kind="stable")
        keys, data = keys[order], data[order]
        starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
        if len(starts) < len(keys):
            wide = np.float64 if data.dtype.kind == "f" else data.dtype
            data = np.add.reduceat(
                data.astype(np.int64) if data.dtype.kind in "bi" else data.astype(wide), starts
            )
            keys = keys[starts]
    is_kept = data != 0
    return keys[is_kept], data[is_kept]


def _aligned(
    a: tuple[NDArray[np.int64], NDArray[Any]], b: tuple[NDArray[np.int64], NDArray[Any]]
) -> tuple[NDArray[np.int64], NDArray[Any], NDArray[Any]]:
    """Both at the same positions, zero where there is nothing."""
    if np.array_equal(a[0], b[0]):
        return a[0], a[1], b[1]
    keys = np.union1d(a[0], b[0])
    out = []
    for at, values in (a, b):
        whole = np.zeros(len(keys), values.dtype)
        whole[np.searchsorted(keys, at)] = values
        out.append(whole)
    return keys, out[0], out[1]


def _is_matrix(kind: str | None, tag: str) -> bool:
    return tag.split(" ", maxsplit=1)[0] in ({"array"} if kind == "dataset" else _SPARSE)


def _tag(file: HDF5File, path: str) -> str:
    """Encoding and version, or what stands for them in old files."""
    encoding = file.scalar_attr(path, "encoding-type")
    if encoding is None:
        legacy = file.scalar_attr(path, "h5sparse_format")
        return "" if legacy is None else str(legacy)
    return f"{encoding} {file.scalar_attr(path, 'encoding-version', '')}".strip()


def _type_text(info: dict[str, Any]) -> str:
    if info["class"] == "string" or info.get("vlen"):
        return "string"
    if info["class"] == "compound":
        members = ", ".join(f"{m[0]}: {_type_text(m[2])}" for m in info["members"])
        return f"{{{members}}}"
    if info["class"] == "array":
        return f"{_type_text(info['base'])}{list(info['dims'])}"
    return str(info["dtype"] or info["class"])


def _same(a: Any, b: Any) -> bool:
    both = isinstance(a, (float, complex)) and isinstance(b, (float, complex))
    return bool(a == b) or (both and bool(np.isnan(a) and np.isnan(b)))


def _same_values(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        a, b = np.asarray(a), np.asarray(b)
        if a.shape != b.shape:
            return False
        return all(map(_same_values, a.reshape(-1).tolist(), b.reshape(-1).tolist()))
    if isinstance(a, (tuple, list)) and isinstance(b, (tuple, list)):
        return len(a) == len(b) and all(map(_same_values, a, b))
    return _same(a, b)


def _label(labels: list[Any], code: Any) -> Any:
    return labels[int(code)] if 0 <= int(code) < len(labels) else "missing"


def _shown(value: Any) -> str:
    value = value.item() if isinstance(value, np.generic) and value.dtype.names is None else value
    return f"{value!r:.60}"


def _text(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    text = str(value.tolist() if isinstance(value, np.ndarray) else value)
    return text if len(text) <= 80 else f"{text[:77]}…"
