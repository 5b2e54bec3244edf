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
        "preprocessing": dataset.preprocessing.to_dict(),
        "vocabulary": loader.fingerprint.vocabulary,
        "cells": loader.fingerprint.cells,
    }


def digest(*arrays: NDArray[np.int64]) -> str:
    """Short hash of integer arrays."""
    sha = hashlib.sha256()
    for array in arrays:
        sha.update(np.ascontiguousarray(array, dtype="<i8").tobytes())
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
    differences = _differences(state["settings"], settings_of(loader))
    differences += _source_differences(state["sources"], loader)
    if differences:
        message = "the state does not belong to this loader: " + "; ".join(differences)
        raise ValueError(message)


def _differences(saved: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    return [
        f"{name} was {saved.get(name)!r}, is {value!r}"
        for name, value in ours.items()
        if saved.get(name) != value
    ]


def _source_differences(saved: list[Mapping[str, Any]], loader: CellDataLoader) -> list[str]:
    sources = loader.dataset.store.sources
    if len(saved) != len(sources):
        return [f"there were {len(saved)} sources, are {len(sources)}"]
    return [
        f"source {i} ({source.name}): {text}"
        for i, (old, source) in enumerate(zip(saved, sources, strict=True))
        for text in _differences(old, loader.fingerprint.sources[i])
    ]
