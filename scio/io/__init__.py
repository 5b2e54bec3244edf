"""Reading labelled matrices from files, and writing them."""

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
]
