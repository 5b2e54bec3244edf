"""Training: from ``.h5ad`` files to shuffled batches."""

from scio.data.anndata_store import AnnDataStore
from scio.data.dataloader import CellDataLoader, collate_cells
from scio.data.dataset import CellDataset
from scio.data.gene_vocab import GeneVocab
from scio.data.preprocessing import PreprocessingPipeline

__all__ = [
    "AnnDataStore",
    "CellDataLoader",
    "CellDataset",
    "GeneVocab",
    "PreprocessingPipeline",
    "collate_cells",
]
