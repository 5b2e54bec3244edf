"""What scio writes, read by old releases of anndata, each in an environment of its own from PyPI.

Slow and needs the network, so it is no part of `make test`: ``make test-old-readers``.
Usage: python tools/check_old_readers.py
"""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "build" / "old-readers"
READERS = {
    "0.8.0": ["numpy<1.25", "pandas<2", "h5py<3.9", "scipy<1.11", "setuptools<70"],
    "0.11.4": ["numpy<2", "pandas<3", "scipy<1.15"],
}
READ = """
import sys, warnings
import anndata, numpy as np
warnings.simplefilter("ignore")
expected = np.load(sys.argv[1])
for path in sys.argv[2:]:
    a = anndata.read_h5ad(path)
    assert (a.X.toarray() == expected["X"]).all(), path
    assert (a.layers["csc"].toarray() == expected["X"]).all(), path
    assert (a.obs["nullable"].isna().to_numpy() == expected["missing"]).all(), path
    assert (a.obs["category"].astype(str).to_numpy() == expected["category"]).all(), path
    assert (a.obsm["X_pca"] == expected["pca"]).all(), path
    assert a.uns["nested"]["text"] == "s" and a.raw.X.shape == a.shape, path
    assert anndata.read_h5ad(path, backed="r")[:5].to_memory().shape == (5, a.n_vars), path
print("read by anndata", anndata.__version__)
"""


def write() -> list[Path]:
    """Write one object with most encodings, in every profile, and what must come back."""
    import anndata
    import numpy as np
    import pandas as pd
    import scipy.sparse as sp

    import scio

    warnings.simplefilter("ignore")
    a = scio.read_h5ad(scio.datasets.pbmc3k())[:200, :500].copy()
    a.obs["category"] = pd.Categorical(np.arange(200) % 3)
    a.obs["text"] = [f"x{i}" for i in range(200)]
    a.obs["nullable"] = pd.array([1, None] * 100, dtype="Int64")
    a.obsm["X_pca"] = np.random.default_rng(0).random((200, 5)).astype(np.float32)
    a.layers["csc"] = sp.csc_matrix(a.X)
    a.uns["nested"] = {"number": 1, "text": "s", "array": np.arange(3)}
    a.raw = anndata.AnnData(a.X.copy(), var=a.var[[]])
    files = [FOLDER / f"{name}.h5ad" for name in ("default", "profile", "plain")]
    scio.write_h5ad(a, files[0], overwrite=True)
    scio.write_h5ad(a, files[1], compat="0.8", overwrite=True)
    scio.write_h5ad(a, files[2], compression=None, overwrite=True)
    np.savez(
        FOLDER / "expected.npz",
        X=a.X.toarray(),
        missing=a.obs["nullable"].isna().to_numpy(),
        category=a.obs["category"].astype(str).to_numpy().astype("U"),
        pca=a.obsm["X_pca"],
    )
    return files


def main() -> None:
    """Write, then read with each release; a failure is the exit code."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    files = write()
    for version, requirements in READERS.items():
        venv = FOLDER / version
        python = venv / "bin" / "python"
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", venv], check=True)
            install = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
            subprocess.run([*install, f"anndata=={version}", *requirements], check=True)
        subprocess.run([python, "-c", READ, FOLDER / "expected.npz", *files], check=True)


if __name__ == "__main__":
    main()
