"""What scio reads against what h5py and anndata read, value for value."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp

from scio.errors import IOFormatError
from scio.io import HDF5File


def plain(value: Any) -> Any:
    """Bring values of both readers to one form: text as str, references as their kind, NaN equal."""
    if isinstance(value, h5py.Empty):
        return None
    if isinstance(value, (h5py.Reference, h5py.RegionReference)):
        return "reference"
    if isinstance(value, bytes):
        return value.rstrip(b"\0").decode("utf-8", "surrogateescape")
    if isinstance(value, np.void) and value.dtype.names:
        return tuple(plain(value[name]) for name in value.dtype.names)
    if isinstance(value, np.void):
        return bytes(value)
    if isinstance(value, np.ndarray) and value.dtype.kind in "mMV" and not value.dtype.names:
        return value.tobytes()  # h5py turns opaque data with a tag of its own into dates
    if isinstance(value, np.ndarray):
        if value.dtype.names:
            return [plain(v) for v in value.reshape(-1)]
        if value.dtype.kind in "OS":
            return [plain(v) for v in value.reshape(-1).tolist()]
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value


def is_equal(a: Any, b: Any) -> bool:
    """Equality with NaN equal to itself; shape and dtype kind count for numeric arrays."""
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return (
            a.shape == b.shape
            and a.dtype.newbyteorder("=") == b.dtype.newbyteorder("=")
            and bool(np.array_equal(a, b, equal_nan=a.dtype.kind in "fc"))
        )
    if isinstance(a, np.ndarray):
        a = a.tolist()
    if isinstance(b, np.ndarray):
        b = b.tolist()
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(is_equal(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b) or (a != a and b != b)


def type_has_reference(dtype: np.dtype) -> bool:
    """Whether values are references somewhere inside."""
    if h5py.check_ref_dtype(dtype) is not None:
        return True
    if dtype.names:
        return any(type_has_reference(dtype[name]) for name in dtype.names)
    if dtype.subdtype:
        return type_has_reference(dtype.subdtype[0])
    base = h5py.check_vlen_dtype(dtype)
    return isinstance(base, np.dtype) and type_has_reference(base)


class Comparison:
    """Walks both readers over one file and collects what differs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ours = HDF5File(path)
        self.differences: list[str] = []
        self.n_datasets = self.n_attributes = self.n_values = 0
        self.unread_by_h5py: list[str] = []
        self.refused: dict[str, str] = {}

    def run(self) -> Comparison:
        with h5py.File(self.path, "r") as theirs:
            self._group("/", theirs, set())
        return self

    def _note(self, path: str, text: str) -> None:
        self.differences.append(f"{path}: {text}"[:300])

    def _group(self, path: str, theirs: h5py.Group, seen: set[int]) -> None:
        address = self.ours.core.address(path)
        if address in seen:
            return
        seen.add(address)
        self._attributes(path, theirs)
        links = {link[0]: link for link in self.ours.core.links(path)}
        if sorted(links) != sorted(theirs.keys()):
            self._note(path, f"links {sorted(links)} against {sorted(theirs.keys())}")
        for name in theirs:
            kind = {h5py.HardLink: "hard", h5py.SoftLink: "soft", h5py.ExternalLink: "external"}[
                type(theirs.get(name, getlink=True))
            ]
            if links[name][1] != kind:
                self._note(path, f"link {name} is {links[name][1]}, not {kind}")
            if kind != "hard":
                continue
            child, child_path = theirs[name], f"{path.rstrip('/')}/{name}"
            if isinstance(child, h5py.Group):
                self._group(child_path, child, seen)
            elif isinstance(child, h5py.Dataset):
                self._attributes(child_path, child)
                self._dataset(child_path, child)
            elif self.ours.kind(child_path) != "type":
                self._note(child_path, "is a committed type")

    def _attributes(self, path: str, theirs: Any) -> None:
        names = self.ours.attr_names(path)
        if sorted(names) != sorted(theirs.attrs.keys()):
            self._note(path, f"attributes {sorted(names)} against {sorted(theirs.attrs.keys())}")
            return
        for name in names:
            self.n_attributes += 1
            try:
                expected = theirs.attrs[name]
                dtype = theirs.attrs.get_id(name).dtype
            except (TypeError, OSError, KeyError) as error:
                self.unread_by_h5py.append(f"{path}@{name}: {error}")
                continue
            self._value(f"{path}@{name}", lambda n=name: self.ours.attr(path, n), expected, dtype)

    def _dataset(self, path: str, theirs: h5py.Dataset) -> None:
        self.n_datasets += 1
        mine = None
        try:
            mine = self.ours.dataset(path)
            if mine.shape != theirs.shape:
                self._note(path, f"shape {mine.shape} against {theirs.shape}")
            if mine.chunks != theirs.chunks:
                self._note(path, f"chunks {mine.chunks} against {theirs.chunks}")
            if theirs.shape is not None and mine.maxshape != theirs.maxshape:
                self._note(path, f"maxshape {mine.maxshape} against {theirs.maxshape}")
        except IOFormatError as error:
            self.refused[path] = str(error)
            return
        try:
            expected = theirs[()] if theirs.shape is not None else None
            dtype = theirs.dtype
        except (TypeError, OSError) as error:
            self.unread_by_h5py.append(f"{path}: {error}")
            self.ours.read(path)
            return
        self._value(path, lambda: self.ours.read(path), expected, dtype)

    def _value(self, place: str, read: Any, expected: Any, dtype: np.dtype) -> None:
        try:
            got = read()
        except IOFormatError as error:
            self.refused[place] = str(error)
            return
        if type_has_reference(dtype):
            return
        self.n_values += 1
        if not is_equal(plain(got), plain(expected)):
            self._note(place, f"{plain(got)!r:.120} against {plain(expected)!r:.120}")


