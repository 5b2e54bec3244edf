"""``scio info``: what is in a file, from its headers; no chunk of a matrix is read."""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from scio import _core
from scio.cli import _machine
from scio.cli._text import NOTHING, Table, count_text, facts_table, nbytes_text

if TYPE_CHECKING:
    from scio.io import AnnDataFile, HDF5File

BATCH_SIZE = 64  # the least cap depends on it a little; that of CellDataLoader
_SPARSE = {"csr_matrix": "csr", "csc_matrix": "csc", "csr": "csr", "csc": "csc"}
_GROUPS = ("layers", "obsm", "varm", "obsp", "varp")
_U16_GENES = 65_536
_FAST_MARK = "/uns/scio/fast_layout"  # as scio/io/fast.py writes it


# --- facts


def describe(handle: AnnDataFile) -> dict[str, Any]:
    """Describe a file.

    Parameters
    ----------
    handle : AnnDataFile
        As `scio.open` gives it.

    Returns
    -------
    dict
        Made of what JSON knows: ``file``, ``shape``, ``nnz``, ``elements``, ``obs``, ``var``,
        ``uns``, ``loader``.

    Raises
    ------
    CorruptFileError, UnsupportedError
        If a header breaks a rule.

    Notes
    -----
    Read are headers, attributes, the chunk indexes, the gene names and ``indptr``; never a chunk
    of the values or indices of a matrix.
    """
    file = handle.file
    elements = _elements(handle)
    x = next((e for e in elements if e["name"] == "X"), None)
    return {
        "file": {
            "name": handle.name,
            "nbytes": file.core.nbytes,
            "superblock": dict(file.core.superblock),
            **_encoding(file, "/"),
        },
        "shape": list(handle.shape),
        "nnz": x["nnz"] if x else None,
        "elements": elements,
        "obs": _frame(file, "/obs"),
        "var": _frame(file, "/var"),
        "uns": file.keys("/uns") if file.kind("/uns") == "group" else [],
        "loader": _loader(handle, x) if x else None,
    }


def _elements(handle: AnnDataFile) -> list[dict[str, Any]]:
    file = handle.file
    paths = ["/X"] if handle.has_x else []
    groups = [g for g in _GROUPS if file.kind(f"/{g}") == "group"]
    paths += [f"/{g}/{key}" for g in groups for key in file.keys(f"/{g}")]
    paths += [path for path in ("/raw/X", "/raw.X") if path in file]
    return [_element(file, path) for path in paths]


def _encoding(file: HDF5File, path: str) -> dict[str, str | None]:
    values = {name: file.scalar_attr(path, f"encoding-{name}") for name in ("type", "version")}
    return {f"encoding_{k}": None if v is None else str(v) for k, v in values.items()}


def _element(file: HDF5File, path: str) -> dict[str, Any]:
    encoding = _encoding(file, path)
    out: dict[str, Any] = {"name": path.strip("/"), **encoding}
    out |= {"kind": "array", "shape": None, "nnz": None, "dtype": None, "index_dtype": None}
    legacy = file.scalar_attr(path, "h5sparse_format")
    kind = _SPARSE.get(str(encoding["encoding_type"] or legacy))
    if kind is not None:
        out |= _sparse(file, path, kind)
    elif file.kind(path) == "dataset":
        array = array_facts(file, path)
        shape = array["shape"]
        if shape is not None and len(shape) == 2:
            out |= {"kind": "dense", "nnz": shape[0] * shape[1]}
            array["cells_per_chunk"] = array["chunk"][0] if array["chunk"] else None
        out |= {"shape": shape, "dtype": array["dtype"], "arrays": [array]}
    elif "_index" in file.attr_names(path):
        out |= {"kind": "dataframe", "columns": _frame(file, path)["columns"]}
        out["arrays"] = _arrays_below(file, path)
    else:
        out |= {"kind": encoding["encoding_type"] or "group", "arrays": _arrays_below(file, path)}
    return out | _totals(out["arrays"])


def _sparse(file: HDF5File, path: str, kind: str) -> dict[str, Any]:
    arrays = [array_facts(file, f"{path}/{name}") for name in ("data", "indices", "indptr")]
    shape = file.attr(path, "shape")
    if shape is None:
        shape = file.attr(path, "h5sparse_shape")
    sizes = [int(n) for n in np.asarray(shape).reshape(-1)] if shape is not None else None
    nnz = arrays[0]["shape"][0] if arrays[0]["shape"] else 0
    if sizes and nnz and kind == "csr":
        for array in arrays[:2]:
            n_items = array["chunk"][0] if array["chunk"] else None
            array["cells_per_chunk"] = n_items and round(n_items / (nnz / max(1, sizes[0])), 1)
    dtypes = {"dtype": arrays[0]["dtype"], "index_dtype": arrays[1]["dtype"]}
    return {"kind": kind, "shape": sizes, "nnz": nnz, "arrays": arrays, **dtypes}


