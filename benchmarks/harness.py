"""Timing and the description of the machine, shared by all benchmarks."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import scio

RESULTS = Path(__file__).resolve().parent / "results"


def machine() -> dict[str, Any]:
    """Describe processor, cores, memory, versions and commit."""
    model = next(
        (line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if "model name" in line),
        platform.processor(),
    )
    memory = next(line.split()[1] for line in _lines("/proc/meminfo") if "MemTotal" in line)
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    names = ("numpy", "scipy", "h5py", "anndata", "torch", "scDataset")
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(int(memory) / 2**20, 1),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in names},
        "scio": scio.build_info(),
        "commit": commit,
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


def version(name: str) -> str | None:
    """Version of an installed package, None when it is not there."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def run_times(work: Callable[[], float], n_runs: int) -> dict[str, float]:
    """Call `work` n_runs times; it returns a rate.  Give median, least and largest."""
    rates = [work() for _ in range(n_runs)]
    return {
        "median": statistics.median(rates),
        "least": min(rates),
        "largest": max(rates),
        "n_runs": n_runs,
    }


def in_child(script: str, function: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Call ``function(**arguments)`` of a benchmark script in a fresh process; it returns a dict.

    A process of its own per measurement keeps peak memory and warm-up of one system from another.
    """
    code = (
        "import json, runpy, sys; sys.path.insert(0, sys.argv[1]); "
        "module = runpy.run_path(sys.argv[2], run_name='child'); "
        "print('RESULT ' + json.dumps(module[sys.argv[3]](**json.loads(sys.argv[4]))))"
    )
    here = str(Path(script).resolve().parent)
    command = [sys.executable, "-W", "ignore", "-c", code, here, script, function]
    return from_command([*command, json.dumps(arguments)])


def from_command(command: list[str], seconds: float = 1_800.0) -> dict[str, Any]:
    """Run a command that prints ``RESULT`` and a JSON object; what goes wrong is under "error"."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds)
    except subprocess.TimeoutExpired:
        return {"error": f"not done after {seconds:.0f} s"}
    for line in done.stdout.splitlines():
        if line.startswith("RESULT "):
            result: dict[str, Any] = json.loads(line[7:])
            return result
    return {"error": (done.stderr.strip().splitlines() or ["no output"])[-1][:200]}


def warm(path: Path) -> None:
    """Read a file once, so that it lies in the page cache."""
    with path.open("rb", buffering=0) as file:
        buffer = bytearray(1 << 22)
        while file.readinto(buffer):
            pass


def save(name: str, rows: list[dict[str, Any]]) -> Path:
    """Write the rows as JSON lines, machine and versions first."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.jsonl"
    with path.open("w") as out:
        out.write(json.dumps({"machine": machine(), "time": time.strftime("%Y-%m-%d")}) + "\n")
        for row in rows:
            out.write(json.dumps(row) + "\n")
    return path
