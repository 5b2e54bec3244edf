"""``scio convert IN OUT --layout fast``: the same file for anndata, plain for the loader."""

from __future__ import annotations

from pathlib import Path

import anndata
import h5py
import numpy as np
import pytest
from pandas.testing import assert_frame_equal

from scio.cli.app import app
from tests.cli.conftest import Run, assert_refused
from tests.data.conftest import make_adata


def test_the_result_is_the_same_for_anndata_and_not_compressed(
    scio_run: Run, made: Path, tmp_path: Path
) -> None:
    out = tmp_path / "fast.h5ad"
    done = scio_run("convert", made, out, "--layout", "fast")
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    old, new = anndata.read_h5ad(made), anndata.read_h5ad(out)
    assert new.X.shape == old.X.shape
    assert abs(new.X - old.X).nnz == 0
    assert_frame_equal(new.obs, old.obs)
    assert_frame_equal(new.var, old.var)
    with h5py.File(out) as file:
        for name in ("data", "indices"):
            dataset = file[f"X/{name}"]
            assert dataset.chunks is None
            assert dataset.compression is None
    info = scio_run("info", out)
    assert "fast layout" in info.stdout


def test_another_matrix_becomes_x(scio_run: Run, tmp_path: Path) -> None:
    adata = make_adata()
    adata.layers["twice"] = adata.X * 2
    source, out = tmp_path / "in.h5ad", tmp_path / "out.h5ad"
    adata.write_h5ad(source, compression="gzip")
    done = scio_run("convert", source, out, "--layout", "fast", "--matrix", "layers/twice")
    assert done.returncode == 0, done.stderr
    assert np.array_equal(anndata.read_h5ad(out).X.toarray(), adata.layers["twice"].toarray())


def test_an_existing_file_is_kept_unless_asked(scio_run: Run, made: Path, tmp_path: Path) -> None:
    out = tmp_path / "kept.h5ad"
    out.write_text("mine")
    done = scio_run("convert", made, out, "--layout", "fast")
    assert_refused(done, 1, "kept.h5ad", "--overwrite")
    assert out.read_text() == "mine"
    done = scio_run("convert", made, out, "--layout", "fast", "--overwrite")
    assert done.returncode == 0, done.stderr
    assert anndata.read_h5ad(out).n_obs == anndata.read_h5ad(made).n_obs


def test_a_file_is_not_converted_onto_itself(scio_run: Run, made: Path, tmp_path: Path) -> None:
    before = made.read_bytes()
    link = tmp_path / "link.h5ad"
    link.symlink_to(made)
    done = scio_run("convert", made, link, "--layout", "fast", "--overwrite")
    assert_refused(done, 1, "another name")
    assert made.read_bytes() == before


@pytest.mark.parametrize("content", [None, b"no HDF5 at all\n" * 100], ids=["missing", "foreign"])
def test_a_bad_source_leaves_nothing(scio_run: Run, tmp_path: Path, content: bytes | None) -> None:
    source, out = tmp_path / "bad.h5ad", tmp_path / "out" / "out.h5ad"
    out.parent.mkdir()
    if content is not None:
        source.write_bytes(content)
    assert_refused(scio_run("convert", source, out, "--layout", "fast"), 1, "bad.h5ad")
    assert list(out.parent.iterdir()) == []


def test_the_command_is_there() -> None:
    assert "convert" in {command.callback.__name__ for command in app.registered_commands}
