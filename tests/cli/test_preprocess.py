"""``scio preprocess IN OUT``: the recipe of a shell."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import anndata

import scio
from tests.cli.conftest import N_CELLS, Run, assert_refused


def test_a_file_is_preprocessed(scio_run: Run, made: Path, tmp_path: Path) -> None:
    out, expected = tmp_path / "out.h5ad", tmp_path / "expected.h5ad"
    given = ("--hvg", 30, "--min-genes", 2, "--min-cells", 3, "--qc-var", "one=gene1")
    given += ("--flavor", "seurat_v3", "--target-sum", "median", "--keep-counts", "counts")
    done = scio_run("preprocess", made, out, *given, "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    result = scio.pp.recipe(
        made,
        expected,
        n_top_genes=30,
        min_genes=2,
        min_cells=3,
        qc_vars={"one": "gene1"},
        flavor="seurat_v3",
        target_sum=None,
        keep_counts="counts",
        percent_top=(50, 100),
    )
    assert facts["highly_variable"] == list(result.var.index[result.highly_variable])
    assert facts["n_cells"] == N_CELLS
    assert facts["n_cells_kept"] == result.cells.sum()
    written, own = anndata.read_h5ad(out), anndata.read_h5ad(expected)
    assert abs(written.X - own.X).nnz == 0
    assert written.var["highly_variable"].equals(own.var["highly_variable"])
    assert written.var["one"].sum() > 0
    assert set(written.layers) == {"counts"}


def test_the_old_file_is_kept_unless_asked(scio_run: Run, made: Path, tmp_path: Path) -> None:
    out = tmp_path / "kept.h5ad"
    out.write_text("mine")
    assert_refused(scio_run("preprocess", made, out, "--hvg", 30), 1, "kept.h5ad", "--overwrite")
    assert out.read_text() == "mine"
    done = scio_run("preprocess", made, out, "--hvg", 30, "--overwrite", "--compression", "none")
    assert done.returncode == 0, done.stderr
    assert "genes chosen        30 by seurat" in done.stdout
    assert anndata.read_h5ad(out).var["highly_variable"].sum() == 30


def test_several_files_go_into_a_folder(scio_run: Run, made: Path, tmp_path: Path) -> None:
    other, out = tmp_path / "other.h5ad", tmp_path / "out"
    shutil.copy(made, other)
    done = scio_run("preprocess", made, other, out, "--hvg", 30, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["n_cells"] == 2 * N_CELLS
    assert sorted(p.name for p in out.iterdir()) == [made.name, "other.h5ad"]


def test_wrong_words_are_one_line(scio_run: Run, made: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.h5ad"
    assert_refused(scio_run("preprocess", made, out, "--flavor", "surat"), 1, "surat", "seurat")
    assert_refused(scio_run("preprocess", made, out, "--hvg", 0), 1, "n_top_genes is 0")
    assert_refused(scio_run("preprocess", made, out, "--target-sum", "x"), 1, "'median'")
    assert_refused(scio_run("preprocess", made, out, "--batch-key", "bach"), 1, "no column 'bach'")
    assert not out.exists()
