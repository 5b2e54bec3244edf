"""Make scio/_data/pbmc3k.h5ad: 2,700 real blood cells, written by anndata as a user would.

The source is ``desc/datasets/pbmc.h5ad`` in the PyPI wheel ``desc``, fetched with pip into a temporary
folder: the 10x Genomics counts of "3k PBMCs from a Healthy Donor" in anndata's oldest layout (compound
``obs`` and ``var``, ``X`` with ``h5sparse`` attributes).  It is read here with h5py alone, checked, and
written with ``AnnData.write_h5ad(compression="gzip")``:

- ``X`` CSR float32, the counts bit for bit, stored order kept;
- ``obs`` index the barcodes, no columns (the source has none);
- ``var`` index the gene symbols as stored (the source has made them unique with ``-1``, ``-2`` ...),
  and the column ``gene_ids`` of Ensembl ids.

The output depends on the source and on the versions of anndata, h5py and HDF5, which are printed.

Usage: ``python tools/make_pbmc3k.py`` (needs the ``test`` extra)
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from importlib.metadata import version
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp

WHEEL = "desc==2.1.1"
MEMBER = "desc/datasets/pbmc.h5ad"
SHAPE, NNZ = (2_700, 32_738), 2_286_884
TARGET = Path(__file__).resolve().parent.parent / "scio" / "_data" / "pbmc3k.h5ad"

ATTRIBUTION = """\
pbmc3k.h5ad: "3k PBMCs from a Healthy Donor", single-cell gene expression data set by Cell Ranger 1.1.0,
(c) 10x Genomics (2016), https://www.10xgenomics.com/datasets/3-k-pbm-cs-from-a-healthy-donor-1-standard-1-1-0
licensed under the Creative Commons Attribution 4.0 International licence (CC BY 4.0),
https://creativecommons.org/licenses/by/4.0/

Changes: taken by tools/make_pbmc3k.py from {member} in the Python package {wheel}
(https://github.com/eleozzr/desc, MIT) and stored in the file layout of current anndata.
The counts, the barcodes, the gene symbols and the Ensembl ids are those of the source, in its order.
"""


def fetch(folder: Path) -> Path:
    """Download the wheel into a folder and unpack the file."""
    # The wheel's metadata has a typing error in a requirement, at which newer versions of pip stop.
    old_pip = folder / "pip"
    pip = [sys.executable, "-m", "pip"]
    subprocess.run([*pip, "install", "-q", "--target", str(old_pip), "pip<24.1"], check=True)
    subprocess.run(
        [*pip, "download", "-q", "--no-deps", "-d", str(folder), WHEEL],
        check=True,
        env={**os.environ, "PYTHONPATH": str(old_pip)},
    )
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract(MEMBER, folder))


def read_source(path: Path) -> tuple[sp.csr_matrix, pd.DataFrame, pd.DataFrame]:
    """Counts, obs and var of the old layout; stops if they are not what they should be."""
    with h5py.File(path, "r") as file:
        x = file["X"]
        if (x.attrs["h5sparse_format"], tuple(x.attrs["h5sparse_shape"])) != ("csr", SHAPE):
            raise SystemExit(f"X is {dict(x.attrs)}, expected CSR of {SHAPE}")
        data, indices, indptr = (x[key][:] for key in ("data", "indices", "indptr"))
        obs, var = file["obs"][:], file["var"][:]
    if data.dtype != np.float32 or len(data) != NNZ or indptr[-1] != NNZ:
        raise SystemExit(f"X has {len(data)} values of {data.dtype}, expected {NNZ} of float32")
    if not (np.all(data == np.floor(data)) and data.min() >= 1):
        raise SystemExit("X holds something that is no count")
    ids = var["gene_ids"].astype(str)
    if len(np.unique(ids)) != SHAPE[1] or len(np.unique(obs["index"])) != SHAPE[0]:
        raise SystemExit("barcodes or Ensembl ids repeat")
    return (
        sp.csr_matrix((data, indices, indptr), shape=SHAPE),
        pd.DataFrame(index=pd.Index(obs["index"].astype(str))),
        pd.DataFrame({"gene_ids": ids}, index=pd.Index(var["index"].astype(str))),
    )


def check(path: Path, x: sp.csr_matrix, obs: pd.DataFrame, var: pd.DataFrame) -> None:
    """Stop if the written file does not hold the source's numbers and names."""
    back = anndata.read_h5ad(path)
    for key in ("data", "indices", "indptr"):
        got, expected = getattr(back.X, key), getattr(x, key)
        if got.dtype != expected.dtype or not np.array_equal(got, expected):
            raise SystemExit(f"X/{key} of {path} differs from the source")
    if not (back.shape == SHAPE and back.obs_names.equals(obs.index)):
        raise SystemExit(f"shape or barcodes of {path} differ from the source")
    if not (
        back.var_names.equals(var.index) and np.array_equal(back.var["gene_ids"], var["gene_ids"])
    ):
        raise SystemExit(f"genes of {path} differ from the source")


def main() -> None:
    """Fetch, check, write, read back."""
    with tempfile.TemporaryDirectory() as folder:
        x, obs, var = read_source(fetch(Path(folder)))
    TARGET.parent.mkdir(exist_ok=True)
    anndata.AnnData(X=x, obs=obs, var=var).write_h5ad(TARGET, compression="gzip")
    check(TARGET, x, obs, var)
    TARGET.with_name("pbmc3k.LICENSE.txt").write_text(
        ATTRIBUTION.format(member=MEMBER, wheel=WHEEL)
    )
    print(
        f"{TARGET.name}: {SHAPE[0]} x {SHAPE[1]}, {NNZ} counts, {TARGET.stat().st_size} bytes; "
        f"anndata {version('anndata')}, h5py {h5py.__version__}, HDF5 {h5py.version.hdf5_version}"
    )


if __name__ == "__main__":
    main()
