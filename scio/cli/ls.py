"""``scio ls FILE``: the tree of a file, from headers only."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scio.cli import _text
from scio.cli._common import File, Json, check_path, reports_errors_as

if TYPE_CHECKING:
    from scio.io.hdf5 import HDF5File

_WHOLE = frozenset(  # groups that are one element
    {"csr_matrix", "csc_matrix", "csr", "csc", "categorical", "awkward-array"}
    | {"nullable-integer", "nullable-boolean", "nullable-string-array"}
)


@reports_errors_as(2)
def ls(
    file: File,
    path: Annotated[
        str, typer.Argument(metavar="[PATH]", help="Where to begin.", show_default=False)
    ] = "/",
    is_long: Annotated[
        bool, typer.Option("-l", "--long", help="Also chunks, filters, bytes, parts.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List the elements of a file without reading them. Exit codes: 0, 2 unreadable."""
    from scio._names import near_names
    from scio.errors import KeyNotFoundError
    from scio.io.hdf5 import HDF5File

    handle = HDF5File(check_path(file))
    path = "/" + path.strip("/")
    if handle.kind(path) is None:
        parent = path.rpartition("/")[0] or "/"
        known = handle.keys(parent) if handle.kind(parent) == "group" else []
        message = (
            f"{handle.name}: {path} does not exist; {near_names(path.rpartition('/')[2], known)}"
        )
        raise KeyNotFoundError(message)
    rows = list(tree(handle, path, has_parts=is_long or as_json))
    if as_json:
        print(json.dumps({"file": handle.name, "elements": rows}))
    else:
        _text.show([table(handle.name, rows, is_long=is_long)])


def tree(file: HDF5File, path: str, *, has_parts: bool = False) -> Iterator[dict[str, Any]]:
    """Describe the elements below a path, from headers.

    Parameters
    ----------
    file : HDF5File
    path : str
    has_parts : bool
        Also the datasets that make up sparse matrices, categoricals and nullable columns.

    Yields
    ------
    dict
        ``path``, ``depth``, ``kind``, ``encoding``, ``shape``, ``dtype``, ``chunks``, ``filters``,
        ``stored_nbytes``, ``raw_nbytes``, ``ratio``; ``opaque``: why scio does not read it, else "".
    """
    whole = ""
    for row in _Tree(file).rows(path, 0, ()):
        is_part = bool(whole) and row["path"].startswith(whole)
        if not is_part:
            whole = row["path"].rstrip("/") + "/" if row["kind"] in _WHOLE else ""
        if has_parts or not is_part:
            yield row