def array_facts(file: HDF5File, path: str) -> dict[str, Any]:
    """Describe one dataset from its header and its index of chunks."""
    dataset = file.dataset(path)
    shape = None if dataset.shape is None else list(dataset.shape)
    is_text = dataset.type["class"] == "string" or "utf8" in dataset.type
    decoded = (
        dataset.type["itemsize"] * int(np.prod(shape, dtype=object)) if shape is not None else 0
    )
    stored = dataset.stored_nbytes
    return {
        "path": dataset.path,
        "shape": shape,
        "dtype": dataset.dtype or ("string" if is_text else dataset.type["class"]),
        "layout": dataset.layout,
        "chunk": None if dataset.chunks is None else list(dataset.chunks),
        "n_chunks": dataset.n_units,
        "cells_per_chunk": None,
        "filters": [_filter(f[1], f[3]) for f in dataset.filters],
        "stored_nbytes": stored,
        "decoded_nbytes": decoded,
        "ratio": round(decoded / stored, 2) if stored else None,
    }


def _filter(name: str, values: tuple[int, ...]) -> dict[str, Any]:
    """Name and level; the level of deflate and zstd is their first number, blosc's the fifth."""
    place = {"deflate": 0, "zstd": 0, "blosc": 4}.get(name)
    known = place is not None and place < len(values)
    return {"name": name, "level": values[place] if known and place is not None else None}


def _arrays_below(file: HDF5File, path: str) -> list[dict[str, Any]]:
    """Arrays of a group of unknown or mixed content, one level of groups deep."""
    arrays = []
    for name in file.keys(path):
        child = f"{path}/{name}"
        if file.kind(child) == "dataset":
            arrays.append(array_facts(file, child))
        elif file.kind(child) == "group":
            inner = [f"{child}/{n}" for n in file.keys(child)]
            arrays += [array_facts(file, p) for p in inner if file.kind(p) == "dataset"]
    return arrays


def _totals(arrays: list[dict[str, Any]]) -> dict[str, Any]:
    stored = sum(a["stored_nbytes"] for a in arrays)
    decoded = sum(a["decoded_nbytes"] for a in arrays)
    ratio = round(decoded / stored, 2) if stored else None
    return {"stored_nbytes": stored, "decoded_nbytes": decoded, "ratio": ratio}


# --- frames


def _frame(file: HDF5File, path: str) -> dict[str, Any]:
    from scio.io.elements import open_frame

    frame = open_frame(file, path, path.strip("/"))
    if file.kind(path) == "dataset":
        members = {m[0]: m[2] for m in file.dataset(path).type["members"]}
        kinds = {n: {"name": n, "kind": _type_text(members[n])} for n in frame.columns}
    else:
        kinds = {n: {"name": n, **_column(file, f"{path}/{n}")} for n in frame.columns}
    return {"n_rows": len(frame), "columns": list(kinds.values()), **_encoding(file, path)}


def _type_text(info: dict[str, Any]) -> str:
    return str(info["dtype"] or ("string" if "utf8" in info else info["class"]))


def _column(file: HDF5File, path: str) -> dict[str, Any]:
    encoding = file.scalar_attr(path, "encoding-type")
    if file.kind(path) == "group":
        members = set(file.keys(path))
        if {"codes", "categories"} <= members:
            ordered = bool(file.scalar_attr(path, "ordered", default=False))
            n_labels = _n_rows(file, f"{path}/categories")
            return {"kind": "categorical", "n_categories": n_labels, "ordered": ordered}
        if {"values", "mask"} <= members:
            return {"kind": str(encoding or "nullable")}
        return {"kind": str(encoding or "group without encoding-type")}
    target = file.attr_reference(path, "categories")
    if target is not None:  # anndata before 0.8
        return {"kind": "categorical", "n_categories": _n_rows(file, target), "ordered": False}
    return {"kind": _type_text(file.dataset(path).type)}


def _n_rows(file: HDF5File, path: str) -> int | None:
    path = f"{path}/values" if file.kind(path) == "group" else path
    shape = file.dataset(path).shape
    return int(np.prod(shape)) if shape is not None else None


# --- the loader


