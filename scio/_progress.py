"""A bar for long work: tqdm when it is installed, nothing when nobody looks."""

from __future__ import annotations

import importlib
import os
import sys
from types import TracebackType
from typing import Any


class Progress:
    """A progress bar, silent without tqdm, off a terminal and with ``SCIO_PROGRESS=0``.

    Parameters
    ----------
    total : int
        How much there is to do.
    unit : str
        What is counted, ``"cells"``.
    what : str
        Name of the work.
    is_shown : bool
        False: no bar in any case.
    """

    def __init__(self, total: int, *, unit: str, what: str, is_shown: bool = True) -> None:
        self._bar: Any = None
        if is_shown and _is_wanted():
            try:
                tqdm = importlib.import_module("tqdm").tqdm
            except ImportError:
                return
            self._bar = tqdm(total=total, unit=f" {unit}", desc=what, leave=False)

    def update(self, n: int) -> None:
        """Say that `n` more were done."""
        if self._bar is not None:
            self._bar.update(n)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()


def _is_wanted() -> bool:
    asked = os.environ.get("SCIO_PROGRESS", "")
    if asked not in ("", "0", "1"):
        message = f"SCIO_PROGRESS is {asked!r}, expected 0 or 1"
        raise ValueError(message)
    return asked == "1" or (asked == "" and sys.stderr is not None and sys.stderr.isatty())