class _Tree:
    def __init__(self, file: HDF5File) -> None:
        self.file = file

    def rows(self, path: str, depth: int, above: tuple[int, ...]) -> Iterator[dict[str, Any]]:
        from scio.errors import IOFormatError

        row = _row(path, depth)
        try:
            kind = self.file.core.kind(path)
            address = self.file.core.address(path)
            row |= self._facts(path, kind)
        except (IOFormatError, KeyError, TypeError) as error:
            yield row | {"opaque": str(error).removeprefix(f"{self.file.name}: ")}
            return
        if kind != "group":
            yield row
            return
        if address in above or depth > 64:
            yield row | {"opaque": "a group that contains itself"}
            return
        below = list(self._below(path, depth, (*above, address)))
        own = [r for r in below if r["kind"] == "dataset"]
        row["stored_nbytes"] = sum(r["stored_nbytes"] or 0 for r in own)
        row["raw_nbytes"] = sum(r["raw_nbytes"] or 0 for r in own)
        row["ratio"] = _ratio(row)
        yield row
        yield from below

    def _below(self, path: str, depth: int, above: tuple[int, ...]) -> Iterator[dict[str, Any]]:
        for name, link, _, target, target_file in self.file.core.links(path):
            member = f"{path.rstrip('/')}/{name}"
            if link == "hard":
                yield from self.rows(member, depth + 1, above)
            else:
                place = f"{target_file}: {target}" if target_file else target
                reason = f"{link} link to {place}, not followed"
                yield _row(member, depth + 1) | {"kind": "link", "opaque": reason}

    def _facts(self, path: str, kind: str) -> dict[str, Any]:
        from scio.cli.info import array_facts
        from scio.io._encodings import _ENCODINGS
        from scio.io.h5ad import shape_of

        encoding = self.file.scalar_attr(path, "encoding-type")
        legacy = self.file.scalar_attr(path, "h5sparse_format")
        version = self.file.scalar_attr(path, "encoding-version")
        out: dict[str, Any] = {"kind": kind}
        if encoding is not None:
            out["encoding"] = " ".join(filter(None, (str(encoding), str(version or ""))))
            if encoding not in _ENCODINGS and encoding != "MuData":
                out["opaque"] = f"unknown encoding {encoding!r}"
        if kind == "group":
            out["kind"] = str(encoding or legacy or "group")
            if out["kind"] in ("csr_matrix", "csc_matrix", "csr", "csc"):
                shape = shape_of(self.file, path)
                out["shape"] = None if shape is None else list(shape)
                if self.file.kind(f"{path}/data") == "dataset":
                    out["dtype"] = array_facts(self.file, f"{path}/data")["dtype"]
            elif out["kind"] == "categorical" and self.file.kind(f"{path}/codes") == "dataset":
                out["shape"] = array_facts(self.file, f"{path}/codes")["shape"]
        elif kind == "dataset":
            facts = array_facts(self.file, path)
            out |= {
                "shape": facts["shape"],
                "dtype": facts["dtype"],
                "chunks": facts["chunk"],
                "filters": facts["filters"],
                "stored_nbytes": facts["stored_nbytes"],
                "raw_nbytes": facts["decoded_nbytes"],
                "ratio": facts["ratio"],
            }
            unread = self._unread(path)
            if unread:
                out["opaque"] = unread
        else:
            out["opaque"] = "a committed type" if kind == "type" else "an object of unknown kind"
        return out

    def _unread(self, path: str) -> str:
        from scio.errors import UnsupportedError
        from scio.io._plan import check_filters

        dataset = self.file.dataset(path)
        try:
            check_filters(dataset, path)
        except UnsupportedError as error:
            return str(error).removeprefix(f"{path} ")
        return str(dataset.type["unsupported"])


def _row(path: str, depth: int) -> dict[str, Any]:
    return {
        "path": path,
        "depth": depth,
        "kind": "unknown",
        "encoding": None,
        "shape": None,
        "dtype": None,
        "chunks": None,
        "filters": [],
        "stored_nbytes": None,
        "raw_nbytes": None,
        "ratio": None,
        "opaque": "",
    }


def _ratio(row: dict[str, Any]) -> float | None:
    return round(row["raw_nbytes"] / row["stored_nbytes"], 2) if row["stored_nbytes"] else None


def table(name: str, rows: list[dict[str, Any]], *, is_long: bool) -> _text.Table:
    """Lay the rows out as a tree."""
    columns: tuple[str, ...] = ("element", "kind", "shape", "type", "stored", "note")
    if is_long:
        columns = (
            "element", "kind", "shape", "type", "encoding", "chunks", "filters",
            "stored", "raw", "ratio", "note",
        )  # fmt: skip
    out = _text.Table(name, columns)
    for row in rows:
        last = row["path"].rpartition("/")[2] or "/"
        cells = [
            "  " * row["depth"] + last,
            row["kind"],
            _sizes(row["shape"]),
            row["dtype"] or _text.NOTHING,
        ]
        if is_long:
            filters = [
                f["name"] + (f" {f['level']}" if f["level"] is not None else "")
                for f in row["filters"]
            ]
            cells += [row["encoding"] or _text.NOTHING, _sizes(row["chunks"])]
            cells += [" + ".join(filters) or _text.NOTHING]
        cells += [_text.nbytes_text(row["stored_nbytes"])]
        if is_long:
            ratio = _text.NOTHING if row["ratio"] is None else f"{row['ratio']:.2f}"
            cells += [_text.nbytes_text(row["raw_nbytes"]), ratio]
        cells += [f"opaque: {row['opaque']}" if row["opaque"] else ""]
        out.rows.append(tuple(cells))
    return out


def _sizes(shape: list[int] | None) -> str:
    if shape is None:
        return _text.NOTHING
    return " x ".join(f"{n:,}" for n in shape) or "scalar"
