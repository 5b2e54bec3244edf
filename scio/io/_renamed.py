"""Names for the members of groups whose names were lost with the end of their file.

Old groups keep names in a heap that moves towards the end of the file as it grows: of a truncated
file the members may be there and their names not.  The parser then calls them ``unnamed-0000000`` and
so on, in the order of the alphabet; since the members of AnnData's groups are known, that is enough.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from scio.errors import IOFormatError, KeyNotFoundError
from scio.io._encodings import _SPARSE
from scio.io.hdf5 import HDF5File

if TYPE_CHECKING:
    from scio import _core

UNNAMED = "unnamed-"
_ROOT = ("X", "layers", "obs", "obsm", "obsp", "raw", "uns", "var", "varm", "varp")
_MAY_LACK = ("raw", "X", "layers", "uns", "obsm", "obsp", "varm", "varp")
_BY_ENCODING = {
    "csr_matrix": ("data", "indices", "indptr"),
    "csc_matrix": ("data", "indices", "indptr"),
    "categorical": ("categories", "codes"),
    "nullable-integer": ("mask", "values"),
    "nullable-boolean": ("mask", "values"),
    "nullable-string-array": ("mask", "values"),
}
_FRAMES = ("obs", "var")
_N_LACKING = 4


class RenamedFile(HDF5File):
    """A file that is salvaged, whose lost names are found again where they can be.

    Attributes
    ----------
    renamed : dict
        Path of each group that had lost its names to the names that it got.
    """

    def __init__(self, source: Any) -> None:
        super().__init__(source, salvage=True)
        self.renamed: dict[str, list[str]] = {}
        self._names: dict[str, dict[str, str]] = {}  # group (given path) -> given name -> stored
        self._proxy = _Core(self, super().core)

    @property
    def core(self) -> _core.File:
        """The parser's handle, which takes the names that were given."""
        proxy: Any = getattr(self, "_proxy", None)
        core: _core.File = super().core if proxy is None else proxy
        return core

    def stored_path(self, path: str) -> str:
        """Turn a path of given names into one of stored names."""
        given, stored = "", ""
        for part in path.strip("/").split("/"):
            if part:
                stored += "/" + self._names_of(given or "/", stored or "/").get(part, part)
                given += "/" + part
        return stored or "/"

    def _names_of(self, path: str, stored: str) -> dict[str, str]:
        if path not in self._names:
            self._names[path] = {}
            real = self._proxy.real
            try:
                links = real.links(stored) if real.kind(stored) == "group" else []
            except (IOFormatError, KeyNotFoundError, TypeError):
                links = []
            lost = sorted(link[0] for link in links if link[0].startswith(UNNAMED))
            if lost and len(lost) == len(links):
                names = self._guess(path, stored, lost)
                if names is not None:
                    self._names[path] = dict(zip(names, lost, strict=True))
                    self.renamed[path] = names
        return self._names[path]

    def _guess(self, path: str, stored: str, lost: list[str]) -> list[str] | None:
        if path == "/":
            return self._root_names(lost)
        encoding = self._tag(stored)
        names = _BY_ENCODING.get(encoding or "")
        if names is not None:
            return list(names) if len(names) == len(lost) else None
        if encoding == "dataframe":
            return self._columns(stored, lost)
        return None

    def _tag(self, stored: str) -> str | None:
        """Encoding, by the members when the attributes are gone; "" without one, None: not known."""
        real = self._proxy.real
        try:
            if real.attr_names(stored):
                return str(real.text_attr(stored, "encoding-type") or "")
            if real.kind(stored) == "dataset":
                shape = real.dataset(stored).shape
                return "array" if shape is not None and len(shape) == 2 else None
            members = {link[0] for link in real.links(stored)}
        except (IOFormatError, KeyNotFoundError, TypeError):
            return None
        if {"data", "indices", "indptr"} <= members:
            return "csr_matrix"
        return "dataframe" if "_index" in members else None

    def _root_names(self, lost: list[str]) -> list[str] | None:
        """A run of the names that a root has, to which the encodings fit."""
        tags = [self._tag(f"/{name}") for name in lost]
        if not any(tags):
            return None
        has_first = int(lost[0].removeprefix(UNNAMED)) == 0
        for n_lacking in range(_N_LACKING + 1):
            for absent in combinations(_MAY_LACK, n_lacking):
                every = [n for n in _ROOT if n not in absent]
                names = every[: len(lost)] if has_first else every[-len(lost) :]
                if len(names) == len(lost) and all(map(_fits, names, tags)):
                    return names
        return None

    def _columns(self, stored: str, lost: list[str]) -> list[str] | None:
        """The names in the frame's attributes; as bytes, which is how HDF5 sorts them."""
        frame = HDF5File.attr(self, stored, "column-order")  # no given name lies below
        index = self._proxy.real.text_attr(stored, "_index")
        if index is None or frame is None:
            return None
        columns = [str(n) for n in np.ravel(frame)] if np.size(frame) else []
        names = {*columns, index}
        if len(names) + 1 == len(lost):
            names.add("__categories")
        return sorted(names, key=str.encode) if len(names) == len(lost) else None


def _fits(name: str, tag: str | None) -> bool:
    if tag is None:
        return True
    if tag == "":
        return name not in _FRAMES  # old releases tag only those
    if name == "X":
        return tag in _SPARSE or tag == "array"
    return tag == {"raw": "raw", "obs": "dataframe", "var": "dataframe"}.get(name, "dict")


class _Core:
    """The methods of the parser's handle that take paths, by given names."""

    def __init__(self, file: RenamedFile, real: _core.File) -> None:
        self._file = file
        self.real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def kind(self, path: str) -> str:
        return self.real.kind(self._file.stored_path(path))

    def address(self, path: str) -> int:
        return self.real.address(self._file.stored_path(path))

    def links(self, path: str) -> Any:
        stored = self._file.stored_path(path)
        given = {v: k for k, v in self._file._names_of(path.rstrip("/") or "/", stored).items()}
        links = [(given.get(name, name), *rest) for name, *rest in self.real.links(stored)]
        return sorted(links)

    def attr_names(self, path: str) -> list[str]:
        return self.real.attr_names(self._file.stored_path(path))

    def attr(self, path: str, name: str) -> Any:
        return self.real.attr(self._file.stored_path(path), name)

    def text_attr(self, path: str, name: str) -> str | None:
        return self.real.text_attr(self._file.stored_path(path), name)

    def dataset(self, path: str) -> _core.Dataset:
        return self.real.dataset(self._file.stored_path(path))

    def type(self, path: str) -> dict[str, Any]:
        return self.real.type(self._file.stored_path(path))
