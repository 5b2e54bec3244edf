"""R reads what scio writes: rhdf5 of Bioconductor, an independent face of libhdf5."""

from __future__ import annotations

import subprocess
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import scio

READ = """
library(rhdf5)
path <- commandArgs(TRUE)[1]
out <- function(name, values) {
  if (is.character(values)) values <- paste(vapply(lapply(enc2utf8(values), charToRaw),
    function(raw) paste(as.character(raw), collapse = ""), ""), collapse = " ")
  cat(name, paste(values, collapse = " "), sep = "\\t"); cat("\\n")
}
for (name in c("data", "indices", "indptr"))
  out(paste0("X/", name), h5read(path, paste0("X/", name), bit64conversion = "double"))
out("shape", h5readAttributes(path, "X")$shape)
out("codes", h5read(path, "obs/kind/codes"))
out("categories", h5read(path, "obs/kind/categories"))
out("names", h5read(path, "obs/_index"))
out("columns", h5readAttributes(path, "obs")$`column-order`)
out("pca", h5read(path, "obsm/pca"))
out("flag", as.character(h5read(path, "obs/flag")))
out("text", h5read(path, "uns/text"))
"""


def hex_of(texts: list[str]) -> str:
    return " ".join(text.encode().hex() for text in texts)


@pytest.mark.r
@pytest.mark.parametrize("options", [{}, {"compression": None}, {"checksums": True}])
def test_rhdf5_reads_the_same_values(tmp_path: Path, options: dict) -> None:
    rng = np.random.default_rng(0)
    names = [f"cell-{i}-größe" for i in range(300)]
    labels = ["T", "B", "naïve"]
    adata = anndata.AnnData(
        sp.csr_matrix(rng.poisson(0.5, (300, 60)).astype("f4")),
        obs=pd.DataFrame(
            {
                "kind": pd.Categorical.from_codes(rng.integers(-1, 3, 300), labels),
                "flag": rng.random(300) < 0.5,
            },
            index=names,
        ),
        obsm={"pca": rng.integers(-1000, 1000, (300, 5)) / 8},
        uns={"text": "日本"},
    )
    path = tmp_path / "x.h5ad"
    scio.write_h5ad(adata, path, **options)
    script = tmp_path / "read.R"
    script.write_text(READ, encoding="utf-8")
    done = subprocess.run(
        ["Rscript", "--vanilla", str(script), str(path)],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = dict(line.split("\t", 1) for line in done.stdout.splitlines())

    def numbers(name: str) -> np.ndarray:
        return np.array(found[name].split(), float)

    for name in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(numbers(f"X/{name}"), getattr(adata.X, name))
    assert numbers("shape").tolist() == [300, 60]
    np.testing.assert_array_equal(numbers("codes"), adata.obs["kind"].cat.codes)
    assert found["categories"] == hex_of(labels)
    assert found["names"] == hex_of(names)
    assert found["columns"] == hex_of(["kind", "flag"])
    # R has the first dimension run fastest, so its values come in our row-major order
    np.testing.assert_array_equal(numbers("pca"), adata.obsm["pca"].ravel())
    assert found["flag"] == hex_of(["TRUE" if flag else "FALSE" for flag in adata.obs["flag"]])
    assert found["text"] == hex_of(["日本"])
