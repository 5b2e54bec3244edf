"""Reading labelled matrices from files, and writing them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scio._lazy import lazy
from scio.io._profiles import WriteReport
from scio.io.elements import Categorical, Frame
from scio.io.h5ad import AnnDataFile, MatrixHandle, open
from scio.io.hdf5 import HDF5File
from scio.io.read import (
    OpaqueElement,
    estimate_memory,
    opaque_elements,
    read_element,
    read_h5ad,
)

if TYPE_CHECKING:
    from scio.io.transpose import transpose_on_disk

__all__ = [
    "AnnDataFile",
    "Categorical",
    "Frame",
    "HDF5File",
    "MatrixHandle",
    "OpaqueElement",
    "WriteReport",
    "estimate_memory",
    "opaque_elements",
    "open",
    "read_element",
    "read_h5ad",
    "transpose_on_disk",
]

# What writes is loaded when it is needed.
__getattr__, __dir__ = lazy(__name__, {"transpose_on_disk": "scio.io.transpose"})
