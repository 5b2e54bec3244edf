"""Writing HDF5 through libhdf5.  Private: ``scio.io.writer`` is its face."""

import os
from typing import Any, final

from numpy.typing import DTypeLike, NDArray

hdf5_version: str

@final
class Writer:
    """A new HDF5 file being written; its first failure comes back from every later call."""

    def __new__(
        cls, path: str | bytes | os.PathLike[str], /, *, user_block: str = ...
    ) -> Writer: ...
    # user_block: text, fewer than 512 bytes of UTF-8, that stands in front of the HDF5 file
    def group(self, path: str, /, *, wide: bool = False) -> None:
        """Make a group; wide: attributes beyond 64 KiB."""
    # a value: None, str, bytes, bool, int, float, complex, a list or tuple of str, an array or scalar of
    # numbers (float16 and complex too), bools, bytes, str (also as objects), or records of these
    def attr(self, path: str, name: str, value: Any, /) -> None:
        """Write an attribute."""
    def dataset(self, path: str, value: Any, /) -> None:
        """Write a contiguous dataset."""
    def reserve(self, path: str, /, *, shape: tuple[int, ...], dtype: str) -> int:
        """Set a contiguous dataset's space aside; return its offset in the file."""
    def chunked(
        self,
        path: str,
        /,
        *,
        shape: tuple[int | None, ...],
        dtype: DTypeLike,
        chunks: tuple[int, ...],
        maxshape: tuple[int | None, ...] | None = None,
        shuffle: bool = True,
        deflate: int | None = 1,
        fletcher32: bool = False,
    ) -> ChunkedDataset:
        """Make a chunked dataset to append rows to.

        ``shape[0]`` None: as many rows as come.  A chunk is cut to a size that cannot grow.
        """
    def close(self) -> None:
        """End the file, finishing what is open, and sync it; raises the first failure."""
    def discard(self) -> None:
        """Let go of the file, which is of no use then."""

@final
class ChunkedDataset:
    """A chunked dataset of a Writer, to which rows are appended."""

    def append(self, array: NDArray[Any], /, *, threads: int = -1) -> None:
        """Add rows behind those that are there: any number, of the dataset's dtype in any byte order."""
    def finish(self) -> int:
        """Write what is left; return the bytes stored in the file."""