# --- whole AnnData objects


def anndata_differences(got: Any, expected: Any, *, are_types_exact: bool = True) -> list[str]:
    """List where two AnnData objects differ: values, order, dtypes, names, kinds of objects.

    Parameters
    ----------
    got, expected : anndata.AnnData
    are_types_exact : bool
        Also tell list from array, NumPy's scalars from Python's.

    Returns
    -------
    list of str
        One line for each difference, with its place.  Byte order and the width of sparse indices
        are free: files are read in native order, indices as int32 where they fit.
    """
    found: list[str] = []
    _Differ(found, are_types_exact).objects("", got, expected)
    return found


class _Differ:
    def __init__(self, found: list[str], are_types_exact: bool) -> None:
        self.found = found
        self.are_types_exact = are_types_exact

    def note(self, place: str, text: str) -> None:
        self.found.append(f"{place}: {text}"[:400])

    def objects(self, place: str, got: Any, expected: Any) -> None:
        if got.shape != expected.shape:
            self.note(place, f"shape {got.shape} against {expected.shape}")
            return
        self.value(f"{place}/X", got.X, expected.X)
        for name in ("obs", "var"):
            self.frame(f"{place}/{name}", getattr(got, name), getattr(expected, name))
        for name in ("layers", "obsm", "varm", "obsp", "varp", "uns"):
            self.value(f"{place}/{name}", dict(getattr(got, name)), dict(getattr(expected, name)))
        if (got.raw is None) != (expected.raw is None):
            self.note(f"{place}/raw", f"{got.raw is None=}, {expected.raw is None=}")
        elif got.raw is not None:
            self.value(f"{place}/raw/X", got.raw.X, expected.raw.X)
            self.frame(f"{place}/raw/var", got.raw.var, expected.raw.var)
            self.value(f"{place}/raw/varm", dict(got.raw.varm), dict(expected.raw.varm))

    def frame(self, place: str, got: Any, expected: Any) -> None:
        try:
            pd.testing.assert_frame_equal(
                got, expected, check_exact=True, check_column_type=False, check_names=True
            )
        except AssertionError as error:
            self.note(place, str(error))
            return
        for (
            column
        ) in expected.columns:  # missing values of one kind or another count as equal above
            self.array(
                f"{place}/{column}",
                got[column].array if got[column].dtype == object else None,
                expected[column].array if expected[column].dtype == object else None,
            )
        if got.index.dtype != expected.index.dtype or got.index.name != expected.index.name:
            self.note(place, f"index {got.index!r:.80} against {expected.index!r:.80}")

    def array(self, place: str, got: Any, expected: Any) -> None:
        if got is None and expected is None:
            return
        if [type(v) for v in got] != [type(v) for v in expected]:
            self.note(place, "objects of other types")

    def value(self, place: str, got: Any, expected: Any) -> None:
        if isinstance(expected, Mapping):
            self.mapping(place, got, expected)
        elif sp.issparse(expected):
            self.sparse(place, got, expected)
        elif isinstance(expected, pd.DataFrame):
            if not isinstance(got, pd.DataFrame):
                self.note(place, f"{type(got)} against a frame")
            else:
                self.frame(place, got, expected)
        elif isinstance(expected, anndata.AnnData):
            self.objects(place, got, expected)
        elif isinstance(expected, (pd.api.extensions.ExtensionArray,)):
            if (
                type(got) is not type(expected)
                or got.dtype != expected.dtype
                or not got.equals(expected)
            ):
                self.note(place, f"{got!r:.100} against {expected!r:.100}")
        elif isinstance(expected, np.ndarray):
            self.numbers(place, got, expected)
        else:
            self.scalar(place, got, expected)

    def mapping(self, place: str, got: Any, expected: Any) -> None:
        if not isinstance(got, Mapping) or list(got) != list(expected):
            shown = list(got) if isinstance(got, Mapping) else type(got)
            self.note(place, f"{shown} against {list(expected)}")
            return
        for name in expected:
            self.value(f"{place}/{name}", got[name], expected[name])

    def sparse(self, place: str, got: Any, expected: Any) -> None:
        if type(got) is not type(expected) or got.shape != expected.shape:
            self.note(place, f"{got!r} against {expected!r}")
            return
        fits = max(*got.shape, got.nnz) <= np.iinfo(np.int32).max
        width = np.int32 if fits else np.int64
        if got.indices.dtype != width or got.indptr.dtype != width:
            self.note(place, f"indices {got.indices.dtype}, indptr {got.indptr.dtype}")
        self.numbers(f"{place}/data", got.data, expected.data)
        for name in ("indices", "indptr"):
            mine = getattr(got, name).astype(np.int64)
            self.numbers(f"{place}/{name}", mine, getattr(expected, name).astype(np.int64))

    def numbers(self, place: str, got: Any, expected: Any) -> None:
        if not isinstance(got, np.ndarray):
            self.note(place, f"{type(got)} against an array")
            return
        dtype = expected.dtype.newbyteorder("=")
        if got.shape != expected.shape or got.dtype != dtype:
            self.note(place, f"{got.dtype} {got.shape} against {expected.dtype} {expected.shape}")
        elif not got.dtype.isnative and not got.dtype.names:
            self.note(place, f"{got.dtype} is not in native order")
        elif not is_equal(plain(got), plain(expected)):
            self.note(place, f"{got!r:.150} against {expected!r:.150}")

    def scalar(self, place: str, got: Any, expected: Any) -> None:
        is_awkward = type(expected).__module__.startswith("awkward")
        if is_awkward:
            got, expected = got.to_list(), expected.to_list()
        if self.are_types_exact and type(got) is not type(expected):
            self.note(
                place, f"{got!r:.80} ({type(got)}) against {expected!r:.80} ({type(expected)})"
            )
        elif not is_equal(plain(got), plain(expected)):
            self.note(place, f"{got!r:.80} against {expected!r:.80}")
