"""``scio convert IN OUT``: formats, storage, types; ``--layout fast``: plain for the loader."""

from __future__ import annotations

import json
from pathlib import Path

import anndata
import h5py
import numpy as np
import pytest
from pandas.testing import assert_frame_equal

import scio
from scio.cli.app import app
from scio.io.convert import convert
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


# ---- other formats, storage, types


def same(path: Path, expected: anndata.AnnData) -> anndata.AnnData:
    """X of the file is that of an AnnData, whatever its layout and type."""
    found = anndata.read_h5ad(path)
    dense = [m.toarray() if hasattr(m, "toarray") else np.asarray(m) for m in (found.X, expected.X)]
    assert np.array_equal(*dense)
    assert found.obs_names.tolist() == expected.obs_names.tolist()
    assert found.var_names.tolist() == expected.var_names.tolist()
    assert scio.verify(path).is_sound
    return found


def test_storage_layout_and_types(scio_run: Run, made: Path, tmp_path: Path) -> None:
    out, expected = tmp_path / "out.h5ad", anndata.read_h5ad(made)
    options = ("--layout", "csc", "--narrow", "--compression", "none")
    done = scio_run("convert", made, out, *options, "--json")
    assert done.returncode == 0, done.stderr
    found = same(out, expected)
    assert (found.X.format, found.X.dtype) == ("csc", np.uint8)
    with h5py.File(out) as file:
        assert file["X/data"].compression is None
    rows = {row["source"]: row for row in json.loads(done.stdout)["elements"]}
    assert rows["/X"]["source_type"] == "csr_matrix of float32"
    assert rows["/X"]["target_type"] == "csc_matrix of uint8"
    assert not any(row["loss"] for row in rows.values())
    back = tmp_path / "back.h5ad"
    done = scio_run("convert", out, back, "--layout", "csr", "--dtype", "float32", "--level", "6")
    assert done.returncode == 0, done.stderr
    assert scio.diff(made, back).is_equal, scio.diff(made, back)


def test_a_value_that_does_not_fit_is_named(scio_run: Run, tmp_path: Path) -> None:
    adata = make_adata()
    adata.X.data[100] = 70_000
    adata.layers["halves"] = adata.X * 0.5
    source, out = tmp_path / "in.h5ad", tmp_path / "out.h5ad"
    adata.write_h5ad(source)
    done = scio_run("convert", source, out, "--dtype", "uint16")
    assert_refused(done, 1, "X has the value 70000.0 (entry 100)", "uint16")
    done = scio_run("convert", source, out, "--dtype", "layers/halves=int32")
    assert_refused(done, 1, "layers/halves", "0.5", "int32")
    assert_refused(scio_run("convert", source, out, "--dtype", "layers/half=int8"), 1, "halves")
    assert_refused(scio_run("convert", source, out, "--dtype", "text"), 1, "text")
    assert not out.exists()
    convert(source, out, narrow=True)
    found = same(out, adata)
    assert found.X.dtype == np.float32  # uint32 would not be smaller
    assert found.layers["halves"].dtype == np.float32


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 255], "uint8"),
        ([-1, 127], "int8"),
        ([0, 256], "uint16"),
        ([-1, 128], "int16"),
        ([0, 65_536], "uint32"),
        ([-1, 40_000], "int32"),
        ([0.5, 2], "float32"),
        ([0.1, 2], "float64"),
        ([np.nan, 2], "float32"),
        ([2.0**40, 1], "float64"),
    ],
)
def test_the_narrowest_type(tmp_path: Path, values: list[float], expected: str) -> None:
    adata = anndata.AnnData(np.array([values], dtype=np.float64))
    source, out = tmp_path / "in.h5ad", tmp_path / "out.h5ad"
    adata.write_h5ad(source)
    convert(source, out, narrow=True)
    found = anndata.read_h5ad(out).X
    assert found.dtype == expected
    assert np.array_equal(found, adata.X, equal_nan=True)