def _loader(handle: AnnDataFile, x: dict[str, Any]) -> dict[str, Any]:
    path, why = _path(x, is_fast=handle.file.kind(_FAST_MARK) is not None)
    out: dict[str, Any] = {"path": path, "why": why, "batch_size": BATCH_SIZE}
    out |= {"least_max_memory": None, "advised_max_memory": None, "advised_why": None}
    out["least_unknown"] = None
    out["resident_nbytes"] = _resident(x)
    if path == "cannot be decoded":
        return out
    if x["kind"] == "csc":
        out["least_unknown"] = "known only after the conversion"
        return out
    try:
        least = _least_memory(handle)
    except (ValueError, KeyError) as error:
        out["least_unknown"] = str(error)
        return out
    out["least_max_memory"] = least
    room = max(least, _machine.memory_nbytes() // 2)
    if path == "fast layout":
        wanted, reason = 4 * least, "the cells are mapped and need none of it"
    else:
        wanted = out["resident_nbytes"]["as_stored"] + 4 * least
        reason = "all cells stay in memory after the first epoch, whatever their values"
    if wanted > room:
        wanted = room
        reason = "half of this machine; cells that do not fit are decoded again in every epoch"
    return out | {"advised_max_memory": wanted, "advised_why": reason}


def _path(x: dict[str, Any], *, is_fast: bool) -> tuple[str, str]:
    """Name the way of the loader through X, and the reason."""
    arrays = x["arrays"][:2] if x["kind"] in ("csr", "csc") else x["arrays"]
    filters = [f["name"] for array in arrays for f in array["filters"]]
    able = _core.build_info()["filters"]
    missing = sorted({name for name in filters if not able.get(name, False)})
    if missing:
        return "cannot be decoded", f"this build has no filter {', '.join(missing)}"
    if x["kind"] == "csc":
        return "converted", "stored by columns: read whole and turned into rows when it is opened"
    if not filters:
        if all(array["layout"] == "contiguous" for array in arrays):
            if is_fast:
                return "fast layout", "made by scio: mapped, rows are read at random"
            return "plain, contiguous", "rows lie as they are in memory: nothing to decode"
        return "plain, chunked", "not compressed: chunks are read, nothing to decode"
    if all([f["name"] for f in array["filters"]] == ["deflate"] for array in arrays):
        return "inflate", "one deflate: each chunk is inflated by one thread, once an epoch"
    names = " and ".join(
        sorted({"+".join(f["name"] for f in a["filters"]) or "none" for a in arrays})
    )
    return "pipeline", f"filters {names}: each chunk is decoded by one thread, once an epoch"


def _resident(x: dict[str, Any]) -> dict[str, int]:
    """Bytes of all cells in the compact store: values of one byte, and values as stored."""
    if x["shape"] is None:
        return {}
    n_cells, n_genes = x["shape"]
    index = 2 if n_genes <= _U16_GENES else 4
    itemsize = np.dtype(x["dtype"]).itemsize
    nnz = x["nnz"]
    if x["kind"] == "dense":
        return {"small_counts": nnz, "as_stored": nnz * itemsize}
    table = 16 * n_cells
    return {
        "small_counts": nnz * (index + 1) + table,
        "as_stored": nnz * (index + itemsize) + table,
    }


def _least_memory(handle: AnnDataFile) -> int:
    """Ask the planner, which refuses a cap of one byte and says the least; reads indptr."""
    from scio.data import CellDataLoader, CellDataset

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # duplicate gene names are no matter here
        cells = CellDataset(handle, None, obs_keys=[])
        try:
            CellDataLoader(cells, BATCH_SIZE, form="csr", to="numpy", drop_last=False, max_memory=1)
        except ValueError as error:
            found = re.search(r"at least (\d+) (?:bytes )?are needed", str(error))
            if found is None:
                raise
            return int(found.group(1))
    return 1


# --- text


def tables(facts: dict[str, Any]) -> list[Table]:
    """Lay the description of a file out as tables."""
    n_obs, n_vars = facts["shape"]
    file = facts["file"]
    encoding = " ".join(filter(None, (file["encoding_type"], file["encoding_version"])))
    superblock = file["superblock"]
    head = [
        ("cells x genes", f"{n_obs:,} x {n_vars:,}"),
        ("stored values of X", _nnz_text(facts)),
        ("size", nbytes_text(file["nbytes"])),
        ("encoding", encoding or "none (anndata before 0.8, or another writer)"),
        (
            "superblock",
            f"version {superblock['version']}, offsets of {superblock['offset_nbytes']} bytes",
        ),
    ]
    if facts["uns"]:
        head.append(("uns", ", ".join(facts["uns"])))
    out = [facts_table(file["name"], head), *_element_tables(facts)]
    out += [_frame_table(axis, facts[axis]) for axis in ("obs", "var")]
    if facts["loader"] is not None:
        out.append(_loader_table(facts["loader"]))
    return out


def _nnz_text(facts: dict[str, Any]) -> str:
    if facts["nnz"] is None:
        return "no X"
    n_obs, n_vars = facts["shape"]
    return f"{facts['nnz']:,} ({facts['nnz'] / max(1, n_obs * n_vars):.2%}, {facts['nnz'] / max(1, n_obs):,.0f} a cell)"


def _element_tables(facts: dict[str, Any]) -> list[Table]:
    elements = Table("elements", ("element", "kind", "shape", "values", "indices", "encoding"))
    arrays = Table(
        "arrays",
        ("array", "shape", "type", "chunk", "cells/chunk", "filters", "stored", "decoded", "ratio"),
    )
    for element in facts["elements"]:
        shape = element["shape"]
        encoding = " ".join(filter(None, (element["encoding_type"], element["encoding_version"])))
        elements.rows.append(
            (
                element["name"],
                element["kind"],
                _shape_text(shape),
                element["dtype"] or NOTHING,
                element["index_dtype"] or NOTHING,
                encoding or NOTHING,
            )
        )
        arrays.rows.extend(_array_row(array) for array in element["arrays"])
    return [elements, arrays] if elements.rows else []


def _shape_text(shape: list[int] | None) -> str:
    return NOTHING if shape is None else " x ".join(f"{n:,}" for n in shape) or "scalar"


def _array_row(array: dict[str, Any]) -> tuple[str, ...]:
    filters = [
        f["name"] + (f" {f['level']}" if f["level"] is not None else "") for f in array["filters"]
    ]
    per_chunk = array["cells_per_chunk"]
    return (
        array["path"].strip("/"),
        _shape_text(array["shape"]),
        array["dtype"],
        _shape_text(array["chunk"]) if array["chunk"] else array["layout"],
        NOTHING if per_chunk is None else f"{per_chunk:,}",
        " + ".join(filters) or "none",
        nbytes_text(array["stored_nbytes"]),
        nbytes_text(array["decoded_nbytes"]),
        NOTHING if array["ratio"] is None else f"{array['ratio']:.2f}",
    )


def _frame_table(axis: str, frame: dict[str, Any]) -> Table:
    table = Table(f"{axis}: {frame['n_rows']:,} rows, {len(frame['columns'])} columns", ("", ""))
    for column in frame["columns"]:
        kind = column["kind"]
        if column.get("n_categories") is not None:
            order = "ordered " if column["ordered"] else ""
            kind += f", {column['n_categories']:,} {order}categories"
        table.rows.append((column["name"], kind))
    return table


def _loader_table(loader: dict[str, Any]) -> Table:
    if loader["least_max_memory"] is None:
        least = f"not known: {loader['least_unknown'] or loader['path']}"
    else:
        least = f"{loader['least_max_memory']:,} bytes ({nbytes_text(loader['least_max_memory'])})"
    rows = [("path", f"{loader['path']}: {loader['why']}"), ("least max_memory", least)]
    if loader["advised_max_memory"] is not None:
        advised = nbytes_text(loader["advised_max_memory"])
        rows.append(("advised max_memory", f"{advised}: {loader['advised_why']}"))
    resident = loader["resident_nbytes"]
    if resident:
        counts, stored = (nbytes_text(resident[k]) for k in ("small_counts", "as_stored"))
        rows.append(("all cells, compact", f"{counts} for counts up to 255, else up to {stored}"))
    return facts_table(f"loader, CSR batches of {loader['batch_size']}", rows)


def machine_tables(machine: dict[str, Any]) -> list[Table]:
    """Lay the description of machine and build out as tables."""
    build = machine["build"]
    features = ", ".join(build.get("cpu_features", []))
    head = [
        ("processor", machine["cpu"]),
        ("cores", count_text(machine["cores"])),
        ("memory", nbytes_text(machine["memory_nbytes"])),
        ("system", machine["system"]),
        ("python", machine["python"]),
        ("compiler", str(build["compiler"])),
        ("CPU level", f"{build['cpu_level']} ({features})"),
        ("threads", count_text(build["threads"])),
    ]
    decoders = [
        (name, "yes" if value is True else str(value or "no"))
        for name, value in sorted(build["filters"].items())
    ]
    libraries = [(name, value or "not installed") for name, value in machine["versions"].items()]
    return [
        facts_table(f"scio {build['version']}", head),
        facts_table("decoders", decoders),
        facts_table("libraries", libraries),
    ]
