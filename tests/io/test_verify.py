"""`scio.verify`: every rule broken alone is found alone; sound files are sound."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

import scio
from scio.io._storage_check import boxes
from tests.io.broken import NOTES, RULES, WARNINGS, write_broken, write_sound


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sound(tmp_path_factory.mktemp("sound") / "sound.h5ad", compression="gzip")


def found(report: scio.io.verify.Report, *levels: str) -> set[tuple[str, str]]:
    return {(f.path, f.rule) for f in report.findings if f.level in levels}


def test_a_sound_file_has_no_findings(sound: Path) -> None:
    report = scio.verify(sound)
    assert report.findings == []
    assert report.is_sound
    assert report.exit_code == 0
    assert report.to_dict()["verdict"] == "sound"


@pytest.mark.parametrize("name", RULES)
def test_a_broken_rule_is_the_only_finding(sound: Path, tmp_path: Path, name: str) -> None:
    path = write_broken(sound, tmp_path / "broken.h5ad", name)
    report = scio.verify(path)
    assert found(report, "error", "warning") == RULES[name][1], report
    is_error = bool(RULES[name][1]) and name not in WARNINGS and name != "newer minor version"
    assert report.is_sound == (not is_error)
    assert report.exit_code == int(is_error)
    assert found(report, "note") == ({NOTES[name]} if name in NOTES else set())
    for finding in report.findings:
        assert finding.found
        assert finding.path in str(report)


def test_it_does_not_stop_at_the_first(sound: Path, tmp_path: Path) -> None:
    path = tmp_path / "several.h5ad"
    path.write_bytes(sound.read_bytes())
    names = ["index too large", "code below -1", "column too short", "obsm too short"]
    with h5py.File(path, "r+") as file:
        for name in names:
            RULES[name][0](file)
    expected = set().union(*(RULES[name][1] for name in names))
    assert found(scio.verify(path), "error") == expected


def test_the_message_names_value_position_and_row(sound: Path, tmp_path: Path) -> None:
    report = scio.verify(write_broken(sound, tmp_path / "b.h5ad", "index too large"))
    with h5py.File(sound) as file:
        row = int(np.searchsorted(file["X/indptr"][()], 17, side="right")) - 1
    assert report.findings[0].found == f"[17] is 25 in row {row}"
    assert report.findings[0].expected == "in [0, 25)"


# ---- storage


def flip(path: Path, dataset: str, *, i_chunk: int = 0) -> None:
    """Turn a byte in the middle of one chunk."""
    with h5py.File(path) as file:
        info = file[dataset].id.get_chunk_info(i_chunk)
    content = bytearray(path.read_bytes())
    content[info.byte_offset + info.size // 2] ^= 0x55
    path.write_bytes(content)


def test_a_chunk_that_does_not_decode(sound: Path, tmp_path: Path) -> None:
    path = tmp_path / "flipped.h5ad"
    path.write_bytes(sound.read_bytes())
    flip(path, "layers/dense")
    assert found(scio.verify(path), "error", "warning") == {("/layers/dense", "storage")}


def test_a_checksum_that_is_wrong(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "sum.h5ad")
    with h5py.File(path, "r+") as file:
        values = file["obsm/pca"][()]
        attributes = dict(file["obsm/pca"].attrs)
        del file["obsm/pca"]
        new = file.create_dataset("obsm/pca", data=values, chunks=(16, 4), fletcher32=True)
        new.attrs.update(attributes)
    assert scio.verify(path).findings == []
    flip(path, "obsm/pca", i_chunk=2)
    report = scio.verify(path)
    assert found(report, "error") == {("/obsm/pca", "checksum")}
    assert "(32, 0)" in report.findings[0].found


def test_the_digest_of_an_array_finds_what_nothing_else_can(tmp_path: Path) -> None:
    import anndata

    path = tmp_path / "digest.h5ad"
    adata = anndata.AnnData(np.arange(12_000, dtype=np.float32).reshape(600, 20))
    scio.write_h5ad(adata, path, compression="gzip", checksums=True)
    assert scio.verify(path).findings == []
    with h5py.File(path, "r+") as file:
        file["X"][3, 4] = -1  # by a program that knows nothing of digests; its checksums are right
    assert found(scio.verify(path), "error") == {("/X", "digest")}


@pytest.mark.parametrize("fraction", [0.0, 0.02, 0.3, 0.7, 0.99])
def test_a_truncated_file_is_unreadable(sound: Path, tmp_path: Path, fraction: float) -> None:
    whole = sound.read_bytes()
    path = tmp_path / "cut.h5ad"
    path.write_bytes(whole[: int(len(whole) * fraction)])
    report = scio.verify(path)
    assert report.exit_code == 2
    assert not report.is_sound
    assert found(report, "error") == {("/", "truncated" if fraction else "file")}


def test_what_is_behind_the_end_is_a_note(sound: Path, tmp_path: Path) -> None:
    path = tmp_path / "longer.h5ad"
    path.write_bytes(sound.read_bytes() + b"trailer")
    assert found(scio.verify(path), "note") == {("/", "file")}
    assert scio.verify(path).is_sound


def test_marked_as_open_by_a_writer(tmp_path: Path) -> None:
    path = tmp_path / "open.h5ad"
    with h5py.File(path, "w", libver="latest") as file:
        file.create_group("obs")
        file.flush()
        content = path.read_bytes()
    other = tmp_path / "copy.h5ad"
    other.write_bytes(content)
    report = scio.verify(other)
    assert report.exit_code == 2
    assert "open for writing" in report.findings[0].found


def test_a_dataset_of_any_declared_size_is_quick(sound: Path, tmp_path: Path) -> None:
    path = tmp_path / "huge.h5ad"
    path.write_bytes(sound.read_bytes())
    with h5py.File(path, "r+") as file:
        file.create_dataset("uns/huge", (10**13,), "f8", chunks=(10**8,))
        file.create_dataset("uns/many", (10**12,), "f8", chunks=(1,))
    start = time.monotonic()
    report = scio.verify(path)
    assert time.monotonic() - start < 10
    assert found(report, "error", "warning") == {("/uns/huge", "storage"), ("/uns/many", "safety")}


def test_windows_do_not_hide_what_crosses_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Rows that lie in several blocks: order, duplicates and positions are those of the whole."""
    path = tmp_path / "rows.h5ad"
    sound = write_sound(tmp_path / "s.h5ad", compression="gzip")
    path.write_bytes(sound.read_bytes())
    with h5py.File(path, "r+") as file:
        for name in ("data", "indices"):
            values = file[f"X/{name}"][()]
            del file[f"X/{name}"]
            file.create_dataset(f"X/{name}", data=values, chunks=(7,))
        at = len(values) - 1
        values[at] = 99
        file["X/indices"][at] = 99
    monkeypatch.setattr(
        "scio.io._storage_check.boxes", lambda d, **o: boxes(d, **{**o, "nbytes": 28})
    )
    report = scio.verify(path)
    assert found(report, "error", "warning") == {("/X/indices", "indices")}
    assert report.findings[0].found.startswith(f"[{at}] is 99")


