"""What a file is, by what lies at its root; and its elements by name."""

from __future__ import annotations

import os
from typing import Any

from scio.errors import IOFormatError
from scio.io.hdf5 import HDF5File

WHOLE = frozenset(  # groups that are one element
    {"csr_matrix", "csc_matrix", "csr", "csc", "categorical", "awkward-array"}
    | {"nullable-integer", "nullable-boolean", "nullable-string-array"}
)
_TENX = frozenset({"data", "indices", "indptr", "shape"})


def form_of(source: str | os.PathLike[str]) -> str:
    """Return "h5ad", "h5mu", "10x", "loom" or "mtx" of a path.

    Raises
    ------
    IOFormatError
        If it is nothing of these.
    """
    if os.path.isdir(source) or str(source).endswith((".mtx", ".mtx.gz")):
        return "mtx"
    file = HDF5File(source)
    try:
        form = form_of_file(file)
        if form == "hdf5":
            found = ", ".join(file.keys("/")) or "nothing"
            message = f"{file.name} is HDF5, but no AnnData, MuData, 10x or loom file: its root has {found}"
            raise IOFormatError(message)
        return form
    finally:
        file.close()


def form_of_file(file: HDF5File) -> str:
    """Return "h5ad", "h5mu", "10x", "loom" or, when it looks like none of these, "hdf5"."""
    names = set(file.keys("/"))
    encoding = file.scalar_attr("/", "encoding-type")
    if encoding == "MuData" or ("mod" in names and not {"X", "layers"} & names):
        return "h5mu"
    if {"obs", "var"} & names or encoding == "anndata":
        return "h5ad"
    if "matrix" in names:
        return "10x" if file.kind("/matrix") == "group" else "loom"
    groups = [n for n in names if file.kind(f"/{n}") == "group"]
    return "10x" if any(set(file.keys(f"/{n}")) >= _TENX for n in groups) else "hdf5"


def elements_of(file: HDF5File, path: str = "/") -> dict[str, str]:
    """Return the elements below a group, by path, with their types.

    Parameters
    ----------
    file : HDF5File
    path : str

    Returns
    -------
    dict
        ``"/X"`` to ``"csr_matrix of float32"``, ``"/obs/batch"`` to ``"categorical"``,
        ``"/uns/seed"`` to ``"int64"``; groups that hold elements are left out.
    """
    out: dict[str, str] = {}
    _collect(file, path, out, [])
    return out


def _collect(file: HDF5File, path: str, out: dict[str, str], above: list[int]) -> None:
    kind = file.kind(path)
    if kind == "dataset":
        out[path] = type_of(file.dataset(path).type)
        return
    if kind != "group" or file.core.address(path) in above:
        return
    tag = file.scalar_attr(path, "encoding-type") or file.scalar_attr(path, "h5sparse_format")
    members = file.keys(path)
    if tag in WHOLE:
        part = next((n for n in ("data", "values") if n in members), None)
        is_dataset = part is not None and file.kind(f"{path}/{part}") == "dataset"
        of = f" of {type_of(file.dataset(f'{path}/{part}').type)}" if is_dataset else ""
        out[path] = f"{tag}{of}"
        return
    if members and set(members) >= _TENX:  # 10x
        out[path] = f"csc_matrix of {type_of(file.dataset(f'{path}/data').type)}"
        members = [n for n in members if n not in _TENX]
    for name in members:
        _collect(file, f"{path.rstrip('/')}/{name}", out, [*above, file.core.address(path)])


def type_of(info: dict[str, Any]) -> str:
    """Name a type as people do: "float32", "string", "compound"."""
    is_text = info["class"] == "string" or bool(info.get("vlen"))
    return "string" if is_text else str(info["dtype"] or info["class"])
