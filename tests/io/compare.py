"""Compare an HDF5 file as scio reads it with the same file as h5py reads it, value for value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

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
