"""What a figure was measured on: processor, cores, memory, versions."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from scio import _core

LIBRARIES = (
    "numpy",
    "torch",
    "anndata",
    "scipy",
    "pandas",
    "h5py",
    "fsspec",
    "pydantic",
    "typer",
    "rich",
    "scDataset",
)


def versions() -> dict[str, str | None]:
    """Return the version of each library that scio can use; None: not installed."""
    return {name: version_of(name) for name in LIBRARIES}


def version_of(distribution: str) -> str | None:
    """Return the version of an installed distribution, else None."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def memory_nbytes() -> int:
    """Return the main memory of the machine, bytes."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def describe() -> dict[str, Any]:
    """Return processor, cores, memory, Python, versions and the build of the core."""
    return {
        "cpu": _cpu(),
        "cores": _core.cpu_count(),
        "memory_nbytes": memory_nbytes(),
        "load_average": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": versions(),
        "build": _core.build_info(),
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
