"""Training: from ``.h5ad`` files to shuffled batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scio._lazy import lazy

if TYPE_CHECKING:
    from scio.data._config_model import DataConfig
    from scio.data.anndata_store import AnnDataStore
    from scio.data.census import build_obs_value_filter
    from scio.data.config import DataPipeline, build, load_config
    from scio.data.dataloader import CellDataLoader, collate_cells
    from scio.data.dataset import CellDataset
    from scio.data.gene_vocab import GeneVocab
    from scio.data.preprocessing import PreprocessingPipeline, preprocess_and_cache
    from scio.data.registry import DataRegistry
    from scio.data.samplers import BatchAwareSampler, DistributedShardSampler, WeightedCellSampler

_OBJECTS = {
    "AnnDataStore": "scio.data.anndata_store",
    "BatchAwareSampler": "scio.data.samplers",
    "CellDataLoader": "scio.data.dataloader",
    "CellDataset": "scio.data.dataset",
    "DataConfig": "scio.data._config_model",
    "DataPipeline": "scio.data.config",
    "DataRegistry": "scio.data.registry",
    "DistributedShardSampler": "scio.data.samplers",
    "GeneVocab": "scio.data.gene_vocab",
    "PreprocessingPipeline": "scio.data.preprocessing",
    "WeightedCellSampler": "scio.data.samplers",
    "build": "scio.data.config",
    "build_obs_value_filter": "scio.data.census",
    "collate_cells": "scio.data.dataloader",
    "load_config": "scio.data.config",
    "preprocess_and_cache": "scio.data.preprocessing",
}

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
    "preprocess_and_cache",
]

__getattr__, __dir__ = lazy(__name__, _OBJECTS)
