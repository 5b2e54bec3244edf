"""``scio verify``, ``scio repair``: exit codes of real processes, text and JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run, assert_refused
from tests.io.broken import write_broken, write_sound


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sound(tmp_path_factory.mktemp("s") / "sound.h5ad", compression="gzip")


@pytest.mark.parametrize("options", [(), ("--deep",)], ids=["plain", "deep"])
def test_exit_codes(scio_run: Run, sound: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    done = scio_run("verify", sound, *options)
    assert (done.returncode, done.stdout) == (0, f"{sound}: sound\n"), done.stderr
    broken = write_broken(sound, tmp_path / "b.h5ad", "code too large")
    done = scio_run("verify", broken, *options, "--json")
    assert done.returncode == 1
    facts = json.loads(done.stdout)
    assert facts["verdict"] == "unsound"
    assert [(f["path"], f["rule"]) for f in facts["findings"]] == [("/obs/kind/codes", "codes")]
    cut = tmp_path / "cut.h5ad"
    cut.write_bytes(sound.read_bytes()[:5000])
    done = scio_run("verify", cut, *options)
    assert done.returncode == 2
    assert "unreadable" in done.stdout
    assert "truncated" in done.stdout


def test_what_cannot_be_opened_is_unreadable(scio_run: Run, tmp_path: Path) -> None:
    assert_refused(scio_run("verify", tmp_path / "absent.h5ad"), 2, "absent.h5ad")
    assert_refused(scio_run("verify", tmp_path, "--deep"), 2, "folder")
    assert_refused(scio_run("verify", "-"), 2, "pipe")


def test_a_child_that_hangs(scio_run: Run, sound: Path) -> None:
    done = scio_run("verify", sound, "--deep", "--timeout", "0.01")
    assert done.returncode == 1
    assert "did not end within 0.01 s" in done.stdout


def test_repair(scio_run: Run, sound: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.h5ad"
    unsorted = write_broken(sound, tmp_path / "u.h5ad", "unsorted row")
    done = scio_run("repair", unsorted, target)
    assert done.returncode == 0, done.stderr
    assert "rows were sorted" in done.stdout
    assert scio_run("verify", target).returncode == 0
    assert_refused(scio_run("repair", unsorted, target), 2, "--overwrite")
    broken = write_broken(sound, tmp_path / "b.h5ad", "code too large")
    done = scio_run("repair", broken, target, "--overwrite", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["verdict"] == "incomplete"
    assert_refused(scio_run("repair", broken, broken, "--overwrite"), 2, "another name")