# ---- deep


def test_deep_finds_what_is_found_otherwise(sound: Path, tmp_path: Path) -> None:
    assert scio.verify(sound, deep=True).findings == []
    path = write_broken(sound, tmp_path / "b.h5ad", "code too large")
    deep, plain = scio.verify(path, deep=True), scio.verify(path)
    assert [f.to_dict() for f in deep.findings] == [f.to_dict() for f in plain.findings]


def test_a_hung_child_is_a_finding(sound: Path) -> None:
    report = scio.verify(sound, deep=True, timeout=0.01)
    assert found(report, "error") == {("/", "child")}
    assert "did not end" in report.findings[0].found
    assert report.exit_code == 1


def children() -> list[int]:
    mine = str(os.getpid())
    out = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (folder / "stat").read_text().rpartition(")")[2].split()[1] == mine:
                out.append(int(folder.name))
        except OSError:
            continue
    return out


def test_a_killed_child_is_a_finding(sound: Path) -> None:
    before = set(children())

    def kill() -> None:
        end = time.monotonic() + 20
        while time.monotonic() < end:
            new = set(children()) - before
            if new:
                os.kill(new.pop(), signal.SIGKILL)
                return
            time.sleep(0.005)

    killer = threading.Thread(target=kill)
    killer.start()
    report = scio.verify(sound, deep=True)
    killer.join()
    assert found(report, "error") == {("/", "child")}
    assert "SIGKILL" in report.findings[0].found
    assert set(children()) <= before


def test_a_file_that_needs_more_memory_than_allowed_is_a_finding(tmp_path: Path) -> None:
    path = tmp_path / "large.h5ad"
    with h5py.File(path, "w") as file:
        file.create_dataset(
            "x", data=np.zeros(100 << 20, np.uint8), chunks=(100 << 20,), compression=1
        )
    report = scio.verify(path, deep=True, memory=64 << 20)
    assert not report.is_sound
    assert found(report, "error") <= {("/", "memory"), ("/", "child")}
    assert scio.verify(path, deep=True).is_sound


def test_deep_needs_a_path(sound: Path) -> None:
    with pytest.raises(ValueError, match="path"):
        scio.verify(sound.read_bytes(), deep=True)
    with pytest.raises(ValueError, match="deep"):
        scio.verify(sound, timeout=3)
    assert scio.verify(sound.read_bytes()).is_sound
    with pytest.raises(FileNotFoundError):
        scio.verify(sound.with_name("absent"), deep=True)


# ---- real files


def test_shared_files_are_sound(shared_data: Path) -> None:
    """All are; what is told of them is written down here."""
    known = {
        "brain10x_10000x1000_counts.h5ad": {("/var/_index", "labels")},
        "muon_multiome_1000_rna45_atac174.h5mu": {
            ("/mod/atac/uns/atac/peak_annotation/gene", "labels")
        },
    }
    paths = [p for p in shared_data.rglob("*.h5*") if "corpus" not in str(p)]
    paths += shared_data.rglob("*.loom")
    assert len(paths) > 50
    for path in paths:
        report = scio.verify(path)
        assert report.is_sound, report
        assert found(report, "error", "warning") == known.get(path.name, set()), report
