"""``scio diff A B``: exit codes of real processes, text and JSON."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import Run, assert_refused
from tests.io.broken import RULES, write_broken, write_sound


def test_exit_codes(scio_run: Run, tmp_path: Path) -> None:
    first = write_sound(tmp_path / "a.h5ad")
    done = scio_run("diff", first, first)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip().endswith("equal")
    assert "column too short" in RULES
    other = write_broken(first, tmp_path / "b.h5ad", "column too short")
    done = scio_run("diff", first, other)
    assert done.returncode == 1
    assert "/obs/depth: shape: (60,) in A, (59,) in B" in done.stdout
    done = scio_run("diff", first, other, "--json", "--no-values")
    assert done.returncode == 1
    assert json.loads(done.stdout)["differences"][0]["path"] == "/obs/depth"
    assert_refused(scio_run("diff", first, tmp_path / "absent"), 2, "absent")
    text = tmp_path / "text"
    text.write_text("no HDF5")
    assert_refused(scio_run("diff", text, first), 2, "text")
