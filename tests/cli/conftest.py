"""A made file, and the command line in a real process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.data.conftest import make_adata, rewrite

ROOT = Path(__file__).resolve().parents[2]
N_CELLS, N_GENES = 3_000, 120
CHUNK = 2_011
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """3,000 cells x 120 genes, gzip, sorted by cell_type, cells straddle chunks."""
    path = tmp_path_factory.mktemp("made") / "made.h5ad"
    return rewrite(make_adata(N_CELLS, N_GENES), path, chunk=CHUNK)


def environment(**more: str) -> dict[str, str]:
    """The environment of a child: this checkout is importable, colours are not switched off."""
    env = {k: v for k, v in os.environ.items() if k != "NO_COLOR"}
    search = os.pathsep.join(filter(None, (str(ROOT), env.get("PYTHONPATH"))))
    return {**env, "PYTHONPATH": search, **more}


def command(*arguments: object) -> list[str]:
    """The command line as a user starts it."""
    return [sys.executable, "-m", "scio.cli", *map(str, arguments)]


@pytest.fixture
def scio_run() -> Run:
    """Run ``scio …`` in a process of its own."""

    def run(*arguments: object, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(*arguments),
            capture_output=True,
            text=True,
            env=environment(**env),
            timeout=100,
            check=False,
        )

    return run


def assert_refused(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """It ended with `code`, said one line with all the words on stderr, and no traceback."""
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr
    if code == 1:
        assert done.stderr.startswith("scio: ")
        assert len(done.stderr.strip().splitlines()) == 1
