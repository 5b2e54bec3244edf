"""`scio.repair`: what can be put right is, the rest is told; the source stays as it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pytest
import scipy.sparse as sp

import scio
from scio.errors import IOFormatError, TargetExistsError
from tests.io.broken import (
    N_OBS,
    N_VARS,
    RULES,
    at,
    attribute,
    no_attribute,
    removed,
    replaced,
    write_broken,
    write_sound,
)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sound(tmp_path_factory.mktemp("sound") / "sound.h5ad", compression="gzip")


@pytest.fixture
def repaired(
    sound: Path, tmp_path: Path
) -> Callable[..., tuple[scio.io.repair.RepairReport, Path, Path]]:
    def run(*changes: Callable[[h5py.File], Any], **options: Any) -> Any:
        source, target = tmp_path / "broken.h5ad", tmp_path / "out.h5ad"
        source.write_bytes(sound.read_bytes())
        with h5py.File(source, "r+") as file:
            for change in changes:
                change(file)
        before = source.read_bytes()
        report = scio.repair(source, target, **options)
        assert source.read_bytes() == before
        check = scio.verify(target)
        assert check.is_sound, check
        anndata.read_h5ad(target)
        return report, source, target

    return run


def said(findings: list[Any]) -> set[str]:
    return {f.path for f in findings}


def test_a_sound_file_is_copied(repaired: Any, sound: Path) -> None:
    report, _, target = repaired()
    assert report.findings == []
    assert scio.diff(sound, target).is_equal, scio.diff(sound, target)


@pytest.mark.parametrize("name", RULES)
def test_whatever_is_broken_the_result_is_sound(sound: Path, tmp_path: Path, name: str) -> None:
    path = write_broken(sound, tmp_path / "broken.h5ad", name)
    target = tmp_path / "out.h5ad"
    report = scio.repair(path, target)
    check = scio.verify(target)
    assert check.is_sound, (check, report)
    allowed = {"duplicates", "labels"}  # kept, unless asked
    assert {f.rule for f in check.of("warning")} <= allowed
    if not report.findings:  # then nothing of the matrix may have changed
        assert "values" not in {f.rule for f in scio.diff(path, target).findings}


def test_rows_that_are_not_sorted(repaired: Any, sound: Path) -> None:
    report, _, target = repaired(RULES["unsorted row"][0])
    assert said(report.repaired) == {"/X"}
    assert not report.lost
    assert scio.verify(target).findings == []


def test_duplicates_are_summed_only_when_asked(repaired: Any, tmp_path: Path) -> None:
    report, source, target = repaired(RULES["index twice"][0])
    assert not report.lost
    assert [f.rule for f in scio.verify(target).findings] == ["duplicates"]
    report = scio.repair(source, target, sum_duplicates=True, overwrite=True)
    assert said(report.repaired) == {"/X"}
    assert scio.verify(target).findings == []
    old, new = anndata.read_h5ad(source).X, anndata.read_h5ad(target).X
    assert (old.toarray() == new.toarray()).all()


def test_indptr_that_wrapped_at_32_bits(tmp_path: Path) -> None:
    """2**31 entries, of which the file stores none: the steps of indptr are right, its sums wrapped."""
    from scio.io.repair import RepairReport, _Matrix

    class Stub:
        path, report = "/X", RepairReport("x")

    wide = np.array([0, 2**31 - 5, 2**31 + 7, 2**32 + 3], dtype=np.int64)
    narrow = wide.astype(np.int32)
    assert (narrow[1:] < 0).any()
    indptr, is_whole = _Matrix._indptr(Stub(), narrow, 2**32 + 3)  # type: ignore[arg-type]
    assert indptr.tolist() == wide.tolist()
    assert is_whole.all()
    assert [f.found for f in Stub.report.repaired] == ["wrapped at 32 bits, unwrapped"]
    _, is_whole = _Matrix._indptr(Stub(), narrow, 17)  # type: ignore[arg-type]
    assert is_whole.tolist() == [True, False, False]  # it does not end where the values do


def test_indptr_that_falls_loses_the_rows_behind(repaired: Any, sound: Path) -> None:
    report, _, target = repaired(RULES["indptr falls"][0])
    assert report.n_rows_lost == N_OBS - 4  # 5 rows end at its fall, the last of them wrongly
    new, old = anndata.read_h5ad(target), anndata.read_h5ad(sound)
    assert new.obs_names.tolist() == old.obs_names[:4].tolist()
    assert (new.X.toarray() == old.X[:4].toarray()).all()
    assert new.obsp["graph"].shape == (4, 4)
    assert (new.obsp["graph"].toarray() == old.obsp["graph"][:4, :4].toarray()).all()
    assert new.layers["csc"].shape == (4, N_VARS)
    assert (new.layers["csc"].toarray() == old.layers["csc"][:4].toarray()).all()
    assert (new.raw.X.toarray() == old.raw.X[:4].toarray()).all()


def test_entries_out_of_range_are_left_out(repaired: Any, sound: Path) -> None:
    report, _, target = repaired(RULES["index too large"][0])
    assert "/X/indices" in said(report.lost)
    old, new = anndata.read_h5ad(sound).X, anndata.read_h5ad(target).X
    assert new.nnz == old.nnz - 1
    assert (new.toarray() != old.toarray()).sum() == 1


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (no_attribute("X", "encoding-type"), "/X"),
        (attribute("layers/csc", "encoding-type", "csr_matrix"), "/layers/csc"),
        (attribute("obs/kind", "encoding-type", "array"), "/obs/kind"),
        (no_attribute("obs/count", "encoding-type"), "/obs/count"),
        (no_attribute("obsp/graph", "shape"), "/obsp/graph"),
        (no_attribute("obs", "_index"), "/obs"),
    ],
    ids=["none", "csc as csr", "categorical as array", "nullable", "shape", "index"],
)
def test_marks_that_are_wrong_or_missing(
    repaired: Any, sound: Path, change: Callable[[h5py.File], Any], path: str
) -> None:
    report, _, target = repaired(change)
    assert not report.lost, report
    assert said(report.repaired) == {path}
    assert scio.diff(sound, target).is_equal, scio.diff(sound, target)


def test_codes_without_a_category_become_missing(repaired: Any, sound: Path) -> None:
    report, _, target = repaired(RULES["code too large"][0])
    assert said(report.lost) == {"/obs/kind/codes"}
    new, old = anndata.read_h5ad(target).obs["kind"], anndata.read_h5ad(sound).obs["kind"]
    assert new.isna().tolist() == [i == 7 for i in range(N_OBS)]
    assert new.drop("cell7").tolist() == old.drop("cell7").tolist()


def test_categories_that_repeat_are_put_together(repaired: Any) -> None:
    report, _, target = repaired(RULES["categories repeat"][0])
    assert not report.lost
    kind = anndata.read_h5ad(target).obs["kind"]
    assert kind.cat.categories.tolist() == ["k0", "k2"]
    assert kind.tolist() == ["k2" if i % 3 == 2 else "k0" for i in range(N_OBS)]


def test_a_column_of_another_length_is_left_out(repaired: Any) -> None:
    report, _, target = repaired(RULES["column too short"][0])
    assert said(report.lost) == {"/obs/depth"}
    assert "depth" not in anndata.read_h5ad(target).obs


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_codes_of_hdf5r_get_their_labels(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "h5ad_formats" / "pbmc_small_hdf5r_seuratdisk_style.h5ad"
    report = scio.repair(source, tmp_path / "out.h5ad")
    assert not report.lost
    assert "/obs/orig.ident" in said(report.repaired)
    obs = anndata.read_h5ad(tmp_path / "out.h5ad").obs
    assert obs["orig.ident"].cat.categories.tolist() == ["SeuratProject"]
    assert obs["letter.idents"].cat.categories.tolist() == ["A", "B"]


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::anndata.OldFormatWarning")
@pytest.mark.parametrize("name", ["anndata_archive_v0.5.0.h5ad", "anndata_archive_v0.7.8.h5ad"])
def test_old_layouts_become_todays(shared_data: Path, tmp_path: Path, name: str) -> None:
    source, target = shared_data / "h5ad_formats" / name, tmp_path / "out.h5ad"
    report = scio.repair(source, target)
    assert not report.lost
    with h5py.File(target) as file:
        assert file.attrs["encoding-type"] == "anndata"
        assert file["obs"].attrs["encoding-version"] == "0.2.0"
    old, new = anndata.read_h5ad(source), anndata.read_h5ad(target)
    assert old.obs.astype(str).equals(new.obs.astype(str))
    old_x, new_x = (m.toarray() if sp.issparse(m) else np.asarray(m) for m in (old.X, new.X))
    assert np.array_equal(old_x, new_x)


# ---- truncated


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """500 cells: dense X of several chunks in front, frames behind."""
    path = tmp_path_factory.mktemp("large") / "large.h5ad"
    rng = np.random.default_rng(0)
    adata = anndata.AnnData(rng.normal(size=(500, 40)).astype(np.float32))
    adata.obs["kind"] = [f"k{i % 5}" for i in range(500)]
    adata.layers["counts"] = sp.csr_matrix(rng.poisson(0.5, (500, 40)))
    adata.write_h5ad(path)
    with h5py.File(path, "r+") as file:
        replaced("X", lambda v: v, chunks=(50, 40), compression="gzip")(file)
        for name in ("obs", "var", "layers"):
            file.copy(name, f"{name}_")
            del file[name]
            file.move(f"{name}_", name)
    return path


@pytest.mark.parametrize("fraction", [0.35, 0.5, 0.65, 0.8, 0.9, 0.97, 0.999])
def test_a_truncated_file_keeps_its_whole_cells(
    large: Path, tmp_path: Path, fraction: float
) -> None:
    """Whatever is cut: no wrong value, no crash; and what is said to be lost is what is lost."""
    whole = large.read_bytes()
    source, target = tmp_path / "cut.h5ad", tmp_path / "out.h5ad"
    source.write_bytes(whole[: int(len(whole) * fraction)])
    try:
        report = scio.repair(source, target)
    except IOFormatError:
        assert fraction < 0.7
        assert not target.exists()
        return
    assert "/" in said(report.lost)
    assert scio.verify(target).is_sound
    old, new = anndata.read_h5ad(large), anndata.read_h5ad(target)
    assert new.n_obs == old.n_obs - report.n_rows_lost
    if new.X is not None and new.n_obs:
        rows = (old.X[:, None, :2] == new.X[None, :, :2]).all(axis=2).argmax(axis=0)
        assert (np.diff(rows) > 0).all()
        assert np.array_equal(old.X[rows], new.X)
        if "/obs" not in said(report.lost):
            assert new.obs_names.tolist() == old.obs_names[rows].tolist()
    if fraction > 0.99:
        assert report.n_rows_lost == 0


def test_chunks_of_a_truncated_matrix(tmp_path: Path) -> None:
    """A dense X whose last chunks are cut off, everything else before them."""
    path = tmp_path / "x.h5ad"
    adata = anndata.AnnData(np.arange(60_000, dtype=np.float64).reshape(600, 100))
    adata.write_h5ad(path)
    with h5py.File(path, "r+") as file:
        del file["X"]
        x = file.create_dataset("X", (600, 100), "f8", chunks=(64, 100))
        x.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
        x[:] = adata.X
        chunks = [x.id.get_chunk_info(i) for i in range(x.id.get_num_chunks())]
    last = max(chunks, key=lambda c: c.byte_offset)
    path.write_bytes(path.read_bytes()[: last.byte_offset + 100])
    report = scio.repair(path, tmp_path / "out.h5ad")
    new = anndata.read_h5ad(tmp_path / "out.h5ad")
    lost = {c.chunk_offset[0] for c in chunks if c.byte_offset >= last.byte_offset}
    kept = [i for i in range(600) if i // 64 * 64 not in lost]
    assert 500 < len(kept) < 600
    assert np.array_equal(new.X, adata.X[kept])
    assert new.obs_names.tolist() == [str(i) for i in kept]
    assert report.n_rows_lost == 600 - len(kept)


def test_chunks_whose_index_is_cut_off_are_not_zeros(tmp_path: Path) -> None:
    """Of 200 chunks, whose index has several nodes all over the file, those of a lost node are lost."""
    path, target = tmp_path / "x.h5ad", tmp_path / "out.h5ad"
    adata = anndata.AnnData(np.arange(1, 8001, dtype=np.float64).reshape(400, 20))
    adata.write_h5ad(path)
    with h5py.File(path, "r+") as file:
        del file["X"]
        x = file.create_dataset("X", (400, 20), "f8", chunks=(2, 20))
        for start in range(0, 400, 2):
            x[start : start + 2] = adata.X[start : start + 2]
            file.flush()
    whole, n_partly = path.read_bytes(), 0
    for share in (0.6, 0.7, 0.8, 0.9, 0.95, 0.99):
        path.write_bytes(whole[: int(len(whole) * share)])
        try:
            report = scio.repair(path, target, overwrite=True)
        except IOFormatError:
            continue
        new = anndata.read_h5ad(target)
        if new.X is not None:
            rows = ((new.X[:, 0] - 1) // 20).astype(int)
            assert np.array_equal(new.X, adata.X[rows])
            assert len(rows) == 400 - report.n_rows_lost
            n_partly += 0 < len(rows) < 400
    assert n_partly >= 2


def test_cut_anywhere_never_crashes(sound: Path, tmp_path: Path) -> None:
    whole = sound.read_bytes()
    source, target = tmp_path / "cut.h5ad", tmp_path / "out.h5ad"
    n_written = 0
    for nbytes in range(100, len(whole), len(whole) // 40):
        source.write_bytes(whole[:nbytes])
        target.unlink(missing_ok=True)
        try:
            report = scio.repair(source, target)
        except IOFormatError:
            assert not target.exists()
            continue
        n_written += 1
        assert report.lost
        assert scio.verify(target).is_sound
    assert n_written > 5


# ---- the call


def test_the_target_is_safe(sound: Path, tmp_path: Path) -> None:
    target = tmp_path / "mine"
    target.write_text("mine")
    with pytest.raises(TargetExistsError):
        scio.repair(sound, target)
    with pytest.raises(ValueError, match="another name"):
        scio.repair(sound, sound, overwrite=True)
    text = tmp_path / "text"
    text.write_text("no HDF5")
    with pytest.raises(IOFormatError, match="text"):
        scio.repair(text, target, overwrite=True)
    assert target.read_text() == "mine"


def test_the_report_is_json(repaired: Any) -> None:
    facts = repaired(at_code)[0].to_dict()
    assert facts["verdict"] == "incomplete"
    assert facts["findings"][0]["path"] == "/obs/kind/codes"


def at_code(file: h5py.File) -> None:
    replaced("obs/kind/codes", at(7, 3))(file)
    removed("uns/seed")(file)


@pytest.mark.parametrize("seed", range(3))
def test_bits_that_flip_never_crash_it(sound: Path, tmp_path: Path, seed: int) -> None:
    """Verify always reports, repair writes a sound file or refuses; nothing else is raised."""
    whole, rng = sound.read_bytes(), np.random.default_rng(seed)
    source, target = tmp_path / "flipped.h5ad", tmp_path / "out.h5ad"
    for _ in range(15):
        content = bytearray(whole)
        for i in rng.integers(0, len(content), 4):
            content[i] ^= 1 << int(rng.integers(8))
        source.write_bytes(content)
        assert scio.verify(source).exit_code in (0, 1, 2)
        try:
            scio.repair(source, target, overwrite=True)
        except IOFormatError:
            continue
        assert scio.verify(target).is_sound
