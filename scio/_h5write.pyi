"""Writing HDF5 through libhdf5.  Private: ``scio.io.writer`` is its face."""

import os
from typing import Any, final

hdf5_version: str

@final
class Writer:
    """A new HDF5 file being written; its first failure comes back from every later call."""

    def __new__(cls, path: str | bytes | os.PathLike[str], /) -> Writer: ...
    def group(self, path: str, /, *, wide: bool = False) -> None:
        """Make a group; wide: attributes beyond 64 KiB."""
    # a value: str, bool, int, float, an array of numbers or bools, a list or tuple of str
    def attr(self, path: str, name: str, value: Any, /) -> None:
        """Write an attribute."""
    def dataset(self, path: str, value: Any, /) -> None:
        """Write a contiguous dataset."""
    def reserve(self, path: str, /, *, shape: tuple[int, ...], dtype: str) -> int:
        """Set a contiguous dataset's space aside; return its offset in the file."""
    def close(self) -> None:
        """End the file and sync it; raises the first failure."""
    def discard(self) -> None:
        """Let go of the file, which is of no use then."""
