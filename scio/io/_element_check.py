"""The rules of AnnData and its relatives, element by element, on top of `StorageCheck`.

Headers are looked at here; values are looked at by visitors, while the storage check decodes them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scio import _core
from scio._names import near_names
from scio.errors import CorruptFileError
from scio.io._encodings import _ENCODINGS, _SPARSE
from scio.io._storage_check import FAILURES, StorageCheck

if TYPE_CHECKING:
    from scio.io._report import Report

_MAPPINGS = ("layers", "obsm", "varm", "obsp", "varp", "uns")
_ROOT = frozenset({"X", "obs", "var", "raw", "raw.X", "raw.var", "raw.varm", *_MAPPINGS})
_MUDATA = frozenset({"obsmap", "varmap", "mod", "obs", "var", *_MAPPINGS}) - {"layers"}
_STRINGS = frozenset({"string-array", "string"})
_NULLABLE = {
    "nullable-integer": "iu",
    "nullable-boolean": "b",
    "nullable-string-array": "",
}

Axes = tuple[tuple[int | None, str], ...]  # (length, what says so) of the first dimensions


class ElementCheck:
    """Checks one file whose storage has been walked.

    Parameters
    ----------
    storage : StorageCheck
        Has walked; decodes afterwards.
    report : Report
    """

    def __init__(self, storage: StorageCheck, report: Report) -> None:
        self.storage = storage
        self.file = storage.file
        self.report = report
        self.form = "hdf5"
        self.unexplained: list[tuple[str, str]] = []

    # --- what it is

    def root(self) -> None:
        """Check the whole file, as what its root looks like."""
        names = set(self._members("/"))
        encoding = self._text("/", "encoding-type")
        if encoding == "MuData" or ("mod" in names and not {"X", "layers"} & names):
            self.form = "h5mu"
            self._mudata(names)
        elif {"obs", "var"} & names or encoding == "anndata":
            self.form = "h5ad"
            self._anndata("", _ROOT)
        elif "matrix" in names and self._kind("/matrix") == "group":
            self.form = "10x"
            self._tenx("/matrix", "features/id", "features/name")
        elif "matrix" in names:
            self.form = "loom"
            self._loom()
        elif self._is_tenx_v2(names):
            self.form = "10x"
            for name in sorted(names):
                if self._kind(f"/{name}") == "group":
                    self._tenx(f"/{name}", "genes", "gene_names")
        else:
            self.report.add(
                "/",
                "format",
                "no AnnData, MuData, 10x or loom file: storage was checked only",
                level="warning",
            )

    # --- safe access: what fails here was reported by the storage check

    def _try(self, path: str, function: Callable[..., Any], *args: Any) -> Any:
        try:
            return function(*args)
        except FAILURES as error:
            self.unexplained.append((path, str(error)))
            return None

    def explain(self) -> None:
        """Report failures that nobody else has reported."""
        for path, text in self.unexplained:
            known = [f.path for f in self.report.findings if f.level != "note"]
            if not any(p.startswith(path) or path.startswith(p.rstrip("/") + "/") for p in known):
                self.report.add(path, "header", text.removeprefix(f"{self.file.name}: "))

    def _kind(self, path: str) -> str | None:
        return self.storage.kinds.get(path)

    def _members(self, path: str) -> list[str]:
        """Members that hard links lead to."""
        if self._kind(path) != "group":
            return []
        links = self._try(path, self.file.core.links, path) or []
        return [link[0] for link in links if link[1] == "hard"]

    def _attr(self, path: str, name: str) -> Any:
        return self._try(path, self.file.attr, path, name)

    def _text(self, path: str, name: str) -> str | None:
        value = self._try(path, self.file.scalar_attr, path, name)
        return None if value is None else str(value)

    def _dataset(self, path: str) -> _core.Dataset | None:
        if self._kind(path) != "dataset" or self.storage.is_bad(path):
            return None
        found: _core.Dataset | None = self._try(path, self.file.dataset, path)
        return found

    def _fail(self, path: str, rule: str, found: str, expected: str = "") -> None:
        self.report.add(path, rule, found, expected)

    def _expect_group(self, path: str, what: str) -> bool:
        kind = self._kind(path)
        if kind != "group":
            self._fail(path, "kind", "missing" if kind is None else f"a {kind}", what)
        return kind == "group"

    # --- AnnData

    def _anndata(self, base: str, known: frozenset[str]) -> tuple[int | None, int | None]:
        names = self._members(base or "/")
        self._encoding(base or "/", ("anndata",))
        n_obs = self._frame(f"{base}/obs", None)
        n_vars = self._frame(f"{base}/var", None)
        obs: Axes = ((n_obs, f"{base}/obs"),)
        var: Axes = ((n_vars, f"{base}/var"),)
        if "X" in names and not self._is_null(f"{base}/X"):
            self._matrix(f"{base}/X", (*obs, *var))
        axes: dict[str, Axes] = {"layers": (*obs, *var), "obsm": obs, "varm": var}
        axes |= {"obsp": (*obs, *obs), "varp": (*var, *var), "uns": ()}
        for name in _MAPPINGS:
            if name in names:
                self._mapping(f"{base}/{name}", axes[name])
        self._raw(base, names, obs)
        for name in names:
            if name not in known:
                self._note_unknown(f"{base}/{name}", "no part of the AnnData format")
        return n_obs, n_vars

    def _is_null(self, path: str) -> bool:
        if self._kind(path) != "dataset":
            return False
        dataset = self._dataset(path)
        return dataset is not None and dataset.shape is None

    def _note_unknown(self, path: str, why: str) -> None:
        self.report.add(path, "unknown", why, "", level="note")

    def _raw(self, base: str, names: Sequence[str], obs: Axes) -> None:
        is_new = "raw" in names and not self._is_null(f"{base}/raw")
        if is_new and not self._expect_group(f"{base}/raw", "a group"):
            return
        if not is_new and not {"raw.X", "raw.var"} & set(names):
            return
        paths = {
            k: f"{base}/raw/{k}" if is_new else f"{base}/raw.{k}" for k in ("X", "var", "varm")
        }
        if is_new:
            self._encoding(f"{base}/raw", ("raw", "anndata"))
            if not self._members(f"{base}/raw"):
                return
        n_vars = self._frame(paths["var"], None)
        var: Axes = ((n_vars, paths["var"]),)
        if self._kind(paths["X"]) is not None and not self._is_null(paths["X"]):
            self._matrix(paths["X"], (*obs, *var))
        if self._kind(paths["varm"]) is not None:
            self._mapping(paths["varm"], var)

    def _mapping(self, path: str, axes: Axes) -> None:
        kind = self._kind(path)
        if kind == "dataset":  # before 0.6: a field for each
            self._rows(path, axes)
            return
        if not self._expect_group(path, "a group"):
            return
        self._encoding(path, ("dict", ""))
        for name in self._members(path):
            self.element(f"{path}/{name}", axes)

    def _encoding(self, path: str, allowed: tuple[str, ...]) -> None:
        """An encoding-type, where there is one, is among those that the place calls for."""
        found = self._text(path, "encoding-type")
        if found and found not in allowed:
            listed = " or ".join(repr(a) for a in allowed if a)
            self._fail(path, "encoding", f"encoding-type {found!r}", listed)
        elif found:
            self._version(path, found)

    def _version(self, path: str, encoding: str) -> bool:
        text = self._text(path, "encoding-version") or ""
        parts = text.split(".")
        newest = _ENCODINGS[encoding][1]
        if len(parts) < 2 or not (parts[0].isdigit() and parts[1].isdigit()):
            return True
        version = (int(parts[0]), int(parts[1]))
        expected = f"{newest[0]}.{newest[1]} or older"
        if version[0] > newest[0]:
            self._fail(path, "version", f"{encoding} {text}", expected)
            return False
        if version > newest:
            self.report.add(path, "version", f"{encoding} {text}", expected, level="warning")
        return True

    def element(self, path: str, axes: Axes, *, is_required: bool = False) -> None:
        """Check an element of any encoding; `axes` say its first dimensions."""
        kind = self._kind(path)
        if kind not in ("group", "dataset"):
            if kind == "unknown":
                self._note_unknown(path, "an object of unknown kind")
            return
        value = self._attr(path, "encoding-type")
        encoding = self._text(path, "encoding-type") or ""
        if value is not None and not isinstance(np.ravel(value)[0], str):
            self._fail(path, "encoding", f"encoding-type is {value!r:.40}", "a string")
            return
        if encoding and encoding not in _ENCODINGS:
            if is_required:
                self._fail(path, "encoding", f"encoding-type {encoding!r}", "a known encoding")
            else:
                self._note_unknown(path, f"encoding-type {encoding!r}")
            return
        if encoding and kind != _ENCODINGS[encoding][0]:
            expected = f"a {_ENCODINGS[encoding][0]}"
            self._fail(path, "encoding", f"encoding-type {encoding!r} on a {kind}", expected)
            return
        if encoding and not self._version(path, encoding):
            return
        self._by_encoding(path, encoding or self._guess(path, kind), axes)

    def _guess(self, path: str, kind: str) -> str:
        names = self._try(path, self.file.attr_names, path) or []
        if kind == "dataset":
            return "codes" if "categories" in names else "any"
        if "h5sparse_format" in names:
            return "csr_matrix"
        if "_index" in names:
            return "dataframe"
        return "dict"

    def _by_encoding(self, path: str, encoding: str, axes: Axes) -> None:
        if encoding in _SPARSE:
            self._sparse(path, axes)
        elif encoding == "dataframe":
            self._frame(path, axes)
        elif encoding == "categorical":
            self._categorical(path, axes)
        elif encoding in _NULLABLE:
            self._nullable(path, encoding, axes)
        elif encoding == "codes":
            self._legacy_codes(path, axes)
        elif encoding in ("anndata", "raw"):
            self._anndata(path, _ROOT)
        elif encoding == "awkward-array":
            self._awkward(path, axes)
        elif encoding == "dict":
            self._mapping(path, axes)
        elif encoding != "null":
            self._array(path, encoding, axes)

    # --- datasets

    def _rows(self, path: str, axes: Axes) -> tuple[int, ...] | None:
        """Shape of a dataset, whose first dimensions must be what the axes say."""
        dataset = self._dataset(path)
        if dataset is None or dataset.shape is None:
            return None
        self._check_shape(path, dataset.shape, axes)
        return dataset.shape

    def _check_shape(self, path: str, shape: Sequence[int], axes: Axes) -> bool:
        for i, (length, who) in enumerate(axes):
            if i >= len(shape):
                self._fail(path, "shape", f"{len(shape)} dimensions", f"at least {len(axes)}")
                return False
            if length is not None and shape[i] != length:
                self._fail(
                    path, "shape", f"{tuple(shape)}", f"{length} along axis {i}, as {who} has"
                )
                return False
        return True

    def _array(self, path: str, encoding: str, axes: Axes) -> None:
        shape = self._rows(path, axes)
        dataset = self._dataset(path)
        if dataset is None:
            return
        if dataset.shape is None:
            if encoding != "any":
                self._fail(path, "shape", "no values (a null dataspace)", f"a {encoding}")
            return
        is_text = _is_text(dataset.type)
        if encoding in _STRINGS and not is_text:
            self._fail(path, "type", dataset.type["class"], f"strings, for {encoding!r}")
        elif encoding == "rec-array" and dataset.type["class"] != "compound":
            self._fail(path, "type", dataset.type["class"], "compound, for 'rec-array'")
        elif encoding == "numeric-scalar" and (is_text or np.prod(shape or ()) != 1):
            found = "text" if is_text else f"shape {shape}"
            self._fail(path, "type", found, "one number, for 'numeric-scalar'")

    def _matrix(self, path: str, axes: Axes) -> None:
        if self._kind(path) == "dataset":
            dataset = self._dataset(path)
            if dataset is None or dataset.shape is None:
                return
            if len(dataset.shape) != 2:
                self._fail(path, "shape", f"{dataset.shape}", "two dimensions")
                return
            if dataset.dtype is None:
                self._fail(path, "type", dataset.type["class"], "numbers")
            self._check_shape(path, dataset.shape, axes)
            self._look_for_nan(path, path)
            return
        encoding = self._text(path, "encoding-type")
        if encoding is None and "h5sparse_format" not in (self.file.attr_names(path)):
            found = "a group without encoding-type"
            self._fail(path, "encoding", found, "csr_matrix, csc_matrix or a dataset")
            return
        if encoding in _ENCODINGS and encoding not in _SPARSE:
            self._fail(path, "encoding", f"encoding-type {encoding!r}", "a matrix")
            return
        self.element(path, axes, is_required=True)

    def _look_for_nan(self, path: str, dataset_path: str) -> None:
        dataset = self._dataset(dataset_path)
        if dataset is None or np.dtype(dataset.dtype or "i1").kind != "f":
            return
        found = {"NaN": 0, "infinite": 0}

        def look(start: int, block: NDArray[Any]) -> None:
            if not np.isfinite(block).all():
                found["NaN"] += int(np.isnan(block).sum())
                found["infinite"] += int(np.isinf(block).sum())

        def finish() -> None:
            told = ", ".join(f"{n:,} {name}" for name, n in found.items() if n)
            if told:
                self.report.add(path, "values", told, level="note")

        self.storage.visit(dataset_path, look, finish)

    # --- sparse matrices

    def _sparse(self, path: str, axes: Axes) -> None:
        members = set(self._members(path))
        missing = [n for n in ("data", "indices", "indptr") if n not in members]
        if missing:
            self._fail(path, "members", f"lacks {', '.join(missing)}", "data, indices, indptr")
            return
        shape = self._sparse_shape(path, axes)
        if shape is None:
            return
        form = self._text(path, "encoding-type") or self._text(path, "h5sparse_format") or ""
        if form not in _SPARSE:
            self._fail(path, "encoding", f"h5sparse_format {form!r}", "'csr' or 'csc'")
            return
        self._check_shape(path, shape, axes)
        is_csc = _SPARSE[form] == "csc"
        self._compressed(path, shape[::-1] if is_csc else shape, "column" if is_csc else "row")

    def _sparse_shape(self, path: str, axes: Axes) -> tuple[int, int] | None:
        for name in ("shape", "h5sparse_shape"):
            value = self._attr(path, name)
            if value is None:
                continue
            flat = np.ravel(value)
            is_right = flat.dtype.kind in "iu" and len(flat) == 2 and not (flat < 0).any()
            if not is_right:
                found = f"attribute {name} {flat.tolist()!r:.60}"
                self._fail(path, "shape", found, "two sizes, not negative")
                return None
            return (int(flat[0]), int(flat[1]))
        if len(axes) == 2 and axes[0][0] is not None and axes[1][0] is not None:
            self.report.add(path, "shape", "no attribute shape", "one", level="note")
            return (axes[0][0], axes[1][0])
        self._fail(path, "shape", "no attribute shape", "one")
        return None

    def _compressed(self, path: str, shape: tuple[int, int], major: str) -> None:
        """data, indices and indptr of a matrix whose (compressed, other) axes have `shape`."""
        parts = {n: self._dataset(f"{path}/{n}") for n in ("data", "indices", "indptr")}
        lengths = {}
        for name, dataset in parts.items():
            if dataset is None:
                continue
            is_number = (
                dataset.dtype is not None
                if name == "data"
                else (dataset.type["class"] == "integer")
            )
            if not is_number:
                expected = "numbers or bools" if name == "data" else "integers"
                self._fail(f"{path}/{name}", "type", dataset.type["class"], expected)
            elif dataset.shape is None or len(dataset.shape) != 1:
                self._fail(f"{path}/{name}", "shape", f"{dataset.shape}", "one dimension")
            else:
                lengths[name] = dataset.shape[0]
        n_values = lengths.get("data", lengths.get("indices"))
        if "data" in lengths and lengths.get("indices", n_values) != n_values:
            found = f"{lengths['indices']:,} indices"
            self._fail(f"{path}/indices", "shape", found, f"{n_values:,}, as data has")
            return
        if "indptr" not in lengths:
            return
        if lengths["indptr"] != shape[0] + 1:
            found = f"{lengths['indptr']:,} entries"
            self._fail(
                f"{path}/indptr", "shape", found, f"{shape[0] + 1:,}, one more than {major}s"
            )
            return
        indptr = self._try(f"{path}/indptr", self.file.read, f"{path}/indptr")
        if indptr is None or n_values is None:
            return
        if self._indptr(f"{path}/indptr", indptr, n_values) and "indices" in lengths:
            rows = _Rows(self, path, indptr.astype(np.int64), shape[1], major)
            self.storage.visit(f"{path}/indices", rows.visit, rows.finish)
        self._look_for_nan(path, f"{path}/data")

    def _indptr(self, path: str, indptr: NDArray[Any], n_values: int) -> bool:
        if indptr[0] != 0:
            self._fail(path, "indptr", f"[0] is {indptr[0]}", "0")
            return False
        falls = indptr[1:] < indptr[:-1]
        if falls.any():
            i = int(falls.argmax()) + 1
            found = f"[{i}] is {indptr[i]}, less than [{i - 1}], which is {indptr[i - 1]}"
            self._fail(path, "indptr", found, "never decreasing")
            return False
        if int(indptr[-1]) != n_values:
            self._fail(path, "indptr", f"ends at {indptr[-1]}", f"{n_values}, the number of values")
            return False
        return True

    # --- frames

    def _frame(self, path: str, axes: Axes | None) -> int | None:
        """Check a frame; return its rows."""
        kind = self._kind(path)
        if kind == "dataset":
            return self._compound_frame(path, axes)
        if not self._expect_group(path, "a data frame"):
            return None
        self._encoding(path, ("dataframe",))
        members = self._members(path)
        index = self._index_name(path, members)
        if index is None:
            return None
        n_rows = self._length(f"{path}/{index}")
        if n_rows is not None and axes:
            self._check_shape(path, (n_rows,), axes[:1])
        rows: Axes = ((n_rows, f"{path}/{index}"),)
        self._labels(f"{path}/{index}", rows)
        order = self._column_order(path, members)
        for name in order:
            if name != index:
                self._column(f"{path}/{name}", rows)
        listed = {name.split("/")[0] for name in order} | {index, "__categories"}
        for name in members:
            if name not in listed:
                self._note_unknown(f"{path}/{name}", "not in column-order")
        return n_rows

    def _compound_frame(self, path: str, axes: Axes | None) -> int | None:
        dataset = self._dataset(path)
        if dataset is None:
            return None
        if dataset.type["class"] != "compound" or len(dataset.shape or ()) != 1:
            found = f"a dataset of {dataset.type['class']}, shape {dataset.shape}"
            self._fail(path, "kind", found, "a data frame")
            return None
        n_rows = (dataset.shape or (0,))[0]
        if axes:
            self._check_shape(path, (n_rows,), axes[:1])
        return n_rows

    def _index_name(self, path: str, members: list[str]) -> str | None:
        name = self._text(path, "_index")
        if name is None:
            self._fail(path, "frame", "no attribute _index", "the name of the index")
            return None
        if name not in members:
            near = near_names(name, members)
            self._fail(path, "frame", f"_index is {name!r}, which is no member; {near}", "a member")
            return None
        return name

    def _column_order(self, path: str, members: list[str]) -> list[str]:
        value = self._attr(path, "column-order")
        if value is None:
            if "column-order" not in (self._try(path, self.file.attr_names, path) or ()):
                self._fail(path, "frame", "no attribute column-order", "the names of the columns")
            return [name for name in members if name != "__categories"]
        if not np.size(value):
            return []
        names = [str(name) for name in np.ravel(value)]
        out = []
        for name in names:
            # old releases wrote "a/b" as a member b of a group a
            if name not in members and self._kind(f"{path}/{name}") is None:
                near = near_names(name, members)
                self._fail(
                    path, "frame", f"column-order names {name!r}, no member; {near}", "members"
                )
            else:
                out.append(name)
        repeated = (
            sorted({n for n in names if names.count(n) > 1}) if len(set(names)) < len(names) else []
        )
        if repeated:
            self._fail(path, "frame", f"column-order names {repeated[0]!r} twice", "each name once")
        return list(dict.fromkeys(out))

    def _length(self, path: str) -> int | None:
        """Entries of a column, from headers."""
        if self._kind(path) == "group":
            members = self._members(path)
            inner = next((n for n in ("values", "codes") if n in members), None)
            return None if inner is None else self._length(f"{path}/{inner}")
        dataset = self._dataset(path)
        if dataset is None:
            return None
        if dataset.shape is None or len(dataset.shape) != 1:
            self._fail(path, "shape", f"{dataset.shape}", "one dimension")
            return None
        return dataset.shape[0]

    def _column(self, path: str, rows: Axes) -> None:
        dataset = self._dataset(path)
        if dataset is not None and dataset.shape is not None and len(dataset.shape) != 1:
            self._fail(path, "shape", f"{dataset.shape}", "one dimension")
            return
        self.element(path, rows)

    def _labels(self, path: str, rows: Axes) -> None:
        """The index: elements as a column, and labels that repeat are told."""
        self._column(path, rows)
        if self._kind(path) == "group":
            path = f"{path}/values"
        dataset = self._dataset(path)
        if dataset is None or dataset.shape is None or not _is_text(dataset.type):
            return
        hashes: list[NDArray[np.int64]] = []

        def look(start: int, block: NDArray[Any]) -> None:
            texts = decode(self.file, dataset, block, path)
            if texts is not None:
                hashes.append(np.fromiter(map(hash, texts.tolist()), np.int64, len(texts)))

        self.storage.visit(path, look, lambda: self._tell_repeated(path, hashes))

    def _tell_repeated(self, path: str, hashes: list[NDArray[np.int64]]) -> None:
        every = np.concatenate(hashes) if hashes else np.empty(0, np.int64)
        _, first, inverse = np.unique(every, return_index=True, return_inverse=True)
        again = np.flatnonzero(first[inverse] != np.arange(len(every)))
        if len(again):
            i = int(again[0])
            found = f"{len(again)} labels repeat, the first in row {i} (that of row {first[inverse[i]]})"
            self.report.add(path, "labels", found, "distinct labels", level="warning")

    # --- columns of several parts

    def _categorical(self, path: str, axes: Axes) -> None:
        members = self._members(path)
        missing = [n for n in ("codes", "categories") if n not in members]
        if missing:
            self._fail(path, "members", f"lacks {', '.join(missing)}", "codes, categories")
            return
        n_labels = self._categories(f"{path}/categories")
        self._codes(f"{path}/codes", n_labels, axes)

    def _categories(self, path: str) -> int | None:
        """Check the labels; return how many they are."""
        if self._kind(path) == "group":
            self.element(path, ())
            path = f"{path}/values"
        dataset = self._dataset(path)
        if dataset is None:
            return None
        shape = dataset.shape
        if shape is None or len(shape) > 1:
            self._fail(path, "shape", f"{shape}", "one dimension")
            return None
        values = self._try(path, self.file.read, path)
        if values is not None and not self.storage.is_bad(path):
            labels = np.ravel(values).tolist()
            repeated = len(labels) - len(set(labels))
            if repeated:
                again = next(v for i, v in enumerate(labels) if v in labels[:i])
                self._fail(path, "categories", f"{again!r} is there twice", "distinct categories")
        return shape[0] if shape else 1

    def _codes(self, path: str, n_labels: int | None, axes: Axes) -> None:
        dataset = self._dataset(path)
        if dataset is None:
            return
        if dataset.type["class"] != "integer":
            self._fail(path, "type", dataset.type["class"], "integers")
            return
        self._rows(path, axes)
        if n_labels is None:
            return
        bad: list[str] = []

        def look(start: int, block: NDArray[Any]) -> None:
            wrong = block >= n_labels
            if block.dtype.kind == "i":
                wrong |= block < -1
            if not bad and wrong.any():
                at = int(np.ravel(wrong).argmax())
                bad.append(f"{np.ravel(block)[at]} in row {start + at}")

        def finish() -> None:
            if bad:
                self._fail(path, "codes", bad[0], f"in [-1, {n_labels})")

        self.storage.visit(path, look, finish)

    def _legacy_codes(self, path: str, axes: Axes) -> None:
        try:
            target = self.file.attr_reference(path, "categories")
        except FAILURES:
            target = None
        if target is None:
            self._fail(path, "categories", "@categories leads nowhere", "a reference to the labels")
            self._rows(path, axes)
            return
        self._codes(path, self._categories(target), axes)

    def _nullable(self, path: str, encoding: str, axes: Axes) -> None:
        members = self._members(path)
        missing = [n for n in ("values", "mask") if n not in members]
        if missing:
            self._fail(path, "members", f"lacks {', '.join(missing)}", "values, mask")
            return
        values, mask = self._dataset(f"{path}/values"), self._dataset(f"{path}/mask")
        if values is not None:
            kind = np.dtype(values.dtype).kind if values.dtype else ""
            is_right = kind in _NULLABLE[encoding] if _NULLABLE[encoding] else _is_text(values.type)
            if not is_right:
                found = values.dtype or values.type["class"]
                self._fail(f"{path}/values", "type", str(found), f"those of {encoding!r}")
            self._rows(f"{path}/values", axes)
        if mask is not None:
            if not (mask.type["is_bool"] or mask.type["class"] == "integer"):
                self._fail(f"{path}/mask", "mask", mask.type["class"], "bools")
            elif values is not None and mask.shape != values.shape:
                self._fail(
                    f"{path}/mask", "mask", f"shape {mask.shape}", f"{values.shape}, as values"
                )

    def _awkward(self, path: str, axes: Axes) -> None:
        form, length = self._text(path, "form"), self._attr(path, "length")
        if form is None or length is None:
            self._fail(path, "encoding", "lacks form or length", "both, for 'awkward-array'")
            return
        self._check_shape(path, (int(np.ravel(length)[0]),), axes[:1])

    # --- MuData, 10x, loom

    def _mudata(self, names: set[str]) -> None:
        lengths = {}
        if self._expect_group("/mod", "a group of modalities"):
            for name in self._members("/mod"):
                lengths[name] = self._anndata(f"/mod/{name}", _ROOT)
        for i, axis in enumerate(("obs", "var")):
            n_rows = self._frame(f"/{axis}", None) if axis in names else None
            rows: Axes = ((n_rows, f"/{axis}"),)
            for suffix, axes in (("m", rows), ("p", (*rows, *rows))):
                if f"{axis}{suffix}" in names:
                    self._mapping(f"/{axis}{suffix}", axes)
            for name in self._members(f"/{axis}map"):
                path = f"/{axis}map/{name}"
                if name not in lengths:
                    self._fail(path, "map", f"of {name!r}, no modality", near_names(name, lengths))
                else:
                    self._map(path, lengths[name][i], rows)
        if "uns" in names:
            self._mapping("/uns", ())
        for name in sorted(names - _MUDATA):
            self._note_unknown(f"/{name}", "no part of the MuData format")

    def _map(self, path: str, n_items: int | None, rows: Axes) -> None:
        dataset = self._dataset(path)
        if dataset is None:
            return
        if dataset.type["class"] != "integer":
            self._fail(path, "type", dataset.type["class"], "integers")
            return
        self._rows(path, rows)
        bad: list[str] = []

        def look(start: int, block: NDArray[Any]) -> None:
            wrong = np.ravel((block < 0) | (block > (n_items or 0)))
            if not bad and wrong.any():
                at = int(wrong.argmax())
                bad.append(f"{np.ravel(block)[at]} in row {start + at}")

        def finish() -> None:
            if bad:
                self._fail(path, "map", bad[0], f"in [0, {n_items}]")

        if n_items is not None:
            self.storage.visit(path, look, finish)

    def _is_tenx_v2(self, names: set[str]) -> bool:
        return any(
            {"data", "indices", "indptr", "shape"} <= set(self._members(f"/{n}")) for n in names
        )

    def _tenx(self, base: str, *features: str) -> None:
        members = set(self._members(base))
        missing = [n for n in ("data", "indices", "indptr", "shape") if n not in members]
        if missing:
            self._fail(
                base, "members", f"lacks {', '.join(missing)}", "data, indices, indptr, shape"
            )
            return
        shape = self._try(f"{base}/shape", self.file.read, f"{base}/shape")
        flat = np.ravel(shape) if shape is not None else np.empty(0)
        if flat.dtype.kind not in "iu" or len(flat) != 2 or (flat < 0).any():
            self._fail(f"{base}/shape", "shape", f"{flat.tolist()!r:.60}", "two sizes")
            return
        n_features, n_cells = int(flat[0]), int(flat[1])
        self._compressed(base, (n_cells, n_features), "cell")
        lengths = {f"{base}/barcodes": n_cells}
        lengths |= {f"{base}/{name}": n_features for name in features}
        for path, length in lengths.items():
            if self._kind(path) == "dataset":
                self._rows(path, ((length, f"{base}/shape"),))

    def _loom(self) -> None:
        dataset = self._dataset("/matrix")
        if dataset is None:
            return
        if dataset.shape is None or len(dataset.shape) != 2 or dataset.dtype is None:
            found = f"{dataset.type['class']} of shape {dataset.shape}"
            self._fail("/matrix", "shape", found, "numbers in two dimensions")
            return
        n_rows, n_cols = dataset.shape
        rows: Axes = ((n_rows, "/matrix"),)
        cols: Axes = ((n_cols, "the second axis of /matrix"),)
        for group, axes in (("layers", (*rows, *cols)), ("row_attrs", rows), ("col_attrs", cols)):
            for name in self._members(f"/{group}"):
                self._rows(f"/{group}/{name}", axes)


class _Rows:
    """Looks at the indices of a compressed matrix, block by block, in whole rows."""

    def __init__(
        self, check: ElementCheck, path: str, indptr: NDArray[np.int64], n_minor: int, major: str
    ) -> None:
        self.check, self.path, self.indptr, self.n_minor = check, path, indptr, n_minor
        self.major = major
        self.n_rows_done = 0
        self.rest: NDArray[Any] = np.empty(0, np.int64)
        self.bad = ""
        self.is_sorted, self.has_duplicates = True, False

    def visit(self, start: int, block: NDArray[Any]) -> None:
        if self.bad:
            return
        if len(self.rest):
            block = np.concatenate([self.rest, block])
        begin = int(self.indptr[self.n_rows_done])
        last = int(np.searchsorted(self.indptr, begin + len(block), side="right")) - 1
        end = int(self.indptr[last])
        if last > self.n_rows_done:
            self._look(block[: end - begin], self.indptr[self.n_rows_done : last + 1] - begin)
            self.n_rows_done = last
        self.rest = block[end - begin :]

    def _look(self, indices: NDArray[Any], indptr: NDArray[np.int64]) -> None:
        shape = (len(indptr) - 1, self.n_minor)
        try:
            facts = _core.csr_validate(None, indices, indptr, shape=shape)
        except CorruptFileError:
            self._name_bad(indices, indptr)
            return
        self.is_sorted &= facts[0]
        self.has_duplicates |= facts[1]

    def _name_bad(self, indices: NDArray[Any], indptr: NDArray[np.int64]) -> None:
        wrong = indices >= self.n_minor
        if indices.dtype.kind == "i":
            wrong |= indices < 0
        at = int(wrong.argmax())
        row = int(np.searchsorted(indptr, at, side="right")) - 1 + self.n_rows_done
        place = at + int(self.indptr[self.n_rows_done])
        self.bad = f"[{place}] is {indices[at]} in {self.major} {row}"

    def finish(self) -> None:
        report = self.check.report
        if self.bad:
            report.add(f"{self.path}/indices", "indices", self.bad, f"in [0, {self.n_minor})")
            return
        if not self.is_sorted:
            report.add(
                self.path, "order", f"indices of a {self.major} are not sorted", level="note"
            )
        if self.has_duplicates:
            found = f"an index is twice in a {self.major}"
            report.add(self.path, "duplicates", found, "distinct indices", level="warning")


def _is_text(info: dict[str, Any]) -> bool:
    return info["class"] == "string" or (info["class"] == "vlen" and bool(info.get("vlen")))


def decode(
    file: Any, dataset: _core.Dataset, block: NDArray[Any], path: str
) -> NDArray[Any] | None:
    """Texts of a raw block; None when they are broken, which was reported already."""
    from scio.io import _values

    try:
        return np.ravel(_values.decode(file.core, dataset.type, block, path))
    except FAILURES:
        return None
