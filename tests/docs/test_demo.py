"""The first of the README's two commands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_demo_runs() -> None:
    command = [sys.executable, str(ROOT / "examples" / "demo.py")]
    process = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False
    )
    assert process.returncode == 0, process.stderr
    assert "stats of the first epoch" in process.stdout
