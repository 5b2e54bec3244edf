"""Arguments that several classes of `scio.data` take, checked and turned into what they mean."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scio._optional import require

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def check_choice(name: str, value: Any, allowed: Sequence[str]) -> None:
    if value not in allowed:
        message = f"{name} is one of {tuple(allowed)}, not {value!r}"
        raise ValueError(message)


def check_least(name: str, value: int, least: int) -> None:
    if value < least:
        message = f"{name} is at least {least}, not {value!r}"
        raise ValueError(message)


def nbytes(name: str, value: int | str | None) -> int:
    """Bytes of 1_000_000, "500MB", "2 GiB"; 0 for None, which lets the core choose."""
    if value is None:
        return 0
    if isinstance(value, str):
        text = value.strip().upper()
        digits = text.rstrip("KMGIB ")
        unit = text[len(digits) :].strip()
        try:
            nbytes = float(digits) * _UNITS[unit]
        except (ValueError, KeyError):
            message = f"{name} is a number of bytes or a text like '500MB' or '2GiB', not {value!r}"
            raise ValueError(message) from None
    else:
        nbytes = float(value)
    if not nbytes >= 1 or math.isinf(nbytes):
        message = f"{name} is above 0, not {value!r}"
        raise ValueError(message)
    return int(nbytes)


def rank_and_world(rank: int | None, world_size: int | None) -> tuple[int, int]:
    if (rank is None) != (world_size is None):
        message = "give rank and world_size together, or neither"
        raise ValueError(message)
    if rank is None or world_size is None:
        rank, world_size = _environment_rank()
    if world_size < 1 or not 0 <= rank < world_size:
        message = f"rank lies in [0, world_size), not rank={rank}, world_size={world_size}"
        raise ValueError(message)
    return int(rank), int(world_size)


def _environment_rank() -> tuple[int, int]:
    distributed = getattr(sys.modules.get("torch"), "distributed", None)
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def cache_directory(cache: str | os.PathLike[str] | None) -> Path | None:
    """Turn the argument `cache` into a directory."""
    if cache is None:
        return None
    if cache == "auto":
        platformdirs = require("platformdirs", "cache='auto'")
        return Path(platformdirs.user_cache_dir("scio"))
    return Path(cache)
