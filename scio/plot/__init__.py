"""Pictures of quality control, gene selection and size factors, by matplotlib.

Every function draws into one `Axes` and returns it: its own, or the one given as ``ax``.  Colours are
those of Okabe and Ito, which colour-blind readers can tell apart.
"""

from __future__ import annotations

from scio._lazy import lazy

_OBJECTS = {
    "PALETTE": "scio.plot._figure",
    "highest_expr_genes": "scio.plot._expression",
    "highly_variable_genes": "scio.plot._genes",
    "qc_scatter": "scio.plot._qc",
    "qc_violin": "scio.plot._qc",
    "size_factors": "scio.plot._factors",
}

__all__ = [
    "PALETTE",
    "highest_expr_genes",
    "highly_variable_genes",
    "qc_scatter",
    "qc_violin",
    "size_factors",
]

__getattr__, __dir__ = lazy(__name__, _OBJECTS)
