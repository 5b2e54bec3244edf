"""Example data that comes with the package."""

from __future__ import annotations

import importlib.resources
from pathlib import Path

__all__ = ["pbmc3k"]


def pbmc3k() -> Path:
    """Path of an ``.h5ad`` of 2,700 human blood cells, part of the package; nothing is downloaded.

    Returns
    -------
    pathlib.Path
        A file as anndata writes it with ``compression="gzip"``: ``X`` raw counts, CSR, float32,
        shape (2700, 32738), 2,286,884 stored values; ``obs_names`` cell barcodes; ``var_names`` gene
        symbols; ``var["gene_ids"]`` Ensembl ids; no other columns.  It belongs to the installation:
        copy it before changing it.

    Raises
    ------
    FileNotFoundError
        If the package was installed without its data.

    Notes
    -----
    Source: "3k PBMCs from a Healthy Donor", © 10x Genomics (2016), Cell Ranger 1.1.0, licensed under
    CC BY 4.0 (``pbmc3k.LICENSE.txt`` beside the file); stored anew in the layout of current anndata by
    ``tools/make_pbmc3k.py``, every count unchanged.

    Examples
    --------
    >>> import scio
    >>> scio.datasets.pbmc3k().name
    'pbmc3k.h5ad'
    """
    path = Path(str(importlib.resources.files("scio").joinpath("_data/pbmc3k.h5ad")))
    if not path.is_file():
        message = f"{path} is missing: this installation of scio has no example data; reinstall it"
        raise FileNotFoundError(message)
    return path
