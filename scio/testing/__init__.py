"""For your own tests: AnnData objects of every kind, deep equality, files that break one rule.

Strategies need hypothesis, files that break a rule need h5py; neither is imported before it is used.

Examples
--------
>>> import scio.testing
>>> sorted(scio.testing.RULES)[:2]
['array is virtual', 'categories are missing']
"""

from __future__ import annotations

from scio.testing._broken import RULES, BrokenFile, Rule, break_rule, broken_files
from scio.testing._equal import assert_equal
from scio.testing._strategies import (
    DTYPES,
    anndatas,
    columns,
    dense_arrays,
    frames,
    sparse_matrices,
    texts,
    uns,
)

__all__ = [
    "DTYPES",
    "RULES",
    "BrokenFile",
    "Rule",
    "anndatas",
    "assert_equal",
    "break_rule",
    "broken_files",
    "columns",
    "dense_arrays",
    "frames",
    "sparse_matrices",
    "texts",
    "uns",
]
