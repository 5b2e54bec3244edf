"""Training: from ``.h5ad`` files to shuffled batches."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from scio.data.anndata_store import AnnDataStore
from scio.data.census import build_obs_value_filter
from scio.data.config import DataPipeline, build, load_config
from scio.data.dataloader import CellDataLoader, collate_cells
from scio.data.dataset import CellDataset
from scio.data.gene_vocab import GeneVocab
from scio.data.preprocessing import PreprocessingPipeline
from scio.data.registry import DataRegistry
from scio.data.samplers import BatchAwareSampler, DistributedShardSampler, WeightedCellSampler

if TYPE_CHECKING:
    from scio.data._config_model import DataConfig

__all__ = [
    "AnnDataStore",
    "BatchAwareSampler",
    "CellDataLoader",
    "CellDataset",
    "DataConfig",
    "DataPipeline",
    "DataRegistry",
    "DistributedShardSampler",
    "GeneVocab",
    "PreprocessingPipeline",
    "WeightedCellSampler",
    "build",
    "build_obs_value_filter",
    "collate_cells",
    "load_config",
]


def __getattr__(name: str) -> Any:
    if name == "DataConfig":  # a pydantic model, which scio.data itself does not need
        value = importlib.import_module("scio.data._config_model").DataConfig
        globals()[name] = value  # the next look-up does not come here
        return value
    message = f"module 'scio.data' has no attribute {name!r}"
    raise AttributeError(message)


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
