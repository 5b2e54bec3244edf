"""Programs in a process of their own."""

from __future__ import annotations

import subprocess
import sys
import textwrap


def child(code: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a Python program."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def output(code: str, *arguments: str, seconds: float = 110) -> str:
    """Run a Python program that must end well; what it prints."""
    process = child(code, *arguments)
    try:
        out, err = process.communicate(timeout=seconds)
    finally:
        process.kill()
    assert process.returncode == 0, (process.returncode, out[-1000:], err[-3000:])
    return out
