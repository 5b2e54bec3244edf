"""What a saved position of a loader remembers, and how a foreign one is refused."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scio.data.dataloader import CellDataLoader
    from scio.data.dataset import CellDataset

VERSION = 1


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What is hashed of a dataset; it cannot change while the dataset lives.

    Attributes
    ----------
    vocabulary : str
    cells : str
    sources : list of dict
        `Source.identity` of each.
    """

    vocabulary: str
    cells: str
    sources: list[dict[str, Any]]

    @classmethod
    def of(cls, dataset: CellDataset) -> Fingerprint:
        """Hash files, cells and vocabulary of a dataset."""
        return cls(
            dataset.gene_vocab.hash_hex,
            "all" if dataset.has_all_cells else digest(dataset.cells),
            [source.identity for source in dataset.store.sources],
        )


def settings_of(loader: CellDataLoader) -> dict[str, Any]:
    """Everything beside files, seed and epoch that decides what the batches hold."""
    dataset = loader.dataset
    return {
        "batch_size": loader.batch_size,
        "drop_last": loader.drop_last,
        "shuffle": "given" if loader.is_given else loader.shuffle,
        "seed": loader.seed,
        "form": loader.form,
        "max_genes": loader.max_genes,
        "selection": dataset.selection,
        "dtype": loader.dtype,
        "index_dtype": loader.index_dtype,
        "pad_value": loader.pad_value,
        "max_memory": loader.max_memory,
        "block_bytes": loader.block_bytes,
        "cache": loader.cache is not None,
        "on_error": loader.on_error,
        "world_size": loader.world_size,
        "matrix": dataset.store.matrix,
        "layers and obsm": list(dataset.store.track_paths),
        "preprocessing": dataset.preprocessing.settings(),
        "vocabulary": loader.fingerprint.vocabulary,
        "cells": loader.fingerprint.cells,
    }


def digest(*arrays: NDArray[Any]) -> str:
    """Short hash of arrays of numbers, the same on machines of either byte order."""
    sha = hashlib.sha256()
    for array in arrays:
        sha.update(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).tobytes())
    return sha.hexdigest()[:16]


def check_state(state: Mapping[str, Any], loader: CellDataLoader) -> None:
    """Refuse a state that was saved over other files or with other settings.

    Raises
    ------
    TypeError
        If it is no state of a `CellDataLoader`.
    ValueError
        Naming what differs, found and expected.
    """
    if not isinstance(state, Mapping) or "settings" not in state or "batch" not in state:
        message = f"this is no state of a CellDataLoader: {type(state).__name__}"
        if isinstance(state, Mapping):
            message += f" with the keys {sorted(map(str, state))[:8]}"
        raise TypeError(message)
    if state.get("version") != VERSION:
        message = f"the state has version {state.get('version')!r}, this scio reads {VERSION}"
        raise ValueError(message)
    found = differences(state["settings"], settings_of(loader))
    found += _source_differences(state["sources"], loader)
    if found:
        message = "the state does not belong to this loader: " + "; ".join(found)
        raise ValueError(message)


def differences(saved: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """Say of each setting of either side what it was and is, where it changed."""
    return [
        f"{name} was {saved.get(name)!r}, is {ours.get(name)!r}"
        for name in dict.fromkeys([*ours, *saved])
        if saved.get(name) != ours.get(name)
    ]


def _source_differences(saved: list[Mapping[str, Any]], loader: CellDataLoader) -> list[str]:
    sources = loader.dataset.store.sources
    if len(saved) != len(sources):
        return [f"there were {len(saved)} sources, are {len(sources)}"]
    return [
        f"source {i} ({source.name}): {text}"
        for i, (old, source) in enumerate(zip(saved, sources, strict=True))
        for text in differences(old, loader.fingerprint.sources[i])
    ]
