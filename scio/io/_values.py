"""HDF5 types and raw bytes as NumPy arrays and Python values."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from scio import _core
from scio.errors import UnsupportedError

TypeInfo = dict[str, Any]

_REFERENCE_NBYTES = 8


def numpy_dtype(info: TypeInfo) -> np.dtype[Any]:
    """Return the NumPy dtype that lays over the raw bytes of an HDF5 type.

    Parameters
    ----------
    info : dict
        Type description of ``_core.File``.

    Returns
    -------
    numpy.dtype
        Variable-length members are opaque records (``V16``), to be resolved by `decode`.

    Raises
    ------
    UnsupportedError
        If values of the type cannot be given.
    """
    if info["unsupported"]:
        raise UnsupportedError(info["unsupported"])
    kind, itemsize = info["class"], info["itemsize"]
    if kind == "compound":
        members = info["members"]
        return np.dtype(
            {
                "names": [m[0] for m in members],
                "offsets": [m[1] for m in members],
                "formats": [numpy_dtype(m[2]) for m in members],
                "itemsize": itemsize,
            }
        )
    if kind == "array":
        return np.dtype((numpy_dtype(info["base"]), tuple(info["dims"])))
    if kind == "complex":
        return np.dtype(f"{info['base']['order']}c{itemsize}")
    if kind == "string":
        return np.dtype(f"S{itemsize}")
    if kind == "enum" and not info["is_bool"]:
        return numpy_dtype(info["base"])
    if info["dtype"] is not None:
        return np.dtype(info["dtype"]).newbyteorder(info["order"])
    return np.dtype(f"V{itemsize}")


def _is_complex_pair(info: TypeInfo) -> bool:
    """Compound {r, i} of two equal floats: how h5py stores complex numbers."""
    members = info["members"]
    return (
        [m[0] for m in members] == ["r", "i"]
        and all(m[2]["class"] == "float" for m in members)
        and members[0][2]["dtype"] == members[1][2]["dtype"]
        and members[0][1] == 0
        and info["itemsize"] == 2 * members[0][2]["itemsize"]
    )


def has_objects(info: TypeInfo) -> bool:
    """Tell whether values of the type become Python objects (strings, sequences)."""
    kind = info["class"]
    if kind in ("vlen", "string"):
        return True
    if kind == "compound":
        return any(has_objects(m[2]) for m in info["members"])
    return kind == "array" and has_objects(info["base"])


def decode(file: _core.File, info: TypeInfo, raw: NDArray[np.uint8], where: str) -> NDArray[Any]:
    """Turn raw elements into a native array.

    Parameters
    ----------
    file : _core.File
        Where variable-length payload lies.
    info : dict
        Type description.
    raw : ndarray, shape (..., itemsize), uint8
        The elements as stored.
    where : str
        Element path, for messages.

    Returns
    -------
    ndarray, shape (...)
        Numbers in native byte order; strings, sequences as objects; compounds as structured arrays
        whose string members are objects.

    Raises
    ------
    CorruptFileError
        If a string is not UTF-8; the message names the position.
    UnsupportedError
        If values of the type cannot be given.
    """
    dtype = numpy_dtype(info)
    shape = raw.shape[:-1]
    flat = np.ascontiguousarray(raw).reshape(-1, info["itemsize"])
    kind = info["class"]
    if kind == "vlen":
        return _decode_vlen(file, info, flat, where).reshape(shape)
    if kind == "string":
        return _decode_fixed(info, flat, where).reshape(shape)
    if kind == "compound" and _is_complex_pair(info):
        part = info["members"][0][2]
        pair = np.dtype(f"{part['order']}c{info['itemsize']}")
        return flat.view(pair).reshape(shape).astype(pair.newbyteorder("="), copy=False)
    if kind == "compound":
        return _decode_compound(file, info, flat, where).reshape(shape)
    if kind == "array" and has_objects(info):
        base = info["base"]
        items = flat.reshape(-1, base["itemsize"])
        return decode(file, base, items, where).reshape(shape + tuple(info["dims"]))
    if kind == "array":
        base_dtype = dtype.base
        values = flat.reshape(-1).view(base_dtype).reshape(shape + dtype.shape)
        return values.astype(base_dtype.newbyteorder("="), copy=False)
    values = flat.reshape(-1).view(dtype).reshape(shape)
    return values.astype(dtype.newbyteorder("="), copy=False) if dtype.kind != "V" else values


def _decode_vlen(
    file: _core.File, info: TypeInfo, flat: NDArray[np.uint8], where: str
) -> NDArray[Any]:
    out = np.empty(len(flat), dtype=object)
    if len(flat) == 0:
        return out
    offsets, payload = file.vlen(info, flat)
    if info["vlen"]:
        return _core.text_array(offsets, payload, where)
    base = info["base"]
    if base["class"] in ("vlen", "compound"):
        nested = payload.reshape(-1, base["itemsize"])
        values = decode(file, base, nested, where)
    else:
        dtype = numpy_dtype(base)
        values = payload.view(dtype).astype(dtype.newbyteorder("="), copy=False)
    starts = offsets // base["itemsize"]
    for i in range(len(flat)):
        out[i] = values[starts[i] : starts[i + 1]]
    return out


def _decode_fixed(info: TypeInfo, flat: NDArray[np.uint8], where: str) -> NDArray[Any]:
    return _core.fixed_text_array(flat, info["padding"], where)


def _decode_compound(
    file: _core.File, info: TypeInfo, flat: NDArray[np.uint8], where: str
) -> NDArray[Any]:
    columns: list[tuple[str, NDArray[Any]]] = []
    for name, offset, member in info["members"]:
        part = flat[:, offset : offset + member["itemsize"]]
        columns.append((name, decode(file, member, part, f"{where}[{name!r}]")))
    fields: list[Any] = [(name, values.dtype, values.shape[1:]) for name, values in columns]
    out = np.empty(len(flat), dtype=np.dtype(fields))
    for name, values in columns:
        out[name] = values
    return out


def reference_address(raw: NDArray[np.uint8]) -> int | None:
    """Return the address in one object reference, None when it is null."""
    data = np.ascontiguousarray(raw).tobytes()
    address = int.from_bytes(data, "little")
    undefined = (1 << (8 * len(data))) - 1
    return None if address in (0, undefined) else address
