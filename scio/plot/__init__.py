"""Pictures of quality control, gene selection and size factors, by matplotlib.

Every function draws into one `Axes` and returns it: its own, or the one given as ``ax``.  Colours are
those of Okabe and Ito, which colour-blind readers can tell apart.
"""

from __future__ import annotations

import importlib
from typing import Any

_OBJECTS = {
    "PALETTE": "scio.plot._figure",
    "highest_expr_genes": "scio.plot._expression",
    "highly_variable_genes": "scio.plot._genes",
    "qc_scatter": "scio.plot._qc",
    "qc_violin": "scio.plot._qc",
    "size_factors": "scio.plot._factors",
}

__all__ = sorted(_OBJECTS)  # noqa: PLE0605 - a sorted list is a list


def __getattr__(name: str) -> Any:
    if name in _OBJECTS:
        value = getattr(importlib.import_module(_OBJECTS[name]), name)
        globals()[name] = value  # the next look-up does not come here
        return value
    message = f"module 'scio.plot' has no attribute {name!r}"
    raise AttributeError(message)


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
