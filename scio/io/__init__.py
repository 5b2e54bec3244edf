"""Reading labelled matrices from files."""

from scio.io.elements import Categorical, Frame
from scio.io.h5ad import AnnDataFile, MatrixHandle, open
from scio.io.hdf5 import HDF5File

__all__ = ["AnnDataFile", "Categorical", "Frame", "HDF5File", "MatrixHandle", "open"]
