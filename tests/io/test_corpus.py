"""Every real file, element by element, against h5py.

What scio refuses and what h5py cannot read is listed here by file, with the reason: anything else that
is refused, or that differs, fails.
"""

from __future__ import annotations

from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401  teaches h5py the filters that it lacks
import pytest

from scio.errors import IOFormatError
from scio.io import HDF5File
from tests.io.compare import Comparison

FOLDERS = (
    "hdf5_corpus",
    "h5ad_formats",
    "h5ad_filters",
    "tenx",
    "h5mu",
    "loom",
    "counts",
    "perturb",
)
SUFFIXES = {".h5", ".hdf5", ".h5ad", ".h5mu", ".loom"}

# Files that both readers refuse to open, and why.
CLOSED = {
    "hdf5_corpus/jhdf/test_byteshuffle_compressed_datasets_latest.hdf5": "open for writing",
}

# Part of a refusal that is right, by file: features that scio refuses by name.
REFUSED: dict[str, tuple[str, ...]] = {
    "hdf5_corpus/pyfive/references.hdf5": ("region reference",),
}

# Values in which h5py is wrong or gives another kind of thing: the reason stands beside each.
OTHER_THAN_H5PY = {
    # stored big-endian; h5py hands out the bytes without swapping (1 becomes 2**56)
    ("hdf5_corpus/pyfive/attr_datatypes.hdf5", "/@vlen_uint64"),
    # h5py strips the padding NULs of opaque data
    ("hdf5_corpus/jhdf/opaque_datasets_earliest.hdf5", "/opaque_2d_string"),
    ("hdf5_corpus/jhdf/opaque_datasets_latest.hdf5", "/opaque_2d_string"),
}

# What h5py cannot read and scio can: collections of less than 4,096 bytes, which other software writes.
ONLY_BY_SCIO = {
    ("hdf5_corpus/jhdf/globalheaps_test.hdf5", "/@attribute"),
    ("hdf5_corpus/jhdf/var-length-strings-reused.hdf5", "/a0"),
}


def _files(root: Path) -> list[Path]:
    return sorted(
        p for folder in FOLDERS for p in (root / folder).rglob("*") if p.suffix in SUFFIXES
    )


def test_every_file_equals_h5py(shared_data: Path) -> None:
    files = _files(shared_data)
    assert len(files) > 120
    problems: list[str] = []
    n_values = 0
    for path in files:
        name = path.relative_to(shared_data).as_posix()
        if name in CLOSED:
            with pytest.raises(IOFormatError, match=CLOSED[name]):
                HDF5File(path)
            with pytest.raises(OSError, match="open"):
                h5py.File(path, "r")
            continue
        result = Comparison(path).run()
        n_values += result.n_values
        differences = [text.partition(": ") for text in result.differences]
        problems += [
            f"{name}: {a}: {b}" for a, _, b in differences if (name, a) not in OTHER_THAN_H5PY
        ]
        unread = {(name, text.partition(": ")[0]) for text in result.unread_by_h5py}
        problems += [f"{name}: {place} not read by h5py" for place in unread - ONLY_BY_SCIO]
        for place, text in result.refused.items():
            if not any(part in text for part in REFUSED.get(name, ())):
                problems.append(f"{name}: {place} refused: {text}")
    assert problems == []
    assert n_values > 4_500
    assert HDF5File(shared_data / "hdf5_corpus/pyfive/attr_datatypes.hdf5").attr(
        "/", "vlen_uint64"
    )[2] == [42]