@pytest.mark.parametrize(
    ("value", "source", "target"),
    [
        (2.0**63, "f8", "int64"),
        (2.0**64, "f8", "uint64"),
        (-1, "i8", "uint64"),
        (2**63, "u8", "int64"),
        (np.nan, "f8", "int32"),
        (1e300, "f8", "float32"),
        (0.5, "f4", "uint8"),
    ],
)
def test_values_that_wrap_do_not_pass(
    tmp_path: Path, value: float, source: str, target: str
) -> None:
    path, out = tmp_path / "in.h5ad", tmp_path / "out.h5ad"
    anndata.AnnData(np.array([[1, value]], dtype=source)).write_h5ad(path)
    with pytest.raises(ValueError, match=r"X has the value .* \(entry 1\)"):
        convert(path, out, dtype=target)
    assert not out.exists()


def test_10x_and_its_folder_give_the_same(shared_data: Path, tmp_path: Path) -> None:
    base = shared_data / "tenx" / "scanpy_tests" / "10x_data" / "3.0.0"
    report = convert(base / "filtered_feature_bc_matrix.h5", tmp_path / "h5.h5ad")
    assert report.form == "10x"
    targets = {c.source: c.target for c in report.changes}
    assert targets["/matrix"] == "/X"
    assert targets["/matrix/features/id"] == "/var/gene_ids"
    assert [c.source for c in report.losses] == ["/matrix/features/_all_tag_keys"]
    assert convert(base / "filtered_feature_bc_matrix", tmp_path / "mtx.h5ad").form == "mtx"
    one = anndata.read_h5ad(tmp_path / "h5.h5ad")
    assert one.X.dtype == np.int32  # as stored
    same(tmp_path / "mtx.h5ad", one)


def test_loom(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "loom" / "mpfc_starmap_3704x158.loom"
    with pytest.warns(scio.errors.ScioWarning, match="CellID"):
        report = convert(source, tmp_path / "out.h5ad", narrow=True)
    found = anndata.read_h5ad(tmp_path / "out.h5ad")
    assert found.X.dtype == np.uint16
    with h5py.File(source) as file:
        assert np.array_equal(found.X.toarray(), file["matrix"][()].T)
    assert {c.source: c.target for c in report.changes}["/matrix"] == "/X"


def test_mudata_to_one_modality_and_back(scio_run: Run, shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "h5mu" / "muon_multiome_1000_rna45_atac174.h5mu"
    out = tmp_path / "rna.h5ad"
    assert_refused(scio_run("convert", source, out), 1, "atac, rna", "modality")
    assert_refused(scio_run("convert", source, out, "--modality", "prot"), 1, "prot")
    report = convert(source, out, modality="rna")
    with h5py.File(source) as file:
        assert np.array_equal(anndata.read_h5ad(out).X.data, file["mod/rna/X/data"][()])
    losses = {c.source: c.loss for c in report.losses}
    assert losses["/mod/atac/X"] == "another modality"
    assert "/mod/rna/X" not in losses
    report = convert(out, tmp_path / "back.h5mu", modality="rna")
    assert not report.losses
    assert scio.verify(tmp_path / "back.h5mu").is_sound
    convert(tmp_path / "back.h5mu", tmp_path / "again.h5ad")
    assert scio.diff(out, tmp_path / "again.h5ad").is_equal


def test_old_files_become_new(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "h5ad_formats" / "anndata_archive_v0.5.0.h5ad"
    report = convert(source, tmp_path / "new.h5ad")
    assert {c.source: c.target for c in report.changes}["/raw.X"] == "/raw/X"
    assert scio.verify(tmp_path / "new.h5ad").is_sound


def test_targets_of_unknown_kind_are_refused(scio_run: Run, made: Path, tmp_path: Path) -> None:
    assert_refused(scio_run("convert", made, tmp_path / "out.loom"), 1, ".h5ad and .h5mu")
