"""Labelled scientific matrices, from disk to training batches.

Importing scio loads NumPy and the C core; everything else is imported when it is first used.

Examples
--------
>>> import scio
>>> with scio.open("pbmc3k.h5ad") as f:  # doctest: +SKIP
...     X = f.X.read()
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from scio._core import __version__, build_info, get_threads, set_threads, stats
from scio._lazy import lazy

if TYPE_CHECKING:
    from scio import data, datasets, errors, io, plot, pp, testing
    from scio.io.concat import concat_on_disk
    from scio.io.diff import diff
    from scio.io.h5ad import open
    from scio.io.loom import read_loom
    from scio.io.mtx import read_10x_mtx
    from scio.io.mudata import read_h5mu, write_h5mu
    from scio.io.read import read_h5ad
    from scio.io.repair import repair
    from scio.io.subset import write_subset
    from scio.io.tenx import read_10x_h5
    from scio.io.verify import verify
    from scio.io.write import write_h5ad
    from scio.matrix import CSR

__all__ = [
    "CSR",
    "__version__",
    "build_info",
    "concat_on_disk",
    "data",
    "datasets",
    "diff",
    "errors",
    "get_threads",
    "io",
    "open",
    "plot",
    "pp",
    "read_10x_h5",
    "read_10x_mtx",
    "read_h5ad",
    "read_h5mu",
    "read_loom",
    "repair",
    "set_threads",
    "stats",
    "testing",
    "verify",
    "write_h5ad",
    "write_h5mu",
    "write_subset",
]

_MODULES = frozenset({"data", "datasets", "errors", "io", "plot", "pp", "testing"})
_OBJECTS = {
    "CSR": "scio.matrix",
    "concat_on_disk": "scio.io.concat",
    "diff": "scio.io.diff",
    "open": "scio.io.h5ad",
    "read_10x_h5": "scio.io.tenx",
    "read_10x_mtx": "scio.io.mtx",
    "read_h5ad": "scio.io.read",
    "read_h5mu": "scio.io.mudata",
    "read_loom": "scio.io.loom",
    "repair": "scio.io.repair",
    "verify": "scio.io.verify",
    "write_h5ad": "scio.io.write",
    "write_h5mu": "scio.io.mudata",
    "write_subset": "scio.io.subset",
}

__getattr__, __dir__ = lazy(__name__, _OBJECTS, _MODULES)
