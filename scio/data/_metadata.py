"""obs columns over all sources, by global cell id."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scio._names import near_names
from scio.errors import KeyNotFoundError, ScioWarning
from scio.io import Categorical

if TYPE_CHECKING:
    from scio.data._sources import Source

DEFAULT_KEYS = ("cell_type", "batch")


class MetadataColumn:
    """One obs column over all sources.

    Labels are kept as codes into one table (-1 = missing), numbers as they are.
    """

    def __init__(self, values: NDArray[Any], table: NDArray[Any] | None) -> None:
        self.values = values
        self.table = table

    def take(self, cells: NDArray[np.int64]) -> Any:
        """Values of cells: a list of str (None = missing) for labels, an array for numbers."""
        picked = self.values[cells]
        if self.table is None:
            return picked
        return self.table[picked].tolist()

    def item(self, cell: int) -> Any:
        """Value of one cell as a Python object; None where missing."""
        value = self.values[cell]
        if self.table is not None:
            return self.table[value]
        return None if value is np.ma.masked else value.item()

    def codes(self) -> NDArray[np.int64]:
        """A code per cell: equal codes are equal values; -1 is missing."""
        if self.table is not None:
            return self.values.astype(np.int64, copy=False)
        _, codes = np.unique(np.ma.getdata(self.values), return_inverse=True)
        codes = codes.reshape(-1).astype(np.int64)
        codes[np.ma.getmaskarray(self.values)] = -1
        return codes


def resolve_keys(sources: Sequence[Source], obs_keys: Any) -> list[str]:
    """Turn the argument `obs_keys` into names.

    Raises
    ------
    KeyNotFoundError
        If no source has a key; near names are offered.
    """
    have = [source.obs_columns() for source in sources]
    union = list(dict.fromkeys(name for names in have for name in names))
    if obs_keys is None:
        return [key for key in DEFAULT_KEYS if key in union]
    if isinstance(obs_keys, str):
        return union if obs_keys == "all" else resolve_keys(sources, [obs_keys])
    for key in obs_keys:
        if key not in union:
            message = f"no source has an obs column {key!r}; {near_names(key, union)}"
            raise KeyNotFoundError(message)
        lacking = sum(key not in names for names in have)
        if lacking:
            warnings.warn(
                f"{lacking} of {len(sources)} sources have no obs column {key!r}: None there",
                ScioWarning,
                stacklevel=4,
            )
    return list(obs_keys)


def merge_columns(sources: Sequence[Source], key: str) -> MetadataColumn:
    """Read one key from all sources and put the pieces behind one another.

    Raises
    ------
    KeyNotFoundError
        If no source has the key; near names are offered.
    """
    if not any(key in source.obs_columns() for source in sources):
        resolve_keys(sources, [key])
    pieces = [source.obs(key) if key in source.obs_columns() else None for source in sources]
    if all(piece is not None and _is_number(piece) for piece in pieces):
        arrays: list[Any] = [piece for piece in pieces if piece is not None]
        return MetadataColumn(_concatenate(arrays), None)
    return _merge_labels(pieces, [source.shape[0] for source in sources])


def _is_number(piece: Any) -> bool:
    return not isinstance(piece, Categorical) and piece.dtype.kind in "biuf"


def _concatenate(arrays: list[Any]) -> NDArray[Any]:
    if any(isinstance(a, np.ma.MaskedArray) for a in arrays):
        merged: NDArray[Any] = np.ma.concatenate(arrays)  # type: ignore[no-untyped-call]
        return merged
    return np.concatenate(arrays)


def _merge_labels(pieces: list[Any], lengths: list[int]) -> MetadataColumn:
    ids: dict[Any, int] = {}
    parts = []
    for piece, length in zip(pieces, lengths, strict=True):
        if piece is None:
            parts.append(np.full(length, -1, dtype=np.int64))
        elif isinstance(piece, Categorical):
            lookup = np.array([_label_id(ids, c) for c in piece.categories.tolist()] + [-1])
            parts.append(lookup[piece.codes.astype(np.int64, copy=False)])
        else:
            values = piece.tolist()
            parts.append(np.array([_label_id(ids, v) for v in values], dtype=np.int64))
    table = np.empty(len(ids) + 1, dtype=object)
    table[:-1] = list(ids)
    codes = np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)
    return MetadataColumn(codes.astype(np.int64, copy=False), table)


def _label_id(ids: dict[Any, int], value: Any) -> int:
    is_missing = value is None or value != value or type(value).__name__ == "NAType"  # noqa: PLR0124  NaN
    return -1 if is_missing else ids.setdefault(value, len(ids))
