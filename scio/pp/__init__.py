"""Preprocessing: quality control, normalisation, gene selection, size factors.

Names, arguments and result keys are scanpy's; sources are AnnData objects, matrices, and files, which
are streamed.  Results do not depend on threads, chunks, storage or machine.
"""

from __future__ import annotations

from scio._lazy import lazy

_OBJECTS = {
    "GeneStats": "scio.pp.stats",
    "calculate_qc_metrics": "scio.pp.qc",
    "clean_size_factors": "scio.pp.size_factors",
    "filter_cells": "scio.pp.filters",
    "filter_genes": "scio.pp.filters",
    "gene_stats": "scio.pp.stats",
    "highly_variable_genes": "scio.pp.hvg",
    "is_outlier": "scio.pp.qc",
    "iterate_pearson_residuals": "scio.pp.residuals",
    "log1p": "scio.pp.normalize",
    "normalize_pearson_residuals": "scio.pp.residuals",
    "normalize_total": "scio.pp.normalize",
    "pooled_size_factors": "scio.pp.size_factors",
    "recipe": "scio.pp._recipe",
    "repeat_recipe": "scio.pp._recipe",
    "sample": "scio.pp.sampling",
    "scale": "scio.pp.scaling",
    "scale_params": "scio.pp.scaling",
    "subsample": "scio.pp.sampling",
}

__all__ = [
    "GeneStats",
    "calculate_qc_metrics",
    "clean_size_factors",
    "filter_cells",
    "filter_genes",
    "gene_stats",
    "highly_variable_genes",
    "is_outlier",
    "log1p",
    "normalize_pearson_residuals",
    "normalize_total",
    "pooled_size_factors",
    "recipe",
    "repeat_recipe",
    "sample",
    "scale",
    "scale_params",
    "subsample",
]

__getattr__, __dir__ = lazy(__name__, _OBJECTS)
